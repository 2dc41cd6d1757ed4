import { isIPv4, isIPv6 } from 'node:net'

/**
 * The part of the network that a host belongs to, of which one attacker may have many addresses: an IPv4 /24, also where the
 * address is mapped into IPv6, or an IPv6 /48, as text. What is no IP address, in a network of another kind, is a part of its own.
 */
export function sourcePrefix (host: string): string {
  if (isIPv4(host)) {
    return `${host.slice(0, host.lastIndexOf('.'))}.0/24`
  }

  if (!isIPv6(host)) {
    return host
  }

  const groups = expand(host.split('%')[0])

  // ::ffff:0:0/96 is all of IPv4 (RFC 4291, section 2.5.5.2): as one part, a single attacker would have it
  if (groups[5] === 0xffff && groups.slice(0, 5).every(group => group === 0)) {
    return `${groups[6] >> 8}.${groups[6] & 0xff}.${groups[7] >> 8}.0/24`
  }

  return `${groups.slice(0, 3).map(group => group.toString(16)).join(':')}::/48`
}

/**
 * The eight groups of a valid IPv6 address without a zone (RFC 4291, section 2.2)
 */
function expand (host: string): number[] {
  const [head, tail = []] = host.split('::').map(part => part === '' ? [] : part.split(':').flatMap(parseGroup))

  return [...head, ...new Array(8 - head.length - tail.length).fill(0), ...tail]
}

/**
 * A group; or two, of an IPv4 address at the end
 */
function parseGroup (group: string): number[] {
  if (!group.includes('.')) {
    return [parseInt(group, 16)]
  }

  const [a, b, c, d] = group.split('.').map(Number)

  return [a << 8 | b, c << 8 | d]
}
