/**
 * Files over a stream: what `psec send` and `psec listen --out` speak
 */
export { FILE_PROTOCOL } from './messages.ts'
export { receiveFile } from './receive-file.ts'
export { checkFile, sendFile } from './send-file.ts'
export type { ReceivedFile } from './receive-file.ts'
