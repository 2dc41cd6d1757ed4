/**
 * What has brought a node down once, or kept it busy. Who can do what: `docs/security.md`.
 */
import { createSocket } from 'node:dgram'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { defaultLogger } from '@libp2p/logger'
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { datagrams } from '../src/index.ts'
import { quoteNames } from '../src/negotiation/quote-names.ts'
import { QUIC_DATAGRAM } from '../src/schemes/quic-datagram/protocol.ts'
import { PendingInbound } from '../src/transport/pending-inbound.ts'
import { TokenBucket } from '../src/transport/token-bucket.ts'
import { encodeFrame } from '../src/wire/index.ts'
import { expectEcho, handleEcho } from './fixtures/echo.ts'
import { eventually } from './fixtures/eventually.ts'
import { MemoryClock } from './fixtures/memory-clock.ts'
import { createNode, getTransport, getUpgrader, stopNodes } from './fixtures/nodes.ts'
import { countEvents, recordMetrics } from './fixtures/record-metrics.ts'
import { describeSchemes } from './fixtures/schemes.ts'
import { StubScheme } from './fixtures/stub-scheme.ts'
import { UdpRelay } from './fixtures/udp-relay.ts'
import type { RecordedMetrics } from './fixtures/record-metrics.ts'
import type { Datagrams } from '../src/index.ts'
import type { Link } from '../src/transport/link.ts'
import type { Connection, Libp2p, Logger, PeerId } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

function addressOf (node: Libp2p): Multiaddr {
  return multiaddr(node.getMultiaddrs()[0].toString().replace(/\/p2p\/.*/, ''))
}

/**
 * Dial by the transport itself, which does not merge dials as libp2p does
 */
async function dial (node: Libp2p, ma: Multiaddr): Promise<Connection> {
  return getTransport(node).dial(ma, { upgrader: getUpgrader(node), signal: AbortSignal.timeout(10_000) })
}

async function strangerId (): Promise<Uint8Array> {
  return (await generateKeyPair('Ed25519')).publicKey.toMultihash().bytes
}

describe('proposals of which nothing can come', () => {
  const sockets: Array<ReturnType<typeof createSocket>> = []

  afterEach(async () => {
    sockets.splice(0).forEach(socket => { socket.close() })
    await stopNodes()
  })

  async function expectShielded (propose: (node: PeerId) => Promise<Uint8Array>): Promise<void> {
    const metrics = recordMetrics()
    const bob = await createNode({ metrics: metrics.metrics, psec: { validationThreshold: 8 } })
    const port = Number(addressOf(bob).getComponents()[1].value)
    const proposal = await propose(bob.peerId)

    for (let i = 0; i < 64; i++) {
      const socket = createSocket('udp4')
      sockets.push(socket)
      socket.send(proposal, port, '127.0.0.1')
    }

    await eventually(() => countEvents(metrics, 'shield_up') === 1)
    expect((await dial(await createNode({ listen: [] }), addressOf(bob))).status).to.equal('open')
    await eventually(() => countEvents(metrics, 'shield_down') === 1)
  }

  it('are a flood, too, if there is nothing in common', async () => {
    await expectShielded(async () => encodeFrame({ type: 'propose', peerId: await strangerId(), schemes: ['/nothing/1.0.0'] }))
  })

  it('are a flood, too, if they claim our own id', async () => {
    await expectShielded(async (peerId) => encodeFrame({ type: 'propose', peerId: peerId.toMultihash().bytes, schemes: [QUIC_DATAGRAM] }))
  })

  it('weigh for a second as if they were on their way, and not more than twice the threshold', async () => {
    const clock = new MemoryClock()
    const pending = new PendingInbound({ max: 16, maxPerPrefix: 16, maxUnproven: 8, validationThreshold: 4, clock })
    const fail = (isConnected: boolean = false, isValidated: boolean = false): void => {
      const link: Link = Object.create(null)
      pending.add(link, '192.0.2.1', isValidated)
      pending.delete(link, isConnected)
    }

    for (let i = 0; i < 10; i++) {
      fail(true)
      fail(false, true)
    }

    expect(pending.isUnderPressure).to.equal(false)

    for (let i = 0; i < 3; i++) {
      fail()
    }

    expect(pending.isUnderPressure).to.equal(false)
    fail()
    expect(pending.isUnderPressure).to.equal(true)

    for (let i = 0; i < 1_000; i++) {
      fail()
    }

    await clock.advance(1_000)
    expect(pending.isUnderPressure).to.equal(true)
    await clock.advance(501)
    expect(pending.isUnderPressure).to.equal(false)
  })
})

