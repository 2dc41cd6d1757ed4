import { AlreadyStartedError } from '@libp2p/interface'
import { getThinWaistAddresses } from '@libp2p/utils'
import { setMaxListeners, TypedEventEmitter } from 'main-event'
import { realClock } from '../clock.ts'
import { SessionFailedError } from '../errors.ts'
import { limitLogger } from '../limit-logger.ts'
import { formatPacketAddress } from '../sockets/index.ts'
import { frameType } from '../wire/index.ts'
import { CLOSE_TIMEOUT } from './links.ts'
import { toBareMultiaddr, toDialTarget, withPort } from './multiaddr.ts'
import { PendingInbound } from './pending-inbound.ts'
import type { Cancel } from '../clock.ts'
import type { Link } from './link.ts'
import type { Links } from './links.ts'
import type { PsecMetrics } from './metrics.ts'
import type { LocalPorts } from './ports.ts'
import type { InboundLimits } from '../index.ts'
import type { EndpointShield, PacketAddress, PacketEndpoint, PacketSocket, PreparedAnswers } from '../sockets/index.ts'
import type { PsecUpgrader } from '../upgrader/index.ts'
import type { AbortOptions, Listener, ListenerEvents, Logger, Upgrader } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

/**
 * How often to see whether the pressure is over, in milliseconds
 */
const SHIELD_CHECK_INTERVAL = 1_000

export interface PsecListenerInit {
  upgrader: Upgrader
  psecUpgrader: PsecUpgrader
  ports: LocalPorts
  links: Links
  metrics: PsecMetrics
  limits: Required<InboundLimits>

  /**
   * See `PsecUpgraderInit`
   */
  maxLogLines?: number
  log: Logger
}

/**
 * A local port that takes proposals from strangers, and from which this node's own dials leave
 */
export class PsecListener extends TypedEventEmitter<ListenerEvents> implements Listener {
  readonly #init: PsecListenerInit
  readonly #log: Logger
  readonly #shutdown = new AbortController()
  #pending: PendingInbound
  readonly #inbound = new Set<Link>()
  #state: 'idle' | 'opening' | 'listening' | 'closed' = 'idle'
  #endpoint?: PacketEndpoint
  /** How the endpoint can answer strangers by itself */
  #prepared?: PreparedAnswers
  #canWelcome = false
  #isWelcoming = false
  /** Whether there is a means to have strangers prove their address before JavaScript hears of them */
  #canShield = false
  #isShielded = false
  #cancelShieldCheck?: Cancel
  #listenAddr?: Multiaddr
  #addr = 'unknown'

  constructor (init: PsecListenerInit) {
    super()

    this.#init = init
    this.#log = limitLogger(init.log, { maxLines: init.maxLogLines, keptBack: init.metrics.unloggedLines })
    this.#pending = newPendingInbound(init.limits, false)
    setMaxListeners(Infinity, this.#shutdown.signal)
  }

  /**
   * The local address as metrics name it
   */
  get addr (): string {
    return this.#addr
  }

  get inboundConnections (): number {
    return this.#inbound.size
  }

  get pendingInbound (): number {
    return this.#pending.size
  }

  /**
   * Whether a socket is one of this port
   */
  owns (socket: PacketSocket): boolean {
    return this.#endpoint != null && formatPacketAddress(socket.localAddress) === formatPacketAddress(this.#endpoint.localAddress)
  }

  /**
   * The remote of a socket of this port, with whom it has a session or is on its way to one, proposed afresh: answer on a
   * second socket beside it. The first is superseded only by the same peer's new session.
   */
  renew (socket: PacketSocket, proposal: Uint8Array): void {
    const remote = socket.remoteAddress
    const endpoint = this.#endpoint
    // under a flood, too, who gave up what it had must be able to come back
    const link = this.#init.links.get(socket)
    const validated = link.secured || this.#pending.hasValidated(link)

    if (this.#state !== 'listening' || endpoint == null || !this.#deservesSocket(proposal, remote, validated)) {
      return
    }

    if (!link.renewals.take()) {
      this.#init.metrics.listenerEvents?.increment({ [`${this.#addr} renewal_held_off`]: true })
      return
    }

    const kept = endpoint.renew == null ? undefined : this.#makeRoom(socket)

    if (kept == null || endpoint.renew == null) {
      this.#init.metrics.listenerEvents?.increment({ [`${this.#addr} renewal_ignored`]: true })
      return
    }

    this.#log('%s proposed afresh, answering beside its old socket', formatPacketAddress(remote))
    this.#init.metrics.listenerEvents?.increment({ [`${this.#addr} renewal`]: true })
    this.#accept(endpoint.renew(kept.socket), proposal, validated, kept)
  }

  /**
   * A remote has two sockets at most: close one if there are. Returns the other's link; undefined if both are in use.
   */
  #makeRoom (newest: PacketSocket): Link | undefined {
    const link = this.#init.links.get(newest)
    const { predecessor } = link

    if (predecessor == null) {
      return link
    }

    if (!link.secured) {
      link.abort(new SessionFailedError(`${formatPacketAddress(newest.remoteAddress)} proposed once more before it was secured`))
      return predecessor
    }

    if (predecessor.superseded) {
      predecessor.socket.close()
      return link
    }
  }

