import { expect } from 'aegir/chai'
import { describeMode, describePart, findFaults } from '../demo/findings.ts'
import { schemes } from './fixtures/schemes.ts'
import type { Findings } from '../demo/findings.ts'
import type { PsecEvent } from '../demo/psec-process.ts'

const QUIC_DATAGRAM = '/quic-datagram/1.0.0'

function connection (fields: Partial<PsecEvent>): PsecEvent {
  return { event: 'connection', scheme: QUIC_DATAGRAM, role: 'initiator', simultaneous: false, ...fields }
}

describe('demo', () => {
  const good: Findings = {
    file: 'abc',
    copy: 'abc',
    outbound: connection({ role: 'initiator' }),
    inbound: connection({ role: 'responder' }),
    sent: { event: 'sent', sha256: 'abc' },
    received: { event: 'file', sha256: 'abc' },
    counted: { event: 'datagrams', received: 1 }
  }

  it('finds no fault if everything arrived, by QUIC DATAGRAM', () => {
    expect(findFaults(good)).to.be.empty()
  })

  for (const { protocol } of schemes.filter(({ protocol }) => protocol !== QUIC_DATAGRAM)) {
    it(`finds a fault if both sides have agreed on ${protocol}`, () => {
      const faults = findFaults({ ...good, outbound: connection({ scheme: protocol }), inbound: connection({ scheme: protocol }) })

      expect(faults).to.have.lengthOf(1)
      expect(faults[0]).to.include(protocol).and.include(QUIC_DATAGRAM)
    })

    for (const side of ['outbound', 'inbound'] as const) {
      it(`finds a fault if the ${side} side reports ${protocol}`, () => {
        expect(findFaults({ ...good, [side]: connection({ scheme: protocol }) })).to.have.lengthOf(1)
      })
    }
  }

  for (const [what, findings] of Object.entries({
    'the copy differs': { copy: 'def' },
    'the sender read something else': { sent: { event: 'sent', sha256: 'def' } },
    'the receiver got something else': { received: { event: 'file', sha256: 'def' } },
    'no datagram arrived': { counted: { event: 'datagrams', received: 0 } }
  })) {
    it(`finds a fault if ${what}`, () => {
      expect(findFaults({ ...good, ...findings })).to.have.lengthOf(1)
    })
  }

  for (const { role, simultaneous, part, mode } of [
    { role: 'initiator', simultaneous: false, part: 'initiator, proposed it', mode: 'standard, only the sender had proposed' },
    { role: 'responder', simultaneous: false, part: 'responder, accepted it', mode: 'standard, only the receiver had proposed' },
    { role: 'initiator', simultaneous: true, part: 'initiator, proposed it', mode: 'simultaneous, both had proposed' },
    { role: 'responder', simultaneous: true, part: 'responder, proposed it', mode: 'simultaneous, both had proposed' }
  ]) {
    it(`tells the part of a ${role} in a ${simultaneous ? 'simultaneous' : 'standard'} negotiation`, () => {
      expect(describePart(connection({ role, simultaneous }))).to.equal(part)
      expect(describeMode(connection({ role, simultaneous }))).to.equal(mode)
    })
  }
})
