//! What a session of DTLS bears from those who are nobody yet, and from a peer that means ill.

use quinn_proto::EndpointConfig;

use super::*;
use crate::events::{Batch, RECORD};
use crate::tls::credentials::{Credentials, from_hex};

const A: ([u8; 4], u16) = ([10, 0, 0, 1], 4001);
const B: ([u8; 4], u16) = ([10, 0, 0, 2], 4002);

fn settings() -> DtlsSettings {
    DtlsSettings {
        idle_timeout: Duration::from_secs(30),
        keep_alive: Duration::from_secs(10),
        max_streams: 16,
        stream_receive_window: 1 << 18,
        receive_window: 1 << 20,
        send_window: 1 << 20,
        datagram_receive_buffer: 1 << 16,
        datagram_send_buffer: 1 << 16,
        stream_receive_queue: 1 << 18,
        max_packet_size: 1232,
        allow_dtls12: false,
    }
}

/// A session, and what it has said.
struct End {
    session: DtlsSession,
    endpoint: Endpoint,
    out: Events,
    batches: Vec<Batch>,
    wakings: usize,
}

impl End {
    fn new(is_initiator: bool, now: Instant) -> Self {
        let own = Credentials::with_extensions(1).own();
        let identity = Arc::new(DtlsIdentity::with_certificate(own, settings()).unwrap());
        let peer = Peer {
            remote: if is_initiator { B } else { A }.into(),
            local: None,
            max_udp_payload: 1452,
            max_probe_payload: 1452,
            guest: None,
        };
        let session = if is_initiator {
            DtlsSession::initiate(1, now, identity, peer)
        } else {
            DtlsSession::respond(1, now, identity, peer, false)
        };
        Self {
            session: session.unwrap(),
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None),
            out: Events::default(),
            batches: Vec::new(),
            wakings: 0,
        }
    }

    fn hear(&mut self, now: Instant, data: &[u8]) {
        self.session
            .handle_datagram(now, None, data, &mut self.out, false);
        self.process(now);
    }

    fn process(&mut self, now: Instant) {
        self.session
            .process(now, &mut self.endpoint, &mut self.out, &|_| false);
        while let Some(batch) = self.out.pop() {
            self.batches.push(batch);
        }
    }

    fn say(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut said = Vec::new();
        self.process(now);
        let mut buf = Vec::new();
        while let Some(transmit) = self.session.poll_transmit(now, 1, &mut buf) {
            said.push(buf[..transmit.size].to_vec());
            buf.clear();
        }
        said
    }

    /// Everything that is due in this time; returns what it said meanwhile.
    fn pass(&mut self, now: &mut Instant, time: Duration) -> Vec<Vec<u8>> {
        let end = *now + time;
        let mut said = self.say(*now);
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= end) {
            *now = at.max(*now);
            self.session.handle_timeout(*now);
            said.extend(self.say(*now));
            self.wakings += 1;
            assert!(self.wakings < 10_000, "waking never ends");
            if self.session.is_drained() {
                break;
            }
        }
        *now = end;
        said
    }

    fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.batches.iter().flat_map(|batch| &batch.notices)
    }

    fn is_secured(&self) -> bool {
        self.notices()
            .any(|it| matches!(it, Notice::Secured { .. }))
    }

    fn closed(&self) -> Option<CloseCause> {
        self.notices().find_map(|notice| match notice {
            Notice::Closed { cause, .. } => Some(*cause),
            _ => None,
        })
    }

    fn count(&self, kind: Kind) -> usize {
        self.batches
            .iter()
            .flat_map(|batch| batch.records.chunks_exact(RECORD))
            .filter(|record| record[0] == f64::from(kind as u8))
            .count()
    }
}

