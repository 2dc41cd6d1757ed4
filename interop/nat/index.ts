/* eslint-disable no-console */

/**
 * js-libp2p's hole punching (DCUtR) over PSEC, through NATs of the kernel's: `npm run hole-punching`. See `docs/nat.md`.
 */
import { ChildCalls } from '../../benchmarks/child-calls.ts'
import { printTable } from '../../benchmarks/table.ts'
import { Network } from './network.ts'
import type { Access, Machine } from './network.ts'
import type { Direct, PeerCalls, RelayCalls, SchemeName } from './node.ts'

/** How a dial's two ends are connected, and whether they get through to each other */
const CASES: Array<[dialler: Access, dialled: Access, getThrough: boolean]> = [
  ['dropping', 'dropping', true],
  ['rejecting', 'rejecting', true],
  ['rejecting', 'dropping', true],
  ['public', 'dropping', true],
  ['dropping', 'public', true],
  ['symmetric', 'public', true],
  ['dropping', 'symmetric', false],
  ['symmetric', 'symmetric', false]
]
const SCHEMES: SchemeName[] = ['QUIC DATAGRAM', 'DTLS']

/** DCUtR dials alone for 5 s at first, and then three times together */
const PATIENCE = 12_000

interface Outcome {
  direct?: Direct
  connections: number
}

async function punch (scheme: SchemeName, accesses: [Access, Access]): Promise<Outcome> {
  const network = new Network()
  const processes: Array<ChildCalls<any>> = []
  const start = <C>({ namespace }: Machine): ChildCalls<C> => {
    const child = new ChildCalls<C>(new URL('node.ts', import.meta.url), [], {
      execPath: 'ip',
      execArgv: ['netns', 'exec', namespace, process.execPath]
    })
    processes.push(child)

    return child
  }

  try {
    const relay = await start<RelayCalls>(network.relay).call('startRelay', { host: network.relay.publicAddress })
    const [dialler, dialled] = await Promise.all(accesses.map(async access => {
      const machine = network.addPeer(access)
      const peer = start<PeerCalls>(machine)

      return { peer, peerId: await peer.call('startPeer', { scheme, relay, publicAddress: machine.publicAddress }) }
    }))

    await dialler.peer.call('dialByRelay', { relay, peerId: dialled.peerId })
    const direct = await dialler.peer.call('direct', { peerId: dialled.peerId, patience: PATIENCE })

    return { direct, connections: await dialler.peer.call('connections', { peerId: dialled.peerId }) }
  } finally {
    await Promise.all(processes.map(async child => { await child.end() }))
    network.remove()
  }
}

async function run (): Promise<void> {
  const rows: string[][] = []
  let failures = 0

  for (const scheme of SCHEMES) {
    for (const [dialler, dialled, getThrough] of CASES) {
      const { direct, connections } = await punch(scheme, [dialler, dialled])
      const asExpected = (direct != null) === getThrough && connections === 1 && (direct == null || direct.echoed > 0)
      failures += asExpected ? 0 : 1
      rows.push([
        `${scheme}: ${dialler} to ${dialled}`,
        direct == null ? 'none' : `${direct.ms.toFixed(0)} ms`,
        direct == null ? '' : direct.simultaneous ? 'yes' : 'no',
        direct == null ? '' : `${direct.echoed} of 100`,
        asExpected ? '✓' : '✗'
      ])
    }
  }

  printTable('Direct connections of peers that met by a relay', ['how the dialler is connected, and whom it dials', 'after', 'both proposed', 'datagrams back', ''], rows)
  process.exitCode = failures > 0 ? 1 : 0
}

try {
  await run()
} catch (err: any) {
  console.error(`${err.message}\nThis takes Linux, root, and the commands ip and nft (in Debian, the packages iproute2 and nftables)`)
  process.exitCode = 1
}
