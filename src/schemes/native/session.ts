import { peerIdFromMultihash } from '@libp2p/peer-id'
import * as Digest from 'multiformats/hashes/digest'
import { raceSignal } from 'race-signal'
import { DatagramTooLargeError, HandshakeFailedError, SessionClosedError, SessionFailedError } from '../../errors.ts'
import { formatPacketAddress } from '../../sockets/index.ts'
import { HeldArrivals } from '../held-arrivals.ts'
import { NativeStream } from './stream.ts'
import type { SessionQueues } from './settings.ts'
import type { NativeFlow } from '../../engine/flow.ts'
import type { CloseCause, NativeNotice, NativeIdentity } from '../../engine/native.ts'
import type { EnginePort, SessionEvents } from '../../engine/port.ts'
import type { SessionFailure } from '../../errors.ts'
import type { ChannelBinding, ProceedOptions, RespondOptions, SecureSession, SecureSessionHandler, SecureStream } from '../index.ts'
import type { AbortOptions, Logger, PeerId } from '@libp2p/interface'

/**
 * What is sent although the queue is full is dropped above so many times its size
 */
const OVERFULL = 4

/**
 * The application error code of an abort without one of its own: 0 would read as an orderly close
 */
const ABORTED = 1

const CLOSE_MESSAGES: Record<CloseCause, string> = {
  local: 'it was closed on this side',
  remote: 'the remote closed it',
  'remote-error': 'the remote ended it with an error',
  'timed-out': 'nothing was heard of the remote for too long',
  reset: 'the remote does not know it any more, it may have restarted',
  failed: 'a rule of the protocol was broken',
  'engine-failed': 'the native engine stopped'
}

const FAILURES: Record<CloseCause, SessionFailure> = {
  local: 'local',
  remote: 'failed',
  'remote-error': 'remoteError',
  'timed-out': 'timedOut',
  reset: 'reset',
  failed: 'failed',
  'engine-failed': 'failed'
}

export interface NativeSessionInit {
  protocol: string
  flow: NativeFlow
  queues: Required<SessionQueues>
  log: Logger
}

/**
 * A session that runs in the engine, whichever scheme it is of
 */
export class NativeSession implements SecureSession, SessionEvents {
  readonly protocol: string
  readonly #log: Logger
  readonly #flow: NativeFlow
  readonly #port: EnginePort
  readonly #id: number
  readonly #remote: string
  readonly #secured = Promise.withResolvers<PeerId>()
  readonly #closed = Promise.withResolvers<void>()
  readonly #streams = new Map<number, NativeStream>()
  readonly #opening = new Map<number, PromiseWithResolvers<NativeStream>>()
  readonly #queues: Required<SessionQueues>
  readonly #held: HeldArrivals
  readonly #dropped = { sendQueueFull: 0, receiveQueueFull: 0, pathShrunk: 0 }
  #onSocketClose?: () => void
  #handler?: SecureSessionHandler
  #remotePeer?: PeerId
  #binding?: ChannelBinding
  #status: 'open' | 'closing' | 'closed' = 'open'
  #error?: Error
  #lastToken = 0
  #maxDatagramSize = 0
  #firstStreamBeyondLimit?: number
  #rtt = 0
  #unsentDatagrams = 0
  #datagramsBlocked = false

  constructor ({ protocol, flow, queues, log }: NativeSessionInit) {
    this.protocol = protocol
    this.#queues = queues
    this.#held = new HeldArrivals({ maxStreams: queues.maxHeldStreams, maxDatagrams: queues.maxHeldDatagrams })
    this.#flow = flow
    this.#log = log
    this.#port = flow.port
    this.#id = flow.port.addSession(this)
    this.#remote = formatPacketAddress(flow.peer())

    // Nobody waits for it before the agreement.
    this.#secured.promise.catch(() => {})
  }

  get remotePeer (): PeerId {
    if (this.#remotePeer == null) {
      throw new SessionClosedError('The handshake is not done: nobody is known to be there')
    }

    return this.#remotePeer
  }

  get binding (): ChannelBinding | undefined {
    return this.#binding
  }

  get status (): 'open' | 'closing' | 'closed' {
    return this.#status
  }

  get maxDatagramSize (): number {
    return this.#maxDatagramSize
  }

  get rtt (): number {
    return this.#rtt
  }

