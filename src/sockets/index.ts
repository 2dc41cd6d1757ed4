/**
 * Raw datagrams: `PacketEndpoint` is a local port, `PacketSocket` is that port's traffic with one remote. Over UDP they
 * are backed by the native engine (`udp.ts`); over an in-memory network (`memory.ts`) they serve tests and simulations.
 * Nothing here knows a scheme, or what is inside a datagram.
 */
import type { AbortOptions } from '@libp2p/interface'
import type { TypedEventTarget } from 'main-event'

/**
 * Where datagrams come from or go to. `host` is an IP address over UDP, any name in an in-memory network.
 */
export interface PacketAddress {
  host: string
  port: number
}

/**
 * `192.0.2.1:4001` or `[2001:db8::1]:4001`: for logs, errors and keys of maps
 */
export function formatPacketAddress (address: PacketAddress): string {
  return isIPv6(address) ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`
}

/**
 * Which version of IP it takes: a host is an IP address
 */
export function isIPv6 (address: PacketAddress): boolean {
  return address.host.includes(':')
}

/**
 * What a packet socket tells its listeners
 */
export interface PacketSocketEvents {
  /**
   * A datagram arrived. Nobody listening: it is lost, as on any datagram socket.
   */
  message: CustomEvent<Uint8Array>

  /**
   * The socket was closed, by us or because its endpoint went away. Emitted once.
   */
  close: CustomEvent
}

/**
 * One remote's raw datagrams on one local port. Unreliable and unordered: what is sent may be lost, doubled or overtaken.
 */
export interface PacketSocket extends TypedEventTarget<PacketSocketEvents> {
  readonly status: 'open' | 'closed'
  readonly localAddress: PacketAddress
  readonly remoteAddress: PacketAddress

  /**
   * The largest datagram in bytes that the path is assumed to carry
   */
  readonly maxDatagramSize: number

  /**
   * Up to which size in bytes a scheme may find out what the path carries (RFC 8899). Larger datagrams than that path's are lost
   * whole, here or on the way: where they would be cut in fragments, this must not be above `maxDatagramSize`. Default: that.
   */
  readonly maxProbeSize?: number

  /**
   * Set where the native engine owns the socket, so that a native scheme can take the flow over inside the engine
   * instead of exchanging its datagrams through JavaScript. Opaque to everybody else.
   */
  readonly nativeFlow?: unknown

  /**
   * Send a datagram. A closed socket, or a full send queue, drops it silently: the network may do so, too. The first one of a socket
   * that was opened by `connect` may throw `AddressUnreachableError`.
   */
  send (datagram: Uint8Array): void

  /**
   * The same for several, in this order. A socket without this method sends them one after the other, which takes longer.
   */
  sendTogether? (datagrams: Uint8Array[]): void

  /**
   * Give the remote's flow up. Datagrams that still come are a stranger's again. Idempotent.
   */
  close (): void
}

/**
 * Who decides about strangers, and takes those in that may come: the listener of a local port
 */
export interface PacketAcceptor {
  /**
   * Whether a stranger's first datagram deserves a socket. Called for every datagram of every stranger: be quick, keep
   * no state, never throw.
   *
   * @param datagram
   * @param remote
   * @param validated - whether the stranger has proved that it receives at its address, see `PacketEndpoint.shield`
   */
  filter (datagram: Uint8Array, remote: PacketAddress, validated: boolean): boolean

  /**
   * A stranger's datagram passed the filter. The socket is new; the datagram is not emitted on it as a message.
   *
   * @param socket
   * @param firstDatagram
   * @param validated - as in `filter`
   * @param dialled - the remote's older socket, if this node dialled it after the endpoint had answered the remote by itself: the remote
   * goes by that answer, and will not take notice of what is proposed on this one
   */
  onSocket (socket: PacketSocket, firstDatagram: Uint8Array, validated: boolean, dialled?: PacketSocket): void

  /**
   * The port has ended by itself, and with it all of its sockets. Not called when it was closed.
   */
  onFailed? (err: Error): void
}

/**
 * How an endpoint can answer strangers' proposals by itself
 */
export interface PreparedAnswers {
  /**
   * What is answered to whom: `offer` is a proposal's part from the number of schemes to the last name (draft, "Proposal"),
   * `response` the whole datagram that answers it
   */
  answers: Array<{ offer: Uint8Array, response: Uint8Array }>

  /**
   * The scheme of these answers, which makes strangers prove their address: see `SecurityScheme.addressValidator`. Opaque.
   */
  addressValidator: unknown

  /**
   * This node's own, as a multihash: who claims it gets no answer
   */
  peerId: Uint8Array
}

/**
 * How an endpoint holds strangers off. Proposals with other offers than the prepared ones still reach the acceptor, at a small rate.
 */
export interface EndpointShield extends PreparedAnswers {
  /**
   * How many strangers' proposals are remembered; the oldest makes room for the newest
   */
  maxProposals: number

  /**
   * How many of them may come from one part of the network, an IPv4 /24 or an IPv6 /48
   */
  maxProposalsPerPrefix: number

  /**
   * How many proposals with other offers reach the acceptor in each tenth of a second
   */
  maxUnprepared: number

  /**
   * How long a proposal is remembered after it last came, and a proof of the address is valid, in milliseconds
   */
  lifetime: number
}

/**
 * A local port, used for dialling and listening alike
 */
export interface PacketEndpoint {
  readonly status: 'open' | 'closed'

  /**
   * Where it was opened, with the port that was chosen for 0
   */
  readonly localAddress: PacketAddress

  /**
   * What it has counted since it was opened, by name: datagrams that came and went, and those dropped, by reason
   */
  readonly stats?: Readonly<Record<string, number>>

  /**
   * Take strangers' datagrams from now on; `undefined` to turn them away again. At most one acceptor at a time.
   */
  accept (acceptor: PacketAcceptor | undefined): void

  /**
   * The open socket for this remote, if there is one; of two (see `renew`) the newest
   */
  get (remote: PacketAddress): PacketSocket | undefined

  /**
   * Open a socket for a remote. Throws `InvalidParametersError` if there is one already (look with `get` first) or the remote's address
   * is of the other version of IP, and `ConnectionClosedError` if the port is closed.
   */
  connect (remote: PacketAddress): PacketSocket

  /**
   * Open a second socket for the remote of an open one, which proposed afresh: it may have come back after a crash, or somebody
   * forges its address, so the old socket keeps its session. Datagrams that look like PSEC frames go to the newest socket of a
   * remote only, others to each that is not handed over to the engine. Throws `InvalidParametersError` if the socket is not an
   * open one of this endpoint, or has a second one already: close either first. An endpoint without this method leaves a remote
   * that came back to wait until its old session has timed out.
   */
  renew? (socket: PacketSocket): PacketSocket

  /**
   * Hold strangers off until they have proved that they receive at their address: meanwhile answer them without asking the
   * acceptor, remember their proposals, and pass these on as validated when the proof comes. `undefined` ends that; who has been
   * answered by then can still get through. Throws `InvalidParametersError` if the validator is none of this endpoint's. An
   * endpoint without this method passes every stranger on at once.
   */
  shield? (shield: EndpointShield | undefined): void

  /**
   * Answer strangers' proposals with an initiation packet at once, and begin their handshakes, while the acceptor is asked as always:
   * what its socket sends first, if it is that answer, and responds with, goes on with what has begun. What the acceptor
   * turns away ends at once, and what it does not take up within five seconds. While there is a shield, that has precedence. `undefined` leaves it all to the acceptor again. Throws
   * `InvalidParametersError` if the validator is none of this endpoint's. An endpoint without this method answers nobody by itself.
   */
  welcome? (answers: PreparedAnswers | undefined): void

  /**
   * How many strangers may have been answered of whom the acceptor does not know yet. The acceptor should have room for so many.
   */
  readonly maxGuests?: number

  /**
   * Close the port and every socket on it; resolves when the port is free again. Idempotent. The signal ends the waiting, not the
   * closing.
   */
  close (options?: AbortOptions): Promise<void>
}

/**
 * Where to open a local port, see `PacketEndpointFactory.open`; `signal` ends the waiting
 */
export interface OpenEndpointOptions extends PacketAddress, AbortOptions {
}

/**
 * How local ports are opened: `udp()` by default, a `MemoryNetwork` in tests, or a packet transport of your own
 */
export interface PacketEndpointFactory {
  /**
   * Called when a node starts: do in the background what the first port or handshake would otherwise wait for. Never throws.
   */
  prepare? (): void

  /**
   * Open a local port. `host` is an IP address of this machine or an unspecified one (`0.0.0.0`, `::`), port 0 stands for
   * one that is free. Rejects with `AddressInUseError`, `AddressUnavailableError`, `EngineUnavailableError`, or the
   * signal's reason.
   */
  open (options: OpenEndpointOptions): Promise<PacketEndpoint>
}
