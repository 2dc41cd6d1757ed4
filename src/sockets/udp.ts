/**
 * UDP by the native engine: a port of the machine as a `PacketEndpoint`.
 */
import { isIP, isIPv6, SocketAddress } from 'node:net'
import { InvalidParametersError } from '@libp2p/interface'
import { TypedEventEmitter } from 'main-event'
import { EnginePort } from '../engine/port.ts'
import { AddressInUseError, AddressUnavailableError } from '../errors.ts'
import { formatPacketAddress } from './index.ts'
import type { PacketAcceptor, PacketAddress, PacketEndpoint, PacketEndpointFactory, PacketSocket, PacketSocketEvents } from './index.ts'
import type { NativeFlow } from '../engine/flow.ts'
import type { NativePeer, NativeStats } from '../engine/native.ts'

/**
 * What a path carries without knowing better: an Ethernet's 1,500 bytes less the headers of IP and UDP, less what tunnels
 * on the way usually take
 */
const MAX_DATAGRAM_SIZE_IPV4 = 1452
const MAX_DATAGRAM_SIZE_IPV6 = 1432

/**
 * What a `UdpEndpoint` is opened with
 */
export interface UdpEndpointInit {
  /**
   * An IP address of this machine, or `0.0.0.0`, `::` for all of a family
   */
  host: string

  /**
   * 0 for any free one
   */
  port: number

  /**
   * Offer every datagram of a stranger to the acceptor, not only what begins like a PSEC proposal. For protocols that share
   * the port with PSEC; costs time under a flood. Default: false.
   */
  anyStranger?: boolean
}

export class UdpEndpoint implements PacketEndpoint {
  readonly localAddress: PacketAddress
  readonly #port: EnginePort
  readonly #sockets = new Map<string, UdpSocket>()
  #acceptor?: PacketAcceptor
  #status: 'open' | 'closed' = 'open'
  #closing?: Promise<void>

  /**
   * Open a UDP port. Throws `AddressInUseError`, `AddressUnavailableError`, `EngineUnavailableError`.
   */
  constructor (init: UdpEndpointInit) {
    try {
      this.#port = EnginePort.bind(init.host, init.port, init.anyStranger ?? false, {
        onRaw: (host, port, localHost, datagram) => { this.#onDatagram({ host, port }, localHost, datagram) },
        onClosed: () => { this.#onClosed() }
      })
    } catch (err: any) {
      throw toBindError(err, init)
    }

    this.localAddress = this.#port.localAddress
  }

  get status (): 'open' | 'closed' {
    return this.#status
  }

  /**
   * Counters of the port since it was opened
   */
  get stats (): NativeStats {
    return this.#port.stats
  }

  accept (acceptor: PacketAcceptor | undefined): void {
    this.#acceptor = acceptor
  }

  get (remote: PacketAddress): PacketSocket | undefined {
    return this.#sockets.get(formatPacketAddress(canonical(remote)))
  }

  connect (remote: PacketAddress): PacketSocket {
    if (this.#status === 'closed') {
      throw new InvalidParametersError(`The port ${formatPacketAddress(this.localAddress)} is closed`)
    }

    const address = canonical(remote)

    if (isIPv6(address.host) !== isIPv6(this.localAddress.host)) {
      throw new InvalidParametersError(`${formatPacketAddress(address)} can't be reached from ${formatPacketAddress(this.localAddress)}: one is IPv4, the other IPv6`)
    }

    if (this.#sockets.has(formatPacketAddress(address))) {
      throw new InvalidParametersError(`There is a socket for ${formatPacketAddress(address)} already`)
    }

    return this.#open(address)
  }

  async close (): Promise<void> {
    this.#closing ??= this.#close()

    return this.#closing
  }

  async #close (): Promise<void> {
    this.#acceptor = undefined

    for (const socket of [...this.#sockets.values()]) {
      socket.close()
    }

    await this.#port.close()
  }

  #open (remote: PacketAddress, localHost?: string): UdpSocket {
    const key = formatPacketAddress(remote)
    const socket = new UdpSocket(this.#port, this.localAddress, remote, () => {
      this.#sockets.delete(key)
    })
    socket.localHost = localHost
    this.#sockets.set(key, socket)

    return socket
  }

  #onDatagram (remote: PacketAddress, localHost: string | undefined, datagram: Uint8Array): void {
    const socket = this.#sockets.get(formatPacketAddress(remote))

    if (socket != null) {
      socket.receive(datagram, localHost)
    } else if (this.#acceptor?.filter(datagram, remote) === true) {
      this.#acceptor.onSocket(this.#open(remote, localHost), datagram)
    }
  }

  #onClosed (): void {
    this.#status = 'closed'

    for (const socket of [...this.#sockets.values()]) {
      socket.close()
    }
  }
}

