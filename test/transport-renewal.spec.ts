/**
 * A remote that proposes afresh from an address with which there is a session, or a negotiation, already (design,
 * "Crossings")
 */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { datagrams } from '../src/index.ts'
import { UdpEndpoint } from '../src/sockets/udp.ts'
import { encodeFrame } from '../src/wire/index.ts'
import { expectEcho, handleEcho } from './fixtures/echo.ts'
import { trackEndpoints } from './fixtures/endpoints.ts'
import { eventually } from './fixtures/eventually.ts'
import { getTransport, getUpgrader, stopNodes } from './fixtures/nodes.ts'
import { PLAINTEXT_PROTOCOL, plaintext } from './fixtures/plaintext-scheme.ts'
import { countEvents, recordMetrics } from './fixtures/record-metrics.ts'
import { describeSchemes } from './fixtures/schemes.ts'
import { StubScheme, StubSession } from './fixtures/stub-scheme.ts'
import { UdpRelay } from './fixtures/udp-relay.ts'
import type { NodeOptions } from './fixtures/nodes.ts'
import type { Datagrams, PsecDialEvents } from '../src/index.ts'
import type { PacketSocket } from '../src/sockets/index.ts'
import type { Connection, Libp2p, PeerId } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

const GAME = '/test/game/1.0.0'
const SUPPLANTED = 0x1004

/** Far below what an old session or a half-open handshake takes to time out */
const AT_ONCE = 4_000

/** For how long after a session has begun a proposal like the one that led to it may be a late copy of that */
const COPY_LIFETIME = 2_000

function addressOf (node: Libp2p<any>): Multiaddr {
  return multiaddr(node.getMultiaddrs()[0].toString().replace(/\/p2p\/.*/, ''))
}

function portOf (node: Libp2p<any>): number {
  return Number(addressOf(node).getComponents()[1].value)
}

/**
 * Dial by the transport itself, which does not merge dials as libp2p does
 */
async function dial (node: Libp2p<any>, ma: Multiaddr, options: { signal?: AbortSignal, onProgress?(evt: PsecDialEvents): void } = {}): Promise<Connection> {
  return getTransport(node).dial(ma, {
    upgrader: getUpgrader(node),
    signal: options.signal ?? AbortSignal.timeout(AT_ONCE),
    onProgress: options.onProgress
  })
}

/**
 * Wait until that many milliseconds are over, by the clock that the nodes go by
 */
async function passed (time: number): Promise<void> {
  const end = performance.now() + time
  await eventually(() => performance.now() >= end)
}

/**
 * A proposal that differs from all others by its initiation packet
 */
function forgedProposal (peerId: PeerId, scheme: string, packet: number, firstByte: number = packet): Uint8Array {
  return encodeFrame({
    type: 'propose',
    peerId: peerId.toMultihash().bytes,
    schemes: [scheme],
    initiationPacket: Uint8Array.of(firstByte, ...new Uint8Array(1199).fill(packet))
  })
}

