import { noise } from '@chainsafe/libp2p-noise'
import { defaultLogger } from '@libp2p/logger'
import { tcp } from '@libp2p/tcp'
import { lpStream, streamPair } from '@libp2p/utils'
import { yamux } from '@libp2p/yamux'
import { expect } from 'aegir/chai'
import fc from 'fast-check'
import { EarlyDatagrams } from '../src/datagrams/early-datagrams.ts'
import { decode, encode, prefixLength } from '../src/datagrams/quic-varint.ts'
import { SessionFlows } from '../src/datagrams/session-flows.ts'
import { DatagramTooLargeError } from '../src/errors.ts'
import { datagrams, MemoryNetwork, psec } from '../src/index.ts'
import { findSession } from '../src/sessions.ts'
import { controlledFlow } from './fixtures/controlled-flow.ts'
import { eventually } from './fixtures/eventually.ts'
import { MemoryClock } from './fixtures/memory-clock.ts'
import { createNode, stopNodes } from './fixtures/nodes.ts'
import { plaintext } from './fixtures/plaintext-scheme.ts'
import { recordMetrics } from './fixtures/record-metrics.ts'
import { describeSchemes, schemes } from './fixtures/schemes.ts'
import type { EarlyDatagramsInit } from '../src/datagrams/early-datagrams.ts'
import type { DatagramFlow, Datagrams, DatagramsInit, PsecInit } from '../src/index.ts'
import type { DatagramSession } from '../src/sessions.ts'
import type { Connection, Libp2p, Logger, Stream, StreamCloseEvent } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

const GAME = '/test/game/1.0.0'

/** The schemes' default */
const MAX_INBOUND_STREAMS = 256

describe('QUIC varints', () => {
  // RFC 9000, appendix A.1
  for (const [hex, value] of [['9d7f3e7d', 494_878_333], ['7bbd', 15_293], ['25', 37], ['4025', 37], ['c2197c5eff14e88c', Infinity]] as const) {
    it(`reads ${hex}`, () => {
      const bytes = Buffer.from(hex, 'hex')

      expect(prefixLength(bytes)).to.equal(bytes.byteLength)
      expect(decode(bytes, bytes.byteLength)).to.equal(value)
    })
  }

  it('round-trip in the shortest form', () => {
    fc.assert(fc.property(fc.maxSafeNat(), (value) => {
      const bytes = encode(value)

      return prefixLength(bytes) === bytes.byteLength && decode(bytes, bytes.byteLength) === value &&
        (bytes.byteLength === 1 || value >= 2 ** (bytes.byteLength * 4 - 2))
    }))
  })

  it('are not there if there are too few bytes', () => {
    expect(prefixLength(new Uint8Array(0))).to.equal(0)
    expect(prefixLength(Uint8Array.of(0x40))).to.equal(0)
    expect(prefixLength(new Uint8Array(7).fill(0xff))).to.equal(0)
  })

  it('do not encode what is no unsigned integer', () => {
    for (const value of [-1, 0.5, NaN, 2 ** 53]) {
      expect(() => encode(value)).to.throw(RangeError)
    }
  })
})

