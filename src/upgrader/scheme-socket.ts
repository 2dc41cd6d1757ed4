import { TypedEventEmitter } from 'main-event'
import type { PacketAddress, PacketSocket, PacketSocketEvents } from '../sockets/index.ts'

/**
 * A packet socket as a scheme sees it: the same one, without the PSEC frames that still come. Whoever owns the flow says by
 * `deliver` which datagrams are the scheme's.
 */
export class SchemeSocket extends TypedEventEmitter<PacketSocketEvents> implements PacketSocket {
  readonly #socket: PacketSocket
  #closed = false

  constructor (socket: PacketSocket) {
    super()
    this.#socket = socket
  }

  get status (): 'open' | 'closed' {
    return this.#socket.status
  }

  get localAddress (): PacketAddress {
    return this.#socket.localAddress
  }

  get remoteAddress (): PacketAddress {
    return this.#socket.remoteAddress
  }

  get maxDatagramSize (): number {
    return this.#socket.maxDatagramSize
  }

  get maxProbeSize (): number | undefined {
    return this.#socket.maxProbeSize
  }

  get nativeFlow (): unknown {
    return this.#socket.nativeFlow
  }

  send (datagram: Uint8Array): void {
    this.#socket.send(datagram)
  }

  sendTogether (datagrams: Uint8Array[]): void {
    if (datagrams.length > 1 && this.#socket.sendTogether != null) {
      this.#socket.sendTogether(datagrams)
    } else {
      datagrams.forEach(datagram => { this.#socket.send(datagram) })
    }
  }

  close (): void {
    this.#socket.close()
  }

  /**
   * A datagram of the scheme came
   */
  deliver (datagram: Uint8Array): void {
    this.safeDispatchEvent<Uint8Array>('message', { detail: datagram })
  }

  /**
   * The socket was closed. Idempotent.
   */
  onClose (): void {
    if (!this.#closed) {
      this.#closed = true
      this.safeDispatchEvent('close')
    }
  }
}
