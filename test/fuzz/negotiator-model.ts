import { equals } from 'uint8arrays/equals'
import { chooseSimultaneous } from '../../src/negotiation/index.ts'
import { encodeFrame } from '../../src/wire/index.ts'
import type { NegotiatorStatus } from '../../src/negotiation/index.ts'
import type { Frame, Propose } from '../../src/wire/index.ts'

/** The grace of bad news, by default */
const GRACE = 200

/** How long a proposal like the first is its repetition, once there is a session */
const REPETITION = 2_000

/** What has to leave: this frame, nothing, or (where a timer decides) at most our own proposal */
export type Expected = Uint8Array | 'nothing' | 'own proposal or nothing'

/**
 * One side of a negotiation as `docs/negotiation.md` tells it, "States", without timers of its own
 */
export class NegotiatorModel {
  readonly ownProposal: Uint8Array
  status: NegotiatorStatus = 'idle'
  agreed?: { scheme: string, role: 'initiator' | 'responder', simultaneous: boolean }
  readonly #localId: Uint8Array
  readonly #schemes: string[]
  #hasProposed = false
  #endsAt?: number
  #securedAt?: number
  #answered?: { proposal: Propose, response?: Uint8Array }

  constructor (localId: Uint8Array, schemes: string[]) {
    this.#localId = localId
    this.#schemes = schemes
    this.ownProposal = encodeFrame({ type: 'propose', peerId: localId, schemes })
  }

  propose (packet?: Uint8Array): Expected {
    if (this.status !== 'idle') {
      return 'nothing'
    }

    this.status = 'proposing'
    this.#hasProposed = true

    return encodeFrame({ type: 'propose', peerId: this.#localId, schemes: this.#schemes, initiationPacket: packet })
  }

  receive (frame: Frame, now: number): Expected {
    switch (frame.type) {
      case 'propose':
        return this.#receiveProposal(frame, now)
      case 'accept':
        if (this.status === 'proposing' && this.#schemes.includes(frame.scheme)) {
          this.#agree(frame.scheme, 'initiator', false)
        }

        return 'nothing'
      default:
        if (this.status === 'proposing') {
          this.#endsAt ??= now + GRACE
        }

        return 'nothing'
    }
  }

  secure (now: number): void {
    if (this.status === 'agreed') {
      this.#securedAt ??= now
    }
  }

  advance (now: number): Expected {
    if (this.#endsAt != null && now >= this.#endsAt) {
      this.status = 'failed'
      this.#endsAt = undefined

      return 'nothing'
    }

    return this.#hasProposed && this.status !== 'failed' && this.#securedAt == null ? 'own proposal or nothing' : 'nothing'
  }

  #receiveProposal (proposal: Propose, now: number): Expected {
    if (this.#isAnswered(proposal, now)) {
      return this.#answered?.response ?? 'nothing'
    }

    switch (this.status) {
      case 'idle':
        return this.#respond(proposal)
      case 'proposing':
        return this.#conclude(proposal, now)
      default:
        return 'nothing'
    }
  }

  #respond (proposal: Propose): Expected {
    if (equals(proposal.peerId, this.#localId)) {
      this.status = 'failed'
      return 'nothing'
    }

    const scheme = proposal.schemes.find(name => this.#schemes.includes(name))

    if (scheme == null) {
      this.status = 'failed'
      return this.#answer(proposal, { type: 'reject' })
    }

    this.#agree(scheme, 'responder', false)

    return this.#answer(proposal, { type: 'accept', scheme })
  }

  #conclude (proposal: Propose, now: number): Expected {
    if (equals(proposal.peerId, this.#localId)) {
      this.#endsAt ??= now + GRACE
      return 'nothing'
    }

    const choice = chooseSimultaneous({ peerId: this.#localId, schemes: this.#schemes }, proposal)

    if (choice == null) {
      this.#endsAt ??= now + GRACE
      return this.#answer(proposal, { type: 'reject' })
    }

    this.#agree(choice.scheme, choice.role, true)
    this.#answered = { proposal, response: choice.role === 'responder' ? this.ownProposal : undefined }

    return 'nothing'
  }

  #agree (scheme: string, role: 'initiator' | 'responder', simultaneous: boolean): void {
    this.status = 'agreed'
    this.agreed = { scheme, role, simultaneous }
    this.#endsAt = undefined
  }

  #answer (proposal: Propose, frame: Frame): Uint8Array {
    const response = encodeFrame(frame)
    this.#answered = { proposal, response }

    return response
  }

  /**
   * "The same proposal": one without the initiation packet is the same as one with it, until some time after there is a session
   */
  #isAnswered (proposal: Propose, now: number): boolean {
    if (this.#answered == null) {
      return false
    }

    const { proposal: answered } = this.#answered

    if (!equals(answered.peerId, proposal.peerId) || JSON.stringify(answered.schemes) !== JSON.stringify(proposal.schemes)) {
      return false
    }

    if (answered.initiationPacket != null && proposal.initiationPacket != null) {
      return equals(answered.initiationPacket, proposal.initiationPacket)
    }

    if (this.#securedAt != null && now - this.#securedAt >= REPETITION) {
      return false
    }

    answered.initiationPacket ??= proposal.initiationPacket

    return true
  }
}
