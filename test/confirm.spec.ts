import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { expect } from 'aegir/chai'
import * as varint from 'uint8-varint'
import { concat } from 'uint8arrays/concat'
import { fromString } from 'uint8arrays/from-string'
import { toString } from 'uint8arrays/to-string'
import { createConfirmation, decodeMessage, decodeTranscript, encodeMessage, encodeTranscript, Exchange, MAX_MESSAGE_LENGTH, Preface, verifyConfirmation } from '../src/confirm/index.ts'
import type { ExchangeOutcome, Transcript } from '../src/confirm/index.ts'
import type { Role } from '../src/negotiation/index.ts'
import type { PrivateKey } from '@libp2p/interface'

interface VectorProposal {
  peerId: string
  schemes: string[]
}

interface VectorParty {
  peerId: string
  keyHash: string
}

interface Vectors {
  keys: Record<Role, { seed: string, publicKey: string, peerId: string }>
  certificateKeys: Record<Role, string>
  transcripts: Array<{
    name: string
    meaning: string
    transcript: { simultaneous: boolean, scheme: string, initiator: VectorParty, responder: VectorParty, proposals: { initiator: VectorProposal, responder?: VectorProposal } }
    hex: string
    sha256: string
  }>
  messages: Array<{ name: string, from: Role, own: string, hex: string, valid: boolean, reason?: string, confirmed?: string }>
}

const vectors: Vectors = JSON.parse(readFileSync(new URL('./vectors/confirm.json', import.meta.url), 'utf8'))
const hex = (text: string): Uint8Array => fromString(text, 'base16')
const line = (text: string): Uint8Array => concat([varint.encode(text.length + 1), fromString(`${text}\n`)])
const withLength = (bytes: Uint8Array): Uint8Array => concat([varint.encode(bytes.byteLength), bytes])
const other = (role: Role): Role => role === 'initiator' ? 'responder' : 'initiator'

const HEADER = line('/multistream/1.0.0')
const CONFIRM = line('/psec/confirm/1.0.0')
const MESSAGE = Uint8Array.of(1, 2, 3)

/** Every way to cut bytes in two, and byte by byte */
function * cuts (bytes: Uint8Array): Generator<Uint8Array[]> {
  for (let i = 0; i <= bytes.byteLength; i++) {
    yield [bytes.subarray(0, i), bytes.subarray(i)].filter(part => part.byteLength > 0)
  }

  yield Array.from(bytes, byte => Uint8Array.of(byte))
}

function transcript (name: string): Transcript {
  return decodeTranscript(hex(vectors.transcripts.find(vector => vector.name === name)?.hex ?? ''))
}

async function privateKey (role: Role): Promise<PrivateKey> {
  return generateKeyPairFromSeed('Ed25519', hex(vectors.keys[role].seed))
}

describe('what is confirmed', () => {
  for (const vector of vectors.transcripts) {
    it(`is encoded, and decoded again: ${vector.meaning}`, () => {
      const bytes = hex(vector.hex)
      const { simultaneous, scheme, initiator, responder, proposals } = decodeTranscript(bytes)
      const party = ({ peerId, keyHash }: Transcript['initiator']): VectorParty => ({ peerId: toString(peerId, 'base16'), keyHash: toString(keyHash, 'base16') })
      const proposal = ({ peerId, schemes }: Transcript['proposals']['initiator']): VectorProposal => ({ peerId: toString(peerId, 'base16'), schemes })

      expect({
        simultaneous,
        scheme,
        initiator: party(initiator),
        responder: party(responder),
        proposals: {
          initiator: proposal(proposals.initiator),
          ...(proposals.responder == null ? {} : { responder: proposal(proposals.responder) })
        }
      }).to.deep.equal(vector.transcript)
      expect(encodeTranscript({ simultaneous, scheme, initiator, responder, proposals })).to.equalBytes(bytes)
      expect(createHash('sha256').update(bytes).digest('hex')).to.equal(vector.sha256)
    })
  }

  it('names the certificates by the hashes of their keys', () => {
    const { initiator, responder } = transcript('standard')

    expect(toString(initiator.keyHash, 'base16')).to.equal(createHash('sha256').update(hex(vectors.certificateKeys.initiator)).digest('hex'))
    expect(toString(responder.keyHash, 'base16')).to.equal(createHash('sha256').update(hex(vectors.certificateKeys.responder)).digest('hex'))
  })
})

