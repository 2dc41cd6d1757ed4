import { ProtocolError } from '@libp2p/interface'
import { realClock } from '../clock.ts'
import { EarlyDatagrams } from './early-datagrams.ts'
import { decode, prefixLength } from './quic-varint.ts'
import type { ControlledFlow } from './flow.ts'
import type { DatagramsInit } from './index.ts'
import type { Clock } from '../clock.ts'
import type { DatagramReceiver, DatagramSession } from '../sessions.ts'

/** RFC 9000, section 20.1: PROTOCOL_VIOLATION is 0xa there, the libp2p draft names this application error code */
const PROTOCOL_VIOLATION = 0x1003

export interface SessionFlowsInit {
  session: DatagramSession
  limits: Pick<Required<DatagramsInit>, 'maxEarlyDatagrams' | 'earlyTimeout' | 'maxClosedFlows'>

  /**
   * The session is over
   */
  onClose (): void
  clock?: Clock
}

/**
 * What the flows of one session lost, beside what each flow counts
 */
export interface SessionDrops {
  /** Arrived after the control stream's receive side was closed, which the draft wants dropped silently */
  closed: number
  /** Overtook a control stream that did not come in time, or for which there was no room */
  early: number
  /** Belong to no stream that the session could ever have, or could not be parsed */
  invalid: number
  /** Arrived on a flow to which nobody listened */
  noListener: number
}

/**
 * The flows of one session, by the id of their control streams, and what comes in for them
 */
export class SessionFlows implements DatagramReceiver {
  readonly session: DatagramSession
  readonly #dropped: SessionDrops = { closed: 0, early: 0, invalid: 0, noListener: 0 }
  readonly #flows = new Map<number, ControlledFlow>()
  readonly #early: EarlyDatagrams
  /** When, in that order */
  readonly #closed = new Map<number, number>()
  readonly #limits: SessionFlowsInit['limits']
  readonly #clock: Clock
  readonly #onClose: () => void

  constructor ({ session, limits, onClose, clock = realClock }: SessionFlowsInit) {
    this.session = session
    this.#limits = limits
    this.#clock = clock
    this.#onClose = onClose
    this.#early = new EarlyDatagrams({ ...limits, onDrop: (datagrams) => { this.#dropped.early += datagrams }, clock })
  }

  /**
   * So far
   */
  get dropped (): Readonly<SessionDrops> {
    const ofOpenFlows = [...this.#flows.values()].reduce((sum, { dropped }) => sum + dropped.noListener, 0)

    return { ...this.#dropped, noListener: this.#dropped.noListener + ofOpenFlows }
  }

  /**
   * Flows of a direction and, if given, of an application protocol
   */
  count (direction: 'inbound' | 'outbound', protocol?: string): number {
    let count = 0

    for (const flow of this.#flows.values()) {
      if (flow.direction === direction && (protocol == null || flow.protocol === protocol)) {
        count++
      }
    }

    return count
  }

  /**
   * Deliver to this flow until it closes
   */
  add (id: number, flow: ControlledFlow): void {
    if (flow.status !== 'open') {
      this.#onFlowClosed(id)
      return
    }

    this.#closed.delete(id)
    this.#flows.set(id, flow)
    flow.addEventListener('close', () => { this.#onFlowClosed(id) }, { once: true })
  }

  /**
   * Deliver what overtook the flow's control stream
   */
  deliverEarly (id: number): void {
    for (const data of this.#early.take(id)) {
      // the first may make the application close the flow
      this.#deliver(id, data)
    }
  }

  /**
   * There will be no flow for this control stream
   */
  refuse (id: number): void {
    this.#onFlowClosed(id)
  }

  onDatagram (payload: Uint8Array): void {
    const length = prefixLength(payload)

    if (length === 0) {
      this.#violation(`A datagram of ${payload.byteLength} bytes is too short for the id of its control stream`)
      return
    }

    this.#deliver(decode(payload, length), payload.subarray(length))
  }

  onDatagramDrain (): void {
    for (const flow of this.#flows.values()) {
      flow.drain()
    }
  }

  onClose (): void {
    this.#early.clear()
    this.#onClose()
  }

  /**
   * Close all flows, without waiting for the remote to know
   */
  close (): void {
    for (const flow of [...this.#flows.values()]) {
      flow.close().catch((err) => { flow.abort(err) })
    }

    this.#early.clear()
  }

  #deliver (id: number, data: Uint8Array): void {
    const flow = this.#flows.get(id)

    if (flow != null) {
      flow.receive(data)
    } else if (this.#hasJustClosed(id)) {
      this.#dropped.closed++
    } else if (id === Infinity || !this.session.isWithinStreamLimit(id)) {
      this.#violation('A datagram names a control stream beyond the limit of streams')
    } else {
      this.#early.hold(id, data)
    }
  }

  #onFlowClosed (id: number): void {
    this.#dropped.noListener += this.#flows.get(id)?.dropped.noListener ?? 0
    this.#flows.delete(id)
    this.#closed.delete(id)
    this.#closed.set(id, this.#clock.now())
    this.#dropped.closed += this.#early.take(id).length

    if (this.#closed.size > this.#limits.maxClosedFlows) {
      const [oldest] = this.#closed.keys()
      this.#closed.delete(oldest)
    }
  }

  /**
   * A scheme may use the id of a stream that is over for the next one, whose datagrams may overtake it
   */
  #hasJustClosed (id: number): boolean {
    const closedAt = this.#closed.get(id)

    return closedAt != null && this.#clock.now() - closedAt < this.#limits.earlyTimeout
  }

  #violation (message: string): void {
    this.#dropped.invalid++
    this.session.abort(new ProtocolError(message), PROTOCOL_VIOLATION)
  }
}
