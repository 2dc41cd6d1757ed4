/* eslint-disable no-console */

/**
 * The scheme `/dtls/1.0.0` as ours speaks it, with wolfSSL, pion and OpenSSL: `npm run interop`, or some of it,
 * `npm run interop -- wolfssl refused`. See README.md.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { build } from './build.ts'
import { meet } from './meeting.ts'
import { MAX_ANSWER, SCENARIOS } from './scenarios.ts'
import { Tally } from './tally.ts'
import type { Meeting, MeetingInit } from './meeting.ts'
import type { Library } from './peer.ts'

const LIBRARIES: Array<{ library: Library, protocol: string, title: string }> = [
  { library: 'wolfssl', protocol: 'DTLSv1.3', title: 'wolfSSL, DTLS 1.3' },
  { library: 'pion', protocol: 'DTLSv1.2', title: 'pion, DTLS 1.2' },
  { library: 'openssl', protocol: 'DTLSv1.2', title: 'OpenSSL, DTLS 1.2' }
]
const ROLES = ['client', 'server'] as const
const HOSTS = ['127.0.0.1', '::1'] as const

const wanted = process.argv.slice(2)
const tally = new Tally(wanted)

async function sessions (): Promise<void> {
  const table = tally.table('Sessions: what each side opens, the other serves', ['handshake', ...Object.keys(SCENARIOS), 'clean'])

  for (const { library, protocol, title } of LIBRARIES) {
    for (const role of ROLES) {
      for (const host of HOSTS) {
        const row = table.row(`${title}, we are the ${role}, ${host === '::1' ? 'IPv6' : 'IPv4'}`)

        await row.fill('handshake', async done => meet({ library, role, host }, async meeting => {
          expect(meeting.secured.protocol, protocol, 'the protocol')
          done()

          for (const [name, scenario] of Object.entries(SCENARIOS)) {
            await row.check(name, async () => {
              await scenario(meeting.session)
              await meeting.peer.run(name)
            })
          }

          await row.check('clean', async () => { await expectClean(meeting) })
        }))
      }
    }
  }
}

async function handshakes (): Promise<void> {
  const table = tally.table('Handshakes', ['client', 'server'])
  const variants: Array<{ title: string, init: Omit<MeetingInit, 'role'>, roles?: Array<'client' | 'server'>, group?: string }> = [
    { title: 'wolfSSL has X25519 only', init: { library: 'wolfssl', theirs: { more: ['--groups', 'X25519'] } }, group: 'X25519' },
    { title: 'wolfSSL has P-256 only', init: { library: 'wolfssl', theirs: { more: ['--groups', 'P-256'] } }, group: 'SECP256R1' },
    // Such a key share fits no datagram: its ClientHello comes without any, and is asked for one of the other group.
    { title: 'wolfSSL prefers X25519MLKEM768', init: { library: 'wolfssl', theirs: { more: ['--groups', 'X25519MLKEM768,X25519'] } }, group: 'X25519' },
    { title: 'wolfSSL asks for no cookie', init: { library: 'wolfssl', theirs: { more: ['--no-cookie'] } }, roles: ['client'] },
    { title: 'pion cuts its messages at 300 bytes', init: { library: 'pion', theirs: { mtu: '300' } } },
    { title: 'wolfSSL, 1.2 is allowed', init: { library: 'wolfssl', ours: { allowDtls12: true } } },
    { title: 'our packets have 600 bytes at most', init: { library: 'wolfssl', ours: { maxPacketSize: 600 } } }
  ]

  for (const { title, init, roles = ROLES, group } of variants) {
    const row = table.row(title)

    for (const role of roles) {
      await row.check(role, async () => meet({ ...init, role }, async meeting => {
        expect(meeting.secured.protocol, init.library === 'wolfssl' ? 'DTLSv1.3' : 'DTLSv1.2', 'the protocol')

        if (group != null) {
          expect(meeting.secured.group, group, 'the group')
        }

        await exercise(meeting)
      }))
    }
  }

  for (const { library, title } of LIBRARIES) {
    for (const [key, type] of [['rsa', 'RSA'], ['secp256k1', 'secp256k1'], ['ecdsa', undefined]] as const) {
      const row = table.row(`${title}, ${type == null ? 'their key is' : 'the keys are'} ${key}`)

      for (const role of ROLES) {
        await row.check(role, async () => meet({ library, role, ours: { key: type }, theirs: { key } }, exercise))
      }
    }
  }
}

async function lossy (): Promise<void> {
  const table = tally.table('Over a network that loses, doubles and overtakes', ['client', 'server'])

  await together(LIBRARIES.flatMap(library => [1, 2].map(seed => ({ ...library, seed }))), async ({ library, title, seed }) => {
    const row = table.row(`${title}, seed ${seed}`)

    for (const role of ROLES) {
      await row.check(role, async () => meet({ library, role, lossy: seed, ours: { patience: 20_000, maxPacketSize: 1232 } }, async ({ session, peer, relay }) => {
        for (const [name, size] of [['echo'], ['upload', 300_000], ['download', 300_000], ['many', 20], ['datagrams']] as Array<[string, number?]>) {
          await SCENARIOS[name](session, size)
          await peer.run(name, size)
        }

        const largest = role === 'client' ? relay?.largest.fromClient : relay?.largest.fromServer
        expect((largest ?? 0) <= 1232, true, `no packet of ours above 1232 bytes, the largest has ${largest}`)
      }))
    }
  })
}

async function ends (): Promise<void> {
  const table = tally.table('Ends', ['we close', 'they close', 'we abort', 'they abort', 'they vanish', 'idle, and alive'])

  await together(LIBRARIES.flatMap(library => ROLES.map(role => ({ ...library, role }))), async ({ library, title, role }) => {
    const row = table.row(`${title}, we are the ${role}`)
    const check = async (name: string, then: (meeting: Meeting) => Promise<void>, ours?: MeetingInit['ours']): Promise<void> => {
      await row.check(name, async () => meet({ library, role, ours }, then))
    }

    await check('we close', async ({ session, peer }) => {
      await SCENARIOS.echo(session)
      await session.inner.close()
      expect((await peer.event('closed')).how, 'close_notify', 'what they see')
    })

    // s_server closes its port before it could say so.
    if (library !== 'openssl' || role !== 'client') {
      await check('they close', async ({ session, peer }) => {
        await peer.run('echo')
        peer.close()
        expect(await session.ended, undefined, 'our error')
      })
    }

    await check('we abort', async ({ session, peer }) => {
      session.inner.abort(new Error('interop'), 7)
      const closed = await peer.event('closed')

      // pion's Read may tell of close_notify before it gives out the record that came just before.
      if (library !== 'pion' || closed.how !== 'close_notify') {
        expect(closed.how, 'abort', 'what they see')
        // RFC 9260, section 3.3.10.12
        expect(closed.cause, 12, 'the cause')
      }
    })
    await check('they abort', async ({ session, peer }) => {
      peer.abort()
      expect((await session.ended)?.name, 'SessionFailedError', 'our error')
    })
    await check('they vanish', async ({ session, peer }) => {
      await peer.kill()
      expect((await session.ended)?.name, 'SessionFailedError', 'our error')
    }, { idleTimeout: 1_500, keepAliveInterval: 300 })
    await check('idle, and alive', async meeting => {
      await sleep(4_000)
      await exercise(meeting)
    }, { idleTimeout: 1_500, keepAliveInterval: 300 })
  })
}

async function refused (): Promise<void> {
  const table = tally.table('Refused', ['client', 'server'])
  const faults = [
    { title: 'shows no certificate', fault: 'none', libraries: ['pion', 'openssl'], roles: ['server'] },
    { title: 'has no libp2p extension', fault: 'no-extension', libraries: ['wolfssl', 'pion', 'openssl'], roles: ROLES },
    { title: 'shows an extension for another key', fault: 'foreign-signature', libraries: ['wolfssl', 'pion', 'openssl'], roles: ROLES },
    { title: 'shows an expired certificate', fault: 'expired', libraries: ['wolfssl', 'pion', 'openssl'], roles: ROLES }
  ] as const

  for (const { title, fault, libraries, roles } of faults) {
    for (const library of libraries) {
      const row = table.row(`${library} ${title}`)

      for (const role of roles) {
        await row.check(role, async () => expectRefused({ library, role, theirs: { fault } }, ['HandshakeFailedError']))
      }
    }
  }

  for (const library of ['pion', 'openssl'] as const) {
    const row = table.row(`${library} speaks DTLS 1.2, and we do not`)

    for (const role of ROLES) {
      await row.check(role, async () => expectRefused({ library, role, ours: { allowDtls12: false, patience: 3_000 } }))
    }
  }

  const row = table.row('wolfssl has P-384 only')

  for (const role of ROLES) {
    await row.check(role, async () => expectRefused({ library: 'wolfssl', role, ours: { patience: 3_000 }, theirs: { more: ['--groups', 'P-384'] } }))
  }
}

/**
 * All at once: they wait more than they work
 */
