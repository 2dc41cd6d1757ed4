/**
 * Security schemes: the contract that anyone can implement, and the ones that come with the package, one folder each.
 * A scheme turns a packet socket, on which PSEC has agreed on that scheme, into an authenticated session with streams and
 * datagrams. It knows nothing of libp2p nodes, and nothing of how the agreement came about.
 */
import type { PacketSocket } from '../sockets/index.ts'
import type { AbortOptions, ComponentLogger, PeerId, PrivateKey } from '@libp2p/interface'
import type { Uint8ArrayList } from 'uint8arraylist'

/**
 * What a scheme needs to know of the node it works for
 */
export interface SchemeContext {
  /**
   * The node's identity: what it proves to the other side in the scheme's handshake
   */
  privateKey: PrivateKey
  logger: ComponentLogger
}

/**
 * What a scheme is told when it prepares to be the initiator
 */
export interface InitiateOptions extends SchemeContext {
  /**
   * The most bytes that the initiation packet may have. A scheme whose first packet would be larger has none.
   */
  maxInitiationPacketSize: number
}

/**
 * What a responder is told when its scheme was agreed on
 */
export interface RespondOptions extends SchemeContext, AbortOptions {
  /**
   * The scheme's first datagrams if they came before the socket was handed over: the initiator's initiation packet (draft,
   * "Proposal"), then what overtook the agreement, in order of arrival. Treat them as if they had just arrived.
   */
  earlyDatagrams: Uint8Array[]

  /**
   * Who the initiator claims to be (draft, "Proposal"), a multihash. Whoever called sees to it that the handshake proves that; a scheme
   * that has several responders for one remote may tell them apart by it. Default: unknown.
   */
  claimedId?: Uint8Array

  /**
   * Whether the initiator should prove that it receives at its address before any work is done for it, if the scheme has a means to
   * that: strangers are many now. Default: false.
   */
  validateAddress?: boolean
}

/**
 * What an initiator is told when its scheme was agreed on
 */
export interface ProceedOptions extends AbortOptions {
  /**
   * Whether the first flight has been sent along with a proposal: the remote may have begun the handshake, and is told if nothing
   * comes of it, see `CancelOptions.sent`. Default: false.
   */
  sent?: boolean

  /**
   * Whether the responder may not have the first flight: a proposal went out without it, or its scheme was not listed
   * first. Then it has to be sent (again) on the socket.
   */
  sendFirstFlight: boolean

  /**
   * Datagrams of the scheme that overtook the agreement, in order of arrival
   */
  earlyDatagrams: Uint8Array[]
}

/**
 * An initiator's side of a scheme before the agreement. Until `proceed` it sends nothing on the socket by itself.
 */
export interface Initiation {
  /**
   * The scheme's first flight: the first datagram is the initiation packet that travels in the proposal (draft,
   * "Proposal"), the rest follows on its heels as datagrams of their own. Empty if the scheme has nothing to send first, or
   * if its first datagram exceeds `maxInitiationPacketSize`. Rejects if the scheme can't work at all.
   */
  readonly firstFlight: Promise<Uint8Array[]>

  /**
   * The scheme was agreed on: take the socket over, resolve when the remote is authenticated. Rejects with
   * `HandshakeFailedError`, or the signal's reason. Listens on the socket before it returns. The socket is closed right after
   * the signal: if the remote is to be told, then in the signal's listener.
   */
  proceed (options: ProceedOptions): Promise<SecureSession>

  /**
   * The scheme was not agreed on, or the negotiation ended: free everything. Idempotent; never closes the socket.
   */
  cancel (options?: CancelOptions): void
}

/**
 * How an initiation ends that was not proceeded with
 */
export interface CancelOptions {
  /**
   * Whether the first flight was sent and the whole negotiation ends: the remote may have begun the handshake, and a scheme that can tells
   * it that nothing comes of it (QUIC: RFC 9000, section 10.2.3). Default: false.
   */
  sent?: boolean
}

/**
 * A way to secure a packet socket
 */
export interface SecurityScheme {
  /**
   * Its name on the wire, 1 to 255 bytes of UTF-8, `/quic-datagram/1.0.0` for instance
   */
  readonly protocol: string

  /**
   * Prepare to be the scheme's initiator on this socket. Synchronous and cheap; work goes into `firstFlight`.
   */
  initiate (socket: PacketSocket, options: InitiateOptions): Initiation

  /**
   * Be the scheme's responder on this socket; resolves when the remote is authenticated. Rejects with
   * `HandshakeFailedError`, or the signal's reason. Socket and signal as in `Initiation.proceed`.
   */
  respond (socket: PacketSocket, options: RespondOptions): Promise<SecureSession>

  /**
   * What an endpoint of the native engine needs to have strangers prove by the scheme's own means that they receive at their
   * address (QUIC: Retry, RFC 9000, section 8.1.2) before a responder does any work for them, see `PacketEndpoint.shield`. Opaque,
   * the same for the same identity. Undefined, like the method, if the scheme has no such means.
   */
  addressValidator? (context: SchemeContext): unknown
}

/**
 * Who hears of a session's events. Called synchronously; must not throw.
 */
export interface SecureSessionHandler {
  /**
   * The remote opened a stream. Nothing is delivered on it before its `start`.
   */
  onStream (stream: SecureStream): void

  /**
   * A datagram arrived. The bytes may share a buffer of up to 256 KiB with others: copy what is kept for long.
   */
  onDatagram (payload: Uint8Array): void

  /**
   * `sendDatagram` returned false earlier, and may be called again
   */
  onDatagramDrain (): void

