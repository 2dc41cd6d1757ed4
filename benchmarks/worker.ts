/**
 * One side of a benchmark, in a process of its own: `node worker.ts CONTENDER`. Does what its parent asks for, see
 * `worker-process.ts`.
 */
import { once } from 'node:events'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { multiaddr } from '@multiformats/multiaddr'
import { answerCalls } from './child-calls.ts'
import { collectGarbage } from './collect-garbage.ts'
import { createNode } from './contenders.ts'
import type { Contender } from './contenders.ts'
import type { Calls, DatagramsSent } from './worker-process.ts'
import type { DatagramFlow } from '../src/index.ts'
import type { Connection, Stream } from '@libp2p/interface'

const SINK_PROTOCOL = '/psec-benchmark/sink/1.0.0'
const ECHO_PROTOCOL = '/psec-benchmark/echo/1.0.0'
const DATAGRAM_SINK_PROTOCOL = '/psec-benchmark/datagram-sink/1.0.0'

/**
 * The bytes of one `stream.send`
 */
const WRITE_SIZE = 64 * 1024

/**
 * How many datagrams are sent before the event loop gets its turn
 */
const BATCH = 64

const node = await createNode(process.argv[2] as Contender)
let receivedDatagrams = 0
let connection: Connection | undefined

await node.handle(SINK_PROTOCOL, (stream) => {
  let bytes = 0
  stream.addEventListener('message', (evt) => { bytes += evt.data.byteLength })
  stream.addEventListener('remoteCloseWrite', () => {
    stream.send(new TextEncoder().encode(`${bytes}`))
    void stream.close()
  })
})

await node.handle(ECHO_PROTOCOL, (stream) => {
  stream.addEventListener('message', (evt) => { stream.send(evt.data) })
  stream.addEventListener('remoteCloseWrite', () => { void stream.close() })
})

await node.services.datagrams?.handle(DATAGRAM_SINK_PROTOCOL, (flow) => {
  flow.addEventListener('message', () => { receivedDatagrams++ })
})

const calls: Calls = {
  address: async () => node.getMultiaddrs()[0].toString(),

  dial: async ({ address, signalMs = 10_000 }) => {
    const start = performance.now()
    connection = await node.dial(multiaddr(address), { signal: AbortSignal.timeout(signalMs) })

    return performance.now() - start
  },

  giveUp: async ({ address, at }) => {
    const controller = new AbortController()
    const onProgress = ({ type }: { type: string }): void => { type === at && controller.abort() }
    const timer = typeof at === 'number' ? setTimeout(() => { controller.abort() }, at) : undefined

    try {
      const connection = await node.dial(multiaddr(address), { signal: controller.signal, onProgress })
      await connection.close()
    } catch (err) {
      if (controller.signal.aborted) {
        return
      }

      throw err
    } finally {
      clearTimeout(timer)
    }

    if (typeof at !== 'number') {
      throw new Error(`The dial was not given up at ${at}`)
    }
  },

  echo: async () => {
    const start = performance.now()
    const stream = await current().newStream(ECHO_PROTOCOL)
    const answer = once(stream, 'message')
    stream.send(Uint8Array.of(1))
    await answer
    const ms = performance.now() - start
    await stream.close()

    return ms
  },

  hangUp: async () => {
    const closing = current()
    connection = undefined
    await closing.close()
  },

  stream: async ({ seconds }) => {
    const stream = await current().newStream(SINK_PROTOCOL)
    const answer = once(stream, 'message')
    const chunk = new Uint8Array(WRITE_SIZE)
    const start = performance.now()

    while (performance.now() - start < seconds * 1000) {
      if (!stream.send(chunk)) {
        await drain(stream)
      }
    }

    await stream.close()
    const [evt] = await answer

    return Number(new TextDecoder().decode(evt.data.subarray())) / ((performance.now() - start) / 1000)
  },

  datagrams: async ({ seconds, size, backpressure }) => {
    const flow = await node.services.datagrams?.open(current(), DATAGRAM_SINK_PROTOCOL)

    if (flow == null) {
      throw new Error('There is no datagrams service on this node')
    }

    try {
      return await play(flow, seconds, size, backpressure)
    } finally {
      await flow.close()
    }
  },

  takeReceived: async () => {
    const received = receivedDatagrams
    receivedDatagrams = 0

    return received
  },

  memory: async () => {
    collectGarbage()
    const { rss, heapUsed, external } = process.memoryUsage()

    return { resident: rss, javascript: heapUsed + external }
  },

  stop: async () => {
    await node.stop()
  }
}

function current (): Connection {
  if (connection == null) {
    throw new Error('There is no connection, dial first')
  }

  return connection
}

async function drain (stream: Stream): Promise<void> {
  await once(stream, 'drain')
}

async function play (flow: DatagramFlow, seconds: number, size: number, backpressure: boolean): Promise<DatagramsSent> {
  const start = performance.now()
  let payload = new Uint8Array(size)
  let sent = 0

  while (performance.now() - start < seconds * 1000) {
    let room = true

    // the path's size may shrink on the way
    if (flow.maxDatagramSize < payload.byteLength) {
      payload = payload.subarray(0, flow.maxDatagramSize)
    }

    for (let i = 0; i < BATCH && room; i++) {
      room = flow.send(payload) || !backpressure
      sent++
    }

    await (room ? nextTurn() : once(flow, 'drain'))
  }

  return { sent, size: payload.byteLength, ms: performance.now() - start }
}

answerCalls(calls)
