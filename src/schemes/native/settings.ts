import { InvalidParametersError } from '@libp2p/interface'
import { checkLimits } from '../../check-limits.ts'
import { DEFAULT_HELD_ARRIVALS } from '../held-arrivals.ts'

/**
 * What a session keeps between the application and the engine, the same for all schemes that run there
 */
export interface SessionQueues {
  /**
   * How many bytes of a stream may be on their way to the application, or wait for it. What comes beyond that stays in the engine, and
   * counts in the scheme's own window. Default: 512 KiB.
   */
  streamReceiveQueue?: number

  /**
   * From how many bytes of a stream on that wait to be sent `send` returns false. What is sent regardless waits, too. Default: 512 KiB.
   */
  streamSendQueue?: number

  /**
   * From how many bytes of datagrams on that wait to be sent `sendDatagram` returns false. What is sent regardless is dropped above
   * four times as many. Default: 256 KiB.
   */
  datagramSendQueue?: number

  /**
   * How many streams of the remote are held for whoever gets the session (`SecureSession.start`). More are reset. Default: 256.
   */
  maxHeldStreams?: number

  /**
   * The same of datagrams. More are dropped. Default: 64.
   */
  maxHeldDatagrams?: number
}

export const DEFAULT_QUEUES: Required<SessionQueues> = {
  streamReceiveQueue: 512 * 1024,
  streamSendQueue: 512 * 1024,
  datagramSendQueue: 256 * 1024,
  maxHeldStreams: DEFAULT_HELD_ARRIVALS.maxStreams,
  maxHeldDatagrams: DEFAULT_HELD_ARRIVALS.maxDatagrams
}

export type Ranges<T> = Partial<Record<keyof T, [min: number, max: number]>>

/**
 * Settings as the engine takes them: integers that fit 32 bits, or the range that is given, and the defaults where nothing is said.
 * Throws `InvalidParametersError`.
 */
export function nativeSettings<T extends { [K in keyof T]: number }> (scheme: string, init: Partial<T>, defaults: T, ranges: Ranges<T>): T {
  const given = Object.fromEntries(Object.entries(init).filter(([, value]) => value != null))
  const settings = checkLimits<T>(scheme, { ...defaults, ...given } as T)

  for (const [name, [min, max]] of Object.entries(ranges) as Array<[keyof T, [number, number]]>) {
    const value = settings[name]

    if (value < min || value > max) {
      throw new InvalidParametersError(`${scheme}: ${String(name)} has to be an integer from ${min} to ${max}, not ${value}`)
    }
  }

  return settings
}
