/**
 * A node under a flood: strangers prove their address before anything is done for them, and no answer is worth more than the
 * question (design, "Half-open state"). What the engine does for that, packet by packet: `engine/src/core/tests/shield.rs`.
 */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { defaultLogger } from '@libp2p/logger'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { negotiation, quicDatagram, udp } from '../src/index.ts'
import { compareIds } from '../src/negotiation/index.ts'
import { QUIC_DATAGRAM } from '../src/schemes/quic-datagram/protocol.ts'
import { UdpEndpoint } from '../src/sockets/udp.ts'
import { encodeFrame, frameType, looksLikeFrame } from '../src/wire/index.ts'
import { ECHO, expectEcho } from './fixtures/echo.ts'
import { trackEndpoints } from './fixtures/endpoints.ts'
import { eventually } from './fixtures/eventually.ts'
import { captureFirstFlight } from './fixtures/first-flight.ts'
import { createNode, getTransport, getUpgrader, nodeDefaults, stopNodes } from './fixtures/nodes.ts'
import { OpenEndpoints } from './fixtures/open-endpoints.ts'
import { countEvents, recordMetrics } from './fixtures/record-metrics.ts'
import { StubScheme } from './fixtures/stub-scheme.ts'
import { UdpPath } from './fixtures/udp-path.ts'
import { UdpRelay } from './fixtures/udp-relay.ts'
import type { NodeOptions } from './fixtures/nodes.ts'
import type { RecordedMetrics } from './fixtures/record-metrics.ts'
import type { Carry } from './fixtures/udp-path.ts'
import type { PacketSocket, PsecDialEvents, PsecInit, SecureSession, SecurityScheme } from '../src/index.ts'
import type { Frame, Propose } from '../src/wire/index.ts'
import type { Connection, KeyType, Libp2p, PrivateKey } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { Socket } from 'node:dgram'

const HOST = '127.0.0.1'

/** Far above what a dial takes, and below what a pending stranger lives */
const DIAL_TIMEOUT = 8_000

/** A node, and what it counts */
interface Target {
  node: Libp2p<any>
  address: Multiaddr
  port: number
  metrics: RecordedMetrics
}

/** Counters of a target's ports */
function stats ({ metrics }: Target): Record<string, number> {
  return metrics.calculated('libp2p_psec_open_ports_counters') as Record<string, number>
}

/** How often a target's listeners have counted something */
function events ({ metrics }: Target, event: string): number {
  return countEvents(metrics, event)
}

/** Connections on their way to a target */
function pending ({ metrics }: Target): number {
  return Object.values(metrics.calculated('libp2p_psec_pending_inbound_connections_total') as Record<string, number>)
    .reduce((sum, count) => sum + count, 0)
}

/** What a target's upgrader has dropped for that reason */
function dropped ({ metrics }: Target, reason: string): number {
  return metrics.counters('libp2p_psec_dropped_datagrams_total')[reason] ?? 0
}

async function createTarget (init: PsecInit, options: NodeOptions<{}> = {}): Promise<Target> {
  const metrics = recordMetrics()
  const node = await createNode({ metrics: metrics.metrics, psec: init, ...options })
  await node.handle(ECHO, async (stream) => {
    for await (const chunk of stream) {
      stream.send(chunk)
    }

    await stream.close()
  })
  // of one that only dials nobody asks for it
  const address = multiaddr(node.getMultiaddrs()[0]?.toString().replace(/\/p2p\/.*/, '') ?? '/ip4/127.0.0.1/udp/0')

  return { node, address, port: Number(address.getComponents()[1].value), metrics }
}

/**
 * Dial by the transport itself, which does not merge dials as libp2p does
 */
async function dial (node: Libp2p<any>, ma: Multiaddr, options: { signal?: AbortSignal, onProgress?(evt: PsecDialEvents): void } = {}): Promise<Connection> {
  return getTransport(node).dial(ma, {
    upgrader: getUpgrader(node),
    signal: options.signal ?? AbortSignal.timeout(DIAL_TIMEOUT),
    onProgress: options.onProgress
  })
}

async function generateKey (type: KeyType): Promise<PrivateKey> {
  return generateKeyPair(type as 'Ed25519')
}

/**
 * Two, the lower peer id first (draft, "Simultaneous Negotiation")
 */
async function generateKeys (): Promise<PrivateKey[]> {
  const keys = [await generateKeyPair('Ed25519'), await generateKeyPair('Ed25519')]
  const ids = keys.map(key => peerIdFromPrivateKey(key).toMultihash().bytes)

  return compareIds(ids[0], ids[1]) < 0 ? keys : keys.reverse()
}

async function createProposal (schemes: string[], initiationPacket?: Uint8Array): Promise<Uint8Array> {
  const peerId = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))

  return encodeFrame({ type: 'propose', peerId: peerId.toMultihash().bytes, schemes, initiationPacket })
}

/**
 * A port that says what the test says, and nothing else
 */
class Stranger {
  /** What came back, in order */
  readonly answers: Uint8Array[] = []
  readonly #socket: Socket

  static async open (host: string): Promise<Stranger> {
    const socket = createSocket('udp4')
    socket.bind(0, host)
    await once(socket, 'listening')

    return new Stranger(socket)
  }

  private constructor (socket: Socket) {
    this.#socket = socket
    socket.on('message', (datagram) => { this.answers.push(datagram) })
  }

  /** Bytes that came back */
  get received (): number {
    return this.answers.reduce((sum, { byteLength }) => sum + byteLength, 0)
  }

  send ({ port }: Pick<Target, 'port'>, datagram: Uint8Array): void {
    this.#socket.send(datagram, port, HOST)
  }