  get droppedDatagrams (): Readonly<Record<string, number>> {
    return { ...this.#dropped, receiveQueueFull: this.#dropped.receiveQueueFull + this.#held.droppedDatagrams }
  }

  get refusedStreams (): number {
    return this.#held.refusedStreams
  }

  /**
   * Become the initiator, as far as that goes without sending. Returns the first flight.
   */
  initiate (identity: NativeIdentity, maxInitiationPacketSize: number): Uint8Array[] {
    try {
      return this.#port.quietCommands.initiate(this.#id, identity, this.#flow.peer(), Math.max(0, maxInitiationPacketSize))
    } catch (err: any) {
      this.#status = 'closed'
      this.#letGo()
      throw new HandshakeFailedError(`The ${this.protocol} handshake with ${this.#remote} could not be begun: ${err.message}`, { cause: err })
    }
  }

  async proceed (options: ProceedOptions): Promise<SecureSession> {
    this.#handOver()
    this.#port.urgentCommands.proceed(this.#id, options.sent === true, options.sendFirstFlight, options.earlyDatagrams)

    return this.#handshake(options)
  }

  async respond (identity: NativeIdentity, options: RespondOptions): Promise<SecureSession> {
    this.#handOver()
    this.#port.urgentCommands.respond(this.#id, identity, this.#flow.peer(), options.earlyDatagrams, options.claimedId, options.validateAddress === true)

    return this.#handshake(options)
  }

  /**
   * Give up before the agreement; the socket stays as it is
   *
   * @param sent - whether the remote may have the first flight, and is told
   */
  cancel (sent: boolean): void {
    if (this.#status === 'closed') {
      return
    }

    this.#status = 'closed'
    this.#port.commands.cancel(this.#id, sent)
    this.#flow.settle?.()
    this.#closed.resolve()
  }

  start (handler: SecureSessionHandler): void {
    this.#handler = handler
    this.#held.start(handler)

    if (this.#status === 'closed') {
      handler.onClose(this.#error)
    }
  }

  async openStream (options: AbortOptions = {}): Promise<SecureStream> {
    options.signal?.throwIfAborted()
    this.#assertOpen()

    const token = this.#lastToken = (this.#lastToken + 1) % 0x100000000
    const opening = Promise.withResolvers<NativeStream>()
    this.#opening.set(token, opening)
    this.#port.commands.openStream(this.#id, token)

    try {
      return await raceSignal(opening.promise, options.signal)
    } catch (err) {
      if (this.#opening.delete(token)) {
        this.#port.commands.cancelOpen(this.#id, token)
      } else {
        // It was opened at the very moment that nobody wanted it any more.
        opening.promise.then(stream => { stream.reset() }, () => {})
      }

      throw err
    }
  }

  sendDatagram (payload: Uint8Array): boolean {
    this.#assertOpen()

    if (payload.byteLength > this.#maxDatagramSize) {
      throw new DatagramTooLargeError(`A datagram of ${payload.byteLength} bytes does not fit the path, which carries ${this.#maxDatagramSize} now: send less at a time, or use a stream`)
    }

    if (this.#unsentDatagrams >= OVERFULL * this.#queues.datagramSendQueue) {
      this.#dropped.sendQueueFull++
      this.#datagramsBlocked = true

      return false
    }

    this.#unsentDatagrams += payload.byteLength
    this.#port.commands.sendDatagram(this.#id, payload)
    this.#datagramsBlocked = this.#unsentDatagrams >= this.#queues.datagramSendQueue

    return !this.#datagramsBlocked
  }

  isWithinStreamLimit (id: number): boolean {
    const beyond = this.#firstStreamBeyondLimit

    // either scheme's initiator has the even ids, its responder the odd ones
    return beyond == null || id < beyond || id % 2 !== beyond % 2
  }

  async close (options: AbortOptions = {}): Promise<void> {
    if (this.#status === 'open') {
      this.#status = 'closing'
      this.#port.commands.closeSession(this.#id, 0, true)
    }

    try {
      await raceSignal(this.#closed.promise, options.signal)
    } catch (err: any) {
      this.abort(err)
      throw err
    }
  }

  abort (err: Error, code: number = ABORTED): void {
    if (this.#status === 'closed') {
      return
    }

    this.#port.commands.closeSession(this.#id, code, false)

    // the socket is closed right afterwards, by who waits for the session
    if (this.#remotePeer == null) {
      this.#flow.settle?.()
    }

    this.#onClosed(err)
  }

  onNotice (notice: NativeNotice): void {
    switch (notice.type) {
      case 'secured':
        this.#binding = { local: notice.localKey, remote: notice.remoteKey }
        this.#onSecured(notice.peerId)
        break
      case 'openFailed':
        this.#opening.get(notice.token)?.reject(this.#closedError())
        this.#opening.delete(notice.token)
        break
      case 'closed':
        this.#onClosed(this.#toError(notice.cause, notice.message))
        this.#letGo()
        break
      default:
    }
  }

  onStreamOpened (id: number): void {
    if (this.#status === 'closed') {
      return
    }

    this.#held.onStream(this.#addStream(id, 'inbound'))
  }

  onStreamReady (id: number, token: number): void {
    const opening = this.#opening.get(token)

    if (opening == null) {
      this.#port.commands.reset(this.#id, id)
      return
    }

    this.#opening.delete(token)
    opening.resolve(this.#addStream(id, 'outbound'))
  }

  onStreamData (id: number, chunk: Uint8Array): void {
    this.#streams.get(id)?.onData(chunk)
  }

  onStreamFinished (id: number): void {
    this.#streams.get(id)?.onFinished()
  }

  onStreamReset (id: number): void {
    this.#streams.get(id)?.onRemoteReset()
  }

  onStreamStopped (id: number): void {
    this.#streams.get(id)?.onStopped()
  }

  onStreamWritten (id: number, bytes: number): void {
    this.#streams.get(id)?.onWritten(bytes)
  }

  onDatagram (payload: Uint8Array): void {
    if (this.#status !== 'closed') {
      this.#held.onDatagram(payload)
    }
  }

  onDatagramsSent (bytes: number, dropped: number): void {
    this.#unsentDatagrams -= bytes
    this.#dropped.pathShrunk += dropped

    if (this.#datagramsBlocked && this.#unsentDatagrams <= this.#queues.datagramSendQueue / 2) {
      this.#datagramsBlocked = false
      this.#handler?.onDatagramDrain()
    }
  }

  onDatagramsDropped (count: number): void {
    this.#dropped.receiveQueueFull += count
  }

  onStreamLimit (firstBeyond: number): void {
    this.#firstStreamBeyondLimit = firstBeyond
  }

  onPath (maxDatagramSize: number, rttMicros: number): void {
    this.#maxDatagramSize = maxDatagramSize
    this.#rtt = rttMicros / 1000
  }

  #handOver (): void {
    this.#onSocketClose = () => {
      // the socket of a session that is over closes, too
      if (this.#status !== 'closed') {
        this.abort(new SessionFailedError(`The local socket of the session with ${this.#remote} was closed`, 'local'))
      }
    }
    this.#flow.handOver(this.#onSocketClose)
  }

  async #handshake ({ signal }: AbortOptions): Promise<SecureSession> {
    const onAbort = (): void => { this.abort(signal?.reason) }
    signal?.addEventListener('abort', onAbort)

    try {
      const remotePeer = await this.#secured.promise

      // it ended in the turn in which it was secured: nobody has it, and the socket is still the handshake's
      if (this.#status === 'closed') {
        throw this.#error ?? this.#closedError()
      }

      this.#remotePeer = remotePeer
    } catch (err: any) {
      this.abort(err)
      throw err
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }

    return this
  }

  #onSecured (peerId: Uint8Array): void {
    try {
      this.#secured.resolve(peerIdFromMultihash(Digest.decode(peerId) as any))
    } catch (err: any) {
      this.#secured.reject(new HandshakeFailedError(`The remote at ${this.#remote} has a peer id that can't be read: ${err.message}`))
    }
  }

