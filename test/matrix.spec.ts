/**
 * What two peers agree on by what each of them offers, and that what they agreed on works: roles, streams, datagrams
 */
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { expect } from 'aegir/chai'
import { compareIds } from '../src/negotiation/index.ts'
import { UdpEndpoint } from '../src/sockets/udp.ts'
import { Meddler } from './fixtures/meddler.ts'
import { plaintext } from './fixtures/plaintext-scheme.ts'
import { SessionProbe } from './fixtures/probes.ts'
import { acceptUpgrades, createPsecPeer } from './fixtures/psec-peer.ts'
import { schemes } from './fixtures/schemes.ts'
import type { Meddling, Side } from './fixtures/meddler.ts'
import type { PsecPeer } from './fixtures/psec-peer.ts'
import type { SecurityScheme } from '../src/schemes/index.ts'
import type { SecuredSocket } from '../src/upgrader/index.ts'
import type { PrivateKey } from '@libp2p/interface'

/** How long a dial waits that nothing comes of, in milliseconds */
const PATIENCE = 10_000

interface Offered {
  name: string
  create (): SecurityScheme
}

/** As a third party would write it */
function foreign (name: string, protocol: string): Offered {
  return { name, create: () => plaintext({ protocol }) }
}

const OFFERED = {
  Q: schemes[0],
  D: schemes[1] ?? foreign('DTLS\'s stand-in', '/stand-in-test/1.0.0'),
  /** Foreign, and spoken by both */
  F: foreign('a foreign one', '/foreign-test/1.0.0'),
  /** Foreign, and spoken by one of them */
  A: foreign('Alice\'s own', '/alice-test/1.0.0'),
  B: foreign('Bob\'s own', '/bob-test/1.0.0')
}

type Key = keyof typeof OFFERED

/**
 * What Alice and Bob offer, most wanted first; what they agree on if Alice proposes; and if both do, when Alice has the lower id, and
 * when Bob has. 0 for nothing.
 */
type Row = [alice: string, bob: string, standard: Key | 0, aliceLower: Key | 0, bobLower: Key | 0]

const MATRIX: Row[] = [
  ['Q', 'Q', 'Q', 'Q', 'Q'],
  ['D', 'D', 'D', 'D', 'D'],
  ['Q', 'D', 0, 0, 0],
  ['D', 'Q', 0, 0, 0],
  ['QD', 'Q', 'Q', 'Q', 'Q'],
  ['QD', 'D', 'D', 'D', 'D'],
  ['DQ', 'Q', 'Q', 'Q', 'Q'],
  ['DQ', 'D', 'D', 'D', 'D'],
  ['Q', 'QD', 'Q', 'Q', 'Q'],
  ['Q', 'DQ', 'Q', 'Q', 'Q'],
  ['D', 'QD', 'D', 'D', 'D'],
  ['D', 'DQ', 'D', 'D', 'D'],
  ['QD', 'QD', 'Q', 'Q', 'Q'],
  ['DQ', 'DQ', 'D', 'D', 'D'],
  // a tie between both, which the lower id decides
  ['QD', 'DQ', 'Q', 'Q', 'D'],
  ['DQ', 'QD', 'D', 'D', 'Q'],
  ['FQD', 'FQD', 'F', 'F', 'F'],
  ['FQD', 'QD', 'Q', 'Q', 'Q'],
  ['QD', 'FDQ', 'Q', 'Q', 'D'],
  ['FDQ', 'QDF', 'F', 'F', 'Q'],
  ['AQD', 'QD', 'Q', 'Q', 'Q'],
  ['ADQ', 'QD', 'D', 'D', 'Q'],
  ['DQ', 'BQ', 'Q', 'Q', 'Q'],
  ['AQ', 'BD', 0, 0, 0],
  ['A', 'QD', 0, 0, 0]
]

const OTHER: Record<Side, Side> = { alice: 'bob', bob: 'alice' }

type Sides = Record<Side, SecuredSocket>

