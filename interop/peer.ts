/**
 * A peer of other people's parts: the program in `go/`, run as a process, which prints events and takes commands as lines of JSON
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { GO_PEER, WOLFSSL_RECORDS } from './build.ts'
import type { ChildProcessByStdio } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'

export type Library = 'wolfssl' | 'pion' | 'openssl'

export interface PeerOptions {
  library: Library
  listen?: string
  connect?: string

  /**
   * The most bytes of a datagram in its handshake. Default: 1232.
   */
  mtu?: string

  /**
   * The type of its libp2p key. Default: ed25519.
   */
  key?: string

  /**
   * What is wrong with its certificate
   */
  fault?: 'none' | 'no-extension' | 'foreign-signature' | 'expired'

  /**
   * Options for wolfSSL's or OpenSSL's program
   */
  more?: string[]
}

export type PeerEvent = Record<string, any> & { event: string }

const PATIENCE = 30_000
const SCENARIO_PATIENCE = 90_000

export class Peer {
  readonly events: PeerEvent[] = []
  stderr = ''
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>
  /** For its files: who is killed does not clear up */
  readonly #folder = mkdtempSync(join(tmpdir(), 'psec-interop-'))
  readonly #exited: Promise<void>
  #ended = false
  #news = Promise.withResolvers<void>()
  #read = 0

  constructor (options: PeerOptions) {
    const { library, more, ...rest } = options
    const args = Object.entries(rest).flatMap(([name, value]) => [`-${name}`, value])

    this.#child = spawn(GO_PEER, ['-dtls', library, '-wolfssl', WOLFSSL_RECORDS, '-more', (more ?? []).join(' '), ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, TMPDIR: this.#folder },
      // with its child a group of processes, see `kill`
      detached: true
    })
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => { this.stderr += text })
    // It may have ended.
    this.#child.stdin.on('error', () => {})
    createInterface(this.#child.stdout).on('line', line => {
      this.events.push(JSON.parse(line))
      this.#news.resolve()
    })
    this.#exited = new Promise((resolve) => {
      this.#child.once('close', () => {
        this.#ended = true
        this.#news.resolve()
        resolve()
      })
    })
  }

  /**
   * The first event of this name; throws if it fails or ends before
   */
  async event (name: string): Promise<PeerEvent> {
    return this.#until(() => this.events.find(({ event }) => event === name), name, PATIENCE)
  }

  /**
   * Rejects when it fails before it is connected, and never resolves
   */
  async failure (): Promise<never> {
    await this.event('connected')

    return new Promise(() => {})
  }

  /**
   * Have it run a scenario, and throw if that fails
   */
  async run (scenario: string, size = 0): Promise<PeerEvent> {
    const result = await this.#answer({ do: 'run', scenario, size }, 'result')

    if (result.ok !== true) {
      throw new Error(result.message)
    }

    return result
  }

  /**
   * How many streams are open on its side
   */
  async openStreams (): Promise<number> {
    return (await this.#answer({ do: 'streams' }, 'streams')).open
  }

  close (): void {
    this.#command({ do: 'close' })
  }

  abort (): void {
    this.#command({ do: 'abort' })
  }

  /**
   * End it without a word to anybody. Its child, too, and at the same time: one that outlives it closes its session in order.
   */
  async kill (): Promise<void> {
    const { pid } = this.#child

    if (!this.#ended && pid != null) {
      killGroup(pid)
    }

    await this.#exited
    rmSync(this.#folder, { recursive: true, force: true })
  }

  /**
   * What it saw that the scheme does not allow
   */
  get violations (): string[] {
    return this.events.filter(({ event }) => event === 'violation').map(({ event, what, ...rest }) => `${what} ${JSON.stringify(rest)}`)
  }

  #command (command: object): void {
    this.#child.stdin.write(`${JSON.stringify(command)}\n`)
  }

  async #answer (command: object, name: string): Promise<PeerEvent> {
    this.#read = this.events.length
    this.#command(command)

    return this.#until(() => this.events.slice(this.#read).find(({ event }) => event === name), name, SCENARIO_PATIENCE)
  }

  async #until (find: () => PeerEvent | undefined, what: string, patience: number): Promise<PeerEvent> {
    const signal = AbortSignal.timeout(patience)
    const onAbort = (): void => { this.#news.resolve() }
    signal.addEventListener('abort', onAbort)

    try {
      while (true) {
        const found = find()

        if (found != null) {
          return found
        }

        const failed = this.events.find(({ event }) => event === 'failed')

        if (failed != null) {
          throw new Error(`The peer failed: ${failed.message}`)
        }

        if (this.#ended || signal.aborted) {
          throw new Error(`The peer ${this.#ended ? 'ended' : 'waits'} without "${what}" after ${JSON.stringify(this.events.at(-1))} ${this.stderr}`)
        }

        this.#news = Promise.withResolvers()
        await this.#news.promise
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }
}

function killGroup (leader: number): void {
  try {
    process.kill(-leader, 'SIGKILL')
  } catch (err: any) {
    // nobody is left of it
    if (err.code !== 'ESRCH') {
      throw err
    }
  }
}
