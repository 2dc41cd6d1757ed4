import tests from '@libp2p/interface-compliance-tests/transport'
import { PSEC, psec } from '../src/index.ts'
import { MemoryNetwork } from '../src/sockets/memory.ts'
import { UdpEndpoint } from '../src/sockets/udp.ts'
import { nodeDefaults } from './fixtures/nodes.ts'
import { plaintext } from './fixtures/plaintext-scheme.ts'
import { schemeContract } from './scheme-contract.ts'
import type { PacketEndpointFactory } from '../src/sockets/index.ts'

schemeContract('a scheme in TypeScript over an in-memory network', () => {
  const network = new MemoryNetwork()

  return {
    scheme: plaintext(),
    dialer: network.endpoint({ host: 'dialer', port: 1 }),
    listener: network.endpoint({ host: 'listener', port: 1 })
  }
})

schemeContract('a scheme in TypeScript over UDP', () => ({
  scheme: plaintext(),
  dialer: new UdpEndpoint({ host: '127.0.0.1', port: 0 }),
  listener: new UdpEndpoint({ host: '127.0.0.1', port: 0 })
}))

function transportCompliance (endpoints?: PacketEndpointFactory): void {
  tests({
    async setup () {
      const config = {
        ...nodeDefaults,
        transports: [psec({ schemes: [plaintext()], endpoints })]
      }

      return {
        dialMultiaddrMatcher: PSEC,
        listenMultiaddrMatcher: PSEC,
        dialer: config,
        listener: {
          ...config,
          addresses: {
            listen: ['/ip4/127.0.0.1/udp/0/psec', '/ip4/127.0.0.1/udp/0/psec']
          }
        }
      }
    },
    async teardown () {}
  })
}

describe('compliance: transport with a scheme in TypeScript', () => {
  describe('over an in-memory network', () => {
    transportCompliance(new MemoryNetwork())
  })

  describe('over UDP', () => {
    transportCompliance()
  })
})
