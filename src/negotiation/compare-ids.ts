/**
 * Compare two peer ids (multihashes) as big-endian unsigned integers (draft, "Simultaneous Negotiation"): negative if
 * `a` is lower, positive if `b` is, 0 if they are equal.
 *
 * That is not the order of bytes: an Ed25519 id begins with 0x00 and sorts before an RSA id's 0x12, but it has more
 * bytes, and is the far higher number.
 */
export function compareIds (a: Uint8Array, b: Uint8Array): number {
  const x = withoutLeadingZeros(a)
  const y = withoutLeadingZeros(b)

  if (x.byteLength !== y.byteLength) {
    return x.byteLength - y.byteLength
  }

  const index = x.findIndex((byte, i) => byte !== y[i])

  return index === -1 ? 0 : x[index] - y[index]
}

function withoutLeadingZeros (bytes: Uint8Array): Uint8Array {
  const index = bytes.findIndex(byte => byte !== 0)

  return index === -1 ? bytes.subarray(0, 0) : bytes.subarray(index)
}
