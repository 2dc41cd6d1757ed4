import { basename } from 'node:path'
import { parseInteger, parseMultiaddr, parseSchemes, parseString } from './arguments.ts'
import { DatagramPlayer } from './datagram-player.ts'
import { milliseconds } from './describe-connection.ts'
import { dial } from './dial.ts'
import { UsageError } from './errors.ts'
import { checkFile, sendFile } from './file-transfer/index.ts'
import { formatBytes } from './format-bytes.ts'
import { createNode } from './node.ts'
import { printable } from './printable.ts'
import { Progress } from './progress.ts'
import type { CommandArguments, CommandContext } from './command.ts'
import type { Connection } from '@libp2p/interface'

export const usage = `psec send MULTIADDR FILE… [--datagrams RATE] [--schemes LIST] [--key FILE]

Sends files to a node that runs "psec listen --out DIR", one after the other until one fails, and compares the SHA-256 of what was sent and received.

  --datagrams RATE  play RATE datagrams a second beside the files, and count how many come back
  --schemes LIST    schemes to offer by their short names, most wanted first: quic-datagram, dtls
  --key FILE        the node's identity, a protobuf-encoded libp2p private key (a new one)
  --json            print JSON, one object per line`

export const options = {
  datagrams: { type: 'string' },
  schemes: { type: 'string' },
  key: { type: 'string' }
} as const

export async function run ({ values, positionals: [target, ...files] }: CommandArguments, context: CommandContext): Promise<void> {
  const address = parseMultiaddr(target)
  const schemes = parseSchemes(values.schemes)
  const rate = parseInteger('--datagrams', values.datagrams, { min: 1, max: 10_000 })

  if (files.length === 0) {
    throw new UsageError('The files to send are missing')
  }

  for (const file of files) {
    await checkFile(file)
  }

  const node = await createNode({ schemes, keyFile: parseString('--key', values.key) })
  let player: DatagramPlayer | undefined

  try {
    const connection = await dial(node, address, context)
    player = rate == null ? undefined : await DatagramPlayer.start(node, connection, rate, context)

    for (const file of files) {
      await send(connection, file, context)
    }

    if (player != null) {
      const report = await player.finish(context)
      context.output.event('datagrams', report, `Played ${report.sent} datagrams beside, ${report.echoed} came back, in ${report.medianMs ?? '–'} ms in the median`)
    }
  } finally {
    player?.stop()
    await node.stop()
  }
}

async function send (connection: Connection, file: string, { output, signal }: CommandContext): Promise<void> {
  const start = performance.now()
  const progress = new Progress(output, basename(file))
  const sent = await sendFile(connection, file, {
    signal,
    onProgress: (bytes, total) => { progress.update(bytes, total) }
  })
  const ms = milliseconds(performance.now() - start)

  output.event('sent', { ...sent, ms }, [
    `Sent ${printable(sent.name)}, ${formatBytes(sent.bytes)} in ${ms} ms, ${formatBytes(sent.bytes / Math.max(ms, 0.001) * 1000)}/s`,
    `  SHA-256  ${sent.sha256}, the same on both sides`
  ].join('\n'))
}
