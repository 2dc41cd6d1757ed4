/**
 * What a node keeps of a remote that is connected, whichever scheme the session is of, and how sessions end
 */
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { quicDatagram } from '../src/index.ts'
import { InspectedSession } from '../src/transport/inspected-session.ts'
import { eventually } from './fixtures/eventually.ts'
import { createNode, getTransport, getUpgrader, stopNodes } from './fixtures/nodes.ts'
import { SessionProbe } from './fixtures/probes.ts'
import { recordMetrics } from './fixtures/record-metrics.ts'
import type { RecordedMetrics } from './fixtures/record-metrics.ts'
import type { PsecInit, SecureSession, SecureSessionHandler, SecureStream, SecureStreamHandler } from '../src/index.ts'
import type { Connection, Libp2p } from '@libp2p/interface'

const REFUSED_STREAMS = 'libp2p_psec_refused_streams_total'
const CLOSED_SESSIONS = 'libp2p_psec_closed_sessions_total'

describe('a session that is to be confirmed', () => {
  let inner: SecureSessionHandler
  let session: InspectedSession

  beforeEach(() => {
    session = new InspectedSession({
      session: {
        droppedDatagrams: { receiveQueueFull: 3, pathShrunk: 1 },
        refusedStreams: 1,
        start: (handler: SecureSessionHandler) => { inner = handler }
      } as unknown as SecureSession,
      held: { maxStreams: 1, maxDatagrams: 2 },
      onConfirmStream: () => {},
      onClose: () => {}
    })
    session.inspect()
  })

  function newStream (calls: string[] = []): SecureStream {
    return { start: () => {}, pause: () => {}, resume: () => {}, reset: () => { calls.push('reset') } } as unknown as SecureStream
  }

  it('holds as many datagrams as was said until it is started, and counts the others with the scheme\'s own', () => {
    for (let i = 0; i < 4; i++) {
      inner.onDatagram(Uint8Array.of(i))
    }

    const handler = new SessionProbe(session)
    inner.onDatagram(Uint8Array.of(4))
    expect(handler.datagrams.map(([value]) => value)).to.deep.equal([0, 1, 4])
    expect(session.droppedDatagrams).to.deep.equal({ receiveQueueFull: 3 + 2, pathShrunk: 1 })
  })

  it('looks at as many streams at a time as was said, and counts the others with the scheme\'s own', () => {
    const calls: string[] = []
    inner.onStream(newStream(calls))
    expect(calls).to.be.empty()
    inner.onStream(newStream(calls))
    expect(calls).to.deep.equal(['reset'])
    expect(session.refusedStreams).to.equal(1 + 1)
  })

  it('delivers nothing more of a stream that was looked at once it is reset', () => {
    let feed: SecureStreamHandler | undefined
    inner.onStream({ ...newStream(), start: (handler: SecureStreamHandler) => { feed = handler } })
    feed?.onData(Uint8Array.of(255))

    const [probe] = new SessionProbe(session).streams
    probe.stream.reset()
    feed?.onData(Uint8Array.of(1))
    feed?.onRemoteCloseWrite()

    expect(probe.events).to.deep.equal(['data'])
    expect(probe.received.slice()).to.equalBytes(Uint8Array.of(255))
  })

  it('holds as many streams as was said when there is nothing to look for any more', () => {
    const calls: string[] = []
    session.endInspection()
    inner.onStream(newStream(calls))
    inner.onStream(newStream(calls))
    expect(calls).to.deep.equal(['reset'])

    const handler = new SessionProbe(session)
    inner.onStream(newStream(calls))
    expect(handler.streams).to.have.lengthOf(2)
    expect(session.refusedStreams).to.equal(1 + 1)
  })
})

describe('a remote that is connected', () => {
  let metrics: RecordedMetrics
  let bob: Libp2p

  beforeEach(() => { metrics = recordMetrics() })
  afterEach(stopNodes)

  /** The dialler's side of a connection with bob, who counts */
  async function connect (init: PsecInit, dialler: PsecInit = {}): Promise<Connection> {
    bob = await createNode({ psec: init, metrics: metrics.metrics })
    const alice = await createNode({ psec: dialler, listen: [] })

    return getTransport(alice).dial(multiaddr(bob.getMultiaddrs()[0].toString().replace(/\/p2p\/.*/, '')), {
      upgrader: getUpgrader(alice),
      signal: AbortSignal.timeout(10_000)
    })
  }

  it('may open as many streams as was said before it has confirmed, if it has to, and others are counted', async () => {
    const connection = await connect({ confirm: 'require', maxHeldStreams: 1, confirmTimeout: 60_000 }, { confirm: 'off' })

    for (let i = 0; i < 3; i++) {
      // rejects when it is reset
      connection.newStream('/never/1.0.0').catch(() => {})
    }

    await eventually(() => connection.streams.length === 1)
    await connection.close()
    await eventually(() => metrics.counters(REFUSED_STREAMS).hold_full === 2)
  })

  it('is told to stop when it sends more than was said on a stream that nobody reads, which is counted', async () => {
    const connection = await connect({ maxUnwantedBytes: 1_000 })
    await bob.handle('/deaf/1.0.0', async (stream) => { await stream.closeRead() })
    const stream = await connection.newStream('/deaf/1.0.0')
    stream.send(new Uint8Array(1_001))

    await eventually(() => stream.remoteReadStatus === 'closed')
    expect(metrics.counters(REFUSED_STREAMS)).to.deep.equal({ unwanted: 1 })
  })

  describe('is counted by the cause of its end', () => {
    it('when it closes in order', async () => {
      const connection = await connect({})
      await eventually(() => bob.getConnections().length === 1)
      await connection.close()
      await eventually(() => metrics.counters(CLOSED_SESSIONS).closed === 1)
    })

    it('when it ends the session with an error', async () => {
      const connection = await connect({})
      await eventually(() => bob.getConnections().length === 1)
      connection.abort(new Error('Out of order'))
      await eventually(() => metrics.counters(CLOSED_SESSIONS).remote_error === 1)
    })

    it('when this side does', async () => {
      await connect({})
      await eventually(() => bob.getConnections().length === 1)
      bob.getConnections()[0].abort(new Error('Enough'))
      await eventually(() => metrics.counters(CLOSED_SESSIONS).aborted === 1)
    })

    it('when nothing is heard of it for as long as was said', async () => {
      const init = { schemes: [quicDatagram({ idleTimeout: 300, keepAliveInterval: 60_000 })] }
      await connect(init, init)
      await eventually(() => metrics.counters(CLOSED_SESSIONS).timed_out === 1)
    })
  })
})
