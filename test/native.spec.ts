import { once } from 'node:events'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { defaultLogger } from '@libp2p/logger'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { expect } from 'aegir/chai'
import { EnginePort } from '../src/engine/port.ts'
import { NativeSession } from '../src/schemes/native/session.ts'
import type { NativeFlow } from '../src/engine/flow.ts'
import type { NativeBatch, NativeNotice } from '../src/engine/native.ts'
import type { PortEvents, SessionEvents } from '../src/engine/port.ts'

describe('a session of the engine', () => {
  const queues = { streamReceiveQueue: 1024, streamSendQueue: 1024, datagramSendQueue: 1024, maxHeldStreams: 1, maxHeldDatagrams: 1 }
  let flow: { owner: 'nobody' | 'session' | 'released' | 'closed' }
  let session: NativeSession

  // of the engine only what is called, so that a test can say what it tells in which order
  beforeEach(() => {
    flow = { owner: 'nobody' }
    const commands = { respond () {}, closeSession () {} }
    const port = { addSession: () => 1, removeSession () {}, commands, urgentCommands: commands }
    const nativeFlow: NativeFlow = {
      port: port as unknown as EnginePort,
      peer: () => ({ host: '192.0.2.1', port: 4001, maxDatagramSize: 1452, maxProbeSize: 1452 }),
      handOver: () => { flow.owner = 'session' },
      release: () => { flow.owner = 'released' },
      close: () => { flow.owner = 'closed' }
    }
    session = new NativeSession({ protocol: '/test/1.0.0', flow: nativeFlow, queues, log: defaultLogger().forComponent('test') })
  })

  async function securedNotice (): Promise<{ type: 'secured', peerId: Uint8Array, localKey: Uint8Array, remoteKey: Uint8Array }> {
    const peerId = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))

    return { type: 'secured', peerId: peerId.toMultihash().bytes, localKey: new Uint8Array(), remoteKey: new Uint8Array() }
  }

  it('is nobody\'s, and leaves the socket to whoever waits, if it ends in the turn in which it is secured', async () => {
    const secured = await securedNotice()
    const responding = session.respond({}, { privateKey: undefined as any, logger: defaultLogger(), earlyDatagrams: [] })
    session.onNotice(secured)
    session.onNotice({ type: 'closed', cause: 'remote', message: '' })

    await expect(responding).to.eventually.be.rejectedWith(/the remote closed it/)
      .with.property('name', 'HandshakeFailedError')
    expect(flow.owner).to.equal('released')
  })

  it('closes the socket if it ends after that', async () => {
    const secured = await securedNotice()
    const responding = session.respond({}, { privateKey: undefined as any, logger: defaultLogger(), earlyDatagrams: [] })
    session.onNotice(secured)
    await responding
    session.onNotice({ type: 'closed', cause: 'remote', message: '' })

    expect(flow.owner).to.equal('closed')
  })
})

describe('a port of the engine', () => {
  const NOTICE = 11

  function batch (session: number, notice: NativeNotice): NativeBatch {
    return { records: Float64Array.of(NOTICE, session, 0, 0, 0), data: new Uint8Array(), notices: [notice] }
  }

  it('passes on what follows the end of a session when all that the end sets going is done', async () => {
    const told: string[] = []
    const overheard = Promise.withResolvers<void>()
    const batches = [
      batch(1, { type: 'closed', cause: 'remote', message: '' }),
      batch(0, { type: 'raw', host: '192.0.2.1', port: 4001, data: Uint8Array.of(0) })
    ]
    const events: PortEvents = {
      onRaw: () => {
        told.push('a proposal')
        overheard.resolve()
      }
    }
    let wake = (): void => {}
    // its constructor is for `bind` and `detached`, which have an engine
    const port: EnginePort = new (EnginePort as any)(events, (callback: () => void) => {
      wake = callback

      return { drain: () => batches.shift() ?? null }
    })
    const session: Partial<SessionEvents> = {
      onNotice: () => { Promise.resolve().then(() => Promise.resolve()).then(() => { told.push('the end') }, () => {}) }
    }
    port.addSession(session as SessionEvents)
    wake()
    await overheard.promise

    expect(told).to.deep.equal(['the end', 'a proposal'])
  })

  it('passes on what follows if somebody throws, whose error is not lost either', async () => {
    const told: number[] = []
    const batches = [{
      records: Float64Array.of(NOTICE, 0, 0, 0, 0, NOTICE, 0, 1, 0, 0),
      data: new Uint8Array(),
      notices: [1, 2].map((port): NativeNotice => ({ type: 'raw', host: '192.0.2.1', port, data: Uint8Array.of(0) }))
    }]
    let wake = (): void => {}
    // as above
    // eslint-disable-next-line no-new
    new (EnginePort as any)({
      onRaw: (_host: string, port: number) => {
        told.push(port)

        if (port === 1) {
          throw new Error('A handler failed')
        }
      }
    }, (callback: () => void) => {
      wake = callback

      return { drain: () => batches.shift() ?? null }
    })

    // the test runner's, which takes any for the test's failure
    const listeners = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')

    try {
      const uncaught = once(process, 'uncaughtException')
      wake()

      expect((await uncaught)[0]).to.have.property('message', 'A handler failed')
      expect(told).to.deep.equal([1, 2])
    } finally {
      listeners.forEach(listener => process.on('uncaughtException', listener))
    }
  })
})
