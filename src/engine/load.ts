import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { EngineUnavailableError } from '../errors.ts'
import type { NativeEngine } from './native.ts'

// The same file is two folders deep in `src/`, and three in `dist/`.
const PLACES = ['../../engine/psec-engine.node', '../../../engine/psec-engine.node']

let engine: NativeEngine | undefined

/**
 * The native engine, loaded when first needed. Throws `EngineUnavailableError`.
 */
export function loadEngine (): NativeEngine {
  if (engine != null) {
    return engine
  }

  const file = PLACES
    .map(place => fileURLToPath(new URL(place, import.meta.url)))
    .find(existsSync)

  if (file == null) {
    throw new EngineUnavailableError('The native engine of libp2p-psec is not built. It needs a Rust toolchain (https://rustup.rs): install one, then run "npm rebuild libp2p-psec" (in a clone of the repository: "npm run build:engine")')
  }

  try {
    engine = createRequire(import.meta.url)(file) as NativeEngine
  } catch (err: any) {
    throw new EngineUnavailableError(`The native engine of libp2p-psec can't be loaded: ${err.message}. It may have been built for another platform: run "npm rebuild libp2p-psec" (in a clone of the repository: "npm run build:engine")`, { cause: err })
  }

  engine.warmUp()

  return engine
}
