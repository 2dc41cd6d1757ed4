import { equals } from 'uint8arrays/equals'
import { toString } from 'uint8arrays/to-string'
import { decodeFrame, looksLikeFrame } from '../../src/wire/index.ts'
import { decodePacket, encodePacket, Handshake } from './scheme.ts'
import type { SchemePacket } from './scheme.ts'
import type { Agreement, NegotiationEvent, Negotiator, NegotiatorInit } from '../../src/negotiation/index.ts'

export type NegotiatorFactory = (init: NegotiatorInit) => Negotiator

export interface PeerInit {
  name: string
  id: Uint8Array
  schemes: string[]

  /**
   * Whether a dial's first transmission carries the initiation packet; `flight`: and another datagram follows on its heels
   */
  packet: 'none' | 'packet' | 'flight'

  /** Whether it takes proposals from nowhere: true by default */
  listens?: boolean

  /** Whose session is the remote's, if it proves who it is */
  remoteId: Uint8Array

  createNegotiator: NegotiatorFactory
}

/**
 * What may happen to a peer. Timers are given by the socket they belong to: 0 is the oldest.
 */
export type PeerInput =
  /** It begins to listen */
  { type: 'start' } |
  { type: 'dial' } |
  /** The user gives a dial up */
  { type: 'abort' } |
  /** Nothing happens for so long that nobody with a session takes a proposal for a repetition any more */
  { type: 'age' } |
  /** It crashes and listens again: everything is forgotten */
  { type: 'restart' } |
  { type: 'receive', datagram: Uint8Array } |
  /** The negotiator's timer of retransmission */
  { type: 'retransmit', socket: number } |
  /** The grace of bad news ends */
  { type: 'grace', socket: number } |
  /** The scheme's timer of retransmission */
  { type: 'repeat', socket: number } |
  /** Negotiation or handshake took too long, by the upgrader's clock */
  { type: 'timeout', socket: number } |
  /** A session hears no more of its remote, by the scheme's clock */
  { type: 'idle', socket: number }

/** A remote has two sockets at most, see `PacketEndpoint.renew` */
const MAX_SOCKETS = 2

/**
 * Times that let every timer fire before or after every other: retransmissions are due at once, so that any number of them
 * fits before the grace, which is nearly for ever, but can be waited for at any moment. An age is longer than a proposal like
 * the first is taken for its repetition.
 */
const RETRANSMISSION = { initial: 1, factor: 1, max: 1 }
const AGE = 1_000_000
const GRACE = 1_000_000_000

/**
 * A packet socket with its upgrade: negotiator, flow, hold and scheme
 */
class ModelSocket {
  readonly negotiator: Negotiator
  now = 0
  dialling = false
  initiation = ''
  agreement?: Agreement
  handshake?: Handshake
  failure?: string
  held: Uint8Array[] = []

  constructor (negotiator: Negotiator) {
    this.negotiator = negotiator
  }

  get secured (): boolean {
    return this.handshake?.secured === true
  }
}

/**
 * One of two peers: the real negotiator, and a model of all that surrounds it, namely the upgrader (`src/upgrader`), the
 * listener with its second sockets (`src/transport/listener.ts`) and a scheme. Deterministic: the same inputs lead to the
 * same state. An input that can't happen in a state returns false and leaves the peer of no use.
 */
export class ModelPeer {
  readonly init: PeerInit
  started = false
  sockets: ModelSocket[] = []
  sent: Uint8Array[] = []

  /** What the negotiator made of the last datagram */
  verdict = ''
  private dials = 0
  private answers = 0

  constructor (init: PeerInit) {
    this.init = init
  }

  /**
   * Whether the input was possible. What was sent is in `sent`.
   */
  handle (input: PeerInput): boolean {
    this.sent = []
    this.verdict = ''

    switch (input.type) {
      case 'start':
        this.started = true
        return true
      case 'dial':
        return this.dial()
      case 'abort':
        return this.abort()
      case 'age':
        this.sockets.forEach(socket => { socket.now += AGE })
        return true
      case 'restart':
        this.sockets = []
        return this.started
      case 'receive':
        this.receive(input.datagram)
        return true
      default:
        return this.sockets[input.socket] != null && this.handleTimer(input.type, this.sockets[input.socket])
    }
  }

