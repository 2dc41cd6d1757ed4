/**
 * Explores all configurations and prints a table: `npm run model`. With `--more N` every bound is raised by N, with `--only TEXT`
 * only configurations whose name or group contains the text are explored; `--max N` ends one that has more states. With `--mutants`
 * negotiators that are wrong on purpose are explored until something is found, and what is found is printed.
 */
import { parseArgs } from 'node:util'
import { configure } from './configuration.ts'
import { groups } from './configurations.ts'
import { Explorer } from './explorer.ts'
import { loadMutant, mutants } from './mutants.ts'
import type { ConfigurationInit } from './configuration.ts'

const print = (message: string): void => { console.log(message) } // eslint-disable-line no-console
const { values } = parseArgs({ options: { more: { type: 'string' }, only: { type: 'string' }, max: { type: 'string' }, mutants: { type: 'boolean' } } })
const row = (...cells: Array<string | number>): void => { console.log(`| ${cells.join(' | ')} |`) } // eslint-disable-line no-console

if (values.mutants === true) {
  await exploreMutants()
} else {
  exploreAll()
}

function all (): ConfigurationInit[] {
  return groups(Number(values.more ?? 0))
    .flatMap(({ title, configurations }) => configurations.map(init => ({ ...init, name: `${title}: ${init.name}` })))
    .filter(({ name }) => name.includes(values.only ?? ''))
}

function exploreAll (): void {
  let states = 0
  let transitions = 0
  let milliseconds = 0

  row('configuration', 'states', 'transitions', 'longest way', 'in flight', 'ends', 's')
  row('---', '---:', '---:', '---:', '---:', '---', '---:')

  for (const init of all()) {
    const result = new Explorer(configure(init)).run(Number(values.max ?? Infinity))
    states += result.states
    transitions += result.transitions
    milliseconds += result.milliseconds
    const ends = Object.entries(result.outcomes).map(([outcome, count]) => `${outcome} ${count}`).join(', ')
    row(init.name, result.states, result.transitions, result.depth, result.maxInFlight, ends, (result.milliseconds / 1_000).toFixed(1))
  }

  row('all', states, transitions, '', '', '', (milliseconds / 1_000).toFixed(1))
}

async function exploreMutants (): Promise<void> {
  for (const mutant of mutants) {
    const Mutant = await loadMutant(mutant)
    const found = all().some(init => {
      try {
        new Explorer(configure({ ...init, createNegotiator: init => new Mutant(init) })).run()
      } catch (err: any) {
        print(`A negotiator that ${mutant.name} — ${init.name}\n${err.message}\n`)
        return true
      }

      return false
    })

    if (!found) {
      print(`A negotiator that ${mutant.name}: NOT FOUND\n`)
      process.exitCode = 1
    }
  }
}
