export { median } from '../src/cli/median.ts'

/**
 * The value that such a share (0 to 1) of all values does not exceed, NaN if there are none
 */
export function quantile (values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)

  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? NaN
}

/**
 * The same in random order
 */
export function shuffled<T> (values: T[]): T[] {
  return values
    .map(value => ({ value, rank: Math.random() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ value }) => value)
}
