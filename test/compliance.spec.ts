import muxerTests from '@libp2p/interface-compliance-tests/stream-muxer'
import transportTests from '@libp2p/interface-compliance-tests/transport'
import { PSEC, psec } from '../src/index.ts'
import { SessionRecord } from '../src/sessions.ts'
import { udpEndpoints } from '../src/sockets/udp.ts'
import { MUXER_PROTOCOL, PsecMuxerFactory } from '../src/transport/muxer.ts'
import { announceStreams } from './fixtures/announced-session.ts'
import { nodeDefaults } from './fixtures/nodes.ts'
import { plaintext } from './fixtures/plaintext-scheme.ts'
import { schemes } from './fixtures/schemes.ts'
import { createSessionPair } from './fixtures/session-pair.ts'
import type { SessionPair } from './fixtures/session-pair.ts'
import type { SecurityScheme } from '../src/index.ts'
import type { SecuredSocket } from '../src/upgrader/index.ts'

function transportCompliance (host: string, scheme: SecurityScheme): void {
  transportTests({
    async setup () {
      const config = {
        ...nodeDefaults,
        transports: [psec({ schemes: [scheme] })]
      }

      return {
        dialMultiaddrMatcher: PSEC,
        listenMultiaddrMatcher: PSEC,
        dialer: config,
        listener: {
          ...config,
          addresses: {
            listen: [`${host}/udp/0/psec`, `${host}/udp/0/psec`]
          }
        }
      }
    },
    async teardown () {}
  })
}

/**
 * The suite asks for two factories in turn, and gives their muxers connections that belong together. Ours have a
 * session each already: the two ends of one.
 */
function muxerCompliance (scheme: SecurityScheme): void {
  let pairs: SessionPair[] = []
  let second: SecuredSocket | undefined

  afterEach(async () => {
    await Promise.all(pairs.map(async pair => { await pair.close() }))
    pairs = []
    second = undefined
  })

  async function nextSide (): Promise<SecuredSocket> {
    if (second != null) {
      const side = second
      second = undefined

      return side
    }

    const pair = await createSessionPair(scheme, udpEndpoints)
    pairs.push(pair)
    second = pair.sides[1]

    return pair.sides[0]
  }

  muxerTests({
    async setup () {
      const { session, negotiation } = await nextSide()

      return {
        protocol: MUXER_PROTOCOL,
        createStreamMuxer: (maConn: any) => new PsecMuxerFactory({
          session: announceStreams(session, () => maConn.local.delay),
          record: new SessionRecord(session, { ...negotiation, confirmed: false, confirmation: Promise.resolve(false) }),
          onStart: () => {},
          onClose: () => {}
        }).createStreamMuxer(maConn)
      }
    },
    async teardown () {}
  })
}

describe('compliance over UDP', () => {
  for (const { name, create } of schemes) {
    describe(`${name}, IPv4`, () => {
      transportCompliance('/ip4/127.0.0.1', create())
    })

    describe(`${name}, IPv6`, () => {
      transportCompliance('/ip6/::1', create())
    })

    describe(`stream muxer on ${name}`, () => {
      muxerCompliance(create())
    })
  }

  describe('a scheme in TypeScript', () => {
    transportCompliance('/ip4/127.0.0.1', plaintext())
  })
})
