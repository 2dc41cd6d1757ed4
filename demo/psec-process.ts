import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { ChildProcessByStdio } from 'node:child_process'
import type { Readable } from 'node:stream'

const COMMAND = fileURLToPath(new URL('../dist/src/cli/bin.js', import.meta.url))

/**
 * An event as `psec --json` prints it
 */
export interface PsecEvent extends Record<string, any> {
  event: string
}

/**
 * A `psec` command as a process of its own, and what it reports
 */
export class PsecProcess {
  readonly name: string
  readonly events: PsecEvent[] = []
  readonly #child: ChildProcessByStdio<null, Readable, Readable>
  readonly #exited: Promise<void>
  #stderr = ''
  #running = true
  #wake = Promise.withResolvers<void>()

  constructor (name: string, ...args: string[]) {
    this.name = name
    this.#child = spawn(process.execPath, [COMMAND, ...args, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#exited = new Promise((resolve) => {
      this.#child.once('close', () => { resolve() })
    })
    void this.#exited.then(() => {
      this.#running = false
      this.#wake.resolve()
    })

    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => { this.#stderr += text })
    createInterface(this.#child.stdout).on('line', (line) => {
      this.events.push(JSON.parse(line))
      this.#wake.resolve()
    })
  }

  get pid (): number | undefined {
    return this.#child.pid
  }

  /**
   * The first event of this name, as soon as there is one
   */
  async waitFor (event: string): Promise<PsecEvent> {
    for (;;) {
      const found = this.events.find(candidate => candidate.event === event)

      if (found != null) {
        return found
      }

      if (!this.#running) {
        throw new Error(`The ${this.name} has ended without a "${event}"; it says: ${this.#stderr.trim()}`)
      }

      this.#wake = Promise.withResolvers()
      await this.#wake.promise
    }
  }

  /**
   * Resolves when the process has ended by itself; rejects if it failed
   */
  async finish (): Promise<void> {
    await this.#exited

    if (this.#child.exitCode !== 0) {
      throw new Error(`The ${this.name} has failed; it says: ${this.#stderr.trim()}`)
    }
  }

  /**
   * Interrupt the process, as Ctrl-C does, and wait for its end
   */
  async stop (): Promise<void> {
    if (this.#running) {
      this.#child.kill('SIGINT')
      const killer = setTimeout(() => { this.#child.kill('SIGKILL') }, 10_000)
      await this.#exited
      clearTimeout(killer)
    }
  }
}
