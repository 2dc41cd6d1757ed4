import { expect } from 'aegir/chai'
import { quicDatagram } from '../src/schemes/quic-datagram/index.ts'
import { udp } from '../src/sockets/udp.ts'
import { eventually } from './fixtures/eventually.ts'
import { captureFirstFlight } from './fixtures/first-flight.ts'
import { SessionProbe } from './fixtures/probes.ts'
import { createSessionPair } from './fixtures/session-pair.ts'
import type { SessionPair } from './fixtures/session-pair.ts'
import type { SecureSession } from '../src/schemes/index.ts'
import type { QuicDatagramInit } from '../src/schemes/quic-datagram/index.ts'
import type { UdpInit } from '../src/sockets/udp.ts'

describe('the key exchange of QUIC DATAGRAM', () => {
  for (const [postQuantum, what] of [[true, 'two datagrams if it is to withstand quantum computers'], [false, 'one datagram if it need not']] as const) {
    it(`takes a first flight of ${what}`, async () => {
      expect(await captureFirstFlight({ postQuantum })).to.have.lengthOf(postQuantum ? 2 : 1)
    })
  }

  it('is refused with something other than yes or no', () => {
    expect(() => quicDatagram({ postQuantum: 'no' as any })).to.throw('quicDatagram: postQuantum has to be true or false, not no')
      .with.property('name', 'InvalidParametersError')
  })
})

describe('what a session of QUIC DATAGRAM keeps', () => {
  let pair: SessionPair | undefined

  afterEach(async () => {
    await pair?.close()
    pair = undefined
  })

  async function createSessions (init: QuicDatagramInit, ports: UdpInit = {}): Promise<[SecureSession, SecureSession]> {
    pair = await createSessionPair(quicDatagram(init), udp(ports))

    return [pair.sides[0].session, pair.sides[1].session]
  }

  it('before it is started are as many streams as was said, and the others are counted', async () => {
    const [local, remote] = await createSessions({ maxHeldStreams: 2 })
    const alice = new SessionProbe(local)

    for (let i = 0; i < 3; i++) {
      (await alice.open()).stream.send(Uint8Array.of(i))
    }

    await eventually(() => remote.refusedStreams === 1)
    const bob = new SessionProbe(remote)
    expect(await (await bob.stream(1)).bytes(1)).to.equalBytes(Uint8Array.of(1))
    expect(bob.streams).to.have.lengthOf(2)
  })

  it('before it is started are as many datagrams as was said, and the others are counted', async () => {
    const [local, remote] = await createSessions({ maxHeldDatagrams: 2 })

    for (let i = 0; i < 3; i++) {
      local.sendDatagram(Uint8Array.of(i))
    }

    await eventually(() => remote.droppedDatagrams.receiveQueueFull === 1)
    const bob = new SessionProbe(remote)
    expect(bob.datagrams.map(([value]) => value)).to.deep.equal([0, 1])
  })

  it('of datagrams to be sent is as much as was said, four times that if nobody waits, and the others are counted', async () => {
    const [local] = await createSessions({ datagramSendQueue: 1_000 })
    const alice = new SessionProbe(local)
    const payload = new Uint8Array(500)

    expect(local.sendDatagram(payload)).to.equal(true)

    for (let i = 1; i < 10; i++) {
      expect(local.sendDatagram(payload)).to.equal(false)
    }

    expect(local.droppedDatagrams.sendQueueFull).to.equal(2)
    await alice.until('a drain', () => alice.drains === 1)
  })

  it('of a stream to be sent is as much as was said before it says to wait', async () => {
    const [local] = await createSessions({ streamSendQueue: 1_000 })
    const near = await new SessionProbe(local).open()

    expect(near.stream.send(new Uint8Array(999))).to.equal(true)
    expect(near.stream.send(new Uint8Array(1))).to.equal(false)
    await near.until('a drain', () => near.drains === 1)
  })

  it('of a stream that is paused is as much as was said, and the rest comes afterwards', async () => {
    const [local, remote] = await createSessions({ streamReceiveQueue: 1_000 })
    const near = await new SessionProbe(local).open()
    const bob = new SessionProbe(remote, { onStream: (probe) => { probe.stream.pause() } })
    near.stream.send(new Uint8Array(10_000))
    near.stream.closeWrite()
    const far = await bob.stream()
    await far.bytes(1_000)
    // the engine would have passed on more by now, in one piece with it
    expect(far.received.byteLength).to.equal(1_000)

    far.stream.resume()
    await far.heard('remoteCloseWrite')
    expect(far.received.byteLength).to.equal(10_000)
  })

  it('of a stream before that is started does not stop it afterwards', async () => {
    const [local, remote] = await createSessions({ streamReceiveQueue: 1_000, maxHeldStreams: 1 })
    const alice = new SessionProbe(local)
    const near = await alice.open()
    near.stream.send(new Uint8Array(10_000))
    near.stream.closeWrite()
    // when a later one has come, so have the first 1,000 bytes
    const later = await alice.open()
    later.stream.send(Uint8Array.of(0))
    await eventually(() => remote.refusedStreams === 1)
    const bob = new SessionProbe(remote)
    const far = await bob.stream()
    await far.heard('remoteCloseWrite')

    expect(far.received.byteLength).to.equal(10_000)
  })

  it('of datagrams that nobody takes is as much as was said, and the others are counted', async () => {
    const [local, remote] = await createSessions({ datagramReceiveBuffer: 2_000 }, { maxWaitingBytes: 1 })
    const bob = new SessionProbe(remote)

    await eventually(() => {
      for (let i = 0; i < 100; i++) {
        local.sendDatagram(new Uint8Array(1_000))
      }

      return remote.droppedDatagrams.receiveQueueFull > 0
    })

    expect(bob.datagrams).to.not.be.empty()
  })
})
