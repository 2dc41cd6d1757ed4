import { InvalidParametersError } from '@libp2p/interface'
import * as varint from 'uint8-varint'
import { MAX_NAME_LENGTH, MAX_SCHEMES, TYPE_ACCEPT, TYPE_PROPOSE, TYPE_REJECT } from './limits.ts'
import { isPeerIdMultihash } from './peer-id.ts'
import type { Frame, Propose } from './index.ts'

const encoder = new TextEncoder()

/**
 * The bytes of a frame (draft, "Frames"), within the bounds of `docs/negotiation.md`; `decodeFrame` takes every one of
 * them.
 *
 * Throws `RangeError` for more than 255 schemes, and for a name that is not 1 to 255 bytes of UTF-8 long;
 * `InvalidParametersError` for a peer id that is not a libp2p peer id's multihash, a name that is not well-formed
 * Unicode, an empty initiation packet (leave it out instead), and an unknown type of frame.
 */
export function encodeFrame (frame: Frame): Uint8Array {
  switch (frame.type) {
    case 'propose':
      return encodePropose(frame)
    case 'accept':
      return concat([Uint8Array.of(TYPE_ACCEPT), ...encodeName(frame.scheme)])
    case 'reject':
      return Uint8Array.of(TYPE_REJECT)
    default:
      throw new InvalidParametersError(`Unknown frame type ${JSON.stringify((frame as { type?: unknown }).type)}, should be "propose", "accept" or "reject"`)
  }
}

function encodePropose (frame: Propose): Uint8Array {
  if (!isPeerIdMultihash(frame.peerId)) {
    throw new InvalidParametersError('The peer id is not the multihash of a libp2p peer id')
  }

  if (frame.schemes.length > MAX_SCHEMES) {
    throw new RangeError(`A proposal lists at most ${MAX_SCHEMES} schemes, got ${frame.schemes.length}`)
  }

  const parts = [
    Uint8Array.of(TYPE_PROPOSE),
    varint.encode(frame.peerId.byteLength),
    frame.peerId,
    Uint8Array.of(frame.schemes.length),
    ...frame.schemes.flatMap(encodeName)
  ]

  if (frame.initiationPacket != null) {
    if (frame.initiationPacket.byteLength === 0) {
      throw new InvalidParametersError('The initiation packet is empty, leave it out if there is none')
    }

    parts.push(varint.encode(frame.initiationPacket.byteLength), frame.initiationPacket)
  }

  return concat(parts)
}

function encodeName (name: string): Uint8Array[] {
  // the encoder would silently replace lone surrogates, and name another scheme
  if (!name.isWellFormed()) {
    throw new InvalidParametersError(`The scheme name ${JSON.stringify(name)} is not well-formed Unicode`)
  }

  const bytes = encoder.encode(name)

  if (bytes.byteLength < 1 || bytes.byteLength > MAX_NAME_LENGTH) {
    throw new RangeError(`A scheme name has 1 to ${MAX_NAME_LENGTH} bytes of UTF-8, got ${bytes.byteLength}`)
  }

  return [varint.encode(bytes.byteLength), bytes]
}

/**
 * Frames are kept for as long as a flow lives: `uint8arrays/concat` would put them into a slab of Node's buffer pool,
 * and keep all of that
 */
function concat (parts: Uint8Array[]): Uint8Array {
  const result = new Uint8Array(parts.reduce((length, part) => length + part.byteLength, 0))
  let offset = 0

  for (const part of parts) {
    result.set(part, offset)
    offset += part.byteLength
  }

  return result
}
