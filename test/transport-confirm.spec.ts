import { generateKeyPair } from '@libp2p/crypto/keys'
import { defaultLogger } from '@libp2p/logger'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { TypedEventEmitter } from 'main-event'
import { MemoryNetwork, negotiation, psec } from '../src/index.ts'
import { ECHO, expectEcho } from './fixtures/echo.ts'
import { eventually } from './fixtures/eventually.ts'
import { getTransport, getUpgrader, stopNodes } from './fixtures/nodes.ts'
import { plaintext } from './fixtures/plaintext-scheme.ts'
import { recordMetrics } from './fixtures/record-metrics.ts'
import { describeSchemes } from './fixtures/schemes.ts'
import type { ConfirmPolicy } from '../src/index.ts'
import type { createNode, NodeOptions } from './fixtures/nodes.ts'
import type { RecordedMetrics } from './fixtures/record-metrics.ts'
import type { Connection, Libp2p, Stream } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

const OUTCOMES = 'libp2p_psec_confirmations_total'

/** For peers that never confirm, so that a test need not wait for long */
const SHORT = 300

/** Both sides' `confirmed` in the end, or what becomes of the dial */
type Expected = { dialler: boolean, listener: boolean } | 'dialler refuses' | 'listener refuses'

const MATRIX: Array<[dialler: ConfirmPolicy, listener: ConfirmPolicy, Expected]> = [
  ['require', 'require', { dialler: true, listener: true }],
  ['require', 'prefer', { dialler: true, listener: true }],
  ['require', 'off', 'dialler refuses'],
  ['prefer', 'require', { dialler: true, listener: true }],
  ['prefer', 'prefer', { dialler: true, listener: true }],
  ['prefer', 'off', { dialler: false, listener: false }],
  ['off', 'require', 'listener refuses'],
  ['off', 'prefer', { dialler: false, listener: false }],
  ['off', 'off', { dialler: false, listener: false }]
]

interface Node extends Libp2p {
  opened: Connection[]
}

async function setUpNode (create: typeof createNode, confirm?: ConfirmPolicy, options: NodeOptions<any> = {}): Promise<Node> {
  const node = await create({ ...options, psec: { confirm, ...options.psec } })
  const opened: Connection[] = []
  node.addEventListener('connection:open', ({ detail }) => { opened.push(detail) })
  await node.handle(ECHO, async (stream) => {
    for await (const chunk of stream) {
      stream.send(chunk)
    }

    await stream.close()
  })

  return Object.assign(node as unknown as Node, { opened })
}

function anonymous (node: Libp2p): Multiaddr {
  return multiaddr(node.getMultiaddrs()[0].toString().replace(/\/p2p\/.*/, ''))
}

/** Without libp2p's dial queue, which has errors of its own */
async function dial (from: Libp2p, to: Multiaddr): Promise<Connection> {
  return getTransport(from).dial(to, { upgrader: getUpgrader(from), signal: AbortSignal.timeout(20_000) })
}

async function confirmed (connection: Connection): Promise<boolean | undefined> {
  return negotiation(connection)?.confirmation
}

