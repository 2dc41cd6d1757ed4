import { readContent } from './file-transfer/read-content.ts'
import type { Stream } from '@libp2p/interface'

/**
 * The protocol of `@libp2p/echo`
 */
export const ECHO_PROTOCOL = '/echo/1.0.0'

/**
 * Send back what comes, at the pace at which the other side takes it: whoever sends without reading is held back, and
 * does not fill our memory
 */
export async function echo (stream: Stream, signal: AbortSignal): Promise<void> {
  try {
    for await (const chunk of readContent(stream, { signal })) {
      if (!stream.send(chunk)) {
        await stream.onDrain({ signal: AbortSignal.any([signal, AbortSignal.timeout(30_000)]) })
      }
    }

    await stream.close({ signal })
  } catch (err: any) {
    stream.abort(err)
  }
}
