import { InvalidParametersError } from '@libp2p/interface'
import { NoCommonSchemeError, SelfNegotiationError } from '../errors.ts'
import { decodeFrame, encodeFrame, looksLikeFrame } from '../wire/index.ts'
import { Backoff } from './backoff.ts'
import { chooseSimultaneous, chooseStandard } from './choose-scheme.ts'
import { compareIds } from './compare-ids.ts'
import { fingerprint, isSameProposal } from './fingerprint.ts'
import { quoteNames } from './quote-names.ts'
import type { ProposalFingerprint } from './fingerprint.ts'
import type { Agreement, DatagramVerdict, NegotiationEvent, NegotiatorInit, Role } from './index.ts'
import type { Frame, Propose } from '../wire/index.ts'

/**
 * The wait does not grow: with 30 % of the datagrams lost each way, every second proposal goes without an answer, and agreeing
 * all the same in the time that a dial has takes some twenty of them. They are small, and end with the dial. Figures:
 * `benchmarks/README.md`.
 */
const DEFAULT_RETRANSMISSION = { initial: 250, factor: 1, max: 250 }
const DEFAULT_REJECT_GRACE = 200

/**
 * Every input queues one datagram at most. A caller that polls as told never has more than one waiting; one that does
 * not loses the newest, which to the remote is a datagram lost on the way.
 */
const MAX_QUEUED_TRANSMITS = 8

/**
 * How long after the scheme's handshake ended well the proposal that led there may still come, in milliseconds. Who made it is
 * secured, and proposes no more: what comes was doubled or held up on the way, longer than what ended the handshake and left
 * later. A network rarely does that for a second, and a late copy that is taken for a new dial harms no session. Whoever
 * dials anew before that, with the same proposal, gets answers of no use until then.
 */
const REPETITION_LIFETIME = 2_000

export type NegotiatorStatus = 'idle' | 'proposing' | 'agreed' | 'failed'

/**
 * One side of a PSEC negotiation with one remote (draft, "Protocol"; what the draft leaves open:
 * `docs/negotiation.md`). It has no socket and no clock: the caller hands datagrams and clock readings in, and carries
 * out what it polls.
 *
 * Getters, without effect: `status`.
 *
 * Inputs: `propose` to begin as the proposer, or simply the other's proposal by `handleDatagram`; then `handleDatagram`
 * with every datagram of the remote, `handleTimeout` when the deadline is reached, `handleSecured` once the scheme's
 * handshake has ended well. `now` is milliseconds on any clock that does not run backwards, the same for all inputs.
 *
 * Polls, after every input, in this order, each until it returns undefined: `pollTransmit` (send that datagram, before
 * anything of the scheme), then `pollEvent`. At last `pollTimeout`, once: it replaces the deadline of before.
 *
 * Any input may come in any state; one that means nothing there changes nothing. No input throws, whatever the remote
 * sends. Each leads to one datagram at most, so only the timer ever sends unasked. A negotiator lives as long as its
 * flow: after the agreement it goes on answering late frames. It has nothing to free: to end it, stop calling it; it
 * never gives up proposing by itself.
 *
 * Bounds: 8 datagrams, 2 events, 1 proposal's hashes; the remote can make it remember nothing else.
 */
export class Negotiator {
  private readonly localId: Uint8Array
  private readonly schemes: string[]
  private readonly select: (proposal: Propose) => string | undefined
  private readonly rejectGrace: number
  private readonly retransmission: Backoff

  /** Our proposal without initiation packet: what is repeated */
  private readonly bareProposal: Uint8Array

  private currentStatus: NegotiatorStatus

  /** Whether every proposal so far went out with the initiation packet: only then the responder is sure to have it */
  private packetInEveryProposal: boolean

  /** The latest proposal that we went by, and what answers it: a function of the proposal. See `conclude` for when nothing does. */
  private answered?: { proposal: ProposalFingerprint, response?: Uint8Array }

  /** Bad news while our proposal is out. It may be forged, so it waits for the truth until `at`. */
  private impending?: { error: Error, at: number }

  private agreed?: { scheme: string, role: Role }

  /** When the scheme's handshake ended well */
  private securedAt?: number

  private readonly transmits: Uint8Array[]
  private outcome?: NegotiationEvent

  /** The latest different proposal after the agreement, until it is polled */
  private renewed?: NegotiationEvent

