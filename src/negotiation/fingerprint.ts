import { hash } from 'node:crypto'
import { encodeFrame } from '../wire/index.ts'
import type { Propose } from '../wire/index.ts'

/**
 * What is remembered of a proposal in order to recognize it: hashes, since a proposal may have 64 KiB and a flow lives
 * long
 */
export interface ProposalFingerprint {
  /** Of the sender and its list */
  offer: string

  /** Of the initiation packet, if it had one */
  packet?: string
}

export function fingerprint (proposal: Propose): ProposalFingerprint {
  const { type, peerId, schemes, initiationPacket } = proposal

  return {
    offer: sha256(encodeFrame({ type, peerId, schemes })),
    packet: initiationPacket == null ? undefined : sha256(initiationPacket)
  }
}

/**
 * Whether two proposals are transmissions of one and the same: the first transmission carries the initiation packet,
 * later ones do not. Two different packets are two negotiations, however: a peer that begins afresh makes a new one,
 * with new keys.
 */
export function isSameProposal (a: ProposalFingerprint, b: ProposalFingerprint): boolean {
  return a.offer === b.offer && (a.packet == null || b.packet == null || a.packet === b.packet)
}

function sha256 (bytes: Uint8Array): string {
  return hash('sha256', bytes, 'base64')
}
