import { concat } from 'uint8arrays/concat'
import { MAX_NAME_LENGTH, MAX_PEER_ID_LENGTH, MAX_SCHEMES } from '../wire/limits.ts'
import { Reader } from '../wire/reader.ts'
import { lengthPrefixed } from './bytes.ts'
import { asMalformed, readPrefixed } from './transcript.ts'

/**
 * What one side says: what it saw, and that it is the one who saw it
 */
export interface ConfirmMessage {
  /**
   * The libp2p public key, protobuf-encoded: the peer id of an RSA key does not hold it
   */
  publicKey: Uint8Array

  /**
   * As encoded by whoever signed it
   */
  transcript: Uint8Array

  /**
   * By the private key, of `signedBytes`
   */
  signature: Uint8Array
}

/** A proposal of as many and as long names as there can be; lengths of up to 255 take two bytes, those of it three */
const MAX_PROPOSAL_LENGTH = 3 + 1 + (1 + MAX_PEER_ID_LENGTH) + 1 + MAX_SCHEMES * (2 + MAX_NAME_LENGTH)

/** Version and mode, two parties, the scheme, two proposals */
const MAX_TRANSCRIPT_LENGTH = 20 + 1 + 2 * (1 + MAX_PEER_ID_LENGTH + 32) + (2 + MAX_NAME_LENGTH) + 2 * MAX_PROPOSAL_LENGTH

/** Both of an RSA key of 8,192 bits, the largest that libp2p takes, with their lengths */
const MAX_PUBLIC_KEY_LENGTH = 2 + 1_200
const MAX_SIGNATURE_LENGTH = 2 + 1_024

/**
 * The most bytes of a message, without its own length before it
 */
export const MAX_MESSAGE_LENGTH = MAX_PUBLIC_KEY_LENGTH + 3 + MAX_TRANSCRIPT_LENGTH + MAX_SIGNATURE_LENGTH

/**
 * The bytes of a message, without its own length before it ("Message" in `docs/confirm.md`)
 */
export function encodeMessage ({ publicKey, transcript, signature }: ConfirmMessage): Uint8Array {
  return concat([publicKey, transcript, signature].flatMap(lengthPrefixed))
}

/**
 * Throws `ConfirmationFailedError`, reason `malformed`
 */
export function decodeMessage (bytes: Uint8Array): ConfirmMessage {
  return asMalformed('message', () => {
    const reader = new Reader(bytes)
    const message = {
      publicKey: readPrefixed(reader, 'the public key'),
      transcript: readPrefixed(reader, 'the transcript'),
      signature: readPrefixed(reader, 'the signature')
    }
    reader.end()

    return message
  })
}