  /**
   * Throws `InvalidParametersError` or `RangeError` if the id, a name, or a time is none, or if there is no scheme
   */
  constructor (init: NegotiatorInit) {
    const retransmission = {
      initial: init.retransmission?.initial ?? DEFAULT_RETRANSMISSION.initial,
      factor: init.retransmission?.factor ?? DEFAULT_RETRANSMISSION.factor,
      max: init.retransmission?.max ?? DEFAULT_RETRANSMISSION.max
    }
    const rejectGrace = init.rejectGrace ?? DEFAULT_REJECT_GRACE

    if (init.schemes.length === 0) {
      throw new InvalidParametersError('A negotiation needs at least one scheme to offer')
    }

    if (!(rejectGrace >= 0 && rejectGrace < Infinity)) {
      throw new InvalidParametersError(`The reject grace is a number of milliseconds, got ${rejectGrace}`)
    }

    this.localId = new Uint8Array(init.localId)
    this.schemes = distinct(init.schemes)
    this.bareProposal = init.proposal ?? encodeFrame({ type: 'propose', peerId: this.localId, schemes: this.schemes })
    this.select = init.select ?? (proposal => chooseStandard(proposal.schemes, this.schemes))
    this.rejectGrace = rejectGrace
    this.retransmission = new Backoff(retransmission)
    this.currentStatus = 'idle'
    this.packetInEveryProposal = false
    this.transmits = []
  }

  /**
   * `idle`: nothing has been said. `proposing`: our proposal is out. `agreed`, `failed`: over, and final.
   */
  get status (): NegotiatorStatus {
    return this.currentStatus
  }

  /**
   * Begin as the proposer. In any state but `idle` there is nothing left to begin: whoever dials then joins.
   *
   * @param now - a clock reading in milliseconds
   * @param initiationPacket - the first datagram of the first-listed scheme (draft, "Proposal"); the caller has seen
   * to it that the whole proposal fits the path
   */
  propose (now: number, initiationPacket?: Uint8Array): void {
    if (this.currentStatus !== 'idle') {
      return
    }

    this.currentStatus = 'proposing'
    this.retransmission.start(now)

    if (initiationPacket == null || initiationPacket.byteLength === 0) {
      this.transmitBareProposal()
      return
    }

    this.packetInEveryProposal = true
    this.transmit(encodeFrame({ type: 'propose', peerId: this.localId, schemes: this.schemes, initiationPacket }))
  }

  /**
   * A datagram came from the remote. An agreement's `initiationPacket` is a view of it: copy that to keep it for long.
   *
   * @returns what it was, and so whether it belongs to the scheme
   */
  handleDatagram (datagram: Uint8Array, now: number): DatagramVerdict {
    if (datagram.byteLength === 0) {
      return 'invalid'
    }

    if (!looksLikeFrame(datagram)) {
      return 'scheme'
    }

    let frame: Frame

    try {
      frame = decodeFrame(datagram)
    } catch {
      return 'invalid'
    }

    switch (frame.type) {
      case 'propose':
        return this.handleProposal(frame, datagram, now)
      case 'accept':
        return this.handleAccept(frame.scheme)
      default:
        return this.handleReject(now)
    }
  }

  /**
   * Time has passed. Calling it early, or without a deadline, does nothing.
   */
  handleTimeout (now: number): void {
    if (this.impending != null && now >= this.impending.at) {
      this.fail(this.impending.error)
      return
    }

    if (this.retransmission.deadline != null && now >= this.retransmission.deadline) {
      this.retransmission.next(now)
      this.transmitBareProposal()
    }
  }

  /**
   * The scheme's handshake ended well, which proves the agreement: nothing needs to be repeated any more
   */
  handleSecured (now: number): void {
    if (this.currentStatus === 'agreed') {
      this.securedAt ??= now
      this.retransmission.stop()
    }
  }

  /**
   * The next datagram to send
   */
  pollTransmit (): Uint8Array | undefined {
    return this.transmits.shift()
  }

  /**
   * The next event. There is one `agreed` or `failed` in a negotiator's life, and any number of `renewed` after an
   * `agreed`; of these only the latest waits to be polled.
   */
  pollEvent (): NegotiationEvent | undefined {
    const event = this.outcome ?? this.renewed

    if (event === this.outcome) {
      this.outcome = undefined
    } else {
      this.renewed = undefined
    }

    return event
  }

