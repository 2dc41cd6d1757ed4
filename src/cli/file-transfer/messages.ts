/**
 * The messages of the file protocol, `/psec/file/1.0.0`. One stream carries one file:
 *
 * ```
 * sender                                      receiver
 *   header   {"name": …, "size": …}      →
 *                                        ←    verdict  {"status": "ready"} or {"status": "refused", "reason": …}
 *   the content, `size` bytes            →
 *   end of the sender's side
 *                                        ←    result   {"status": "received", "bytes": …, "sha256": …}
 *                                                      or {"status": "failed", "reason": …}
 *                                             end of the receiver's side
 * ```
 *
 * Messages are JSON in UTF-8 with their length before them as an unsigned varint, at most 4,096 bytes. The content is
 * plain bytes. The receiver may send "failed" at any time; the sender stops then. See `docs/cli.md`.
 */
import { FileTransferError } from '../errors.ts'
import { printable } from '../printable.ts'
import type { AbortOptions } from '@libp2p/interface'
import type { LengthPrefixedStream, LengthPrefixedStreamOpts } from '@libp2p/utils'

export const FILE_PROTOCOL = '/psec/file/1.0.0'

export interface Header {
  /**
   * The file's name. The receiver makes a safe one of it.
   */
  name: string

  /**
   * How many bytes follow
   */
  size: number
}

export type Verdict = { status: 'ready' } | { status: 'refused', reason: string }
export type Result = { status: 'received', bytes: number, sha256: string } | { status: 'failed', reason: string }

/**
 * For `lpStream`
 */
export const MESSAGE_LIMITS: Partial<LengthPrefixedStreamOpts> = { maxDataLength: 4096 }

export async function writeMessage (messages: LengthPrefixedStream<any>, message: Header | Verdict | Result, options: AbortOptions): Promise<void> {
  await messages.write(new TextEncoder().encode(JSON.stringify(message)), options)
}

export async function readHeader (messages: LengthPrefixedStream<any>, options: AbortOptions): Promise<Header> {
  const { name, size } = await readMessage(messages, options)

  if (typeof name !== 'string' || !isByteCount(size)) {
    throw new FileTransferError('The sender\'s header names no file and size')
  }

  return { name, size }
}

export async function readVerdict (messages: LengthPrefixedStream<any>, options: AbortOptions): Promise<Verdict> {
  const { status, reason } = await readMessage(messages, options)

  if (status === 'ready') {
    return { status }
  }

  if (status === 'refused' && typeof reason === 'string') {
    return { status, reason: printable(reason) }
  }

  throw new FileTransferError('The receiver said neither that it is ready nor that it refuses')
}

export async function readResult (messages: LengthPrefixedStream<any>, options: AbortOptions): Promise<Result> {
  const { status, reason, bytes, sha256 } = await readMessage(messages, options)

  if (status === 'received' && isByteCount(bytes) && typeof sha256 === 'string') {
    return { status, bytes, sha256 }
  }

  if (status === 'failed' && typeof reason === 'string') {
    return { status, reason: printable(reason) }
  }

  throw new FileTransferError('The receiver said neither what it received nor that it failed')
}

async function readMessage (messages: LengthPrefixedStream<any>, options: AbortOptions): Promise<Record<string, unknown>> {
  const bytes = await messages.read(options)
  let message: unknown

  try {
    message = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray()))
  } catch (err: any) {
    throw new FileTransferError(`A message is not JSON: ${printable(err.message)}`)
  }

  if (typeof message !== 'object' || message == null) {
    throw new FileTransferError('A message is not a JSON object')
  }

  return message as Record<string, unknown>
}

function isByteCount (value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}
