import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { createLibp2p } from 'libp2p'
import { HandshakeFailedError } from '../src/errors.ts'
import { CODE_PSEC, encodeFrame, MemoryNetwork, negotiation, psec } from '../src/index.ts'
import { compareIds } from '../src/negotiation/compare-ids.ts'
import { ECHO, expectEcho, handleEcho } from './fixtures/echo.ts'
import { trackEndpoints } from './fixtures/endpoints.ts'
import { eventually } from './fixtures/eventually.ts'
import { getTransport, getUpgrader, nodeDefaults, stopNodes } from './fixtures/nodes.ts'
import { plaintext } from './fixtures/plaintext-scheme.ts'
import { countEvents, recordMetrics } from './fixtures/record-metrics.ts'
import { describeSchemes } from './fixtures/schemes.ts'
import { StubScheme } from './fixtures/stub-scheme.ts'
import type { PsecDialEvents } from '../src/index.ts'
import type { Connection, Libp2p, PeerId, PrivateKey } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { Socket } from 'node:dgram'

/**
 * An address of a node without its peer id, so that libp2p does not notice that it has a connection, or a dial, already
 */
function anonymous (node: Libp2p): Multiaddr {
  return multiaddr(node.getMultiaddrs()[0].toString().replace(/\/p2p\/.*/, ''))
}

function withPsec (ma: Multiaddr): Multiaddr {
  return multiaddr(`${ma}/psec`)
}

function localPort (node: Libp2p): string {
  return anonymous(node).getComponents()[1].value ?? ''
}

function remotePort (connection: Connection): string {
  return connection.remoteAddr.getComponents()[1].value ?? ''
}

/**
 * Dial by the transport itself: without libp2p's dial queue, which merges dials and has errors of its own
 */
async function transportDial (node: Libp2p, ma: Multiaddr, options: { signal?: AbortSignal, onProgress? (evt: PsecDialEvents): void } = {}): Promise<Connection> {
  return getTransport(node).dial(ma, {
    upgrader: getUpgrader(node),
    signal: options.signal ?? AbortSignal.timeout(20_000),
    onProgress: options.onProgress
  })
}

/**
 * A socket where a node will listen later, as if its datagrams were that node's
 */
async function bindForger (): Promise<{ socket: Socket, address: string, send (datagram: Uint8Array, node: Libp2p): Promise<void>, close (): Promise<void> }> {
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')

  return {
    socket,
    address: `/ip4/127.0.0.1/udp/${socket.address().port}/psec`,
    send: async (datagram, node) => new Promise((resolve) => { socket.send(datagram, Number(localPort(node)), '127.0.0.1', () => { resolve() }) }),
    close: async () => new Promise((resolve) => { socket.close(() => { resolve() }) })
  }
}

function proposalOf (privateKey: PrivateKey, scheme: string): Uint8Array {
  return encodeFrame({ type: 'propose', peerId: privateKey.publicKey.toMultihash().bytes, schemes: [scheme] })
}

async function keyBelow (peerId: PeerId): Promise<PrivateKey> {
  for (;;) {
    const privateKey = await generateKeyPair('Ed25519')

    if (compareIds(privateKey.publicKey.toMultihash().bytes, peerId.toMultihash().bytes) < 0) {
      return privateKey
    }
  }
}

