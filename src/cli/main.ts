/**
 * The `psec` command: from arguments to an exit status. The commands themselves are in files of their names.
 */
import { readFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { UsageError } from './errors.ts'
import { describeError, formatError } from './format-error.ts'
import { Output } from './output.ts'
import { printable } from './printable.ts'
import type { Command, CommandArguments, Environment } from './command.ts'

const USAGE = `psec COMMAND

  listen   run a node until interrupted: it answers ping and echo, and receives files
  ping     dial a node and ping it
  send     send files to a node
  decode   dissect a PSEC frame

  psec COMMAND --help  says more
  psec --version

Exit status: 0 for success, 1 for failure, 2 for wrong usage.`

/**
 * Loaded when needed, so that a command starts without what only others use
 */
const COMMANDS: Record<string, () => Promise<Command>> = {
  listen: async () => import('./listen.ts'),
  ping: async () => import('./ping.ts'),
  send: async () => import('./send.ts'),
  decode: async () => import('./decode.ts')
}

const COMMON_OPTIONS = {
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' }
} as const

/**
 * Run a command line, without the interpreter's and the program's own name. Resolves with the exit status; never
 * rejects.
 */
export async function main (argv: string[], environment: Environment): Promise<0 | 1 | 2> {
  const output = new Output({ stdout: environment.stdout, stderr: environment.stderr, json: argv.includes('--json') })

  try {
    await dispatch(argv, environment, output)
    return 0
  } catch (err: any) {
    output.error(`psec: ${formatError(err)}`)

    if (err instanceof UsageError) {
      return 2
    }

    output.event('error', describeError(err))
    return 1
  } finally {
    output.clearStatus()
  }
}

async function dispatch ([name, ...rest]: string[], environment: Environment, output: Output): Promise<void> {
  if (name === '--help' || name === '-h' || name === 'help') {
    environment.stdout.write(`${USAGE}\n`)
    return
  }

  if (name === '--version') {
    environment.stdout.write(`${await readVersion()}\n`)
    return
  }

  if (name == null || !Object.hasOwn(COMMANDS, name)) {
    throw new UsageError(`${name == null ? 'A command is missing' : `There is no command "${printable(name)}"`}\n\n${USAGE}`)
  }

  const command = await COMMANDS[name]()
  const args = parseArguments(rest, command)

  if (args.values.help === true) {
    environment.stdout.write(`${command.usage}\n`)
    return
  }

  await command.run(args, {
    output,
    signal: environment.signal,
    // nobody else needs it, and a process that has looked at its stdin holds on to it
    get stdin () {
      return environment.stdin
    }
  })
}

function parseArguments (args: string[], command: Command): CommandArguments {
  try {
    return parseArgs({ args, options: { ...COMMON_OPTIONS, ...command.options }, allowPositionals: true })
  } catch (err: any) {
    throw new UsageError(`${err.message}\n\n${command.usage}`)
  }
}

async function readVersion (): Promise<string> {
  // this file is two folders deep in `src/`, and three in `dist/`
  for (const place of ['../../package.json', '../../../package.json']) {
    const text = await readFile(new URL(place, import.meta.url), 'utf8').catch(() => undefined)

    if (text != null) {
      return JSON.parse(text).version
    }
  }

  throw new Error('The package.json of libp2p-psec is missing, install the package again')
}
