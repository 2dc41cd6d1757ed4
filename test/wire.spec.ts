import { readFileSync } from 'node:fs'
import { generateKeyPair, publicKeyFromMultihash } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id'
import { expect } from 'aegir/chai'
import fc from 'fast-check'
import * as Digest from 'multiformats/hashes/digest'
import { fromString } from 'uint8arrays/from-string'
import { toString } from 'uint8arrays/to-string'
import { InvalidFrameError } from '../src/errors.ts'
import { decodeFrame, encodeFrame, frameType, isPeerIdMultihash, looksLikeFrame } from '../src/wire/index.ts'
import type { Frame } from '../src/wire/index.ts'

interface ValidVector {
  name: string
  hex: string
  frame: { type: 'propose' | 'accept' | 'reject', peerId?: string, peerIdText?: string, schemes?: string[], initiationPacket?: string, scheme?: string }
  canonical?: string
}

interface InvalidVector {
  name: string
  hex: string
  reason: string
}

const REASONS = [
  'empty', 'unknownType', 'truncated', 'varintNotMinimal', 'varintTooLong', 'peerId', 'nameLength', 'nameEncoding', 'trailingBytes'
]

// identity multihash of the Ed25519 key 01 02 … 20
const ED25519_ID = '00240801122' + '00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20'

const hex = (bytes: Uint8Array): string => toString(bytes, 'base16')
const bytes = (text: string): Uint8Array => fromString(text.replaceAll(' ', ''), 'base16')

function vectors <T> (file: string): T {
  return JSON.parse(readFileSync(new URL(`./vectors/${file}`, import.meta.url), 'utf8'))
}

function frameOf ({ frame }: ValidVector): Frame {
  if (frame.type === 'accept') {
    return { type: 'accept', scheme: frame.scheme ?? '' }
  }

  if (frame.type === 'reject') {
    return { type: 'reject' }
  }

  return {
    type: 'propose',
    peerId: bytes(frame.peerId ?? ''),
    schemes: frame.schemes ?? [],
    ...(frame.initiationPacket == null ? {} : { initiationPacket: bytes(frame.initiationPacket) })
  }
}

function reasonOf (datagram: Uint8Array): string {
  try {
    decodeFrame(datagram)
  } catch (err: any) {
    expect(err).to.be.an.instanceOf(InvalidFrameError)
    expect(err.message).to.not.be.empty()

    return err.reason
  }

  throw new Error(`${hex(datagram)} was taken for a valid frame`)
}

const name = fc.oneof(
  fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }),
  fc.string({ unit: 'binary', minLength: 1, maxLength: 63 }),
  fc.string({ unit: 'binary-ascii', minLength: 1, maxLength: 255 })
).filter(name => name.isWellFormed() && new TextEncoder().encode(name).byteLength <= 255)

const peerId = fc.oneof(
  fc.uint8Array({ minLength: 32, maxLength: 32 }).map(key => Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...key)),
  fc.uint8Array({ minLength: 32, maxLength: 32 }).map(digest => Uint8Array.of(0x12, 0x20, ...digest)),
  // 2 and the x coordinate of the curve's generator
  fc.constant(bytes('00250802122102 79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'))
)

const frame: fc.Arbitrary<Frame> = fc.oneof(
  fc.record({
    type: fc.constant('propose' as const),
    peerId,
    schemes: fc.array(name, { maxLength: 255, size: 'medium' }),
    initiationPacket: fc.uint8Array({ minLength: 1, maxLength: 1500 })
  }, { requiredKeys: ['type', 'peerId', 'schemes'] }),
  fc.record({ type: fc.constant('accept' as const), scheme: name }),
  fc.constant({ type: 'reject' as const })
)

/** Nearly a frame: a valid one with a byte changed, removed, doubled, or with an end of its own */
const mutated = fc.tuple(frame, fc.nat(), fc.uint8Array({ maxLength: 12 }), fc.nat({ max: 3 })).map(([frame, position, patch, removed]) => {
  const valid = encodeFrame(frame)
  const at = position % (valid.byteLength + 1)

  return Uint8Array.of(...valid.subarray(0, at), ...patch, ...valid.subarray(at + removed))
})

