import { PassThrough } from 'node:stream'
import { expect } from 'aegir/chai'
import { Output } from '../src/cli/output.ts'
import { Progress } from '../src/cli/progress.ts'
import type { OutputStream } from '../src/cli/output.ts'

const ERASE = '\r\u001b[K'

describe('progress of the psec command', () => {
  function setUp (terminal: Partial<OutputStream>): { output: Output, written (): string } {
    const stderr = Object.assign(new PassThrough(), { isTTY: true }, terminal)

    return {
      output: new Output({ stdout: new PassThrough(), stderr, json: false }),
      written: () => stderr.read()?.toString() ?? ''
    }
  }

  for (const { bytes, total, bar } of [
    { bytes: 1, total: 1_000_000, bar: `${'░'.repeat(24)}   0 %` },
    { bytes: 1, total: 4, bar: `${'█'.repeat(6)}${'░'.repeat(18)}  25 %` },
    { bytes: 999_999, total: 1_000_000, bar: `${'█'.repeat(24)}  99 %` },
    { bytes: 4, total: 4, bar: `${'█'.repeat(24)} 100 %` },
    { bytes: 0, total: 0, bar: `${'█'.repeat(24)} 100 %` }
  ]) {
    it(`is drawn after ${bytes} of ${total} bytes`, () => {
      const { output, written } = setUp({ columns: 80 })
      new Progress(output, 'photo.jpg').update(bytes, total)

      expect(written()).to.match(new RegExp(`^\\r\\u001b\\[K${bar}  [\\d.]+ \\w+/s  photo\\.jpg$`))
    })
  }

  for (const { columns, length } of [
    { columns: 20, length: 19 },
    // a terminal that does not say how wide it is, or claims to have no columns
    { columns: undefined, length: 79 },
    { columns: 0, length: 79 }
  ]) {
    it(`stays on one line of ${columns} columns`, () => {
      const { output, written } = setUp({ columns })
      new Progress(output, 'n'.repeat(40)).update(1, 1)

      expect(written().slice(ERASE.length)).to.have.lengthOf.at.most(length)

      output.status('s'.repeat(200))

      expect(written()).to.equal(`${ERASE}${'s'.repeat(length)}`)
    })
  }

  it('is removed once', () => {
    const { output, written } = setUp({ columns: 80 })
    output.clearStatus()

    expect(written()).to.equal('')

    output.status('25 %')
    output.clearStatus()
    output.clearStatus()

    expect(written()).to.equal(`${ERASE}25 %${ERASE}`)
  })

  it('makes way for an error', () => {
    const { output, written } = setUp({ columns: 80 })
    output.status('25 %')
    output.error('psec: broken')

    expect(written()).to.equal(`${ERASE}25 %${ERASE}psec: broken\n`)
  })

  it('is not drawn where there is no terminal', () => {
    const { output, written } = setUp({ isTTY: false, columns: 80 })
    new Progress(output, 'photo.jpg').update(1, 4)
    output.clearStatus()

    expect(written()).to.equal('')
  })
})
