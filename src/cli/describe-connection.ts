import { negotiation } from '../index.ts'
import type { Role } from '../negotiation/index.ts'
import type { Connection } from '@libp2p/interface'

/**
 * The fields of a `connection` event
 */
export interface ConnectionFields {
  remotePeer: string
  remoteAddr: string
  scheme: string
  role: Role
  simultaneous: boolean

  /**
   * Whether both sides have proven that nobody tampered with the negotiation. No version can yet.
   */
  confirmed: boolean

  /**
   * Milliseconds from the beginning of the upgrade to the agreement, and to the authenticated session
   */
  agreedMs: number
  securedMs: number
}

/**
 * A connection of the transport as the command reports it; undefined if it is of another one
 */
export function describeConnection (connection: Connection): ConnectionFields | undefined {
  const outcome = negotiation(connection)

  if (outcome == null) {
    return undefined
  }

  return {
    remotePeer: connection.remotePeer.toString(),
    remoteAddr: connection.remoteAddr.toString(),
    scheme: outcome.scheme,
    role: outcome.role,
    simultaneous: outcome.simultaneous,
    confirmed: false,
    agreedMs: milliseconds(outcome.timings.agreed),
    securedMs: milliseconds(outcome.timings.secured)
  }
}

/**
 * The same for a person
 */
export function connectionText (fields: ConnectionFields): string {
  const proposer = fields.role === 'initiator' ? 'we' : 'they'
  const how = fields.simultaneous ? 'both proposed' : `${proposer} proposed`

  return [
    `  peer     ${fields.remotePeer}`,
    `  address  ${fields.remoteAddr}`,
    `  scheme   ${fields.scheme}, we are the ${fields.role} (${how})`,
    `  took     ${fields.agreedMs} ms to agree, ${fields.securedMs} ms until secured`
  ].join('\n')
}

/**
 * To the microsecond
 */
export function milliseconds (value: number): number {
  return Math.round(value * 1000) / 1000
}
