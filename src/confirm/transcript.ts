import { concat } from 'uint8arrays/concat'
import { equals } from 'uint8arrays/equals'
import { fromString } from 'uint8arrays/from-string'
import { ConfirmationFailedError, InvalidFrameError } from '../errors.ts'
import { quote } from '../quote.ts'
import { decodeFrame, encodeFrame, isPeerIdMultihash } from '../wire/index.ts'
import { Reader } from '../wire/reader.ts'
import { lengthPrefixed } from './bytes.ts'
import { CONFIRM_PROTOCOL } from './protocol.ts'
import type { Party, Transcript } from './index.ts'
import type { Propose } from '../wire/index.ts'

const STANDARD = 0
const SIMULTANEOUS = 1

/** A SHA-256 has so many bytes */
const HASH_LENGTH = 32

/**
 * The bytes of a transcript ("Transcript" in `docs/confirm.md`)
 */
export function encodeTranscript (transcript: Transcript): Uint8Array {
  const { initiator, responder, scheme, simultaneous, proposals } = transcript
  const parts = [
    ...lengthPrefixed(fromString(CONFIRM_PROTOCOL)),
    Uint8Array.of(simultaneous ? SIMULTANEOUS : STANDARD),
    ...encodeParty(initiator),
    ...encodeParty(responder),
    ...lengthPrefixed(fromString(scheme)),
    ...encodeProposal(proposals.initiator)
  ]

  if (simultaneous && proposals.responder != null) {
    parts.push(...encodeProposal(proposals.responder))
  }

  return concat(parts)
}

/**
 * The transcript that these bytes are, in their one encoding. Throws `ConfirmationFailedError`, reason `malformed`.
 */
export function decodeTranscript (bytes: Uint8Array): Transcript {
  const transcript = asMalformed('transcript', () => readTranscript(new Reader(bytes)))

  if (!equals(encodeTranscript(transcript), bytes)) {
    throw malformed('transcript is not in its one encoding')
  }

  return transcript
}

/**
 * What a function of the wire codec returns; its `InvalidFrameError` is this protocol's
 */
export function asMalformed <T> (what: string, fn: () => T): T {
  try {
    return fn()
  } catch (err: any) {
    throw err instanceof InvalidFrameError ? malformed(`${what} can't be read (${err.reason})`) : err
  }
}

export function malformed (what: string): ConfirmationFailedError {
  return new ConfirmationFailedError('malformed', `The remote's ${what}, which no implementation of ${CONFIRM_PROTOCOL} sends`)
}

function readTranscript (reader: Reader): Transcript {
  const version = reader.name('the version')

  if (version !== CONFIRM_PROTOCOL) {
    throw malformed(`transcript is of the version ${quote(version)}`)
  }

  const mode = reader.uint8('the mode')

  if (mode !== STANDARD && mode !== SIMULTANEOUS) {
    throw malformed(`transcript has the mode ${mode}`)
  }

  const simultaneous = mode === SIMULTANEOUS
  const initiator = readParty(reader)
  const responder = readParty(reader)
  const scheme = reader.name('the scheme')
  const proposals = { initiator: readProposal(reader), responder: simultaneous ? readProposal(reader) : undefined }
  reader.end()

  return { simultaneous, scheme, initiator, responder, proposals }
}

function encodeParty ({ peerId, keyHash }: Party): Uint8Array[] {
  return [...lengthPrefixed(peerId), keyHash]
}

function readParty (reader: Reader): Party {
  const peerId = readPrefixed(reader, 'a peer id')
  const keyHash = reader.view(HASH_LENGTH, 'the hash of a key')

  if (!isPeerIdMultihash(peerId)) {
    throw malformed('transcript names a peer id that is none')
  }

  return { peerId, keyHash }
}

/**
 * A proposal as a PSEC frame, without an initiation packet
 */
function encodeProposal ({ type, peerId, schemes }: Propose): Uint8Array[] {
  return lengthPrefixed(encodeFrame({ type, peerId, schemes }))
}

function readProposal (reader: Reader): Propose {
  const frame = decodeFrame(readPrefixed(reader, 'a proposal'))

  if (frame.type !== 'propose') {
    throw malformed(`transcript has a frame of the type "${frame.type}" for a proposal`)
  }

  return frame
}

export function readPrefixed (reader: Reader, what: string): Uint8Array {
  return reader.view(reader.uvarint(`the length of ${what}`), what)
}
