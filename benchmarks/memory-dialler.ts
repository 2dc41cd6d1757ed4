/**
 * Many nodes that connect to one, in a process of its own: `node memory-dialler.ts CONTENDER`
 */
import { multiaddr } from '@multiformats/multiaddr'
import { createNode } from './contenders.ts'
import type { Contender } from './contenders.ts'

export interface MemoryDiallerCalls {
  /** Connect so many more nodes, one after the other */
  connect (params: { address: string, count: number }): Promise<void>

  /** How many of the connections are open */
  connections (): Promise<number>
}

const contender = process.argv[2] as Contender
const nodes: Array<Awaited<ReturnType<typeof createNode>>> = []

const calls: MemoryDiallerCalls = {
  connect: async ({ address, count }) => {
    for (let i = 0; i < count; i++) {
      const node = await createNode(contender, false)
      nodes.push(node)
      await node.dial(multiaddr(address))
    }
  },

  connections: async () => nodes.reduce((sum, node) => sum + node.getConnections().length, 0)
}

process.on('message', ({ id, call, params }: any) => {
  calls[call as keyof MemoryDiallerCalls](params).then(
    result => { process.send?.({ id, result }) },
    err => { process.send?.({ id, error: `${err.name}: ${err.message}` }) }
  )
})

// the parent is gone
process.once('disconnect', () => { process.exit() })
process.send?.({ ready: true })
