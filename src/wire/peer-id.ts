import { ECDH } from 'node:crypto'

/*
 * The three forms that a libp2p peer id can have (libp2p peer id specification, "Peer Ids"). A serialized public key of
 * up to 42 bytes is its own identity multihash, any longer one is hashed with sha2-256. Keys are serialized
 * deterministically, so of the key types that exist only Ed25519 (36 bytes) and secp256k1 (37 bytes) are short enough,
 * each in a single form.
 */

/** identity, 36 bytes; then as protobuf: Type = Ed25519, Data of 32 bytes */
const ED25519_PREFIX = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20]
const ED25519_LENGTH = ED25519_PREFIX.length + 32

/** identity, 37 bytes; then as protobuf: Type = Secp256k1, Data of 33 bytes */
const SECP256K1_PREFIX = [0x00, 0x25, 0x08, 0x02, 0x12, 0x21]
const SECP256K1_LENGTH = SECP256K1_PREFIX.length + 33

/** sha2-256, 32 bytes */
const SHA2_256_PREFIX = [0x12, 0x20]
const SHA2_256_LENGTH = SHA2_256_PREFIX.length + 32

/**
 * Whether the bytes are a multihash that a libp2p peer id can have: the identity multihash of a serialized Ed25519 or
 * secp256k1 public key, or a sha2-256 multihash. Never throws.
 */
export function isPeerIdMultihash (bytes: Uint8Array): boolean {
  switch (bytes.byteLength) {
    case SHA2_256_LENGTH:
      return startsWith(bytes, SHA2_256_PREFIX)
    case ED25519_LENGTH:
      return startsWith(bytes, ED25519_PREFIX)
    case SECP256K1_LENGTH:
      return startsWith(bytes, SECP256K1_PREFIX) && isCompressedSecp256k1Point(bytes.subarray(SECP256K1_PREFIX.length))
    default:
      return false
  }
}

function startsWith (bytes: Uint8Array, prefix: number[]): boolean {
  return prefix.every((byte, index) => bytes[index] === byte)
}

/**
 * Every 32 bytes are accepted as an Ed25519 key before it is used, but a secp256k1 key that is no point of the curve
 * can't be parsed by any libp2p. OpenSSL tells in a fifth of the time that `@libp2p/crypto` takes, and this guards
 * against strangers.
 */
function isCompressedSecp256k1Point (key: Uint8Array): boolean {
  if (key[0] !== 2 && key[0] !== 3) {
    return false
  }

  try {
    ECDH.convertKey(key, 'secp256k1')
    return true
  } catch {
    return false
  }
}
