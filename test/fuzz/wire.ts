import { expect } from 'aegir/chai'
import fc from 'fast-check'
import { decodeFrame, encodeFrame, looksLikeFrame } from '../../src/wire/index.ts'
import { datagram } from './arbitraries.ts'
import type { Frame } from '../../src/wire/index.ts'

/**
 * The codec: throws nothing but `InvalidFrameError`, reads nothing but whole frames, and makes the same bytes of them again
 */
export const wire = fc.property(datagram, fc.nat({ max: 20 }), (bytes, offset) => {
  // a view within a larger buffer, as a batch of datagrams has them
  const buffer = new Uint8Array(offset + bytes.byteLength + 3).fill(0xee)
  buffer.set(bytes, offset)
  let frame: Frame

  try {
    frame = decodeFrame(buffer.subarray(offset, offset + bytes.byteLength))
  } catch (err: any) {
    expect(err).to.have.property('name', 'InvalidFrameError')
    expect(err.reason).to.be.a('string')
    return
  }

  expect(looksLikeFrame(bytes)).to.equal(true)

  const again = encodeFrame(frame)
  // an explicit initiation packet of length 0 is left out
  const same = again.byteLength === bytes.byteLength ? bytes : bytes.subarray(0, -1)
  expect(again).to.equalBytes(same)
  expect(same.byteLength === bytes.byteLength || bytes.at(-1) === 0).to.equal(true)
})
