import { InvalidParametersError } from '@libp2p/interface'

/** What the engine can count: 32 bits */
const MAX_COUNT = 0xffffffff

/** What `setTimeout` can wait for, in milliseconds */
export const MAX_TIMEOUT = 0x7fffffff

/**
 * Timeouts of an option's room as they are, if each is a number of milliseconds above 0 and up to `MAX_TIMEOUT`. Throws
 * `InvalidParametersError`. Internal.
 */
export function checkTimeouts<T extends { [K in keyof T]: number }> (room: string, timeouts: T): T {
  for (const [name, timeout] of Object.entries<number>(timeouts)) {
    if (!(typeof timeout === 'number' && timeout > 0 && timeout <= MAX_TIMEOUT)) {
      throw new InvalidParametersError(`${room}: ${name} is a number of milliseconds above 0 and up to ${MAX_TIMEOUT}, not ${timeout}`)
    }
  }

  return timeouts
}

/**
 * Limits of an option's room as they are, if each is a number of things: an integer from 0 to `max`. Throws
 * `InvalidParametersError`. Internal.
 *
 * @param room - what the options are of, for the message
 * @param limits
 * @param max - default: 2^32 - 1
 */
export function checkLimits<T extends { [K in keyof T]: number }> (room: string, limits: T, max: number = MAX_COUNT): T {
  for (const [name, limit] of Object.entries<number>(limits)) {
    if (!Number.isInteger(limit) || limit < 0 || limit > max) {
      throw new InvalidParametersError(`${room}: ${name} has to be an integer from 0 to ${max}, not ${limit}`)
    }
  }

  return limits
}
