import type { DatagramFlow } from '../index.ts'

/**
 * Every datagram of a flow of this protocol is sent back as it came
 */
export const DATAGRAM_ECHO_PROTOCOL = '/psec/datagram-echo/1.0.0'

export interface EchoCounts {
  received: number
  echoed: number
}

/**
 * The echoing side. Datagrams for which there is no room are not sent back: that is what a flow of datagrams is for.
 */
export function echoDatagrams (flow: DatagramFlow, onClose: (counts: EchoCounts) => void): void {
  const counts: EchoCounts = { received: 0, echoed: 0 }
  let room = true

  flow.addEventListener('message', (evt) => {
    counts.received++

    if (!room) {
      return
    }

    try {
      room = flow.send(evt.data)
      counts.echoed++
    } catch {
      // the path has become smaller than the datagram, or the flow is closing
    }
  })
  flow.addEventListener('drain', () => { room = true })
  flow.addEventListener('close', () => { onClose(counts) })
}
