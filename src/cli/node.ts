import { readFile } from 'node:fs/promises'
import { privateKeyFromProtobuf } from '@libp2p/crypto/keys'
import { ping } from '@libp2p/ping'
import { createLibp2p } from 'libp2p'
import { datagrams, psec } from '../index.ts'
import { udpEndpoints } from '../sockets/udp.ts'
import { LocalFileError } from './errors.ts'
import type { Datagrams, SecurityScheme } from '../index.ts'
import type { PacketEndpointFactory } from '../sockets/index.ts'
import type { Libp2p, PrivateKey } from '@libp2p/interface'

export type PsecNode = Libp2p<{ datagrams: Datagrams }>

export interface NodeOptions {
  /**
   * Addresses to listen on; none for a node that only dials
   */
  listen?: string[]
  schemes?: SecurityScheme[]

  /**
   * Path of a protobuf-encoded private key; without one the node's identity is a new one
   */
  keyFile?: string
}

/**
 * A started node of the command's. Rejects with `LocalFileError`, or why it can't listen.
 */
export async function createNode (options: NodeOptions): Promise<PsecNode> {
  const endpoints = new ListeningEndpoints()

  try {
    return await createLibp2p({
      privateKey: options.keyFile == null ? undefined : await readKey(options.keyFile),
      addresses: { listen: options.listen },
      transports: [psec({ schemes: options.schemes, endpoints })],
      // the session itself finds out when the other side is gone
      connectionMonitor: { enabled: false },
      services: { datagrams: datagrams(), ping: ping() }
    })
  } catch (err: any) {
    throw endpoints.failure ?? err
  }
}

/**
 * UDP ports, remembering why one could not be opened: libp2p makes one error of all such errors, without their classes
 */
class ListeningEndpoints implements PacketEndpointFactory {
  failure?: Error

  open: PacketEndpointFactory['open'] = async (options) => {
    try {
      return await udpEndpoints.open(options)
    } catch (err: any) {
      this.failure = err
      throw err
    }
  }
}

async function readKey (file: string): Promise<PrivateKey> {
  try {
    return privateKeyFromProtobuf(await readFile(file))
  } catch (err: any) {
    throw new LocalFileError(`Can't read a protobuf-encoded libp2p private key from ${file}: ${err.message}. How to make one is in docs/cli.md, under "--key"`, { cause: err })
  }
}