/// Two sessions that hear each other.
struct Pair {
    a: End,
    b: End,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            a: End::new(true, now),
            b: End::new(false, now),
            now,
        }
    }

    fn exchange(&mut self) {
        loop {
            let (from_a, from_b) = (self.a.say(self.now), self.b.say(self.now));
            if from_a.is_empty() && from_b.is_empty() {
                return;
            }
            from_a.iter().for_each(|it| self.b.hear(self.now, it));
            from_b.iter().for_each(|it| self.a.hear(self.now, it));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.exchange();
        loop {
            let next = [self.a.session.poll_timeout(), self.b.session.poll_timeout()];
            let next = next.into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            assert!(!self.a.session.is_drained() && !self.b.session.is_drained());
            self.a.session.handle_timeout(self.now);
            self.b.session.handle_timeout(self.now);
            self.exchange();
        }
        self.now = end;
    }

    fn secured() -> Self {
        let mut pair = Self::new();
        pair.run(Duration::from_secs(5));
        assert!(pair.a.is_secured() && pair.b.is_secured());
        pair
    }

    /// Whether datagrams get through both ways.
    fn works(&mut self) -> bool {
        let before = (self.a.count(Kind::Datagram), self.b.count(Kind::Datagram));
        for end in [&mut self.a, &mut self.b] {
            let payload = Bytes::from_static(b"still there");
            end.session.datagram(payload, &mut end.out);
        }
        self.run(Duration::from_secs(1));
        let after = (self.a.count(Kind::Datagram), self.b.count(Kind::Datagram));
        after == (before.0 + 1, before.1 + 1)
    }
}

/// A record in plain text (RFC 9147, section 4).
fn plain_record(kind: u8, epoch: u16, number: u16, content: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 254, 253];
    record.extend(epoch.to_be_bytes());
    record.extend([0, 0, 0, 0]);
    record.extend(number.to_be_bytes());
    record.extend((content.len() as u16).to_be_bytes());
    record.extend(content);
    record
}

/// A handshake message (RFC 9147, section 5.2).
fn handshake_message(kind: u8, number: u16, body: &[u8]) -> Vec<u8> {
    let length = &(body.len() as u32).to_be_bytes()[1..];
    let mut message = vec![kind];
    message.extend(length);
    message.extend(number.to_be_bytes());
    message.extend([0, 0, 0]);
    message.extend(length);
    message.extend(body);
    message
}

/// A handshake message in parts (RFC 9147, section 5.5).
fn fragments(message: &[u8]) -> Vec<Vec<u8>> {
    let (header, body) = message.split_at(12);
    let parts = body.chunks(1500).enumerate();
    parts
        .map(|(number, part)| {
            let mut fragment = header[..6].to_vec();
            fragment.extend(&(number as u32 * 1500).to_be_bytes()[1..]);
            fragment.extend(&(part.len() as u32).to_be_bytes()[1..]);
            fragment.extend(part);
            fragment
        })
        .collect()
}

