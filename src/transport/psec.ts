import { InvalidMultiaddrError, InvalidParametersError, serviceCapabilities, setMaxListeners, transportSymbol } from '@libp2p/interface'
import { anySignal } from 'any-signal'
import { CustomProgressEvent } from 'progress-events'
import { checkLimits, checkTimeouts } from '../check-limits.ts'
import { PrivateNetworkError } from '../errors.ts'
import { DEFAULT_HELD_ARRIVALS } from '../schemes/held-arrivals.ts'
import { TRANSPORT_TAG } from '../sessions.ts'
import { formatPacketAddress } from '../sockets/index.ts'
import { PsecUpgrader } from '../upgrader/index.ts'
import { dialAround } from './dial-around.ts'
import { dialFilter, listenFilter } from './filters.ts'
import { CLOSE_TIMEOUT, Links } from './links.ts'
import { PsecListener } from './listener.ts'
import { registerMetrics } from './metrics.ts'
import { toDialTarget } from './multiaddr.ts'
import { LocalPorts } from './ports.ts'
import { resolveTarget } from './resolve.ts'
import { DEFAULT_STREAM_LIMITS } from './stream.ts'
import type { PsecMetrics } from './metrics.ts'
import type { ConfirmPolicy } from '../confirm/index.ts'
import type { InboundLimits, PsecComponents, PsecDialEvents, PsecDialOptions, PsecInit, SessionLimits } from '../index.ts'
import type { SecurityScheme } from '../schemes/index.ts'
import type { PacketAddress, PacketEndpointFactory, PacketSocket } from '../sockets/index.ts'
import type { Connection, CreateListenerOptions, Listener, Logger, Startable, Transport } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

const DEFAULT_MAX_PENDING_INBOUND = 256
const DEFAULT_MAX_HELD_OFF_INBOUND = 65_536
const DEFAULT_MAX_UNPREPARED_INBOUND = 160
const DEFAULT_VALIDATION_TIMEOUT = 15_000
const DEFAULT_MAX_RENEWALS = 8

const CONFIRM_POLICIES: ConfirmPolicy[] = ['require', 'prefer', 'off']
const DEFAULT_CONFIRM_TIMEOUT = 10_000

/**
 * What `psec()` fills in before the transport is made
 */
export interface PsecTransportInit extends PsecInit {
  schemes: SecurityScheme[]
  endpoints: PacketEndpointFactory
}

/**
 * The js-libp2p transport. It maps addresses to sockets and sessions to connections; what is on the wire is the PSEC
 * upgrader's and the schemes' business.
 */
export class PsecTransport implements Transport<PsecDialEvents>, Startable {
  readonly [transportSymbol] = true
  readonly [Symbol.toStringTag] = TRANSPORT_TAG
  readonly [serviceCapabilities]: string[] = ['@libp2p/transport']

  readonly listenFilter = listenFilter
  readonly dialFilter = dialFilter

  readonly #init: PsecTransportInit
  readonly #limits: Required<InboundLimits>
  readonly #components: PsecComponents
  readonly #log: Logger
  readonly #metrics: PsecMetrics
  readonly #upgrader: PsecUpgrader
  readonly #ports: LocalPorts
  readonly #links: Links
  readonly #listeners = new Set<PsecListener>()
  #shutdown = newShutdown()

