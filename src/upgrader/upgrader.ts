import { ConnectionClosedError, InvalidParametersError } from '@libp2p/interface'
import { checkLimits, checkTimeouts } from '../check-limits.ts'
import { realClock } from '../clock.ts'
import { DEFAULT_MAX_LINES, limitLogger } from '../limit-logger.ts'
import { formatPacketAddress } from '../sockets/index.ts'
import { decodeFrame, encodeFrame, frameType } from '../wire/index.ts'
import { MAX_NAME_LENGTH, MAX_SCHEMES } from '../wire/limits.ts'
import { registerMetrics } from './metrics.ts'
import { prepareAnswers } from './prepare-answers.ts'
import { Upgrade } from './upgrade.ts'
import type { InboundUpgradeOptions, PsecUpgraderComponents, PsecUpgraderInit, SecuredSocket, UpgradeOptions } from './index.ts'
import type { UpgradeContext } from './upgrade.ts'
import type { Clock } from '../clock.ts'
import type { SecurityScheme } from '../schemes/index.ts'
import type { PacketSocket, PreparedAnswers } from '../sockets/index.ts'
import type { Propose } from '../wire/index.ts'

const DEFAULT_NEGOTIATION_TIMEOUT = 5_000
const DEFAULT_HANDSHAKE_TIMEOUT = 10_000

/** More than a server's first flight with its certificates */
const DEFAULT_MAX_EARLY_DATAGRAMS = 16

/** Three schemes in any order: 15 answers */
const DEFAULT_MAX_PREPARED_NAMES = 3

/**
 * Makes packet sockets secure: negotiates the security scheme by PSEC, hands the socket to the agreed scheme, and checks that
 * whom the scheme authenticated is who proposed, and who was dialled.
 *
 * Both upgrade methods share one contract. One session comes of one socket: an upgrade for a socket on which another one is
 * under way joins it, whichever side began, and resolves to the same `SecuredSocket`, so that two nodes that dial each other
 * end with one session. An abort signal only ends its own call's waiting; the work ends when nobody waits any more.
 *
 * A socket on which an upgrade fails is closed, and no timer, listener or half-open session is left behind. After success the
 * upgrader answers late PSEC frames on the socket for as long as it lives; the scheme never sees them.
 *
 * Errors: `NoAnswerError`, `NoCommonSchemeError`, `SelfNegotiationError`, `HandshakeFailedError`, `UnexpectedPeerError` (of
 * `@libp2p/interface`), `ConnectionClosedError` (likewise: the socket was closed from elsewhere), `InvalidParametersError`
 * (the socket carries a session already), `InvalidFrameError` (`upgradeInbound`: the first datagram is no proposal), what the scheme itself
 * fails with, and the reason of the signal that aborted.
 */
export class PsecUpgrader {
  readonly #context: UpgradeContext
  /** The upgrade that was, or is, done on a socket, for as long as anybody knows the socket */
  readonly #upgrades = new WeakMap<PacketSocket, Upgrade>()

