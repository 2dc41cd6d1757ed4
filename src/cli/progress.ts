import { formatBytes } from './format-bytes.ts'
import { printable } from './printable.ts'
import type { Output } from './output.ts'

/**
 * How often it is reported, in milliseconds
 */
const INTERVAL = 200
const BAR_WIDTH = 24

/**
 * Reports how far a transfer has got, not more often than is any use
 */
export class Progress {
  readonly #output: Output
  readonly #name: string
  readonly #start = performance.now()
  #last = -Infinity

  constructor (output: Output, name: string) {
    this.#output = output
    this.#name = name
  }

  update (bytes: number, total: number): void {
    const now = performance.now()

    if (now - this.#last < INTERVAL) {
      return
    }

    this.#last = now
    this.#output.event('progress', { name: this.#name, bytes, total })
    this.#output.status(this.#text(bytes, total, now))
  }

  #text (bytes: number, total: number, now: number): string {
    const fraction = total === 0 ? 1 : bytes / total
    const done = Math.round(fraction * BAR_WIDTH)
    const bar = '█'.repeat(done) + '░'.repeat(BAR_WIDTH - done)
    const speed = bytes / Math.max(now - this.#start, 1) * 1000

    return `${bar} ${Math.floor(fraction * 100).toString().padStart(3)} %  ${formatBytes(speed)}/s  ${printable(this.#name, 40)}`
  }
}