  /**
   * @throws {PrivateNetworkError} if the node has a connection protector
   * @throws {InvalidParametersError} if the schemes can't be offered, a limit is no number of things, or the options of the
   * confirmation are none
   */
  constructor (components: PsecComponents, init: PsecTransportInit) {
    if (components.connectionProtector != null) {
      throw new PrivateNetworkError('PSEC connections would bypass the private network\'s connectionProtector: remove psec() from the transports, or the protector')
    }

    this.#init = init
    this.#limits = inboundLimits(init)
    this.#components = components
    this.#log = components.logger.forComponent('libp2p:psec')
    this.#metrics = registerMetrics(components.metrics, {
      inboundConnections: () => this.#byListener(listener => listener.inboundConnections),
      pendingInbound: () => this.#byListener(listener => listener.pendingInbound),
      portStats: () => this.#ports.stats
    })
    this.#upgrader = new PsecUpgrader(components, {
      ...init,
      onRenewed: (socket, proposal) => { this.#onRenewed(socket, proposal) }
    })
    this.#ports = new LocalPorts(init.endpoints)
    this.#links = new Links({
      psecUpgrader: this.#upgrader,
      events: components.events,
      log: this.#log,
      connectionLog: components.logger.forComponent('libp2p:psec:connection'),
      metrics: this.#metrics,
      peerId: components.peerId,
      privateKey: components.privateKey,
      maxRenewals: this.#limits.maxRenewals,
      limits: sessionLimits(init),
      ...confirmOptions(init)
    })
  }

  start (): void {
    this.#shutdown = newShutdown()
    this.#init.endpoints.prepare?.()
  }

  /**
   * End the dials under way, close the connections that were dialled from ephemeral ports, and free these
   */
  async stop (): Promise<void> {
    this.#shutdown.abort()
    await this.#links.close(() => true, { signal: AbortSignal.timeout(CLOSE_TIMEOUT) })
    await this.#ports.close()
  }

  /**
   * Propose to whoever is at that address, and connect by the scheme that both speak. Dials from a port that this node
   * listens on where that can reach the address. An address with which a negotiation is under way, whoever began it, is
   * joined: all dials resolve to one connection. One that already has a connection with that port gets another from a
   * new port; and so does one that was joined, or crossed, and of which nothing came within a second, since anybody may have forged
   * the proposal: see `dialAround`.
   *
   * Errors: `InvalidMultiaddrError` (port 0), `AddressNotResolvedError`, `AddressUnavailableError` (this machine has no socket of that
   * version of IP), `AddressUnreachableError`, `NoAnswerError`, `NoCommonSchemeError`, `HandshakeFailedError`,
   * `SelfNegotiationError`, `UnexpectedPeerError`, `ConfirmationFailedError`, `DowngradeDetectedError`, `EngineUnavailableError`, what libp2p's upgrader throws, and the
   * signal's reason.
   */
  async dial (ma: Multiaddr, options: PsecDialOptions): Promise<Connection> {
    const signal = anySignal([options.signal, this.#shutdown.signal])
    setMaxListeners(Infinity, signal)
    this.#metrics.dialerEvents?.increment({ dial: true })

    try {
      const connection = await this.#dial(ma, { ...options, signal })
      this.#metrics.dialerEvents?.increment({ connect: true })

      return connection
    } catch (err: any) {
      this.#metrics.dialerEvents?.increment({ [signal.aborted ? 'abort' : 'error']: true })
      this.#metrics.dialerErrors?.increment({ [err?.name ?? 'Error']: true })
      this.#log.error('dial to %a failed - %e', ma, err)
      throw err
    } finally {
      signal.clear()
    }
  }

  createListener (options: CreateListenerOptions): Listener {
    const listener = new PsecListener({
      upgrader: options.upgrader,
      psecUpgrader: this.#upgrader,
      ports: this.#ports,
      links: this.#links,
      metrics: this.#metrics,
      limits: this.#limits,
      maxLogLines: this.#init.maxLogLines,
      log: this.#components.logger.forComponent('libp2p:psec:listener')
    })

    listener.addEventListener('listening', () => { this.#listeners.add(listener) })
    listener.addEventListener('close', () => { this.#listeners.delete(listener) })

    return listener
  }

  async #dial (ma: Multiaddr, options: PsecDialOptions): Promise<Connection> {
    options.signal.throwIfAborted()
    const target = toDialTarget(ma)

    if (target.port === 0) {
      throw new InvalidMultiaddrError(`${ma} has the port 0, at which nobody can be: it stands for any free port of a listener, dial the address that the listener says in the end`)
    }

    if (target.resolve != null) {
      options.onProgress?.(new CustomProgressEvent('psec:resolve', { host: target.host }))
    }

    const remote = await resolveTarget(target, options)
    const { remotePeer } = target

    return dialAround({
      dial: async (options) => this.#links.get(await this.#socket(remote, options)).dial(ma, { ...options, remotePeer }),
      dialAside: async (options) => this.#links.get(await this.#ownSocket(remote, options)).dial(ma, { ...options, remotePeer })
    }, options)
  }

  async #socket (remote: PacketAddress, options: PsecDialOptions): Promise<PacketSocket> {
    let joined = false
    const socket = await this.#ports.socket(remote, {
      signal: options.signal,
      isJoinable: (socket) => {
        joined = this.#links.isJoinable(socket)
        return joined
      }
    })

    this.#tellSocket(socket, joined, options)

    return socket
  }

  async #ownSocket (remote: PacketAddress, options: PsecDialOptions): Promise<PacketSocket> {
    const socket = await this.#ports.ownSocket(remote, { signal: options.signal })
    this.#metrics.dialerEvents?.increment({ aside: true })
    this.#tellSocket(socket, false, options)

    return socket
  }

  #tellSocket ({ localAddress, remoteAddress }: PacketSocket, joined: boolean, options: PsecDialOptions): void {
    this.#log('dialing %s from %s%s', formatPacketAddress(remoteAddress), formatPacketAddress(localAddress), joined ? ', which is under way already' : '')
    options.onProgress?.(new CustomProgressEvent(joined ? 'psec:join' : 'psec:open-socket', { localAddress, remoteAddress }))
  }

  /**
   * The remote of a socket proposed afresh: to a port that listens it may
   */
  #onRenewed (socket: PacketSocket, proposal: Uint8Array): void {
    const listener = [...this.#listeners].find(listener => listener.owns(socket))

    if (listener != null) {
      listener.renew(socket, proposal)
    } else {
      this.#metrics.dialerEvents?.increment({ renewal_ignored: true })
    }
  }

  #byListener (count: (listener: PsecListener) => number): Record<string, number> {
    return Object.fromEntries([...this.#listeners].map(listener => [listener.addr, count(listener)]))
  }
}

