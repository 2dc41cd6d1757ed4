/**
 * The transport's multiaddrs: `/ip4/…/udp/…/psec`, and the bare `/ip4/…/udp/…`, which means the same. Importing this
 * file teaches `@multiformats/multiaddr` the `psec` component.
 */
import { InvalidMultiaddrError } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { CODE_DNS, CODE_DNS4, CODE_DNS6, CODE_IP6, CODE_P2P, CODE_UDP, multiaddr, registry } from '@multiformats/multiaddr'
import { isIPv6 } from '../sockets/index.ts'
import type { PacketAddress } from '../sockets/index.ts'
import type { PeerId } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

/**
 * The multiaddr protocol code of `/psec`, which has no value. It is from multicodec's private use range, until the
 * multicodec table has one.
 */
export const CODE_PSEC = 0x305053

// adding the same codec again, should the package be loaded twice, replaces it by its equal
registry.addProtocol({ code: CODE_PSEC, name: 'psec' })

/**
 * What a multiaddr asks to dial
 */
export interface DialTarget {
  host: string
  port: number

  /**
   * Which addresses of a host name will do; undefined if the host is an IP address already
   */
  resolve?: 'any' | 'ip4' | 'ip6'

  remotePeer?: PeerId
}

/**
 * Take a multiaddr apart that a filter of this transport has let through. Nobody can be at port 0, but it can be listened on.
 *
 * @throws {InvalidMultiaddrError} if there is no host and UDP port in it
 */
export function toDialTarget (ma: Multiaddr): DialTarget {
  const [host, transport, ...rest] = ma.getComponents()

  if (host?.value == null || transport?.code !== CODE_UDP) {
    throw new InvalidMultiaddrError(`${ma.toString()} has no host and UDP port, an address looks like /ip4/192.0.2.1/udp/4001/psec`)
  }

  const remotePeer = rest.findLast(component => component.code === CODE_P2P)?.value

  return {
    host: host.value,
    port: Number(transport.value),
    resolve: resolution(host.code),
    remotePeer: remotePeer == null ? undefined : peerIdFromString(remotePeer)
  }
}

function resolution (code: number): DialTarget['resolve'] {
  switch (code) {
    case CODE_DNS: return 'any'
    case CODE_DNS4: return 'ip4'
    case CODE_DNS6: return 'ip6'
    default: return undefined
  }
}

/**
 * The bare form of an address, the one that goes out into the network: in identify's observed address, in announced
 * addresses, in peer records. A js-libp2p node without this package throws on `/psec`, and one such address makes it
 * discard a signed peer record and all that came with it (see `test/announce.spec.ts`).
 */
export function toBareMultiaddr (ma: Multiaddr): Multiaddr {
  const components = ma.getComponents()
  const bare = components.filter(component => component.code !== CODE_PSEC)

  return bare.length === components.length ? ma : multiaddr(bare)
}

/**
 * `192.0.2.1`, 4001 to `/ip4/192.0.2.1/udp/4001`
 */
export function packetAddressToMultiaddr (address: PacketAddress): Multiaddr {
  const family = isIPv6(address) ? 'ip6' : 'ip4'

  return multiaddr(`/${family}/${address.host}/udp/${address.port}`)
}

/**
 * The listen address with the port that was opened in the end, which differs if it was 0
 */
export function withPort (ma: Multiaddr, port: number): Multiaddr {
  const host = ma.getComponents()[0]

  return multiaddr(`/${host.code === CODE_IP6 ? 'ip6' : 'ip4'}/${host.value}/udp/${port}`)
}
