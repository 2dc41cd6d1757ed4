import { createHash } from 'node:crypto'
import { raceSignal } from 'race-signal'
import { createConfirmation, Exchange, verifyConfirmation } from '../confirm/index.ts'
import { ConfirmationFailedError, DowngradeDetectedError } from '../errors.ts'
import { InspectedSession } from './inspected-session.ts'
import type { Clock } from '../clock.ts'
import type { ConfirmPolicy, Transcript } from '../confirm/index.ts'
import type { HeldArrivalsInit } from '../schemes/held-arrivals.ts'
import type { ChannelBinding, SecureSession, SecureStream } from '../schemes/index.ts'
import type { SecuredSocket } from '../upgrader/index.ts'
import type { PeerId, PrivateKey } from '@libp2p/interface'

/**
 * How long the remote may take to get this side's message before the session is aborted because of its own, in milliseconds: it
 * should find out by itself, too
 */
const GOODBYE_TIMEOUT = 1_000

export type ConfirmationOutcome =
  /** Both sides saw this */
  { type: 'confirmed', transcript: Transcript } |

  /** They have not compared what they saw, for a reason that need not be an attack */
  { type: 'unconfirmed', error: ConfirmationFailedError } |

  /** What the remote sent does not fit, and the session is closed: `DowngradeDetectedError`, or `ConfirmationFailedError` */
  { type: 'refused', error: Error }

export interface ConfirmationInit {
  secured: SecuredSocket
  policy: ConfirmPolicy
  localPeer: PeerId
  privateKey: PrivateKey
  clock: Clock

  /**
   * In milliseconds
   */
  timeout: number

  /**
   * Bounds on what is held until the session is handed on
   */
  held: HeldArrivalsInit

  /**
   * What the remote sent does not fit. Called before the session closes: nobody is to use it any more.
   */
  onRefused (err: Error): void
}

/**
 * The confirmation of one session's negotiation, from the moment that it is secured: opens the confirm stream, or takes the
 * remote's, and ends with the session, with the timeout, or with an outcome
 */
export class Confirmation {
  /**
   * The session for everybody else: without the confirm stream
   */
  readonly session: SecureSession

  /**
   * Never rejects
   */
  readonly outcome: Promise<ConfirmationOutcome>
  readonly #init: ConfirmationInit
  readonly #controller = new AbortController()
  readonly #inspected?: InspectedSession
  readonly #inbound = Promise.withResolvers<{ stream: SecureStream, headerAnswered: boolean }>()
  #isOver = false

  constructor (init: ConfirmationInit) {
    const { secured: { session, negotiation }, policy, held } = init
    this.#init = init

    if (policy !== 'off' && session.binding != null && negotiation.role === 'responder') {
      this.#inspected = new InspectedSession({
        session,
        held,
        onConfirmStream: (stream, headerAnswered) => { this.#inbound.resolve({ stream, headerAnswered }) },
        onClose: () => {
          if (!this.#isOver) {
            this.#controller.abort(interrupted())
          }
        }
      })
    }

