import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { lpStream } from '@libp2p/utils'
import { FileMismatchError, FileRefusedError, FileTransferError, LocalFileError } from '../errors.ts'
import { printable } from '../printable.ts'
import { FILE_PROTOCOL, MESSAGE_LIMITS, readResult, readVerdict, writeMessage } from './messages.ts'
import type { Connection, Stream } from '@libp2p/interface'
import type { FileHandle } from 'node:fs/promises'

const CHUNK_SIZE = 256 * 1024

/**
 * How long the receiver may take for its verdict, and for its result once it has everything, in milliseconds
 */
const ANSWER_TIMEOUT = 30_000

const OWN_ERRORS = [FileMismatchError, FileRefusedError, FileTransferError, LocalFileError]

export interface SendFileOptions {
  signal: AbortSignal

  /**
   * So many bytes of the content have been handed over so far
   */
  onProgress (bytes: number, total: number): void
}

export interface SentFile {
  name: string
  bytes: number
  sha256: string
}

/**
 * The sender's side of the file protocol, see `messages.ts`. Resolves when the receiver has everything, and its SHA-256
 * equals ours. Rejects with `LocalFileError`, `FileRefusedError`, `FileTransferError`, `FileMismatchError`, or the
 * signal's reason.
 */
export async function sendFile (connection: Connection, path: string, options: SendFileOptions): Promise<SentFile> {
  const file = await openFile(path)

  try {
    const stream = await openStream(connection, basename(path), options)

    try {
      return await send(stream, file, basename(path), options)
    } catch (err: any) {
      stream.abort(err)

      if (OWN_ERRORS.some(own => err instanceof own) || options.signal.aborted) {
        throw err
      }

      const reason = connection.status === 'open' ? `the transfer broke off: ${err.message}` : 'the connection ended'
      throw new FileTransferError(`${basename(path)} was not confirmed by the receiver, ${reason}`, { cause: err })
    }
  } finally {
    await file.close()
  }
}

async function openStream (connection: Connection, name: string, { signal }: SendFileOptions): Promise<Stream> {
  try {
    return await connection.newStream(FILE_PROTOCOL, { signal })
  } catch (err: any) {
    throw err.name === 'UnsupportedProtocolError'
      ? new FileRefusedError(`${name} was refused: the node receives no files, it does not speak ${FILE_PROTOCOL}`, { cause: err })
      : err
  }
}

/**
 * Rejects with `LocalFileError` if the file can't be sent
 */
export async function checkFile (path: string): Promise<void> {
  const file = await openFile(path)
  await file.close()
}

async function openFile (path: string): Promise<FileHandle> {
  let file: FileHandle | undefined

  try {
    // a pipe that nobody writes to would have us wait; not every system has such a flag
    file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))

    if (!(await file.stat()).isFile()) {
      throw new Error('not a regular file')
    }

    return file
  } catch (err: any) {
    await file?.close()
    throw new LocalFileError(printable(`Can't read ${path}: ${err.message}`, 1000), { cause: err })
  }
}

async function send (stream: Stream, file: FileHandle, name: string, options: SendFileOptions): Promise<SentFile> {
  const { size } = await file.stat()
  const messages = lpStream(stream, MESSAGE_LIMITS)

  await writeMessage(messages, { name, size }, options)
  const verdict = await readVerdict(messages, inTime(options.signal))

  if (verdict.status === 'refused') {
    throw new FileRefusedError(`${name} was refused: ${verdict.reason}`)
  }

  // the receiver may fail while we send, and then says so
  const over = new AbortController()
  const result = readResult(messages, { signal: AbortSignal.any([options.signal, over.signal]) }).then(result => {
    if (result.status === 'failed') {
      throw new FileTransferError(`${name} could not be received: ${result.reason}`)
    }

    return result
  })
  result.catch(err => { over.abort(err) })

  try {
    const sha256 = await sendContent(stream, file, name, size, { ...options, signal: AbortSignal.any([options.signal, over.signal]) })
    await stream.close(options)
    const deadline = setTimeout(() => {
      over.abort(new FileTransferError(`The receiver has not confirmed ${name} within ${ANSWER_TIMEOUT} ms`))
    }, ANSWER_TIMEOUT)

    try {
      compare(name, { bytes: size, sha256 }, await result)
    } finally {
      clearTimeout(deadline)
    }

    return { name, bytes: size, sha256 }
  } finally {
    over.abort()
  }
}

async function sendContent (stream: Stream, file: FileHandle, name: string, size: number, { signal, onProgress }: SendFileOptions): Promise<string> {
  const hash = createHash('sha256')
  let sent = 0

  for await (const chunk of file.createReadStream({ highWaterMark: CHUNK_SIZE, autoClose: false })) {
    signal.throwIfAborted()
    sent += chunk.byteLength

    if (sent > size) {
      break
    }

    hash.update(chunk)

    if (!stream.send(chunk)) {
      await stream.onDrain({ signal })
    }

    onProgress(sent, size)
  }

  if (sent !== size) {
    throw new LocalFileError(`${name} changed its size while it was read: it had ${size} bytes`)
  }

  return hash.digest('hex')
}

function compare (name: string, sent: { bytes: number, sha256: string }, received: { bytes: number, sha256: string }): void {
  if (sent.bytes !== received.bytes || sent.sha256 !== received.sha256) {
    throw new FileMismatchError(`${name} did not arrive as it was sent: ${sent.bytes} bytes with SHA-256 ${sent.sha256} left, ${received.bytes} bytes with ${received.sha256} arrived`)
  }
}

function inTime (signal: AbortSignal): { signal: AbortSignal } {
  return { signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT)]) }
}
