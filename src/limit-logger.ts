import { realClock } from './clock.ts'
import type { Clock } from './clock.ts'
import type { Logger } from '@libp2p/interface'

/**
 * Lines a second: what a person can follow, and a disk bear
 */
const MAX_LINES = 50
const INTERVAL = 1000

/**
 * A level of a logger. Those of libp2p's own know whether anybody reads them.
 */
interface Write {
  (formatter: any, ...args: any[]): void
  enabled?: boolean
}

/**
 * A logger for what strangers can cause: it lets 50 lines a second through, and tells how many it kept back. Internal.
 */
export function limitLogger (log: Logger, clock: Clock = realClock): Logger {
  let since = -Infinity
  let lines = 0

  const limited = (write: Write) => (formatter: any, ...args: any[]): void => {
    // what nobody would see takes no room of what somebody would: traces are off more often than not
    if (write.enabled === false) {
      return
    }

    const now = clock.now()

    if (now - since >= INTERVAL) {
      if (lines > MAX_LINES) {
        log('%d more lines were not logged', lines - MAX_LINES)
      }

      since = now
      lines = 0
    }

    lines++

    if (lines <= MAX_LINES) {
      write.call(log, formatter, ...args)
    }
  }

  return Object.defineProperty(Object.assign(limited(log), {
    error: limited(log.error),
    trace: limited(log.trace),
    newScope: (name: string) => limitLogger(log.newScope(name), clock),
    enabled: false
  }), 'enabled', { get: () => log.enabled })
}
