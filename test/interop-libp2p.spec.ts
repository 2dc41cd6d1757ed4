import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { fetch } from '@libp2p/fetch'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { ping } from '@libp2p/ping'
import { expect } from 'aegir/chai'
import { pipe } from 'it-pipe'
import { negotiation } from '../src/index.ts'
import { eventually } from './fixtures/eventually.ts'
import { stopNodes } from './fixtures/nodes.ts'
import { describeSchemes } from './fixtures/schemes.ts'
import type { Libp2p } from '@libp2p/interface'
import type { KadDHT } from '@libp2p/kad-dht'

/**
 * The one UDP port that a node has
 */
function portOf (node: Libp2p): number {
  const ports = new Set(node.getMultiaddrs().map(ma => Number(ma.getComponents()[1].value)))
  expect(ports.size).to.equal(1)

  return [...ports][0]
}

/**
 * How many peers a node would ask about anything in the DHT
 */
function knownPeers (node: Libp2p<any>): number {
  return node.services.dht.routingTable.size
}

describeSchemes('js-libp2p over PSEC', ({ createNode, protocol }) => {
  afterEach(stopNodes)

  /**
   * With a DHT of loopback addresses, in which anything may be stored as `/test/…`
   */
  async function createDHTNode (): Promise<Libp2p<{ dht: KadDHT }>> {
    return createNode({
      services: {
        identify: identify(),
        ping: ping(),
        dht: kadDHT({
          protocol: '/test/kad/1.0.0',
          clientMode: false,
          peerInfoMapper: passthroughMapper,
          allowQueryWithZeroPeers: true,
          validators: { test: async () => {} },
          selectors: { test: () => 0 }
        })
      }
    })
  }

  it('identifies', async () => {
    const bob = await createNode({ services: { identify: identify(), ping: ping() } })
    const alice = await createNode({ services: { identify: identify({ runOnConnectionOpen: false }) } })
    const result = await alice.services.identify.identify(await alice.dial(bob.getMultiaddrs()))

    expect(result.peerId.equals(bob.peerId)).to.equal(true)
    expect(result.protocols).to.include('/ipfs/ping/1.0.0')
  })

  it('pings, and leaves no stream behind', async () => {
    const bob = await createNode({ services: { ping: ping() } })
    const alice = await createNode({ services: { ping: ping() } })
    const connection = await alice.dial(bob.getMultiaddrs())

    for (let i = 0; i < 20; i++) {
      expect(await alice.services.ping.ping(bob.peerId)).to.be.a('number')
    }

    await eventually(() => connection.streams.length === 0 && bob.getConnections()[0].streams.length === 0)
  })

  it('pipes streams with it-pipe', async () => {
    const bob = await createNode()
    const alice = await createNode()
    await bob.handle('/shout/1.0.0', async (stream) => {
      await pipe(stream, async function * (source) {
        for await (const chunk of source) {
          yield new TextEncoder().encode(new TextDecoder().decode(chunk.subarray()).toUpperCase())
        }
      }, async (source) => {
        for await (const chunk of source) {
          stream.send(chunk)
        }

        await stream.close()
      })
    })

    const stream = await alice.dialProtocol(bob.getMultiaddrs(), '/shout/1.0.0')
    stream.send(new TextEncoder().encode('anybody there?'))
    await stream.close()
    const answer = await pipe(stream, async (source) => {
      let text = ''

      for await (const chunk of source) {
        text += new TextDecoder().decode(chunk.subarray())
      }

      return text
    })

    expect(answer).to.equal('ANYBODY THERE?')
  })

  it('moves megabytes on one stream while others come and go', async () => {
    const bob = await createNode({ services: { ping: ping() } })
    const alice = await createNode({ services: { ping: ping() } })
    const chunk = randomBytes(64 * 1024)
    const sent = createHash('sha256')
    const received = createHash('sha256')
    const done = Promise.withResolvers<void>()
    await bob.handle('/store/1.0.0', async (stream) => {
      for await (const chunk of stream) {
        received.update(chunk.subarray())
      }

      done.resolve()
    })

    const stream = await alice.dialProtocol(bob.getMultiaddrs(), '/store/1.0.0')

    for (let i = 0; i < 32 * 16; i++) {
      chunk[0] = i
      sent.update(chunk)

      if (!stream.send(chunk.slice())) {
        await once(stream, 'drain')
      }

      if (i % 64 === 0) {
        await alice.services.ping.ping(bob.peerId)
      }
    }

    await stream.close()
    await done.promise

    expect(received.digest('hex')).to.equal(sent.digest('hex'))
  })

  it('gossips through three nodes', async () => {
    const services = { identify: identify(), pubsub: gossipsub({ allowPublishToZeroTopicPeers: true }) }
    const [alice, bob, carol] = [await createNode({ services }), await createNode({ services }), await createNode({ services })]
    const heard: string[] = []

    for (const node of [alice, bob, carol]) {
      node.services.pubsub.subscribe('news')
    }

    carol.services.pubsub.addEventListener('message', (evt) => {
      heard.push(new TextDecoder().decode(evt.detail.data))
    })

    await alice.dial(bob.getMultiaddrs())
    await carol.dial(bob.getMultiaddrs())
    await eventually(() => bob.services.pubsub.getSubscribers('news').length === 2 &&
      alice.services.pubsub.getSubscribers('news').length === 1 && (bob.services.pubsub as any).getMeshPeers('news').length === 2)

    await alice.services.pubsub.publish('news', new TextEncoder().encode('it works'))
    await eventually(() => heard.length > 0)

    expect(heard).to.deep.equal(['it works'])
  })

  it('finds a peer in the DHT, at an address that others can dial', async () => {
    const [alice, bob, carol] = [await createDHTNode(), await createDHTNode(), await createDHTNode()]
    await alice.dial(bob.getMultiaddrs())
    await carol.dial(bob.getMultiaddrs())
    await eventually(() => knownPeers(alice) === 1 && knownPeers(bob) === 2)

    const found = await alice.peerRouting.findPeer(carol.peerId)
    const connection = await alice.dial(found.multiaddrs)

    expect(found.multiaddrs.map(ma => `${ma}/p2p/${carol.peerId}`)).to.deep.equal(carol.getMultiaddrs().map(String))
    expect(connection.remotePeer.equals(carol.peerId)).to.equal(true)
  })

  it('gets a value from the DHT that was put before it came', async () => {
    const [alice, bob, carol] = [await createDHTNode(), await createDHTNode(), await createDHTNode()]
    const key = new TextEncoder().encode('/test/news')
    await alice.dial(bob.getMultiaddrs())
    await eventually(() => knownPeers(alice) === 1)
    await alice.contentRouting.put(key, new TextEncoder().encode('it works'))
    await carol.dial(bob.getMultiaddrs())
    await eventually(() => knownPeers(carol) === 1)

    expect(new TextDecoder().decode(await carol.contentRouting.get(key))).to.equal('it works')
  })

  it('fetches a value by its key', async () => {
    const bob = await createNode({ services: { fetch: fetch() } })
    const alice = await createNode({ services: { fetch: fetch() } })
    bob.services.fetch.registerLookupFunction('/shout/', async (key) => new TextEncoder().encode(new TextDecoder().decode(key).toUpperCase()))
    await alice.dial(bob.getMultiaddrs())

    expect(new TextDecoder().decode(await alice.services.fetch.fetch(bob.peerId, '/shout/hello'))).to.equal('/SHOUT/HELLO')
    expect(await alice.services.fetch.fetch(bob.peerId, '/whisper/hello').catch(err => err.name)).to.equal('ProtocolError')
  })

  it('has three nodes listen, dial and be reached at one port each', async () => {
    const nodes = [await createNode(), await createNode(), await createNode()]
    const [alice, bob, carol] = nodes

    await alice.dial(bob.getMultiaddrs())
    await bob.dial(carol.getMultiaddrs())
    await carol.dial(alice.getMultiaddrs())
    await eventually(() => nodes.every(node => node.getConnections().length === 2))

    for (const node of nodes) {
      const others = nodes.filter(other => other !== node)
      const reached = node.getConnections().map(({ remoteAddr }) => Number(remoteAddr.getComponents()[1].value))

      // each knows the others by the port they listen on, whoever dialled
      expect(reached).to.have.members(others.map(portOf))
    }
  })

  it('tells both sides what was negotiated', async () => {
    const bob = await createNode()
    const alice = await createNode()
    const dialled = negotiation(await alice.dial(bob.getMultiaddrs()))
    await eventually(() => bob.getConnections().length === 1)
    const accepted = negotiation(bob.getConnections()[0])

    expect(dialled).to.include({ scheme: protocol, role: 'initiator', simultaneous: false })
    expect(dialled?.timings.secured).to.be.at.least(dialled?.timings.agreed ?? Infinity)
    expect(accepted).to.include({ scheme: protocol, role: 'responder', simultaneous: false })
    expect(accepted?.remoteSchemes).to.deep.equal(dialled?.localSchemes)
  })
})
