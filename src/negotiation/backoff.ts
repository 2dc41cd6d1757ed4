import { InvalidParametersError } from '@libp2p/interface'

export interface BackoffInit {
  /** The first wait, in milliseconds */
  initial: number

  /** Each wait is that many times the one before */
  factor: number

  /** No wait is longer, in milliseconds */
  max: number
}

/**
 * Growing waits on a clock that is handed in: `start` or `next` sets the deadline, `stop` clears it
 */
export class Backoff {
  private readonly init: BackoffInit
  private wait: number
  private at?: number

  /**
   * Throws `InvalidParametersError` if a wait would not be a positive number, or shrink
   */
  constructor (init: BackoffInit) {
    if (!(init.initial > 0 && init.factor >= 1 && init.max >= init.initial && init.factor < Infinity && init.max < Infinity)) {
      throw new InvalidParametersError(`Retransmission needs 0 < initial <= max and factor >= 1, got initial ${init.initial}, factor ${init.factor}, max ${init.max}`)
    }

    this.init = init
    this.wait = init.initial
  }

  /** When the current wait ends; undefined while stopped */
  get deadline (): number | undefined {
    return this.at
  }

  /** Begin with the first wait */
  start (now: number): void {
    this.wait = this.init.initial
    this.at = now + this.wait
  }

  /** Begin the next, longer wait */
  next (now: number): void {
    this.wait = Math.min(this.wait * this.init.factor, this.init.max)
    this.at = now + this.wait
  }

  stop (): void {
    this.at = undefined
  }
}