  close (): void {
    this.#socket.close()
  }
}

/** A path on which the dials of two meet */
interface Crossing {
  fromFirst: Carry
  fromSecond: Carry

  /** Both have begun */
  onDialled? (): Promise<void>
}

/** A round trip takes longer than the wait between two proposals */
const slow: Carry = (_datagram, deliver) => { setTimeout(deliver, 200) }

/**
 * Carries the first frame of that type in a way of its own
 */
function firstOf (type: Frame['type'], special: Carry): Carry {
  let isFirst = true

  return (datagram, deliver) => {
    const carry = isFirst && frameType(datagram) === type ? special : slow
    isFirst &&= carry === slow
    carry(datagram, deliver)
  }
}

/** By what befalls the first's proposal, or the answer to it */
const CROSSINGS: Record<string, () => Crossing> = {
  'their first flight follows when the other\'s proposal is there': () => {
    const sent: Array<Frame['type'] | undefined> = []
    const waiting: Array<() => void> = []
    let isHeld = false

    return {
      fromFirst: (_datagram, deliver) => {
        isHeld ? waiting.push(deliver) : deliver()
        isHeld ||= sent.length === 0
      },
      fromSecond: (datagram, deliver) => {
        sent.push(frameType(datagram))
        deliver()
      },
      onDialled: async () => {
        await eventually(() => sent.includes('propose'))
        isHeld = false
        waiting.splice(0).forEach(deliver => { deliver() })
      }
    }
  },
  'they propose again before they have the answer': () => ({ fromFirst: slow, fromSecond: slow }),
  'their proposal comes twice': () => ({
    fromFirst: firstOf('propose', (_datagram, deliver) => { [200, 230].forEach(ms => { setTimeout(deliver, ms) }) }),
    fromSecond: slow
  }),
  'their proposal comes after its repetition': () => ({
    fromFirst: firstOf('propose', (_datagram, deliver) => { setTimeout(deliver, 500) }),
    fromSecond: slow
  }),
  'the answer is lost': () => ({ fromFirst: slow, fromSecond: firstOf('accept', () => {}) })
}

