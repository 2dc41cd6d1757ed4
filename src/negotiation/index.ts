/**
 * The PSEC negotiation as a value: frames and clock readings go in, frames, deadlines and an outcome come out. No
 * sockets, clocks or randomness inside (sans-IO), so that a test can play any network and repeat it from a seed.
 */
import type { Propose } from '../wire/index.ts'

/**
 * Of the two sides of the security scheme, in a standard negotiation the initiator is who has proposed (draft, "Standard Negotiation")
 */
export type Role = 'initiator' | 'responder'

/**
 * Of a standard negotiation, the proposal of who initiates the scheme; of a simultaneous one, those of both
 */
export interface Proposals {
  initiator: Propose
  responder?: Propose
}

/**
 * What two peers agreed on (draft, "Response")
 */
export interface Agreement {
  /**
   * The chosen scheme's name
   */
  scheme: string

  /**
   * Whether this side initiates the scheme
   */
  role: Role

  /**
   * Whether both had proposed (draft, "Simultaneous Negotiation")
   */
  simultaneous: boolean

  /**
   * The offers in order of priority, without repetitions. The remote's is known only from its proposal: an initiator of
   * a standard negotiation never sees one.
   */
  localSchemes: string[]
  remoteSchemes?: string[]

  /**
   * The proposals that the agreement follows from, as they were sent and received: with repetitions, without initiation packets
   */
  proposals: Proposals

  /**
   * The peer id (multihash) that the remote's proposal claims, if there was one: the session must prove it
   */
  claimedId?: Uint8Array

  /**
   * For the responder: the initiator's first scheme packet, where it came in the proposal and counts
   */
  initiationPacket?: Uint8Array

  /**
   * For the initiator: whether the responder may lack the first flight, so that the scheme has to send it (again)
   */
  sendFirstFlight: boolean
}

export interface NegotiatorInit {
  /**
   * Our peer id as a multihash
   */
  localId: Uint8Array

  /**
   * The schemes we speak, most wanted first
   */
  schemes: string[]

  /**
   * Our proposal without an initiation packet, as `encodeFrame` makes it of the two, where it is at hand. Default: it is made.
   */
  proposal?: Uint8Array

  /**
   * Choose for a standard negotiation in which we respond; by default the proposer's earliest name that we speak, too.
   * Returning undefined rejects. Must be a pure function of the proposal: the same proposal gets the same response.
   */
  select? (proposal: Propose): string | undefined

  /**
   * When to repeat an unanswered proposal, in milliseconds: first after `initial`, each wait `factor` times the one
   * before, never longer than `max`. Defaults: 250, 1, 250.
   */
  retransmission?: { initial?: number, factor?: number, max?: number }

  /**
   * How long a reject waits for an accept that would prove it forged, in milliseconds; and, while our own proposal is
   * out, any other bad news that may be forged. Default: 200.
   */
  rejectGrace?: number
}

/**
 * What `handleDatagram` made of a datagram:
 * - `frame`: it was a PSEC frame, and has been dealt with
 * - `scheme`: it is none, and belongs to the scheme: hold it if there is no agreement yet
 * - `invalid`: it begins like a PSEC frame and is none, or has no bytes. Count and drop it.
 * - `unexpected`: a valid frame that means nothing in this state (an accept nobody waits for). Count and drop it.
 */
export type DatagramVerdict = 'frame' | 'scheme' | 'invalid' | 'unexpected'

export type NegotiationEvent =
  { type: 'agreed', agreement: Agreement } |

  /** Over without an agreement: `NoCommonSchemeError`, `SelfNegotiationError` */
  { type: 'failed', error: Error } |

  /**
   * After the agreement, the remote proposed something else than before, or the same long after the session began: it may
   * have come back after a crash. Nothing has been answered; a new negotiation would have to. Every transmission is one.
   */
  { type: 'renewed', proposal: Uint8Array }

export { Negotiator } from './negotiator.ts'
export type { NegotiatorStatus } from './negotiator.ts'
export { compareIds } from './compare-ids.ts'
export { chooseSimultaneous, chooseStandard } from './choose-scheme.ts'
export type { Offer } from './choose-scheme.ts'
