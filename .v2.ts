import { ChildCalls, WorkerProcess } from './benchmarks/worker-process.ts'
const target = new ChildCalls<any>('./flood-target.ts', []); const flooder = new ChildCalls<any>('./flood-worker.ts', [])
const d = new WorkerProcess('psec')
const address = await target.call('address'); const port = Number(/\/udp\/(\d+)/.exec(address)?.[1])
const dial = async () => { const t = performance.now(); await d.call('dial', { address, signalMs: 10000 }).then(async ms => { console.log('dial', ms.toFixed(1)); await d.call('hangUp'); console.log('hung up', (performance.now() - t).toFixed(1)) }, (err) => console.log(err.message)) }
await dial(); await dial()
console.log(await flooder.call('flood', { kind: 'proposals', port, count: 50000, rate: 50000 }))
await dial(); await dial()
await new Promise(r => setTimeout(r, 2000))
if (process.argv[2]) await target.call('collectGarbage')
for (let i = 0; i < 5; i++) { await dial(); await new Promise(r => setTimeout(r, 500)) ; const s = await target.call('state'); console.log(JSON.stringify(s)) }
await target.end(); await flooder.end(); await d.end()
