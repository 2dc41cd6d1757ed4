import * as varint from 'uint8-varint'
import { concat } from 'uint8arrays/concat'
import { equals } from 'uint8arrays/equals'
import { ConfirmationFailedError } from '../errors.ts'
import { lengthPrefixed } from './bytes.ts'
import { MAX_MESSAGE_LENGTH } from './message.ts'
import { CONFIRM_LINE, HEADER } from './multistream.ts'
import { malformed } from './transcript.ts'
import type { Role } from '../negotiation/index.ts'

export interface ExchangeInit {
  role: Role

  /**
   * This side's message, without its length
   */
  message: Uint8Array

  /**
   * Of the responder, which reads on where its `Preface` has ended: whether that has answered the header
   */
  headerAnswered?: boolean
}

export type ExchangeOutcome =
  /** The remote's message, not verified yet */
  { type: 'message', message: Uint8Array } |
  { type: 'failed', error: ConfirmationFailedError }

/** The longest of multistream-select's lines that is understood; any other one means that the remote declines */
const MAX_LINE_LENGTH = 64

/**
 * Both sides' messages on the confirm stream ("The stream" in `docs/confirm.md`). Each says all that it has to say at once,
 * without waiting for the other: the initiator the protocol and its message, the responder the same as its answer.
 *
 * Inputs: `handleData` with every chunk of the stream, `handleEnd` when the remote has finished it or it was reset. Polls, at the
 * beginning and after every input: `pollTransmit` once (send it and finish the stream: there is one in an exchange's life), then
 * `pollOutcome`. There is one outcome; what comes after it is ignored.
 *
 * Bounds: twice the longest message and a chunk.
 */
export class Exchange {
  private transmit?: Uint8Array
  private outcome?: ExchangeOutcome
  private over: boolean
  /** What has come and was not read, and room for more */
  private buffer: Uint8Array
  private received: number
  /** The lines that the remote has to answer yet */
  private readonly expected: Uint8Array[]

  constructor ({ role, message, headerAnswered }: ExchangeInit) {
    const lines = role === 'responder' && headerAnswered === true ? [CONFIRM_LINE] : [HEADER, CONFIRM_LINE]

    this.transmit = concat([...lines, ...lengthPrefixed(message)])
    this.over = false
    this.buffer = new Uint8Array(0)
    this.received = 0
    this.expected = role === 'initiator' ? lines : []
  }

  handleData (chunk: Uint8Array): void {
    if (this.over) {
      return
    }

    this.append(chunk)

    try {
      this.read()
    } catch (error: any) {
      this.end({ type: 'failed', error })
    }
  }

  handleEnd (): void {
    if (this.over) {
      return
    }

    this.end({
      type: 'failed',
      error: this.expected.length > 0
        ? unsupported()
        : new ConfirmationFailedError('interrupted', 'The remote ended the confirmation of the negotiation before it was done')
    })
  }

  pollTransmit (): Uint8Array | undefined {
    const transmit = this.transmit
    this.transmit = undefined

    return transmit
  }

  pollOutcome (): ExchangeOutcome | undefined {
    const outcome = this.outcome
    this.outcome = undefined

    return outcome
  }

  /**
   * The remote may send byte by byte: what there is must not be copied for each
   */
  private append (chunk: Uint8Array): void {
    const size = this.received + chunk.byteLength

    if (size > this.buffer.byteLength) {
      const buffer = new Uint8Array(Math.max(size, 2 * this.buffer.byteLength))
      buffer.set(this.unread)
      this.buffer = buffer
    }

    this.buffer.set(chunk, this.received)
    this.received = size
  }

  private get unread (): Uint8Array {
    return this.buffer.subarray(0, this.received)
  }

  private read (): void {
    while (this.expected.length > 0) {
      const line = this.take(MAX_LINE_LENGTH, unsupported)

      if (line == null) {
        return
      }

      if (!equals(concat(lengthPrefixed(line)), this.expected[0])) {
        throw unsupported()
      }

      this.expected.shift()
    }

    const message = this.take(MAX_MESSAGE_LENGTH, () => malformed('message is too long'))

    if (message == null) {
      return
    }

    if (this.received > 0) {
      throw malformed('stream goes on after its message')
    }

    this.end({ type: 'message', message })
  }

  /**
   * The next bytes that have their length before them, if they are there
   */
  private take (maxLength: number, createError: () => Error): Uint8Array | undefined {
    const lengthBytes = varint.encodingLength(maxLength)
    const end = this.unread.subarray(0, lengthBytes).findIndex(byte => byte < 0x80) + 1

    if (end === 0 && this.received >= lengthBytes) {
      throw createError()
    }

    if (end === 0) {
      return
    }

    const length = varint.decode(this.unread)

    if (length > maxLength || varint.encodingLength(length) !== end) {
      throw createError()
    }

    if (this.received < end + length) {
      return
    }

    const bytes = this.buffer.slice(end, end + length)
    this.buffer = this.unread.slice(end + length)
    this.received = this.buffer.byteLength

    return bytes
  }

  private end (outcome: ExchangeOutcome): void {
    this.over = true
    this.buffer = new Uint8Array(0)
    this.received = 0
    this.outcome = outcome
  }
}

function unsupported (): ConfirmationFailedError {
  return new ConfirmationFailedError('unsupported', 'The remote does not confirm negotiations')
}