  /**
   * All that its future depends on, and nothing else. Contains everything that the negotiator remembers, found by walking
   * its fields, so that a field added to it is part of this, too. Only its clock readings are reduced: to whether they are
   * set, since the inputs above ask for no more.
   */
  get key (): string {
    return JSON.stringify([this.started, this.dials, this.answers, this.sockets.map(socket => [
      remembered(socket.negotiator, socket.now),
      socket.dialling,
      socket.initiation,
      socket.agreement?.claimedId == null ? '' : toString(socket.agreement.claimedId, 'base64'),
      socket.handshake == null
        ? socket.held.map(datagram => toString(datagram, 'base64'))
        : [socket.handshake.scheme, socket.handshake.role, socket.handshake.initiation, socket.handshake.responder, socket.handshake.secured, socket.handshake.repeats ?? '']
    ])])
  }

  private dial (): boolean {
    const newest = this.sockets.at(-1)

    // a forced second dial leaves from another port (design, "Crossings"): another flow, another negotiation
    if (!this.started || newest?.secured === true) {
      return false
    }

    this.dials++

    if (newest != null) {
      newest.dialling = true
      return true
    }

    const socket = this.open()
    const initiation = `${this.init.name}${this.dials}`
    const [scheme] = this.init.schemes
    const initiationPacket = this.init.packet === 'none' ? undefined : encodePacket({ flight: 'first', scheme, initiation, responder: '' })
    socket.dialling = true
    socket.initiation = initiation
    socket.negotiator.propose(socket.now, initiationPacket)
    this.advance(socket)

    if (this.init.packet === 'flight') {
      this.sent.push(encodePacket({ flight: 'rest', scheme, initiation, responder: '' }))
    }

    return true
  }

  private abort (): boolean {
    const newest = this.sockets.at(-1)

    // the last to leave ends it; a remote that began does not leave
    if (newest == null || !newest.dialling || newest.secured || newest.initiation === '') {
      return false
    }

    this.close(newest)

    return true
  }

  private receive (datagram: Uint8Array): void {
    const isFrame = looksLikeFrame(datagram)
    const newest = this.sockets.at(-1)

    if (newest == null) {
      this.verdict = 'nobody'

      if (this.started && this.init.listens !== false && isFrame && decodeFrame(datagram).type === 'propose') {
        this.accept(datagram)
      }

      return
    }

    for (const socket of isFrame ? [newest] : this.takers(decodePacket(datagram))) {
      this.give(socket, datagram)
    }
  }

  /** A session's packets are told by their keys or connection ids, others may be for anybody who waits */
  private takers ({ initiation, responder }: SchemePacket): ModelSocket[] {
    const taker = this.sockets.find(({ handshake }) => handshake?.initiation === initiation && (responder === '' || handshake.responder === responder))

    return taker == null ? [...this.sockets] : [taker]
  }

  private give (socket: ModelSocket, datagram: Uint8Array): void {
    this.verdict = socket.negotiator.handleDatagram(datagram, socket.now)

    if (this.verdict === 'scheme') {
      if (socket.handshake == null) {
        hold(socket, datagram)
      } else {
        this.giveScheme(socket, datagram)
      }
    }

    this.advance(socket)
  }

  private handleTimer (type: 'retransmit' | 'grace' | 'repeat' | 'timeout' | 'idle', socket: ModelSocket): boolean {
    const { negotiator, handshake } = socket

    switch (type) {
      case 'retransmit': {
        const at = negotiator.pollTimeout()

        if (at == null) {
          return false
        }

        socket.now = Math.max(socket.now, at)
        negotiator.handleTimeout(socket.now)
        this.advance(socket)
        return true
      }
      case 'grace':
        socket.now += GRACE
        negotiator.handleTimeout(socket.now)
        this.advance(socket)
        return socket.failure != null
      case 'repeat':
        if (handshake?.repeats == null) {
          return false
        }

        this.sent.push(handshake.packet(handshake.repeats))
        return true
      case 'timeout':
        this.close(socket)
        return !socket.secured
      default:
        this.close(socket)
        return socket.secured
    }
  }

  private open (): ModelSocket {
    const { id, schemes, createNegotiator } = this.init
    const socket = new ModelSocket(createNegotiator({ localId: id, schemes, retransmission: RETRANSMISSION, rejectGrace: GRACE }))
    this.sockets.push(socket)

    return socket
  }

