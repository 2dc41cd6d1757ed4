/**
 * From the strings of a command line to what they mean. All of it throws `UsageError`.
 */
import { multiaddr } from '@multiformats/multiaddr'
import { dtls, quicDatagram } from '../index.ts'
import { PSEC } from '../transport/filters.ts'
import { UsageError } from './errors.ts'
import { printable } from './printable.ts'
import type { OptionValue } from './command.ts'
import type { SecurityScheme } from '../index.ts'
import type { Multiaddr } from '@multiformats/multiaddr'

/**
 * The schemes by their short names
 */
const SCHEMES: Record<string, () => SecurityScheme> = {
  'quic-datagram': () => quicDatagram(),
  dtls: () => dtls()
}

/**
 * `a,b` to schemes, most wanted first. Undefined leaves the choice to `psec()`.
 */
export function parseSchemes (value: OptionValue): SecurityScheme[] | undefined {
  if (typeof value !== 'string') {
    return undefined
  }

  const names = [...new Set(value.split(',').map(name => name.trim()))]

  return names.map(name => {
    if (!Object.hasOwn(SCHEMES, name)) {
      throw new UsageError(`The scheme "${printable(name)}" is not in this version, --schemes takes: ${Object.keys(SCHEMES).join(', ')}`)
    }

    return SCHEMES[name]()
  })
}

/**
 * The address to dial
 */
export function parseMultiaddr (value: string | undefined): Multiaddr {
  if (value == null) {
    throw new UsageError('The multiaddr of the node to dial is missing, /ip4/192.0.2.1/udp/4001/psec for instance')
  }

  return parseAddress(value)
}

/**
 * An address of this transport
 */
export function parseAddress (value: string): Multiaddr {
  let address: Multiaddr

  try {
    address = multiaddr(value)
  } catch (err: any) {
    throw new UsageError(`"${value}" is not a multiaddr: ${err.message}`)
  }

  if (!PSEC.exactMatch(address)) {
    throw new UsageError(`"${value}" is not an address for PSEC, which look like /ip4/192.0.2.1/udp/4001/psec/p2p/12D3KooW…`)
  }

  return address
}

export interface IntegerRange {
  min: number
  max: number
}

/**
 * A whole number within bounds, undefined if the option was not given
 */
export function parseInteger (option: string, value: OptionValue, { min, max }: IntegerRange): number | undefined {
  if (typeof value !== 'string') {
    return undefined
  }

  const number = Number(value)

  if (!/^\d+$/.test(value) || number < min || number > max) {
    throw new UsageError(`${option} takes a whole number from ${min} to ${max}, not "${value}"`)
  }

  return number
}

/**
 * An option's only value
 */
export function parseString (option: string, value: OptionValue): string | undefined {
  if (value === '') {
    throw new UsageError(`${option} must not be empty`)
  }

  return typeof value === 'string' ? value : undefined
}

export function expectNoMore (positionals: string[], expected: number): void {
  if (positionals.length > expected) {
    throw new UsageError(`"${positionals[expected]}" is one argument too many`)
  }
}
