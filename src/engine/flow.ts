import type { EnginePort } from './port.ts'
import type { NativePeer } from './native.ts'

/**
 * A packet socket's traffic as the engine sees it: what `PacketSocket.nativeFlow` holds where the engine owns the socket
 */
export interface NativeFlow {
  port: EnginePort

  /**
   * The other end, as far as it is known now
   */
  peer (): NativePeer

  /**
   * A scheme of the engine takes the flow: only PSEC frames surface from now on
   */
  handOver (): void

  /**
   * The scheme is done with it
   */
  close (): void
}
