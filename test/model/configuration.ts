import { Negotiator } from '../../src/negotiation/index.ts'
import { nameId } from './describe.ts'
import { agreementsMatch, downgradeOnly, endsWell, endsWellAttacked, noAgreementChanges, nothingUnexpected, sessionsMatch } from './properties.ts'
import type { Budgets, Moment, Property } from './explorer.ts'
import type { PeerView } from './machine.ts'
import type { NegotiatorFactory, PeerInit } from './peer.ts'
import type { Ending } from './settler.ts'

export interface Configuration {
  name: string
  peers: [PeerInit, PeerInit]
  budgets: Budgets

  /**
   * When peers crash: at any moment by default; `settled`, when both have a session and nothing is on the way any more; `old`,
   * when that was long ago, too
   */
  restarts?: 'settled' | 'old'

  /** What the draft's rules lead to, worked out by hand: an independent second opinion. Undefined: nothing in common. */
  expected: Expected

  /** What the attacker may send, as the other peer: to the first or the second */
  injections?: Array<{ to: 0 | 1, datagram: Uint8Array }>

  /** Whether a peer may refuse a session, for its claim of who is there was forged: its goodbye may be lost */
  refuses?: boolean

  /** Whether the grace of bad news is longer than any honest answer takes */
  graceLasts?: boolean

  /** Whether he begins only when both have agreed */
  injectsLate?: boolean

  /** Hold in every state */
  properties: Property[]

  /** Holds for every step of a peer, between its states of before and after */
  stepProperty?(moment: Moment, verdict: string, before: PeerView, after: PeerView): string | undefined

  /** Holds for how it ends from every state: if the network behaves from then on, and if it is cut */
  ending(moment: Moment, ending: Ending, cut: boolean): string | undefined
}

export interface Expected {
  /** Standard, by who proposes: the scheme */
  standard: [string | undefined, string | undefined]

  /** Simultaneous: the scheme, and who initiates */
  simultaneous?: { scheme: string, initiator: 0 | 1 }
}

/** As a number lower than every id of an Ed25519 key, though it has the higher first byte: draft, "Simultaneous Negotiation" */
export const LOW = nameId(Uint8Array.of(0x12, 0x20, ...new Uint8Array(32)), 'low')
export const HIGH = nameId(Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...new Uint8Array(32)), 'high')
export const OTHER = nameId(Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...new Uint8Array(31), 7), 'other')

export const NOTHING: Budgets = {
  lose: 0,
  duplicate: 0,
  dials: [0, 0],
  late: [false, false],
  retransmit: [0, 0],
  repeat: [0, 0],
  timeouts: [0, 0],
  aborts: [0, 0],
  restarts: [0, 0],
  inject: 0
}

export interface ConfigurationInit {
  name: string
  a?: Partial<PeerInit>
  b?: Partial<PeerInit>
  expected: Expected
  budgets: Partial<Budgets>
  injections?: Configuration['injections']
  restarts?: Configuration['restarts']
  injectsLate?: boolean
  graceLasts?: boolean
  refuses?: boolean
  createNegotiator?: NegotiatorFactory
}

export function configure (init: ConfigurationInit): Configuration {
  const attacked = init.injections != null
  const createNegotiator = init.createNegotiator ?? (init => new Negotiator(init))
  const a: PeerInit = { name: 'A', id: LOW, schemes: ['/q', '/d'], packet: 'packet', remoteId: HIGH, createNegotiator, ...init.a }
  const b: PeerInit = { name: 'B', id: HIGH, schemes: ['/q', '/d'], packet: 'packet', remoteId: LOW, createNegotiator, ...init.b }

  return {
    name: init.name,
    peers: [{ ...a, remoteId: b.id }, { ...b, remoteId: a.id }],
    budgets: { ...NOTHING, ...init.budgets },
    expected: init.expected,
    injections: init.injections,
    restarts: init.restarts,
    injectsLate: init.injectsLate,
    refuses: init.refuses,
    graceLasts: init.graceLasts,
    properties: attacked ? [sessionsMatch, downgradeOnly] : [sessionsMatch, agreementsMatch],
    stepProperty: attacked ? noAgreementChanges : nothingUnexpected,
    ending: attacked ? endsWellAttacked : endsWell
  }
}
