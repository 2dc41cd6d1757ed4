/**
 * UDP by the native engine: a port of the machine as a `PacketEndpoint`.
 */
import { isIP, SocketAddress } from 'node:net'
import { ConnectionClosedError, InvalidParametersError } from '@libp2p/interface'
import { TypedEventEmitter } from 'main-event'
import { raceSignal } from 'race-signal'
import { equals } from 'uint8arrays/equals'
import { checkLimits } from '../check-limits.ts'
import { realClock } from '../clock.ts'
import { loadEngine } from '../engine/load.ts'
import { EnginePort } from '../engine/port.ts'
import { AddressInUseError, AddressUnavailableError, AddressUnreachableError } from '../errors.ts'
import { looksLikeFrame } from '../wire/index.ts'
import { formatPacketAddress, isIPv6 } from './index.ts'
import type { EndpointShield, PacketAcceptor, PacketAddress, PacketEndpoint, PacketEndpointFactory, PacketSocket, PacketSocketEvents, PreparedAnswers } from './index.ts'
import type { NativeFlow } from '../engine/flow.ts'
import type { NativeLimits, NativePeer, NativeIdentity } from '../engine/native.ts'
import type { Welcomed } from '../engine/port.ts'
import type { AbortOptions } from '@libp2p/interface'

/**
 * What a path carries without knowing better: an Ethernet's 1,500 bytes less the headers of IP and UDP, less what tunnels
 * on the way usually take
 */
const MAX_DATAGRAM_SIZE_IPV4 = 1452
const MAX_DATAGRAM_SIZE_IPV6 = 1432

/**
 * The most that a UDP datagram can hold over either version of IP: 65,535 bytes less the headers
 */
const MAX_UDP_PAYLOAD = 65_487

/**
 * A session, and the one that may replace it
 */
const MAX_SOCKETS_PER_REMOTE = 2

/**
 * How long a remote that was answered, and that we have dialled since, may go on proposing, in milliseconds, before it seems to have lost
 * the answer: two round trips, and then some
 */
const CROSSING_TIME = 2_000

/**
 * What a port keeps for its remotes; beyond that the newest is dropped, and counted, where it says nothing else. Each is a whole
 * number, else `InvalidParametersError`.
 */
export interface UdpInit {
  /**
   * How many datagrams outside of sessions may wait for JavaScript. Default: 512.
   */
  maxWaitingDatagrams?: number

  /**
   * Of how many strangers, whose proposals have been passed on, the datagrams that follow are passed on, too. The oldest is forgotten
   * for the newest. Default: 1,024.
   */
  maxStrangers?: number

  /**
   * How many such datagrams of each, likewise of a remote with a session that proposes afresh. Default: 8.
   */
  maxStrangerDatagrams?: number

  /**
   * How many handshakes may be under way that were begun while JavaScript still reads the proposal, see `PacketEndpoint.welcome`. 0 for
   * none. Default: 16.
   */
  maxGuests?: number

  /**
   * How many answers to strangers may wait to be sent. Default: 1,024.
   */
  maxQueuedAnswers?: number

  /**
   * How many bytes of all sessions may wait for JavaScript. What comes beyond that stays in the sessions, whose own limits hold.
   * Default: 2 MiB.
   */
  maxWaitingBytes?: number

  /**
   * How many bytes the kernel is asked to buffer, each way. It may grant less, and drops what finds no room. Default: 4 MiB.
   */
  socketBuffer?: number
}

const DEFAULTS: Required<UdpInit> = {
  maxWaitingDatagrams: 512,
  maxStrangers: 1_024,
  maxStrangerDatagrams: 8,
  maxGuests: 16,
  maxQueuedAnswers: 1_024,
  maxWaitingBytes: 2 * 1024 * 1024,
  socketBuffer: 4 * 1024 * 1024
}

/**
 * What a `UdpEndpoint` is opened with
 */
export interface UdpEndpointInit extends UdpInit {
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
  readonly maxGuests: number
  readonly #port: EnginePort
  readonly #remotes = new Map<string, Remote>()
  #acceptor?: PacketAcceptor
  #unaccepted = 0
  #status: 'open' | 'closed' = 'open'
  #closing?: Promise<void>

