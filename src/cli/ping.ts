import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { ConnectionClosedError, ProtocolError, UnsupportedProtocolError } from '@libp2p/interface'
import { byteStream } from '@libp2p/utils'
import { equals } from 'uint8arrays/equals'
import { expectNoMore, parseInteger, parseMultiaddr, parseSchemes, parseString } from './arguments.ts'
import { milliseconds } from './describe-connection.ts'
import { dial } from './dial.ts'
import { median } from './median.ts'
import { createNode } from './node.ts'
import type { CommandArguments, CommandContext } from './command.ts'
import type { Connection } from '@libp2p/interface'

export const usage = `psec ping MULTIADDR [-c N] [--schemes LIST] [--key FILE]

Dials a node and pings it over a stream, once a second.

  -c, --count N    how many pings (4)
  --schemes LIST   schemes to offer by their short names, most wanted first: quic-datagram, dtls
  --key FILE       the node's identity, a protobuf-encoded libp2p private key (a new one)
  --json           print JSON, one object per line`

export const options = {
  count: { type: 'string', short: 'c' },
  schemes: { type: 'string' },
  key: { type: 'string' }
} as const

/**
 * See the libp2p ping specification, https://github.com/libp2p/specs/blob/master/ping/ping.md
 */
const PING_PROTOCOL = '/ipfs/ping/1.0.0'
const PING_LENGTH = 32

/**
 * In milliseconds. The timeout is the one after which `@libp2p/ping` gives up on its side.
 */
const INTERVAL = 1000
const TIMEOUT = 10_000

export async function run ({ values, positionals }: CommandArguments, context: CommandContext): Promise<void> {
  const address = parseMultiaddr(positionals[0])
  const count = parseInteger('-c', values.count, { min: 1, max: 1_000_000 }) ?? 4
  const schemes = parseSchemes(values.schemes)
  expectNoMore(positionals, 1)

  const node = await createNode({ schemes, keyFile: parseString('--key', values.key) })

  try {
    const connection = await dial(node, address, context)
    const pings = await pingRepeatedly(connection, count, context)

    if (pings.times.length > 0) {
      context.output.event('summary', summary(pings), summaryText(pings))
    }

    if (pings.error != null) {
      throw pings.error
    }
  } finally {
    await node.stop()
  }
}

interface Pings {
  /**
   * How many were begun: fewer than wanted after an interruption, which may leave the last one without an answer
   */
  sent: number

  /**
   * Of those that were answered
   */
  times: number[]

  /**
   * Why there are no more
   */
  error?: Error
}

/**
 * Ends early by an error, and by the signal: if one was answered by then, without an error
 */
async function pingRepeatedly (connection: Connection, count: number, { output, signal }: CommandContext): Promise<Pings> {
  const times: number[] = []
  let sent = 0

  for (let seq = 1; seq <= count; seq++) {
    sent = seq

    try {
      const ms = milliseconds(await pingOnce(connection, signal))
      times.push(ms)
      output.event('pong', { seq, ms }, `pong ${seq}: ${ms} ms`)

      if (seq < count) {
        await delay(INTERVAL, undefined, { signal })
      }
    } catch (err: any) {
      return { sent, times, error: signal.aborted && times.length > 0 ? undefined : explain(err, connection) }
    }
  }

  return { sent, times }
}

function explain (err: Error, connection: Connection): Error {
  if (err.name === 'UnsupportedProtocolError') {
    return new UnsupportedProtocolError(`The node answers no pings, it does not speak ${PING_PROTOCOL}`)
  }

  return connection.status === 'open' ? err : new ConnectionClosedError('The connection ended before all pings were answered')
}

/**
 * The round trip on a stream that is open already: what `@libp2p/ping` measures has the opening in it
 */
async function pingOnce (connection: Connection, signal: AbortSignal): Promise<number> {
  signal = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT)])

  const stream = await connection.newStream(PING_PROTOCOL, { signal })

  try {
    const bytes = byteStream(stream)
    const payload = randomBytes(PING_LENGTH)
    const start = performance.now()
    await bytes.write(payload, { signal })
    const answer = await bytes.read({ bytes: PING_LENGTH, signal })
    const ms = performance.now() - start

    if (!equals(answer.subarray(), payload)) {
      throw new ProtocolError('The answer to a ping differs from the ping')
    }

    await stream.close({ signal })

    return ms
  } catch (err: any) {
    stream.abort(err)
    throw err
  }
}

interface Summary {
  sent: number
  received: number
  minMs: number
  medianMs: number
  maxMs: number
}

function summary ({ sent, times }: Pings): Summary {
  const sorted = [...times].sort((a, b) => a - b)

  return {
    sent,
    received: times.length,
    minMs: sorted[0],
    medianMs: milliseconds(median(sorted)),
    maxMs: sorted[sorted.length - 1]
  }
}

function summaryText (pings: Pings): string {
  const { sent, received, minMs, medianMs, maxMs } = summary(pings)

  return `${received} of ${sent} pings answered: ${minMs} ms at least, ${medianMs} ms in the median, ${maxMs} ms at most`
}
