import { defaultLogger } from '@libp2p/logger'
import { expect } from 'aegir/chai'
import { Uint8ArrayList } from 'uint8arraylist'
import { SessionFailedError } from '../src/errors.ts'
import { PsecStream } from '../src/transport/stream.ts'
import type { SecureStream, SecureStreamHandler } from '../src/schemes/index.ts'
import type { StreamCloseEvent } from '@libp2p/interface'

/**
 * A session's stream that notes what it is told, and has its handler for the test to play the remote with
 */
class FakeSecureStream implements SecureStream {
  readonly id = 4
  readonly direction = 'inbound'
  readonly calls: string[] = []
  readonly sent: number[][] = []
  canSendMore = true
  handler!: SecureStreamHandler

  start (handler: SecureStreamHandler): void {
    this.handler = handler
  }

  send (data: Uint8Array | Uint8ArrayList): boolean {
    this.sent.push([...data.subarray()])

    return this.canSendMore
  }

  closeWrite (): void { this.calls.push('closeWrite') }
  closeRead (): void { this.calls.push('closeRead') }
  reset (): void { this.calls.push('reset') }
  pause (): void { this.calls.push('pause') }
  resume (): void { this.calls.push('resume') }
}

describe('a session\'s stream as a libp2p stream', () => {
  const session: { status: 'open' | 'closing' | 'closed' } = { status: 'open' }
  let secure: FakeSecureStream
  let stream: PsecStream

  beforeEach(() => {
    session.status = 'open'
    secure = new FakeSecureStream()
    stream = new PsecStream({ stream: secure, session, log: defaultLogger().forComponent('test') })
    stream.begin()
  })

  async function readAll (): Promise<number> {
    let bytes = 0

    for await (const chunk of stream) {
      bytes += chunk.byteLength
    }

    return bytes
  }

  it('is named by the number that both sides know', () => {
    expect(stream).to.include({ id: '4', direction: 'inbound' })
  })

  it('sends at once as long as it may, and after a drain what has been queued since', async () => {
    expect(stream.send(Uint8Array.of(1))).to.equal(true)
    secure.canSendMore = false
    expect(stream.send(Uint8Array.of(2))).to.equal(false)
    expect(stream.send(new Uint8ArrayList(Uint8Array.of(3), Uint8Array.of(4)))).to.equal(false)
    expect(secure.sent).to.deep.equal([[1], [2]])
    expect(stream.writeBufferLength).to.equal(2)

    secure.canSendMore = true
    secure.handler.onDrain()
    await Promise.resolve()

    expect(secure.sent).to.deep.equal([[1], [2], [3, 4]])
    expect(stream.writableNeedsDrain).to.equal(false)
  })

  it('waits for the next drain, each time', async () => {
    secure.canSendMore = false

    for (let i = 0; i < 2; i++) {
      stream.send(Uint8Array.of(i))
      const drain = stream.onDrain()
      const first = await Promise.race([drain.then(() => 'drain'), new Promise(resolve => setImmediate(resolve, 'turn'))])
      secure.handler.onDrain()
      await drain

      expect(first).to.equal('turn')
    }

    await stream.onDrain()
  })

  it('waits for a drain also while it is being closed', async () => {
    secure.canSendMore = false
    stream.send(Uint8Array.of(1))
    const closed = stream.close()
    const drain = stream.onDrain()
    secure.handler.onDrain()

    await Promise.all([drain, closed])
  })

  it('waits for a drain no longer than told, or than it is open', async () => {
    secure.canSendMore = false
    stream.send(Uint8Array.of(1))
    await expect(stream.onDrain({ signal: AbortSignal.abort(new Error('enough')) })).to.eventually.be.rejectedWith('enough')

    const drain = stream.onDrain()
    secure.handler.onReset()
    await expect(drain).to.eventually.be.rejected().with.property('name', 'StreamResetError')
    await expect(stream.onDrain()).to.eventually.be.rejected().with.property('name', 'StreamStateError')
  })

  it('sends no more than `maxMessageSize` at a time', () => {
    stream.maxMessageSize = 2
    stream.send(Uint8Array.of(1, 2, 3))

    expect(secure.sent).to.deep.equal([[1, 2], [3]])
  })

  it('finishes after what was queued has been taken', async () => {
    secure.canSendMore = false
    stream.send(Uint8Array.of(1))
    const closed = stream.close()
    expect(secure.calls).to.be.empty()

    secure.handler.onDrain()
    await closed

    expect(secure.calls).to.deep.equal(['closeWrite'])
    expect(() => stream.send(Uint8Array.of(2))).to.throw().with.property('name', 'StreamStateError')
  })

  it('does not wait for a remote that reads no more', async () => {
    secure.canSendMore = false
    stream.send(Uint8Array.of(1))
    const closed = stream.close()
    secure.handler.onRemoteCloseRead()
    await closed

    expect(stream.writeStatus).to.equal('closed')
  })

  it('delivers what came before anybody listened', async () => {
    const received: number[] = []
    secure.handler.onData(Uint8Array.of(1))
    stream.addEventListener('message', (evt) => { received.push(...evt.data.subarray()) })
    await Promise.resolve()
    secure.handler.onData(Uint8Array.of(2))

    expect(received).to.deep.equal([1, 2])
  })

  it('is read to its end by a loop that begins after the remote has finished', async () => {
    secure.handler.onData(Uint8Array.of(1, 2))
    secure.handler.onData(Uint8Array.of(3))
    secure.handler.onRemoteCloseWrite()
    await stream.close()

    expect(await readAll()).to.equal(3)
    expect(stream).to.include({ readStatus: 'closed', readableEnded: true })
  })

  it('ends a loop that begins after a remote has finished that sent nothing', async () => {
    secure.handler.onRemoteCloseWrite()

    expect(await readAll()).to.equal(0)
  })

  it('holds the remote back when nobody listens, and lets it go on when somebody does', async () => {
    for (let i = 0; i < 5; i++) {
      secure.handler.onData(new Uint8Array(64 * 1024))
    }

    expect(secure.calls).to.deep.equal(['pause'])
    let bytes = 0
    stream.addEventListener('message', (evt) => { bytes += evt.data.byteLength })
    await Promise.resolve()
    await Promise.resolve()

    expect(secure.calls).to.deep.equal(['pause', 'resume'])
    expect(bytes).to.equal(5 * 64 * 1024)
    expect(stream.status).to.equal('open')
  })

  it('holds the remote back while a loop is slow', async () => {
    const loop = stream[Symbol.asyncIterator]()
    const first = loop.next()

    for (let i = 0; i < 6; i++) {
      secure.handler.onData(new Uint8Array(64 * 1024))
    }

    expect(secure.calls).to.deep.equal(['pause'])
    await first
    await loop.next()
    expect(secure.calls).to.deep.equal(['pause', 'resume'])
    await loop.return(undefined)
    expect(stream.listenerCount('message')).to.equal(0)
  })

  it('fails a loop after the last bytes when it is reset', async () => {
    const loop = stream[Symbol.asyncIterator]()
    const first = loop.next()
    secure.handler.onData(Uint8Array.of(1))
    secure.handler.onReset()

    expect((await first).value.byteLength).to.equal(1)
    await expect(loop.next()).to.eventually.be.rejected().with.property('name', 'StreamResetError')
  })

  it('holds the remote back while it is paused', () => {
    stream.addEventListener('message', () => {})
    stream.pause()
    stream.resume()

    expect(secure.calls).to.deep.equal(['pause', 'resume'])
  })

  it('does not tell a remote to stop that is about to finish', async () => {
    await stream.closeRead()
    secure.handler.onData(new Uint8Array(1_000))
    secure.handler.onRemoteCloseWrite()
    await stream.close()

    expect(secure.calls).to.deep.equal(['closeWrite'])
    expect(stream.status).to.equal('closed')
  })

  it('tells a remote to stop that sends on what nobody reads', async () => {
    await stream.closeRead()

    for (let i = 0; i < 3; i++) {
      secure.handler.onData(new Uint8Array(32 * 1024))
    }

    expect(secure.calls).to.deep.equal(['closeRead'])
  })

  it('holds the remote back, and tells it to stop, from as many bytes on as was said', async () => {
    let unwanted = 0
    stream = new PsecStream({
      stream: secure,
      session,
      log: defaultLogger().forComponent('test'),
      limits: { maxUnreadBytes: 2, maxUnwantedBytes: 3 },
      onUnwanted: () => { unwanted++ }
    })
    stream.begin()
    secure.handler.onData(new Uint8Array(2))
    expect(secure.calls).to.be.empty()
    secure.handler.onData(new Uint8Array(1))
    expect(secure.calls).to.deep.equal(['pause'])

    await stream.closeRead()
    secure.handler.onData(new Uint8Array(3))
    expect(unwanted).to.equal(0)
    secure.handler.onData(new Uint8Array(1))
    secure.handler.onData(new Uint8Array(1))
    expect(secure.calls).to.deep.equal(['pause', 'resume', 'closeRead'])
    expect(unwanted).to.equal(1)
  })

  it('lets a remote that was held back go on to its end when reading is closed', async () => {
    stream.pause()
    await stream.closeRead()

    expect(secure.calls).to.deep.equal(['pause', 'resume'])
  })

  it('resets when aborted', () => {
    stream.abort(new Error('Enough'))

    expect(secure.calls).to.deep.equal(['reset'])
    expect(stream.status).to.equal('aborted')
  })

  describe('when the session\'s stream is over', () => {
    let closed: StreamCloseEvent[]

    beforeEach(() => {
      closed = []
      stream.addEventListener('close', (evt) => { closed.push(evt) })
    })

    it('was reset by the remote', () => {
      secure.handler.onReset()

      expect(stream.status).to.equal('reset')
      expect(closed).to.have.lengthOf(1)
      expect(closed[0]).to.have.nested.property('error.name', 'StreamResetError')
    })

    it('was closed with its session, without an error', () => {
      session.status = 'closed'
      secure.handler.onReset()

      expect(stream.status).to.equal('closed')
      expect(closed[0].error).to.equal(undefined)
    })

    it('failed with its session', () => {
      session.status = 'closed'
      secure.handler.onReset(new SessionFailedError('Gone'))

      expect(stream.status).to.equal('aborted')
      expect(closed[0]).to.have.nested.property('error.name', 'SessionFailedError')
    })

    it('says so once', () => {
      secure.handler.onReset()
      secure.handler.onReset()
      stream.onTransportClosed()

      expect(closed).to.have.lengthOf(1)
    })
  })
})
