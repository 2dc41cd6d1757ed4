import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { promisify } from 'node:util'
import { generateKeyPair, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { lpStream } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { createLibp2p } from 'libp2p'
import { toString } from 'uint8arrays/to-string'
import { numberedName, safeName } from '../src/cli/file-transfer/safe-name.ts'
import { main } from '../src/cli/main.ts'
import { withPsec } from '../src/cli/with-psec.ts'
import { psec } from '../src/index.ts'
import { encodeFrame } from '../src/wire/index.ts'
import { createNode, stopNodes } from './fixtures/nodes.ts'
import { PsecCommand } from './fixtures/psec-command.ts'
import { schemes } from './fixtures/schemes.ts'
import type { OutputStream } from '../src/cli/output.ts'
import type { Libp2p, Stream } from '@libp2p/interface'

const QUIC_DATAGRAM = '/quic-datagram/1.0.0'
const LOOPBACK = '/ip4/127.0.0.1/udp/0/psec'

// a key of a peer that is not there
const STRANGER = '12D3KooWHFKTMzwerBtsVmtz4ZZEQy2heafxzWw6wNn5PPYkBxJ5'

describe('psec command', () => {
  let folder: string
  let running: PsecCommand[]
  let stranger: Libp2p

  function start (...args: string[]): PsecCommand {
    const command = new PsecCommand(args)
    running.push(command)

    return command
  }

  async function run (...args: string[]): Promise<PsecCommand & { status: number | string }> {
    const command = start(...args)
    command.stdin.end()

    return Object.assign(command, { status: await command.exit() })
  }

  async function listen (...args: string[]): Promise<{ listener: PsecCommand, address: string, peerId: string }> {
    const listener = start('listen', '--json', '--listen', LOOPBACK, ...args)
    const { multiaddrs: [address], peerId } = await listener.event('listening')

    return { listener, address, peerId }
  }

  /** The address of a node that knows none of the command's protocols */
  async function listenWithout (): Promise<string> {
    const node = await createNode()

    return withPsec(node.getMultiaddrs()[0])
  }

  before(async () => {
    stranger = await createLibp2p({ transports: [psec()] })
  })

  after(async () => {
    await stranger.stop()
  })

  beforeEach(async () => {
    running = []
    folder = await mkdtemp(join(tmpdir(), 'psec-cli-test-'))
  })

  afterEach(async () => {
    for (const command of running) {
      command.kill('SIGKILL')
      await command.exit()
    }

    await stopNodes()
    await rm(folder, { recursive: true, force: true })
  })

  describe('usage', () => {
    for (const args of [
      [],
      ['nonsense'],
      ['toString'],
      ['listen', '--nonsense'],
      ['listen', 'argument'],
      ['listen', '--listen', '/ip4/127.0.0.1/tcp/0'],
      ['listen', '--listen', 'nonsense'],
      ['listen', '--listen', '/dns4/localhost/udp/0/psec'],
      ['listen', '--schemes', 'nonsense'],
      ['listen', '--schemes', ''],
      ['listen', '--out', ''],
      ['ping'],
      ['ping', 'nonsense'],
      ['ping', '/ip4/127.0.0.1/tcp/4001'],
      ['ping', '/ip4/127.0.0.1/udp/4001/psec', '-c', '0'],
      ['ping', '/ip4/127.0.0.1/udp/4001/psec', '-c', '1.5'],
      ['ping', '/ip4/127.0.0.1/udp/4001/psec', 'argument'],
      ['send'],
      ['send', '/ip4/127.0.0.1/udp/4001/psec'],
      ['send', '/ip4/127.0.0.1/udp/4001/psec', 'file', '--datagrams', '-1'],
      ['decode', 'nonsense'],
      ['decode', '123'],
      ['decode', '']
    ]) {
      it(`exits with 2 for: psec ${args.map(arg => arg === '' ? '\'\'' : arg).join(' ')}`, async () => {
        const command = await run(...args)

        expect(command.status).to.equal(2)
        expect(command.stderr).to.match(/^psec: UsageError: /)
        expect(command.lines).to.be.empty()
      })
    }

    it('says that a scheme is not in this version, and which are', async () => {
      const command = await run('listen', '--schemes', 'quic-datagram,noise')

      expect(command.status).to.equal(2)
      expect(command.stderr).to.include('"noise" is not in this version').and.include('quic-datagram, dtls')
    })

    it('says what to listen on instead of a name', async () => {
      const command = await run('listen', '--listen', LOOPBACK, '--listen', '/dns/example.org/udp/4001/psec')

      expect(command.status).to.equal(2)
      expect(command.stderr).to.include('/dns/example.org/udp/4001/psec').and.include('/ip4/127.0.0.1/udp/0/psec')
    })

    it('explains itself', async () => {
      const command = await run('--help')

      expect(command.status).to.equal(0)
      expect(command.lines.join('\n')).to.include('listen').and.include('ping').and.include('send').and.include('decode')
    })

    for (const name of ['listen', 'ping', 'send', 'decode']) {
      it(`explains ${name}`, async () => {
        const command = await run(name, '--help')

        expect(command.status).to.equal(0)
        expect(command.lines[0]).to.match(new RegExp(`^psec ${name} `))
      })
    }

    it('knows its version', async () => {
      const { version } = JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8'))
      const command = await run('--version')

      expect(command.status).to.equal(0)
      expect(command.lines).to.deep.equal([version])
    })
  })

  describe('decode', () => {
    const accept = toString(encodeFrame({ type: 'accept', scheme: QUIC_DATAGRAM }), 'base16')

    it('dissects a proposal', async () => {
      const peerId = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
      const proposal = encodeFrame({
        type: 'propose',
        peerId: peerId.toMultihash().bytes,
        schemes: [QUIC_DATAGRAM, '/other/1.0.0'],
        initiationPacket: Uint8Array.of(0xc0, 0x01)
      })
      const command = await run('decode', '--json', toString(proposal, 'base16'))

      expect(command.status).to.equal(0)
      expect(command.events).to.deep.equal([{
        event: 'frame',
        type: 'propose',
        peerId: peerId.toString(),
        schemes: [QUIC_DATAGRAM, '/other/1.0.0'],
        initiationPacket: 'c001'
      }])
    })

    it('dissects an accept', async () => {
      const command = await run('decode', '--json', accept)

      expect(command.status).to.equal(0)
      expect(command.events).to.deep.equal([{
        event: 'frame',
        type: 'accept',
        peerId: null,
        schemes: [QUIC_DATAGRAM],
        initiationPacket: null
      }])
    })

    it('dissects a reject', async () => {
      const command = await run('decode', '--json', 'ff')

      expect(command.status).to.equal(0)
      expect(command.events).to.deep.equal([{
        event: 'frame',
        type: 'reject',
        peerId: null,
        schemes: [],
        initiationPacket: null
      }])
    })

    it('reads stdin, in the forms in which tools print bytes', async () => {
      const command = start('decode', '--json')
      command.stdin.end(`0x${accept.slice(0, 8)} ${accept.slice(8, 14).toUpperCase()}\n${accept.slice(14, 16)}:${accept.slice(16)}\n`)

      expect(await command.exit()).to.equal(0)
      expect((await command.event('frame')).schemes).to.deep.equal([QUIC_DATAGRAM])
    })

    it('says what is wrong with an invalid frame, and exits with 1', async () => {
      const command = await run('decode', '--json', `${accept}00`)

      expect(command.status).to.equal(1)
      expect(command.stderr).to.match(/^psec: InvalidFrameError: /)
      expect(command.events).to.have.lengthOf(1)
      expect(command.events[0]).to.include({ event: 'error', name: 'InvalidFrameError', reason: 'trailingBytes' })
    })

    it('prints for people what cannot drive their terminal', async () => {
      const command = await run('decode', toString(encodeFrame({ type: 'accept', scheme: '/\u001b[2J\u009b2J/1' }), 'base16'))

      expect(command.status).to.equal(0)
      // eslint-disable-next-line no-control-regex
      expect(command.lines.join('')).to.include('[2J').and.not.match(/[\u0000-\u001f\u007f-\u009f]/)
    })

    it('stops reading at more than a datagram', async () => {
      const command = start('decode')
      command.stdin.on('error', () => {})
      command.stdin.end('ff'.repeat(1024 * 1024))

      expect(await command.exit()).to.equal(2)
    })

    it('can be interrupted while it waits for input', async () => {
      const interrupt = new AbortController()
      const stdin = new PassThrough()
      const stderr = new PassThrough()
      const status = main(['decode'], { stdin, stdout: new PassThrough(), stderr, signal: interrupt.signal })
      stdin.write('ff')
      interrupt.abort()

      expect(await status).to.equal(1)
      expect(stderr.read().toString()).to.match(/^psec: AbortError: /)
      expect(stdin.destroyed).to.be.true()
    })
  })

  describe('listen', () => {
    it('prints addresses to be dialled as they are', async () => {
      const { listener, address, peerId } = await listen()

      expect(await listener.event('listening')).to.have.all.keys('event', 'peerId', 'multiaddrs')
      expect(address).to.match(new RegExp(`^/ip4/127\\.0\\.0\\.1/udp/[1-9]\\d*/psec/p2p/${peerId}$`))
    })

    it('listens on several addresses', async () => {
      const { listener } = await listen('--listen', LOOPBACK)

      expect((await listener.event('listening')).multiaddrs).to.have.lengthOf(2)
    })

    it('listens on every interface unless told otherwise', async () => {
      const listener = start('listen', '--json')
      const { multiaddrs } = await listener.event('listening')

      expect(multiaddrs).to.not.be.empty()
      expect(multiaddrs.every((ma: string) => ma.startsWith('/ip4/') && !ma.includes('0.0.0.0'))).to.be.true()
    })

    it('has the identity of its key file', async () => {
      const key = await generateKeyPair('Ed25519')
      await writeFile(join(folder, 'key'), privateKeyToProtobuf(key))
      const { peerId } = await listen('--key', join(folder, 'key'))

      expect(peerId).to.equal(peerIdFromPrivateKey(key).toString())
    })

    it('names the error if the key file is not there', async () => {
      const command = await run('listen', '--key', join(folder, 'key'))

      expect(command.status).to.equal(1)
      expect(command.stderr).to.match(/^psec: LocalFileError: /)
    })

    it('names the error if the key file holds no key', async () => {
      await writeFile(join(folder, 'key'), 'nonsense')
      const command = await run('listen', '--key', join(folder, 'key'))

      expect(command.status).to.equal(1)
      expect(command.stderr).to.match(/^psec: LocalFileError: /)
    })

    it('names the error if the port is taken', async () => {
      const { address } = await listen()
      const command = await run('listen', '--listen', address.replace(/\/p2p\/.*/, ''))

      expect(command.status).to.equal(1)
      expect(command.stderr).to.match(/^psec: AddressInUseError: /)
    })

    it('names the error if the folder for files can\'t be one', async () => {
      await writeFile(join(folder, 'file'), '')
      const command = await run('listen', '--listen', LOOPBACK, '--out', join(folder, 'file'))

      expect(command.status).to.equal(1)
      expect(command.stderr).to.match(/^psec: LocalFileError: /)
    })

    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      it(`ends cleanly by ${signal}`, async () => {
        const { listener } = await listen()
        listener.kill(signal)

        expect(await listener.exit()).to.equal(0)
        expect(listener.stderr).to.equal('')
      })
    }

    it('ends cleanly with a connection open', async () => {
      const { listener, address } = await listen()
      const pinging = start('ping', '--json', address, '-c', '1000')
      await pinging.event('pong')
      listener.kill('SIGINT')

      expect(await listener.exit()).to.equal(0)
    })

    it('says what to do instead of listening as another peer', async () => {
      const command = await run('listen', '--listen', `${LOOPBACK}/p2p/${STRANGER}`)

      expect(command.status).to.equal(2)
      expect(command.stderr).to.match(/^psec: UsageError: .*--key/)
    })

    it('fails when its output can\'t be written', async function () {
      if (!existsSync('/dev/full')) {
        this.skip()
      }

      const command = new PsecCommand(['listen', '--listen', LOOPBACK], 'exec > /dev/full')
      running.push(command)

      expect(await command.exit()).to.equal(1)
      expect(command.stderr).to.match(/^psec: LocalFileError: Can't write the output/).and.not.include('    at ')
    })

    it('goes on when its errors can\'t be written', async function () {
      if (!existsSync('/dev/full')) {
        this.skip()
      }

      const listener = new PsecCommand(['listen', '--json', '--listen', LOOPBACK], 'exec 2> /dev/full')
      running.push(listener)
      const { multiaddrs: [address] } = await listener.event('listening')
      const path = join(folder, 'file')
      await writeFile(path, '')

      expect((await run('send', address, path)).status).to.equal(1)
      await listener.event('error')
      expect((await run('ping', address, '-c', '1')).status).to.equal(0)
      listener.kill('SIGINT')
      expect(await listener.exit()).to.equal(0)
    })

    it('ends when nobody reads its output any more', async () => {
      const { listener, address } = await listen()
      listener.closeStdout()
      // it writes about a connection, and finds out
      await start('ping', '--json', address, '-c', '1').event('connection')

      expect(await listener.exit()).to.equal(0)
    })
  })

  describe('ping', () => {
    it('reports the connection, every pong and a summary', async () => {
      const { listener, address, peerId } = await listen()
      const ping = await run('ping', '--json', address, '-c', '2')

      expect(ping.stderr).to.equal('')
      expect(ping.status).to.equal(0)
      expect(ping.events.map(({ event }) => event)).to.deep.equal(['connection', 'pong', 'pong', 'summary'])

      const [connection, first, second, summary] = ping.events

      expect(connection).to.include({ remotePeer: peerId, scheme: QUIC_DATAGRAM, role: 'initiator', simultaneous: false, confirmed: true })
      expect(multiaddr(connection.remoteAddr).toString()).to.include('/udp/')
      expect(connection.dialMs).to.be.greaterThan(0)
      expect(connection.securedMs).to.be.at.least(connection.agreedMs)
      expect(first).to.have.all.keys('event', 'seq', 'ms')
      expect(first).to.include({ seq: 1 })
      expect(second).to.include({ seq: 2 })
      expect(summary).to.include({ sent: 2, received: 2, minMs: Math.min(first.ms, second.ms), maxMs: Math.max(first.ms, second.ms) })
      expect(summary.medianMs).to.be.closeTo((first.ms + second.ms) / 2, 0.001)

      expect(await listener.event('connection')).to.include({ scheme: QUIC_DATAGRAM, role: 'responder', simultaneous: false, confirmed: true })
      expect(await listener.event('closed')).to.include({ remotePeer: (await listener.event('connection')).remotePeer })
    })

    it('reports to people, too', async () => {
      const { address, peerId } = await listen()
      const ping = await run('ping', address, '-c', '1', '--schemes', 'quic-datagram')

      expect(ping.status).to.equal(0)
      expect(ping.lines.join('\n')).to.include(peerId).and.include(QUIC_DATAGRAM).and.include('1 of 1 pings answered')
    })

    it('finds an address without /psec and /p2p', async () => {
      const { address } = await listen()
      const ping = await run('ping', '--json', address.replace(/\/psec.*/, ''), '-c', '1')

      expect(ping.status).to.equal(0)
    })

    it('names the error if somebody else is there', async () => {
      const { address } = await listen()
      const ping = await run('ping', address.replace(/[^/]*$/, STRANGER), '-c', '1')

      expect(ping.status).to.equal(1)
      expect(ping.stderr).to.match(/^psec: UnexpectedPeerError: /)
    })

    it('names the error if nobody is there', async () => {
      const { listener, address } = await listen()
      listener.kill('SIGINT')
      await listener.exit()
      const ping = await run('ping', '--json', address, '-c', '1')

      expect(ping.status).to.equal(1)
      expect(ping.stderr).to.match(/^psec: NoAnswerError: /)
      expect(await ping.event('error')).to.include({ name: 'NoAnswerError' })
    })

    it('ends with a summary, and an error, when the node goes away', async () => {
      const { listener, address } = await listen()
      const ping = start('ping', '--json', address, '-c', '1000')
      await ping.event('pong')
      listener.kill('SIGINT')

      expect(await ping.exit()).to.equal(1)
      expect((await ping.event('summary')).received).to.be.at.least(1)
      expect(await ping.event('error')).to.include({ name: 'ConnectionClosedError' })
    })

    it('names the error if the node answers no pings', async () => {
      const ping = await run('ping', await listenWithout(), '-c', '1')

      expect(ping.status).to.equal(1)
      expect(ping.stderr).to.match(/^psec: UnsupportedProtocolError: .*no pings/)
    })

    it('does not take its own key for that of the node', async () => {
      await writeFile(join(folder, 'key'), privateKeyToProtobuf(await generateKeyPair('Ed25519')))
      const { address } = await listen('--key', join(folder, 'key'))
      const ping = await run('ping', address, '--key', join(folder, 'key'))

      expect(ping.status).to.equal(2)
      expect(ping.stderr).to.match(/^psec: UsageError: .*--key/)
    })

    it('ends with a summary by SIGINT', async () => {
      const { address } = await listen()
      const ping = start('ping', '--json', address, '-c', '1000')
      await ping.event('pong')
      ping.kill('SIGINT')

      expect(await ping.exit()).to.equal(0)

      const { sent, received } = await ping.event('summary')

      expect(received).to.equal(ping.events.filter(({ event }) => event === 'pong').length)
      // one may have been under way
      expect(sent).to.be.within(received, received + 1)
    })
  })

  describe('echo', () => {
    it('sends back what comes on a stream, and ends when that does', async () => {
      const { address } = await listen()
      const stream = await stranger.dialProtocol(multiaddr(address), '/echo/1.0.0')
      const sent = randomBytes(2_000_000)
      const received: Uint8Array[] = []
      const ended = new Promise(resolve => { stream.addEventListener('end', resolve) })
      stream.addEventListener('message', (evt) => { received.push(evt.data.subarray()) })
      stream.send(sent)
      await stream.close()
      await ended

      expect(Buffer.concat(received)).to.equalBytes(sent)
    })

    it('holds back who sends without reading, until they read', async () => {
      const { address } = await listen()
      const stream = await stranger.dialProtocol(multiaddr(address), '/echo/1.0.0')
      let sent = 0
      // more than all the buffers on the way there and back hold
      const limit = 256 * 1024 * 1024
      stream.addEventListener('message', () => {})
      stream.pause()

      while (sent < limit) {
        sent += 65536

        if (!stream.send(new Uint8Array(65536)) && !await drainsWithin(stream, 1000)) {
          break
        }
      }

      expect(sent).to.be.lessThan(limit)
      stream.resume()
      await once(stream, 'drain')
      stream.abort(new Error('Enough'))
    })

    async function drainsWithin (stream: Stream, ms: number): Promise<boolean> {
      return once(stream, 'drain', { signal: AbortSignal.timeout(ms) }).then(() => true, () => false)
    }
  })

  describe('send', () => {
    async function makeFile (name: string, size: number): Promise<{ path: string, sha256: string, content: Uint8Array }> {
      const path = join(folder, name)
      const content = randomBytes(size)
      await writeFile(path, content)

      return { path, content, sha256: createHash('sha256').update(content).digest('hex') }
    }

    async function makeInbox (): Promise<string> {
      const inbox = join(folder, 'inbox')
      await mkdir(inbox)

      return inbox
    }

    it('sends a file, of which both sides report the same', async () => {
      const inbox = await makeInbox()
      const { listener, address } = await listen('--out', inbox)
      const { path, sha256, content } = await makeFile('photo.jpg', 3_000_001)
      const send = await run('send', '--json', address, path)

      expect(send.stderr).to.equal('')
      expect(send.status).to.equal(0)

      const progress = await send.event('progress')
      const sent = await send.event('sent')
      const file = await listener.event('file')

      expect(progress).to.have.all.keys('event', 'name', 'bytes', 'total')
      expect(progress).to.include({ name: 'photo.jpg', total: content.byteLength })
      expect(progress.bytes).to.be.greaterThan(0).and.at.most(content.byteLength)
      expect(sent).to.have.all.keys('event', 'name', 'bytes', 'sha256', 'ms')
      expect(sent).to.include({ name: 'photo.jpg', bytes: content.byteLength, sha256 })
      expect(file).to.deep.equal({
        event: 'file',
        name: 'photo.jpg',
        bytes: content.byteLength,
        sha256,
        from: (await listener.event('connection')).remotePeer
      })
      expect(send.events[0]).to.have.property('event', 'connection')
      expect(await readdir(inbox)).to.deep.equal(['photo.jpg'])
      expect(await readFile(join(inbox, 'photo.jpg'))).to.equalBytes(content)
    })

    describe('to a terminal', () => {
      const COLUMNS = 40

      // what replaces the line that is shown
      const ERASE = '\r\u001b[K'

      async function sendTo (terminal: Partial<OutputStream>, ...args: string[]): Promise<{ shown: string[], left: string[], written: string }> {
        const { address } = await listen('--out', await makeInbox())
        const { path } = await makeFile('photo.jpg', 1_000_000)
        const output = Object.assign(new PassThrough(), terminal)
        const status = await main(['send', address, path, ...args], { stdin: new PassThrough(), stdout: output, stderr: output, signal: new AbortController().signal })
        const written = output.read().toString()
        const lines: string[][] = written.split('\n').map((line: string) => line.split(ERASE))

        expect(status).to.equal(0)

        return {
          written,
          shown: lines.flatMap(states => states.slice(0, -1)).filter(text => text !== ''),
          left: lines.map(states => states.at(-1) ?? '')
        }
      }

      it('draws a progress bar on one line, and removes it', async () => {
        const { shown, left } = await sendTo({ isTTY: true, columns: COLUMNS })

        expect(shown.some(text => /^[█░]{24} +\d+ % /.test(text)), shown.join('\n')).to.be.true()
        // a line that is full may wrap
        expect(Math.max(...shown.map(text => text.length))).to.be.lessThan(COLUMNS)
        expect(left.map(line => line.trim().split(' ')[0])).to.deep.equal(['Connected', 'peer', 'address', 'scheme', 'took', 'Sent', 'SHA-256', ''])
      })

      it('draws none if it is no terminal', async () => {
        const { shown, written } = await sendTo({ columns: COLUMNS })

        expect(shown).to.be.empty()
        expect(written).to.include('Sent photo.jpg').and.not.include(ERASE).and.not.match(/[█░]/)
      })

      it('draws none among JSON', async () => {
        const { shown, written } = await sendTo({ isTTY: true, columns: COLUMNS }, '--json')

        expect(shown).to.be.empty()
        expect(written.trim().split('\n').map(line => JSON.parse(line).event)).to.include.members(['connection', 'progress', 'sent'])
      })
    })

    for (const { name, protocol, shortName } of schemes) {
      it(`sends by ${name} if that is what --schemes says`, async () => {
        const { listener, address } = await listen('--out', await makeInbox(), '--schemes', shortName)
        const { path, sha256 } = await makeFile('photo.jpg', 3_000_001)
        const send = await run('send', '--json', address, path, '--schemes', shortName)

        expect(send.stderr).to.equal('')
        expect(await send.event('connection')).to.include({ scheme: protocol, role: 'initiator', confirmed: true })
        expect(await send.event('sent')).to.include({ sha256 })
        expect(await listener.event('connection')).to.include({ scheme: protocol, role: 'responder', confirmed: true })
        expect(await listener.event('file')).to.include({ sha256 })
      })
    }

    it('offers the schemes in the order of --schemes', async () => {
      const { address } = await listen('--out', await makeInbox(), '--schemes', schemes.map(({ shortName }) => shortName).join(','))
      const { path } = await makeFile('file', 100)

      for (const offered of [schemes, [...schemes].reverse()]) {
        const send = await run('send', '--json', address, path, '--schemes', offered.map(({ shortName }) => shortName).join(','))

        expect(await send.event('connection')).to.have.property('scheme', offered[0].protocol)
      }
    })

    it('sends several files, empty ones, too', async () => {
      const inbox = await makeInbox()
      const { address } = await listen('--out', inbox)
      const files = [await makeFile('a', 10), await makeFile('b', 0), await makeFile('c', 70_000)]
      const send = await run('send', '--json', address, ...files.map(file => file.path))

      expect(send.status).to.equal(0)
      expect(send.events.filter(({ event }) => event === 'sent').map(({ sha256 }) => sha256)).to.deep.equal(files.map(file => file.sha256))
      expect((await readdir(inbox)).sort()).to.deep.equal(['a', 'b', 'c'])
    })

    it('never replaces a file', async () => {
      const inbox = await makeInbox()
      await writeFile(join(inbox, 'report.pdf'), 'mine')
      const { listener, address } = await listen('--out', inbox)
      const { path, content } = await makeFile('report.pdf', 100)

      expect((await run('send', address, path)).status).to.equal(0)
      expect(await listener.event('file')).to.include({ name: 'report-1.pdf' })
      expect(await readFile(join(inbox, 'report.pdf'), 'utf8')).to.equal('mine')
      expect(await readFile(join(inbox, 'report-1.pdf'))).to.equalBytes(content)
    })

    it('is refused by a node without a folder for files', async () => {
      const { listener, address } = await listen()
      const { path } = await makeFile('file', 100)
      const send = await run('send', address, path)

      expect(send.status).to.equal(1)
      expect(send.stderr).to.match(/^psec: FileRefusedError: .*--out/)
      expect(await listener.event('error')).to.include({ name: 'FileRefusedError' })
      expect(listener.events.some(({ event }) => event === 'file')).to.be.false()
    })

    it('is refused by a node that knows no files', async () => {
      const { path } = await makeFile('file', 100)
      const send = await run('send', await listenWithout(), path)

      expect(send.status).to.equal(1)
      expect(send.stderr).to.match(/^psec: FileRefusedError: .*does not speak/)
    })

    it('looks at all of its files before it dials', async () => {
      const { address } = await listen('--out', await makeInbox())
      const { path } = await makeFile('file', 100)
      const send = await run('send', '--json', address, path, join(folder, 'nothing'))

      expect(send.status).to.equal(1)
      expect(send.events.map(({ event }) => event)).to.deep.equal(['error'])
      expect(await readdir(join(folder, 'inbox'))).to.be.empty()
    })

    it('does not wait for somebody to write to a pipe', async function () {
      if (process.platform === 'win32') {
        this.skip()
      }

      await promisify(execFile)('mkfifo', [join(folder, 'pipe')])
      const { address } = await listen('--out', await makeInbox())
      const send = await run('send', address, join(folder, 'pipe'))

      expect(send.status).to.equal(1)
      expect(send.stderr).to.match(/^psec: LocalFileError: .*not a regular file/)
    })

    it('prints names that cannot drive a terminal', async function () {
      if (process.platform === 'win32') {
        this.skip()
      }

      const { address } = await listen('--out', await makeInbox())
      const { path } = await makeFile('a\u001b[31m', 100)
      const send = await run('send', address, path)

      expect(send.status).to.equal(0)
      expect(send.lines.join('')).to.include('Sent a\ufffd[31m').and.not.include('\u001b')
    })

    it('names the error if a file is not there', async () => {
      const { address } = await listen('--out', await makeInbox())
      const send = await run('send', address, join(folder, 'nothing'))

      expect(send.status).to.equal(1)
      expect(send.stderr).to.match(/^psec: LocalFileError: /)
    })

    it('names the error if a file is a folder', async () => {
      const { address } = await listen('--out', await makeInbox())
      const send = await run('send', address, folder)

      expect(send.status).to.equal(1)
      expect(send.stderr).to.match(/^psec: LocalFileError: /)
    })

    it('is refused, without a word about the folder, if the receiver can\'t store the file', async () => {
      const inbox = await makeInbox()
      const { listener, address } = await listen('--out', inbox)
      await rm(inbox, { recursive: true })
      const { path } = await makeFile('file', 100)
      const send = await run('send', address, path)

      expect(send.status).to.equal(1)
      expect(send.stderr).to.match(/^psec: FileRefusedError: /).and.not.include(inbox)
      await listener.until(() => listener.stderr.includes('LocalFileError'), 'a word about it')
    })

    it('is told if the receiver runs out of space', async function () {
      if (process.platform === 'win32') {
        this.skip()
      }

      const inbox = await makeInbox()
      // files of more than 32 KiB can't be written, which is an error like a full disk's, not a signal's end of the
      // process
      const listener = new PsecCommand(['listen', '--json', '--listen', LOOPBACK, '--out', inbox], 'ulimit -f 64; trap "" XFSZ')
      running.push(listener)
      const { multiaddrs: [address] } = await listener.event('listening')
      const { path } = await makeFile('file', 3_000_000)
      const send = await run('send', address, path)

      expect(send.status).to.equal(1)
      expect(send.stderr).to.match(/^psec: FileTransferError: /).and.not.include(inbox)
      await listener.until(() => listener.stderr.includes('LocalFileError'), 'a word about it')
      expect(await readdir(inbox)).to.be.empty()
    })

    it('names the error if the receiver goes away', async () => {
      const { listener, address } = await listen('--out', await makeInbox())
      // a file of holes, which takes no space but a while to send
      const path = join(folder, 'large')
      await writeFile(path, '')
      await truncate(path, 4 * 1024 ** 3)
      const send = start('send', '--json', address, path)
      await send.event('progress')
      listener.kill('SIGINT')

      expect(await send.exit()).to.equal(1)
      expect(send.stderr).to.match(/^psec: FileTransferError: /)
      await listener.exit()
      expect(await readdir(join(folder, 'inbox'))).to.be.empty()
    })

    it('plays datagrams beside the file, and counts them', async () => {
      const { listener, address } = await listen('--out', await makeInbox())
      const { path } = await makeFile('file', 100)
      const send = await run('send', '--json', address, path, '--datagrams', '100')

      expect(send.status).to.equal(0)

      const played = await send.event('datagrams')
      const counted = await listener.event('datagrams')

      expect(played.sent).to.be.greaterThan(0)
      expect(played.echoed).to.be.greaterThan(0).and.at.most(played.sent)
      expect(counted).to.have.all.keys('event', 'received', 'echoed', 'from')
      expect(counted.received).to.be.at.least(played.echoed)
    })

    it('fails by SIGINT', async () => {
      const { listener, address } = await listen('--out', await makeInbox())
      const { path } = await makeFile('file', 1024)
      // playing goes on for at least two seconds after the file
      const send = start('send', '--json', address, path, '--datagrams', '10')
      await send.event('sent')
      send.kill('SIGINT')

      expect(await send.exit()).to.equal(1)
      expect(send.stderr).to.match(/^psec: AbortError: /)
      await listener.event('closed')
    })

    describe('to a stranger', () => {
      async function offer (address: string, header: string, content: Uint8Array): Promise<Array<Record<string, unknown>>> {
        const stream = await stranger.dialProtocol(multiaddr(address), '/psec/file/1.0.0')
        const messages = lpStream(stream)
        const answers: Array<Record<string, unknown>> = []
        const read = async (): Promise<void> => {
          answers.push(JSON.parse(toString((await messages.read({ signal: AbortSignal.timeout(10_000) })).subarray())))
        }

        await messages.write(new TextEncoder().encode(header))
        await read()

        if (answers[0].status === 'ready') {
          stream.send(content)
          await stream.close()
          await read()
        }

        return answers
      }

      it('keeps files in the folder, and visible, whatever they are called', async () => {
        const inbox = await makeInbox()
        const { address } = await listen('--out', inbox)

        for (const name of ['../../escape', '/etc/absolute', '.hidden', '..', '', 'a\u0000b', '..\\windows']) {
          const [, result] = await offer(address, JSON.stringify({ name, size: 1 }), Uint8Array.of(1))
          expect(result).to.include({ status: 'received', bytes: 1 })
        }

        expect((await readdir(inbox)).sort()).to.deep.equal(['_', '_hidden', 'a_b', 'absolute', 'escape', 'unnamed', 'windows'])
        expect((await readdir(folder)).sort()).to.deep.equal(['inbox'])
      })

      it('removes what is shorter than announced', async () => {
        const inbox = await makeInbox()
        const { listener, address } = await listen('--out', inbox)
        const [, result] = await offer(address, '{"name":"short","size":10}', Uint8Array.of(1))

        expect(result).to.include({ status: 'failed' })
        await listener.until(() => listener.stderr.includes('FileTransferError'), 'a word about it')
        expect(await readdir(inbox)).to.be.empty()
      })

      it('removes what is longer than announced', async () => {
        const inbox = await makeInbox()
        const { listener, address } = await listen('--out', inbox)
        const [, result] = await offer(address, '{"name":"long","size":1}', Uint8Array.of(1, 2))

        expect(result).to.include({ status: 'failed' })
        await listener.until(() => listener.stderr.includes('FileTransferError'), 'a word about it')
        expect(await readdir(inbox)).to.be.empty()
      })

      it('removes what breaks off', async () => {
        const inbox = await makeInbox()
        const { listener, address } = await listen('--out', inbox)
        const stream = await stranger.dialProtocol(multiaddr(address), '/psec/file/1.0.0')
        const messages = lpStream(stream)
        await messages.write(new TextEncoder().encode('{"name":"broken","size":10}'))
        await messages.read()
        stream.send(Uint8Array.of(1))
        stream.abort(new Error('Broken off'))

        const error = await listener.event('error')

        expect(error.name).to.equal('FileTransferError')
        expect(error.message).to.match(/^broken broke off after [01] of 10 bytes/)
        expect(listener.stderr).to.include('was not received')
        expect(await readdir(inbox)).to.be.empty()
      })

      for (const header of ['nonsense', 'null', '{}', '{"name":"a"}', '{"name":"a","size":-1}', '{"name":"a","size":1.5}', '{"name":1,"size":1}']) {
        it(`gets nowhere with the header ${header}`, async () => {
          const inbox = await makeInbox()
          const { listener, address } = await listen('--out', inbox)

          await expect(offer(address, header, Uint8Array.of(1))).to.eventually.be.rejected()
          await listener.until(() => listener.stderr.includes('FileTransferError'), 'a word about it')
          expect(await readdir(inbox)).to.be.empty()
        })
      }
    })
  })

  describe('names of received files', () => {
    for (const [name, safe] of [
      ['plain.txt', 'plain.txt'],
      ['Überraschung.txt', 'Überraschung.txt'],
      ['a/b/c', 'c'],
      ['a\\b', 'b'],
      ['a/', 'unnamed'],
      ['.', '_'],
      ['...rc', '_rc'],
      [' .hidden', '_hidden'],
      [' .rc', '_rc'],
      ['-rf', '_rf'],
      [' --help', '_-help'],
      ['trailing. . ', 'trailing'],
      [`${'a'.repeat(199)} ${'b'.repeat(20)}`, 'a'.repeat(199)],
      ['what?*', 'what__'],
      ['gpj.\u202eexe', 'gpj._exe'],
      ['\ud800', '\ufffd']
    ]) {
      it(`are made safe: ${JSON.stringify(name)}`, () => {
        expect(safeName(name)).to.equal(safe)
      })
    }

    it('are shortened, without their extension', () => {
      const name = safeName(`${'ü'.repeat(300)}.jpeg`)

      expect(Buffer.byteLength(name)).to.be.at.most(200)
      expect(name).to.match(/^ü+\.jpeg$/)
    })

    it('are numbered before their extension', () => {
      expect(numberedName('a.b.c', 0)).to.equal('a.b.c')
      expect(numberedName('a.b.c', 2)).to.equal('a.b-2.c')
      expect(numberedName('abc', 1)).to.equal('abc-1')
    })
  })
})