describe('a confirm message', () => {
  for (const { name, from, own, hex: bytes, valid, reason, confirmed } of vectors.messages) {
    it(`${valid ? 'is taken' : `is refused (${reason})`}: ${name}, from the ${from}`, async () => {
      const verifying = verifyConfirmation(hex(bytes), transcript(own), other(from))

      if (valid) {
        expect(encodeTranscript(await verifying)).to.equalBytes(encodeTranscript(transcript(confirmed ?? own)))
      } else {
        await expect(verifying).to.eventually.be.rejected().with.property('reason', reason)
      }
    })
  }

  it('is created as the vectors have it', async () => {
    for (const role of ['initiator', 'responder'] as const) {
      const vector = vectors.messages.find(({ from, own, valid }) => from === role && own === 'simultaneous' && valid)

      expect(toString(await createConfirmation(await privateKey(role), role, transcript('simultaneous')), 'base16')).to.equal(vector?.hex)
    }
  })

  it('has room for the largest negotiation that there can be', async () => {
    const longest = Array.from({ length: 255 }, () => 'x'.repeat(255))
    const peerId = hex(vectors.keys.initiator.peerId)
    const party = { peerId, keyHash: new Uint8Array(32) }
    const proposal = { type: 'propose' as const, peerId, schemes: longest }
    const largest = encodeTranscript({ simultaneous: true, scheme: longest[0], initiator: party, responder: party, proposals: { initiator: proposal, responder: proposal } })
    const message = encodeMessage({ publicKey: new Uint8Array(1_100), transcript: largest, signature: new Uint8Array(1_024) })

    expect(message.byteLength).to.be.at.most(MAX_MESSAGE_LENGTH)
    expect(decodeMessage(message).transcript).to.equalBytes(largest)
  })

  it('that is refused says what differs', async () => {
    const { hex: bytes } = vectors.messages.find(({ reason, own }) => reason === 'proposals' && own === 'standard') ?? { hex: '' }

    await expect(verifyConfirmation(hex(bytes), transcript('standard'), 'responder')).to.eventually.be.rejected()
      .with.property('message', 'The negotiation was tampered with: the remote proposed "/dtls/1.0.0", "/quic-datagram/1.0.0", we saw "/quic-datagram/1.0.0", "/dtls/1.0.0"')
  })
})

