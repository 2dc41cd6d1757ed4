import { isIPv4, isIPv6 } from 'node:net'

/**
 * The part of the network that a host belongs to, of which one attacker may have many addresses: an IPv4 /24 or an IPv6 /48, as
 * text. What is no IP address, in a network of another kind, is a part of its own.
 */
export function sourcePrefix (host: string): string {
  if (isIPv4(host)) {
    return `${host.slice(0, host.lastIndexOf('.'))}.0/24`
  }

  if (!isIPv6(host)) {
    return host
  }

  const [head, tail] = host.split('%')[0].split('::').map(groups => groups === '' ? [] : groups.split(':'))
  const omitted = tail == null ? [] : new Array(8 - head.length - tail.length).fill('0')

  return `${[...head, ...omitted, ...tail ?? []].slice(0, 3).map(group => parseInt(group, 16).toString(16)).join(':')}::/48`
}
