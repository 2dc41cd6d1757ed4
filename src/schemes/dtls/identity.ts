import { EngineUnavailableError } from '../../errors.ts'
import type { NativeDtlsOptions, NativeEngine, NativeIdentity } from '../../engine/native.ts'

/**
 * What the engine makes of a node's key for DTLS. Throws `EngineUnavailableError` if it was built without.
 */
export function dtlsIdentity (engine: Pick<NativeEngine, 'NativeIdentity'>, privateKey: Uint8Array, options: NativeDtlsOptions): NativeIdentity {
  if (engine.NativeIdentity.dtls == null) {
    throw new EngineUnavailableError('The native engine of libp2p-psec was built without DTLS. Take dtls() out of the schemes, or build the engine with cargo\'s feature "dtls", which is on by default: run "npm rebuild libp2p-psec" (in a clone of the repository: "npm run build:engine")')
  }

  return engine.NativeIdentity.dtls(privateKey, options)
}
