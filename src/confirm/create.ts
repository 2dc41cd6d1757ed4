import { publicKeyToProtobuf } from '@libp2p/crypto/keys'
import { encodeMessage } from './message.ts'
import { signedBytes } from './signed-bytes.ts'
import { encodeTranscript } from './transcript.ts'
import type { Transcript } from './index.ts'
import type { Role } from '../negotiation/index.ts'
import type { PrivateKey } from '@libp2p/interface'

/**
 * This side's message: what it saw as the `role` that it has, signed with its identity's key
 */
export async function createConfirmation (privateKey: PrivateKey, role: Role, transcript: Transcript): Promise<Uint8Array> {
  const bytes = encodeTranscript(transcript)

  return encodeMessage({
    publicKey: publicKeyToProtobuf(privateKey.publicKey),
    transcript: bytes,
    signature: await privateKey.sign(signedBytes(role, bytes))
  })
}
