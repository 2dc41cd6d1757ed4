import { ConnectionClosedError, InvalidParametersError } from '@libp2p/interface'
import { formatPacketAddress } from './index.ts'
import { MemorySocket } from './memory-socket.ts'
import type { PacketAcceptor, PacketAddress, PacketEndpoint, PacketSocket } from './index.ts'

export interface MemoryEndpointInit {
  address: PacketAddress
  maxDatagramSize: number
  send (datagram: Uint8Array, to: PacketAddress): void
  onClose (): void
}

/**
 * A local port on an in-memory network
 */
export class MemoryEndpoint implements PacketEndpoint {
  readonly localAddress: PacketAddress

  /**
   * Datagrams on their way here: the network's account, kept with whom it concerns
   */
  queued = 0
  readonly #init: MemoryEndpointInit
  readonly #sockets = new Map<string, MemorySocket>()
  #acceptor?: PacketAcceptor
  #status: 'open' | 'closed' = 'open'

  constructor (init: MemoryEndpointInit) {
    this.#init = init
    this.localAddress = init.address
  }

  get status (): 'open' | 'closed' {
    return this.#status
  }

  accept (acceptor: PacketAcceptor | undefined): void {
    this.#acceptor = acceptor
  }

  get (remote: PacketAddress): PacketSocket | undefined {
    return this.#sockets.get(formatPacketAddress(remote))
  }

  connect (remote: PacketAddress): PacketSocket {
    if (this.#status === 'closed') {
      throw new ConnectionClosedError(`The port ${formatPacketAddress(this.localAddress)} is closed, open it again first`)
    }

    const key = formatPacketAddress(remote)

    if (this.#sockets.has(key)) {
      throw new InvalidParametersError(`There is a socket for ${key} already, look with get() before connect()`)
    }

    const socket: MemorySocket = new MemorySocket({
      localAddress: this.localAddress,
      remoteAddress: { host: remote.host, port: remote.port },
      maxDatagramSize: this.#init.maxDatagramSize,
      send: (datagram) => { this.#init.send(datagram, socket.remoteAddress) },
      onClose: () => { this.#sockets.delete(key) }
    })

    this.#sockets.set(key, socket)

    return socket
  }

  async close (): Promise<void> {
    if (this.#status === 'closed') {
      return
    }

    this.#status = 'closed'
    this.#acceptor = undefined
    this.#init.onClose()

    for (const socket of [...this.#sockets.values()]) {
      socket.close()
    }
  }

  /**
   * A datagram came in from the network
   */
  deliver (datagram: Uint8Array, from: PacketAddress): void {
    const socket = this.#sockets.get(formatPacketAddress(from))

    if (socket != null) {
      socket.deliver(datagram)
    } else if (this.#acceptor?.filter(datagram, from, false) === true) {
      this.#acceptor.onSocket(this.connect(from), datagram, false)
    }
  }
}
