/**
 * What is compared: how a node reaches another, everything else being equal
 */
import { noise } from '@chainsafe/libp2p-noise'
import { quic } from '@chainsafe/libp2p-quic'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
import { datagrams, dtls, psec, quicDatagram } from '../src/index.ts'
import type { Datagrams } from '../src/index.ts'
import type { Libp2p } from '@libp2p/interface'
import type { Libp2pOptions } from 'libp2p'

/**
 * Names on the workers' command lines and in the tables
 */
export type Contender = 'psec' | 'psec, DTLS' | 'psec, no initiation packet' | 'psec, confirmation required' | 'TCP + Noise + Yamux' | '@chainsafe/libp2p-quic'

export type BenchmarkNode = Libp2p<{ datagrams?: Datagrams }>

/**
 * A started node
 */
export async function createNode (contender: Contender): Promise<BenchmarkNode> {
  return createLibp2p({
    // js-libp2p takes five inbound connections a second by default
    connectionManager: { inboundConnectionThreshold: Infinity },
    connectionMonitor: { enabled: false },
    ...options(contender)
  }) as Promise<BenchmarkNode>
}

function options (contender: Contender): Libp2pOptions<any> {
  switch (contender) {
    case 'TCP + Noise + Yamux':
      return {
        addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [yamux()]
      }
    case '@chainsafe/libp2p-quic':
      return {
        addresses: { listen: ['/ip4/127.0.0.1/udp/0/quic-v1'] },
        transports: [quic()]
      }
    default:
      return {
        addresses: { listen: ['/ip4/127.0.0.1/udp/0/psec'] },
        transports: [psec({
          schemes: [contender === 'psec, DTLS' ? dtls() : quicDatagram()],
          initiationPacket: contender !== 'psec, no initiation packet',
          confirm: contender === 'psec, confirmation required' ? 'require' : 'prefer'
        })],
        services: { datagrams: datagrams() }
      }
  }
}
