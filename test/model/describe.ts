import { equals } from 'uint8arrays/equals'
import { decodeFrame, looksLikeFrame } from '../../src/wire/index.ts'
import { decodePacket } from './scheme.ts'
import type { PeerView } from './machine.ts'

/**
 * Names for ids in traces
 */
const names: Array<{ id: Uint8Array, name: string }> = []

export function nameId (id: Uint8Array, name: string): Uint8Array {
  names.push({ id, name })

  return id
}

/**
 * A datagram in a line that a person reads
 */
export function describeDatagram (datagram: Uint8Array): string {
  if (!looksLikeFrame(datagram)) {
    const { flight, scheme, initiation, responder } = decodePacket(datagram)

    return `${scheme} ${flight}(${[initiation, responder].filter(name => name !== '').join(', ')})`
  }

  const frame = decodeFrame(datagram)

  switch (frame.type) {
    case 'propose':
      return `propose(${names.find(({ id }) => equals(id, frame.peerId))?.name ?? '?'}: ${frame.schemes.join(' ')}${frame.initiationPacket == null ? '' : `, with ${describeDatagram(frame.initiationPacket)}`})`
    case 'accept':
      return `accept(${frame.scheme})`
    default:
      return 'reject'
  }
}

/**
 * What a peer has, in a line
 */
export function describeView ({ sockets }: PeerView): string {
  return sockets.map(({ status, agreed, session }) => {
    return agreed == null ? status : `${session == null ? 'agreed' : 'SECURED'} ${agreed.scheme} as ${agreed.role}${agreed.simultaneous ? ', simultaneously' : ''}`
  }).join(' | ') || 'no socket'
}
