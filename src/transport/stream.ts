import { StreamMessageEvent } from '@libp2p/interface'
import { AbstractStream } from '@libp2p/utils'
import { Uint8ArrayList } from 'uint8arraylist'
import { drained } from './drained.ts'
import { readLoop } from './read-loop.ts'
import type { SecureSession, SecureStream } from '../schemes/index.ts'
import type { AbortOptions, EventHandler, MessageStreamEvents } from '@libp2p/interface'
import type { AbstractStreamInit, SendResult } from '@libp2p/utils'

export interface StreamLimits {
  /**
   * From how many unread bytes on a stream holds its remote back, if nobody listens or a loop over the stream is slow.
   * libp2p would reset it at 4 MiB in the one case, and queue without an end in the other.
   */
  maxUnreadBytes: number

  /**
   * How many bytes that nobody wants any more are let through before the remote is told to stop. Most remotes are about
   * to finish anyway, and one that was told to stop can't say when it has finished (RFC 9000, section 3.5).
   */
  maxUnwantedBytes: number
}

export const DEFAULT_STREAM_LIMITS: StreamLimits = {
  maxUnreadBytes: 256 * 1024,
  maxUnwantedBytes: 64 * 1024
}

export interface PsecStreamInit extends Omit<AbstractStreamInit, 'id' | 'direction'> {
  stream: SecureStream
  session: Pick<SecureSession, 'status'>
  limits?: StreamLimits

  /**
   * The remote is told to stop, for it sends what nobody wants any more
   */
  onUnwanted? (): void
}

/**
 * A session's stream as a libp2p stream. The session's stream has the queues and the flow control; what libp2p's base
 * class adds to a chunk's way is taken out of it wherever there is nothing to queue.
 */
export class PsecStream extends AbstractStream {
  readonly #stream: SecureStream
  readonly #session: Pick<SecureSession, 'status'>
  readonly #limits: StreamLimits
  readonly #onUnwanted?: () => void
  #held = false
  #unwanted = 0
  /** What loops over this stream have not taken yet */
  #backlog = 0

  constructor (init: PsecStreamInit) {
    super({
      ...init,
      id: `${init.stream.id}`,
      direction: init.stream.direction
    })

    this.#stream = init.stream
    this.#session = init.session
    this.#limits = init.limits ?? DEFAULT_STREAM_LIMITS
    this.#onUnwanted = init.onUnwanted
  }

