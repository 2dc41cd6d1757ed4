import { realClock } from '../clock.ts'
import { sourcePrefix } from './source-prefix.ts'
import type { Clock } from '../clock.ts'
import type { Link } from './link.ts'

export interface PendingInboundInit {
  /**
   * How many may be on their way at a time
   */
  max: number

  /**
   * How many of one part of the network, see `sourcePrefix`
   */
  maxPerPrefix: number

  /**
   * How many of remotes that have not proved their address; `Infinity` if they can't be made to
   */
  maxUnproven: number

  /**
   * From how many on, of those who have not proved their address, strangers have to prove theirs
   */
  validationThreshold: number
  clock?: Clock
}

/**
 * How long a failure counts, in milliseconds, as if the upgrade were still on its way: one that fails at once takes no room, but it
 * takes time
 */
const FAILURE_WEIGHS = 1_000

/**
 * Why a stranger has to try again later
 */
export type TurnedAwayReason = 'turned_away' | 'turned_away_unproven' | 'turned_away_prefix'

interface Entry {
  prefix: string
  validated: boolean
}

/**
 * Inbound connections on their way: the half-open state of a listener. Those who came first are the likelier to get done, so
 * when it is full the newest are turned away.
 */
export class PendingInbound {
  readonly #init: PendingInboundInit
  readonly #entries = new Map<Link, Entry>()
  readonly #ofPrefix = new Map<string, number>()
  readonly #clock: Clock
  #unvalidated = 0
  #isUnderPressure: boolean
  /** Failures of remotes that had proved nothing, as many as weigh on at `#failuresAt`; they fade by and by */
  #failures = 0
  #failuresAt = 0

  constructor (init: PendingInboundInit) {
    this.#init = init
    this.#clock = init.clock ?? realClock
    this.#isUnderPressure = init.validationThreshold === 0
  }

  get size (): number {
    return this.#entries.size
  }

  /**
   * Whether strangers should prove their address. Begins at the threshold and ends at half of it, so that it does not flicker.
   * Upgrades that failed within a second count, too: proposals of which nothing can come are a flood like any other.
   */
  get isUnderPressure (): boolean {
    const { validationThreshold } = this.#init
    const weight = this.#unvalidated + this.#fadedFailures()
    this.#isUnderPressure = weight >= (this.#isUnderPressure ? validationThreshold / 2 : validationThreshold)

    return this.#isUnderPressure
  }

  /**
   * For how many more there is room, wherever they come from, and whatever they have proved
   */
  get room (): number {
    const { max, maxPerPrefix, maxUnproven } = this.#init

    return Math.min(max, maxPerPrefix, maxUnproven) - this.#entries.size
  }

  /**
   * Why there is no room for somebody from that host; undefined if there is
   */
  refuses (host: string, validated: boolean): TurnedAwayReason | undefined {
    const { max, maxPerPrefix, maxUnproven } = this.#init

    if (this.#entries.size >= max) {
      return 'turned_away'
    }

    if (!validated && this.#unvalidated >= maxUnproven) {
      return 'turned_away_unproven'
    }

    if ((this.#ofPrefix.get(sourcePrefix(host)) ?? 0) >= maxPerPrefix) {
      return 'turned_away_prefix'
    }
  }

  /**
   * Whether it is on its way, and its remote has proved its address
   */
  hasValidated (link: Link): boolean {
    return this.#entries.get(link)?.validated === true
  }

  add (link: Link, host: string, validated: boolean): void {
    const prefix = sourcePrefix(host)
    this.#entries.set(link, { prefix, validated })
    this.#ofPrefix.set(prefix, (this.#ofPrefix.get(prefix) ?? 0) + 1)
    this.#unvalidated += validated ? 0 : 1
  }

  /**
   * It is connected, or it has failed
   */
  delete (link: Link, isConnected: boolean = true): void {
    const entry = this.#entries.get(link)

    if (entry == null) {
      return
    }

    const left = (this.#ofPrefix.get(entry.prefix) ?? 0) - 1
    this.#entries.delete(link)
    this.#unvalidated -= entry.validated ? 0 : 1

    if (!isConnected && !entry.validated) {
      this.#failures = Math.min(this.#fadedFailures() + 1, this.#maxFailures)
      this.#failuresAt = this.#clock.now()
    }

    if (left > 0) {
      this.#ofPrefix.set(entry.prefix, left)
    } else {
      this.#ofPrefix.delete(entry.prefix)
    }
  }

  /**
   * More than this add nothing, so that the pressure ends soon after a flood
   */
  get #maxFailures (): number {
    return Math.min(this.#init.validationThreshold, this.#init.max) * 2
  }

  #fadedFailures (): number {
    const faded = (this.#clock.now() - this.#failuresAt) / FAILURE_WEIGHS * this.#maxFailures / 2

    return Math.max(0, this.#failures - faded)
  }
}
