/**
 * Strangers who are answered, and whose handshake begins, while JavaScript reads their proposal (`docs/negotiation.md`, "Who answers").
 * Packet by packet: `engine/src/core/tests/reception.rs`.
 */
import { createSocket } from 'node:dgram'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { defaultLogger } from '@libp2p/logger'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { expect } from 'aegir/chai'
import { dtls, negotiation, quicDatagram, udp } from '../src/index.ts'
import { compareIds } from '../src/negotiation/index.ts'
import { PsecUpgrader } from '../src/upgrader/index.ts'
import { decodeFrame, encodeFrame, looksLikeFrame } from '../src/wire/index.ts'
import { expectEcho, handleEcho } from './fixtures/echo.ts'
import { eventually } from './fixtures/eventually.ts'
import { captureFirstFlight } from './fixtures/first-flight.ts'
import { createNode, stopNodes } from './fixtures/nodes.ts'
import { OpenEndpoints } from './fixtures/open-endpoints.ts'
import { recordMetrics } from './fixtures/record-metrics.ts'
import { UdpRelay } from './fixtures/udp-relay.ts'
import type { RecordedMetrics } from './fixtures/record-metrics.ts'
import type { PsecInit } from '../src/index.ts'
import type { PacketSocket } from '../src/sockets/index.ts'
import type { SecuredSocket } from '../src/upgrader/index.ts'
import type { Connection, Libp2p, PeerId, PrivateKey } from '@libp2p/interface'

const HOST = '127.0.0.1'

/** A node that somebody dials */
interface Target {
  node: Libp2p<any>
  metrics: RecordedMetrics
}

async function createTarget (init: PsecInit = {}): Promise<Target> {
  const metrics = recordMetrics()
  const node = await createNode({ metrics: metrics.metrics, psec: init })
  await handleEcho(node)

  return { node, metrics }
}

function portOf ({ node }: Target): number {
  return Number(node.getMultiaddrs()[0].getComponents()[1].value)
}

function stats ({ metrics }: Target): Record<string, number> {
  return metrics.calculated('libp2p_psec_open_ports_counters') as Record<string, number>
}

async function dial ({ node }: Target, init: PsecInit = {}): Promise<Connection> {
  const dialler = await createNode({ listen: [], psec: init })

  return dialler.dial(node.getMultiaddrs(), { signal: AbortSignal.timeout(8_000) })
}

async function generateKeys (isFirstLower: boolean): Promise<PrivateKey[]> {
  const keys = [await generateKeyPair('Ed25519'), await generateKeyPair('Ed25519')]
  const [first, second] = keys.map(key => peerIdFromPrivateKey(key).toMultihash().bytes)

  return (compareIds(first, second) < 0) === isFirstLower ? keys : keys.reverse()
}

/** Connections on their way to a target */
function pending ({ metrics }: Target): number {
  return Object.values(metrics.calculated('libp2p_psec_pending_inbound_connections_total') as Record<string, number>)
    .reduce((sum, count) => sum + count, 0)
}

