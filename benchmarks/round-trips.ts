/**
 * How many round trips it takes to connect: a dial through a relay that delays each direction by 50 ms, so that a round
 * trip lasts 100 ms and everything else next to nothing.
 */
import { ChildCalls } from './child-calls.ts'
import { median } from './statistics.ts'
import { printTable } from './table.ts'
import { withPairs } from './worker-process.ts'
import type { Contender } from './contenders.ts'
import type { RelayCalls } from './relay.ts'

const CONTENDERS: Contender[] = [
  'psec, QUIC',
  'psec, QUIC, confirmation required',
  'psec, QUIC, no initiation packet',
  '@chainsafe/libp2p-quic',
  'psec, DTLS',
  'psec, DTLS, confirmation required',
  'psec, DTLS, no initiation packet',
  'DTLS alone',
  '@libp2p/webrtc (direct)'
]
const WARM_UP = 2
const ROUNDS = 10
const DELAY = 50
const ROUND_TRIP = 2 * DELAY

interface Sample {
  dial: number
  echo: number
}

const relay = new ChildCalls<RelayCalls>(new URL('relay.ts', import.meta.url), [`${DELAY}`])

try {
  await withPairs(CONTENDERS, async (pairs) => {
    const samples = new Map<Contender, Sample[]>(CONTENDERS.map(contender => [contender, []]))
    const addresses = new Map<Contender, string>()

    for (const { contender, address } of pairs) {
      const port = await relay.call('relayTo', { port: Number(/\/udp\/(\d+)/.exec(address)?.[1]) })
      addresses.set(contender, address.replace(/\/udp\/\d+/, `/udp/${port}`))
    }

    for (let round = -WARM_UP; round < ROUNDS; round++) {
      for (const { contender, dialler } of pairs) {
        const dial = await dialler.call('dial', { address: addresses.get(contender) ?? '' })
        const echo = await dialler.call('echo')
        await dialler.call('hangUp')

        if (round >= 0) {
          samples.get(contender)?.push({ dial, echo })
        }
      }
    }

    printTable(`Round trips of ${ROUND_TRIP} ms, ${ROUNDS} dials of each`, ['', 'dial, median', 'round trips', 'first answer on a stream', 'round trips'], [...samples].map(([contender, values]) => {
      const dial = median(values.map(sample => sample.dial))
      const answer = median(values.map(sample => sample.dial + sample.echo))

      return [contender, ...[dial, answer].flatMap(ms => [`${ms.toFixed(1)} ms`, (ms / ROUND_TRIP).toFixed(2)])]
    }))
  })
} finally {
  await relay.end()
}
