/**
 * The codec for PSEC frames: bytes to frames, frames to bytes, and no state. Follows the draft's "Frames", "Proposal"
 * and "Response" sections, within the bounds of `docs/negotiation.md`.
 */

/**
 * A proposal: who sends it, which schemes it speaks in order of priority, and perhaps the first scheme's first packet
 * (draft, "Proposal")
 */
export interface Propose {
  type: 'propose'

  /**
   * The sender's peer id as a multihash: a claim, proven only by the scheme's handshake
   */
  peerId: Uint8Array

  /**
   * Names of schemes, 1 to 255 bytes of UTF-8 each, most wanted first, no more than 255 of them. As on the wire: a name
   * listed twice counts at its first place, but stays where it is.
   */
  schemes: string[]

  /**
   * The first datagram of the first-listed scheme. Never empty: length 0 on the wire reads as none.
   */
  initiationPacket?: Uint8Array
}

/**
 * The receiver of a proposal names the scheme it chose (draft, "Standard Negotiation")
 */
export interface Accept {
  type: 'accept'
  scheme: string
}

/**
 * The receiver of a proposal wants none of its schemes (draft, "Standard Negotiation")
 */
export interface Reject {
  type: 'reject'
}

/**
 * What PSEC has on the wire (draft, "Frames")
 */
export type Frame = Propose | Accept | Reject

export { encodeFrame } from './encode.ts'
export { decodeFrame, frameType, looksLikeFrame } from './decode.ts'
export { isPeerIdMultihash } from './peer-id.ts'
