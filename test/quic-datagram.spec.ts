import { quicDatagram } from '../src/schemes/quic-datagram/index.ts'
import { MemoryNetwork } from '../src/sockets/memory.ts'
import { UdpEndpoint } from '../src/sockets/udp.ts'
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
