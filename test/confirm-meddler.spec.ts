/**
 * A man in the middle who rewrites what is negotiated, in each way that the format allows. Whatever they do, two peers never end with
 * another scheme than without them, unless they notice.
 */
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { expect } from 'aegir/chai'
import { negotiation } from '../src/index.ts'
import { compareIds } from '../src/negotiation/index.ts'
import { encodeFrame } from '../src/wire/index.ts'
import { eventually } from './fixtures/eventually.ts'
import { Meddler } from './fixtures/meddler.ts'
import { createNode, getTransport, getUpgrader, stopNodes } from './fixtures/nodes.ts'
import { recordMetrics } from './fixtures/record-metrics.ts'
import { renamed } from './fixtures/renamed-scheme.ts'
import { schemes as testedSchemes } from './fixtures/schemes.ts'
import type { ConfirmPolicy, SecurityScheme } from '../src/index.ts'
import type { Meddling, Side } from './fixtures/meddler.ts'
import type { RecordedMetrics } from './fixtures/record-metrics.ts'
import type { Frame, Propose } from '../src/wire/index.ts'
import type { Connection, Libp2p, PrivateKey } from '@libp2p/interface'

/**
 * - `unharmed`: a confirmed connection of the scheme that both would have agreed on anyway
 * - `noticed`: both sides find out, and there is no connection in the end
 * - `refused`: there is no connection in the end for another reason
 */
type Outcome = 'unharmed' | 'noticed' | 'refused'

/** The most that a negotiation, a handshake and a confirmation that come to nothing may take, in milliseconds */
const PATIENCE = 700

interface Peer {
  node: Libp2p
  metrics: RecordedMetrics
  opened: Connection[]
  peerId: Uint8Array
}

type Peers = Record<Side, Peer>

interface Row {
  name: string
  outcome: Outcome

  /** Where the scheme gets over a first packet that does not fit */
  withRestarts?: Outcome

  /**
   * Whether initiation packets are sent. Where both schemes have the same packets, one that was made for the one scheme keeps a
   * handshake of the other from going well, which nobody in the middle would want.
   */
  initiationPacket?: boolean

  /** Whose id is lower, if that matters: in a simultaneous negotiation they initiate */
  lower?: Side
  meddle (frame: Frame, from: Side, peers: Peers, send: (to: Side, ...frames: Frame[]) => void): void
}

type Edit = (proposal: Propose) => Propose

/** One is as good as the other, but the nodes don't know that */
const STRONG = '/strong-test/1.0.0'
const WEAK = '/weak-test/0.9.0'

const MALLORY = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...new Uint8Array(32).fill(7))
const LOWEST = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...new Uint8Array(32))
const HIGHEST = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...new Uint8Array(32).fill(0xff))

const schemes = (...names: string[]): Edit => ({ type, peerId, initiationPacket }) => ({ type, peerId, schemes: names, initiationPacket })
const claim = (peerId: Uint8Array): Edit => (proposal) => ({ ...proposal, peerId })
const withoutPacket: Edit = ({ type, peerId, schemes }) => ({ type, peerId, schemes })

/** All that can be done to a list, whatever comes of it */
const LISTS: Array<[name: string, edit: Edit]> = [
  ['strips the better scheme', schemes(WEAK)],
  ['strips the worse scheme', schemes(STRONG)],
  ['changes the order', schemes(WEAK, STRONG)],
  ['adds a scheme that nobody speaks, in front', schemes('/unheard-of', STRONG, WEAK)],
  ['adds a scheme that nobody speaks, behind', schemes(STRONG, WEAK, '/unheard-of')],
  ['lists a scheme twice', schemes(STRONG, STRONG, WEAK)],
  ['lists the worse scheme again, in front', schemes(WEAK, STRONG, WEAK)],
  ['replaces the list', schemes('/unheard-of', WEAK)]
]