  /**
   * When to call `handleTimeout`, on the clock of `now`; undefined if there is nothing to wait for
   */
  pollTimeout (): number | undefined {
    const { deadline } = this.retransmission

    if (this.impending == null) {
      return deadline
    }

    return Math.min(this.impending.at, deadline ?? Infinity)
  }

  private handleProposal (frame: Propose, datagram: Uint8Array, now: number): DatagramVerdict {
    const proposal = fingerprint(frame)

    if (this.answered != null && isSameProposal(this.answered.proposal, proposal) && !this.isOutdated(this.answered.proposal, proposal, now)) {
      this.answered.proposal.packet ??= proposal.packet

      if (this.answered.response != null) {
        this.transmit(this.answered.response)
      }

      return 'frame'
    }

    switch (this.currentStatus) {
      case 'idle':
        this.respond(frame, proposal)
        return 'frame'
      case 'proposing':
        this.conclude(frame, proposal, now)
        return 'frame'
      case 'agreed':
        return this.renew(frame, datagram)
      default:
        return 'unexpected'
    }
  }

  /**
   * Whether a proposal that looks like a repetition comes too long after the session that it led to began to be one: a peer that
   * came back lists the same schemes, and the initiation packet, which would tell, may be lost, or there was none. The very
   * same packet can't be of a new initiation.
   */
  private isOutdated (answered: ProposalFingerprint, proposal: ProposalFingerprint, now: number): boolean {
    const isSamePacket = proposal.packet != null && proposal.packet === answered.packet

    return this.securedAt != null && !isSamePacket && now - this.securedAt >= REPETITION_LIFETIME
  }

  /**
   * Somebody proposes and we have not: draft, "Standard Negotiation"
   */
  private respond (frame: Propose, proposal: ProposalFingerprint): void {
    if (this.isOurs(frame)) {
      this.fail(selfNegotiation())
      return
    }

    let scheme: string | undefined

    try {
      scheme = this.selectFrom(frame)
    } catch (err: any) {
      // our own policy is broken, of which the remote needs no news
      this.fail(err)
      return
    }

    if (scheme == null) {
      this.answer(proposal, encodeFrame({ type: 'reject' }))
      this.fail(this.nothingInCommon(frame))
      return
    }

    this.answer(proposal, encodeFrame({ type: 'accept', scheme }))
    this.agree(this.respondingTo(frame, scheme, false))
  }

  /**
   * Both have proposed: draft, "Simultaneous Negotiation"
   */
  private conclude (frame: Propose, proposal: ProposalFingerprint, now: number): void {
    if (this.isOurs(frame)) {
      this.failSoon(selfNegotiation(), now)
      return
    }

    const choice = chooseSimultaneous({ peerId: this.localId, schemes: this.schemes }, frame)

    if (choice == null) {
      // the draft lets both sides come to this by themselves. Our proposal may be lost, though, and with this
      // negotiation ends what would repeat it, so the other is told by what it understands at once.
      this.answer(proposal, encodeFrame({ type: 'reject' }))
      this.failSoon(this.nothingInCommon(frame), now)
      return
    }

    // not answered: our proposal is on its way already. If the other repeats its own, only the responder answers: it may have no
    // more to say, and the other none of what it said. The initiator goes on proposing until it has been answered by the scheme, and
    // two that answer would answer each other's answers.
    this.answered = { proposal, response: choice.role === 'responder' ? this.bareProposal : undefined }

    if (choice.role === 'responder') {
      this.agree(this.respondingTo(frame, choice.scheme, true))
      return
    }

    this.agree({
      scheme: choice.scheme,
      role: 'initiator',
      simultaneous: true,
      localSchemes: [...this.schemes],
      remoteSchemes: distinct(frame.schemes),
      proposals: { initiator: this.ownOffer(), responder: offerOf(frame) },
      claimedId: frame.peerId,
      // the other's proposal does not tell whether it has ours: unlike an accept it answers nothing
      sendFirstFlight: true
    })
  }

  /**
   * After an agreement, a proposal that is not the one that led to it. Every transmission is handed on: whoever takes one up
   * gives the next ones to a negotiator of their own, and until somebody does, or after that has failed, the next one counts.
   */
  private renew (frame: Propose, datagram: Uint8Array): DatagramVerdict {
    if (this.isOurs(frame)) {
      return 'unexpected'
    }

    this.renewed = { type: 'renewed', proposal: new Uint8Array(datagram) }

    return 'frame'
  }

