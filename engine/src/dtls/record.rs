//! What can be told of a datagram of DTLS from outside (RFC 9147, section 4.1; RFC 6347, section 4.1).

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

/// Whether a datagram begins with what a server can answer to a ClientHello.
pub fn is_server_answer(data: &[u8]) -> bool {
    matches!(
        message_type(data),
        Some(SERVER_HELLO | HELLO_VERIFY_REQUEST)
    )
}

/// The type of the handshake message that a datagram begins with, if that is not encrypted.
fn message_type(data: &[u8]) -> Option<u8> {
    let epoch = data.get(3..5)?;
    (data[0] == HANDSHAKE && epoch == [0, 0]).then(|| data.get(HEADER).copied())?
}
