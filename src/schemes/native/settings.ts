import { InvalidParametersError } from '@libp2p/interface'

/**
 * Settings as the engine takes them: integers that fit 32 bits, and the defaults where nothing is said. Throws
 * `InvalidParametersError`.
 */
export function nativeSettings<T extends { [K in keyof T]: number }> (scheme: string, init: Partial<T>, defaults: T): T {
  const given = Object.entries(init).filter(([, value]) => value != null)

  for (const [name, value] of given) {
    if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > 0xffffffff) {
      throw new InvalidParametersError(`${scheme}: ${name} must be an integer from 0 to 4294967295, not ${value}`)
    }
  }

  return { ...defaults, ...Object.fromEntries(given) }
}
