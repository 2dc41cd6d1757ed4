/**
 * Builds the programs that ours meets, and says what is missing
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const GO = fileURLToPath(new URL('go', import.meta.url))
const WOLFSSL = fileURLToPath(new URL('wolfssl', import.meta.url))

export const GO_PEER = fileURLToPath(new URL('go/psec-interop', import.meta.url))
export const WOLFSSL_RECORDS = fileURLToPath(new URL('wolfssl/target/release/psec-interop-wolfssl', import.meta.url))

export interface Tools {
  go: string
  openssl: string
}

/**
 * Throws if something is missing, or can't be built
 */
export function build (): Tools {
  if (process.platform !== 'linux') {
    throw new Error('The programs that ours meets are kept together by a Linux kind of socket: run this on Linux')
  }

  const go = ask('go', ['version'], 'Install Go 1.25 or later, see https://go.dev/doc/install')
  const openssl = ask('openssl', ['version'], 'Install the command "openssl", the package of that name on Debian')
  ask('cargo', ['--version'], 'Install Rust, see https://rustup.rs')

  make('go', ['build', '-o', GO_PEER, '.'], GO)
  make('cargo', ['build', '--release', '--locked', '--quiet'], WOLFSSL)

  return { go, openssl }
}

function ask (tool: string, args: string[], advice: string): string {
  const { status, stdout } = spawnSync(tool, args, { encoding: 'utf8' })

  if (status !== 0) {
    throw new Error(`There is no working "${tool}" on the PATH. ${advice}`)
  }

  return stdout.trim()
}

function make (tool: string, args: string[], cwd: string): void {
  const { status } = spawnSync(tool, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'] })

  if (status !== 0) {
    throw new Error(`"${tool} ${args.join(' ')}" failed in ${cwd}: the reason stands above`)
  }
}
