/**
 * DTLS 1.3 (RFC 9147), secured by the certificates of the libp2p TLS specification, with an SCTP association inside (RFC 8261)
 * whose streams are libp2p streams, as the PSEC scheme `/dtls/1.0.0`. The protocols run in the native engine; this folder is
 * their face.
 */
import { InvalidParametersError } from '@libp2p/interface'
import { NativeScheme } from '../native/scheme.ts'
import { DEFAULT_QUEUES, nativeSettings } from '../native/settings.ts'
import { dtlsIdentity } from './identity.ts'
import { DTLS } from './protocol.ts'
import type { SecurityScheme } from '../index.ts'
import type { Ranges, SessionQueues } from '../native/settings.ts'

/**
 * Options of `dtls()`. One out of its range is refused with `InvalidParametersError`.
 */
export interface DtlsInit extends SessionQueues {
  /**
   * A session on which nothing is heard for so many milliseconds, 1 or more, is over. Each side goes by its own value. Default: 30,000.
   */
  idleTimeout?: number

  /**
   * How often to send something on an idle session, in milliseconds, so that it does not time out and NATs keep their
   * mapping. Below the remote's `idleTimeout`; 0 for never. Default: 10,000.
   */
  keepAliveInterval?: number

  /**
   * How many streams the remote may have open at a time, from 1 to 32,767: each side has every second stream id (RFC 9260,
   * section 3.3.2, has at most 65,535). The lower of both sides' values counts. Default: 256.
   */
  maxInboundStreams?: number

  /**
   * How many bytes of a stream the remote may send ahead of what was read, 64 KiB or more. SCTP has no window for each stream: a
   * remote of another make may not know of this one, and is held back by `receiveWindow` alone. Default: 4 MiB.
   */
  streamReceiveWindow?: number

  /**
   * How many bytes of all streams together the remote may send ahead of what was read, 64 KiB or more: so many wait here, and as many
   * more in the SCTP association (RFC 9260, section 3.3.2). Default: 16 MiB.
   */
  receiveWindow?: number

  /**
   * How many bytes of all streams together may be written ahead of the remote's acknowledgements, 64 KiB or more. Default: 8 MiB.
   */
  sendWindow?: number

  /**
   * How many bytes of received datagrams may wait to be taken; the oldest are dropped for the newest. Default: 1 MiB.
   */
  datagramReceiveBuffer?: number

  /**
   * How many bytes of datagrams may wait for the path to carry them, beside those of `datagramSendQueue`. Default: 256 KiB.
   */
  datagramSendBuffer?: number

  /**
   * The most bytes of UDP payload that are ever sent in a packet, from 576 to 16,000. A session begins with 1,232, which fit every
   * IPv6 path (RFC 8200, section 5), and finds out what more its path carries (RFC 8899). Default: 16,000.
   */
  maxPacketSize?: number

  /**
   * Whether peers may be spoken to by DTLS 1.2 (RFC 6347) if they don't speak 1.3. It shows both certificates to whoever is on
   * the path. Default: false.
   */
  allowDtls12?: boolean
}

const DEFAULTS: Required<Omit<DtlsInit, 'allowDtls12'>> = {
  ...DEFAULT_QUEUES,
  idleTimeout: 30_000,
  keepAliveInterval: 10_000,
  maxInboundStreams: 256,
  streamReceiveWindow: 4 * 1024 * 1024,
  receiveWindow: 16 * 1024 * 1024,
  sendWindow: 8 * 1024 * 1024,
  datagramReceiveBuffer: 1024 * 1024,
  datagramSendBuffer: 256 * 1024,
  maxPacketSize: 16_000
}

/** What the protocols, and the framing of streams, leave room for */
const RANGES: Ranges<typeof DEFAULTS> = {
  idleTimeout: [1, 0xffffffff],
  maxInboundStreams: [1, 32_767],
  streamReceiveWindow: [64 * 1024, 0xffffffff],
  receiveWindow: [64 * 1024, 0xffffffff],
  sendWindow: [64 * 1024, 0xffffffff],
  maxPacketSize: [576, 16_000]
}

/**
 * The DTLS scheme, for `psec({ schemes: [dtls()] })`. Throws `InvalidParametersError`; where the native engine is missing, or
 * was built without DTLS, its handshakes reject with `EngineUnavailableError`.
 */
export function dtls (init: DtlsInit = {}): SecurityScheme {
  const { allowDtls12 = false, ...numbers } = init
  const settings = nativeSettings('dtls', numbers, DEFAULTS, RANGES)

  if (typeof allowDtls12 !== 'boolean') {
    throw new InvalidParametersError(`dtls: allowDtls12 has to be true or false, not ${allowDtls12}`)
  }

  return new NativeScheme({
    protocol: DTLS,
    component: 'dtls',
    identity: (engine, privateKey) => dtlsIdentity(engine, privateKey, { ...settings, allowDtls12 }),
    queues: settings,
    // an endpoint has one means to that, and it is QUIC's
    validatesAddresses: false
  })
}