describeSchemes('a remote that proposes afresh', ({ create, createNode, protocol, firstByte, endsAnytime }) => {
  const relays: UdpRelay[] = []

  afterEach(async () => {
    await stopNodes()
    relays.splice(0).forEach(relay => { relay.close() })
  })

  async function openRelay (node: Libp2p<any>): Promise<UdpRelay> {
    const relay = await UdpRelay.open(portOf(node))
    relays.push(relay)

    return relay
  }

  describe('after it vanished without a goodbye', () => {
    it('connects at once, every time, and its old connection is closed', async () => {
      const privateKey = await generateKeyPair('Ed25519')
      const bob = await createNode()
      await handleEcho(bob)
      const relay = await openRelay(bob)
      await dial(await createNode({ privateKey, listen: [] }), relay.address)

      for (let i = 0; i < 3; i++) {
        await eventually(() => bob.getConnections().length === 1)
        const [old] = bob.getConnections()
        relay.mute()

        const connection = await dial(await createNode({ privateKey, listen: [] }), relay.address)
        await eventually(() => old.timeline.close != null && bob.getConnections().length === 1)
        await expectEcho(connection)
        expect(connection.status).to.equal('open')
      }
    })

    /** It proposes without an initiation packet, so its proposal is the same as before. Resolves with how to dial as it, and its old connection. */
    async function vanish (): Promise<{ comeBack (signal?: AbortSignal): Promise<Connection>, bob: Libp2p<any>, old: Connection }> {
      const privateKey = await generateKeyPair('Ed25519')
      const bob = await createNode()
      await handleEcho(bob)
      const relay = await openRelay(bob)
      const comeBack = async (signal?: AbortSignal): Promise<Connection> => {
        return dial(await createNode({ privateKey, psec: { schemes: [create()], initiationPacket: false }, listen: [] }), relay.address, { signal })
      }
      await comeBack()
      await eventually(() => bob.getConnections().length === 1)
      relay.mute()

      return { comeBack, bob, old: bob.getConnections()[0] }
    }

    it('connects at once without an initiation packet, too, although its proposal is the same as before', async () => {
      const { comeBack, bob, old } = await vanish()
      await passed(COPY_LIFETIME)

      const connection = await comeBack()
      await eventually(() => old.timeline.close != null && bob.getConnections().length === 1)
      await expectEcho(connection)
    })

    it('connects without an initiation packet although its old session is young: it goes on proposing until that is old', async () => {
      const { comeBack } = await vanish()

      await expectEcho(await comeBack(AbortSignal.timeout(2 * AT_ONCE)))
    })

    it('can open streams and be opened streams to', async () => {
      const privateKey = await generateKeyPair('Ed25519')
      const bob = await createNode()
      const relay = await openRelay(bob)
      await dial(await createNode({ privateKey, listen: [] }), relay.address)
      relay.mute()
      const alice = await createNode({ privateKey, listen: [] })
      await Promise.all([handleEcho(alice), handleEcho(bob)])
      await expectEcho(await dial(alice, relay.address))
      await eventually(() => bob.getConnections().length === 1 && bob.getConnections()[0].status === 'open')
      await expectEcho(bob.getConnections()[0])
    })

    it('leaves one socket when its old session has ended', async () => {
      const endpoints = trackEndpoints()
      const privateKey = await generateKeyPair('Ed25519')
      const bob = await createNode({ psec: { endpoints } })
      await handleEcho(bob)
      const relay = await openRelay(bob)
      const get = (): PacketSocket | undefined => endpoints.endpoints[0].get(relay.outside)
      await dial(await createNode({ privateKey, listen: [] }), relay.address)
      await eventually(() => get() != null)
      const old = get()
      relay.mute()
      const connection = await dial(await createNode({ privateKey, listen: [] }), relay.address)
      await eventually(() => old?.status === 'closed')

      expect(get()).to.have.property('status', 'open')
      await expectEcho(connection)
      await connection.close()
      await eventually(() => get() == null)
    })
  })

  describe('while somebody is there', () => {
    async function expectUndisturbed (schemes: NodeOptions<{}>['psec'], forged: string): Promise<void> {
      const endpoints = trackEndpoints()
      const metrics = recordMetrics()
      const bob = await createNode({
        metrics: metrics.metrics,
        psec: { ...schemes, endpoints, handshakeTimeout: 500 },
        services: { datagrams: datagrams() }
      })
      const alice = await createNode({ listen: [], psec: schemes, services: { datagrams: datagrams() } })
      const relay = await openRelay(bob)
      const received: number[] = []
      await handleEcho(bob)
      await bob.services.datagrams.handle(GAME, (flow) => {
        flow.addEventListener('message', ({ data }) => {
          received.push(data.subarray()[0])
          flow.send(data)
        })
      })
      const connection = await dial(alice, relay.address)
      const echoed: number[] = []
      const flow = await (alice.services.datagrams as Datagrams).open(connection, GAME)
      flow.addEventListener('message', ({ data }) => { echoed.push(data.subarray()[0]) })
      const socket = endpoints.endpoints[0].get(relay.outside)

      for (let i = 1; i <= 5; i++) {
        relay.inject(forgedProposal(i % 2 === 0 ? alice.peerId : (await strangerId()), forged, i, firstByte))
        await eventually(() => countEvents(metrics, 'renewal') === i)
        await expectEcho(connection)
        flow.send(Uint8Array.of(i))
        await eventually(() => received.includes(i) && echoed.includes(i))
      }

      // nothing comes of the last one
      await eventually(() => endpoints.endpoints[0].get(relay.outside) === socket)
      await expectEcho(connection)
      flow.send(Uint8Array.of(6))
      await eventually(() => echoed.includes(6))
      expect(bob.getConnections().map(({ status }) => status)).to.deep.equal(['open'])
    }

    async function strangerId (): Promise<PeerId> {
      return peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
    }

    it('is answered, and a forgery does not disturb the session', async () => {
      await expectUndisturbed({}, protocol)
    })

    it('does not disturb a session of a scheme in JavaScript by one of the engine', async () => {
      await expectUndisturbed({ schemes: [plaintext(), create()] }, protocol)
    })

    it('does not disturb a session of the engine by a scheme in JavaScript', async () => {
      await expectUndisturbed({ schemes: [create(), plaintext()] }, PLAINTEXT_PROTOCOL)
    })

    it('does not disturb its session by a copy of its proposal that is very late', async () => {
      const endpoints = trackEndpoints()
      const metrics = recordMetrics()
      const bob = await createNode({ metrics: metrics.metrics, psec: { endpoints, handshakeTimeout: 500 } })
      await handleEcho(bob)
      const relay = await openRelay(bob)
      const alice = await createNode({ listen: [] })
      const connection = await dial(alice, relay.address)
      await eventually(() => bob.getConnections().length === 1)
      const socket = endpoints.endpoints[0].get(relay.outside)
      await passed(COPY_LIFETIME)
      relay.inject(encodeFrame({ type: 'propose', peerId: alice.peerId.toMultihash().bytes, schemes: [protocol] }))
      await eventually(() => countEvents(metrics, 'renewal') === 1)
      await expectEcho(connection)

      // nothing comes of it
      await eventually(() => endpoints.endpoints[0].get(relay.outside) === socket)
      await expectEcho(connection)
      expect(bob.getConnections().map(({ status }) => status)).to.deep.equal(['open'])
    })

    for (const [name, first, second] of [
      ['the same scheme', create, create],
      ['a scheme in JavaScript', create, plaintext],
      ['a scheme of the engine', plaintext, create]
    ] as const) {
      it(`gets a connection beside it by ${name} if it is another peer`, async () => {
        const bob = await createNode({ psec: { schemes: [create(), plaintext()] } })
        await handleEcho(bob)
        const relay = await openRelay(bob)
        const alice = await dial(await createNode({ listen: [], psec: { schemes: [first()] } }), relay.address)
        const carol = await dial(await createNode({ listen: [], psec: { schemes: [second()] } }), relay.address)

        await expectEcho(alice)
        await expectEcho(carol)
        await alice.close()
        await expectEcho(carol)
        await eventually(() => bob.getConnections().length === 1)
      })
    }

    it('turns a third away while two peers share the address', async () => {
      const metrics = recordMetrics()
      const bob = await createNode({ metrics: metrics.metrics })
      await handleEcho(bob)
      const relay = await openRelay(bob)
      const connections = [
        await dial(await createNode({ listen: [] }), relay.address),
        await dial(await createNode({ listen: [] }), relay.address)
      ]
      await eventually(() => bob.getConnections().length === 2)
      relay.inject(forgedProposal(await strangerId(), protocol, 1))
      await eventually(() => countEvents(metrics, 'renewal_ignored') === 1)
      await Promise.all(connections.map(expectEcho))
    })

    it('is ignored, and counted, by an endpoint that opens no second socket', async () => {
      const endpoints = trackEndpoints()
      const metrics = recordMetrics()
      const bob = await createNode({
        metrics: metrics.metrics,
        psec: {
          endpoints: {
            open: async (options) => Object.assign(await endpoints.open(options), { renew: undefined })
          }
        }
      })
      await handleEcho(bob)
      const relay = await openRelay(bob)
      const connection = await dial(await createNode({ listen: [] }), relay.address)
      relay.inject(forgedProposal(await strangerId(), protocol, 1))
      await eventually(() => countEvents(metrics, 'renewal_ignored') === 1)
      await expectEcho(connection)
    })

    it('is ignored, and counted, by a port that does not listen', async () => {
      const endpoints = trackEndpoints()
      const metrics = recordMetrics()
      const bob = await createNode()
      await handleEcho(bob)
      const relay = await openRelay(bob)
      const alice = await createNode({ listen: [], metrics: metrics.metrics, psec: { endpoints } })
      const connection = await dial(alice, relay.address)
      const toAlice = await UdpRelay.open(endpoints.endpoints[0].localAddress.port)
      relays.push(toAlice)
      toAlice.inject(forgedProposal(await strangerId(), protocol, 1))
      await expectEcho(connection)
      expect(toAlice.answers).to.be.empty()
    })
  })

  describe('while its last proposal is dealt with', () => {
    // before the responder can have answered, and after it has
    for (const step of ['psec:propose', 'psec:agreed'] as const) {
      it(`connects at once after a dial that was aborted at ${step}`, async () => {
        const bob = await createNode()
        const alice = await createNode()
        await handleEcho(bob)

        for (let i = 0; i < 3; i++) {
          const controller = new AbortController()
          await expect(dial(alice, addressOf(bob), {
            signal: controller.signal,
            onProgress: (evt) => { evt.type === step && controller.abort() }
          })).to.eventually.be.rejected()
        }

        const connection = await dial(alice, addressOf(bob))
        await expectEcho(connection)
        await eventually(() => bob.getConnections().length === 1)
        expect(bob.getConnections()[0].remoteAddr.toString()).to.include(`/udp/${portOf(alice)}`)
      })
    }

    if (endsAnytime) {
      it('connects although it takes the answer to a dial that it gave up for its own, which was lost', async () => {
        const bob = await createNode()
        const alice = await createNode({ listen: [] })
        await handleEcho(bob)
        const relay = await openRelay(bob)
        relay.hold()
        const controller = new AbortController()
        await expect(dial(alice, relay.address, {
          signal: controller.signal,
          onProgress: (evt) => { evt.type === 'psec:propose' && controller.abort() }
        })).to.eventually.be.rejected()
        // the proposal, the rest of the first flight, and the goodbye
        await eventually(() => relay.held.length === 3)

        const agreed = Promise.withResolvers<void>()
        const proposals: number[] = []
        const dialling = dial(alice, relay.address, {
          signal: AbortSignal.timeout(2 * AT_ONCE),
          onProgress: ({ type }) => {
            type === 'psec:propose' && proposals.push(relay.answers.length)
            type === 'psec:agreed' && agreed.resolve()
          }
        })
        await eventually(() => relay.held.length === 5)
        relay.release(3)
        await agreed.promise
        expect(proposals).to.deep.equal([0])

        await expectEcho(await dialling)
      })
    }

    it('has two handshakes under way at most, the first and the latest', async () => {
      const scheme = new StubScheme('/stub')
      const metrics = recordMetrics()
      const bob = await createNode({ metrics: metrics.metrics, psec: { schemes: [scheme] } })
      const relay = await openRelay(bob)
      const peerId = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))

      for (let i = 1; i <= 4; i++) {
        relay.inject(forgedProposal(peerId, '/stub', i))
        await eventually(() => scheme.responses.length === i)
      }

      expect(scheme.responses.map(({ options }) => options.signal?.aborted)).to.deep.equal([false, true, true, false])
      expect(countEvents(metrics, 'connection')).to.equal(4)
      expect(countEvents(metrics, 'renewal')).to.equal(3)
    })

    it('is subject to the limit of upgrades that are pending', async () => {
      const scheme = new StubScheme('/stub')
      const metrics = recordMetrics()
      const bob = await createNode({ metrics: metrics.metrics, psec: { schemes: [scheme], maxPendingInbound: 1 } })
      const relay = await openRelay(bob)
      const peerId = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
      relay.inject(forgedProposal(peerId, '/stub', 1))
      await eventually(() => scheme.responses.length === 1)
      relay.inject(forgedProposal(peerId, '/stub', 2))
      await eventually(() => countEvents(metrics, 'turned_away') === 1)

      expect(scheme.responses).to.have.lengthOf(1)
    })

    it('takes those along who joined the first', async () => {
      const scheme = new StubScheme('/stub')
      const bob = await createNode({ psec: { schemes: [scheme] } })
      const relay = await openRelay(bob)
      const peerId = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
      const ma = multiaddr(`/ip4/127.0.0.1/udp/${relay.outside.port}`)
      relay.inject(forgedProposal(peerId, '/stub', 1))
      await eventually(() => scheme.responses.length === 1)
      const first = dial(bob, ma)
      relay.inject(forgedProposal(peerId, '/stub', 2))
      await eventually(() => scheme.responses.length === 2)
      const second = dial(bob, ma)
      scheme.responses[1].session.resolve(new StubSession(peerId, scheme.responses[1].socket))

      expect(await first).to.equal(await second)
      expect((await first).remotePeer.equals(peerId)).to.equal(true)
      expect(scheme.responses[0].options.signal?.aborted).to.equal(true)
      expect(scheme.initiations).to.be.empty()
    })
  })

  it('is told that its old session was supplanted', async () => {
    const scheme = new StubScheme('/stub')
    const bob = await createNode({ psec: { schemes: [scheme] } })
    const relay = await openRelay(bob)
    const peerId = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
    const sessions: StubSession[] = []

    for (let i = 0; i < 2; i++) {
      relay.inject(forgedProposal(peerId, '/stub', i))
      await eventually(() => scheme.responses.length === i + 1)
      expect(sessions[0]?.aborted).to.equal(undefined)
      sessions.push(new StubSession(peerId, scheme.responses[i].socket))
      scheme.responses[i].session.resolve(sessions[i])
      await eventually(() => bob.getConnections().some(({ status }) => status === 'open'))
    }

    await eventually(() => sessions[0].status === 'closed')
    expect(sessions[0].aborted).to.have.property('name', 'SessionFailedError')
    expect(sessions[0].abortCode).to.equal(SUPPLANTED)
    expect(sessions[1].status).to.equal('open')
  })
})