describe('datagrams that overtake their control stream', () => {
  let clock: MemoryClock
  let dropped: number
  let early: EarlyDatagrams

  beforeEach(() => {
    clock = new MemoryClock()
    dropped = 0
    early = create({})
  })

  function create (init: Partial<EarlyDatagramsInit>): EarlyDatagrams {
    return new EarlyDatagrams({ maxEarlyDatagrams: 64, earlyTimeout: 1_000, onDrop: (datagrams) => { dropped += datagrams }, clock, ...init })
  }

  it('are held as many as was said, the newest', () => {
    early = create({ maxEarlyDatagrams: 2 })
    early.hold(0, Uint8Array.of(1))
    early.hold(0, Uint8Array.of(2))
    early.hold(0, Uint8Array.of(3))

    expect(early.take(0)).to.deep.equal([Uint8Array.of(2), Uint8Array.of(3)])
    expect(dropped).to.equal(1)
  })

  it('are held apart, in order', () => {
    early.hold(0, Uint8Array.of(1))
    early.hold(4, Uint8Array.of(2))
    early.hold(0, Uint8Array.of(3))

    expect(early.take(0)).to.deep.equal([Uint8Array.of(1), Uint8Array.of(3)])
    expect(early.take(0)).to.be.empty()
    expect(early.take(4)).to.deep.equal([Uint8Array.of(2)])
    expect(dropped).to.equal(0)
  })

  it('are copied: they share a buffer with others', () => {
    const data = Uint8Array.of(1)
    early.hold(0, data)
    data[0] = 9

    expect(early.take(0)).to.deep.equal([Uint8Array.of(1)])
  })

  it('are dropped after the time that was said', async () => {
    early = create({ earlyTimeout: 100 })
    early.hold(0, Uint8Array.of(1))
    await clock.advance(99)
    expect(dropped).to.equal(0)
    await clock.advance(1)
    expect(dropped).to.equal(1)
  })

  it('are dropped each in its own time', async () => {
    early.hold(0, Uint8Array.of(1))
    await clock.advance(600)
    early.hold(0, Uint8Array.of(2))
    await clock.advance(600)

    expect(dropped).to.equal(1)
    expect(early.take(0)).to.deep.equal([Uint8Array.of(2)])
  })

  it('are no more than 64, the oldest dropped first', () => {
    for (let i = 0; i < 70; i++) {
      early.hold(0, Uint8Array.of(i))
    }

    expect(dropped).to.equal(6)
    expect(early.take(0).map(([first]) => first)).to.deep.equal(Array.from({ length: 64 }, (_, i) => i + 6))
  })

  it('have no more than 64 KiB, the oldest dropped first', () => {
    for (let i = 0; i < 3; i++) {
      early.hold(i, new Uint8Array(30 * 1024))
    }

    expect(early.take(0)).to.be.empty()
    expect(early.take(1)).to.have.lengthOf(1)
    expect(early.take(2)).to.have.lengthOf(1)
    expect(dropped).to.equal(1)
  })

  it('leave no timer behind', () => {
    early.hold(0, Uint8Array.of(1))
    early.hold(4, Uint8Array.of(1))
    expect(clock.pending).to.equal(1)
    early.take(0)
    early.clear()

    expect(clock.pending).to.equal(0)
    expect(dropped).to.equal(1)
  })
})

describe('a datagram flow', () => {
  it('is over when the remote wants nothing more on its control stream: none may be sent then', async () => {
    const [stream] = await streamPair()
    const sent: Uint8Array[] = []
    const flow = controlledFlow({ stream, onDatagram: (payload) => { sent.push(payload) } })
    const closed = onClose(flow)
    flow.send(Uint8Array.of(1))
    ;(stream as any).onRemoteCloseRead()

    expect(() => flow.send(Uint8Array.of(2))).to.throw().with.property('name', 'StreamStateError')
    expect(await closed).to.include({ local: false, error: undefined })
    expect(sent).to.have.lengthOf(1)
  })

  it('does not keep its control stream for a remote that does not close it, also if nobody waits for the end', async () => {
    const [stream] = await streamPair()
    stream.send(new Uint8Array(16))
    const timedOut = Promise.withResolvers<void>()
    const flow = controlledFlow({ stream, closeTimeout: 1, onCloseTimeout: timedOut.resolve })

    await expect(flow.close({ signal: AbortSignal.abort() })).to.eventually.be.rejected()
    await timedOut.promise

    expect(stream.status).to.equal('aborted')
  })
})

