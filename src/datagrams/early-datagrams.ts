import type { Cancel, Clock } from '../clock.ts'

/**
 * The draft: "on the order of a round trip". A second is a long round trip.
 */
const MAX_AGE = 1_000

const BYTES_PER_DATAGRAM = 1024

interface EarlyDatagram {
  id: number
  due: number
  data: Uint8Array
}

/**
 * Datagrams that overtook the control stream of their flow, held for a short while; the oldest are dropped first
 */
export class EarlyDatagrams {
  readonly #clock: Clock
  readonly #maxDatagrams: number
  readonly #maxBytes: number
  readonly #onDrop: (datagrams: number) => void
  #held: EarlyDatagram[] = []
  #bytes = 0
  #cancelTimer?: Cancel

  /**
   * @param clock
   * @param maxDatagrams - how many there is room for, of 1 KiB each on average
   * @param onDrop - told how many were dropped, for want of room or of a control stream
   */
  constructor (clock: Clock, maxDatagrams: number, onDrop: (datagrams: number) => void) {
    this.#clock = clock
    this.#maxDatagrams = maxDatagrams
    this.#maxBytes = maxDatagrams * BYTES_PER_DATAGRAM
    this.#onDrop = onDrop
  }

  /**
   * Keep a copy of a datagram for the control stream of that id
   */
  hold (id: number, data: Uint8Array): void {
    if (data.byteLength > this.#maxBytes) {
      this.#onDrop(1)
      return
    }

    this.#held.push({ id, due: this.#clock.now() + MAX_AGE, data: data.slice() })
    this.#bytes += data.byteLength

    while (this.#held.length > this.#maxDatagrams || this.#bytes > this.#maxBytes) {
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
      this.#onDrop(1)
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
      this.#cancelTimer ??= this.#clock.schedule(() => { this.#expire() }, this.#held[0].due - this.#clock.now())
    }
  }

  #expire (): void {
    this.#cancelTimer = undefined
    const now = this.#clock.now()

    while (this.#held.length > 0 && this.#held[0].due <= now) {
      this.#dropOldest()
    }

    this.#arm()
  }
}
