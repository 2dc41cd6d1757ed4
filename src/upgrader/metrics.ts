import { frameType } from '../wire/index.ts'
import type { Counter, CounterGroup, Metrics } from '@libp2p/interface'

/**
 * What the upgrader counts, if the node counts anything
 */
export interface UpgraderMetrics {
  /** `propose_sent`, `accept_received`, ...; and of those received `propose_unanswered`: our own is the answer, or it was of no consequence */
  frames?: CounterGroup
  /** Datagrams that came and meant nothing: `invalid`, `unexpected`, `hold_full`; of a stranger, `no_proposal` */
  dropped?: CounterGroup
  /** How upgrades ended, see `outcomeOf`; and `renewed` where a remote proposed afresh */
  negotiations?: CounterGroup
  /** Lines of log that were kept back, see `maxLogLines` */
  unloggedLines?: Counter
}

export function registerMetrics (metrics?: Metrics): UpgraderMetrics {
  return {
    frames: metrics?.registerCounterGroup('libp2p_psec_frames_total', {
      label: 'frame',
      help: 'Total count of PSEC frames by type and direction'
    }),
    dropped: metrics?.registerCounterGroup('libp2p_psec_dropped_datagrams_total', {
      label: 'reason',
      help: 'Total count of datagrams dropped during and after the negotiation by reason'
    }),
    negotiations: metrics?.registerCounterGroup('libp2p_psec_negotiations_total', {
      label: 'outcome',
      help: 'Total count of PSEC negotiations by outcome'
    }),
    unloggedLines: metrics?.registerCounter('libp2p_psec_upgrader_unlogged_lines_total', {
      help: 'Total count of lines that the PSEC upgrader would have logged if there had not been so many'
    })
  }
}

export function countFrame (metrics: UpgraderMetrics, frame: Uint8Array, direction: 'sent' | 'received'): void {
  metrics.frames?.increment({ [`${frameType(frame)}_${direction}`]: true })
}

/**
 * A frame led to no other one. An accept or a reject never does.
 */
export function countUnanswered (metrics: UpgraderMetrics, frame: Uint8Array): void {
  if (frameType(frame) === 'propose') {
    metrics.frames?.increment({ propose_unanswered: true })
  }
}

/** Names of errors are anybody's (a scheme's, a signal's), the values of a metric's label must be few */
const OUTCOMES: Record<string, string> = {
  NoAnswerError: 'no_answer',
  NoCommonSchemeError: 'no_common_scheme',
  SelfNegotiationError: 'self',
  HandshakeFailedError: 'handshake_failed',
  UnexpectedPeerError: 'unexpected_peer',
  ConnectionClosedError: 'socket_closed',
  AddressUnreachableError: 'unreachable',
  AbortError: 'aborted',
  TimeoutError: 'aborted'
}

export function outcomeOf (err: Error): string {
  return OUTCOMES[err?.name] ?? 'error'
}