describeSchemes('confirmation', ({ createNode }) => {
  const createConfirmingNode = async (confirm?: ConfirmPolicy, options?: NodeOptions<any>): Promise<Node> => setUpNode(createNode, confirm, options)

  afterEach(stopNodes)

  describe('by the policies of dialler and listener', () => {
    for (const [dialler, listener, expected] of MATRIX) {
      it(`${dialler} and ${listener}: ${typeof expected === 'string' ? expected : JSON.stringify(expected)}`, async () => {
        const bob = await createConfirmingNode(listener, { psec: { confirmTimeout: dialler === 'off' ? SHORT : undefined } })
        const alice = await createConfirmingNode(dialler)

        if (expected === 'dialler refuses') {
          await expect(dial(alice, anonymous(bob))).to.eventually.be.rejected().with.property('name', 'ConfirmationFailedError')
          await eventually(() => bob.getConnections().length === 0)
          expect(alice.opened).to.be.empty()
          return
        }

        const connection = await dial(alice, anonymous(bob))

        if (expected === 'listener refuses') {
          await eventually(() => connection.status !== 'open')
          expect(bob.opened).to.be.empty()
          return
        }

        await expectEcho(connection)
        await eventually(() => bob.opened.length === 1)

        expect({ dialler: await confirmed(connection), listener: await confirmed(bob.opened[0]) }).to.deep.equal(expected)
        expect(negotiation(connection)).to.have.property('confirmed', expected.dialler)
        expect(connection.status).to.equal('open')
        await expectEcho(connection)
      })
    }
  })

  it('costs a responder no signature before it is asked', async () => {
    const privateKey = await generateKeyPair('Ed25519')
    const sign = privateKey.sign.bind(privateKey)
    let signatures = 0
    privateKey.sign = (data, options) => {
      signatures++

      return sign(data, options)
    }

    const bob = await createConfirmingNode('prefer', { privateKey, psec: { confirmTimeout: SHORT } })
    const [alice, carol] = await Promise.all([createConfirmingNode('off'), createConfirmingNode('prefer')])
    const before = signatures
    await dial(alice, anonymous(bob))
    await eventually(() => bob.opened.length === 1)
    expect(await confirmed(bob.opened[0])).to.be.false()
    expect(signatures).to.equal(before)

    expect(await confirmed(await dial(carol, anonymous(bob)))).to.be.true()
    expect(signatures).to.equal(before + 1)
  })

  it('is over before there is a connection, if it is required', async () => {
    const bob = await createConfirmingNode('require')
    const alice = await createConfirmingNode('require')
    const seen: Array<boolean | undefined> = []
    bob.addEventListener('connection:open', ({ detail }) => { seen.push(negotiation(detail)?.confirmed) })
    seen.push(negotiation(await dial(alice, anonymous(bob)))?.confirmed)
    await eventually(() => seen.length === 2)

    expect(seen).to.deep.equal([true, true])
  })

  it('leaves no stream on the connection', async () => {
    const bob = await createConfirmingNode()
    const alice = await createConfirmingNode()
    const connection = await dial(alice, anonymous(bob))
    await confirmed(connection)
    await eventually(() => bob.opened.length === 1)

    expect(connection.streams).to.be.empty()
    expect(bob.opened[0].streams).to.be.empty()
  })

  it('of dials that cross ends with one confirmed connection', async () => {
    for (const policy of ['require', 'prefer'] as const) {
      const endpoints = new MemoryNetwork({ delay: 20 })
      const init = { psec: { endpoints } }
      const [alice, bob] = [await createConfirmingNode(policy, init), await createConfirmingNode(policy, init)]
      const connections = await Promise.all([dial(alice, anonymous(bob)), dial(bob, anonymous(alice))])

      expect(await Promise.all(connections.map(confirmed))).to.deep.equal([true, true])
      expect(connections.map(connection => negotiation(connection)?.simultaneous)).to.deep.equal([true, true])
      await expectEcho(connections[0])
      await expectEcho(connections[1])
      await stopNodes()
    }
  })

  it('of an inbound negotiation that a dial joins ends with one confirmed connection', async () => {
    const counted = recordMetrics()
    const psec = { endpoints: new MemoryNetwork({ delay: 20 }) }
    const [alice, bob] = [await createConfirmingNode('require', { psec }), await createConfirmingNode('require', { psec, metrics: counted.metrics })]
    const dialling = dial(alice, anonymous(bob))
    // as soon as there is something to join
    await eventually(() => Object.keys(counted.counters('libp2p_psec_listener_events_total')).length > 0)
    const steps: string[] = []
    const far = await getTransport(bob).dial(anonymous(alice), {
      upgrader: getUpgrader(bob),
      signal: AbortSignal.timeout(20_000),
      onProgress: (evt) => { steps.push(evt.type) }
    })

    expect(steps[0]).to.equal('psec:join')
    expect(await Promise.all([await dialling, far].map(confirmed))).to.deep.equal([true, true])
    expect(negotiation(far)).to.include({ role: 'responder', simultaneous: false })
    expect(bob.opened).to.have.lengthOf(1)
  })

  it('is not possible with a scheme that has no channel binding', async () => {
    const endpoints = new MemoryNetwork()
    const init = { endpoints, schemes: [plaintext()] }
    const bob = await createConfirmingNode('prefer', { psec: init })
    const [preferring, requiring] = [await createConfirmingNode('prefer', { psec: init }), await createConfirmingNode('require', { psec: init })]

    expect(await confirmed(await dial(preferring, anonymous(bob)))).to.be.false()
    await expect(dial(requiring, anonymous(bob))).to.eventually.be.rejected().with.property('reason', 'unsupported')
  })

  describe('with a peer that breaks the protocol', () => {
    const PROTOCOL = '/psec/confirm/1.0.0'

    /** A confirm stream of a node that does not confirm by itself, so that it is the first and only one */
    async function openConfirmStream (policy: ConfirmPolicy): Promise<{ bob: Node, metrics: RecordedMetrics, stream: Stream, connection: Connection }> {
      const metrics = recordMetrics()
      const bob = await createConfirmingNode(policy, { metrics: metrics.metrics, psec: { confirmTimeout: SHORT } })
      const mallory = await createConfirmingNode('off')
      const connection = await dial(mallory, anonymous(bob))

      return { bob, metrics, connection, stream: await connection.newStream(PROTOCOL) }
    }

    for (const policy of ['prefer', 'require'] as const) {
      it(`closes the connection on what is no message, with ${policy}`, async () => {
        const { bob, metrics, stream, connection } = await openConfirmStream(policy)
        stream.send(Uint8Array.of(3, 1, 2, 3))
        await eventually(() => connection.status !== 'open' && bob.getConnections().length === 0)

        expect(metrics.counters(OUTCOMES)).to.deep.equal({ malformed: 1 })
      })
    }

    it('keeps the connection if the stream is reset, and the connection is merely preferred to be confirmed', async () => {
      const { bob, metrics, stream, connection } = await openConfirmStream('prefer')
      await eventually(() => bob.opened.length === 1)
      stream.abort(new Error('Never mind'))

      expect(await confirmed(bob.opened[0])).to.be.false()
      expect(metrics.counters(OUTCOMES)).to.deep.equal({ interrupted: 1 })
      await expectEcho(connection)
    })

    it('waits for its message no longer than the timeout', async () => {
      const { bob, metrics, connection } = await openConfirmStream('prefer')
      await eventually(() => bob.opened.length === 1)

      expect(await confirmed(bob.opened[0])).to.be.false()
      expect(metrics.counters(OUTCOMES)).to.deep.equal({ timed_out: 1 })
      await expectEcho(connection)
    })

    it('does not take a second confirm stream', async () => {
      const { connection } = await openConfirmStream('prefer')

      await expect(connection.newStream(PROTOCOL)).to.eventually.be.rejected()
      await expectEcho(connection)
    })

    it('lets nothing through before it has confirmed, if that is required', async () => {
      const bob = await createConfirmingNode('require', { psec: { confirmTimeout: SHORT } })
      const mallory = await createConfirmingNode('off')
      let handled = 0
      await bob.handle('/never', () => { handled++ })
      const connection = await dial(mallory, anonymous(bob))

      await expect(connection.newStream('/never')).to.eventually.be.rejected()
      expect(handled).to.equal(0)
      expect(bob.opened).to.be.empty()
    })
  })

  it('is counted by its outcome', async () => {
    const [near, far] = [recordMetrics(), recordMetrics()]
    const bob = await createConfirmingNode('prefer', { metrics: far.metrics, psec: { confirmTimeout: SHORT } })
    const alice = await createConfirmingNode('prefer', { metrics: near.metrics })
    const deaf = await createConfirmingNode('off')
    await confirmed(await dial(alice, anonymous(bob)))
    await confirmed(await dial(alice, anonymous(deaf)))
    await dial(deaf, anonymous(bob))
    await eventually(() => far.counters(OUTCOMES).timed_out === 1)

    expect(near.counters(OUTCOMES)).to.deep.equal({ confirmed: 1, unsupported: 1 })
    expect(far.counters(OUTCOMES)).to.deep.equal({ confirmed: 1, timed_out: 1 })
  })

  it('ends with the connection', async () => {
    const bob = await createConfirmingNode('prefer')
    const deaf = await createConfirmingNode('off')
    const connection = await dial(deaf, anonymous(bob))
    await eventually(() => bob.opened.length === 1)
    await connection.close()

    expect(await confirmed(bob.opened[0])).to.be.false()
  })

  it('works for RSA and secp256k1 identities', async () => {
    const bob = await createConfirmingNode('require', { privateKey: await generateKeyPair('RSA', 2048) })
    const alice = await createConfirmingNode('require', { privateKey: await generateKeyPair('secp256k1') })

    expect(await confirmed(await dial(alice, anonymous(bob)))).to.be.true()
  })
})

describe('the options of the confirmation', () => {
  it('are checked', async () => {
    const privateKey = await generateKeyPair('Ed25519')
    const components = { privateKey, peerId: peerIdFromPrivateKey(privateKey), logger: defaultLogger(), events: new TypedEventEmitter() }

    for (const init of [{ confirm: 'always' as any }, { confirmTimeout: 0 }, { confirmTimeout: NaN }, { confirmTimeout: Infinity }]) {
      expect(() => psec(init)(components)).to.throw().with.property('name', 'InvalidParametersError')
    }
  })
})
