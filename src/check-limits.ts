import { InvalidParametersError } from '@libp2p/interface'

/** What the engine can count: 32 bits */
const MAX = 0xffffffff

/**
 * Limits of an option's room as they are, if each is a number of things: an integer that fits 32 bits. Throws
 * `InvalidParametersError`. Internal.
 *
 * @param room - what the options are of, for the message
 * @param limits
 */
export function checkLimits<T extends { [K in keyof T]: number }> (room: string, limits: T): T {
  for (const [name, limit] of Object.entries<number>(limits)) {
    if (!Number.isInteger(limit) || limit < 0 || limit > MAX) {
      throw new InvalidParametersError(`${room}: ${name} has to be an integer from 0 to ${MAX}, not ${limit}`)
    }
  }

  return limits
}
