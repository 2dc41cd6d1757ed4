import { ConnectionClosedError, UnexpectedPeerError } from '@libp2p/interface'
import { peerIdFromMultihash } from '@libp2p/peer-id'
import * as Digest from 'multiformats/hashes/digest'
import { CustomProgressEvent } from 'progress-events'
import { equals } from 'uint8arrays/equals'
import { HandshakeFailedError, InvalidFrameError, NoAnswerError, SelfNegotiationError } from '../errors.ts'
import { Negotiator } from '../negotiation/index.ts'
import { formatPacketAddress } from '../sockets/index.ts'
import { frameType } from '../wire/index.ts'
import { Flow } from './flow.ts'
import { outcomeOf } from './metrics.ts'
import { maxInitiationPacketSize } from './packet-size.ts'
import type { PsecProgressEvents, SecuredSocket, UpgradeOptions } from './index.ts'
import type { UpgraderMetrics } from './metrics.ts'
import type { Cancel, Clock } from '../clock.ts'
import type { Agreement } from '../negotiation/index.ts'
import type { Initiation, SecureSession, SecurityScheme } from '../schemes/index.ts'
import type { PacketSocket } from '../sockets/index.ts'
import type { Propose } from '../wire/index.ts'
import type { ComponentLogger, Logger, PeerId, PrivateKey } from '@libp2p/interface'

/**
 * What all upgrades of one upgrader share
 */
export interface UpgradeContext {
  peerId: PeerId
  privateKey: PrivateKey
  logger: ComponentLogger
  log: Logger
  metrics: UpgraderMetrics
  clock: Clock

  /**
   * By name, most wanted first
   */
  schemes: Map<string, SecurityScheme>

  /**
   * Our proposal without an initiation packet
   */
  proposal: Uint8Array
  initiationPacket: boolean
  negotiationTimeout: number
  handshakeTimeout: number
  maxEarlyDatagrams: number
  maxPreparedNames: number
  select (proposal: Propose): string | undefined
  onRenewed? (socket: PacketSocket, proposal: Uint8Array): void
}

/**
 * One call of `upgradeOutbound` or `upgradeInbound`
 */
interface Participant {
  options: UpgradeOptions
  resolve (secured: SecuredSocket): void
  reject (err: Error): void
}

/**
 * The work of making one packet socket a secured one, and everybody who waits for its result. It ends in one of three ways:
 * secured, failed, or left by everybody, the latter two with the socket closed.
 */
export class Upgrade {
  readonly #socket: PacketSocket
  readonly #context: UpgradeContext
  readonly #flow: Flow
  readonly #begun: number
  readonly #participants = new Set<Participant>()
  /** Aborted as soon as the upgrade has failed, with the error as reason: whatever is under way stops */
  readonly #controller = new AbortController()
  #agreement?: Agreement
  #initiation?: Initiation
  #session?: SecureSession
  #cancelTimeout?: Cancel
  #attempt = 0
  #validateAddress = false
  #sentInitiationPacket = false
  #settled = false

