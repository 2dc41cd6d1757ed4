/**
 * What multistream-select says on a confirm stream (libp2p's connection establishment specification, "multistream-select"): lines
 * with their length before them, each ending with a newline
 */
import { concat } from 'uint8arrays/concat'
import { fromString } from 'uint8arrays/from-string'
import { lengthPrefixed } from './bytes.ts'
import { CONFIRM_PROTOCOL } from './protocol.ts'

export const HEADER = line('/multistream/1.0.0')
export const CONFIRM_LINE = line(CONFIRM_PROTOCOL)

/** A line's length and its bytes, as they are on the stream */
function line (text: string): Uint8Array {
  return concat(lengthPrefixed(fromString(`${text}\n`)))
}
