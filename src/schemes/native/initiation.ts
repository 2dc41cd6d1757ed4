import { HandshakeFailedError } from '../../errors.ts'
import type { NativeSession } from './session.ts'
import type { NativeFlow } from '../../engine/flow.ts'
import type { NativeIdentity } from '../../engine/native.ts'
import type { CancelOptions, Initiation, ProceedOptions, SecureSession } from '../index.ts'

interface Parts {
  identity: NativeIdentity
  flow: NativeFlow
  session: NativeSession
}

export class NativeInitiation implements Initiation {
  readonly firstFlight: Promise<Uint8Array[]>
  readonly #session?: NativeSession

  /**
   * `prepare` may throw: the first flight then rejects with what it threw
   */
  constructor (maxInitiationPacketSize: number, prepare: () => Parts) {
    try {
      const { identity, session } = prepare()
      this.#session = session
      this.firstFlight = Promise.resolve(session.initiate(identity, maxInitiationPacketSize))
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

    return this.#session.proceed(options)
  }

  cancel ({ sent = false }: CancelOptions = {}): void {
    this.#session?.cancel(sent)
  }
}
