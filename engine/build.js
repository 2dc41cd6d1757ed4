/**
 * Builds the native engine with cargo and puts it where `src/engine/load.ts` looks for it.
 *
 * Run by `npm install`. There it never fails: whoever installs the package without a Rust toolchain can still import it, and
 * is told what is missing, here and by `EngineUnavailableError`. With `--check` (as `npm run demo` and `npm test` call it) a
 * missing engine is an error.
 */
/* eslint-disable no-console */
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, renameSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const MINIMUM_RUST = [1, 89]
const folder = dirname(fileURLToPath(import.meta.url))
const mustSucceed = process.argv.includes('--check')

/**
 * @param {string} message
 * @returns {never}
 */
function fail (message) {
  console.error(`\nlibp2p-psec: the native engine was not built.\n${message}\n`)
  process.exit(mustSucceed ? 1 : 0)
}

const version = spawnSync('cargo', ['--version'], { encoding: 'utf8' })

if (version.error != null || version.status !== 0) {
  fail(`It needs a Rust toolchain (cargo ${MINIMUM_RUST.join('.')} or later) and a C compiler, and there is no working "cargo" on the PATH.
Install Rust as described on https://rustup.rs, then run "npm run build:engine".`)
}

const [major, minor] = (/cargo (\d+)\.(\d+)/.exec(version.stdout) ?? []).slice(1).map(Number)

if (major < MINIMUM_RUST[0] || (major === MINIMUM_RUST[0] && minor < MINIMUM_RUST[1])) {
  fail(`It needs Rust ${MINIMUM_RUST.join('.')} or later, this is ${version.stdout.trim()}. Update it ("rustup update"), then run "npm run build:engine".`)
}

const build = spawnSync('cargo', ['build', '--release', '--locked', ...(process.stderr.isTTY ? [] : ['--quiet'])], {
  cwd: folder,
  stdio: ['ignore', 'inherit', 'inherit']
})

if (build.status !== 0) {
  fail('cargo could not build it: the reason stands above. Once it is mended, run "npm run build:engine".')
}

const target = process.env.CARGO_TARGET_DIR ?? join(folder, 'target')
const library = ['libpsec_engine.so', 'libpsec_engine.dylib', 'psec_engine.dll']
  .map(name => join(target, 'release', name))
  .find(existsSync)

if (library == null) {
  fail(`cargo built it, but there is no library in ${join(target, 'release')}.`)
}

// By way of a second name: a running process may have the old one mapped.
const addon = join(folder, 'psec-engine.node')
copyFileSync(library, `${addon}.new`)
renameSync(`${addon}.new`, addon)