  #addStream (id: number, direction: 'inbound' | 'outbound'): NativeStream {
    const stream = new NativeStream({
      port: this.#port,
      session: this.#id,
      id,
      direction,
      queues: this.#queues,
      onOver: () => { this.#streams.delete(id) }
    })
    this.#streams.set(id, stream)

    return stream
  }

  #assertOpen (): void {
    if (this.#status !== 'open') {
      throw this.#closedError()
    }
  }

  #closedError (): Error {
    return new SessionClosedError(`The session with ${this.#remote} is ${this.#status === 'open' ? 'ending' : this.#status}${this.#error == null ? '' : `: ${this.#error.message}`}`)
  }

  #toError (cause: CloseCause, message: string): Error | undefined {
    const text = `${CLOSE_MESSAGES[cause]}${message === '' ? '' : ` (${message})`}`

    if (this.#remotePeer == null) {
      return new HandshakeFailedError(`The ${this.protocol} handshake with ${this.#remote} failed: ${text}`)
    }

    return cause === 'remote' || (cause === 'local' && this.#status !== 'open') ? undefined : new SessionFailedError(`The session with ${this.#remote} failed: ${text}`, FAILURES[cause])
  }

  /**
   * The engine is done with the session: its goodbye is on the way
   */
  #letGo (): void {
    this.#port.removeSession(this.#id)

    // Before it is secured, the socket belongs to whoever waits for that, and hears why it failed.
    if (this.#remotePeer == null) {
      this.#flow.release(this.#onSocketClose)
    } else {
      this.#flow.close()
    }
  }

  #onClosed (err?: Error): void {
    if (this.#status === 'closed') {
      return
    }

    this.#log('session with %s is over%s', this.#remote, err == null ? '' : ` - ${err.message}`)
    this.#status = 'closed'
    this.#error = err

    if (this.#remotePeer == null) {
      this.#secured.reject(err ?? this.#closedError())
    }

    for (const opening of this.#opening.values()) {
      opening.reject(this.#closedError())
    }

    this.#opening.clear()

    for (const stream of [...this.#streams.values()]) {
      stream.onReset(err)
    }

    this.#closed.resolve()
    this.#handler?.onClose(err)
  }
}
