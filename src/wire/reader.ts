import { InvalidFrameError } from '../errors.ts'
import { MAX_NAME_LENGTH, MAX_VARINT_LENGTH } from './limits.ts'

// a byte order mark is a character like any other: without ignoreBOM the decoder would swallow it, and name another
// scheme
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

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

  /** 1 to 255 bytes of UTF-8 with their length before them */
  name (what: string): string {
    const length = this.uvarint(`the length of ${what}`)

    if (length < 1 || length > MAX_NAME_LENGTH) {
      throw new InvalidFrameError('nameLength', `A name has 1 to ${MAX_NAME_LENGTH} bytes, but ${what} ${length}`)
    }

    const bytes = this.view(length, what)

    try {
      return decoder.decode(bytes)
    } catch {
      throw new InvalidFrameError('nameEncoding', `The bytes at ${this.offset - length}, ${what}, are not UTF-8`)
    }
  }

  /** Nothing may be left */
  end (): void {
    if (this.remaining > 0) {
      throw new InvalidFrameError('trailingBytes', `The frame ends at byte ${this.offset}, but the datagram has ${this.remaining} bytes more`)
    }
  }
}
