import { InvalidParametersError, isConnection, isPeerId, serviceCapabilities, TooManyInboundProtocolStreamsError, UnsupportedProtocolError } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { lpStream } from '@libp2p/utils'
import { CODE_P2P } from '@multiformats/multiaddr'
import { setMaxListeners } from 'main-event'
import * as varint from 'uint8-varint'
import { Uint8ArrayList } from 'uint8arraylist'
import { checkLimits, MAX_TIMEOUT } from '../check-limits.ts'
import { DatagramsUnsupportedError, SessionClosedError } from '../errors.ts'
import { DEFAULT_MAX_LINES, limitLogger } from '../limit-logger.ts'
import { quote } from '../quote.ts'
import { findSession, setDatagramService, TRANSPORT_TAG } from '../sessions.ts'
import { ControlledFlow } from './flow.ts'
import { SessionFlows } from './session-flows.ts'
import type { DatagramFlow, DatagramFlowHandler, Datagrams, DatagramsComponents, DatagramsInit, HandleOptions } from './index.ts'
import type { SessionRecord } from '../sessions.ts'
import type { AbortOptions, Connection, Counter, CounterGroup, Logger, PeerId, Startable, Stream } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

/**
 * The protocol of control streams, by the libp2p datagrams draft
 */
const CONTROL_PROTOCOL = '/dg/1'

/** As long as multistream-select lets a protocol id be */
const MAX_PROTOCOL_LENGTH = 1_024

const DEFAULT_MAX_FLOWS = 256
const DEFAULT_MAX_FLOWS_OF_PROTOCOL = 32
const DEFAULT_NEGOTIATION_TIMEOUT = 5_000

/** Some tens of milliseconds of a busy flow */
const DEFAULT_MAX_EARLY_DATAGRAMS = 64

/** A long round trip */
const DEFAULT_EARLY_TIMEOUT = 1_000
const DEFAULT_MAX_CLOSED_FLOWS = 64
const DEFAULT_CLOSE_TIMEOUT = 10_000

interface FlowHandlerRecord {
  handler: DatagramFlowHandler
  maxInboundFlows: number
}

/**
 * The datagrams of a node's sessions, sorted into flows
 */
export class DatagramsService implements Datagrams, Startable {
  readonly [Symbol.toStringTag] = 'libp2p-psec-datagrams'
  readonly [serviceCapabilities]: string[] = ['libp2p-psec/datagrams']

  readonly #components: DatagramsComponents
  readonly #init: Required<DatagramsInit>
  readonly #log: Logger
  readonly #handlers = new Map<string, FlowHandlerRecord>()
  readonly #sessions = new Map<SessionRecord, SessionFlows>()
  /** What sessions that are over have lost */
  readonly #dropped: Record<string, number> = { closed: 0, early: 0, invalid: 0, noListener: 0 }
  /** What they have lost before it got to any flow, or after */
  readonly #droppedBySessions: Record<string, number> = {}
  readonly #refused?: CounterGroup
  readonly #closeTimeouts?: Counter
  #started = false

