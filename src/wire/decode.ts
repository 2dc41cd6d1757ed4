import { InvalidFrameError } from '../errors.ts'
import { MAX_PEER_ID_LENGTH, TYPE_ACCEPT, TYPE_PROPOSE, TYPE_REJECT } from './limits.ts'
import { isPeerIdMultihash } from './peer-id.ts'
import { Reader } from './reader.ts'
import type { Accept, Frame, Propose } from './index.ts'

/**
 * The frame that a datagram holds (draft, "Frames"): all of it, a frame with anything behind it is invalid.
 *
 * The list of schemes is as it was sent, repetitions included (see `Propose.schemes`). The peer id is a copy; the
 * initiation packet is a view of the datagram: copy it to keep it for longer than the datagram. `encodeFrame` makes the
 * same bytes of the result again, save for an explicit initiation packet of length 0, which is not distinguished from
 * none.
 *
 * Throws nothing but `InvalidFrameError`, whose `reason` is one of:
 * - `empty`: a datagram of no bytes
 * - `unknownType`: neither a proposal, an accept nor a reject
 * - `truncated`: ends within a field, or before one
 * - `varintNotMinimal`, `varintTooLong`: a length that is no multiformats unsigned varint (minimal, at most 9 bytes)
 * - `peerId`: not the multihash of a libp2p peer id
 * - `nameLength`, `nameEncoding`: a scheme's name that is not 1 to 255 bytes long, or not UTF-8
 * - `trailingBytes`: something follows the frame
 *
 * Bytes with several faults report the first one from the front; only the peer id is looked into at the very end, since
 * that costs most.
 */
export function decodeFrame (bytes: Uint8Array): Frame {
  if (bytes.byteLength === 0) {
    throw new InvalidFrameError('empty', 'The datagram is empty')
  }

  const reader = new Reader(bytes)
  const type = reader.uint8('the message type')

  switch (type) {
    case TYPE_PROPOSE:
      return readPropose(reader)
    case TYPE_ACCEPT:
      return readAccept(reader)
    case TYPE_REJECT:
      reader.end()
      return { type: 'reject' }
    default:
      throw new InvalidFrameError('unknownType', `The message type ${type} is unknown, should be ${TYPE_PROPOSE}, ${TYPE_ACCEPT} or ${TYPE_REJECT}`)
  }
}

/**
 * As what frame a datagram is meant, by a glance at its first byte, of which a reject has no more: it may still be invalid.
 * Undefined if it is traffic of a scheme.
 */
export function frameType (datagram: Uint8Array): Frame['type'] | undefined {
  switch (datagram[0]) {
    case TYPE_PROPOSE:
      return 'propose'
    case TYPE_ACCEPT:
      return 'accept'
    case TYPE_REJECT:
      return datagram.byteLength === 1 ? 'reject' : undefined
    default:
      return undefined
  }
}

/**
 * Whether a datagram is meant as a PSEC frame rather than as traffic of a scheme, see `frameType`
 */
export function looksLikeFrame (datagram: Uint8Array): boolean {
  return frameType(datagram) != null
}

function readPropose (reader: Reader): Propose {
  const peerId = readPeerId(reader)
  const count = reader.uint8('the number of schemes')
  const schemes: string[] = []

  for (let i = 0; i < count; i++) {
    schemes.push(reader.name('a scheme name'))
  }

  const initiationPacket = readInitiationPacket(reader)
  reader.end()

  if (!isPeerIdMultihash(peerId)) {
    throw new InvalidFrameError('peerId', 'The peer id is not the multihash of a libp2p peer id')
  }

  return initiationPacket == null ? { type: 'propose', peerId, schemes } : { type: 'propose', peerId, schemes, initiationPacket }
}

function readAccept (reader: Reader): Accept {
  const scheme = reader.name('a scheme name')
  reader.end()

  return { type: 'accept', scheme }
}

function readPeerId (reader: Reader): Uint8Array {
  const length = reader.uvarint('the length of the peer id')

  if (length > MAX_PEER_ID_LENGTH) {
    throw new InvalidFrameError('peerId', `A peer id has at most ${MAX_PEER_ID_LENGTH} bytes, the frame says ${length}`)
  }

  // a copy: ids are kept for as long as a flow lives, and would keep the datagram's buffer with them
  return reader.view(length, 'the peer id').slice()
}

function readInitiationPacket (reader: Reader): Uint8Array | undefined {
  if (reader.remaining === 0) {
    return undefined
  }

  const length = reader.uvarint('the length of the initiation packet')

  return length === 0 ? undefined : reader.view(length, 'the initiation packet')
}
