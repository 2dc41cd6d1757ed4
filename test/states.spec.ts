/**
 * The published vectors of the negotiation's states and datagrams, for any implementation (`test/vectors/README.md`)
 */
import { readFileSync } from 'node:fs'
import { expect } from 'aegir/chai'
import { fromString } from 'uint8arrays/from-string'
import { toString } from 'uint8arrays/to-string'
import { Negotiator } from '../src/negotiation/index.ts'
import type { NegotiationEvent } from '../src/negotiation/index.ts'

interface Scenario {
  name: string
  local: { peerId: string, schemes: string[] }
  steps: Step[]
}

type Step = StepResult & ({ at: number } & (
  { do: 'dial', initiationPacket?: string } |
  { do: 'datagram', hex: string } |
  { do: 'timer' | 'secured' }
))

interface StepResult {
  is?: string
  sends: string[]
  result?: object
  status: string
  timer: number | null
}

const FAILURES: Record<string, string> = {
  NoCommonSchemeError: 'nothing in common',
  SelfNegotiationError: 'self-negotiation'
}

function vectors <T> (file: string): T {
  return JSON.parse(readFileSync(new URL(`./vectors/${file}`, import.meta.url), 'utf8'))
}

const bytes = (text: string): Uint8Array => fromString(text, 'base16')
const hex = (bytes: Uint8Array): string => toString(bytes, 'base16')

function takeAll <T> (poll: () => T | undefined): T[] {
  const taken: T[] = []

  for (let value = poll(); value != null; value = poll()) {
    taken.push(value)
  }

  return taken
}

function perform (negotiator: Negotiator, step: Step): string | undefined {
  switch (step.do) {
    case 'dial':
      negotiator.propose(step.at, step.initiationPacket == null ? undefined : bytes(step.initiationPacket))
      return
    case 'datagram':
      return negotiator.handleDatagram(bytes(step.hex), step.at)
    case 'timer':
      negotiator.handleTimeout(step.at)
      return
    default:
      negotiator.handleSecured(step.at)
  }
}

function describeEvent (event: NegotiationEvent): object {
  if (event.type === 'failed') {
    return { failed: FAILURES[event.error.name] }
  }

  if (event.type === 'renewed') {
    return { renewed: hex(event.proposal) }
  }

  const { scheme, role, simultaneous, sendFirstFlight, initiationPacket } = event.agreement

  return {
    agreed: scheme,
    role,
    simultaneous,
    ...(role === 'initiator' ? { sendFirstFlight } : {}),
    ...(initiationPacket == null ? {} : { initiationPacket: hex(initiationPacket) })
  }
}

describe('a negotiation does as the published vectors have it', () => {
  for (const { name, local, steps } of vectors<Scenario[]>('states.json')) {
    it(name, () => {
      const negotiator = new Negotiator({ localId: bytes(local.peerId), schemes: local.schemes })
      const done = steps.map(step => {
        const is = perform(negotiator, step)
        const sends = takeAll(() => negotiator.pollTransmit()).map(hex)
        const [result, ...more] = takeAll(() => negotiator.pollEvent()).map(describeEvent)
        expect(more).to.be.empty()

        return {
          ...step,
          ...(is == null ? {} : { is }),
          sends,
          ...(result == null ? {} : { result }),
          status: negotiator.status,
          timer: negotiator.pollTimeout() ?? null
        }
      })

      expect(done).to.deep.equal(steps)
    })
  }
})

describe('a datagram on a flow is what the published vectors say', () => {
  for (const { name, hex, is } of vectors<Array<{ name: string, hex: string, is: string }>>('datagrams.json')) {
    it(`${is}: ${name}`, () => {
      const negotiator = new Negotiator({ localId: bytes(`002408011220${'00'.repeat(32)}`), schemes: ['x'] })
      const verdict = negotiator.handleDatagram(bytes(hex), 0)

      // a frame that nobody has waited for is one all the same
      expect(verdict === 'unexpected' ? 'frame' : verdict).to.equal(is)
    })
  }
})
