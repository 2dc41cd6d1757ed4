/**
 * Every error this package throws of its own. Match on `err.name`: the names are stable, the messages are for people.
 */

/**
 * Bytes that are not a valid PSEC frame (draft, "Frames" and "Proposal"). `reason` is a stable code for metrics and
 * test vectors, the message says what was found where.
 */
export class InvalidFrameError extends Error {
  static name = 'InvalidFrameError'
  name = 'InvalidFrameError'
  readonly reason: string

  constructor (reason: string, message: string) {
    super(message)
    this.reason = reason
  }
}

/**
 * The native engine could not be loaded: it was not built, or not for this platform
 */
export class EngineUnavailableError extends Error {
  static name = 'EngineUnavailableError'
  name = 'EngineUnavailableError'
}

/**
 * The native engine stopped unexpectedly. The message carries its last words. A listener logs this, and closes; the port's sessions and
 * handshakes fail with `SessionFailedError` and `HandshakeFailedError`.
 */
export class EngineFailedError extends Error {
  static name = 'EngineFailedError'
  name = 'EngineFailedError'
}

/**
 * The local address to listen on is taken by another socket
 */
export class AddressInUseError extends Error {
  static name = 'AddressInUseError'
  name = 'AddressInUseError'
}

/**
 * The local address can't be bound: it is not an address of this machine, the port is privileged, or the system has no socket for it
 */
export class AddressUnavailableError extends Error {
  static name = 'AddressUnavailableError'
  name = 'AddressUnavailableError'
}

/**
 * The system knows no way to the dialled address: this machine has no route there, or nobody on its network has that address
 */
export class AddressUnreachableError extends Error {
  static name = 'AddressUnreachableError'
  name = 'AddressUnreachableError'
}

/**
 * A host name in a dialled multiaddr did not resolve to an address of the wanted family
 */
export class AddressNotResolvedError extends Error {
  static name = 'AddressNotResolvedError'
  name = 'AddressNotResolvedError'
}

/**
 * Nobody answered the proposal: no listener there, or a path that lets no UDP through
 */
export class NoAnswerError extends Error {
  static name = 'NoAnswerError'
  name = 'NoAnswerError'
}

/**
 * The peers speak no security scheme in common (draft, "Response": a reject, or no intersection)
 */
export class NoCommonSchemeError extends Error {
  static name = 'NoCommonSchemeError'
  name = 'NoCommonSchemeError'
}

/**
 * The other side claims our own peer id: we dialled ourselves, or somebody pretends to be us
 */
export class SelfNegotiationError extends Error {
  static name = 'SelfNegotiationError'
  name = 'SelfNegotiationError'
}

/**
 * A scheme was agreed on, but its handshake failed or did not end in time
 */
export class HandshakeFailedError extends Error {
  static name = 'HandshakeFailedError'
  name = 'HandshakeFailedError'
}

/**
 * The two sides of a session saw different negotiations, or one could not prove what it saw: somebody on the path changed the
 * negotiation, perhaps to bring about a weaker scheme (`docs/confirm.md`). The connection is closed. `reason` is a stable code for
 * test vectors: `identity`, `signature`, `binding`, `peers`, `scheme`, `mode` or `proposals`; the message says what differs.
 */
export class DowngradeDetectedError extends Error {
  static name = 'DowngradeDetectedError'
  name = 'DowngradeDetectedError'
  readonly reason: string

  constructor (reason: string, message: string) {
    super(message)
    this.reason = reason
  }
}

/**
 * The remote did not confirm the negotiation, without which this node takes no connection (`psec({ confirm: 'require' })`); or
 * what it sent is no confirmation at all. `reason` is a stable code: `unsupported` (it does not speak the protocol, or the scheme
 * can't be confirmed), `timedOut`, `interrupted` (the stream or the session ended before), or `malformed`.
 */
export class ConfirmationFailedError extends Error {
  static name = 'ConfirmationFailedError'
  name = 'ConfirmationFailedError'
  readonly reason: 'unsupported' | 'timedOut' | 'interrupted' | 'malformed'

  constructor (reason: 'unsupported' | 'timedOut' | 'interrupted' | 'malformed', message: string) {
    super(message)
    this.reason = reason
  }
}

/**
 * The session ended without an orderly close. `reason` is a stable code: `timedOut` (nothing was heard of the remote for too long),
 * `reset` (the remote does not know it any more), `remoteError` (the remote ended it with an error), `local` (its socket or port was
 * closed on this side), `superseded` (the same peer came back), or `failed` (a rule of the protocol was broken, or any other).
 */
export class SessionFailedError extends Error {
  static name = 'SessionFailedError'
  name = 'SessionFailedError'
  readonly reason: SessionFailure

  constructor (message: string, reason: SessionFailure = 'failed') {
    super(message)
    this.reason = reason
  }
}

/**
 * See `SessionFailedError`
 */
export type SessionFailure = 'timedOut' | 'reset' | 'remoteError' | 'local' | 'superseded' | 'failed'

/**
 * The session is closed: no stream can be opened on it and no datagram sent
 */
export class SessionClosedError extends Error {
  static name = 'SessionClosedError'
  name = 'SessionClosedError'
}

/**
 * A datagram is larger than what the path carries now, see `maxDatagramSize`
 */
export class DatagramTooLargeError extends Error {
  static name = 'DatagramTooLargeError'
  name = 'DatagramTooLargeError'
}

/**
 * The connection's transport, or its remote, carries no datagrams
 */
export class DatagramsUnsupportedError extends Error {
  static name = 'DatagramsUnsupportedError'
  name = 'DatagramsUnsupportedError'
}

/**
 * The node is part of a private network, whose protector PSEC's sessions would bypass
 */
export class PrivateNetworkError extends Error {
  static name = 'PrivateNetworkError'
  name = 'PrivateNetworkError'
}
