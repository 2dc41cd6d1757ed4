import { createHash } from 'node:crypto'
import { concat } from 'uint8arrays/concat'
import { fromString } from 'uint8arrays/from-string'
import type { Role } from '../negotiation/index.ts'

/**
 * What a side's signature is over: nothing else that libp2p signs begins like it, and one side's signature is not the other's
 * ("Signature" in `docs/confirm.md`)
 */
export function signedBytes (role: Role, transcript: Uint8Array): Uint8Array {
  return concat([fromString(`libp2p-psec-confirm:${role}:`), createHash('sha256').update(transcript).digest()])
}
