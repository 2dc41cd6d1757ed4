import { setTimeout as delay } from 'node:timers/promises'
import { DATAGRAM_ECHO_PROTOCOL } from './datagram-echo.ts'
import { milliseconds } from './describe-connection.ts'
import { median } from './median.ts'
import type { DatagramFlow } from '../index.ts'
import type { PsecNode } from './node.ts'
import type { AbortOptions, Connection } from '@libp2p/interface'

/**
 * A position update: sequence number (uint32), time (float64), three coordinates (float32), all big endian
 */
const UPDATE_LENGTH = 24

/**
 * In milliseconds: how often updates are sent, how late an echo may come, and for how long to play at least
 */
const TICK = 10
const PATIENCE = 2000
const MIN_DURATION = 2000

export interface DatagramReport {
  sent: number

  /**
   * How many came back, out and back each being a chance to get lost
   */
  echoed: number

  /**
   * The median of the round trips; undefined if nothing came back
   */
  medianMs?: number
}

/**
 * Plays a flow of position updates at a steady rate, and counts the echoes
 */
export class DatagramPlayer {
  readonly #flow: DatagramFlow
  readonly #rate: number
  readonly #start = performance.now()
  readonly #timer: NodeJS.Timeout

  /**
   * When the updates left whose echoes may still come: as many as are sent within `PATIENCE`
   */
  readonly #pending = new Map<number, number>()
  readonly #times: number[] = []
  #sent = 0
  #echoed = 0

  private constructor (flow: DatagramFlow, rate: number) {
    this.#flow = flow
    this.#rate = rate
    this.#timer = setInterval(() => { this.#play() }, TICK)

    flow.addEventListener('message', (evt) => { this.#onEcho(evt.data) })
    flow.addEventListener('close', () => { clearInterval(this.#timer) })
  }

  static async start (node: PsecNode, connection: Connection, rate: number, options: AbortOptions): Promise<DatagramPlayer> {
    return new DatagramPlayer(await node.services.datagrams.open(connection, DATAGRAM_ECHO_PROTOCOL, options), rate)
  }

  /**
   * Play on until there is something to report, wait for the last echoes, and close the flow
   */
  async finish (options: Required<AbortOptions>): Promise<DatagramReport> {
    try {
      await this.#wait(this.#start + MIN_DURATION, options)
      clearInterval(this.#timer)
      await this.#wait(performance.now() + PATIENCE, options, () => this.#pending.size > 0)

      await this.#flow.close(options)
    } finally {
      this.stop()
    }

    return {
      sent: this.#sent,
      echoed: this.#echoed,
      medianMs: this.#times.length === 0 ? undefined : milliseconds(median(this.#times))
    }
  }

  /**
   * Stop playing at once. Idempotent.
   */
  stop (): void {
    clearInterval(this.#timer)

    if (this.#flow.status === 'open') {
      this.#flow.abort(new Error('Stopped'))
    }
  }

  /**
   * Wait until that time, as long as the flow is open and it is worth it
   */
  async #wait (until: number, options: AbortOptions, worthIt: () => boolean = () => true): Promise<void> {
    while (performance.now() < until && this.#flow.status === 'open' && worthIt()) {
      await delay(TICK, undefined, options)
    }
  }

  #play (): void {
    const now = performance.now()
    const due = Math.floor((now - this.#start) / 1000 * this.#rate)
    // what a pause of the process has left undone is made up for little by little, not in one burst
    const burst = Math.ceil(this.#rate / 10)

    try {
      for (let count = 0; this.#sent < due && count < burst; count++) {
        this.#flow.send(positionUpdate(this.#sent, now))
        this.#pending.set(this.#sent++, now)
      }
    } catch {
      // the remote ended the flow, of which it may be the first to know, or its path carries no such update any more
      this.stop()
    }

    this.#forget(now - PATIENCE)
  }

  #onEcho (update: Uint8Array): void {
    if (update.byteLength !== UPDATE_LENGTH) {
      return
    }

    const seq = new DataView(update.buffer, update.byteOffset).getUint32(0)
    const sentAt = this.#pending.get(seq)

    // an unknown number is a duplicate, or too late
    if (sentAt != null) {
      this.#pending.delete(seq)
      this.#echoed++
      this.#remember(performance.now() - sentAt)
    }
  }

  #remember (ms: number): void {
    // enough for a median; beyond that, replace one at a time
    if (this.#times.length < 10_000) {
      this.#times.push(ms)
    } else {
      this.#times[this.#echoed % this.#times.length] = ms
    }
  }

  #forget (before: number): void {
    for (const [seq, sentAt] of this.#pending) {
      if (sentAt >= before) {
        return
      }

      this.#pending.delete(seq)
    }
  }
}

function positionUpdate (seq: number, time: number): Uint8Array {
  const update = new Uint8Array(UPDATE_LENGTH)
  const view = new DataView(update.buffer)
  view.setUint32(0, seq)
  view.setFloat64(4, time)
  view.setFloat32(12, Math.cos(time / 1000))
  view.setFloat32(16, Math.sin(time / 1000))
  view.setFloat32(20, 0)

  return update
}