const STANDARD: Row[] = [
  { name: 'only looks', outcome: 'unharmed', meddle: editing({}) },
  { name: 'only looks at an initiation packet', outcome: 'unharmed', initiationPacket: true, meddle: editing({}) },
  { name: 'strips the initiation packet', outcome: 'unharmed', initiationPacket: true, meddle: editing({ alice: withoutPacket }) },
  { name: 'strips the better scheme, and leaves its initiation packet', outcome: 'refused', withRestarts: 'noticed', initiationPacket: true, meddle: editing({ alice: schemes(WEAK) }) },
  { name: 'strips the worse scheme, and leaves the initiation packet', outcome: 'noticed', initiationPacket: true, meddle: editing({ alice: schemes(STRONG) }) },
  ...LISTS.map(([name, edit]): Row => ({ name: `${name} in the proposal`, outcome: 'noticed', meddle: editing({ alice: edit }) })),
  { name: 'replaces the list by nothing that is spoken', outcome: 'refused', meddle: editing({ alice: schemes('/unheard-of') }) },
  { name: 'empties the list', outcome: 'refused', meddle: editing({ alice: schemes() }) },
  { name: 'changes the id that the proposer claims', outcome: 'refused', meddle: editing({ alice: claim(MALLORY) }) },
  { name: 'replaces the scheme in the accept', outcome: 'noticed', meddle: accepting(WEAK) },
  { name: 'replaces the scheme in the accept by one that was not offered', outcome: 'refused', meddle: accepting('/unheard-of') },
  {
    name: 'strips the better scheme, and has the accept say the better one',
    outcome: 'noticed',
    meddle: (frame, from, _, send) => {
      send(other(from), from === 'alice' ? schemes(WEAK)(frame as Propose) : { type: 'accept', scheme: STRONG })
    }
  },
  {
    name: 'replaces the accept by a reject',
    outcome: 'refused',
    meddle: (frame, from, _, send) => { send(other(from), from === 'alice' ? frame : { type: 'reject' }) }
  },
  {
    name: 'forges a reject before the accept',
    outcome: 'unharmed',
    meddle: (frame, from, _, send) => {
      if (from === 'alice') {
        send('alice', { type: 'reject' })
      }

      send(other(from), frame)
    }
  },
  {
    name: 'drops the reject',
    outcome: 'refused',
    meddle: (frame, from, _, send) => { from === 'alice' && send('bob', schemes('/unheard-of')(frame as Propose)) }
  },
  { name: 'drops the accept', outcome: 'refused', meddle: (frame, from, _, send) => { from === 'alice' && send('bob', frame) } },
  {
    name: 'answers the proposal itself, and lets no frame through',
    outcome: 'refused',
    meddle: (frame, from, _, send) => { from === 'alice' && send('alice', { type: 'accept', scheme: WEAK }) }
  },
  {
    name: 'makes it a simultaneous one of the same outcome to the initiator',
    outcome: 'unharmed',
    lower: 'alice',
    meddle: forgingProposal([STRONG, WEAK])
  },
  {
    name: 'makes it a simultaneous one with the worse scheme to the initiator',
    outcome: 'noticed',
    lower: 'alice',
    meddle: forgingProposal([WEAK])
  },
  {
    name: 'makes the initiator a responder by a forged proposal',
    outcome: 'refused',
    lower: 'bob',
    meddle: forgingProposal([STRONG, WEAK])
  },
  {
    name: 'has both sides agree on the worse scheme by a forged proposal and a stripped one',
    outcome: 'noticed',
    lower: 'alice',
    meddle: (frame, from, peers, send) => {
      if (from === 'alice') {
        send('alice', { type: 'propose', peerId: peers.bob.peerId, schemes: [WEAK] })
        send('bob', schemes(WEAK)(frame as Propose))
      }
    }
  }
]

const SIMULTANEOUS: Row[] = (['alice', 'bob'] as const).flatMap((lower): Row[] => {
  const higher = other(lower)

  const rows: Row[] = [
    { name: 'only looks', outcome: 'unharmed', meddle: editing({}) },
    { name: 'strips both initiation packets', initiationPacket: true, outcome: 'unharmed', meddle: editing({ alice: withoutPacket, bob: withoutPacket }) },
    ...LISTS.flatMap(([name, edit]): Row[] => [
      { name: `${name} in the initiator's proposal`, outcome: 'noticed', meddle: editing({ [lower]: edit }) },
      { name: `${name} in the responder's proposal`, outcome: 'noticed', meddle: editing({ [higher]: edit }) },
      { name: `${name} in both proposals`, outcome: 'noticed', meddle: editing({ alice: edit, bob: edit }) }
    ]),
    { name: 'leaves nothing in common', outcome: 'refused', meddle: editing({ alice: schemes('/unheard-of'), bob: schemes('/unheard-of') }) },
    { name: 'changes the id that the initiator claims, not the order', outcome: 'refused', meddle: editing({ [lower]: claim(LOWEST) }) },
    { name: 'changes the id that the responder claims, not the order', outcome: 'refused', meddle: editing({ [higher]: claim(HIGHEST) }) },
    { name: 'makes both sides initiators', outcome: 'refused', meddle: editing({ [lower]: claim(HIGHEST) }) },
    { name: 'makes both sides responders', outcome: 'refused', meddle: editing({ [higher]: claim(LOWEST) }) },
    {
      name: 'makes it a standard one of the same outcome to the initiator',
      outcome: 'noticed',
      meddle: (frame, from, _, send) => {
        send(higher, frame.type === 'propose' && from === lower ? frame : { type: 'reject' })
        send(lower, { type: 'accept', scheme: STRONG })
      }
    },
    {
      name: 'makes it a standard one with the worse scheme to the initiator',
      outcome: 'noticed',
      meddle: (frame, from, _, send) => {
        send(higher, frame.type === 'propose' && from === lower ? frame : { type: 'reject' })
        send(lower, { type: 'accept', scheme: WEAK })
      }
    }
  ]

  return rows.map(row => ({ ...row, lower, name: `${row.name} (${lower} initiates)` }))
})

