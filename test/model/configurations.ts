/**
 * What is explored. Bounds are the smallest that reach every rule; `npm run model -- --more 1` adds to them.
 */
import { encodeFrame } from '../../src/wire/index.ts'
import { HIGH, LOW, NOTHING, OTHER } from './configuration.ts'
import { encodePacket } from './scheme.ts'
import type { Configuration, ConfigurationInit, Expected } from './configuration.ts'
import type { Budgets } from './explorer.ts'
import type { PeerInit } from './peer.ts'

export interface Group {
  title: string
  configurations: ConfigurationInit[]
}

interface Lists {
  name: string
  a: string[]
  b: string[]

  /** With A as the lower id, and with B */
  expected: [Expected, Expected]
}

const LISTS: Lists[] = [
  same('equal lists', ['/q', '/d'], ['/q', '/d'], ['/q', '/q'], '/q', '/q'),
  same('reversed lists', ['/q', '/d'], ['/d', '/q'], ['/q', '/d'], '/q', '/d'),
  same('lists that overlap', ['/q', '/d', '/e'], ['/x', '/e', '/d'], ['/d', '/e'], '/d', '/e'),
  same('a foreign scheme first', ['/x', '/q'], ['/q', '/d'], ['/q', '/q'], '/q', '/q'),
  same('lists by rank', ['/q', '/d', '/e'], ['/d', '/e', '/q'], ['/q', '/d'], '/d', '/d'),
  same('nothing in common', ['/q'], ['/x'], [undefined, undefined])
]

function same (name: string, a: string[], b: string[], standard: Expected['standard'], low?: string, high?: string): Lists {
  return {
    name,
    a,
    b,
    expected: [
      { standard, simultaneous: low == null ? undefined : { scheme: low, initiator: 0 } },
      { standard, simultaneous: high == null ? undefined : { scheme: high, initiator: 1 } }
    ]
  }
}

const EQUAL = LISTS[0].expected[0]
const NO_PACKET: Partial<PeerInit> = { packet: 'none' }

/** As the other peer: what may be proposed, accepted, rejected, and what looks like a scheme's packet */
const FORGED: Configuration['injections'] = ([[0, HIGH, LOW], [1, LOW, HIGH]] as const).flatMap(([to, peerId, own]) => [
  encodeFrame({ type: 'reject' }),
  encodeFrame({ type: 'accept', scheme: '/q' }),
  encodeFrame({ type: 'accept', scheme: '/d' }),
  encodeFrame({ type: 'accept', scheme: '/x' }),
  encodeFrame({ type: 'propose', peerId, schemes: ['/q', '/d'] }),
  encodeFrame({ type: 'propose', peerId, schemes: ['/d'] }),
  encodeFrame({ type: 'propose', peerId, schemes: ['/x'] }),
  encodeFrame({ type: 'propose', peerId: own, schemes: ['/q'] }),
  encodePacket({ flight: 'rest', scheme: '/z', initiation: 'X', responder: '' })
].map(datagram => ({ to, datagram })))

const FORGED_BAD_NEWS: Configuration['injections'] = ([[0, HIGH, LOW], [1, LOW, HIGH]] as const).flatMap(([to, peerId, own]) => [
  encodeFrame({ type: 'reject' }),
  encodeFrame({ type: 'propose', peerId, schemes: ['/x'] }),
  encodeFrame({ type: 'propose', peerId: own, schemes: ['/q'] })
].map(datagram => ({ to, datagram })))

/** A claim that the session can't prove, so that whoever believed it refuses the session */
const FORGED_CLAIMS: Configuration['injections'] = ([0, 1] as const).map(to => {
  return { to, datagram: encodeFrame({ type: 'propose', peerId: OTHER, schemes: ['/q'] }) }
})

/**
 * All groups; every bound that is not 0 is raised by `more`
 */
