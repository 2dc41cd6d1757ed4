/**
 * An exhaustive explorer of two peers' negotiation: every order in which a network of bounded malice may deliver, lose and
 * double their datagrams, and their timers may fire. What it abstracts and covers: docs/model.md.
 */
import { describeView } from './describe.ts'
import { Datagrams, PeerMachine } from './machine.ts'
import { Settler } from './settler.ts'
import type { Configuration } from './configuration.ts'
import type { PeerView, Step } from './machine.ts'
import type { PeerInput } from './peer.ts'

/**
 * What may still happen that does not follow from what is on the way: how often the network may lose and double, how often
 * each timer fires, and so on. In pairs: first's, second's.
 */
export interface Budgets {
  /** Datagrams that the network loses, or delivers and keeps a copy of */
  lose: number
  duplicate: number

  /** Dials of each peer */
  dials: [number, number]

  /** Whether each peer comes later: until then it hears nothing, and does not dial */
  late: [boolean, boolean]

  /** Firings of the negotiator's timer of retransmission, and of the scheme's */
  retransmit: [number, number]
  repeat: [number, number]

  /** Timeouts of negotiation or handshake; dials given up; crashes */
  timeouts: [number, number]
  aborts: [number, number]
  restarts: [number, number]

  /** Datagrams that the attacker injects */
  inject: number
}

/** Where each budget is in a state */
const LOSE = 2
const DUPLICATE = 3
const INJECT = 4
const DIALS = 5
const LATE = 7
const RETRANSMIT = 9
const REPEAT = 11
const TIMEOUTS = 13
const ABORTS = 15
const RESTARTS = 17
const NETWORK = 19

/** A datagram in flight is its number, twice, plus 1 if it is on the way to the second peer */
export type InFlight = number

/**
 * A state is a list of numbers: the states of both peers, what is left of the budgets, and the datagrams in flight, sorted
 */
export type State = number[]

export interface Result {
  states: number
  transitions: number
  depth: number

  /** How many states the two peers have by themselves */
  peerStates: [number, number]
  maxInFlight: number

  /** How the states end if the network behaves from then on, and how many end so */
  outcomes: Record<string, number>
  milliseconds: number
}

/**
 * What a property sees of a state
 */
export interface Moment {
  configuration: Configuration
  views: [PeerView, PeerView]

  /** Whether anything has happened that a side forgets, or gives up, by */
  forgotten: boolean
  restarted: boolean
  injected: boolean
  dialled: [boolean, boolean]

  /** Dials that are still to come */
  left: [number, number]
}

/**
 * A property does not hold. The message has the shortest way there.
 */
export class ViolationError extends Error {
  static name = 'ViolationError'
  name = 'ViolationError'
  readonly trace: string[]

  constructor (reason: string, trace: string[]) {
    super(`${reason}\n${trace.map((line, i) => `${String(i + 1).padStart(3)}. ${line}`).join('\n')}`)
    this.trace = trace
  }
}

/**
 * What may be asked of a moment; returns what is wrong
 */
export type Property = (moment: Moment) => string | undefined

type Visit = (next: State, label: string, step?: Step, peer?: number) => void

type Move = (peer: number, input: PeerInput, spend: number, label: string, network?: InFlight[]) => void

export class Explorer {
  readonly configuration: Configuration
  private readonly datagrams = new Datagrams()
  private readonly machines: [PeerMachine, PeerMachine]
  private readonly settler: Settler
  private readonly injections: InFlight[]

  private readonly keys: string[] = []
  private readonly parents: number[] = []
  private readonly known = new Set<string>()
  private readonly initial: State
  private transitions = 0

  constructor (configuration: Configuration) {
    this.configuration = configuration
    this.machines = [
      new PeerMachine(configuration.peers[0], this.datagrams),
      new PeerMachine(configuration.peers[1], this.datagrams)
    ]
    this.settler = new Settler(this.machines, this.datagrams)
    this.injections = (configuration.injections ?? []).map(({ to, datagram }) => inFlight(this.datagrams.number(datagram), to))
    this.initial = this.start()
  }

  /**
   * Visit every state, breadth first, and check all properties there
   *
   * @throws {ViolationError} for the first that does not hold
   */
  run (maxStates = Infinity): Result {
    const begun = performance.now()
    const outcomes: Record<string, number> = {}
    let maxInFlight = 0
    let depth = 0
    let levelEnd = 1

    this.add(this.initial, -1)

    for (let i = 0; i < this.keys.length; i++) {
      if (i === levelEnd) {
        depth++
        levelEnd = this.keys.length
      }

      const state = decode(this.keys[i])
      const moment = this.momentOf(state)
      maxInFlight = Math.max(maxInFlight, state.length - NETWORK)
      this.check(moment, i)

      for (const outcome of this.settle(state, moment, i)) {
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
      }

      this.forEachMove(state, (next, input, step, peer) => {
        this.transitions++
        this.checkStep(moment, state, next, i, step, peer)
        this.add(next, i)
      })

      if (this.keys.length > maxStates) {
        throw new Error(`${this.configuration.name}: more than ${maxStates} states`)
      }
    }

    return {
      states: this.keys.length,
      transitions: this.transitions,
      depth,
      peerStates: [this.machines[0].size, this.machines[1].size],
      maxInFlight,
      outcomes,
      milliseconds: performance.now() - begun
    }
  }