/** Change the proposals of a side or both, and nothing else */
function editing (edits: Partial<Record<Side, Edit>>): Row['meddle'] {
  return (frame, from, _, send) => {
    send(other(from), frame.type === 'propose' ? edits[from]?.(frame) ?? frame : frame)
  }
}

function accepting (scheme: string): Row['meddle'] {
  return (frame, from, _, send) => { send(other(from), frame.type === 'accept' ? { type: 'accept', scheme } : frame) }
}

/** Let alice see a proposal that bob never made, before she sees his accept */
function forgingProposal (names: string[]): Row['meddle'] {
  return (frame, from, peers, send) => {
    if (from === 'alice') {
      send('alice', { type: 'propose', peerId: peers.bob.peerId, schemes: names })
    }

    send(other(from), frame)
  }
}

function other (side: Side): Side {
  return side === 'alice' ? 'bob' : 'alice'
}

interface Pair {
  /** The better one, then the worse */
  createSchemes (): SecurityScheme[]
  standard: Row[]
  simultaneous: Row[]
}

/**
 * Each scheme beside itself, where whatever is done about the names leads to a session; and two that differ, as far as somebody in the
 * middle can have both sides use the same
 */
function describePairs (title: string, define: (pair: Pair) => void): void {
  for (const { name, create, takesRestarts } of testedSchemes) {
    describe(`${title}, by ${name}`, () => {
      define({
        createSchemes: () => [renamed(STRONG, create()), renamed(WEAK, create())],
        standard: takesRestarts ? STANDARD.map(row => ({ ...row, outcome: row.withRestarts ?? row.outcome })) : STANDARD,
        simultaneous: SIMULTANEOUS
      })
    })
  }

  const [better, worse] = testedSchemes

  describe(`${title}, by ${better.name} and ${worse.name}`, () => {
    define({
      createSchemes: () => [renamed(STRONG, better.create()), renamed(WEAK, worse.create())],
      standard: STANDARD.filter(({ name }) => name.endsWith(' in the proposal') || name.startsWith('only looks')),
      simultaneous: SIMULTANEOUS.filter(({ name }) => /^(?:only looks|strips .* in both proposals)/.test(name))
    })
  })
}

