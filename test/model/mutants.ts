/**
 * Negotiators that are wrong on purpose: an explorer that finds nothing in them would prove nothing. Each is the real source
 * with a few words replaced as it is loaded.
 */
import { registerHooks } from 'node:module'
import type { Negotiator } from '../../src/negotiation/index.ts'

export interface Mutant {
  name: string
  file: string

  /** Text that occurs in the file once, and what is put in its place */
  replace: Array<[string, string]>

  /** The configuration that it is found in */
  foundIn: string
}

export const mutants: Mutant[] = [
  {
    name: 'compares ids as bytes',
    file: 'compare-ids.ts',
    replace: [['x = withoutLeadingZeros(a)', 'x = a'], ['y = withoutLeadingZeros(b)', 'y = b'], ['x.byteLength !== y.byteLength', 'x.byteLength === 0']],
    foundIn: 'both dial: equal lists'
  },
  {
    name: 'lets the higher id initiate',
    file: 'choose-scheme.ts',
    replace: [["< 0 ? 'initiator'", "> 0 ? 'initiator'"]],
    foundIn: 'both dial: equal lists'
  },
  {
    name: 'breaks a tie by its own list',
    file: 'choose-scheme.ts',
    replace: [["role === 'initiator' ? [local, remote] : [remote, local]", '[local, remote]']],
    foundIn: 'both dial: reversed lists'
  },
  {
    name: 'chooses by the lower id\'s list alone',
    file: 'choose-scheme.ts',
    replace: [['const sum = index +', 'const sum = index + 0 *']],
    foundIn: 'both dial: lists by rank'
  },
  {
    name: 'lets its proposal rest as soon as both have proposed',
    file: 'negotiator.ts',
    replace: [["    this.outcome = { type: 'agreed', agreement }\n", "    this.outcome = { type: 'agreed', agreement }\n    this.retransmission.stop()\n"]],
    foundIn: 'both dial: equal lists'
  },
  {
    name: 'answers every repeated proposal with its own',
    file: 'negotiator.ts',
    replace: [["choice.role === 'responder' ? this.bareProposal : undefined", 'this.bareProposal']],
    foundIn: 'both dial: equal lists'
  },
  {
    name: 'accepts once only',
    file: 'negotiator.ts',
    replace: [['        this.transmit(this.answered.response)\n', '']],
    foundIn: 'one dials: equal lists'
  },
  {
    name: 'lets its proposal rest when the scheme\'s packets come',
    file: 'negotiator.ts',
    replace: [["      return 'scheme'\n", "      this.retransmission.stop()\n      return 'scheme'\n"]],
    foundIn: 'one dials: equal lists'
  },
  {
    name: 'counts on its first flight although a proposal went without it',
    file: 'negotiator.ts',
    replace: [['this.packetInEveryProposal = false\n    this.transmit(this.bareProposal)', 'this.transmit(this.bareProposal)']],
    foundIn: 'one dials: equal lists'
  },
  {
    name: 'counts on its first flight in a simultaneous negotiation',
    file: 'negotiator.ts',
    replace: [['sendFirstFlight: true', 'sendFirstFlight: false']],
    foundIn: 'both dial: equal lists'
  },
  {
    name: 'leaves the other without a reject when nothing is in common',
    file: 'negotiator.ts',
    replace: [["by what it understands at once.\n      this.answer(proposal, encodeFrame({ type: 'reject' }))", 'by what it understands at once.']],
    foundIn: 'both dial: neither listens, nothing in common'
  },
  {
    name: 'honours a reject at once',
    file: 'negotiator.ts',
    replace: [['this.impending ??= { error, at: now + this.rejectGrace }', 'this.fail(error)']],
    foundIn: 'somebody forges datagrams of the other: one dials; only bad news, to who dials'
  },
  {
    name: 'goes by an accept after its agreement',
    file: 'negotiator.ts',
    replace: [["this.currentStatus === 'proposing' && this.schemes.includes(scheme)", "this.currentStatus !== 'idle' && this.schemes.includes(scheme)"]],
    foundIn: 'somebody forges datagrams of the other: both dial'
  },
  {
    name: 'takes an accept of what it did not offer',
    file: 'negotiator.ts',
    replace: [["this.currentStatus === 'proposing' && this.schemes.includes(scheme)", "this.currentStatus === 'proposing'"]],
    foundIn: 'somebody forges datagrams of the other: one dials'
  },
  {
    name: 'takes a proposal with another packet for a repetition',
    file: 'fingerprint.ts',
    replace: [['&& (a.packet == null || b.packet == null || a.packet === b.packet)', '']],
    foundIn: 'somebody crashes and comes back: to a young session, and its packet arrives'
  },
  {
    name: 'takes a repetition for one however old the session is',
    file: 'negotiator.ts',
    replace: [['return this.securedAt != null && !isSamePacket', 'return this.localId == null && !isSamePacket']],
    foundIn: 'somebody crashes and comes back: to an old session, without an initiation packet'
  }
]

const NEGOTIATION = new URL('../../src/negotiation/', import.meta.url).href

/**
 * The negotiator's class with the mutation
 */
export async function loadMutant (mutant: Mutant): Promise<typeof Negotiator> {
  const tag = `?mutant=${mutants.indexOf(mutant)}`
  const file = `${NEGOTIATION}${mutant.file}${tag}`
  const hooks = registerHooks({
    resolve (specifier, context, nextResolve) {
      const resolved = nextResolve(specifier, context)

      // the folder's modules as one copy
      return context.parentURL?.endsWith(tag) === true && resolved.url.startsWith(NEGOTIATION)
        ? { ...resolved, url: `${resolved.url}${tag}` }
        : resolved
    },
    load (url, context, nextLoad) {
      const loaded = nextLoad(url, context)

      return url === file ? { ...loaded, source: mutate(String(loaded.source), mutant) } : loaded
    }
  })

  try {
    return (await import(`${NEGOTIATION}negotiator.ts${tag}`)).Negotiator
  } finally {
    hooks.deregister()
  }
}

function mutate (source: string, { name, replace }: Mutant): string {
  for (const [text, replacement] of replace) {
    if (source.split(text).length !== 2) {
      throw new Error(`"${text}", which the mutant that ${name} replaces, has to occur once`)
    }

    source = source.replace(text, () => replacement)
  }

  return source
}
