const UNITS = ['bytes', 'kB', 'MB', 'GB', 'TB', 'PB']

/**
 * For people: 50331648 to `50.3 MB`
 */
export function formatBytes (bytes: number): string {
  if (bytes === 1) {
    return '1 byte'
  }

  const exponent = bytes < 1000 ? 0 : Math.min(Math.floor(Math.log10(bytes) / 3), UNITS.length - 1)

  return `${(bytes / 1000 ** exponent).toFixed(exponent === 0 ? 0 : 1)} ${UNITS[exponent]}`
}