  /**
   * The session is over: orderly if there is no error. The last call. `SessionFailedError` if it failed.
   */
  onClose (err?: Error): void
}

/**
 * What tells a session from every other one, also from two that somebody in between has joined: the public keys of the
 * certificates that both sides have proved to hold the private keys of, as DER of SubjectPublicKeyInfo (RFC 5280, section 4.1).
 * What is the local side's here has to be the remote side's there, byte by byte.
 */
export interface ChannelBinding {
  readonly local: Uint8Array
  readonly remote: Uint8Array
}

/**
 * An authenticated session with one peer. It owns its packet socket and closes it when it ends.
 */
export interface SecureSession {
  /**
   * The scheme's name on the wire
   */
  readonly protocol: string

  /**
   * Who the handshake proved to be there
   */
  readonly remotePeer: PeerId

  /**
   * `closing` from the call of `close`, `closed` from when `onClose` was, or would be, called
   */
  readonly status: 'open' | 'closing' | 'closed'

  /**
   * What a proof made inside the session is bound to. A session of a scheme that has none can't be confirmed (see
   * `docs/confirm.md`): to the other side it is one of a peer that does not confirm.
   */
  readonly binding?: ChannelBinding

  /**
   * The most bytes that `sendDatagram` takes now; it may grow and shrink with the path. 0 if the remote takes none.
   */
  readonly maxDatagramSize: number

  /**
   * The smoothed round trip time in milliseconds, if the scheme measures it
   */
  readonly rtt?: number

  /**
   * Begin delivery: streams and datagrams that came before are held (bounded) until now. A session that has ended already
   * tells so at once. Call once.
   */
  start (handler: SecureSessionHandler): void

  /**
   * Open a stream; waits while the remote allows no more. Rejects with `SessionClosedError`, or the signal's reason.
   */
  openStream (options?: AbortOptions): Promise<SecureStream>

  /**
   * Send a datagram, unreliably. Returns false if the send queue is full now: wait for `onDatagramDrain`. What is sent
   * regardless may be dropped. Throws `DatagramTooLargeError`, `SessionClosedError`.
   */
  sendDatagram (payload: Uint8Array): boolean

  /**
   * How many datagrams were lost on this side, by reason: `sendQueueFull` (sent regardless of a false return),
   * `receiveQueueFull` (arrived faster than they were taken), `pathShrunk` (fitted the path when they were sent, and not when they were to
   * leave)
   */
  readonly droppedDatagrams: Readonly<Record<string, number>>

  /**
   * How many streams of the remote were reset because they came before `start`, and there was no room to hold them. A session that
   * holds any number, or none, need not say.
   */
  readonly refusedStreams?: number

  /**
   * Whether a stream of that id can exist: false for one of the remote's beyond the limit of streams that it was given
   * (QUIC: RFC 9000, section 4.6), for which a datagram ends the session (libp2p's datagrams draft). A session that does not know its
   * limit need not say.
   */
  isWithinStreamLimit? (id: number): boolean

  /**
   * Close orderly: what was written to finished streams is delivered first, then the remote is told. Resolves when done;
   * rejects with the signal's reason, and the session is then aborted. Idempotent.
   */
  close (options?: AbortOptions): Promise<void>

  /**
   * Close now, telling the remote if that takes no waiting. Idempotent.
   *
   * @param err - why; goes to the log and to the handlers on this side, never to the remote
   * @param code - the application error code that the remote sees, 1 by default; 0 would read as an orderly close
   */
  abort (err: Error, code?: number): void
}

/**
 * Who hears of a stream's events. Called synchronously; must not throw.
 */
export interface SecureStreamHandler {
  /**
   * Bytes arrived. The chunk may share a buffer of up to 256 KiB with others: copy what is kept for long.
   */
  onData (chunk: Uint8Array): void

  /**
   * `send` returned false earlier, and may be called again
   */
  onDrain (): void

  /**
   * The remote will send no more, everything it sent has been delivered
   */
  onRemoteCloseWrite (): void

  /**
   * The remote will read no more: what is sent from now on is thrown away
   */
  onRemoteCloseRead (): void

  /**
   * The remote reset the stream, or the session ended under it (then with the session's error, if any). The last call.
   */
  onReset (err?: Error): void
}

/**
 * A reliable, ordered, flow-controlled stream of bytes
 */
export interface SecureStream {
  /**
   * The scheme's number for it (QUIC stream id, SCTP stream id): the same on both sides
   */
  readonly id: number
  readonly direction: 'inbound' | 'outbound'

  /**
   * Begin delivery. Call once.
   */
  start (handler: SecureStreamHandler): void

  /**
   * Queue bytes. All of them are taken; false means that the queue is full now: wait for `onDrain` before the next. The
   * caller must not change the bytes afterwards. Throws `StreamStateError` after `closeWrite`.
   */
  send (data: Uint8Array | Uint8ArrayList): boolean

  /**
   * Send no more: the remote is told once it has got everything queued before. Idempotent.
   */
  closeWrite (): void

  /**
   * Read no more: the remote is told to stop sending, nothing more is delivered except its end. Idempotent.
   */
  closeRead (): void

  /**
   * End both directions abruptly; the remote sees a reset. Nothing is delivered any more. Idempotent.
   */
  reset (): void

  /**
   * Stop delivery until `resume`: the remote is held back by flow control. What is under way (up to 512 KiB, if nobody says otherwise) still arrives.
   */
  pause (): void

  /**
   * Deliver again after `pause`; without effect on a stream that is not paused
   */
  resume (): void
}
