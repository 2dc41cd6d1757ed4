import { toDialTarget } from '../transport/multiaddr.ts'
import { connectionText, describeConnection, milliseconds } from './describe-connection.ts'
import { UsageError } from './errors.ts'
import type { CommandContext } from './command.ts'
import type { PsecNode } from './node.ts'
import type { Connection } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

/**
 * Dial, and report the connection. Rejects with `UsageError` if the address is the node's own, and with what libp2p's dial rejects with.
 */
export async function dial (node: PsecNode, address: Multiaddr, { output, signal }: CommandContext): Promise<Connection> {
  if (toDialTarget(address).remotePeer?.equals(node.peerId) === true) {
    throw new UsageError(`${address} is this node itself: --key has to be another key than that of the node to dial`)
  }

  output.status(`Dialling ${address}…`)

  const start = performance.now()
  const connection = await node.dial(address, { signal })
  const dialMs = milliseconds(performance.now() - start)
  const fields = await describeConnection(connection, { signal })

  if (fields != null) {
    output.event('connection', { ...fields, dialMs }, `Connected in ${dialMs} ms\n${connectionText(fields)}`)
  }

  return connection
}
