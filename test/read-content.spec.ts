import { StreamMessageEvent } from '@libp2p/interface'
import { streamPair } from '@libp2p/utils'
import { expect } from 'aegir/chai'
import { Uint8ArrayList } from 'uint8arraylist'
import { readContent } from '../src/cli/file-transfer/read-content.ts'

describe('the content of a stream', () => {
  it('may come in more pieces at once than a function takes arguments', async () => {
    const [, stream] = await streamPair()
    const pieces = new Uint8ArrayList()

    for (let i = 0; i < 200_000; i++) {
      pieces.append(Uint8Array.of(i))
    }

    const content = readContent(stream)
    const first = content.next()
    // what a listener throws ends the process
    stream.dispatchEvent(new StreamMessageEvent(pieces))

    expect((await first).value).to.equalBytes(Uint8Array.of(0))
    await content.return(undefined)
  })
})
