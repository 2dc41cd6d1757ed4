import { InvalidParametersError } from '@libp2p/interface'
import { MAX_NAME_LENGTH, MAX_SCHEMES, TYPE_ACCEPT, TYPE_PROPOSE, TYPE_REJECT } from './limits.ts'
import { isPeerIdMultihash } from './peer-id.ts'
import { Writer } from './writer.ts'
import type { Accept, Frame, Propose } from './index.ts'

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
      return encodeAccept(frame)
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

  const names = frame.schemes.map(encodeName)
  const packet = frame.initiationPacket

  if (packet?.byteLength === 0) {
    throw new InvalidParametersError('The initiation packet is empty, leave it out if there is none')
  }

  const writer = new Writer(2 + Writer.sizeOf(frame.peerId) + names.reduce((size, name) => size + Writer.sizeOf(name), 0) + (packet == null ? 0 : Writer.sizeOf(packet)))
  writer.uint8(TYPE_PROPOSE)
  writer.field(frame.peerId)
  writer.uint8(names.length)
  names.forEach(name => { writer.field(name) })

  if (packet != null) {
    writer.field(packet)
  }

  return writer.bytes
}

function encodeAccept (frame: Accept): Uint8Array {
  const name = encodeName(frame.scheme)
  const writer = new Writer(1 + Writer.sizeOf(name))
  writer.uint8(TYPE_ACCEPT)
  writer.field(name)

  return writer.bytes
}

function encodeName (name: string): Uint8Array {
  // the encoder would silently replace lone surrogates, and name another scheme
  if (!name.isWellFormed()) {
    throw new InvalidParametersError(`The scheme name ${JSON.stringify(name)} is not well-formed Unicode`)
  }

  const bytes = encoder.encode(name)

  if (bytes.byteLength < 1 || bytes.byteLength > MAX_NAME_LENGTH) {
    throw new RangeError(`A scheme name has 1 to ${MAX_NAME_LENGTH} bytes of UTF-8, got ${bytes.byteLength}`)
  }

  return bytes
}