describePairs('somebody in the middle', ({ createSchemes, standard, simultaneous }) => {
  let meddler: Meddler | undefined
  let keys: Record<'lower' | 'higher', PrivateKey>

  before(async () => {
    const [lower, higher] = [await generateKeyPair('Ed25519'), await generateKeyPair('Ed25519')].sort((a, b) => compareIds(idOf(a), idOf(b)))
    keys = { lower, higher }
  })

  afterEach(async () => {
    await stopNodes()
    meddler?.close()
    meddler = undefined
  })

  for (const policy of ['prefer', 'require'] as const) {
    describe(`of a standard negotiation, with ${policy}, who`, () => {
      for (const row of standard) {
        it(`${row.name}: ${row.outcome}`, async () => {
          const peers = await createPeers(row, policy)
          const dials = await interfere(peers, row, (meddler) => [dial(peers.alice, meddler, 'alice')])
          await expectOutcome(peers, row.outcome, policy, dials)
        })
      }
    })

    describe(`of a simultaneous negotiation, with ${policy}, who`, () => {
      for (const row of simultaneous) {
        it(`${row.name}: ${row.outcome}`, async () => {
          const peers = await createPeers(row, policy)
          const dials = await interfere(peers, { ...row, meddle: onceBothProposed(row.meddle) }, (meddler) => [
            dial(peers.alice, meddler, 'alice'),
            dial(peers.bob, meddler, 'bob')
          ])
          await expectOutcome(peers, row.outcome, policy, dials)
        })
      }
    })
  }

  it('is told apart from an honest path in what the initiator is shown', async () => {
    const row = STANDARD.find(row => row.meddle != null && row.name.startsWith('makes it a simultaneous one of the same')) as Row
    const peers = await createPeers(row, 'require')
    const [result] = await interfere(peers, row, (meddler) => [dial(peers.alice, meddler, 'alice')])
    const connection = (result as PromiseFulfilledResult<Connection>).value

    // the forged proposal is none that was confirmed
    expect(negotiation(connection)).to.deep.include({ simultaneous: false, remoteSchemes: undefined, confirmed: true })
  })

  it('is what the error is about', async () => {
    const row = STANDARD.find(row => row.name.startsWith('strips the better scheme in')) as Row
    const peers = await createPeers(row, 'require')
    const [result] = await interfere(peers, row, (meddler) => [dial(peers.alice, meddler, 'alice')])
    const { reason } = result as PromiseRejectedResult

    expect(reason).to.include({ name: 'DowngradeDetectedError', reason: 'proposals' })
    expect(reason.message).to.include(`we proposed "${STRONG}", "${WEAK}", the remote saw "${WEAK}"`)
  })

  async function createPeers ({ lower = 'alice', initiationPacket = false }: Row, policy: ConfirmPolicy): Promise<Peers> {
    const create = async (side: Side): Promise<Peer> => {
      const metrics = recordMetrics()
      const privateKey = keys[side === lower ? 'lower' : 'higher']
      const node = await createNode({
        privateKey,
        metrics: metrics.metrics,
        psec: {
          schemes: createSchemes(),
          confirm: policy,
          initiationPacket,
          negotiationTimeout: PATIENCE,
          handshakeTimeout: PATIENCE
        }
      })
      const opened: Connection[] = []
      node.addEventListener('connection:open', ({ detail }) => { opened.push(detail) })

      return { node, metrics, opened, peerId: idOf(privateKey) }
    }

    return { alice: await create('alice'), bob: await create('bob') }
  }

  async function interfere (peers: Peers, row: Pick<Row, 'meddle'>, act: (meddler: Meddler) => Array<Promise<Connection>>): Promise<Array<PromiseSettledResult<Connection>>> {
    const meddling: Meddling = (frame, from, hands) => {
      row.meddle(frame, from, peers, (to, ...frames) => {
        frames.forEach(frame => { hands.send(to, encodeFrame(frame)) })
      })
    }

    meddler = await Meddler.open({ alice: portOf(peers.alice), bob: portOf(peers.bob) }, meddling)

    return Promise.allSettled(act(meddler))
  }
})

/** Hold every frame back until both sides have proposed, so that the negotiation is a simultaneous one */
function onceBothProposed (meddle: Row['meddle']): Row['meddle'] {
  const held = new Map<Side, Frame>()
  let released = false

  return (frame, from, peers, send) => {
    if (released) {
      meddle(frame, from, peers, send)
      return
    }

    held.set(from, frame)

    if (held.size === 2) {
      released = true
      held.forEach((frame, from) => { meddle(frame, from, peers, send) })
    }
  }
}

async function dial (peer: Peer, meddler: Meddler, side: Side): Promise<Connection> {
  return getTransport(peer.node).dial(meddler.addressFor(side), { upgrader: getUpgrader(peer.node), signal: AbortSignal.timeout(20_000) })
}

async function expectOutcome (peers: Peers, outcome: Outcome, policy: ConfirmPolicy, dials: Array<PromiseSettledResult<Connection>>): Promise<void> {
  const { alice, bob } = peers

  if (outcome === 'unharmed') {
    expect(dials.map(({ status }) => status)).to.not.include('rejected')
    await eventually(() => alice.opened.length === 1 && bob.opened.length === 1)

    for (const { opened: [connection] } of [alice, bob]) {
      expect(await negotiation(connection)?.confirmation).to.be.true()
      expect(negotiation(connection)).to.have.property('scheme', STRONG)
      expect(connection.status).to.equal('open')
    }

    return
  }

  await eventually(() => [alice, bob].every(({ node, metrics }) => {
    return node.getConnections().length === 0 && (outcome === 'refused' || countDowngrades(metrics) === 1)
  }))

  for (const { opened } of [alice, bob]) {
    if (policy === 'require') {
      expect(opened).to.be.empty()
    }

    for (const connection of opened) {
      expect(await negotiation(connection)?.confirmation).to.be.false()
    }
  }

  if (outcome === 'noticed' && policy === 'require') {
    for (const result of dials) {
      expect(result).to.have.nested.property('reason.name', 'DowngradeDetectedError')
    }
  }

  if (outcome === 'refused') {
    expect([alice, bob].map(({ metrics }) => countDowngrades(metrics))).to.deep.equal([0, 0])
  }
}

function countDowngrades (metrics: RecordedMetrics): number {
  return metrics.counters('libp2p_psec_confirmations_total').downgrade ?? 0
}

function portOf ({ node }: Peer): number {
  return Number(node.getMultiaddrs()[0].getComponents()[1].value)
}

function idOf (privateKey: PrivateKey): Uint8Array {
  return peerIdFromPrivateKey(privateKey).toMultihash().bytes
}
