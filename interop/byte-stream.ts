import type { SecureStream } from '../src/index.ts'

/**
 * The remote broke its direction off, or the session ended
 */
export class StreamReset extends Error {
  name = 'StreamReset'
}

/**
 * A stream of ours to read from and write to, one thing at a time
 */
export class ByteStream {
  readonly inner: SecureStream
  /** Whether the remote reads no more */
  stopped = false
  readonly #chunks: Uint8Array[] = []
  #finished = false
  #reset = false
  #news = Promise.withResolvers<void>()

  constructor (inner: SecureStream) {
    this.inner = inner
    inner.start({
      onData: chunk => {
        this.#chunks.push(Uint8Array.from(chunk))
        this.#news.resolve()
      },
      onDrain: () => { this.#news.resolve() },
      onRemoteCloseWrite: () => {
        this.#finished = true
        this.#news.resolve()
      },
      onRemoteCloseRead: () => {
        this.stopped = true
        this.#news.resolve()
      },
      onReset: () => {
        this.#reset = true
        this.#news.resolve()
      }
    })
  }

  /**
   * The next bytes; undefined at the end. Throws `StreamReset`.
   */
  async read (): Promise<Uint8Array | undefined> {
    while (true) {
      const chunk = this.#chunks.shift()

      if (chunk != null) {
        return chunk
      }

      if (this.#finished) {
        return undefined
      }

      if (this.#reset) {
        throw new StreamReset('The stream was reset')
      }

      await this.#next()
    }
  }

  /**
   * A line of text; what follows it can still be read
   */
  async readLine (): Promise<string> {
    let line = Buffer.alloc(0)

    while (true) {
      const chunk = await this.read()

      if (chunk == null) {
        return line.toString()
      }

      line = Buffer.concat([line, chunk])
      const end = line.indexOf('\n')

      if (end >= 0) {
        if (end + 1 < line.byteLength) {
          this.#chunks.unshift(line.subarray(end + 1))
        }

        return line.subarray(0, end).toString()
      }
    }
  }

  async readAll (): Promise<Buffer> {
    const chunks: Uint8Array[] = []

    for (let chunk = await this.read(); chunk != null; chunk = await this.read()) {
      chunks.push(chunk)
    }

    return Buffer.concat(chunks)
  }

  /**
   * Resolves when more may be written
   */
  async write (data: Uint8Array | string): Promise<void> {
    if (this.#reset || this.stopped) {
      throw new StreamReset('The remote reads no more')
    }

    if (!this.inner.send(typeof data === 'string' ? Buffer.from(data) : data)) {
      await this.#next()
    }
  }

  async #next (): Promise<void> {
    this.#news = Promise.withResolvers()
    await this.#news.promise
  }
}
