import { quicDatagram } from '../src/schemes/quic-datagram/index.ts'
import { MemoryNetwork } from '../src/sockets/memory.ts'
import { UdpEndpoint } from '../src/sockets/udp.ts'
import { eventually } from './fixtures/eventually.ts'
import { acceptUpgrades, createPsecPeer } from './fixtures/psec-peer.ts'
import { weak } from './fixtures/weak-scheme.ts'
import { schemeContract } from './scheme-contract.ts'

for (const host of ['127.0.0.1', '::1']) {
  schemeContract(`QUIC DATAGRAM over UDP at ${host}`, () => ({
    scheme: quicDatagram(),
    dialer: new UdpEndpoint({ host, port: 0 }),
    listener: new UdpEndpoint({ host, port: 0 })
  }))
}

schemeContract('QUIC DATAGRAM over an in-memory network', () => {
  const network = new MemoryNetwork()

  return {
    scheme: quicDatagram(),
    dialer: network.endpoint({ host: 'dialer', port: 1 }),
    listener: network.endpoint({ host: 'listener', port: 1 })
  }
})

describe('QUIC DATAGRAM beside another scheme of the engine', () => {
  it('leaves the socket to the other, if that was chosen', async () => {
    const [dialer, listener] = [new UdpEndpoint({ host: '127.0.0.1', port: 0 }), new UdpEndpoint({ host: '127.0.0.1', port: 0 })]

    try {
      const alice = await createPsecPeer({ schemes: [quicDatagram(), weak()], initiationPacket: false })
      acceptUpgrades(listener, await createPsecPeer({ schemes: [weak()] }), () => {})
      const socket = dialer.connect(listener.localAddress)
      const { session } = await alice.upgrader.upgradeOutbound(socket, { signal: AbortSignal.timeout(20_000) })
      socket.close()

      await eventually(() => session.status === 'closed')
    } finally {
      await Promise.all([dialer.close(), listener.close()])
    }
  })
})