describe('datagrams of a session', () => {
  const aborted: Array<{ err: Error, code?: number }> = []
  let clock: MemoryClock
  let flows: SessionFlows

  beforeEach(() => {
    aborted.length = 0
    clock = new MemoryClock()
    const session: DatagramSession = {
      status: 'open',
      maxDatagramSize: 1_200,
      droppedDatagrams: {},
      sendDatagram: () => true,
      abort: (err, code) => { aborted.push({ err, code }) },
      streamId: () => undefined,
      isWithinStreamLimit: id => id < 64
    }
    flows = new SessionFlows({
      session,
      limits: { maxEarlyDatagrams: 64, earlyTimeout: 1_000, maxClosedFlows: 2 },
      onClose: () => {},
      clock
    })
  })

  it('end it with PROTOCOL_VIOLATION when too short for their control stream\'s id', () => {
    const tooShort = ['', '40', '80ffff', 'c0ffffffffffff']
    tooShort.forEach((hex) => { flows.onDatagram(Buffer.from(hex, 'hex')) })

    expect(aborted).to.have.lengthOf(tooShort.length)
    expect(aborted.every(({ err, code }) => err.name === 'ProtocolError' && code === 0x1003)).to.equal(true)
    expect(flows.dropped.invalid).to.equal(tooShort.length)
  })

  it('end it with PROTOCOL_VIOLATION when they name a stream that no session can have', () => {
    flows.onDatagram(Buffer.from('ffffffffffffffff', 'hex'))

    expect(aborted).to.have.lengthOf(1)
    expect(aborted[0]).to.have.property('code', 0x1003)
  })

  it('end it with PROTOCOL_VIOLATION when they name a stream beyond the limit', () => {
    flows.onDatagram(Buffer.from('4040', 'hex'))

    expect(aborted).to.have.lengthOf(1)
    expect(aborted[0]).to.have.property('code', 0x1003)
    expect(flows.dropped).to.include({ invalid: 1, early: 0 })
  })

  it('are dropped silently when their control stream is over, and take no room from others', () => {
    flows.refuse(4)

    for (let i = 0; i < 100; i++) {
      flows.onDatagram(Uint8Array.of(4, i))
    }

    expect(flows.dropped).to.deep.equal({ closed: 100, early: 0, invalid: 0, noListener: 0 })
    expect(aborted).to.be.empty()
  })

  it('are remembered to be over for as many control streams as was said, the latest', () => {
    [4, 8, 12].forEach(id => { flows.refuse(id) })
    flows.onDatagram(Uint8Array.of(12, 1))
    flows.onDatagram(Uint8Array.of(8, 1))
    expect(flows.dropped.closed).to.equal(2)
    flows.onDatagram(Uint8Array.of(4, 1))
    expect(flows.dropped.closed).to.equal(2)
  })

  it('are no more dropped for a control stream that is over when there may be another one by its id', async () => {
    flows.refuse(4)
    await clock.advance(999)
    flows.onDatagram(Uint8Array.of(4, 1))
    expect(flows.dropped.closed).to.equal(1)
    await clock.advance(1)
    flows.onDatagram(Uint8Array.of(4, 2))
    expect(flows.dropped.closed).to.equal(1)
    await clock.advance(1_000)
    expect(flows.dropped.early).to.equal(1)
  })

  it('may be empty', () => {
    flows.onDatagram(Uint8Array.of(4))

    expect(aborted).to.be.empty()
  })
})

interface Pair {
  alice: Libp2p<{ datagrams: Datagrams }>
  bob: Libp2p<{ datagrams: Datagrams }>
}

/**
 * What arrives on a flow
 */
function collect (flow: DatagramFlow): number[][] {
  const received: number[][] = []
  flow.addEventListener('message', (evt) => { received.push([...evt.data]) })

  return received
}

async function onClose (flow: DatagramFlow): Promise<StreamCloseEvent> {
  return new Promise((resolve) => { flow.addEventListener('close', resolve, { once: true }) })
}

/**
 * The flows that a node is offered, in order
 */
async function accept (node: Pair['bob'], options?: { maxInboundFlows?: number }): Promise<Array<DatagramFlow & { messages: number[][] }>> {
  const flows: Array<DatagramFlow & { messages: number[][] }> = []
  await node.services.datagrams.handle(GAME, (flow) => { flows.push(Object.assign(flow, { messages: collect(flow) })) }, options)

  return flows
}

