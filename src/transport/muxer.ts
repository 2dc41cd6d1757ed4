import { MuxerClosedError } from '@libp2p/interface'
import { AbstractStreamMuxer } from '@libp2p/utils'
import { countClosedSession } from './metrics.ts'
import { PsecStream } from './stream.ts'
import type { PsecMetrics } from './metrics.ts'
import type { StreamLimits } from './stream.ts'
import type { SecureSession, SecureStream } from '../schemes/index.ts'
import type { SessionRecord } from '../sessions.ts'
import type { CreateStreamOptions, MultiaddrConnection, StreamMuxer, StreamMuxerFactory, StreamOptions } from '@libp2p/interface'

/**
 * The muxer's protocol name within the node; nothing of it is on the wire
 */
export const MUXER_PROTOCOL = '/psec'

export interface PsecMuxerInit {
  session: SecureSession
  record: SessionRecord
  metrics?: Pick<PsecMetrics, 'streams' | 'refusedStreams' | 'unclaimedDatagrams' | 'closedSessions'>
  limits?: StreamLimits

  /**
   * The session is about to deliver
   */
  onStart (): void

  /**
   * The session is over: orderly if there is no error
   */
  onClose (err?: Error): void
}

/**
 * A factory for the one connection whose session it is given
 */
export class PsecMuxerFactory implements StreamMuxerFactory {
  readonly protocol = MUXER_PROTOCOL
  readonly #init: PsecMuxerInit

  constructor (init: PsecMuxerInit) {
    this.#init = init
  }

  createStreamMuxer (maConn: MultiaddrConnection): StreamMuxer {
    return new PsecMuxer(maConn, this.#init)
  }
}

/**
 * A secure session's streams as libp2p sees them. The session multiplexes; this keeps the list.
 */
export class PsecMuxer extends AbstractStreamMuxer<PsecStream> {
  readonly #session: SecureSession
  readonly #init: PsecMuxerInit

  constructor (maConn: MultiaddrConnection, init: PsecMuxerInit) {
    super(maConn, {
      protocol: MUXER_PROTOCOL,
      name: 'psec',
      metrics: init.metrics?.streams,
      // streams that come before libp2p listens for them are bounded by the scheme's own limit of open streams
      maxEarlyStreams: Infinity
    })

    this.#session = init.session
    this.#init = init

    init.onStart()
    init.session.start({
      onStream: (stream) => { this.#onStream(stream) },
      onDatagram: (payload) => {
        if (init.record.receiver != null) {
          init.record.receiver.onDatagram(payload)
        } else {
          init.metrics?.unclaimedDatagrams?.increment({ no_receiver: true })
        }
      },
      onDatagramDrain: () => { init.record.receiver?.onDatagramDrain() },
      onClose: (err) => {
        countClosedSession(init.metrics, err)
        init.record.receiver?.onClose(err)
        init.onClose(err)
      }
    })
  }

  async createStream (options?: CreateStreamOptions): Promise<PsecStream> {
    const stream = await super.createStream(options)
    stream.begin()

    // closed while the remote was waited for
    if (this.status !== 'open') {
      const err = new MuxerClosedError()
      stream.abort(err)
      throw err
    }

    return stream
  }

  async onCreateStream (options: CreateStreamOptions): Promise<PsecStream> {
    const { protocol, signal, ...streamOptions } = options

    return this.#wrap(await this.#session.openStream({ signal }), streamOptions)
  }

  onData (): void {
    throw new MuxerClosedError('A session delivers data on its streams only')
  }

  #onStream (secureStream: SecureStream): void {
    if (this.status !== 'open') {
      secureStream.reset()
      return
    }

    const stream = this.#wrap(secureStream, this.streamOptions)
    this.onRemoteStream(stream)
    stream.begin()
  }

  #wrap (stream: SecureStream, options?: StreamOptions): PsecStream {
    return new PsecStream({
      ...options,
      stream,
      session: this.#session,
      limits: this.#init.limits,
      onUnwanted: () => { this.#init.metrics?.refusedStreams?.increment({ unwanted: true }) },
      log: this.log.newScope(`${stream.direction}:${stream.id}`)
    })
  }
}
