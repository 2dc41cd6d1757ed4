import { streamPair } from '@libp2p/utils'
import { expect } from 'aegir/chai'
import fc from 'fast-check'
import * as varint from 'uint8-varint'
import { receiveFile } from '../../src/cli/file-transfer/index.ts'
import { readHeader, readResult, readVerdict } from '../../src/cli/file-transfer/messages.ts'
import { numberedName, safeName } from '../../src/cli/file-transfer/safe-name.ts'

const json = fc.oneof(
  fc.json({ maxDepth: 2 }),
  fc.record({
    name: fc.anything({ maxDepth: 1 }),
    size: fc.oneof(fc.integer(), fc.double(), fc.string()),
    status: fc.constantFrom('ready', 'refused', 'received', 'failed', 'x'),
    reason: fc.option(fc.string()),
    bytes: fc.oneof(fc.integer(), fc.double()),
    sha256: fc.option(fc.string())
  }, { requiredKeys: [] }).map(value => JSON.stringify(value, (_, value) => typeof value === 'bigint' ? `${value}` : value) ?? 'null')
)

const message = fc.oneof(json.map(text => new TextEncoder().encode(text)), fc.uint8Array({ maxLength: 40 }))

/**
 * What the other end of a file transfer says: a message of the wanted form, or a `FileTransferError`
 */
export const fileMessages = fc.asyncProperty(message, async (bytes) => {
  const messages = { read: async () => bytes } as any

  for (const read of [readHeader, readVerdict, readResult]) {
    const result = await read(messages, {}).catch((err: Error) => err)

    if (result instanceof Error) {
      expect(result).to.have.property('name', 'FileTransferError')
    } else if ('size' in result) {
      expect(result.name).to.be.a('string')
      expect(Number.isSafeInteger(result.size) && result.size >= 0).to.equal(true)
    }
  }
})

/**
 * The name that a stranger gives to a file: never a path, never hidden, never too long
 */
export const fileNames = fc.property(fc.oneof(fc.string({ unit: 'binary', maxLength: 300, size: 'max' }), fc.string({ unit: fc.constantFrom('.', '/', '\\', ' ', 'a', '\u202e', '\0'), maxLength: 40 })), fc.nat({ max: 9999 }), (wanted, number) => {
  const name = numberedName(safeName(wanted), number)

  expect(Buffer.byteLength(name)).to.be.within(1, 255)
  expect(name).to.not.match(/[/\\\0]|^\.|^\s|[. ]$/)
  expect(name.isWellFormed()).to.equal(true)
})

/**
 * A sender's first bytes, in any chunks, to a node that takes no files: it ends, one way or the other
 */
export const fileStream = fc.asyncProperty(
  fc.oneof(message.map(bytes => Uint8Array.of(...varint.encode(bytes.byteLength), ...bytes)), fc.uint8Array({ maxLength: 60 })),
  fc.nat({ max: 20 }),
  async (bytes, split) => {
    const [ours, theirs] = await streamPair()

    theirs.send(bytes.subarray(0, split))
    theirs.send(bytes.subarray(split))
    const closed = theirs.close().catch(() => {})
    const outcome = await receiveFile(ours, { signal: AbortSignal.timeout(20_000) }).catch((err: Error) => err)

    if (outcome instanceof Error) {
      expect(outcome.name).to.not.be.oneOf(['TypeError', 'ReferenceError', 'TimeoutError'])
    }

    theirs.abort(new Error('The test is over'))
    ours.abort(new Error('The test is over'))
    await closed
  })