  /**
   * The other took our proposal up: draft, "Standard Negotiation"
   */
  private handleAccept (scheme: string): DatagramVerdict {
    if (this.currentStatus === 'proposing' && this.schemes.includes(scheme)) {
      this.agree({
        scheme,
        role: 'initiator',
        simultaneous: false,
        localSchemes: [...this.schemes],
        proposals: { initiator: this.ownOffer() },
        sendFirstFlight: !this.packetInEveryProposal || scheme !== this.schemes[0]
      })

      return 'frame'
    }

    // again, or from a peer that has forgotten its own proposal since, and comes to the same end as we did
    if (this.agreed?.role === 'initiator' && this.agreed.scheme === scheme) {
      return 'frame'
    }

    // a name that we did not offer; or, late, an agreement that is not ours. The caller has begun the scheme, so a
    // frame that anybody could have made must not turn it round: the handshake decides.
    return 'unexpected'
  }

  /**
   * The other takes none of ours: draft, "Standard Negotiation"
   */
  private handleReject (now: number): DatagramVerdict {
    if (this.currentStatus !== 'proposing') {
      return 'unexpected'
    }

    this.failSoon(new NoCommonSchemeError(`The remote rejected every scheme that we offered: ${quoteNames(this.schemes)}. Configure one that it speaks, too.`), now)

    return 'frame'
  }

  /**
   * Our proposal goes on until the handshake has ended well: nothing else proves that the other has it. What came may be an
   * answer to a dial that was given up; or, in simultaneous mode, what crossed our proposal, and a first flight on the heels
   * of that.
   */
  private agree (agreement: Agreement): void {
    this.currentStatus = 'agreed'
    this.agreed = { scheme: agreement.scheme, role: agreement.role }
    this.impending = undefined
    this.outcome = { type: 'agreed', agreement }
  }

  private fail (error: Error): void {
    this.currentStatus = 'failed'
    this.impending = undefined
    this.outcome = { type: 'failed', error }
    this.retransmission.stop()
  }

  /**
   * Bad news that anybody who can spoof the remote's address may have sent: it stands unless an agreement comes within
   * the grace
   */
  private failSoon (error: Error, now: number): void {
    this.impending ??= { error, at: now + this.rejectGrace }
  }

  private answer (proposal: ProposalFingerprint, response: Uint8Array): void {
    this.answered = { proposal, response }
    this.transmit(response)
  }

  private transmitBareProposal (): void {
    this.packetInEveryProposal = false
    this.transmit(this.bareProposal)
  }

  private transmit (datagram: Uint8Array): void {
    if (this.transmits.length < MAX_QUEUED_TRANSMITS) {
      this.transmits.push(datagram)
    }
  }

  private respondingTo (frame: Propose, scheme: string, simultaneous: boolean): Agreement {
    return {
      scheme,
      role: 'responder',
      simultaneous,
      localSchemes: [...this.schemes],
      remoteSchemes: distinct(frame.schemes),
      proposals: simultaneous ? { initiator: offerOf(frame), responder: this.ownOffer() } : { initiator: offerOf(frame) },
      claimedId: frame.peerId,
      initiationPacket: scheme === frame.schemes[0] ? frame.initiationPacket : undefined,
      sendFirstFlight: false
    }
  }

  private selectFrom (frame: Propose): string | undefined {
    const scheme = this.select(frame)

    if (scheme != null && !(frame.schemes.includes(scheme) && this.schemes.includes(scheme))) {
      throw new InvalidParametersError(`The selection of a scheme returned ${JSON.stringify(scheme)}, which is not one that both sides speak`)
    }

    return scheme
  }

  private ownOffer (): Propose {
    return { type: 'propose', peerId: this.localId, schemes: [...this.schemes] }
  }

  private isOurs (frame: Propose): boolean {
    return compareIds(frame.peerId, this.localId) === 0
  }

  private nothingInCommon (frame: Propose): Error {
    return new NoCommonSchemeError(`The remote offers ${quoteNames(distinct(frame.schemes))}, we speak ${quoteNames(this.schemes)}, and may choose none of them. Configure a scheme that both speak.`)
  }
}

function offerOf ({ type, peerId, schemes }: Propose): Propose {
  return { type, peerId, schemes }
}

function distinct (schemes: string[]): string[] {
  return [...new Set(schemes)]
}

function selfNegotiation (): Error {
  return new SelfNegotiationError('The remote claims our own peer id: the address leads back to this node, or somebody pretends to be us')
}
