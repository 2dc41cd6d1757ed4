/**
 * Peers that js-libp2p's modules for peer discovery find are dialled by PSEC
 */
import { bootstrap } from '@libp2p/bootstrap'
import { expect } from 'aegir/chai'
import { eventually } from './fixtures/eventually.ts'
import { createNode, stopNodes } from './fixtures/nodes.ts'

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
})
