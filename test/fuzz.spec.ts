/**
 * A short run of what `npm run fuzz` does for long, with other inputs each time: a failure prints the seed and path that replay it
 */
import fc from 'fast-check'
import { targets } from './fuzz/index.ts'

describe('whatever comes', () => {
  for (const { title, runs, property } of targets) {
    it(`${title} (${runs} inputs)`, async () => {
      await fc.assert(property, { numRuns: runs })
    })
  }
})
