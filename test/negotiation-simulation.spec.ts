/**
 * Two nodes in virtual time, on networks that lose, delay, overtake, double, and drop what is large. Every run follows from its
 * seed alone: `npm run simulate -- --seed N` replays the one that failed, with a trace. The figures of many more runs are in
 * `benchmarks/README.md`.
 */
import { expect } from 'aegir/chai'
import { simulate } from './fixtures/simulation/index.ts'
import { CLASSES, haveSchemeInCommon, LOSSES, MODES } from './fixtures/simulation/scenario.ts'
import type { Mode, Scenario } from './fixtures/simulation/scenario.ts'

/** Of each mode with each loss */
const RUNS = 200

/** Where the project promises success, and how fast, in milliseconds */
const MAX_LOSS = 0.3
const IN_TIME = 10_000

function seedsOf (mode: Mode, loss: typeof LOSSES[number]): number[] {
  const first = LOSSES.indexOf(loss) * MODES.length + MODES.indexOf(mode)

  return Array.from({ length: RUNS }, (_, run) => first + run * CLASSES)
}

describe('negotiation, simulated', () => {
  for (const mode of MODES) {
    for (const loss of LOSSES) {
      const promise = loss <= MAX_LOSS ? 'everybody agrees, and is secured, within ten seconds' : 'nobody disagrees'

      it(`${mode}, with ${loss * 100} % lost: ${promise} (${RUNS} runs)`, async () => {
        for (const seed of seedsOf(mode, loss)) {
          const { scenario, securedAfter = Infinity, mistakes } = await simulate(seed)
          const where = `npm run simulate -- --seed ${seed}`

          expect(mistakes, where).to.be.empty()

          if (haveSchemeInCommon(scenario) && loss <= MAX_LOSS) {
            expect(securedAfter, where).to.be.at.most(IN_TIME)
          }
        }
      })
    }
  }

  it('repeats itself', async () => {
    const [first, second] = await Promise.all([simulate(107), simulate(107)])

    expect(first).to.deep.equal(second)
  })

  describe('on a perfect network', () => {
    const low = { id: Uint8Array.of(0x12, 0x20, ...new Uint8Array(32)), schemes: ['/a', '/b'], initiationPacket: true }
    const high = { id: Uint8Array.of(0x12, 0x20, ...new Uint8Array(31), 1), schemes: ['/b', '/a'], initiationPacket: true }

    /** A round trip of 100 ms; the scheme takes one and a half of them */
    function perfect ({ peers: [a, b], ...scenario }: Scenario): Scenario {
      return {
        ...scenario,
        loss: 0,
        duplication: 0,
        delay: 50,
        jitter: 0,
        mtu: 1452,
        peers: [{ ...a, ...low, dialsAt: 0 }, { ...b, ...high, dialsAt: undefined }]
      }
    }

    it('costs no round trip with the initiation packet: the scheme\'s answer comes with the accept', async () => {
      const adjust = (scenario: Scenario): Scenario => {
        const { peers: [a, b], ...rest } = perfect(scenario)

        return { ...rest, peers: [a, { ...b, schemes: ['/a'] }] }
      }

      expect(await simulate(0, { adjust })).to.include({ agreedAfter: 100, securedAfter: 150, frames: 2 })
    })

    it('costs one round trip without it', async () => {
      const adjust = (scenario: Scenario): Scenario => {
        const { peers: [a, b], ...rest } = perfect(scenario)

        return { ...rest, peers: [{ ...a, initiationPacket: false }, b] }
      }

      expect(await simulate(0, { adjust })).to.include({ agreedAfter: 100, securedAfter: 250, frames: 2 })
    })

    it('takes a proposal of each for a simultaneous negotiation, and nothing else', async () => {
      const adjust = (scenario: Scenario): Scenario => {
        const { peers: [a, b], ...rest } = perfect(scenario)

        return { ...rest, peers: [a, { ...b, dialsAt: 0 }] }
      }

      expect(await simulate(0, { adjust })).to.include({ agreedAfter: 50, securedAfter: 150, frames: 2 })
    })

    it('gets through with a proposal that is too large for the path', async () => {
      const adjust = (scenario: Scenario): Scenario => ({ ...perfect(scenario), mtu: 1232 })

      expect(await simulate(0, { adjust })).to.include({ agreedAfter: 350, frames: 3 })
    })
  })

  describe('on a network that doubles every datagram', () => {
    const patience = { negotiationTimeout: 60_000, handshakeTimeout: 60_000 }

    for (const delay of [1, 200, 1_000, 5_000]) {
      it(`does not answer answers for ever, with a round trip of ${2 * delay} ms`, async () => {
        const adjust = ({ peers: [a, b], ...scenario }: Scenario): Scenario => ({
          ...scenario,
          loss: 0,
          duplication: 1,
          delay,
          jitter: 1,
          peers: [{ ...a, schemes: ['/a'], dialsAt: 0 }, { ...b, schemes: ['/a'], dialsAt: 0 }]
        })
        const { mistakes, frames } = await simulate(delay, { adjust, settings: patience })

        expect(mistakes).to.be.empty()
        // what is proposed every quarter of a second until the other's scheme is heard, and as much for answers
        expect(frames).to.be.at.most(20 + 2 * 4 * delay * 4 / 250)
      })
    }
  })
})
