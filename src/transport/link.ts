import { UnexpectedPeerError } from '@libp2p/interface'
import { raceSignal } from 'race-signal'
import { realClock } from '../clock.ts'
import { SessionFailedError } from '../errors.ts'
import { getDatagramService, recordSession, SessionRecord } from '../sessions.ts'
import { formatPacketAddress } from '../sockets/index.ts'
import { Confirmation } from './confirmation.ts'
import { PsecConnection } from './connection.ts'
import { countConfirmation } from './metrics.ts'
import { packetAddressToMultiaddr, toBareMultiaddr } from './multiaddr.ts'
import { PsecMuxerFactory } from './muxer.ts'
import { TokenBucket } from './token-bucket.ts'
import type { ConfirmationOutcome } from './confirmation.ts'
import type { PsecMetrics } from './metrics.ts'
import type { ConfirmPolicy } from '../confirm/index.ts'
import type { PsecDialOptions, SessionLimits } from '../index.ts'
import type { SecureSession } from '../schemes/index.ts'
import type { ConnectionNegotiation } from '../sessions.ts'
import type { PacketSocket } from '../sockets/index.ts'
import type { PsecUpgrader, SecuredSocket } from '../upgrader/index.ts'
import type { AbortOptions, Connection, CounterGroup, Libp2pEvents, Logger, PeerId, PrivateKey, Upgrader, UpgraderWithoutEncryptionOptions } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { TypedEventTarget } from 'main-event'

/**
 * What the links of one transport share
 */
export interface LinkContext {
  psecUpgrader: PsecUpgrader
  events: TypedEventTarget<Libp2pEvents>
  log: Logger

  /**
   * What libp2p derives the logs of connections from
   */
  connectionLog: Logger
  metrics: PsecMetrics
  peerId: PeerId
  privateKey: PrivateKey
  confirm: ConfirmPolicy

  /**
   * In milliseconds
   */
  confirmTimeout: number
  maxRenewals: number
  limits: Required<SessionLimits>
}

export interface LinkDialOptions extends PsecDialOptions {
  remotePeer?: PeerId
}

export interface LinkAcceptOptions {
  firstDatagram: Uint8Array

  /**
   * Whether the remote should prove its address, if the scheme has a means to that
   */
  validateAddress: boolean
  upgrader: Upgrader

  /**
   * Ends the negotiation and the handshake
   */
  handshakeSignal: AbortSignal

  /**
   * Ends libp2p's upgrade, which has a time limit of its own
   */
  signal: AbortSignal
}

/**
 * The application error code with which libp2p ends a connection in favour of another one with the same peer (libp2p/specs,
 * "connection error codes": SUPPLANTED)
 */
const SUPPLANTED = 0x1004

/**
 * How long a handshake may go on when the one that came after it is done, in milliseconds: its initiator may be another peer, which takes
 * itself for connected already, and whose last flight is still on its way
 */
const LAST_FLIGHT_TIME = 200

/**
 * How often the remote may propose afresh in the long run, a second, for each time at once. By default that is more than anybody does
 * who came back or dials again, and far less than who forges its address could.
 */
const RENEWALS_PER_SECOND = 1 / 4

/**
 * A secured socket whose negotiation is being confirmed
 */
interface ConfirmableSocket {
  /**
   * Without the confirm stream
   */
  session: SecureSession
  negotiation: ConnectionNegotiation
  outcome: Promise<ConfirmationOutcome>
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

interface AdapterInit {
  remoteAddr: Multiaddr
  direction: 'inbound' | 'outbound'
  metrics?: CounterGroup
  metricPrefix?: string
}

/**
 * A packet socket on its way to a libp2p connection, and everybody who waits for that: the dials, and the listener if
 * the remote began. All get the same connection. It is over, and the socket closed, when the session ends, when a step
 * fails, or when the last who waited has left.
 */
export class Link {
  readonly socket: PacketSocket

  /**
   * How often the remote may propose afresh yet, by whichever of its sockets
   */
  readonly renewals: TokenBucket
  readonly #context: LinkContext
  readonly #controller = new AbortController()
  readonly #firstSecured = Promise.withResolvers<ConfirmableSocket>()
  /** Dials that have not got as far as libp2p's upgrade */
  readonly #securing = new Set<Promise<void>>()
  #predecessor?: Link
  #successor?: Link
  #participants = 0
  #secured?: ConfirmableSocket
  #connection?: Promise<Connection>
  #maConn?: PsecConnection
  #connected = false
  #refusedStreams = 0
  /** Why a session that was secured must not be used */
  #refused?: Error

