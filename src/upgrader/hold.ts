/** More than any path carries in one datagram without fragments */
const BYTES_PER_DATAGRAM = 2 * 1024

/**
 * Scheme datagrams that came before there was a scheme to take them. When it is full the newest is turned away: a handshake's
 * first packets are the ones that the others are of no use without.
 */
export class Hold {
  readonly #maxDatagrams: number
  #datagrams: Uint8Array[] = []
  #bytes = 0

  /**
   * @param maxDatagrams - how many there is room for, of 2 KiB each on average
   */
  constructor (maxDatagrams: number) {
    this.#maxDatagrams = maxDatagrams
  }

  /**
   * @returns whether there was room
   */
  add (datagram: Uint8Array): boolean {
    if (this.#datagrams.length >= this.#maxDatagrams || this.#bytes + datagram.byteLength > this.#maxDatagrams * BYTES_PER_DATAGRAM) {
      return false
    }

    this.#datagrams.push(datagram)
    this.#bytes += datagram.byteLength

    return true
  }

  /**
   * All of it, in order of arrival; the hold is empty afterwards
   */
  take (): Uint8Array[] {
    const datagrams = this.#datagrams
    this.#datagrams = []
    this.#bytes = 0

    return datagrams
  }
}
