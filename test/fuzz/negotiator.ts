import fc from 'fast-check'
import { Negotiator } from '../../src/negotiation/index.ts'
import { applyEdits, datagram, edits, frameBytes, IDS, SCHEMES } from './arbitraries.ts'
import { AdvanceCommand, DeliverCommand, ProposeCommand, RepeatCommand, SecuredCommand } from './negotiator-commands.ts'
import { NegotiatorModel } from './negotiator-model.ts'
import type { NegotiatorCommand, System } from './negotiator-commands.ts'

const packet = fc.option(fc.constantFrom(Uint8Array.of(0x40, 1), Uint8Array.of(0x40, 3)), { nil: undefined })

const commands: Array<fc.Arbitrary<NegotiatorCommand>> = [
  packet.map(packet => new ProposeCommand(packet)),
  frameBytes.map(bytes => new DeliverCommand(bytes)),
  frameBytes.map(bytes => new DeliverCommand(bytes)),
  datagram.map(bytes => new DeliverCommand(bytes)),
  fc.constant(new RepeatCommand()),
  fc.tuple(frameBytes, edits).map(([bytes, edits]) => new DeliverCommand(applyEdits(bytes, edits))),
  fc.oneof(fc.nat({ max: 400 }), fc.nat({ max: 20_000 })).map(milliseconds => new AdvanceCommand(milliseconds)),
  fc.constant(new SecuredCommand())
]

/**
 * The negotiator against a model of its states in the table of `docs/negotiation.md`, in any order of events
 */
export const negotiator = fc.property(
  fc.constantFrom(...IDS),
  fc.uniqueArray(fc.constantFrom(...SCHEMES), { minLength: 1 }),
  fc.commands(commands, { maxCommands: 60, size: 'max' }),
  (localId, schemes, commands) => {
    fc.modelRun(() => {
      const system: System = { negotiator: new Negotiator({ localId, schemes }), now: 0, outcomes: 0 }

      return { model: new NegotiatorModel(localId, schemes), real: system }
    }, commands)
  })
