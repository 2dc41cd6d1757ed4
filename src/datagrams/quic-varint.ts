/**
 * QUIC's variable-length integers (RFC 9000, section 16): the two most significant bits tell how many bytes there are
 */

/**
 * How many bytes encode this integer
 *
 * @throws {RangeError} if it is not an integer from 0 to `Number.MAX_SAFE_INTEGER`
 */
export function encodingLength (value: number): 1 | 2 | 4 | 8 {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`A QUIC varint takes integers from 0 to ${Number.MAX_SAFE_INTEGER} here, but got ${value}`)
  }

  if (value < 0x40) {
    return 1
  }

  if (value < 0x4000) {
    return 2
  }

  return value < 0x4000_0000 ? 4 : 8
}

/**
 * Encode an integer in the fewest bytes
 *
 * @throws {RangeError} if it is not an integer from 0 to `Number.MAX_SAFE_INTEGER`
 */
export function encode (value: number): Uint8Array {
  const length = encodingLength(value)
  const bytes = new Uint8Array(length)
  let rest = value

  for (let i = length - 1; i >= 0; i--) {
    bytes[i] = rest % 0x100
    rest = Math.floor(rest / 0x100)
  }

  bytes[0] |= Math.log2(length) << 6

  return bytes
}

/**
 * How many bytes the integer at the beginning of these has; 0 if there are not that many. QUIC does not ask for the
 * shortest form.
 */
export function prefixLength (bytes: Uint8Array): number {
  if (bytes.byteLength === 0) {
    return 0
  }

  const length = 1 << (bytes[0] >> 6)

  return length <= bytes.byteLength ? length : 0
}

/**
 * Decode the integer in the first `length` bytes, which come from `prefixLength`. Infinity if it is larger than
 * `Number.MAX_SAFE_INTEGER`.
 */
export function decode (bytes: Uint8Array, length: number): number {
  let value = bytes[0] & 0x3f

  for (let i = 1; i < length; i++) {
    value = value * 0x100 + bytes[i]
  }

  return Number.isSafeInteger(value) ? value : Infinity
}
