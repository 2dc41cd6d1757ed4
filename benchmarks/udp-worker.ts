/**
 * Plain `node:dgram` in a process of its own, for comparison: nothing is secured. Receives on a port, or sends as fast
 * as it goes.
 */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { answerCalls } from './child-calls.ts'
import type { DatagramsSent } from './worker-process.ts'

export interface UdpCalls {
  /** The port it receives on */
  port (): Promise<number>
  send (params: { port: number, seconds: number, size: number }): Promise<DatagramsSent>
  takeReceived (): Promise<number>
}

/**
 * How many sends may be under way: with more the sender overflows the receiver's buffer, and less arrives
 */
const UNDER_WAY = 16

const socket = createSocket('udp4')
let received = 0

socket.on('message', () => { received++ })
socket.bind(0, '127.0.0.1')
await once(socket, 'listening')

const calls: UdpCalls = {
  port: async () => socket.address().port,

  send: async ({ port, seconds, size }) => {
    const payload = new Uint8Array(size)
    const start = performance.now()
    const end = start + seconds * 1000
    let sent = 0
    let underWay = 0

    return new Promise((resolve) => {
      const onSent = (): void => {
        underWay--

        if (underWay === 0 || underWay === UNDER_WAY >> 1) {
          fill()
        }
      }

      const fill = (): void => {
        if (performance.now() < end) {
          for (; underWay < UNDER_WAY; underWay++) {
            sent++
            socket.send(payload, port, '127.0.0.1', onSent)
          }
        } else if (underWay === 0) {
          resolve({ sent, size, ms: performance.now() - start })
        }
      }

      fill()
    })
  },

  takeReceived: async () => {
    const count = received
    received = 0

    return count
  }
}

answerCalls(calls)