  constructor (socket: PacketSocket, context: LinkContext, predecessor?: Link) {
    this.socket = socket
    this.renewals = predecessor?.renewals ?? new TokenBucket({ burst: context.maxRenewals, perSecond: context.maxRenewals * RENEWALS_PER_SECOND })
    this.#context = context
    this.#predecessor = predecessor
    predecessor?.socket.addEventListener('close', () => { this.#predecessor = undefined }, { once: true })
  }

  /**
   * What has the older of the remote's two sockets, for as long as that is open
   */
  get predecessor (): Link | undefined {
    return this.#predecessor
  }

  /**
   * Whether it was ended in favour of another one
   */
  get superseded (): boolean {
    return this.#successor != null
  }

  /**
   * Whether the remote has proved who it is
   */
  get secured (): boolean {
    return this.#secured != null
  }

  /**
   * Whether there is a connection, so that there is nothing left to join
   */
  get connected (): boolean {
    return this.#connected
  }

  /**
   * Propose to the remote, or join what is under way. Rejects with what the PSEC upgrader or libp2p's upgrader reject
   * with, or the signal's reason.
   */
  async dial (ma: Multiaddr, options: LinkDialOptions): Promise<Connection> {
    try {
      return await this.#participate(async () => {
        const securing = this.#dial(ma, options)
        const settled = securing.then(() => {}, () => {}).finally(() => { this.#securing.delete(settled) })
        this.#securing.add(settled)

        const { connection } = await securing

        return raceSignal(connection, options.signal)
      })
    } catch (err) {
      // the remote came by its other socket
      if (this.#successor == null || options.signal.aborted) {
        throw err
      }

      return this.#successor.dial(ma, options)
    }
  }

  /**
   * Answer the remote's proposal
   */
  async accept (options: LinkAcceptOptions): Promise<Connection> {
    return this.#participate(async () => {
      const secured = this.#onSecured(await this.#context.psecUpgrader.upgradeInbound(this.socket, {
        firstDatagram: options.firstDatagram,
        validateAddress: options.validateAddress,
        signal: options.handshakeSignal
      }))

      // whoever dialled meanwhile wants the connection, and is not subject to the limits that libp2p sets to strangers
      await Promise.all(this.#securing)
      this.#connection ??= this.#upgradeInbound(secured, options.upgrader)

      return raceSignal(this.#connection, options.signal)
    })
  }

