import type { NativePeer } from './native.ts'
import type { EnginePort } from './port.ts'

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
   * A scheme of the engine takes the flow: only PSEC frames surface from now on. `onClose` is called if the socket is closed
   * by somebody else.
   */
  handOver (onClose: () => void): void

  /**
   * The socket is about to be closed: send what the engine has to say first, if that does not send by itself
   */
  settle? (): void

  /**
   * The scheme gives the flow up, and leaves the socket to whoever gave it
   *
   * @param onClose - what it handed over with, if it did: one that never had the flow does not take it from one that has
   */
  release (onClose?: () => void): void

  /**
   * The scheme gives the flow up, and closes the socket
   */
  close (): void
}
