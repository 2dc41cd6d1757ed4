/**
 * Two negotiators in virtual time, on a network that loses, delays, overtakes and doubles datagrams. Every run follows
 * from its seed alone: `PSEC_SIMULATION_SEED=<seed>` replays the one that failed.
 */
import { expect } from 'aegir/chai'
import { chooseSimultaneous, chooseStandard, Negotiator } from '../src/negotiation/index.ts'
import type { Agreement } from '../src/negotiation/index.ts'

const RUNS = 1_000
const REPLAY = process.env.PSEC_SIMULATION_SEED

/** Virtual milliseconds after which a run that has not ended never will */
const DEADLINE = 300_000

/** How long both sides are watched for datagrams that should no longer be sent, in virtual milliseconds */
const AFTERMATH = 600_000

/** The most frames that a side may send in a run: the worst of these networks takes a tenth */
const MAX_FRAMES = 1_000

/** The wait of the scheme's own retransmission, in virtual milliseconds */
const SCHEME_RETRANSMISSION = 400

/** Scheme packets: this first byte, then one of the following, then the scheme's name */
const SCHEME_TRAFFIC = 0x40

/** What a first flight has beyond its first datagram: sent along with the proposal, it proves no agreement */
const REST = 0
const FIRST_FLIGHT = 1
const ANSWER = 2
const FINISH = 3

type Random = () => number

