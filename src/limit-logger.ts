import { realClock } from './clock.ts'
import type { Clock } from './clock.ts'
import type { Counter, Logger } from '@libp2p/interface'

/**
 * What a person can follow, and a disk bear
 */
export const DEFAULT_MAX_LINES = 50
const INTERVAL = 1000

export interface LimitLoggerInit {
  /**
   * Lines a second, of each of the logger's scopes. Default: 50.
   */
  maxLines?: number

  /**
   * Counts the lines that were kept back
   */
  keptBack?: Counter
  clock?: Clock
}

/**
 * A level of a logger. Those of libp2p's own know whether anybody reads them.
 */
interface Write {
  (formatter: any, ...args: any[]): void
  enabled?: boolean
}

/**
 * A logger for what strangers can cause: it lets so many lines a second through, and tells how many it kept back. Internal.
 */
export function limitLogger (log: Logger, init: LimitLoggerInit = {}): Logger {
  const { maxLines = DEFAULT_MAX_LINES, keptBack, clock = realClock } = init
  let since = -Infinity
  let lines = 0

  const limited = (write: Write) => (formatter: any, ...args: any[]): void => {
    // what nobody would see takes no room of what somebody would: traces are off more often than not
    if (write.enabled === false) {
      return
    }

    const now = clock.now()

    if (now - since >= INTERVAL) {
      if (lines > maxLines) {
        log('%d more lines were not logged', lines - maxLines)
      }

      since = now
      lines = 0
    }

    lines++

    if (lines <= maxLines) {
      write.call(log, formatter, ...args)
    } else {
      keptBack?.increment()
    }
  }

  return Object.defineProperty(Object.assign(limited(log), {
    error: limited(log.error),
    trace: limited(log.trace),
    newScope: (name: string) => limitLogger(log.newScope(name), init),
    enabled: false
  }), 'enabled', { get: () => log.enabled })
}