  /**
   * @param components
   * @param init
   * @param clock - internal: where time comes from, for tests
   * @throws {InvalidParametersError} if there is no scheme, two have one name, a name can't be sent, a limit is no number of things, or a
   * timeout is none
   */
  constructor (components: PsecUpgraderComponents, init: PsecUpgraderInit, clock: Clock = realClock) {
    const schemes = indexSchemes(init.schemes)
    const metrics = registerMetrics(components.metrics)
    const { maxLogLines, ...limits } = checkLimits('The PSEC upgrader', {
      maxEarlyDatagrams: init.maxEarlyDatagrams ?? DEFAULT_MAX_EARLY_DATAGRAMS,
      maxPreparedNames: init.maxPreparedNames ?? DEFAULT_MAX_PREPARED_NAMES,
      maxLogLines: init.maxLogLines ?? DEFAULT_MAX_LINES
    })
    const timeouts = checkTimeouts('The PSEC upgrader', {
      negotiationTimeout: init.negotiationTimeout ?? DEFAULT_NEGOTIATION_TIMEOUT,
      handshakeTimeout: init.handshakeTimeout ?? DEFAULT_HANDSHAKE_TIMEOUT
    })
    const log = limitLogger(components.logger.forComponent('libp2p:psec:upgrader'), {
      maxLines: maxLogLines,
      keptBack: metrics.unloggedLines,
      clock
    })
    const peerId = components.peerId.toMultihash().bytes

    this.#context = {
      peerId: components.peerId,
      privateKey: components.privateKey,
      logger: components.logger,
      log,
      metrics,
      clock,
      schemes,
      proposal: encodeFrame({ type: 'propose', peerId, schemes: [...schemes.keys()] }),
      initiationPacket: init.initiationPacket ?? true,
      ...timeouts,
      ...limits,
      select: (proposal) => this.#select(proposal, init),
      onRenewed: init.onRenewed
    }
  }

  /**
   * Whether a stranger's datagram is a valid proposal, and deserves a socket. Made for `PacketAcceptor.filter`: keeps no state,
   * never throws, counts what it turns away.
   */
  isProposal (datagram: Uint8Array): boolean {
    // the draft's "Frames": all but a few of a stranger's datagrams end here
    if (frameType(datagram) !== 'propose') {
      this.#context.metrics.dropped?.increment({ no_proposal: true })
      return false
    }

    try {
      return decodeFrame(datagram).type === 'propose'
    } catch {
      this.#context.metrics.dropped?.increment({ invalid: true })
      return false
    }
  }

  /**
   * How an endpoint can answer strangers' proposals without asking, for `PacketEndpoint.shield` and `welcome`: with what this upgrader would
   * answer now, as far as its schemes have means to make strangers prove their address. Undefined if none has.
   */
  prepareAnswers (): PreparedAnswers | undefined {
    return prepareAnswers(this.#context)
  }

  /**
   * Propose to the socket's remote; or join an upgrade of the socket that is under way, for instance because the remote
   * proposed first. What came of it is told by `negotiation.role`.
   */
  async upgradeOutbound (socket: PacketSocket, options: UpgradeOptions): Promise<SecuredSocket> {
    return this.#upgrade(socket, options, (upgrade, isNew) => {
      if (isNew) {
        upgrade.startOutbound()
      }
    })
  }

  /**
   * Answer the remote's proposal, the datagram for which the socket was opened
   */
  async upgradeInbound (socket: PacketSocket, options: InboundUpgradeOptions): Promise<SecuredSocket> {
    return this.#upgrade(socket, options, (upgrade, isNew) => {
      if (isNew) {
        upgrade.startInbound(options.firstDatagram, options.validateAddress)
      } else {
        upgrade.receive(options.firstDatagram)
      }
    })
  }

  async #upgrade (socket: PacketSocket, options: UpgradeOptions, start: (upgrade: Upgrade, isNew: boolean) => void): Promise<SecuredSocket> {
    const remote = formatPacketAddress(socket.remoteAddress)
    let upgrade = this.#upgrades.get(socket)

    if (socket.status === 'closed') {
      throw new ConnectionClosedError(`The socket to ${remote} is closed, open another one`)
    }

    if (upgrade?.settled === true) {
      throw new InvalidParametersError(`The socket to ${remote} carries a session already, use another local port for a second one`)
    }

    if (options.signal.aborted) {
      // nobody else is interested in the socket
      if (upgrade == null) {
        socket.close()
      }

      throw options.signal.reason
    }

    const isNew = upgrade == null

    if (upgrade == null) {
      upgrade = new Upgrade(socket, this.#context)
      this.#upgrades.set(socket, upgrade)
    }

    const secured = upgrade.join(options)
    start(upgrade, isNew)

    return secured
  }

  /**
   * Choose from somebody's proposal (draft, "Standard Negotiation"); undefined rejects
   */
  #select (proposal: Propose, init: PsecUpgraderInit): string | undefined {
    const offered = [...new Set(proposal.schemes)].filter(name => this.#context.schemes.has(name))

    if (offered.length === 0 || init.selectScheme == null) {
      return offered[0]
    }

    try {
      const selected = init.selectScheme([...offered])

      if (selected == null || offered.includes(selected)) {
        return selected
      }

      this.#context.log.error('selectScheme chose %s, which was not offered, rejecting', selected)
    } catch (err: any) {
      this.#context.log.error('selectScheme threw, rejecting - %e', err)
    }
  }
}

function indexSchemes (schemes: SecurityScheme[]): Map<string, SecurityScheme> {
  if (schemes.length === 0 || schemes.length > MAX_SCHEMES) {
    throw new InvalidParametersError(`A PSEC upgrader takes 1 to ${MAX_SCHEMES} security schemes, but got ${schemes.length}`)
  }

  const index = new Map<string, SecurityScheme>()

  for (const scheme of schemes) {
    if (typeof scheme?.protocol !== 'string') {
      throw new InvalidParametersError(`A security scheme is an object, as quicDatagram() and dtls() return one, not of the type ${typeof scheme}`)
    }

    const length = new TextEncoder().encode(scheme.protocol).byteLength

    if (length === 0 || length > MAX_NAME_LENGTH || !scheme.protocol.isWellFormed()) {
      throw new InvalidParametersError(`The name of a security scheme has to be 1 to ${MAX_NAME_LENGTH} bytes of UTF-8, "${scheme.protocol}" is not`)
    }

    if (index.has(scheme.protocol)) {
      throw new InvalidParametersError(`Two security schemes are named ${scheme.protocol}, register one of them`)
    }

    index.set(scheme.protocol, scheme)
  }

  return index
}
