/* eslint-disable no-console */

/**
 * What was tried, and what came of it
 */

const PATIENCE = 120_000

interface Row {
  title: string
  cells: Map<string, string>
}

export class Tally {
  failures = 0
  readonly #wanted: string[]
  readonly #tables: Table[] = []
  readonly #begin = performance.now()

  /**
   * Of the rows only those are tried that have one of these words in their title or their table's
   */
  constructor (wanted: string[]) {
    this.#wanted = wanted.map(word => word.toLowerCase())
  }

  table (title: string, columns: string[]): Table {
    const table = new Table(title, columns, {
      isWanted: row => this.#wanted.length === 0 || this.#wanted.every(word => `${title} ${row}`.toLowerCase().includes(word)),
      onFailure: (row, column, err) => {
        this.failures++
        console.info(`✗ ${row}: ${column}: ${err.message}`)
      }
    })
    this.#tables.push(table)

    return table
  }

  print (): void {
    this.#tables.forEach(table => { table.print() })
    console.info(`\n${this.failures === 0 ? 'All of it passed' : `${this.failures} of it failed, see above`}, in ${Math.round((performance.now() - this.#begin) / 1000)} s`)
  }
}

interface TableOwner {
  isWanted (row: string): boolean
  onFailure (row: string, column: string, err: Error): void
}

class Table {
  readonly #title: string
  readonly #columns: string[]
  readonly #owner: TableOwner
  readonly #rows: Row[] = []

  constructor (title: string, columns: string[], owner: TableOwner) {
    this.#title = title
    this.#columns = columns
    this.#owner = owner
  }

  row (title: string): TableRow {
    const row = { title, cells: new Map<string, string>() }
    const wanted = this.#owner.isWanted(title)

    if (wanted) {
      this.#rows.push(row)
    }

    /**
     * Try something that says itself when this cell is done, and goes on with others
     */
    const fill = async (column: string, attempt: (done: () => void) => Promise<void>): Promise<void> => {
      if (!wanted) {
        return
      }

      const timeout = Promise.withResolvers<never>()
      const timer = setTimeout(() => { timeout.reject(new Error('Nothing more happens')) }, PATIENCE)
      const attempted = attempt(() => { row.cells.set(column, '✓') })

      try {
        await Promise.race([attempted, timeout.promise])
      } catch (err: any) {
        row.cells.set(column, '✗')
        this.#owner.onFailure(title, column, err)
      } finally {
        clearTimeout(timer)
      }
    }

    return {
      fill,
      check: async (column, attempt) => fill(column, async done => {
        await attempt()
        done()
      })
    }
  }

  print (): void {
    if (this.#rows.length === 0) {
      return
    }

    const header = ['', ...this.#columns]
    const lines = this.#rows.map(({ title, cells }) => [title, ...this.#columns.map(column => cells.get(column) ?? '')])
    const widths = header.map((name, at) => Math.max(name.length, ...lines.map(line => line[at].length)))
    const format = (line: string[]): string => `| ${line.map((cell, at) => cell.padEnd(widths[at])).join(' | ')} |`

    console.info(`\n**${this.#title}**\n`)
    console.info(format(header))
    console.info(`|${widths.map(width => '-'.repeat(width + 2)).join('|')}|`)
    lines.forEach(line => { console.info(format(line)) })
  }
}

export interface TableRow {
  fill (column: string, attempt: (done: () => void) => Promise<void>): Promise<void>
  check (column: string, attempt: () => Promise<void>): Promise<void>
}
