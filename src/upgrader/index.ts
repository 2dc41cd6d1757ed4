/**
 * The PSEC upgrader: drives a negotiation on a packet socket with a real clock, hands the socket to the agreed scheme, and
 * checks who is there. Any packet transport can use it: implement `PacketSocket`, and get everything else.
 */
import type { Proposals, Role } from '../negotiation/index.ts'
import type { SecureSession, SecurityScheme } from '../schemes/index.ts'
import type { PacketSocket } from '../sockets/index.ts'
import type { AbortOptions, ComponentLogger, Metrics, PeerId, PrivateKey } from '@libp2p/interface'
import type { ProgressEvent, ProgressOptions } from 'progress-events'

/**
 * What the upgrader needs of its node
 */
export interface PsecUpgraderComponents {
  peerId: PeerId
  privateKey: PrivateKey
  logger: ComponentLogger
  metrics?: Metrics
}

/**
 * Options of a `PsecUpgrader`. Schemes that can't be offered, and numbers that are none, are refused with `InvalidParametersError`.
 */
export interface PsecUpgraderInit {
  /**
   * The schemes to offer and accept, most wanted first. At least one, no two of one name.
   */
  schemes: SecurityScheme[]

  /**
   * Choose among the schemes of somebody's proposal (names, in the proposer's order, only ones that are registered here). By
   * default the proposer's first. Returning undefined rejects, and so does throwing. Has to be a pure function of what was
   * offered: a repeated proposal gets the same response, and some are asked for ahead.
   */
  selectScheme? (offered: string[]): string | undefined

  /**
   * Send the first-listed scheme's first packet along with the proposal, which saves the negotiation's round trip (draft,
   * "Proposal"). Default: true.
   */
  initiationPacket?: boolean

  /**
   * How long a proposal may stay unanswered, in milliseconds, before a dial fails with `NoAnswerError`. Default: 5,000.
   */
  negotiationTimeout?: number

  /**
   * How long a scheme's handshake may take, in milliseconds, before it fails with `HandshakeFailedError`. Default: 10,000.
   */
  handshakeTimeout?: number

  /**
   * How many datagrams of the scheme that overtake the agreement are held for it, of 2 KiB each on average; more are dropped, and
   * counted as `hold_full`. Default: 16.
   */
  maxEarlyDatagrams?: number

  /**
   * To offers of up to how many names an endpoint can answer by itself, see `PsecUpgrader.prepareAnswers`. One answer is prepared for
   * each choice and order of so many of the schemes, so their number grows fast with both. Default: 3.
   */
  maxPreparedNames?: number

  /**
   * How many lines a second remotes may cause in the log of each component; more are kept back, and counted. Default: 50.
   */
  maxLogLines?: number

  /**
   * The remote of a socket that carries a session, or on which this side waits for it as the responder, proposed something else
   * than before, or the same long after the session began: it may have come back after a crash, or given a dial up and begun another, or somebody forges its address.
   * Nothing was answered; a new negotiation, on another socket beside this one (`PacketEndpoint.renew`), would have to. Called
   * for every transmission that still comes to this socket. What it throws is logged.
   */
  onRenewed? (socket: PacketSocket, proposal: Uint8Array): void
}

/**
 * What was negotiated, by whom, and how long each step took
 */
export interface Negotiation {
  /**
   * Its name on the wire
   */
  scheme: string

  /**
   * This side's in the scheme
   */
  role: Role

  /**
   * Whether both had proposed (draft, "Simultaneous Negotiation")
   */
  simultaneous: boolean

  /**
   * What this side would have offered, or has, most wanted first
   */
  localSchemes: string[]

  /**
   * What the remote has offered, in its order; undefined if it has only answered
   */
  remoteSchemes?: string[]

  /**
   * Milliseconds since the upgrade began: `agreed` when the scheme was settled, `secured` when the remote was authenticated
   */
  timings: { agreed: number, secured: number }
}

/**
 * What an upgrade makes of a packet socket
 */
export interface SecuredSocket {
  /**
   * With the remote, which is authenticated. It owns the socket.
   */
  session: SecureSession

  /**
   * How the two came to it
   */
  negotiation: Negotiation

  /**
   * What the two sides have to have seen alike, see `docs/confirm.md`
   */
  proposals: Proposals
}

/**
 * What an upgrade tells `onProgress`
 */
export type PsecProgressEvents =
  /** The proposal left, the first or a repeated one; `attempt` counts from 1 */
  ProgressEvent<'psec:propose', { attempt: number, bytes: number, initiationPacket: boolean }> |
  /** The scheme is settled; its handshake begins */
  ProgressEvent<'psec:agreed', { scheme: string, role: Role, simultaneous: boolean }> |
  /** The handshake has proved who the remote is, and that is who was expected */
  ProgressEvent<'psec:secured', { scheme: string, remotePeer: PeerId }>

/**
 * Options of `PsecUpgrader.upgradeOutbound`. `signal` ends the upgrade at any of its steps.
 */
export interface UpgradeOptions extends Required<AbortOptions>, ProgressOptions<PsecProgressEvents> {
  /**
   * Who has to be there. Anybody else: `UnexpectedPeerError`.
   */
  remotePeer?: PeerId
}

/**
 * Options of `PsecUpgrader.upgradeInbound`
 */
export interface InboundUpgradeOptions extends UpgradeOptions {
  /**
   * The datagram for which the socket was opened
   */
  firstDatagram: Uint8Array

  /**
   * Whether the remote should prove that it receives at its address, if the agreed scheme has a means to that: see
   * `RespondOptions`. Default: false.
   */
  validateAddress?: boolean
}

export { PsecUpgrader } from './upgrader.ts'