describe('wire', () => {
  describe('frames written by hand', () => {
    it('is a proposal: type, peer id, number of schemes, schemes, initiation packet', () => {
      const written = bytes(`00 26 ${ED25519_ID} 02 02 2f61 03 2f6262 04 c0010203`)
      const frame: Frame = { type: 'propose', peerId: bytes(ED25519_ID), schemes: ['/a', '/bb'], initiationPacket: bytes('c0010203') }

      expect(decodeFrame(written)).to.deep.equal(frame)
      expect(encodeFrame(frame)).to.equalBytes(written)
    })

    it('is a proposal without initiation packet', () => {
      const written = bytes(`00 26 ${ED25519_ID} 01 02 2f61`)
      const frame: Frame = { type: 'propose', peerId: bytes(ED25519_ID), schemes: ['/a'] }

      expect(decodeFrame(written)).to.deep.equal(frame)
      expect(encodeFrame(frame)).to.equalBytes(written)
    })

    it('is an accept: type, scheme', () => {
      const written = bytes('01 0b 2f64746c732f312e302e30')

      expect(decodeFrame(written)).to.deep.equal({ type: 'accept', scheme: '/dtls/1.0.0' })
      expect(encodeFrame({ type: 'accept', scheme: '/dtls/1.0.0' })).to.equalBytes(written)
    })

    it('is a reject: one byte', () => {
      expect(decodeFrame(bytes('ff'))).to.deep.equal({ type: 'reject' })
      expect(encodeFrame({ type: 'reject' })).to.equalBytes(bytes('ff'))
    })

    it('writes the length of a name of 128 bytes in two bytes', () => {
      expect(hex(encodeFrame({ type: 'accept', scheme: 'n'.repeat(128) }))).to.equal(`018001${'6e'.repeat(128)}`)
    })
  })

  describe('published vectors', () => {
    for (const vector of vectors<ValidVector[]>('frames-valid.json')) {
      it(`reads and writes: ${vector.name}`, () => {
        const frame = frameOf(vector)

        expect(decodeFrame(bytes(vector.hex))).to.deep.equal(frame)
        expect(hex(encodeFrame(frame))).to.equal(vector.canonical ?? vector.hex)

        if (frame.type === 'propose') {
          expect(hex(peerIdFromString(vector.frame.peerIdText ?? '').toMultihash().bytes)).to.equal(vector.frame.peerId)
        }
      })
    }

    for (const vector of vectors<InvalidVector[]>('frames-invalid.json')) {
      it(`refuses as ${vector.reason}: ${vector.name}`, () => {
        expect(reasonOf(bytes(vector.hex))).to.equal(vector.reason)
      })
    }

    it('hold every reason there is', () => {
      const reasons = new Set(vectors<InvalidVector[]>('frames-invalid.json').map(vector => vector.reason))

      expect([...reasons]).to.have.members(REASONS)
    })
  })

  describe('decoding', () => {
    it('keeps nothing of the datagram for the peer id, so that it does not keep its buffer alive', () => {
      const datagram = bytes(`00 26 ${ED25519_ID} 01 02 2f61`)
      const frame = decodeFrame(datagram)
      datagram.fill(0)

      expect(frame).to.have.property('peerId').that.equalBytes(bytes(ED25519_ID))
      expect(frame).to.have.nested.property('peerId.buffer.byteLength', 38)
    })

    it('reads a datagram that begins in the middle of a buffer', () => {
      const buffer = Buffer.from(`ffff0026${ED25519_ID}01022f6102abcdffff`, 'hex')
      const frame = decodeFrame(buffer.subarray(2, -2))

      expect(frame).to.have.property('initiationPacket').that.equalBytes(bytes('abcd'))
      expect(frame).to.have.property('initiationPacket').that.is.not.an.instanceOf(Buffer)
    })

    it('throws nothing but InvalidFrameError, whatever the bytes', () => {
      fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), datagram => {
        try {
          decodeFrame(datagram)
        } catch (err) {
          expect(err).to.be.an.instanceOf(InvalidFrameError)
          expect(REASONS).to.include((err as InvalidFrameError).reason)
        }
      }), { numRuns: 5_000 })
    })

    it('throws nothing but InvalidFrameError on what was a frame once, and what it takes it writes again', () => {
      fc.assert(fc.property(mutated, datagram => {
        let frame: Frame

        try {
          frame = decodeFrame(datagram)
        } catch (err) {
          expect(err).to.be.an.instanceOf(InvalidFrameError)
          expect(REASONS).to.include((err as InvalidFrameError).reason)
          return
        }

        const again = encodeFrame(frame)
        const withoutEmptyPacket = datagram.byteLength === again.byteLength + 1 && datagram[again.byteLength] === 0
        expect(again).to.equalBytes(withoutEmptyPacket ? datagram.subarray(0, -1) : datagram)
      }), { numRuns: 5_000 })
    })

    it('refuses a frame that is cut anywhere, but for a proposal cut exactly before its initiation packet', () => {
      fc.assert(fc.property(frame, fc.nat(), (frame, position) => {
        const valid = encodeFrame(frame)
        const cut = position % valid.byteLength

        if (frame.type === 'propose' && encodeFrame({ ...frame, initiationPacket: undefined }).byteLength === cut) {
          expect(decodeFrame(valid.subarray(0, cut))).to.not.have.property('initiationPacket')
          return
        }

        expect(reasonOf(valid.subarray(0, cut))).to.equal(cut === 0 ? 'empty' : 'truncated')
      }), { numRuns: 1_000 })
    })

    it('refuses any frame with something behind it', () => {
      fc.assert(fc.property(frame, fc.uint8Array({ minLength: 1, maxLength: 50 }), (frame, tail) => {
        fc.pre(frame.type !== 'propose' || frame.initiationPacket != null)
        const datagram = Uint8Array.of(...encodeFrame(frame), ...tail)

        expect(reasonOf(datagram)).to.equal('trailingBytes')
      }), { numRuns: 1_000 })
    })
  })

  describe('encoding', () => {
    it('is undone by decoding, for every frame', () => {
      fc.assert(fc.property(frame, frame => {
        expect(decodeFrame(encodeFrame(frame))).to.deep.equal(frame)
      }), { numRuns: 2_000 })
    })

    const id = bytes(ED25519_ID)

    it('takes 255 schemes and refuses 256', () => {
      expect(encodeFrame({ type: 'propose', peerId: id, schemes: new Array(255).fill('/a') })).to.have.lengthOf(41 + 255 * 3)
      expect(() => encodeFrame({ type: 'propose', peerId: id, schemes: new Array(256).fill('/a') }))
        .to.throw(RangeError, 'A proposal lists at most 255 schemes, got 256')
    })

    it('refuses names of 0 and of 256 bytes, counting bytes and not characters', () => {
      for (const [scheme, length] of [['', 0], ['n'.repeat(256), 256], ['ü'.repeat(128), 256]] as const) {
        expect(() => encodeFrame({ type: 'accept', scheme })).to.throw(RangeError, `A scheme name has 1 to 255 bytes of UTF-8, got ${length}`)
        expect(() => encodeFrame({ type: 'propose', peerId: id, schemes: ['/a', scheme] })).to.throw(RangeError, `got ${length}`)
      }
    })

    it('refuses a lone surrogate, which UTF-8 would replace by another character', () => {
      expect(() => encodeFrame({ type: 'accept', scheme: '/a\ud800' }))
        .to.throw('The scheme name "/a\\ud800" is not well-formed Unicode').with.property('name', 'InvalidParametersError')
    })

    it('refuses a peer id that is none', () => {
      expect(() => encodeFrame({ type: 'propose', peerId: id.subarray(1), schemes: ['/a'] }))
        .to.throw('The peer id is not the multihash of a libp2p peer id').with.property('name', 'InvalidParametersError')
    })

    it('refuses an empty initiation packet, which would read as none', () => {
      expect(() => encodeFrame({ type: 'propose', peerId: id, schemes: ['/a'], initiationPacket: new Uint8Array() }))
        .to.throw('The initiation packet is empty, leave it out if there is none').with.property('name', 'InvalidParametersError')
    })

    it('refuses an unknown type of frame', () => {
      expect(() => encodeFrame({ type: 'offer' } as any))
        .to.throw('Unknown frame type "offer", should be "propose", "accept" or "reject"').with.property('name', 'InvalidParametersError')
    })

    it('allocates what the frame needs and no more', () => {
      expect(encodeFrame({ type: 'accept', scheme: '/dtls/1.0.0' }).buffer).to.have.property('byteLength', 13)
    })
  })

  describe('peer ids', () => {
    for (const type of ['Ed25519', 'secp256k1', 'RSA'] as const) {
      it(`takes the ids of ${type} keys`, async () => {
        const key = type === 'RSA' ? await generateKeyPair(type, 2048) : await generateKeyPair(type as 'Ed25519')

        expect(isPeerIdMultihash(peerIdFromPrivateKey(key).toMultihash().bytes)).to.be.true()
      })
    }

    it('takes exactly those secp256k1 keys that libp2p can parse', () => {
      let points = 0

      fc.assert(fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), fc.integer({ min: 1, max: 4 }), (x, sign) => {
        const multihash = Uint8Array.of(0x00, 0x25, 0x08, 0x02, 0x12, 0x21, sign, ...x)
        let parses = true

        try {
          publicKeyFromMultihash(Digest.decode(multihash) as any)
          points++
        } catch {
          parses = false
        }

        expect(isPeerIdMultihash(multihash)).to.equal(parses)
      }), { numRuns: 200 })

      expect(points).to.be.within(1, 199)
    })
  })

  describe('the first byte', () => {
    it('tells frames from scheme traffic: 0 and 1 are frames, and 255 if it is alone', () => {
      for (let byte = 0; byte < 256; byte++) {
        expect(looksLikeFrame(Uint8Array.of(byte)), `${byte} alone`).to.equal(byte < 2 || byte === 255)
        expect(looksLikeFrame(Uint8Array.of(byte, 0)), `${byte} with another`).to.equal(byte < 2)
      }
    })

    it('does not take a datagram of no bytes for a frame', () => {
      expect(looksLikeFrame(new Uint8Array())).to.be.false()
    })

    it('tells the type of every frame', () => {
      fc.assert(fc.property(frame, frame => {
        expect(frameType(encodeFrame(frame))).to.equal(frame.type)
      }))
    })
  })
})
