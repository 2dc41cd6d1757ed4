import { MemoryNetwork } from '../src/sockets/memory.ts'
import { UdpEndpoint } from '../src/sockets/udp.ts'
import { eventually } from './fixtures/eventually.ts'
import { acceptUpgrades, createPsecPeer } from './fixtures/psec-peer.ts'
import { renamed } from './fixtures/renamed-scheme.ts'
import { schemes } from './fixtures/schemes.ts'
import { schemeContract } from './scheme-contract.ts'

for (const { name, create } of schemes) {
  for (const host of ['127.0.0.1', '::1']) {
    schemeContract(`${name} over UDP at ${host}`, () => ({
      scheme: create(),
      dialer: new UdpEndpoint({ host, port: 0 }),
      listener: new UdpEndpoint({ host, port: 0 })
    }))
  }

  schemeContract(`${name} over an in-memory network`, () => {
    const network = new MemoryNetwork()

    return {
      scheme: create(),
      dialer: network.endpoint({ host: 'dialer', port: 1 }),
      listener: network.endpoint({ host: 'listener', port: 1 })
    }
  })

  describe(`${name} beside another scheme of the engine`, () => {
    it('leaves the socket to the other, if that was chosen', async () => {
      const [dialer, listener] = [new UdpEndpoint({ host: '127.0.0.1', port: 0 }), new UdpEndpoint({ host: '127.0.0.1', port: 0 })]

      try {
        const other = renamed('/other-test/1.0.0', create())
        const alice = await createPsecPeer({ schemes: [create(), other], initiationPacket: false })
        acceptUpgrades(listener, await createPsecPeer({ schemes: [other] }), () => {})
        const socket = dialer.connect(listener.localAddress)
        const { session } = await alice.upgrader.upgradeOutbound(socket, { signal: AbortSignal.timeout(20_000) })
        socket.close()

        await eventually(() => session.status === 'closed')
      } finally {
        await Promise.all([dialer.close(), listener.close()])
      }
    })
  })
}