export function groups (more = 0): Group[] {
  const raised = (bound: any): number => bound > 0 ? Number(bound) + more : 0
  const raise = <T extends Partial<Budgets>>(budgets: T): T => Object.fromEntries(Object.entries(budgets).map(([name, value]) => {
    const more = Array.isArray(value) ? value.map(raised) : raised(value)

    return [name, name === 'dials' ? value : more]
  })) as T

  const oneDials = raise({ dials: [1, 0], lose: 2, duplicate: 1, retransmit: [2, 0], repeat: [1, 1] } satisfies Partial<Budgets>)
  const bothDial = raise({ dials: [1, 1], lose: 1, duplicate: 1, retransmit: [1, 1], repeat: [0, 0] } satisfies Partial<Budgets>)

  return [
    {
      title: 'one dials',
      configurations: [
        ...LISTS.map(({ name, a, b, expected }) => ({ name, a: { schemes: a }, b: { schemes: b }, expected: expected[0], budgets: oneDials })),
        { name: 'with the higher id', a: { id: HIGH }, b: { id: LOW }, expected: LISTS[0].expected[1], budgets: oneDials },
        { name: 'without an initiation packet', a: NO_PACKET, expected: EQUAL, budgets: oneDials },
        { name: 'with a first flight of two datagrams', a: { packet: 'flight' }, expected: EQUAL, budgets: { ...oneDials, repeat: [0, 0] } },
        { name: 'the other comes later', expected: EQUAL, budgets: { ...oneDials, late: [false, true] } }
      ]
    },
    {
      title: 'both dial',
      configurations: [
        ...LISTS.map(({ name, a, b, expected }) => ({ name, a: { schemes: a }, b: { schemes: b }, expected: expected[0], budgets: bothDial })),
        ...LISTS.slice(1, 3).map(({ name, a, b, expected }) => ({ name: `${name}, the ids the other way round`, a: { schemes: a, id: HIGH }, b: { schemes: b, id: LOW }, expected: expected[1], budgets: bothDial })),
        { name: 'neither listens', a: { listens: false }, b: { listens: false }, expected: EQUAL, budgets: bothDial },
        { name: 'neither listens, nothing in common', a: { listens: false, schemes: ['/q'] }, b: { listens: false, schemes: ['/x'] }, expected: LISTS[5].expected[0], budgets: { ...bothDial, lose: 0 } },
        { name: 'without initiation packets', a: NO_PACKET, b: NO_PACKET, expected: EQUAL, budgets: { ...bothDial, lose: bothDial.lose + 1, repeat: [1, 1] } },
        { name: 'only the lower id has an initiation packet', b: NO_PACKET, expected: EQUAL, budgets: { ...bothDial, lose: bothDial.lose + 1 } },
        { name: 'with first flights of two datagrams', a: { packet: 'flight' }, b: { packet: 'flight' }, expected: EQUAL, budgets: { ...bothDial, duplicate: 0, retransmit: [1 + more, 0] } },
        { name: 'two losses, two repetitions', expected: EQUAL, budgets: { ...bothDial, lose: bothDial.lose + 1, duplicate: 0, retransmit: [2 + more, 1 + more] } },
        { name: 'the other comes later', a: { id: HIGH }, b: { id: LOW }, expected: LISTS[0].expected[1], budgets: { ...bothDial, late: [false, true] } }
      ]
    },
    {
      title: 'somebody runs out of time, or gives up',
      configurations: [
        { name: 'timeouts, one dials', expected: EQUAL, budgets: { ...oneDials, timeouts: [1, 1] } },
        { name: 'timeouts, both dial', expected: EQUAL, budgets: { ...bothDial, duplicate: 0, timeouts: [1, 1] } },
        { name: 'timeouts, with nothing in common', a: { schemes: ['/q'] }, b: { schemes: ['/x'] }, expected: LISTS[5].expected[0], budgets: { ...bothDial, timeouts: [1, 1] } },
        { name: 'a dial is given up and begun again', expected: EQUAL, budgets: { ...oneDials, dials: [2, 0], repeat: [0, 0], aborts: [1, 0] } },
        { name: 'a dial that crosses is given up', expected: EQUAL, budgets: { ...bothDial, aborts: [1, 1] } },
        { name: 'a dial that crosses is given up, with reversed lists', a: { schemes: ['/q', '/d'] }, b: { schemes: ['/d', '/q'] }, expected: LISTS[1].expected[0], budgets: { ...bothDial, duplicate: 0, aborts: [1, 1] } }
      ]
    },
    {
      title: 'somebody crashes and comes back',
      configurations: [
        { name: 'at any moment', expected: EQUAL, budgets: { ...oneDials, dials: [2, 0], repeat: [0, 0], restarts: [1, 0] } },
        { name: 'at any moment, the other', expected: EQUAL, budgets: { ...bothDial, duplicate: 0, restarts: [0, 1] } },
        { name: 'to a young session, and its packet arrives', expected: EQUAL, restarts: 'settled', budgets: { ...oneDials, dials: [3, 0], lose: 0, retransmit: [0, 0], restarts: [2, 0] } },
        { name: 'to an old session', expected: EQUAL, restarts: 'old', budgets: { ...oneDials, dials: [2, 0], restarts: [1, 0] } },
        { name: 'to an old session, without an initiation packet', a: NO_PACKET, expected: EQUAL, restarts: 'old', budgets: { ...oneDials, dials: [2, 0], restarts: [1, 0] } },
        { name: 'to an old session of dials that crossed, with packets', expected: EQUAL, restarts: 'old', budgets: { ...bothDial, dials: [2, 2], duplicate: 0, restarts: [1, 1] } },
        { name: 'to an old session of dials that crossed', a: NO_PACKET, b: NO_PACKET, expected: EQUAL, restarts: 'old', budgets: { ...bothDial, dials: [2, 2], restarts: [1, 1] } }
      ]
    },
    {
      title: 'somebody forges datagrams of the other',
      configurations: [
        { name: 'one dials', injections: FORGED, expected: EQUAL, budgets: raise({ dials: [1, 0], lose: 1, retransmit: [1, 0], inject: 2 } satisfies Partial<Budgets>) },
        { name: 'both dial', injections: FORGED, expected: EQUAL, budgets: { ...NOTHING, dials: [1, 1], retransmit: [1 + more, 0], inject: 1 + more } },
        { name: 'both dial, without initiation packets', a: NO_PACKET, b: NO_PACKET, injections: FORGED, expected: EQUAL, budgets: { ...NOTHING, dials: [1, 1], retransmit: [1 + more, 1 + more], inject: 1 + more } },
        { name: 'one dials, and the other is said to be somebody else', injections: FORGED_CLAIMS, refuses: true, expected: EQUAL, budgets: raise({ dials: [1, 0], lose: 1, duplicate: 1, retransmit: [1, 0], inject: 1 } satisfies Partial<Budgets>) },
        { name: 'both dial, and are said to be somebody else', injections: FORGED_CLAIMS, refuses: true, expected: EQUAL, budgets: { ...NOTHING, dials: [1, 1], lose: 1, retransmit: [1 + more, 1 + more], inject: 1 + more } },
        { name: 'one dials; only bad news, to who dials', injections: FORGED_BAD_NEWS?.filter(({ to }) => to === 0), graceLasts: true, expected: EQUAL, budgets: { ...raise({ dials: [1, 0], lose: 1, retransmit: [1, 0], inject: 2 } satisfies Partial<Budgets>) } },
        { name: 'one dials; only after both have agreed', injections: FORGED, injectsLate: true, expected: EQUAL, budgets: { ...raise({ dials: [1, 0], lose: 1, duplicate: 1, retransmit: [1, 0] } satisfies Partial<Budgets>), inject: 1 } },
        { name: 'both dial; only after both have agreed', injections: FORGED, injectsLate: true, expected: EQUAL, budgets: { ...NOTHING, dials: [1, 1], lose: 1, retransmit: [1 + more, 1 + more], inject: 1 } }
      ]
    }
  ]
}