function datagramTests (name: string, createInit: () => PsecInit): void {
  describe(`datagrams service over ${name}`, () => {
    let alice: Pair['alice']
    let bob: Pair['bob']

    beforeEach(async () => {
      const init = createInit()
      alice = await createNode({ psec: init, services: { datagrams: datagrams() } })
      bob = await createNode({ psec: init, services: { datagrams: datagrams() } })
    })

    afterEach(stopNodes)

    it('carries datagrams both ways', async () => {
      const flows = await accept(bob)
      const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
      const received = collect(flow)
      flow.send(Uint8Array.of(1, 2))
      await eventually(() => flows[0]?.messages.length === 1)
      flows[0].send(Uint8Array.of(3))
      await eventually(() => received.length === 1)

      expect(flows[0].messages).to.deep.equal([[1, 2]])
      expect(received).to.deep.equal([[3]])
      expect(flow).to.include({ protocol: GAME, direction: 'outbound', status: 'open', sent: 1, received: 1 })
      expect(flows[0]).to.include({ protocol: GAME, direction: 'inbound', status: 'open', sent: 1, received: 1 })
      expect(flow.remotePeer.equals(bob.peerId)).to.equal(true)
      expect(flows[0].remotePeer.equals(alice.peerId)).to.equal(true)
    })

    it('keeps flows apart', async () => {
      const flows = await accept(bob)
      const first = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
      const second = await alice.services.datagrams.open(first.connection, GAME)
      second.send(Uint8Array.of(2))
      first.send(Uint8Array.of(1))
      await eventually(() => flows.length === 2 && flows.every(({ messages }) => messages.length === 1))

      expect(flows.map(({ messages }) => messages[0][0])).to.have.members([1, 2])
    })

    it('takes a peer id, an address or a connection', async () => {
      await accept(bob)
      const byAddress = await alice.services.datagrams.open(bob.getMultiaddrs()[0], GAME)
      const byPeer = await alice.services.datagrams.open(bob.peerId, GAME)
      const byConnection = await alice.services.datagrams.open(byAddress.connection, GAME)

      expect(byPeer.connection).to.equal(byAddress.connection)
      expect(byConnection.connection).to.equal(byAddress.connection)
    })

    it('sends what fits, and no more', async () => {
      const flows = await accept(bob)
      const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
      const { maxDatagramSize } = flow
      flow.send(new Uint8Array(maxDatagramSize))
      await eventually(() => flows[0]?.messages.length === 1)

      expect(maxDatagramSize).to.be.greaterThan(1_000)
      expect(flows[0].messages[0]).to.have.lengthOf(maxDatagramSize)
      expect(() => flow.send(new Uint8Array(flow.maxDatagramSize + 1))).to.throw(DatagramTooLargeError)
      expect(flow.sent).to.equal(1)
    })

    it('closes the flow on both sides, and leaves no stream', async () => {
      const flows = await accept(bob)
      const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
      await eventually(() => flows.length === 1)
      const closed = Promise.all([onClose(flow), onClose(flows[0])])
      await flow.close()
      const [local, remote] = await closed

      expect(local).to.include({ local: true, error: undefined })
      expect(remote).to.include({ local: false, error: undefined })
      expect(flow.status).to.equal('closed')
      expect(() => flow.send(Uint8Array.of(1))).to.throw().with.property('name', 'StreamStateError')
      expect(() => flows[0].send(Uint8Array.of(1))).to.throw().with.property('name', 'StreamStateError')
      await eventually(() => flow.connection.streams.length === 0 && flows[0].connection.streams.length === 0)
    })

    it('closes a flow in order that was closed in the moment in which it was opened', async () => {
      const flows = await accept(bob)
      const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
      flow.send(Uint8Array.of(1))
      await flow.close()
      await eventually(() => flows[0]?.status === 'closed')
      await eventually(() => flow.connection.streams.length === 0 && flows[0].connection.streams.length === 0)

      expect(flows[0].messages.length).to.be.at.most(1)
      expect(() => flows[0].send(Uint8Array.of(1))).to.throw().with.property('name', 'StreamStateError')
    })

    it('offers any number of such flows, one after the other', async () => {
      const flows = await accept(bob, { maxInboundFlows: 2 })
      const connection = await alice.dial(bob.getMultiaddrs())

      for (let i = 1; i <= 8; i++) {
        const flow = await alice.services.datagrams.open(connection, GAME)
        await flow.close()
        await eventually(() => flows.length === i && connection.streams.length === 0)
      }
    })

    it('aborts the flow on both sides', async () => {
      const flows = await accept(bob)
      const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
      await eventually(() => flows.length === 1)
      const remote = onClose(flows[0])
      flow.abort(new Error('Enough'))

      expect(flow.status).to.equal('closed')
      expect((await remote).error).to.have.property('name', 'StreamResetError')
    })

    it('closes flows with their connection', async () => {
      const flows = await accept(bob)
      const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
      await eventually(() => flows.length === 1)
      const closed = Promise.all([onClose(flow), onClose(flows[0])])
      await flow.connection.close()
      await closed
    })

    it('closes flows when the node stops', async () => {
      await accept(bob)
      const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
      const closed = onClose(flow)
      await bob.stop()
      await closed
    })

    it('fails a flow whose protocol the remote does not speak', async () => {
      const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), '/unheard-of')
      const { error } = await onClose(flow)

      expect(error).to.have.property('name', 'StreamResetError')
      await eventually(() => flow.connection.streams.length === 0)
    })

    it('fails a flow whose handler fails', async () => {
      await bob.services.datagrams.handle(GAME, () => { throw new Error('Broken') })
      const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)

      expect((await onClose(flow)).error).to.have.property('name', 'StreamResetError')
    })

    it('fails a flow whose listener fails, and nothing else', async () => {
      // what the remote does not take can't be sent back to it
      for (const listener of [
        (flow: DatagramFlow) => { flow.send(new Uint8Array(100_000)) },
        async (flow: DatagramFlow) => { flow.send(new Uint8Array(100_000)) }
      ]) {
        await bob.services.datagrams.handle(GAME, (flow) => { flow.addEventListener('message', () => listener(flow)) }, { force: true })
        const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
        flow.send(Uint8Array.of(1))
        await eventually(() => flow.status === 'closed')
      }

      expect(bob.getConnections()).to.have.lengthOf(1)
    })

    it('calls listeners as often as they were added, and no more once they are removed', async () => {
      const flows = await accept(bob)
      const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
      await eventually(() => flows.length === 1)
      const [remote] = flows
      const received: number[] = []
      const once = (): void => { received.push(1) }
      const always = { handleEvent: (): void => { received.push(2) } }
      const removed = (): void => { received.push(3) }
      remote.addEventListener('message', once, { once: true })
      remote.addEventListener('message', always)
      remote.addEventListener('message', always)
      remote.addEventListener('message', removed)
      remote.removeEventListener('message', removed)
      flow.send(Uint8Array.of(1))
      flow.send(Uint8Array.of(2))
      await eventually(() => remote.received === 2)

      expect(received).to.deep.equal([1, 2, 2])
      remote.removeEventListener('message', always)
      expect((flow as any).listenerCount('message')).to.equal(0)
      // the one of `accept`
      expect((remote as any).listenerCount('message')).to.equal(1)
    })

    it('refuses more flows than a protocol allows', async () => {
      const flows = await accept(bob, { maxInboundFlows: 1 })
      const first = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
      await eventually(() => flows.length === 1)
      const second = await alice.services.datagrams.open(bob.peerId, GAME)

      expect((await onClose(second)).error).to.have.property('name', 'StreamResetError')
      expect(first.status).to.equal('open')
    })

    it('counts what nobody listened for', async () => {
      const offered = Promise.withResolvers<DatagramFlow>()
      await bob.services.datagrams.handle(GAME, offered.resolve)
      const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
      const inbound = await offered.promise
      flow.send(Uint8Array.of(1))
      await eventually(() => inbound.dropped.noListener === 1)

      expect(inbound.received).to.equal(0)
    })

    it('refuses a second handler, unless told to replace the first', async () => {
      await accept(bob)

      await expect(accept(bob)).to.eventually.be.rejected().with.property('name', 'InvalidParametersError')
      await bob.services.datagrams.handle(GAME, () => {}, { force: true })
      await bob.services.datagrams.unhandle(GAME)
      await accept(bob)
    })

    it('refuses protocol ids that can\'t be sent', async () => {
      for (const protocol of ['', 'x'.repeat(1_025), '\ud800']) {
        await expect(alice.services.datagrams.open(bob.getMultiaddrs(), protocol)).to.eventually.be.rejected()
          .with.property('name', 'InvalidParametersError')
      }
    })

    it('aborts opening', async () => {
      const reason = new Error('Changed my mind')
      const connection = await alice.dial(bob.getMultiaddrs())

      await expect(alice.services.datagrams.open(connection, GAME, { signal: AbortSignal.abort(reason) })).to.eventually.be.rejectedWith(reason)
      await eventually(() => connection.streams.length === 0)
    })

    it('opens no flow on a connection that is closed', async () => {
      const connection = await alice.dial(bob.getMultiaddrs())
      await connection.close()

      await expect(alice.services.datagrams.open(connection, GAME)).to.eventually.be.rejected()
        .with.property('name', 'SessionClosedError')
    })
  })
}