describe('strangers who are welcome', () => {
  afterEach(async () => {
    await stopNodes()
  })

  it('have their handshake begun before JavaScript answers, and are connected as by its answer', async () => {
    const bob = await createTarget()
    const connection = await dial(bob)
    await expectEcho(connection)
    expect(negotiation(connection)).to.include({ role: 'initiator', simultaneous: false })
    expect(await negotiation(connection)?.confirmation).to.equal(true)
    expect(stats(bob)).to.include({ welcomed: 1, unwanted: 0 })
  })

  it('get one answer to their proposal', async () => {
    const bob = await createTarget()
    const relay = await UdpRelay.open(portOf(bob))

    try {
      const alice = await createNode({ listen: [] })
      await expectEcho(await alice.dial(relay.address))
      expect(relay.answers.filter(looksLikeFrame).map(decodeFrame)).to.deep.equal([{ type: 'accept', scheme: quicDatagram().protocol }])
      expect(bob.metrics.counters('libp2p_psec_frames_total')).to.include({ accept_sent: 1 })
    } finally {
      relay.close()
    }
  })

  it('may claim an id that is hashed', async () => {
    const bob = await createTarget()
    const alice = await createNode({ listen: [], privateKey: await generateKeyPair('RSA', 2048) })
    await expectEcho(await alice.dial(bob.node.getMultiaddrs()))
    expect(stats(bob).welcomed).to.equal(1)
  })

  for (const [why, theirs, ours] of [
    ['without an initiation packet', { initiationPacket: false }, {}],
    ['if the packet is of another scheme than the one that is chosen', { schemes: [dtls(), quicDatagram()] }, { selectScheme: () => quicDatagram().protocol }],
    ['if they offer a scheme that has no address validator', { schemes: [dtls()] }, {}],
    ['if they have to prove their address', {}, { validationThreshold: 0 }],
    ['on a port that takes no guests', {}, { endpoints: udp({ maxGuests: 0 }) }]
  ] satisfies Array<[string, PsecInit, PsecInit]>) {
    it(`are JavaScript's alone ${why}`, async () => {
      const bob = await createTarget(ours)
      await expectEcho(await dial(bob, theirs))
      expect(stats(bob)).to.include({ welcomed: 0, unwanted: 0 })
    })
  }

  it('wait until there is room for them', async () => {
    const bob = await createTarget({ maxPendingInbound: 1, validationThreshold: 100, handshakeTimeout: 400 })
    const silent = createSocket('udp4')
    const proposal = { type: 'propose' as const, peerId: peerIdFromPrivateKey(await generateKeyPair('Ed25519')).toMultihash().bytes, schemes: [quicDatagram().protocol] }

    try {
      silent.send(encodeFrame(proposal), portOf(bob), HOST)
      await eventually(() => pending(bob) === 1)
      await expectEcho(await dial(bob))
      expect(stats(bob)).to.include({ welcomed: 0, unwanted: 0 })
    } finally {
      silent.close()
    }
  })

  it('are welcome again after the node was stopped and started', async () => {
    const bob = await createTarget()
    await bob.node.stop()
    await bob.node.start()
    await expectEcho(await dial(bob))
    expect(stats(bob)).to.include({ welcomed: 1, unwanted: 0 })
  })
})

