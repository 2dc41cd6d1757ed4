import { expect } from 'aegir/chai'
import { dtls } from '../src/index.ts'
import { dtlsIdentity } from '../src/schemes/dtls/identity.ts'
import type { DtlsInit } from '../src/index.ts'

describe('the settings of DTLS', () => {
  const wrong: Array<[why: string, init: DtlsInit]> = [
    ['a timeout that is no number', { idleTimeout: '30' as any }],
    ['part of a millisecond', { keepAliveInterval: 0.5 }],
    ['no streams at all', { maxInboundStreams: 0 }],
    ['more streams than there are ids', { maxInboundStreams: 32_768 }],
    ['a window that no message fits', { receiveWindow: 65_535 }],
    ['a send window that no message fits', { sendWindow: 0 }],
    ['less than nothing for datagrams', { datagramReceiveBuffer: -1 }],
    ['packets too small for a handshake', { maxPacketSize: 575 }],
    ['sessions that are over at once', { idleTimeout: 0 }],
    ['packets larger than a record and what is around it', { maxPacketSize: 16_001 }],
    ['something other than yes or no to DTLS 1.2', { allowDtls12: 'no' as any }]
  ]

  for (const [why, init] of wrong) {
    it(`are refused with ${why}`, () => {
      expect(() => dtls(init)).to.throw(`dtls: ${Object.keys(init)[0]} has to be`).with.property('name', 'InvalidParametersError')
    })
  }

  it('may be at their bounds, or left to their defaults', () => {
    dtls({ maxInboundStreams: 1, receiveWindow: 65_536, sendWindow: 65_536, datagramReceiveBuffer: 0, maxPacketSize: 576 })
    dtls({ maxInboundStreams: 32_767, maxPacketSize: 16_000, allowDtls12: true })
    dtls({ idleTimeout: undefined, allowDtls12: undefined })

    expect(dtls()).to.have.property('protocol', '/dtls/1.0.0')
  })
})

describe('an engine that was built without DTLS', () => {
  it('says so, and how to get one with it', () => {
    const engine = { NativeIdentity: { quic: () => ({}) } }

    expect(() => dtlsIdentity(engine, new Uint8Array(), {} as any)).to.throw(/built without DTLS.*npm rebuild libp2p-psec/)
      .with.property('name', 'EngineUnavailableError')
  })
})
