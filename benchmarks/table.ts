/* eslint-disable no-console */

/**
 * Print a table in Markdown, ready for `README.md`. The first column is text, the others are figures.
 */
export function printTable (title: string, header: string[], rows: string[][]): void {
  const widths = header.map((name, column) => Math.max(name.length, ...rows.map(row => row[column].length)))
  const line = (cells: string[]): string => {
    return `| ${cells.map((cell, column) => column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])).join(' | ')} |`
  }

  console.info(`\n${title}\n`)
  console.info(line(header))
  console.info(`|${widths.map((width, column) => column === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`).join('|')}|`)
  rows.forEach(row => { console.info(line(row)) })
}