describe('the welcome of a UDP port', () => {
  const endpoints = new OpenEndpoints()

  afterEach(async () => {
    await endpoints.close()
  })

  function createUpgrader (privateKey: PrivateKey): PsecUpgrader {
    return new PsecUpgrader({ peerId: peerIdFromPrivateKey(privateKey), privateKey, logger: defaultLogger() }, { schemes: [quicDatagram()] })
  }

  interface Crossing {
    bobId: PeerId
    toBob: Promise<SecuredSocket>
    toAlice: Promise<SecuredSocket>

    /** What Bob got from Alice's proposal: the socket, and the one beside it by which he dials her */
    accepted: Promise<[PacketSocket, PacketSocket | undefined]>
    dialled: PacketSocket

    /** Whether what Bob's dial has agreed on is a simultaneous negotiation, once it has agreed */
    isSimultaneous (): boolean | undefined
    stop (): void
  }

  /**
   * Alice dials Bob, whose engine answers her; he dials her before JavaScript has heard of that
   */
  async function cross (aliceKey: PrivateKey, bobKey: PrivateKey, { lose = 0, delay = 0 }: { lose?: number, delay?: number }): Promise<Crossing> {
    const [aliceUpgrader, bobUpgrader] = [createUpgrader(aliceKey), createUpgrader(bobKey)]
    const [alice, bob] = [endpoints.open(), endpoints.open()]
    const controller = new AbortController()
    const { signal } = controller
    const accepted = Promise.withResolvers<[PacketSocket, PacketSocket | undefined]>()
    const crossing = Promise.withResolvers<[PacketSocket, Promise<SecuredSocket>]>()
    const socket = alice.connect(bob.localAddress)
    let toLose = lose
    // what comes to Alice, unless it is lost, waits until she has proposed again
    const late: Uint8Array[] = []
    let isLate = delay > 0
    socket.addEventListener('message', (evt) => {
      const isLost = evt.detail[0] === 1 && toLose-- > 0

      if (isLost || isLate) {
        evt.stopImmediatePropagation()
        late.push(...(isLost ? [] : [evt.detail]))
      }
    })
    setTimeout(() => {
      isLate = false
      late.splice(0).forEach(datagram => { (socket as any).receive(datagram) })
    }, delay)
    bob.welcome(bobUpgrader.prepareAnswers())
    bob.accept({
      filter: datagram => bobUpgrader.isProposal(datagram),
      onSocket: (socket, firstDatagram, validated, older) => {
        bobUpgrader.upgradeInbound(socket, { firstDatagram, signal }).then(() => { accepted.resolve([socket, older]) }, () => {})
      }
    })

    let isSimultaneous: boolean | undefined
    let attempts = 0
    const toBob = aliceUpgrader.upgradeOutbound(socket, {
      signal,
      onProgress: ({ type }) => {
        if (type === 'psec:propose' && attempts++ === 0) {
          // once all of the first flight has left, and as long as this goes on, JavaScript hears of nothing
          queueMicrotask(() => {
            for (const end = performance.now() + 5_000; bob.stats.welcomed === 0 && performance.now() < end;) {
              // nothing else
            }

            const dialled = bob.connect(alice.localAddress)
            crossing.resolve([dialled, bobUpgrader.upgradeOutbound(dialled, {
              signal,
              onProgress: (evt) => {
                if (evt.type === 'psec:agreed') {
                  isSimultaneous = evt.detail.simultaneous
                }
              }
            })])
          })
        }
      }
    })
    toBob.catch(() => {})
    const [dialled, toAlice] = await crossing.promise
    toAlice.catch(() => {})
    expect(bob.stats.welcomed).to.equal(1)

    return {
      bobId: peerIdFromPrivateKey(bobKey),
      toBob,
      toAlice,
      accepted: accepted.promise,
      dialled,
      isSimultaneous: () => isSimultaneous,
      stop: () => { controller.abort(new Error('This test is over')) }
    }
  }

  for (const lower of ['the stranger', 'we']) {
    it(`goes before what is proposed to the stranger in the same moment, ${lower} having the lower id`, async () => {
      const [aliceKey, bobKey] = await generateKeys(lower === 'the stranger')
      const { bobId, toBob, accepted, dialled, stop } = await cross(aliceKey, bobKey, {})
      const [socket, older] = await accepted
      expect(older).to.equal(dialled)
      expect(socket).to.not.equal(dialled)
      const { session, negotiation } = await toBob
      expect(negotiation).to.include({ role: 'initiator', simultaneous: false })
      expect(session.remotePeer.equals(bobId)).to.equal(true)
      session.abort(new Error('This test is over'))
      stop()
    })

    it(`goes before that also if the stranger proposes again before it has the answer, ${lower} having the lower id`, async () => {
      const [aliceKey, bobKey] = await generateKeys(lower === 'the stranger')
      const { toBob, accepted, dialled, isSimultaneous, stop } = await cross(aliceKey, bobKey, { delay: 600 })
      const { session, negotiation } = await toBob
      expect(negotiation).to.include({ role: 'initiator', simultaneous: false })
      expect((await accepted)[1]).to.equal(dialled)
      expect(isSimultaneous()).to.be.undefined()
      session.abort(new Error('This test is over'))
      stop()
    })

    it(`gives way to that if the answer is lost, ${lower} having the lower id`, async () => {
      const [aliceKey, bobKey] = await generateKeys(lower === 'the stranger')
      const { bobId, toBob, toAlice, accepted, stop } = await cross(aliceKey, bobKey, { lose: 1 })
      const { session, negotiation } = await toBob
      expect(negotiation).to.include({ role: lower === 'the stranger' ? 'initiator' : 'responder', simultaneous: true })
      expect(session.remotePeer.equals(bobId)).to.equal(true)
      // her first flight is known to the session that began with it
      await (lower === 'the stranger' ? accepted : toAlice)
      session.abort(new Error('This test is over'))
      stop()
    })
  }

  it('does not keep us from those whose address was forged', async () => {
    const [aliceKey, bobKey, forgerKey] = await Promise.all(Array.from({ length: 3 }, async () => generateKeyPair('Ed25519')))
    const [aliceUpgrader, bobUpgrader] = [createUpgrader(aliceKey), createUpgrader(bobKey)]
    const [alice, bob] = [endpoints.open(), endpoints.open()]
    const signal = AbortSignal.timeout(20_000)
    const opened: Array<PacketSocket | undefined> = []
    alice.accept({
      filter: datagram => aliceUpgrader.isProposal(datagram),
      onSocket: (socket, firstDatagram) => { aliceUpgrader.upgradeInbound(socket, { firstDatagram, signal }).catch(() => {}) }
    })
    bob.welcome(bobUpgrader.prepareAnswers())
    bob.accept({
      filter: datagram => bobUpgrader.isProposal(datagram),
      onSocket: (socket, firstDatagram, _validated, dialled) => {
        opened.push(dialled)
        bobUpgrader.upgradeInbound(socket, { firstDatagram, signal }).catch(() => {})
      }
    })
    const [packet] = await captureFirstFlight()
    const forged = encodeFrame({ type: 'propose', peerId: peerIdFromPrivateKey(forgerKey).toMultihash().bytes, schemes: [quicDatagram().protocol], initiationPacket: packet })
    const socket = alice.connect(bob.localAddress)
    socket.send(forged)

    for (const end = performance.now() + 5_000; bob.stats.welcomed === 0 && performance.now() < end;) {
      // JavaScript hears of nothing
    }

    socket.close()
    const dialled = bob.connect(alice.localAddress)
    const { session } = await bobUpgrader.upgradeOutbound(dialled, { signal })

    expect(session.remotePeer.equals(peerIdFromPrivateKey(aliceKey))).to.equal(true)
    expect(opened).to.deep.equal([dialled])
    session.abort(new Error('This test is over'))
  })

  it('ends with the acceptor turning the stranger away', async () => {
    const [aliceKey, bobKey] = [await generateKeyPair('Ed25519'), await generateKeyPair('Ed25519')]
    const [alice, bob] = [endpoints.open(), endpoints.open()]
    bob.welcome(createUpgrader(bobKey).prepareAnswers())
    bob.accept({ filter: () => false, onSocket: () => { throw new Error('It was turned away') } })
    const dialling = createUpgrader(aliceKey).upgradeOutbound(alice.connect(bob.localAddress), { signal: AbortSignal.timeout(8_000) })
    dialling.catch(() => {})
    await eventually(() => bob.stats.unwanted === 1)
    expect(bob.stats.welcomed).to.equal(1)
    await dialling.then(({ session }) => { session.abort(new Error('This test is over')) }, () => {})
  })

  it('is not for who claims to be us', async () => {
    const bobKey = await generateKeyPair('Ed25519')
    const [alice, bob] = [endpoints.open(), endpoints.open()]
    const upgrader = createUpgrader(bobKey)
    const filtered: Uint8Array[] = []
    bob.welcome(upgrader.prepareAnswers())
    bob.accept({ filter: (datagram) => filtered.push(datagram) < 0, onSocket: () => {} })
    const proposal = encodeFrame({ type: 'propose', peerId: peerIdFromPrivateKey(bobKey).toMultihash().bytes, schemes: [quicDatagram().protocol], initiationPacket: new Uint8Array(1200).fill(0xc0) })
    alice.connect(bob.localAddress).send(proposal)
    await eventually(() => filtered.length === 1)
    expect(bob.stats.welcomed).to.equal(0)
  })

  it('needs the address validator of a scheme of the engine', () => {
    const endpoint = endpoints.open()

    for (const addressValidator of [undefined, null, {}, 'validator']) {
      expect(() => { endpoint.welcome({ answers: [], addressValidator, peerId: new Uint8Array() }) })
        .to.throw('address validator').with.property('name', 'InvalidParametersError')
    }
  })
})
