import { StreamCloseEvent, StreamStateError } from '@libp2p/interface'
import { TypedEventEmitter } from 'main-event'
import { allocUnsafe } from 'uint8arrays/alloc'
import { DatagramTooLargeError } from '../errors.ts'
import { DatagramEvent } from './datagram-event.ts'
import { encode } from './quic-varint.ts'
import type { DatagramFlow, DatagramFlowEvents, DroppedDatagrams } from './index.ts'
import type { DatagramSession } from '../sessions.ts'
import type { AbortOptions, Connection, EventHandler, PeerId, Stream } from '@libp2p/interface'
import type { Uint8ArrayList } from 'uint8arraylist'

export interface ControlledFlowInit {
  protocol: string
  connection: Connection
  session: DatagramSession

  /**
   * The control stream, on which the application protocol has been told, or is told before anything else happens
   */
  stream: Stream
  streamId: number

  /**
   * How long the remote may leave its side of the control stream open after we have closed ours, in milliseconds
   */
  closeTimeout: number

  /**
   * It has left it open for longer
   */
  onCloseTimeout? (): void
}

/**
 * A flow of datagrams and the control stream that it lives by
 */
export class ControlledFlow extends TypedEventEmitter<DatagramFlowEvents> implements DatagramFlow {
  readonly protocol: string
  readonly connection: Connection
  readonly direction: 'inbound' | 'outbound'
  readonly dropped: DroppedDatagrams = { sendQueueFull: 0, noListener: 0 }
  readonly #session: DatagramSession
  readonly #stream: Stream
  readonly #prefix: Uint8Array
  readonly #closeTimeout: number
  readonly #onCloseTimeout?: () => void
  #sent = 0
  #received = 0
  #status: 'open' | 'closed' = 'open'
  #blocked = false
  /** By the listener that was given, so that it can be removed */
  readonly #contained = new WeakMap<object, (evt: Event) => void>()

  constructor (init: ControlledFlowInit) {
    super()

    this.protocol = init.protocol
    this.connection = init.connection
    this.direction = init.stream.direction
    this.#session = init.session
    this.#stream = init.stream
    this.#prefix = encode(init.streamId)
    this.#closeTimeout = init.closeTimeout
    this.#onCloseTimeout = init.onCloseTimeout

    // the draft knows no other use for the control stream: what comes on it is nobody's
    this.#stream.addEventListener('message', ignore)
    this.#stream.addEventListener('remoteCloseWrite', () => { this.#onRemoteClose() })
    this.#stream.addEventListener('close', (evt) => { this.#onClose(evt.local, evt.error) })

    if (this.#stream.status !== 'open') {
      this.#onClose(false)
    }
  }

  get remotePeer (): PeerId {
    return this.connection.remotePeer
  }