// all of it by each scheme: nothing above them may lean on what only one of them does
describeSchemes('transport', ({ create, createNode, protocol, endsAnytime }) => {
  afterEach(stopNodes)

  describe('dialling', () => {
    it('takes the bare address and the one with /psec', async () => {
      const bob = await createNode()
      const alice = await createNode()

      for (const ma of [anonymous(bob), withPsec(anonymous(bob))]) {
        const connection = await alice.dial(ma)
        expect(connection.remotePeer.equals(bob.peerId)).to.equal(true)
        await connection.close()
      }
    })

    it('takes host names', async () => {
      const bob = await createNode()
      const alice = await createNode()
      const connection = await alice.dial(multiaddr(`/dns4/localhost/udp/${localPort(bob)}/psec`))

      expect(connection.remotePeer.equals(bob.peerId)).to.equal(true)
      expect(connection.remoteAddr.toString()).to.match(/^\/dns4\/localhost\/udp\/\d+\/p2p\//)
    })

    it('works over IPv6', async () => {
      const bob = await createNode({ listen: ['/ip6/::1/udp/0/psec'] })
      const alice = await createNode({ listen: ['/ip6/::/udp/0/psec'] })
      const connection = await alice.dial(bob.getMultiaddrs())
      await eventually(() => bob.getConnections().length === 1)

      expect(connection.remotePeer.equals(bob.peerId)).to.equal(true)
      expect(alice.getMultiaddrs().map(ma => ma.toString().split('/')[4])).to.include(remotePort(bob.getConnections()[0]))
    })

    it('leaves from the port that listens', async () => {
      const bob = await createNode()
      const alice = await createNode({ listen: ['/ip4/0.0.0.0/udp/0/psec'] })
      await alice.dial(bob.getMultiaddrs())
      await eventually(() => bob.getConnections().length === 1)

      expect(remotePort(bob.getConnections()[0])).to.equal(localPort(alice))
    })

    it('does not leave from a port that cannot reach the address', async () => {
      const endpoints = trackEndpoints()
      const bob = await createNode()
      const alice = await createNode({ listen: ['/ip6/::1/udp/0/psec'], psec: { endpoints } })
      await alice.dial(bob.getMultiaddrs())

      expect(endpoints.endpoints.map(({ localAddress }) => localAddress.host)).to.deep.equal(['::1', '0.0.0.0'])
    })

    it('shares one ephemeral port in a node that does not listen, and frees it when the node stops', async () => {
      const endpoints = trackEndpoints()
      const [bob, carol] = [await createNode(), await createNode()]
      const alice = await createNode({ listen: [], psec: { endpoints } })
      const connections = await Promise.all([alice.dial(bob.getMultiaddrs()), alice.dial(carol.getMultiaddrs())])

      expect(endpoints.endpoints).to.have.lengthOf(1)

      await Promise.all(connections.map(async connection => connection.close()))
      await eventually(() => endpoints.openSockets() === 0)
      expect(endpoints.openPorts()).to.equal(1)

      await alice.stop()
      expect(endpoints.openPorts()).to.equal(0)
    })

    it('tells of every step', async () => {
      const bob = await createNode()
      const alice = await createNode()
      const steps: string[] = []
      await transportDial(alice, multiaddr(`/dns4/localhost/udp/${localPort(bob)}`), { onProgress: (evt) => { steps.push(evt.type) } })

      expect(steps).to.deep.equal(['psec:resolve', 'psec:open-socket', 'psec:propose', 'psec:agreed', 'psec:secured'])
    })

    it('lets the remote choose a scheme that both speak', async () => {
      const bob = await createNode({ psec: { schemes: [plaintext()] } })
      const alice = await createNode({ psec: { schemes: [new StubScheme('/unheard-of'), create(), plaintext()] } })
      const connection = await alice.dial(bob.getMultiaddrs())

      expect(negotiation(connection)).to.have.property('scheme', plaintext().protocol)
    })
  })

  describe('dials of one address', () => {
    it('that are under way at the same time get one connection', async () => {
      const bob = await createNode()
      const alice = await createNode()
      const [first, second] = await Promise.all([alice.dial(anonymous(bob)), alice.dial(withPsec(anonymous(bob)))])

      expect(first).to.equal(second)
      expect(alice.getConnections()).to.have.lengthOf(1)
    })

    it('share an ephemeral port that is just being opened', async () => {
      const endpoints = trackEndpoints()
      const bob = await createNode()
      const alice = await createNode({ listen: [], psec: { endpoints } })
      const [first, second] = await Promise.all([alice.dial(anonymous(bob)), alice.dial(withPsec(anonymous(bob)))])

      expect(first).to.equal(second)
      expect(endpoints.endpoints).to.have.lengthOf(1)
    })

    it('do not suffer when one of them is aborted', async () => {
      const network = new MemoryNetwork({ delay: 20 })
      const bob = await createNode({ psec: { endpoints: network } })
      const alice = await createNode({ psec: { endpoints: network } })
      const controller = new AbortController()
      const aborted = transportDial(alice, anonymous(bob), {
        signal: controller.signal,
        onProgress: (evt) => { evt.type === 'psec:propose' && controller.abort() }
      })
      const connection = transportDial(alice, withPsec(anonymous(bob)))

      await expect(aborted).to.eventually.be.rejected().with.property('name', 'AbortError')
      expect((await connection).status).to.equal('open')
    })

    it('get an error of their own if they expect somebody else', async () => {
      const bob = await createNode()
      const alice = await createNode()
      const expectingBob = transportDial(alice, bob.getMultiaddrs()[0])
      const expectingAlice = transportDial(alice, multiaddr(`${anonymous(bob)}/p2p/${alice.peerId}`))

      await expect(expectingAlice).to.eventually.be.rejected().with.property('name', 'UnexpectedPeerError')
      expect((await expectingBob).status).to.equal('open')
    })

    it('get another connection, from a port of its own, if there is one already', async () => {
      const endpoints = trackEndpoints()
      const bob = await createNode()
      const alice = await createNode({ psec: { endpoints } })
      await handleEcho(bob)
      const first = await alice.dial(anonymous(bob))
      const second = await alice.dial(anonymous(bob), { force: true })

      expect(second).to.not.equal(first)
      expect(endpoints.openPorts()).to.equal(2)
      await expectEcho(first)
      await expectEcho(second)

      await second.close()
      await eventually(() => endpoints.openPorts() === 1)
      expect(first.status).to.equal('open')
    })
  })

  describe('crossings', () => {
    it('end as one connection when both sides dial at the same time', async () => {
      for (let round = 0; round < 5; round++) {
        const network = new MemoryNetwork({ delay: 10 })
        const init = { endpoints: network }
        const nodes = [await createNode({ psec: init }), await createNode({ psec: init })]
        const [alice, bob] = nodes
        await Promise.all(nodes.map(handleEcho))

        const [toBob, toAlice] = await Promise.all([alice.dial(bob.getMultiaddrs()), bob.dial(alice.getMultiaddrs())])

        expect(negotiation(toBob)).to.have.property('simultaneous', true)
        expect([negotiation(toBob)?.role, negotiation(toAlice)?.role]).to.have.members(['initiator', 'responder'])
        expect(alice.getConnections()).to.deep.equal([toBob])
        expect(bob.getConnections()).to.deep.equal([toAlice])
        await expectEcho(toBob)
        await expectEcho(toAlice)
        await stopNodes()
      }
    })

    it('end as one connection over UDP, however close the dials are', async () => {
      const [alice, bob] = [await createNode(), await createNode()]
      const connections = await Promise.all([alice.dial(bob.getMultiaddrs()), bob.dial(alice.getMultiaddrs())])

      expect(alice.getConnections()).to.deep.equal([connections[0]])
      expect(bob.getConnections()).to.deep.equal([connections[1]])
      expect([negotiation(connections[0])?.role, negotiation(connections[1])?.role]).to.have.members(['initiator', 'responder'])
    })

    it('let a dial join the handshake that the remote began', async () => {
      const network = new MemoryNetwork({ delay: 20 })
      const scheme = create()
      const responding = Promise.withResolvers<void>()
      const bob = await createNode({
        psec: {
          endpoints: network,
          schemes: [{
            protocol: scheme.protocol,
            initiate: (socket, options) => scheme.initiate(socket, options),
            respond: async (socket, options) => {
              responding.resolve()
              return scheme.respond(socket, options)
            }
          }]
        }
      })
      const alice = await createNode({ psec: { endpoints: network } })
      const toBob = alice.dial(bob.getMultiaddrs())
      await responding.promise
      const toAlice = await bob.dial(alice.getMultiaddrs())

      expect((await toBob).remotePeer.equals(bob.peerId)).to.equal(true)
      expect(bob.getConnections()).to.deep.equal([toAlice])
      expect(negotiation(toAlice)).to.include({ role: 'responder', simultaneous: false })
    })

    it('let a dial get through although somebody has forged a proposal of its remote', async () => {
      const [alice, forger] = [await createNode(), await bindForger()]
      const privateKey = await generateKeyPair('Ed25519')
      await forger.send(proposalOf(privateKey, protocol), alice)
      await once(forger.socket, 'message')
      await forger.close()
      const bob = await createNode({ privateKey, listen: [forger.address] })

      const connection = await transportDial(alice, bob.getMultiaddrs()[0])

      expect(connection.remotePeer.equals(bob.peerId)).to.equal(true)
      expect(negotiation(connection)).to.include({ role: 'initiator', simultaneous: false })
      expect(alice.getConnections()).to.deep.equal([connection])
    })

    it('let a dial get through although somebody has forged a proposal that crosses its own', async () => {
      const [alice, forger] = [await createNode(), await bindForger()]
      // who has the lower id is to begin
      const privateKey = await keyBelow(alice.peerId)
      const connecting = transportDial(alice, multiaddr(forger.address))
      await once(forger.socket, 'message')
      await forger.send(proposalOf(privateKey, protocol), alice)
      await forger.close()
      const bob = await createNode({ privateKey, listen: [forger.address] })

      const connection = await connecting

      expect(connection.remotePeer.equals(bob.peerId)).to.equal(true)
      expect(negotiation(connection)).to.include({ role: 'initiator', simultaneous: false })
    })

    it('let a dial join the connection that libp2p is about to open', async () => {
      const upgrading = Promise.withResolvers<void>()
      const gate = Promise.withResolvers<void>()
      const bob = await createNode({
        connectionGater: {
          ...nodeDefaults.connectionGater,
          denyInboundEncryptedConnection: async () => {
            upgrading.resolve()
            await gate.promise

            return false
          }
        }
      })
      const alice = await createNode()
      await alice.dial(bob.getMultiaddrs())
      await upgrading.promise
      const toAlice = bob.dial(alice.getMultiaddrs())
      gate.resolve()
      const connection = await toAlice

      expect(bob.getConnections()).to.deep.equal([connection])
    })
  })

  describe('failing', () => {
    it('to dial port 0, at which nobody can be, is an InvalidMultiaddrError at once', async () => {
      const alice = await createNode({ listen: [] })

      await expect(transportDial(alice, multiaddr('/ip4/127.0.0.1/udp/0/psec'))).to.eventually.be.rejectedWith('port 0')
        .with.property('name', 'InvalidMultiaddrError')
    })

    it('with NoAnswerError if nobody is there', async () => {
      const endpoints = trackEndpoints()
      const alice = await createNode({ listen: [], psec: { endpoints, negotiationTimeout: 300 } })

      await expect(alice.dial(multiaddr('/ip4/127.0.0.1/udp/9/psec'))).to.eventually.be.rejected()
        .with.property('name', 'NoAnswerError')
      await eventually(() => endpoints.openSockets() === 0)
    })

    it('with NoCommonSchemeError if there is no scheme that both speak', async () => {
      const bob = await createNode()
      const alice = await createNode({ psec: { schemes: [plaintext()] } })

      await expect(alice.dial(bob.getMultiaddrs())).to.eventually.be.rejected()
        .with.property('name', 'NoCommonSchemeError')
    })

    it('with UnexpectedPeerError if somebody else is there, and leaves no connection', async () => {
      const bob = await createNode()
      const alice = await createNode()
      const carol = await createNode()

      await expect(alice.dial(multiaddr(`${anonymous(bob)}/p2p/${carol.peerId}`))).to.eventually.be.rejected()
        .with.property('name', 'UnexpectedPeerError')
      expect(alice.getConnections()).to.be.empty()
      await eventually(() => bob.getConnections().length === 0)
    })

    it('with SelfNegotiationError if the address is our own', async () => {
      const alice = await createNode()

      await expect(alice.dial(anonymous(alice))).to.eventually.be.rejected()
        .with.property('name', 'SelfNegotiationError')
    })

    it('with HandshakeFailedError if the scheme fails', async () => {
      const scheme = new StubScheme('/stub')
      const bob = await createNode({ psec: { schemes: [scheme] } })
      const alice = await createNode({ psec: { schemes: [scheme] } })
      const dial = alice.dial(bob.getMultiaddrs())
      await eventually(() => scheme.initiations[0]?.proceeded != null)
      scheme.initiations[0].session.reject(new HandshakeFailedError('Not today'))

      await expect(dial).to.eventually.be.rejected().with.property('name', 'HandshakeFailedError')
      scheme.responses[0].session.reject(new HandshakeFailedError('Nor here'))
    })

    it('with AddressNotResolvedError if the host name is unknown', async () => {
      const alice = await createNode()

      await expect(alice.dial(multiaddr('/dns4/nobody.invalid/udp/1/psec'))).to.eventually.be.rejected()
        .with.property('name', 'AddressNotResolvedError')
    })

    it('with PrivateNetworkError in a private network', async () => {
      await expect(createLibp2p({
        ...nodeDefaults,
        transports: [psec()],
        connectionProtector: () => ({ protect: async (connection: any) => connection })
      })).to.eventually.be.rejected().with.property('name', 'PrivateNetworkError')
    })

    it('when the connection gater denies, leaving nothing', async () => {
      const endpoints = trackEndpoints()
      const bob = await createNode()
      const alice = await createNode({
        listen: [],
        psec: { endpoints },
        connectionGater: { ...nodeDefaults.connectionGater, denyOutboundEncryptedConnection: () => true }
      })

      await expect(alice.dial(bob.getMultiaddrs())).to.eventually.be.rejected()
        .with.property('name', 'ConnectionInterceptedError')
      await eventually(() => endpoints.openSockets() === 0 && bob.getConnections().length === 0)
    })

    it('when the remote\'s connection gater denies, closing the connection', async () => {
      const bob = await createNode({
        connectionGater: { ...nodeDefaults.connectionGater, denyInboundUpgradedConnection: () => true }
      })
      const alice = await createNode()
      await alice.dial(bob.getMultiaddrs()).catch(() => {})

      await eventually(() => alice.getConnections().length === 0)
      expect(bob.getConnections()).to.be.empty()
    })
  })

  describe('aborting', () => {
    const reason = new Error('Changed my mind')

    it('before the dial', async () => {
      const endpoints = trackEndpoints()
      const alice = await createNode({ listen: [], psec: { endpoints } })

      await expect(transportDial(alice, multiaddr('/ip4/127.0.0.1/udp/9'), { signal: AbortSignal.abort(reason) }))
        .to.eventually.be.rejectedWith(reason)
      expect(endpoints.endpoints).to.be.empty()
    })

    it('while a port is opened, which then waits for the next dial', async () => {
      const endpoints = trackEndpoints()
      const gate = Promise.withResolvers<void>()
      const opening = Promise.withResolvers<void>()
      const alice = await createNode({
        listen: [],
        psec: {
          endpoints: {
            async open (options) {
              opening.resolve()
              await gate.promise
              return endpoints.open(options)
            }
          }
        }
      })
      const controller = new AbortController()
      const dial = transportDial(alice, multiaddr('/ip4/127.0.0.1/udp/9'), { signal: controller.signal })
      await opening.promise
      controller.abort(reason)

      await expect(dial).to.eventually.be.rejectedWith(reason)
      gate.resolve()
      await eventually(() => endpoints.openPorts() === 1)
      expect(endpoints.openSockets()).to.equal(0)
    })

    // each step by the event that tells of it
    for (const step of ['psec:resolve', 'psec:open-socket', 'psec:propose', 'psec:agreed'] as const) {
      it(`at ${step}`, async () => {
        const endpoints = trackEndpoints()
        const scheme = new StubScheme('/stub')
        const bob = await createNode({ psec: { schemes: [scheme] } })
        const alice = await createNode({ listen: [], psec: { schemes: [scheme], endpoints } })
        const controller = new AbortController()

        await expect(transportDial(alice, multiaddr(`/dns4/localhost/udp/${localPort(bob)}`), {
          signal: controller.signal,
          onProgress: (evt) => { evt.type === step && controller.abort(reason) }
        })).to.eventually.be.rejectedWith(reason)
        await eventually(() => endpoints.openSockets() === 0)
      })
    }

    for (const step of ['psec:propose', 'psec:agreed', 'psec:secured'] as const) {
      it(`at ${step}, leaving nothing on either side`, async () => {
        const endpoints = trackEndpoints()
        const bob = await createNode()
        const alice = await createNode({ listen: [], psec: { endpoints } })
        const controller = new AbortController()

        await expect(transportDial(alice, anonymous(bob), {
          signal: controller.signal,
          onProgress: (evt) => { evt.type === step && controller.abort(reason) }
        })).to.eventually.be.rejectedWith(reason)
        await eventually(() => endpoints.openSockets() === 0 && bob.getConnections().length === 0)
        expect(alice.getConnections()).to.be.empty()

        expect((await transportDial(alice, anonymous(bob))).status).to.equal('open')
      })
    }

    for (const initiationPacket of [true, false]) {
      for (const [when, step, isLater] of [
        ['at psec:propose', 'psec:propose', false],
        ['at psec:agreed', 'psec:agreed', false],
        ['just after psec:agreed', 'psec:agreed', true],
        ['at psec:secured', 'psec:secured', false]
      ] as const) {
        it(`${when}, over and over, and each time the dial that follows at once gets through, ${initiationPacket ? 'with' : 'without'} initiation packet`, async () => {
          const bob = await createNode()
          const alice = await createNode({ psec: { initiationPacket } })

          // more often than a peer may propose afresh to somebody who still waits for it, if that can be told
          for (let i = 0; i < (endsAnytime ? 10 : 3); i++) {
            const controller = new AbortController()
            const abort = (): void => { controller.abort(reason) }
            const aborted = transportDial(alice, anonymous(bob), {
              signal: controller.signal,
              onProgress: (evt) => { evt.type === step && (isLater ? setImmediate(abort) : abort()) }
            })

            // it may be done a turn later
            await aborted.then(async connection => connection.close(), (err) => { expect(err).to.equal(reason) })
            const connection = await transportDial(alice, anonymous(bob))
            await connection.close()
          }
        })
      }
    }

    if (endsAnytime) {
      for (const step of ['psec:propose', 'psec:agreed'] as const) {
        it(`at ${step} is told to the remote at once, also over sockets that JavaScript carries`, async () => {
          const endpoints = new MemoryNetwork({ delay: 5 })
          const metrics = recordMetrics()
          const bob = await createNode({ metrics: metrics.metrics, psec: { endpoints } })
          const alice = await createNode({ psec: { endpoints } })
          const controller = new AbortController()

          await expect(transportDial(alice, anonymous(bob), {
            signal: controller.signal,
            onProgress: (evt) => { evt.type === step && queueMicrotask(() => { controller.abort(reason) }) }
          })).to.eventually.be.rejectedWith(reason)
          // long before the handshake times out
          await eventually(() => metrics.counters('libp2p_psec_negotiations_total').handshake_failed === 1, 2_000)
        })
      }
    }

    it('while libp2p upgrades the connection', async () => {
      const endpoints = trackEndpoints()
      const upgrading = Promise.withResolvers<void>()
      const gate = Promise.withResolvers<boolean>()
      const bob = await createNode()
      const alice = await createNode({
        listen: [],
        psec: { endpoints },
        connectionGater: {
          ...nodeDefaults.connectionGater,
          denyOutboundEncryptedConnection: async () => {
            upgrading.resolve()
            return gate.promise
          }
        }
      })
      const controller = new AbortController()
      const dial = transportDial(alice, bob.getMultiaddrs()[0], { signal: controller.signal })
      await upgrading.promise
      controller.abort(reason)

      await expect(dial).to.eventually.be.rejectedWith(reason)
      gate.resolve(false)
      await eventually(() => endpoints.openSockets() === 0 && bob.getConnections().length === 0)
      expect(alice.getConnections()).to.be.empty()
    })

    it('by stopping the transport', async () => {
      const endpoints = trackEndpoints()
      const alice = await createNode({ listen: [], psec: { endpoints } })
      let stopped: unknown
      const dial = transportDial(alice, multiaddr('/ip4/127.0.0.1/udp/9'), {
        onProgress: (evt) => {
          if (evt.type === 'psec:propose') {
            stopped = alice.stop()
          }
        }
      })

      await expect(dial).to.eventually.be.rejected().with.property('name', 'AbortError')
      await stopped
      expect(endpoints.openPorts()).to.equal(0)
    })
  })

  describe('listening', () => {
    it('expands the unspecified address', async () => {
      const alice = await createNode({ listen: ['/ip4/0.0.0.0/udp/0/psec'] })
      const addresses = alice.getMultiaddrs().map(String)

      expect(addresses.some(ma => ma.startsWith('/ip4/127.0.0.1/udp/'))).to.equal(true)
      expect(addresses.some(ma => ma.includes('0.0.0.0'))).to.equal(false)
    })

    it('on a taken port is an AddressInUseError', async () => {
      const alice = await createNode()
      const listener = getTransport(alice).createListener({ upgrader: getUpgrader(alice) })

      await expect(listener.listen(anonymous(alice))).to.eventually.be.rejected()
        .with.property('name', 'AddressInUseError')
      expect(listener.getAddrs()).to.be.empty()
    })

    it('on an address of another machine is an AddressUnavailableError', async () => {
      const alice = await createNode()
      const listener = getTransport(alice).createListener({ upgrader: getUpgrader(alice) })

      await expect(listener.listen(multiaddr('/ip4/192.0.2.1/udp/0'))).to.eventually.be.rejected()
        .with.property('name', 'AddressUnavailableError')
    })

    it('twice with one listener is refused', async () => {
      const alice = await createNode()
      const listener = getTransport(alice).createListener({ upgrader: getUpgrader(alice) })
      await listener.listen(multiaddr('/ip4/127.0.0.1/udp/0'))

      await expect(listener.listen(multiaddr('/ip4/127.0.0.1/udp/0'))).to.eventually.be.rejected()
        .with.property('name', 'AlreadyStartedError')
      await listener.close()
    })

    it('ends with the port free and the connections on it closed', async () => {
      const bob = await createNode({ listen: [] })
      const alice = await createNode()
      const listener = getTransport(bob).createListener({ upgrader: getUpgrader(bob) })
      await listener.listen(multiaddr('/ip4/127.0.0.1/udp/0'))
      const [address] = listener.getAddrs()
      const connection = await alice.dial(address)
      await eventually(() => bob.getConnections().length === 1)
      await listener.close()

      expect(listener.getAddrs()).to.be.empty()
      await eventually(() => connection.status === 'closed' && bob.getConnections().length === 0)

      const again = getTransport(bob).createListener({ upgrader: getUpgrader(bob) })
      await again.listen(address)
      await again.close()
    })

    it('goes on after the node was stopped and started again', async () => {
      const bob = await createNode()
      const alice = await createNode()
      await alice.dial(bob.getMultiaddrs())
      await bob.stop()
      await eventually(() => alice.getConnections().length === 0)
      await bob.start()

      expect((await alice.dial(bob.getMultiaddrs())).remotePeer.equals(bob.peerId)).to.equal(true)
      expect((await bob.dial(anonymous(alice), { force: true })).remotePeer.equals(alice.peerId)).to.equal(true)
    })

    it('turns the newest away when too many are on their way', async () => {
      const metrics = recordMetrics()
      const scheme = new StubScheme('/stub')
      const bob = await createNode({ metrics: metrics.metrics, psec: { schemes: [scheme], maxPendingInbound: 2, maxPendingPerPrefix: 2 } })
      const controller = new AbortController()
      const dials = []

      for (let i = 0; i < 4; i++) {
        const alice = await createNode({ listen: [], psec: { schemes: [scheme] } })
        dials.push(transportDial(alice, anonymous(bob), { signal: controller.signal }).catch((err) => err.name))
      }

      await eventually(() => scheme.responses.length === 2 && countEvents(metrics, 'turned_away') >= 2)
      controller.abort()

      expect(await Promise.all(dials)).to.deep.equal(new Array(4).fill('AbortError'))
      expect(scheme.responses).to.have.lengthOf(2)
    })
  })

  describe('streams', () => {
    it('that the remote opens before libp2p listens for them are not lost, however many', async () => {
      const upgrading = Promise.withResolvers<void>()
      const gate = Promise.withResolvers<boolean>()
      const bob = await createNode({
        connectionGater: {
          ...nodeDefaults.connectionGater,
          denyInboundUpgradedConnection: async () => {
            upgrading.resolve()
            return gate.promise
          }
        }
      })
      const alice = await createNode()
      await bob.handle(ECHO, async (stream) => { await stream.close() }, { maxInboundStreams: 100 })
      const connection = await alice.dial(bob.getMultiaddrs())
      await upgrading.promise
      const streams = Promise.all(Array.from({ length: 50 }, async () => connection.newStream(ECHO)))
      gate.resolve(false)

      expect(await streams).to.have.lengthOf(50)
    })

    it('survive a connection that is closed while they are opened', async () => {
      const bob = await createNode()
      const alice = await createNode()
      await handleEcho(bob)
      const connection = await alice.dial(bob.getMultiaddrs())
      const stream = connection.newStream(ECHO).catch((err) => err)
      await connection.close()
      await stream

      expect(connection.streams).to.be.empty()
    })
  })

  describe('metrics', () => {
    it('count what dials and listeners do', async () => {
      const server = recordMetrics()
      const client = recordMetrics()
      const bob = await createNode({ metrics: server.metrics })
      const alice = await createNode({ metrics: client.metrics, psec: { negotiationTimeout: 100 } })
      await alice.dial(bob.getMultiaddrs())
      await alice.dial(multiaddr('/ip4/127.0.0.1/udp/9')).catch(() => {})
      await eventually(() => bob.getConnections().length === 1)
      const address = `127.0.0.1:${localPort(bob)}`

      expect(client.counters('libp2p_psec_dialer_events_total')).to.deep.equal({ dial: 2, connect: 1, error: 1 })
      expect(client.counters('libp2p_psec_dialer_errors_total')).to.deep.equal({ NoAnswerError: 1 })
      expect(server.counters('libp2p_psec_listener_events_total')).to.deep.equal({ [`${address} connection`]: 1 })
      expect(server.calculated('libp2p_psec_inbound_connections_total')).to.deep.equal({ [address]: 1 })
      expect(server.counters('libp2p_psec_listener_status_info')).to.deep.equal({ [address]: 1 })
    })

    it('count the datagrams of strangers that the engine drops', async () => {
      const recorded = recordMetrics()
      const bob = await createNode({ metrics: recorded.metrics })
      const stranger = createSocket('udp4')

      try {
        for (let i = 0; i < 3; i++) {
          stranger.send(Uint8Array.of(200, i), Number(localPort(bob)), '127.0.0.1')
        }

        await eventually(() => (recorded.calculated('libp2p_psec_open_ports_counters') as any).strangers === 3)
      } finally {
        stranger.close()
      }
    })

    it('count nothing that SCTP was not given between honest nodes', async () => {
      const recorded = recordMetrics()
      const bob = await createNode({ metrics: recorded.metrics })
      const alice = await createNode()
      await handleEcho(bob)
      await expectEcho(await alice.dial(bob.getMultiaddrs()))

      expect(recorded.calculated('libp2p_psec_open_ports_counters')).to.include({ sctpOverflow: 0, sctpIgnored: 0 })
    })
  })

  it('is named, and knows its address code', async () => {
    const alice = await createNode()

    expect(getTransport(alice)[Symbol.toStringTag]).to.equal('libp2p-psec')
    expect(CODE_PSEC).to.equal(0x305053)
  })

  it('says nothing of connections that are not its own', () => {
    expect(negotiation({ timeline: { open: 0 } } as any)).to.equal(undefined)
  })
})
