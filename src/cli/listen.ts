import { constants } from 'node:fs'
import { access, mkdir } from 'node:fs/promises'
import { listenFilter } from '../transport/filters.ts'
import { toDialTarget } from '../transport/multiaddr.ts'
import { expectNoMore, parseAddress, parseSchemes, parseString } from './arguments.ts'
import { DATAGRAM_ECHO_PROTOCOL, echoDatagrams } from './datagram-echo.ts'
import { connectionText, describeConnection } from './describe-connection.ts'
import { echo, ECHO_PROTOCOL } from './echo.ts'
import { FileRefusedError, LocalFileError, UsageError } from './errors.ts'
import { FILE_PROTOCOL, receiveFile } from './file-transfer/index.ts'
import { formatBytes } from './format-bytes.ts'
import { describeError, formatError } from './format-error.ts'
import { createNode } from './node.ts'
import { withPsec } from './with-psec.ts'
import type { CommandArguments, CommandContext, OptionValue } from './command.ts'
import type { PsecNode } from './node.ts'
import type { Connection, Stream } from '@libp2p/interface'

export const usage = `psec listen [--listen MULTIADDR]… [--schemes LIST] [--key FILE] [--out DIR]

Runs a node until it is interrupted. It answers ping and echo, echoes datagrams, and receives files.

  --listen MULTIADDR  an address to listen on, may be given several times (/ip4/0.0.0.0/udp/0/psec)
  --schemes LIST      schemes to accept by their short names, most wanted first: quic-datagram, dtls
  --key FILE          the node's identity, a protobuf-encoded libp2p private key (a new one)
  --out DIR           where received files go; without it they are refused
  --json              print JSON, one object per line`

export const options = {
  listen: { type: 'string', multiple: true },
  schemes: { type: 'string' },
  key: { type: 'string' },
  out: { type: 'string' }
} as const

const DEFAULT_LISTEN = '/ip4/0.0.0.0/udp/0/psec'

/**
 * How many files one connection may send at a time
 */
const MAX_FILES = 8

export async function run ({ values, positionals }: CommandArguments, context: CommandContext): Promise<void> {
  expectNoMore(positionals, 0)
  const listen = parseListen(values.listen)
  const schemes = parseSchemes(values.schemes)
  const folder = parseString('--out', values.out)

  if (folder != null) {
    await prepareFolder(folder)
  }

  const node = await createNode({ listen, schemes, keyFile: parseString('--key', values.key) })

  try {
    reportConnections(node, context)
    await serve(node, folder, context)
    reportListening(node, context)
    await aborted(context.signal)
  } finally {
    await node.stop()
  }
}

function parseListen (value: OptionValue): string[] {
  const addresses = Array.isArray(value) ? value.map(String) : [DEFAULT_LISTEN]

  for (const address of addresses) {
    if (toDialTarget(parseAddress(address)).remotePeer != null) {
      throw new UsageError(`"${address}" names a peer id, which is not listened on: leave it out, and give that peer's key by --key`)
    }

    if (listenFilter([parseAddress(address)]).length === 0) {
      throw new UsageError(`"${address}" can't be listened on, a port of this machine has an IP address, no name: /ip4/127.0.0.1/udp/0/psec for instance, or /ip4/0.0.0.0/udp/0/psec for all of its IPv4 addresses`)
    }
  }

  return addresses
}

async function prepareFolder (folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true })
    await access(folder, constants.W_OK)
  } catch (err: any) {
    throw new LocalFileError(`Can't put files into ${folder}: ${err.code === 'EEXIST' ? 'it is not a folder' : err.message}`, { cause: err })
  }
}

async function serve (node: PsecNode, folder: string | undefined, { output, signal }: CommandContext): Promise<void> {
  const onFile = async (stream: Stream, connection: Connection): Promise<void> => {
    const from = connection.remotePeer.toString()

    try {
      const file = await receiveFile(stream, { folder, signal })

      if (file == null) {
        const refusal = new FileRefusedError(`A file from ${from} was refused: to receive files, use --out`)
        output.error(`psec: ${formatError(refusal)}`)
        output.event('error', describeError(refusal))
      } else {
        output.event('file', { ...file, from }, `Received ${file.name}, ${formatBytes(file.bytes)}, from ${from}\n  SHA-256  ${file.sha256}`)
      }
    } catch (err) {
      output.error(`psec: A file from ${from} was not received: ${formatError(err)}`)
      output.event('error', describeError(err))
    }
  }

  await node.handle(FILE_PROTOCOL, (stream, connection) => { void onFile(stream, connection) }, { maxInboundStreams: MAX_FILES })
  await node.handle(ECHO_PROTOCOL, (stream) => { void echo(stream, signal) })
  await node.services.datagrams.handle(DATAGRAM_ECHO_PROTOCOL, (flow) => {
    echoDatagrams(flow, (counts) => {
      const from = flow.remotePeer.toString()
      output.event('datagrams', { ...counts, from }, `Received ${counts.received} datagrams from ${from}, echoed ${counts.echoed}`)
    })
  })
}

function reportConnections (node: PsecNode, { output }: CommandContext): void {
  // what is known of a connection is known a little later: it is not to be reported after its end
  const reports = new WeakMap<Connection, Promise<void>>()

  const onOpen = async (connection: Connection): Promise<void> => {
    const fields = await describeConnection(connection)

    if (fields != null) {
      output.event('connection', fields, `Connection\n${connectionText(fields)}`)
    }
  }

  const onClose = async (connection: Connection): Promise<void> => {
    await reports.get(connection)
    const remotePeer = connection.remotePeer.toString()
    output.event('closed', { remotePeer, remoteAddr: connection.remoteAddr.toString() }, `Closed ${remotePeer}`)
  }

  node.addEventListener('connection:open', ({ detail }) => { reports.set(detail, onOpen(detail)) })
  node.addEventListener('connection:close', ({ detail }) => { void onClose(detail) })
}

function reportListening (node: PsecNode, { output }: CommandContext): void {
  const peerId = node.peerId.toString()
  const multiaddrs = node.getMultiaddrs().map(withPsec)

  output.event('listening', { peerId, multiaddrs }, ['Listening, dial one of', ...multiaddrs.map(ma => `  ${ma}`), 'Press Ctrl-C to stop'].join('\n'))
}

async function aborted (signal: AbortSignal): Promise<void> {
  if (!signal.aborted) {
    await new Promise(resolve => { signal.addEventListener('abort', resolve, { once: true }) })
  }
}
