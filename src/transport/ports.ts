import { raceSignal } from 'race-signal'
import { isIPv6 } from '../sockets/index.ts'
import type { PacketAddress, PacketEndpoint, PacketEndpointFactory, PacketSocket } from '../sockets/index.ts'
import type { AbortOptions } from '@libp2p/interface'

export interface PortSocketOptions extends AbortOptions {
  /**
   * Whether this socket of ours is on its way to a session, so that a dial joins instead of needing a socket of its own
   */
  isJoinable (socket: PacketSocket): boolean
}

/**
 * The local ports of a transport, and the choice among them. A dial leaves from a port that listens wherever it can: a
 * NAT then maps it as it maps what comes in, which is what hole punching lives on. The owner closes the listening
 * ports. Of the ephemeral ones, the one that all dials of a family share stays open until `close`, because opening it takes a
 * good part of a dial; one that was opened for a single session ends with that.
 */
export class LocalPorts {
  readonly #factory: PacketEndpointFactory
  readonly #listening = new Set<PacketEndpoint>()
  readonly #shared = new Map<'ip4' | 'ip6', Promise<PacketEndpoint>>()
  readonly #ephemeral = new Set<PacketEndpoint>()
  readonly #closing = new Set<Promise<void>>()

  constructor (factory: PacketEndpointFactory) {
    this.#factory = factory
  }

  /**
   * Open a port to listen on, from which dials leave until it is withdrawn. The caller closes it.
   */
  async listen (address: PacketAddress, options: AbortOptions = {}): Promise<PacketEndpoint> {
    const endpoint = await this.#factory.open({ ...address, ...options })
    this.#listening.add(endpoint)

    return endpoint
  }

  /**
   * Let no more dials leave from a port
   */
  withdraw (endpoint: PacketEndpoint): void {
    this.#listening.delete(endpoint)
  }

  /**
   * A socket for the remote: one that can be joined, else a new one on a port that listens, else on one that all dials
   * of a family share. If these have a session with that remote already, on a port of its own: two peers' addresses
   * make one flow, and a flow has one session.
   */
  async socket (remote: PacketAddress, options: PortSocketOptions): Promise<PacketSocket> {
    const listening = [...this.#listening].filter(endpoint => canReach(endpoint, remote))
    const socket = findJoinable([...listening, ...this.#ephemeral], remote, options) ?? connectFirst(listening, remote)

    if (socket != null) {
      return socket
    }

    if (listening.length === 0) {
      const socket = await this.#sharedSocket(remote, options)

      if (socket != null) {
        return socket
      }
    }

    return this.ownSocket(remote, options)
  }

  /**
   * A socket for the remote on a new port, which is closed with it
   */
  async ownSocket (remote: PacketAddress, options: AbortOptions = {}): Promise<PacketSocket> {
    const endpoint = await this.#openEphemeral(remote, options)

    try {
      const socket = endpoint.connect(remote)
      socket.addEventListener('close', () => { this.#closeEphemeral(endpoint) }, { once: true })

      return socket
    } catch (err) {
      this.#closeEphemeral(endpoint)
      throw err
    }
  }

  /**
   * What the open ports have counted, all together
   */
  get stats (): Record<string, number> {
    const sums: Record<string, number> = {}

    for (const { stats } of [...this.#listening, ...this.#ephemeral]) {
      for (const [name, count] of Object.entries(stats ?? {})) {
        sums[name] = (sums[name] ?? 0) + count
      }
    }

    return sums
  }

  /**
   * Close the ephemeral ports; resolves when they are free
   */
  async close (): Promise<void> {
    // one that is being opened is ephemeral only when it is open
    await Promise.allSettled(this.#shared.values())
    this.#shared.clear()

    for (const endpoint of [...this.#ephemeral]) {
      this.#closeEphemeral(endpoint)
    }

    await Promise.all(this.#closing)
  }

  async #sharedSocket (remote: PacketAddress, options: PortSocketOptions): Promise<PacketSocket | undefined> {
    const endpoint = await raceSignal(this.#sharedPort(remote), options.signal)
    const existing = endpoint.get(remote)

    if (existing != null) {
      return options.isJoinable(existing) ? existing : undefined
    }

    return endpoint.connect(remote)
  }

  async #sharedPort (remote: PacketAddress): Promise<PacketEndpoint> {
    const family = isIPv6(remote) ? 'ip6' : 'ip4'
    const opened = this.#shared.get(family) ?? this.#openEphemeral(remote)
    this.#shared.set(family, opened)

    try {
      const endpoint = await opened

      if (endpoint.status === 'open') {
        return endpoint
      }
    } catch (err) {
      this.#forgetShared(family, opened)
      throw err
    }

    // its engine failed
    this.#forgetShared(family, opened)

    return this.#sharedPort(remote)
  }

  #forgetShared (family: 'ip4' | 'ip6', opened: Promise<PacketEndpoint>): void {
    if (this.#shared.get(family) === opened) {
      this.#shared.delete(family)
    }
  }

  async #openEphemeral (remote: PacketAddress, options: AbortOptions = {}): Promise<PacketEndpoint> {
    const endpoint = await this.#factory.open({ host: isIPv6(remote) ? '::' : '0.0.0.0', port: 0, signal: options.signal })
    this.#ephemeral.add(endpoint)

    return endpoint
  }

  #closeEphemeral (endpoint: PacketEndpoint): void {
    if (!this.#ephemeral.delete(endpoint)) {
      return
    }

    // nobody is there to be told if a port can't be closed, and nothing to be done about it
    const closing = endpoint.close().catch(() => {}).finally(() => { this.#closing.delete(closing) })
    this.#closing.add(closing)
  }
}

function findJoinable (endpoints: PacketEndpoint[], remote: PacketAddress, options: PortSocketOptions): PacketSocket | undefined {
  for (const endpoint of endpoints) {
    const socket = endpoint.get(remote)

    if (socket != null && options.isJoinable(socket)) {
      return socket
    }
  }
}

function connectFirst (endpoints: PacketEndpoint[], remote: PacketAddress): PacketSocket | undefined {
  return endpoints.find(endpoint => endpoint.get(remote) == null)?.connect(remote)
}

/**
 * Whether datagrams from this port get there: the family has to fit, and the loopback interface has no way out, or in
 */
function canReach (endpoint: PacketEndpoint, remote: PacketAddress): boolean {
  const local = endpoint.localAddress

  if (endpoint.status === 'closed' || isIPv6(local) !== isIPv6(remote)) {
    return false
  }

  return isUnspecified(local) || isLoopback(local) === isLoopback(remote)
}

function isUnspecified ({ host }: PacketAddress): boolean {
  return host === '0.0.0.0' || host === '::'
}

function isLoopback ({ host }: PacketAddress): boolean {
  return host.startsWith('127.') || host === '::1'
}
