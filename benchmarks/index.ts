/* eslint-disable no-console */

/**
 * Runs the benchmarks one after the other, or those that are named: `npm run bench -- dial stream`
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'

const BENCHMARKS = ['dial', 'redial', 'stream', 'datagrams', 'round-trips', 'memory', 'simulation', 'flood']
const wanted = process.argv.slice(2)
const unknown = wanted.find(name => !BENCHMARKS.includes(name))

if (unknown != null) {
  console.error(`There is no benchmark "${unknown}", there are ${BENCHMARKS.join(', ')}`)
  process.exitCode = 2
} else {
  console.info(`Node.js ${process.version}, ${availableParallelism()} cores`)

  for (const name of wanted.length > 0 ? wanted : BENCHMARKS) {
    const [code] = await once(fork(fileURLToPath(new URL(`./${name}.ts`, import.meta.url))), 'exit')

    if (code !== 0) {
      process.exitCode = 1
    }
  }
}
