import { SocketAddress } from 'node:net'
import { EnginePort } from '../../engine/port.ts'
import type { NativeFlow } from '../../engine/flow.ts'
import type { PacketSocket } from '../../sockets/index.ts'

/**
 * One port of the engine serves all packet sockets that are not the engine's: it has no socket of its own, and knows each of
 * them by an address made up for it (RFC 4193: fd00::/8 is nobody else's).
 */
let port: EnginePort | undefined
let lastFlow = 0
const sockets = new Map<string, PacketSocket>()

/**
 * A flow of the engine whose datagrams travel through JavaScript, over any packet socket
 */
export function detachedFlow (socket: PacketSocket): NativeFlow {
  const flowPort = port ??= openPort()
  const host = address(++lastFlow)
  let closed = false

  const onMessage = (evt: CustomEvent<Uint8Array>): void => {
    flowPort.commands.inject(host, 1, evt.detail)
  }

  let onHandedOverClose: (() => void) | undefined

  const onSocketClose = (): void => {
    onHandedOverClose?.()
    release()
  }

  const release = (): void => {
    if (closed) {
      return
    }

    closed = true
    onHandedOverClose = undefined
    socket.removeEventListener('message', onMessage)
    socket.removeEventListener('close', onSocketClose)

    flowPort.commands.release(host, 1)
    sockets.delete(host)

    if (sockets.size === 0 && port === flowPort) {
      port = undefined
      void flowPort.close()
    }
  }

  sockets.set(host, socket)
  flowPort.commands.claim(host, 1)
  socket.addEventListener('close', onSocketClose)

  return {
    port: flowPort,
    peer: () => ({ host, port: 1, maxDatagramSize: socket.maxDatagramSize, maxProbeSize: socket.maxProbeSize ?? socket.maxDatagramSize }),
    handOver: (onClose) => {
      onHandedOverClose = onClose
      socket.addEventListener('message', onMessage)
    },
    settle: () => { flowPort.settle() },
    release,
    close: () => {
      release()
      socket.close()
    }
  }
}

function openPort (): EnginePort {
  const opened: EnginePort = EnginePort.detached({
    onTransmit: (host, _port, datagram) => { sockets.get(host)?.send(datagram) },
    onClosed: () => {
      // one that failed is of no use to the next flow
      if (port === opened) {
        port = undefined
      }
    }
  })

  return opened
}

function address (flow: number): string {
  const address = `fd00::${(Math.floor(flow / 0x10000) & 0xffff).toString(16)}:${(flow & 0xffff).toString(16)}`

  // As the engine writes it
  return new SocketAddress({ address, family: 'ipv6' }).address
}
