import { addAbortSignal } from 'node:stream'
import { peerIdFromMultihash } from '@libp2p/peer-id'
import * as Digest from 'multiformats/hashes/digest'
import { fromString } from 'uint8arrays/from-string'
import { toString } from 'uint8arrays/to-string'
import { decodeFrame } from '../wire/index.ts'
import { UsageError } from './errors.ts'
import { printable } from './printable.ts'
import type { CommandArguments, CommandContext } from './command.ts'
import type { Frame } from '../wire/index.ts'

export const usage = `psec decode [HEX]

Dissects a PSEC frame, given in hexadecimal as an argument or on stdin. White space and colons in it, and a leading 0x, are
ignored.

  --json  print JSON, one object per line`

export const options = {}

/**
 * No datagram over UDP has more than 65,535 bytes; the rest is for white space and separators
 */
const MAX_INPUT_LENGTH = 256 * 1024

export async function run ({ positionals }: CommandArguments, { output, stdin, signal }: CommandContext): Promise<void> {
  // a frame from `xxd` or a protocol analyser comes in groups, which a shell makes arguments of their own
  const input = positionals.length > 0 ? positionals.join('') : await readInput(stdin, signal)
  const frame = decodeFrame(parseHex(input))
  const fields = describe(frame)

  output.event('frame', fields, [
    `type               ${fields.type}`,
    ...(fields.peerId == null ? [] : [`peer id            ${fields.peerId}`]),
    ...fields.schemes.map((scheme, index) => `scheme ${`${index}`.padStart(3)}         ${printable(scheme, 255)}`),
    ...(fields.initiationPacket == null ? [] : [`initiation packet  ${fields.initiationPacket.length / 2} bytes: ${fields.initiationPacket}`])
  ].join('\n'))
}

interface FrameFields {
  type: Frame['type']
  peerId: string | null
  schemes: string[]
  initiationPacket: string | null
}

function describe (frame: Frame): FrameFields {
  switch (frame.type) {
    case 'propose':
      return {
        type: frame.type,
        peerId: peerIdFromMultihash(Digest.decode(frame.peerId)).toString(),
        schemes: frame.schemes,
        initiationPacket: frame.initiationPacket == null ? null : toString(frame.initiationPacket, 'base16')
      }
    case 'accept':
      return { type: frame.type, peerId: null, schemes: [frame.scheme], initiationPacket: null }
    default:
      return { type: frame.type, peerId: null, schemes: [], initiationPacket: null }
  }
}

async function readInput (stdin: CommandContext['stdin'], signal: AbortSignal): Promise<string> {
  let input = ''

  try {
    for await (const chunk of addAbortSignal(signal, stdin)) {
      input += chunk.toString('latin1')

      if (input.length > MAX_INPUT_LENGTH) {
        throw new UsageError('There is more on stdin than fits into one datagram')
      }
    }
  } catch (err) {
    // the stream's own error does not say why
    signal.throwIfAborted()
    throw err
  }

  return input
}

function parseHex (input: string): Uint8Array {
  const digits = input.trim().replace(/^0x/i, '').replace(/[\s:]/g, '').toLowerCase()

  if (digits === '') {
    throw new UsageError('There is nothing to decode: give the frame in hexadecimal, as an argument or on stdin')
  }

  if (!/^([0-9a-f]{2})+$/.test(digits)) {
    throw new UsageError('The frame is not hexadecimal: two digits for each byte')
  }

  return fromString(digits, 'base16')
}
