import { InvalidParametersError } from '@libp2p/interface'
import { AbstractMultiaddrConnection } from '@libp2p/utils'
import type { SecureSession } from '../schemes/index.ts'
import type { AbortOptions } from '@libp2p/interface'
import type { AbstractMultiaddrConnectionInit, SendResult } from '@libp2p/utils'

export interface PsecConnectionInit extends AbstractMultiaddrConnectionInit {
  session: SecureSession
}

/**
 * A secure session as libp2p's upgrader takes it. All data goes through the session's streams, so this carries nothing
 * but the connection's life: it closes the session, and it closes with the session.
 */
export class PsecConnection extends AbstractMultiaddrConnection {
  readonly #session: SecureSession
  #refused = false

  constructor (init: PsecConnectionInit) {
    super(init)

    this.#session = init.session
  }

  sendData (): SendResult {
    throw new InvalidParametersError('This connection is multiplexed by its session, open a stream to send data')
  }

  /**
   * End at once on this side, and leave it to the caller to end the session
   */
  refuse (err: Error): void {
    this.#refused = true
    this.abort(err)
  }

  sendReset (err: Error): void {
    if (!this.#refused) {
      this.#session.abort(err)
    }
  }

  async sendClose (options?: AbortOptions): Promise<void> {
    await this.#session.close(options)
  }

  sendPause (): void {
    // each stream has flow control of its own
  }

  sendResume (): void {
    // as above
  }
}
