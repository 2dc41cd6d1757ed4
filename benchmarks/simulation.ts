/* eslint-disable no-console */

/**
 * Tens of thousands of negotiations in virtual time, over every kind of bad network: how many succeed, how long it takes in round
 * trips, and what it costs.
 *
 * `--runs N` is how many, `--first N` the first one's seed; `--seed N` plays a single run, and prints what happened in it. The exit
 * status is 1 if something happened that no network may bring about.
 */
import { parseArgs } from 'node:util'
import { simulate } from '../test/fixtures/simulation/index.ts'
import { CLASSES, haveSchemeInCommon, LOSSES, MODES, roundTripOf } from '../test/fixtures/simulation/scenario.ts'
import { quantile } from './statistics.ts'
import { printTable } from './table.ts'
import type { Outcome } from '../test/fixtures/simulation/index.ts'

/** In about a minute on one core */
const RUNS = 3_000 * CLASSES

/** What counts as success, in milliseconds */
const IN_TIME = 10_000

/** Failures that are named, so that one can look at them */
const MAX_NAMED = 10

const { values } = parseArgs({ options: { runs: { type: 'string' }, first: { type: 'string' }, seed: { type: 'string' } } })

const [seed, first, runs] = [values.seed, values.first ?? '0', values.runs ?? `${RUNS}`].map(text => text == null ? undefined : Number(text)) as [number | undefined, number, number]

if (![seed ?? 0, first, runs].every(number => Number.isSafeInteger(number) && number >= 0)) {
  console.error('--seed, --first and --runs take integers from 0')
  process.exitCode = 2
} else if (seed != null) {
  await replay(seed)
} else {
  await runAll(first, runs)
}

async function replay (seed: number): Promise<void> {
  const { scenario, mistakes, agreedAfter, securedAfter } = await simulate(seed, { print: console.info })
  const { peers, ...path } = scenario

  console.info('\n%o', path)
  peers.forEach(({ address, schemes, dialsAt }) => { console.info(`${address.host} speaks ${schemes.join(', ')}${dialsAt == null ? '' : `, dials after ${dialsAt.toFixed(1)} ms`}`) })
  console.info(`agreed after ${describe(agreedAfter)}, secured after ${describe(securedAfter)}`)
  report(mistakes)
}

async function runAll (first: number, runs: number): Promise<void> {
  const begun = performance.now()
  const outcomes = new Map<string, Outcome[]>()
  const failures: string[] = []
  let mistakes = 0

  for (let seed = first; seed < first + runs; seed++) {
    const outcome = await simulate(seed)
    const { mode, loss } = outcome.scenario
    const key = haveSchemeInCommon(outcome.scenario) ? keyOf(mode, loss) : 'nothing in common'
    const alike = outcomes.get(key) ?? []
    alike.push(outcome)
    outcomes.set(key, alike)

    if (outcome.mistakes.length > 0 && ++mistakes <= MAX_NAMED) {
      report(outcome.mistakes.map(mistake => `${mistake} (npm run simulate -- --seed ${seed})`))
    }

    if (key !== 'nothing in common' && loss <= 0.3 && !isInTime(outcome.securedAfter)) {
      failures.push(`${seed}`)
    }
  }

  const seconds = (performance.now() - begun) / 1_000
  const header = ['runs', 'agreed', 'secured', 'median', '90 %', '99 %', 'longest', 'datagrams', 'bytes']

  for (const mode of MODES) {
    printTable(`Agreement, ${mode}`, ['lost', ...header], LOSSES.map(loss => [`${loss * 100} %`, ...figures(outcomes.get(keyOf(mode, loss)) ?? [])]))
  }

  console.info(`\n${runs} runs (seeds ${first} to ${first + runs - 1}) in ${seconds.toFixed(0)} s. ${outcomes.get('nothing in common')?.length ?? 0} of them with nothing in common. ${mistakes} with a mistake.`)

  if (failures.length > 0) {
    console.info(`Up to 30 % lost, but not secured within ${IN_TIME / 1_000} s: ${failures.length} runs, seeds ${failures.slice(0, MAX_NAMED).join(', ')}`)
  }
}

function figures (outcomes: Outcome[]): string[] {
  const agreed = outcomes.filter(({ agreedAfter }) => isInTime(agreedAfter))
  const secured = outcomes.filter(({ securedAfter }) => isInTime(securedAfter))
  const times = agreed.map(({ agreedAfter = NaN }) => agreedAfter)
  const roundTrips = agreed.map(({ agreedAfter = NaN, scenario }) => agreedAfter / roundTripOf(scenario))
  const share = (some: Outcome[]): string => `${(100 * some.length / outcomes.length).toFixed(some.length === outcomes.length ? 0 : 2)} %`

  return [
    `${outcomes.length}`,
    share(agreed),
    share(secured),
    ...[0.5, 0.9, 0.99].map(q => `${quantile(roundTrips, q).toFixed(2)} RTT`),
    `${(Math.max(...times) / 1_000).toFixed(2)} s`,
    mean(outcomes.map(({ frames }) => frames)).toFixed(1),
    mean(outcomes.map(({ bytes }) => bytes)).toFixed(0)
  ]
}

function keyOf (mode: string, loss: number): string {
  return `${mode} ${loss}`
}

function isInTime (time: number = Infinity): boolean {
  return time <= IN_TIME
}

function mean (values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

function describe (time?: number): string {
  return time == null ? 'never' : `${time.toFixed(1)} ms`
}

function report (mistakes: string[]): void {
  for (const mistake of mistakes) {
    process.exitCode = 1
    console.error(`MISTAKE: ${mistake}`)
  }
}
