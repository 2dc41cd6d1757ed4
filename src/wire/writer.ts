import * as varint from 'uint8-varint'

/**
 * Writes a frame from front to back, into bytes of its own: frames are kept for as long as a flow lives, and would keep all of
 * Node's buffer pool if they were a piece of that
 */
export class Writer {
  readonly bytes: Uint8Array
  private offset: number

  /**
   * The bytes that `field` needs
   */
  static sizeOf (bytes: Uint8Array): number {
    return varint.encodingLength(bytes.byteLength) + bytes.byteLength
  }

  /** For a frame of exactly that many bytes */
  constructor (size: number) {
    this.bytes = new Uint8Array(size)
    this.offset = 0
  }

  uint8 (value: number): void {
    this.bytes[this.offset++] = value
  }

  /** Bytes behind the varint of their length */
  field (bytes: Uint8Array): void {
    varint.encodeUint8Array(bytes.byteLength, this.bytes, this.offset)
    this.offset += varint.encodingLength(bytes.byteLength)
    this.bytes.set(bytes, this.offset)
    this.offset += bytes.byteLength
  }
}
