import { publicKeyFromProtobuf, publicKeyToProtobuf } from '@libp2p/crypto/keys'
import { equals } from 'uint8arrays/equals'
import { DowngradeDetectedError } from '../errors.ts'
import { findDifference } from './find-difference.ts'
import { decodeMessage } from './message.ts'
import { signedBytes } from './signed-bytes.ts'
import { decodeTranscript, encodeTranscript, malformed } from './transcript.ts'
import type { Transcript } from './index.ts'
import type { ConfirmMessage } from './message.ts'
import type { Role } from '../negotiation/index.ts'
import type { PublicKey } from '@libp2p/interface'

/**
 * Compare what the remote says it saw with what this side saw, and check that it is the remote who says so ("Verification" in
 * `docs/confirm.md`). Resolves with the transcript that both confirm; that may be the standard negotiation that a responder saw
 * where the initiator saw a simultaneous one.
 *
 * Rejects with `DowngradeDetectedError` if they differ or the proof does not hold, `ConfirmationFailedError` (`malformed`) if the
 * bytes are no message.
 *
 * @param bytes - the remote's message, without its length
 * @param own - what this side saw
 * @param role - this side's
 */
export async function verifyConfirmation (bytes: Uint8Array, own: Transcript, role: Role): Promise<Transcript> {
  const message = decodeMessage(bytes)
  const remote = decodeTranscript(message.transcript)

  await verifySignature(message, role === 'initiator' ? 'responder' : 'initiator', own)
  const confirmed = reconcile(own, remote, role)

  if (confirmed == null) {
    const { reason, text } = findDifference(own, remote, role)
    throw new DowngradeDetectedError(reason, `The negotiation was tampered with: ${text}`)
  }

  return confirmed
}

async function verifySignature (message: ConfirmMessage, remoteRole: Role, own: Transcript): Promise<void> {
  const remotePeer = own[remoteRole].peerId
  const publicKey = readPublicKey(message.publicKey)

  if (!equals(publicKey.toMultihash().bytes, remotePeer)) {
    throw new DowngradeDetectedError('identity', 'The remote confirmed the negotiation with the key of another peer')
  }

  if (!await isSignedBy(publicKey, message, remoteRole)) {
    throw new DowngradeDetectedError('signature', 'The remote\'s signature of what it saw of the negotiation is not valid')
  }
}

async function isSignedBy (publicKey: PublicKey, { transcript, signature }: ConfirmMessage, role: Role): Promise<boolean> {
  try {
    return await publicKey.verify(signedBytes(role, transcript), signature)
  } catch {
    // some kinds of keys throw on what can't be a signature
    return false
  }
}

/**
 * A key has one encoding (libp2p's peer id specification, "Note about deterministic encoding")
 */
function readPublicKey (bytes: Uint8Array): PublicKey {
  let publicKey: PublicKey

  try {
    publicKey = publicKeyFromProtobuf(bytes)
  } catch {
    throw malformed('public key can\'t be read')
  }

  if (!equals(publicKeyToProtobuf(publicKey), bytes)) {
    throw malformed('public key is not in its one encoding')
  }

  return publicKey
}

/**
 * What both sides saw. A responder whose user gave a dial up has forgotten that it proposed (`docs/negotiation.md`, "Where this
 * goes beyond the draft"): to it the negotiation was a standard one. That is the one that counts then, since it chose from the
 * initiator's true proposal.
 */
function reconcile (own: Transcript, remote: Transcript, role: Role): Transcript | undefined {
  if (isSame(own, remote)) {
    return own
  }

  const [initiators, responders] = role === 'initiator' ? [own, remote] : [remote, own]

  if (initiators.simultaneous && !responders.simultaneous && isSame(asStandard(initiators), responders)) {
    return responders
  }
}

function asStandard (transcript: Transcript): Transcript {
  return { ...transcript, simultaneous: false, proposals: { initiator: transcript.proposals.initiator } }
}

function isSame (a: Transcript, b: Transcript): boolean {
  return equals(encodeTranscript(a), encodeTranscript(b))
}