async function together<T> (all: T[], attempt: (one: T) => Promise<void>): Promise<void> {
  await Promise.all(all.map(attempt))
}

/**
 * Our side must refuse, and say so by one of these errors. A DTLS client gets no other answer than silence where somebody on the
 * path could have forged it.
 */
async function expectRefused (init: MeetingInit, names = ['HandshakeFailedError', 'TimeoutError']): Promise<void> {
  try {
    await meet(init, async () => {})
  } catch (err: any) {
    if (names.includes(err.name)) {
      return
    }

    throw err
  }

  throw new Error('It was let in')
}

/**
 * A little of everything
 */
async function exercise ({ session, peer }: Meeting): Promise<void> {
  await SCENARIOS.echo(session)
  await peer.run('echo')
  await SCENARIOS.datagrams(session)
  await peer.run('datagrams', Math.min(session.inner.maxDatagramSize, MAX_ANSWER) - 3)
}

/**
 * Nothing that the scheme does not allow has been seen, and no stream is left
 */
async function expectClean ({ session, peer }: Meeting): Promise<void> {
  for (let attempt = 0; attempt < 20 && await peer.openStreams() > 0; attempt++) {
    await sleep(100)
  }

  const open = await peer.openStreams()
  expect(open, 0, 'streams that are still open on their side')
  expect(peer.violations, [], 'violations')
  expect(session.failures.map(({ message }) => message), [], 'failures on our side')
}

function expect (actual: unknown, expected: unknown, what: string): void {
  if (!isDeepStrictEqual(actual, expected)) {
    throw new Error(`${what}: ${JSON.stringify(actual)}, not ${JSON.stringify(expected)}`)
  }
}

try {
  const { go, openssl } = build()
  console.info(`Node.js ${process.version}, ${go}, ${openssl}`)

  for (const part of [sessions, handshakes, lossy, ends, refused]) {
    await part()
  }

  tally.print()
  process.exitCode = tally.failures > 0 ? 1 : 0
} catch (err: any) {
  console.error(err.message)
  process.exitCode = 1
}