describe('the confirm stream', () => {
  /** What comes of these chunks */
  function outcome (exchange: Exchange, chunks: Uint8Array[]): ExchangeOutcome | undefined {
    chunks.forEach(chunk => { exchange.handleData(chunk) })
    return exchange.pollOutcome()
  }

  function initiating (): Exchange {
    return new Exchange({ role: 'initiator', message: MESSAGE })
  }

  function responding (): Exchange {
    return new Exchange({ role: 'responder', message: MESSAGE })
  }

  it('carries all that a side has to say at once', () => {
    for (const role of ['initiator', 'responder'] as const) {
      const exchange = new Exchange({ role, message: MESSAGE })

      expect(exchange.pollTransmit()).to.equalBytes(concat([HEADER, CONFIRM, withLength(MESSAGE)]))
      expect(exchange.pollTransmit()).to.be.undefined()
    }
  })

  it('gives each side the other\'s message, however it is cut', () => {
    for (const chunks of cuts(concat([HEADER, CONFIRM, withLength(MESSAGE)]))) {
      expect(outcome(initiating(), chunks)).to.deep.equal({ type: 'message', message: MESSAGE })
    }

    for (const chunks of cuts(withLength(MESSAGE))) {
      expect(outcome(responding(), chunks)).to.deep.equal({ type: 'message', message: MESSAGE })
    }
  })

  it('is declined by any other answer than the protocol', () => {
    for (const answer of [concat([HEADER, line('na')]), line('na'), concat([HEADER, line('x'.repeat(200))]), Uint8Array.of(0xff, 0xff)]) {
      expect(outcome(initiating(), [answer])).to.have.nested.property('error.reason', 'unsupported')
    }
  })

  it('is declined by its end before the protocol is agreed on, and interrupted by its end afterwards', () => {
    for (const [chunk, reason] of [[HEADER, 'unsupported'], [concat([HEADER, CONFIRM, withLength(MESSAGE).subarray(0, 2)]), 'interrupted']] as const) {
      const exchange = initiating()
      exchange.handleData(chunk)
      exchange.handleEnd()

      expect(exchange.pollOutcome()).to.have.nested.property('error.reason', reason)
      exchange.handleEnd()
      expect(exchange.pollOutcome()).to.be.undefined()
    }
  })

  it('has no room for a message that is too long, and does not wait for it', () => {
    const tooLong = varint.encode(MAX_MESSAGE_LENGTH + 1)

    expect(outcome(responding(), [tooLong])).to.have.nested.property('error.reason', 'malformed')
    expect(outcome(responding(), [Uint8Array.of(0xff, 0xff, 0xff)])).to.have.nested.property('error.reason', 'malformed')
    expect(outcome(responding(), [Uint8Array.of(0x83, 0x00, 1, 2, 3)])).to.have.nested.property('error.reason', 'malformed')
  })

  it('has nothing behind a message', () => {
    expect(outcome(responding(), [concat([withLength(MESSAGE), Uint8Array.of(0)])])).to.have.nested.property('error.reason', 'malformed')
  })

  describe('is told from other streams by its beginning', () => {
    const ORDINARY = [
      concat([HEADER, line('/chat/1.0.0'), Uint8Array.of(1, 2, 3)]),
      concat([HEADER, line('/psec/confirm/1.0.1')]),
      concat([HEADER, line('/psec/confirm')]),
      concat([line('/multistream/2.0.0'), CONFIRM]),
      Uint8Array.of(0)
    ]

    it('however that is cut', () => {
      for (const chunks of cuts(concat([HEADER, CONFIRM]))) {
        const preface = new Preface()
        chunks.slice(0, -1).forEach(chunk => {
          preface.handleData(chunk)
          expect(preface.verdict).to.equal('undecided')
        })
        preface.handleData(concat([...chunks.slice(-1), MESSAGE]))

        expect(preface.verdict).to.equal('confirm')
        expect(preface.rest).to.equalBytes(MESSAGE)
      }
    })

    it('and any other goes on as if nobody had looked', () => {
      for (const bytes of ORDINARY) {
        for (const chunks of cuts(bytes)) {
          const preface = new Preface()
          const read: Uint8Array[] = []
          const sent: Uint8Array[] = []

          for (const chunk of chunks) {
            if (preface.verdict === 'other') {
              read.push(chunk)
              continue
            }

            preface.handleData(chunk)
            sent.push(preface.pollTransmit() ?? new Uint8Array())
          }

          // multistream-select goes on from where it is
          const answered = concat(sent)
          expect(concat([preface.rest, ...read])).to.equalBytes(bytes.subarray(answered.byteLength))
          expect([0, HEADER.byteLength]).to.include(answered.byteLength)
        }
      }
    })

    it('and one that waits for the header gets it', () => {
      const preface = new Preface()
      preface.handleData(HEADER)

      expect(preface.pollTransmit()).to.equalBytes(HEADER)
      expect(preface.headerAnswered).to.be.true()

      preface.handleData(CONFIRM)

      expect(preface.verdict).to.equal('confirm')
      expect(new Exchange({ role: 'responder', message: MESSAGE, headerAnswered: true }).pollTransmit())
        .to.equalBytes(concat([CONFIRM, withLength(MESSAGE)]))
    })
  })
})
