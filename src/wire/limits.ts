/**
 * The bounds of a frame, see "Framing" in `docs/negotiation.md`
 */

/**
 * Message types (draft, "Frames")
 */
export const TYPE_PROPOSE = 0
export const TYPE_ACCEPT = 1
export const TYPE_REJECT = 255

/**
 * The most schemes in a proposal: their number is one byte (draft, "Proposal")
 */
export const MAX_SCHEMES = 255

/**
 * The most bytes of UTF-8 in a scheme's name. With it an accept stays small, whatever was proposed.
 */
export const MAX_NAME_LENGTH = 255

/**
 * The most bytes of a varint (multiformats unsigned-varint specification, "Practical maximum of 9 bytes")
 */
export const MAX_VARINT_LENGTH = 9

/**
 * The most bytes of a peer id: an identity multihash of a secp256k1 key, see `peer-id.ts`
 */
export const MAX_PEER_ID_LENGTH = 39