function inboundLimits (init: InboundLimits): Required<InboundLimits> {
  const maxPendingInbound = init.maxPendingInbound ?? DEFAULT_MAX_PENDING_INBOUND
  const maxHeldOffInbound = init.maxHeldOffInbound ?? DEFAULT_MAX_HELD_OFF_INBOUND
  const validationThreshold = init.validationThreshold ?? Math.ceil(maxPendingInbound / 4)

  return checkLimits('psec', {
    maxPendingInbound,
    maxPendingPerPrefix: init.maxPendingPerPrefix ?? Math.ceil(maxPendingInbound / 2),
    validationThreshold,
    maxUnprovenInbound: init.maxUnprovenInbound ?? Math.max(Math.ceil(maxPendingInbound / 2), validationThreshold),
    maxHeldOffInbound,
    maxHeldOffPerPrefix: init.maxHeldOffPerPrefix ?? Math.ceil(maxHeldOffInbound / 8),
    maxUnpreparedInbound: init.maxUnpreparedInbound ?? DEFAULT_MAX_UNPREPARED_INBOUND,
    validationTimeout: init.validationTimeout ?? DEFAULT_VALIDATION_TIMEOUT,
    maxRenewals: init.maxRenewals ?? DEFAULT_MAX_RENEWALS
  })
}

function sessionLimits (init: SessionLimits): Required<SessionLimits> {
  return checkLimits('psec', {
    maxUnreadBytes: init.maxUnreadBytes ?? DEFAULT_STREAM_LIMITS.maxUnreadBytes,
    maxUnwantedBytes: init.maxUnwantedBytes ?? DEFAULT_STREAM_LIMITS.maxUnwantedBytes,
    maxHeldStreams: init.maxHeldStreams ?? DEFAULT_HELD_ARRIVALS.maxStreams,
    maxHeldDatagrams: init.maxHeldDatagrams ?? DEFAULT_HELD_ARRIVALS.maxDatagrams
  })
}

function confirmOptions ({ confirm = 'prefer', confirmTimeout = DEFAULT_CONFIRM_TIMEOUT }: PsecInit): { confirm: ConfirmPolicy, confirmTimeout: number } {
  if (!CONFIRM_POLICIES.includes(confirm)) {
    throw new InvalidParametersError(`psec: confirm is one of "${CONFIRM_POLICIES.join('", "')}", not ${JSON.stringify(confirm)}`)
  }

  return { confirm, ...checkTimeouts('psec', { confirmTimeout }) }
}

function newShutdown (): AbortController {
  const controller = new AbortController()
  setMaxListeners(Infinity, controller.signal)

  return controller
}
