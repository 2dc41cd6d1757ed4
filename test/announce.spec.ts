import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { noise } from '@chainsafe/libp2p-noise'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { psec } from '../src/index.ts'
import { createNode, stopNodes } from './fixtures/nodes.ts'
import type { PlainNodeReport } from './fixtures/plain-node.ts'
import type { Libp2p } from '@libp2p/interface'
import type { AddressManagerInit } from 'libp2p'

const PLAIN_NODE = fileURLToPath(new URL('fixtures/plain-node.ts', import.meta.url))

/**
 * A node that is reached by TCP and by PSEC
 */
async function createMixedNode (addresses: AddressManagerInit = {}): Promise<Libp2p> {
  return createNode({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0', '/ip4/127.0.0.1/udp/0/psec'], ...addresses },
    transports: [tcp(), psec()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify() }
  })
}

/**
 * What a node without this package makes of this one
 */
async function identifiedBy (node: Libp2p): Promise<PlainNodeReport> {
  const address = node.getMultiaddrs().find(ma => ma.toString().includes('/tcp/'))
  const { stdout } = await promisify(execFile)(process.execPath, [PLAIN_NODE, `${address}`], {
    env: { ...process.env, NODE_OPTIONS: '' },
    timeout: 30_000
  })

  return JSON.parse(stdout)
}

describe('announced addresses', () => {
  afterEach(stopNodes)

  it('are bare, so that a node without this package identifies us, certified addresses and all', async () => {
    const node = await createMixedNode()
    const report = await identifiedBy(node)

    expect(report).to.not.have.property('error')
    expect(report.protocols).to.include('/ipfs/id/1.0.0')
    expect(report.addresses).to.have.lengthOf(2)
    expect(report.addresses.every(({ isCertified }) => isCertified)).to.equal(true)
    expect(report.addresses.map(({ multiaddr }) => multiaddr)).to.have.members(
      node.getMultiaddrs().map(ma => ma.toString().replace(/\/p2p\/.*/, '')))
    expect(report.redialled).to.equal(true)
  })

  // why they are bare; should js-libp2p ever skip what it can't parse, this test says so
  it('with /psec would make a node without this package discard all that identify says', async () => {
    const node = await createMixedNode({ announceFilter: addresses => [...addresses, multiaddr('/ip4/127.0.0.1/udp/4001/psec')] })
    const report = await identifiedBy(node)

    expect(report).to.have.property('error', 'UnknownProtocolError')
    expect(report.addresses.filter(({ isCertified }) => isCertified)).to.be.empty()
  })

  it('never have /psec, whichever form was listened on', async () => {
    const node = await createNode({ listen: ['/ip4/127.0.0.1/udp/0/psec', '/ip4/127.0.0.1/udp/0', '/ip4/0.0.0.0/udp/0/psec'] })

    expect(node.getMultiaddrs()).to.have.length.greaterThan(2)

    for (const ma of node.getMultiaddrs()) {
      expect(ma.toString()).to.match(/^\/ip4\/[\d.]+\/udp\/[1-9]\d*\/p2p\/\w+$/)
    }
  })

  it('are bare, however the user wrote those that the node is to announce beside its own', async () => {
    const node = await createMixedNode({
      appendAnnounce: ['/ip4/192.0.2.1/udp/4001/psec', '/ip4/192.0.2.1/udp/4002', '/dns4/example.com/udp/4001/psec', '/ip4/192.0.2.1/tcp/4001']
    })
    const report = await identifiedBy(node)

    expect(report).to.not.have.property('error')
    expect(report.addresses.map(({ multiaddr }) => multiaddr)).to.include.members(
      ['/ip4/192.0.2.1/udp/4001', '/ip4/192.0.2.1/udp/4002', '/dns4/example.com/udp/4001', '/ip4/192.0.2.1/tcp/4001'])
  })

  it('are bare, however the user wrote those that the node is to announce instead of its own', async () => {
    const node = await createNode({ addresses: { listen: ['/ip4/127.0.0.1/udp/0/psec'], announce: ['/ip6/2001:db8::1/udp/4001/psec'] } })

    expect(node.getMultiaddrs().map(String)).to.deep.equal([`/ip6/2001:db8::1/udp/4001/p2p/${node.peerId}`])
  })

  it('and observed ones are bare even if the dialled one was not', async () => {
    const server = await createNode({ services: { identify: identify() } })
    const client = await createNode({ services: { identify: identify({ runOnConnectionOpen: false }) } })
    const address = server.getMultiaddrs()[0].toString().replace('/p2p/', '/psec/p2p/')
    const connection = await client.dial(multiaddr(address))
    const result = await client.services.identify.identify(connection)
    const [inbound] = server.getConnections()

    expect(connection.remoteAddr.toString()).to.equal(server.getMultiaddrs()[0].toString())
    expect(inbound.remoteAddr.toString()).to.equal(client.getMultiaddrs()[0].toString())
    expect(result.observedAddr?.toString()).to.equal(client.getMultiaddrs()[0].toString())
    expect(result.signedPeerRecord?.addresses.map(ma => ma.toString())).to.deep.equal(
      server.getMultiaddrs().map(ma => ma.toString().replace(/\/p2p\/.*/, '')))
  })
})
