/**
 * What limits the state that a listener keeps for strangers, piece by piece; in a node: `shield.spec.ts`
 */
import { generateKeyPair } from '@libp2p/crypto/keys'
import { defaultLogger } from '@libp2p/logger'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { expect } from 'aegir/chai'
import { psec, udp } from '../src/index.ts'
import { PendingInbound } from '../src/transport/pending-inbound.ts'
import { PsecUpgrader } from '../src/upgrader/index.ts'
import { decodeFrame, encodeFrame } from '../src/wire/index.ts'
import { StubScheme } from './fixtures/stub-scheme.ts'
import type { PsecInit } from '../src/index.ts'
import type { PreparedAnswers } from '../src/sockets/index.ts'
import type { Link } from '../src/transport/link.ts'
import type { PendingInboundInit } from '../src/transport/pending-inbound.ts'
import type { KeyType, PeerId } from '@libp2p/interface'

const KEY_TYPES: KeyType[] = ['Ed25519', 'RSA', 'secp256k1']

describe('inbound connections on their way', () => {
  const roomy = { max: 8, maxPerPrefix: 8, maxUnproven: Infinity, validationThreshold: Infinity }
  let pending: PendingInbound
  let last: number

  function setup (init: Partial<PendingInboundInit> = {}): void {
    pending = new PendingInbound({ ...roomy, ...init })
    last = 0
  }

  /** As many as given, each from a part of the network of its own if no host is given */
  function add (count: number, validated: boolean = false, host?: string): Link[] {
    return Array.from({ length: count }, () => {
      const link: Link = Object.create(null)
      pending.add(link, host ?? `10.0.${++last}.1`, validated)

      return link
    })
  }

  const isUnderPressure = (): boolean => pending.isUnderPressure

  it('are refused when there are as many as may be, proven or not', () => {
    setup({ max: 3 })
    add(2)
    expect(pending.refuses('192.0.2.1', false)).to.equal(undefined)
    const [link] = add(1)
    expect(pending.size).to.equal(3)
    expect(pending.refuses('192.0.2.1', false)).to.equal('turned_away')
    expect(pending.refuses('192.0.2.1', true)).to.equal('turned_away')
    pending.delete(link)
    expect(pending.refuses('192.0.2.1', false)).to.equal(undefined)
  })

  it('are all refused where none may be', () => {
    setup({ max: 0 })
    expect(pending.refuses('192.0.2.1', true)).to.equal('turned_away')
  })

  it('are refused to a part of the network that has as many as it may have, proven or not', () => {
    setup({ maxPerPrefix: 2 })
    const [link] = add(1, false, '192.0.2.1')
    expect(pending.refuses('192.0.2.9', false)).to.equal(undefined)
    add(1, true, '192.0.2.2')

    for (const validated of [false, true]) {
      expect(pending.refuses('192.0.2.9', validated)).to.equal('turned_away_prefix')
      expect(pending.refuses('::ffff:192.0.2.9', validated)).to.equal('turned_away_prefix')
      expect(pending.refuses('192.0.3.9', validated)).to.equal(undefined)
    }

    pending.delete(link)
    expect(pending.refuses('192.0.2.9', false)).to.equal(undefined)
  })

  it('leave the places that were said to those who have proved their address', () => {
    setup({ max: 8, maxUnproven: 4 })
    add(3)
    expect(pending.refuses('192.0.2.1', false)).to.equal(undefined)
    add(1)
    expect(pending.refuses('192.0.2.1', false)).to.equal('turned_away_unproven')
    expect(pending.refuses('192.0.2.1', true)).to.equal(undefined)
    add(3, true)
    expect(pending.refuses('192.0.2.1', true)).to.equal(undefined)
    add(1, true)
    expect(pending.refuses('192.0.2.1', true)).to.equal('turned_away')
  })

  it('put pressure on from the threshold on, until there are fewer than half as many', () => {
    setup({ validationThreshold: 4 })
    const links = add(3)
    expect(isUnderPressure()).to.equal(false)
    links.push(...add(1))
    expect(isUnderPressure()).to.equal(true)

    links.splice(0, 2).forEach(link => {
      pending.delete(link)
      expect(isUnderPressure()).to.equal(true)
    })

    pending.delete(links[0])
    expect(isUnderPressure()).to.equal(false)
    links.push(...add(2))
    expect(isUnderPressure(), 'again before the threshold').to.equal(false)
    add(1)
    expect(isUnderPressure()).to.equal(true)
  })

  it('put pressure on only if they have proved nothing', () => {
    setup({ validationThreshold: 2 })
    add(5, true)
    const [link] = add(1)
    expect(isUnderPressure()).to.equal(false)
    add(1)
    expect(isUnderPressure()).to.equal(true)
    pending.delete(link)
    expect(isUnderPressure()).to.equal(true)
  })

  it('always put pressure on with a threshold of 0', () => {
    setup({ validationThreshold: 0 })
    expect(isUnderPressure()).to.equal(true)
    pending.delete(add(1)[0])
    expect(isUnderPressure()).to.equal(true)
  })

  it('put pressure on and off by a single one with a threshold of 1', () => {
    setup({ validationThreshold: 1 })
    expect(isUnderPressure()).to.equal(false)
    const [link] = add(1)
    expect(isUnderPressure()).to.equal(true)
    pending.delete(link)
    expect(isUnderPressure()).to.equal(false)
  })

  it('never put pressure on without a threshold', () => {
    setup({ validationThreshold: Infinity })
    add(8)
    expect(isUnderPressure()).to.equal(false)
  })

  it('leave no trace when they are done', () => {
    setup({ max: 4, maxPerPrefix: 2, validationThreshold: 2 })

    const fillAndEmpty = (): void => {
      const links = [...add(2, false, '192.0.2.1'), ...add(2, true, '2001:db8::1')]
      expect(pending.size).to.equal(4)
      links.forEach(link => { pending.delete(link) })
      expect(pending.size).to.equal(0)
      expect(isUnderPressure()).to.equal(false)
      expect(pending.refuses('192.0.2.2', false)).to.equal(undefined)
      expect(pending.refuses('2001:db8::2', false)).to.equal(undefined)
    }

    fillAndEmpty()
    fillAndEmpty()
  })

  it('are done once', () => {
    setup({ max: 2, maxPerPrefix: 1, validationThreshold: 2 })
    const [first] = add(1, false, '192.0.2.1')
    pending.delete(first)
    pending.delete(first)
    add(1, false, '192.0.2.1')
    expect(pending.refuses('192.0.2.2', false)).to.equal('turned_away_prefix')
    add(1)
    expect(isUnderPressure()).to.equal(true)
    expect(pending.refuses('192.0.3.2', true)).to.equal('turned_away')
  })

  it('remember who has proved its address', () => {
    setup()
    const [proven, unproven] = [...add(1, true), ...add(1, false)]
    expect(pending.hasValidated(proven)).to.equal(true)
    expect(pending.hasValidated(unproven)).to.equal(false)
    pending.delete(proven)
    expect(pending.hasValidated(proven)).to.equal(false)
  })
})

