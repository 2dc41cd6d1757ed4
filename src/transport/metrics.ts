import { ConfirmationFailedError, SessionFailedError } from '../errors.ts'
import type { SessionFailure } from '../errors.ts'
import type { Counter, CounterGroup, MetricGroup, Metrics } from '@libp2p/interface'

/**
 * What the transport counts, if the node counts anything
 */
export interface PsecMetrics {
  /**
   * `dial`, `connect`, `error`, `abort`, `renewal_ignored` (a remote proposed afresh to a port that does not listen),
   * `aside` (dials that went out from a port of their own, too, see `dialAround`), and how connections that were dialled ended
   */
  dialerEvents?: CounterGroup
  /** By the name of the error */
  dialerErrors?: CounterGroup
  /**
   * Prefixed with the local address: `connection`, `turned_away` (proposals beyond `maxPendingInbound`),
   * `turned_away_unproven` (beyond `maxUnprovenInbound`), `turned_away_prefix` (beyond `maxPendingPerPrefix`), `shield_up` and `shield_down` (see `validationThreshold`), `renewal` (of the
   * connections, those of remotes that proposed afresh), `renewal_ignored` (there was no way to answer them),
   * `renewal_held_off` (there were too many), and ends
   */
  listenerEvents?: CounterGroup
  /** Prefixed with the local address: `listen_error`, `inbound_upgrade`, `port_failed` (the engine, or the system, gave the port up) */
  listenerErrors?: CounterGroup
  /** Lines of the listeners' log that were kept back, see `maxLogLines` */
  unloggedLines?: Counter
  /** 1 while a local address is listened on */
  listenerStatus?: MetricGroup
  /**
   * By outcome: `confirmed`, `unsupported`, `timed_out`, `interrupted`, `malformed`, `downgrade`
   */
  confirmations?: CounterGroup
  streams?: CounterGroup
  /**
   * `hold_full` (streams that came before libp2p had the session, beyond `maxHeldStreams`: reset), `unwanted` (the remote was told to stop
   * sending on one whose readable end was closed, beyond `maxUnwantedBytes`)
   */
  refusedStreams?: CounterGroup
  /**
   * By cause: `closed` (in order, by either side), `aborted` (on this side), and those of `SessionFailedError`: `timed_out`, `reset`,
   * `remote_error`, `local`, `superseded`, `failed`
   */
  closedSessions?: CounterGroup
  /** `no_receiver`: datagrams that came while no datagrams service ran */
  unclaimedDatagrams?: CounterGroup
}

const CONFIRMATION_FAILURES: Record<ConfirmationFailedError['reason'], string> = {
  unsupported: 'unsupported',
  timedOut: 'timed_out',
  interrupted: 'interrupted',
  malformed: 'malformed'
}

export function countConfirmation (metrics: PsecMetrics, err?: Error): void {
  let outcome = 'confirmed'

  if (err instanceof ConfirmationFailedError) {
    outcome = CONFIRMATION_FAILURES[err.reason]
  } else if (err != null) {
    outcome = 'downgrade'
  }

  metrics.confirmations?.increment({ [outcome]: true })
}

const SESSION_FAILURES: Record<SessionFailure, string> = {
  timedOut: 'timed_out',
  reset: 'reset',
  remoteError: 'remote_error',
  local: 'local',
  superseded: 'superseded',
  failed: 'failed'
}

export function countClosedSession (metrics?: Pick<PsecMetrics, 'closedSessions'>, err?: Error): void {
  let cause = 'closed'

  if (err instanceof SessionFailedError) {
    cause = SESSION_FAILURES[err.reason]
  } else if (err != null) {
    cause = 'aborted'
  }

  metrics?.closedSessions?.increment({ [cause]: true })
}

/**
 * What is counted elsewhere, and asked for when the metrics are read
 */
export interface MetricSources {
  /**
   * How many there are now, by local address
   */
  inboundConnections (): Record<string, number>

  /**
   * How many are on their way now, by local address
   */
  pendingInbound (): Record<string, number>

  /**
   * What the open local ports have counted
   */
  portStats (): Record<string, number>
}

export function registerMetrics (metrics: Metrics | undefined, sources: MetricSources): PsecMetrics {
  metrics?.registerMetricGroup('libp2p_psec_open_ports_counters', {
    label: 'counter',
    help: 'What the open local ports have counted since they were opened: datagrams and bytes in and out, and what was dropped by reason',
    calculate: sources.portStats
  })

  metrics?.registerMetricGroup('libp2p_psec_inbound_connections_total', {
    label: 'address',
    help: 'Current active connections in PSEC listener',
    calculate: sources.inboundConnections
  })

  metrics?.registerMetricGroup('libp2p_psec_pending_inbound_connections_total', {
    label: 'address',
    help: 'Current inbound connections on their way in PSEC listener',
    calculate: sources.pendingInbound
  })

  return {
    dialerEvents: metrics?.registerCounterGroup('libp2p_psec_dialer_events_total', {
      label: 'event',
      help: 'Total count of PSEC dialer events by type'
    }),
    dialerErrors: metrics?.registerCounterGroup('libp2p_psec_dialer_errors_total', {
      label: 'event',
      help: 'Total count of PSEC dialer errors by name'
    }),
    listenerEvents: metrics?.registerCounterGroup('libp2p_psec_listener_events_total', {
      label: 'address',
      help: 'Total count of PSEC listener events by address and type'
    }),
    listenerErrors: metrics?.registerCounterGroup('libp2p_psec_listener_errors_total', {
      label: 'address',
      help: 'Total count of PSEC listener errors by address and type'
    }),
    unloggedLines: metrics?.registerCounter('libp2p_psec_listener_unlogged_lines_total', {
      help: 'Total count of lines that PSEC listeners would have logged if there had not been so many'
    }),
    listenerStatus: metrics?.registerMetricGroup('libp2p_psec_listener_status_info', {
      label: 'address',
      help: 'Current status of the PSEC listener: 1 while it listens'
    }),
    confirmations: metrics?.registerCounterGroup('libp2p_psec_confirmations_total', {
      label: 'outcome',
      help: 'Total count of confirmations of PSEC negotiations by outcome'
    }),
    streams: metrics?.registerCounterGroup('libp2p_psec_muxer_streams_total', {
      label: 'event',
      help: 'Total count of PSEC stream events by direction and type'
    }),
    refusedStreams: metrics?.registerCounterGroup('libp2p_psec_refused_streams_total', {
      label: 'reason',
      help: 'Total count of streams of remotes that PSEC reset, or told the remote to stop sending on, by reason'
    }),
    closedSessions: metrics?.registerCounterGroup('libp2p_psec_closed_sessions_total', {
      label: 'cause',
      help: 'Total count of PSEC sessions of libp2p connections that are over by cause'
    }),
    unclaimedDatagrams: metrics?.registerCounterGroup('libp2p_psec_unclaimed_datagrams_total', {
      label: 'reason',
      help: 'Total count of datagrams of sessions that nobody took'
    })
  }
}