describe('the second UDP socket for a remote', () => {
  it('is the newest, and the only one to get what looks like a PSEC frame', async () => {
    const endpoint = new UdpEndpoint({ host: '127.0.0.1', port: 0 })
    const remote = createSocket('udp4')
    remote.bind(0, '127.0.0.1')
    await once(remote, 'listening')
    const send = (...bytes: number[]): void => { remote.send(Uint8Array.from(bytes), endpoint.localAddress.port, '127.0.0.1') }

    try {
      const address = { host: '127.0.0.1', port: remote.address().port }
      const first = endpoint.connect(address)
      const second = endpoint.renew(first)
      const got: Array<[PacketSocket, string]> = []

      for (const socket of [first, second]) {
        socket.addEventListener('message', ({ detail }) => { got.push([socket, Buffer.from(detail).toString('hex')]) })
      }

      expect(endpoint.get(address)).to.equal(second)
      expect(() => endpoint.renew(first)).to.throw().with.property('name', 'InvalidParametersError')
      expect(() => endpoint.connect(address)).to.throw().with.property('name', 'InvalidParametersError')

      send(0, 7)
      send(255)
      send(80, 7)
      await eventually(() => got.length === 4)
      expect(got).to.deep.equal([[second, '0007'], [second, 'ff'], [first, '5007'], [second, '5007']])

      second.close()
      expect(endpoint.get(address)).to.equal(first)
      send(1, 7)
      await eventually(() => got.length === 5)
      expect(got[4]).to.deep.equal([first, '0107'])

      const third = endpoint.renew(first)
      first.close()
      expect(endpoint.get(address)).to.equal(third)
      third.close()
      expect(endpoint.get(address)).to.equal(undefined)
      expect(() => endpoint.renew(third)).to.throw().with.property('name', 'InvalidParametersError')
    } finally {
      remote.close()
      await endpoint.close()
    }
  })
})
