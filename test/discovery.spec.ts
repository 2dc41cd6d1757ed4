/**
 * Peers that js-libp2p's modules for peer discovery find are dialled by PSEC
 */
import { bootstrap } from '@libp2p/bootstrap'
import { mdns } from '@libp2p/mdns'
import { expect } from 'aegir/chai'
import { pEvent } from 'p-event'
import { eventually } from './fixtures/eventually.ts'
import { createNode, stopNodes } from './fixtures/nodes.ts'
import type { PeerInfo } from '@libp2p/interface'

/** Not that of the mDNS which may be here, nor does anybody else have it */
const MDNS_PORT = 52_053

describe('peer discovery', () => {
  afterEach(stopNodes)

  it('connects with a bootstrap peer, whichever form its address has', async () => {
    const bob = await createNode()
    const carol = await createNode()
    const [bare] = bob.getMultiaddrs().map(String)
    const withPsec = carol.getMultiaddrs()[0].toString().replace('/p2p/', '/psec/p2p/')
    const alice = await createNode({ peerDiscovery: [bootstrap({ list: [bare, withPsec], timeout: 0 })] })
    await eventually(() => alice.getConnections().length === 2)

    expect(alice.getPeers().map(String)).to.have.members([`${bob.peerId}`, `${carol.peerId}`])
  })

  it('finds a peer by mDNS, at an address that can be dialled', async () => {
    const peerDiscovery = [mdns({ port: MDNS_PORT, interval: 100 })]
    const bob = await createNode({ peerDiscovery })
    const alice = await createNode({ peerDiscovery, start: false })
    const found = pEvent<'peer:discovery', CustomEvent<PeerInfo>>(alice, 'peer:discovery', { filter: ({ detail }) => detail.id.equals(bob.peerId) })
    await alice.start()
    const { multiaddrs } = (await found).detail
    const connection = await alice.dial(multiaddrs)

    expect(multiaddrs.map(ma => `${ma}/p2p/${bob.peerId}`)).to.deep.equal(bob.getMultiaddrs().map(String))
    expect(connection.remotePeer.equals(bob.peerId)).to.equal(true)
  })
})