  /**
   * Begin delivery, after whoever looks after the stream listens to its end
   */
  begin (): void {
    this.#stream.start({
      onData: (chunk) => { this.onData(chunk) },
      onDrain: () => { this.safeDispatchEvent('drain') },
      onRemoteCloseWrite: () => { this.onRemoteCloseWrite() },
      onRemoteCloseRead: () => { this.onRemoteCloseRead() },
      onReset: (err) => { this.#onReset(err) }
    })
  }

  send (data: Uint8Array | Uint8ArrayList): boolean {
    if (!this.#canSendNow(data.byteLength)) {
      return super.send(data)
    }

    try {
      const canSendMore = this.#stream.send(data)
      this.writableNeedsDrain = !canSendMore

      return canSendMore
    } catch (err: any) {
      this.abort(err)
      throw err
    }
  }

  onData (data: Uint8Array | Uint8ArrayList): void {
    if (this.readStatus === 'readable' && this.readBuffer.byteLength === 0 && this.listenerCount('message') > 0) {
      // a list, as every libp2p stream delivers
      this.dispatchEvent(new StreamMessageEvent(data instanceof Uint8ArrayList ? data : new Uint8ArrayList(data)))
      return
    }

    if (this.readStatus === 'closing' || this.readStatus === 'closed') {
      this.#discard(data.byteLength)
      return
    }

    super.onData(data)
    this.#updateFlow()
  }

  addEventListener<K extends keyof MessageStreamEvents>(type: K, listener: EventHandler<MessageStreamEvents[K]> | null, options?: boolean | AddEventListenerOptions): void
  addEventListener (type: string, listener: EventHandler<Event>, options?: boolean | AddEventListenerOptions): void
  addEventListener (...args: any[]): void {
    // @ts-expect-error cannot ensure args has enough members
    super.addEventListener(...args)

    if (args[0] === 'message') {
      // after the microtask in which the base class hands out what is unread
      queueMicrotask(() => { this.#updateFlow() })
    }
  }

  /**
   * Like the base class, except that a loop that is slow holds the remote back, and that a loop that comes late gets
   * what was there before: a remote may have sent all that it has, and finished, before the protocol's handler gets to
   * read
   */
  async * [Symbol.asyncIterator] (): AsyncGenerator<Uint8Array | Uint8ArrayList> {
    while (this.readBuffer.byteLength > 0 && this.listenerCount('message') === 0) {
      yield * this.#takeUnread()
    }

    if (this.remoteWriteStatus !== 'closed' && (this.readStatus === 'readable' || this.readStatus === 'paused')) {
      yield * readLoop(this, (bytes) => {
        this.#backlog += bytes
        this.#updateFlow()
      })
    }
  }

  /**
   * Like the base class's, except that it waits for the next drain, each time: that one's promise is made once, and then stays resolved
   */
  async onDrain (options?: AbortOptions): Promise<void> {
    await drained(this, options)
  }

  onRemoteCloseRead (): void {
    super.onRemoteCloseRead()

    // what is sent from now on is thrown away, which takes no waiting
    if (this.writableNeedsDrain) {
      this.safeDispatchEvent('drain')
    }
  }

  sendData (data: Uint8ArrayList): SendResult {
    return {
      sentBytes: data.byteLength,
      canSendMore: this.#stream.send(data)
    }
  }

  sendReset (): void {
    this.#stream.reset()
  }

  async sendCloseWrite (): Promise<void> {
    this.#stream.closeWrite()
  }

  async sendCloseRead (): Promise<void> {
    // a remote that was held back must get to its end
    this.#updateFlow()
  }

  sendPause (): void {
    this.#updateFlow()
  }

  sendResume (): void {
    this.#updateFlow()
  }

  #canSendNow (byteLength: number): boolean {
    return this.writeStatus === 'writable' && !this.writableNeedsDrain && !this.sendingData &&
      this.writeBuffer.byteLength === 0 && (this.maxMessageSize == null || byteLength <= this.maxMessageSize)
  }

  #takeUnread (): Uint8ArrayList {
    const unread = this.readBuffer.sublist()
    this.readBuffer.consume(unread.byteLength)
    // ends the readable end if that was all
    this.dispatchReadBuffer()
    this.#updateFlow()

    return unread
  }

  /**
   * Let the remote feel that nobody reads: held back by flow control it waits, instead of filling a buffer until the
   * base class resets the stream
   */
  #updateFlow (): void {
    const hold = this.readStatus === 'paused' || this.#backlog > this.#limits.maxUnreadBytes ||
      (this.listenerCount('message') === 0 && this.readBuffer.byteLength > this.#limits.maxUnreadBytes)

    if (hold === this.#held || this.status !== 'open') {
      return
    }

    this.#held = hold

    if (hold) {
      this.#stream.pause()
    } else {
      this.#stream.resume()
    }
  }

  #discard (byteLength: number): void {
    const wasUnwanted = this.#unwanted > this.#limits.maxUnwantedBytes
    this.#unwanted += byteLength

    if (!wasUnwanted && this.#unwanted > this.#limits.maxUnwantedBytes) {
      this.#onUnwanted?.()
      this.#stream.closeRead()
    }
  }

  #onReset (err?: Error): void {
    if (this.status !== 'open' && this.status !== 'closing') {
      return
    }

    if (err != null) {
      this.onTransportClosed(err)
    } else if (this.#session.status === 'open') {
      this.onRemoteReset()
    } else {
      this.onTransportClosed()
    }
  }
}
