/**
 * What the demo concludes from the events of its two processes
 */
import { QUIC_DATAGRAM } from '../src/schemes/quic-datagram/protocol.ts'
import type { PsecEvent } from './psec-process.ts'

export interface Findings {
  /**
   * The SHA-256 of the file, and of what is in the receiver's folder
   */
  file: string
  copy: string

  /**
   * The `connection` events of the sender and the receiver
   */
  outbound: PsecEvent
  inbound: PsecEvent
  sent: PsecEvent
  received: PsecEvent
  counted: PsecEvent
}

/**
 * What is not as it should be; empty if all went well
 */
export function findFaults ({ file, copy, outbound, inbound, sent, received, counted }: Findings): string[] {
  const faults: string[] = []

  if ([copy, sent.sha256, received.sha256].some(hash => hash !== file)) {
    faults.push('THE FILE DID NOT ARRIVE AS IT LEFT.')
  }

  if (!(counted.received > 0)) {
    faults.push('NO DATAGRAM ARRIVED.')
  }

  // the nodes have another scheme, by which everything would arrive as well
  if ([outbound.scheme, inbound.scheme].some(scheme => scheme !== QUIC_DATAGRAM)) {
    faults.push(`THE SCHEME WAS NOT ${QUIC_DATAGRAM}: THE SENDER HAD ${outbound.scheme}, THE RECEIVER ${inbound.scheme}.`)
  }

  return faults
}

/**
 * The part of who reported this `connection` in its negotiation
 */
export function describePart ({ role, simultaneous }: PsecEvent): string {
  return `${role}, ${simultaneous === true || role === 'initiator' ? 'proposed it' : 'accepted it'}`
}

/**
 * How it was negotiated, by the sender's `connection`
 */
export function describeMode ({ role, simultaneous }: PsecEvent): string {
  return simultaneous === true
    ? 'simultaneous, both had proposed'
    : `standard, only the ${role === 'initiator' ? 'sender' : 'receiver'} had proposed`
}
