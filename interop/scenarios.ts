/**
 * What our side does as the opener of streams, with the other side serving: the same as in `go/scenarios.go`
 */
import { createHash } from 'node:crypto'
import { StreamReset } from './byte-stream.ts'
import { pattern } from './pattern.ts'
import { digest, source } from './serve.ts'
import type { ByteStream } from './byte-stream.ts'
import type { Session } from './ours.ts'

export const SCENARIOS: Record<string, (session: Session, size?: number) => Promise<void>> = {
  echo,
  shapes,
  upload,
  download,
  many,
  reset,
  'be-reset': beReset,
  stop,
  datagrams
}

const FILE = 10_000_000

/** The default of `maxInboundStreams` on our side, which is lower than theirs */
const MAX_IDS = 256

async function echo (session: Session, size = 300_000): Promise<void> {
  const stream = await session.open()
  const sent = pattern(0, size)
  const writing = async (): Promise<void> => {
    await stream.write('echo\n')
    await stream.write(sent)
    stream.inner.closeWrite()
  }
  const [back] = await Promise.all([stream.readAll(), writing()])

  check(back.equals(sent), `${back.byteLength} bytes came back, and not those that were sent`)
}

/**
 * Writes of every size around that of a message
 */
async function shapes (session: Session): Promise<void> {
  const stream = await session.open()
  const sizes = [0, 1, 127, 128, 16_367, 16_368, 16_369, 16_383, 16_384, 16_385, 40_000]
  const sent = pattern(0, sizes.reduce((sum, size) => sum + size))
  let at = 0
  await stream.write('ec')
  await stream.write('ho\n')

  for (const size of sizes) {
    await stream.write(sent.subarray(at, at += size))
  }

  stream.inner.closeWrite()
  check((await stream.readAll()).equals(sent), 'other bytes came back than were sent')
}

async function upload (session: Session, size = FILE): Promise<void> {
  const stream = await session.open()
  await stream.write('sink\n')
  await source(stream, size)
  stream.inner.closeWrite()
  const told = (await stream.readAll()).toString()

  check(told === expectedDigest(size), `the remote got ${told}`)
}

async function download (session: Session, size = FILE): Promise<void> {
  const stream = await session.open()
  await stream.write(`source ${size}\n`)
  stream.inner.closeWrite()
  const got = await digest(stream)

  check(got === expectedDigest(size), `${got} came`)
}

async function many (session: Session, size = 1000): Promise<void> {
  const atATime = 20
  await Promise.all(Array.from({ length: atATime }, async (_, worker) => {
    for (let i = worker; i < size; i += atATime) {
      await echo(session, 100 + i)
    }
  }))

  check(session.ids.size <= MAX_IDS, `${session.ids.size} ids were taken`)
}

async function reset (session: Session): Promise<void> {
  const stream = await session.open()
  await stream.write('reset\n')
  await expectReset(stream)
}

async function beReset (session: Session): Promise<void> {
  const stream = await session.open()
  await stream.write('echo\nabc')
  await stream.read()
  stream.inner.reset()
}

async function stop (session: Session): Promise<void> {
  const stream = await session.open()
  await stream.write('stop\n')
  const told = (await stream.readAll()).toString()

  check(told === 'stopped', `the remote says ${JSON.stringify(told)}`)
  check(stream.stopped, 'no STOP_SENDING has come')
  stream.inner.closeWrite()
}

/** The largest datagram that the other side sends: it does not look for what the path carries, by either version of DTLS */
export const MAX_ANSWER = 1_194

async function datagrams (session: Session): Promise<void> {
  const most = Math.min(session.inner.maxDatagramSize, MAX_ANSWER) - 3

  for (const size of [0, 1, 100, 500, 1000, most].filter(size => size <= most)) {
    await session.exchange(pattern(0, size))
  }
}

async function expectReset (stream: ByteStream): Promise<void> {
  try {
    await stream.readAll()
  } catch (err) {
    if (err instanceof StreamReset) {
      return
    }

    throw err
  }

  throw new Error('the stream ended as if nothing had happened')
}

function expectedDigest (size: number): string {
  return `${size} ${createHash('sha256').update(pattern(0, size)).digest('hex')}`
}

function check (condition: boolean, message: string): void {
  if (!condition) {
    throw new Error(message)
  }
}
