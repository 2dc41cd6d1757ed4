/** More than a server's first flight with its certificates, in datagrams and in bytes */
const MAX_DATAGRAMS = 16
const MAX_BYTES = 32 * 1024

/**
 * Scheme datagrams that came before there was a scheme to take them. When it is full the newest is turned away: a handshake's
 * first packets are the ones that the others are of no use without.
 */
export class Hold {
  #datagrams: Uint8Array[] = []
  #bytes = 0

  /**
   * @returns whether there was room
   */
  add (datagram: Uint8Array): boolean {
    if (this.#datagrams.length === MAX_DATAGRAMS || this.#bytes + datagram.byteLength > MAX_BYTES) {
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
