import type { MessageStream, StreamCloseEvent, StreamMessageEvent } from '@libp2p/interface'
import type { Uint8ArrayList } from 'uint8arraylist'

/**
 * Read a stream in a loop, and let it know how far the loop is behind: libp2p's own loop queues without an end when the
 * remote sends faster than the loop takes.
 *
 * @param stream
 * @param onBacklog - told the bytes by which the queue has grown, or with a negative number shrunk
 */
export async function * readLoop (stream: MessageStream, onBacklog: (bytes: number) => void): AsyncGenerator<Uint8Array | Uint8ArrayList> {
  const queue: Array<Uint8Array | Uint8ArrayList> = []
  let ended = false
  let error: Error | undefined
  let waiting: (() => void) | undefined

  const wake = (): void => {
    waiting?.()
    waiting = undefined
  }
  const untilWoken = async (): Promise<void> => new Promise((resolve) => { waiting = resolve })
  const onMessage = (evt: StreamMessageEvent): void => {
    queue.push(evt.data)
    onBacklog(evt.data.byteLength)
    wake()
  }
  const onEnd = (): void => {
    ended = true
    wake()
  }
  const onClose = (evt: StreamCloseEvent): void => {
    error ??= evt.error
    onEnd()
  }

  stream.addEventListener('message', onMessage)
  stream.addEventListener('remoteCloseWrite', onEnd)
  stream.addEventListener('close', onClose)

  try {
    while (true) {
      const chunk = queue.shift()

      if (chunk != null) {
        onBacklog(-chunk.byteLength)
        yield chunk
      } else if (error != null) {
        throw error
      } else if (ended) {
        return
      } else {
        await untilWoken()
      }
    }
  } finally {
    stream.removeEventListener('message', onMessage)
    stream.removeEventListener('remoteCloseWrite', onEnd)
    stream.removeEventListener('close', onClose)
    onBacklog(-queue.reduce((bytes, chunk) => bytes + chunk.byteLength, 0))
  }
}