  constructor (socket: PacketSocket, context: UpgradeContext) {
    this.#socket = socket
    this.#context = context
    this.#begun = context.clock.now()
    this.#flow = new Flow({
      socket,
      clock: context.clock,
      metrics: context.metrics,
      maxEarlyDatagrams: context.maxEarlyDatagrams,
      negotiator: new Negotiator({
        localId: context.peerId.toMultihash().bytes,
        schemes: [...context.schemes.keys()],
        proposal: context.proposal,
        select: context.select
      }),
      onAgreed: (agreement) => { this.#onAgreed(agreement) },
      onFailed: (err) => { this.#fail(err) },
      onRenewed: (proposal) => { this.#onRenewed(proposal) },
      onTransmit: (frame) => { this.#onTransmit(frame) },
      onClose: () => {
        // every socket ends like this, and an error with its stack takes time
        if (!this.#settled) {
          this.#fail(new ConnectionClosedError(`The socket to ${this.#remote} was closed before it was secured`))
        }
      }
    })
  }

  /**
   * Whether there is a result, and nothing left to join
   */
  get settled (): boolean {
    return this.#settled
  }

  /**
   * Wait for the result. Whose signal aborts leaves the others alone; the last to leave ends the work.
   */
  async join (options: UpgradeOptions): Promise<SecuredSocket> {
    const { promise, resolve, reject } = Promise.withResolvers<SecuredSocket>()
    const participant = { options, resolve, reject }
    const onAbort = (): void => { this.#leave(participant, options.signal.reason) }

    this.#participants.add(participant)
    options.signal.addEventListener('abort', onAbort)

    if (this.#agreement != null) {
      this.#progress([participant], agreedEvent(this.#agreement))
    }

    try {
      return await promise
    } finally {
      options.signal.removeEventListener('abort', onAbort)
    }
  }

  /**
   * Begin as the one who proposes, unless the remote is quicker
   */
  startOutbound (): void {
    this.#propose().catch((err) => { this.#fail(err) })
  }

  /**
   * Begin with the remote's proposal
   */
  startInbound (firstDatagram: Uint8Array, validateAddress: boolean = false): void {
    this.#validateAddress = validateAddress

    try {
      const verdict = this.#flow.receive(firstDatagram)

      if (verdict !== 'frame') {
        throw new InvalidFrameError(verdict, `The first datagram from ${this.#remote} is no proposal, test it with isProposal() before opening a socket for it`)
      }
    } catch (err: any) {
      this.#fail(err)
    }
  }

  /**
   * A datagram of the socket that somebody else received
   */
  receive (datagram: Uint8Array): void {
    this.#flow.receive(datagram)
  }

  get #remote (): string {
    return formatPacketAddress(this.#socket.remoteAddress)
  }

  get #elapsed (): number {
    return this.#context.clock.now() - this.#begun
  }

  async #propose (): Promise<void> {
    const [scheme] = this.#context.schemes.values()
    const initiation = this.#prepare(scheme)
    // if it fails, so does the upgrade
    const firstFlight = this.#context.initiationPacket ? await initiation.firstFlight.catch(() => []) : []

    // the remote may have proposed to us in the meantime, and has been answered
    if (this.#settled || this.#flow.status !== 'idle') {
      return
    }

    const { negotiationTimeout } = this.#context
    this.#setTimeout(negotiationTimeout, () => new NoAnswerError(`Nobody at ${this.#remote} answered within ${negotiationTimeout} ms. Check the address, that a PSEC listener runs there, and that UDP gets through both ways`))

    const size = firstFlight[0]?.byteLength ?? 0
    const [initiationPacket, ...rest] = size > 0 && size <= this.#maxInitiationPacketSize ? firstFlight : []
    this.#sentInitiationPacket = initiationPacket != null
    this.#flow.propose(initiationPacket, rest)
  }

  get #maxInitiationPacketSize (): number {
    return maxInitiationPacketSize(this.#socket.maxDatagramSize - this.#context.proposal.byteLength)
  }

  #prepare (scheme: SecurityScheme): Initiation {
    const { privateKey, logger } = this.#context
    const initiation = scheme.initiate(this.#flow.schemeSocket, {
      privateKey,
      logger,
      maxInitiationPacketSize: this.#maxInitiationPacketSize
    })

    this.#initiation = initiation
    initiation.firstFlight.catch((err) => {
      // one that was cancelled may fail, and one that proceeded fails by its proceed()
      if (this.#initiation === initiation) {
        this.#fail(err)
      }
    })

