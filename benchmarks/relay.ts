/**
 * A relay for UDP that delays every datagram in both directions, in a process of its own: `node relay.ts MILLISECONDS`
 */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { answerCalls } from './child-calls.ts'
import type { Socket } from 'node:dgram'

export interface RelayCalls {
  /** Relay to this port of loopback from now on; resolves with the port to send to */
  relayTo (params: { port: number }): Promise<number>
}

const DELAY = Number(process.argv[2])
const MAX_PORTS = 64

async function open (): Promise<Socket> {
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')

  return socket
}

/**
 * The relay's own port towards the target, one for each sender, as a NAT has
 */
async function relayTo ({ port }: { port: number }): Promise<number> {
  const front = await open()
  const backs = new Map<number, Promise<Socket>>()

  const openBack = async (sender: number): Promise<Socket> => {
    const back = await open()
    back.on('message', (datagram) => {
      setTimeout(() => { front.send(datagram, sender, '127.0.0.1') }, DELAY)
    })

    return back
  }

  front.on('message', (datagram, { port: sender }) => {
    if (!backs.has(sender) && backs.size < MAX_PORTS) {
      backs.set(sender, openBack(sender))
    }

    const back = backs.get(sender)

    setTimeout(() => {
      void back?.then(socket => { socket.send(datagram, port, '127.0.0.1') })
    }, DELAY)
  })

  return front.address().port
}

const calls: RelayCalls = { relayTo }

answerCalls(calls)