  /**
   * Open a UDP port. Throws `AddressInUseError`, `AddressUnavailableError`, `EngineUnavailableError`.
   */
  constructor (init: UdpEndpointInit) {
    loadEngine()

    try {
      this.#port = EnginePort.bind(init.host, init.port, init.anyStranger ?? false, nativeLimits(init), {
        onRaw: (host, port, localHost, datagram, welcomed) => { this.#onDatagram({ host, port }, localHost, datagram, welcomed) },
        onValidated: (host, port, localHost, proposal, answer, datagram) => { this.#onValidated({ host, port }, localHost, proposal, answer, datagram) },
        onClosed: (err) => { this.#onClosed(err) }
      })
    } catch (err: any) {
      throw toBindError(err, init)
    }

    this.localAddress = this.#port.localAddress
    this.maxGuests = init.maxGuests ?? DEFAULTS.maxGuests
  }

  get status (): 'open' | 'closed' {
    return this.#status
  }

  /**
   * Counters of the port since it was opened: the engine's (`NativeStats`), and `unaccepted`, datagrams of strangers that came
   * while nobody took any
   */
  get stats (): Readonly<Record<string, number>> {
    return { ...this.#port.stats, unaccepted: this.#unaccepted }
  }

  accept (acceptor: PacketAcceptor | undefined): void {
    this.#acceptor = acceptor
  }

  get (remote: PacketAddress): PacketSocket | undefined {
    return this.#remotes.get(formatPacketAddress(canonical(remote)))?.sockets.at(-1)
  }

  connect (remote: PacketAddress): PacketSocket {
    if (this.#status === 'closed') {
      throw new ConnectionClosedError(`The port ${formatPacketAddress(this.localAddress)} is closed, open it again first`)
    }

    const address = canonical(remote)

    if (isIPv6(address) !== isIPv6(this.localAddress)) {
      throw new InvalidParametersError(`${formatPacketAddress(address)} can't be reached from ${formatPacketAddress(this.localAddress)}: one is IPv4, the other IPv6`)
    }

    if (this.#remotes.has(formatPacketAddress(address))) {
      throw new InvalidParametersError(`There is a socket for ${formatPacketAddress(address)} already`)
    }

    return this.#open(address)
  }

  renew (socket: PacketSocket): PacketSocket {
    const address = formatPacketAddress(socket.remoteAddress)
    const sockets = this.#remotes.get(address)?.sockets ?? []
    const old = sockets.find(other => other === socket)

    if (old == null) {
      throw new InvalidParametersError(`The socket for ${address} is not an open one of the port ${formatPacketAddress(this.localAddress)}`)
    }

    if (sockets.length >= MAX_SOCKETS_PER_REMOTE) {
      throw new InvalidParametersError(`There are ${sockets.length} sockets for ${address} already, close one first`)
    }

    // it answers, and what we dialled before may still cross that
    return this.#openAccepted(old.remoteAddress, old.localHost, isDialling(old) ? old : old.beside)
  }

  shield (shield: EndpointShield | undefined): void {
    if (shield == null) {
      this.#port.commands.unshield()
      return
    }

    const { addressValidator, answers, peerId, maxProposals, maxProposalsPerPrefix, maxUnprepared, lifetime } = shield

    try {
      this.#port.commands.shield(addressValidator as NativeIdentity, { answers, peerId }, maxProposals, maxProposalsPerPrefix, maxUnprepared, lifetime)
    } catch (err: any) {
      throw new InvalidParametersError(`The shield of ${formatPacketAddress(this.localAddress)} needs the address validator of one of the engine's schemes: ${err.message}`)
    }
  }

  welcome (prepared: PreparedAnswers | undefined): void {
    if (prepared == null) {
      this.#port.commands.unwelcome()
      return
    }

    const { addressValidator, answers, peerId } = prepared

    try {
      this.#port.commands.welcome(addressValidator as NativeIdentity, { answers, peerId }, maxDatagramSize(this.localAddress))
    } catch (err: any) {
      throw new InvalidParametersError(`To welcome strangers ${formatPacketAddress(this.localAddress)} needs the address validator of one of the engine's schemes: ${err.message}`)
    }
  }

  async close (options: AbortOptions = {}): Promise<void> {
    this.#closing ??= this.#close()

    return raceSignal(this.#closing, options.signal)
  }

  async #close (): Promise<void> {
    this.#acceptor = undefined

    this.#closeSockets()
    await this.#port.close()
  }

  #open (remote: PacketAddress, localHost?: string): UdpSocket {
    const key = formatPacketAddress(remote)
    const entry = this.#remotes.get(key) ?? this.#claim(key, remote)
    const socket = new UdpSocket(this.#port, this.localAddress, remote, {
      onHandOver: () => {
        entry.handedOver = true
        this.#share(entry)
      },
      onClose: () => {
        entry.sockets = entry.sockets.filter(other => other !== socket)

        if (entry.sockets.length > 0) {
          this.#share(entry)
        } else {
          this.#remotes.delete(key)
          this.#port.commands.release(remote.host, remote.port)
        }
      }
    })
    socket.localHost = localHost
    entry.sockets.push(socket)
    this.#share(entry)

    return socket
  }