for (const { name, create } of schemes) {
  datagramTests(name, () => ({ schemes: [create()] }))
}

datagramTests('a scheme in TypeScript', () => ({ schemes: [plaintext()], endpoints: new MemoryNetwork() }))

describeSchemes('a flow\'s send queue', ({ createNode }) => {
  afterEach(stopNodes)

  it('says when it is full, and when there is room again', async () => {
    const alice = await createNode({ services: { datagrams: datagrams() } })
    const bob = await createNode({ services: { datagrams: datagrams() } })
    await accept(bob)
    const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
    const data = new Uint8Array(1_000)
    let sent = 0

    while (flow.send(data)) {
      sent++
      expect(sent).to.be.lessThan(100_000)
    }

    await new Promise((resolve) => { flow.addEventListener('drain', resolve, { once: true }) })
    expect(flow.sent).to.equal(sent + 1)
  })

  it('drops what is sent regardless of it, and counts that', async () => {
    const { metrics, calculated } = recordMetrics()
    const alice = await createNode({ metrics, services: { datagrams: datagrams() } })
    const bob = await createNode({ services: { datagrams: datagrams() } })
    await accept(bob)
    const flow = await alice.services.datagrams.open(bob.getMultiaddrs(), GAME)
    const data = new Uint8Array(1_000)
    const count = 5_000

    for (let i = 0; i < count; i++) {
      flow.send(data)
    }

    expect(flow.dropped.sendQueueFull).to.be.greaterThan(0)
    expect(flow.sent + flow.dropped.sendQueueFull).to.equal(count)

    const droppedBySessions = (): unknown => calculated('libp2p_datagrams_session_dropped_total')
    expect(droppedBySessions()).to.include({ sendQueueFull: flow.dropped.sendQueueFull })
    await flow.connection.close()
    await eventually(() => alice.getConnections().length === 0)
    expect(droppedBySessions()).to.include({ sendQueueFull: flow.dropped.sendQueueFull })
  })
})

