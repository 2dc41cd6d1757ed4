import fc from 'fast-check'
import { encodeFrame } from '../../src/wire/index.ts'
import type { Frame } from '../../src/wire/index.ts'

/** Of each kind, and in the order of the numbers that they are */
export const IDS = [
  Uint8Array.of(0x12, 0x20, ...new Uint8Array(32)),
  Uint8Array.of(0x12, 0x20, ...new Uint8Array(32).fill(0xff)),
  Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...new Uint8Array(32).fill(7))
]

export const SCHEMES = ['/a', '/b', '/c', '/d']

const name = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(...SCHEMES) },
  { weight: 1, arbitrary: fc.constantFrom('\ufeff', '/\u00e9', '/e\u0301', '/\u{1d11e}', '\u001b[2J', 'x'.repeat(255)) }
)

/** Two that differ, and any of any length: which bytes it has does not matter to PSEC */
const packet = fc.oneof(fc.constantFrom(Uint8Array.of(0x40, 1), Uint8Array.of(0x40, 2)), fc.integer({ min: 1, max: 1_300 }).map(length => new Uint8Array(length).fill(0x40)))

export const frame: fc.Arbitrary<Frame> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant('propose' as const),
      peerId: fc.constantFrom(...IDS),
      schemes: fc.array(name, { maxLength: 6 }),
      initiationPacket: fc.option(packet, { nil: undefined })
    })
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('accept' as const), scheme: name }) },
  { weight: 1, arbitrary: fc.constant({ type: 'reject' as const }) }
)

export const frameBytes = frame.map(encodeFrame)

export interface Edit {
  kind: 'set' | 'insert' | 'remove' | 'cut'
  at: number
  bytes: Uint8Array
}

export const edits: fc.Arbitrary<Edit[]> = fc.array(fc.record({
  kind: fc.constantFrom('set', 'insert', 'remove', 'cut'),
  at: fc.nat({ max: 1_500 }),
  bytes: fc.oneof(fc.uint8Array({ minLength: 1, maxLength: 4 }), fc.constantFrom(Uint8Array.of(0xff), Uint8Array.of(0x80, 0x00), new Uint8Array(10).fill(0xff)))
}), { minLength: 1, maxLength: 4 })

export function applyEdits (bytes: Uint8Array, edits: Edit[]): Uint8Array {
  let edited = [...bytes]

  for (const { kind, at, bytes } of edits) {
    const index = edited.length === 0 ? 0 : at % edited.length

    switch (kind) {
      case 'set':
        edited.splice(index, bytes.length, ...bytes)
        break
      case 'insert':
        edited.splice(index, 0, ...bytes)
        break
      case 'remove':
        edited.splice(index, bytes.length)
        break
      default:
        edited = edited.slice(0, index)
    }
  }

  return Uint8Array.from(edited)
}

/**
 * Anything that a network may bring: frames, almost frames, what begins like a frame or like a scheme's packet, and noise
 */
export const datagram: fc.Arbitrary<Uint8Array> = fc.oneof(
  { weight: 6, arbitrary: frameBytes },
  { weight: 3, arbitrary: fc.tuple(frameBytes, edits).map(([bytes, edits]) => applyEdits(bytes, edits)) },
  { weight: 1, arbitrary: fc.tuple(fc.constantFrom(0, 1, 22, 64, 192, 255), fc.uint8Array({ maxLength: 80 })).map(([first, rest]) => Uint8Array.of(first, ...rest)) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 80 }) }
)
