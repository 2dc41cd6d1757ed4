import { encodingLength } from 'uint8-varint'

/**
 * How large an initiation packet may be, given the bytes that are left for it and for the varint of its length (draft,
 * "Proposal"). 0 if there is no room.
 */
export function maxInitiationPacketSize (available: number): number {
  let size = Math.max(0, available - 1)

  while (size > 0 && encodingLength(size) + size > available) {
    size--
  }

  return size
}
