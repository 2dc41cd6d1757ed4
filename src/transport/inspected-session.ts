import { Preface } from '../confirm/index.ts'
import { PeekedStream } from './peeked-stream.ts'
import type { ChannelBinding, SecureSession, SecureSessionHandler, SecureStream } from '../schemes/index.ts'
import type { AbortOptions, PeerId } from '@libp2p/interface'

/**
 * How many streams and datagrams are held for whoever gets the session after its confirmation; more are reset or dropped. A
 * scheme's own bounds on what comes before `start` are of this kind.
 */
const MAX_HELD_STREAMS = 256
const MAX_HELD_DATAGRAMS = 64

export interface InspectedSessionInit {
  session: SecureSession

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
  #inspecting = true
  #handler?: SecureSessionHandler
  #heldStreams: SecureStream[] = []
  #heldDatagrams: Uint8Array[] = []
  #droppedHere = 0
  #end?: { err?: Error }

  constructor (init: InspectedSessionInit) {
    this.#init = init
    this.#session = init.session
  }

  /**
   * Begin to look at streams
   */
  inspect (): void {
    this.#session.start({
      onStream: (stream) => { this.#onStream(stream) },
      onDatagram: (payload) => { this.#onDatagram(payload) },
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

    return this.#droppedHere === 0 ? dropped : { ...dropped, receiveQueueFull: (dropped.receiveQueueFull ?? 0) + this.#droppedHere }
  }

  start (handler: SecureSessionHandler): void {
    this.#handler = handler

    for (const stream of this.#heldStreams.splice(0)) {
      handler.onStream(stream)
    }

    for (const payload of this.#heldDatagrams.splice(0)) {
      handler.onDatagram(payload)
    }

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

  async close (options?: AbortOptions): Promise<void> {
    return this.#session.close(options)
  }

  abort (err: Error, code?: number): void {
    this.#session.abort(err, code)
  }

  #onStream (stream: SecureStream): void {
    if (!this.#inspecting) {
      this.#handOn(stream)
      return
    }

    if (this.#undecided.size >= MAX_HELD_STREAMS) {
      stream.reset()
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
      this.#handOn(stream)
    }
  }

  #handOn (stream: SecureStream): void {
    if (this.#handler != null) {
      this.#handler.onStream(stream)
    } else if (this.#heldStreams.length < MAX_HELD_STREAMS) {
      this.#heldStreams.push(stream)
    } else {
      stream.reset()
    }
  }

  #onDatagram (payload: Uint8Array): void {
    if (this.#handler != null) {
      this.#handler.onDatagram(payload)
    } else if (this.#heldDatagrams.length < MAX_HELD_DATAGRAMS) {
      // a view may keep a large buffer alive
      this.#heldDatagrams.push(payload.slice())
    } else {
      this.#droppedHere++
    }
  }
}
