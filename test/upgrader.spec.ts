import { getEventListeners } from 'node:events'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { defaultLogger } from '@libp2p/logger'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { expect } from 'aegir/chai'
import { compareIds } from '../src/negotiation/index.ts'
import { quicDatagram } from '../src/schemes/quic-datagram/index.ts'
import { MemoryNetwork } from '../src/sockets/memory.ts'
import { PsecUpgrader } from '../src/upgrader/index.ts'
import { maxInitiationPacketSize } from '../src/upgrader/packet-size.ts'
import { decodeFrame, encodeFrame, looksLikeFrame } from '../src/wire/index.ts'
import { MemoryClock } from './fixtures/memory-clock.ts'
import { stubMetrics } from './fixtures/metrics.ts'
import { PLAINTEXT_PROTOCOL, plaintext } from './fixtures/plaintext-scheme.ts'
import { createPsecPeer } from './fixtures/psec-peer.ts'
import { seededRandom } from './fixtures/random.ts'
import { StubScheme, StubSession } from './fixtures/stub-scheme.ts'
import type { PsecPeer, PsecPeerInit } from './fixtures/psec-peer.ts'
import type { SecurityScheme } from '../src/schemes/index.ts'
import type { PacketEndpoint, PacketSocket } from '../src/sockets/index.ts'
import type { MemoryNetworkInit } from '../src/sockets/memory.ts'
import type { PsecProgressEvents, SecuredSocket, UpgradeOptions } from '../src/upgrader/index.ts'

/** A peer at a port */
interface Node extends PsecPeer {
  endpoint: PacketEndpoint
  upgrades: Array<Promise<SecuredSocket>>
  sockets: Set<PacketSocket>
}

interface Sent {
  from: string
  datagram: Uint8Array
}

const OTHER = '/other-test/1.0.0'

