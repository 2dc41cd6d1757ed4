/**
 * Time as a dependency: code that waits takes a clock, so that a test can let hours pass at once. Internal.
 */

/**
 * Ends a scheduled callback before it ran; harmless afterwards
 */
export interface Cancel {
  (): void
}

export interface Clock {
  /**
   * Monotonic milliseconds since some moment
   */
  now (): number

  /**
   * Call back once, `delay` milliseconds from now, never before this function returns
   */
  schedule (callback: () => void, delay: number): Cancel
}

/**
 * The machine's own time. A delay of 0 runs after the current turn of the event loop: `setTimeout` would make it 1 ms.
 */
export const realClock: Clock = {
  now () {
    return performance.now()
  },

  schedule (callback, delay) {
    if (delay <= 0) {
      const immediate = setImmediate(callback)

      return () => { clearImmediate(immediate) }
    }

    const timeout = setTimeout(callback, delay)

    return () => { clearTimeout(timeout) }
  }
}
