/**
 * What a stream of the other side asks for in its first line, as `go/serve.go` does it
 */
import { createHash } from 'node:crypto'
import { ByteStream, StreamReset } from './byte-stream.ts'
import { pattern } from './pattern.ts'
import type { SecureStream } from '../src/index.ts'

const PIECE = 64 * 1024

export async function serve (inner: SecureStream): Promise<void> {
  const stream = new ByteStream(inner)

  try {
    const [word, value] = (await stream.readLine()).split(' ')
    await answer(stream, word, Number(value))
    inner.closeWrite()
  } catch (err) {
    if (!(err instanceof StreamReset)) {
      throw err
    }
  }
}

async function answer (stream: ByteStream, word: string, size: number): Promise<void> {
  switch (word) {
    case 'echo':
      for (let chunk = await stream.read(); chunk != null; chunk = await stream.read()) {
        await stream.write(chunk)
      }
      break
    case 'sink':
      await stream.write(await digest(stream))
      break
    case 'source':
      await source(stream, size)
      break
    case 'reset':
      await stream.write('going')
      stream.inner.reset()
      break
    case 'stop':
      stream.inner.closeRead()
      await stream.write('stopped')
      break
    default:
      throw new Error(`What is ${JSON.stringify(word)}?`)
  }
}

/**
 * How many bytes there are to the end, and their hash
 */
export async function digest (stream: ByteStream): Promise<string> {
  const hash = createHash('sha256')
  let length = 0

  for (let chunk = await stream.read(); chunk != null; chunk = await stream.read()) {
    hash.update(chunk)
    length += chunk.byteLength
  }

  return `${length} ${hash.digest('hex')}`
}

export async function source (stream: ByteStream, size: number): Promise<void> {
  for (let sent = 0; sent < size; sent += PIECE) {
    await stream.write(pattern(sent, Math.min(PIECE, size - sent)))
  }
}
