/**
 * The QUIC layer against `@chainsafe/libp2p-quic`: quinn and rustls as somebody else builds and drives them. Without a
 * negotiation `/quic-datagram/1.0.0` is a libp2p `quic-v1` peer, and has to get on with any other.
 */
import { quic } from '@chainsafe/libp2p-quic'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { echo } from '@libp2p/echo'
import { identify } from '@libp2p/identify'
import { stop } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { expect } from 'aegir/chai'
import { createLibp2p } from 'libp2p'
import { pEvent } from 'p-event'
import { plainQuic } from './fixtures/plain-quic.ts'
import type { Echo } from '@libp2p/echo'
import type { Identify } from '@libp2p/identify'
import type { IdentifyResult, Libp2p, PrivateKey, Transport } from '@libp2p/interface'
import type { Ping } from '@libp2p/ping'
import type { Multiaddr } from '@multiformats/multiaddr'

type Node = Libp2p<{ echo: Echo, identify: Identify, ping: Ping }>

async function createNode (transport: (components: any) => Transport, privateKey?: PrivateKey): Promise<Node> {
  return createLibp2p({
    privateKey,
    addresses: { listen: ['/ip4/127.0.0.1/udp/0/quic-v1'] },
    transports: [transport],
    connectionMonitor: { enabled: false },
    services: { echo: echo(), identify: identify(), ping: ping() }
  })
}

const directions = [
  { name: '@chainsafe/libp2p-quic dials us', dialer: quic, listener: plainQuic },
  { name: 'we dial @chainsafe/libp2p-quic', dialer: plainQuic, listener: quic }
]

describe('interop with @chainsafe/libp2p-quic', () => {
  for (const { name, dialer: dialerTransport, listener: listenerTransport } of directions) {
    describe(name, () => {
      let dialer: Node
      let listener: Node
      let address: Multiaddr

      beforeEach(async () => {
        dialer = await createNode(dialerTransport())
        listener = await createNode(listenerTransport())
        address = listener.getMultiaddrs()[0]
      })

      afterEach(async () => {
        await stop(dialer, listener)
      })

      it('authenticates both sides', async () => {
        const inbound = pEvent<'connection:open', CustomEvent>(listener, 'connection:open')
        const connection = await dialer.dial(address)

        expect(connection.remotePeer.equals(listener.peerId)).to.be.true()
        expect((await inbound).detail.remotePeer.equals(dialer.peerId)).to.be.true()
      })

      it('pings', async () => {
        expect(await dialer.services.ping.ping(address)).to.be.a('number')
      })

      it('pings back over the same connection', async () => {
        const inbound = pEvent(listener, 'connection:open')
        await dialer.dial(address)
        await inbound

        expect(await listener.services.ping.ping(dialer.peerId)).to.be.a('number')
      })

      it('identifies', async () => {
        const identified = Promise.all([dialer, listener].map(async node => pEvent<'peer:identify', CustomEvent<IdentifyResult>>(node, 'peer:identify')))
        await dialer.dial(address)

        for (const { detail } of await identified) {
          expect(detail.protocols).to.include('/ipfs/ping/1.0.0')
        }
      })

      it('carries a large message both ways', async () => {
        const message = Uint8Array.from({ length: 5 * 1024 * 1024 }, (_, index) => index * index)
        const answer = await dialer.services.echo.echo(address, message, { signal: AbortSignal.timeout(30_000) })

        expect(answer.subarray()).to.equalBytes(message)
      })

      it('hears of the other side closing the connection', async () => {
        const inbound = pEvent<'connection:open', CustomEvent>(listener, 'connection:open')
        const connection = await dialer.dial(address)
        const remote = (await inbound).detail
        const closed = pEvent(connection, 'close')

        await remote.close()
        await closed

        expect(connection.status).to.not.equal('open')
      })
    })
  }

  for (const type of ['RSA', 'secp256k1'] as const) {
    it(`proves an identity of type ${type}`, async () => {
      const key = await (type === 'RSA' ? generateKeyPair(type, 2048) : generateKeyPair(type))
      const ours = await createNode(plainQuic(), key)
      const theirs = await createNode(quic())

      try {
        const connection = await theirs.dial(ours.getMultiaddrs()[0])

        expect(connection.remotePeer.equals(peerIdFromPrivateKey(key))).to.be.true()
      } finally {
        await stop(ours, theirs)
      }
    })
  }
})
