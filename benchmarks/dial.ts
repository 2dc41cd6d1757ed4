/**
 * How long a dial takes: from `node.dial()` to the libp2p connection, over loopback. Median of many, one contender
 * after the other in each round.
 */
import { median } from './statistics.ts'
import { printTable } from './table.ts'
import { withPairs } from './worker-process.ts'
import type { Contender } from './contenders.ts'

const CONTENDERS: Contender[] = ['psec', 'psec, no initiation packet', '@chainsafe/libp2p-quic', 'TCP + Noise + Yamux']
const WARM_UP = 30
const ROUNDS = 100

await withPairs(CONTENDERS, async (pairs) => {
  const times = new Map<Contender, number[]>(CONTENDERS.map(contender => [contender, []]))

  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (const { contender, dialler, address } of pairs) {
      const ms = await dialler.call('dial', { address })
      await dialler.call('hangUp')

      if (round >= 0) {
        times.get(contender)?.push(ms)
      }
    }
  }

  const reference = median(times.get('psec') ?? [])

  printTable(`Dial, over loopback, ${ROUNDS} of each`, ['', 'median', 'fastest', 'slowest', 'psec takes'], [...times].map(([contender, ms]) => [
    contender,
    `${median(ms).toFixed(2)} ms`,
    `${Math.min(...ms).toFixed(2)} ms`,
    `${Math.max(...ms).toFixed(2)} ms`,
    `${(reference / median(ms)).toFixed(2)} ×`
  ]))
})