  #claim (key: string, address: PacketAddress): Remote {
    const entry = { address, sockets: [], handedOver: false, shared: false }
    this.#remotes.set(key, entry)
    // Once per remote: it takes the flow away from the sessions of the engine.
    this.#port.quietCommands.claim(address.host, address.port)

    return entry
  }

  /**
   * Tell the engine whether some of a remote's sockets are its own, and others want what it has no use for
   */
  #share (entry: Remote): void {
    const shared = entry.handedOver && entry.sockets.some(socket => !socket.handedOver)

    if (shared !== entry.shared) {
      entry.shared = shared
      this.#port.quietCommands.share(entry.address.host, entry.address.port, shared)
    }
  }

  #closeSockets (): void {
    for (const { sockets } of [...this.#remotes.values()]) {
      for (const socket of [...sockets]) {
        socket.close()
      }
    }
  }

  #onDatagram (remote: PacketAddress, localHost: string | undefined, datagram: Uint8Array, welcomed?: Welcomed): void {
    const entry = this.#remotes.get(formatPacketAddress(remote))
    const dialled = welcomed == null ? undefined : dialledSocket(entry)

    if (entry != null && dialled == null) {
      this.#deliver(entry, datagram, localHost)
    } else if (this.#accepts(datagram, remote, false)) {
      const socket = this.#openAccepted(remote, localHost, dialled)
      socket.answered = welcomed?.answer
      socket.guest = welcomed?.guest
      this.#acceptor?.onSocket(socket, datagram, false, dialled)
    } else if (welcomed != null) {
      this.#port.commands.dismiss(remote.host, remote.port, welcomed.guest)
    }
  }

  #onValidated (remote: PacketAddress, localHost: string | undefined, proposal: Uint8Array, answer: Uint8Array, datagram: Uint8Array): void {
    const entry = this.#remotes.get(formatPacketAddress(remote))
    const dialled = dialledSocket(entry)

    // The proof came twice, or the remote proposes afresh.
    if (entry != null && dialled == null) {
      this.#deliver(entry, proposal, localHost)
      this.#deliver(entry, datagram, localHost)
    } else if (this.#accepts(proposal, remote, true)) {
      const socket = this.#openAccepted(remote, localHost, dialled)
      socket.answered = answer
      this.#acceptor?.onSocket(socket, proposal, true, dialled)
      socket.receive(datagram, localHost)
    }
  }

  /**
   * A socket for the acceptor, because the remote began; beside the one by which we dial it, if we do
   */
  #openAccepted (remote: PacketAddress, localHost: string | undefined, dialled: UdpSocket | undefined): UdpSocket {
    const socket = this.#open(remote, localHost)
    socket.accepted = true
    socket.beside = dialled

    return socket
  }

  #accepts (datagram: Uint8Array, remote: PacketAddress, validated: boolean): boolean {
    if (this.#acceptor == null) {
      this.#unaccepted++
      return false
    }

    return this.#acceptor.filter(datagram, remote, validated)
  }

  #deliver ({ address, sockets }: Remote, datagram: Uint8Array, localHost?: string): void {
    const newest = sockets.at(-1)
    // A remote that goes on has not got the answer that it was given, and may take notice of what we have proposed; or it was never the
    // remote that was answered.
    const isForBoth = newest?.beside?.status === 'open' && isDialling(newest.beside) && realClock.now() - newest.openedAt > CROSSING_TIME
    // A negotiation is the newest socket's.
    const takers = looksLikeFrame(datagram)
      ? sockets.filter(socket => socket === newest || isForBoth)
      : sockets.filter(socket => !socket.handedOver)

    // What the engine passed on just before it heard that the flow is a scheme's now: back to it.
    if (takers.length === 0 || (!looksLikeFrame(datagram) && newest?.beside != null && newest.handedOver)) {
      this.#port.commands.inject(address.host, address.port, datagram)
    }

    for (const socket of takers) {
      socket.receive(datagram, localHost)
    }
  }

  #onClosed (err?: Error): void {
    const acceptor = this.#acceptor
    this.#acceptor = undefined
    this.#status = 'closed'
    this.#closeSockets()

    if (err != null) {
      acceptor?.onFailed?.(err)
    }
  }
}