  private start (): State {
    const { budgets } = this.configuration
    const state: State = [
      0, 0,
      budgets.lose, budgets.duplicate, budgets.inject,
      ...budgets.dials, ...budgets.late.map(Number), ...budgets.retransmit, ...budgets.repeat, ...budgets.timeouts, ...budgets.aborts, ...budgets.restarts
    ]

    for (const peer of [0, 1] as const) {
      if (!budgets.late[peer]) {
        state[peer] = this.machines[peer].step(0, { type: 'start' })?.state ?? 0
      }
    }

    return state
  }

  private add (state: State, parent: number): void {
    const key = encode(state)

    if (!this.known.has(key)) {
      this.known.add(key)
      this.keys.push(key)
      this.parents.push(parent)
    }
  }

  private momentOf (state: State): Moment {
    const { budgets } = this.configuration
    const spent = (index: number, budget: number[]): boolean => state[index] + state[index + 1] < budget[0] + budget[1]

    return {
      configuration: this.configuration,
      views: [this.machines[0].view(state[0]), this.machines[1].view(state[1])],
      forgotten: spent(TIMEOUTS, budgets.timeouts) || spent(ABORTS, budgets.aborts) || spent(RESTARTS, budgets.restarts),
      restarted: spent(RESTARTS, budgets.restarts),
      injected: state[INJECT] < budgets.inject,
      dialled: [state[DIALS] < budgets.dials[0], state[DIALS + 1] < budgets.dials[1]],
      left: [state[DIALS], state[DIALS + 1]]
    }
  }

  private check (moment: Moment, index: number): void {
    for (const property of this.configuration.properties) {
      const wrong = property(moment)

      if (wrong != null) {
        throw new ViolationError(wrong, this.trace(index))
      }
    }
  }

  private checkStep (moment: Moment, from: State, to: State, index: number, step?: Step, peer?: number): void {
    if (step == null || peer == null) {
      return
    }

    const wrong = this.configuration.stepProperty?.(moment, step.verdict, this.machines[peer].view(from[peer]), this.machines[peer].view(to[peer]))

    if (wrong != null) {
      this.add(to, index)
      throw new ViolationError(wrong, this.trace(index, to))
    }
  }

  /**
   * How it ends if the network behaves from now on, and if it is cut
   */
  private settle (state: State, moment: Moment, index: number): string[] {
    const network = state.slice(NETWORK)
    const started = [0, 1].map(peer => state[LATE + peer] === 0 ? state[peer] : this.machines[peer].step(state[peer], { type: 'start' })?.state ?? 0)
    const endings = [
      this.settler.settle(started[0], started[1], network, false),
      this.settler.settle(started[0], started[1], network, true),
      this.settler.cut(state[0], state[1])
    ]

    endings.forEach((ending, i) => {
      const wrong = ending.outcome === 'endless' ? 'They answer each other without end' : this.configuration.ending(moment, ending, i === 2)

      if (wrong != null) {
        const how = i === 2 ? 'if nothing arrives any more' : 'if nothing is lost any more'
        throw new ViolationError(`${wrong}, ${how}`, [...this.trace(index), ...(i === 2 ? [] : ['— from here nothing is lost, and every timer fires as often as it takes —', ...this.settler.explain(started[0], started[1], network, i === 1)])])
      }
    })

    return [...new Set([endings[0], endings[1]].map(({ outcome, waited }) => waited ? `${outcome} after timeouts` : outcome))]
  }

  private forEachMove (state: State, visit: Visit): void {
    const move: Move = (peer, input, spend, label, network = state.slice(NETWORK)) => {
      const step = this.machines[peer].step(state[peer], input)

      if (step == null) {
        return
      }

      const next = state.slice(0, NETWORK)
      next[peer] = step.state

      if (spend === RESTARTS + peer && this.configuration.restarts === 'old') {
        next[1 - peer] = this.machines[1 - peer].step(state[1 - peer], { type: 'age' })?.state ?? state[1 - peer]
      }

      if (spend > 0) {
        next[spend]--
      }

      const sent = step.sent.map(number => inFlight(number, 1 - peer))
      const after = sent.length === 0 ? network : [...network, ...sent].sort((a, b) => a - b)
      visit([...next, ...after], label, step, peer)
    }

    this.forEachPeerMove(state, move)
    this.forEachNetworkMove(state, move, visit)
  }

