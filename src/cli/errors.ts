/**
 * The `psec` command's own errors. Their names are what it prints first, see `docs/cli.md`.
 */

/**
 * The command line does not say what to do: exit status 2
 */
export class UsageError extends Error {
  static name = 'UsageError'
  name = 'UsageError'
}

/**
 * A file of this machine can't be read or written
 */
export class LocalFileError extends Error {
  static name = 'LocalFileError'
  name = 'LocalFileError'
}

/**
 * The receiver does not take the file; the message carries its reason
 */
export class FileRefusedError extends Error {
  static name = 'FileRefusedError'
  name = 'FileRefusedError'
}

/**
 * The transfer broke off, or the other side broke the protocol
 */
export class FileTransferError extends Error {
  static name = 'FileTransferError'
  name = 'FileTransferError'
}

/**
 * What the receiver got is not what was sent: the byte counts or the SHA-256 differ
 */
export class FileMismatchError extends Error {
  static name = 'FileMismatchError'
  name = 'FileMismatchError'
}
