/**
 * Every interleaving of two peers that negotiate, within bounds: docs/model.md. `npm run model` prints the figures.
 */
import { expect } from 'aegir/chai'
import { seededRandom } from './fixtures/random.ts'
import { configure } from './model/configuration.ts'
import { groups } from './model/configurations.ts'
import { Explorer } from './model/explorer.ts'
import { Datagrams, PeerMachine } from './model/machine.ts'
import { loadMutant, mutants } from './model/mutants.ts'
import { ModelPeer } from './model/peer.ts'
import type { ConfigurationInit } from './model/configuration.ts'
import type { PeerInput } from './model/peer.ts'

const GROUPS = groups()

/** Several times what the largest takes: one that grows beyond that is a mistake in its bounds */
const MAX_STATES = 500_000

function find (name: string): ConfigurationInit {
  for (const { title, configurations } of GROUPS) {
    const configuration = configurations.find(init => name === `${title}: ${init.name}`)

    if (configuration != null) {
      return configuration
    }
  }

  throw new Error(`There is no configuration "${name}"`)
}

describe('every interleaving', () => {
  for (const { title, configurations } of GROUPS) {
    describe(title, () => {
      for (const init of configurations) {
        it(init.name, function () {
          const { states, transitions } = new Explorer(configure(init)).run(MAX_STATES)
          expect(states).to.be.above(1)

          if (this.test != null) {
            this.test.title += ` (${states} states, ${transitions} transitions)`
          }
        }).timeout(120_000)
      }
    })
  }
})

describe('the explorer', () => {
  for (const mutant of mutants) {
    it(`finds a negotiator that ${mutant.name}`, async () => {
      const Mutant = await loadMutant(mutant)
      const explorer = new Explorer(configure({ ...find(mutant.foundIn), createNegotiator: init => new Mutant(init) }))

      expect(() => explorer.run(MAX_STATES)).to.throw().with.property('name', 'ViolationError')
    }).timeout(60_000)
  }

  it('takes two histories for one state only if they have one future', () => {
    for (const { configurations } of GROUPS) {
      configurations.forEach(expectOneFuture)
    }
  }).timeout(60_000)
})

const HISTORIES = 10
const LENGTH = 30

/**
 * Random histories, each played by one peer from its beginning, and followed step by step in the machine, which plays each step
 * from another history of the same state: both have to send the same and end in the same state
 */
function expectOneFuture (init: ConfigurationInit): void {
  const { peers } = configure(init)
  const random = seededRandom(1)
  const datagrams = new Datagrams()
  const machines = [new PeerMachine(peers[0], datagrams), new PeerMachine(peers[1], datagrams)]
  init.injections?.forEach(({ datagram }) => { datagrams.number(datagram) })

  for (let i = 0; i < HISTORIES; i++) {
    for (const machine of machines) {
      const peer = new ModelPeer(machine.init)
      let state = 0

      for (let j = 0; j < LENGTH; j++) {
        const input = j === 0 ? { type: 'start' as const } : randomInput(random, datagrams)
        const step = machine.step(state, input)

        if (step == null) {
          continue
        }

        expect(peer.handle(input)).to.equal(true)
        expect(peer.sent.map(datagram => datagrams.number(datagram))).to.deep.equal(step.sent)
        state = step.state
        expect(peer.key).to.equal(machine.key(state))
      }
    }
  }
}

function randomInput (random: () => number, datagrams: Datagrams): PeerInput {
  const socket = Math.floor(random() * 2)
  const others: PeerInput[] = [
    { type: 'dial' }, { type: 'dial' }, { type: 'abort' }, { type: 'age' }, { type: 'restart' },
    { type: 'retransmit', socket }, { type: 'grace', socket }, { type: 'repeat', socket }, { type: 'timeout', socket }
  ]

  if (random() < 0.3 || datagrams.bytes.length === 0) {
    return others[Math.floor(random() * others.length)]
  }

  return { type: 'receive', datagram: datagrams.bytes[Math.floor(random() * datagrams.bytes.length)] }
}
