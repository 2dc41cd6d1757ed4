import { expect } from 'aegir/chai'
import fc from 'fast-check'
import { decode, encode, prefixLength } from '../../src/datagrams/quic-varint.ts'
import { SessionFlows } from '../../src/datagrams/session-flows.ts'
import { MemoryClock } from '../fixtures/memory-clock.ts'

const MAX_STREAM_ID = 20_000

const payload = fc.oneof(
  fc.uint8Array({ maxLength: 12 }),
  fc.tuple(fc.constantFrom(0, 1, 4, 63, 64, 16_384, MAX_STREAM_ID - 1, MAX_STREAM_ID, 2 ** 30), fc.uint8Array({ maxLength: 8 }), fc.constantFrom(0, 1, 1_200, 30_000)).map(([id, rest, length]) => {
    const bytes = new Uint8Array(8 + rest.byteLength + length)
    bytes.set(encode(id))
    bytes.set(rest, 8)

    return bytes
  })
)

const step = fc.oneof(
  { weight: 8, arbitrary: payload.map(payload => ({ payload })) },
  { weight: 1, arbitrary: fc.constantFrom(0, 1, 4, 63, 64).map(refuse => ({ refuse })) },
  { weight: 1, arbitrary: fc.nat({ max: 1_500 }).map(wait => ({ wait })) }
)

/**
 * What a remote sends as datagrams of flows that nobody knows: all of it is accounted for, and nothing is left
 */
export const datagrams = fc.asyncProperty(fc.array(step, { maxLength: 100, size: 'max' }), async (steps) => {
  const clock = new MemoryClock({ turns: 1 })
  const violations: string[] = []
  const flows = new SessionFlows({
    session: {
      status: 'open',
      maxDatagramSize: 1_200,
      droppedDatagrams: {},
      sendDatagram: () => true,
      abort: (err) => { violations.push(err.name) },
      streamId: () => undefined,
      isWithinStreamLimit: id => id < MAX_STREAM_ID
    },
    limits: { maxEarlyDatagrams: 64, earlyTimeout: 1_000, maxClosedFlows: 64 },
    onClose: () => {},
    clock
  })
  let received = 0

  for (const step of steps) {
    if ('payload' in step) {
      received++
      flows.onDatagram(step.payload)
    } else if ('refuse' in step) {
      flows.refuse(step.refuse)
    } else {
      await clock.advance(step.wait)
    }

    const { closed, early, invalid } = flows.dropped
    const held = received - closed - early - invalid
    expect(held, 'held').to.be.within(0, 64)
    expect(clock.pending).to.equal(held === 0 ? 0 : 1)
    expect(violations).to.have.lengthOf(invalid)
  }

  flows.onClose()
  expect(clock.pending).to.equal(0)
  expect(flows.dropped.closed + flows.dropped.early + flows.dropped.invalid).to.equal(received)
})

/**
 * QUIC's integers: no bytes make the decoder throw or read further than they go
 */
export const quicVarint = fc.property(fc.uint8Array({ maxLength: 10 }), (bytes) => {
  const length = prefixLength(bytes)
  expect(length).to.be.at.most(bytes.byteLength)

  if (length > 0) {
    const value = decode(bytes, length)

    if (value !== Infinity) {
      expect(value).to.be.within(0, Number.MAX_SAFE_INTEGER)
      const again = encode(value)
      expect(decode(again, again.byteLength)).to.equal(value)
      expect(again.byteLength).to.be.at.most(length)
    }
  }
})