  private forEachPeerMove (state: State, move: Move): void {
    const { peers } = this.configuration

    for (const peer of [0, 1]) {
      const { name } = peers[peer]
      const { sockets } = this.machines[peer].view(state[peer])

      if (state[LATE + peer] > 0) {
        move(peer, { type: 'start' }, LATE + peer, `${name} begins to listen`)
        continue
      }

      state[DIALS + peer] > 0 && move(peer, { type: 'dial' }, DIALS + peer, `${name} dials`)
      state[ABORTS + peer] > 0 && move(peer, { type: 'abort' }, ABORTS + peer, `${name} gives its dial up`)

      if (state[RESTARTS + peer] > 0 && this.mayRestart(state)) {
        move(peer, { type: 'restart' }, RESTARTS + peer, `${name} crashes and comes back`)
      }

      for (let socket = 0; socket < sockets.length; socket++) {
        const which = sockets.length === 1 ? '' : ` (${socket === 0 ? 'older' : 'newer'} socket)`
        state[RETRANSMIT + peer] > 0 && move(peer, { type: 'retransmit', socket }, RETRANSMIT + peer, `${name}'s proposal is due again${which}`)
        state[REPEAT + peer] > 0 && move(peer, { type: 'repeat', socket }, REPEAT + peer, `${name}'s scheme repeats its flight${which}`)
        state[TIMEOUTS + peer] > 0 && move(peer, { type: 'timeout', socket }, TIMEOUTS + peer, `${name} runs out of time${which}`)
        this.configuration.graceLasts !== true && move(peer, { type: 'grace', socket }, 0, `the grace ends at ${name}${which}`)
      }
    }
  }

  private forEachNetworkMove (state: State, move: Move, visit: Visit): void {
    for (let i = NETWORK; i < state.length; i++) {
      if (i > NETWORK && state[i] === state[i - 1]) {
        continue
      }

      const rest = state.slice(NETWORK)
      rest.splice(i - NETWORK, 1)
      this.deliver(state[i], rest, -1, '', move)

      if (state[LOSE] > 0) {
        const next = state.slice(0, NETWORK)
        next[LOSE]--
        visit([...next, ...rest], `lost on the way to ${this.describe(state[i])}`)
      }

      if (state[DUPLICATE] > 0) {
        this.deliver(state[i], state.slice(NETWORK), DUPLICATE, ', and once more it is on the way', move)
      }
    }

    if (state[INJECT] > 0 && this.mayInject(state)) {
      for (const injection of this.injections) {
        this.deliver(injection, state.slice(NETWORK), INJECT, ' (forged)', move)
      }
    }
  }

  private deliver (datagram: InFlight, rest: InFlight[], spend: number, remark: string, move: Move): void {
    move(datagram & 1, { type: 'receive', datagram: this.datagrams.bytes[datagram >> 1] }, spend, `arrives at ${this.describe(datagram)}${remark}`, rest)
  }

  private mayInject (state: State): boolean {
    return this.configuration.injectsLate !== true || [0, 1].every(peer => this.machines[peer].view(state[peer]).sockets[0]?.agreed != null)
  }

  private mayRestart (state: State): boolean {
    return this.configuration.restarts == null || (state.length === NETWORK && [0, 1].every(peer => this.machines[peer].view(state[peer]).sessions.length > 0))
  }

  private describe (datagram: InFlight): string {
    return `${this.configuration.peers[datagram & 1].name}: ${this.datagrams.describe(datagram >> 1)}`
  }

  /**
   * The way to a state, in words; with another that follows it
   */
  private trace (index: number, last?: State): string[] {
    const states = last == null ? [] : [last]

    for (let i = index; i >= 0; i = this.parents[i]) {
      states.unshift(decode(this.keys[i]))
    }

    return states.slice(1).map((state, i) => {
      let line = '?'
      this.forEachMove(states[i], (next, label, step, peer) => {
        if (line === '?' && encode(next) === encode(state)) {
          const sent = step == null || step.sent.length === 0 ? '' : ` → ${step.sent.map(number => this.datagrams.describe(number)).join(', ')}`
          line = `${label}${sent}${peer == null ? '' : `   [${this.configuration.peers[peer].name}: ${describeView(this.machines[peer].view(state[peer]))}]`}`
        }
      })

      return line
    })
  }
}

function inFlight (number: number, to: number): InFlight {
  return number * 2 + to
}

function encode (state: State): string {
  return String.fromCharCode(...state)
}

function decode (key: string): State {
  return Array.from({ length: key.length }, (_, i) => key.charCodeAt(i))
}
