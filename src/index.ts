/**
 * @packageDocumentation
 *
 * A [libp2p transport](https://libp2p.io/docs/transports-overview/) for secured streams and datagrams over plain UDP.
 * Two peers agree on the scheme that secures their traffic by PSEC, the security negotiation for packet-oriented
 * libp2p.
 *
 * One UDP port per listen address does everything: it listens, it dials, it carries every scheme.
 *
 * @example
 *
 * ```ts
 * import { createLibp2p } from 'libp2p'
 * import { datagrams, psec } from 'libp2p-psec'
 *
 * const config = {
 *   addresses: { listen: ['/ip4/127.0.0.1/udp/0/psec'] },
 *   transports: [psec()],
 *   services: { datagrams: datagrams() }
 * }
 * const alice = await createLibp2p({ ...config })
 * const bob = await createLibp2p({ ...config })
 *
 * await bob.services.datagrams.handle('/echo/1.0.0', (flow) => {
 *   flow.addEventListener('message', (evt) => {
 *     flow.send(evt.data)
 *   })
 * })
 *
 * const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), '/echo/1.0.0')
 * const echoed = new Promise((resolve) => {
 *   flow.addEventListener('message', resolve, { once: true })
 * })
 *
 * flow.send(Uint8Array.from([1, 2, 3])) // may get lost on the way, as datagrams do
 * await echoed
 *
 * console.info('%d datagrams came back from %s', flow.received, flow.remotePeer)
 *
 * await alice.stop()
 * await bob.stop()
 * ```
 */
import { dtls } from './schemes/dtls/index.ts'
import { quicDatagram } from './schemes/quic-datagram/index.ts'
import { udpEndpoints } from './sockets/udp.ts'
import { PsecTransport } from './transport/psec.ts'
import type { ConfirmPolicy } from './confirm/index.ts'
import type { SecurityScheme } from './schemes/index.ts'
import type { PacketAddress, PacketEndpointFactory } from './sockets/index.ts'
import type { PsecProgressEvents, PsecUpgraderInit } from './upgrader/index.ts'
import type { ComponentLogger, ConnectionProtector, DialTransportOptions, Libp2pEvents, Metrics, OutboundConnectionUpgradeEvents, PeerId, PrivateKey, Transport } from '@libp2p/interface'
import type { TypedEventTarget } from 'main-event'
import type { ProgressEvent } from 'progress-events'

/**
 * What a listener keeps for remotes that are not connected yet. Beyond any of these limits the newest are turned away without a
 * word; they are free to try again. Each is a whole number of 0 or more, else `InvalidParametersError`.
 */
export interface InboundLimits {
  /**
   * How many inbound connections of a listener may be on their way at a time, from the first datagram to libp2p's connection
   *
   * @default 256
   */
  maxPendingInbound?: number

  /**
   * How many of them may come from one part of the network, an IPv4 /24 or an IPv6 /48
   *
   * @default half of `maxPendingInbound`
   */
  maxPendingPerPrefix?: number

  /**
   * How many of them may be of remotes that have not proved that they receive at their address. The other places are for those who
   * did. Only where strangers can be made to prove it, see `validationThreshold`.
   *
   * @default half of `maxPendingInbound`, or `validationThreshold` if that is more
   */
  maxUnprovenInbound?: number

  /**
   * When as many inbound connections are on their way, or have failed within a second, of remotes that have not proved that they
   * receive at their address, the next ones have to prove that before anything else is done for them (QUIC: Retry, RFC 9000,
   * section 8.1.2), which takes them a round trip more. 0: always. Only for schemes and ports of the native
   * engine.
   *
   * @default a quarter of `maxPendingInbound`
   */
  validationThreshold?: number

  /**
   * How many remotes that have to prove their address are remembered, in some 200 bytes each. When it is full
   * the oldest makes room.
   *
   * @default 65,536
   */
  maxHeldOffInbound?: number

  /**
   * How many of them may be of one part of the network, an IPv4 /24 or an IPv6 /48
   *
   * @default an eighth of `maxHeldOffInbound`
   */
  maxHeldOffPerPrefix?: number

  /**
   * While strangers have to prove their address: how many proposals a second are let through that only JavaScript can answer, since
   * they name schemes that this node does not know, or more than `maxPreparedNames`
   *
   * @default 160
   */
  maxUnpreparedInbound?: number

  /**
   * How long who has to prove its address is remembered after its latest proposal, and its proof is valid, in milliseconds. A proof
   * knows whole seconds only, so it may be valid for one less.
   *
   * @default 15_000
   */
  validationTimeout?: number

  /**
   * How often the remote of a connection, or of one on its way, may propose afresh at once; in the long run a quarter as often a second.
   * Each time costs a handshake, and who forges its address can do it, too.
   *
   * @default 8
   */
  maxRenewals?: number
}

/**
 * What is kept of a connected remote, whichever scheme its session is of; the schemes have limits of their own. Each is a whole number
 * of 0 or more, else `InvalidParametersError`.
 */
export interface SessionLimits {
  /**
   * From how many bytes of a stream on that nobody listens to, or that a loop over it has not taken, the remote has to wait
   *
   * @default 262_144
   */
  maxUnreadBytes?: number

  /**
   * How many bytes the remote may send on a stream whose readable end was closed here, before it is told to stop
   *
   * @default 65_536
   */
  maxUnwantedBytes?: number

  /**
   * How many streams are held until libp2p has the session, and while the one is looked for on which the remote confirms the
   * negotiation; more are reset
   *
   * @default 256
   */
  maxHeldStreams?: number

  /**
   * How many datagrams are held until libp2p has the session; more are dropped
   *
   * @default 64
   */
  maxHeldDatagrams?: number
}

