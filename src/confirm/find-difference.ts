import { equals } from 'uint8arrays/equals'
import { quoteNames } from '../negotiation/quote-names.ts'
import type { Party, Transcript } from './index.ts'
import type { Role } from '../negotiation/index.ts'
import type { Propose } from '../wire/index.ts'

export interface Difference {
  /**
   * See `DowngradeDetectedError.reason`
   */
  reason: 'binding' | 'peers' | 'scheme' | 'mode' | 'proposals'
  text: string
}

/**
 * The gravest difference of two transcripts that differ, for people
 */
export function findDifference (own: Transcript, remote: Transcript, role: Role): Difference {
  if (differs(own, remote, party => party.peerId)) {
    return { reason: 'peers', text: 'the remote names other peers as the initiator and the responder' }
  }

  if (differs(own, remote, party => party.keyHash)) {
    return { reason: 'binding', text: 'the remote has proved itself in another session, somebody is between the two' }
  }

  const mode = own.simultaneous === remote.simultaneous ? '' : `; it saw a ${nameMode(remote)} negotiation, we a ${nameMode(own)} one`
  const proposals = [...compareProposals(own, remote, role)].join('; ')

  if (own.scheme !== remote.scheme) {
    return { reason: 'scheme', text: `the remote agreed on ${quoteNames([remote.scheme])}, we on ${quoteNames([own.scheme])}${mode}` }
  }

  if (proposals !== '') {
    return { reason: 'proposals', text: `${proposals}${mode}` }
  }

  return { reason: 'mode', text: `both sides agreed on ${quoteNames([own.scheme])}${mode}` }
}

function differs (a: Transcript, b: Transcript, get: (party: Party) => Uint8Array): boolean {
  return !equals(get(a.initiator), get(b.initiator)) || !equals(get(a.responder), get(b.responder))
}

function * compareProposals (own: Transcript, remote: Transcript, role: Role): Generator<string> {
  for (const by of ['initiator', 'responder'] as const) {
    const [here, there] = [own.proposals[by], remote.proposals[by]]

    if (here == null || there == null || isSameOffer(here, there)) {
      continue
    }

    yield by === role
      ? `we proposed ${offer(here)}, the remote saw ${offer(there, here)}`
      : `the remote proposed ${offer(there)}, we saw ${offer(here, there)}`
  }
}

function isSameOffer (a: Propose, b: Propose): boolean {
  return equals(a.peerId, b.peerId) && JSON.stringify(a.schemes) === JSON.stringify(b.schemes)
}

function offer (proposal: Propose, other: Propose = proposal): string {
  return `${quoteNames(proposal.schemes)}${equals(proposal.peerId, other.peerId) ? '' : ' of another peer'}`
}

function nameMode ({ simultaneous }: Transcript): string {
  return simultaneous ? 'simultaneous' : 'standard'
}
