import { CODE_UDP } from '@multiformats/multiaddr'
import { CODE_PSEC } from '../index.ts'
import type { Multiaddr } from '@multiformats/multiaddr'

/**
 * An address in the form that says what it is. A node announces the bare one, for the sake of nodes that do not know
 * `/psec`.
 */
export function withPsec (address: Multiaddr): string {
  const parts: string[] = []

  for (const { code, name, value } of address.getComponents()) {
    if (code === CODE_PSEC) {
      continue
    }

    parts.push(value == null ? name : `${name}/${value}`)

    if (code === CODE_UDP) {
      parts.push('psec')
    }
  }

  return `/${parts.join('/')}`
}
