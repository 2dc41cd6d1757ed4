import { printable } from './printable.ts'

/**
 * An error for a person: its class, what happened, and what it was made of. A remote may have had a hand in the text.
 */
export function formatError (err: any): string {
  if (err instanceof AggregateError) {
    return [`${className(err)}: ${printable(err.message)}`, ...err.errors.map(error => `  ${formatError(error)}`)].join('\n')
  }

  const message = err instanceof Error ? err.message : String(err)

  return `${className(err)}: ${message.split('\n').map(line => printable(line, 1000)).join('\n')}`
}

/**
 * The fields of an `error` event
 */
export function describeError (err: any): { name: string, message: string, reason?: string } {
  return {
    name: className(err),
    message: err instanceof Error ? err.message : String(err),
    reason: typeof err?.reason === 'string' ? err.reason : undefined
  }
}

function className (err: any): string {
  // errors of Node's own API have their class in the code
  return err?.name === 'Error' && typeof err.code === 'string' ? err.code : err?.name ?? 'Error'
}
