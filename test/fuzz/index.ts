/**
 * What is thrown at everything that reads a stranger's bytes: properties that hold for whatever fast-check comes up with. See
 * `docs/fuzzing.md`.
 */
import { datagrams, quicVarint } from './datagrams.ts'
import { decodeCommand } from './decode-command.ts'
import { fileMessages, fileNames, fileStream } from './files.ts'
import { negotiator } from './negotiator.ts'
import { noisyUpgrade, upgrader } from './upgrader.ts'
import { wire } from './wire.ts'
import type { IRawProperty } from 'fast-check'

export interface FuzzTarget {
  name: string

  /**
   * What holds
   */
  title: string

  /**
   * Inputs in `npm test`: a second's worth, or less
   */
  runs: number
  property: IRawProperty<any, boolean>
}

export const targets: FuzzTarget[] = [
  { name: 'wire', title: 'the codec throws nothing but InvalidFrameError, and makes the same bytes of what it reads', runs: 5_000, property: wire },
  { name: 'decode', title: 'psec decode prints nothing that a terminal would obey, or says what is wrong', runs: 1_000, property: decodeCommand },
  { name: 'negotiator', title: 'the negotiator does what the table of its states says, in any order of events', runs: 1_000, property: negotiator },
  { name: 'upgrader', title: 'every upgrade ends and leaves nothing, whatever is forged, repeated or changed', runs: 400, property: upgrader },
  { name: 'noise', title: 'two peers get together whatever comes that is no frame', runs: 200, property: noisyUpgrade },
  { name: 'datagrams', title: 'all datagrams of unknown flows are accounted for, and few are kept', runs: 50, property: datagrams },
  { name: 'varint', title: 'QUIC\'s integers are read within their bytes', runs: 2_000, property: quicVarint },
  { name: 'file-messages', title: 'the messages of a file transfer have their form, or are a FileTransferError', runs: 500, property: fileMessages },
  { name: 'file-names', title: 'a received file\'s name is no path, not hidden, and fits', runs: 2_000, property: fileNames },
  { name: 'file-stream', title: 'a file\'s stream ends, whatever it begins with', runs: 50, property: fileStream }
]
