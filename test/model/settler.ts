import { describeView } from './describe.ts'
import type { InFlight } from './explorer.ts'
import type { Datagrams, PeerMachine, SocketView } from './machine.ts'
import type { PeerInput } from './peer.ts'
import type { Session } from './scheme.ts'
import type { Role } from '../../src/negotiation/index.ts'

/**
 * How it ended:
 * - `session`: there is one that both have, and nothing is pending
 * - `nothing`: nobody has a session
 * - `half`: one side has a session that the other does not have
 * - `endless`: it does not end, since they answer each other's answers
 */
export interface Ending {
  outcome: 'session' | 'nothing' | 'half' | 'endless'

  /** Whether it took timeouts to end: somebody waited in vain */
  waited: boolean

  /** Whether a dial did */
  dialWaited: boolean

  /** Of `half`: which side has it, and its role */
  half?: { peer: number, role: Role }
}

/** The most answers to answers in a round: far more than there ever are, unless there is no end */
const MAX_ANSWERS = 100

/** Of a play that is explained: the rest says nothing new */
const MAX_LINES = 60

/**
 * Plays on from a state on a network that behaves: everything arrives, timers fire whenever it is quiet, nobody loses
 * patience while there is a change
 */
export class Settler {
  private readonly machines: [PeerMachine, PeerMachine]
  private readonly datagrams: Datagrams
  private readonly memo = new Map<string, Ending>()

  constructor (machines: [PeerMachine, PeerMachine], datagrams: Datagrams) {
    this.machines = machines
    this.datagrams = datagrams
  }

  /**
   * @param a - the first peer's state
   * @param b - the second's
   * @param network
   * @param reversed - the last datagram first, and the second peer's timers before the first's
   */
  settle (a: number, b: number, network: InFlight[], reversed: boolean): Ending {
    return this.play(new Play(this.machines, this.datagrams, a, b, reversed ? [...network].reverse() : network, reversed))
  }

  /**
   * Nothing arrives any more, and everybody runs out of time
   */
  cut (a: number, b: number): Ending {
    return this.playMemo(`cut ${a} ${b}`, () => {
      const play = new Play(this.machines, this.datagrams, a, b, [], false)

      return play.timeOut(false)
    })
  }

  /**
   * What `settle` does, in words
   */
  explain (a: number, b: number, network: InFlight[], reversed: boolean): string[] {
    const play = new Play(this.machines, this.datagrams, a, b, reversed ? [...network].reverse() : network, reversed, [])
    const seen = new Set<string>()

    while (!play.endless && !play.isSettled && (!seen.has(play.key) || play.endGraces())) {
      if (!seen.has(play.key)) {
        seen.add(play.key)
        play.round()
      }
    }

    if (!play.endless && !play.isSettled) {
      play.log?.push('— nothing changes any more: both run out of time —')
      play.timeOut(true)
    }

    return [...(play.log ?? []).slice(0, MAX_LINES), play.describe()]
  }

  private play (play: Play): Ending {
    const path: string[] = []
    const seen = new Set<string>()
    let ending: Ending | undefined

    while (ending == null) {
      const { key } = play
      ending = this.memo.get(key)

      if (ending != null) {
        break
      }

      if (play.endless) {
        ending = { outcome: 'endless', waited: true, dialWaited: true }
      } else if (play.isSettled) {
        ending = play.ending(false)
      } else if (seen.has(key)) {
        ending = play.endGraces() ? undefined : play.timeOut(true)
      } else {
        play.round()
      }

      seen.add(key)
      path.push(key)
    }

    for (const key of path) {
      this.memo.set(key, ending)
    }

    return ending
  }

  private playMemo (key: string, play: () => Ending): Ending {
    let ending = this.memo.get(key)

    if (ending == null) {
      ending = play()
      this.memo.set(key, ending)
    }

    return ending
  }
}

class Play {
  readonly log?: string[]
  private readonly machines: [PeerMachine, PeerMachine]
  private readonly datagrams: Datagrams
  private readonly peers: [number, number]
  private readonly reversed: boolean
  private queue: InFlight[]
  endless = false

  constructor (machines: [PeerMachine, PeerMachine], datagrams: Datagrams, a: number, b: number, queue: InFlight[], reversed: boolean, log?: string[]) {
    this.machines = machines
    this.datagrams = datagrams
    this.peers = [a, b]
    this.queue = queue
    this.reversed = reversed
    this.log = log
  }

