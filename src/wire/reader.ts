import { InvalidFrameError } from '../errors.ts'
import { MAX_VARINT_LENGTH } from './limits.ts'

/**
 * Reads a datagram from front to back. Every method throws `InvalidFrameError` where the bytes don't hold what is asked
 * for.
 */
export class Reader {
  private readonly bytes: Uint8Array
  private offset: number

  constructor (bytes: Uint8Array) {
    this.bytes = bytes
    this.offset = 0
  }

  /** How many bytes are left */
  get remaining (): number {
    return this.bytes.byteLength - this.offset
  }

  /** The next byte; `what` names it in the error */
  uint8 (what: string): number {
    if (this.remaining === 0) {
      throw new InvalidFrameError('truncated', `The datagram ends at byte ${this.offset}, before ${what}`)
    }

    return this.bytes[this.offset++]
  }

  /**
   * A multiformats unsigned varint. `uint8-varint` checks neither minimality nor the end of the buffer, hence our own.
   * Values above 2^53 lose precision, which hurts no one: all of them are lengths, far beyond any datagram.
   */
  uvarint (what: string): number {
    const start = this.offset
    let value = 0

    for (let i = 0; i < MAX_VARINT_LENGTH; i++) {
      const byte = this.uint8(`the end of ${what}`)
      value += (byte & 0x7f) * 2 ** (7 * i)

      if (byte < 0x80) {
        if (byte === 0 && i > 0) {
          throw new InvalidFrameError('varintNotMinimal', `The varint at byte ${start}, ${what}, is longer than it needs to be`)
        }

        return value
      }
    }

    throw new InvalidFrameError('varintTooLong', `The varint at byte ${start}, ${what}, has more than ${MAX_VARINT_LENGTH} bytes`)
  }

  /** The next `length` bytes, as a view of the datagram */
  view (length: number, what: string): Uint8Array {
    if (length > this.remaining) {
      throw new InvalidFrameError('truncated', `The datagram ends ${length - this.remaining} bytes before the end of ${what}, which begins at byte ${this.offset}`)
    }

    // not subarray: of a Node.js Buffer that would be a Buffer, whose slice() copies nothing
    const view = new Uint8Array(this.bytes.buffer, this.bytes.byteOffset + this.offset, length)
    this.offset += length

    return view
  }

  /** Nothing may be left */
  end (): void {
    if (this.remaining > 0) {
      throw new InvalidFrameError('trailingBytes', `The frame ends at byte ${this.offset}, but the datagram has ${this.remaining} bytes more`)
    }
  }
}
