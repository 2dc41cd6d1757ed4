import { concat } from 'uint8arrays/concat'
import { equals } from 'uint8arrays/equals'
import { CONFIRM_LINE, HEADER } from './multistream.ts'

/**
 * - `undecided`: more has to come
 * - `confirm`: it is the confirm stream
 * - `other`: it is not
 */
export type PrefaceVerdict = 'undecided' | 'confirm' | 'other'

/**
 * The beginning of a stream that the remote opened: is it the confirm stream? Reads no further than it takes to tell, so that any
 * other stream can be handed on as if nobody had looked.
 *
 * Getters: `verdict`, `rest`, `headerAnswered`. Input: `handleData` with every chunk until there is a verdict. Poll after it:
 * `pollTransmit`.
 */
export class Preface {
  private buffer: Uint8Array
  private answered: boolean
  private transmit?: Uint8Array

  constructor () {
    this.buffer = new Uint8Array(0)
    this.answered = false
  }

  get verdict (): PrefaceVerdict {
    const [header, protocol] = [this.buffer.subarray(0, HEADER.byteLength), this.buffer.subarray(HEADER.byteLength)]

    if (!isPrefix(header, HEADER) || !isPrefix(protocol.subarray(0, CONFIRM_LINE.byteLength), CONFIRM_LINE)) {
      return 'other'
    }

    return protocol.byteLength >= CONFIRM_LINE.byteLength ? 'confirm' : 'undecided'
  }

  /**
   * Whether multistream-select's header has been answered, and must not be answered again
   */
  get headerAnswered (): boolean {
    return this.answered
  }

  /**
   * What whoever gets the stream has to read yet. Of a confirm stream what follows its protocol; of any other everything, save for
   * a header that was answered: multistream-select knows its place without it.
   */
  get rest (): Uint8Array {
    if (this.verdict === 'confirm') {
      return this.buffer.subarray(HEADER.byteLength + CONFIRM_LINE.byteLength)
    }

    return this.buffer.subarray(this.answered ? HEADER.byteLength : 0)
  }

  handleData (chunk: Uint8Array): void {
    this.buffer = concat([this.buffer, chunk])

    // a remote may wait for our header before it says what it wants
    if (!this.answered && equals(this.buffer, HEADER)) {
      this.answered = true
      this.transmit = HEADER
    }
  }

  pollTransmit (): Uint8Array | undefined {
    const transmit = this.transmit
    this.transmit = undefined

    return transmit
  }
}

function isPrefix (bytes: Uint8Array, whole: Uint8Array): boolean {
  return bytes.byteLength <= whole.byteLength && equals(bytes, whole.subarray(0, bytes.byteLength))
}
