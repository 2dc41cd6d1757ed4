/**
 * A datagram arrived on a flow
 */
export class DatagramEvent extends Event {
  /**
   * The payload. It may share a buffer of up to 256 KiB with others: copy what is kept for long, do not change it.
   */
  readonly data: Uint8Array

  constructor (data: Uint8Array) {
    super('message')
    this.data = data
  }
}
