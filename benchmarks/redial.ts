/**
 * Dials that follow at once on another one from the same port, which was hung up, or given up on its way, over and over: whether each is
 * answered although the remote may not have heard yet that the one before is over. `node benchmarks/redial.ts [ROUNDS]`
 */
import { median, shuffled } from './statistics.ts'
import { printTable } from './table.ts'
import { withPairs } from './worker-process.ts'
import type { Contender } from './contenders.ts'
import type { Pair } from './worker-process.ts'

const CONTENDERS: Contender[] = [
  'psec, QUIC',
  'psec, QUIC, no initiation packet',
  'psec, QUIC, addresses proved',
  'psec, QUIC, addresses proved, no initiation packet',
  'psec, DTLS',
  'psec, DTLS, no initiation packet',
  'DTLS alone'
]

/** DTLS can't say so early that a dial was given up: it is held off when that happens too often, see `docs/limits.md` */
const GIVEN_UP = CONTENDERS.filter(contender => contender.includes('QUIC'))
const STEPS = ['psec:propose', 'psec:agreed', 'any time'] as const

/** Milliseconds, about as long as these dials take */
const DIAL_TIME = 4
const DEFAULT_ROUNDS = 500
const rounds = Number(process.argv[2] ?? DEFAULT_ROUNDS)

/** Milliseconds of those that were answered */
const times = new Map<string, number[]>()

async function redial (title: string, { dialler, address }: Pair): Promise<void> {
  const answered = times.get(title) ?? []
  times.set(title, answered)

  try {
    answered.push(await dialler.call('dial', { address }))
  } catch {
    // it is missing in the table
    return
  }

  await dialler.call('hangUp')
}

await withPairs(CONTENDERS, async (pairs) => {
  for (let round = 0; round < rounds; round++) {
    for (const pair of shuffled(pairs)) {
      await redial(`${pair.contender}: hung up`, pair)

      for (const at of GIVEN_UP.includes(pair.contender) ? STEPS : []) {
        await pair.dialler.call('giveUp', { address: pair.address, at: at === 'any time' ? Math.random() * DIAL_TIME : at })
        await redial(`${pair.contender}: given up at ${at}`, pair)
      }
    }
  }

  printTable('Dials that follow on one that was', ['', 'dials', 'failed', 'median', 'slowest'], [...times].sort().map(([title, ms]) => [
    title,
    `${rounds}`,
    `${rounds - ms.length}`,
    `${median(ms).toFixed(2)} ms`,
    `${Math.max(...ms).toFixed(1)} ms`
  ]))
})
