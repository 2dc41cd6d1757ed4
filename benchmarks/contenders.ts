/**
 * What is compared: how a node reaches another, everything else being equal
 */
import { noise } from '@chainsafe/libp2p-noise'
import { quic } from '@chainsafe/libp2p-quic'
import { tcp } from '@libp2p/tcp'
import { webRTCDirect } from '@libp2p/webrtc'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
import { datagrams, dtls, psec, quicDatagram } from '../src/index.ts'
import { plainScheme } from '../test/fixtures/plain-scheme.ts'
import type { Datagrams, PsecInit } from '../src/index.ts'
import type { Libp2p } from '@libp2p/interface'
import type { Libp2pOptions } from 'libp2p'

/**
 * `psec()` with one scheme, by its name
 */
const PSEC = {
  'psec, QUIC': { schemes: [quicDatagram()] },
  'psec, QUIC, classical key exchange': { schemes: [quicDatagram({ postQuantum: false })] },
  'psec, QUIC, no initiation packet': { schemes: [quicDatagram()], initiationPacket: false },
  'psec, QUIC, addresses proved': { schemes: [quicDatagram()], validationThreshold: 0 },
  'psec, QUIC, addresses proved, no initiation packet': { schemes: [quicDatagram()], validationThreshold: 0, initiationPacket: false },
  'psec, QUIC, confirmation required': { schemes: [quicDatagram()], confirm: 'require' },
  'psec, DTLS': { schemes: [dtls()] },
  'psec, DTLS, packets as on Ethernet': { schemes: [dtls({ maxPacketSize: 1452 })] },
  'psec, DTLS, no initiation packet': { schemes: [dtls()], initiationPacket: false },
  'psec, DTLS, confirmation required': { schemes: [dtls()], confirm: 'require' }
} satisfies Record<string, PsecInit>

/**
 * Names on the workers' command lines and in the tables
 */
export type Contender = keyof typeof PSEC | 'DTLS alone' | 'TCP + Noise + Yamux' | '@chainsafe/libp2p-quic' | '@libp2p/webrtc (direct)'

export type BenchmarkNode = Libp2p<{ datagrams?: Datagrams }>

/**
 * A started node; one that does not listen can only dial
 */
export async function createNode (contender: Contender, listens = true): Promise<BenchmarkNode> {
  const { address, ...rest } = options(contender)

  return createLibp2p({
    addresses: { listen: listens ? [address] : [] },
    // js-libp2p takes five inbound connections a second, ten at a time, and 300 in all, by default
    connectionManager: { inboundConnectionThreshold: Infinity, maxIncomingPendingConnections: Infinity, maxConnections: Infinity },
    connectionMonitor: { enabled: false },
    ...rest
  }) as Promise<BenchmarkNode>
}

function options (contender: Contender): Libp2pOptions<any> & { address: string } {
  switch (contender) {
    case 'TCP + Noise + Yamux':
      return {
        address: '/ip4/127.0.0.1/tcp/0',
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [yamux()]
      }
    case '@chainsafe/libp2p-quic':
      return {
        address: '/ip4/127.0.0.1/udp/0/quic-v1',
        transports: [quic()]
      }
    case '@libp2p/webrtc (direct)':
      return {
        address: '/ip4/127.0.0.1/udp/0/webrtc-direct',
        transports: [webRTCDirect()]
      }
    case 'DTLS alone':
      return {
        address: '/ip4/127.0.0.1/udp/0',
        transports: [plainScheme({ scheme: dtls(), suffix: '' })]
      }
    default:
      return {
        address: '/ip4/127.0.0.1/udp/0/psec',
        transports: [psec(PSEC[contender])],
        services: { datagrams: datagrams() }
      }
  }
}
