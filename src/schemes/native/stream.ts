import { StreamStateError } from '@libp2p/interface'
import type { SessionQueues } from './settings.ts'
import type { EnginePort } from '../../engine/port.ts'
import type { SecureStream, SecureStreamHandler } from '../index.ts'
import type { Uint8ArrayList } from 'uint8arraylist'

/**
 * What part of the receive queue is passed on before the engine is told, which sends as much as fits it ahead
 */
const CONSUMED_STEP = 1 / 4

/**
 * More buffers than this in a list are joined before they cross the border
 */
const MAX_BUFFERS = 4

export interface NativeStreamInit {
  port: EnginePort

  /**
   * The number of its session
   */
  session: number
  id: number
  direction: 'inbound' | 'outbound'
  queues: Required<SessionQueues>
  onOver (): void
}

export class NativeStream implements SecureStream {
  readonly id: number
  readonly direction: 'inbound' | 'outbound'

  readonly #port: EnginePort
  readonly #session: number
  readonly #queues: Required<SessionQueues>
  readonly #onOver: () => void
  #handler?: SecureStreamHandler

  /**
   * What came before `start`, in order
   */
  readonly #held: Array<(handler: SecureStreamHandler) => void> = []
  #unsent = 0
  #blocked = false
  #consumed = 0
  #paused = false
  #readOver = false
  #writeOver = false
  #stopped = false
  #reset = false

  /**
   * Nothing is delivered any more: it was reset on this side, or the handler has heard of the end
   */
  #silent = false

  constructor ({ port, session, id, direction, queues, onOver }: NativeStreamInit) {
    this.#port = port
    this.#session = session
    this.#queues = queues
    this.#onOver = onOver
    this.id = id
    this.direction = direction
  }

  start (handler: SecureStreamHandler): void {
    while (this.#held.length > 0 && !this.#silent) {
      this.#held.shift()?.(handler)
    }

    this.#handler = handler
    this.#tellConsumed(0)
  }

  send (data: Uint8Array | Uint8ArrayList): boolean {
    if (this.#writeOver) {
      throw new StreamStateError('Cannot send on a stream whose writable end is closed')
    }

    // What the remote will not read has nowhere to go.
    if (this.#stopped) {
      return true
    }

    if (data instanceof Uint8Array) {
      this.#write(data)
    } else {
      const buffers = [...data]

      if (buffers.length > MAX_BUFFERS) {
        this.#write(data.subarray())
      } else {
        buffers.forEach(buffer => { this.#write(buffer) })
      }
    }

    this.#blocked = this.#unsent >= this.#queues.streamSendQueue

    return !this.#blocked
  }

  closeWrite (): void {
    if (this.#writeOver) {
      return
    }

    this.#writeOver = true
    this.#port.commands.finish(this.#session, this.id)
    this.#endIfOver()
  }

  closeRead (): void {
    if (this.#readOver) {
      return
    }

    this.#readOver = true
    this.#port.commands.stop(this.#session, this.id)

    // The remote's end is of no consequence any more, and the engine does not tell of that of a stream that was stopped.
    queueMicrotask(() => {
      this.#deliver(handler => { handler.onRemoteCloseWrite() })
      this.#endIfOver()
    })
  }

  reset (): void {
    this.#silent = true
    this.#held.length = 0

    if (this.#reset) {
      return
    }

    this.#end()
    this.#port.commands.reset(this.#session, this.id)
  }

  pause (): void {
    this.#paused = true
  }

  resume (): void {
    this.#paused = false
    this.#tellConsumed(0)
  }

  onData (chunk: Uint8Array): void {
    if (this.#readOver) {
      return
    }

    if (this.#handler != null) {
      this.#handler.onData(chunk)
    } else {
      this.#deliver(handler => { handler.onData(chunk) })
    }

    this.#tellConsumed(chunk.byteLength)
  }

  onFinished (): void {
    if (this.#readOver) {
      return
    }

    this.#readOver = true
    this.#deliver(handler => { handler.onRemoteCloseWrite() })
    this.#endIfOver()
  }

  onRemoteReset (): void {
    this.#port.commands.reset(this.#session, this.id)
    this.onReset()
  }

  onStopped (): void {
    this.#stopped = true
    this.#unsent = 0
    this.#deliver(handler => { handler.onRemoteCloseRead() })
    this.#drain()
  }

  onWritten (bytes: number): void {
    this.#unsent -= bytes

    if (this.#unsent <= this.#queues.streamSendQueue / 2) {
      this.#drain()
    }
  }

  /**
   * The remote reset the stream, or the session ended
   */
  onReset (err?: Error): void {
    if (this.#reset) {
      return
    }

    this.#end()
    this.#deliver(handler => {
      this.#silent = true
      handler.onReset(err)
    })
  }

  #write (data: Uint8Array): void {
    if (data.byteLength === 0) {
      return
    }

    this.#unsent += data.byteLength
    this.#port.commands.write(this.#session, this.id, data)
  }

  #drain (): void {
    if (this.#blocked) {
      this.#blocked = false
      this.#deliver(handler => { handler.onDrain() })
    }
  }

  #tellConsumed (bytes: number): void {
    this.#consumed += bytes

    if (this.#paused || this.#readOver || this.#handler == null || this.#consumed < this.#queues.streamReceiveQueue * CONSUMED_STEP) {
      return
    }

    this.#port.commands.consumed(this.#session, this.id, this.#consumed)
    this.#consumed = 0
  }

  #deliver (event: (handler: SecureStreamHandler) => void): void {
    if (this.#silent) {
      return
    }

    if (this.#handler != null) {
      event(this.#handler)
    } else {
      this.#held.push(event)
    }
  }

  #end (): void {
    this.#reset = true
    this.#readOver = true
    this.#writeOver = true
    this.#onOver()
  }

  #endIfOver (): void {
    if (this.#readOver && this.#writeOver && !this.#reset) {
      this.#onOver()
    }
  }
}
