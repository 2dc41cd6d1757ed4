import { CODE_DNS, CODE_DNS4, CODE_DNS6, CODE_IP4, CODE_IP6, CODE_P2P, CODE_UDP } from '@multiformats/multiaddr'
import { code, fmt, optional, or, value } from '@multiformats/multiaddr-matcher/utils'
import { CODE_PSEC } from './multiaddr.ts'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { MultiaddrMatcher } from '@multiformats/multiaddr-matcher'

const ip = or(value(CODE_IP4), value(CODE_IP6))
const dns = or(value(CODE_DNS), value(CODE_DNS4), value(CODE_DNS6))

// the bare form is the same offer: raw UDP, security to be negotiated. Only `exactMatch` tells it from
// `/udp/…/quic-v1`.
const udp = [value(CODE_UDP), optional(code(CODE_PSEC)), optional(value(CODE_P2P))]

/**
 * Matches the addresses that this transport dials. Use `exactMatch`: `matches` ignores what follows, and many a
 * transport follows UDP.
 *
 * @example
 *
 * ```ts
 * import { PSEC } from 'libp2p-psec'
 * import { multiaddr } from '@multiformats/multiaddr'
 *
 * PSEC.exactMatch(multiaddr('/ip4/192.0.2.1/udp/4001/psec')) // true
 * PSEC.exactMatch(multiaddr('/ip4/192.0.2.1/udp/4001')) // true
 * PSEC.exactMatch(multiaddr('/ip4/192.0.2.1/udp/4001/quic-v1')) // false
 * ```
 */
export const PSEC: MultiaddrMatcher = fmt(or(ip, dns), ...udp)

const LISTENABLE: MultiaddrMatcher = fmt(ip, ...udp)

/**
 * The addresses that can be dialled
 */
export function dialFilter (multiaddrs: Multiaddr[]): Multiaddr[] {
  return multiaddrs.filter(ma => PSEC.exactMatch(ma))
}

/**
 * The addresses that can be listened on: a local port has an IP address, no name
 */
export function listenFilter (multiaddrs: Multiaddr[]): Multiaddr[] {
  return multiaddrs.filter(ma => LISTENABLE.exactMatch(ma))
}
