import { raceSignal } from 'race-signal'
import { negotiation } from '../index.ts'
import type { ConnectionNegotiation } from '../index.ts'
import type { Role } from '../negotiation/index.ts'
import type { AbortOptions, Connection } from '@libp2p/interface'

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
   * Whether both sides have proved that nobody tampered with the negotiation
   */
  confirmed: boolean

  /**
   * Milliseconds from the beginning of the upgrade to the agreement, and to the authenticated session
   */
  agreedMs: number
  securedMs: number
}

/**
 * How long a report waits for the negotiation to be confirmed, in milliseconds. It takes a round trip with a peer that confirms.
 */
const CONFIRMATION_PATIENCE = 2_000

/**
 * A connection of the transport as the command reports it, once it is known whether its negotiation is confirmed; undefined if
 * it is of another one. Rejects with the signal's reason; the end of the connection ends the wait, too.
 */
export async function describeConnection (connection: Connection, options: AbortOptions = {}): Promise<ConnectionFields | undefined> {
  const outcome = negotiation(connection)

  if (outcome == null) {
    return undefined
  }

  const confirmed = await isConfirmed(outcome, options)

  return {
    remotePeer: connection.remotePeer.toString(),
    remoteAddr: connection.remoteAddr.toString(),
    scheme: outcome.scheme,
    role: outcome.role,
    simultaneous: outcome.simultaneous,
    confirmed,
    agreedMs: milliseconds(outcome.timings.agreed),
    securedMs: milliseconds(outcome.timings.secured)
  }
}

async function isConfirmed ({ confirmation }: ConnectionNegotiation, { signal }: AbortOptions): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const patience = new Promise<boolean>(resolve => {
    timer = setTimeout(() => { resolve(false) }, CONFIRMATION_PATIENCE)
  })

  try {
    return await raceSignal(Promise.race([confirmation, patience]), signal)
  } finally {
    clearTimeout(timer)
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
    `  scheme   ${fields.scheme}, we are the ${fields.role} (${how}), ${fields.confirmed ? 'confirmed by both' : 'not confirmed'}`,
    `  took     ${fields.agreedMs} ms to agree, ${fields.securedMs} ms until secured`
  ].join('\n')
}

/**
 * To the microsecond
 */
export function milliseconds (value: number): number {
  return Math.round(value * 1000) / 1000
}
