import { lookup } from 'node:dns/promises'
import { raceSignal } from 'race-signal'
import { AddressNotResolvedError } from '../errors.ts'
import type { DialTarget } from './multiaddr.ts'
import type { PacketAddress } from '../sockets/index.ts'
import type { AbortOptions } from '@libp2p/interface'

const FAMILIES = {
  any: { number: 0, name: 'IP' },
  ip4: { number: 4, name: 'IPv4' },
  ip6: { number: 6, name: 'IPv6' }
} as const

/**
 * Find the IP address of a dial target: the first that the system's resolver knows. Where either family will do, IPv4
 * goes first: fewer hosts have an IPv6 address that nothing listens on.
 *
 * @throws {AddressNotResolvedError} if there is none of the wanted family
 */
export async function resolveTarget (target: DialTarget, options: AbortOptions = {}): Promise<PacketAddress> {
  if (target.resolve == null) {
    return { host: target.host, port: target.port }
  }

  const family = FAMILIES[target.resolve]
  const lookedUp = lookup(target.host, { family: family.number, order: 'ipv4first' })
    .catch((err: Error) => {
      throw new AddressNotResolvedError(
        `The host name ${target.host} did not resolve to an ${family.name} address (${err.message}), check the name and the network's DNS`, { cause: err })
    })
  // the resolver can't be stopped, but nobody has to wait for it
  const { address } = await raceSignal(lookedUp, options.signal)

  return { host: address, port: target.port }
}
