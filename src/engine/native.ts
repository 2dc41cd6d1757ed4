/**
 * The native engine's face, as `engine/src/lib.rs` exports it. Only this folder talks to it.
 */

export interface NativeQuicOptions {
  idleTimeout: number
  keepAliveInterval: number
  maxInboundStreams: number
  streamReceiveWindow: number
  receiveWindow: number
  sendWindow: number
  datagramReceiveBuffer: number
  datagramSendBuffer: number
  streamReceiveQueue: number
  postQuantum: boolean
}

export interface NativeDtlsOptions {
  idleTimeout: number
  keepAliveInterval: number
  maxInboundStreams: number
  streamReceiveWindow: number
  receiveWindow: number
  sendWindow: number
  datagramReceiveBuffer: number
  datagramSendBuffer: number
  streamReceiveQueue: number
  maxPacketSize: number
  allowDtls12: boolean
}

export interface NativePeer {
  host: string
  port: number
  localHost?: string

  /**
   * In bytes of UDP payload: what the path is assumed to carry, and up to what it may be found to
   */
  maxDatagramSize: number
  maxProbeSize: number

  /**
   * The number under which the engine has begun its session, see `NativeNotice`
   */
  guest?: number
}

/**
 * Opaque: a node's certificate and settings for one scheme
 */
export interface NativeIdentity {
  readonly __identity?: never
}

/**
 * The last one is said by `EnginePort`
 */
export type CloseCause = 'local' | 'remote' | 'remote-error' | 'timed-out' | 'reset' | 'failed' | 'engine-failed'

export type NativeNotice =
  { type: 'raw', host: string, port: number, localHost?: string, data: Uint8Array, guest?: number, answer?: Uint8Array } |
  { type: 'validated', host: string, port: number, localHost?: string, proposal: Uint8Array, answer: Uint8Array, data: Uint8Array } |
  { type: 'transmit', host: string, port: number, data: Uint8Array } |
  { type: 'secured', peerId: Uint8Array, localKey: Uint8Array, remoteKey: Uint8Array } |
  { type: 'closed', cause: CloseCause, message: string } |
  { type: 'openFailed', token: number } |
  { type: 'endpointClosed', error?: string | null }

export interface NativeBatch {
  /**
   * Events, each of `RECORD` numbers
   */
  records: Float64Array
  data: Uint8Array

  /**
   * If one is `closed` it is the last, and the batch's last event
   */
  notices: NativeNotice[]
}

/**
 * Counters since the port was opened
 */
export interface NativeStats {
  datagramsIn: number
  datagramsOut: number
  bytesIn: number
  bytesOut: number
  sendErrors: number

  /**
   * Datagrams of unknown remotes that were no proposals
   */
  strangers: number

  /**
   * Datagrams of no bytes
   */
  empty: number

  /**
   * Datagrams for which JavaScript had no room
   */
  rawOverflow: number

  /**
   * Packets of a scheme that no session took
   */
  unroutable: number

  /**
   * Proposals that the shield answered
   */
  shielded: number

  /**
   * Proposals that the shield turned away: too many of a part of the network
   */
  turnedAwayPrefix: number

  /**
   * Proposals that the shield turned away: too many that only JavaScript could answer
   */
  turnedAwayUnprepared: number

  /**
   * Strangers that were told to prove their address
   */
  challenged: number

  /**
   * Strangers that did
   */
  validated: number

  /**
   * Proofs of strangers whose proposals were not remembered, any more or at all
   */
  unproposed: number

  /**
   * Packets of the port's own, answers to strangers above all, for which there was no room
   */
  responsesOverflow: number

  /**
   * Chunks of SCTP beyond what is kept of a session's
   */
  sctpOverflow: number

  /**
   * Chunks of SCTP that no honest remote sends, or that were of no use any more, or yet
   */
  sctpIgnored: number

  /**
   * Proposals that the shield forgot to make room for others
   */
  displaced: number

  /**
   * Proposals that the shield remembers now: no counter
   */
  shieldedProposals: number

  /**
   * Proposals of strangers that were answered at once, and their handshakes begun
   */
  welcomed: number

  /**
   * Those of them that JavaScript had no use for
   */
  unwanted: number
}

export interface NativeAnswers {
  answers: NativeAnswer[]
  peerId: Uint8Array
}

export interface NativeLimits {
  waiting: number
  strangers: number
  strangerDatagrams: number
  responses: number

  /**
   * In bytes
   */
  waitingBytes: number
  guests: number

  /**
   * In milliseconds
   */
  crossingTime: number

  /**
   * In bytes, each way
   */
  socketBuffer: number
}

export interface NativeAnswer {
  offer: Uint8Array
  response: Uint8Array
}

export interface NativePort {
  localAddress (): { host: string, port: number }
  drain (): NativeBatch | null
  stats (): NativeStats
  claim (host: string, port: number): void
  share (host: string, port: number, shared: boolean): void
  release (host: string, port: number): void
  shield (identity: NativeIdentity, answers: NativeAnswers, maxProposals: number, maxProposalsPerPrefix: number, maxUnprepared: number, lifetime: number): void
  unshield (): void
  welcome (identity: NativeIdentity, answers: NativeAnswers, maxDatagramSize: number): void
  unwelcome (): void
  dismiss (host: string, port: number, guest: number): void

  /**
   * True if something was left to the engine's thread, which has to be flushed. Throws if the system knows no way to the remote.
   */
  sendRaw (host: string, port: number, localHost: string | undefined, datagrams: Uint8Array[]): boolean
  inject (host: string, port: number, data: Uint8Array): void
  initiate (session: number, identity: NativeIdentity, peer: NativePeer, maxFirstDatagram: number): Uint8Array[]
  proceed (session: number, sent: boolean, sendFirstFlight: boolean, early: Uint8Array[]): void
  respond (session: number, identity: NativeIdentity, peer: NativePeer, early: Uint8Array[], claimedId: Uint8Array | undefined, validateAddress: boolean): void
  cancel (session: number, sent: boolean): void
  closeSession (session: number, code: number, orderly: boolean): void
  openStream (session: number, token: number): void
  cancelOpen (session: number, token: number): void
  write (session: number, stream: number, data: Uint8Array): void
  finish (session: number, stream: number): void
  reset (session: number, stream: number): void
  stop (session: number, stream: number): void
  consumed (session: number, stream: number, bytes: number): void
  sendDatagram (session: number, payload: Uint8Array): void
  shutdown (): void

  /**
   * Have the engine see to the commands given since the last flush
   */
  flush (): void

  /**
   * Of a port whose datagrams JavaScript carries: do at once what was asked for, and return what has to be sent for it
   */
  settle (): Array<{ host: string, port: number, data: Uint8Array }>
}

export interface NativeEngine {
  /**
   * Do ahead, in the background, what the first handshake would have to wait for
   */
  warmUp (): void
  NativePort: {
    bind (host: string, port: number, anyStranger: boolean, limits: NativeLimits, wake: () => void): NativePort
    detached (wake: () => void): NativePort
  }
  NativeIdentity: {
    quic (privateKey: Uint8Array, options: NativeQuicOptions): NativeIdentity

    /**
     * Missing where the engine was built without its feature `dtls`
     */
    dtls? (privateKey: Uint8Array, options: NativeDtlsOptions): NativeIdentity
  }
}
