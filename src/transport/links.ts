import { Link } from './link.ts'
import type { LinkContext } from './link.ts'
import type { PacketSocket } from '../sockets/index.ts'
import type { AbortOptions } from '@libp2p/interface'

/**
 * How long connections may take to close when a listener or the transport ends, in milliseconds, before they are aborted: the
 * time libp2p's connection manager gives them when a node stops
 */
export const CLOSE_TIMEOUT = 500

/**
 * The links of a transport: one for each of its open sockets, for as long as that is open
 */
export class Links {
  readonly #context: LinkContext
  readonly #links = new Map<PacketSocket, Link>()

  constructor (context: LinkContext) {
    this.#context = context
  }

  /**
   * Whether a dial can join this socket's way to a connection
   */
  isJoinable (socket: PacketSocket): boolean {
    // one without a link was opened just now, for a dial that has not got to it yet
    return socket.status === 'open' && this.#links.get(socket)?.connected !== true
  }

  /**
   * The link of an open socket
   *
   * @param socket
   * @param predecessor - of a new link: what has the remote's older socket
   */
  get (socket: PacketSocket, predecessor?: Link): Link {
    let link = this.#links.get(socket)

    if (link == null) {
      link = new Link(socket, this.#context, predecessor)
      this.#links.set(socket, link)
      socket.addEventListener('close', () => { this.#links.delete(socket) }, { once: true })
    }

    return link
  }

  /**
   * Close the links that fulfil a condition; resolves when their sockets are closed
   */
  async close (condition: (link: Link) => boolean, options: Required<AbortOptions>): Promise<void> {
    await Promise.all([...this.#links.values()].filter(condition).map(async link => { await link.close(options) }))
  }
}
