import { readFileSync } from 'node:fs'
import { expect } from 'aegir/chai'
import fc from 'fast-check'
import { fromString } from 'uint8arrays/from-string'
import { chooseSimultaneous, chooseStandard, compareIds, Negotiator } from '../src/negotiation/index.ts'
import { decodeFrame, encodeFrame } from '../src/wire/index.ts'
import type { Agreement, NegotiationEvent, NegotiatorInit } from '../src/negotiation/index.ts'
import type { Propose } from '../src/wire/index.ts'

interface Vectors {
  ids: Array<{ name: string, lower: string, higher: string }>
  standard: Array<{ name: string, proposed: string[], spoken: string[], scheme: string | null }>
  simultaneous: Array<{ name: string, a: VectorOffer, b: VectorOffer, scheme: string | null, initiator: 'a' | 'b' | null }>
}

interface VectorOffer {
  peerId: string
  schemes: string[]
}

const QUIC = '/quic-datagram/1.0.0'
const DTLS = '/dtls/1.0.0'
const BOTH = [QUIC, DTLS]
const PACKET = Uint8Array.of(0xc0, 1, 2, 3)
const SCHEME_TRAFFIC = Uint8Array.of(0x40, 9)
const ACCEPT_QUIC = encodeFrame({ type: 'accept', scheme: QUIC })
const ACCEPT_DTLS = encodeFrame({ type: 'accept', scheme: DTLS })
const REJECT = encodeFrame({ type: 'reject' })

/** Retransmission, and the grace of a reject, by default */
const INITIAL = 250
const GRACE = 200

/** How long after a session has begun the proposal that led to it may still come, late or doubled */
const COPY_LIFETIME = 2_000

const hex = (text: string): Uint8Array => fromString(text, 'base16')
const ed25519Id = (last: number): Uint8Array => Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...new Uint8Array(31), last)
const LOW = ed25519Id(1)
const HIGH = ed25519Id(2)
const OTHER = ed25519Id(3)

const proposal = (peerId: Uint8Array, schemes: string[] = BOTH, initiationPacket?: Uint8Array): Uint8Array => {
  return encodeFrame({ type: 'propose', peerId, schemes, ...(initiationPacket == null ? {} : { initiationPacket }) })
}

const offer = (peerId: Uint8Array, schemes: string[]): Propose => ({ type: 'propose', peerId, schemes })

const low = (init: Partial<NegotiatorInit> = {}): Negotiator => new Negotiator({ localId: LOW, schemes: BOTH, ...init })
const high = (init: Partial<NegotiatorInit> = {}): Negotiator => new Negotiator({ localId: HIGH, schemes: BOTH, ...init })

function sent (negotiator: Negotiator): Uint8Array[] {
  return [...poll(() => negotiator.pollTransmit())]
}

function events (negotiator: Negotiator): NegotiationEvent[] {
  return [...poll(() => negotiator.pollEvent())]
}

function * poll <T> (next: () => T | undefined): Generator<T> {
  for (let value = next(); value != null; value = next()) {
    yield value
  }
}

/** The agreement that a negotiator has come to just now */
function agreement (negotiator: Negotiator): Agreement {
  const [event, ...more] = events(negotiator)
  expect(event).to.have.property('type', 'agreed')
  expect(more).to.be.empty()
  expect(negotiator.status).to.equal('agreed')

  return (event as { agreement: Agreement }).agreement
}

/** The error with which a negotiator has failed just now */
function failure (negotiator: Negotiator): Error {
  const [event, ...more] = events(negotiator)
  expect(event).to.have.property('type', 'failed')
  expect(more).to.be.empty()
  expect(negotiator.status).to.equal('failed')
  expect(negotiator.pollTimeout()).to.be.undefined()

  return (event as { error: Error }).error
}

/** A negotiator that proposed at time 0, its first transmission polled */
function proposing (negotiator: Negotiator, initiationPacket?: Uint8Array): Negotiator {
  negotiator.propose(0, initiationPacket)
  expect(sent(negotiator)).to.have.lengthOf(1)

  return negotiator
}

/** A negotiator that answered to a proposal at time 0, answer and agreement polled */
function responded (negotiator: Negotiator, datagram: Uint8Array): Negotiator {
  negotiator.handleDatagram(datagram, 0)
  expect(sent(negotiator)).to.deep.equal([ACCEPT_QUIC])
  agreement(negotiator)

  return negotiator
}

/** A negotiator that proposed at time 0 and got the other's proposal at time 10, its agreement polled */
function crossed (negotiator: Negotiator, datagram: Uint8Array): Negotiator {
  proposing(negotiator)
  negotiator.handleDatagram(datagram, 10)
  agreement(negotiator)

  return negotiator
}