describe('what two peers agree on by what they offer', () => {
  let lower: PrivateKey
  let higher: PrivateKey
  let endpoints: Record<Side, UdpEndpoint>
  let meddler: Meddler | undefined
  let secured: SecuredSocket[]

  before(async () => {
    [lower, higher] = [await generateKeyPair('Ed25519'), await generateKeyPair('Ed25519')].sort((a, b) => compareIds(idOf(a), idOf(b)))
  })

  beforeEach(() => {
    endpoints = { alice: new UdpEndpoint({ host: '127.0.0.1', port: 0 }), bob: new UdpEndpoint({ host: '127.0.0.1', port: 0 }) }
    secured = []
  })

  afterEach(async () => {
    secured.forEach(({ session }) => { session.abort(new Error('The test is over')) })
    await Promise.all([endpoints.alice.close(), endpoints.bob.close()])
    meddler?.close()
    meddler = undefined
  })

  async function createPeer (offer: string, privateKey: PrivateKey): Promise<PsecPeer> {
    return createPsecPeer({
      components: { privateKey },
      schemes: [...offer].map(key => OFFERED[key as Key].create()),
      negotiationTimeout: PATIENCE
    })
  }

  async function dial (peer: PsecPeer, side: Side, to: { host: string, port: number }): Promise<SecuredSocket> {
    const result = await peer.upgrader.upgradeOutbound(endpoints[side].connect(to), { signal: AbortSignal.timeout(2 * PATIENCE) })
    secured.push(result)

    return result
  }

  async function expectStandard (alice: string, bob: string, agreed: Key | 0): Promise<void> {
    const accepted = Promise.withResolvers<SecuredSocket>()
    acceptUpgrades(endpoints.bob, await createPeer(bob, lower), accepted.resolve)
    const dialling = dial(await createPeer(alice, higher), 'alice', endpoints.bob.localAddress)

    if (agreed === 0) {
      await expect(dialling).to.eventually.be.rejected().with.property('name', 'NoCommonSchemeError')
      return
    }

    const sides = { alice: await dialling, bob: await accepted.promise }
    secured.push(sides.bob)
    expectAgreement(sides, agreed, { initiator: 'alice', simultaneous: false })
    await expectTraffic(sides)
  }

  async function expectSimultaneous (alice: string, bob: string, initiator: Side, agreed: Key | 0): Promise<void> {
    meddler = await Meddler.open({ alice: endpoints.alice.localAddress.port, bob: endpoints.bob.localAddress.port }, onceBothProposed())
    const dials = await Promise.allSettled([
      dial(await createPeer(alice, initiator === 'alice' ? lower : higher), 'alice', meddler.faceFor('alice')),
      dial(await createPeer(bob, initiator === 'bob' ? lower : higher), 'bob', meddler.faceFor('bob'))
    ])

    if (agreed === 0) {
      expect(dials.map(({ reason }: any) => reason?.name)).to.deep.equal(['NoCommonSchemeError', 'NoCommonSchemeError'])
      return
    }

    const [alices, bobs] = dials.map(valueOf)
    const sides = { alice: alices, bob: bobs }
    expectAgreement(sides, agreed, { initiator, simultaneous: true })
    await expectTraffic(sides)
  }

  for (const [alice, bob, standard, aliceLower, bobLower] of MATRIX) {
    describe(`Alice ${nameAll(alice)}; Bob ${nameAll(bob)}`, () => {
      it(`is ${nameOne(standard)} if Alice proposes`, async () => {
        await expectStandard(alice, bob, standard)
      })

      it(`is ${nameOne(aliceLower)} if both propose, and Alice has the lower id`, async () => {
        await expectSimultaneous(alice, bob, 'alice', aliceLower)
      })

      it(`is ${nameOne(bobLower)} if both propose, and Bob has the lower id`, async () => {
        await expectSimultaneous(alice, bob, 'bob', bobLower)
      })
    })
  }
})

function expectAgreement (sides: Sides, agreed: Key, expected: { initiator: Side, simultaneous: boolean }): void {
  const { protocol } = OFFERED[agreed].create()

  for (const side of ['alice', 'bob'] as const) {
    const { session, negotiation } = sides[side]

    expect(session.protocol).to.equal(protocol)
    expect(negotiation).to.include({
      scheme: protocol,
      role: side === expected.initiator ? 'initiator' : 'responder',
      simultaneous: expected.simultaneous
    })
  }
}

/**
 * A stream each way, and a datagram
 */
async function expectTraffic ({ alice, bob }: Sides): Promise<void> {
  const [near, far] = [new SessionProbe(alice.session), new SessionProbe(bob.session)]

  for (const [from, to] of [[near, far], [far, near]]) {
    const { stream } = await from.open()
    stream.send(Uint8Array.of(1, 2, 3))
    from.session.sendDatagram(Uint8Array.of(4, 5))

    expect(await (await to.stream()).bytes(3)).to.equalBytes(Uint8Array.of(1, 2, 3))
    expect(await to.datagram()).to.equalBytes(Uint8Array.of(4, 5))
  }
}

/** Hold back what both say first, so that the negotiation is a simultaneous one */
function onceBothProposed (): Meddling {
  const held = new Map<Side, Uint8Array>()

  return (_, from, hands, datagram) => {
    if (held.size === 2) {
      hands.send(OTHER[from], datagram)
    } else if (!held.has(from)) {
      held.set(from, datagram)

      if (held.size === 2) {
        held.forEach((proposal, proposer) => { hands.send(OTHER[proposer], proposal) })
      }
    }
  }
}

function valueOf <T> (result: PromiseSettledResult<T>): T {
  if (result.status === 'rejected') {
    throw result.reason
  }

  return result.value
}

function nameAll (offer: string): string {
  return [...offer].map(key => OFFERED[key as Key].name).join(', ')
}

function nameOne (key: Key | 0): string {
  return key === 0 ? 'nothing' : OFFERED[key].name
}

function idOf (privateKey: PrivateKey): Uint8Array {
  return peerIdFromPrivateKey(privateKey).toMultihash().bytes
}
