import assert from 'node:assert/strict'
import { decodeFrame, looksLikeFrame } from '../../src/wire/index.ts'
import type { Expected, NegotiatorModel } from './negotiator-model.ts'
import type { Negotiator } from '../../src/negotiation/index.ts'
import type { Frame } from '../../src/wire/index.ts'
import type fc from 'fast-check'

export interface System {
  negotiator: Negotiator
  now: number
  outcomes: number
  last?: Uint8Array
}

/**
 * An input of a negotiator, and what has to hold afterwards
 */
export abstract class NegotiatorCommand implements fc.Command<NegotiatorModel, System> {
  check (): boolean {
    return true
  }

  run (model: NegotiatorModel, system: System): void {
    const expected = this.apply(model, system)
    const { negotiator, now } = system
    const frames = []

    for (let frame = negotiator.pollTransmit(); frame != null; frame = negotiator.pollTransmit()) {
      frames.push(frame)
    }

    expectFrames(model, frames, expected)

    for (let event = negotiator.pollEvent(); event != null; event = negotiator.pollEvent()) {
      system.outcomes += event.type === 'renewed' ? 0 : 1
      assert.equal(event.type === 'renewed' ? 'agreed' : event.type, model.status)

      if (event.type === 'agreed') {
        const { scheme, role, simultaneous } = event.agreement
        assert.deepEqual({ scheme, role, simultaneous }, model.agreed)
      }
    }

    assert.equal(negotiator.status, model.status)
    assert.equal(system.outcomes, model.status === 'agreed' || model.status === 'failed' ? 1 : 0)

    const timeout = negotiator.pollTimeout()

    if (model.status === 'proposing') {
      assert.equal(typeof timeout, 'number')
    } else if (model.status !== 'agreed') {
      assert.equal(timeout, undefined)
    }

    // what is due has been done: nobody waits for the past
    negotiator.handleTimeout(now - 1)
    assert.equal(negotiator.pollTransmit(), undefined)
  }

  abstract toString (): string

  /**
   * Give the input to both
   */
  protected abstract apply (model: NegotiatorModel, system: System): Expected
}

function expectFrames (model: NegotiatorModel, frames: Uint8Array[], expected: Expected): void {
  if (expected === 'own proposal or nothing') {
    assert.ok(frames.length <= 1)
    frames.forEach(frame => { assert.deepEqual(frame, model.ownProposal) })
  } else {
    assert.deepEqual(frames, expected === 'nothing' ? [] : [expected])
  }
}

export class ProposeCommand extends NegotiatorCommand {
  readonly #packet?: Uint8Array

  constructor (packet?: Uint8Array) {
    super()
    this.#packet = packet
  }

  toString (): string {
    return `propose(${this.#packet ?? ''})`
  }

  protected apply (model: NegotiatorModel, { negotiator, now }: System): Expected {
    negotiator.propose(now, this.#packet)

    return model.propose(this.#packet)
  }
}

export class DeliverCommand extends NegotiatorCommand {
  readonly #bytes: Uint8Array

  constructor (bytes: Uint8Array) {
    super()
    this.#bytes = bytes
  }

  toString (): string {
    return `deliver(${Buffer.from(this.#bytes).toString('hex')})`
  }

  protected apply (model: NegotiatorModel, system: System): Expected {
    system.last = this.#bytes

    return deliver(model, system, this.#bytes)
  }
}

/**
 * The datagram of before once more: doubled, or repeated by the other
 */
export class RepeatCommand extends NegotiatorCommand {
  toString (): string {
    return 'repeat()'
  }

  protected apply (model: NegotiatorModel, system: System): Expected {
    return system.last == null ? 'nothing' : deliver(model, system, system.last)
  }
}

export class AdvanceCommand extends NegotiatorCommand {
  readonly #milliseconds: number

  constructor (milliseconds: number) {
    super()
    this.#milliseconds = milliseconds
  }

  toString (): string {
    return `advance(${this.#milliseconds})`
  }

  protected apply (model: NegotiatorModel, system: System): Expected {
    const { negotiator } = system
    system.now += this.#milliseconds
    negotiator.handleTimeout(system.now)
    assert.ok((negotiator.pollTimeout() ?? Infinity) > system.now, 'the next deadline lies in the past')

    return model.advance(system.now)
  }
}

export class SecuredCommand extends NegotiatorCommand {
  toString (): string {
    return 'secured()'
  }

  protected apply (model: NegotiatorModel, { negotiator, now }: System): Expected {
    negotiator.handleSecured(now)
    model.secure(now)

    return 'nothing'
  }
}

function deliver (model: NegotiatorModel, { negotiator, now }: System, bytes: Uint8Array): Expected {
  const verdict = negotiator.handleDatagram(bytes, now)

  if (bytes.byteLength > 0 && !looksLikeFrame(bytes)) {
    assert.equal(verdict, 'scheme')
    return 'nothing'
  }

  let frame: Frame

  try {
    frame = decodeFrame(bytes)
  } catch {
    assert.equal(verdict, 'invalid')
    return 'nothing'
  }

  assert.ok(verdict === 'frame' || verdict === 'unexpected')
  const expected = model.receive(frame, now)

  if (expected instanceof Uint8Array && frame.type === 'propose' && expected !== model.ownProposal) {
    assert.ok(expected.byteLength <= bytes.byteLength, 'a response is larger than the proposal')
  }

  return expected
}
