import { C0_CONTROLS, HIDDEN } from '../hidden-characters.ts'

const UNPRINTABLE = new RegExp(`[${C0_CONTROLS}${HIDDEN}]`, 'g')

/**
 * Text from the network for a person's terminal: no control characters, nothing hidden or reordered, no more than `maxLength` UTF-16 units (200 by
 * default)
 */
export function printable (text: string, maxLength = 200): string {
  const clean = text.toWellFormed().replace(UNPRINTABLE, '\ufffd')

  return clean.length > maxLength ? `${clean.slice(0, maxLength)}…` : clean
}