  constructor (components: DatagramsComponents, init: DatagramsInit) {
    this.#components = components
    this.#init = withDefaults(init)
    this.#log = limitLogger(components.logger.forComponent('libp2p:datagrams'), {
      maxLines: this.#init.maxLogLines,
      keptBack: components.metrics?.registerCounter('libp2p_datagrams_unlogged_lines_total', {
        help: 'Total count of lines that the datagrams service would have logged if there had not been so many'
      })
    })

    components.metrics?.registerMetricGroup('libp2p_datagrams_flows', {
      label: 'direction',
      help: 'Open datagram flows by direction',
      calculate: () => this.#countFlows()
    })
    components.metrics?.registerCounterGroup('libp2p_datagrams_dropped_total', {
      label: 'reason',
      help: 'Total count of received datagrams that belonged to no open flow, or that nobody listened for, by reason',
      calculate: () => this.#countDropped()
    })
    components.metrics?.registerCounterGroup('libp2p_datagrams_session_dropped_total', {
      label: 'reason',
      help: 'Total count of datagrams for which the queues of sessions had no room, or the path had become too small, by reason',
      calculate: () => this.#countDroppedBySessions()
    })
    this.#refused = components.metrics?.registerCounterGroup('libp2p_datagrams_refused_flows_total', {
      label: 'error',
      help: 'Total count of inbound datagram flows that were not taken, or failed at once, by the name of the error'
    })
    this.#closeTimeouts = components.metrics?.registerCounter('libp2p_datagrams_close_timeouts_total', {
      help: 'Total count of datagram flows whose control stream was reset because the remote did not close its side in time'
    })
  }

  isStarted (): boolean {
    return this.#started
  }

  async start (): Promise<void> {
    if (this.#started) {
      return
    }

    this.#started = true
    setDatagramService(this.#components.events, this)
    await this.#components.registrar.handle(CONTROL_PROTOCOL, async (stream, connection) => {
      await this.#onControlStream(stream, connection)
    }, {
      maxInboundStreams: this.#init.maxInboundFlows,
      maxOutboundStreams: this.#init.maxOutboundFlows,
      runOnLimitedConnection: false
    })
  }

  async stop (): Promise<void> {
    if (!this.#started) {
      return
    }

    this.#started = false
    setDatagramService(this.#components.events)

    for (const flows of this.#sessions.values()) {
      flows.close()
    }

    await this.#components.registrar.unhandle(CONTROL_PROTOCOL)
  }

  async handle (protocol: string, handler: DatagramFlowHandler, options: HandleOptions = {}): Promise<void> {
    encodeProtocol(protocol)
    const { maxInboundFlows } = checkLimits('datagrams', { maxInboundFlows: options.maxInboundFlows ?? DEFAULT_MAX_FLOWS_OF_PROTOCOL })

    if (this.#handlers.has(protocol) && options.force !== true) {
      throw new InvalidParametersError(`There is a handler for flows of ${protocol} already, unhandle it first or pass force`)
    }

    this.#handlers.set(protocol, { handler, maxInboundFlows })
  }

  async unhandle (protocol: string): Promise<void> {
    this.#handlers.delete(protocol)
  }

  async open (target: PeerId | Multiaddr | Multiaddr[] | Connection, protocol: string, options: AbortOptions = {}): Promise<DatagramFlow> {
    const opening = encodeProtocol(protocol)
    const connection = await this.#connect(target, options)
    const session = sessionWithDatagrams(connection)
    const stream = await this.#openControlStream(connection, options)

    try {
      const flow = this.#createFlow(session, connection, stream, protocol)
      // the draft: datagrams may follow at once
      stream.send(opening)

      return flow
    } catch (err: any) {
      stream.abort(err)
      throw err
    }
  }

  /**
   * Take the datagrams of a new session
   */
  attach (session: SessionRecord): SessionFlows {
    let flows = this.#sessions.get(session)

    if (flows == null) {
      flows = new SessionFlows({ session, limits: this.#init, onClose: () => { this.#onSessionOver(session) } })

      // one that is over will not say so again
      if (session.status !== 'closed') {
        this.#sessions.set(session, flows)
        session.receiver = flows
      }
    }

    return flows
  }

  async #connect (target: PeerId | Multiaddr | Multiaddr[] | Connection, options: AbortOptions): Promise<Connection> {
    if (isConnection(target)) {
      return target
    }

    const { connectionManager } = this.#components
    const peerId = isPeerId(target) ? target : findPeerId(target)
    // there may be others to the same peer, by transports without datagrams
    const existing = peerId == null ? undefined : connectionManager.getConnections(peerId).find(carriesDatagrams)

    if (existing != null) {
      return existing
    }

    const addresses = await this.#addressesWithDatagrams(target)

    if (addresses.length === 0) {
      return connectionManager.openConnection(target, options)
    }

    const connection = await connectionManager.openConnection(addresses, options)

    // libp2p is content with any connection to the peer
    return findSession(connection) == null ? connectionManager.openConnection(addresses, { ...options, force: true }) : connection
  }

  async #addressesWithDatagrams (target: PeerId | Multiaddr | Multiaddr[]): Promise<Multiaddr[]> {
    const { transportManager } = this.#components
    const addresses = isPeerId(target) ? await this.#knownAddresses(target) : [target].flat()

    return addresses.filter(ma => transportManager.dialTransportForMultiaddr(ma)?.[Symbol.toStringTag] === TRANSPORT_TAG)
  }

  async #knownAddresses (peerId: PeerId): Promise<Multiaddr[]> {
    try {
      const { addresses } = await this.#components.peerStore.get(peerId)

      return addresses.map(({ multiaddr }) => findPeerId(multiaddr) == null ? multiaddr.encapsulate(`/p2p/${peerId}`) : multiaddr)
    } catch (err: any) {
      if (err.name === 'NotFoundError') {
        return []
      }

      throw err
    }
  }

  async #openControlStream (connection: Connection, options: AbortOptions): Promise<Stream> {
    try {
      return await connection.newStream(CONTROL_PROTOCOL, options)
    } catch (err: any) {
      if (err.name === UnsupportedProtocolError.name) {
        throw new DatagramsUnsupportedError(`${connection.remotePeer} does not speak ${CONTROL_PROTOCOL}: it has to run a datagrams service, too`, { cause: err })
      }

      throw err
    }
  }

  #createFlow (session: SessionRecord, connection: Connection, stream: Stream, protocol: string): ControlledFlow {
    const streamId = session.streamId(stream)

    if (streamId == null) {
      throw new DatagramsUnsupportedError('The control stream is not one of the session\'s own, so that its id is not known')
    }

    const flow = new ControlledFlow({
      protocol,
      connection,
      session,
      stream,
      streamId,
      closeTimeout: this.#init.closeTimeout,
      onCloseTimeout: () => { this.#closeTimeouts?.increment() }
    })
    this.attach(session).add(streamId, flow)
    stream.log('datagram flow of %s opened', protocol)

    return flow
  }

  async #onControlStream (stream: Stream, connection: Connection): Promise<void> {
    const session = findSession(connection)
    const streamId = session?.streamId(stream)

    if (session == null || streamId == null) {
      stream.abort(new DatagramsUnsupportedError('A control stream came on a connection that carries no datagrams'))
      return
    }

    const flows = this.attach(session)

    try {
      const protocol = await this.#readProtocol(stream)
      const handler = this.#handlerOf(protocol, flows)
      const flow = this.#createFlow(session, connection, stream, protocol)

      await callHandler(handler, flow, () => {
        flows.deliverEarly(streamId)
        flow.begin()
      })
    } catch (err: any) {
      this.#log('datagram flow from %p refused - %e', connection.remotePeer, err)
      this.#refused?.increment({ [String(err?.name ?? 'Error')]: true })
      flows.refuse(streamId)
      stream.abort(err)
    }
  }

  async #readProtocol (stream: Stream): Promise<string> {
    const signal = AbortSignal.timeout(this.#init.negotiationTimeout)
    setMaxListeners(Infinity, signal)

    const lp = lpStream(stream, { maxDataLength: MAX_PROTOCOL_LENGTH })
    const bytes = await lp.read({ signal })
    lp.unwrap()

    return new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray())
  }

  #handlerOf (protocol: string, flows: SessionFlows): DatagramFlowHandler {
    const record = this.#handlers.get(protocol)

    if (record == null || !this.#started) {
      throw new UnsupportedProtocolError(`No handler for datagram flows of ${quote(protocol)}`)
    }

    if (flows.count('inbound', protocol) >= record.maxInboundFlows) {
      throw new TooManyInboundProtocolStreamsError(`Too many inbound datagram flows of ${protocol} - limit ${record.maxInboundFlows}`)
    }

    return record.handler
  }

  #onSessionOver (session: SessionRecord): void {
    const flows = this.#sessions.get(session)

    if (flows != null) {
      this.#sessions.delete(session)

      addCounts(this.#dropped, flows.dropped)
      addCounts(this.#droppedBySessions, session.droppedDatagrams)
    }
  }

  #countFlows (): Record<string, number> {
    const counts = { inbound: 0, outbound: 0 }

    for (const flows of this.#sessions.values()) {
      counts.inbound += flows.count('inbound')
      counts.outbound += flows.count('outbound')
    }

    return counts
  }

  #countDropped (): Record<string, number> {
    const counts = { ...this.#dropped }

    for (const flows of this.#sessions.values()) {
      addCounts(counts, flows.dropped)
    }

    return counts
  }

  #countDroppedBySessions (): Record<string, number> {
    const counts = { ...this.#droppedBySessions }

    for (const session of this.#sessions.keys()) {
      addCounts(counts, session.droppedDatagrams)
    }

    return counts
  }
}