/**
 * Opens UDP ports with the native engine, for `psec({ endpoints: udp({ … }) })`. Throws `InvalidParametersError` if a limit is no
 * number of things.
 */
export function udp (init: UdpInit = {}): PacketEndpointFactory {
  nativeLimits(init)

  return {
    prepare () {
      try {
        loadEngine()
      } catch {
        // whoever opens a port is told
      }
    },

    async open (options) {
      options.signal?.throwIfAborted()

      return new UdpEndpoint({ ...init, ...options })
    }
  }
}

export const udpEndpoints = udp()

function nativeLimits (init: UdpInit): NativeLimits {
  const limits = checkLimits('udp', {
    maxWaitingDatagrams: init.maxWaitingDatagrams ?? DEFAULTS.maxWaitingDatagrams,
    maxStrangers: init.maxStrangers ?? DEFAULTS.maxStrangers,
    maxStrangerDatagrams: init.maxStrangerDatagrams ?? DEFAULTS.maxStrangerDatagrams,
    maxGuests: init.maxGuests ?? DEFAULTS.maxGuests,
    maxQueuedAnswers: init.maxQueuedAnswers ?? DEFAULTS.maxQueuedAnswers,
    maxWaitingBytes: init.maxWaitingBytes ?? DEFAULTS.maxWaitingBytes,
    socketBuffer: init.socketBuffer ?? DEFAULTS.socketBuffer
  })

  return {
    waiting: limits.maxWaitingDatagrams,
    strangers: limits.maxStrangers,
    strangerDatagrams: limits.maxStrangerDatagrams,
    guests: limits.maxGuests,
    crossingTime: CROSSING_TIME,
    responses: limits.maxQueuedAnswers,
    waitingBytes: limits.maxWaitingBytes,
    socketBuffer: limits.socketBuffer
  }
}

/**
 * The sockets of one remote, oldest first
 */
interface Remote {
  address: PacketAddress
  sockets: UdpSocket[]

  /**
   * Whether the engine has been told that the flow is a scheme's, which holds until the last socket is closed
   */
  handedOver: boolean
  shared: boolean
}

interface UdpSocketOwner {
  onHandOver (): void
  onClose (): void
}

class UdpSocket extends TypedEventEmitter<PacketSocketEvents> implements PacketSocket {
  readonly localAddress: PacketAddress
  readonly remoteAddress: PacketAddress
  readonly maxDatagramSize: number
  readonly maxProbeSize = MAX_UDP_PAYLOAD
  readonly nativeFlow: NativeFlow

  /**
   * The address of ours to which the remote sends: the answers must come from it
   */
  localHost?: string

  /**
   * Whether it was opened for the acceptor, because the remote began
   */
  accepted = false

  /**
   * What the engine has answered to the proposal for which it was opened
   */
  answered?: Uint8Array

  /**
   * The number under which the engine has begun the session
   */
  guest?: number

  /**
   * By which we dial the remote, which goes by the answer that it was given for this one
   */
  beside?: UdpSocket

  readonly openedAt = realClock.now()

  readonly #port: EnginePort
  readonly #owner: UdpSocketOwner
  #hasSent = false
  #handedOver = false
  #onHandedOverClose?: () => void
  #status: 'open' | 'closed' = 'open'