    return initiation
  }

  #takeInitiation (): Initiation | undefined {
    const initiation = this.#initiation
    this.#initiation = undefined

    return initiation
  }

  /**
   * Go on at once: what a scheme of the engine answers to the initiation packet then reaches the engine along with the accept
   */
  #onAgreed (agreement: Agreement): void {
    const agreed = this.#elapsed
    this.#agreement = agreement
    this.#context.log('agreed on %s with %s as %s%s', agreement.scheme, this.#remote, agreement.role, agreement.simultaneous ? ' in a simultaneous negotiation' : '')
    this.#progress(this.#participants, agreedEvent(agreement))

    // whoever heard of it may have left
    if (this.#settled) {
      return
    }

    const { handshakeTimeout } = this.#context
    this.#setTimeout(handshakeTimeout, () => new HandshakeFailedError(`The handshake of ${agreement.scheme} with ${this.#remote} did not end within ${handshakeTimeout} ms: the path may drop large datagrams, or the remote is gone or overloaded`))

    this.#secure(agreement)
      .then((session) => { this.#onSession(session, agreement, agreed) })
      .catch((err) => { this.#fail(err) })
  }

  /**
   * Hand the socket over to the scheme
   */
  async #secure (agreement: Agreement): Promise<SecureSession> {
    const { schemes, privateKey, logger } = this.#context
    const { signal } = this.#controller
    const [firstListed] = schemes.keys()
    const scheme = schemes.get(agreement.scheme)

    if (scheme == null) {
      throw new HandshakeFailedError(`Agreed on ${agreement.scheme} with ${this.#remote}, which is not registered here`)
    }

    if (agreement.role === 'initiator') {
      if (agreement.scheme !== firstListed) {
        this.#takeInitiation()?.cancel()
      }

      const sent = this.#initiation != null && this.#sentInitiationPacket
      const initiation = this.#initiation ?? this.#prepare(scheme)
      this.#takeInitiation()

      return initiation.proceed({
        signal,
        sent,
        sendFirstFlight: agreement.sendFirstFlight,
        earlyDatagrams: this.#flow.handOver()
      })
    }

    this.#takeInitiation()?.cancel()
    const initiationPacket = agreement.initiationPacket == null ? [] : [agreement.initiationPacket]

    return scheme.respond(this.#flow.schemeSocket, {
      signal,
      privateKey,
      logger,
      earlyDatagrams: [...initiationPacket, ...this.#flow.handOver()],
      claimedId: agreement.claimedId,
      validateAddress: this.#validateAddress
    })
  }

  #onSession (session: SecureSession, agreement: Agreement, agreed: number): void {
    // one that comes all the same has nobody to take it
    if (this.#settled) {
      session.abort(this.#controller.signal.reason)
      return
    }

    this.#clearTimeout()
    this.#succeed({
      session,
      negotiation: {
        scheme: agreement.scheme,
        role: agreement.role,
        simultaneous: agreement.simultaneous,
        localSchemes: agreement.localSchemes,
        remoteSchemes: agreement.remoteSchemes,
        timings: { agreed, secured: this.#elapsed }
      },
      proposals: agreement.proposals
    }, agreement)
  }

  #succeed (secured: SecuredSocket, agreement: Agreement): void {
    const { session } = secured
    this.#session = session
    const err = this.#checkClaim(session.remotePeer, agreement)

    if (err != null) {
      this.#fail(err)
      return
    }

    this.#progress(this.#sortParticipants(session.remotePeer).expecting, new CustomProgressEvent('psec:secured', { scheme: session.protocol, remotePeer: session.remotePeer }))

    // whoever heard of it may have left
    if (this.#settled) {
      return
    }

    const { expecting, mistaken } = this.#sortParticipants(session.remotePeer)

    // those who wanted somebody else must not end the session of those who did not
    if (expecting.length === 0) {
      this.#fail(mistaken[0].err)
      return
    }

    this.#settled = true
    this.#flow.secured()
    this.#context.metrics.negotiations?.increment({ secured: true })
    this.#context.log('secured %s with %p in %d ms', this.#remote, session.remotePeer, secured.negotiation.timings.secured)
    mistaken.forEach(({ participant, err }) => { participant.reject(err) })
    expecting.forEach((participant) => { participant.resolve(secured) })
    this.#participants.clear()
  }

  /**
   * The id in a proposal is a claim: who is there has to be who proposed, and nobody else can be us
   */
  #checkClaim (remotePeer: PeerId, agreement: Agreement): Error | undefined {
    if (remotePeer.equals(this.#context.peerId)) {
      return new SelfNegotiationError(`At ${this.#remote} is this very node, ${remotePeer}: don't dial your own addresses`)
    }

    if (agreement.claimedId != null && !equals(agreement.claimedId, remotePeer.toMultihash().bytes)) {
      const claimed = peerIdFromMultihash(Digest.decode(agreement.claimedId))

      return new UnexpectedPeerError(`The remote at ${this.#remote} claimed to be ${claimed}, but proved to be ${remotePeer}`)
    }
  }

  #sortParticipants (remotePeer: PeerId): { expecting: Participant[], mistaken: Array<{ participant: Participant, err: Error }> } {
    const expecting: Participant[] = []
    const mistaken: Array<{ participant: Participant, err: Error }> = []

    for (const participant of this.#participants) {
      const expected = participant.options.remotePeer

      if (expected == null || expected.equals(remotePeer)) {
        expecting.push(participant)
      } else {
        mistaken.push({
          participant,
          err: new UnexpectedPeerError(`Expected ${expected} at ${this.#remote}, but ${remotePeer} is there: check the peer id in the address`)
        })
      }
    }

    return { expecting, mistaken }
  }

  /**
   * End everything that is under way, and close the socket; if there is a session by now, it does that itself
   */
  #fail (err: Error): void {
    if (this.#settled) {
      return
    }

    this.#settled = true
    this.#controller.abort(err)
    this.#clearTimeout()
    this.#takeInitiation()?.cancel({ sent: this.#sentInitiationPacket })

    if (this.#session == null) {
      this.#flow.end()
      this.#socket.close()
      this.#flow.schemeSocket.onClose()
    } else {
      this.#flow.secured()
      this.#session.abort(err)
    }

    this.#context.metrics.negotiations?.increment({ [this.#participants.size === 0 ? 'aborted' : outcomeOf(err)]: true })
    this.#context.log('upgrade of %s failed - %e', this.#remote, err)
    this.#participants.forEach((participant) => { participant.reject(err) })
    this.#participants.clear()
  }

  #leave (participant: Participant, reason: Error): void {
    if (!this.#participants.delete(participant)) {
      return
    }

    if (this.#participants.size === 0) {
      this.#fail(reason)
    }

    participant.reject(reason)
  }

  #onTransmit (frame: Uint8Array): void {
    // only a proposal of ours is worth telling
    if (frameType(frame) !== 'propose') {
      return
    }

    this.#attempt++
    this.#progress(this.#participants, new CustomProgressEvent('psec:propose', {
      attempt: this.#attempt,
      bytes: frame.byteLength,
      initiationPacket: frame.byteLength > this.#context.proposal.byteLength
    }))
  }

  #onRenewed (proposal: Uint8Array): void {
    this.#context.metrics.negotiations?.increment({ renewed: true })
    this.#context.log('%s proposed afresh', this.#remote)

    // a responder's remote may have given its dial up, and begun another one. An initiator that waits for the handshake meets
    // late proposals of dials that crossed.
    if (!this.#settled && this.#agreement?.role !== 'responder') {
      return
    }

    try {
      this.#context.onRenewed?.(this.#socket, proposal)
    } catch (err: any) {
      this.#context.log.error('onRenewed threw on a proposal from %s - %e', this.#remote, err)
    }
  }

  #progress (participants: Iterable<Participant>, event: PsecProgressEvents): void {
    for (const { options } of participants) {
      try {
        options.onProgress?.(event)
      } catch (err: any) {
        this.#context.log.error('a progress listener threw on %s - %e', event.type, err)
      }
    }
  }

  #setTimeout (ms: number, createError: () => Error): void {
    this.#clearTimeout()
    this.#cancelTimeout = this.#context.clock.schedule(() => { this.#fail(createError()) }, ms)
  }

  #clearTimeout (): void {
    this.#cancelTimeout?.()
    this.#cancelTimeout = undefined
  }
}

function agreedEvent ({ scheme, role, simultaneous }: Agreement): PsecProgressEvents {
  return new CustomProgressEvent('psec:agreed', { scheme, role, simultaneous })
}
