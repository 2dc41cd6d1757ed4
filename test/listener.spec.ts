/**
 * Ports that do not do as they should, and what becomes of listeners and dials
 */
import { createSocket } from 'node:dgram'
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { loadEngine } from '../src/engine/load.ts'
import { EnginePort } from '../src/engine/port.ts'
import { quicDatagram, udp } from '../src/index.ts'
import { eventually } from './fixtures/eventually.ts'
import { createNode, getTransport, getUpgrader, stopNodes } from './fixtures/nodes.ts'
import { countEvents, recordMetrics } from './fixtures/record-metrics.ts'
import { StubScheme } from './fixtures/stub-scheme.ts'
import type { NativeBatch } from '../src/engine/native.ts'
import type { PacketEndpoint, PacketEndpointFactory } from '../src/index.ts'
import type { Libp2p, Listener } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

const LOOPBACK = multiaddr('/ip4/127.0.0.1/udp/0/psec')
const NOTICE = 11

function addressOf (node: Libp2p): Multiaddr {
  return node.getMultiaddrs()[0]
}

function createListener (node: Libp2p): Listener {
  return getTransport(node).createListener({ upgrader: getUpgrader(node) })
}

/**
 * UDP ports that are ready when they are let, whatever becomes of those who wait
 */
function slowPorts (): { factory: PacketEndpointFactory, opened: PacketEndpoint[], letThem (): void } {
  const opened: PacketEndpoint[] = []
  const { promise, resolve } = Promise.withResolvers<void>()

  return {
    factory: {
      open: async ({ host, port }) => {
        const endpoint = await udp().open({ host, port })
        opened.push(endpoint)
        await promise

        return endpoint
      }
    },
    opened,
    letThem: resolve
  }
}

/**
 * The UDP ports that the engine opens from now on; each fails when it is told to, with the engine's last words
 */
function failingPorts (): { fail (words: string): void, restore (): void } {
  const { bind } = EnginePort
  const fails: Array<(words: string) => void> = []

  // its constructor is for `bind` and `detached`
  EnginePort.bind = (host, port, anyStranger, limits, events) => new (EnginePort as any)(events, (wake: () => void) => {
    const native = loadEngine().NativePort.bind(host, port, anyStranger, limits, wake)
    const drain = native.drain.bind(native)

    fails.push((words) => {
      const batches: NativeBatch[] = [{
        records: Float64Array.of(NOTICE, 0, 0, 0, 0),
        data: new Uint8Array(),
        notices: [{ type: 'endpointClosed', error: words }]
      }]
      Object.defineProperty(native, 'drain', { value: () => batches.shift() ?? drain() })
      wake()
      // the true one has to end, too
      native.shutdown()
      native.flush()
    })

    return native
  })

  return {
    fail: (words) => { fails.splice(0).forEach(fail => { fail(words) }) },
    restore: () => { EnginePort.bind = bind }
  }
}

describe('a listener', () => {
  afterEach(stopNodes)

  it('that is closed while its port is being opened does not come up', async () => {
    const { factory, opened, letThem } = slowPorts()
    const node = await createNode({ listen: [], psec: { endpoints: factory } })
    const listener = createListener(node)
    const listening = listener.listen(LOOPBACK)
    await eventually(() => opened.length === 1)
    await listener.close()
    letThem()

    await expect(listening).to.eventually.be.rejected()
    expect(listener.getAddrs()).to.be.empty()
    expect(opened[0].status).to.equal('closed')
  })

  it('frees its port if it can\'t come up', async () => {
    const { factory, opened, letThem } = slowPorts()
    const scheme = Object.assign(new StubScheme('/stub'), {
      addressValidator: () => { throw new Error('There is none') }
    })
    letThem()
    const node = await createNode({ listen: [], psec: { schemes: [scheme], endpoints: factory } })
    const listener = createListener(node)

    await expect(listener.listen(LOOPBACK)).to.eventually.be.rejectedWith('There is none')
    expect(opened[0].status).to.equal('closed')
  })

  it('goes on without a shield if its port can\'t have strangers prove their address', async () => {
    const metrics = recordMetrics()
    // of another make than the engine, which has to have it
    const scheme = Object.assign(new StubScheme('/stub'), { addressValidator: () => ({}) })
    const bob = await createNode({ metrics: metrics.metrics, psec: { schemes: [scheme, quicDatagram()], validationThreshold: 1 } })

    for (let i = 0; i < 2; i++) {
      const alice = await createNode({ listen: [], psec: { schemes: [quicDatagram()] } })
      expect((await alice.dial(addressOf(bob))).status).to.equal('open')
    }

    expect(countEvents(metrics, 'shield_up')).to.equal(0)
    await eventually(() => Object.values(metrics.calculated('libp2p_psec_pending_inbound_connections_total') as Record<string, number>).every(count => count === 0))
  })

  it('closes, and says so, when its port fails', async () => {
    const metrics = recordMetrics()
    const { fail, restore } = failingPorts()

    try {
      const bob = await createNode({ metrics: metrics.metrics })
      const alice = await createNode({ listen: [] })
      const connection = await alice.dial(addressOf(bob))
      await eventually(() => bob.getConnections().length === 1)
      const [inbound] = bob.getConnections()
      const closed = new Promise<Error | undefined>((resolve) => { inbound.addEventListener('close', (evt) => { resolve(evt.error) }) })
      fail('the engine\'s thread panicked')

      expect((await closed)?.message).to.include('the native engine stopped (the engine\'s thread panicked)')
      await eventually(() => bob.getMultiaddrs().length === 0)
      expect(countEvents(metrics, 'port_failed', 'libp2p_psec_listener_errors_total')).to.equal(1)
      connection.abort(new Error('Nobody is there any more'))
    } finally {
      restore()
    }
  })
})

describe('a UDP port', () => {
  afterEach(stopNodes)

  it('dials nobody to whom the system knows no way, and says so at once', async () => {
    const node = await createNode()
    const { sendRaw } = EnginePort.prototype
    EnginePort.prototype.sendRaw = () => { throw new Error('network unreachable') }

    try {
      await expect(getTransport(node).dial(multiaddr('/ip4/192.0.2.1/udp/4001/psec'), { upgrader: getUpgrader(node), signal: AbortSignal.timeout(10_000) }))
        .to.eventually.be.rejectedWith('network unreachable').with.property('name', 'AddressUnreachableError')
    } finally {
      EnginePort.prototype.sendRaw = sendRaw
    }
  })

  it('counts datagrams of no bytes', async () => {
    const metrics = recordMetrics()
    const node = await createNode({ metrics: metrics.metrics })
    const socket = createSocket('udp4')

    try {
      socket.send(new Uint8Array(), Number(addressOf(node).getComponents()[1].value), '127.0.0.1')
      await eventually(() => (metrics.calculated('libp2p_psec_open_ports_counters') as Record<string, number>).empty === 1)
    } finally {
      socket.close()
    }
  })

  it('that can\'t be opened says so, and what may be missing', async () => {
    const { bind } = EnginePort
    EnginePort.bind = () => { throw new Error('EIO: Address family not supported by protocol (os error 97)') }

    try {
      await expect(udp().open({ host: '::', port: 0 })).to.eventually.be.rejectedWith('check that this machine has IPv6')
        .with.property('name', 'AddressUnavailableError')
    } finally {
      EnginePort.bind = bind
    }
  })
})
