import type { SecureSessionHandler, SecureStream } from './index.ts'

export interface HeldArrivalsInit {
  maxStreams: number
  maxDatagrams: number
}

export const DEFAULT_HELD_ARRIVALS: HeldArrivalsInit = { maxStreams: 256, maxDatagrams: 64 }

/**
 * Streams and datagrams of a session that come before anybody listens (`SecureSession.start`): as many as may be are held, more
 * are reset or dropped, and counted. From `start` on everything is passed on at once.
 */
export class HeldArrivals {
  readonly #init: HeldArrivalsInit
  #streams: SecureStream[] = []
  #datagrams: Uint8Array[] = []
  #handler?: SecureSessionHandler
  #refusedStreams = 0
  #droppedDatagrams = 0

  constructor (init: HeldArrivalsInit) {
    this.#init = init
  }

  /**
   * How many streams were reset
   */
  get refusedStreams (): number {
    return this.#refusedStreams
  }

  get droppedDatagrams (): number {
    return this.#droppedDatagrams
  }

  onStream (stream: SecureStream): void {
    if (this.#handler != null) {
      this.#handler.onStream(stream)
    } else if (this.#streams.length < this.#init.maxStreams) {
      this.#streams.push(stream)
    } else {
      this.refuse(stream)
    }
  }

  /**
   * Reset a stream that there is no room for
   */
  refuse (stream: SecureStream): void {
    this.#refusedStreams++
    stream.reset()
  }

  onDatagram (payload: Uint8Array): void {
    if (this.#handler != null) {
      this.#handler.onDatagram(payload)
    } else if (this.#datagrams.length < this.#init.maxDatagrams) {
      // a view may keep a large buffer alive
      this.#datagrams.push(payload.slice())
    } else {
      this.#droppedDatagrams++
    }
  }

  start (handler: SecureSessionHandler): void {
    this.#handler = handler

    for (const stream of this.#streams.splice(0)) {
      handler.onStream(stream)
    }

    for (const payload of this.#datagrams.splice(0)) {
      handler.onDatagram(payload)
    }
  }
}
