import { createHash } from 'node:crypto'
import { lpStream } from '@libp2p/utils'
import { FileTransferError, LocalFileError } from '../errors.ts'
import { IncomingFile } from './incoming-file.ts'
import { MESSAGE_LIMITS, readHeader, writeMessage } from './messages.ts'
import { readContent } from './read-content.ts'
import { safeName } from './safe-name.ts'
import type { Header, Result } from './messages.ts'
import type { Stream } from '@libp2p/interface'

/**
 * How long a sender may take for its header, and we to get rid of our answer, in milliseconds
 */
const MESSAGE_TIMEOUT = 10_000

export interface ReceiveFileOptions {
  /**
   * Where files go. Without a folder they are refused.
   */
  folder?: string
  signal: AbortSignal
}

export interface ReceivedFile {
  /**
   * The name it has got in the folder
   */
  name: string
  bytes: number
  sha256: string
}

/**
 * The receiver's side of the file protocol, see `messages.ts`. Resolves with undefined if the file was refused. Rejects
 * if it could not be received: then nothing of it is left, the sender has been told or the stream been reset.
 */
export async function receiveFile (stream: Stream, options: ReceiveFileOptions): Promise<ReceivedFile | undefined> {
  try {
    return await receive(stream, options)
  } catch (err: any) {
    // a reset would overtake the answer, if there is one
    if (stream.writeStatus === 'closed' && stream.status === 'open') {
      await stream.closeRead()
    } else {
      stream.abort(err)
    }

    throw err
  }
}

async function receive (stream: Stream, { folder, signal }: ReceiveFileOptions): Promise<ReceivedFile | undefined> {
  const inTime = (): AbortSignal => AbortSignal.any([signal, AbortSignal.timeout(MESSAGE_TIMEOUT)])
  const messages = lpStream(stream, MESSAGE_LIMITS)
  const header = await readHeader(messages, { signal: inTime() })

  if (folder == null) {
    await writeMessage(messages, { status: 'refused', reason: 'this node takes no files: it was started without --out' }, { signal: inTime() })
    await stream.close({ signal: inTime() })

    return undefined
  }

  const file = await IncomingFile.create(folder).catch(async (err: LocalFileError) => {
    await writeMessage(messages, { status: 'refused', reason: 'this node can\'t write to its folder for files' }, { signal: inTime() })
    await stream.close({ signal: inTime() })
    throw err
  })

  let received: ReceivedFile

  try {
    await writeMessage(messages, { status: 'ready' }, { signal: inTime() })
    // what follows is no message: the listeners of the messages go, what they may hold is the content's beginning
    messages.unwrap()

    received = await store(stream, file, header, signal)
  } catch (err: any) {
    await file.discard()
    // the folder's path is none of the sender's business
    await answer(stream, { status: 'failed', reason: err instanceof LocalFileError ? 'the receiver could not store the file' : err.message }, inTime())
    throw err
  }

  await answer(stream, { status: 'received', bytes: received.bytes, sha256: received.sha256 }, inTime())

  return received
}

async function store (stream: Stream, file: IncomingFile, { name, size }: Header, signal: AbortSignal): Promise<ReceivedFile> {
  const hash = createHash('sha256')
  let bytes = 0

  async function * checked (): AsyncGenerator<Uint8Array> {
    for await (const chunk of readContent(stream, { signal })) {
      bytes += chunk.byteLength

      if (bytes > size) {
        throw new FileTransferError(`The sender sent more than the ${size} bytes it had announced`)
      }

      hash.update(chunk)
      yield chunk
    }
  }

  try {
    await file.write(checked())
  } catch (err: any) {
    throw err instanceof LocalFileError || err instanceof FileTransferError || signal.aborted
      ? err
      : new FileTransferError(`${safeName(name)} broke off after ${bytes} of ${size} bytes: ${err.message}`, { cause: err })
  }

  if (bytes < size) {
    throw new FileTransferError(`The sender stopped after ${bytes} of ${size} bytes`)
  }

  return { name: await file.keep(name), bytes, sha256: hash.digest('hex') }
}

/**
 * Tell the sender how it went. It may be gone: that changes nothing for us.
 */
async function answer (stream: Stream, result: Result, signal: AbortSignal): Promise<void> {
  try {
    await writeMessage(lpStream(stream, MESSAGE_LIMITS), result, { signal })
    await stream.close({ signal })
  } catch (err: any) {
    stream.abort(err)
  }
}
