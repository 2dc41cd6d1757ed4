import { compareIds } from './compare-ids.ts'
import type { Role } from './index.ts'

/**
 * One side's proposal, as far as the choice depends on it. A name listed twice counts at its first place.
 */
export interface Offer {
  peerId: Uint8Array
  schemes: string[]
}

/**
 * The default choice of a standard negotiation's responder (draft, "Standard Negotiation"): the proposer's earliest
 * scheme that we speak, too, or undefined if there is none
 */
export function chooseStandard (proposed: string[], spoken: string[]): string | undefined {
  const speaks = new Set(spoken)

  return proposed.find(scheme => speaks.has(scheme))
}

/**
 * The outcome of a simultaneous negotiation (draft, "Simultaneous Negotiation"): the scheme with the lowest sum of its
 * indexes in both lists; on a tie, the one of these that the lower id lists earlier. The lower id initiates. Both sides
 * come to the same scheme and to opposite roles; undefined if they have no scheme in common. The ids must differ.
 */
export function chooseSimultaneous (local: Offer, remote: Offer): { scheme: string, role: Role } | undefined {
  const role: Role = compareIds(local.peerId, remote.peerId) < 0 ? 'initiator' : 'responder'
  const [lower, higher] = role === 'initiator' ? [local, remote] : [remote, local]
  const places = placesOf(higher.schemes)

  let scheme: string | undefined
  let lowestSum = Infinity

  // in the lower id's order, so that of equal sums the first one found is its favourite
  for (const [candidate, index] of placesOf(lower.schemes)) {
    const sum = index + (places.get(candidate) ?? Infinity)

    if (sum < lowestSum) {
      scheme = candidate
      lowestSum = sum
    }
  }

  return scheme == null ? undefined : { scheme, role }
}

/**
 * Each name's index in the list as it is on the wire: repetitions keep their places, and count for nothing
 */
function placesOf (schemes: string[]): Map<string, number> {
  const places = new Map<string, number>()

  schemes.forEach((scheme, index) => {
    if (!places.has(scheme)) {
      places.set(scheme, index)
    }
  })

  return places
}
