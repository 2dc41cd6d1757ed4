/* eslint-disable no-console */

/**
 * The demo: two nodes in processes of their own, on one UDP port each. One sends the other a file over a stream and
 * plays a flow of datagrams beside it; what was negotiated, how long it took, and what arrived is printed. Run it with
 *
 * `npm run demo`, or `npm run demo -- FILE`.
 *
 * It needs no network but this machine's own. The exit status is 0 if all went well.
 */
import { createHash, randomFillSync } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, mkdtemp, open, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { describeMode, describePart, findFaults } from './findings.ts'
import { PsecProcess } from './psec-process.ts'
import type { Findings } from './findings.ts'
import type { PsecEvent } from './psec-process.ts'

const FILE_SIZE = 48 * 1024 * 1024
const DATAGRAMS_PER_SECOND = 1000

async function demo (): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'psec-demo-'))
  const inbox = join(folder, 'inbox')
  let receiver: PsecProcess | undefined
  let sender: PsecProcess | undefined

  try {
    await mkdir(inbox)
    const file = process.argv[2] ?? await makeFile(join(folder, 'payload.bin'))
    const { size } = await stat(file)
    line('file', `${file}, ${(size / 1024 / 1024).toFixed(1)} MiB`)

    receiver = new PsecProcess('receiver', 'listen', '--listen', '/ip4/127.0.0.1/udp/0/psec', '--out', inbox)
    const listening = await receiver.waitFor('listening')
    line('receiver', `process ${receiver.pid}, ${listening.multiaddrs[0]}`)

    sender = new PsecProcess('sender', 'send', listening.multiaddrs[0], file, '--datagrams', `${DATAGRAMS_PER_SECOND}`)
    line('sender', `process ${sender.pid}`)

    const outbound = await sender.waitFor('connection')
    const inbound = await receiver.waitFor('connection')
    printNegotiation(outbound, inbound)

    const sent = await sender.waitFor('sent')
    const played = await sender.waitFor('datagrams')
    await sender.finish()
    // both are reported by the receiver at the end of a stream, which the sender's end has brought
    const received = await receiver.waitFor('file')
    const counted = await receiver.waitFor('datagrams')
    await receiver.stop()
    await receiver.finish()

    printTransfer(sent, played, counted)

    return check({
      file: await sha256(file),
      copy: await sha256(join(inbox, received.name)),
      outbound,
      inbound,
      sent,
      received,
      counted
    })
  } finally {
    await sender?.stop()
    await receiver?.stop()
    await rm(folder, { recursive: true, force: true })
  }
}

function printNegotiation (outbound: PsecEvent, inbound: PsecEvent): void {
  heading('Negotiated')
  line('scheme', outbound.scheme)
  line('sender', `${describePart(outbound)}: ${inbound.remotePeer}`)
  line('receiver', `${describePart(inbound)}: ${outbound.remotePeer}`)
  line('mode', describeMode(outbound))

  heading('Took, after the dial began, which is the first of processes that have just started')
  line('agreed', `${ms(outbound.agreedMs)} the scheme was settled`)
  line('secured', `${ms(outbound.securedMs)} the receiver was authenticated`)
  line('usable', `${ms(outbound.dialMs)} libp2p had the connection`)
}

function printTransfer (sent: PsecEvent, played: PsecEvent, counted: PsecEvent): void {
  heading('Transferred')
  line('stream', `${ms(sent.ms)} ${sent.bytes} bytes, ${Math.round(sent.bytes / 1e6 / (sent.ms / 1000))} MB/s, hashed on both sides on the way`)
  line('datagrams', `${counted.received} of ${played.sent} arrived, sent at ${DATAGRAMS_PER_SECOND} a second beside the stream, and for two seconds at least`)
  line('', `${played.echoed} of them were seen to come back, in ${played.medianMs ?? '–'} ms in the median`)
}

function check (findings: Findings): boolean {
  const { file, copy, sent, received } = findings
  const faults = findFaults(findings)

  heading('SHA-256')
  line('file', file)
  line('sent', sent.sha256)
  line('received', received.sha256)
  line('copy', copy)
  console.info(`\n${faults.length === 0 ? 'The file arrived as it left.' : faults.join(' ')}`)

  return faults.length === 0
}

async function makeFile (path: string): Promise<string> {
  const file = await open(path, 'wx')
  const chunk = new Uint8Array(1024 * 1024)

  try {
    for (let written = 0; written < FILE_SIZE; written += chunk.byteLength) {
      await file.writeFile(randomFillSync(chunk))
    }
  } finally {
    await file.close()
  }

  return path
}

async function sha256 (path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)

  return hash.digest('hex')
}

function heading (text: string): void {
  console.info(`\n${text}`)
}

function line (label: string, text: string): void {
  console.info(`  ${label.padEnd(10)} ${text}`)
}

function ms (value: number): string {
  return `${value.toFixed(1)} ms`.padEnd(12)
}

console.info(`libp2p-psec: two nodes, one UDP port each${process.argv[2] == null ? '' : `, and ${basename(process.argv[2])}`}\n`)

try {
  process.exitCode = await demo() ? 0 : 1
} catch (err: any) {
  console.error(`\nThe demo has failed. ${err.message}`)
  process.exitCode = 1
}
