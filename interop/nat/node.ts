/**
 * A node of the network, in a process of its own. Is what its parent asks for: the relay, or a peer.
 */
import { noise } from '@chainsafe/libp2p-noise'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { dcutr } from '@libp2p/dcutr'
import { identify } from '@libp2p/identify'
import { peerIdFromString } from '@libp2p/peer-id'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { pEvent } from 'p-event'
import { answerCalls } from '../../benchmarks/child-calls.ts'
import { datagrams, dtls, negotiation, psec, quicDatagram } from '../../src/index.ts'
import type { Datagrams, DatagramEvent } from '../../src/index.ts'
import type { Connection, Libp2p } from '@libp2p/interface'

export type SchemeName = 'QUIC DATAGRAM' | 'DTLS'

export interface Direct {
  /**
   * Since the connection by the relay was there
   */
  ms: number
  scheme: string
  simultaneous: boolean

  /**
   * How many of 100 datagrams came back
   */
  echoed: number
}

export interface RelayCalls {
  /** Resolves with its address */
  startRelay (params: { host: string }): Promise<string>
}

export interface PeerCalls {
  /** Reachable by the relay from now on; resolves with its peer id */
  startPeer (params: { scheme: SchemeName, relay: string, publicAddress: string }): Promise<string>

  /** Dial by the relay */
  dialByRelay (params: { relay: string, peerId: string }): Promise<void>

  /** Wait for a connection to that peer that does not go by the relay; undefined if there is none within so many milliseconds */
  direct (params: { peerId: string, patience: number }): Promise<Direct | undefined>

  /** How many connections there are to that peer */
  connections (params: { peerId: string }): Promise<number>
}

const PORT = 4001
const ECHO = '/psec-interop/echo/1.0.0'
const DATAGRAMS = 100

const SCHEMES = { 'QUIC DATAGRAM': quicDatagram, DTLS: dtls }

/** What connections by TCP, and those by the relay, need */
const secured = {
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()]
}

let node: Libp2p<any>
let relayedAt = 0

const calls: RelayCalls & PeerCalls = {
  startRelay: async ({ host }) => {
    node = await createLibp2p({
      ...secured,
      addresses: { listen: [`/ip4/${host}/tcp/${PORT}`] },
      transports: [tcp()],
      services: { identify: identify(), relay: circuitRelayServer() }
    })

    return `/ip4/${host}/tcp/${PORT}/p2p/${node.peerId}`
  },

  startPeer: async ({ scheme, relay, publicAddress }) => {
    node = await createLibp2p({
      ...secured,
      addresses: {
        listen: [`/ip4/0.0.0.0/udp/${PORT}/psec`, `${relay}/p2p-circuit`],
        // a peer in public would say by identify
        appendAnnounce: [`/ip4/${publicAddress}/udp/${PORT}/psec`]
      },
      transports: [psec({ schemes: [SCHEMES[scheme]()] }), tcp(), circuitRelayTransport()],
      services: { identify: identify(), dcutr: dcutr(), datagrams: datagrams() }
    })
    node.addEventListener('connection:open', ({ detail }: CustomEvent<Connection>) => {
      if (detail.limits != null) {
        relayedAt = performance.now()
      }
    })
    await node.services.datagrams.handle(ECHO, (flow: EchoFlow) => {
      flow.addEventListener('message', (evt) => { flow.send(evt.data) })
    })

    return node.peerId.toString()
  },

  dialByRelay: async ({ relay, peerId }) => {
    await node.dial(multiaddr(`${relay}/p2p-circuit/p2p/${peerId}`))
  },

  direct: async ({ peerId, patience }) => {
    const peer = peerIdFromString(peerId)
    const find = (): Connection | undefined => node.getConnections(peer).find(connection => connection.direct)

    try {
      if (find() == null) {
        await pEvent<'connection:open', CustomEvent<Connection>>(node, 'connection:open', { filter: () => find() != null, timeout: patience })
      }
    } catch {
      return undefined
    }

    const ms = performance.now() - relayedAt
    const connection = find()
    const negotiated = connection == null ? undefined : negotiation(connection)

    if (connection == null || negotiated == null) {
      throw new Error('There is a direct connection, and no negotiation led to it')
    }

    return { ms, scheme: negotiated.scheme, simultaneous: negotiated.simultaneous, echoed: await echo(node.services.datagrams, connection) }
  },

  connections: async ({ peerId }) => node.getConnections(peerIdFromString(peerId)).length
}

type EchoFlow = Awaited<ReturnType<Datagrams['open']>>

async function echo (service: Datagrams, connection: Connection): Promise<number> {
  const flow = await service.open(connection, ECHO)
  let echoed = 0

  for (let i = 0; i < DATAGRAMS; i++) {
    const answer = pEvent<'message', DatagramEvent>(flow, 'message', { timeout: 1_000 })
    flow.send(Uint8Array.of(i))
    echoed += await answer.then(({ data }) => data[0] === i ? 1 : 0, () => 0)
  }

  await flow.close()

  return echoed
}

answerCalls(calls)