function withDefaults (init: DatagramsInit): Required<DatagramsInit> {
  return {
    ...checkLimits('datagrams', {
      maxInboundFlows: init.maxInboundFlows ?? DEFAULT_MAX_FLOWS,
      maxOutboundFlows: init.maxOutboundFlows ?? DEFAULT_MAX_FLOWS,
      maxEarlyDatagrams: init.maxEarlyDatagrams ?? DEFAULT_MAX_EARLY_DATAGRAMS,
      maxClosedFlows: init.maxClosedFlows ?? DEFAULT_MAX_CLOSED_FLOWS,
      maxLogLines: init.maxLogLines ?? DEFAULT_MAX_LINES
    }),
    ...checkLimits('datagrams', {
      negotiationTimeout: init.negotiationTimeout ?? DEFAULT_NEGOTIATION_TIMEOUT,
      earlyTimeout: init.earlyTimeout ?? DEFAULT_EARLY_TIMEOUT,
      closeTimeout: init.closeTimeout ?? DEFAULT_CLOSE_TIMEOUT
    }, MAX_TIMEOUT)
  }
}

function addCounts (sums: Record<string, number>, counts: object): void {
  for (const [reason, count] of Object.entries(counts)) {
    sums[reason] = (sums[reason] ?? 0) + count
  }
}