describeSchemes('proposals from the address of a peer that is connected', ({ createNode, protocol, firstByte }) => {
  afterEach(stopNodes)

  it('are taken up so many at a time, however many come', async () => {
    const metrics = recordMetrics()
    const [bob, alice] = [await createNode({ metrics: metrics.metrics }), await createNode({ listen: [] })]
    const relay = await UdpRelay.open(Number(addressOf(bob).getComponents()[1].value))

    try {
      const connection = await dial(alice, relay.address)

      for (let i = 0; i < 64; i++) {
        relay.inject(encodeFrame({
          type: 'propose',
          peerId: await strangerId(),
          schemes: [protocol],
          initiationPacket: new Uint8Array(1_200).fill(firstByte)
        }))
      }

      await eventually(() => countEvents(metrics, 'renewal') + countEvents(metrics, 'renewal_held_off') === 64)
      expect(countEvents(metrics, 'renewal')).to.be.at.least(8)
      expect(countEvents(metrics, 'renewal_held_off')).to.be.greaterThan(0)
      expect(connection.status).to.equal('open')
    } finally {
      relay.close()
    }
  })
})

describeSchemes('proposals forged in the place of a peer that is about to dial', ({ create, createNode, protocol, findsClaimant }) => {
  let relay: UdpRelay
  let alice: Libp2p<any>
  let metrics: RecordedMetrics

  beforeEach(async () => {
    metrics = recordMetrics()
    const bob = await createNode({ metrics: metrics.metrics, psec: { schemes: [create()], confirm: 'require' } })
    alice = await createNode({ psec: { schemes: [create()], initiationPacket: false, confirm: 'require' }, listen: [] })
    relay = await UdpRelay.open(Number(addressOf(bob).getComponents()[1].value))
    await handleEcho(bob)
  })

  afterEach(async () => {
    relay.close()
    await stopNodes()
  })

  /** A proposal that the node has answered */
  async function forge (peerId: Uint8Array, schemes: string[]): Promise<void> {
    const before = relay.answers.length
    relay.inject(encodeFrame({ type: 'propose', peerId, schemes }))
    await eventually(() => relay.answers.length > before)
  }

  it('do not end its dial without an initiation packet, if they came before and claim another id', async () => {
    await forge(await strangerId(), [protocol])
    await expectEcho(await dial(alice, relay.address))
  })

  it('do not end its dial without an initiation packet, if they came before and claim its id', async () => {
    await forge(alice.peerId.toMultihash().bytes, [protocol, '/unknown'])
    await expectEcho(await dial(alice, relay.address))
  })

  if (findsClaimant) {
    it('do not end its dial without an initiation packet, if they came after its own and claim another id', async () => {
      relay.hold()
      const dialling = dial(alice, relay.address)
      await eventually(() => relay.held.length > 0)
      relay.release(1)
      await forge(await strangerId(), [protocol])
      await expectEcho(await dialling)
    })
  }

  it('do not end its dial, if there were so many that its own proposal has to wait', async () => {
    for (let i = 0; i < 16; i++) {
      relay.inject(encodeFrame({ type: 'propose', peerId: await strangerId(), schemes: [protocol] }))
    }

    await eventually(() => countEvents(metrics, 'renewal_held_off') > 0)
    const peer = await createNode({ psec: { schemes: [create()], confirm: 'require' }, listen: [] })
    await expectEcho(await dial(peer, relay.address))
  })
})

