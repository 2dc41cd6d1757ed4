import { TypedEventEmitter } from 'main-event'
import type { PacketAddress, PacketSocket, PacketSocketEvents } from './index.ts'

export interface MemorySocketInit {
  localAddress: PacketAddress
  remoteAddress: PacketAddress
  maxDatagramSize: number
  send (datagram: Uint8Array): void
  onClose (): void
}

/**
 * One remote's datagrams on an in-memory port
 */
export class MemorySocket extends TypedEventEmitter<PacketSocketEvents> implements PacketSocket {
  readonly localAddress: PacketAddress
  readonly remoteAddress: PacketAddress
  readonly maxDatagramSize: number
  readonly #init: MemorySocketInit
  #status: 'open' | 'closed' = 'open'

  constructor (init: MemorySocketInit) {
    super()
    this.#init = init
    this.localAddress = init.localAddress
    this.remoteAddress = init.remoteAddress
    this.maxDatagramSize = init.maxDatagramSize
  }

  get status (): 'open' | 'closed' {
    return this.#status
  }

  send (datagram: Uint8Array): void {
    if (this.#status === 'open') {
      this.#init.send(datagram)
    }
  }

  close (): void {
    if (this.#status === 'closed') {
      return
    }

    this.#status = 'closed'
    this.#init.onClose()
    this.safeDispatchEvent('close')
  }

  /**
   * A datagram came in from the remote
   */
  deliver (datagram: Uint8Array): void {
    this.safeDispatchEvent<Uint8Array>('message', { detail: datagram })
  }
}
