import { StreamResetError, TimeoutError } from '@libp2p/interface'
import { raceSignal } from 'race-signal'
import type { AbortOptions, Stream, StreamCloseEvent, StreamMessageEvent } from '@libp2p/interface'

/**
 * From how many bytes on, received and not taken yet, the remote is held back
 */
const HIGH_WATER = 1024 * 1024

export interface ReadContentOptions extends AbortOptions {
  /**
   * How long to wait for more, in milliseconds. Default: 30,000.
   */
  idleTimeout?: number
}

/**
 * What comes on a stream until its end, at the pace of whoever takes it: unlike the stream's own iterator it holds the
 * remote back. Throws `TimeoutError`, the stream's error, or the signal's reason.
 */
export async function * readContent (stream: Stream, options: ReadContentOptions = {}): AsyncGenerator<Uint8Array> {
  const idleTimeout = options.idleTimeout ?? 30_000
  let queue: Uint8Array[] = []
  let queued = 0
  let ended = stream.readableEnded
  let failure = stream.status === 'reset' || stream.status === 'aborted' ? new StreamResetError() : undefined
  let news: PromiseWithResolvers<void> | undefined

  const onMessage = (evt: StreamMessageEvent): void => {
    // a remote may cut what it sends into more pieces than a call takes arguments
    for (const chunk of evt.data instanceof Uint8Array ? [evt.data] : evt.data) {
      queue.push(chunk)
    }

    queued += evt.data.byteLength

    if (queued > HIGH_WATER && stream.readStatus === 'readable') {
      stream.pause()
    }

    news?.resolve()
  }

  const onEnd = (): void => {
    ended = true
    news?.resolve()
  }

  const onClose = (evt: StreamCloseEvent): void => {
    ended = true
    failure ??= evt.error
    news?.resolve()
  }

  const idle = setTimeout(() => {
    if (news != null) {
      failure ??= new TimeoutError(`Nothing came for ${idleTimeout} ms`)
      news.resolve()
    }
  }, idleTimeout)

  stream.addEventListener('message', onMessage)
  stream.addEventListener('end', onEnd)
  stream.addEventListener('close', onClose)

  try {
    for (;;) {
      const chunks = queue
      queue = []
      queued = 0

      if (stream.readStatus === 'paused') {
        stream.resume()
      }

      yield * chunks

      if (queue.length === 0 && failure == null) {
        if (ended) {
          return
        }

        idle.refresh()
        news = Promise.withResolvers()
        await raceSignal(news.promise, options.signal)
        news = undefined
      }

      options.signal?.throwIfAborted()

      if (failure != null) {
        throw failure
      }
    }
  } finally {
    clearTimeout(idle)
    stream.removeEventListener('message', onMessage)
    stream.removeEventListener('end', onEnd)
    stream.removeEventListener('close', onClose)
  }
}
