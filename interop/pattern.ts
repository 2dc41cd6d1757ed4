/**
 * The bytes of a file from an offset, the same as in `go/serve.go`
 */
export function pattern (offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)

  for (let i = 0; i < length; i++) {
    const at = (offset + i) >>> 0
    bytes[i] = (Math.imul(at, 2654435761) >>> 24) ^ (at & 0xff)
  }

  return bytes
}
