/**
 * What a `SecurityScheme` promises, as tests: for any scheme, over any packet sockets that lose nothing
 */
import { createHash, randomBytes } from 'node:crypto'
import { expect } from 'aegir/chai'
import { Uint8ArrayList } from 'uint8arraylist'
import { equals } from 'uint8arrays/equals'
import { eventually } from './fixtures/eventually.ts'
import { SessionProbe, StreamProbe } from './fixtures/probes.ts'
import { acceptUpgrades, createPsecPeer } from './fixtures/psec-peer.ts'
import type { PsecPeer } from './fixtures/psec-peer.ts'
import type { ChannelBinding, SecureStream, SecurityScheme } from '../src/schemes/index.ts'
import type { PacketEndpoint, PacketSocket } from '../src/sockets/index.ts'
import type { SecuredSocket } from '../src/upgrader/index.ts'

export interface SchemeContractFixture {
  scheme: SecurityScheme

  /**
   * Two open ports that reach each other at their `localAddress`. Closed by the suite.
   */
  dialer: PacketEndpoint
  listener: PacketEndpoint

  /**
   * What else is to be freed after a test
   */
  teardown? (): void | Promise<void>
}

/** What may still arrive after `pause`, by the contract */
const MAX_AFTER_PAUSE = 512 * 1024
/** What a sender may be allowed to queue beyond that before it is told to wait, generously: the point is that there is a limit */
const MAX_SEND_QUEUE = 8 * 1024 * 1024
/** Where the search for a stream limit ends */
const MAX_STREAMS = 2_000

