/**
 * Two peers behind NATs, that are told by one in public where they are seen, meet by a relay and get through to each other by
 * js-libp2p's hole punching (libp2p's DCUtR specification)
 */
import { noise } from '@chainsafe/libp2p-noise'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { dcutr } from '@libp2p/dcutr'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { pEvent } from 'p-event'
import { datagrams, MemoryNetwork, negotiation, PSEC, psec } from '../src/index.ts'
import { expectEcho, handleEcho } from './fixtures/echo.ts'
import { eventually } from './fixtures/eventually.ts'
import { createNode, stopNodes } from './fixtures/nodes.ts'
import { describeSchemes } from './fixtures/schemes.ts'
import type { DatagramEvent, Datagrams } from '../src/index.ts'
import type { Connection, Libp2p, PeerId } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

const DATAGRAMS = '/test/datagrams/1.0.0'

/** Public ones, since nobody is told of others */
const ALICE = '5.0.0.2'
const BOB = '5.0.0.3'

/** In public */
const CAROL = '5.0.0.4'

/** How long a peer tries to get through alone before it asks the other one to dial, too: 5 s by default */
const DCUTR_TIMEOUT = 500

/**
 * Each host but Carol's is behind a NAT that lets in only what comes from where the host has sent something to
 */
function createNats (): MemoryNetwork {
  const openings = new Set<string>()

  return new MemoryNetwork({
    delay: 10,
    onSend (_, from, to) {
      openings.add(`${from.host}:${from.port} ${to.host}:${to.port}`)

      return to.host === CAROL || openings.has(`${to.host}:${to.port} ${from.host}:${from.port}`)
    }
  })
}

/** What connections by TCP, and those by the relay, need */
const secured = {
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()]
}

async function createRelay (): Promise<Libp2p> {
  return createNode({
    ...secured,
    listen: ['/ip4/127.0.0.1/tcp/0'],
    transports: [tcp()],
    services: { identify: identify(), relay: circuitRelayServer() }
  })
}

/**
 * Resolves with a node's first connection with that peer that does not go by the relay
 */
async function directConnection (node: Libp2p<any>, peer: PeerId): Promise<Connection> {
  const find = (): Connection | undefined => node.getConnections(peer).find(connection => connection.direct)
  await eventually(() => find() != null)

  return find() as Connection
}

describeSchemes('hole punching', (scheme) => {
  let network: MemoryNetwork
  let alice: Libp2p<{ datagrams: Datagrams }>
  let bob: Libp2p<{ datagrams: Datagrams }>
  let bobByRelay: Multiaddr

  async function createPublicPeer (): Promise<Multiaddr> {
    const { peerId } = await createNode({
      listen: [`/ip4/${CAROL}/udp/4001/psec`],
      transports: [psec({ schemes: [scheme.create()], endpoints: network })],
      services: { identify: identify() }
    })

    return multiaddr(`/ip4/${CAROL}/udp/4001/p2p/${peerId}`)
  }

  async function createPeer (host: string, relay: Multiaddr, publicPeer: Multiaddr): Promise<Libp2p<{ datagrams: Datagrams }>> {
    const observed = new Set<string>()
    const peer = await createNode({
      ...secured,
      addresses: {
        listen: [`/ip4/${host}/udp/4001/psec`, `${relay}/p2p-circuit`],
        announceFilter: addresses => [...addresses, ...[...observed].map(ma => multiaddr(ma))]
      },
      transports: [psec({ schemes: [scheme.create()], endpoints: network }), tcp(), circuitRelayTransport()],
      services: { identify: identify(), dcutr: dcutr({ timeout: DCUTR_TIMEOUT }), datagrams: datagrams() }
    })
    peer.addEventListener('peer:identify', ({ detail: { observedAddr } }) => {
      if (observedAddr != null && PSEC.exactMatch(observedAddr)) {
        observed.add(observedAddr.toString())
      }
    })
    await peer.dial(publicPeer)
    await eventually(() => observed.size > 0)

    return peer
  }

  beforeEach(async () => {
    network = createNats()
    const relay = await createRelay()
    const [address] = relay.getMultiaddrs()
    const publicPeer = await createPublicPeer()
    alice = await createPeer(ALICE, address, publicPeer)
    bob = await createPeer(BOB, address, publicPeer)
    bobByRelay = multiaddr(`${address}/p2p-circuit/p2p/${bob.peerId}`)
  })

  afterEach(async () => {
    await stopNodes()
    await network.close()
  })

  it('gets a dial by a relay a direct connection, with streams and datagrams', async () => {
    await handleEcho(bob)
    await bob.services.datagrams.handle(DATAGRAMS, (flow) => {
      flow.addEventListener('message', (evt) => { flow.send(evt.data) })
    })

    const relayed = await alice.dial(bobByRelay)
    const connection = await directConnection(alice, bob.peerId)
    const flow = await alice.services.datagrams.open(bob.peerId, DATAGRAMS)
    const echo = pEvent<'message', DatagramEvent>(flow, 'message')
    flow.send(Uint8Array.of(1, 2, 3))

    expect(relayed.limits).to.not.equal(undefined)
    expect(negotiation(connection)?.scheme).to.equal(scheme.protocol)
    expect(flow.connection).to.equal(connection)
    expect([...(await echo).data]).to.deep.equal([1, 2, 3])
    await expectEcho(connection)
  })

  it('leaves one connection on either side', async () => {
    await alice.dial(bobByRelay)
    await Promise.all([directConnection(alice, bob.peerId), directConnection(bob, alice.peerId)])
    await eventually(() => alice.getConnections(bob.peerId).length === 1 && bob.getConnections(alice.peerId).length === 1)

    expect(alice.getConnections(bob.peerId)[0].direct).to.equal(true)
    expect(bob.getConnections(alice.peerId)[0].direct).to.equal(true)
  })
})
