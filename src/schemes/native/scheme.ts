/**
 * What the schemes that run in the native engine have in common: only their settings, and what the engine makes of them,
 * are their own.
 */
import { privateKeyToProtobuf } from '@libp2p/crypto/keys'
import { loadEngine } from '../../engine/load.ts'
import { detachedFlow } from './detached-flow.ts'
import { NativeInitiation } from './initiation.ts'
import { NativeSession } from './session.ts'
import type { SessionQueues } from './settings.ts'
import type { NativeFlow } from '../../engine/flow.ts'
import type { NativeEngine, NativeIdentity } from '../../engine/native.ts'
import type { PacketSocket } from '../../sockets/index.ts'
import type { InitiateOptions, Initiation, RespondOptions, SchemeContext, SecureSession, SecurityScheme } from '../index.ts'
import type { ComponentLogger, Logger, PrivateKey } from '@libp2p/interface'

export interface NativeSchemeInit {
  /**
   * The scheme's name on the wire
   */
  protocol: string

  /**
   * The name of its log, behind `libp2p:psec:`
   */
  component: string

  /**
   * Make the certificate and settings for a protobuf-encoded private key. May throw.
   */
  identity (engine: NativeEngine, privateKey: Uint8Array): NativeIdentity

  queues: Required<SessionQueues>

  /**
   * Whether its responders can have strangers prove their address before they do any work for them
   */
  validatesAddresses: boolean
}

export class NativeScheme implements SecurityScheme {
  readonly protocol: string
  readonly addressValidator?: (context: SchemeContext) => unknown
  readonly #init: NativeSchemeInit
  readonly #identities = new WeakMap<PrivateKey, NativeIdentity>()
  readonly #logs = new WeakMap<ComponentLogger, Logger>()

  constructor (init: NativeSchemeInit) {
    this.protocol = init.protocol
    this.#init = init

    if (init.validatesAddresses) {
      this.addressValidator = (context) => this.#identity(context)
    }
  }

  initiate (socket: PacketSocket, options: InitiateOptions): Initiation {
    return new NativeInitiation(options.maxInitiationPacketSize, () => {
      return { identity: this.#identity(options), session: this.#session(flowOf(socket), options) }
    })
  }

  async respond (socket: PacketSocket, options: RespondOptions): Promise<SecureSession> {
    options.signal?.throwIfAborted()
    const identity = this.#identity(options)
    const flow = flowOf(socket)

    return this.#session(flow, options).respond(identity, options)
  }

  #session (flow: NativeFlow, context: SchemeContext): NativeSession {
    return new NativeSession({ protocol: this.protocol, flow, queues: this.#init.queues, log: this.#log(context) })
  }

  #log ({ logger }: SchemeContext): Logger {
    let log = this.#logs.get(logger)

    if (log == null) {
      log = logger.forComponent(`libp2p:psec:${this.#init.component}`)
      this.#logs.set(logger, log)
    }

    return log
  }

  #identity (context: SchemeContext): NativeIdentity {
    let identity = this.#identities.get(context.privateKey)

    if (identity == null) {
      identity = this.#init.identity(loadEngine(), privateKeyToProtobuf(context.privateKey))
      this.#identities.set(context.privateKey, identity)
    }

    return identity
  }
}

function flowOf (socket: PacketSocket): NativeFlow {
  return (socket.nativeFlow as NativeFlow | undefined) ?? detachedFlow(socket)
}
