#!/usr/bin/env node
import { AbortError } from '@libp2p/interface'
import { main } from './main.ts'

const stop = new AbortController()

for (const name of ['SIGINT', 'SIGTERM'] as const) {
  // the first one stops cleanly, a second one gets what it would without us
  process.once(name, () => {
    stop.abort(new AbortError(`Interrupted by ${name}`))
  })
}

// whoever read our output has gone (`psec listen | head`): nobody is left to tell
process.stdout.on('error', (err: NodeJS.ErrnoException) => {
  if (err.code !== 'EPIPE') {
    throw err
  }

  stop.abort(new AbortError('Nobody reads the output any more'))
})

process.exitCode = await main(process.argv.slice(2), {
  get stdin () {
    return process.stdin
  },
  stdout: process.stdout,
  stderr: process.stderr,
  signal: stop.signal
})
