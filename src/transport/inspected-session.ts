import { Preface } from '../confirm/index.ts'
import { HeldArrivals } from '../schemes/held-arrivals.ts'
import { PeekedStream } from './peeked-stream.ts'
import type { HeldArrivalsInit } from '../schemes/held-arrivals.ts'
import type { ChannelBinding, SecureSession, SecureSessionHandler, SecureStream } from '../schemes/index.ts'
import type { AbortOptions, PeerId } from '@libp2p/interface'

export interface InspectedSessionInit {
  session: SecureSession

  /**
   * Bounds on what is held for whoever gets the session; that of streams is one on those whose beginning is looked at, too
   */
  held: HeldArrivalsInit

  /**
   * The remote's confirm stream, not started. Called once at most. Without `headerAnswered` it expects multistream-select's header.
   */
  onConfirmStream (stream: SecureStream, headerAnswered: boolean): void

  /**
   * The session is over
   */
  onClose (err?: Error): void
}

/**
 * A responder's session, in which the confirm stream is found before anybody else sees it. It is the first that the initiator
 * opens, but not every scheme tells of streams in that order: until it has been found, or `endInspection`, the beginning of every
 * stream is looked at. All else passes through, and is held until `start`.
 */
export class InspectedSession implements SecureSession {
  readonly #init: InspectedSessionInit
  readonly #session: SecureSession
  readonly #undecided = new Set<PeekedStream>()
  readonly #held: HeldArrivals
  #inspecting = true
  #handler?: SecureSessionHandler
  #end?: { err?: Error }

  constructor (init: InspectedSessionInit) {
    this.#init = init
    this.#session = init.session
    this.#held = new HeldArrivals(init.held)
  }

  /**
   * Begin to look at streams
   */
  inspect (): void {
    this.#session.start({
      onStream: (stream) => { this.#onStream(stream) },
      onDatagram: (payload) => { this.#held.onDatagram(payload) },
      onDatagramDrain: () => { this.#handler?.onDatagramDrain() },
      onClose: (err) => {
        this.#end = { err }
        this.#init.onClose(err)
        this.#handler?.onClose(err)
      }
    })
  }

  /**
   * There is no confirm stream to be found any more
   */
  endInspection (): void {
    this.#inspecting = false

    for (const stream of this.#undecided) {
      stream.decide()
    }
  }

  get protocol (): string {
    return this.#session.protocol
  }

  get remotePeer (): PeerId {
    return this.#session.remotePeer
  }

  get status (): 'open' | 'closing' | 'closed' {
    return this.#session.status
  }

  get maxDatagramSize (): number {
    return this.#session.maxDatagramSize
  }

  get rtt (): number | undefined {
    return this.#session.rtt
  }

  get binding (): ChannelBinding | undefined {
    return this.#session.binding
  }

  get droppedDatagrams (): Readonly<Record<string, number>> {
    const dropped = this.#session.droppedDatagrams
    const droppedHere = this.#held.droppedDatagrams

    return droppedHere === 0 ? dropped : { ...dropped, receiveQueueFull: (dropped.receiveQueueFull ?? 0) + droppedHere }
  }

  get refusedStreams (): number {
    return (this.#session.refusedStreams ?? 0) + this.#held.refusedStreams
  }

  start (handler: SecureSessionHandler): void {
    this.#handler = handler
    this.#held.start(handler)

    if (this.#end != null) {
      handler.onClose(this.#end.err)
    }
  }

  async openStream (options?: AbortOptions): Promise<SecureStream> {
    return this.#session.openStream(options)
  }

  sendDatagram (payload: Uint8Array): boolean {
    return this.#session.sendDatagram(payload)
  }

  isWithinStreamLimit (id: number): boolean {
    return this.#session.isWithinStreamLimit?.(id) ?? true
  }

  async close (options?: AbortOptions): Promise<void> {
    return this.#session.close(options)
  }

  abort (err: Error, code?: number): void {
    this.#session.abort(err, code)
  }

  #onStream (stream: SecureStream): void {
    if (!this.#inspecting) {
      this.#held.onStream(stream)
      return
    }

    if (this.#undecided.size >= this.#init.held.maxStreams) {
      this.#held.refuse(stream)
      return
    }

    const preface = new Preface()
    const peeked = new PeekedStream(stream, preface, (peeked) => {
      this.#undecided.delete(peeked)
      this.#onDecided(peeked, preface)
    })

    this.#undecided.add(peeked)
    peeked.peek()
  }

  #onDecided (stream: PeekedStream, preface: Preface): void {
    if (preface.verdict === 'confirm') {
      this.#init.onConfirmStream(stream, preface.headerAnswered)
      this.endInspection()
    } else {
      this.#held.onStream(stream)
    }
  }
}
