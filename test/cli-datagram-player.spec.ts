import { streamPair } from '@libp2p/utils'
import { expect } from 'aegir/chai'
import { DatagramPlayer } from '../src/cli/datagram-player.ts'
import { controlledFlow } from './fixtures/controlled-flow.ts'
import type { PsecNode } from '../src/cli/node.ts'
import type { Connection } from '@libp2p/interface'

describe('the datagrams that "psec send" plays', () => {
  it('end, and nothing else, when the remote wants no more of them', async () => {
    const [stream] = await streamPair()
    const flow = controlledFlow({ stream })
    const closed = new Promise(resolve => { flow.addEventListener('close', resolve) })
    const node = { services: { datagrams: { open: async () => flow } } } as unknown as PsecNode
    const player = await DatagramPlayer.start(node, {} as unknown as Connection, 1_000, {})

    // no event says so: the player is the first to see it, in the turn of its timer
    ;(stream as any).onRemoteCloseRead()
    await closed
    const report = await player.finish({ signal: AbortSignal.timeout(20_000) })

    expect(report).to.include({ echoed: 0, medianMs: undefined })
    expect(flow.status).to.equal('closed')
  })
})