  /**
   * Open the port
   *
   * @throws {AddressInUseError} if somebody else has it
   * @throws {AddressUnavailableError} if it is not this machine's, or not for everybody
   * @throws {EngineUnavailableError} if there is no native engine to open it
   */
  async listen (ma: Multiaddr): Promise<void> {
    if (this.#state !== 'idle') {
      throw new AlreadyStartedError('This listener listens already, or did, create another one')
    }

    const { host, port } = toDialTarget(ma)
    this.#state = 'opening'
    this.#addr = formatPacketAddress({ host, port })

    try {
      await this.#open({ host, port }, ma)
    } catch (err) {
      if (this.#state === 'opening') {
        this.#state = 'idle'
      }

      this.#init.metrics.listenerErrors?.increment({ [`${this.#addr} listen_error`]: true })
      throw err
    }
  }

  /**
   * The addresses to announce, in their bare form: `/ip4/…/udp/…`. It dials the same, and a node without this package
   * can read it, see `toBareMultiaddr`.
   */
  getAddrs (): Multiaddr[] {
    if (this.#state !== 'listening' || this.#endpoint == null) {
      return []
    }

    return getThinWaistAddresses(this.#listenAddr, this.#endpoint.localAddress.port)
  }

  /**
   * Write the addresses that the user has libp2p announce as those that the listener says by itself, which everybody can read
   */
  updateAnnounceAddrs (multiaddrs: Multiaddr[]): void {
    multiaddrs.splice(0, multiaddrs.length, ...multiaddrs.map(toBareMultiaddr))
  }

  /**
   * Take no more proposals, end the upgrades under way, close the connections of the port, also those that were dialled
   * from it, and free it
   */
  async close (options: AbortOptions = {}): Promise<void> {
    if (this.#state === 'closed') {
      return
    }

    this.#state = 'closed'
    this.#cancelShieldCheck?.()
    this.#shutdown.abort()

    const endpoint = this.#endpoint

    if (endpoint == null) {
      return
    }

    endpoint.accept(undefined)
    this.#updateWelcome()
    this.#init.ports.withdraw(endpoint)
    await this.#init.links.close(link => this.owns(link.socket), {
      signal: options.signal ?? AbortSignal.timeout(CLOSE_TIMEOUT)
    })
    await endpoint.close(options)
    this.#init.metrics.listenerStatus?.update({ [this.#addr]: 0 })
    this.#log('closed %s', this.#addr)
    this.safeDispatchEvent('close')
  }

  async #open (address: PacketAddress, ma: Multiaddr): Promise<void> {
    const { ports, psecUpgrader } = this.#init
    const { signal } = this.#shutdown
    const endpoint = await ports.listen(address, { signal })

    try {
      // closed meanwhile, and the factory took no notice
      signal.throwIfAborted()
      this.#onOpen(endpoint, ma, psecUpgrader.prepareAnswers())
    } catch (err) {
      ports.withdraw(endpoint)
      await endpoint.close()
      throw err
    }
  }

  #onOpen (endpoint: PacketEndpoint, ma: Multiaddr, prepared: PreparedAnswers | undefined): void {
    this.#state = 'listening'
    this.#endpoint = endpoint
    this.#listenAddr = withPort(ma, endpoint.localAddress.port)
    this.#addr = formatPacketAddress(endpoint.localAddress)
    this.#prepared = prepared
    this.#canShield = prepared != null && endpoint.shield != null
    this.#canWelcome = prepared != null && endpoint.welcome != null
    this.#pending = newPendingInbound(this.#init.limits, this.#canShield)
    this.#updateShield()

    endpoint.accept({
      filter: (datagram, remote, validated) => this.#deservesSocket(datagram, remote, validated),
      onSocket: (socket, firstDatagram, validated, dialled) => {
        this.#accept(socket, firstDatagram, validated, dialled == null ? undefined : this.#init.links.get(dialled))
      },
      onFailed: (err) => { this.#onFailed(err) }
    })

    this.#updateWelcome()
    this.#init.metrics.listenerStatus?.update({ [this.#addr]: 1 })
    this.#log('listening on %s', this.#addr)
    this.safeDispatchEvent('listening')
  }

  #onFailed (err: Error): void {
    this.#init.metrics.listenerErrors?.increment({ [`${this.#addr} port_failed`]: true })
    this.#log.error('%s takes nobody any more, listen anew - %e', this.#addr, err)
    this.close().catch((err) => { this.#log.error('%s was not closed in order - %e', this.#addr, err) })
  }

  #deservesSocket (datagram: Uint8Array, remote: PacketAddress, validated: boolean): boolean {
    const refusal = this.#pending.refuses(remote.host, validated)

    // what costs nothing first: this is where a flood ends
    if (frameType(datagram) === 'propose' && refusal != null) {
      this.#init.metrics.listenerEvents?.increment({ [`${this.#addr} ${refusal}`]: true })
      this.#log.trace('turned %s away, %d upgrades are pending', formatPacketAddress(remote), this.#pending.size)
      return false
    }

    return this.#init.psecUpgrader.isProposal(datagram)
  }

  #createShield (prepared: PreparedAnswers): EndpointShield {
    const { limits } = this.#init

    return {
      ...prepared,
      maxProposals: limits.maxHeldOffInbound,
      maxProposalsPerPrefix: limits.maxHeldOffPerPrefix,
      maxUnprepared: Math.ceil(limits.maxUnpreparedInbound / 10),
      lifetime: limits.validationTimeout
    }
  }

  /**
   * Under pressure strangers prove their address before anything is done for them (design, "Half-open state")
   */
  #updateShield (): void {
    this.#cancelShieldCheck?.()

    if (!this.#canShield) {
      return
    }

    // an end of the pressure is no event
    this.#cancelShieldCheck = this.#pending.isUnderPressure && this.#state === 'listening' && this.#init.limits.validationThreshold > 0
      ? realClock.schedule(() => { this.#updateShield() }, SHIELD_CHECK_INTERVAL)
      : undefined

    if (this.#pending.isUnderPressure === this.#isShielded) {
      return
    }

    this.#isShielded = !this.#isShielded

    try {
      this.#endpoint?.shield?.(this.#isShielded && this.#prepared != null ? this.#createShield(this.#prepared) : undefined)
    } catch (err: any) {
      // they are turned away above the limits
      this.#canShield = false
      this.#isShielded = false
      this.#cancelShieldCheck?.()
      this.#log.error('%s can\'t have strangers prove their address - %e', this.#addr, err)
      return
    }

    this.#init.metrics.listenerEvents?.increment({ [`${this.#addr} ${this.#isShielded ? 'shield_up' : 'shield_down'}`]: true })
    this.#log('strangers %s their address first, %d upgrades are pending', this.#isShielded ? 'have to prove' : 'need not prove', this.#pending.size)
  }

  /**
   * The endpoint may answer strangers by itself as long as none of them will be turned away here
   */
  #updateWelcome (): void {
    const isWelcoming = this.#state === 'listening' && this.#canWelcome && this.#pending.room >= (this.#endpoint?.maxGuests ?? 0)

    if (isWelcoming === this.#isWelcoming) {
      return
    }

    this.#isWelcoming = isWelcoming

    try {
      this.#endpoint?.welcome?.(isWelcoming ? this.#prepared : undefined)
    } catch (err: any) {
      // they are answered here
      this.#canWelcome = false
      this.#isWelcoming = false
      this.#log.error('%s can\'t answer strangers by itself - %e', this.#addr, err)
    }
  }

  #accept (socket: PacketSocket, firstDatagram: Uint8Array, validated: boolean, predecessor?: Link): void {
    this.#upgrade(socket, firstDatagram, validated, predecessor).catch(err => {
      this.#init.metrics.listenerErrors?.increment({ [`${this.#addr} inbound_upgrade`]: true })
      this.#log.error('inbound connection from %s failed - %e', formatPacketAddress(socket.remoteAddress), err)
    })
  }

  async #upgrade (socket: PacketSocket, firstDatagram: Uint8Array, validated: boolean, predecessor?: Link): Promise<void> {
    this.#init.metrics.listenerEvents?.increment({ [`${this.#addr} connection`]: true })

    const { upgrader, links } = this.#init
    const link = links.get(socket, predecessor)
    const handshakeSignal = upgrader.createInboundAbortSignal(this.#shutdown.signal)
    let isConnected = false
    const validateAddress = !validated && this.#pending.isUnderPressure

    try {
      this.#pending.add(link, socket.remoteAddress.host, validated)
      this.#updateShield()
      this.#updateWelcome()
      const connection = await link.accept({ upgrader, firstDatagram, validateAddress, handshakeSignal, signal: this.#shutdown.signal })
      isConnected = true
      this.#track(link)
      this.#log('inbound connection %a', connection.remoteAddr)
    } finally {
      handshakeSignal.clear()
      this.#pending.delete(link, isConnected)
      this.#updateShield()
      this.#updateWelcome()
    }
  }

  #track (link: Link): void {
    if (link.socket.status === 'closed') {
      return
    }

    this.#inbound.add(link)
    link.socket.addEventListener('close', () => { this.#inbound.delete(link) }, { once: true })
  }
}

function newPendingInbound (limits: Required<InboundLimits>, canValidate: boolean): PendingInbound {
  return new PendingInbound({
    max: limits.maxPendingInbound,
    maxPerPrefix: limits.maxPendingPerPrefix,
    maxUnproven: canValidate ? limits.maxUnprovenInbound : Infinity,
    validationThreshold: limits.validationThreshold
  })
}
