import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
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

describe('a package whose native engine was not built', () => {
  let folder: string

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'psec-package-'))
    await cp('src', join(folder, 'src'), { recursive: true })
    await cp('package.json', join(folder, 'package.json'))
    await symlink(resolve('node_modules'), join(folder, 'node_modules'))
  })

  after(async () => {
    await rm(folder, { recursive: true })
  })

  async function run (...args: string[]): Promise<string> {
    return new Promise(resolve => {
      execFile(process.execPath, ['src/cli/bin.ts', ...args], { cwd: folder, env: { ...process.env, NODE_OPTIONS: '' } }, (_err, _stdout, stderr) => { resolve(stderr) })
    })
  }

  for (const args of [['listen'], ['ping', '/ip4/127.0.0.1/udp/9/psec']]) {
    it(`says what to install when it is to ${args[0]}`, async () => {
      expect(await run(...args)).to.match(/^psec: EngineUnavailableError: .*Rust toolchain.*npm rebuild libp2p-psec/m)
    })
  }
})
