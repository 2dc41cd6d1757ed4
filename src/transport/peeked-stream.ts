import type { Preface } from '../confirm/index.ts'
import type { SecureStream, SecureStreamHandler } from '../schemes/index.ts'
import type { Uint8ArrayList } from 'uint8arraylist'

/**
 * A stream of the remote's whose beginning was looked at. Whoever gets it in the end notices nothing of that: what was read is
 * delivered again, in order, by `start`.
 */
export class PeekedStream implements SecureStream {
  readonly #stream: SecureStream
  readonly #preface: Preface
  readonly #onDecided: (stream: PeekedStream) => void
  #decided = false
  #handler?: SecureStreamHandler
  readonly #held: Array<(handler: SecureStreamHandler) => void> = []
  #paused = false
  #reset = false

  /**
   * @param stream - not started yet
   * @param preface
   * @param onDecided - called once, when the preface has a verdict, or can't come to one any more
   */
  constructor (stream: SecureStream, preface: Preface, onDecided: (stream: PeekedStream) => void) {
    this.#stream = stream
    this.#preface = preface
    this.#onDecided = onDecided
  }

  get id (): number {
    return this.#stream.id
  }

  get direction (): 'inbound' | 'outbound' {
    return this.#stream.direction
  }

  /**
   * Begin to look
   */
  peek (): void {
    this.#stream.start({
      onData: (chunk) => { this.#onData(chunk) },
      onDrain: () => { this.#deliver(handler => { handler.onDrain() }) },
      onRemoteCloseWrite: () => {
        this.decide()
        this.#deliver(handler => { handler.onRemoteCloseWrite() })
      },
      onRemoteCloseRead: () => { this.#deliver(handler => { handler.onRemoteCloseRead() }) },
      onReset: (err) => {
        this.decide()
        this.#deliver(handler => { handler.onReset(err) })
      }
    })
  }

  /**
   * Look no further
   */
  decide (): void {
    if (this.#decided) {
      return
    }

    this.#decided = true
    // until somebody takes what comes
    this.#stream.pause()

    const { rest } = this.#preface

    if (rest.byteLength > 0) {
      this.#deliver(handler => { handler.onData(rest) })
    }

    this.#onDecided(this)
  }

  start (handler: SecureStreamHandler): void {
    while (this.#held.length > 0) {
      this.#held.shift()?.(handler)
    }

    this.#handler = handler

    if (!this.#paused) {
      this.#stream.resume()
    }
  }

  send (data: Uint8Array | Uint8ArrayList): boolean {
    return this.#stream.send(data)
  }

  closeWrite (): void {
    this.#stream.closeWrite()
  }

  closeRead (): void {
    this.#stream.closeRead()
  }

  reset (): void {
    this.#reset = true
    this.#held.length = 0
    this.#stream.reset()
  }

  pause (): void {
    this.#paused = true
    this.#stream.pause()
  }

  resume (): void {
    this.#paused = false

    if (this.#handler != null) {
      this.#stream.resume()
    }
  }

  #onData (chunk: Uint8Array): void {
    if (this.#decided) {
      this.#deliver(handler => { handler.onData(chunk) })
      return
    }

    this.#preface.handleData(chunk)
    const answer = this.#preface.pollTransmit()

    if (answer != null) {
      this.#stream.send(answer)
    }

    if (this.#preface.verdict !== 'undecided') {
      this.decide()
    }
  }

  #deliver (event: (handler: SecureStreamHandler) => void): void {
    if (this.#reset) {
      return
    }

    if (this.#handler != null) {
      event(this.#handler)
    } else {
      this.#held.push(event)
    }
  }
}
