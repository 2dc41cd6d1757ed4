/**
 * The confirmation of a negotiation, `/psec/confirm/1.0.0`: once secured, each side proves what it saw of the negotiation, which
 * was plain text. Sans-IO: what is proved, how it is encoded, and who says what when on the stream. `docs/confirm.md` has it for
 * other implementations; running it on a session is the transport's business.
 */
import type { Proposals } from '../negotiation/index.ts'

/**
 * Whether a node confirms its negotiations:
 * - `require`: nothing happens on a session before both sides have; a peer that can't is refused
 * - `prefer`: wherever the peer confirms, too, and while the application uses the connection already
 * - `off`: never
 */
export type ConfirmPolicy = 'require' | 'prefer' | 'off'

export interface Party {
  /**
   * The peer id that the scheme has authenticated, a multihash
   */
  peerId: Uint8Array

  /**
   * SHA-256 of the public key of its certificate in this session, see `ChannelBinding`
   */
  keyHash: Uint8Array
}

/**
 * What one side saw of a negotiation. An honest path shows both sides the same.
 */
export interface Transcript {
  /**
   * Whether both had proposed (draft, "Simultaneous Negotiation")
   */
  simultaneous: boolean

  /**
   * The scheme that was chosen
   */
  scheme: string

  /**
   * Of the scheme, not of a libp2p connection
   */
  initiator: Party
  responder: Party

  /**
   * The responder's is there if, and only if, `simultaneous`
   */
  proposals: Proposals
}

export { decodeMessage, encodeMessage, MAX_MESSAGE_LENGTH } from './message.ts'
export { createConfirmation } from './create.ts'
export { Exchange } from './exchange.ts'
export { Preface } from './preface.ts'
export { CONFIRM_PROTOCOL } from './protocol.ts'
export { decodeTranscript, encodeTranscript } from './transcript.ts'
export { verifyConfirmation } from './verify.ts'
export type { ConfirmMessage } from './message.ts'
export type { ExchangeOutcome } from './exchange.ts'
