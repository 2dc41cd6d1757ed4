import { PassThrough } from 'node:stream'
import { AbortError } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { expect } from 'aegir/chai'
import { dial } from '../src/cli/dial.ts'
import { Output } from '../src/cli/output.ts'
import { recordSession, SessionRecord } from '../src/sessions.ts'
import type { PsecNode } from '../src/cli/node.ts'
import type { SecureSession } from '../src/schemes/index.ts'
import type { ConnectionNegotiation } from '../src/sessions.ts'
import type { Connection } from '@libp2p/interface'

const ADDRESS = multiaddr('/ip4/127.0.0.1/udp/4001/psec')

describe('dial of the psec command', () => {
  it('does not wait for the confirmation any longer when it is interrupted', async () => {
    const interrupt = new AbortController()
    const stdin = new PassThrough()
    const stdout = new PassThrough()
    const output = new Output({ stdout, stderr: new PassThrough(), json: true })
    const asked = Promise.withResolvers<void>()
    const connection = { timeline: { open: 0 }, remotePeer: 'peer', remoteAddr: ADDRESS } as unknown as Connection
    const negotiation = {
      timings: {},
      get confirmation () {
        asked.resolve()

        return new Promise<boolean>(() => {})
      }
    } as unknown as ConnectionNegotiation
    recordSession(connection.timeline, new SessionRecord({} as unknown as SecureSession, negotiation))

    const dialling = dial({ dial: async () => connection } as unknown as PsecNode, ADDRESS, { output, stdin, signal: interrupt.signal })
    await asked.promise
    interrupt.abort(new AbortError('Interrupted'))

    await expect(dialling).to.eventually.be.rejected().with.property('message', 'Interrupted')
    // whether it is confirmed is not known
    expect(stdout.read()).to.be.null()
  })
})
