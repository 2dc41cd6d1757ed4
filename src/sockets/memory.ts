/**
 * An in-memory network for tests and simulations: endpoints that exchange datagrams within the process, over paths with
 * the delay, loss, duplication and size limit that the caller wants, repeatable from a seed.
 */
import { InvalidParametersError } from '@libp2p/interface'
import { checkLimits, MAX_TIMEOUT } from '../check-limits.ts'
import { realClock } from '../clock.ts'
import { AddressInUseError } from '../errors.ts'
import { formatPacketAddress } from './index.ts'
import { MemoryEndpoint } from './memory-endpoint.ts'
import type { Cancel, Clock } from '../clock.ts'
import type { PacketAddress, PacketEndpoint } from './index.ts'
import type { AbortOptions } from '@libp2p/interface'

/**
 * What the paths of a `MemoryNetwork` are like. Numbers that are none are refused with `InvalidParametersError`.
 */
export interface MemoryNetworkInit {
  /**
   * How long a datagram travels, in milliseconds, or a function of where it travels. Default: 0, which still means after
   * the current turn of the event loop.
   */
  delay?: number | ((from: PacketAddress, to: PacketAddress) => number)

  /**
   * Up to how many milliseconds a datagram takes longer, at random; lets datagrams overtake each other. Default: 0.
   */
  jitter?: number

  /**
   * The share of datagrams that get lost, 0 to 1. Default: 0.
   */
  loss?: number

  /**
   * The share of datagrams that arrive twice, 0 to 1. Default: 0.
   */
  duplication?: number

  /**
   * What sockets say their `maxDatagramSize` is, in bytes. Default: 1452, what a 1,500-byte Ethernet frame leaves to UDP
   * over IPv4 with some room for a tunnel.
   */
  maxDatagramSize?: number

  /**
   * Larger datagrams vanish. Default: `maxDatagramSize`; less plays a path that carries less than assumed.
   */
  mtu?: number

  /**
   * Datagrams on their way to one endpoint at a time; more are lost. Default: 4096.
   */
  maxQueuedDatagrams?: number

  /**
   * Where chance comes from, [0, 1). Give a seeded one to repeat a run. Default: `Math.random`.
   */
  random? (): number

  /**
   * Sees every datagram that is sent; `false` loses it. The bytes must not be changed or kept.
   */
  onSend? (datagram: Uint8Array, from: PacketAddress, to: PacketAddress): boolean | undefined

  /**
   * Default: the machine's own time
   */
  clock?: Clock
}

/**
 * What became of the datagrams: `sent` by sockets; `duplicated`, of which another copy was made; copies that were `delivered` to an
 * endpoint; and why others were not: `lost` by chance or by `onSend`, `tooLarge` for the `mtu`, `queueFull` with `maxQueuedDatagrams`
 * under way, `unreachable`, since no endpoint is there
 */
export interface MemoryNetworkCounters {
  sent: number
  delivered: number
  duplicated: number
  lost: number
  tooLarge: number
  queueFull: number
  unreachable: number
}

interface Transit {
  due: number
  from: PacketAddress
  to: MemoryEndpoint
  datagram: Uint8Array
}

/** IANA's dynamic ports (RFC 6335, section 6) */
const FIRST_DYNAMIC_PORT = 49_152
const LAST_PORT = 65_535

const DEFAULT_MAX_DATAGRAM_SIZE = 1_452
const DEFAULT_MAX_QUEUED_DATAGRAMS = 4_096

/**
 * A network within the process.
 *
 * An endpoint on the unspecified address (`0.0.0.0`, `::`) is reached at the loopback address of its family, and sends
 * from there: the network plays one machine to those that speak of IP addresses. Any other host name stands for itself.
 *
 * @example
 *
 * ```ts
 * const network = new MemoryNetwork({ delay: 20, loss: 0.01 })
 * const alice = network.endpoint({ host: 'alice', port: 1 })
 * const bob = network.endpoint({ host: 'bob', port: 1 })
 * ```
 */
export class MemoryNetwork {
  readonly counters: MemoryNetworkCounters = {
    sent: 0, delivered: 0, duplicated: 0, lost: 0, tooLarge: 0, queueFull: 0, unreachable: 0
  }

  readonly maxDatagramSize: number
  readonly #init: MemoryNetworkInit
  readonly #clock: Clock
  readonly #random: () => number
  readonly #mtu: number
  readonly #maxQueued: number
  readonly #endpoints = new Map<string, MemoryEndpoint>()
  /** Sorted by `due`; of equal ones the first sent comes first */
  #transits: Transit[] = []
  #timer?: { due: number, cancel: Cancel }
  #nextPort = FIRST_DYNAMIC_PORT

