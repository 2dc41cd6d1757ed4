/**
 * What belongs to a libp2p connection of this transport but has no place in libp2p's interface: its session and what
 * was negotiated for it. The transport writes it down, the datagrams service and the user look it up.
 */
import type { SecureSession } from './schemes/index.ts'
import type { Negotiation } from './upgrader/index.ts'
import type { Connection, Libp2pEvents, Stream } from '@libp2p/interface'
import type { TypedEventTarget } from 'main-event'

/**
 * By which a transport whose connections carry datagrams is known (`Symbol.toStringTag`)
 */
export const TRANSPORT_TAG = 'libp2p-psec'

/**
 * What was negotiated for a connection, by whom, how long each step took, and whether both sides have proved that they saw the
 * same (`docs/confirm.md`)
 */
export interface ConnectionNegotiation extends Negotiation {
  /**
   * Whether that is proved by now. With `confirm: 'require'` it is as soon as there is a connection.
   */
  readonly confirmed: boolean

  /**
   * Resolves with the final value of `confirmed`: true when it is proved; false as soon as it is clear that it will not be, at the
   * latest when the time for it is over (`confirmTimeout`). Never rejects: where the proof fails the connection is closed, with
   * `DowngradeDetectedError` as the error of its `close` event, or `ConfirmationFailedError` if what the remote sent can't be read.
   */
  readonly confirmation: Promise<boolean>

  /**
   * As `Negotiation.timings`; `confirmed` when the remote's proof was verified
   */
  timings: Negotiation['timings'] & { confirmed?: number }
}

/**
 * Who takes the datagrams of a session. Called synchronously; must not throw.
 */
export interface DatagramReceiver {
  onDatagram (payload: Uint8Array): void
  onDatagramDrain (): void
  onClose (err?: Error): void
}

/**
 * What the datagrams service needs of a session, whatever scheme it is of
 */
export interface DatagramSession extends Pick<SecureSession, 'status' | 'maxDatagramSize' | 'droppedDatagrams' | 'sendDatagram' | 'abort'> {
  /**
   * The number by which both sides know this stream of the session, undefined if it is not one of its streams
   */
  streamId (stream: Stream): number | undefined

  /**
   * Whether a stream of that id can exist, as far as the scheme knows
   */
  isWithinStreamLimit (id: number): boolean
}

/**
 * A session on its way into, and inside of, a libp2p connection
 */
export class SessionRecord implements DatagramSession {
  readonly negotiation: ConnectionNegotiation

  /**
   * Takes the session's datagrams; without one they are lost
   */
  receiver?: DatagramReceiver
  readonly #session: SecureSession

  constructor (session: SecureSession, negotiation: ConnectionNegotiation) {
    this.#session = session
    this.negotiation = negotiation
  }

  get status (): SecureSession['status'] {
    return this.#session.status
  }

  get maxDatagramSize (): number {
    return this.#session.maxDatagramSize
  }

  get droppedDatagrams (): SecureSession['droppedDatagrams'] {
    return this.#session.droppedDatagrams
  }

  sendDatagram (payload: Uint8Array): boolean {
    return this.#session.sendDatagram(payload)
  }

  abort (err: Error, code?: number): void {
    this.#session.abort(err, code)
  }

  streamId (stream: Stream): number | undefined {
    // the muxer names a stream by its number; an id survives the wrappers that stream middleware may put around a
    // stream
    return /^\d{1,16}$/.test(stream.id) ? Number(stream.id) : undefined
  }

  isWithinStreamLimit (id: number): boolean {
    return this.#session.isWithinStreamLimit?.(id) ?? true
  }
}

// a libp2p connection shares this object with the transport's side of it, and nothing else that is unique
const records = new WeakMap<object, SessionRecord>()

/**
 * Write down what belongs to the connection whose timeline this is
 */
export function recordSession (timeline: object, record: SessionRecord): void {
  records.set(timeline, record)
}

/**
 * The session of a connection, undefined if the connection is not of this transport
 */
export function findSession (connection: Pick<Connection, 'timeline'>): SessionRecord | undefined {
  return records.get(connection.timeline)
}

/**
 * What was negotiated for a connection. Undefined if the connection is not of this transport.
 *
 * @example
 *
 * ```ts
 * const connection = await node.dial(ma)
 *
 * console.info(negotiation(connection)?.scheme) // /quic-datagram/1.0.0
 *
 * if (await negotiation(connection)?.confirmation) {
 *   console.info('nobody on the path changed what the peers offered each other')
 * }
 * ```
 */
export function negotiation (connection: Pick<Connection, 'timeline'>): ConnectionNegotiation | undefined {
  return findSession(connection)?.negotiation
}

/**
 * Gives a new session of a node its receiver of datagrams
 */
export interface DatagramService {
  attach (session: SessionRecord): void
}

// a transport and a service of one node meet at the node's event target: both are given it, no other node has it
const services = new WeakMap<TypedEventTarget<Libp2pEvents>, DatagramService>()

/**
 * Attach this service to every session of the node from now on; undefined ends it
 */
export function setDatagramService (node: TypedEventTarget<Libp2pEvents>, service?: DatagramService): void {
  if (service == null) {
    services.delete(node)
  } else {
    services.set(node, service)
  }
}

/**
 * The node's datagrams service, if it has one that runs
 */
export function getDatagramService (node: TypedEventTarget<Libp2pEvents>): DatagramService | undefined {
  return services.get(node)
}
