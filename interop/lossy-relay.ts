/**
 * A bad network between two ports of loopback: it loses, doubles and overtakes, as the seed says
 */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { seededRandom } from '../test/fixtures/random.ts'
import type { PacketAddress } from '../src/sockets/index.ts'
import type { Socket } from 'node:dgram'

const HOST = '127.0.0.1'
const LOSS = 0.05
const DOUBLING = 0.04
const OVERTAKING = 0.1

/** Milliseconds */
const DELAY = 2
const LATE = 12

export class LossyRelay {
  /** The largest datagrams that came from who began, and from who was sent to */
  largest = { fromClient: 0, fromServer: 0 }
  readonly #target: number
  readonly #front: Socket
  readonly #back: Socket
  readonly #random: () => number
  readonly #timers = new Set<NodeJS.Timeout>()
  #client = 0

  static async open (target: number, seed: number): Promise<LossyRelay> {
    const sockets = [createSocket('udp4'), createSocket('udp4')]
    sockets.forEach(socket => { socket.bind(0, HOST) })
    await Promise.all(sockets.map(async socket => once(socket, 'listening')))

    return new LossyRelay(target, sockets[0], sockets[1], seed)
  }

  private constructor (target: number, front: Socket, back: Socket, seed: number) {
    this.#target = target
    this.#front = front
    this.#back = back
    this.#random = seededRandom(seed)

    front.on('message', (datagram, { port }) => {
      this.#client = port
      this.largest.fromClient = Math.max(this.largest.fromClient, datagram.byteLength)
      this.#pass(datagram, () => { back.send(datagram, this.#target, HOST) })
    })
    back.on('message', (datagram) => {
      this.largest.fromServer = Math.max(this.largest.fromServer, datagram.byteLength)
      this.#pass(datagram, () => { front.send(datagram, this.#client, HOST) })
    })
  }

  get address (): PacketAddress {
    return { host: HOST, port: this.#front.address().port }
  }

  close (): void {
    this.#timers.forEach(timer => { clearTimeout(timer) })
    this.#front.close()
    this.#back.close()
  }

  #pass (datagram: Uint8Array, send: () => void): void {
    if (this.#random() < LOSS && !isHelloVerifyRequest(datagram)) {
      return
    }

    this.#later(send)

    if (this.#random() < DOUBLING) {
      this.#later(send)
    }
  }

  #later (send: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      send()
    }, this.#random() < OVERTAKING ? LATE : DELAY)
    this.#timers.add(timer)
  }
}

/**
 * OpenSSL's `s_server` does not answer the ClientHello that comes again when its answer was lost, as it would with `-listen`.
 */
function isHelloVerifyRequest (datagram: Uint8Array): boolean {
  return datagram[0] === 22 && datagram[13] === 3
}
