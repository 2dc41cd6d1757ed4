/* eslint-disable no-console */

/**
 * What a flood changes for the honest: a node is flooded from addresses all over 127.0.0.0/8 while an honest peer dials it again
 * and again, and another one uses its connection. `node benchmarks/flood.ts [DATAGRAMS_PER_SECOND [PERCENT]]`, the
 * latter of a flood's usual datagrams.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { ChildCalls } from './child-calls.ts'
import { median } from './statistics.ts'
import { printTable } from './table.ts'
import { WorkerProcess } from './worker-process.ts'
import type { TargetCalls, TargetState } from './flood-target.ts'
import type { FloodCalls, FloodKind } from './flood-worker.ts'

const FLOODS: Array<[FloodKind, number]> = [
  ['proposals', 1_000_000],
  ['proposals with a first packet', 250_000],
  ['proposals with a truncated first packet', 250_000],
  ['proposals of unknown schemes', 250_000],
  ['first packets', 250_000],
  ['truncated first packets', 250_000],
  ['garbage', 250_000]
]
const DEFAULT_RATE = 50_000
const QUIET_MS = 5_000

/** Between two honest dials, and two bytes on the established connection */
const PAUSE_MS = 50
const DIAL_MS = 10_000

/** Until everything that a flood has left has timed out */
const AFTERMATH_MS = 20_000

/** Of the memory's course */
const MEMORY_INTERVAL_MS = 5_000

const MIB = 1024 * 1024
const started = performance.now()
const course: number[] = []
const rate = Number(process.argv[2] ?? DEFAULT_RATE)
const share = Number(process.argv[3] ?? 100) / 100

interface Honest {
  dials: number[]
  failed: number
  echoes: number[]
  broken: number
}

interface Phase extends Honest {
  name: string
  flood?: { sent: number, bytes: number, ms: number }
  before: TargetState
  after: TargetState
  maxRss: number
}

const target = new ChildCalls<TargetCalls>(new URL('flood-target.ts', import.meta.url))
const flooder = new ChildCalls<FloodCalls>(new URL('flood-worker.ts', import.meta.url))
const dialler = new WorkerProcess('psec, QUIC')
const established = new WorkerProcess('psec, QUIC')

try {
  const address = await target.call('address')
  const port = Number(/\/udp\/(\d+)/.exec(address)?.[1])
  await established.call('dial', { address })
  await phase('warming up', address, async () => { await delay(QUIET_MS) })

  const phases = [await phase('no flood', address, async () => { await delay(QUIET_MS) })]

  for (const [kind, count] of FLOODS) {
    phases.push(await phase(kind, address, async () => flooder.call('flood', { kind, port, count: count * share, rate })))
  }

  console.info(`\nAfter the floods, ${AFTERMATH_MS / 1000} s`)
  await delay(AFTERMATH_MS)
  await target.call('collectGarbage')
  phases.push(await phase('afterwards', address, async () => { await delay(QUIET_MS) }))
  print(phases)
} finally {
  await Promise.all([target, flooder, dialler, established].map(async worker => { await worker.end() }))
}

async function phase (name: string, address: string, run: () => Promise<Phase['flood'] | undefined>): Promise<Phase> {
  const controller = new AbortController()
  const before = await target.call('state')
  const honest: Honest = { dials: [], failed: 0, echoes: [], broken: 0 }
  let maxRss = before.rss

  const work = Promise.all([
    repeat(controller.signal, async () => {
      await dialler.call('dial', { address, signalMs: DIAL_MS }).then(
        async ms => {
          honest.dials.push(ms)
          // whose goodbye gets lost comes back all the same
          await dialler.call('hangUp').catch(() => {})
        },
        () => { honest.failed++ }
      )
    }),
    repeat(controller.signal, async () => {
      await established.call('echo').then(ms => { honest.echoes.push(ms) }, () => { honest.broken++ })
    }),
    repeat(controller.signal, async () => {
      const { rss } = await target.call('state')
      maxRss = Math.max(maxRss, rss)
      course[Math.floor((performance.now() - started) / MEMORY_INTERVAL_MS)] ??= rss
    })
  ])

  let flood: Phase['flood']

  try {
    flood = await run()
  } finally {
    controller.abort()
    await work
  }

  return { name, flood, before, after: await target.call('state'), maxRss, ...honest }
}

async function repeat (signal: AbortSignal, action: () => Promise<void>): Promise<void> {
  while (!signal.aborted) {
    await action()
    await delay(PAUSE_MS)
  }
}

function print (phases: Phase[]): void {
  printTable(`Honest peers under a flood of ${rate} datagrams a second`, ['', 'dials', 'failed', 'median', 'slowest', 'bytes on a connection', 'failed', 'slowest'], phases.map(({ name, dials, failed, echoes, broken }) => [
    name,
    `${dials.length}`,
    `${failed}`,
    `${median(dials).toFixed(1)} ms`,
    `${Math.max(...dials).toFixed(1)} ms`,
    `${echoes.length}`,
    `${broken}`,
    `${Math.max(...echoes).toFixed(1)} ms`
  ]))

  printTable('The node under the flood', ['', 'sent', 'arrived', 'a second', 'bytes out per byte in', 'memory, at most', 'to JavaScript', 'proved an address'], phases.map(({ name, flood, before, after, maxRss }) => {
    const grown = (counter: string): number => after.counters[counter] - before.counters[counter]
    const connections = (after.events.connection ?? 0) - (before.events.connection ?? 0)

    return [
      name,
      flood == null ? '' : `${flood.sent}`,
      `${grown('datagramsIn')}`,
      flood == null ? '' : `${Math.round(grown('datagramsIn') / flood.ms * 1000)}`,
      (grown('bytesOut') / grown('bytesIn')).toFixed(3),
      `${Math.round(maxRss / MIB)} MiB`,
      `${connections}`,
      `${grown('validated')}`
    ]
  }))

  // where nothing was measured, between the floods and what comes afterwards, there is a gap
  const values = Array.from(course, rss => rss == null ? '…' : `${Math.round(rss / MIB)}`)
  console.info(`\nIts memory in MiB, every ${MEMORY_INTERVAL_MS / 1000} s: ${values.join(', ')}`)
}
