import { setTimeout as sleep } from 'node:timers/promises'
import { formatPacketAddress } from '../src/sockets/index.ts'
import { LossyRelay } from './lossy-relay.ts'
import { Ours } from './ours.ts'
import { Peer } from './peer.ts'
import type { OursInit, Session } from './ours.ts'
import type { Library, PeerEvent, PeerOptions } from './peer.ts'

/**
 * Who meets how
 */
export interface MeetingInit {
  library: Library

  /**
   * What our side is in DTLS
   */
  role: 'client' | 'server'
  host?: '127.0.0.1' | '::1'
  ours?: Partial<OursInit>
  theirs?: Partial<PeerOptions>

  /**
   * Through a bad network with this seed
   */
  lossy?: number
}

/**
 * How long after the other side has failed ours may take to tell why it failed, in milliseconds
 */
const OUR_WORD = 1_000

/**
 * Our side and another one, connected
 */
export interface Meeting {
  session: Session
  peer: Peer
  relay?: LossyRelay

  /**
   * What the other side tells of the handshake
   */
  secured: PeerEvent
}

/**
 * Has both sides meet. Throws if the handshake fails, or ends with other identities than those that met.
 */
export async function meet (init: MeetingInit, then: (meeting: Meeting) => Promise<void>): Promise<void> {
  const { library, role, host = '127.0.0.1' } = init
  const ours = await Ours.open({ host, allowDtls12: library !== 'wolfssl', ...init.ours })
  const address = formatPacketAddress({ host, port: 0 })
  let peer: Peer | undefined
  let relay: LossyRelay | undefined

  const through = async (port: number): Promise<number> => {
    relay = init.lossy == null ? undefined : await LossyRelay.open(port, init.lossy)

    return relay?.address.port ?? port
  }

  try {
    let session: Session

    if (role === 'client') {
      peer = new Peer({ library, listen: address, ...init.theirs })
      const port = await through((await peer.event('listening')).port)
      session = await ours.connect({ host, port })
    } else {
      const port = await through(ours.address.port)
      const accepted = ours.accept()
      peer = new Peer({ library, connect: formatPacketAddress({ host, port }), ...init.theirs })
      session = await Promise.race([accepted, peer.failure().catch(async err => {
        // if it is because of us, we are about to say so
        await sleep(OUR_WORD)
        throw err
      })])
    }

    const secured = await peer.event('secured')
    await peer.event('connected')
    const identity = await peer.event('identity')

    if (session.inner.remotePeer.toString() !== identity.peerId || secured.remotePeer !== ours.peerId) {
      throw new Error(`They know us as ${secured.remotePeer}, who are ${ours.peerId}; we know them as ${session.inner.remotePeer}, who are ${identity.peerId}`)
    }

    await then({ session, peer, relay, secured })
  } finally {
    await peer?.kill()
    relay?.close()
    await ours.close()
  }
}
