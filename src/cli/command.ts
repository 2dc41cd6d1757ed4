import type { Output, OutputStream } from './output.ts'
import type { Readable } from 'node:stream'

/**
 * What surrounds the command: a process, or a test
 */
export interface Environment {
  readonly stdin: Readable
  stdout: OutputStream
  stderr: OutputStream

  /**
   * Ends the command early and cleanly: SIGINT, SIGTERM, a closed stdout
   */
  signal: AbortSignal
}

export interface CommandContext extends Pick<Environment, 'stdin' | 'signal'> {
  output: Output
}

/**
 * The value of an option as `parseArgs` of `node:util` gives it
 */
export type OptionValue = string | boolean | Array<string | boolean> | undefined

export interface CommandArguments {
  values: Record<string, OptionValue>
  positionals: string[]
}

/**
 * One of the `psec` commands
 */
export interface Command {
  /**
   * The text of `--help`
   */
  usage: string

  /**
   * The options beside `--json` and `--help`, for `parseArgs`
   */
  options: Record<string, { type: 'string' | 'boolean', short?: string, multiple?: boolean }>

  /**
   * Resolves when done. Rejects with `UsageError` for arguments that make no sense, with any other error for failure.
   */
  run (args: CommandArguments, context: CommandContext): Promise<void>
}
