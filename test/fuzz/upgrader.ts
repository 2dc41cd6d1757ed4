import { expect } from 'aegir/chai'
import fc from 'fast-check'
import { MemoryEndpoint } from '../../src/sockets/memory-endpoint.ts'
import { MemoryNetwork } from '../../src/sockets/memory.ts'
import { decodeFrame, looksLikeFrame } from '../../src/wire/index.ts'
import { MemoryClock } from '../fixtures/memory-clock.ts'
import { Node } from '../fixtures/simulation/node.ts'
import { Trace } from '../fixtures/simulation/trace.ts'
import { applyEdits, datagram, edits, IDS, SCHEMES } from './arbitraries.ts'
import type { Edit } from './arbitraries.ts'

const HOSTS = ['alice', 'bob', 'mallory']

/** What upgrades may fail with; anything else would be an accident */
const ERRORS = ['NoAnswerError', 'NoCommonSchemeError', 'SelfNegotiationError', 'HandshakeFailedError', 'UnexpectedPeerError', 'ConnectionClosedError']

/** Virtual milliseconds after which nothing may wait any more */
const LIMIT = 120_000
const MAX_SEEN = 32

interface Attack {
  at: number
  to: number

  /**
   * Whose address is forged
   */
  from: number
  datagram: Uint8Array | { seen: number, edits: Edit[] }
}

const attack: fc.Arbitrary<Attack> = fc.record({
  at: fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 16_000 })),
  to: fc.nat({ max: 1 }),
  from: fc.nat({ max: 2 }),
  datagram: fc.oneof<Array<fc.Arbitrary<Attack['datagram']>>>(datagram, fc.record({ seen: fc.nat({ max: MAX_SEEN }), edits: fc.oneof(fc.constant<Edit[]>([]), edits) }))
})

const speaks = fc.uniqueArray(fc.constantFrom(...SCHEMES), { minLength: 1 })

/**
 * Two upgraders that dial each other, or one the other, while somebody forges, repeats and changes datagrams under every address:
 * everything ends, as it may, and nothing is left
 */
export const upgrader = fc.asyncProperty(
  fc.tuple(speaks, speaks),
  fc.option(fc.nat({ max: 200 }), { nil: undefined }),
  fc.boolean(),
  fc.array(attack, { maxLength: 30, size: 'max' }),
  async (schemes, bobDialsAt, initiationPacket, attacks) => {
    const clock = new MemoryClock({ turns: 1 })
    const seen: Uint8Array[] = []
    const bytes = { toMallory: 0, fromMallory: 0 }
    const network = new MemoryNetwork({
      clock,
      delay: 40,
      random: () => 0.5,
      onSend: (datagram, from, to) => {
        if (seen.length < MAX_SEEN) {
          seen.push(datagram.slice())
        }

        if (to.host === 'mallory' && looksLikeFrame(datagram)) {
          decodeFrame(datagram)
          bytes.toMallory += datagram.byteLength
        }

        return undefined
      }
    })
    const endpoints = HOSTS.slice(0, 2).map(host => network.endpoint({ host, port: 1 }))
    const nodes = endpoints.map((endpoint, index) => new Node({
      peer: { address: endpoint.localAddress, id: IDS[index], schemes: schemes[index], initiationPacket },
      endpoint,
      clock,
      trace: new Trace(),
      onMistake: () => {}
    }))
    const [alice, bob] = nodes

    clock.schedule(() => { alice.dial(endpoints[1].localAddress) }, 0)

    if (bobDialsAt != null) {
      clock.schedule(() => { bob.dial(endpoints[0].localAddress) }, bobDialsAt)
    }

    for (const { at, to, from, datagram } of attacks) {
      clock.schedule(() => {
        const bytesOf = datagram instanceof Uint8Array ? datagram : applyEdits(seen[datagram.seen] ?? new Uint8Array(1), datagram.edits)
        const endpoint = endpoints[to]
        bytes.fromMallory += from === 2 ? bytesOf.byteLength : 0

        if (endpoint instanceof MemoryEndpoint) {
          endpoint.deliver(bytesOf, { host: HOSTS[from], port: 1 })
        }
      }, at)
    }

    while (clock.now() < LIMIT && await clock.step()) {
      // until nothing is left to happen
    }

    expect(clock.pending, 'timers left').to.equal(0)
    expect(bytes.toMallory, 'answers to strangers').to.be.at.most(bytes.fromMallory)

    for (const { attempts } of nodes) {
      for (const { socket, secured, error } of attempts) {
        expect(secured ?? error, 'an outcome').to.not.equal(undefined)
        expect(socket.status).to.equal(secured == null ? 'closed' : 'open')

        if (secured == null) {
          expect(error?.name).to.be.oneOf(ERRORS)
        }
      }
    }

    nodes.forEach(node => { node.stop() })
    expect(nodes.flatMap(({ attempts }) => attempts.filter(({ socket }) => socket.status === 'open'))).to.be.empty()
    await network.close()
    await clock.step()
    expect(clock.pending).to.equal(0)
  })

/** Neither a frame nor a packet of the scheme: what anybody can send without knowing anything */
const noise = datagram.filter(bytes => {
  try {
    decodeFrame(bytes)
    return false
  } catch {
    return true
  }
})

/**
 * What is no frame, from anywhere and at any time, does not keep two peers from getting together
 */
export const noisyUpgrade = fc.asyncProperty(fc.array(fc.record({ at: fc.nat({ max: 300 }), to: fc.nat({ max: 1 }), from: fc.nat({ max: 2 }), datagram: noise }), { maxLength: 12, size: 'max' }), async (attacks) => {
  const clock = new MemoryClock({ turns: 1 })
  const network = new MemoryNetwork({ clock, delay: 40, random: () => 0.5 })
  const endpoints = HOSTS.slice(0, 2).map(host => network.endpoint({ host, port: 1 }))
  const [alice, bob] = endpoints.map((endpoint, index) => new Node({
    peer: { address: endpoint.localAddress, id: IDS[index], schemes: SCHEMES, initiationPacket: true },
    endpoint,
    clock,
    trace: new Trace(),
    onMistake: () => {}
  }))

  clock.schedule(() => { alice.dial(endpoints[1].localAddress) }, 0)

  for (const { at, to, from, datagram } of attacks) {
    clock.schedule(() => { (endpoints[to] as MemoryEndpoint).deliver(datagram, { host: HOSTS[from], port: 1 }) }, at)
  }

  while (clock.now() < LIMIT && await clock.step()) {
    // until nothing is left to happen
  }

  const remotes = [alice, bob].map(({ attempt }) => attempt?.secured?.session.remotePeer.toString())
  alice.stop()
  bob.stop()
  await network.close()

  expect(remotes).to.deep.equal([bob.peerId.toString(), alice.peerId.toString()])
})