describe('PSEC upgrader', () => {
  let clock: MemoryClock
  let network: MemoryNetwork
  let nodes: Node[]
  let sent: Sent[]
  const never = new AbortController().signal

  function setup (init: MemoryNetworkInit = {}): void {
    clock = new MemoryClock()
    nodes = []
    sent = []
    network = new MemoryNetwork({
      clock,
      onSend: (datagram, from) => {
        sent.push({ from: from.host, datagram: datagram.slice() })
        return undefined
      },
      ...init
    })
  }

  beforeEach(() => { setup() })

  /** Ends what is left, and finds what should not be */
  afterEach(async () => {
    for (const node of nodes) {
      for (const upgrade of await Promise.allSettled(node.upgrades.map(async upgrade => Promise.race([upgrade, Promise.reject(new Error('pending'))])))) {
        if (upgrade.status === 'fulfilled') {
          upgrade.value.session.abort(new Error('The test is over'))
        }
      }
    }

    await network.close()
    await clock.advance(0)
    expectNothingLeft()
  })

  function expectNothingLeft (): void {
    expect(clock.pending, 'timers left').to.equal(0)

    for (const { sockets } of nodes) {
      for (const socket of sockets) {
        expect(socket.status, 'a socket left').to.equal('closed')
        expect((socket as any).listenerCount('message'), 'message listeners left').to.equal(0)
        expect((socket as any).listenerCount('close'), 'close listeners left').to.equal(0)
      }
    }
  }

  async function createNode (host: string, init: Partial<PsecPeerInit> = {}): Promise<Node> {
    const peer = await createPsecPeer({ schemes: [plaintext({ clock })], clock, ...init })
    const node: Node = { ...peer, endpoint: network.endpoint({ host, port: 1 }), upgrades: [], sockets: new Set() }
    nodes.push(node)

    return node
  }

  function listen (node: Node, options: Partial<UpgradeOptions> = {}): void {
    node.endpoint.accept({
      filter: (datagram) => node.upgrader.isProposal(datagram),
      onSocket: (socket, firstDatagram) => {
        node.sockets.add(socket)
        track(node, node.upgrader.upgradeInbound(socket, { signal: never, ...options, firstDatagram }))
      }
    })
  }

  function socketTo (from: Node, to: Node): PacketSocket {
    const socket = from.endpoint.get(to.endpoint.localAddress) ?? from.endpoint.connect(to.endpoint.localAddress)
    from.sockets.add(socket)

    return socket
  }

  async function dial (from: Node, to: Node, options: Partial<UpgradeOptions> = {}): Promise<SecuredSocket> {
    return track(from, from.upgrader.upgradeOutbound(socketTo(from, to), { signal: never, ...options }))
  }

  function track (node: Node, upgrade: Promise<SecuredSocket>): Promise<SecuredSocket> {
    upgrade.catch(() => {})
    node.upgrades.push(upgrade)

    return upgrade
  }

  function frames (from: string): Uint8Array[] {
    return sent.filter(entry => entry.from === from && looksLikeFrame(entry.datagram)).map(entry => entry.datagram)
  }

  describe('standard negotiation', () => {
    it('costs no round trip with the initiation packet', async () => {
      setup({ delay: 50 })
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      const dialed = await clock.until(dial(alice, bob))
      const accepted = await bob.upgrades[0]

      expect(dialed.negotiation).to.deep.equal({
        scheme: PLAINTEXT_PROTOCOL,
        role: 'initiator',
        simultaneous: false,
        localSchemes: [PLAINTEXT_PROTOCOL],
        remoteSchemes: undefined,
        timings: { agreed: 100, secured: 100 }
      })
      expect(accepted.negotiation).to.deep.equal({
        scheme: PLAINTEXT_PROTOCOL,
        role: 'responder',
        simultaneous: false,
        localSchemes: [PLAINTEXT_PROTOCOL],
        remoteSchemes: [PLAINTEXT_PROTOCOL],
        timings: { agreed: 0, secured: 0 }
      })
      expect(dialed.session.remotePeer.equals(bob.peerId)).to.be.true()
      expect(accepted.session.remotePeer.equals(alice.peerId)).to.be.true()
    })

    it('sends the accept before the scheme\'s answer', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      await clock.until(dial(alice, bob))

      expect(sent.map(({ from, datagram }) => [from, datagram[0]])).to.deep.equal([
        ['alice', 0],
        ['bob', 1],
        ['bob', 0x41]
      ])
    })

    it('hands the socket over in the turn of the agreement, so that the scheme\'s answer leaves along with the accept', async () => {
      const stub = new StubScheme(OTHER, async () => [Uint8Array.of(0x40)])
      const scheme: SecurityScheme = {
        protocol: OTHER,
        initiate: (socket, options) => stub.initiate(socket, options),
        respond: async (socket, options) => {
          socket.send(Uint8Array.of(0x41))

          return stub.respond(socket, options)
        }
      }
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme] }), createNode('bob', { schemes: [scheme] })])
      dial(alice, bob).catch(() => {})
      await clock.advance(0)
      const [proposal] = frames('alice')
      const toAlice = socketTo(bob, alice)
      const accept = encodeFrame({ type: 'accept', scheme: OTHER })
      track(bob, bob.upgrader.upgradeInbound(toAlice, { signal: never, firstDatagram: proposal }))

      expect(sent.filter(({ from }) => from === 'bob').map(({ datagram }) => datagram)).to.deep.equal([accept, Uint8Array.of(0x41)])
      expect(stub.responses[0].options.earlyDatagrams).to.deep.equal([Uint8Array.of(0x40)])
      expect(stub.responses[0].options.claimedId).to.deep.equal(alice.peerId.toMultihash().bytes)

      expect(stub.initiations[0].proceeded).to.be.undefined()
      socketTo(alice, bob).safeDispatchEvent('message', { detail: accept })
      expect(stub.initiations[0].proceeded).to.deep.include({ sendFirstFlight: false })
      // nobody goes on
      bob.sockets.forEach(socket => { socket.close() })
      alice.sockets.forEach(socket => { socket.close() })
    })

    it('costs one round trip without the initiation packet', async () => {
      setup({ delay: 50 })
      const [alice, bob] = await Promise.all([createNode('alice', { initiationPacket: false }), createNode('bob')])
      listen(bob)
      const dialed = await clock.until(dial(alice, bob))

      expect(dialed.negotiation.timings).to.deep.equal({ agreed: 100, secured: 200 })
      expect(decodeFrame(sent[0].datagram)).to.not.have.property('initiationPacket')
    })

    it('leaves an initiation packet out that does not fit', async () => {
      setup({ maxDatagramSize: 100 })
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      await clock.until(dial(alice, bob))

      expect(decodeFrame(sent[0].datagram)).to.not.have.property('initiationPacket')
    })

    it('leaves out what exceeds the size it allowed', async () => {
      const scheme = new StubScheme(OTHER, async ({ maxInitiationPacketSize }) => [new Uint8Array(maxInitiationPacketSize + 1).fill(0x40), Uint8Array.of(0x41)])
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme] }), createNode('bob')])
      dial(alice, bob).catch(() => {})
      await clock.advance(0)

      expect(sent).to.have.lengthOf(1)
      expect(decodeFrame(sent[0].datagram)).to.not.have.property('initiationPacket')
    })

    it('allows an initiation packet that fills the path', async () => {
      const scheme = new StubScheme(OTHER, async ({ maxInitiationPacketSize }) => [new Uint8Array(maxInitiationPacketSize).fill(0x40)])
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme] }), createNode('bob')])
      dial(alice, bob).catch(() => {})
      await clock.advance(0)

      expect(sent[0].datagram.byteLength).to.equal(network.maxDatagramSize)
    })

    it('sends the rest of the first flight behind the proposal', async () => {
      const packet = Uint8Array.of(0x40, 1)
      const rest = [Uint8Array.of(0x40, 2), Uint8Array.of(0x40, 3)]
      const scheme = new StubScheme(OTHER, async () => [packet, ...rest])
      const answering = new StubScheme(OTHER)
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme] }), createNode('bob', { schemes: [answering] })])
      listen(bob)
      dial(alice, bob).catch(() => {})
      await clock.advance(0)

      expect(decodeFrame(sent[0].datagram)).to.have.property('initiationPacket').that.deep.equals(packet)
      expect(sent.slice(1, 3).map(({ datagram }) => datagram)).to.deep.equal(rest)
      expect([...answering.responses[0].options.earlyDatagrams, ...answering.responses[0].received]).to.deep.equal([packet, ...rest])
      expect(scheme.initiations[0].proceeded).to.include({ sent: true, sendFirstFlight: false })
    })

    it('tells the scheme that its first flight was sent already, though it may not have arrived', async () => {
      setup({ mtu: 80 })
      const scheme = new StubScheme(OTHER, async () => [new Uint8Array(80).fill(0x40)])
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme] }), createNode('bob', { schemes: [new StubScheme(OTHER)] })])
      listen(bob)
      dial(alice, bob).catch(() => {})
      await clock.advance(300)

      expect(scheme.initiations[0].proceeded).to.include({ sent: true, sendFirstFlight: true })
    })

    it('tells the scheme that nothing of it was sent without the initiation packet', async () => {
      const scheme = new StubScheme(OTHER, async () => [Uint8Array.of(0x40)])
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme], initiationPacket: false }), createNode('bob', { schemes: [new StubScheme(OTHER)] })])
      listen(bob)
      dial(alice, bob).catch(() => {})
      await clock.advance(0)

      expect(scheme.initiations[0].proceeded).to.include({ sent: false, sendFirstFlight: true })
    })

    it('gets through a path that swallows the initiation packet', async () => {
      setup({ mtu: 80 })
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      const dialed = await clock.until(dial(alice, bob))

      expect(dialed.session.remotePeer.equals(bob.peerId)).to.be.true()
      expect(frames('alice').map(frame => frame.byteLength > 80)).to.deep.equal([true, false])
    })

    it('falls back to the second choice', async () => {
      const other = new StubScheme(OTHER, async () => [Uint8Array.of(0x50)])
      const [alice, bob] = await Promise.all([
        createNode('alice', { schemes: [other, plaintext({ clock })] }),
        createNode('bob')
      ])
      listen(bob)
      const dialed = await clock.until(dial(alice, bob))

      expect(dialed.negotiation).to.include({ scheme: PLAINTEXT_PROTOCOL, role: 'initiator' })
      expect(other.initiations).to.have.lengthOf(1)
      expect(other.initiations[0]).to.include({ cancelled: 1, proceeded: undefined })
      expect((await bob.upgrades[0]).negotiation.remoteSchemes).to.deep.equal([OTHER, PLAINTEXT_PROTOCOL])
    })

    it('initiates another scheme than the first afresh, with its first flight', async () => {
      const other = new StubScheme(OTHER)
      const [alice, bob] = await Promise.all([
        createNode('alice', { schemes: [plaintext({ clock }), other] }),
        createNode('bob', { schemes: [new StubScheme(OTHER)] })
      ])
      listen(bob)
      dial(alice, bob).catch(() => {})
      await clock.advance(0)

      expect(other.initiations).to.have.lengthOf(1)
      expect(other.initiations[0].proceeded).to.include({ sent: false, sendFirstFlight: true })
    })

    it('lets the responder choose', async () => {
      const offers: string[][] = []
      const schemes = (): SecurityScheme[] => [plaintext({ clock, protocol: OTHER }), plaintext({ clock })]
      const [alice, bob] = await Promise.all([
        createNode('alice', { schemes: [...schemes(), plaintext({ clock, protocol: '/unknown' })] }),
        createNode('bob', {
          schemes: schemes(),
          selectScheme: (offered) => {
            offers.push(offered)
            return offered[1]
          }
        })
      ])
      listen(bob)
      const dialed = await clock.until(dial(alice, bob))

      expect(dialed.session.protocol).to.equal(PLAINTEXT_PROTOCOL)
      expect(offers).to.deep.equal([[OTHER, PLAINTEXT_PROTOCOL]])
    })

    it('hands over what overtook the agreement, in order', async () => {
      const scheme = new StubScheme(OTHER, async () => [Uint8Array.of(0x40)])
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme] }), createNode('bob')])
      const toAlice = socketTo(bob, alice)
      dial(alice, bob).catch(() => {})
      await clock.advance(0)
      toAlice.send(Uint8Array.of(0x50, 1))
      toAlice.send(Uint8Array.of(0x50, 2))
      toAlice.send(encodeFrame({ type: 'accept', scheme: OTHER }))
      await clock.advance(0)
      toAlice.send(Uint8Array.of(0x50, 3))
      await clock.advance(0)

      expect(scheme.initiations[0].proceeded?.earlyDatagrams).to.deep.equal([Uint8Array.of(0x50, 1), Uint8Array.of(0x50, 2)])
      expect(scheme.initiations[0].received).to.deep.equal([Uint8Array.of(0x50, 3)])
    })

    it('holds so many early datagrams, and drops the newest of more', async () => {
      const { metrics, counts } = stubMetrics()
      const scheme = new StubScheme(OTHER)
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme], components: { metrics } }), createNode('bob')])
      const toAlice = socketTo(bob, alice)
      dial(alice, bob).catch(() => {})
      await clock.advance(0)

      for (let i = 0; i < 20; i++) {
        toAlice.send(Uint8Array.of(0x50, i))
      }

      toAlice.send(encodeFrame({ type: 'accept', scheme: OTHER }))
      await clock.advance(0)

      expect(scheme.initiations[0].proceeded?.earlyDatagrams.map(datagram => datagram[1])).to.deep.equal(Array.from({ length: 16 }, (_, i) => i))
      expect(counts.libp2p_psec_dropped_datagrams_total).to.deep.equal({ hold_full: 4 })
    })

    it('holds as many early datagrams as it was told to', async () => {
      const scheme = new StubScheme(OTHER)
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme], maxEarlyDatagrams: 2 }), createNode('bob')])
      const toAlice = socketTo(bob, alice)
      dial(alice, bob).catch(() => {})
      await clock.advance(0)

      for (let i = 0; i < 3; i++) {
        toAlice.send(Uint8Array.of(0x50, i))
      }

      toAlice.send(encodeFrame({ type: 'accept', scheme: OTHER }))
      await clock.advance(0)

      expect(scheme.initiations[0].proceeded?.earlyDatagrams).to.deep.equal([Uint8Array.of(0x50, 0), Uint8Array.of(0x50, 1)])
    })

    it('holds so many early bytes', async () => {
      setup({ maxDatagramSize: 20_000 })
      const scheme = new StubScheme(OTHER)
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme] }), createNode('bob')])
      const toAlice = socketTo(bob, alice)
      dial(alice, bob).catch(() => {})
      await clock.advance(0)
      toAlice.send(new Uint8Array(16_384).fill(0x50))
      toAlice.send(new Uint8Array(16_385).fill(0x50))
      toAlice.send(new Uint8Array(16_384).fill(0x50))
      toAlice.send(encodeFrame({ type: 'accept', scheme: OTHER }))
      await clock.advance(0)

      expect(scheme.initiations[0].proceeded?.earlyDatagrams.map(datagram => datagram.byteLength)).to.deep.equal([16_384, 16_384])
    })

    it('shows its progress to both sides, whatever the listener does', async () => {
      setup({ delay: 200 })
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      const events: Record<string, Array<[string, unknown]>> = { alice: [], bob: [] }
      const note = (name: string) => (evt: PsecProgressEvents): void => {
        events[name].push([evt.type, evt.detail])
        throw new Error('A listener is broken')
      }
      listen(bob, { onProgress: note('bob') })
      await clock.until(dial(alice, bob, { onProgress: note('alice') }))

      const size = encodeFrame({ type: 'propose', peerId: alice.peerId.toMultihash().bytes, schemes: [PLAINTEXT_PROTOCOL] }).byteLength
      const agreed = { scheme: PLAINTEXT_PROTOCOL, simultaneous: false }
      expect(events.alice).to.deep.equal([
        ['psec:propose', { attempt: 1, bytes: sent[0].datagram.byteLength, initiationPacket: true }],
        ['psec:propose', { attempt: 2, bytes: size, initiationPacket: false }],
        ['psec:agreed', { ...agreed, role: 'initiator' }],
        ['psec:secured', { scheme: PLAINTEXT_PROTOCOL, remotePeer: bob.peerId }]
      ])
      expect(events.bob).to.deep.equal([
        ['psec:agreed', { ...agreed, role: 'responder' }],
        ['psec:secured', { scheme: PLAINTEXT_PROTOCOL, remotePeer: alice.peerId }]
      ])
    })
  })

  describe('crossings', () => {
    it('of two dials end as one session, initiated by the lower id', async () => {
      setup({ delay: 50 })
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      const [fromAlice, fromBob] = await clock.until(Promise.all([dial(alice, bob), dial(bob, alice)]))
      const aliceLeads = compareIds(alice.peerId.toMultihash().bytes, bob.peerId.toMultihash().bytes) < 0

      expect(fromAlice.negotiation).to.include({ scheme: PLAINTEXT_PROTOCOL, simultaneous: true, role: aliceLeads ? 'initiator' : 'responder' })
      expect(fromBob.negotiation).to.include({ scheme: PLAINTEXT_PROTOCOL, simultaneous: true, role: aliceLeads ? 'responder' : 'initiator' })
      expect(fromAlice.session.remotePeer.equals(bob.peerId)).to.be.true()
      expect(fromBob.session.remotePeer.equals(alice.peerId)).to.be.true()
    })

    it('of two dials cancel the responder\'s initiation', async () => {
      const schemes = { alice: new StubScheme(OTHER), bob: new StubScheme(OTHER) }
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [schemes.alice] }), createNode('bob', { schemes: [schemes.bob] })])
      dial(alice, bob).catch(() => {})
      dial(bob, alice).catch(() => {})
      await clock.advance(0)

      const aliceLeads = compareIds(alice.peerId.toMultihash().bytes, bob.peerId.toMultihash().bytes) < 0
      const [leader, follower] = aliceLeads ? [schemes.alice, schemes.bob] : [schemes.bob, schemes.alice]
      expect(leader.initiations[0]).to.have.property('cancelled', 0)
      expect(leader.initiations[0].proceeded).to.not.be.undefined()
      expect(leader.responses).to.be.empty()
      expect(follower.initiations[0]).to.include({ cancelled: 1, proceeded: undefined })
      expect(follower.responses).to.have.lengthOf(1)
    })

    it('make a dial join the inbound upgrade of its socket', async () => {
      setup({ delay: 50 })
      const [alice, bob] = await Promise.all([
        createNode('alice', { initiationPacket: false }),
        createNode('bob')
      ])
      listen(bob)
      const dialing = dial(alice, bob)
      await clock.advance(60)
      expect(bob.upgrades).to.have.lengthOf(1)
      const events: string[] = []
      const joining = dial(bob, alice, { onProgress: (evt) => { events.push(evt.type) } })
      const [dialed, joined, accepted] = await clock.until(Promise.all([dialing, joining, bob.upgrades[0]]))

      expect(joined).to.equal(accepted)
      expect(joined.negotiation).to.include({ role: 'responder', simultaneous: false })
      expect(dialed.session.remotePeer.equals(bob.peerId)).to.be.true()
      expect(events).to.deep.equal(['psec:agreed', 'psec:secured'])
    })

    it('let a proposal win over a dial that has not proposed yet', async () => {
      const { promise, resolve } = Promise.withResolvers<Uint8Array[]>()
      const slow = new StubScheme(OTHER, async () => promise)
      const [alice, bob] = await Promise.all([
        createNode('alice', { schemes: [slow, plaintext({ clock })] }),
        createNode('bob')
      ])
      const dialing = dial(alice, bob)
      await clock.advance(0)
      expect(sent).to.be.empty()
      const [fromAlice, fromBob] = await clock.until(Promise.all([dialing, dial(bob, alice)]))
      resolve([Uint8Array.of(0x40)])
      await clock.advance(0)

      expect(fromAlice.negotiation).to.include({ role: 'responder', simultaneous: false })
      expect(fromBob.negotiation).to.include({ role: 'initiator' })
      expect(slow.initiations[0].cancelled).to.equal(1)
      expect(frames('alice').map(frame => frame[0])).to.deep.equal([1])
    })

    it('keep a first flight back that is ready just too late', async () => {
      const { promise, resolve } = Promise.withResolvers<Uint8Array[]>()
      const slow = new StubScheme(OTHER, async () => promise)
      const [alice, bob] = await Promise.all([
        createNode('alice', { schemes: [slow, plaintext({ clock })] }),
        createNode('bob')
      ])
      socketTo(alice, bob).addEventListener('message', () => { resolve([Uint8Array.of(0x60), Uint8Array.of(0x61)]) }, { once: true })
      await clock.until(Promise.all([dial(alice, bob), dial(bob, alice)]))

      expect(sent.filter(({ from }) => from === 'alice').map(({ datagram }) => datagram[0])).to.deep.equal([1, 0x41])
    })

    it('stop proposing once secured, even if the scheme\'s datagrams pass us by', async () => {
      const schemes = { alice: new StubScheme(OTHER), bob: new StubScheme(OTHER) }
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [schemes.alice] }), createNode('bob', { schemes: [schemes.bob] })])
      const dials = Promise.all([dial(alice, bob), dial(bob, alice)])
      await clock.advance(0)

      for (const [{ initiations, responses }, peer] of [[schemes.alice, bob], [schemes.bob, alice]] as const) {
        const { socket, session } = responses[0] ?? initiations[0]
        session.resolve(new StubSession(peer.peerId, socket))
      }

      await clock.until(dials)
      expect(clock.pending).to.equal(0)
    })

    it('of dials on one socket resolve to one session', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      const [one, two] = await clock.until(Promise.all([dial(alice, bob), dial(alice, bob)]))

      expect(one).to.equal(two)
      expect(bob.upgrades).to.have.lengthOf(1)
    })

    it('let an aborted dial leave without ending the other\'s', async () => {
      setup({ delay: 50 })
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      const controller = new AbortController()
      const reason = new Error('Changed my mind')
      const leaving = dial(alice, bob, { signal: controller.signal })
      const staying = dial(alice, bob)
      await clock.advance(10)
      controller.abort(reason)

      await expect(leaving).to.eventually.be.rejectedWith(reason)
      expect(await clock.until(staying)).to.have.nested.property('negotiation.role', 'initiator')
    })

    it('end the work when the last has left', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      const controllers = [new AbortController(), new AbortController()]
      const dials = controllers.map(async ({ signal }) => dial(alice, bob, { signal }))
      dials.forEach(dialing => { dialing.catch(() => {}) })
      await clock.advance(0)
      controllers[0].abort(new Error('First'))
      await clock.advance(0)
      expect(socketTo(alice, bob).status).to.equal('open')
      controllers[1].abort(new Error('Last'))

      await expect(dials[0]).to.eventually.be.rejectedWith('First')
      await expect(dials[1]).to.eventually.be.rejectedWith('Last')
      expectNothingLeft()
    })

    it('give each who waits whom they expected, and the others an error', async () => {
      const [alice, bob, carol] = await Promise.all([createNode('alice'), createNode('bob'), createNode('carol')])
      listen(bob)
      const mistaken = dial(alice, bob, { remotePeer: carol.peerId })
      mistaken.catch(() => {})
      const right = dial(alice, bob, { remotePeer: bob.peerId })
      const secured = await clock.until(right)

      await expect(mistaken).to.eventually.be.rejected().with.property('name', 'UnexpectedPeerError')
      expect(secured.session.status).to.equal('open')
    })
  })

  describe('unreliable networks', () => {
    for (const crossing of [false, true]) {
      // eslint-disable-next-line no-loop-func
      it(`are overcome by ${crossing ? 'crossing dials' : 'a dial'}, whatever they lose, double and reorder`, async () => {
        let lost = 0

        for (let seed = 1; seed <= 40; seed++) {
          setup({ random: seededRandom(seed), loss: 0.2, duplication: 0.1, delay: 40, jitter: 40 })
          const settings = { negotiationTimeout: 60_000, handshakeTimeout: 60_000 }
          const [alice, bob] = await Promise.all([createNode('alice', settings), createNode('bob', settings)])
          listen(alice)
          listen(bob)
          const dialing = dial(alice, bob)

          if (crossing) {
            await clock.advance(seed % 120)
            dial(bob, alice).catch(() => {})
          }

          const dialed = await clock.until(dialing, 120_000).catch((err) => { throw new Error(`Seed ${seed}: ${err.message}`) })
          await clock.advance(10_000)
          const accepted = await bob.upgrades[0]

          expect([dialed.negotiation.role, accepted.negotiation.role].sort(), `seed ${seed}`).to.deep.equal(['initiator', 'responder'])
          expect(dialed.session.remotePeer.equals(bob.peerId), `seed ${seed}`).to.be.true()
          expect(accepted.session.remotePeer.equals(alice.peerId), `seed ${seed}`).to.be.true()
          dialed.session.abort(new Error('Enough'))
          accepted.session.abort(new Error('Enough'))
          await network.close()
          await clock.advance(0)
          expectNothingLeft()
          lost += network.counters.lost
        }

        expect(lost, 'losses').to.be.above(40)
      })
    }
  })

  describe('failures', () => {
    it('NoCommonSchemeError on both sides when the responder rejects', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob', { schemes: [plaintext({ protocol: OTHER })] })])
      listen(bob)
      await expect(clock.until(dial(alice, bob))).to.eventually.be.rejected().with.property('name', 'NoCommonSchemeError')
      await expect(bob.upgrades[0]).to.eventually.be.rejected().with.property('name', 'NoCommonSchemeError')
      expectNothingLeft()
    })

    const selections: Record<string, () => string | undefined> = {
      'wants none': () => undefined,
      'chooses what was not offered': () => '/nonsense',
      throws: () => { throw new Error('Oops') }
    }

    for (const [what, selectScheme] of Object.entries(selections)) {
      // eslint-disable-next-line no-loop-func
      it(`NoCommonSchemeError when the responder's selectScheme ${what}`, async () => {
        const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob', { selectScheme })])
        listen(bob)
        await expect(clock.until(dial(alice, bob))).to.eventually.be.rejected().with.property('name', 'NoCommonSchemeError')
        expect(frames('bob').every(frame => frame[0] === 255)).to.be.true()
      })
    }

    it('NoAnswerError when nobody is there, naming address and time', async () => {
      const { metrics, counts } = stubMetrics()
      const [alice, bob] = await Promise.all([createNode('alice', { components: { metrics } }), createNode('bob')])
      const err = await clock.until(dial(alice, bob).catch(err => err))

      expect(err).to.have.property('name', 'NoAnswerError')
      expect(err.message).to.include('bob:1').and.include('5000 ms')
      expect(clock.now()).to.equal(5_000)
      expect(counts.libp2p_psec_negotiations_total).to.deep.equal({ no_answer: 1 })
      expectNothingLeft()
    })

    it('NoAnswerError after the time that was set', async () => {
      const [alice, bob] = await Promise.all([createNode('alice', { negotiationTimeout: 123 }), createNode('bob')])
      await expect(clock.until(dial(alice, bob))).to.eventually.be.rejected().with.property('name', 'NoAnswerError')
      expect(clock.now()).to.equal(123)
    })

    it('UnexpectedPeerError when somebody else was dialled, naming both', async () => {
      const [alice, bob, carol] = await Promise.all([createNode('alice'), createNode('bob'), createNode('carol')])
      listen(bob)
      const err = await clock.until(dial(alice, bob, { remotePeer: carol.peerId }).catch(err => err))

      expect(err).to.have.property('name', 'UnexpectedPeerError')
      expect(err.message).to.include(carol.peerId.toString()).and.include(bob.peerId.toString())
      await clock.advance(0)
      expect((await bob.upgrades[0]).session.status).to.equal('closed')
      expectNothingLeft()
    })

    it('UnexpectedPeerError when the proposal claimed another id, naming both', async () => {
      const mallory = await generateKeyPair('Ed25519')
      const claimed = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
      const [liar, bob] = await Promise.all([
        createNode('liar', { components: { privateKey: mallory, peerId: claimed } }),
        createNode('bob')
      ])
      listen(bob)
      dial(liar, bob).catch(() => {})
      await clock.advance(0)
      const err = await clock.until(bob.upgrades[0].catch(err => err))

      expect(err).to.have.property('name', 'UnexpectedPeerError')
      expect(err.message).to.include(claimed.toString()).and.include(peerIdFromPrivateKey(mallory).toString())
      await clock.advance(0)
      expect(liar.endpoint.get(bob.endpoint.localAddress)).to.be.undefined()
      expectNothingLeft()
    })

    it('UnexpectedPeerError when the proposal claimed an RSA id', async () => {
      const claimed = peerIdFromPrivateKey(await generateKeyPair('RSA', 2048))
      const [liar, bob] = await Promise.all([
        createNode('liar', { components: { peerId: claimed } }),
        createNode('bob')
      ])
      listen(bob)
      dial(liar, bob).catch(() => {})
      await clock.advance(0)

      await expect(bob.upgrades[0]).to.eventually.be.rejected()
        .with.property('message').that.include(claimed.toString())
    })

    it('SelfNegotiationError when the own port is dialled', async () => {
      const alice = await createNode('alice')
      await expect(clock.until(dial(alice, alice))).to.eventually.be.rejected().with.property('name', 'SelfNegotiationError')
      expectNothingLeft()
    })

    it('SelfNegotiationError when somebody proposes with our id, without a word to them', async () => {
      const privateKey = await generateKeyPair('Ed25519')
      const [alice, twin] = await Promise.all([
        createNode('alice', { components: { privateKey } }),
        createNode('twin', { components: { privateKey }, negotiationTimeout: 1_000 })
      ])
      listen(alice)
      const dialing = dial(twin, alice)
      await clock.advance(0)

      await expect(alice.upgrades[0]).to.eventually.be.rejected().with.property('name', 'SelfNegotiationError')
      await expect(clock.until(dialing)).to.eventually.be.rejected()
      expect(frames('alice')).to.be.empty()
    })

    it('SelfNegotiationError when the scheme proves that we are there ourselves', async () => {
      const scheme = new StubScheme(OTHER)
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme] }), createNode('bob', { schemes: [new StubScheme(OTHER)] })])
      listen(bob)
      const dialing = dial(alice, bob)
      await clock.advance(0)
      const session = new StubSession(alice.peerId, scheme.initiations[0].socket)
      scheme.initiations[0].session.resolve(session)

      await expect(dialing).to.eventually.be.rejected().with.property('name', 'SelfNegotiationError')
      expect(session.aborted).to.have.property('name', 'SelfNegotiationError')
    })

    it('what the first flight fails with', async () => {
      const reason = new Error('No engine')
      const scheme = new StubScheme(OTHER, async () => { throw reason })
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme] }), createNode('bob')])
      await expect(dial(alice, bob)).to.eventually.be.rejectedWith(reason)
      expect(sent).to.be.empty()
      expectNothingLeft()
    })

    it('what initiate() throws', async () => {
      const reason = new Error('No engine')
      const scheme = new StubScheme(OTHER, () => { throw reason })
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme] }), createNode('bob')])
      await expect(dial(alice, bob)).to.eventually.be.rejectedWith(reason)
      expectNothingLeft()
    })

    it('what the handshake fails with, on either side', async () => {
      const schemes = { alice: new StubScheme(OTHER), bob: new StubScheme(OTHER) }
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [schemes.alice] }), createNode('bob', { schemes: [schemes.bob] })])
      listen(bob)
      const dialing = dial(alice, bob)
      await clock.advance(0)
      const reasons = [new Error('One'), new Error('Other')]
      schemes.alice.initiations[0].session.reject(reasons[0])
      schemes.bob.responses[0].session.reject(reasons[1])

      await expect(dialing).to.eventually.be.rejectedWith(reasons[0])
      await expect(bob.upgrades[0]).to.eventually.be.rejectedWith(reasons[1])
      expectNothingLeft()
    })

    it('HandshakeFailedError when the handshake takes too long', async () => {
      const schemes = { alice: new StubScheme(OTHER), bob: new StubScheme(OTHER) }
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [schemes.alice] }), createNode('bob', { schemes: [schemes.bob], handshakeTimeout: 500 })])
      listen(bob)
      const dialing = dial(alice, bob)
      await clock.advance(500)
      await expect(bob.upgrades[0]).to.eventually.be.rejected().with.property('name', 'HandshakeFailedError')
      expect(schemes.bob.responses[0].options.signal?.aborted).to.be.true()
      await expect(clock.until(dialing)).to.eventually.be.rejected().with.property('name', 'HandshakeFailedError')
      expect(clock.now()).to.equal(10_000)
      expectNothingLeft()
    })

    it('ConnectionClosedError when the port is closed under it', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      const dialing = dial(alice, bob)
      await clock.advance(0)
      await alice.endpoint.close()

      await expect(dialing).to.eventually.be.rejected().with.property('name', 'ConnectionClosedError')
      expectNothingLeft()
    })

    it('ConnectionClosedError for a socket that is closed', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      const socket = socketTo(alice, bob)
      socket.close()

      await expect(alice.upgrader.upgradeOutbound(socket, { signal: never })).to.eventually.be.rejected().with.property('name', 'ConnectionClosedError')
    })

    it('lets go of a socket that takes its time to close', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      const socket = socketTo(alice, bob)
      const close = socket.close.bind(socket)
      socket.close = () => {}
      await expect(clock.until(dial(alice, bob))).to.eventually.be.rejected().with.property('name', 'NoAnswerError')

      expect(clock.pending).to.equal(0)
      expect((socket as any).listenerCount('message')).to.equal(0)
      close()
    })

    it('InvalidParametersError for a socket that carries a session, which lives on', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      const dialed = await clock.until(dial(alice, bob))

      await expect(dial(alice, bob)).to.eventually.be.rejected().with.property('name', 'InvalidParametersError')
      expect(dialed.session.status).to.equal('open')
    })

    it('InvalidFrameError for a first datagram that is no proposal', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])

      for (const firstDatagram of [Uint8Array.of(0x50), Uint8Array.of(0, 1), Uint8Array.of(255)]) {
        await expect(alice.upgrader.upgradeInbound(socketTo(alice, bob), { signal: never, firstDatagram }))
          .to.eventually.be.rejected().with.property('name', 'InvalidFrameError')
        expectNothingLeft()
      }
    })
  })

  describe('abort', () => {
    const reason = new Error('Changed my mind')
    let controller: AbortController

    beforeEach(() => { controller = new AbortController() })

    it('before the start', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      controller.abort(reason)
      await expect(dial(alice, bob, { signal: controller.signal })).to.eventually.be.rejectedWith(reason)
      expect(sent).to.be.empty()
      expectNothingLeft()
    })

    it('while the first flight is prepared', async () => {
      const scheme = new StubScheme(OTHER, async () => new Promise(() => {}))
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme] }), createNode('bob')])
      const dialing = dial(alice, bob, { signal: controller.signal })
      await clock.advance(0)
      controller.abort(reason)

      await expect(dialing).to.eventually.be.rejectedWith(reason)
      expect(scheme.initiations[0].cancelled).to.equal(1)
      expect(sent).to.be.empty()
      expectNothingLeft()
    })

    it('while proposing', async () => {
      const { metrics, counts } = stubMetrics()
      const [alice, bob] = await Promise.all([createNode('alice', { components: { metrics } }), createNode('bob')])
      const dialing = dial(alice, bob, { signal: controller.signal })
      await clock.advance(1_000)
      expect(frames('alice').length).to.be.above(1)
      controller.abort(reason)

      await expect(dialing).to.eventually.be.rejectedWith(reason)
      expect(counts.libp2p_psec_negotiations_total).to.deep.equal({ aborted: 1 })
      expectNothingLeft()
    })

    for (const sent of [true, false]) {
      // eslint-disable-next-line no-loop-func
      it(`tells the scheme that its first flight was ${sent ? '' : 'not '}sent`, async () => {
        const scheme = new StubScheme(OTHER, async () => [Uint8Array.of(0x40)])
        const [alice, bob] = await Promise.all([createNode('alice', { schemes: [scheme], initiationPacket: sent }), createNode('bob')])
        const dialing = dial(alice, bob, { signal: controller.signal })
        await clock.advance(0)
        expect(frames('alice')).to.have.lengthOf(1)
        controller.abort(reason)

        await expect(dialing).to.eventually.be.rejectedWith(reason)
        expect(scheme.initiations[0].cancelOptions).to.deep.equal({ sent })
      })
    }

    it('while a reject waits for its grace', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob', { schemes: [plaintext({ protocol: OTHER })] })])
      listen(bob)
      const dialing = dial(alice, bob, { signal: controller.signal })
      await clock.advance(0)
      await clock.advance(1)
      controller.abort(reason)

      await expect(dialing).to.eventually.be.rejectedWith(reason)
      expectNothingLeft()
    })

    for (const side of ['initiator', 'responder']) {
      // eslint-disable-next-line no-loop-func
      it(`during the handshake of the ${side}, and the session that comes all the same`, async () => {
        const schemes = { alice: new StubScheme(OTHER), bob: new StubScheme(OTHER) }
        const [alice, bob] = await Promise.all([createNode('alice', { schemes: [schemes.alice] }), createNode('bob', { schemes: [schemes.bob] })])
        listen(bob, side === 'responder' ? { signal: controller.signal } : {})
        dial(alice, bob, side === 'initiator' ? { signal: controller.signal } : {}).catch(() => {})
        await clock.advance(0)
        const [node, pending] = side === 'initiator' ? [alice, schemes.alice.initiations[0]] : [bob, schemes.bob.responses[0]]
        controller.abort(reason)

        await expect(node.upgrades[0]).to.eventually.be.rejectedWith(reason)
        expect([...node.sockets][0].status).to.equal('closed')
        const signal = side === 'initiator' ? schemes.alice.initiations[0].proceeded?.signal : schemes.bob.responses[0].options.signal
        expect(signal).to.have.property('reason', reason)

        const session = new StubSession(bob.peerId, pending.socket)
        pending.session.resolve(session)
        await clock.advance(0)
        expect(session.aborted).to.equal(reason)
        await network.close()
        await clock.advance(0)
        expectNothingLeft()
      })
    }

    it('reaches the scheme in time to tell the remote', async () => {
      // the accept gets through, the scheme's answer does not
      setup({ delay: 50, onSend: (datagram) => datagram[0] !== 0x41 })
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      const dialing = dial(alice, bob, { signal: controller.signal })
      await clock.advance(110)
      const accepted = await bob.upgrades[0]
      expect(accepted.session.status).to.equal('open')
      controller.abort(reason)
      await expect(dialing).to.eventually.be.rejectedWith(reason)
      await clock.advance(50)

      expect(accepted.session.status).to.equal('closed')
      expectNothingLeft()
    })

    it('as the session is there ends it, and tells the remote', async () => {
      setup({ delay: 50 })
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      const dialing = dial(alice, bob, { signal: controller.signal, onProgress: ({ type }) => { type === 'psec:secured' && controller.abort(reason) } })
      await expect(clock.until(dialing)).to.eventually.be.rejectedWith(reason)
      const { session } = await clock.until(bob.upgrades[0])
      await clock.advance(50)

      expect(session.status).to.equal('closed')
      expectNothingLeft()
    })

    it('as the session is there leaves it to who stays, and to who joins then', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      const joined = Promise.withResolvers<SecuredSocket>()
      const leaving = dial(alice, bob, {
        signal: controller.signal,
        onProgress: ({ type }) => {
          if (type === 'psec:secured') {
            joined.resolve(dial(alice, bob))
            controller.abort(reason)
          }
        }
      })
      const staying = dial(alice, bob)

      await expect(clock.until(leaving)).to.eventually.be.rejectedWith(reason)
      expect(await joined.promise).to.equal(await staying)
      expect(await staying).to.have.nested.property('session.status', 'open')
    })

    it('of a dial that joined an inbound upgrade leaves that alone', async () => {
      setup({ delay: 50 })
      const [alice, bob] = await Promise.all([createNode('alice', { initiationPacket: false }), createNode('bob')])
      listen(bob)
      dial(alice, bob).catch(() => {})
      await clock.advance(60)
      const joining = dial(bob, alice, { signal: controller.signal })
      controller.abort(reason)

      await expect(joining).to.eventually.be.rejectedWith(reason)
      expect(await clock.until(bob.upgrades[0])).to.have.nested.property('negotiation.role', 'responder')
    })

    it('after success changes nothing', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      const dialed = await clock.until(dial(alice, bob, { signal: controller.signal }))
      controller.abort(reason)
      await clock.advance(0)

      expect(dialed.session.status).to.equal('open')
    })
  })

  describe('after success', () => {
    it('leaves no timer, and one listener of its own per event', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      const { signal } = new AbortController()
      await clock.until(dial(alice, bob, { signal }))
      await clock.advance(0)

      expect(clock.pending).to.equal(0)
      expect(getEventListeners(signal, 'abort')).to.be.empty()
      expect((socketTo(alice, bob) as any).listenerCount('message')).to.equal(1)
      expect((socketTo(alice, bob) as any).listenerCount('close')).to.equal(1)
    })

    it('answers a late proposal as before, unseen by the scheme', async () => {
      const schemes = { alice: new StubScheme(OTHER), bob: new StubScheme(OTHER) }
      const [alice, bob] = await Promise.all([createNode('alice', { schemes: [schemes.alice] }), createNode('bob', { schemes: [schemes.bob] })])
      listen(bob)
      dial(alice, bob).catch(() => {})
      await clock.advance(0)
      schemes.alice.initiations[0].session.resolve(new StubSession(bob.peerId, schemes.alice.initiations[0].socket))
      schemes.bob.responses[0].session.resolve(new StubSession(alice.peerId, schemes.bob.responses[0].socket))
      await Promise.all([...alice.upgrades, ...bob.upgrades])

      const [proposal] = frames('alice')
      socketTo(alice, bob).send(proposal)
      socketTo(alice, bob).send(Uint8Array.of(0x50))
      await clock.advance(0)

      const [first, second] = frames('bob')
      expect(frames('bob')).to.have.lengthOf(2)
      expect(second).to.equalBytes(first)
      expect(schemes.bob.responses[0].received).to.deep.equal([Uint8Array.of(0x50)])
    })

    it('drops and counts what only begins like a frame, and frames that mean nothing', async () => {
      const { metrics, counts } = stubMetrics()
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob', { components: { metrics } })])
      listen(bob)
      await clock.until(dial(alice, bob))
      const socket = socketTo(alice, bob)
      const before = sent.length
      socket.send(Uint8Array.of(0, 1, 2))
      socket.send(Uint8Array.of(1))
      socket.send(encodeFrame({ type: 'accept', scheme: '/nobody/asked' }))
      await clock.advance(0)

      expect(counts.libp2p_psec_dropped_datagrams_total).to.deep.equal({ invalid: 2, unexpected: 1 })
      expect(sent).to.have.lengthOf(before + 3)
      expect((await bob.upgrades[0]).session.status).to.equal('open')
    })

    it('tells of a remote that proposes afresh, and leaves the session alone', async () => {
      const { metrics, counts } = stubMetrics()
      const renewed: Array<[PacketSocket, Uint8Array]> = []
      const [alice, bob] = await Promise.all([
        createNode('alice'),
        createNode('bob', { components: { metrics }, onRenewed: (socket, proposal) => { renewed.push([socket, proposal]) } })
      ])
      listen(bob)
      await clock.until(dial(alice, bob))
      const proposal = encodeFrame({ type: 'propose', peerId: alice.peerId.toMultihash().bytes, schemes: [OTHER, PLAINTEXT_PROTOCOL] })
      socketTo(alice, bob).send(proposal)
      await clock.advance(0)

      expect(renewed).to.deep.equal([[bob.endpoint.get(alice.endpoint.localAddress), proposal]])
      expect(counts.libp2p_psec_negotiations_total).to.deep.equal({ secured: 1, renewed: 1 })
      expect((await bob.upgrades[0]).session.status).to.equal('open')
    })

    it('tells of a remote that makes the same proposal some time after, as one that came back does', async () => {
      const renewed: Uint8Array[] = []
      const [alice, bob] = await Promise.all([
        createNode('alice', { initiationPacket: false }),
        createNode('bob', { onRenewed: (_, proposal) => { renewed.push(proposal) } })
      ])
      listen(bob)
      await clock.until(dial(alice, bob))
      const [proposal] = frames('alice')
      await clock.advance(1_900)
      socketTo(alice, bob).send(proposal)
      await clock.advance(100)
      expect(renewed).to.be.empty()
      socketTo(alice, bob).send(proposal)
      await clock.advance(0)

      expect(renewed).to.deep.equal([proposal])
      expect((await bob.upgrades[0]).session.status).to.equal('open')
    })

    it('tells of a remote that proposes afresh while the responder waits for its handshake', async () => {
      const renewed: Uint8Array[] = []
      const bob = await createNode('bob', { schemes: [new StubScheme(OTHER)], onRenewed: (_, proposal) => { renewed.push(proposal) } })
      const alice = await createNode('alice')
      listen(bob)
      const proposals = [1, 2, 2, 3].map(packet => encodeFrame({
        type: 'propose',
        peerId: alice.peerId.toMultihash().bytes,
        schemes: [OTHER],
        initiationPacket: Uint8Array.of(packet)
      }))

      for (const proposal of proposals) {
        socketTo(alice, bob).send(proposal)
      }

      await clock.advance(0)
      expect(renewed).to.deep.equal(proposals.slice(1))
      expect(bob.upgrades).to.have.lengthOf(1)
      // nobody goes on
      bob.sockets.forEach(socket => { socket.close() })
      alice.sockets.forEach(socket => { socket.close() })
    })

    it('does not tell of late proposals while the initiator waits for its handshake', async () => {
      const renewed: Uint8Array[] = []
      const [alice, bob] = await Promise.all([
        createNode('alice', { schemes: [new StubScheme(OTHER)], onRenewed: (_, proposal) => { renewed.push(proposal) } }),
        createNode('bob', { schemes: [new StubScheme(OTHER)] })
      ])
      listen(bob)
      dial(alice, bob).catch(() => {})
      await clock.advance(0)
      socketTo(bob, alice).send(encodeFrame({ type: 'propose', peerId: bob.peerId.toMultihash().bytes, schemes: [OTHER] }))
      await clock.advance(0)

      expect(renewed).to.be.empty()
      alice.sockets.forEach(socket => { socket.close() })
      bob.sockets.forEach(socket => { socket.close() })
    })

    it('lets go of the socket when the session ends', async () => {
      const [alice, bob] = await Promise.all([createNode('alice'), createNode('bob')])
      listen(bob)
      const dialed = await clock.until(dial(alice, bob))
      await clock.until(dialed.session.close())
      await clock.advance(0)

      expectNothingLeft()
    })
  })

  describe('isProposal', () => {
    it('takes valid proposals only, and counts invalid ones', async () => {
      const { metrics, counts } = stubMetrics()
      const { upgrader, peerId } = await createPsecPeer({ schemes: [plaintext()], components: { metrics } })
      const proposal = encodeFrame({ type: 'propose', peerId: peerId.toMultihash().bytes, schemes: [] })

      expect(upgrader.isProposal(proposal)).to.be.true()
      expect(upgrader.isProposal(proposal.subarray(0, -1))).to.be.false()
      expect(upgrader.isProposal(encodeFrame({ type: 'accept', scheme: OTHER }))).to.be.false()
      expect(upgrader.isProposal(Uint8Array.of(255))).to.be.false()
      expect(upgrader.isProposal(Uint8Array.of(0x50, 1))).to.be.false()
      expect(upgrader.isProposal(new Uint8Array())).to.be.false()
      expect(counts.libp2p_psec_dropped_datagrams_total).to.deep.equal({ invalid: 1, no_proposal: 4 })
    })
  })

  describe('metrics', () => {
    it('count proposals that get no answer, because both have proposed and it is the responder who answers', async () => {
      const counted = { alice: stubMetrics(), bob: stubMetrics() }
      const schemes = { alice: [new StubScheme(OTHER)], bob: [new StubScheme(OTHER)] }
      const [alice, bob] = await Promise.all([
        createNode('alice', { schemes: schemes.alice, components: { metrics: counted.alice.metrics } }),
        createNode('bob', { schemes: schemes.bob, components: { metrics: counted.bob.metrics } })
      ])
      const unanswered = (): number[] => Object.values(counted).map(({ counts }) => counts.libp2p_psec_frames_total.propose_unanswered ?? 0)
      listen(alice)
      listen(bob)
      dial(alice, bob).catch(() => {})
      dial(bob, alice).catch(() => {})
      await clock.advance(0)
      const before = unanswered()

      for (let i = 0; i < 3; i++) {
        socketTo(alice, bob).send(frames('alice')[0])
        socketTo(bob, alice).send(frames('bob')[0])
      }

      await clock.advance(0)
      // by the initiator: three, and the three answers to its own
      expect(unanswered().map((count, i) => count - before[i])).to.have.members([6, 0])
    })

    it('count frames by type and direction, and outcomes', async () => {
      const counted = { alice: stubMetrics(), bob: stubMetrics() }
      const [alice, bob] = await Promise.all([
        createNode('alice', { components: { metrics: counted.alice.metrics } }),
        createNode('bob', { components: { metrics: counted.bob.metrics } })
      ])
      listen(bob)
      await clock.until(dial(alice, bob))

      expect(counted.alice.counts).to.deep.equal({
        libp2p_psec_frames_total: { propose_sent: 1, accept_received: 1 },
        libp2p_psec_dropped_datagrams_total: {},
        libp2p_psec_negotiations_total: { secured: 1 }
      })
      expect(counted.bob.counts).to.deep.equal({
        libp2p_psec_frames_total: { propose_received: 1, accept_sent: 1 },
        libp2p_psec_dropped_datagrams_total: {},
        libp2p_psec_negotiations_total: { secured: 1 }
      })
    })
  })

  describe('init', () => {
    const cases: Record<string, SecurityScheme[]> = {
      'no scheme': [],
      'what makes a scheme, and was not called': [quicDatagram as unknown as SecurityScheme],
      'two schemes of one name': [new StubScheme(OTHER), new StubScheme(OTHER)],
      'an empty name': [new StubScheme('')],
      'a name of 256 bytes': [new StubScheme('ä'.repeat(128))],
      'a name that is not Unicode': [new StubScheme('\ud800')],
      '256 schemes': Array.from({ length: 256 }, (_, i) => new StubScheme(`/${i}`))
    }

    for (const [what, schemes] of Object.entries(cases)) {
      it(`refuses ${what}`, async () => {
        const privateKey = await generateKeyPair('Ed25519')
        const components = { privateKey, peerId: peerIdFromPrivateKey(privateKey), logger: defaultLogger() }
        expect(() => new PsecUpgrader(components, { schemes })).to.throw().with.property('name', 'InvalidParametersError')
      })
    }

    it('takes a name of 255 bytes', async () => {
      expect(await createPsecPeer({ schemes: [new StubScheme('a'.repeat(255))] })).to.be.ok()
    })
  })

  describe('the size of an initiation packet', () => {
    const cases: Array<[number, number]> = [[-5, 0], [0, 0], [1, 0], [2, 1], [128, 127], [129, 127], [130, 128], [1_389, 1_387], [16_385, 16_383], [16_386, 16_383], [16_387, 16_384]]

    for (const [available, expected] of cases) {
      it(`is ${expected} if ${available} bytes are left for it and its length`, () => {
        expect(maxInitiationPacketSize(available)).to.equal(expected)
      })
    }
  })
})