/// The body of a HelloRetryRequest with so large a cookie (RFC 8446, section 4.1.4).
fn hello_retry_request(cookie: usize) -> Vec<u8> {
    let mut body = vec![254, 253];
    body.extend(from_hex(
        "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c",
    ));
    // No session id, TLS_AES_128_GCM_SHA256, no compression.
    body.extend([0, 0x13, 1, 0]);
    let mut extensions = vec![0, 43, 0, 2, 254, 252, 0, 44];
    extensions.extend((cookie as u16 + 2).to_be_bytes());
    extensions.extend((cookie as u16).to_be_bytes());
    extensions.extend(vec![7; cookie]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    body
}

/// All that somebody can send who knows no more than both addresses.
fn forgeries() -> Vec<Vec<u8>> {
    let mut forgeries = Vec::new();
    let stranger = End::new(true, Instant::now()).session.prepare().remove(0);
    forgeries.push(stranger.clone());
    // As a later record, behind one that says nothing.
    forgeries.push([plain_record(26, 0, 1, &[0, 0]), stranger].concat());
    for epoch in 0..4 {
        for alert in [[1, 0], [2, 0], [2, 10], [2, 40], [1, 90], [2, 255]] {
            forgeries.push(plain_record(21, epoch, 1, &alert));
        }
        forgeries.push(plain_record(20, epoch, 2, &[1]));
        forgeries.push(plain_record(26, epoch, 3, &[0, 0]));
        let mut ack = vec![0, 16];
        ack.extend([0; 16]);
        forgeries.push(plain_record(26, epoch, 4, &ack));
        for kind in 0..=25 {
            for number in 0..9 {
                for body in [&[][..], &[0; 3], &[7; 90]] {
                    let message = handshake_message(kind, number, body);
                    forgeries.push(plain_record(22, epoch, 5, &message));
                }
            }
        }
    }
    for first in 20..64 {
        for length in [1, 2, 5, 13, 14, 17, 25, 40, 300, 1200] {
            for filling in [0, 1, 0x55, 255] {
                let mut garbage = vec![filling; length];
                garbage[0] = first;
                forgeries.push(garbage);
            }
        }
    }
    forgeries
}

#[test]
fn a_session_survives_whatever_can_be_said_without_its_keys() {
    let mut pair = Pair::secured();
    for forgery in forgeries() {
        pair.a.hear(pair.now, &forgery);
        pair.b.hear(pair.now, &forgery);
    }
    pair.run(Duration::from_secs(5));
    assert!(pair.a.closed().is_none() && pair.b.closed().is_none());
    assert!(pair.works());
}

#[test]
fn a_responder_completes_its_handshake_whatever_is_said_without_its_keys() {
    let mut pair = Pair::new();
    let first_flight = pair.a.say(pair.now);
    first_flight.iter().for_each(|it| pair.b.hear(pair.now, it));
    for forgery in forgeries() {
        pair.b.hear(pair.now, &forgery);
    }
    pair.run(Duration::from_secs(20));
    assert!(pair.a.is_secured() && pair.b.is_secured());
    assert!(pair.works());
}

#[test]
fn an_initiator_minds_nothing_but_the_answer_of_a_responder() {
    let mut pair = Pair::new();
    for forgery in forgeries() {
        let is_answer = matches!(forgery.get(13), Some(2 | 3)) && forgery[0] == 22;
        if !is_answer {
            pair.a.hear(pair.now, &forgery);
        }
    }
    pair.run(Duration::from_secs(20));
    assert!(pair.a.is_secured() && pair.b.is_secured());
    assert!(pair.works());
}

/// Of DTLS 1.2 an encrypted record begins with a nonce (RFC 5288, section 3), which may look like a message's type.
#[test]
fn what_is_encrypted_is_not_read_as_a_message() {
    for first in 0..=255 {
        let nonce_and_more = [vec![first], vec![200; 39]].concat();
        let finished = [
            plain_record(20, 0, 6, &[1]),
            plain_record(22, 1, 0, &nonce_and_more),
        ]
        .concat();
        let is_taken = |version| record::is_for_initiator(&finished, Some(version));
        assert!(is_taken(ProtocolVersion::DTLS1_2), "{first}");
        assert!(!is_taken(ProtocolVersion::DTLS1_3), "{first}");
    }
}

#[test]
fn nothing_without_keys_ends_an_initiator_in_a_panic() {
    for size in [0, 1, 200, 3000, 20_000, 60_000] {
        let mut now = Instant::now();
        let mut end = End::new(true, now);
        let message = handshake_message(2, 0, &hello_retry_request(size));
        for fragment in fragments(&message) {
            end.hear(now, &plain_record(22, 0, 0, &fragment));
        }
        end.pass(&mut now, Duration::from_secs(60));
    }
}

#[test]
fn a_message_that_stays_missing_keeps_nobody_awake() {
    let mut pair = Pair::new();
    let first_flight = pair.a.say(pair.now);
    first_flight.iter().for_each(|it| pair.b.hear(pair.now, it));
    let answer = pair.b.say(pair.now).remove(0);
    let mut now = pair.now;

    // The first record behind the ServerHello is changed: those behind it are there.
    let mut changed = answer.clone();
    let hello = 13 + usize::from(u16::from_be_bytes([changed[11], changed[12]]));
    changed[hello + 10] ^= 1;
    pair.a.hear(now, &changed);
    let said = pair.a.pass(&mut now, Duration::from_secs(10));
    assert!(pair.a.wakings < 150 && said.len() < 150);

    // It gets them all in the end, and changes what it says the same way.
    now = pair.now + Duration::from_secs(10);
    pair.a.hear(now, &answer);
    for mut datagram in pair.a.say(now) {
        datagram[20] ^= 1;
        pair.b.hear(now, &datagram);
    }
    let said = pair.b.pass(&mut now, Duration::from_secs(10));
    assert!(pair.b.wakings < 150 && said.len() < 150);
}

#[test]
fn a_client_that_has_not_proved_its_address_is_sent_three_times_its_bytes_at_most() {
    let mut pair = Pair::new();
    let mut heard = 0;
    for datagram in pair.a.say(pair.now) {
        heard += datagram.len();
        pair.b.hear(pair.now, &datagram);
    }
    let said = pair.b.pass(&mut pair.now, Duration::from_secs(300));
    assert!(said.iter().map(Vec::len).sum::<usize>() <= 3 * heard);
}

#[test]
fn the_limit_of_what_an_unproved_address_is_sent_costs_an_honest_client_no_time() {
    let mut pair = Pair::new();
    pair.exchange();
    assert!(pair.a.is_secured() && pair.b.is_secured());
}

mod peer;
mod streams;