describe('answers that are prepared for a shield', () => {
  const validator = { name: 'validator' }

  /** A scheme that can make strangers prove their address, if it is given the means */
  class ProvingScheme extends StubScheme {
    readonly #validator: unknown

    constructor (protocol: string, validator?: unknown) {
      super(protocol)
      this.#validator = validator
    }

    addressValidator (): unknown {
      return this.#validator
    }
  }

  async function prepare (init: Pick<PsecInit, 'schemes' | 'selectScheme' | 'maxPreparedNames'>, keyType: KeyType = 'Ed25519'): Promise<PreparedAnswers | undefined> {
    const privateKey = await generateKeyPair(keyType as 'Ed25519')
    const components = { privateKey, peerId: peerIdFromPrivateKey(privateKey), logger: defaultLogger() }

    return new PsecUpgrader(components, { schemes: [], ...init }).prepareAnswers()
  }

  /** What is answered to a proposal: the scheme in the response */
  function answerTo (prepared: PreparedAnswers | undefined, peerId: PeerId, schemes: string[], initiationPacket?: Uint8Array): string[] {
    const id = peerId.toMultihash().bytes
    const frame = Buffer.from(encodeFrame({ type: 'propose', peerId: id, schemes, initiationPacket }))
    const list = frame.subarray(2 + id.byteLength)

    return (prepared?.answers ?? [])
      .filter(({ offer }) => list.subarray(0, offer.byteLength).equals(offer))
      .map(({ response }) => {
        expect(response.byteLength).to.be.lessThan(frame.byteLength)
        const answer = decodeFrame(response)

        return answer.type === 'accept' ? answer.scheme : answer.type
      })
  }

  async function newPeerId (keyType: KeyType = 'Ed25519'): Promise<PeerId> {
    return peerIdFromPrivateKey(await generateKeyPair(keyType as 'Ed25519'))
  }

  it('are for every choice of up to three schemes in every order', async () => {
    const names = ['/a', '/b', '/c', '/d']
    const prepared = await prepare({ schemes: names.map(name => new ProvingScheme(name, validator)) })
    const peerId = await newPeerId()
    const orders = names.flatMap(a => [[a], ...names.filter(b => b !== a).flatMap(b => [
      [a, b], ...names.filter(c => c !== a && c !== b).map(c => [a, b, c])
    ])])

    expect(orders).to.have.lengthOf(4 + 12 + 24)
    expect(prepared?.addressValidator).to.equal(validator)
    expect(prepared?.answers).to.have.lengthOf(orders.length)

    for (const order of orders) {
      expect(answerTo(prepared, peerId, order), order.join()).to.deep.equal([order[0]])
    }

    for (const other of [['/e'], ['/a', '/e'], ['/e', '/a'], ['/a', '/a'], names, []]) {
      expect(answerTo(prepared, peerId, other), other.join()).to.be.empty()
    }
  })

  it('are for offers of as many schemes as was said', async () => {
    const schemes = ['/a', '/b', '/c'].map(name => new ProvingScheme(name, validator))

    for (const [maxPreparedNames, count] of [[0, 0], [1, 3], [2, 9], [9, 15]]) {
      expect((await prepare({ schemes, maxPreparedNames }))?.answers).to.have.lengthOf(count)
    }
  })

  for (const remote of KEY_TYPES) {
    it(`fit the proposals of a peer with a key of ${remote}, whatever the own one is`, async () => {
      const peerId = await newPeerId(remote)

      for (const own of KEY_TYPES) {
        const prepared = await prepare({ schemes: [new ProvingScheme('/a', validator), new ProvingScheme('/b', validator)] }, own)

        for (const initiationPacket of [undefined, new Uint8Array(1), new Uint8Array(127), new Uint8Array(1200)]) {
          expect(answerTo(prepared, peerId, ['/b', '/a'], initiationPacket)).to.deep.equal(['/b'])
        }
      }
    })
  }

  it('fit names of every length', async () => {
    const names = ['/', `/${'n'.repeat(126)}`, `/${'n'.repeat(127)}`, `/${'n'.repeat(254)}`, `/${'é'.repeat(100)}`]
    const peerId = await newPeerId()

    for (const name of names) {
      const prepared = await prepare({ schemes: [new ProvingScheme(name, validator)] })
      expect(answerTo(prepared, peerId, [name])).to.deep.equal([name])
    }
  })

  it('are what selectScheme chooses', async () => {
    const prepared = await prepare({
      schemes: [new ProvingScheme('/a', validator), new ProvingScheme('/b', validator)],
      selectScheme: (offered) => offered.at(-1)
    })
    const peerId = await newPeerId()
    expect(answerTo(prepared, peerId, ['/a', '/b'])).to.deep.equal(['/b'])
    expect(answerTo(prepared, peerId, ['/b', '/a'])).to.deep.equal(['/a'])
    expect(answerTo(prepared, peerId, ['/b'])).to.deep.equal(['/b'])
  })

  for (const [does, selectScheme] of [
    ['rejects', () => undefined],
    ['throws', () => { throw new Error('Out of order') }],
    ['chooses what was not offered', () => '/e']
  ] as const) {
    it(`are missing where selectScheme ${does}`, async () => {
      const prepared = await prepare({
        schemes: [new ProvingScheme('/a', validator), new ProvingScheme('/b', validator)],
        selectScheme: (offered) => offered.includes('/b') ? selectScheme() : offered[0]
      })
      const peerId = await newPeerId()
      expect(answerTo(prepared, peerId, ['/a'])).to.deep.equal(['/a'])

      for (const refused of [['/b'], ['/a', '/b'], ['/b', '/a']]) {
        expect(answerTo(prepared, peerId, refused)).to.be.empty()
      }
    })
  }

  it('are missing where they lead to a scheme that proves no address, or by another validator', async () => {
    const prepared = await prepare({
      schemes: [new StubScheme('/none'), new ProvingScheme('/undefined'), new ProvingScheme('/a', validator), new ProvingScheme('/b', { name: 'another' })]
    })
    const peerId = await newPeerId()
    expect(prepared?.addressValidator).to.equal(validator)
    expect(answerTo(prepared, peerId, ['/a'])).to.deep.equal(['/a'])
    expect(answerTo(prepared, peerId, ['/a', '/none', '/b'])).to.deep.equal(['/a'])

    for (const first of ['/none', '/undefined', '/b']) {
      expect(answerTo(prepared, peerId, [first])).to.be.empty()
      expect(answerTo(prepared, peerId, [first, '/a'])).to.be.empty()
    }
  })

  it('are none if no scheme can make strangers prove their address', async () => {
    expect(await prepare({ schemes: [new StubScheme('/none'), new ProvingScheme('/undefined')] })).to.equal(undefined)
  })
})