describe('strangers who have to prove their address', () => {
  const strangers: Stranger[] = []
  const relays: UdpRelay[] = []
  const paths: UdpPath[] = []

  afterEach(async () => {
    await stopNodes()
    paths.splice(0).forEach(path => { path.close() })
    strangers.splice(0).forEach(stranger => { stranger.close() })
    relays.splice(0).forEach(relay => { relay.close() })
  })

  async function openStranger (host: string = HOST): Promise<Stranger> {
    const stranger = await Stranger.open(host)
    strangers.push(stranger)

    return stranger
  }

  async function openRelay ({ port }: Target): Promise<UdpRelay> {
    const relay = await UdpRelay.open(port)
    relays.push(relay)

    return relay
  }

  /**
   * A stranger who proposes and never says anything more
   */
  async function proposeFrom (target: Target, host: string, schemes: string[] = [QUIC_DATAGRAM]): Promise<Stranger> {
    const stranger = await openStranger(host)
    stranger.send(target, await createProposal(schemes))

    return stranger
  }

  /**
   * As many, each from another /24, and all of them on their way
   */
  async function flood (target: Target, count: number): Promise<void> {
    const before = pending(target)

    for (let i = 0; i < count; i++) {
      await proposeFrom(target, `127.1.${i}.1`)
      await eventually(() => pending(target) === before + i + 1)
    }
  }

  describe('always, with a threshold of 0', () => {
    for (const [family, listen] of [['IPv4', '/ip4/127.0.0.1/udp/0/psec'], ['IPv6', '/ip6/::1/udp/0/psec']]) {
      for (const initiationPacket of [true, false]) {
        it(`connect over ${family} by a proposal ${initiationPacket ? 'with' : 'without'} an initiation packet`, async () => {
          const bob = await createTarget({ validationThreshold: 0 }, { listen: [listen] })
          const alice = await createNode({ listen: [], psec: { initiationPacket } })

          for (let i = 1; i <= 3; i++) {
            const connection = await dial(alice, bob.address)
            await expectEcho(connection)
            expect(stats(bob).validated).to.equal(i)
          }

          expect(stats(bob).shielded).to.be.at.least(3)
          expect(stats(bob).challenged).to.be.at.least(3)
          expect(events(bob, 'shield_up')).to.equal(1)
          expect(events(bob, 'shield_down')).to.equal(0)
          expect(events(bob, 'connection')).to.equal(3)
          await eventually(() => pending(bob) === 0)
        })
      }
    }

    for (const [ours, theirs] of [['RSA', 'Ed25519'], ['Ed25519', 'RSA'], ['secp256k1', 'secp256k1'], ['RSA', 'RSA']] as KeyType[][]) {
      it(`connect with a key of ${theirs} to one of ${ours}`, async () => {
        const bob = await createTarget({ validationThreshold: 0 }, { privateKey: await generateKey(ours) })
        const alice = await createNode({ listen: [], privateKey: await generateKey(theirs) })
        const connection = await dial(alice, bob.address)
        await expectEcho(connection)
        expect(connection.remotePeer.equals(bob.node.peerId)).to.equal(true)
        expect(bob.node.getConnections(alice.peerId)).to.have.lengthOf(1)
        expect(stats(bob).validated).to.equal(1)
      })
    }

    it('connect from an address that listens', async () => {
      const [alice, bob] = [await createTarget({ validationThreshold: 0 }), await createTarget({ validationThreshold: 0 })]
      await expectEcho(await dial(alice.node, bob.address))
      expect(stats(bob).validated).to.equal(1)
      expect(bob.node.getConnections()[0].remoteAddr.toString()).to.include(`/udp/${alice.port}`)
    })

    it('end with one connection if both dial', async () => {
      for (let i = 0; i < 5; i++) {
        const [alice, bob] = [await createTarget({ validationThreshold: 0 }), await createTarget({ validationThreshold: 0 })]
        const connections = await Promise.all([dial(alice.node, bob.address), dial(bob.node, alice.address)])
        await Promise.all(connections.map(expectEcho))
        expect(alice.node.getConnections()).to.have.lengthOf(1)
        expect(bob.node.getConnections()).to.have.lengthOf(1)
      }
    })

    for (const lower of ['who was answered', 'who answered']) {
      for (const initiationPacket of [true, false]) {
        for (const [what, cross] of Object.entries(CROSSINGS)) {
          it(`end with one connection if they are dialled when they were just answered, ${initiationPacket ? 'with' : 'without'} an initiation packet, and ${what}, ${lower} being the lower`, async () => {
            const keys = await generateKeys()
            const [bobKey, aliceKey] = lower === 'who answered' ? keys : keys.reverse()
            const bob = await createTarget({ validationThreshold: 0, initiationPacket }, { privateKey: bobKey })
            const alice = await createTarget({ initiationPacket }, { privateKey: aliceKey })
            const crossing = cross()
            const path = await UdpPath.open(alice.port, bob.port, crossing)
            paths.push(path)

            const first = dial(alice.node, path.toSecond)
            await eventually(() => stats(bob).shielded === 1)
            const second = dial(bob.node, path.toFirst)
            await crossing.onDialled?.()

            await Promise.all((await Promise.all([first, second])).map(expectEcho))
            expect(alice.node.getConnections()).to.have.lengthOf(1)
            expect(bob.node.getConnections()).to.have.lengthOf(1)
          })
        }
      }
    }

    it('have their negotiation confirmed', async () => {
      const bob = await createTarget({ validationThreshold: 0, confirm: 'require' })
      const alice = await createNode({ listen: [], psec: { confirm: 'require' } })
      const connection = await dial(alice, bob.address)
      expect(negotiation(connection)?.confirmed).to.equal(true)
      await eventually(() => bob.node.getConnections().length === 1)
      expect(negotiation(bob.node.getConnections()[0])).to.include({ confirmed: true, role: 'responder', simultaneous: false })
      expect(bob.metrics.counters('libp2p_psec_confirmations_total')).to.deep.equal({ confirmed: 1 })
      expect(stats(bob).validated).to.equal(1)
    })

    it('connect afresh from an address where they vanished', async () => {
      const privateKey = await generateKeyPair('Ed25519')
      const bob = await createTarget({ validationThreshold: 0 })
      const relay = await openRelay(bob)
      await dial(await createNode({ privateKey, listen: [] }), relay.address)

      for (let i = 1; i <= 3; i++) {
        await eventually(() => bob.node.getConnections().length === 1)
        const [old] = bob.node.getConnections()
        relay.mute()
        const connection = await dial(await createNode({ privateKey, listen: [] }), relay.address)
        await eventually(() => old.timeline.close != null && bob.node.getConnections().length === 1)
        await expectEcho(connection)
        expect(events(bob, 'renewal')).to.equal(i)
      }
    })

    for (const step of ['psec:propose', 'psec:agreed'] as const) {
      it(`connect from an address where a dial was aborted at ${step}`, async () => {
        const bob = await createTarget({ validationThreshold: 0 })
        const alice = await createTarget({})

        for (let i = 0; i < 3; i++) {
          const controller = new AbortController()
          await expect(dial(alice.node, bob.address, {
            signal: controller.signal,
            onProgress: (evt) => { evt.type === step && controller.abort() }
          })).to.eventually.be.rejected()
        }

        await expectEcho(await dial(alice.node, bob.address))
        await eventually(() => bob.node.getConnections().length === 1)
        expect(bob.node.getConnections()[0].remoteAddr.toString()).to.include(`/udp/${alice.port}`)
      })
    }

    it('are forgotten before they go on, and get no answer, on a port that keeps nothing of strangers', async () => {
      const bob = await createTarget({ endpoints: udp({ maxWaitingDatagrams: 0, maxQueuedAnswers: 0 }) })
      const stranger = await proposeFrom(bob, '127.0.5.1')
      await eventually(() => stats(bob).rawOverflow === 1)

      expect(pending(bob)).to.equal(0)
      expect(stranger.answers).to.be.empty()
    })

    it('are followed by as many datagrams of theirs as was said', async () => {
      const bob = await createTarget({ endpoints: udp({ maxWaitingDatagrams: 0, maxStrangerDatagrams: 1 }) })
      const stranger = await proposeFrom(bob, '127.0.5.1')
      await eventually(() => stats(bob).rawOverflow === 1)
      stranger.send(bob, Uint8Array.of(200))
      stranger.send(bob, Uint8Array.of(200))
      await eventually(() => stats(bob).strangers === 1)

      expect(stats(bob).rawOverflow).to.equal(2)
    })

    it('are remembered for as long as was said', async () => {
      const bob = await createTarget({ validationThreshold: 0, validationTimeout: 1_000 })
      const since = performance.now()
      await proposeFrom(bob, '127.0.5.1')
      await eventually(() => stats(bob).shielded === 1)
      await eventually(() => stats(bob).shieldedProposals === 0, 5_000)

      expect(performance.now() - since).to.be.at.least(1_000)
    })

    it('reach JavaScript as often as was said if only that can answer them', async () => {
      const bob = await createTarget({ validationThreshold: 0, maxUnpreparedInbound: 0 })
      await proposeFrom(bob, '127.0.5.1', ['/unknown/1.0.0', QUIC_DATAGRAM])
      await eventually(() => stats(bob).turnedAwayUnprepared === 1)

      expect(pending(bob)).to.equal(0)
    })

    it('are as many of one part of the network as was said', async () => {
      const bob = await createTarget({ validationThreshold: 0, maxHeldOffPerPrefix: 1 })
      await proposeFrom(bob, '127.0.5.1')
      await eventually(() => stats(bob).shieldedProposals === 1)
      await proposeFrom(bob, '127.0.5.2')
      await eventually(() => stats(bob).turnedAwayPrefix === 1)

      expect(stats(bob)).to.have.property('shieldedProposals', 1)
    })

    it('are remembered by the engine alone, as many as may be, and fewer of one part of the network', async () => {
      const bob = await createTarget({ validationThreshold: 0, maxHeldOffInbound: 16 })
      // an eighth of the room
      await Promise.all([1, 2].map(async i => proposeFrom(bob, `127.0.5.${i}`)))
      await eventually(() => stats(bob).shieldedProposals === 2)
      const third = await proposeFrom(bob, '127.0.5.3')
      await eventually(() => stats(bob).turnedAwayPrefix === 1)
      const elsewhere = await proposeFrom(bob, '127.0.6.3')
      await eventually(() => elsewhere.answers.length === 1)
      expect(third.answers).to.be.empty()

      for (let i = 0; i < 16; i++) {
        await proposeFrom(bob, `127.2.${i}.1`)
      }

      // the oldest have made room
      await eventually(() => stats(bob).shielded === 2 + 1 + 16)
      expect(stats(bob)).to.include({ shieldedProposals: 16, displaced: 3 })
      expect(pending(bob)).to.equal(0)
      expect(events(bob, 'connection')).to.equal(0)
    })

    it('still get an answer, from JavaScript, to what the engine was not told how to answer', async () => {
      const stub = new StubScheme('/stub')
      const bob = await createTarget({ validationThreshold: 0, schemes: [stub, quicDatagram()] })
      await proposeFrom(bob, '127.0.5.1', ['/unknown', '/stub'])
      await eventually(() => stub.responses.length === 1)
      expect(stats(bob).shielded).to.equal(0)
      expect(pending(bob)).to.equal(1)

      const rejected = await proposeFrom(bob, '127.0.5.2', ['/unknown'])
      await eventually(() => rejected.answers.length === 1)
      expect(rejected.answers.map(bytes => [...bytes])).to.deep.equal([[255]])

      await expectEcho(await dial(await createNode({ listen: [], psec: { schemes: [quicDatagram()] } }), bob.address))
      expect(stats(bob).validated).to.equal(1)
    })

    it('are turned away, and counted, when there is too much of that', async () => {
      const bob = await createTarget({ validationThreshold: 0 })
      const stranger = await openStranger('127.0.5.1')
      const invalid = (await createProposal(['/unknown'])).subarray(0, -1)

      // far more than a tenth of a second allows, and no more than a socket's buffer holds should the engine's thread not run meanwhile
      for (let i = 0; i < 128; i++) {
        stranger.send(bob, invalid)
      }

      await eventually(() => stats(bob).turnedAwayUnprepared + dropped(bob, 'invalid') === 128)
      expect(stats(bob).turnedAwayUnprepared).to.be.above(0)
      expect(dropped(bob, 'invalid')).to.be.above(0)
    })

    it('connect after the node was stopped and started again', async () => {
      const bob = await createTarget({ validationThreshold: 0 })
      await bob.node.stop()
      await bob.node.start()
      const address = multiaddr(bob.node.getMultiaddrs()[0].toString().replace(/\/p2p\/.*/, ''))
      await expectEcho(await dial(await createNode({ listen: [] }), address))
      expect(stats(bob).validated).to.equal(1)
    })
  })

  describe('from a threshold on', () => {
    it('raise the shield by falling silent, and an honest dial gets through', async () => {
      const bob = await createTarget({ validationThreshold: 4 })
      await flood(bob, 2)
      expect(events(bob, 'shield_up')).to.equal(0)
      await expectEcho(await dial(await createNode({ listen: [] }), bob.address))
      expect(stats(bob)).to.include({ shielded: 0, challenged: 0, validated: 0 })

      await eventually(() => pending(bob) === 2)
      await flood(bob, 2)
      await eventually(() => events(bob, 'shield_up') === 1)
      // nobody gets to JavaScript any more without a proof
      await Promise.all([1, 2, 3].map(async i => proposeFrom(bob, `127.2.${i}.1`)))
      await eventually(() => stats(bob).shielded === 3)
      expect(pending(bob)).to.equal(4)

      const honest = await Promise.all([1, 2, 3].map(async () => dial(await createNode({ listen: [] }), bob.address)))
      await Promise.all(honest.map(expectEcho))
      expect(stats(bob).validated).to.equal(3)
      expect(events(bob, 'shield_down')).to.equal(0)
    })

    it('need no proof any more when the silent have timed out', async () => {
      const bob = await createTarget({ validationThreshold: 2, handshakeTimeout: 300 })
      await flood(bob, 2)
      await eventually(() => events(bob, 'shield_down') === 1)
      expect(events(bob, 'shield_up')).to.equal(1)
      await eventually(() => pending(bob) === 0)
      const { challenged } = stats(bob)
      await expectEcho(await dial(await createNode({ listen: [] }), bob.address))
      expect(stats(bob)).to.include({ challenged, validated: 0 })
    })

    it('do not keep the shield up once they have given their proof', async () => {
      const gate = Promise.withResolvers<boolean>()
      const bob = await createTarget({ validationThreshold: 2, handshakeTimeout: 1_500 }, {
        connectionGater: {
          ...nodeDefaults.connectionGater,
          denyInboundUpgradedConnection: async () => gate.promise
        }
      })
      await flood(bob, 2)
      await eventually(() => events(bob, 'shield_up') === 1)
      const dials = [1, 2].map(async () => dial(await createNode({ listen: [] }), bob.address))
      await eventually(() => stats(bob).validated === 2)
      await eventually(() => events(bob, 'shield_down') === 1)
      expect(pending(bob)).to.equal(2)
      gate.resolve(false)
      await Promise.all((await Promise.all(dials)).map(expectEcho))
    })

    it('fill half of the room at most, and leave the rest to those with a proof', async () => {
      const stub = new StubScheme('/stub')
      const bob = await createTarget({ schemes: [quicDatagram(), stub], maxPendingInbound: 8, maxPendingPerPrefix: 8, validationThreshold: 2 })
      await flood(bob, 2)
      await eventually(() => events(bob, 'shield_up') === 1)

      // these still get to JavaScript: the shield has no answer for them
      for (let i = 0; i < 4; i++) {
        await proposeFrom(bob, `127.2.${i}.1`, ['/stub'])
      }

      await eventually(() => events(bob, 'turned_away_unproven') === 2)
      expect(pending(bob)).to.equal(4)
      expect(stub.responses).to.have.lengthOf(2)

      await expectEcho(await dial(await createNode({ listen: [], psec: { schemes: [quicDatagram()] } }), bob.address))
      expect(events(bob, 'turned_away_unproven')).to.equal(2)
    })

    it('have to prove their address to the scheme from the threshold on, also where the shield knows no answer', async () => {
      const stub = new StubScheme('/stub')
      const bob = await createTarget({ schemes: [stub], maxPendingInbound: 8, maxPendingPerPrefix: 8, validationThreshold: 2 })

      for (let i = 0; i < 4; i++) {
        await proposeFrom(bob, `127.2.${i}.1`, ['/stub'])
        await eventually(() => stub.responses.length === i + 1)
      }

      expect(stub.responses.map(({ options }) => options.validateAddress)).to.deep.equal([false, false, true, true])
    })

    it('fill as much of the room as was said', async () => {
      const stub = new StubScheme('/stub')
      const bob = await createTarget({ schemes: [quicDatagram(), stub], maxUnprovenInbound: 1 })
      await proposeFrom(bob, '127.2.1.1', ['/stub'])
      await eventually(() => pending(bob) === 1)
      await proposeFrom(bob, '127.2.2.1', ['/stub'])
      await eventually(() => events(bob, 'turned_away_unproven') === 1)

      expect(pending(bob)).to.equal(1)
    })

    it('come back from an address where they vanished, although the half that needs no proof is taken', async () => {
      const privateKey = await generateKeyPair('Ed25519')
      const bob = await createTarget({ maxPendingInbound: 4, maxPendingPerPrefix: 4, validationThreshold: 2 })
      const relay = await openRelay(bob)
      await dial(await createNode({ privateKey, listen: [] }), relay.address)
      await eventually(() => pending(bob) === 0)
      const [old] = bob.node.getConnections()
      await flood(bob, 2)
      await eventually(() => events(bob, 'shield_up') === 1)
      relay.mute()
      const connection = await dial(await createNode({ privateKey, listen: [] }), relay.address)
      await expectEcho(connection)
      await eventually(() => old.timeline.close != null)
      expect(events(bob, 'turned_away')).to.equal(0)
      expect(events(bob, 'turned_away_unproven')).to.equal(0)
    })

    it('leave nothing behind when the node stops', async () => {
      const endpoints = trackEndpoints()
      const bob = await createTarget({ validationThreshold: 2, endpoints })
      await flood(bob, 2)
      await eventually(() => events(bob, 'shield_up') === 1)
      await proposeFrom(bob, '127.2.1.1')
      await eventually(() => stats(bob).shieldedProposals === 1)
      const dials = [1, 2].map(async () => dial(await createNode({ listen: [] }), bob.address).catch(() => {}))
      await bob.node.stop()
      await stopNodes()
      await Promise.all(dials)

      expect(endpoints.openPorts()).to.equal(0)
      expect(pending(bob)).to.equal(0)
      expect(bob.metrics.calculated('libp2p_psec_pending_inbound_connections_total')).to.deep.equal({})
      // the port is free
      await new UdpEndpoint({ host: HOST, port: bob.port }).close()
    })

    it('need none where no scheme can ask for it, and are limited all the same', async () => {
      const stub = new StubScheme('/stub')
      const bob = await createTarget({ schemes: [stub], maxPendingInbound: 4, maxPendingPerPrefix: 4, validationThreshold: 0 })

      for (let i = 0; i < 6; i++) {
        await proposeFrom(bob, `127.1.${i}.1`, ['/stub'])
      }

      await eventually(() => events(bob, 'turned_away') === 2)
      expect(stub.responses).to.have.lengthOf(4)
      expect(pending(bob)).to.equal(4)
      expect(stats(bob).shielded).to.equal(0)
      expect(events(bob, 'shield_up')).to.equal(0)
    })
  })

  it('are turned away beyond maxPendingPerPrefix, but not those of another part of the network', async () => {
    const bob = await createTarget({ maxPendingInbound: 8, maxPendingPerPrefix: 2, validationThreshold: 8 })
    const first = await Promise.all([1, 2].map(async i => proposeFrom(bob, `127.0.5.${i}`)))
    await eventually(() => first.every(({ answers }) => answers.length === 1))
    const third = await proposeFrom(bob, '127.0.5.3')
    await eventually(() => events(bob, 'turned_away_prefix') === 1)
    const elsewhere = await proposeFrom(bob, '127.0.6.3')
    await eventually(() => elsewhere.answers.length === 1)

    expect(third.answers).to.be.empty()
    expect(pending(bob)).to.equal(3)
    expect(events(bob, 'turned_away')).to.equal(0)
  })

  it('are counted, and so is what they send on, where they are turned away', async () => {
    const bob = await createTarget({ maxPendingInbound: 0, validationThreshold: 1 })
    const stranger = await proposeFrom(bob, HOST)
    await eventually(() => events(bob, 'turned_away') === 1)
    // what follows a proposal on its heels gets to JavaScript
    ;[0x40, 0xc0, 1, 255].forEach(byte => { stranger.send(bob, Uint8Array.of(byte)) })
    await eventually(() => dropped(bob, 'no_proposal') === 4)
    expect(stats(bob).strangers).to.equal(0)
    expect(stranger.answers).to.be.empty()
  })

  it('are counted at a port that does not listen', async () => {
    const endpoints = trackEndpoints()
    const bob = await createTarget({})
    const alice = await createTarget({ endpoints }, { listen: [] })
    await dial(alice.node, bob.address)
    const stranger = await openStranger()
    const { port } = endpoints.endpoints[0].localAddress
    stranger.send({ port }, await createProposal([QUIC_DATAGRAM]))
    await eventually(() => stats(alice).unaccepted === 1)
    expect(stats(bob).unaccepted).to.equal(0)
  })

  it('are counted while they are on their way, by the address that they came to', async () => {
    const bob = await createTarget({ handshakeTimeout: 300 }, { listen: ['/ip4/127.0.0.1/udp/0/psec', '/ip6/::1/udp/0/psec'] })
    const gauge = (): unknown => bob.metrics.calculated('libp2p_psec_pending_inbound_connections_total')
    const port6 = bob.node.getMultiaddrs().map(ma => /^\/ip6\/::1\/udp\/(\d+)/.exec(ma.toString())?.[1]).find(port => port != null)
    expect(gauge()).to.deep.equal({ [`127.0.0.1:${bob.port}`]: 0, [`[::1]:${port6}`]: 0 })
    await proposeFrom(bob, HOST)
    await eventually(() => pending(bob) === 1)
    expect(gauge()).to.deep.equal({ [`127.0.0.1:${bob.port}`]: 1, [`[::1]:${port6}`]: 0 })
    await eventually(() => pending(bob) === 0)
  })

  describe('get no more than they sent', () => {
    const UP = 'while the shield is up'
    const DOWN = 'while the shield is down'

    /** quicDatagram by the shortest name that can be */
    function shortScheme (): SecurityScheme {
      const scheme = quicDatagram()

      return {
        protocol: '/',
        initiate: (socket, options) => scheme.initiate(socket, options),
        respond: async (socket, options) => scheme.respond(socket, options),
        addressValidator: (context) => scheme.addressValidator?.(context)
      }
    }

    /** What was sent so far has been dealt with: what was sent after it, and goes all the way, has an answer */
    async function settled (target: Target): Promise<void> {
      const last = await openStranger('127.9.9.9')
      const proposal = await createProposal(['/unprepared', '/'])
      await eventually(() => {
        // the shield may keep some of these from JavaScript
        last.send(target, proposal)

        return last.answers.length > 0
      })
    }

    for (const state of [DOWN, UP]) {
      for (const [what, schemes, answer] of [
        ['of one scheme', ['/'], [1, 1, 0x2f]],
        ['of no scheme', [], [255]],
        ['of a scheme that is not spoken', ['/x'], [255]],
        ['of many schemes that are not spoken', Array.from({ length: 255 }, (_, i) => `/${i}`), [255]],
        ['of a scheme that is spoken, behind others', ['/x', '/y', '/'], [1, 1, 0x2f]]
      ] as Array<[string, string[], number[]]>) {
        it(`for a proposal ${what}, once and 50 times, ${state}`, async () => {
          const bob = await createTarget({ schemes: [shortScheme()], validationThreshold: state === UP ? 0 : 256 })
          const stranger = await openStranger('127.0.5.1')
          const proposal = await createProposal(schemes)
          stranger.send(bob, proposal)
          await eventually(() => stranger.answers.length > 0)
          await settled(bob)
          expect(stranger.answers.map(bytes => [...bytes])).to.deep.equal([answer])
          expect(stranger.received).to.be.at.most(proposal.byteLength)

          for (let i = 0; i < 50; i++) {
            stranger.send(bob, proposal)
          }

          await eventually(() => stats(bob).datagramsIn >= 1 + 50)
          await settled(bob)
          expect(stranger.answers.length).to.be.at.most(51)
          stranger.answers.forEach(bytes => { expect([...bytes]).to.deep.equal(answer) })
          expect(events(bob, 'shield_up')).to.equal(state === UP ? 1 : 0)
        })
      }

      for (const [what, datagram] of [
        ['a proposal that is cut off', async () => (await createProposal(['/'])).subarray(0, -1)],
        ['a proposal with a byte too many', async () => Uint8Array.from([...await createProposal(['/'], Uint8Array.of(1)), 0])],
        ['an accept', async () => Uint8Array.of(1, 1, 0x2f)],
        ['a reject', async () => Uint8Array.of(255)],
        ['a first packet that is cut off', async () => (await captureFirstFlight())[0].subarray(0, 1199)],
        ['a short packet', async () => new Uint8Array(1200).fill(0x40)],
        ['a DTLS record', async () => new Uint8Array(100).fill(22)]
      ] as Array<[string, () => Promise<Uint8Array>]>) {
        it(`for ${what}, ${state}: nothing, and it is counted`, async () => {
          const bob = await createTarget({ schemes: [shortScheme()], validationThreshold: state === UP ? 0 : 256 })
          const stranger = await openStranger('127.0.5.1')
          const bytes = await datagram()

          for (let i = 0; i < 5; i++) {
            stranger.send(bob, bytes)
          }

          await eventually(() => stats(bob).strangers + stats(bob).unroutable + dropped(bob, 'invalid') === 5)
          await settled(bob)
          expect(stranger.received).to.equal(0)
        })
      }

      it(`for a first packet that nobody proposed, ${state}`, async () => {
        const bob = await createTarget({ schemes: [shortScheme()], validationThreshold: state === UP ? 0 : 256 })
        const stranger = await openStranger('127.0.5.1')
        const [first] = await captureFirstFlight()
        stranger.send(bob, first)
        await eventually(() => stats(bob).strangers + stats(bob).challenged === 1)
        await settled(bob)
        expect(stranger.answers).to.have.lengthOf(state === UP ? 1 : 0)
        expect(stranger.received).to.be.at.most(first.byteLength / 4)
      })

      it(`for a proposal with a real initiation packet, ${state}, but for what QUIC may send before it knows the address`, async () => {
        // the largest certificate
        const bob = await createTarget({ handshakeTimeout: 1_000, validationThreshold: state === UP ? 0 : 256 }, { privateKey: await generateKey('RSA') })
        const stranger = await openStranger('127.0.5.1')
        const [first, ...rest] = await captureFirstFlight()
        const proposal = await createProposal([QUIC_DATAGRAM], first)
        const total = [proposal, ...rest].reduce((sum, { byteLength }) => sum + byteLength, 0)
        ;[proposal, ...rest].forEach(datagram => { stranger.send(bob, datagram) })
        await eventually(() => stranger.answers.length > 1)

        if (state === UP) {
          await eventually(() => stats(bob).challenged === 1 + rest.length)
          expect(stranger.received).to.be.at.most(total)
          expect(pending(bob)).to.equal(0)
        } else {
          // with all repetitions
          await eventually(() => pending(bob) === 0)
          expect(stranger.received).to.be.above(total / 2)
          expect(stranger.received).to.be.at.most(3 * total)
        }
      })
    }
  })
})