  get key (): string {
    return String.fromCharCode(this.reversed ? 1 : 0, ...this.peers, ...this.queue)
  }

  /**
   * Nothing is on the way, and nobody waits for anything. Beside a session that both have there may be what a late proposal
   * left behind, for which no dial waits.
   */
  get isSettled (): boolean {
    const sockets = this.peers.flatMap((state, peer) => this.machines[peer].view(state).sockets)
    const waits = this.session == null ? ({ session }: SocketView) => session == null : ({ dialling }: SocketView) => dialling

    return this.queue.length === 0 && !sockets.some(waits)
  }

  /** The one that both have */
  private get session (): Session | undefined {
    const [ours, theirs] = this.peers.map((state, peer) => this.machines[peer].view(state).sessions)

    return ours.find(a => theirs.some(b => a.initiation === b.initiation && a.responder === b.responder))
  }

  /**
   * What is on the way arrives, and then what is sent in answer. If nothing is: the timers fire.
   */
  round (): void {
    const [first, second] = this.reversed ? [1, 0] : [0, 1]

    if (this.queue.length === 0) {
      this.fireTimers(first)
      this.fireTimers(second)
    }

    const wave = this.queue
    this.queue = []
    wave.forEach(datagram => { this.deliver(datagram) })

    for (let i = 0; this.queue.length > 0; i++) {
      if (i === MAX_ANSWERS) {
        this.endless = true
        return
      }

      const datagram = (this.reversed ? this.queue.pop() : this.queue.shift()) ?? 0
      this.deliver(datagram)
    }
  }

  /** Whoever has bad news and hears nothing better goes by them. Returns whether somebody has. */
  endGraces (): boolean {
    let ended = false

    for (const peer of [0, 1]) {
      for (let socket = this.machines[peer].view(this.peers[peer]).sockets.length - 1; socket >= 0; socket--) {
        ended = this.step(peer, { type: 'grace', socket }) || ended
      }
    }

    return ended
  }

  timeOut (waited: boolean): Ending {
    const dialWaited = this.peers.some((state, peer) => this.machines[peer].view(state).sockets.some(({ dialling }) => dialling))

    for (const peer of [0, 1]) {
      for (let socket = this.machines[peer].view(this.peers[peer]).sockets.length - 1; socket >= 0; socket--) {
        this.step(peer, { type: 'timeout', socket })
      }
    }

    this.queue = []

    return { ...this.ending(waited), dialWaited }
  }

  ending (waited: boolean): Ending {
    const [ours, theirs] = this.peers.map((state, peer) => this.machines[peer].view(state).sessions)

    if (this.session != null) {
      return { outcome: 'session', waited, dialWaited: false }
    }

    const [half] = [...ours.map(({ role }) => ({ peer: 0, role })), ...theirs.map(({ role }) => ({ peer: 1, role }))]

    return half == null ? { outcome: 'nothing', waited, dialWaited: false } : { outcome: 'half', waited, dialWaited: false, half }
  }

  describe (): string {
    return this.peers.map((state, peer) => `${this.machines[peer].init.name}: ${describeView(this.machines[peer].view(state))}`).join('; ')
  }

  private fireTimers (peer: number): void {
    for (let socket = 0; socket < this.machines[peer].view(this.peers[peer]).sockets.length; socket++) {
      this.step(peer, { type: 'retransmit', socket })
      this.step(peer, { type: 'repeat', socket })
    }
  }

  private deliver (datagram: InFlight): void {
    this.step(datagram & 1, { type: 'receive', datagram: this.datagrams.bytes[datagram >> 1] })
  }

  private step (peer: number, input: PeerInput): boolean {
    const step = this.machines[peer].step(this.peers[peer], input)

    if (step == null) {
      return false
    }

    this.peers[peer] = step.state
    this.queue.push(...step.sent.map(number => number * 2 + 1 - peer))
    this.log?.push(`${this.machines[peer].init.name}: ${input.type}${input.type === 'receive' ? ` ${this.datagrams.describe(this.datagrams.number(input.datagram))}` : ''}${step.sent.length === 0 ? '' : ` → ${step.sent.map(number => this.datagrams.describe(number)).join(', ')}`}   [${describeView(this.machines[peer].view(step.state))}]`)

    return true
  }
}