export function schemeContract (name: string, setup: () => SchemeContractFixture | Promise<SchemeContractFixture>): void {
  describe(`${name}: the contract of a security scheme`, () => {
    let fixture: SchemeContractFixture
    let initiator: PsecPeer
    let responder: PsecPeer
    let socket: PacketSocket
    let dialed: SecuredSocket
    let accepted: SecuredSocket

    beforeEach(async () => {
      fixture = await setup()
      initiator = await createPsecPeer({ schemes: [fixture.scheme] })
      responder = await createPsecPeer({ schemes: [fixture.scheme] })

      const inbound = Promise.withResolvers<SecuredSocket>()
      acceptUpgrades(fixture.listener, responder, inbound.resolve)
      socket = fixture.dialer.connect(fixture.listener.localAddress)
      dialed = await initiator.upgrader.upgradeOutbound(socket, { signal: AbortSignal.timeout(20_000) })
      accepted = await inbound.promise
    })

    afterEach(async () => {
      dialed?.session.abort(new Error('The test is over'))
      accepted?.session.abort(new Error('The test is over'))
      await Promise.all([fixture?.dialer.close(), fixture?.listener.close()])
      await fixture?.teardown?.()
    })

    /** Both sides, started */
    function start (options: { onStream?(probe: StreamProbe): void } = {}): { local: SessionProbe, remote: SessionProbe } {
      return { local: new SessionProbe(dialed.session), remote: new SessionProbe(accepted.session, options) }
    }

    /** A stream and its other end, with a byte sent to make the remote see it */
    async function openPair (from: SessionProbe, to: SessionProbe): Promise<[StreamProbe, StreamProbe]> {
      const index = to.streams.length
      const near = await from.open()
      near.stream.send(Uint8Array.of(0))
      const far = await to.stream(index)
      await far.bytes(1)

      return [near, far]
    }

    /** Round trips enough for anything under way to arrive */
    async function exchange (near: StreamProbe, far: StreamProbe, rounds: number = 10): Promise<void> {
      for (let i = 0; i < rounds; i++) {
        const there = far.received.byteLength + 1
        const back = near.received.byteLength + 1
        near.stream.send(Uint8Array.of(i))
        await far.bytes(there)
        far.stream.send(Uint8Array.of(i))
        await near.bytes(back)
      }
    }

    describe('session', () => {
      it('authenticates each side to the other', () => {
        expect(dialed.session.remotePeer.equals(responder.peerId)).to.be.true()
        expect(accepted.session.remotePeer.equals(initiator.peerId)).to.be.true()
      })

      it('is bound to one channel, if at all: each side names the keys of both', () => {
        const [near, far] = [dialed.session.binding, accepted.session.binding]

        expect(near?.local).to.deep.equal(far?.remote)
        expect(near?.remote).to.deep.equal(far?.local)
        expect(near).to.satisfy((binding: ChannelBinding | undefined) => binding == null || !equals(binding.local, binding.remote))
      })

      it('names its scheme and is open', () => {
        expect(dialed.session).to.include({ protocol: fixture.scheme.protocol, status: 'open' })
        expect(accepted.session).to.include({ protocol: fixture.scheme.protocol, status: 'open' })
      })
    })

    describe('streams', () => {
      it('carry bytes both ways, in order', async () => {
        const { local, remote } = start()
        const [near, far] = await openPair(local, remote)

        near.stream.send(Uint8Array.of(1, 2, 3))
        near.stream.send(Uint8Array.of(4))
        far.stream.send(Uint8Array.of(5, 6))

        expect(await far.bytes(5)).to.equalBytes(Uint8Array.of(0, 1, 2, 3, 4))
        expect(await near.bytes(2)).to.equalBytes(Uint8Array.of(5, 6))
      })

      it('take lists of bytes', async () => {
        const { local, remote } = start()
        const [near, far] = await openPair(local, remote)

        near.stream.send(new Uint8ArrayList(Uint8Array.of(1, 2), Uint8Array.of(3)))

        expect(await far.bytes(4)).to.equalBytes(Uint8Array.of(0, 1, 2, 3))
      })

      it('are opened by either side, with one id on both', async () => {
        const { local, remote } = start()
        const [near, far] = await openPair(local, remote)
        const [backNear, backFar] = await openPair(remote, local)

        expect(near.stream).to.include({ id: far.stream.id, direction: 'outbound' })
        expect(far.stream.direction).to.equal('inbound')
        expect(backNear.stream).to.include({ id: backFar.stream.id, direction: 'outbound' })
        expect(backFar.stream.direction).to.equal('inbound')
        expect(backNear.stream.id).to.not.equal(near.stream.id)
      })

      it('are held until the session is started', async () => {
        const local = new SessionProbe(dialed.session)
        const near = await local.open()
        near.stream.send(Uint8Array.of(7))
        near.stream.closeWrite()
        // another session event has to have overtaken it if it could
        await local.session.openStream()

        const remote = new SessionProbe(accepted.session)
        const far = await remote.stream()
        await far.heard('remoteCloseWrite')

        expect(far.received.slice()).to.equalBytes(Uint8Array.of(7))
      })

      it('deliver nothing before they are started', async () => {
        const local = new SessionProbe(dialed.session)
        const late: StreamProbe[] = []
        const handler = new SessionProbe(accepted.session, { start: false })
        accepted.session.start({
          onStream: (stream) => {
            if (late.length === 0) {
              late.push(new StreamProbe(stream, { start: false }))
            } else {
              handler.onStream(stream)
            }
          },
          onDatagram: () => {},
          onDatagramDrain: () => {},
          onClose: () => {}
        })

        const near = await local.open()
        near.stream.send(Uint8Array.of(1, 2, 3))
        near.stream.closeWrite()
        const [second, secondFar] = await openPair(local, handler)
        await exchange(second, secondFar)

        expect(late[0].events).to.be.empty()

        late[0].stream.start(late[0])
        await late[0].heard('remoteCloseWrite')

        expect(late[0].events).to.deep.equal(['data', 'remoteCloseWrite'])
        expect(late[0].received.slice()).to.equalBytes(Uint8Array.of(1, 2, 3))
      })

      it('go on one way when the other is closed', async () => {
        const { local, remote } = start()
        const [near, far] = await openPair(local, remote)

        near.stream.send(Uint8Array.of(1))
        near.stream.closeWrite()
        await far.heard('remoteCloseWrite')
        expect(far.events).to.deep.equal(['data', 'remoteCloseWrite'])
        expect(far.received.slice()).to.equalBytes(Uint8Array.of(0, 1))

        far.stream.send(Uint8Array.of(2))
        far.stream.closeWrite()
        await near.heard('remoteCloseWrite')
        expect(near.events).to.deep.equal(['data', 'remoteCloseWrite'])
        expect(near.received.slice()).to.equalBytes(Uint8Array.of(2))
      })

      it('can be closed for writing without a byte', async () => {
        const { local, remote } = start()
        const near = await local.open()
        near.stream.closeWrite()
        const far = await remote.stream()
        await far.heard('remoteCloseWrite')

        expect(far.events).to.deep.equal(['remoteCloseWrite'])
      })

      it('refuse to send after closeWrite', async () => {
        const { local, remote } = start()
        const [near] = await openPair(local, remote)
        near.stream.closeWrite()
        near.stream.closeWrite()

        expect(() => near.stream.send(Uint8Array.of(1))).to.throw().with.property('name', 'StreamStateError')
      })

      for (const who of ['opener', 'accepter']) {
        it(`tell the remote of a reset by the ${who}, and no more`, async () => {
          const { local, remote } = start()
          const [near, far] = await openPair(local, remote)
          const [resetting, told] = who === 'opener' ? [near, far] : [far, near]
          const [other, otherFar] = await openPair(local, remote)

          resetting.stream.reset()
          resetting.stream.reset()
          await told.heard('reset')
          const before = resetting.events.length
          await exchange(other, otherFar, 3)

          expect(told.events.filter(event => event === 'reset')).to.have.lengthOf(1)
          expect(told.events.at(-1)).to.equal('reset')
          expect(told.error).to.be.undefined()
          expect(resetting.events).to.have.lengthOf(before)
        })
      }

      it('deliver nothing more once they are reset, whatever was under way', async () => {
        const { local, remote } = start()
        const [near, far] = await openPair(local, remote)
        const [other, otherFar] = await openPair(local, remote)
        far.stream.send(Uint8Array.of(1))
        await near.bytes(1)

        // its end is told later, if at all
        near.stream.closeRead()
        near.stream.reset()
        await exchange(other, otherFar, 3)

        expect(near.events).to.deep.equal(['data'])
      })

      it('deliver nothing if they are reset before they are started', async () => {
        const streams: SecureStream[] = []
        accepted.session.start({
          onStream: (stream) => { streams.push(stream) },
          onDatagram: () => {},
          onDatagramDrain: () => {},
          onClose: () => {}
        })
        const local = new SessionProbe(dialed.session)
        const near = await local.open()
        near.stream.send(Uint8Array.of(1))
        near.stream.closeWrite()
        await eventually(() => streams.length === 1)
        const other = await local.open()
        other.stream.send(Uint8Array.of(0))
        await eventually(() => streams.length === 2)
        await exchange(other, new StreamProbe(streams[1]), 3)

        streams[0].reset()
        const far = new StreamProbe(streams[0])
        await near.heard('reset')

        expect(far.events).to.be.empty()
      })

      it('tell the remote of closeRead, deliver nothing more but the end', async () => {
        const { local, remote } = start()
        const [near, far] = await openPair(local, remote)

        near.stream.closeRead()
        near.stream.closeRead()
        await far.heard('remoteCloseRead')
        far.stream.send(Uint8Array.of(1, 2, 3))
        far.stream.closeWrite()
        await near.heard('remoteCloseWrite')

        expect(near.events).to.deep.equal(['remoteCloseWrite'])
      })

      it('still send after closeRead', async () => {
        const { local, remote } = start()
        const [near, far] = await openPair(local, remote)

        near.stream.closeRead()
        await far.heard('remoteCloseRead')
        near.stream.send(Uint8Array.of(1))
        near.stream.closeWrite()
        await far.heard('remoteCloseWrite')

        expect(far.received.slice()).to.equalBytes(Uint8Array.of(0, 1))
      })

      it('let a waiting sender go when the remote reads no more', async () => {
        const { local, remote } = start({ onStream: (probe) => { probe.stream.pause() } })
        const near = await local.open()
        near.onDrain = () => { fill(near) }
        fill(near)
        const far = await remote.stream()
        near.onDrain = StreamProbe.prototype.onDrain
        const drains = near.drains
        far.stream.closeRead()

        await near.heard('remoteCloseRead')
        await near.until('a drain', () => near.drains > drains)
      })

      it('hold the sender back while the receiver is paused, and nothing else', async () => {
        const { local, remote } = start({
          onStream: (probe) => {
            if (remote.streams.length === 1) {
              probe.stream.pause()
            }
          }
        })
        const near = await local.open()
        let sent = 0
        const send = (): void => { sent += fill(near) }
        near.onDrain = send
        send()
        const far = await remote.stream()
        const [other, otherFar] = await openPair(local, remote)
        await exchange(other, otherFar, 50)

        expect(far.received.byteLength).to.be.at.most(MAX_AFTER_PAUSE)
        expect(sent).to.be.at.most(MAX_AFTER_PAUSE + MAX_SEND_QUEUE)

        const total = sent
        near.onDrain = () => {}
        far.stream.resume()
        await far.bytes(total)
        expect(far.received.byteLength).to.equal(total)
      })

      it('pause and resume any number of times without loss', async () => {
        const { local, remote } = start({
          onStream: (probe) => {
            probe.onDataHook = () => {
              probe.stream.pause()
              setImmediate(() => { probe.stream.resume() })
            }
          }
        })
        const data = randomBytes(512 * 1024)
        const near = await local.open()
        await near.write(data)
        near.stream.closeWrite()
        const far = await remote.stream()
        await far.heard('remoteCloseWrite')

        expect(hash(far.received.slice())).to.equal(hash(data))
      })

      it('carry megabytes both ways at once, unchanged', async () => {
        const { local, remote } = start()
        const [near, far] = await openPair(local, remote)
        const there = randomBytes(8 * 1024 * 1024)
        const back = randomBytes(8 * 1024 * 1024)

        await Promise.all([near.write(there), far.write(back)])
        near.stream.closeWrite()
        far.stream.closeWrite()
        await Promise.all([near.heard('remoteCloseWrite'), far.heard('remoteCloseWrite')])

        expect(hash(far.received.slice(1))).to.equal(hash(there))
        expect(hash(near.received.slice())).to.equal(hash(back))
      })

      it('don\'t mix when there are many', async () => {
        const { local } = start({ onStream: echo })

        await Promise.all(Array.from({ length: 100 }, async (_, i) => {
          const near = await local.open()
          const data = new Uint8Array(3_000).fill(i)
          near.stream.send(data)
          near.stream.closeWrite()
          await near.heard('remoteCloseWrite')
          expect(near.received.slice()).to.equalBytes(data)
        }))
      })

      it('come and go by the thousand', async () => {
        const { local } = start({ onStream: echo })

        for (let i = 0; i < 1_000; i++) {
          const near = await local.open()
          near.stream.send(Uint8Array.of(i))
          near.stream.closeWrite()
          await near.heard('remoteCloseWrite')
        }
      })

      it('wait to be opened while the remote allows no more, and for one to end', async function () {
        const { local, remote } = start({ onStream: echo })
        const [barrier] = await openPair(local, remote)
        const opened: StreamProbe[] = []
        const controller = new AbortController()
        let waiting: Promise<unknown> | undefined

        while (waiting == null && opened.length < MAX_STREAMS) {
          const opening = local.session.openStream({ signal: controller.signal })
          const settling = settle(barrier)
          const stream = await Promise.race([opening, settling])
          await settling

          if (stream == null) {
            waiting = opening
          } else {
            opened.push(new StreamProbe(stream))
          }
        }

        if (waiting == null) {
          return this.skip()
        }

        const reason = new Error('Had enough')
        controller.abort(reason)
        await expect(waiting).to.eventually.be.rejectedWith(reason)

        const next = local.session.openStream()
        // a scheme may tell of room for more in steps
        opened.forEach(probe => { probe.stream.closeWrite() })
        expect(await next).to.have.property('direction', 'outbound')
      })

      it('are not opened with an aborted signal', async () => {
        const { local } = start()
        const reason = new Error('Too late')

        await expect(local.session.openStream({ signal: AbortSignal.abort(reason) })).to.eventually.be.rejectedWith(reason)
      })

      /** A few round trips, as a measure of time that does not depend on the machine; nothing then */
      async function settle (probe: StreamProbe): Promise<undefined> {
        for (let i = 0; i < 5; i++) {
          const length = probe.received.byteLength + 1
          probe.stream.send(Uint8Array.of(i))
          await probe.bytes(length)
        }
      }
    })

    describe('datagrams', () => {
      it('go both ways', async () => {
        const { local, remote } = start()
        local.session.sendDatagram(Uint8Array.of(1, 2, 3))
        remote.session.sendDatagram(Uint8Array.of(4))

        expect(await remote.datagram()).to.equalBytes(Uint8Array.of(1, 2, 3))
        expect(await local.datagram()).to.equalBytes(Uint8Array.of(4))
      })

      it('may be as large as maxDatagramSize, and no larger', async () => {
        const { local, remote } = start()
        const payload = randomBytes(local.session.maxDatagramSize)
        local.session.sendDatagram(payload)

        expect(await remote.datagram()).to.equalBytes(payload)
        expect(() => local.session.sendDatagram(new Uint8Array(local.session.maxDatagramSize + 1)))
          .to.throw().with.property('name', 'DatagramTooLargeError')
      })

      it('are held until the session is started', async () => {
        const local = new SessionProbe(dialed.session)
        local.session.sendDatagram(Uint8Array.of(9))
        // something reliable behind it, to know that it has arrived
        const near = await local.open()
        near.stream.send(Uint8Array.of(0))
        const remote = new SessionProbe(accepted.session)

        expect(await remote.datagram()).to.equalBytes(Uint8Array.of(9))
      })

      it('tell a sender that is too fast to wait, and when to go on', async () => {
        const { local, remote } = start()
        const payload = new Uint8Array(Math.min(1_000, local.session.maxDatagramSize))

        for (let i = 0; i < 2_000; i++) {
          const drains = local.drains

          if (!local.session.sendDatagram(payload)) {
            await local.until('a drain', () => local.drains > drains)
          }
        }

        await remote.datagram()
        expect(local.session.droppedDatagrams.sendQueueFull ?? 0).to.equal(0)
      })

      it('don\'t pile up without bound before the session is started', async () => {
        const local = new SessionProbe(dialed.session)
        const payload = new Uint8Array(Math.min(1_000, local.session.maxDatagramSize))

        for (let i = 0; i < 20_000; i++) {
          const drains = local.drains

          if (!local.session.sendDatagram(payload)) {
            await local.until('a drain', () => local.drains > drains)
          }
        }

        const near = await local.open()
        near.stream.send(Uint8Array.of(0))
        const remote = new SessionProbe(accepted.session)
        await (await remote.stream()).bytes(1)

        expect(remote.datagrams.length).to.be.within(1, 10_000)
      })
    })

    describe('close', () => {
      it('delivers first what was written to finished streams', async () => {
        const { local, remote } = start()
        const data = randomBytes(1024 * 1024)
        const near = await local.open()
        near.stream.send(data)
        near.stream.closeWrite()
        await local.session.close()

        expect(await remote.closed()).to.be.undefined()
        const far = await remote.stream()
        expect(hash(far.received.slice())).to.equal(hash(data))
        expect(far.events).to.include('remoteCloseWrite')
      })

      it('is orderly on both sides, ends the sockets, and is the last that is heard', async () => {
        const { local, remote } = start()
        await openPair(local, remote)
        const closing = local.session.close()
        expect(local.session.status).to.not.equal('open')
        await closing

        expect(await local.closed()).to.be.undefined()
        expect(await remote.closed()).to.be.undefined()
        expect(local.session.status).to.equal('closed')
        expect(remote.session.status).to.equal('closed')
        expect(socket.status).to.equal('closed')
        expect(fixture.dialer.get(fixture.listener.localAddress)).to.be.undefined()
        expect(local.closes).to.have.lengthOf(1)
        expect(remote.closes).to.have.lengthOf(1)
        expect(local.heardAfterClose || remote.heardAfterClose).to.be.false()
      })

      it('ends open streams on both sides without an error', async () => {
        const { local, remote } = start()
        const [near, far] = await openPair(local, remote)
        await local.session.close()
        await remote.closed()

        expect(near.events.at(-1)).to.equal('reset')
        expect(far.events.at(-1)).to.equal('reset')
        expect(near.error).to.be.undefined()
        expect(far.error).to.be.undefined()
      })

      it('may be called by both sides at once, and again', async () => {
        const { local, remote } = start()
        await Promise.all([local.session.close(), remote.session.close(), local.session.close()])
        await local.session.close()

        expect(await local.closed()).to.be.undefined()
        expect(await remote.closed()).to.be.undefined()
      })

      it('leaves a session that opens and sends no more', async () => {
        const { local, remote } = start()
        await local.session.close()
        await remote.closed()

        for (const { session } of [local, remote]) {
          await expect(session.openStream()).to.eventually.be.rejected().with.property('name', 'SessionClosedError')
          expect(() => session.sendDatagram(Uint8Array.of(1))).to.throw().with.property('name', 'SessionClosedError')
        }
      })

      it('aborts the session when its signal does', async () => {
        const { local, remote } = start({ onStream: (probe) => { probe.stream.pause() } })
        const near = await local.open()
        overfill(near)
        near.stream.closeWrite()
        await remote.stream()
        const controller = new AbortController()
        const reason = new Error('Took too long')
        const closing = local.session.close({ signal: controller.signal })
        controller.abort(reason)

        await expect(closing).to.eventually.be.rejectedWith(reason)
        expect(local.session.status).to.equal('closed')
        expect(await remote.closed()).to.have.property('name', 'SessionFailedError')
      })
    })

    describe('abort', () => {
      it('is seen by the remote as a failure', async () => {
        const { local, remote } = start()
        const [, far] = await openPair(local, remote)
        local.session.abort(new Error('Boom'))
        const err = await remote.closed()

        expect(err).to.have.property('name', 'SessionFailedError')
        expect(far.events.at(-1)).to.equal('reset')
        expect(far.error).to.equal(err)
        expect(remote.session.status).to.equal('closed')
      })

      it('ends this side at once with its reason, once', async () => {
        const { local, remote } = start()
        const [near] = await openPair(local, remote)
        const reason = new Error('Boom')
        local.session.abort(reason)
        local.session.abort(new Error('Again'))

        expect(local.session.status).to.equal('closed')
        expect(await local.closed()).to.equal(reason)
        await near.heard('reset')
        expect(near.error).to.equal(reason)
        await remote.closed()
        expect(local.closes).to.have.lengthOf(1)
        expect(local.heardAfterClose).to.be.false()
      })

      it('by the responder is seen by the initiator', async () => {
        const { local, remote } = start()
        await openPair(local, remote)
        remote.session.abort(new Error('Boom'), 42)

        expect(await local.closed()).to.have.property('name', 'SessionFailedError')
      })

      it('makes a pending close resolve', async () => {
        const { local, remote } = start({ onStream: (probe) => { probe.stream.pause() } })
        const near = await local.open()
        fill(near)
        near.stream.closeWrite()
        await remote.stream()
        const closing = local.session.close()
        local.session.abort(new Error('Boom'))

        await closing
      })

      it('frees streams that wait to be opened', async () => {
        const { local } = start()
        const opening: Array<Promise<unknown>> = []

        for (let i = 0; i < MAX_STREAMS; i++) {
          opening.push(local.session.openStream())
        }

        const settled = Promise.allSettled(opening)
        local.session.abort(new Error('Boom'))

        for (const result of await settled) {
          if (result.status === 'rejected') {
            expect(result.reason).to.have.property('name', 'SessionClosedError')
          }
        }
      })
    })

    describe('failure', () => {
      it('is told when the local port goes away', async () => {
        const { local, remote } = start()
        const [near] = await openPair(local, remote)
        await fixture.dialer.close()
        const err = await local.closed()

        expect(err).to.have.property('name', 'SessionFailedError')
        expect(near.error).to.equal(err)
        expect(local.session.status).to.equal('closed')
      })
    })
  })
}

/** Send until told to wait, in vain never: a scheme without limits would eat the machine's memory */
function fill (probe: StreamProbe): number {
  const chunk = new Uint8Array(64 * 1024)
  const limit = MAX_AFTER_PAUSE + MAX_SEND_QUEUE
  let sent = 0

  do {
    sent += chunk.byteLength
  } while (probe.stream.send(chunk) && sent < limit)

  return sent
}

/** Send more than a remote that is paused takes */
function overfill (probe: StreamProbe): void {
  const chunk = new Uint8Array(64 * 1024)

  for (let sent = 0; sent <= MAX_AFTER_PAUSE + MAX_SEND_QUEUE; sent += chunk.byteLength) {
    probe.stream.send(chunk)
  }
}

/** Return what comes, and close after the remote */
function echo (probe: StreamProbe): void {
  probe.onDataHook = (chunk) => { probe.stream.send(chunk.slice()) }
  probe.onEndHook = () => { probe.stream.closeWrite() }
}

function hash (data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex')
}
