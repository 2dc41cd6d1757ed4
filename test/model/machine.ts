import { describeDatagram } from './describe.ts'
import { ModelPeer } from './peer.ts'
import type { PeerInit, PeerInput } from './peer.ts'
import type { Session } from './scheme.ts'
import type { Role } from '../../src/negotiation/index.ts'

/**
 * What the properties ask of a socket
 */
export interface SocketView {
  status: string

  /** Whether a dial waits for it */
  dialling: boolean
  agreed?: { scheme: string, role: Role, simultaneous: boolean, sendFirstFlight: boolean, hasFirstFlight: boolean }
  session?: Session
}

export interface PeerView {
  sockets: SocketView[]

  /** The sessions of its sockets */
  sessions: Session[]
}

/**
 * A step of a peer: where it leads to, and the datagrams that it sends, by their numbers
 */
export interface Step {
  state: number
  sent: number[]
  verdict: string
}

interface Entry {
  key: string
  path: PeerInput[]
  view: PeerView
  steps: Map<string, Step | undefined>
}

/**
 * Numbers for datagrams, the same for all who share it
 */
export class Datagrams {
  readonly bytes: Uint8Array[] = []
  private readonly numbers = new Map<string, number>()

  number (datagram: Uint8Array): number {
    const key = Buffer.from(datagram).toString('latin1')
    let number = this.numbers.get(key)

    if (number == null) {
      number = this.bytes.length
      this.bytes.push(datagram)
      this.numbers.set(key, number)
    }

    return number
  }

  describe (number: number): string {
    return describeDatagram(this.bytes[number])
  }
}

/**
 * A peer as a state machine that is found out on demand: a state is a number, and stands for every history of inputs that
 * leads to the same key. The step from a state by an input is played once, by a fresh peer that is given the shortest known
 * history of the state and then the input. That a key has one future whatever its history is tested in the spec.
 */
export class PeerMachine {
  readonly init: PeerInit
  private readonly datagrams: Datagrams
  private readonly entries: Entry[] = []
  private readonly numbers = new Map<string, number>()

  constructor (init: PeerInit, datagrams: Datagrams) {
    this.init = init
    this.datagrams = datagrams
    this.number(new ModelPeer(init), [])
  }

  get size (): number {
    return this.entries.length
  }

  view (state: number): PeerView {
    return this.entries[state].view
  }

  key (state: number): string {
    return this.entries[state].key
  }

  /**
   * Undefined if that can't happen in this state
   */
  step (state: number, input: PeerInput): Step | undefined {
    const { steps } = this.entries[state]
    const key = input.type === 'receive' ? `receive ${this.datagrams.number(input.datagram)}` : `${input.type} ${'socket' in input ? input.socket : ''}`

    if (!steps.has(key)) {
      steps.set(key, this.play(state, input))
    }

    return steps.get(key)
  }

  private play (state: number, input: PeerInput): Step | undefined {
    const { path } = this.entries[state]
    const peer = new ModelPeer(this.init)
    path.forEach(input => { peer.handle(input) })

    if (!peer.handle(input)) {
      return
    }

    return {
      state: this.number(peer, [...path, input]),
      sent: peer.sent.map(datagram => this.datagrams.number(datagram)),
      verdict: peer.verdict
    }
  }

  private number (peer: ModelPeer, path: PeerInput[]): number {
    const { key } = peer
    let number = this.numbers.get(key)

    if (number == null) {
      number = this.entries.length
      this.entries.push({ key, path, view: viewOf(peer), steps: new Map() })
      this.numbers.set(key, number)
    }

    return number
  }
}

function viewOf (peer: ModelPeer): PeerView {
  const sockets = peer.sockets.map(({ negotiator, dialling, agreement, handshake }): SocketView => ({
    status: negotiator.status,
    dialling: dialling && handshake?.secured !== true,
    agreed: agreement == null
      ? undefined
      : {
          scheme: agreement.scheme,
          role: agreement.role,
          simultaneous: agreement.simultaneous,
          sendFirstFlight: agreement.sendFirstFlight,
          hasFirstFlight: agreement.initiationPacket != null
        },
    session: handshake?.secured === true
      ? { scheme: handshake.scheme, role: handshake.role, initiation: handshake.initiation, responder: handshake.responder }
      : undefined
  }))

  return { sockets, sessions: sockets.flatMap(({ session }) => session ?? []) }
}
