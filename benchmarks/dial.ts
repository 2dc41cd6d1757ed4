/**
 * How long a dial takes: from `node.dial()` to the libp2p connection, over loopback. Median of many, one contender
 * after the other in each round, in another order each time: what one leaves to be done should not always fall on the same.
 */
import { median, shuffled } from './statistics.ts'
import { printTable } from './table.ts'
import { withPairs } from './worker-process.ts'
import type { Contender } from './contenders.ts'

const CONTENDERS: Contender[] = [
  'psec, QUIC',
  'psec, QUIC, classical key exchange',
  'psec, QUIC, no initiation packet',
  '@chainsafe/libp2p-quic',
  'psec, DTLS',
  'psec, DTLS, no initiation packet',
  'DTLS alone',
  '@libp2p/webrtc (direct)',
  'TCP + Noise + Yamux'
]

/**
 * How often all processes are begun anew: one may be faster than another for as long as it lives, for nobody's merit
 */
const SETS = 5
const WARM_UP = 30
const ROUNDS = 100

const times = new Map<Contender, number[]>(CONTENDERS.map(contender => [contender, []]))

for (let set = 0; set < SETS; set++) {
  await withPairs(CONTENDERS, async (pairs) => {
    for (let round = -WARM_UP; round < ROUNDS; round++) {
      for (const { contender, dialler, address } of shuffled(pairs)) {
        const ms = await dialler.call('dial', { address })
        await dialler.call('hangUp')

        if (round >= 0) {
          times.get(contender)?.push(ms)
        }
      }
    }
  })
}

const references = ['psec, QUIC', 'psec, DTLS'].map(contender => median(times.get(contender as Contender) ?? []))

printTable(`Dial, over loopback, ${SETS} × ${ROUNDS} of each`, ['', 'median', 'fastest', 'slowest', 'psec, QUIC takes', 'psec, DTLS takes'], [...times].map(([contender, ms]) => [
  contender,
  `${median(ms).toFixed(2)} ms`,
  `${Math.min(...ms).toFixed(2)} ms`,
  `${Math.max(...ms).toFixed(2)} ms`,
  ...references.map(reference => `${(reference / median(ms)).toFixed(2)} ×`)
]))