/** mulberry32: 32 bits of state are plenty here, and any seed is a good one */
function seeded (seed: number): Random {
  let state = seed

  return () => {
    state = (state + 0x6D2B79F5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t

    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const between = (random: Random, min: number, max: number): number => min + random() * (max - min)
const integer = (random: Random, max: number): number => Math.floor(random() * max)

interface Conditions {
  loss: number
  duplication: number
  delay: number
  jitter: number
}

/** Virtual time: what is to happen, in order */
class Timeline {
  now = 0
  private readonly queue: Array<{ at: number, action(): void }> = []

  at (at: number, action: () => void): void {
    const index = this.queue.findIndex(entry => entry.at > at)
    this.queue.splice(index === -1 ? this.queue.length : index, 0, { at, action })
  }

  /** Let things happen until the condition holds, or nothing is left until the deadline; returns whether it holds */
  run (until: () => boolean, deadline: number): boolean {
    while (!until()) {
      const next = this.queue[0]

      if (next == null || next.at > deadline) {
        return false
      }

      this.queue.shift()
      this.now = next.at
      next.action()
    }

    return true
  }
}

interface PeerInit {
  id: Uint8Array
  schemes: string[]
  packet?: boolean
}

/** A negotiator, its timer, and a scheme of three flights that repeats each of its own until it is answered */
class Peer {
  readonly init: PeerInit
  readonly negotiator: Negotiator
  agreement?: Agreement
  error?: Error
  secured = false
  framesSent = 0
  unexpected = 0
  private readonly timeline: Timeline
  private readonly send: (datagram: Uint8Array) => void
  private readonly held: Uint8Array[] = []
  private wakeAt?: number
  private answered = false

  constructor (init: PeerInit, timeline: Timeline, send: (datagram: Uint8Array) => void) {
    this.init = init
    this.timeline = timeline
    this.send = send
    this.negotiator = new Negotiator({ localId: init.id, schemes: init.schemes })
  }

  get ended (): boolean {
    return this.secured || this.error != null
  }

  propose (): void {
    const { status } = this.negotiator
    const { packet, schemes } = this.init
    this.negotiator.propose(this.timeline.now, packet === true ? this.schemePacket(FIRST_FLIGHT, schemes[0]) : undefined)
    this.advance()

    if (packet === true && status === 'idle') {
      this.send(this.schemePacket(REST, schemes[0]))
    }
  }

  receive (datagram: Uint8Array): void {
    const verdict = this.negotiator.handleDatagram(datagram, this.timeline.now)

    if (verdict === 'scheme') {
      this.held.push(datagram)
    } else if (verdict === 'invalid') {
      throw new Error('A negotiator sent a frame that is not valid')
    } else if (verdict === 'unexpected' && this.agreement != null) {
      // after a failure, rejects still come late
      this.unexpected++
    }

    this.advance()
  }

  private advance (): void {
    for (let frame = this.negotiator.pollTransmit(); frame != null; frame = this.negotiator.pollTransmit()) {
      if (++this.framesSent > MAX_FRAMES) {
        throw new Error(`A negotiator sent more than ${MAX_FRAMES} frames`)
      }

      this.send(frame)
    }

    for (let event = this.negotiator.pollEvent(); event != null; event = this.negotiator.pollEvent()) {
      if (event.type === 'renewed' || this.agreement != null || this.error != null) {
        throw new Error(`A negotiator reported ${event.type} after its end`)
      }

      if (event.type === 'failed') {
        this.error = event.error
      } else {
        this.agreement = event.agreement
        this.begin(event.agreement)
      }
    }

    for (const packet of this.agreement == null ? [] : this.held.splice(0)) {
      this.onSchemePacket(packet)
    }

    this.arm()
  }

  private arm (): void {
    const at = this.negotiator.pollTimeout()
    this.wakeAt = at

    if (at != null) {
      this.timeline.at(Math.max(at, this.timeline.now), () => {
        if (this.wakeAt === at) {
          this.negotiator.handleTimeout(this.timeline.now)
          this.advance()
        }
      })
    }
  }

  private begin ({ role, initiationPacket, sendFirstFlight }: Agreement): void {
    if (role === 'responder') {
      if (initiationPacket != null) {
        this.held.unshift(initiationPacket)
      }

      return
    }

    if (sendFirstFlight) {
      this.sendSchemePacket(FIRST_FLIGHT)
    }

    this.repeat(FIRST_FLIGHT)
  }

  private repeat (flight: number): void {
    this.timeline.at(this.timeline.now + SCHEME_RETRANSMISSION, () => {
      if (!this.secured) {
        this.sendSchemePacket(flight)
        this.repeat(flight)
      }
    })
  }

  private onSchemePacket (packet: Uint8Array): void {
    const scheme = new TextDecoder().decode(packet.subarray(2))

    if (packet[1] === REST || scheme !== this.agreement?.scheme) {
      return
    }

    const role = packet[1] === ANSWER ? 'initiator' : 'responder'

    if (this.agreement.role !== role) {
      throw new Error(`A packet for the ${role} reached the ${this.agreement.role}`)
    }

    if (packet[1] === FIRST_FLIGHT) {
      if (!this.answered) {
        this.answered = true
        this.sendSchemePacket(ANSWER)
        this.repeat(ANSWER)
      }

      return
    }

    if (packet[1] === ANSWER) {
      this.sendSchemePacket(FINISH)
    }

    this.secured = true
    this.negotiator.handleSecured()
    this.arm()
  }

  private sendSchemePacket (flight: number): void {
    this.send(this.schemePacket(flight, this.agreement?.scheme ?? ''))
  }

  private schemePacket (flight: number, scheme: string): Uint8Array {
    return Uint8Array.of(SCHEME_TRAFFIC, flight, ...new TextEncoder().encode(scheme))
  }
}

interface Simulation {
  timeline: Timeline
  a: Peer
  b: Peer
}

function simulate (random: Random, conditions: Conditions, a: PeerInit, b: PeerInit): Simulation {
  const timeline = new Timeline()

  const path = (to: () => Peer) => (datagram: Uint8Array): void => {
    const copies = random() < conditions.duplication ? 2 : 1

    for (let i = 0; i < copies; i++) {
      if (random() >= conditions.loss) {
        timeline.at(timeline.now + conditions.delay + between(random, 0, conditions.jitter), () => { to().receive(datagram) })
      }
    }
  }

  const simulation: Simulation = {
    timeline,
    a: new Peer(a, timeline, path(() => simulation.b)),
    b: new Peer(b, timeline, path(() => simulation.a))
  }

  return simulation
}

function randomConditions (random: Random): Conditions {
  // a third of the networks is perfect in one respect or another
  const maybe = (value: number): number => random() < 1 / 3 ? 0 : value

  return {
    loss: maybe(between(random, 0, 0.3)),
    duplication: maybe(between(random, 0, 0.3)),
    delay: between(random, 0.1, 300),
    jitter: maybe(between(random, 0, 200))
  }
}

function randomId (random: Random): Uint8Array {
  const key = Uint8Array.from({ length: 32 }, () => integer(random, 256))

  return random() < 0.7 ? Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...key) : Uint8Array.of(0x12, 0x20, ...key)
}

function randomPeer (random: Random, names: string[]): PeerInit {
  const pool = [...names]
  const schemes = Array.from({ length: 1 + integer(random, names.length) }, () => pool.splice(integer(random, pool.length), 1)[0])

  return { id: randomId(random), schemes, packet: random() < 0.7 }
}

/** Both sides came to an end, the same one */
function expectAgreement ({ a, b }: Simulation): void {
  const common = a.init.schemes.some(scheme => b.init.schemes.includes(scheme))

  if (!common) {
    expect(a.error).to.have.property('name', 'NoCommonSchemeError')
    expect(b.error).to.have.property('name', 'NoCommonSchemeError')
    return
  }

  expect(a.error).to.be.undefined()
  expect(b.error).to.be.undefined()

  const [initiator, responder] = a.agreement?.role === 'initiator' ? [a, b] : [b, a]
  const ours = initiator.agreement as Agreement
  const theirs = responder.agreement as Agreement

  expect([ours.role, theirs.role]).to.deep.equal(['initiator', 'responder'])
  expect(ours.scheme).to.equal(theirs.scheme)
  expect(ours.simultaneous).to.equal(theirs.simultaneous)
  expect(theirs.claimedId).to.equalBytes(initiator.init.id)
  expect(theirs.remoteSchemes).to.deep.equal(initiator.init.schemes)

  if (ours.simultaneous) {
    expect(ours.claimedId).to.equalBytes(responder.init.id)
    expect({ scheme: ours.scheme, role: 'initiator' }).to.deep.equal(chooseSimultaneous(
      { peerId: initiator.init.id, schemes: initiator.init.schemes },
      { peerId: responder.init.id, schemes: responder.init.schemes }
    ))
  } else {
    expect(ours.claimedId).to.be.undefined()
    expect(ours.scheme).to.equal(chooseStandard(initiator.init.schemes, responder.init.schemes))
  }

  if (!ours.sendFirstFlight) {
    expect(theirs.initiationPacket, 'the responder has the first flight that the initiator need not send').to.exist()
  }

  if (theirs.initiationPacket != null) {
    expect(ours.scheme).to.equal(initiator.init.schemes[0])
    expect(new TextDecoder().decode(theirs.initiationPacket.subarray(2))).to.equal(ours.scheme)
  }
}

/** Nothing is sent any more, whatever is still under way */
function expectSilence ({ timeline, a, b }: Simulation): void {
  const before = a.framesSent + b.framesSent
  const end = timeline.now
  timeline.run(() => false, end + AFTERMATH)

  expect(a.negotiator.pollTimeout()).to.be.undefined()
  expect(b.negotiator.pollTimeout()).to.be.undefined()
  expect(timeline.now, 'the last datagram').to.be.below(end + 30_000)
  expect(a.framesSent + b.framesSent - before, 'frames sent after the end').to.be.at.most(30)
  expect(a.unexpected + b.unexpected, 'frames that made no sense').to.equal(0)
}

/** One test of many runs; the offset keeps the seeds of different tests apart */
function runs (title: string, offset: number, run: (random: Random) => void): void {
  const first = REPLAY == null ? offset : Number(REPLAY)
  const count = REPLAY == null ? RUNS : 1

  it(`${title} (${count} runs)`, () => {
    for (let seed = first; seed < first + count; seed++) {
      try {
        run(seeded(seed))
      } catch (err: any) {
        err.message = `PSEC_SIMULATION_SEED=${seed}: ${err.message}`
        throw err
      }
    }
  })
}

describe('negotiation, simulated', () => {
  const NAMES = ['/a', '/b', '/c', '/d']

  runs('standard: the proposer initiates what the responder chose', 1_000_000, random => {
    const simulation = simulate(random, randomConditions(random), randomPeer(random, NAMES), randomPeer(random, NAMES))
    const { timeline, a, b } = simulation

    a.propose()

    expect(timeline.run(() => a.ended && b.ended, DEADLINE), 'both came to an end').to.be.true()
    expectAgreement(simulation)
    expect(a.agreement?.role ?? 'initiator').to.equal('initiator')
    expect(a.agreement?.simultaneous ?? false).to.be.false()
    expectSilence(simulation)
  })

  runs('simultaneous: both come to the same by themselves', 2_000_000, random => {
    const simulation = simulate(random, randomConditions(random), randomPeer(random, NAMES), randomPeer(random, NAMES))
    const { timeline, a, b } = simulation

    a.propose()
    b.propose()

    expect(timeline.run(() => a.ended && b.ended, DEADLINE), 'both came to an end').to.be.true()
    expectAgreement(simulation)
    expect(a.agreement?.simultaneous ?? true).to.be.true()
    expectSilence(simulation)
  })

  runs('half simultaneous: one proposes while the other\'s proposal is under way, or has just come', 3_000_000, random => {
    const conditions = randomConditions(random)
    const simulation = simulate(random, conditions, randomPeer(random, NAMES), randomPeer(random, NAMES))
    const { timeline, a, b } = simulation

    a.propose()
    timeline.at(between(random, 0, 1.5 * (conditions.delay + conditions.jitter)), () => { b.propose() })

    expect(timeline.run(() => a.ended && b.ended, DEADLINE), 'both came to an end').to.be.true()
    expectAgreement(simulation)
    expectSilence(simulation)
  })

  describe('on a perfect network', () => {
    const perfect = { loss: 0, duplication: 0, delay: 50, jitter: 0 }
    const low: PeerInit = { id: Uint8Array.of(0x12, 0x20, ...new Uint8Array(32)), schemes: ['/a', '/b'], packet: true }
    const high: PeerInit = { id: Uint8Array.of(0x12, 0x20, ...new Uint8Array(31), 1), schemes: ['/b', '/a'], packet: true }

    it('costs no round trip with the initiation packet: the scheme\'s answer comes with the accept', () => {
      const { timeline, a, b } = simulate(seeded(1), perfect, low, { ...high, schemes: ['/a'] })
      a.propose()

      expect(timeline.run(() => a.secured, DEADLINE)).to.be.true()
      expect(timeline.now).to.equal(100)
      expect([a.framesSent, b.framesSent]).to.deep.equal([1, 1])
    })

    it('costs one round trip without it', () => {
      const { timeline, a, b } = simulate(seeded(1), perfect, { ...low, packet: false }, high)
      a.propose()

      expect(timeline.run(() => a.secured, DEADLINE)).to.be.true()
      expect(timeline.now).to.equal(200)
      expect([a.framesSent, b.framesSent]).to.deep.equal([1, 1])
    })

    it('takes a proposal of each for a simultaneous negotiation, and nothing else', () => {
      const { timeline, a, b } = simulate(seeded(1), perfect, low, high)
      a.propose()
      b.propose()

      expect(timeline.run(() => a.secured && b.secured, DEADLINE)).to.be.true()
      expect(a.agreement).to.include({ role: 'initiator', scheme: '/a' })
      expect([a.framesSent, b.framesSent]).to.deep.equal([1, 1])
    })
  })

  describe('on a network that doubles every datagram', () => {
    for (const delay of [1, 200, 1_000, 5_000]) {
      it(`does not answer answers for ever, with a round trip of ${2 * delay} ms`, () => {
        const random = seeded(delay)
        const simulation = simulate(random, { loss: 0, duplication: 1, delay, jitter: 1 }, randomPeer(random, ['/a']), randomPeer(random, ['/a']))
        const { timeline, a, b } = simulation
        a.propose()
        b.propose()

        expect(timeline.run(() => a.ended && b.ended, DEADLINE)).to.be.true()
        timeline.run(() => false, timeline.now + AFTERMATH)
        const framesSent = a.framesSent + b.framesSent
        timeline.run(() => false, timeline.now + AFTERMATH)

        expect(a.framesSent + b.framesSent, 'frames sent after ten minutes').to.equal(framesSent)
        expect(framesSent).to.be.at.most(100)
      })
    }
  })
})