describe('negotiation', () => {
  const vectors: Vectors = JSON.parse(readFileSync(new URL('./vectors/negotiation.json', import.meta.url), 'utf8'))

  describe('whose id is lower', () => {
    for (const { name, lower, higher } of vectors.ids) {
      it(name, () => {
        expect(compareIds(hex(lower), hex(higher))).to.be.below(0)
        expect(compareIds(hex(higher), hex(lower))).to.be.above(0)
        expect(compareIds(hex(lower), hex(lower))).to.equal(0)
      })
    }

    it('compares any bytes as the unsigned integers that they are', () => {
      const number = (bytes: Uint8Array): bigint => bytes.reduce((value, byte) => value * 256n + BigInt(byte), 0n)
      const id = fc.uint8Array({ maxLength: 6, size: 'max' }).chain(bytes => fc.nat({ max: 3 }).map(zeros => Uint8Array.of(...new Uint8Array(zeros), ...bytes)))

      fc.assert(fc.property(id, id, (a, b) => {
        expect(compareIds(a, b) < 0).to.equal(number(a) < number(b))
        expect(compareIds(a, b) > 0).to.equal(number(a) > number(b))
      }), { numRuns: 2_000 })
    })
  })

  describe('which scheme, standard', () => {
    for (const { name, proposed, spoken, scheme } of vectors.standard) {
      it(name, () => {
        expect(chooseStandard(proposed, spoken)).to.equal(scheme ?? undefined)
      })
    }
  })

  describe('which scheme, simultaneous', () => {
    for (const { name, a, b, scheme, initiator } of vectors.simultaneous) {
      it(name, () => {
        const offers = { a: { ...a, peerId: hex(a.peerId) }, b: { ...b, peerId: hex(b.peerId) } }
        const expected = (side: 'a' | 'b'): unknown => scheme == null ? undefined : { scheme, role: initiator === side ? 'initiator' : 'responder' }

        expect(chooseSimultaneous(offers.a, offers.b)).to.deep.equal(expected('a'))
        expect(chooseSimultaneous(offers.b, offers.a)).to.deep.equal(expected('b'))
      })
    }

    it('is the same scheme on both sides, with opposite roles, in common, and of no higher sum than any other', () => {
      const list = fc.array(fc.constantFrom<string>('a', 'b', 'c', 'd', 'e', 'f'), { maxLength: 8, size: 'max' })

      fc.assert(fc.property(list, list, fc.boolean(), (a, b, swap) => {
        const [idA, idB] = swap ? [HIGH, LOW] : [LOW, HIGH]
        const one = chooseSimultaneous({ peerId: idA, schemes: a }, { peerId: idB, schemes: b })
        const two = chooseSimultaneous({ peerId: idB, schemes: b }, { peerId: idA, schemes: a })
        const common = a.filter(scheme => b.includes(scheme))
        const sum = (scheme: string): number => a.indexOf(scheme) + b.indexOf(scheme)

        expect(one?.scheme).to.equal(two?.scheme)

        if (one == null) {
          expect(common).to.be.empty()
          return
        }

        expect(one.role).to.equal(swap ? 'responder' : 'initiator')
        expect(two?.role).to.equal(swap ? 'initiator' : 'responder')
        expect(common).to.include(one.scheme)

        const favourite = swap ? b : a

        for (const other of common) {
          expect(sum(one.scheme)).to.be.at.most(sum(other))

          if (sum(one.scheme) === sum(other)) {
            expect(favourite.indexOf(one.scheme)).to.be.at.most(favourite.indexOf(other))
          }
        }
      }), { numRuns: 2_000 })
    })
  })

  describe('a negotiator', () => {
    it('is idle, silent and waits for nothing at first', () => {
      const negotiator = low()

      expect(negotiator.status).to.equal('idle')
      expect(negotiator.pollTransmit()).to.be.undefined()
      expect(negotiator.pollEvent()).to.be.undefined()
      expect(negotiator.pollTimeout()).to.be.undefined()
    })

    const refused: Array<[string, Partial<NegotiatorInit>, string, RegExp]> = [
      ['no scheme', { schemes: [] }, 'InvalidParametersError', /at least one scheme/],
      ['an empty name', { schemes: [''] }, 'RangeError', /1 to 255 bytes/],
      ['256 schemes', { schemes: Array.from({ length: 256 }, (_, i) => `/s/${i}`) }, 'RangeError', /at most 255/],
      ['an id that is none', { localId: Uint8Array.of(1) }, 'InvalidParametersError', /peer id/],
      ['no first wait', { retransmission: { initial: 0 } }, 'InvalidParametersError', /initial 0/],
      ['waits that shrink', { retransmission: { factor: 0.5 } }, 'InvalidParametersError', /factor 0.5/],
      ['a longest wait below the first', { retransmission: { initial: 100, max: 99 } }, 'InvalidParametersError', /max 99/],
      ['a grace that is no number', { rejectGrace: NaN }, 'InvalidParametersError', /NaN/]
    ]

    for (const [what, init, name, message] of refused) {
      it(`can't be made with ${what}`, () => {
        expect(() => low(init)).to.throw(message).with.property('name', name)
      })
    }

    it('sends its proposal as it was at hand, instead of one made anew', () => {
      const proposal = encodeFrame({ type: 'propose', peerId: LOW, schemes: BOTH })
      const negotiator = low({ proposal })
      negotiator.propose(0)

      expect(negotiator.pollTransmit()).to.equal(proposal)
    })

    it('offers a scheme that is configured twice once, at its first place', () => {
      const negotiator = low({ schemes: [QUIC, DTLS, QUIC] })
      negotiator.propose(0)

      expect(sent(negotiator)).to.deep.equal([proposal(LOW, BOTH)])
    })

    it('takes defaults for times that are undefined', () => {
      const negotiator = proposing(low({ retransmission: { initial: undefined } as any }))

      expect(negotiator.pollTimeout()).to.equal(INITIAL)
    })
  })

  describe('as the proposer', () => {
    it('proposes its schemes in order', () => {
      const negotiator = low()
      negotiator.propose(0)

      expect(negotiator.status).to.equal('proposing')
      expect(sent(negotiator)).to.deep.equal([proposal(LOW)])
    })

    it('sends the initiation packet in the first transmission only', () => {
      const negotiator = low()
      negotiator.propose(0, PACKET)
      expect(sent(negotiator)).to.deep.equal([proposal(LOW, BOTH, PACKET)])

      negotiator.handleTimeout(INITIAL)
      expect(sent(negotiator)).to.deep.equal([proposal(LOW)])

      negotiator.handleTimeout(10_000)
      expect(sent(negotiator)).to.deep.equal([proposal(LOW)])
    })

    it('takes an empty initiation packet for none', () => {
      const negotiator = low()
      negotiator.propose(0, new Uint8Array())

      expect(sent(negotiator)).to.deep.equal([proposal(LOW)])
    })

    it('proposes once, however often it is told', () => {
      const negotiator = proposing(low())
      negotiator.propose(1)
      negotiator.propose(2, PACKET)

      expect(sent(negotiator)).to.be.empty()
      expect(negotiator.pollTimeout()).to.equal(INITIAL)
    })

    it('repeats an unanswered proposal every quarter of a second', () => {
      const negotiator = proposing(low())
      const times = []

      for (let i = 0; i < 7; i++) {
        const at = negotiator.pollTimeout() ?? NaN
        times.push(at)
        negotiator.handleTimeout(at)
        expect(sent(negotiator)).to.have.lengthOf(1)
      }

      expect(times).to.deep.equal([250, 500, 750, 1_000, 1_250, 1_500, 1_750])
    })

    it('repeats at the times it is given', () => {
      const negotiator = proposing(low({ retransmission: { initial: 10, factor: 3, max: 40 } }))
      const times = []

      for (let i = 0; i < 4; i++) {
        times.push(negotiator.pollTimeout())
        negotiator.handleTimeout(negotiator.pollTimeout() ?? NaN)
      }

      expect(times).to.deep.equal([10, 40, 80, 120])
    })

    it('does nothing when it is woken early, and repeats once when it is woken late', () => {
      const negotiator = proposing(low())

      negotiator.handleTimeout(INITIAL - 1)
      expect(sent(negotiator)).to.be.empty()

      negotiator.handleTimeout(60_000)
      expect(sent(negotiator)).to.have.lengthOf(1)
      expect(negotiator.pollTimeout()).to.equal(60_000 + INITIAL)
    })

    it('is the initiator of the scheme that is accepted', () => {
      const negotiator = proposing(low(), PACKET)

      expect(negotiator.handleDatagram(ACCEPT_QUIC, 50)).to.equal('frame')
      expect(agreement(negotiator)).to.deep.equal({
        scheme: QUIC,
        role: 'initiator',
        simultaneous: false,
        localSchemes: BOTH,
        proposals: { initiator: offer(LOW, BOTH) },
        sendFirstFlight: false
      })
      expect(sent(negotiator)).to.be.empty()
    })

    it('repeats its proposal until the handshake has ended well: an accept may be one to a dial that was given up', () => {
      const negotiator = proposing(low(), PACKET)
      negotiator.handleDatagram(ACCEPT_QUIC, 50)
      negotiator.handleDatagram(SCHEME_TRAFFIC, 60)
      negotiator.handleDatagram(ACCEPT_QUIC, 70)
      expect(negotiator.pollTimeout()).to.equal(INITIAL)

      negotiator.handleTimeout(INITIAL)
      expect(sent(negotiator)).to.deep.equal([proposal(LOW)])

      negotiator.handleSecured(300)
      expect(negotiator.pollTimeout()).to.be.undefined()
    })

    it('has to send the first flight if it had no initiation packet', () => {
      const negotiator = proposing(low())
      negotiator.handleDatagram(ACCEPT_QUIC, 50)

      expect(agreement(negotiator)).to.have.property('sendFirstFlight', true)
    })

    it('has to send the first flight if another scheme than the first was accepted', () => {
      const negotiator = proposing(low(), PACKET)
      negotiator.handleDatagram(ACCEPT_DTLS, 50)

      expect(agreement(negotiator)).to.include({ scheme: DTLS, sendFirstFlight: true })
    })

    it('has to send the first flight if the accept may be for a proposal that went out without the packet', () => {
      const negotiator = proposing(low(), PACKET)
      negotiator.handleTimeout(INITIAL)
      negotiator.handleDatagram(ACCEPT_QUIC, 300)

      expect(agreement(negotiator)).to.include({ scheme: QUIC, sendFirstFlight: true })
    })

    it('does not heed an accept of a scheme that it did not offer', () => {
      const negotiator = proposing(low({ schemes: [QUIC] }))

      expect(negotiator.handleDatagram(ACCEPT_DTLS, 50)).to.equal('unexpected')
      expect(negotiator.status).to.equal('proposing')
      expect(negotiator.pollTimeout()).to.equal(INITIAL)
    })

    it('takes the same accept again calmly, and does not heed another', () => {
      const negotiator = proposing(low())
      negotiator.handleDatagram(ACCEPT_QUIC, 50)
      agreement(negotiator)

      expect(negotiator.handleDatagram(ACCEPT_QUIC, 51)).to.equal('frame')
      expect(negotiator.handleDatagram(ACCEPT_DTLS, 52)).to.equal('unexpected')
      expect(events(negotiator)).to.be.empty()
    })

    it('goes on repeating when scheme packets overtake the accept', () => {
      const negotiator = proposing(low())

      expect(negotiator.handleDatagram(SCHEME_TRAFFIC, 50)).to.equal('scheme')
      expect(negotiator.status).to.equal('proposing')
      expect(negotiator.pollTimeout()).to.equal(INITIAL)
    })
  })

  describe('a reject', () => {
    it('ends the negotiation after the grace', () => {
      const negotiator = proposing(low())

      expect(negotiator.handleDatagram(REJECT, 20)).to.equal('frame')
      expect(negotiator.status).to.equal('proposing')
      expect(negotiator.pollTimeout()).to.equal(20 + GRACE)

      negotiator.handleTimeout(20 + GRACE)
      expect(failure(negotiator)).to.have.property('name', 'NoCommonSchemeError')
    })

    it('names what was offered in the error', () => {
      const negotiator = proposing(low({ rejectGrace: 0 }))
      negotiator.handleDatagram(REJECT, 20)
      negotiator.handleTimeout(20)

      expect(failure(negotiator).message).to.include(`"${QUIC}", "${DTLS}"`)
    })

    it('is proven forged by an accept within the grace', () => {
      const negotiator = proposing(low())
      negotiator.handleDatagram(REJECT, 20)
      negotiator.handleDatagram(ACCEPT_QUIC, 20 + GRACE)

      expect(agreement(negotiator)).to.have.property('scheme', QUIC)

      negotiator.handleTimeout(1_000)
      expect(negotiator.status).to.equal('agreed')
    })

    it('is proven forged by a proposal within the grace', () => {
      const negotiator = proposing(low())
      negotiator.handleDatagram(REJECT, 20)
      negotiator.handleDatagram(proposal(HIGH), 30)

      expect(agreement(negotiator)).to.have.property('simultaneous', true)
    })

    it('does not stop the repetition during the grace, nor does another one prolong it', () => {
      const negotiator = proposing(low())
      negotiator.handleDatagram(REJECT, 200)
      expect(negotiator.pollTimeout()).to.equal(INITIAL)

      negotiator.handleTimeout(INITIAL)
      expect(sent(negotiator)).to.have.lengthOf(1)

      negotiator.handleDatagram(REJECT, 390)
      expect(negotiator.pollTimeout()).to.equal(200 + GRACE)
    })

    it('means nothing to somebody who has nothing proposed, or has agreed already', () => {
      const idle = low()
      expect(idle.handleDatagram(REJECT, 0)).to.equal('unexpected')
      expect(idle.status).to.equal('idle')

      const responder = responded(low(), proposal(HIGH))
      expect(responder.handleDatagram(REJECT, 0)).to.equal('unexpected')

      const initiator = proposing(low())
      initiator.handleDatagram(ACCEPT_QUIC, 50)
      agreement(initiator)
      expect(initiator.handleDatagram(REJECT, 51)).to.equal('unexpected')

      const simultaneous = crossed(low(), proposal(HIGH))
      expect(simultaneous.handleDatagram(REJECT, 51)).to.equal('unexpected')

      for (const negotiator of [responder, initiator, simultaneous]) {
        negotiator.handleTimeout(10_000)
        expect(negotiator.status).to.equal('agreed')
        expect(events(negotiator)).to.be.empty()
      }
    })
  })

  describe('as the responder', () => {
    it('accepts the earliest of the proposer\'s schemes that it speaks', () => {
      const negotiator = low({ schemes: [DTLS, QUIC] })

      expect(negotiator.handleDatagram(proposal(HIGH, ['/x', QUIC, DTLS]), 0)).to.equal('frame')
      expect(sent(negotiator)).to.deep.equal([ACCEPT_QUIC])
      expect(agreement(negotiator)).to.deep.equal({
        scheme: QUIC,
        role: 'responder',
        simultaneous: false,
        localSchemes: [DTLS, QUIC],
        remoteSchemes: ['/x', QUIC, DTLS],
        proposals: { initiator: offer(HIGH, ['/x', QUIC, DTLS]) },
        claimedId: HIGH,
        initiationPacket: undefined,
        sendFirstFlight: false
      })
      expect(negotiator.pollTimeout()).to.be.undefined()
    })

    it('keeps the proposal as it came, repetitions included, but not its packet', () => {
      const negotiator = low()
      negotiator.handleDatagram(proposal(HIGH, [QUIC, QUIC, DTLS], PACKET), 0)

      expect(agreement(negotiator)).to.deep.include({
        remoteSchemes: [QUIC, DTLS],
        proposals: { initiator: offer(HIGH, [QUIC, QUIC, DTLS]) }
      })
    })

    it('responds whoever has the lower id', () => {
      for (const [negotiator, other] of [[low(), HIGH], [high(), LOW]] as const) {
        negotiator.handleDatagram(proposal(other), 0)
        expect(agreement(negotiator)).to.deep.include({ role: 'responder', claimedId: other })
      }
    })

    it('takes the initiation packet, if it takes the first scheme', () => {
      const negotiator = low()
      negotiator.handleDatagram(proposal(HIGH, BOTH, PACKET), 0)

      expect(agreement(negotiator)).to.have.property('initiationPacket').that.equalBytes(PACKET)
    })

    it('drops the initiation packet, if it takes another scheme', () => {
      const negotiator = low({ schemes: [DTLS] })
      negotiator.handleDatagram(proposal(HIGH, BOTH, PACKET), 0)

      expect(agreement(negotiator)).to.include({ scheme: DTLS, initiationPacket: undefined })
    })

    it('hands the other\'s schemes on without repetitions', () => {
      const negotiator = low()
      negotiator.handleDatagram(proposal(HIGH, [QUIC, DTLS, QUIC]), 0)

      expect(agreement(negotiator)).to.have.property('remoteSchemes').that.deep.equals(BOTH)
    })

    it('lets its policy choose', () => {
      let seen: Propose | undefined
      const negotiator = low({ select: proposal => { seen = proposal; return DTLS } })
      negotiator.handleDatagram(proposal(HIGH), 0)

      expect(sent(negotiator)).to.deep.equal([ACCEPT_DTLS])
      expect(seen).to.deep.equal(decodeFrame(proposal(HIGH)))
    })

    for (const [what, negotiator, schemes] of [
      ['has nothing in common with the proposer', (): Negotiator => low(), ['/x', '/y']],
      ['is proposed nothing (N = 0)', (): Negotiator => low(), []],
      ['wants none by its policy', (): Negotiator => low({ select: () => undefined }), BOTH]
    ] as Array<[string, () => Negotiator, string[]]>) {
      it(`rejects if it ${what}`, () => {
        const responder = negotiator()

        expect(responder.handleDatagram(proposal(HIGH, schemes), 0)).to.equal('frame')
        expect(sent(responder)).to.deep.equal([REJECT])
        expect(failure(responder)).to.have.property('name', 'NoCommonSchemeError')
      })
    }

    it('rejects the same proposal as often as it comes, and heeds no other then', () => {
      const negotiator = low()
      negotiator.handleDatagram(proposal(HIGH, ['/x']), 0)
      expect(sent(negotiator)).to.deep.equal([REJECT])
      failure(negotiator)

      expect(negotiator.handleDatagram(proposal(HIGH, ['/x']), 1)).to.equal('frame')
      expect(sent(negotiator)).to.deep.equal([REJECT])
      expect(negotiator.handleDatagram(proposal(HIGH), 2)).to.equal('unexpected')
      expect(sent(negotiator)).to.be.empty()
      expect(events(negotiator)).to.be.empty()
    })

    it('keeps the message of a rejection short, whatever the other offers', () => {
      const negotiator = low()
      negotiator.handleDatagram(proposal(HIGH, Array.from({ length: 255 }, (_, i) => `\n${i}`.padEnd(255, '\u202e').slice(0, 80))), 0)
      const { message } = failure(negotiator)

      expect(message).to.have.property('length').that.is.below(1_000)
      expect(message).to.include('and 247 more')
      expect(message).to.not.include('\n')
    })

    it('fails without an answer if its policy throws', () => {
      const negotiator = low({ select: () => { throw new Error('urk') } })

      expect(negotiator.handleDatagram(proposal(HIGH), 0)).to.equal('frame')
      expect(sent(negotiator)).to.be.empty()
      expect(failure(negotiator)).to.have.property('message', 'urk')
    })

    for (const scheme of ['/x', '/y', DTLS]) {
      it(`fails without an answer if its policy chooses ${scheme}, which is not spoken by both`, () => {
        const negotiator = low({ schemes: ['/y', QUIC, DTLS], select: () => scheme })

        negotiator.handleDatagram(proposal(HIGH, ['/x', QUIC]), 0)
        expect(sent(negotiator)).to.be.empty()
        expect(failure(negotiator)).to.have.property('name', 'InvalidParametersError')
      })
    }

    it('gives the same proposal the same response, for as long as there is no session', () => {
      const negotiator = responded(low(), proposal(HIGH))
      negotiator.handleDatagram(SCHEME_TRAFFIC, 10)

      for (const now of [20, 21, 10_000_000]) {
        expect(negotiator.handleDatagram(proposal(HIGH), now)).to.equal('frame')
        expect(sent(negotiator)).to.deep.equal([ACCEPT_QUIC])
        expect(events(negotiator)).to.be.empty()
      }
    })

    it('gives the same proposal the same response just after the session has begun', () => {
      const negotiator = responded(low(), proposal(HIGH, BOTH, PACKET))
      negotiator.handleSecured(9_000)

      for (const now of [9_000, 9_000 + COPY_LIFETIME - 1]) {
        negotiator.handleDatagram(proposal(HIGH), now)
        expect(sent(negotiator)).to.deep.equal([ACCEPT_QUIC])
        expect(events(negotiator)).to.be.empty()
      }
    })

    it('knows a proposal again when it comes without its initiation packet', () => {
      const negotiator = responded(low(), proposal(HIGH, BOTH, PACKET))

      expect(negotiator.handleDatagram(proposal(HIGH), 1)).to.equal('frame')
      expect(sent(negotiator)).to.deep.equal([ACCEPT_QUIC])
    })

    it('knows a proposal again when the transmission with the initiation packet was overtaken', () => {
      const negotiator = responded(low(), proposal(HIGH))

      expect(negotiator.handleDatagram(proposal(HIGH, BOTH, PACKET), 1)).to.equal('frame')
      expect(sent(negotiator)).to.deep.equal([ACCEPT_QUIC])
      expect(events(negotiator)).to.be.empty()
    })

    it('remembers the initiation packet that it got to know late', () => {
      const negotiator = responded(low(), proposal(HIGH))
      negotiator.handleDatagram(proposal(HIGH, BOTH, PACKET), 1)
      expect(sent(negotiator)).to.deep.equal([ACCEPT_QUIC])

      negotiator.handleDatagram(proposal(HIGH, BOTH, Uint8Array.of(7)), 2)
      expect(sent(negotiator)).to.be.empty()
      expect(events(negotiator)).to.have.nested.property('[0].type', 'renewed')
    })

    it('joins a dial that comes after its answer: there is nothing to propose any more', () => {
      const negotiator = responded(low(), proposal(HIGH))
      negotiator.propose(1, PACKET)

      expect(sent(negotiator)).to.be.empty()
      expect(negotiator.status).to.equal('agreed')
      expect(negotiator.pollTimeout()).to.be.undefined()
    })

    it('never answers with more bytes than the proposal has', () => {
      const schemes = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 80 }), { minLength: 1, maxLength: 8 })

      fc.assert(fc.property(schemes, fc.array(fc.nat({ max: 9 })), (spoken, indexes) => {
        const proposed = indexes.map(index => spoken[index] ?? `/unknown/${index}`)
        const datagram = proposal(HIGH, proposed)
        const negotiator = low({ schemes: spoken })
        negotiator.handleDatagram(datagram, 0)
        const answers = sent(negotiator)

        expect(answers).to.have.lengthOf(1)
        expect(answers[0].byteLength).to.be.at.most(datagram.byteLength)
      }))
    })
  })

  describe('simultaneously', () => {
    it('makes the lower id the initiator, and takes the scheme with the lowest sum of indexes', () => {
      const negotiator = proposing(low())

      expect(negotiator.handleDatagram(proposal(HIGH, [DTLS, QUIC]), 10)).to.equal('frame')
      expect(agreement(negotiator)).to.deep.equal({
        scheme: QUIC,
        role: 'initiator',
        simultaneous: true,
        localSchemes: BOTH,
        remoteSchemes: [DTLS, QUIC],
        proposals: { initiator: offer(LOW, BOTH), responder: offer(HIGH, [DTLS, QUIC]) },
        claimedId: HIGH,
        sendFirstFlight: true
      })
    })

    it('makes the higher id the responder', () => {
      const negotiator = proposing(high({ schemes: [DTLS, QUIC] }))

      expect(negotiator.handleDatagram(proposal(LOW), 10)).to.equal('frame')
      expect(agreement(negotiator)).to.deep.equal({
        scheme: QUIC,
        role: 'responder',
        simultaneous: true,
        localSchemes: [DTLS, QUIC],
        remoteSchemes: BOTH,
        proposals: { initiator: offer(LOW, BOTH), responder: offer(HIGH, [DTLS, QUIC]) },
        claimedId: LOW,
        initiationPacket: undefined,
        sendFirstFlight: false
      })
    })

    it('leaves its responder\'s policy out of it: what is proposed is wanted', () => {
      const negotiator = proposing(low({ select: () => undefined }))
      negotiator.handleDatagram(proposal(HIGH), 10)

      expect(agreement(negotiator)).to.have.property('scheme', QUIC)
    })

    it('answers the first proposal with nothing: its own is under way', () => {
      const negotiator = proposing(low())
      negotiator.handleDatagram(proposal(HIGH), 10)

      expect(sent(negotiator)).to.be.empty()
    })

    it('lets the responder have the initiator\'s packet if its first choice won', () => {
      const negotiator = proposing(high(), PACKET)
      negotiator.handleDatagram(proposal(LOW, BOTH, Uint8Array.of(0x41)), 10)

      expect(agreement(negotiator)).to.have.property('initiationPacket').that.equalBytes(Uint8Array.of(0x41))
    })

    it('drops the initiator\'s packet if its first choice did not win', () => {
      const negotiator = proposing(high({ schemes: [DTLS] }))
      negotiator.handleDatagram(proposal(LOW, BOTH, PACKET), 10)

      expect(agreement(negotiator)).to.include({ scheme: DTLS, initiationPacket: undefined })
    })

    it('drops the responder\'s packet', () => {
      const negotiator = proposing(low())
      negotiator.handleDatagram(proposal(HIGH, BOTH, PACKET), 10)

      expect(agreement(negotiator)).to.not.have.property('initiationPacket')
    })

    it('has the initiator send the first flight again: nothing tells that the other has its proposal', () => {
      const negotiator = proposing(low(), PACKET)
      negotiator.handleDatagram(proposal(HIGH), 10)

      expect(agreement(negotiator)).to.have.property('sendFirstFlight', true)
    })

    for (const [who, negotiator, other] of [['initiator', low, HIGH], ['responder', high, LOW]] as const) {
      it(`has the ${who} repeat its proposal until the handshake has ended well: what came may have crossed it, with the rest of a first flight`, () => {
        const crossing = crossed(negotiator(), proposal(other))
        expect(crossing.handleDatagram(SCHEME_TRAFFIC, 20)).to.equal('scheme')
        expect(crossing.pollTimeout()).to.equal(INITIAL)

        crossing.handleTimeout(INITIAL)
        expect(sent(crossing)).to.have.lengthOf(1)
        expect(crossing.pollTimeout()).to.equal(2 * INITIAL)

        crossing.handleSecured(300)
        expect(crossing.pollTimeout()).to.be.undefined()

        crossing.handleTimeout(100_000)
        expect(sent(crossing)).to.be.empty()
      })
    }

    it('has the responder answer a repeated proposal with its own, without initiation packet: the other may have lost it', () => {
      const negotiator = proposing(high(), PACKET)
      negotiator.handleDatagram(proposal(LOW, BOTH, PACKET), 10)
      agreement(negotiator)
      negotiator.handleSecured(20)

      expect(negotiator.handleDatagram(proposal(LOW), 260)).to.equal('frame')
      expect(sent(negotiator)).to.deep.equal([proposal(HIGH)])
      expect(negotiator.pollTimeout()).to.be.undefined()
    })

    it('has the initiator answer none, so that nobody answers answers', () => {
      const negotiator = crossed(low(), proposal(HIGH))

      expect(negotiator.handleDatagram(proposal(HIGH), 260)).to.equal('frame')
      expect(sent(negotiator)).to.be.empty()
      expect(events(negotiator)).to.be.empty()
    })

    it('does not heed an accept that contradicts what both proposals said', () => {
      const responder = crossed(high(), proposal(LOW))
      expect(responder.handleDatagram(ACCEPT_QUIC, 20)).to.equal('unexpected')

      const initiator = crossed(low(), proposal(HIGH))
      expect(initiator.handleDatagram(ACCEPT_DTLS, 20)).to.equal('unexpected')

      for (const negotiator of [responder, initiator]) {
        expect(events(negotiator)).to.be.empty()
        expect(negotiator.pollTimeout()).to.equal(INITIAL)
      }
    })

    it('minds no accept that comes to the same end', () => {
      const negotiator = crossed(low(), proposal(HIGH))

      expect(negotiator.handleDatagram(ACCEPT_QUIC, 20)).to.equal('frame')
      expect(events(negotiator)).to.be.empty()
      expect(negotiator.pollTimeout()).to.equal(INITIAL)
    })

    describe('with nothing in common', () => {
      it('tells the other by a reject, and fails after the grace', () => {
        const negotiator = proposing(low())

        expect(negotiator.handleDatagram(proposal(HIGH, ['/x']), 10)).to.equal('frame')
        expect(sent(negotiator)).to.deep.equal([REJECT])
        expect(negotiator.status).to.equal('proposing')

        negotiator.handleTimeout(10 + GRACE)
        expect(failure(negotiator)).to.have.property('name', 'NoCommonSchemeError')
      })

      it('rejects the same proposal again, before and after it has failed', () => {
        const negotiator = proposing(low())
        negotiator.handleDatagram(proposal(HIGH, []), 10)
        expect(sent(negotiator)).to.deep.equal([REJECT])

        negotiator.handleDatagram(proposal(HIGH, []), 20)
        expect(sent(negotiator)).to.deep.equal([REJECT])

        negotiator.handleTimeout(10 + GRACE)
        failure(negotiator)
        negotiator.handleDatagram(proposal(HIGH, []), 400)
        expect(sent(negotiator)).to.deep.equal([REJECT])
      })

      it('comes to an agreement all the same if that proposal was forged', () => {
        const byAccept = proposing(low())
        byAccept.handleDatagram(proposal(HIGH, ['/x']), 10)
        byAccept.handleDatagram(ACCEPT_QUIC, 20)
        expect(agreement(byAccept)).to.include({ simultaneous: false, role: 'initiator' })

        const byProposal = proposing(low())
        byProposal.handleDatagram(proposal(HIGH, ['/x']), 10)
        byProposal.handleDatagram(proposal(HIGH), 20)
        expect(agreement(byProposal)).to.include({ simultaneous: true, scheme: QUIC })
      })
    })
  })

  describe('with its own peer id', () => {
    it('fails at once and answers nothing if it has proposed nothing', () => {
      const negotiator = low()

      expect(negotiator.handleDatagram(proposal(LOW), 0)).to.equal('frame')
      expect(sent(negotiator)).to.be.empty()
      expect(failure(negotiator)).to.have.property('name', 'SelfNegotiationError')
    })

    it('fails after the grace and answers nothing if it has dialled itself', () => {
      const negotiator = low()
      negotiator.propose(0)
      const [datagram] = sent(negotiator)

      expect(negotiator.handleDatagram(datagram, 1)).to.equal('frame')
      expect(negotiator.handleDatagram(datagram, 2)).to.equal('frame')
      expect(sent(negotiator)).to.be.empty()

      negotiator.handleTimeout(1 + GRACE)
      expect(failure(negotiator)).to.have.property('name', 'SelfNegotiationError')
    })

    it('goes on if somebody only pretended', () => {
      const negotiator = proposing(low())
      negotiator.handleDatagram(proposal(LOW), 1)
      negotiator.handleDatagram(ACCEPT_QUIC, 2)

      expect(agreement(negotiator)).to.have.property('scheme', QUIC)
    })

    it('does not heed it after an agreement', () => {
      const negotiator = responded(low(), proposal(HIGH))

      expect(negotiator.handleDatagram(proposal(LOW), 1)).to.equal('unexpected')
      expect(sent(negotiator)).to.be.empty()
      expect(events(negotiator)).to.be.empty()
    })
  })

  describe('another proposal after the agreement', () => {
    const renewals: Array<[string, Uint8Array]> = [
      ['of another peer', proposal(OTHER)],
      ['of other schemes', proposal(HIGH, [DTLS])],
      ['of the same schemes in another order', proposal(HIGH, [DTLS, QUIC])],
      ['with another initiation packet', proposal(HIGH, BOTH, Uint8Array.of(1, 2, 3, 4))]
    ]

    for (const [what, datagram] of renewals) {
      it(`${what} is handed on, and not answered`, () => {
        const negotiator = responded(low(), proposal(HIGH, BOTH, PACKET))

        expect(negotiator.handleDatagram(datagram, 1)).to.equal('frame')
        expect(sent(negotiator)).to.be.empty()
        expect(events(negotiator)).to.deep.equal([{ type: 'renewed', proposal: datagram }])
        expect(negotiator.status).to.equal('agreed')
      })
    }

    it('is handed on with each transmission: what the one before led to may have failed', () => {
      const negotiator = responded(low(), proposal(HIGH))

      for (let now = 1; now < 4; now++) {
        negotiator.handleDatagram(proposal(OTHER), now)
        expect(events(negotiator)).to.deep.equal([{ type: 'renewed', proposal: proposal(OTHER) }])
      }
    })

    it('waits to be polled once, however often it comes', () => {
      const negotiator = responded(low(), proposal(HIGH))

      for (let now = 1; now < 10; now++) {
        negotiator.handleDatagram(proposal(OTHER), now)
      }

      expect(events(negotiator)).to.have.lengthOf(1)
    })

    for (const [how, make, answers] of [
      ['standard', () => responded(low(), proposal(HIGH, BOTH, PACKET)), [ACCEPT_QUIC]],
      ['simultaneous', () => crossed(low(), proposal(HIGH, BOTH, PACKET)), []]
    ] as Array<[string, () => Negotiator, Uint8Array[]]>) {
      it(`may be the same without a packet, some time after a ${how} negotiation led to a session: the remote came back`, () => {
        const negotiator = make()
        negotiator.handleSecured(9_000)
        negotiator.handleDatagram(proposal(HIGH), 9_000 + COPY_LIFETIME - 1)
        expect(sent(negotiator)).to.deep.equal(answers)
        expect(events(negotiator)).to.be.empty()

        for (let now = 9_000 + COPY_LIFETIME; now < 10_000 + COPY_LIFETIME; now += INITIAL) {
          expect(negotiator.handleDatagram(proposal(HIGH), now)).to.equal('frame')
          expect(sent(negotiator)).to.be.empty()
          expect(events(negotiator)).to.deep.equal([{ type: 'renewed', proposal: proposal(HIGH) }])
        }
      })

      it(`is not the same with the same packet, however long after a ${how} negotiation`, () => {
        const negotiator = make()
        negotiator.handleSecured(20)
        negotiator.handleDatagram(proposal(HIGH, BOTH, PACKET), 10_000_000)

        expect(sent(negotiator)).to.deep.equal(answers)
        expect(events(negotiator)).to.be.empty()
      })
    }

    it('may be the same with a first packet, some time after one without it led to a session', () => {
      const negotiator = responded(low(), proposal(HIGH))
      negotiator.handleSecured(20)
      negotiator.handleDatagram(proposal(HIGH, BOTH, PACKET), 20 + COPY_LIFETIME)

      expect(sent(negotiator)).to.be.empty()
      expect(events(negotiator)).to.have.nested.property('[0].type', 'renewed')
    })

    it('is forgotten when the next one comes before it was polled', () => {
      const negotiator = responded(low(), proposal(HIGH))
      negotiator.handleDatagram(proposal(OTHER), 1)
      negotiator.handleDatagram(proposal(HIGH, [DTLS]), 2)

      expect(events(negotiator)).to.deep.equal([{ type: 'renewed', proposal: proposal(HIGH, [DTLS]) }])
    })

    it('does not change the answer to the first one', () => {
      const negotiator = responded(low(), proposal(HIGH))
      negotiator.handleDatagram(proposal(HIGH, [DTLS]), 1)
      negotiator.handleDatagram(proposal(HIGH), 2)

      expect(sent(negotiator)).to.deep.equal([ACCEPT_QUIC])
    })

    it('comes after the agreement itself', () => {
      const negotiator = low()
      negotiator.handleDatagram(proposal(HIGH), 1)
      negotiator.handleDatagram(proposal(OTHER), 2)

      expect(events(negotiator).map(event => event.type)).to.deep.equal(['agreed', 'renewed'])
    })

    it('is a copy: the datagram\'s buffer may be used again', () => {
      const negotiator = responded(low(), proposal(HIGH))
      const datagram = Buffer.from(proposal(OTHER))
      negotiator.handleDatagram(datagram, 1)
      datagram.fill(0)

      expect(events(negotiator)).to.deep.equal([{ type: 'renewed', proposal: proposal(OTHER) }])
    })

    it('is any proposal at all for the initiator of a standard negotiation', () => {
      const negotiator = proposing(low())
      negotiator.handleDatagram(ACCEPT_QUIC, 1)
      agreement(negotiator)

      expect(negotiator.handleDatagram(proposal(HIGH), 2)).to.equal('frame')
      expect(sent(negotiator)).to.be.empty()
      expect(events(negotiator)).to.deep.equal([{ type: 'renewed', proposal: proposal(HIGH) }])
    })
  })

  describe('what is no frame', () => {
    const states: Array<[string, () => Negotiator]> = [
      ['idle', () => low()],
      ['proposing', () => proposing(low())],
      ['agreed', () => responded(low(), proposal(HIGH))],
      ['agreed simultaneously', () => crossed(low(), proposal(HIGH))]
    ]

    for (const [state, make] of states) {
      it(`is the scheme's, or invalid and dropped, when ${state}`, () => {
        const negotiator = make()
        const { status } = negotiator

        for (const byte of [2, 20, 63, 64, 128, 254]) {
          expect(negotiator.handleDatagram(Uint8Array.of(byte, 1, 2), 5)).to.equal('scheme')
        }

        expect(negotiator.handleDatagram(Uint8Array.of(255, 0), 5)).to.equal('scheme')

        for (const bytes of [[], [0], [1], [0, 1, 2, 3], [1, 0], [...REJECT.subarray(1)], [...ACCEPT_QUIC, 0]]) {
          expect(negotiator.handleDatagram(Uint8Array.from(bytes), 5)).to.equal('invalid')
        }

        expect(sent(negotiator)).to.be.empty()
        expect(events(negotiator)).to.be.empty()
        expect(negotiator.status).to.equal(status)
      })
    }

    it('is an accept for somebody who has proposed nothing: unexpected', () => {
      const idle = low()
      expect(idle.handleDatagram(ACCEPT_QUIC, 0)).to.equal('unexpected')
      expect(idle.status).to.equal('idle')

      const responder = responded(low(), proposal(HIGH))
      expect(responder.handleDatagram(ACCEPT_QUIC, 0)).to.equal('unexpected')
    })
  })

  describe('in any order of events', () => {
    type Step = { do: 'propose', packet: boolean } | { do: 'datagram', bytes: Uint8Array } | { do: 'timeout' } | { do: 'secured' }

    const datagram = fc.oneof(
      { weight: 6, arbitrary: fc.tuple(fc.constantFrom(LOW, HIGH, OTHER), fc.subarray([QUIC, DTLS, '/x']), fc.option(fc.constantFrom(PACKET, Uint8Array.of(7)), { nil: undefined })).map(([id, schemes, packet]) => proposal(id, schemes, packet)) },
      { weight: 3, arbitrary: fc.constantFrom(ACCEPT_QUIC, ACCEPT_DTLS, encodeFrame({ type: 'accept', scheme: '/x' })) },
      { weight: 1, arbitrary: fc.constant(REJECT) },
      { weight: 1, arbitrary: fc.constant(SCHEME_TRAFFIC) },
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 50 }) }
    )

    const step: fc.Arbitrary<[Step, number]> = fc.tuple(fc.oneof(
      { weight: 1, arbitrary: fc.record({ do: fc.constant('propose' as const), packet: fc.boolean() }) },
      { weight: 6, arbitrary: fc.record({ do: fc.constant('datagram' as const), bytes: datagram }) },
      { weight: 2, arbitrary: fc.constant({ do: 'timeout' as const }) },
      { weight: 1, arbitrary: fc.constant({ do: 'secured' as const }) }
    ), fc.nat({ max: 300 }))

    const apply = (negotiator: Negotiator, step: Step, now: number): void => {
      switch (step.do) {
        case 'propose':
          negotiator.propose(now, step.packet ? PACKET : undefined)
          break
        case 'datagram':
          negotiator.handleDatagram(step.bytes, now)
          break
        case 'timeout':
          negotiator.handleTimeout(now)
          break
        default:
          negotiator.handleSecured(now)
      }
    }

    it('sends at most one valid frame for each input, and settles at most once', () => {
      fc.assert(fc.property(fc.array(step, { maxLength: 40, size: 'max' }), steps => {
        const negotiator = new Negotiator({ localId: HIGH, schemes: BOTH })
        const outcomes = []
        let now = 0

        for (const [step, elapsed] of steps) {
          const before = negotiator.status
          const due = (negotiator.pollTimeout() ?? Infinity) <= (now += elapsed)
          apply(negotiator, step, now)
          const frames = sent(negotiator)
          const happened = events(negotiator)

          expect(frames.length).to.be.at.most(1)
          frames.forEach(frame => decodeFrame(frame))

          if (step.do === 'timeout' && !due) {
            expect(frames).to.be.empty()
          }

          outcomes.push(...happened.filter(event => event.type !== 'renewed'))

          if (before === 'agreed' || before === 'failed') {
            expect(negotiator.status).to.equal(before)
          }

          expect(outcomes).to.have.lengthOf(negotiator.status === 'agreed' || negotiator.status === 'failed' ? 1 : 0)

          if (negotiator.status === 'idle' || negotiator.status === 'failed') {
            expect(negotiator.pollTimeout()).to.be.undefined()
          } else if (negotiator.status === 'proposing') {
            expect(negotiator.pollTimeout()).to.be.a('number')
          }
        }
      }), { numRuns: 500 })
    })

    it('keeps little of what is never polled', () => {
      fc.assert(fc.property(fc.array(step, { minLength: 20, maxLength: 60, size: 'max' }), steps => {
        const negotiator = new Negotiator({ localId: HIGH, schemes: BOTH })
        let now = 0

        for (const [step, elapsed] of steps) {
          apply(negotiator, step, now += elapsed)
        }

        expect(sent(negotiator).length).to.be.at.most(8)
        expect(events(negotiator).length).to.be.at.most(2)
      }), { numRuns: 500 })
    })
  })
})