describe('proposals from the address of a peer that is on its way', () => {
  afterEach(stopNodes)

  it('are taken up as often as was said', async () => {
    const metrics = recordMetrics()
    const scheme = new StubScheme('/stub')
    const bob = await createNode({ metrics: metrics.metrics, psec: { schemes: [scheme], maxRenewals: 1 } })
    const relay = await UdpRelay.open(Number(addressOf(bob).getComponents()[1].value))
    const peerId = await strangerId()

    try {
      for (const packet of [1, 2, 3]) {
        relay.inject(encodeFrame({ type: 'propose', peerId, schemes: ['/stub'], initiationPacket: Uint8Array.of(packet) }))
        await eventually(() => scheme.responses.length === Math.min(packet, 2))
      }

      await eventually(() => countEvents(metrics, 'renewal_held_off') === 1)
      expect(countEvents(metrics, 'renewal')).to.equal(1)
    } finally {
      relay.close()
    }
  })
})

describe('a bucket of tokens', () => {
  it('has so many at once, and so many a second', async () => {
    const clock = new MemoryClock()
    const bucket = new TokenBucket({ burst: 3, perSecond: 2, clock })
    const take = (): boolean[] => [bucket.take(), bucket.take(), bucket.take(), bucket.take()]

    expect(take()).to.deep.equal([true, true, true, false])
    await clock.advance(500)
    expect(take()).to.deep.equal([true, false, false, false])
    await clock.advance(60_000)
    expect(take()).to.deep.equal([true, true, true, false])
  })
})

describe('lines of log that strangers cause', () => {
  afterEach(stopNodes)

  it('are kept back beyond the limit, and counted by component', async () => {
    const metrics = recordMetrics()
    const logger = defaultLogger()
    const logged: string[] = []
    const bob = await createNode({
      metrics: metrics.metrics,
      psec: { maxLogLines: 0 },
      logger: {
        forComponent: (name) => {
          const write = (formatter: string): void => { formatter.startsWith('%d more lines') || logged.push(name) }
          const level = Object.assign(write, { enabled: true })

          return Object.assign(level.bind(null), logger.forComponent(name), { enabled: true, error: level, trace: level }) as unknown as Logger
        }
      }
    })
    const alice = await createNode({ listen: [] })
    await dial(alice, addressOf(bob))
    const unlogged = (component: string): number => metrics.counters(`libp2p_psec_${component}_unlogged_lines_total`).count ?? 0
    await eventually(() => unlogged('listener') > 0 && unlogged('upgrader') > 0)

    expect(logged).to.not.include('libp2p:psec:listener')
    expect(logged).to.not.include('libp2p:psec:upgrader')
  })
})

describe('text of a remote', () => {
  afterEach(stopNodes)

  it('neither controls a terminal nor ends a line in errors and logs', () => {
    const quoted = quoteNames(['\u001b[2J\r\n', '\u009b2J\u007f', '\u202egnp.exe\u2066', 'a\u200b\u2028b', 'ä/1.0.0'])

    expect(quoted).to.equal(String.raw`"\u001b[2J\r\n", "\u009b2J\u007f", "\u202egnp.exe\u2066", "a\u200b\u2028b", "ä/1.0.0"`)
  })

  it('is cut, also where it is a protocol that is not handled', async () => {
    const errors: string[] = []
    const logger = defaultLogger()
    const bob = await createNode({
      logger: {
        forComponent: (name) => Object.assign((_: string, ...args: any[]) => {
          errors.push(...args.filter(arg => arg instanceof Error).map(err => err.message))
        }, logger.forComponent(name))
      },
      services: { datagrams: datagrams() }
    })
    const alice = await createNode({ listen: [], services: { datagrams: datagrams() } })
    const connection = await alice.dial(bob.getMultiaddrs())
    await (alice.services.datagrams as Datagrams).open(connection, `\u001b[2J\n${'x'.repeat(1_000)}`)
    await eventually(() => errors.some(message => message.includes('No handler')))

    const [message] = errors.filter(message => message.includes('No handler'))
    expect(message).to.have.length.below(200)
    expect(message).to.include(String.raw`"\u001b[2J\n`)
  })
})
