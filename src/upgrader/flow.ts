import { looksLikeFrame } from '../wire/index.ts'
import { Hold } from './hold.ts'
import { countFrame, countUnanswered } from './metrics.ts'
import { SchemeSocket } from './scheme-socket.ts'
import type { UpgraderMetrics } from './metrics.ts'
import type { Cancel, Clock } from '../clock.ts'
import type { Agreement, DatagramVerdict, Negotiator } from '../negotiation/index.ts'
import type { PacketSocket } from '../sockets/index.ts'

export interface FlowInit {
  socket: PacketSocket
  negotiator: Negotiator
  clock: Clock
  metrics: UpgraderMetrics

  /**
   * How many datagrams of the scheme are held that come before it has the socket
   */
  maxEarlyDatagrams: number
  onAgreed (agreement: Agreement): void
  onFailed (err: Error): void
  onRenewed (proposal: Uint8Array): void

  /**
   * A frame leaves
   */
  onTransmit (frame: Uint8Array): void

  /**
   * The socket was closed
   */
  onClose (): void
}

/**
 * A negotiation on a packet socket: gives the negotiator its datagrams and its time, sends what it wants sent, and tells the
 * scheme's datagrams from PSEC's. Lives as long as the socket, since a late frame is answered even when the scheme has long
 * begun (design, "Loss, order, duplication").
 */
export class Flow {
  /**
   * The socket for the scheme: without PSEC's frames
   */
  readonly schemeSocket: SchemeSocket
  readonly #init: FlowInit
  readonly #hold: Hold
  #handedOver = false
  #secured = false
  #ended = false
  #timer?: { at: number, cancel: Cancel }

  constructor (init: FlowInit) {
    this.#init = init
    this.#hold = new Hold(init.maxEarlyDatagrams)
    this.schemeSocket = new SchemeSocket(init.socket)
    init.socket.addEventListener('message', this.#onMessage)
    init.socket.addEventListener('close', this.#onClose)
  }

  get status (): Negotiator['status'] {
    return this.#init.negotiator.status
  }

  /**
   * Send the proposal, with the initiation packet if there is one, and the rest of the first flight on its heels
   */
  propose (initiationPacket?: Uint8Array, rest: Uint8Array[] = []): void {
    const { negotiator, clock } = this.#init
    negotiator.propose(clock.now(), initiationPacket)
    this.#advance(rest)
  }

  /**
   * A datagram came from the remote
   */
  receive (datagram: Uint8Array): DatagramVerdict {
    const { negotiator, clock, metrics } = this.#init

    // the way of nearly all datagrams, if the scheme exchanges them through JavaScript
    if (this.#secured && !looksLikeFrame(datagram)) {
      this.schemeSocket.deliver(datagram)
      return 'scheme'
    }

    const verdict = negotiator.handleDatagram(datagram, clock.now())

    if (verdict === 'frame') {
      countFrame(metrics, datagram, 'received')
    } else if (verdict === 'scheme') {
      this.#deliver(datagram)
    } else {
      metrics.dropped?.increment({ [verdict]: true })
    }

    const sent = this.#advance()

    if (verdict === 'frame' && sent === 0) {
      countUnanswered(metrics, datagram)
    }

    return verdict
  }

  /**
   * The scheme takes over. Returns its datagrams that came before; the others are messages of `schemeSocket` from now on.
   */
  handOver (): Uint8Array[] {
    this.#handedOver = true

    return this.#hold.take()
  }

  /**
   * The scheme's handshake ended well
   */
  secured (): void {
    if (this.#ended) {
      return
    }

    this.#secured = true
    this.#init.negotiator.handleSecured(this.#init.clock.now())
    this.#advance()
  }

  /**
   * Let go of the socket: no listener and no timer is left. Idempotent.
   */
  end (): void {
    if (this.#ended) {
      return
    }

    this.#ended = true
    this.#timer?.cancel()
    this.#timer = undefined
    this.#hold.take()
    this.#init.socket.removeEventListener('message', this.#onMessage)
    this.#init.socket.removeEventListener('close', this.#onClose)
  }

  #deliver (datagram: Uint8Array): void {
    if (this.#handedOver) {
      this.schemeSocket.deliver(datagram)
    } else if (!this.#hold.add(datagram)) {
      this.#init.metrics.dropped?.increment({ hold_full: true })
    }
  }

  /**
   * Carry out what the negotiator wants after an input. Frames before events: an accept has to leave before the scheme's answer.
   * Returns how many left.
   *
   * @param followUp - datagrams of the scheme on their heels
   */
  #advance (followUp: Uint8Array[] = []): number {
    const { negotiator, metrics } = this.#init
    const frames: Uint8Array[] = []

    for (let frame = negotiator.pollTransmit(); frame != null; frame = negotiator.pollTransmit()) {
      frames.push(frame)
    }

    this.schemeSocket.sendTogether([...frames, ...followUp])

    for (const frame of frames) {
      countFrame(metrics, frame, 'sent')
      this.#init.onTransmit(frame)
    }

    for (let event = negotiator.pollEvent(); event != null; event = negotiator.pollEvent()) {
      if (event.type === 'agreed') {
        this.#init.onAgreed(event.agreement)
      } else if (event.type === 'failed') {
        this.#init.onFailed(event.error)
      } else {
        this.#init.onRenewed(event.proposal)
      }
    }

    this.#arm()

    return frames.length
  }

  #arm (): void {
    const { negotiator, clock } = this.#init
    const at = this.#ended ? undefined : negotiator.pollTimeout()

    if (this.#timer?.at === at) {
      return
    }

    this.#timer?.cancel()
    this.#timer = at == null
      ? undefined
      : { at, cancel: clock.schedule(() => { this.#onTimeout() }, Math.max(0, at - clock.now())) }
  }

  #onTimeout (): void {
    this.#timer = undefined
    this.#init.negotiator.handleTimeout(this.#init.clock.now())
    this.#advance()
  }

  readonly #onMessage = (event: CustomEvent<Uint8Array>): void => {
    this.receive(event.detail)
  }

  readonly #onClose = (): void => {
    this.end()
    this.#init.onClose()
    this.schemeSocket.onClose()
  }
}
