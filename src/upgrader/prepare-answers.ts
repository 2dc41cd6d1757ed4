import { encodeFrame } from '../wire/index.ts'
import type { UpgradeContext } from './upgrade.ts'
import type { PreparedAnswers } from '../sockets/index.ts'

/**
 * What is answered to every offer of up to `maxPreparedNames` of our schemes in any order, if it leads to a scheme that can make strangers prove
 * their address. An endpoint has one means for that: the first scheme's that has one.
 */
export function prepareAnswers (context: UpgradeContext): PreparedAnswers | undefined {
  const { schemes, select, peerId, maxPreparedNames } = context
  const id = peerId.toMultihash().bytes
  const validators = new Map([...schemes].map(([name, scheme]) => [name, scheme.addressValidator?.(context)]))
  const addressValidator = [...validators.values()].find(validator => validator != null)

  if (addressValidator == null) {
    return undefined
  }

  const answers: PreparedAnswers['answers'] = []

  for (const offered of arrangements([...schemes.keys()], maxPreparedNames)) {
    const proposal = { type: 'propose' as const, peerId: id, schemes: offered }
    const scheme = select(proposal)

    if (scheme != null && validators.get(scheme) === addressValidator) {
      answers.push({
        offer: encodeFrame(proposal).subarray(offerOffset(id)),
        response: encodeFrame({ type: 'accept', scheme })
      })
    }
  }

  return { answers, addressValidator, peerId: id }
}

/**
 * Where in a proposal the number of schemes stands: behind its type, and the id with a length of one byte (draft, "Proposal")
 */
function offerOffset (id: Uint8Array): number {
  return 2 + id.byteLength
}

/**
 * Every choice of up to `max` names, in every order
 */
function arrangements (names: string[], max: number): string[][] {
  if (max === 0) {
    return []
  }

  return names.flatMap(first => [
    [first],
    ...arrangements(names.filter(name => name !== first), max - 1).map(rest => [first, ...rest])
  ])
}
