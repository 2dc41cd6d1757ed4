import type { Cancel, Clock } from '../clock.ts'

const BYTES_PER_DATAGRAM = 1024

export interface EarlyDatagramsInit {
  /**
   * How many there is room for, of 1 KiB each on average
   */
  maxEarlyDatagrams: number

  /**
   * How long each is held, in milliseconds
   */
  earlyTimeout: number

  /**
   * Told how many were dropped, for want of room or of a control stream
   */
  onDrop (datagrams: number): void
  clock: Clock
}

interface EarlyDatagram {
  id: number
  due: number
  data: Uint8Array
}

/**
 * Datagrams that overtook the control stream of their flow, held for a short while; the oldest are dropped first
 */
export class EarlyDatagrams {
  readonly #init: EarlyDatagramsInit
  readonly #maxBytes: number
  #held: EarlyDatagram[] = []
  #bytes = 0
  #cancelTimer?: Cancel

  constructor (init: EarlyDatagramsInit) {
    this.#init = init
    this.#maxBytes = init.maxEarlyDatagrams * BYTES_PER_DATAGRAM
  }

  /**
   * Keep a copy of a datagram for the control stream of that id
   */
  hold (id: number, data: Uint8Array): void {
    if (data.byteLength > this.#maxBytes) {
      this.#init.onDrop(1)
      return
    }

    this.#held.push({ id, due: this.#init.clock.now() + this.#init.earlyTimeout, data: data.slice() })
    this.#bytes += data.byteLength

    while (this.#held.length > this.#init.maxEarlyDatagrams || this.#bytes > this.#maxBytes) {
      this.#dropOldest()
    }

    this.#arm()
  }

  /**
   * Take what is held for that control stream, in the order of arrival
   */
  take (id: number): Uint8Array[] {
    const taken = this.#held.filter(early => early.id === id)

    if (taken.length > 0) {
      this.#held = this.#held.filter(early => early.id !== id)
      this.#bytes = this.#held.reduce((bytes, { data }) => bytes + data.byteLength, 0)
      this.#arm()
    }

    return taken.map(early => early.data)
  }

  /**
   * Drop everything: the session is over
   */
  clear (): void {
    while (this.#held.length > 0) {
      this.#dropOldest()
    }

    this.#arm()
  }

  #dropOldest (): void {
    const oldest = this.#held.shift()

    if (oldest != null) {
      this.#bytes -= oldest.data.byteLength
      this.#init.onDrop(1)
    }
  }

  /**
   * One timer while there is something held, and none otherwise
   */
  #arm (): void {
    if (this.#held.length === 0) {
      this.#cancelTimer?.()
      this.#cancelTimer = undefined
    } else {
      this.#cancelTimer ??= this.#init.clock.schedule(() => { this.#expire() }, this.#held[0].due - this.#init.clock.now())
    }
  }

  #expire (): void {
    this.#cancelTimer = undefined
    const now = this.#init.clock.now()

    while (this.#held.length > 0 && this.#held[0].due <= now) {
      this.#dropOldest()
    }

    this.#arm()
  }
}
