import { execFile } from 'node:child_process'
import { access, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect } from 'aegir/chai'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const TSC = join(ROOT, 'node_modules', '.bin', 'tsc')
const PACKAGE = 'libp2p-psec'

const run = promisify(execFile)

interface Example {
  /**
   * Where it is written, as `file:line`
   */
  place: string
  code: string

  /**
   * `no-run` behind the language of a fence keeps an example from being run: it wants a network, or never ends
   */
  runs: boolean
}

/**
 * The fenced TypeScript of a file, also where it stands in a comment
 */
function findExamples (file: string, text: string): Example[] {
  const examples: Example[] = []
  const fence = /^(?<indent>[ \t]*(?:\* )?[ \t]*)```(?:ts|typescript)(?<info>[^\n]*)\n(?<code>[^]*?)\n[ \t]*(?:\* )?[ \t]*```$/gim

  for (const { index, groups } of text.matchAll(fence)) {
    const { indent = '', info = '', code = '' } = groups ?? {}

    examples.push({
      place: `${relative(ROOT, file)}:${text.slice(0, index).split('\n').length}`,
      code: code.split('\n').map(line => line.startsWith(indent) ? line.slice(indent.length) : line.replace(/^[ \t]*\*?$/, '')).join('\n'),
      runs: !info.includes('no-run')
    })
  }

  return examples
}

async function findFiles (folder: string, extension: string): Promise<string[]> {
  const entries = await readdir(join(ROOT, folder), { recursive: true })

  return entries.filter(entry => entry.endsWith(extension)).map(entry => join(ROOT, folder, entry))
}

async function findPages (): Promise<string[]> {
  // `npm run docs` puts copies of pages there
  const generated = join(ROOT, 'docs', 'api')
  const docs = (await findFiles('docs', '.md')).filter(file => !file.startsWith(generated))
  const others = ['.', 'benchmarks', 'interop', join('test', 'vectors')].map(folder => join(ROOT, folder, 'README.md'))

  return [...others, ...docs]
}

async function readExamples (): Promise<Example[]> {
  const pages = await findPages()
  const sources = await findFiles('src', '.ts')
  const read = async (file: string): Promise<Example[]> => findExamples(file, await readFile(file, 'utf8'))

  return [
    ...(await Promise.all(pages.map(read))).flat(),
    // in a comment an example may lean on what is around it; one that imports the package stands alone
    ...(await Promise.all(sources.map(read))).flat().filter(({ code }) => code.includes(`from '${PACKAGE}'`))
  ]
}

const examples = await readExamples()

describe('the tests that the documentation names', () => {
  it('exist', async () => {
    const page = await readFile(join(ROOT, 'docs', 'security.md'), 'utf8')
    // [`file`](../file): *title*, *title*
    const citations = [...page.matchAll(/\]\(\.\.\/(?<file>[^)]+)\): (?<titles>\*[^*]+\*(?:, \*[^*]+\*)*)/g)]
    const missing: string[] = []

    for (const { groups } of citations) {
      const source = (await readFile(join(ROOT, groups?.file ?? ''), 'utf8')).replaceAll('\\\'', '\'')
      missing.push(...(groups?.titles ?? '').split(/(?:^|, )\*|\*$/).map(title => title.replace(/\*$/, '')).filter(title => !source.includes(title)))
    }

    expect(citations).to.not.be.empty()
    expect(missing).to.deep.equal([])
  })
})

describe('the links of the documentation', () => {
  /** As GitHub makes them of headings */
  function anchors (page: string): string[] {
    return [...page.matchAll(/^#+ (?<heading>.*)$/gm)].map(({ groups }) => (groups?.heading ?? '')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_ -]/gu, '')
      .replaceAll(' ', '-'))
  }

  async function leadsNowhere (page: string, link: string): Promise<boolean> {
    const [path, anchor] = link.split('#')
    const file = path === '' ? page : join(dirname(page), path)

    try {
      await access(file)

      return anchor != null && !anchors(await readFile(file, 'utf8')).includes(anchor)
    } catch {
      return true
    }
  }

  it('lead to files and headings that exist', async () => {
    const broken: string[] = []
    let count = 0

    for (const page of await findPages()) {
      const text = await readFile(page, 'utf8')

      for (const { groups } of text.matchAll(/\]\((?!https?:)(?<link>[^)\s]+)\)/g)) {
        count++

        if (await leadsNowhere(page, groups?.link ?? '')) {
          broken.push(`${relative(ROOT, page)}: ${groups?.link}`)
        }
      }
    }

    expect(count).to.be.greaterThan(0)
    expect(broken).to.deep.equal([])
  })
})

describe('examples in the documentation', () => {
  let folder: string
  const files = new Map<Example, string>()

  before(async () => {
    // inside of the package, where its dependencies are found
    await mkdir(join(ROOT, 'build'), { recursive: true })
    folder = await mkdtemp(join(ROOT, 'build', 'examples-'))

    for (const [index, example] of examples.entries()) {
      const file = join(folder, `example-${index}.ts`)
      files.set(example, file)
      // the sources instead of what was built of them, perhaps long ago
      await writeFile(file, `${example.code.replaceAll(`'${PACKAGE}'`, '\'../../src/index.ts\'')}\nexport {}\n`)
    }
  })

  after(async () => {
    await rm(folder, { recursive: true, force: true })
  })

  async function runExample (example: Example): Promise<void> {
    // rejects with what the example says on stderr
    await run(process.execPath, [files.get(example) ?? ''], {
      cwd: folder,
      env: { ...process.env, NODE_OPTIONS: '' },
      timeout: 30_000
    })
  }

  it('are there', () => {
    const places = examples.map(({ place }) => place.replace(/:.*/, ''))

    expect(places).to.include.members(['README.md', join('src', 'index.ts')])
  })

  it('compile', async function () {
    this.timeout(120_000)

    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({
      extends: '../../tsconfig.json',
      compilerOptions: { rootDir: ROOT, noEmit: true, composite: false, incremental: false },
      include: ['*.ts']
    }))

    const failure = await run(process.execPath, [TSC, '-p', folder], { cwd: ROOT }).then(() => '', err => err.stdout)
    const told = [...files].reduce((text: string, [{ place }, file]) => text.replaceAll(relative(ROOT, file), place), failure)

    expect(told).to.equal('')
  })

  for (const example of examples.filter(({ runs }) => runs)) {
    it(`run: ${example.place}`, async () => {
      await runExample(example)
    })
  }
})
