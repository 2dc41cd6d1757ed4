//! What can be told of a datagram of DTLS from outside (RFC 9147, section 4.1; RFC 6347, section 4.1).

use dimpl::ProtocolVersion;

/// A record's header in plain text: type, version, epoch, sequence number, length.
const HEADER: usize = 13;
/// A handshake message's: type, length, message sequence, fragment offset, fragment length.
const MESSAGE_HEADER: usize = 12;
const RANDOM: usize = 32;

const HANDSHAKE: u8 = 22;
/// The random of a ServerHello that is a HelloRetryRequest (RFC 8446, section 4.1.3).
const RETRY_RANDOM: [u8; RANDOM] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;

/// The first byte of a protected record's header (RFC 9147, section 4).
const PROTECTED_MASK: u8 = 0b1110_0000;
const PROTECTED: u8 = 0b0010_0000;
const HAS_LONG_NUMBER: u8 = 0b0000_1000;
const HAS_LENGTH: u8 = 0b0000_0100;

/// The most bytes of an answer to a ClientHello. Of a retry the client repeats the cookie, and the DTLS library has no more room
/// than for a flight of twelve records.
const MAX_ANSWER: usize = 2048;

/// Whether a datagram is of DTLS, by its first byte (RFC 9443, section 3).
pub fn is_record(data: &[u8]) -> bool {
    data.first().is_some_and(|first| (20..64).contains(first))
}

/// The random of the ClientHello that a datagram begins with: what tells one handshake from the next.
pub fn client_random(data: &[u8]) -> Option<[u8; RANDOM]> {
    random_of(data, CLIENT_HELLO)
}

/// The random of the ServerHello that a datagram begins with: what tells the answer to one ClientHello from that to the next.
pub fn server_random(data: &[u8]) -> Option<[u8; RANDOM]> {
    random_of(data, SERVER_HELLO).filter(|random| *random != RETRY_RANDOM)
}

fn random_of(data: &[u8], hello: u8) -> Option<[u8; RANDOM]> {
    if message_type(data)? != hello {
        return None;
    }
    let offset = data.get(HEADER + 6..HEADER + 9)?;
    if offset != [0, 0, 0] {
        return None;
    }
    let at = HEADER + MESSAGE_HEADER + 2;
    data.get(at..at + RANDOM)?.try_into().ok()
}

/// Whether an initiator can take a datagram: everything in plain text may be forged by whoever knows the addresses, and of a server
/// it needs no more than the answer to its ClientHello. `version` is the one agreed on.
pub fn is_for_initiator(data: &[u8], version: Option<ProtocolVersion>) -> bool {
    let has_answer = message_type(data).is_some_and(is_answer);
    let mut has_others = false;
    let mut has_too_large = false;
    for Record {
        kind,
        epoch,
        content,
    } in unprotected_headers(data)
    {
        if kind != HANDSHAKE || epoch != 0 {
            has_others = true;
            continue;
        }
        for (kind, length) in messages(content) {
            has_others |= !is_answer(kind);
            has_too_large |= is_answer(kind) && length > MAX_ANSWER;
        }
    }
    let is_expected = match version {
        None => has_answer,
        Some(ProtocolVersion::DTLS1_3) => !has_others,
        Some(_) => true,
    };
    is_expected && !has_too_large
}

fn is_answer(message: u8) -> bool {
    matches!(message, SERVER_HELLO | HELLO_VERIFY_REQUEST)
}

/// A record with a header in plain text. Its content is so in epoch 0 only: DTLS 1.2 has no other headers.
struct Record<'a> {
    kind: u8,
    epoch: u16,
    content: &'a [u8],
}

/// The records of a datagram that have a header in plain text.
fn unprotected_headers(data: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = data;
    std::iter::from_fn(move || {
        loop {
            let first = *rest.first()?;
            let header = if first & PROTECTED_MASK != PROTECTED {
                HEADER
            } else if first & HAS_LENGTH == 0 {
                return None;
            } else {
                4 + usize::from(first & HAS_LONG_NUMBER != 0)
            };
            let length = rest.get(header - 2..header)?;
            let end = header + usize::from(u16::from_be_bytes([length[0], length[1]]));
            let content = rest.get(header..end)?;
            let epoch = (header == HEADER).then(|| u16::from_be_bytes([rest[3], rest[4]]));
            rest = &rest[end..];
            if let Some(epoch) = epoch {
                return Some(Record {
                    kind: first,
                    epoch,
                    content,
                });
            }
        }
    })
}

/// The handshake messages in a record: their types, and their lengths, of which it may have a part.
fn messages(content: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let mut rest = content;
    std::iter::from_fn(move || {
        let header = rest.get(..MESSAGE_HEADER)?;
        let length = |at| {
            usize::from(header[at]) << 16
                | usize::from(header[at + 1]) << 8
                | usize::from(header[at + 2])
        };
        rest = rest.get(MESSAGE_HEADER + length(9)..).unwrap_or_default();
        Some((header[0], length(1)))
    })
}

/// The type of the handshake message that a datagram begins with, if that is not encrypted.
fn message_type(data: &[u8]) -> Option<u8> {
    let epoch = data.get(3..5)?;
    (data[0] == HANDSHAKE && epoch == [0, 0]).then(|| data.get(HEADER).copied())?
}
