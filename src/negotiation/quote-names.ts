import { quote } from '../quote.ts'

const MAX_NAMES = 8

/**
 * Names of schemes for an error message: quoted, and cut to a bearable length, since a remote may have made them up
 */
export function quoteNames (names: string[]): string {
  if (names.length === 0) {
    return 'nothing'
  }

  const quoted = names.slice(0, MAX_NAMES).map(name => quote(name))
  const omitted = names.length - quoted.length

  return omitted > 0 ? `${quoted.join(', ')} and ${omitted} more` : quoted.join(', ')
}