    this.session = this.#inspected ?? session
    this.outcome = this.#run()
  }

  async #run (): Promise<ConfirmationOutcome> {
    const { secured: { session }, policy, clock, timeout } = this.#init

    if (policy === 'off') {
      return { type: 'unconfirmed', error: new ConfirmationFailedError('unsupported', 'This node does not confirm negotiations') }
    }

    if (session.binding == null) {
      return { type: 'unconfirmed', error: new ConfirmationFailedError('unsupported', `Sessions of ${session.protocol} can't be confirmed, they have no channel binding`) }
    }

    const cancelTimeout = clock.schedule(() => {
      this.#controller.abort(new ConfirmationFailedError('timedOut', `The remote did not confirm the negotiation within ${timeout} ms`))
    }, timeout)

    try {
      return { type: 'confirmed', transcript: await this.#confirm(session.binding) }
    } catch (err: any) {
      return await this.#onFailed(err)
    } finally {
      this.#isOver = true
      cancelTimeout()
      this.#inspected?.endInspection()
    }
  }

  async #confirm (binding: ChannelBinding): Promise<Transcript> {
    const { secured: { negotiation: { role } }, policy, privateKey, clock } = this.#init
    // first of all: the confirm stream is the session's first
    const opening = this.#openStream()

    if (policy === 'prefer') {
      // the connection is waited for, this is not: let it get ready before keys are worked with. A responder is asked once the
      // initiator has its connection, or never.
      await opening
      await new Promise<void>(resolve => { clock.schedule(resolve, 0) })
    }

    const transcript = this.#createTranscript(binding)
    const [{ stream, headerAnswered }, message] = await Promise.all([opening, createConfirmation(privateKey, role, transcript)])
    const received = await this.#exchange(stream, new Exchange({ role, message, headerAnswered }))

    return verifyConfirmation(received, transcript, role)
  }

  async #openStream (): Promise<{ stream: SecureStream, headerAnswered?: boolean }> {
    const { signal } = this.#controller

    if (this.#inspected != null) {
      this.#inspected.inspect()

      return raceSignal(this.#inbound.promise, signal)
    }

    return { stream: await this.#init.secured.session.openStream({ signal }) }
  }

  async #exchange (stream: SecureStream, exchange: Exchange): Promise<Uint8Array> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
    const poll = (): void => {
      const outcome = exchange.pollOutcome()

      if (outcome?.type === 'message') {
        resolve(outcome.message)
      } else if (outcome != null) {
        reject(outcome.error)
      }
    }
    const end = (): void => {
      exchange.handleEnd()
      poll()
    }
    const message = exchange.pollTransmit()

    if (message != null) {
      stream.send(message)
      stream.closeWrite()
    }

    stream.start({
      onData: (chunk) => {
        exchange.handleData(chunk)
        poll()
      },
      onDrain: () => {},
      onRemoteCloseWrite: end,
      onRemoteCloseRead: () => {},
      onReset: end
    })

    try {
      const received = await raceSignal(promise, this.#controller.signal)
      stream.closeRead()

      return received
    } catch (err: any) {
      // nobody else wants this stream. But one that carries the reason for which the session is closed has to get there.
      if (!isRefusal(err)) {
        stream.reset()
      }

      throw err
    }
  }

  async #onFailed (error: Error): Promise<ConfirmationOutcome> {
    if (!isRefusal(error)) {
      return { type: 'unconfirmed', error: error instanceof ConfirmationFailedError ? error : interrupted(error.message) }
    }

    this.#init.onRefused(error)
    // orderly: our own message gets there, and the remote comes to the same end
    await this.#init.secured.session.close({ signal: AbortSignal.timeout(GOODBYE_TIMEOUT) }).catch(() => {})

    return { type: 'refused', error }
  }

  #createTranscript (binding: ChannelBinding): Transcript {
    const { secured: { session, negotiation, proposals }, localPeer } = this.#init
    const local = { peerId: localPeer.toMultihash().bytes, keyHash: sha256(binding.local) }
    const remote = { peerId: session.remotePeer.toMultihash().bytes, keyHash: sha256(binding.remote) }
    const [initiator, responder] = negotiation.role === 'initiator' ? [local, remote] : [remote, local]

    return { simultaneous: negotiation.simultaneous, scheme: negotiation.scheme, initiator, responder, proposals }
  }
}

function isRefusal (err: Error): boolean {
  return err instanceof DowngradeDetectedError || (err instanceof ConfirmationFailedError && err.reason === 'malformed')
}

function interrupted (why: string = 'the session ended'): ConfirmationFailedError {
  return new ConfirmationFailedError('interrupted', `The confirmation of the negotiation was interrupted: ${why}`)
}

function sha256 (bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest()
}
