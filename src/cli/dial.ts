import { connectionText, describeConnection, milliseconds } from './describe-connection.ts'
import type { CommandContext } from './command.ts'
import type { PsecNode } from './node.ts'
import type { Connection } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

/**
 * Dial, and report the connection
 */
export async function dial (node: PsecNode, address: Multiaddr, { output, signal }: CommandContext): Promise<Connection> {
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
