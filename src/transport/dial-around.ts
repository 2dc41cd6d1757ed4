import { anySignal } from 'any-signal'
import { setMaxListeners } from 'main-event'
import { realClock } from '../clock.ts'
import type { Cancel } from '../clock.ts'
import type { PsecDialEvents, PsecDialOptions } from '../index.ts'
import type { Connection } from '@libp2p/interface'

/**
 * How long a dial waits for a handshake that is the remote's to begin, in milliseconds, before it goes out by another way, too.
 * Longer than nearly all handshakes take, so that two connections are rare; and short enough for the other way to get done within
 * the 5 seconds that libp2p gives the dial of an address.
 */
const PATIENCE = 1_000

export interface DialInit {
  /**
   * By the socket that there is, or the best one that can be had
   */
  dial (options: PsecDialOptions): Promise<Connection>

  /**
   * From a port that nobody has heard of
   */
  dialAside (options: PsecDialOptions): Promise<Connection>
}

/**
 * Dial so that nobody who forges the remote's address can prevent it.
 *
 * A dial joins what the remote has begun, and then leaves it to the remote to go on. But a proposal proves nothing: whoever can spoof
 * the remote's address, as people can who are not on the path, makes this side wait for somebody who knows of nothing. They don't
 * know the port of a dial that leaves from a new one, so that is the way if nothing comes of what was joined.
 *
 * Resolves with the connection that is ready first. Rejects as the way that was tried last.
 */
export async function dialAround ({ dial, dialAside }: DialInit, options: PsecDialOptions): Promise<Connection> {
  const over = new AbortController()
  const signal = anySignal([options.signal, over.signal])
  setMaxListeners(Infinity, signal)

  const aside = Promise.withResolvers<void>()
  let cancelTimer: Cancel | undefined
  let awaitsRemote = false
  let isAside = false
  const goAside = (): void => {
    isAside = true
    aside.resolve()
  }
  const onProgress = (evt: PsecDialEvents): void => {
    if (evt.type === 'psec:agreed' && evt.detail.role === 'responder') {
      awaitsRemote = true
      cancelTimer ??= realClock.schedule(goAside, PATIENCE)
    } else if (evt.type === 'psec:secured') {
      awaitsRemote = false
      cancelTimer?.()
    }

    options.onProgress?.(evt)
  }

  const first = dial({ ...options, signal, onProgress })
  const second = aside.promise.then(async () => dialAside({ ...options, signal }))
  const firstOrAside = first.catch(async (err) => {
    if (options.signal.aborted || !(awaitsRemote || isAside)) {
      throw err
    }

    goAside()

    return second
  })

  try {
    return await Promise.race([firstOrAside, second.catch(async () => first)])
  } finally {
    cancelTimer?.()

    // a way that lost is still being tried
    if (isAside) {
      over.abort()
    }

    signal.clear()
  }
}
