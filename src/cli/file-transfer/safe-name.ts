import { C0_CONTROLS, HIDDEN } from '../../hidden-characters.ts'

/**
 * Leaves room for a number and an extension within the 255 bytes that file systems give a name
 */
const MAX_NAME_BYTES = 200

// what some file system or shell takes for something else, and what makes a name look like another
const UNSAFE = new RegExp(`[${C0_CONTROLS}${HIDDEN}<>:"|?*]`, 'g')

/**
 * A name for a received file, made of what a stranger calls it: no folders, no hidden file, no option of a command, nothing
 * that a terminal or another operating system would trip over
 */
export function safeName (name: string): string {
  const base = name.toWellFormed().split(/[/\\]/).at(-1) ?? ''
  const clean = base.replace(UNSAFE, '_').trim().replace(/^(\.+|-)/, '_')

  // what is shortened may end in what was within the name
  return shorten(clean).replace(/[.\s]+$/, '') || 'unnamed'
}

/**
 * `report.pdf` to `report-1.pdf`
 */
export function numberedName (name: string, number: number): string {
  const { stem, extension } = splitExtension(name)

  return number === 0 ? name : `${stem}-${number}${extension}`
}

function shorten (name: string): string {
  const { stem, extension } = splitExtension(name)
  const room = MAX_NAME_BYTES - Buffer.byteLength(extension)
  let short = ''
  let bytes = 0

  for (const character of stem) {
    bytes += Buffer.byteLength(character)

    if (bytes > room) {
      break
    }

    short += character
  }

  return short + extension
}

function splitExtension (name: string): { stem: string, extension: string } {
  // a long "extension" is none
  const extension = /.(\.[^.]{1,16})$/.exec(name)?.[1] ?? ''

  return { stem: name.slice(0, name.length - extension.length), extension }
}
