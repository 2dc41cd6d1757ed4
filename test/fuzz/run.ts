/* eslint-disable no-console */

/**
 * Fuzzes for as long as told: `npm run fuzz -- --seconds 300 negotiator upgrader`. Each target gets its share of the time; without
 * names, all do. A failure prints the smallest input that was found, and what replays it: `--seed N --path P` with the target.
 */
import { parseArgs } from 'node:util'
import fc from 'fast-check'
import { targets } from './index.ts'
import type { FuzzTarget } from './index.ts'

const DEFAULT_SECONDS = 60

/** Inputs of one seed: fast-check makes them larger from run to run */
const BATCH = 1_000

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string' }, seed: { type: 'string' }, path: { type: 'string' } }
})
const wanted = targets.filter(({ name }) => positionals.length === 0 || positionals.includes(name))
const unknown = positionals.find(name => !targets.some(target => target.name === name))
const seconds = Number(values.seconds ?? DEFAULT_SECONDS)

if (unknown != null || !(seconds > 0)) {
  console.error(unknown == null ? '--seconds takes a positive number' : `There is no target "${unknown}", there are ${targets.map(({ name }) => name).join(', ')}`)
  process.exitCode = 2
} else {
  for (const target of wanted) {
    await fuzz(target, seconds / wanted.length)
  }
}

async function fuzz ({ name, property }: FuzzTarget, seconds: number): Promise<void> {
  const begun = performance.now()
  const elapsed = (): number => (performance.now() - begun) / 1_000
  const first = values.seed == null ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)
  let inputs = 0

  for (let seed = first; inputs === 0 || elapsed() < seconds; seed++) {
    const details = await fc.check(property, {
      seed,
      path: values.path,
      numRuns: BATCH,
      interruptAfterTimeLimit: Math.max(1, (seconds - elapsed()) * 1_000)
    })
    inputs += details.numRuns

    if (details.failed && !details.interrupted) {
      console.error(`${name} FAILED, npm run fuzz -- ${name} --seed ${details.seed} --path ${details.counterexamplePath}\n${await fc.asyncDefaultReportMessage(details)}`)
      process.exitCode = 1
      break
    }

    if (details.interrupted) {
      break
    }
  }

  console.info(`${name.padEnd(14)} ${`${inputs}`.padStart(10)} inputs in ${elapsed().toFixed(0).padStart(4)} s, seeds from ${first}`)
}