describe('the shield of a UDP port', () => {
  const endpoints = new OpenEndpoints()

  afterEach(async () => {
    await endpoints.close()
  })

  interface Shielded {
    scheme: SecurityScheme
    alice: UdpEndpoint
    bob: UdpEndpoint
    aliceKey: PrivateKey
    bobKey: PrivateKey
    propose: Propose
    bare: Uint8Array
    accept: Uint8Array
  }

  /** Two ports, that of bob with a shield that answers what alice will propose */
  async function openShielded (): Promise<Shielded> {
    const scheme = quicDatagram()
    const [alice, bob] = [endpoints.open(), endpoints.open()]
    const [aliceKey, bobKey] = [await generateKeyPair('Ed25519'), await generateKeyPair('Ed25519')]
    const propose: Propose = { type: 'propose', peerId: peerIdFromPrivateKey(aliceKey).toMultihash().bytes, schemes: [QUIC_DATAGRAM] }
    const bare = encodeFrame(propose)
    const accept = encodeFrame({ type: 'accept', scheme: QUIC_DATAGRAM })

    bob.shield({
      answers: [{ offer: bare.subarray(2 + propose.peerId.byteLength), response: accept }],
      peerId: peerIdFromPrivateKey(bobKey).toMultihash().bytes,
      addressValidator: scheme.addressValidator?.({ privateKey: bobKey, logger: defaultLogger() }),
      maxProposals: 8,
      maxProposalsPerPrefix: 8,
      maxUnprepared: 16,
      lifetime: 15_000
    })

    return { scheme, alice, bob, aliceKey, bobKey, propose, bare, accept }
  }

  /** What the initiator does once it was answered */
  async function proceedAtOnce (scheme: SecurityScheme, socket: PacketSocket, privateKey: PrivateKey, { signal }: AbortController): Promise<SecureSession> {
    const initiation = scheme.initiate(socket, { privateKey, logger: defaultLogger(), maxInitiationPacketSize: 1400 })
    await initiation.firstFlight

    return initiation.proceed({ signal, sendFirstFlight: true, earlyDatagrams: [] })
  }

  it('passes on who gave a proof: the proposal with the proof as its initiation packet, then the proof', async () => {
    const { scheme, alice, bob, aliceKey, propose, bare, accept } = await openShielded()
    const filtered: Array<[Uint8Array, boolean]> = []
    const passedOn: Array<{ first: Uint8Array, validated: boolean, messages: Uint8Array[] }> = []

    bob.accept({
      filter: (datagram, _, validated) => {
        filtered.push([datagram, validated])
        return true
      },
      onSocket: (socket, first, validated) => {
        const messages: Uint8Array[] = []
        socket.addEventListener('message', ({ detail }) => { messages.push(detail) })
        passedOn.push({ first, validated, messages })
      }
    })
    const socket = alice.connect(bob.localAddress)
    const answers: Uint8Array[] = []
    socket.addEventListener('message', ({ detail }) => { answers.push(detail) })
    socket.send(bare)
    await eventually(() => answers.length === 1)
    expect(answers).to.deep.equal([accept])
    expect(filtered).to.be.empty()

    const controller = new AbortController()
    const session = proceedAtOnce(scheme, socket, aliceKey, controller)
    await eventually(() => passedOn.length === 1 && passedOn[0].messages.length > 0)
    const [{ first, validated, messages }] = passedOn
    expect(validated).to.equal(true)
    expect(filtered).to.deep.equal([[first, true]])
    expect(first).to.deep.equal(encodeFrame({ ...propose, initiationPacket: messages[0] }))
    expect(bob.stats.validated).to.equal(1)

    controller.abort()
    await expect(session).to.eventually.be.rejected()
  })

  it('has answered who gave a proof: that answer is not sent again', async () => {
    const { scheme, alice, bob, aliceKey, bare, accept } = await openShielded()
    const sent: PacketSocket[] = []
    bob.accept({
      filter: () => true,
      onSocket: (socket) => {
        sent.push(socket)
        socket.send(accept)
        socket.send(Uint8Array.of(1, 2))
      }
    })

    const socket = alice.connect(bob.localAddress)
    const frames: Uint8Array[] = []
    socket.addEventListener('message', ({ detail }) => { looksLikeFrame(detail) && frames.push(detail) })
    socket.send(bare)
    await eventually(() => frames.length === 1)
    const controller = new AbortController()
    const session = proceedAtOnce(scheme, socket, aliceKey, controller)
    await eventually(() => frames.length === 2)
    expect(sent).to.have.lengthOf(1)
    expect(frames).to.deep.equal([accept, Uint8Array.of(1, 2)])

    controller.abort()
    await expect(session).to.eventually.be.rejected()
  })

  it('tells who has a socket of a stranger that it answered meanwhile, and that gave its proof', async () => {
    const { scheme, alice, bob, aliceKey, propose, bare } = await openShielded()
    const socket = alice.connect(bob.localAddress)
    const messages: Uint8Array[] = []
    const opened: Uint8Array[] = []
    bob.accept({
      filter: () => {
        // as long as this goes on, JavaScript hears of nothing, and has no socket
        socket.send(bare)
        for (const end = performance.now() + 5_000; bob.stats.shielded < 2 && performance.now() < end;) {
          // nothing else
        }

        return true
      },
      onSocket: (socket, first) => {
        opened.push(first)
        socket.addEventListener('message', ({ detail }) => { messages.push(detail) })
      }
    })

    socket.send(bare)
    await eventually(() => bob.stats.shielded === 1)
    const controller = new AbortController()
    const sessions = [proceedAtOnce(scheme, socket, aliceKey, controller)]
    await eventually(() => opened.length === 1)
    sessions.push(proceedAtOnce(scheme, socket, aliceKey, controller))
    const isProposal = (datagram: Uint8Array): boolean => datagram[0] === 0
    await eventually(() => messages.some(isProposal) && !isProposal(messages[messages.length - 1]))
    const index = messages.findIndex(isProposal)
    expect(messages[index]).to.deep.equal(encodeFrame({ ...propose, initiationPacket: messages[index + 1] }))
    expect(messages[index]).to.not.deep.equal(opened[0])
    expect(opened).to.have.lengthOf(1)

    controller.abort()
    await Promise.all(sessions.map(async session => expect(session).to.eventually.be.rejected()))
  })

  it('answers nobody whose id is none, or its own: that is left to the acceptor', async () => {
    const { alice, bob, bobKey, propose, bare } = await openShielded()
    const list = bare.subarray(2 + propose.peerId.byteLength)
    const offered: Uint8Array[] = []
    bob.accept({
      filter: (datagram) => {
        offered.push(datagram)
        return false
      },
      onSocket: () => {}
    })
    const answers: Uint8Array[] = []
    const socket = alice.connect(bob.localAddress)
    socket.addEventListener('message', ({ detail }) => { answers.push(detail) })

    for (const peerId of [new Uint8Array(0), new Uint8Array(38), propose.peerId.subarray(0, 37), peerIdFromPrivateKey(bobKey).toMultihash().bytes]) {
      socket.send(Uint8Array.of(0, peerId.byteLength, ...peerId, ...list))
    }

    await eventually(() => offered.length === 4)
    // the next one's answer would come behind theirs
    socket.send(bare)
    await eventually(() => answers.length > 0)
    expect(answers).to.have.lengthOf(1)
    expect(bob.stats.shielded).to.equal(1)
  })

  it('does not come between a dial and its remote', async () => {
    const scheme = quicDatagram()
    const [alice, bob] = [endpoints.open(), endpoints.open()]
    const bobKey = await generateKeyPair('Ed25519')
    bob.accept({ filter: () => true, onSocket: () => { throw new Error('There is a socket already') } })
    bob.shield({
      answers: [],
      peerId: peerIdFromPrivateKey(bobKey).toMultihash().bytes,
      addressValidator: scheme.addressValidator?.({ privateKey: bobKey, logger: defaultLogger() }),
      maxProposals: 8,
      maxProposalsPerPrefix: 8,
      maxUnprepared: 16,
      lifetime: 15_000
    })
    const got: number[] = []
    bob.connect(alice.localAddress).addEventListener('message', ({ detail }) => { got.push(detail[0]) })
    const socket = alice.connect(bob.localAddress)
    socket.send(await createProposal([QUIC_DATAGRAM]))
    socket.send(Uint8Array.of(0xc0, 1))
    await eventually(() => got.length === 2)
    expect(got).to.deep.equal([0, 0xc0])
    expect(bob.stats).to.include({ shielded: 0, challenged: 0 })
  })

  it('needs the address validator of a scheme of the engine', () => {
    const endpoint = endpoints.open()

    for (const addressValidator of [undefined, null, {}, 'validator']) {
      expect(() => { endpoint.shield({ answers: [], peerId: new Uint8Array(), addressValidator, maxProposals: 8, maxProposalsPerPrefix: 8, maxUnprepared: 16, lifetime: 15_000 }) })
        .to.throw('address validator').with.property('name', 'InvalidParametersError')
    }
  })
})
