/**
 * What an idle connection costs a listening node in memory: by how much the process grows with so many connections from as many
 * nodes, in other processes, after garbage was collected. Connections before that pay for what is needed but once.
 */
import { availableParallelism } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { ChildCalls } from './child-calls.ts'
import { printTable } from './table.ts'
import { WorkerProcess } from './worker-process.ts'
import type { Contender } from './contenders.ts'
import type { MemoryDiallerCalls } from './memory-dialler.ts'
import type { MemoryUse } from './worker-process.ts'

const CONTENDERS: Contender[] = ['psec, QUIC', 'psec, DTLS', '@libp2p/webrtc (direct)', '@chainsafe/libp2p-quic', 'TCP + Noise + Yamux']
const WARM_UP = 50
const CONNECTIONS = 300
const PROCESSES = Math.min(availableParallelism(), 4)

/**
 * Until what a handshake needed is gone, in milliseconds
 */
const SETTLE = 2_000

interface Growth extends MemoryUse {
  contender: Contender
}

async function measure (contender: Contender): Promise<Growth> {
  const listener = new WorkerProcess(contender)
  const diallers = Array.from({ length: PROCESSES }, () => new ChildCalls<MemoryDiallerCalls>(new URL('memory-dialler.ts', import.meta.url), [contender]))

  try {
    const address = await listener.call('address')
    const connect = async (count: number): Promise<MemoryUse> => {
      await Promise.all(diallers.map(async dialler => { await dialler.call('connect', { address, count: count / PROCESSES }) }))
      await delay(SETTLE)

      return listener.call('memory')
    }

    const before = await connect(WARM_UP)
    const after = await connect(CONNECTIONS)
    const connections = await Promise.all(diallers.map(async dialler => dialler.call('connections')))
    const open = connections.reduce((sum, { open }) => sum + open, 0)

    if (open !== WARM_UP + CONNECTIONS) {
      const ends = connections.flatMap(({ ends }) => ends)
      throw new Error(`Of ${WARM_UP + CONNECTIONS} connections of ${contender} only ${open} are left, the others ended ${ends.join('; ') || 'before anybody saw it'}`)
    }

    return { contender, resident: after.resident - before.resident, javascript: after.javascript - before.javascript }
  } finally {
    await Promise.all([listener, ...diallers].map(async worker => { await worker.end() }))
  }
}

const growths: Growth[] = []

for (const contender of CONTENDERS) {
  growths.push(await measure(contender))
}

const [quic, dtls] = growths

printTable(`Memory of a listener for each idle connection, ${CONNECTIONS} of each`, ['', 'resident', 'of it JavaScript', 'psec, QUIC takes', 'psec, DTLS takes'], growths.map(({ contender, resident, javascript }) => [
  contender,
  ...[resident, javascript].map(bytes => `${(bytes / CONNECTIONS / 1024).toFixed(0)} KiB`),
  ...[quic, dtls].map(reference => `${(reference.resident / resident).toFixed(2)} ×`)
]))
