/**
 * Dials that are hung up at once, over and over, from the same port: whether each is answered although the remote may not have heard
 * yet that the one before is over. `node benchmarks/redial.ts [ROUNDS]`
 */
import { median, shuffled } from './statistics.ts'
import { printTable } from './table.ts'
import { withPairs } from './worker-process.ts'
import type { Contender } from './contenders.ts'

const CONTENDERS: Contender[] = [
  'psec, QUIC',
  'psec, QUIC, no initiation packet',
  'psec, DTLS',
  'psec, DTLS, no initiation packet',
  'DTLS alone'
]
const DEFAULT_ROUNDS = 500
const rounds = Number(process.argv[2] ?? DEFAULT_ROUNDS)

await withPairs(CONTENDERS, async (pairs) => {
  const times = new Map<Contender, number[]>(CONTENDERS.map(contender => [contender, []]))

  for (let round = 0; round < rounds; round++) {
    for (const { contender, dialler, address } of shuffled(pairs)) {
      try {
        times.get(contender)?.push(await dialler.call('dial', { address }))
      } catch {
        // it is missing in the table
        continue
      }

      await dialler.call('hangUp')
    }
  }

  printTable(`Dials that follow a hang-up, ${rounds} of each`, ['', 'failed', 'median', 'slowest'], [...times].map(([contender, ms]) => [
    contender,
    `${rounds - ms.length}`,
    `${median(ms).toFixed(2)} ms`,
    `${Math.max(...ms).toFixed(1)} ms`
  ]))
})
