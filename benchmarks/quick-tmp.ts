import { withPairs } from './worker-process.ts'
const what = process.argv[2] ?? 'stream'
await withPairs((process.argv[3]?.split('|') ?? ['psec', 'psec, DTLS']) as any, async (pairs) => {
  for (const { dialler, address } of pairs) await dialler.call('dial', { address })
  for (let i = 0; i < 4; i++) for (const { contender, dialler, listener } of pairs as any) {
    if (what === 'stream') console.log(contender, ((await dialler.call('stream', { seconds: 1.5 })) / 1e6).toFixed(1))
    else { await listener.call('takeReceived', {}); const r = await dialler.call('datagrams', { seconds: 1.5, size: Number(process.argv[4] ?? 1100), backpressure: true }); await new Promise(r => setTimeout(r, 300)); const got = await listener.call('takeReceived', {}); console.log(contender, (r.sent / r.ms * 1000).toFixed(0), 'sent/s', (got / r.ms * 1000).toFixed(0), 'received/s', r.size) }
  }
})
