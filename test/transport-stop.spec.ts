import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect } from 'aegir/chai'

const STOPPING_NODES = fileURLToPath(new URL('fixtures/stopping-nodes.ts', import.meta.url))

describe('stopping nodes', () => {
  it('leaves nothing that keeps the process alive', async () => {
    // kills it, and rejects, if it does not end by itself
    const { stdout } = await promisify(execFile)(process.execPath, [STOPPING_NODES], {
      env: { ...process.env, NODE_OPTIONS: '' },
      timeout: 30_000
    })

    expect(JSON.parse(stdout)).to.deep.equal({ stopped: true, dial: 'AbortError' })
  })
})
