import { realClock } from './clock.ts'
import type { Clock } from './clock.ts'
import type { Logger } from '@libp2p/interface'

/**
 * Lines a second: what a person can follow, and a disk bear
 */
const MAX_LINES = 50
const INTERVAL = 1000

/**
 * A logger for what strangers can cause: it lets 50 lines a second through, and tells how many it kept back. Internal.
 */
export function limitLogger (log: Logger, clock: Clock = realClock): Logger {
  let since = -Infinity
  let lines = 0

  const limited = (write: (formatter: any, ...args: any[]) => void) => (formatter: any, ...args: any[]): void => {
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
      write(formatter, ...args)
    }
  }

  return Object.defineProperty(Object.assign(limited(log), {
    error: limited((formatter, ...args) => { log.error(formatter, ...args) }),
    trace: limited((formatter, ...args) => { log.trace(formatter, ...args) }),
    newScope: (name: string) => limitLogger(log.newScope(name), clock),
    enabled: false
  }), 'enabled', { get: () => log.enabled })
}
