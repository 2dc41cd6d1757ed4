/**
 * The least scheme that has what the negotiation depends on: a first flight by the initiator, an answer by the responder, a
 * finish that proves to the responder that its answer arrived, each repeated by the scheme's own timer. Its packets name the
 * initiation and the responder that they belong to, as the keys of a real handshake do: nobody can forge them, and those of
 * one session mean nothing to another.
 */
import type { Role } from '../../src/negotiation/index.ts'

/** A first byte that the scheme's packets may have (docs/negotiation.md, "Telling frames from the scheme's traffic") */
const FIRST_BYTE = 0x40

/**
 * `rest` is what a first flight has beyond its first datagram; `close` is the goodbye of an authenticated session
 */
export type Flight = 'first' | 'rest' | 'answer' | 'finish' | 'close'

export interface SchemePacket {
  flight: Flight
  scheme: string

  /** Which initiation: by whom, and the number of its dial */
  initiation: string

  /** Which responder answered: by whom, and the number of its answer */
  responder: string
}

export function encodePacket ({ flight, scheme, initiation, responder }: SchemePacket): Uint8Array {
  return Uint8Array.of(FIRST_BYTE, ...new TextEncoder().encode([flight, scheme, initiation, responder].join(' ')))
}

export function decodePacket (datagram: Uint8Array): SchemePacket {
  const [flight, scheme, initiation, responder] = new TextDecoder().decode(datagram.subarray(1)).split(' ')

  return { flight: flight as Flight, scheme, initiation, responder }
}

export interface Session {
  scheme: string
  role: Role
  initiation: string
  responder: string
}

/**
 * One side's handshake on one socket
 */
export class Handshake {
  readonly scheme: string
  readonly role: Role
  initiation: string
  responder: string
  secured = false

  /** What its timer repeats, if anything */
  repeats?: Flight

  private readonly name: () => string

  /**
   * @param scheme
   * @param role
   * @param initiation - of the initiator: the name of its initiation
   * @param name - of the responder: names an answer
   */
  constructor (scheme: string, role: Role, initiation: string, name: () => string) {
    this.scheme = scheme
    this.role = role
    this.initiation = role === 'initiator' ? initiation : ''
    this.responder = ''
    this.repeats = role === 'initiator' ? 'first' : undefined
    this.name = name
  }

  packet (flight: Flight): Uint8Array {
    return encodePacket({ flight, scheme: this.scheme, initiation: this.initiation, responder: flight === 'first' || flight === 'rest' ? '' : this.responder })
  }

  /**
   * Returns what is sent in answer
   */
  receive (packet: SchemePacket): Flight | undefined {
    if (packet.scheme !== this.scheme) {
      return
    }

    if (this.role === 'responder') {
      return this.respond(packet)
    }

    const isOurs = packet.initiation === this.initiation && (this.responder === '' || packet.responder === this.responder)

    if (packet.flight === 'answer' && isOurs) {
      this.responder = packet.responder
      this.repeats = undefined
      this.secured = true

      return 'finish'
    }
  }

  private respond ({ flight, initiation, responder }: SchemePacket): Flight | undefined {
    if (flight === 'first' && this.initiation === '') {
      this.initiation = initiation
      this.responder = this.name()
      this.repeats = 'answer'

      return 'answer'
    }

    if (initiation !== this.initiation) {
      return
    }

    if (flight === 'first' && !this.secured) {
      return 'answer'
    }

    if (flight === 'finish' && responder === this.responder) {
      this.repeats = undefined
      this.secured = true
    }
  }
}