/**
 * Hand a new flow to its application, then what had arrived for it. An application that fails loses the flow.
 */
async function callHandler (handler: DatagramFlowHandler, flow: DatagramFlow, deliver: () => void): Promise<void> {
  const handled = handler(flow)
  deliver()
  await handled
}

/**
 * The application protocol id as a control stream begins with it
 */
function encodeProtocol (protocol: string): Uint8ArrayList {
  const bytes = new TextEncoder().encode(protocol)

  if (bytes.byteLength === 0 || bytes.byteLength > MAX_PROTOCOL_LENGTH || !protocol.isWellFormed()) {
    throw new InvalidParametersError(`The id of an application protocol has to be 1 to ${MAX_PROTOCOL_LENGTH} bytes of UTF-8, "${protocol}" is not`)
  }

  return new Uint8ArrayList(varint.encode(bytes.byteLength), bytes)
}

function carriesDatagrams (connection: Connection): boolean {
  return connection.status === 'open' && (findSession(connection)?.maxDatagramSize ?? 0) > 0
}

/**
 * The peer that an address, or the first of several, names
 */
function findPeerId (target: Multiaddr | Multiaddr[]): PeerId | undefined {
  const [ma] = [target].flat()
  const id = ma?.getComponents().findLast(({ code }) => code === CODE_P2P)?.value

  return id == null ? undefined : peerIdFromString(id)
}

function sessionWithDatagrams (connection: Connection): SessionRecord {
  const session = findSession(connection)

  if (session == null) {
    throw new DatagramsUnsupportedError(`The connection to ${connection.remoteAddr} is of a transport that carries no datagrams: dial an address that ends in /udp/…/psec`)
  }

  if (session.status !== 'open') {
    throw new SessionClosedError(`The connection to ${connection.remoteAddr} is ${session.status}, open another one`)
  }

  if (session.maxDatagramSize === 0) {
    throw new DatagramsUnsupportedError(`The peer at ${connection.remoteAddr} takes no datagrams`)
  }

  return session
}