  constructor (port: EnginePort, localAddress: PacketAddress, remoteAddress: PacketAddress, owner: UdpSocketOwner) {
    super()

    this.#port = port
    this.#owner = owner
    this.localAddress = localAddress
    this.remoteAddress = remoteAddress
    this.maxDatagramSize = maxDatagramSize(remoteAddress)
    this.nativeFlow = {
      port,
      peer: () => this.#peer(),
      handOver: (onClose) => {
        this.#handedOver = true
        this.#onHandedOverClose = onClose
        this.#owner.onHandOver()
      },
      release: (onClose) => {
        if (this.#onHandedOverClose === onClose) {
          this.#onHandedOverClose = undefined
        }
      },
      close: () => { this.close() }
    }
  }

  get status (): 'open' | 'closed' {
    return this.#status
  }

  /**
   * Whether a scheme of the engine has the socket
   */
  get handedOver (): boolean {
    return this.#handedOver
  }

  send (datagram: Uint8Array): void {
    // it has left
    if (!this.#hasSent && this.answered != null && equals(this.answered, datagram)) {
      this.#hasSent = true
      return
    }

    this.sendTogether([datagram])
  }

  sendTogether (datagrams: Uint8Array[]): void {
    const isDial = !this.#hasSent && !this.accepted
    this.#hasSent = true

    if (this.#status !== 'open') {
      return
    }

    try {
      this.#port.sendRaw(this.remoteAddress.host, this.remoteAddress.port, this.localHost, datagrams)
    } catch (err: any) {
      // later it may pass, and then the datagram was lost like others on their way
      if (isDial) {
        throw new AddressUnreachableError(`The system knows no way to ${formatPacketAddress(this.remoteAddress)} (${err.message}): check the address, and that this machine is connected to that network`, { cause: err })
      }
    }
  }

  receive (datagram: Uint8Array, localHost?: string): void {
    this.localHost = localHost
    this.safeDispatchEvent('message', { detail: datagram })
  }

  close (): void {
    if (this.#status === 'closed') {
      return
    }

    this.#status = 'closed'
    this.#owner.onClose()
    this.#onHandedOverClose?.()
    this.safeDispatchEvent('close')
  }

  #peer (): NativePeer {
    return {
      ...this.remoteAddress,
      localHost: this.localHost,
      maxDatagramSize: this.maxDatagramSize,
      maxProbeSize: this.maxProbeSize,
      guest: this.guest
    }
  }
}

/**
 * The only socket of a remote, if we have dialled since the engine answered the remote: what it goes by is that answer, see
 * `PacketAcceptor.onSocket`
 */
function dialledSocket (entry: Remote | undefined): UdpSocket | undefined {
  return entry?.sockets.length === 1 ? entry.sockets.find(isDialling) : undefined
}

/**
 * Whether it is ours to propose on it, and no scheme of the engine has it yet
 */
function isDialling (socket: UdpSocket): boolean {
  return !socket.accepted && !socket.handedOver
}

function maxDatagramSize (address: PacketAddress): number {
  return isIPv6(address) ? MAX_DATAGRAM_SIZE_IPV6 : MAX_DATAGRAM_SIZE_IPV4
}

function canonical ({ host, port }: PacketAddress): PacketAddress {
  switch (isIP(host)) {
    case 4:
      // it has one spelling only
      return { host, port }
    case 6:
      return { host: new SocketAddress({ address: host, family: 'ipv6' }).address, port }
    default:
      throw new InvalidParametersError(`"${host}" is not an IP address`)
  }
}

function toBindError (err: any, init: UdpEndpointInit): Error {
  const message = String(err.message)
  const address = formatPacketAddress(init)

  if (message.startsWith('EADDRINUSE')) {
    return new AddressInUseError(`UDP port ${address} is taken by another socket: choose another one, or port 0 for any that is free`, { cause: err })
  }

  if (message.startsWith('EADDRNOTAVAIL')) {
    return new AddressUnavailableError(`${init.host} is not an address of this machine: listen on one that is, or on ${isIPv6(init) ? '::' : '0.0.0.0'} for all of them`, { cause: err })
  }

  if (message.startsWith('EACCES')) {
    return new AddressUnavailableError(`UDP port ${address} needs more privileges than this process has: choose one above 1023`, { cause: err })
  }

  return new AddressUnavailableError(`UDP port ${address} can't be opened (${message}): check that this machine has ${isIPv6(init) ? 'IPv6' : 'IPv4'}, and that this process may open more files`, { cause: err })
}
