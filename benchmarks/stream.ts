/**
 * What one stream delivers: 64 KiB writes, backpressure honoured, from the first write to the receiver's word that it
 * has everything, over loopback. Median of several, one contender after the other in each round.
 */
import { median } from './statistics.ts'
import { printTable } from './table.ts'
import { withPairs } from './worker-process.ts'
import type { Contender } from './contenders.ts'

const CONTENDERS: Contender[] = ['psec, QUIC', 'psec, DTLS', 'psec, DTLS, packets as on Ethernet', '@libp2p/webrtc (direct)', '@chainsafe/libp2p-quic', 'TCP + Noise + Yamux']
const WARM_UP = 1
const ROUNDS = 5
const SECONDS = 2

await withPairs(CONTENDERS, async (pairs) => {
  const rates = new Map<Contender, number[]>(CONTENDERS.map(contender => [contender, []]))

  for (const { dialler, address } of pairs) {
    await dialler.call('dial', { address })
  }

  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (const { contender, dialler } of pairs) {
      const bytesPerSecond = await dialler.call('stream', { seconds: SECONDS })

      if (round >= 0) {
        rates.get(contender)?.push(bytesPerSecond)
      }
    }
  }

  const references = ['psec, QUIC', 'psec, DTLS'].map(contender => median(rates.get(contender as Contender) ?? []))

  printTable(`One stream, over loopback, ${ROUNDS} × ${SECONDS} s of each`, ['', 'median', 'slowest', 'fastest', 'psec, QUIC delivers', 'psec, DTLS delivers'], [...rates].map(([contender, values]) => [
    contender,
    ...[median(values), Math.min(...values), Math.max(...values)].map(rate => `${(rate / 1e6).toFixed(1)} MB/s`),
    ...references.map(reference => `${(reference / median(values)).toFixed(2)} ×`)
  ]))
})
