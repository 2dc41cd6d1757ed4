import { PassThrough, Readable } from 'node:stream'
import { expect } from 'aegir/chai'
import fc from 'fast-check'
import { run } from '../../src/cli/decode.ts'
import { Output } from '../../src/cli/output.ts'
import { datagram } from './arbitraries.ts'

const hex = datagram.map(bytes => Buffer.from(bytes).toString('hex'))

const input = fc.oneof(
  { weight: 4, arbitrary: hex },
  { weight: 1, arbitrary: hex.map(text => `0x${text.replaceAll(/(..)/g, '$1: ')}`) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 60 }) }
)

/** A terminal's escapes begin with one of the first, the others reorder text */
// eslint-disable-next-line no-control-regex
const UNPRINTABLE = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/

/**
 * `psec decode`: fails with `UsageError` or `InvalidFrameError`, prints a line of JSON, and for people nothing that a terminal
 * would obey
 */
export const decodeCommand = fc.asyncProperty(input, fc.boolean(), fc.boolean(), async (input, json, fromStdin) => {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  const output = new Output({ stdout, stderr, json })

  try {
    await run({ values: {}, positionals: fromStdin ? [] : [input] }, {
      output,
      stdin: Readable.from(fromStdin ? [Buffer.from(input, 'latin1')] : []),
      signal: new AbortController().signal
    })
  } catch (err: any) {
    expect(err.name).to.be.oneOf(['UsageError', 'InvalidFrameError'])
    return
  }

  const text: string = stdout.read().toString()

  if (json) {
    expect(JSON.parse(text)).to.have.property('event', 'frame')
    expect(text.trimEnd().split('\n')).to.have.lengthOf(1)
  } else {
    expect(UNPRINTABLE.test(text), text).to.equal(false)
  }
})
