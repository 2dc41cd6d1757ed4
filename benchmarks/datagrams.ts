/**
 * How many datagrams a second arrive, counted at the receiver, over loopback. `psec` by each scheme, with backpressure honoured
 * (`send()` has returned false: wait for `drain`) and without; and plain `node:dgram`, which secures nothing.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { ChildCalls } from './child-calls.ts'
import { median } from './statistics.ts'
import { printTable } from './table.ts'
import { withPairs } from './worker-process.ts'
import type { UdpCalls } from './udp-worker.ts'
import type { DatagramsSent, Pair } from './worker-process.ts'

const WARM_UP = 1
const ROUNDS = 5
const SECONDS = 2
const SIZE = 1200

/**
 * How long the last datagrams may take to arrive, in milliseconds
 */
const SETTLE = 300

interface Sample {
  perSecond: number
  size: number
  lost: number
}

type Measure = () => Promise<Sample>

async function measure (send: () => Promise<DatagramsSent>, takeReceived: () => Promise<number>): Promise<Sample> {
  await takeReceived()
  const { sent, size, ms } = await send()
  await delay(SETTLE)
  const received = await takeReceived()

  return { perSecond: received / (ms / 1000), size, lost: 1 - received / sent }
}

function overPsec ({ dialler, listener }: Pair, backpressure: boolean): Measure {
  return async () => measure(
    async () => dialler.call('datagrams', { seconds: SECONDS, size: SIZE, backpressure }),
    async () => listener.call('takeReceived')
  )
}

function overUdp (sender: ChildCalls<UdpCalls>, receiver: ChildCalls<UdpCalls>, port: number): Measure {
  return async () => measure(
    async () => sender.call('send', { port, seconds: SECONDS, size: SIZE }),
    async () => receiver.call('takeReceived')
  )
}

async function compare (contenders: Map<string, Measure>): Promise<void> {
  const samples = new Map<string, Sample[]>([...contenders.keys()].map(name => [name, []]))

  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (const [name, take] of contenders) {
      const sample = await take()

      if (round >= 0) {
        samples.get(name)?.push(sample)
      }
    }
  }

  const references = ['psec, QUIC', 'psec, DTLS'].map(name => median(samples.get(name)?.map(sample => sample.perSecond) ?? []))

  printTable(`Datagrams that arrive, over loopback, ${ROUNDS} × ${SECONDS} s of each`, ['', 'bytes', 'median', 'payload', 'lost', 'psec, QUIC delivers', 'psec, DTLS delivers'], [...samples].map(([name, values]) => {
    const perSecond = median(values.map(sample => sample.perSecond))
    const size = Math.min(...values.map(sample => sample.size))

    return [
      name,
      `${size}`,
      `${Math.round(perSecond)}/s`,
      `${(perSecond * size / 1e6).toFixed(1)} MB/s`,
      `${(median(values.map(sample => sample.lost)) * 100).toFixed(1)} %`,
      ...references.map(reference => `${(reference / perSecond).toFixed(2)} ×`)
    ]
  }))
}

const sender = new ChildCalls<UdpCalls>(new URL('udp-worker.ts', import.meta.url))
const receiver = new ChildCalls<UdpCalls>(new URL('udp-worker.ts', import.meta.url))

try {
  const port = await receiver.call('port')

  await withPairs(['psec, QUIC', 'psec, DTLS', 'psec, DTLS, packets as on Ethernet'], async (pairs) => {
    await Promise.all(pairs.map(async ({ dialler, address }) => dialler.call('dial', { address })))
    await compare(new Map([
      ...pairs.flatMap((pair): Array<[string, Measure]> => [
        [pair.contender, overPsec(pair, true)],
        [`${pair.contender}, backpressure ignored`, overPsec(pair, false)]
      ]),
      ['node:dgram, nothing secured', overUdp(sender, receiver, port)]
    ]))
  })
} finally {
  await Promise.all([sender.end(), receiver.end()])
}
