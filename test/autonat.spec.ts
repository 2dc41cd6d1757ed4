/**
 * How a node finds out that others get to its public address: it asks those it is connected with to dial it back (libp2p's AutoNAT
 * specifications). In memory, since nobody is asked about addresses of the loopback interface.
 */
import { autoNAT } from '@libp2p/autonat'
import { autoNATv2 } from '@libp2p/autonat-v2'
import { identify } from '@libp2p/identify'
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { MemoryNetwork, psec } from '../src/index.ts'
import { eventually } from './fixtures/eventually.ts'
import { createNode, nodeDefaults, stopNodes } from './fixtures/nodes.ts'
import { describeSchemes } from './fixtures/schemes.ts'
import type { PacketAddress, PacketEndpointFactory } from '../src/index.ts'
import type { Connection, Libp2p } from '@libp2p/interface'

const ALICE = '5.0.0.2'
const BOB = '6.0.0.2'
const OTHERS = ['7.0.0.2', '8.0.0.2', '9.0.0.2']

/** Where Alice listens if she is behind a NAT */
const ALICE_INSIDE = '10.0.0.2'

/** How long it may take to dial back: 5 s by default */
const DIAL_TIMEOUT = 1_000

describeSchemes('AutoNAT', (scheme) => {
  let network: MemoryNetwork
  let isAliceOpen: boolean
  /** Where datagrams to Alice came from that she did not get */
  let turnedAway: PacketAddress[]

  beforeEach(() => {
    const openings = new Set<string>()
    isAliceOpen = true
    turnedAway = []
    network = new MemoryNetwork({
      onSend (_, from, to) {
        openings.add(`${from.host}:${from.port} ${to.host}:${to.port}`)

        if (isAliceOpen || to.host !== ALICE || openings.has(`${to.host}:${to.port} ${from.host}:${from.port}`)) {
          return true
        }

        turnedAway.push(from)

        return false
      }
    })
  })

  afterEach(async () => {
    await stopNodes()
    await network.close()
  })

  /**
   * At a public address, or behind a NAT that has it
   */
  async function createNodeAt (host: string, autonat: typeof autoNAT | typeof autoNATv2, listenHost: string = host): Promise<Libp2p> {
    const endpoints: PacketEndpointFactory = { open: async (options) => network.open({ ...options, host }) }

    return createNode({
      listen: [`/ip4/${listenHost}/udp/4001/psec`],
      transports: [psec({ schemes: [scheme.create()], endpoints })],
      connectionManager: { ...nodeDefaults.connectionManager, addressDialTimeout: DIAL_TIMEOUT },
      services: { identify: identify(), autonat: autonat() }
    })
  }

  async function dial (node: Libp2p, remote: Libp2p, host: string): Promise<Connection> {
    return node.dial(multiaddr(`/ip4/${host}/udp/4001/p2p/${remote.peerId}`))
  }

  it('has a node announce its public address once another one has dialled that', async () => {
    const bob = await createNodeAt(BOB, autoNATv2)
    const alice = await createNodeAt(ALICE, autoNATv2)
    const announcedAtFirst = alice.getMultiaddrs()
    await dial(alice, bob, BOB)
    await eventually(() => alice.getMultiaddrs().length > 0)

    expect(announcedAtFirst).to.be.empty()
    expect(alice.getMultiaddrs().map(String)).to.deep.equal([`/ip4/${ALICE}/udp/4001/p2p/${alice.peerId}`])
  })

  it('has a node announce the address at which others see it once four of other networks have dialled that', async () => {
    const alice = await createNodeAt(ALICE, autoNATv2, ALICE_INSIDE)
    const announced = `/ip4/${ALICE}/udp/4001/p2p/${alice.peerId}`

    for (const host of [BOB, ...OTHERS]) {
      expect(alice.getMultiaddrs().map(String)).to.not.include(announced)
      await dial(alice, await createNodeAt(host, autoNATv2), host)
    }

    await eventually(() => alice.getMultiaddrs().map(String).includes(announced))
  })

  it('does not take the connection that there is, or the hole that it made, for a dial that gets through', async () => {
    isAliceOpen = false
    const bob = await createNodeAt(BOB, autoNATv2)
    const alice = await createNodeAt(ALICE, autoNATv2)
    const connection = await dial(alice, bob, BOB)
    await eventually(() => turnedAway.length > 0)
    // the answer is there
    await eventually(() => connection.streams.length === 0)

    expect(turnedAway.map(({ port }) => port)).to.not.include(4001)
    expect(connection.status).to.equal('open')
    expect(alice.getMultiaddrs()).to.be.empty()
  })

  // why it takes the second version; should js-libp2p ever dial back by a connection of its own, this test says so
  it('of version 1 closes the connection by which it was asked, so that there is no answer', async () => {
    const bob = await createNodeAt(BOB, autoNAT)
    const alice = await createNodeAt(ALICE, autoNAT)
    const connection = await dial(alice, bob, BOB)
    await eventually(() => connection.status === 'closed')

    expect(alice.getMultiaddrs()).to.be.empty()
  })
})
