/**
 * QUIC v1 (RFC 9000, RFC 9001) with datagrams (RFC 9221), secured by the libp2p TLS specification, as the PSEC scheme
 * `/quic-datagram/1.0.0`. The protocol runs in the native engine; this folder is its face.
 */
import { InvalidParametersError } from '@libp2p/interface'
import { NativeScheme } from '../native/scheme.ts'
import { DEFAULT_QUEUES, nativeSettings } from '../native/settings.ts'
import { QUIC_DATAGRAM } from './protocol.ts'
import type { SecurityScheme } from '../index.ts'
import type { Ranges, SessionQueues } from '../native/settings.ts'

/**
 * Options of `quicDatagram()`. One out of its range is refused with `InvalidParametersError`.
 */
export interface QuicDatagramInit extends SessionQueues {
  /**
   * A session on which nothing is heard for so many milliseconds, 1 or more, is over. The lower of both sides' values counts (RFC
   * 9000, section 10.1). Default: 30,000.
   */
  idleTimeout?: number

  /**
   * How often to send something on an idle session, in milliseconds, so that it does not time out and NATs keep their
   * mapping; 0 for never. Default: 10,000.
   */
  keepAliveInterval?: number

  /**
   * How many streams the remote may have open at a time. Default: 256.
   */
  maxInboundStreams?: number

  /**
   * How many bytes of a stream the remote may send ahead of what was read. Default: 4 MiB.
   */
  streamReceiveWindow?: number

  /**
   * How many bytes of all streams together the remote may send ahead. Default: 16 MiB.
   */
  receiveWindow?: number

  /**
   * How many bytes may be sent ahead of the remote's acknowledgements. Default: 8 MiB.
   */
  sendWindow?: number

  /**
   * How many bytes of received datagrams may wait to be taken; the oldest are dropped for the newest. Default: 1 MiB.
   */
  datagramReceiveBuffer?: number

  /**
   * How many bytes of datagrams may wait for the congestion controller. Default: 256 KiB.
   */
  datagramSendBuffer?: number

  /**
   * Whether dials offer X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem), so that what is recorded today stays secret when there are quantum
   * computers. It takes a second datagram, and both sides' time. Responders accept it in any case. Default: true.
   */
  postQuantum?: boolean
}

const DEFAULTS: Required<Omit<QuicDatagramInit, 'postQuantum'>> = {
  ...DEFAULT_QUEUES,
  idleTimeout: 30_000,
  keepAliveInterval: 10_000,
  maxInboundStreams: 256,
  streamReceiveWindow: 4 * 1024 * 1024,
  receiveWindow: 16 * 1024 * 1024,
  sendWindow: 8 * 1024 * 1024,
  datagramReceiveBuffer: 1024 * 1024,
  datagramSendBuffer: 256 * 1024
}

const RANGES: Ranges<typeof DEFAULTS> = {
  idleTimeout: [1, 0xffffffff]
}

/**
 * The QUIC DATAGRAM scheme, for `psec({ schemes: [quicDatagram()] })`. Throws `InvalidParametersError`; where the native
 * engine is missing, its handshakes reject with `EngineUnavailableError`.
 */
export function quicDatagram (init: QuicDatagramInit = {}): SecurityScheme {
  const { postQuantum = true, ...numbers } = init
  const settings = nativeSettings('quicDatagram', numbers, DEFAULTS, RANGES)

  if (typeof postQuantum !== 'boolean') {
    throw new InvalidParametersError(`quicDatagram: postQuantum has to be true or false, not ${postQuantum}`)
  }

  return new NativeScheme({
    protocol: QUIC_DATAGRAM,
    component: 'quic-datagram',
    identity: (engine, privateKey) => engine.NativeIdentity.quic(privateKey, { ...settings, postQuantum }),
    queues: settings,
    validatesAddresses: true
  })
}
