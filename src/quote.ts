import { HIDDEN } from './hidden-characters.ts'

/**
 * What JSON leaves as it is but a terminal or a log's reader does not
 */
const UNQUOTED = new RegExp(`[${HIDDEN}]`, 'g')

/**
 * Text that a remote may have made up, for an error message or a log: in quotes, on one line, without control characters, and of
 * `maxLength` UTF-16 units within the quotes at most. Internal.
 */
export function quote (text: string, maxLength: number = 64): string {
  let quoted = ''

  for (const character of text) {
    const escaped = escape(character)

    if (quoted.length + escaped.length > maxLength) {
      return `"${quoted}…"`
    }

    quoted += escaped
  }

  return `"${quoted}"`
}

function escape (character: string): string {
  return JSON.stringify(character).slice(1, -1)
    .replace(UNQUOTED, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