describe('a limit of the datagrams service that is no number of things', () => {
  const names: Array<keyof DatagramsInit> = [
    'maxInboundFlows', 'maxOutboundFlows', 'negotiationTimeout', 'maxEarlyDatagrams', 'earlyTimeout', 'maxClosedFlows', 'closeTimeout', 'maxLogLines'
  ]

  for (const name of names) {
    it(`is refused: ${name}`, () => {
      const components: any = { logger: defaultLogger() }

      for (const value of [-1, 0.5, NaN, 2 ** 32]) {
        expect(() => datagrams({ [name]: value })(components)).to.throw(name).with.property('name', 'InvalidParametersError')
      }

      expect(() => datagrams({ [name]: 0 })(components)).to.not.throw()
    })
  }
})

describeSchemes('datagrams on the wire', ({ create, createNode, streamIdStep }) => {
  let alice: Pair['alice']
  let bob: Libp2p

  afterEach(stopNodes)

  /**
   * One side has the service, the other plays by hand what the draft says
   */
  async function setup ({ metrics, psec }: { metrics?: any, psec?: PsecInit } = {}, init: DatagramsInit = {}): Promise<Connection> {
    alice = await createNode({ metrics, psec, services: { datagrams: datagrams(init) } })
    bob = await createNode({ psec })
    const connection = await bob.dial(alice.getMultiaddrs())
    await eventually(() => alice.getConnections().length === 1)

    return connection
  }

  /** Nodes that reach each other by TCP as well, and have done so */
  async function setupBesideTcp (): Promise<{ overTcp: Multiaddr, overUdp: Multiaddr, connection: Connection }> {
    const config = {
      listen: ['/ip4/127.0.0.1/tcp/0'],
      transports: [tcp(), psec({ schemes: [create()] })],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      services: { datagrams: datagrams() }
    }
    alice = await createNode(config)
    bob = await createNode({ ...config, listen: ['/ip4/127.0.0.1/tcp/0', '/ip4/127.0.0.1/udp/0/psec'] })
    const [overTcp, overUdp] = bob.getMultiaddrs()

    return { overTcp, overUdp, connection: await alice.dial(overTcp) }
  }

  async function openControlStream (connection: Connection, protocol: string): Promise<Stream> {
    const stream = await connection.newStream('/dg/1')
    const lp = lpStream(stream)
    await lp.write(new TextEncoder().encode(protocol))
    lp.unwrap()

    return stream
  }

  function sendRaw (connection: Connection, streamId: number, ...payload: number[]): void {
    findSession(connection)?.sendDatagram(Uint8Array.of(...encode(streamId), ...payload))
  }

  it('are a control stream with the length-prefixed protocol, and its id before each payload', async () => {
    const connection = await setup()
    const received: number[][] = []
    const control = Promise.withResolvers<{ stream: Stream, protocol: string }>()
    const session = findSession(connection)

    if (session != null) {
      session.receiver = { onDatagram: (payload) => { received.push([...payload]) }, onDatagramDrain: () => {}, onClose: () => {} }
    }

    await bob.handle('/dg/1', async (stream) => {
      const lp = lpStream(stream)
      control.resolve({ stream, protocol: new TextDecoder().decode((await lp.read()).subarray()) })
    })

    const flow = await alice.services.datagrams.open(bob.peerId, GAME)
    flow.send(Uint8Array.of(7))
    const { stream, protocol } = await control.promise
    await eventually(() => received.length === 1)

    expect(protocol).to.equal(GAME)
    expect(received).to.deep.equal([[...encode(Number(stream.id)), 7]])
  })

  it('are delivered to the flow of their control stream, also when they overtook it', async () => {
    const connection = await setup()
    const flows = await accept(alice)
    const { id } = await openControlStream(connection, GAME)
    // what the scheme gives out next
    const nextId = Number(id) + streamIdStep
    sendRaw(connection, nextId, 1)
    sendRaw(connection, nextId, 2)
    const stream = await openControlStream(connection, GAME)
    await eventually(() => flows[1]?.messages.length === 2)
    sendRaw(connection, nextId, 3)
    await eventually(() => flows[1].messages.length === 3)

    expect(Number(stream.id)).to.equal(nextId)
    expect(flows[0].messages).to.be.empty()
    expect(flows[1].messages).to.have.deep.members([[1], [2], [3]])
  })

  it('are counted in the node\'s metrics if nobody listens, also of a flow that is over', async () => {
    const { metrics, calculated } = recordMetrics()
    const connection = await setup({ metrics })
    const offered = Promise.withResolvers<DatagramFlow>()
    await alice.services.datagrams.handle(GAME, offered.resolve)
    const stream = await openControlStream(connection, GAME)
    const flow = await offered.promise
    sendRaw(connection, Number(stream.id), 1)
    await eventually(() => (calculated('libp2p_datagrams_dropped_total') as any).noListener === 1)
    await flow.close()

    expect(calculated('libp2p_datagrams_dropped_total')).to.have.property('noListener', 1)
  })

  it('leave a count of the flows that were refused, by the reason', async () => {
    const { metrics, counters } = recordMetrics()
    const connection = await setup({ metrics })
    await openControlStream(connection, '/nobody/1.0.0')
    await eventually(() => counters('libp2p_datagrams_refused_flows_total').UnsupportedProtocolError === 1)

    expect(counters('libp2p_datagrams_refused_flows_total')).to.deep.equal({ UnsupportedProtocolError: 1 })
  })

  it('are dropped silently after their control stream was closed', async () => {
    const { metrics, calculated } = recordMetrics()
    const connection = await setup({ metrics })
    const flows = await accept(alice)
    const stream = await openControlStream(connection, GAME)
    await eventually(() => flows.length === 1)
    await stream.close()
    await eventually(() => flows[0].status === 'closed')
    sendRaw(connection, Number(stream.id), 1)
    await eventually(() => (calculated('libp2p_datagrams_dropped_total') as any).closed === 1)

    expect(flows[0].messages).to.be.empty()
    expect(connection.status).to.equal('open')
  })

  it('end the connection when they are too short for an id', async () => {
    const connection = await setup()
    const closed = new Promise<StreamCloseEvent>((resolve) => { connection.addEventListener('close', resolve) })
    findSession(connection)?.sendDatagram(Uint8Array.of(0xc0))

    expect((await closed).error).to.have.property('name', 'SessionFailedError')
    expect((await closed).error?.message).to.include('application error 0x1003')
    await eventually(() => alice.getConnections().length === 0)
  })

  it('end the connection when they are for a stream that the limit of streams does not allow yet', async () => {
    // the confirm stream would move the limit when it is over
    const connection = await setup({ psec: { confirm: 'off' } })
    const closed = new Promise<StreamCloseEvent>((resolve) => { connection.addEventListener('close', resolve) })
    sendRaw(connection, MAX_INBOUND_STREAMS * streamIdStep, 1)

    expect((await closed).error?.message).to.include('application error 0x1003')
  })

  it('are waited for by the last stream that the limit of streams allows', async () => {
    const { metrics, calculated } = recordMetrics()
    const connection = await setup({ metrics }, { earlyTimeout: 50 })
    sendRaw(connection, (MAX_INBOUND_STREAMS - 1) * streamIdStep, 1)
    await eventually(() => (calculated('libp2p_datagrams_dropped_total') as any).early === 1)

    expect(connection.status).to.equal('open')
  })

  it('wait no longer for a control stream\'s protocol than told', async () => {
    alice = await createNode({ services: { datagrams: datagrams({ negotiationTimeout: 100 }) } })
    bob = await createNode()
    const connection = await bob.dial(alice.getMultiaddrs())
    const stream = await connection.newStream('/dg/1')
    await new Promise((resolve) => { stream.addEventListener('close', resolve) })

    expect(stream.status).to.equal('reset')
  })

  it('wait no longer for the other side of a control stream than told, and count that', async () => {
    const { metrics, counters } = recordMetrics()
    alice = await createNode({ metrics, services: { datagrams: datagrams({ closeTimeout: 100 }) } })
    bob = await createNode()
    const connection = await bob.dial(alice.getMultiaddrs())
    const flows = await accept(alice)
    const stream = await openControlStream(connection, GAME)
    await eventually(() => flows.length === 1)
    await flows[0].close()
    await eventually(() => alice.getConnections()[0].streams.length === 0, 5_000)

    expect(stream.writeStatus).to.equal('writable')
    expect(counters('libp2p_datagrams_close_timeouts_total')).to.deep.equal({ count: 1 })
  })

  it('leave as many lines in the log as was said, and count the others', async () => {
    const { metrics, counters } = recordMetrics()
    const logger = defaultLogger()
    const log = Object.assign(() => {}, logger.forComponent('test'), { enabled: true })
    alice = await createNode({
      metrics,
      logger: { forComponent: (name) => name === 'libp2p:datagrams' ? log as unknown as Logger : logger.forComponent(name) },
      services: { datagrams: datagrams({ maxLogLines: 1 }) }
    })
    bob = await createNode()
    const connection = await bob.dial(alice.getMultiaddrs())
    await openControlStream(connection, '/nobody/1.0.0')
    await openControlStream(connection, '/nobody/1.0.0')
    await eventually(() => counters('libp2p_datagrams_refused_flows_total').UnsupportedProtocolError === 2)

    expect(counters('libp2p_datagrams_unlogged_lines_total')).to.deep.equal({ count: 1 })
  })

  it('need a transport that carries them', async () => {
    const { overUdp, connection } = await setupBesideTcp()

    await expect(alice.services.datagrams.open(bob.peerId, GAME)).to.eventually.be.rejected()
      .with.property('name', 'DatagramsUnsupportedError')
    expect(connection.streams).to.be.empty()

    await accept(bob as Pair['bob'])
    const other = await alice.dial(overUdp, { force: true })
    expect((await alice.services.datagrams.open(bob.peerId, GAME)).connection).to.equal(other)
  })

  it('go by a connection that carries them, beside one that does not', async () => {
    const { overTcp, overUdp, connection } = await setupBesideTcp()
    await accept(bob as Pair['bob'])

    const byAddress = await alice.services.datagrams.open(overUdp, GAME)
    expect(byAddress.connection.remoteAddr.toString()).to.include('/udp/')
    expect((await alice.services.datagrams.open(overUdp, GAME)).connection).to.equal(byAddress.connection)
    expect((await alice.services.datagrams.open([overTcp, overUdp], GAME)).connection).to.equal(byAddress.connection)
    await byAddress.connection.close()

    await alice.peerStore.merge(bob.peerId, { multiaddrs: [overTcp, overUdp] })
    const byPeerId = await alice.services.datagrams.open(bob.peerId, GAME)
    expect(byPeerId.connection.remoteAddr.toString()).to.include('/udp/')
    expect(connection.status).to.equal('open')
  })

  it('need a remote that takes them', async () => {
    await setup()

    await expect(alice.services.datagrams.open(bob.peerId, GAME)).to.eventually.be.rejected()
      .with.property('name', 'DatagramsUnsupportedError')
  })
})
