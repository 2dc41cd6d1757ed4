import { StreamStateError } from '@libp2p/interface'
import { raceSignal } from 'race-signal'
import type { AbortOptions, Stream, StreamCloseEvent } from '@libp2p/interface'

/**
 * Wait until a stream whose `send` has returned false takes more. Rejects when the stream closes, or with the signal's
 * reason.
 */
export async function drained (stream: Stream, options: AbortOptions = {}): Promise<void> {
  if (!stream.writableNeedsDrain) {
    return
  }

  const drain = Promise.withResolvers<void>()
  const onDrain = (): void => { drain.resolve() }
  const onClose = (evt: StreamCloseEvent): void => {
    drain.reject(evt.error ?? new StreamStateError('The stream was closed before everything was sent, open another one'))
  }

  stream.addEventListener('drain', onDrain)
  stream.addEventListener('close', onClose)

  try {
    if (stream.status !== 'open' && stream.status !== 'closing') {
      throw new StreamStateError(`The stream is ${stream.status}, open another one to send`)
    }

    await raceSignal(drain.promise, options.signal)
  } finally {
    stream.removeEventListener('drain', onDrain)
    stream.removeEventListener('close', onClose)
  }
}
