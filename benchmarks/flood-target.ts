/**
 * A listening node under a flood, in a process of its own: does what its parent asks for
 */
import { createLibp2p } from 'libp2p'
import { psec } from '../src/index.ts'
import { recordMetrics } from '../test/fixtures/record-metrics.ts'
import { answerCalls } from './child-calls.ts'
import { collectGarbage } from './collect-garbage.ts'

export interface TargetState {
  rss: number
  /** Of the port, see `libp2p_psec_open_ports_counters` */
  counters: Record<string, number>
  /** Of the listener, by name */
  events: Record<string, number>
}

export interface TargetCalls {
  address (): Promise<string>
  state (): Promise<TargetState>
  collectGarbage (): Promise<void>
}

const recorded = recordMetrics()
const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/udp/0/psec'] },
  transports: [psec()],
  metrics: recorded.metrics,
  connectionManager: { inboundConnectionThreshold: Infinity },
  connectionMonitor: { enabled: false }
})

await node.handle('/psec-benchmark/echo/1.0.0', (stream) => {
  stream.addEventListener('message', (evt) => { stream.send(evt.data) })
  stream.addEventListener('remoteCloseWrite', () => { void stream.close() })
})

const calls: TargetCalls = {
  address: async () => node.getMultiaddrs()[0].toString(),
  state: async () => ({
    rss: process.memoryUsage.rss(),
    counters: recorded.calculated('libp2p_psec_open_ports_counters') as Record<string, number>,
    events: Object.fromEntries(Object.entries(recorded.counters('libp2p_psec_listener_events_total'))
      .map(([name, count]) => [name.split(' ').at(-1) ?? '', count]))
  }),
  collectGarbage: async () => { collectGarbage() }
}

answerCalls(calls)
