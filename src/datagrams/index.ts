/**
 * The `datagrams()` service: libp2p's draft for datagrams (libp2p/specs pull request 680) over whatever session a
 * connection of this package has. It knows no scheme and no PSEC.
 *
 * A flow belongs to an application protocol. Its control stream, of protocol `/dg/1`, carries that protocol's id and
 * then nothing; the flow lives as long as the control stream. Each datagram begins with the control stream's id.
 */
import { DatagramsService } from './service.ts'
import type { DatagramEvent } from './datagram-event.ts'
import type { AbortOptions, ComponentLogger, Connection, Libp2pEvents, Metrics, PeerId, PeerStore, StreamCloseEvent } from '@libp2p/interface'
import type { ConnectionManager, Registrar, TransportManager } from '@libp2p/interface-internal'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { TypedEventTarget } from 'main-event'
import type { Uint8ArrayList } from 'uint8arraylist'

export type { DatagramEvent }

/**
 * Each is a whole number of 0 or more, else `InvalidParametersError`
 */
export interface DatagramsInit {
  /**
   * How many flows the remote of a connection may have open at a time, of all protocols together
   *
   * @default 256
   */
  maxInboundFlows?: number

  /**
   * How many flows may be open on a connection at a time that this node opened
   *
   * @default 256
   */
  maxOutboundFlows?: number

  /**
   * How long a new control stream may take to say its application protocol, in milliseconds
   *
   * @default 5000
   */
  negotiationTimeout?: number

  /**
   * How many datagrams of a connection that overtook their control stream are held for it, of 1 KiB each on average; the oldest make
   * room
   *
   * @default 64
   */
  maxEarlyDatagrams?: number

  /**
   * How long they are held, in milliseconds. The draft: on the order of a round trip.
   *
   * @default 1000
   */
  earlyTimeout?: number

  /**
   * How many control streams of a connection that are over are remembered, for `earlyTimeout`, so that what still arrives for them does
   * not take the room of datagrams whose control stream is about to come; the oldest make room
   *
   * @default 64
   */
  maxClosedFlows?: number

  /**
   * How long the remote may leave its side of a control stream open after this side was closed, in milliseconds, before it is reset
   *
   * @default 10_000
   */
  closeTimeout?: number

  /**
   * How many lines a second remotes may cause in the log; more are kept back, and counted
   *
   * @default 50
   */
  maxLogLines?: number
}

/**
 * What the service needs of its node
 */
export interface DatagramsComponents {
  connectionManager: ConnectionManager
  transportManager: TransportManager
  peerStore: PeerStore
  registrar: Registrar
  events: TypedEventTarget<Libp2pEvents>
  logger: ComponentLogger
  metrics?: Metrics
}

/**
 * What a flow tells its listeners
 */
export interface DatagramFlowEvents {
  /**
   * A datagram arrived
   */
  message: DatagramEvent

  /**
   * `send` returned false earlier, and may be called again
   */
  drain: Event

  /**
   * The flow is over: `error` is set if it did not end orderly, `local` tells which side ended it
   */
  close: StreamCloseEvent
}

/**
 * How many datagrams of a flow were lost on this side, by reason
 */
export interface DroppedDatagrams {
  /** Sent although `send` had returned false */
  sendQueueFull: number

  /** Arrived while nobody listened for `message` */
  noListener: number
}

/**
 * A logical flow of datagrams between two peers, of one application protocol. Datagrams get lost, and overtake each
 * other.
 *
 * A listener that throws, or rejects, loses the flow, which is aborted: it does not end the process, as it would with other
 * event targets. What `send` throws may be the remote's doing.
 */
export interface DatagramFlow extends TypedEventTarget<DatagramFlowEvents> {
  /**
   * The application protocol
   */
  readonly protocol: string

  /**
   * What carries it, and ends it with itself
   */
  readonly connection: Connection
  readonly remotePeer: PeerId

  /**
   * Who opened it
   */
  readonly direction: 'inbound' | 'outbound'

  /**
   * `closed` from when either side has ended it: nothing can be sent any more
   */
  readonly status: 'open' | 'closed'

  /**
   * The most bytes that `send` takes now; it may grow and shrink with the path
   */
  readonly maxDatagramSize: number

  /**
   * Datagrams that were sent, which does not mean that they arrived
   */
  readonly sent: number

  /**
   * Datagrams that arrived and were delivered
   */
  readonly received: number

  /**
   * Datagrams that were lost on this side
   */
  readonly dropped: Readonly<DroppedDatagrams>

  /**
   * Send a datagram, without waiting and without knowing whether it arrives. The bytes may be changed afterwards.
   * Returns whether more may be sent now; if not, wait for `drain`: what is sent regardless may be dropped.
   *
   * @throws {DatagramTooLargeError} if it has more bytes than `maxDatagramSize`
   * @throws {StreamStateError} if the flow is closed
   * @throws {SessionClosedError} if the session under it is
   */
  send (data: Uint8Array | Uint8ArrayList): boolean

  /**
   * End the flow, in both directions; what is under way may still be lost. Resolves when the remote is being told.
   */
  close (options?: AbortOptions): Promise<void>

  /**
   * End the flow abruptly: the remote sees it close with an error
   */
  abort (err: Error): void
}

/**
 * Called with each new flow of a protocol. Add a listener for `message` before it returns: what has arrived already is
 * delivered right afterwards.
 */
export interface DatagramFlowHandler {
  (flow: DatagramFlow): void | Promise<void>
}

/**
 * Options of `Datagrams.handle`
 */
export interface HandleOptions {
  /**
   * How many flows of this protocol the remote of a connection may have open at a time
   *
   * @default 32
   */
  maxInboundFlows?: number

  /**
   * Replace the handler that is there
   */
  force?: boolean
}

/**
 * What `node.services.datagrams` is
 */
export interface Datagrams {
  /**
   * Take the flows of an application protocol
   *
   * @throws {InvalidParametersError} if there is a handler for it already, if the id is not 1 to 1,024 bytes, or the limit no
   * number of things
   */
  handle (protocol: string, handler: DatagramFlowHandler, options?: HandleOptions): Promise<void>

  /**
   * Take no more flows of an application protocol. Open ones stay open.
   */
  unhandle (protocol: string): Promise<void>

  /**
   * Open a flow to a peer, over a connection that exists or, for a peer or an address, over a new one. Where there are several
   * ways, it is one that carries datagrams, beside others if need be. It may be sent on at once. If the remote does not speak the
   * application protocol, the flow soon closes with an error.
   *
   * Rejects, too, with what libp2p fails with to dial or to open a stream, and with the signal's reason.
   *
   * @throws {DatagramsUnsupportedError} if the connection's transport, or its remote, carries no datagrams, or no address is known that
   * does
   * @throws {InvalidParametersError} if the id of the application protocol is not 1 to 1,024 bytes
   * @throws {SessionClosedError} if the connection is closed
   */
  open (target: PeerId | Multiaddr | Multiaddr[] | Connection, protocol: string, options?: AbortOptions): Promise<DatagramFlow>
}

/**
 * Create the service, for the `services` of a node's configuration
 */
export function datagrams (init: DatagramsInit = {}): (components: DatagramsComponents) => Datagrams {
  return (components) => new DatagramsService(components, init)
}
