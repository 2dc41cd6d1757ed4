import { multiaddr, registry } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { CODE_PSEC, PSEC } from '../src/index.ts'
import { dialFilter, listenFilter } from '../src/transport/filters.ts'
import { packetAddressToMultiaddr, toBareMultiaddr, toDialTarget } from '../src/transport/multiaddr.ts'
import { resolveTarget } from '../src/transport/resolve.ts'

const PEER = '12D3KooWSQRLXPJARhj7EDZrmE2ko2Nea4K4JVFdDZADk9DkerbN'

describe('/psec multiaddrs', () => {
  it('survive the round trip through bytes', () => {
    const ma = multiaddr(`/ip4/192.0.2.1/udp/4001/psec/p2p/${PEER}`)

    expect(multiaddr(ma.bytes).toString()).to.equal(`/ip4/192.0.2.1/udp/4001/psec/p2p/${PEER}`)
    expect(ma.getComponents()[2]).to.deep.include({ name: 'psec', code: 0x305053 })
  })

  it('have the same code when the package is loaded twice', async () => {
    const again = new URL('../src/transport/multiaddr.ts?again', import.meta.url)
    await import(again.href)

    expect(registry.getProtocol('psec')).to.have.property('code', CODE_PSEC)
    expect(multiaddr('/ip4/192.0.2.1/udp/1/psec').bytes.byteLength).to.be.greaterThan(0)
  })

  for (const host of ['/ip4/192.0.2.1', '/ip6/2001:db8::1']) {
    for (const suffix of ['', '/psec', `/p2p/${PEER}`, `/psec/p2p/${PEER}`]) {
      it(`can be dialled and listened on as ${host}/udp/4001${suffix}`, () => {
        const ma = multiaddr(`${host}/udp/4001${suffix}`)

        expect(PSEC.exactMatch(ma)).to.equal(true)
        expect(dialFilter([ma])).to.deep.equal([ma])
        expect(listenFilter([ma])).to.deep.equal([ma])
      })
    }
  }

  for (const host of ['/dns/example.org', '/dns4/example.org', '/dns6/example.org']) {
    it(`can be dialled, but not listened on, as ${host}/udp/4001/psec`, () => {
      const ma = multiaddr(`${host}/udp/4001/psec`)

      expect(dialFilter([ma])).to.deep.equal([ma])
      expect(listenFilter([ma])).to.be.empty()
    })
  }

  for (const address of [
    '/ip4/192.0.2.1',
    '/ip4/192.0.2.1/tcp/4001',
    '/ip4/192.0.2.1/tcp/4001/psec',
    '/ip4/192.0.2.1/udp/4001/quic-v1',
    '/ip4/192.0.2.1/udp/4001/quic-v1/webtransport',
    '/ip4/192.0.2.1/udp/4001/webrtc-direct',
    '/ip4/192.0.2.1/udp/4001/psec/quic-v1',
    '/ip4/192.0.2.1/udp/4001/psec/psec',
    `/ip4/192.0.2.1/udp/4001/p2p/${PEER}/p2p-circuit`,
    `/ip4/192.0.2.1/udp/4001/psec/p2p/${PEER}/p2p-circuit/p2p/${PEER}`,
    '/dnsaddr/example.org/udp/4001/psec',
    `/p2p/${PEER}`
  ]) {
    it(`are not ${address}`, () => {
      expect(dialFilter([multiaddr(address)])).to.be.empty()
      expect(listenFilter([multiaddr(address)])).to.be.empty()
    })
  }

  it('tell what to dial', () => {
    const target = toDialTarget(multiaddr(`/dns6/example.org/udp/4001/psec/p2p/${PEER}`))

    expect(target).to.include({ host: 'example.org', port: 4001, resolve: 'ip6' })
    expect(target.remotePeer?.toString()).to.equal(PEER)
    expect(toDialTarget(multiaddr('/ip6/::1/udp/1'))).to.deep.equal({ host: '::1', port: 1, resolve: undefined, remotePeer: undefined })
  })

  it('refuse to tell what to dial of an address without a UDP port', () => {
    expect(() => toDialTarget(multiaddr('/ip4/192.0.2.1/tcp/1'))).to.throw()
      .with.property('name', 'InvalidMultiaddrError')
  })

  it('have a bare form', () => {
    expect(toBareMultiaddr(multiaddr(`/ip4/192.0.2.1/udp/1/psec/p2p/${PEER}`)).toString()).to.equal(`/ip4/192.0.2.1/udp/1/p2p/${PEER}`)
    expect(packetAddressToMultiaddr({ host: '192.0.2.1', port: 1 }).toString()).to.equal('/ip4/192.0.2.1/udp/1')
    expect(packetAddressToMultiaddr({ host: '2001:db8::1', port: 1 }).toString()).to.equal('/ip6/2001:db8::1/udp/1')
  })
})

describe('host names', () => {
  it('resolve to an address of the family that the multiaddr asks for', async () => {
    const target = { host: 'localhost', port: 4001 }

    await expect(resolveTarget({ ...target, resolve: 'ip4' })).to.eventually.deep.equal({ host: '127.0.0.1', port: 4001 })
    await expect(resolveTarget({ ...target, resolve: 'any' })).to.eventually.have.property('port', 4001)
  })

  it('that do not resolve are an AddressNotResolvedError which names them', async () => {
    await expect(resolveTarget({ host: 'nobody.invalid', port: 1, resolve: 'any' })).to.eventually.be.rejected()
      .with.property('name', 'AddressNotResolvedError')
    await expect(resolveTarget({ host: 'nobody.invalid', port: 1, resolve: 'any' })).to.eventually.be.rejectedWith(/nobody\.invalid/)
  })

  it('are not waited for when the signal aborts', async () => {
    const reason = new Error('Changed my mind')

    await expect(resolveTarget({ host: 'localhost', port: 1, resolve: 'any' }, { signal: AbortSignal.abort(reason) }))
      .to.eventually.be.rejectedWith(reason)
  })
})
