/**
 * A port of the native engine: turns its batches of events into calls.
 */
import { EngineFailedError } from '../errors.ts'
import { loadEngine } from './load.ts'
import type { NativeBatch, NativeLimits, NativeNotice, NativePort, NativeStats } from './native.ts'

/**
 * Numbers in a record: kind, session, a, b, c. The kinds are those of `engine/src/events.rs`.
 */
const RECORD = 5
const STREAM_OPENED = 1
const STREAM_READY = 2
const STREAM_DATA = 3
const STREAM_FINISHED = 4
const STREAM_RESET = 5
const STREAM_STOPPED = 6
const STREAM_WRITTEN = 7
const DATAGRAM = 8
const DATAGRAMS_SENT = 9
const PATH = 10
const NOTICE = 11
const DATAGRAMS_DROPPED = 12
const STREAM_LIMIT = 13

/**
 * How many batches are dealt with before other work gets its turn
 */
const BATCHES_PER_TURN = 8

/**
 * What a session hears from the engine
 */
export interface SessionEvents {
  onStreamOpened (stream: number): void
  onStreamReady (stream: number, token: number): void
  onStreamData (stream: number, chunk: Uint8Array): void
  onStreamFinished (stream: number): void
  onStreamReset (stream: number): void
  onStreamStopped (stream: number): void
  onStreamWritten (stream: number, bytes: number): void
  onDatagram (payload: Uint8Array): void
  onDatagramsSent (bytes: number, dropped: number): void
  onDatagramsDropped (count: number): void
  onStreamLimit (firstBeyond: number): void
  onPath (maxDatagramSize: number, rttMicros: number): void
  onNotice (notice: NativeNotice): void
}

/**
 * A stranger's proposal that the engine has answered
 */
export interface Welcomed {
  /**
   * The number under which it has begun the session
   */
  guest: number
  answer: Uint8Array
}

/**
 * What a port's owner hears from the engine
 */
export interface PortEvents {
  /**
   * A datagram outside the schemes; and what the engine has made of it, if it is the proposal of somebody who is welcome
   */
  onRaw? (host: string, port: number, localHost: string | undefined, datagram: Uint8Array, welcomed: Welcomed | undefined): void

  /**
   * A stranger behind the shield has proved its address: what it proposed and was answered, and its first datagram of the scheme
   */
  onValidated? (host: string, port: number, localHost: string | undefined, proposal: Uint8Array, answer: Uint8Array, datagram: Uint8Array): void

  /**
   * A datagram to be sent, of a detached port
   */
  onTransmit? (host: string, port: number, datagram: Uint8Array): void

  /**
   * The port is gone: sessions and sockets on it are dead
   */
  onClosed? (err?: Error): void
}

export class EnginePort {
  readonly #native: NativePort
  readonly #events: PortEvents
  readonly #sessions = new Map<number, SessionEvents>()
  readonly #closed = Promise.withResolvers<void>()
  #lastSession = 0
  #flushScheduled = false
  #flushingSoon = false

  /**
   * Open a UDP port. Throws the system's error, its code first in the message.
   */
  static bind (host: string, port: number, anyStranger: boolean, limits: NativeLimits, events: PortEvents): EnginePort {
    return new EnginePort(events, wake => loadEngine().NativePort.bind(host, port, anyStranger, limits, wake))
  }

  /**
   * Open a port whose datagrams JavaScript carries
   */
  static detached (events: PortEvents): EnginePort {
    return new EnginePort(events, wake => loadEngine().NativePort.detached(wake))
  }

  private constructor (events: PortEvents, open: (wake: () => void) => NativePort) {
    this.#events = events
    this.#native = open(() => { this.#drain() })
  }

  /**
   * Ask something of the engine. What is asked for in one turn of the event loop reaches it together, at the turn's end: waking
   * its thread takes longer than most of what it is asked for.
   */
  get commands (): NativePort {
    if (!this.#flushScheduled) {
      this.#flushScheduled = true
      setImmediate(() => {
        this.#flushScheduled = false
        this.#native.flush()
      })
    }

    return this.#native
  }

  /**
   * The same for what the engine need only know before the next thing happens: it is not woken
   */
  get quietCommands (): NativePort {
    return this.#native
  }

  /**
   * The same for what somebody else waits for: it reaches the engine as soon as the JavaScript that runs now has said all
   */
  get urgentCommands (): NativePort {
    this.#flushSoon()

    return this.#native
  }

  /**
   * Send datagrams outside the schemes, before this returns unless the system has no room for them now. Several take little longer
   * than one. Throws what the system says if it knows no way to the remote.
   */
  sendRaw (host: string, port: number, localHost: string | undefined, datagrams: Uint8Array[]): void {
    if (this.#native.sendRaw(host, port, localHost, datagrams)) {
      this.#flushSoon()
    }
  }