  private accept (proposal: Uint8Array): void {
    this.give(this.open(), proposal)
  }

  private close (socket: ModelSocket): void {
    this.sockets = this.sockets.filter(other => other !== socket)
  }

  /** As `Flow` does: frames before events, and scheme packets after the hand-over */
  private advance (socket: ModelSocket): void {
    const { negotiator } = socket

    for (let frame = negotiator.pollTransmit(); frame != null; frame = negotiator.pollTransmit()) {
      this.sent.push(frame)
    }

    for (let event = negotiator.pollEvent(); event != null; event = negotiator.pollEvent()) {
      this.onEvent(socket, event)
    }
  }

  private onEvent (socket: ModelSocket, event: NegotiationEvent): void {
    if (event.type === 'agreed') {
      this.begin(socket, event.agreement)
    } else if (event.type === 'failed') {
      socket.failure = event.error.name
      this.close(socket)
    } else {
      this.renew(socket, event.proposal)
    }
  }

  /** As `Upgrade.#secure` does */
  private begin (socket: ModelSocket, agreement: Agreement): void {
    const handshake = new Handshake(agreement.scheme, agreement.role, socket.initiation, () => `${this.init.name}${++this.answers}`)
    const early = [...(agreement.initiationPacket == null ? [] : [agreement.initiationPacket]), ...socket.held.splice(0)]
    socket.agreement = agreement
    socket.handshake = handshake

    if (agreement.role === 'initiator' && agreement.sendFirstFlight) {
      this.sent.push(handshake.packet('first'))
    }

    early.forEach(datagram => {
      if (this.takers(decodePacket(datagram)).includes(socket)) {
        this.giveScheme(socket, datagram)
      }
    })
  }

  private giveScheme (socket: ModelSocket, datagram: Uint8Array): void {
    const { handshake } = socket
    const packet = decodePacket(datagram)

    if (handshake == null) {
      return
    }

    if (packet.flight === 'close') {
      if (packet.initiation === handshake.initiation && packet.responder === handshake.responder) {
        this.close(socket)
      }

      return
    }

    const before = handshake.secured
    const answer = handshake.receive(packet)

    if (answer != null) {
      this.sent.push(handshake.packet(answer))
    }

    if (handshake.secured && !before) {
      this.onSecured(socket, handshake)
    }
  }

  /** As `Upgrade.#succeed` and `Link.supersede` do */
  private onSecured (socket: ModelSocket, handshake: Handshake): void {
    const claimedId = socket.agreement?.claimedId

    if (claimedId != null && !equals(claimedId, this.init.remoteId)) {
      this.sent.push(handshake.packet('close'))
      this.close(socket)
      return
    }

    socket.negotiator.handleSecured(socket.now)
    this.advance(socket)
    this.sockets = this.sockets.slice(this.sockets.indexOf(socket))
  }

  /** As `Upgrade.#onRenewed` and `PsecListener.renew` do */
  private renew (socket: ModelSocket, proposal: Uint8Array): void {
    if (this.init.listens === false || (!socket.secured && socket.agreement?.role !== 'responder')) {
      return
    }

    if (this.sockets.length === MAX_SOCKETS) {
      const [, newest] = this.sockets

      if (newest.secured) {
        return
      }

      this.close(newest)
    }

    this.accept(proposal)
  }
}

/** What is held twice has no more effect than once, and the number of different ones is small */
function hold ({ held }: ModelSocket, datagram: Uint8Array): void {
  if (!held.some(other => equals(other, datagram))) {
    held.push(datagram)
  }
}

function remembered (negotiator: any, now: number): unknown {
  const { localId, schemes, bareProposal, securedAt, ...fields } = negotiator

  return [dump(fields), securedAt == null, now - securedAt >= AGE]
}

function dump (value: any): unknown {
  if (value instanceof Uint8Array) {
    return toString(value, 'base64')
  }

  if (value instanceof Error) {
    return value.name
  }

  if (Array.isArray(value)) {
    return value.map(dump)
  }

  if (typeof value === 'function') {
    return null
  }

  if (value == null || typeof value !== 'object') {
    return value ?? null
  }

  return Object.entries(value).filter(([, field]) => field !== undefined).map(([name, field]) => [name, name === 'at' ? 'set' : dump(field)])
}
