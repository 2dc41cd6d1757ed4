import type { Writable } from 'node:stream'

/**
 * A stream that may be a terminal
 */
export type OutputStream = Writable & { isTTY?: boolean, columns?: number }

export interface OutputInit {
  stdout: OutputStream
  stderr: OutputStream

  /**
   * Print events as JSON, one object per line, instead of text
   */
  json: boolean
}

/**
 * What the command says: events on stdout, as text for people or as JSON for scripts; a status line on stderr, if that
 * is a terminal; errors on stderr.
 */
export class Output {
  readonly json: boolean
  readonly #stdout: OutputStream
  readonly #stderr: OutputStream
  #statusShown = false

  constructor (init: OutputInit) {
    this.json = init.json
    this.#stdout = init.stdout
    this.#stderr = init.stderr
  }

  /**
   * Report an event. Without a text it is for scripts only.
   */
  event (event: string, fields: object, text?: string): void {
    if (this.json) {
      this.#stdout.write(`${JSON.stringify({ event, ...fields })}\n`)
    } else if (text != null) {
      this.clearStatus()
      this.#stdout.write(`${text}\n`)
    }
  }

  /**
   * Show a line that the next one replaces
   */
  status (text: string): void {
    if (this.json || this.#stderr.isTTY !== true) {
      return
    }

    // a line that wraps could not be replaced; some terminals claim to have no columns
    const columns = this.#stderr.columns != null && this.#stderr.columns > 0 ? this.#stderr.columns : 80
    this.#stderr.write(`\r\u001b[K${text.slice(0, columns - 1)}`)
    this.#statusShown = true
  }

  clearStatus (): void {
    if (this.#statusShown) {
      this.#stderr.write('\r\u001b[K')
      this.#statusShown = false
    }
  }

  error (text: string): void {
    this.clearStatus()
    this.#stderr.write(`${text}\n`)
  }
}
