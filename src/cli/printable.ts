// C0 and C1 controls (terminal escapes begin with one), and the marks that reorder text
// eslint-disable-next-line no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g

/**
 * Text from the network for a person's terminal: no control characters, no more than `maxLength` UTF-16 units (200 by
 * default)
 */
export function printable (text: string, maxLength = 200): string {
  const clean = text.toWellFormed().replace(UNPRINTABLE, '\ufffd')

  return clean.length > maxLength ? `${clean.slice(0, maxLength)}…` : clean
}
