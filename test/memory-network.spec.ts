import { expect } from 'aegir/chai'
import { MemoryNetwork } from '../src/sockets/memory.ts'
import { MemoryClock } from './fixtures/memory-clock.ts'
import { seededRandom } from './fixtures/random.ts'
import type { PacketAddress, PacketEndpoint, PacketSocket } from '../src/sockets/index.ts'
import type { MemoryNetworkInit } from '../src/sockets/memory.ts'

const ALICE: PacketAddress = { host: 'alice', port: 1 }
const BOB: PacketAddress = { host: 'bob', port: 2 }

describe('in-memory network', () => {
  let clock: MemoryClock
  let network: MemoryNetwork
  let alice: PacketEndpoint
  let bob: PacketEndpoint

  function setup (init: MemoryNetworkInit = {}): void {
    clock = new MemoryClock()
    network = new MemoryNetwork({ clock, random: seededRandom(1), ...init })
    alice = network.endpoint(ALICE)
    bob = network.endpoint(BOB)
  }

  /** A socket each way, and what arrives at Bob */
  function connect (): { toBob: PacketSocket, toAlice: PacketSocket, received: number[][] } {
    const toBob = alice.connect(BOB)
    const toAlice = bob.connect(ALICE)
    const received: number[][] = []
    toAlice.addEventListener('message', (evt) => { received.push([...evt.detail]) })

    return { toBob, toAlice, received }
  }

  afterEach(async () => {
    await network.close()
    expect(clock.pending, 'timers left').to.equal(0)
    expect(network.inTransit, 'datagrams left').to.equal(0)
  })

  it('delivers in order, never within send()', async () => {
    setup()
    const { toBob, received } = connect()
    toBob.send(Uint8Array.of(1))
    toBob.send(Uint8Array.of(2))

    expect(received).to.be.empty()
    await clock.advance(0)
    expect(received).to.deep.equal([[1], [2]])
  })

  it('lets the sender use its buffer again', async () => {
    setup()
    const { toBob, received } = connect()
    const buffer = Uint8Array.of(1)
    toBob.send(buffer)
    buffer[0] = 9
    await clock.advance(0)

    expect(received).to.deep.equal([[1]])
  })

  it('delays, by as much as the path says', async () => {
    setup({ delay: (from, to) => from.host === 'alice' && to.host === 'bob' ? 30 : 0 })
    const { toBob, received } = connect()
    toBob.send(Uint8Array.of(1))
    await clock.advance(29)
    expect(received).to.be.empty()
    await clock.advance(1)
    expect(received).to.deep.equal([[1]])
  })

  it('reorders by jitter', async () => {
    setup({ delay: 10, jitter: 10 })
    const { toBob, received } = connect()

    for (let i = 0; i < 50; i++) {
      toBob.send(Uint8Array.of(i))
    }

    await clock.advance(20)
    const order = received.map(([first]) => first)
    expect(order).to.not.deep.equal([...order].sort((a, b) => a - b))
    expect([...order].sort((a, b) => a - b)).to.deep.equal(Array.from({ length: 50 }, (_, i) => i))
  })

  it('loses and duplicates as many as it should, and the same ones for the same seed', async () => {
    const runs: number[][][] = []

    for (let run = 0; run < 2; run++) {
      setup({ loss: 0.2, duplication: 0.1, random: seededRandom(7) })
      const { toBob, received } = connect()

      for (let i = 0; i < 1_000; i++) {
        toBob.send(Uint8Array.of(i, i >> 8))
      }

      await clock.advance(0)
      runs.push(received)
      expect(network.counters.lost).to.be.within(150, 250)
      expect(network.counters.duplicated).to.be.within(50, 120)
      expect(network.counters.delivered).to.equal(1_000 - network.counters.lost + network.counters.duplicated)
      await network.close()
    }

    expect(runs[0]).to.deep.equal(runs[1])
  })

  it('swallows what exceeds the MTU', async () => {
    setup({ mtu: 100, maxDatagramSize: 200 })
    const { toBob, received } = connect()
    toBob.send(new Uint8Array(100))
    toBob.send(new Uint8Array(101))
    await clock.advance(0)

    expect(toBob.maxDatagramSize).to.equal(200)
    expect(received.map(datagram => datagram.length)).to.deep.equal([100])
    expect(network.counters.tooLarge).to.equal(1)
  })

  it('bounds what is on its way to an endpoint', async () => {
    setup({ maxQueuedDatagrams: 3 })
    const { toBob, received } = connect()

    for (let i = 0; i < 5; i++) {
      toBob.send(Uint8Array.of(i))
    }

    await clock.advance(0)
    expect(received).to.deep.equal([[0], [1], [2]])
    expect(network.counters.queueFull).to.equal(2)

    toBob.send(Uint8Array.of(5))
    await clock.advance(0)
    expect(received.at(-1)).to.deep.equal([5])
  })

  it('lets the observer lose a datagram', async () => {
    setup({ onSend: (datagram) => datagram[0] !== 1 })
    const { toBob, received } = connect()
    toBob.send(Uint8Array.of(1))
    toBob.send(Uint8Array.of(2))
    await clock.advance(0)

    expect(received).to.deep.equal([[2]])
  })

  it('counts what goes nowhere', async () => {
    setup()
    alice.connect({ host: 'nobody', port: 1 }).send(Uint8Array.of(1))
    await clock.advance(0)

    expect(network.counters.unreachable).to.equal(1)
  })

  it('counts what is under way to an endpoint that is closed', async () => {
    setup()
    alice.connect(BOB).send(Uint8Array.of(1))
    await bob.close()

    expect(network.counters.unreachable).to.equal(1)
  })

  it('asks the acceptor about strangers, and opens a socket for those that pass', async () => {
    setup()
    const sockets: PacketSocket[] = []
    const first: Uint8Array[] = []
    bob.accept({
      filter: (datagram, remote) => datagram[0] === 7 && remote.host === 'alice',
      onSocket: (socket, datagram) => {
        sockets.push(socket)
        first.push(datagram)
      }
    })
    const toBob = alice.connect(BOB)
    toBob.send(Uint8Array.of(6))
    toBob.send(Uint8Array.of(7))
    await clock.advance(0)

    expect(sockets).to.have.lengthOf(1)
    expect(sockets[0].remoteAddress).to.deep.equal(ALICE)
    expect(bob.get(ALICE)).to.equal(sockets[0])
    expect(first).to.deep.equal([Uint8Array.of(7)])

    const later: Uint8Array[] = []
    sockets[0].addEventListener('message', (evt) => { later.push(evt.detail) })
    toBob.send(Uint8Array.of(6))
    await clock.advance(0)
    expect(later).to.deep.equal([Uint8Array.of(6)])
  })

  it('turns strangers away without an acceptor', async () => {
    setup()
    const sockets: PacketSocket[] = []
    bob.accept({ filter: () => true, onSocket: (socket) => { sockets.push(socket) } })
    bob.accept(undefined)
    alice.connect(BOB).send(Uint8Array.of(1))
    await clock.advance(0)

    expect(sockets).to.be.empty()
  })

  it('makes a remote a stranger again when its socket is closed', async () => {
    setup()
    const { toBob, toAlice, received } = connect()
    let strangers = 0
    let closes = 0
    bob.accept({
      filter: () => {
        strangers++
        return false
      },
      onSocket: () => {}
    })
    toAlice.addEventListener('close', () => { closes++ })
    toAlice.close()
    toAlice.close()
    toAlice.send(Uint8Array.of(1))
    toBob.send(Uint8Array.of(1))
    await clock.advance(0)

    expect({ strangers, closes, received, status: toAlice.status }).to.deep.equal({ strangers: 1, closes: 1, received: [], status: 'closed' })
    expect(bob.get(ALICE)).to.be.undefined()
  })

  it('closes an endpoint with its sockets, and frees the port', async () => {
    setup({ delay: 10 })
    const { toBob, toAlice } = connect()
    toBob.send(Uint8Array.of(1))
    await bob.close()
    await bob.close()

    expect(bob.status).to.equal('closed')
    expect(toAlice.status).to.equal('closed')
    expect(network.inTransit).to.equal(0)
    expect(() => bob.connect(ALICE)).to.throw().with.property('name', 'ConnectionClosedError')
    expect(network.endpoint(BOB).status).to.equal('open')
  })

  it('refuses a second endpoint on an address, and a second socket for a remote', () => {
    setup()
    alice.connect(BOB)

    expect(() => network.endpoint(ALICE)).to.throw().with.property('name', 'AddressInUseError')
    expect(() => alice.connect(BOB)).to.throw().with.property('name', 'InvalidParametersError')
  })

  it('finds free ports', () => {
    setup()
    const one = network.endpoint({ host: 'alice', port: 0 })
    const two = network.endpoint({ host: 'alice', port: 0 })

    expect(one.localAddress.port).to.be.above(0)
    expect(two.localAddress.port).to.not.equal(one.localAddress.port)
  })

  for (const [unspecified, loopback] of [['0.0.0.0', '127.0.0.1'], ['::', '::1']]) {
    // eslint-disable-next-line no-loop-func
    it(`reaches ${unspecified} at ${loopback}`, async () => {
      setup()
      const server = network.endpoint({ host: unspecified, port: 4001 })
      const client = network.endpoint({ host: unspecified, port: 0 })
      const remotes: PacketAddress[] = []
      server.accept({
        filter: (_, remote) => {
          remotes.push(remote)
          return false
        },
        onSocket: () => {}
      })
      client.connect({ host: loopback, port: 4001 }).send(Uint8Array.of(1))
      await clock.advance(0)

      expect(remotes).to.deep.equal([{ host: loopback, port: client.localAddress.port }])
      expect(() => network.endpoint({ host: loopback, port: 4001 })).to.throw().with.property('name', 'AddressInUseError')
    })
  }

  for (const init of [
    { loss: 1.1 }, { duplication: NaN }, { delay: -1 }, { jitter: NaN }, { maxDatagramSize: -1 }, { mtu: 0.5 }, { maxQueuedDatagrams: NaN }
  ]) {
    it(`checks its ${Object.keys(init)[0]}`, () => {
      setup()
      expect(() => new MemoryNetwork(init)).to.throw().with.property('name', 'InvalidParametersError')
    })
  }

  it('runs on the machine\'s own time', async () => {
    setup()
    const real = new MemoryNetwork({ delay: 1 })
    const there = real.endpoint(BOB).connect(ALICE)
    const arrival = new Promise(resolve => { there.addEventListener('message', (evt) => { resolve(evt.detail) }) })
    real.endpoint(ALICE).connect(BOB).send(Uint8Array.of(1))

    expect(await arrival).to.deep.equal(Uint8Array.of(1))
    await real.close()
  })
})
