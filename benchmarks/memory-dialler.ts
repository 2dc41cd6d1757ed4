/**
 * Many nodes that connect to one, in a process of its own: `node memory-dialler.ts CONTENDER`
 */
import { multiaddr } from '@multiformats/multiaddr'
import { answerCalls } from './child-calls.ts'
import { createNode } from './contenders.ts'
import type { Contender } from './contenders.ts'

export interface MemoryDiallerCalls {
  /** Connect so many more nodes, one after the other */
  connect (params: { address: string, count: number }): Promise<void>

  /** How many of the connections are open, and why the others are not */
  connections (): Promise<{ open: number, ends: string[] }>
}

const contender = process.argv[2] as Contender
const nodes: Array<Awaited<ReturnType<typeof createNode>>> = []
const ends: string[] = []

const calls: MemoryDiallerCalls = {
  connect: async ({ address, count }) => {
    for (let i = 0; i < count; i++) {
      const node = await createNode(contender, false)
      nodes.push(node)
      const connection = await node.dial(multiaddr(address))
      connection.addEventListener('close', ({ local, error }) => {
        ends.push(`${local === true ? 'here' : 'by the listener'}: ${error?.message ?? 'in order'}`)
      })
    }
  },

  connections: async () => ({ open: nodes.reduce((sum, node) => sum + node.getConnections().length, 0), ends })
}

answerCalls(calls)
