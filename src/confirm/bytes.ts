import * as varint from 'uint8-varint'

/**
 * Bytes with their length before them, a multiformats unsigned varint
 */
export function lengthPrefixed (bytes: Uint8Array): Uint8Array[] {
  return [varint.encode(bytes.byteLength), bytes]
}
