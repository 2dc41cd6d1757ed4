/**
 * QUIC v1 (RFC 9000, RFC 9001) with datagrams (RFC 9221), secured by the libp2p TLS specification, as the PSEC scheme
 * `/quic-datagram/1.0.0`. The protocol runs in the native engine; this folder is its face.
 */
import { privateKeyToProtobuf } from '@libp2p/crypto/keys'
import { InvalidParametersError } from '@libp2p/interface'
import { loadEngine } from '../../engine/load.ts'
import { detachedFlow } from './detached-flow.ts'
import { QuicInitiation } from './initiation.ts'
import { QUIC_DATAGRAM } from './protocol.ts'
import { QuicSession } from './session.ts'
import type { NativeFlow } from '../../engine/flow.ts'
import type { NativeQuicIdentity } from '../../engine/native.ts'
import type { PacketSocket } from '../../sockets/index.ts'
import type { InitiateOptions, Initiation, RespondOptions, SchemeContext, SecureSession, SecurityScheme } from '../index.ts'
import type { ComponentLogger, Logger, PrivateKey } from '@libp2p/interface'

export interface QuicDatagramInit {
  /**
   * A session on which nothing is heard for so many milliseconds is over. The lower of both sides' values counts (RFC 9000,
   * section 10.1). Default: 30,000.
   */
  idleTimeout?: number

  /**
   * How often to send something on an idle session, in milliseconds, so that it does not time out and NATs keep their
   * mapping. Default: 10,000.
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
}

const DEFAULTS: Required<QuicDatagramInit> = {
  idleTimeout: 30_000,
  keepAliveInterval: 10_000,
  maxInboundStreams: 256,
  streamReceiveWindow: 4 * 1024 * 1024,
  receiveWindow: 16 * 1024 * 1024,
  sendWindow: 8 * 1024 * 1024,
  datagramReceiveBuffer: 1024 * 1024,
  datagramSendBuffer: 256 * 1024
}

class QuicDatagram implements SecurityScheme {
  readonly protocol = QUIC_DATAGRAM
  readonly #init: Required<QuicDatagramInit>
  readonly #identities = new WeakMap<PrivateKey, NativeQuicIdentity>()
  readonly #logs = new WeakMap<ComponentLogger, Logger>()

  constructor (init: QuicDatagramInit) {
    this.#init = { ...DEFAULTS, ...withoutUndefined(init) }

    for (const [name, value] of Object.entries(this.#init)) {
      if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) {
        throw new InvalidParametersError(`quicDatagram: ${name} must be an integer from 0 to 4294967295, not ${value}`)
      }
    }
  }

  initiate (socket: PacketSocket, options: InitiateOptions): Initiation {
    return new QuicInitiation(options.maxInitiationPacketSize, () => {
      const identity = this.#identity(options)
      const flow = flowOf(socket)

      return { identity, flow, session: new QuicSession(flow, this.#log(options)) }
    })
  }

  async respond (socket: PacketSocket, options: RespondOptions): Promise<SecureSession> {
    options.signal?.throwIfAborted()
    const identity = this.#identity(options)
    const flow = flowOf(socket)
    const session = new QuicSession(flow, this.#log(options))

    return session.respond(identity, options)
  }

  addressValidator (context: SchemeContext): unknown {
    return this.#identity(context)
  }

  #log ({ logger }: SchemeContext): Logger {
    let log = this.#logs.get(logger)

    if (log == null) {
      log = logger.forComponent('libp2p:psec:quic-datagram')
      this.#logs.set(logger, log)
    }

    return log
  }

  #identity (context: SchemeContext): NativeQuicIdentity {
    let identity = this.#identities.get(context.privateKey)

    if (identity == null) {
      const { NativeQuicIdentity } = loadEngine()
      identity = new NativeQuicIdentity(privateKeyToProtobuf(context.privateKey), this.#init)
      this.#identities.set(context.privateKey, identity)
    }

    return identity
  }
}

/**
 * The QUIC DATAGRAM scheme, for `psec({ schemes: [quicDatagram()] })`. Throws `InvalidParametersError`; where the native
 * engine is missing, its handshakes reject with `EngineUnavailableError`.
 */
export function quicDatagram (init: QuicDatagramInit = {}): SecurityScheme {
  return new QuicDatagram(init)
}

function flowOf (socket: PacketSocket): NativeFlow {
  return (socket.nativeFlow as NativeFlow | undefined) ?? detachedFlow(socket)
}

function withoutUndefined<T extends object> (object: T): T {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value != null)) as T
}