  /**
   * Close the connection, or abort what is on its way to one; resolves when the socket is closed
   */
  async close (options: Required<AbortOptions>): Promise<void> {
    const err = new SessionFailedError('The local port was closed', 'local')

    if (!this.#connected || this.#maConn == null) {
      this.#end(err)
      return
    }

    const closed = this.#socketClosed()

    try {
      await raceSignal(Promise.all([this.#maConn.close(options), closed]), options.signal)
    } catch (cause: any) {
      this.#end(err)
    }
  }

  /**
   * End at once, also what is on its way to a connection
   */
  abort (err: Error): void {
    this.#end(err)
  }

  /**
   * Share in the link; the last to leave without a connection ends it
   */
  async #participate (fn: () => Promise<Connection>): Promise<Connection> {
    this.#participants++

    try {
      return await fn()
    } catch (err: any) {
      if (this.#participants === 1 && !this.#connected) {
        this.#end(err)
      }

      throw err
    } finally {
      this.#participants--
    }
  }

  #end (err: Error): void {
    this.#controller.abort(err)
    this.#maConn?.abort(err)
    this.#secured?.session.abort(err)
    this.socket.close()
  }

  // the connection is wrapped: a promise in the result would be waited for
  async #dial (ma: Multiaddr, options: LinkDialOptions): Promise<{ connection: Promise<Connection> }> {
    const secured = await this.#secure(options)
    options.signal.throwIfAborted()
    this.#connection ??= this.#upgradeOutbound(secured, ma, options)

    return { connection: this.#connection }
  }

  async #secure (options: LinkDialOptions): Promise<ConfirmableSocket> {
    if (this.#secured == null) {
      try {
        const secured = await this.#context.psecUpgrader.upgradeOutbound(this.socket, {
          signal: options.signal,
          onProgress: options.onProgress,
          remotePeer: options.remotePeer
        })

        return this.#onSecured(secured)
      } catch (err: any) {
        // secured in this very moment: those who waited for it are about to be told
        if (err.name !== 'InvalidParametersError' || this.#participants === 1 || this.socket.status === 'closed') {
          throw err
        }
      }
    }

    const secured = await raceSignal(this.#firstSecured.promise, options.signal)
    const { remotePeer } = secured.session

    if (options.remotePeer?.equals(remotePeer) === false) {
      throw new UnexpectedPeerError(
        `Expected ${options.remotePeer} at ${formatPacketAddress(this.socket.remoteAddress)}, but ${remotePeer} is there: check the peer id in the address`)
    }

    return secured
  }

  #onSecured (secured: SecuredSocket): ConfirmableSocket {
    if (this.#secured == null) {
      this.#secured = this.#confirm(secured)
      this.#secured.outcome.finally(() => { this.#countRefusedStreams() })
      this.socket.addEventListener('close', () => { this.#countRefusedStreams() }, { once: true })
      this.#firstSecured.resolve(this.#secured)
      this.#predecessor?.supersede(this)
    }

    return this.#secured
  }

  /**
   * Have both sides prove what they saw of the negotiation
   */
  #confirm (secured: SecuredSocket): ConfirmableSocket {
    const { peerId, privateKey, confirm, confirmTimeout, limits } = this.#context
    const begun = realClock.now()
    const confirmation = new Confirmation({
      secured,
      policy: confirm,
      localPeer: peerId,
      privateKey,
      clock: realClock,
      timeout: confirmTimeout,
      held: { maxStreams: limits.maxHeldStreams, maxDatagrams: limits.maxHeldDatagrams },
      onRefused: (err) => { this.#refuse(err) }
    })
    const negotiation: Mutable<ConnectionNegotiation> = {
      ...secured.negotiation,
      timings: { ...secured.negotiation.timings },
      confirmed: false,
      confirmation: confirmation.outcome.then(outcome => {
        this.#tellOutcome(outcome)

        if (outcome.type !== 'confirmed') {
          return false
        }

        negotiation.confirmed = true
        negotiation.timings.confirmed = negotiation.timings.secured + realClock.now() - begun

        // what counts is what both sides saw
        if (negotiation.simultaneous && !outcome.transcript.simultaneous) {
          negotiation.simultaneous = false
          negotiation.remoteSchemes = undefined
        }

        return true
      })
    }

    return { session: confirmation.session, negotiation, outcome: confirmation.outcome }
  }

  #tellOutcome (outcome: ConfirmationOutcome): void {
    const { confirm, log, metrics } = this.#context

    if (confirm === 'off') {
      return
    }

    const err = outcome.type === 'confirmed' ? undefined : outcome.error
    countConfirmation(metrics, err)

    if (err != null) {
      log('negotiation with %s is not confirmed - %e', formatPacketAddress(this.socket.remoteAddress), err)
    }
  }

  #refuse (err: Error): void {
    this.#context.log.error('closing the session with %s - %e', formatPacketAddress(this.socket.remoteAddress), err)
    this.#refused = err
    // the session itself ends with a last message to the remote
    this.#maConn?.refuse(err)
  }

  /**
   * Wait for as much of the confirmation as libp2p's upgrade has to wait for. Rejects if there must not be a connection.
   */
  async #untilConfirmed (secured: ConfirmableSocket): Promise<void> {
    if (this.#context.confirm === 'require') {
      const outcome = await secured.outcome

      if (outcome.type !== 'confirmed') {
        throw outcome.error
      }
    }

    await this.#throwIfRefused(secured)
  }

  async #throwIfRefused (secured: ConfirmableSocket): Promise<void> {
    if (this.#refused != null) {
      // whoever hears of it may be the last, and would cut off what is still to be said
      await secured.outcome
      throw this.#refused
    }
  }

  /**
   * The remote's newer socket is secured: there is nobody left at the other end of this one, unless it is another peer's
   */
  supersede (successor: Link): void {
    if (this.#secured == null) {
      const cancel = realClock.schedule(() => { this.#supersedeBy(successor) }, LAST_FLIGHT_TIME)
      this.socket.addEventListener('close', cancel, { once: true })
    } else {
      this.#supersedeBy(successor)
    }
  }

  #supersedeBy (successor: Link): void {
    const err = new SessionFailedError(`The session with ${formatPacketAddress(this.socket.remoteAddress)} was superseded by a new session of the same peer, which came back`, 'superseded')
    const session = this.#secured?.session

    if (session == null) {
      this.#successor = successor
      this.#end(err)
    } else if (session.remotePeer.equals(successor.#secured?.session.remotePeer)) {
      this.#successor = successor
      this.#controller.abort(err)
      // it closes the socket when its goodbye has left
      session.abort(err, SUPPLANTED)
      this.#maConn?.abort(err)
    }
  }

  async #upgradeOutbound (secured: ConfirmableSocket, ma: Multiaddr, options: LinkDialOptions): Promise<Connection> {
    await this.#untilConfirmed(secured)
    const { maConn, upgradeOptions } = this.#adapt(secured, {
      remoteAddr: toBareMultiaddr(ma),
      direction: 'outbound',
      metrics: this.#context.metrics.dialerEvents
    })

    try {
      const connection = await options.upgrader.upgradeOutbound(maConn, {
        ...upgradeOptions,
        onProgress: options.onProgress,
        // only one side may speak first in multistream-select, and in a simultaneous negotiation both have dialled
        initiator: secured.negotiation.role === 'initiator'
      })

      return this.#onConnection(connection, maConn)
    } catch (err: any) {
      await this.#throwIfRefused(secured)
      maConn.abort(err)
      throw err
    }
  }

  async #upgradeInbound (secured: ConfirmableSocket, upgrader: Upgrader): Promise<Connection> {
    await this.#untilConfirmed(secured)
    const { maConn, upgradeOptions } = this.#adapt(secured, {
      remoteAddr: packetAddressToMultiaddr(this.socket.remoteAddress),
      direction: 'inbound',
      metrics: this.#context.metrics.listenerEvents,
      metricPrefix: `${formatPacketAddress(this.socket.localAddress)} `
    })
    // libp2p does not return inbound connections, but announces them before its upgrade ends
    let connection: Connection | undefined
    const onOpen = (evt: CustomEvent<Connection>): void => {
      if (evt.detail.timeline === maConn.timeline) {
        connection = evt.detail
      }
    }

    this.#context.events.addEventListener('connection:open', onOpen)

    try {
      await upgrader.upgradeInbound(maConn, upgradeOptions)

      return this.#onConnection(connection, maConn)
    } catch (err: any) {
      await this.#throwIfRefused(secured)
      maConn.abort(err)
      throw err
    } finally {
      this.#context.events.removeEventListener('connection:open', onOpen)
    }
  }

  #onConnection (connection: Connection | undefined, maConn: PsecConnection): Connection {
    if (connection == null || maConn.status !== 'open') {
      throw new SessionFailedError(`The session with ${formatPacketAddress(this.socket.remoteAddress)} ended before the connection was ready, dial again`)
    }

    this.#connected = true
    this.#countRefusedStreams()

    return connection
  }

  /**
   * They can only grow until the session has been started, and its confirm stream found
   */
  #countRefusedStreams (): void {
    const refused = this.#secured?.session.refusedStreams ?? 0

    if (refused > this.#refusedStreams) {
      this.#context.metrics.refusedStreams?.increment({ hold_full: refused - this.#refusedStreams })
      this.#refusedStreams = refused
    }
  }

  /**
   * The session in the form that libp2p's upgrader takes
   */
  #adapt ({ session, negotiation }: ConfirmableSocket, init: AdapterInit): { maConn: PsecConnection, upgradeOptions: UpgraderWithoutEncryptionOptions } {
    const { events, connectionLog, metrics, limits } = this.#context
    const maConn = new PsecConnection({ ...init, session, log: connectionLog })
    const record = new SessionRecord(session, negotiation)

    this.#maConn = maConn
    recordSession(maConn.timeline, record)

    return {
      maConn,
      upgradeOptions: {
        skipEncryption: true,
        skipProtection: true,
        remotePeer: session.remotePeer,
        signal: this.#controller.signal,
        muxerFactory: new PsecMuxerFactory({
          session,
          record,
          metrics,
          limits,
          onStart: () => { getDatagramService(events)?.attach(record) },
          onClose: (err) => { maConn.onTransportClosed(err) }
        })
      }
    }
  }

  async #socketClosed (): Promise<void> {
    if (this.socket.status === 'closed') {
      return
    }

    const { promise, resolve } = Promise.withResolvers<void>()
    this.socket.addEventListener('close', () => { resolve() }, { once: true })

    return promise
  }
}
