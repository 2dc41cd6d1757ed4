import { ChildCalls } from './child-calls.ts'
import type { Contender } from './contenders.ts'

export interface DatagramsSent {
  sent: number

  /**
   * Bytes of payload in each, in the end: a path may turn out to carry less than was wanted
   */
  size: number
  ms: number
}

export interface MemoryUse {
  /**
   * Bytes of the process that are in memory
   */
  resident: number

  /**
   * Bytes of the JavaScript heap, and of what hangs on its objects, that are in use
   */
  javascript: number
}

/**
 * What a worker can be asked for
 */
export interface Calls {
  /** Where it listens */
  address (): Promise<string>

  /** Milliseconds until `dial` resolved */
  dial (params: { address: string, signalMs?: number }): Promise<number>

  /** Dial, and give up at that step of it, or after so many milliseconds; a dial that is done by then is hung up */
  giveUp (params: { address: string, at: 'psec:propose' | 'psec:agreed' | number }): Promise<void>

  /** Milliseconds until a byte sent on a new stream of the connection came back */
  echo (): Promise<number>

  hangUp (): Promise<void>

  /** Bytes per second that a stream delivered, from the first write to the receiver's word that it has everything */
  stream (params: { seconds: number }): Promise<number>

  /** Send datagrams as fast as it goes: waiting for `drain`, or not */
  datagrams (params: { seconds: number, size: number, backpressure: boolean }): Promise<DatagramsSent>

  /** How many datagrams have arrived since the last time it was asked */
  takeReceived (): Promise<number>

  /** What the process uses once garbage was collected */
  memory (): Promise<MemoryUse>

  stop (): Promise<void>
}

/**
 * A node in a process of its own
 */
export class WorkerProcess extends ChildCalls<Calls> {
  readonly contender: Contender

  constructor (contender: Contender) {
    super(new URL('worker.ts', import.meta.url), [contender])
    this.contender = contender
  }
}

/**
 * A node that dials another, each in its own process
 */
export interface Pair {
  contender: Contender
  dialler: WorkerProcess
  listener: WorkerProcess
  address: string
}

/**
 * Run something with a pair of each contender
 */
export async function withPairs (contenders: Contender[], run: (pairs: Pair[]) => Promise<void>): Promise<void> {
  const workers: WorkerProcess[] = []

  try {
    const pairs: Pair[] = []

    for (const contender of contenders) {
      const dialler = new WorkerProcess(contender)
      const listener = new WorkerProcess(contender)
      workers.push(dialler, listener)
      pairs.push({ contender, dialler, listener, address: await listener.call('address') })
    }

    await run(pairs)
  } finally {
    await Promise.all(workers.map(async worker => { await worker.end() }))
  }
}
