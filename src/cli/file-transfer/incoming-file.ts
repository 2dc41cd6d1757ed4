import { randomBytes } from 'node:crypto'
import { constants, copyFile, link, open, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { LocalFileError } from '../errors.ts'
import { numberedName, safeName } from './safe-name.ts'
import type { FileHandle } from 'node:fs/promises'

/**
 * How many files of one name a folder may have: one without a number, and those with one
 */
const MAX_NUMBER = 9_999

/**
 * What file systems without hard links answer to `link`
 */
const NO_LINKS = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EXDEV']

/**
 * A file on its way in: it has a temporary name until it is complete, and never replaces another
 */
export class IncomingFile {
  readonly #folder: string
  readonly #temporary: string
  readonly #handle: FileHandle

  private constructor (folder: string, temporary: string, handle: FileHandle) {
    this.#folder = folder
    this.#temporary = temporary
    this.#handle = handle
  }

  /**
   * Throws `LocalFileError`
   */
  static async create (folder: string): Promise<IncomingFile> {
    const temporary = join(folder, `.psec-${randomBytes(8).toString('hex')}.partial`)

    try {
      return new IncomingFile(folder, temporary, await open(temporary, 'wx'))
    } catch (err: any) {
      throw new LocalFileError(`Can't create a file in ${folder}: ${err.message}`, { cause: err })
    }
  }

  /**
   * Write all of the content. Throws `LocalFileError`, or what the content throws.
   */
  async write (content: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of content) {
      try {
        await writeAll(this.#handle, chunk)
      } catch (err: any) {
        throw new LocalFileError(`Can't write to ${this.#folder}: ${err.message}`, { cause: err })
      }
    }
  }

  /**
   * The file is complete: give it a name like the one wanted. Resolves with the name. Throws `LocalFileError`.
   */
  async keep (wanted: string): Promise<string> {
    try {
      await this.#handle.close()
      const name = await this.#settle(safeName(wanted))
      await unlink(this.#temporary)

      return name
    } catch (err: any) {
      throw new LocalFileError(`Can't store a file in ${this.#folder}: ${err.message}`, { cause: err })
    }
  }

  /**
   * The file is not wanted: leave nothing behind. Never rejects.
   */
  async discard (): Promise<void> {
    await this.#handle.close().catch(() => {})
    await unlink(this.#temporary).catch(() => {})
  }

  async #settle (wanted: string): Promise<string> {
    for (let number = 0; number <= MAX_NUMBER; number++) {
      const name = numberedName(wanted, number)

      if (await placeExclusively(this.#temporary, join(this.#folder, name))) {
        return name
      }
    }

    throw new Error(`it has ${MAX_NUMBER + 1} files named like ${wanted} already, move some away`)
  }
}

/**
 * Give a file another name, too. Resolves with false if that one is taken: unlike a rename this can't replace a file.
 */
async function placeExclusively (from: string, to: string): Promise<boolean> {
  try {
    await link(from, to).catch(async (err: NodeJS.ErrnoException) => {
      if (!NO_LINKS.includes(err.code ?? '')) {
        throw err
      }

      await copyFile(from, to, constants.COPYFILE_EXCL)
    })

    return true
  } catch (err: any) {
    if (err.code === 'EEXIST') {
      return false
    }

    throw err
  }
}

async function writeAll (handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let offset = 0; offset < bytes.byteLength;) {
    const { bytesWritten } = await handle.write(bytes, offset)
    offset += bytesWritten
  }
}