  /**
   * @throws {InvalidParametersError} if a share is not within 0 to 1, a time is none, or a limit is no number of things
   */
  constructor (init: MemoryNetworkInit = {}) {
    checkShare('loss', init.loss)
    checkShare('duplication', init.duplication)
    checkTime('delay', typeof init.delay === 'function' ? 0 : init.delay)
    checkTime('jitter', init.jitter)
    this.#init = init
    this.#clock = init.clock ?? realClock
    this.#random = init.random ?? Math.random
    this.maxDatagramSize = init.maxDatagramSize ?? DEFAULT_MAX_DATAGRAM_SIZE
    this.#mtu = init.mtu ?? this.maxDatagramSize
    this.#maxQueued = init.maxQueuedDatagrams ?? DEFAULT_MAX_QUEUED_DATAGRAMS
    checkLimits('MemoryNetwork', { maxDatagramSize: this.maxDatagramSize, mtu: this.#mtu, maxQueuedDatagrams: this.#maxQueued })
  }

  /**
   * Datagrams on their way
   */
  get inTransit (): number {
    return this.#transits.length
  }

  /**
   * Open an endpoint. Port 0 stands for one that is free.
   *
   * @throws {AddressInUseError} if another endpoint has the address
   */
  endpoint (address: PacketAddress): PacketEndpoint {
    const host = address.host
    const port = address.port === 0 ? this.#freePort(host) : address.port
    const routed = { host: loopbackOf(host), port }
    const key = formatPacketAddress(routed)

    if (this.#endpoints.has(key)) {
      throw new AddressInUseError(`The address ${key} is taken on this network, choose another port, or 0 for a free one`)
    }

    const endpoint = new MemoryEndpoint({
      address: { host, port },
      maxDatagramSize: this.maxDatagramSize,
      send: (datagram, to) => { this.#send(datagram, routed, to) },
      onClose: () => { this.#remove(key, endpoint) }
    })

    this.#endpoints.set(key, endpoint)

    return endpoint
  }

  /**
   * The same as `endpoint`, in the form in which a transport asks for local ports
   */
  async open (options: PacketAddress & AbortOptions): Promise<PacketEndpoint> {
    options.signal?.throwIfAborted()

    return this.endpoint(options)
  }

  /**
   * Close every endpoint; what is on its way is lost. Idempotent.
   */
  async close (): Promise<void> {
    await Promise.all([...this.#endpoints.values()].map(async endpoint => { await endpoint.close() }))
  }

  #freePort (host: string): number {
    for (let tries = FIRST_DYNAMIC_PORT; tries <= LAST_PORT; tries++) {
      const port = this.#nextPort
      this.#nextPort = port === LAST_PORT ? FIRST_DYNAMIC_PORT : port + 1

      if (!this.#endpoints.has(formatPacketAddress({ host: loopbackOf(host), port }))) {
        return port
      }
    }

    throw new AddressInUseError(`Every dynamic port of ${host} is taken on this network, close some endpoints`)
  }

  #remove (key: string, endpoint: MemoryEndpoint): void {
    this.#endpoints.delete(key)
    const others = this.#transits.filter(transit => transit.to !== endpoint)
    this.counters.unreachable += this.#transits.length - others.length
    this.#transits = others
    this.#arm()
  }

  #send (datagram: Uint8Array, from: PacketAddress, remote: PacketAddress): void {
    const to = { host: loopbackOf(remote.host), port: remote.port }
    this.counters.sent++

    if (this.#init.onSend?.(datagram, from, to) === false || this.#random() < (this.#init.loss ?? 0)) {
      this.counters.lost++
    } else if (datagram.byteLength > this.#mtu) {
      this.counters.tooLarge++
    } else {
      this.#carry(datagram, from, to)
    }
  }

  #carry (datagram: Uint8Array, from: PacketAddress, address: PacketAddress): void {
    const to = this.#endpoints.get(formatPacketAddress(address))

    if (to == null) {
      this.counters.unreachable++
      return
    }

    this.#enqueue(datagram, from, address, to)

    if (this.#random() < (this.#init.duplication ?? 0)) {
      this.counters.duplicated++
      this.#enqueue(datagram, from, address, to)
    }

    this.#arm()
  }

  #enqueue (datagram: Uint8Array, from: PacketAddress, address: PacketAddress, to: MemoryEndpoint): void {
    if (to.queued >= this.#maxQueued) {
      this.counters.queueFull++
      return
    }

    const delay = typeof this.#init.delay === 'function' ? this.#init.delay(from, address) : this.#init.delay ?? 0
    const jitter = this.#init.jitter == null ? 0 : this.#random() * this.#init.jitter
    const due = this.#clock.now() + delay + jitter

    // from the back, where most belong
    let index = this.#transits.length
    while (index > 0 && this.#transits[index - 1].due > due) {
      index--
    }

    // the sender may use its buffer again
    const transit = { due, from, to, datagram: datagram.slice() }
    to.queued++

    if (index === this.#transits.length) {
      this.#transits.push(transit)
    } else {
      this.#transits.splice(index, 0, transit)
    }
  }

  /**
   * One timer for all that is on its way, and none if nothing is
   */
  #arm (): void {
    const due = this.#transits[0]?.due

    if (this.#timer?.due === due) {
      return
    }

    this.#timer?.cancel()
    this.#timer = due == null
      ? undefined
      : { due, cancel: this.#clock.schedule(() => { this.#deliverDue() }, Math.max(0, due - this.#clock.now())) }
  }

  #deliverDue (): void {
    this.#timer = undefined
    const now = this.#clock.now()
    let count = 0

    while (count < this.#transits.length && this.#transits[count].due <= now) {
      count++
    }

    const due = this.#transits.splice(0, count)
    // those sent while these are delivered are not due before the next turn, even without any delay
    this.#arm()

    for (const { to, from, datagram } of due) {
      to.queued--

      if (to.status === 'closed') {
        this.counters.unreachable++
      } else {
        this.counters.delivered++
        to.deliver(datagram, from)
      }
    }
  }
}

/**
 * Where an endpoint on this host is reached: the unspecified address is no destination
 */
function loopbackOf (host: string): string {
  if (host === '0.0.0.0') {
    return '127.0.0.1'
  }

  return host === '::' ? '::1' : host
}

function checkTime (name: string, time: number = 0): void {
  if (!(time >= 0 && time <= MAX_TIMEOUT)) {
    throw new InvalidParametersError(`The network's ${name} has to be a number of milliseconds from 0 to ${MAX_TIMEOUT}, but is ${time}`)
  }
}

function checkShare (name: string, share: number = 0): void {
  if (!(share >= 0 && share <= 1)) {
    throw new InvalidParametersError(`The network's ${name} has to be a share from 0 to 1, but is ${share}`)
  }
}
