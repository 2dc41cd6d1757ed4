import { HandshakeFailedError } from '../../errors.ts'
import type { NativeSession } from './session.ts'
import type { NativeIdentity } from '../../engine/native.ts'
import type { CancelOptions, Initiation, ProceedOptions, SecureSession } from '../index.ts'

interface Parts {
  identity: NativeIdentity
  session: NativeSession
}

export class NativeInitiation implements Initiation {
  readonly firstFlight: Promise<Uint8Array[]>
  readonly #maxInitiationPacketSize: number
  readonly #prepare: () => Parts
  #session?: NativeSession

  /**
   * `prepare` may throw: the first flight then rejects with what it threw
   */
  constructor (maxInitiationPacketSize: number, prepare: () => Parts) {
    this.#maxInitiationPacketSize = maxInitiationPacketSize
    this.#prepare = prepare

    try {
      this.firstFlight = Promise.resolve(this.#begin())
    } catch (err) {
      this.firstFlight = Promise.reject(err)
    }

    // Whoever is interested looks; nobody has to.
    this.firstFlight.catch(() => {})
  }

  async proceed (options: ProceedOptions): Promise<SecureSession> {
    options.signal?.throwIfAborted()

    if (this.#session == null) {
      // Why not
      await this.firstFlight
      throw new HandshakeFailedError('The handshake could not be begun')
    }

    if (this.#session.status !== 'closed') {
      return this.#session.proceed(options)
    }

    // Before the agreement it may have been anybody who ended it: what travels on the heels of a proposal can get to a responder that
    // waits for somebody else.
    this.#begin()

    return this.#session.proceed({ ...options, sent: false, sendFirstFlight: true })
  }

  cancel ({ sent = false }: CancelOptions = {}): void {
    this.#session?.cancel(sent)
  }

  #begin (): Uint8Array[] {
    const { identity, session } = this.#prepare()
    this.#session = session

    return session.initiate(identity, this.#maxInitiationPacketSize)
  }
}
