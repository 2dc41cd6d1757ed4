/**
 * Who floods, in a process of its own: sends datagrams to a local port from any address of 127.0.0.0/8, which to the receiver is
 * what spoofed addresses are: nobody there answers.
 */
import { randomBytes, randomInt } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { defaultLogger } from '@libp2p/logger'
import { loadEngine } from '../src/engine/load.ts'
import { encodeFrame, quicDatagram } from '../src/index.ts'
import { QUIC_DATAGRAM } from '../src/schemes/quic-datagram/protocol.ts'
import { UdpEndpoint } from '../src/sockets/udp.ts'
import { answerCalls } from './child-calls.ts'

export interface FloodResult {
  sent: number
  bytes: number
  ms: number
}

export interface FloodCalls {
  flood (params: { kind: FloodKind, port: number, count: number, rate: number }): Promise<FloodResult>
}

/**
 * Names in the table
 */
export type FloodKind = 'proposals' | 'proposals with a first packet' | 'proposals with a truncated first packet' |
  'proposals of unknown schemes' | 'first packets' | 'truncated first packets' | 'garbage'

/** Local ports that the datagrams leave from, each from any address */
const PORTS = 4
const BATCH = 128

/** Of a proposal that has the id of an Ed25519 key, 32 bytes that may be anything, and which begin here */
const KEY_OFFSET = 8
const KEY_LENGTH = 32

/** Nobody listens here */
const LIMITS = { waiting: 0, strangers: 0, guests: 0, strangerDatagrams: 0, crossingTime: 0, responses: 2 * PORTS * BATCH, waitingBytes: 0, socketBuffer: 4 * 1024 * 1024 }

const engine = loadEngine()
const ports = Array.from({ length: PORTS }, () => engine.NativePort.bind('0.0.0.0', 0, false, LIMITS, () => {}))
const firstPacket = await captureFirstPacket()
const proposal = { type: 'propose' as const, peerId: Uint8Array.from([0, 36, 8, 1, 18, 32, ...randomBytes(KEY_LENGTH)]), schemes: [QUIC_DATAGRAM] }
const bare = encodeFrame(proposal)
const withPacket = encodeFrame({ ...proposal, initiationPacket: firstPacket })

const datagrams: Record<FloodKind, () => Uint8Array> = {
  proposals: () => varyKey(bare),
  'proposals with a first packet': () => varyKey(withPacket),
  'proposals with a truncated first packet': () => encodeFrame({ ...proposal, initiationPacket: firstPacket.subarray(0, randomInt(1, firstPacket.byteLength)) }),
  'proposals of unknown schemes': () => encodeFrame({ ...proposal, schemes: [`/${randomBytes(4).toString('hex')}/1.0.0`, QUIC_DATAGRAM] }),
  'first packets': () => firstPacket,
  'truncated first packets': () => firstPacket.subarray(0, randomInt(1, firstPacket.byteLength)),
  garbage: () => randomBytes(randomInt(1, 1200))
}

const calls: FloodCalls = {
  flood: async ({ kind, port, count, rate }) => {
    const before = sum()
    const start = performance.now()

    for (let sent = 0; sent < count; sent += BATCH) {
      const socket = ports[(sent / BATCH) % PORTS]

      for (let i = 0; i < BATCH; i++) {
        socket.sendRaw('127.0.0.1', port, `127.${randomInt(1, 255)}.${randomInt(0, 256)}.${randomInt(1, 255)}`, [datagrams[kind]()])
      }

      socket.flush()

      do {
        await nextTurn()
      } while (sum().sent - before.sent < sent - PORTS * BATCH || sent > (performance.now() - start) / 1000 * rate)
    }

    while (sum().sent - before.sent < count) {
      await nextTurn()
    }

    return { sent: sum().sent - before.sent, bytes: sum().bytes - before.bytes, ms: performance.now() - start }
  }
}

function varyKey (frame: Uint8Array): Uint8Array {
  new DataView(frame.buffer, frame.byteOffset).setUint32(KEY_OFFSET, randomInt(0, 0x100000000))

  return frame
}

function sum (): { sent: number, bytes: number } {
  const stats = ports.map(port => port.stats())

  return {
    sent: stats.reduce((sum, { datagramsOut, sendErrors }) => sum + datagramsOut + sendErrors, 0),
    bytes: stats.reduce((sum, { bytesOut }) => sum + bytesOut, 0)
  }
}

/**
 * What an honest initiator sends first
 */
async function captureFirstPacket (): Promise<Uint8Array> {
  const endpoint = new UdpEndpoint({ host: '127.0.0.1', port: 0 })
  const initiation = quicDatagram().initiate(endpoint.connect({ host: '127.0.0.1', port: 9 }), {
    privateKey: await generateKeyPair('Ed25519'),
    logger: defaultLogger(),
    maxInitiationPacketSize: 1400
  })
  const [packet] = await initiation.firstFlight
  initiation.cancel()
  await endpoint.close()

  return packet
}

answerCalls(calls)