/**
 * Opens UDP ports with the native engine
 */
export const udpEndpoints: PacketEndpointFactory = {
  async open (init) {
    init.signal?.throwIfAborted()

    return new UdpEndpoint(init)
  }
}

class UdpSocket extends TypedEventEmitter<PacketSocketEvents> implements PacketSocket {
  readonly localAddress: PacketAddress
  readonly remoteAddress: PacketAddress
  readonly maxDatagramSize: number
  readonly nativeFlow: NativeFlow

  /**
   * The address of ours to which the remote sends: the answers must come from it
   */
  localHost?: string

  readonly #port: EnginePort
  readonly #onClose: () => void
  #handedOver = false
  #onHandedOverClose?: () => void
  #status: 'open' | 'closed' = 'open'

  constructor (port: EnginePort, localAddress: PacketAddress, remoteAddress: PacketAddress, onClose: () => void) {
    super()

    this.#port = port
    this.#onClose = onClose
    this.localAddress = localAddress
    this.remoteAddress = remoteAddress
    this.maxDatagramSize = isIPv6(remoteAddress.host) ? MAX_DATAGRAM_SIZE_IPV6 : MAX_DATAGRAM_SIZE_IPV4
    this.nativeFlow = {
      port,
      peer: () => this.#peer(),
      handOver: (onClose) => {
        this.#handedOver = true
        this.#onHandedOverClose = onClose
      },
      release: () => { this.#onHandedOverClose = undefined },
      close: () => { this.close() }
    }
    port.commands.claim(remoteAddress.host, remoteAddress.port)
  }

  get status (): 'open' | 'closed' {
    return this.#status
  }

  send (datagram: Uint8Array): void {
    if (this.#status === 'open') {
      this.#port.commands.sendRaw(this.remoteAddress.host, this.remoteAddress.port, this.localHost, datagram)
      this.#port.flush()
    }
  }

  receive (datagram: Uint8Array, localHost?: string): void {
    this.localHost = localHost

    // What the engine passed on just before it heard that the flow is a scheme's now, and is no PSEC frame: back to it.
    if (this.#handedOver && datagram[0] > 1 && !(datagram[0] === 255 && datagram.byteLength === 1)) {
      this.#port.commands.inject(this.remoteAddress.host, this.remoteAddress.port, datagram)
      return
    }

    this.safeDispatchEvent('message', { detail: datagram })
  }

  close (): void {
    if (this.#status === 'closed') {
      return
    }

    this.#status = 'closed'
    this.#port.commands.release(this.remoteAddress.host, this.remoteAddress.port)
    this.#onClose()
    this.#onHandedOverClose?.()
    this.safeDispatchEvent('close')
  }

  #peer (): NativePeer {
    return {
      ...this.remoteAddress,
      localHost: this.localHost,
      maxDatagramSize: this.maxDatagramSize
    }
  }
}

function canonical (address: PacketAddress): PacketAddress {
  const family = isIP(address.host)

  if (family === 0) {
    throw new InvalidParametersError(`"${address.host}" is not an IP address`)
  }

  return {
    host: new SocketAddress({ address: address.host, family: family === 6 ? 'ipv6' : 'ipv4' }).address,
    port: address.port
  }
}

function toBindError (err: any, { host, port }: UdpEndpointInit): Error {
  const message = String(err.message)
  const address = formatPacketAddress({ host, port })

  if (message.startsWith('EADDRINUSE')) {
    return new AddressInUseError(`UDP port ${address} is taken by another socket: choose another one, or port 0 for any that is free`, { cause: err })
  }

  if (message.startsWith('EADDRNOTAVAIL')) {
    return new AddressUnavailableError(`${host} is not an address of this machine: listen on one that is, or on ${isIPv6(host) ? '::' : '0.0.0.0'} for all of them`, { cause: err })
  }

  if (message.startsWith('EACCES')) {
    return new AddressUnavailableError(`UDP port ${address} needs more privileges than this process has: choose one above 1023`, { cause: err })
  }

  return err
}
