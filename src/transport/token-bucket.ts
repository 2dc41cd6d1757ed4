import { realClock } from '../clock.ts'
import type { Clock } from '../clock.ts'

export interface TokenBucketInit {
  /**
   * How much may happen at once
   */
  burst: number

  /**
   * How much may happen in the long run
   */
  perSecond: number
  clock?: Clock
}

/**
 * A limit of how often something may happen
 */
export class TokenBucket {
  readonly #init: TokenBucketInit
  readonly #clock: Clock
  #tokens: number
  #at: number

  constructor (init: TokenBucketInit) {
    this.#init = init
    this.#clock = init.clock ?? realClock
    this.#tokens = init.burst
    this.#at = this.#clock.now()
  }

  /**
   * Returns whether it may happen now
   */
  take (): boolean {
    const now = this.#clock.now()
    this.#tokens = Math.min(this.#init.burst, this.#tokens + (now - this.#at) / 1_000 * this.#init.perSecond)
    this.#at = now

    if (this.#tokens < 1) {
      return false
    }

    this.#tokens--

    return true
  }
}