/**
 * Options of `psec()`. Each has a default. Schemes that can't be offered, and numbers and a `confirm` that are none, are refused with
 * `InvalidParametersError` when the node is made. What bounds what a remote can cause is told in `docs/limits.md`.
 */
export interface PsecInit extends InboundLimits, SessionLimits, Omit<PsecUpgraderInit, 'schemes' | 'onRenewed'> {
  /**
   * The security schemes to offer and accept, most wanted first
   *
   * @default [quicDatagram(), dtls()]
   */
  schemes?: SecurityScheme[]

  /**
   * Whether both sides of a connection have to prove that they saw the same negotiation (`docs/confirm.md`). Without, whoever
   * sits on the path can have them agree on a weaker one of their schemes.
   *
   * With `require` a peer that can't prove it is refused, with `ConfirmationFailedError`, and before it has there is no
   * connection: a dial takes one round trip more. With `prefer` the proof is asked for while the application uses the connection
   * already, and a peer that gives none is taken all the same; see `negotiation(connection).confirmed`. With `off` nothing is
   * proved, nor asked for.
   *
   * With `require` and `prefer`, a connection whose negotiation was tampered with is closed with `DowngradeDetectedError`.
   *
   * @default 'prefer'
   */
  confirm?: ConfirmPolicy

  /**
   * How long the remote has for that, in milliseconds, from when the session is secured
   *
   * @default 10_000
   */
  confirmTimeout?: number

  /**
   * How local ports are opened: for tests, or to run over a packet network that is not UDP
   *
   * @default UDP by the native engine
   */
  endpoints?: PacketEndpointFactory
}

/**
 * What a dial tells `onProgress`
 */
export type PsecDialEvents =
  OutboundConnectionUpgradeEvents |
  PsecProgressEvents |
  /** The host name in the address is being looked up */
  ProgressEvent<'psec:resolve', { host: string }> |
  /** There is a socket; the dial leaves from this local port */
  ProgressEvent<'psec:open-socket', { localAddress: PacketAddress, remoteAddress: PacketAddress }> |
  /** A negotiation with the address is under way, whoever began it: the dial waits for its outcome */
  ProgressEvent<'psec:join', { localAddress: PacketAddress, remoteAddress: PacketAddress }>

/**
 * What the transport takes with a dial: libp2p's `signal` and `upgrader`, and `onProgress`, which is told of each step
 */
export interface PsecDialOptions extends DialTransportOptions<PsecDialEvents> {
}

/**
 * What the transport needs of its node
 */
export interface PsecComponents {
  peerId: PeerId

  /**
   * What the schemes' handshakes and the confirmation prove the peer id with
   */
  privateKey: PrivateKey
  logger: ComponentLogger
  events: TypedEventTarget<Libp2pEvents>
  metrics?: Metrics

  /**
   * A node that has one is refused: sessions over UDP would bypass it
   */
  connectionProtector?: ConnectionProtector
}

/**
 * Create the transport, for the `transports` of a node's configuration. What it returns throws when the node is made:
 * `PrivateNetworkError` if that has a `connectionProtector`, `InvalidParametersError` if an option is none that it can be.
 */
export function psec (init: PsecInit = {}): (components: PsecComponents) => Transport<PsecDialEvents> {
  return (components) => new PsecTransport(components, {
    ...init,
    schemes: init.schemes ?? [quicDatagram(), dtls()],
    endpoints: init.endpoints ?? udpEndpoints
  })
}

export { datagrams } from './datagrams/index.ts'
export * from './errors.ts'
export { dtls } from './schemes/dtls/index.ts'
export { quicDatagram } from './schemes/quic-datagram/index.ts'
export { negotiation } from './sessions.ts'
export { MemoryNetwork } from './sockets/memory.ts'
export { udp } from './sockets/udp.ts'
export { PSEC } from './transport/filters.ts'
export { CODE_PSEC } from './transport/multiaddr.ts'
export { PsecUpgrader } from './upgrader/index.ts'
export { decodeFrame, encodeFrame } from './wire/index.ts'
export type { DatagramEvent, DatagramFlow, DatagramFlowEvents, DatagramFlowHandler, Datagrams, DatagramsComponents, DatagramsInit, DroppedDatagrams, HandleOptions } from './datagrams/index.ts'
export type { ConnectionNegotiation } from './sessions.ts'
export type { ConfirmPolicy } from './confirm/index.ts'
export type { Proposals, Role } from './negotiation/index.ts'
export type { DtlsInit } from './schemes/dtls/index.ts'
export type { SessionQueues } from './schemes/native/settings.ts'
export type { QuicDatagramInit } from './schemes/quic-datagram/index.ts'
export type { CancelOptions, ChannelBinding, InitiateOptions, Initiation, ProceedOptions, RespondOptions, SchemeContext, SecureSession, SecureSessionHandler, SecureStream, SecureStreamHandler, SecurityScheme } from './schemes/index.ts'
export type { EndpointShield, OpenEndpointOptions, PacketAcceptor, PacketAddress, PacketEndpoint, PacketEndpointFactory, PacketSocket, PacketSocketEvents, PreparedAnswers } from './sockets/index.ts'
export type { UdpInit } from './sockets/udp.ts'
export type { MemoryNetworkCounters, MemoryNetworkInit } from './sockets/memory.ts'
export type { InboundUpgradeOptions, Negotiation, PsecProgressEvents, PsecUpgraderComponents, PsecUpgraderInit, SecuredSocket, UpgradeOptions } from './upgrader/index.ts'
export type { Accept, Frame, Propose, Reject } from './wire/index.ts'
