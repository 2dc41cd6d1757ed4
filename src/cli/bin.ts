#!/usr/bin/env node
import { AbortError } from '@libp2p/interface'
import { LocalFileError } from './errors.ts'
import { formatError } from './format-error.ts'
import { main } from './main.ts'

const stop = new AbortController()

for (const name of ['SIGINT', 'SIGTERM'] as const) {
  // the first one stops cleanly, a second one gets what it would without us
  process.once(name, () => {
    stop.abort(new AbortError(`Interrupted by ${name}`))
  })
}

let status: number | undefined
let failure: Error | undefined

process.stdout.on('error', (err: NodeJS.ErrnoException) => {
  if (err.code === 'EPIPE') {
    // whoever read our output has gone (`psec listen | head`): nobody is left to tell
    stop.abort(new AbortError('Nobody reads the output any more'))
  } else if (failure == null) {
    failure = new LocalFileError(`Can't write the output: ${err.message}`, { cause: err })
    stop.abort(failure)
    tellFailure()
  }
})

// what went wrong finds no reader there either
process.stderr.on('error', () => {})

status = await main(process.argv.slice(2), {
  get stdin () {
    return process.stdin
  },
  stdout: process.stdout,
  stderr: process.stderr,
  signal: stop.signal
})
process.exitCode = status
tellFailure()

/**
 * A command that fails because of it says so itself. Others have taken it for an interruption, or were done by then.
 */
function tellFailure (): void {
  if (failure != null && status === 0) {
    process.stderr.write(`psec: ${formatError(failure)}\n`)
    process.exitCode = status = 1
  }
}
