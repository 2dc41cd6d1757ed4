import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect } from 'aegir/chai'

describe('loading the native engine', () => {
  let folder: string
  let load: () => unknown

  beforeEach(async () => {
    // a copy of the package's sources, with whatever a test puts into its engine folder
    folder = await mkdtemp(join(tmpdir(), 'psec-engine-'))
    await cp('src/errors.ts', join(folder, 'src/errors.ts'))
    await cp('src/engine/load.ts', join(folder, 'src/engine/load.ts'))
    await writeFile(join(folder, 'package.json'), '{ "type": "module" }')
    await mkdir(join(folder, 'engine'))
    load = (await import(pathToFileURL(join(folder, 'src/engine/load.ts')).href)).loadEngine
  })

  afterEach(async () => {
    await rm(folder, { recursive: true })
  })

  it('says what to install where it was not built', () => {
    expect(load).to.throw(/Rust toolchain.*npm rebuild libp2p-psec/)
      .with.property('name', 'EngineUnavailableError')
  })

  it('says what to do where it was built for something else', async () => {
    await writeFile(join(folder, 'engine/psec-engine.node'), 'not a shared library')

    expect(load).to.throw(/can't be loaded.*npm rebuild libp2p-psec/)
      .with.property('name', 'EngineUnavailableError')
  })
})
