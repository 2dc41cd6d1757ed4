import { expect } from 'aegir/chai'
import { limitLogger } from '../src/limit-logger.ts'
import { MemoryClock } from './fixtures/memory-clock.ts'
import type { Logger } from '@libp2p/interface'

describe('the logger for what strangers can cause', () => {
  let clock: MemoryClock
  let lines: string[]
  let isEnabled: boolean
  let silent: Set<string>
  let log: Logger

  beforeEach(() => {
    clock = new MemoryClock()
    lines = []
    isEnabled = true
    silent = new Set()
    log = limitLogger(recorder('base'), { clock })
  })

  function recorder (name: string): Logger {
    const write = (level: string): object => {
      const line = (formatter: string, ...args: any[]): void => { lines.push([`${name}${level}`, formatter, ...args].join(' ')) }

      // as `debug` has it, and so libp2p's own loggers
      return Object.defineProperty(line, 'enabled', { get: () => isEnabled && !silent.has(level) })
    }

    return Object.assign(write(''), {
      error: write(':error'),
      trace: write(':trace'),
      newScope: (scope: string) => recorder(`${name}:${scope}`)
    }) as unknown as Logger
  }

  function repeat (count: number, write: (number: number) => void): void {
    for (let i = 1; i <= count; i++) {
      write(i)
    }
  }

  it('lets 50 lines a second through, and tells in the next one how many it kept back', async () => {
    repeat(60, i => { log('line', i) })
    expect(lines).to.have.lengthOf(50)
    expect(lines[0]).to.equal('base line 1')
    expect(lines[49]).to.equal('base line 50')

    await clock.advance(999)
    log('too early')
    expect(lines).to.have.lengthOf(50)

    await clock.advance(1)
    log('next')
    expect(lines.slice(50)).to.deep.equal(['base %d more lines were not logged 11', 'base next'])
    repeat(60, i => { log('line', i) })
    expect(lines).to.have.lengthOf(50 + 1 + 50)
  })

  it('lets as many lines through as was said, of each scope, and counts the others', () => {
    let keptBack = 0
    log = limitLogger(recorder('base'), { maxLines: 2, keptBack: { increment: () => { keptBack++ }, reset: () => {} }, clock })
    const scope = log.newScope('scope')
    repeat(3, i => { log('line', i) })
    repeat(4, i => { scope.error('bad', i) })

    expect(lines).to.have.lengthOf(4)
    expect(keptBack).to.equal(3)
  })

  it('tells nothing if it kept nothing back', async () => {
    repeat(50, i => { log('line', i) })
    await clock.advance(1000)
    log('next')
    expect(lines).to.have.lengthOf(51)
    expect(lines[50]).to.equal('base next')
  })

  it('counts errors and traces among the lines, and writes them as what they are', () => {
    log.error('bad', 1)
    log.trace('fine', 2)
    repeat(47, i => { log('line', i) })
    log.error('bad', 3)
    log.error('bad', 4)
    log.trace('fine', 5)
    log('line')
    expect(lines).to.have.lengthOf(50)
    expect(lines.slice(0, 2)).to.deep.equal(['base:error bad 1', 'base:trace fine 2'])
    expect(lines[49]).to.equal('base:error bad 3')
  })

  it('does not count what nobody would have seen', async () => {
    silent.add(':trace')
    repeat(1000, () => { log.trace('turned away') })
    log('line')
    expect(lines).to.deep.equal(['base line'])

    silent.add('')
    repeat(1000, () => { log('line') })
    log.error('bad')
    expect(lines).to.deep.equal(['base line', 'base:error bad'])
    silent.clear()
    await clock.advance(1000)
    log('next')
    expect(lines.slice(2)).to.deep.equal(['base next'])
  })

  it('counts for every scope by itself', async () => {
    const scope = log.newScope('scope')
    repeat(60, i => { log('line', i) })
    repeat(60, i => { scope.error('bad', i) })
    expect(lines).to.have.lengthOf(100)
    expect(lines[99]).to.equal('base:scope:error bad 50')
    await clock.advance(1000)
    scope('next')
    expect(lines.slice(100)).to.deep.equal(['base:scope %d more lines were not logged 10', 'base:scope next'])
  })

  it('is enabled when the logger under it is', () => {
    expect(log.enabled).to.equal(true)
    isEnabled = false
    expect(log.enabled).to.equal(false)
    expect(log.newScope('scope').enabled).to.equal(false)
    isEnabled = true
    expect(log.enabled).to.equal(true)
  })
})