  addEventListener<K extends keyof DatagramFlowEvents>(type: K, listener: EventHandler<DatagramFlowEvents[K]> | null, options?: boolean | AddEventListenerOptions): void
  addEventListener (type: any, listener: EventHandler<any> | null, options?: boolean | AddEventListenerOptions): void {
    super.addEventListener(type, this.#contain(listener), options)
  }

  removeEventListener<K extends keyof DatagramFlowEvents>(type: K, listener?: EventHandler<DatagramFlowEvents[K]> | null, options?: boolean | EventListenerOptions): void
  removeEventListener (type: any, listener?: EventHandler<any> | null, options?: boolean | EventListenerOptions): void {
    super.removeEventListener(type, this.#contain(listener ?? null), options)
  }

  get status (): 'open' | 'closed' {
    return this.#status
  }

  get maxDatagramSize (): number {
    return Math.max(0, this.#session.maxDatagramSize - this.#prefix.byteLength)
  }

  get sent (): number {
    return this.#sent
  }

  get received (): number {
    return this.#received
  }

  /**
   * The application has what had arrived before. The remote may have closed its side by then, of which nobody was told.
   */
  begin (): void {
    if (this.#stream.remoteWriteStatus === 'closed') {
      this.#onRemoteClose()
    }
  }

  send (data: Uint8Array | Uint8ArrayList): boolean {
    // a remote that told us to stop has closed our side: the draft lets us send no more. No event says so.
    if (this.#status === 'open' && this.#stream.remoteReadStatus === 'closed') {
      this.#onRemoteClose()
    }

    if (this.#status !== 'open') {
      throw new StreamStateError('This datagram flow is closed, open another one to send')
    }

    const droppedBefore = this.#session.droppedDatagrams.sendQueueFull
    const canSendMore = this.#session.sendDatagram(this.#encode(data))

    if (this.#session.droppedDatagrams.sendQueueFull === droppedBefore) {
      this.#sent++
    } else {
      this.dropped.sendQueueFull++
    }

    this.#blocked = !canSendMore

    return canSendMore
  }

  async close (options?: AbortOptions): Promise<void> {
    if (this.#status === 'closed') {
      return
    }

    // from now on the draft lets us send no more
    this.#onClose(true)

    try {
      await this.#stream.close(options)
    } finally {
      this.#awaitRemoteClose()
    }
  }

  abort (err: Error): void {
    this.#stream.abort(err)
  }

  /**
   * A datagram arrived for this flow
   */
  receive (data: Uint8Array): void {
    if (this.listenerCount('message') === 0) {
      this.dropped.noListener++
      return
    }

    this.#received++
    this.dispatchEvent(new DatagramEvent(data))
  }

  /**
   * The session takes datagrams again
   */
  drain (): void {
    if (this.#blocked && this.#status === 'open') {
      this.#blocked = false
      this.dispatchEvent(new Event('drain'))
    }
  }

  /**
   * An error that an event listener throws ends a Node.js process. Here the remote could see to that: it decides when a flow ends and,
   * with the size of datagrams that it takes, whether one fits that is sent back to it.
   */
  #contain (listener: EventHandler<any> | null): ((evt: Event) => void) | null {
    if (listener == null) {
      return null
    }

    let contained = this.#contained.get(listener)

    if (contained == null) {
      contained = (evt) => { this.#call(listener, evt) }
      this.#contained.set(listener, contained)
      // the base class removes by it what was to be called once
      this.#contained.set(contained, contained)
    }

    return contained
  }

  #call (listener: EventHandler<any>, evt: Event): void {
    const onError = (err: Error): void => {
      this.#stream.log.error('a listener of "%s" failed, the flow is aborted - %e', evt.type, err)
      this.abort(err)
    }

    try {
      const result: any = typeof listener === 'function' ? listener.call(this, evt) : listener.handleEvent(evt)

      if (typeof result?.then === 'function') {
        result.then(undefined, onError)
      }
    } catch (err: any) {
      onError(err)
    }
  }

  #encode (data: Uint8Array | Uint8ArrayList): Uint8Array {
    const { maxDatagramSize } = this

    if (data.byteLength > maxDatagramSize) {
      throw new DatagramTooLargeError(`A datagram of ${data.byteLength} bytes does not fit, this flow carries ${maxDatagramSize} now: send less at a time, or use a stream`)
    }

    const prefixed = allocUnsafe(this.#prefix.byteLength + data.byteLength)
    prefixed.set(this.#prefix)
    prefixed.set(data instanceof Uint8Array ? data : data.subarray(), this.#prefix.byteLength)

    return prefixed
  }

  /**
   * The remote closed its side, the flow is over: close ours, too
   */
  #onRemoteClose (): void {
    this.#onClose(false)
    this.#stream.close().catch((err) => { this.#stream.abort(err) })
  }

  #onClose (local?: boolean, error?: Error): void {
    if (this.#status === 'closed') {
      return
    }

    this.#status = 'closed'
    this.dispatchEvent(new StreamCloseEvent(local, error))
  }

  /**
   * A remote that does not close its side must not keep the stream for as long as the connection lives
   */
  #awaitRemoteClose (): void {
    if (this.#stream.status !== 'open') {
      return
    }

    const timeout = setTimeout(() => {
      this.#onCloseTimeout?.()
      this.#stream.abort(new StreamStateError('The remote did not close its side of the datagram flow'))
    }, this.#closeTimeout)
    timeout.unref()
    this.#stream.addEventListener('close', () => { clearTimeout(timeout) }, { once: true })
  }
}

function ignore (): void {}