  /**
   * Of a port whose datagrams JavaScript carries: have the engine do at once what it was asked for, and send what it has to say
   */
  settle (): void {
    for (const { host, port, data } of this.#native.settle()) {
      this.#events.onTransmit?.(host, port, data)
    }
  }

  #flushSoon (): void {
    if (this.#flushingSoon) {
      return
    }

    this.#flushingSoon = true
    queueMicrotask(() => {
      this.#flushingSoon = false
      this.#native.flush()
    })
  }

  /**
   * The port's own address
   */
  get localAddress (): { host: string, port: number } {
    return this.#native.localAddress()
  }

  get stats (): NativeStats {
    return this.#native.stats()
  }

  /**
   * Number a new session and connect it to its events
   */
  addSession (events: SessionEvents): number {
    this.#lastSession++
    this.#sessions.set(this.#lastSession, events)

    return this.#lastSession
  }

  removeSession (session: number): void {
    this.#sessions.delete(session)
  }

  /**
   * Resolves when the port is free again
   */
  async close (): Promise<void> {
    this.commands.shutdown()

    return this.#closed.promise
  }

  #drain (): void {
    for (let i = 0; i < BATCHES_PER_TURN; i++) {
      const batch = this.#native.drain()

      if (batch == null) {
        return
      }

      this.#dispatch(batch)

      // a session is over: whoever had it closes its socket before anything else that came of the same remote is passed on
      if (batch.notices.at(-1)?.type === 'closed') {
        break
      }
    }

    setImmediate(() => { this.#drain() })
  }

  #dispatch (batch: NativeBatch): void {
    for (let i = 0; i < batch.records.length; i += RECORD) {
      try {
        this.#onRecord(batch, i)
      } catch (err) {
        // what a handler throws must not take from the others what is theirs
        queueMicrotask(() => { throw err })
      }
    }
  }

  #onRecord ({ records, data, notices }: NativeBatch, i: number): void {
    const kind = records[i]
    const a = records[i + 2]
    const b = records[i + 3]

    if (kind === NOTICE) {
      this.#onNotice(records[i + 1], notices[a])
      return
    }

    const session = this.#sessions.get(records[i + 1])

    if (session == null) {
      return
    }

    switch (kind) {
      case STREAM_DATA:
        session.onStreamData(a, data.subarray(b, b + records[i + 4]))
        break
      case DATAGRAM:
        session.onDatagram(data.subarray(a, a + b))
        break
      case STREAM_WRITTEN:
        session.onStreamWritten(a, b)
        break
      case DATAGRAMS_SENT:
        session.onDatagramsSent(a, b)
        break
      case STREAM_OPENED:
        session.onStreamOpened(a)
        break
      case STREAM_READY:
        session.onStreamReady(a, b)
        break
      case STREAM_FINISHED:
        session.onStreamFinished(a)
        break
      case STREAM_RESET:
        session.onStreamReset(a)
        break
      case STREAM_STOPPED:
        session.onStreamStopped(a)
        break
      case DATAGRAMS_DROPPED:
        session.onDatagramsDropped(a)
        break
      case STREAM_LIMIT:
        session.onStreamLimit(a)
        break
      case PATH:
        session.onPath(a, b)
        break
      default:
        throw new EngineFailedError(`The native engine sent an event of the unknown kind ${kind}: it was built from other sources than this package, run "npm run build:engine"`)
    }
  }

  #onNotice (session: number, notice: NativeNotice): void {
    switch (notice.type) {
      case 'raw':
        this.#events.onRaw?.(notice.host, notice.port, notice.localHost ?? undefined, notice.data, toWelcomed(notice))
        break
      case 'validated':
        this.#events.onValidated?.(notice.host, notice.port, notice.localHost ?? undefined, notice.proposal, notice.answer, notice.data)
        break
      case 'transmit':
        this.#events.onTransmit?.(notice.host, notice.port, notice.data)
        break
      case 'endpointClosed':
        this.#onClosed(notice.error)
        break
      default:
        this.#sessions.get(session)?.onNotice(notice)
    }
  }

  #onClosed (message?: string | null): void {
    for (const session of [...this.#sessions.values()]) {
      session.onNotice({ type: 'closed', cause: message == null ? 'local' : 'engine-failed', message: message ?? '' })
    }

    this.#sessions.clear()
    this.#closed.resolve()
    this.#events.onClosed?.(message == null ? undefined : new EngineFailedError(`The native engine stopped: ${message}`))
  }
}

function toWelcomed ({ guest, answer }: { guest?: number, answer?: Uint8Array }): Welcomed | undefined {
  return guest == null || answer == null ? undefined : { guest, answer }
}
