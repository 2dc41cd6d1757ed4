/**
 * Calls to a process of its own: what it can be asked for is an object of async functions there, which take one parameter
 */
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { ChildProcess, ForkOptions } from 'node:child_process'

/**
 * A process with which the parent talks in calls
 */
export class ChildCalls<C> {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, PromiseWithResolvers<any>>()
  readonly #ready = Promise.withResolvers<void>()
  readonly #exited = Promise.withResolvers<void>()
  #id = 0

  constructor (script: URL, args: string[] = [], options: ForkOptions = {}) {
    const path = fileURLToPath(script)
    this.#child = fork(path, args, options)
    this.#ready.promise.catch(() => {})

    this.#child.on('message', ({ ready, id, result, error }: any) => {
      if (ready === true) {
        this.#ready.resolve()
      } else if (error != null) {
        this.#waiting.get(id)?.reject(new Error(error))
      } else {
        this.#waiting.get(id)?.resolve(result)
      }

      this.#waiting.delete(id)
    })

    this.#child.once('exit', (code) => {
      const err = new Error(`${path} ${args.join(' ')} has ended with ${code}`)
      this.#ready.reject(err)
      this.#waiting.forEach(({ reject }) => { reject(err) })
      this.#exited.resolve()
    })
  }

  async call<K extends keyof C & string> (call: K, ...params: C[K] extends (...args: infer P) => any ? P : never): Promise<C[K] extends (...args: any[]) => Promise<infer R> ? R : never> {
    await this.#ready.promise
    const id = this.#id++
    const answer = Promise.withResolvers<any>()
    this.#waiting.set(id, answer)
    this.#child.send({ id, call, params: params[0] })

    return answer.promise
  }

  /**
   * End the process. Idempotent.
   */
  async end (): Promise<void> {
    if (this.#child.connected) {
      this.#child.disconnect()
    }

    await this.#exited.promise
  }
}

/**
 * Be such a process, once everything is ready: do what the parent asks for, and end when it is gone
 */
export function answerCalls (calls: object): void {
  const answer = (message: object): void => { process.send?.(message) }

  process.on('message', ({ id, call, params }: any) => {
    (calls as Record<string, (params: any) => Promise<unknown>>)[call](params).then(
      result => { answer({ id, result }) },
      err => { answer({ id, error: `${err.name}: ${err.message}` }) }
    )
  })
  process.once('disconnect', () => { process.exit() })
  answer({ ready: true })
}