async function create (init: PsecInit): Promise<unknown> {
  const privateKey = await generateKeyPair('Ed25519')

  return psec(init)({
    privateKey,
    peerId: peerIdFromPrivateKey(privateKey),
    logger: defaultLogger(),
    events: new EventTarget()
  } as any)
}

describe('a limit that is no number of things', () => {
  const names = ['maxPendingInbound', 'maxPendingPerPrefix', 'maxUnprovenInbound', 'validationThreshold', 'maxHeldOffInbound', 'maxHeldOffPerPrefix', 'maxUnpreparedInbound', 'validationTimeout', 'maxRenewals', 'maxEarlyDatagrams', 'maxPreparedNames', 'maxLogLines', 'maxUnreadBytes', 'maxUnwantedBytes', 'maxHeldStreams', 'maxHeldDatagrams'] as const
  const bad = [-1, 1.5, NaN, Infinity, 2 ** 32, '8', {}] as number[]
  const good = [0, 1, 2 ** 32 - 1, undefined]

  for (const name of names) {
    it(`is refused, and named, as ${name}`, async () => {
      for (const value of bad) {
        await expect(create({ [name]: value }), String(value)).to.eventually.be.rejectedWith(name)
          .with.property('name', 'InvalidParametersError')
      }

      for (const value of good) {
        await create({ [name]: value })
      }
    })
  }
})

describe('a timeout that is none', () => {
  for (const name of ['negotiationTimeout', 'handshakeTimeout', 'confirmTimeout'] as const) {
    it(`is refused, and named, as ${name}`, async () => {
      for (const value of [0, -1, NaN, Infinity, 2 ** 31, '8', {}] as number[]) {
        await expect(create({ [name]: value }), String(value)).to.eventually.be.rejectedWith(name)
          .with.property('name', 'InvalidParametersError')
      }

      for (const value of [0.5, 1, 2 ** 31 - 1, undefined]) {
        await create({ [name]: value })
      }
    })
  }
})

describe('a limit of a port that is no number of things', () => {
  for (const name of ['maxWaitingDatagrams', 'maxStrangers', 'maxStrangerDatagrams', 'maxQueuedAnswers', 'maxWaitingBytes', 'socketBuffer'] as const) {
    it(`is refused: ${name}`, () => {
      expect(() => udp({ [name]: -1 })).to.throw(name).with.property('name', 'InvalidParametersError')
      expect(() => udp({ [name]: 1.5 })).to.throw(name)
      expect(() => udp({ [name]: 0 })).to.not.throw()
    })
  }
})
