/**
 * Our side: the scheme without the negotiation, on a UDP port of its own. What the other side opens is served.
 */
import { generateKeyPair } from '@libp2p/crypto/keys'
import { defaultLogger } from '@libp2p/logger'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { dtls } from '../src/index.ts'
import { UdpEndpoint } from '../src/sockets/udp.ts'
import { ByteStream } from './byte-stream.ts'
import { serve } from './serve.ts'
import type { DtlsInit, SecureSession } from '../src/index.ts'
import type { PacketAddress } from '../src/sockets/index.ts'
import type { PrivateKey } from '@libp2p/interface'

/** Milliseconds for a handshake */
const PATIENCE = 10_000

/** The byte behind a datagram's stream id */
const REQUEST = 1
const ANSWER = 2

export interface OursInit extends DtlsInit {
  host: string
  key?: 'Ed25519' | 'secp256k1' | 'RSA'

  /**
   * Milliseconds for a handshake
   */
  patience?: number
}

export class Ours {
  readonly privateKey: PrivateKey
  readonly #patience: number
  readonly #endpoint: UdpEndpoint
  readonly #scheme: ReturnType<typeof dtls>

  static async open (init: OursInit): Promise<Ours> {
    const { host, key = 'Ed25519', patience = PATIENCE, ...settings } = init
    const privateKey = await (key === 'RSA' ? generateKeyPair(key, 2048) : generateKeyPair(key))

    return new Ours(host, privateKey, patience, settings)
  }

  private constructor (host: string, privateKey: PrivateKey, patience: number, settings: DtlsInit) {
    this.privateKey = privateKey
    this.#patience = patience
    this.#scheme = dtls(settings)
    this.#endpoint = new UdpEndpoint({ host, port: 0, anyStranger: true })
  }

  get peerId (): string {
    return peerIdFromPrivateKey(this.privateKey).toString()
  }

  get address (): PacketAddress {
    return this.#endpoint.localAddress
  }

  /**
   * Be the DTLS client of this address
   */
  async connect (remote: PacketAddress): Promise<Session> {
    const socket = this.#endpoint.connect(remote)
    const initiation = this.#scheme.initiate(socket, { ...this.#context, maxInitiationPacketSize: 1400 })

    try {
      await initiation.firstFlight

      return new Session(await initiation.proceed({ sendFirstFlight: true, earlyDatagrams: [], signal: AbortSignal.timeout(this.#patience) }))
    } catch (err) {
      socket.close()
      throw err
    }
  }

  /**
   * Be the DTLS server of who comes first
   */
  async accept (): Promise<Session> {
    const { promise, resolve, reject } = Promise.withResolvers<Session>()

    this.#endpoint.accept({
      filter: () => true,
      onSocket: (socket, firstDatagram) => {
        this.#endpoint.accept(undefined)
        this.#scheme.respond(socket, { ...this.#context, earlyDatagrams: [firstDatagram], signal: AbortSignal.timeout(this.#patience) })
          .then(session => { resolve(new Session(session)) }, err => {
            socket.close()
            reject(err)
          })
      }
    })

    return promise
  }

  async close (): Promise<void> {
    await this.#endpoint.close()
  }

  get #context (): { privateKey: PrivateKey, logger: ReturnType<typeof defaultLogger> } {
    return { privateKey: this.privateKey, logger: defaultLogger() }
  }
}

/**
 * A session whose other side is served, until it ends
 */
export class Session {
  readonly inner: SecureSession
  /** Ids of the streams that were opened here */
  readonly ids = new Set<number>()
  readonly ended: Promise<Error | undefined>
  readonly failures: Error[] = []
  #onAnswer?: (payload: Uint8Array) => void

  constructor (inner: SecureSession) {
    const { promise, resolve } = Promise.withResolvers<Error | undefined>()
    this.inner = inner
    this.ended = promise

    inner.start({
      onStream: stream => { serve(stream).catch(err => { this.failures.push(err) }) },
      onDatagram: payload => { this.#onDatagram(payload) },
      onDatagramDrain: () => {},
      onClose: resolve
    })
  }

  async open (): Promise<ByteStream> {
    const stream = await this.inner.openStream({ signal: AbortSignal.timeout(15_000) })
    this.ids.add(stream.id)

    return new ByteStream(stream)
  }

  /**
   * A datagram with these bytes behind the id of a stream; resolves when it has come back, however often it takes. Returns how
   * often that was.
   */
  async exchange (body: Uint8Array): Promise<number> {
    // Stream 4, as a varint of two bytes: not the shortest, but allowed (RFC 9000, section 16)
    const expected = Buffer.from([0x40, 0x04, ANSWER, ...body])
    const { promise, resolve } = Promise.withResolvers<boolean>()
    this.#onAnswer = payload => { expected.equals(payload) && resolve(true) }

    for (let attempt = 1; attempt <= 20; attempt++) {
      this.inner.sendDatagram(Uint8Array.from([0x40, 0x04, REQUEST, ...body]))
      const timeout = Promise.withResolvers<boolean>()
      const timer = setTimeout(timeout.resolve, 500, false)

      try {
        if (await Promise.race([promise, timeout.promise])) {
          return attempt
        }
      } finally {
        clearTimeout(timer)
      }
    }

    throw new Error(`No answer to datagrams of ${body.byteLength + 3} bytes`)
  }

  #onDatagram (payload: Uint8Array): void {
    const kind = 1 << (payload[0] >> 6)

    if (payload[kind] === REQUEST) {
      const back = Uint8Array.from(payload)
      back[kind] = ANSWER
      this.inner.sendDatagram(back)
    } else {
      this.#onAnswer?.(payload)
    }
  }
}
