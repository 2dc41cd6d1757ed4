//! A peer that has authenticated, and then says inside of DTLS whatever it likes: SCTP by hand.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MY_TAG: u32 = 7;
const FIRST_TSN: u32 = 1000;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const RECONFIG: u8 = 130;
const FORWARD_TSN: u8 = 192;

/// RFC 9260, section 3.3.3.1.
const STATE_COOKIE: u16 = 7;

/// A fragment of a message is its first and its last.
const WHOLE: u8 = 3;
const BEGINNING: u8 = 2;
const MIDDLE: u8 = 0;
/// It is to be acknowledged without delay (RFC 7053).
const AT_ONCE: u8 = 8;

struct Peer {
    dtls: Library,
    victim: End,
    now: Instant,
    /// What the victim's packets ask for.
    tag: u32,
    cookie: Vec<u8>,
    next: u32,
    /// Numbers of messages, by stream.
    messages: HashMap<u16, u16>,
    /// Chunks of the victim: types and values.
    heard: Vec<(u8, Vec<u8>)>,
    /// Its application data that is no packet of SCTP.
    records: Vec<Vec<u8>>,
}

impl Peer {
    /// The handshake is done, and nothing more.
    fn authenticated() -> Self {
        let now = Instant::now();
        let own = Credentials::with_extensions(1).own();
        let identity = DtlsIdentity::with_certificate(own, settings()).unwrap();
        let mut dtls = identity.dtls(now, 1232, false).unwrap();
        dtls.begin_as_client();
        dtls.handle_timeout(now).unwrap();
        let mut peer = Self {
            dtls,
            victim: End::new(false, now),
            now,
            tag: 0,
            cookie: Vec::new(),
            next: FIRST_TSN,
            messages: HashMap::new(),
            heard: Vec::new(),
            records: Vec::new(),
        };
        peer.exchange();
        assert!(peer.victim.is_secured());
        peer
    }

    fn associated() -> Self {
        let mut peer = Self::authenticated();
        peer.init(MY_TAG);
        peer.chunk(COOKIE_ECHO, 0, &peer.cookie.clone());
        assert!(peer.heard.iter().any(|(kind, _)| *kind == COOKIE_ACK));
        peer
    }

    fn exchange(&mut self) {
        for _ in 0..1000 {
            let mut is_quiet = true;
            let mut buf = vec![0; 1 << 16];
            loop {
                match self.dtls.poll_output(&mut buf).expect("it is sound") {
                    Output::Packet(packet) => {
                        is_quiet = false;
                        let packet = packet.to_vec();
                        self.victim.hear(self.now, &packet);
                    }
                    Output::ApplicationData(data) if data[0] != association::FIRST_BYTE => {
                        self.records.push(data.to_vec());
                    }
                    Output::ApplicationData(data) => {
                        let chunks = association::chunks(data);
                        let chunks = chunks.map(|(kind, value)| (kind, value.to_vec()));
                        self.heard.extend(chunks);
                    }
                    Output::Timeout(_) => break,
                    _ => {}
                }
            }
            for packet in self.victim.say(self.now) {
                is_quiet = false;
                // It may have ended on this side.
                let _ = self.dtls.handle_packet(&packet);
            }
            if let Some((_, value)) = self.heard.iter().find(|(kind, _)| *kind == INIT_ACK) {
                self.tag = u32::from_be_bytes(value[..4].try_into().unwrap());
                self.cookie = parameter(&value[16..], STATE_COOKIE);
            }
            if is_quiet {
                return;
            }
        }
        panic!("the victim never stops answering");
    }

    fn pass(&mut self, time: Duration) {
        for packet in self.victim.pass(&mut self.now, time) {
            let _ = self.dtls.handle_packet(&packet);
        }
        let _ = self.dtls.handle_timeout(self.now);
        self.exchange();
    }

    /// Application data of DTLS.
    fn say(&mut self, data: &[u8]) {
        let _ = self.dtls.send_application_data(data);
        self.exchange();
    }

    fn packet(&mut self, tag: u32, chunks: &[u8]) {
        let mut packet = vec![0x13, 0x88, 0x13, 0x88];
        packet.extend(tag.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(chunks);
        let checksum = crc32c::crc32c(&packet);
        packet[8..12].copy_from_slice(&checksum.to_le_bytes());
        self.say(&packet);
    }

    fn chunk(&mut self, kind: u8, flags: u8, value: &[u8]) {
        self.packet(self.tag, &chunk(kind, flags, value));
    }

    fn init(&mut self, tag: u32) {
        let mut value = tag.to_be_bytes().to_vec();
        value.extend((1u32 << 20).to_be_bytes());
        value.extend([0, 32, 0, 32]);
        value.extend(FIRST_TSN.to_be_bytes());
        // Stream resets and forward TSN (RFC 6525, RFC 3758).
        value.extend([0x80, 0x08, 0, 6, RECONFIG, FORWARD_TSN, 0, 0, 0xc0, 0, 0, 4]);
        self.packet(0, &chunk(INIT, 0, &value));
    }

    fn fragment(&mut self, stream: u16, flags: u8, content: &[u8]) {
        let number = self.messages.entry(stream).or_default();
        let mut value = self.next.to_be_bytes().to_vec();
        value.extend(stream.to_be_bytes());
        value.extend(number.to_be_bytes());
        value.extend(53u32.to_be_bytes());
        value.extend(content);
        self.next = self.next.wrapping_add(1);
        if flags & 1 == 1 {
            *number = number.wrapping_add(1);
        }
        self.chunk(DATA, flags, &value);
    }

    fn message(&mut self, stream: u16, message: &Message) {
        self.fragment(stream, WHOLE, &message.encode());
    }

    fn write(&mut self, stream: u16, payload: &'static [u8]) {
        self.message(stream, &Message::of_payload(Bytes::from_static(payload)));
    }

    /// Up to which fragment the victim has them all.
    fn acknowledged(&self) -> Option<u32> {
        let sacks = self.heard.iter().rev();
        let (_, value) = sacks.into_iter().find(|(kind, _)| *kind == SACK)?;
        Some(u32::from_be_bytes(value[..4].try_into().unwrap()))
    }

    fn is_intact(&mut self) -> bool {
        let before = self.victim.count(Kind::Datagram);
        self.say(&[DATAGRAM, 1, 2, 3]);
        self.victim.closed().is_none() && self.victim.count(Kind::Datagram) == before + 1
    }

    /// What must hold whatever the peer has said.
    fn check(&self) {
        let session = &self.victim.session;
        let settings = settings();
        assert!(session.streams.len() <= usize::from(settings.max_streams) * 2);
        assert!(session.unreceived.len() <= usize::from(settings.max_streams) * 2);
        assert!(session.starved_streams.len() <= session.streams.len());
        let held: usize = session.streams.values().map(|it| it.inbox_size).sum();
        assert_eq!(held, session.inbox_size);
        // The last message may be over it.
        assert!(held <= settings.receive_window as usize + (64 << 10));
        session.streams.values().for_each(check_inbox);
        assert!(session.received_size <= settings.datagram_receive_buffer);
        assert!(session.writing.len() <= 100 && session.unacknowledged.len() <= 100);
        assert!(session.packets.len() <= 2 * PACKET_BACKLOG);
        if let Some(association) = &session.association {
            association.backlog.check();
        }
    }
}

/// It takes about as much memory as it is said to hold.
fn check_inbox(stream: &Stream) {
    let buffers = stream.inbox.iter().map(BytesMut::capacity);
    let memory = buffers.sum::<usize>() + stream.inbox.capacity() * size_of::<BytesMut>();
    let most = 2 * stream.inbox_size + 4096;
    assert!(memory <= most, "{memory} of {most}");
}

/// The value of the first parameter of a type (RFC 9260, section 3.2.1).
fn parameter(mut parameters: &[u8], kind: u16) -> Vec<u8> {
    loop {
        let length = usize::from(u16::from_be_bytes([parameters[2], parameters[3]]));
        if parameters[..2] == kind.to_be_bytes() {
            return parameters[4..length].to_vec();
        }
        parameters = &parameters[length.next_multiple_of(4)..];
    }
}

fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut chunk = vec![kind, flags];
    chunk.extend((value.len() as u16 + 4).to_be_bytes());
    chunk.extend(value);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

#[test]
fn an_association_made_by_hand_is_one() {
    let mut peer = Peer::associated();
    peer.write(0, b"hello");
    assert_eq!(peer.victim.count(Kind::StreamOpened), 1);
    assert_eq!(peer.victim.count(Kind::StreamData), 1);
    assert!(peer.is_intact());
}

#[test]
fn a_message_that_is_none_ends_the_session() {
    for content in [
        &b"\xff\xff\xff\xff\xff\xff"[..],
        b"\x02\x12\xff",
        b"\x00\x00",
        b"\x05\x08\x00",
    ] {
        let mut peer = Peer::associated();
        peer.fragment(0, WHOLE, content);
        assert_eq!(peer.victim.closed(), Some(CloseCause::Failed));
    }
}

#[test]
fn a_stream_of_a_number_that_is_not_the_peers_ends_the_session() {
    for stream in [1, 31, 32, 33, 1000, u16::MAX] {
        let mut peer = Peer::associated();
        peer.write(stream, b"hello");
        assert_eq!(peer.victim.count(Kind::StreamOpened), 0);
        assert_eq!(peer.victim.closed(), Some(CloseCause::Failed));
    }
}

#[test]
fn a_limit_that_shrinks_is_not_heard() {
    let mut peer = Peer::associated();
    peer.write(0, b"hello");
    for limit in [1000, 10, 0] {
        peer.message(0, &Message::of_limit(limit));
    }
    let victim = &mut peer.victim;
    victim
        .session
        .write(0, vec![1; 5000].into(), &mut victim.out);
    victim.process(peer.now);
    assert_eq!(peer.victim.session.streams[&0].sent, 1000);
    assert!(peer.is_intact());
}

#[test]
fn the_ends_of_a_stream_in_any_order_and_again_end_that_stream_alone() {
    let flags = [Flag::Fin, Flag::FinAck, Flag::StopSending, Flag::Reset];
    for first in flags {
        for second in flags {
            let mut peer = Peer::associated();
            peer.write(0, b"hello");
            for flag in [first, second, first, second, Flag::Fin, Flag::Reset] {
                peer.message(0, &Message::of_flag(flag));
            }
            peer.write(0, b"more");
            let ends =
                peer.victim.count(Kind::StreamFinished) + peer.victim.count(Kind::StreamReset);
            assert!(ends <= 1, "{first:?} {second:?}");
            assert!(peer.victim.count(Kind::StreamStopped) <= 1);
            peer.check();
            assert!(peer.is_intact());
        }
    }
}

#[test]
fn a_message_without_end_is_not_kept() {
    let mut peer = Peer::associated();
    peer.fragment(0, BEGINNING, &[1; 1000]);
    for _ in 0..3000 {
        peer.fragment(0, MIDDLE, &[1; 1000]);
        if peer.victim.closed().is_some() {
            return;
        }
    }
    peer.pass(Duration::from_secs(1));
    let kept = peer.acknowledged().unwrap().wrapping_sub(FIRST_TSN) as usize * 1000;
    assert!(kept <= 2 * settings().receive_window as usize, "{kept}");
}

#[test]
fn what_a_reader_does_not_take_fills_no_more_than_the_window() {
    let mut peer = Peer::associated();
    for number in 0..4000u32 {
        peer.message(
            (number % 4) as u16 * 2,
            &Message::of_payload(vec![1; 1000].into()),
        );
    }
    peer.check();
    let kept = peer.acknowledged().unwrap().wrapping_sub(FIRST_TSN) as usize * 1000;
    let taken = 4 * settings().stream_receive_queue;
    assert!(
        kept <= taken + 2 * settings().receive_window as usize,
        "{kept}"
    );
}

#[test]
fn bytes_that_come_one_by_one_take_no_more_memory_than_others_while_they_wait() {
    let mut peer = Peer::associated();
    let large = vec![1; 1000];
    let mut sent = Vec::new();
    while sent.len() < settings().stream_receive_queue {
        peer.message(0, &Message::of_payload(large.clone().into()));
        sent.extend(&large);
    }
    for number in 0..20_000u32 {
        let payload = vec![number as u8];
        sent.extend(&payload);
        peer.message(0, &Message::of_payload(payload.into()));
    }
    peer.check();
    assert_eq!(peer.victim.session.streams[&0].inbox_size, 20_000);

    let victim = &mut peer.victim;
    victim
        .session
        .consumed(0, sent.len(), &mut victim.out, false);
    victim.process(peer.now);
    let data = peer.victim.batches.iter().flat_map(|batch| &batch.data);
    assert!(data.eq(&sent));
    assert!(peer.is_intact());
}

/// Takes what there is of a stream, so that there is always room.
fn take_all(peer: &mut Peer, stream: u64) {
    let victim = &mut peer.victim;
    victim
        .session
        .consumed(stream, 1 << 20, &mut victim.out, false);
    victim.process(peer.now);
    victim.batches.clear();
    if let Some(last) = peer.heard.iter().rposition(|(kind, _)| *kind == SACK) {
        peer.heard.drain(..last);
    }
}

/// How many numbers beyond those that it has all of the victim tells of.
fn told_beyond(peer: &Peer) -> usize {
    let sacks = peer.heard.iter().rev();
    let (_, value) = sacks.into_iter().find(|(kind, _)| *kind == SACK).unwrap();
    let gaps = usize::from(u16::from_be_bytes([value[8], value[9]]));
    let ends = value[12..12 + 4 * gaps].chunks_exact(4);
    ends.map(|it| {
        usize::from(u16::from_be_bytes([it[2], it[3]]) - u16::from_be_bytes([it[0], it[1]])) + 1
    })
    .sum()
}

#[test]
fn what_comes_behind_a_missing_message_is_not_kept_without_end() {
    let mut peer = Peer::associated();
    peer.write(0, b"hello");
    let missing = peer.next;
    let sent = vec![1; 1000];
    for stream in [2, 4] {
        peer.next = missing + 1;
        peer.messages.clear();
        for _ in 0..4_000 {
            peer.message(stream, &Message::of_payload(sent.clone().into()));
            take_all(&mut peer, stream.into());
        }
        // What may be under way is 1 MiB.
        let most = settings().receive_window as usize / 1000 + 1;
        assert!((most / 2..=most).contains(&told_beyond(&peer)));
    }
}

#[test]
fn what_was_not_kept_behind_a_missing_message_is_taken_when_it_comes_again() {
    let mut peer = Peer::associated();
    peer.write(0, b"hello");
    let missing = peer.next;
    peer.next += 1;
    for _ in 0..3_000 {
        peer.message(2, &Message::of_payload(vec![1; 1000].into()));
        take_all(&mut peer, 2);
    }
    peer.next = missing;
    peer.messages.insert(2, 0);
    peer.write(0, b"at last");
    for _ in 0..3_000 {
        peer.message(2, &Message::of_payload(vec![1; 1000].into()));
        take_all(&mut peer, 2);
    }
    peer.write(0, b"something to acknowledge");
    peer.pass(Duration::from_millis(300));
    assert_eq!(peer.acknowledged(), Some(peer.next - 1));
    assert!(peer.is_intact());
}

impl Peer {
    /// Send pieces as long as each is taken and the session is not over. Returns how many were taken.
    fn insist(&mut self, mut say: impl FnMut(&mut Self, u32)) -> u32 {
        for number in 0.. {
            let next = self.next;
            say(self, number);
            if self.acknowledged() != Some(next) {
                return number;
            }
        }
        unreachable!()
    }
}

#[test]
fn tiny_pieces_of_messages_without_end_are_not_kept_without_end() {
    let mut peer = Peer::associated();
    let taken = peer.insist(|peer, number| {
        let flags = if number < 16 { BEGINNING } else { MIDDLE };
        peer.fragment((number % 16 * 2) as u16, flags | AT_ONCE, &[1]);
    });
    assert_eq!(taken, 2 * backlog::MAX_PIECES as u32);
    assert!(peer.is_intact());
}

#[test]
fn tiny_messages_behind_one_that_never_comes_are_not_kept_without_end() {
    let mut peer = Peer::associated();
    let taken = peer.insist(|peer, number| {
        let stream = (number % 16 * 2) as u16;
        peer.messages.entry(stream).or_insert(1);
        peer.fragment(stream, WHOLE | AT_ONCE, b"!");
    });
    assert_eq!(taken, 2 * backlog::MAX_PIECES as u32);
    assert!(peer.is_intact());
}

#[test]
fn tiny_messages_that_a_reader_does_not_take_are_taken_later() {
    let mut peer = Peer::associated();
    let large = vec![1; 16_000];
    let mut sent = 0;
    // As much as is kept here, beside what waits in JavaScript.
    let room = settings().stream_receive_queue + settings().stream_receive_window as usize;
    while sent < room + large.len() {
        peer.message(0, &Message::of_payload(large.clone().into()));
        sent += large.len();
    }
    for _ in 0..20_000 {
        peer.write(0, b"!");
    }
    peer.check();
    let kept = peer.acknowledged().unwrap();
    assert!(peer.next - kept > 20_000 - backlog::MAX_PIECES as u32 - 200);

    for _ in 0..10 {
        take_all(&mut peer, 0);
    }
    let again = kept.wrapping_add(1);
    let count = peer.next - again;
    peer.next = again;
    *peer.messages.get_mut(&0).unwrap() -= count as u16;
    for _ in 0..count {
        peer.write(0, b"!");
        take_all(&mut peer, 0);
    }
    peer.write(0, b"!");
    peer.write(0, b"!");
    assert_eq!(peer.acknowledged(), Some(peer.next - 1));
    assert!(peer.is_intact());
}

#[test]
fn a_piece_of_a_message_without_content_ends_the_session() {
    let mut peer = Peer::associated();
    peer.fragment(0, BEGINNING, &[]);
    assert_eq!(peer.victim.closed(), Some(CloseCause::Failed));
}

#[test]
fn a_piece_of_a_message_inside_of_another_chunk_is_not_read() {
    let mut peer = Peer::associated();
    let mut value = peer.next.to_be_bytes().to_vec();
    value.extend([0, 0, 0, 0, 0, 0, 0, 53]);
    value.extend(b"\x03\x12\x01!");
    let data = chunk(DATA, WHOLE, &value);
    for (kind, value) in [
        (COOKIE_ACK, vec![]),
        (SACK, vec![0; 12]),
        (INIT_ACK, vec![0; 16]),
    ] {
        peer.chunk(kind, 0, &[value, data.clone()].concat());
        assert_eq!(peer.victim.count(Kind::StreamData), 0, "{kind}");
        assert!(peer.is_intact());
    }
    peer.write(0, b"!");
    assert_eq!(peer.victim.count(Kind::StreamData), 1);
}

fn end_stream(peer: &mut Peer, request: u32) {
    end_stream_of(peer, request, 0);
}

/// Say something on a stream, and end it, so that its number can be used again.
fn use_up(peer: &mut Peer, request: u32) {
    peer.write(0, b"hello");
    end_stream(peer, request);
    peer.messages.clear();
}

fn end_stream_of(peer: &mut Peer, request: u32, stream: u16) {
    let request = reset_of(FIRST_TSN + request, peer.next - 1, stream);
    peer.chunk(RECONFIG, 0, &request);
}

/// An outgoing reset of this stream (RFC 6525, section 4.1).
fn reset_of(number: u32, last: u32, stream: u16) -> Vec<u8> {
    let mut value = vec![0, 13, 0, 18];
    value.extend(number.to_be_bytes());
    value.extend([0; 4]);
    value.extend(last.to_be_bytes());
    value.extend(stream.to_be_bytes());
    value
}

/// Agree to whatever the victim has asked to end. Returns the streams.
fn agree(peer: &mut Peer) -> Vec<u8> {
    let mut streams = Vec::new();
    for (kind, value) in std::mem::take(&mut peer.heard) {
        if kind == RECONFIG && value.starts_with(&[0, 13]) {
            streams.extend(&value[16..]);
            let answer = [&[0, 16, 0, 12], &value[4..8], &[0, 0, 0, 1]].concat();
            peer.chunk(RECONFIG, 0, &answer);
        }
    }
    streams
}

/// The number of the last chunk of data that the victim has sent.
fn last_heard(peer: &Peer) -> u32 {
    let data = peer.heard.iter().rfind(|(kind, _)| *kind == DATA);
    u32::from_be_bytes(data.unwrap().1[..4].try_into().unwrap())
}

fn sack(number: u32) -> Vec<u8> {
    let value = [&number.to_be_bytes()[..], &[0, 16, 0, 0, 0, 0, 0, 0]].concat();
    chunk(SACK, 0, &value)
}

fn acknowledge(peer: &mut Peer, number: u32) {
    peer.packet(peer.tag, &sack(number));
}

#[test]
fn a_message_without_end_ends_with_its_stream() {
    let mut peer = Peer::associated();
    peer.fragment(0, BEGINNING, &[1]);
    for request in 0..1000 {
        end_stream(&mut peer, request);
    }
    agree(&mut peer);
    peer.messages.clear();
    peer.write(0, b"hello");
    assert_eq!(peer.victim.count(Kind::StreamData), 1);
    assert!(peer.is_intact());
}

#[test]
fn a_stream_that_is_ended_and_used_without_agreeing_to_its_end_ends_the_session() {
    let mut peer = Peer::associated();
    for request in 0..100 {
        use_up(&mut peer, request);
    }
    assert_eq!(peer.victim.closed(), Some(CloseCause::Failed));
}

#[test]
fn what_is_written_before_the_peer_agrees_to_the_end_of_the_stream_before_is_sent_afterwards() {
    let mut peer = Peer::associated();
    use_up(&mut peer, 0);
    peer.write(0, b"anew");
    let victim = &mut peer.victim;
    for payload in ["one", "two"] {
        let payload = Bytes::from_static(payload.as_bytes());
        victim.session.write(0, payload, &mut victim.out);
        victim.process(peer.now);
    }
    peer.exchange();
    let said = |peer: &Peer| {
        let data = peer.heard.iter().filter(|(kind, _)| *kind == DATA);
        data.map(|(_, value)| value[value.len() - 3..].to_vec())
            .collect::<Vec<_>>()
    };
    assert!(said(&peer).is_empty());

    agree(&mut peer);
    assert_eq!(said(&peer), [b"one", b"two"]);
    assert!(peer.is_intact());
}

/// Requests of RFC 6525 (sections 4.2, 4.3, 4.5, 4.6) that data channels have no use for.
const INCOMING_RESET: u8 = 14;
const TSN_RESET: u8 = 15;
const ADD_OUTGOING: u8 = 17;
const ADD_INCOMING: u8 = 18;

fn other_request(kind: u8, request: u32) -> Vec<u8> {
    let more: &[u8] = match kind {
        INCOMING_RESET => &[0, 0, 0, 2],
        ADD_OUTGOING | ADD_INCOMING => &[0, 16, 0, 0],
        _ => &[],
    };
    let number = (FIRST_TSN + request).to_be_bytes();
    [&[0, kind, 0, 8 + more.len() as u8], &number[..], more].concat()
}

/// The victim's answers to requests since it was last asked: which, and results (RFC 6525, section 4.4).
fn answers(peer: &mut Peer) -> Vec<(u32, u8)> {
    let heard = std::mem::take(&mut peer.heard).into_iter();
    let answers =
        heard.filter(|(kind, value)| *kind == RECONFIG && value.starts_with(&[0, 16, 0, 12]));
    answers
        .map(|(_, value)| {
            let number = u32::from_be_bytes(value[4..8].try_into().unwrap());
            (number - FIRST_TSN, value[11])
        })
        .collect()
}

const PERFORMED: u8 = 1;
const DENIED: u8 = 2;
const ALREADY_IN_PROGRESS: u8 = 4;
const BAD_NUMBER: u8 = 5;

#[test]
fn a_request_for_anything_but_the_end_of_streams_is_denied_and_the_next_one_is_heard() {
    for kind in [INCOMING_RESET, TSN_RESET, ADD_OUTGOING, ADD_INCOMING] {
        let mut peer = Peer::associated();
        peer.write(0, b"hello");
        for _ in 0..2 {
            peer.chunk(RECONFIG, 0, &other_request(kind, 0));
            assert_eq!(answers(&mut peer), [(0, DENIED)]);
        }
        end_stream(&mut peer, 1);
        assert_eq!(answers(&mut peer), [(1, PERFORMED)]);
        assert!(peer.is_intact());
    }
}

#[test]
fn two_requests_in_a_chunk_are_denied_both() {
    let mut peer = Peer::associated();
    let both = [
        other_request(ADD_OUTGOING, 0),
        other_request(ADD_INCOMING, 1),
    ];
    for _ in 0..2 {
        peer.chunk(RECONFIG, 0, &both.concat());
        assert_eq!(answers(&mut peer), [(0, DENIED), (1, DENIED)]);
    }
}

#[test]
fn the_end_of_a_stream_is_performed_beside_a_request_that_is_denied() {
    let mut peer = Peer::associated();
    peer.write(0, b"hello");
    let mut both = reset_of(FIRST_TSN, peer.next - 1, 0);
    both.extend([0, 0]);
    both.extend(other_request(INCOMING_RESET, 1));
    peer.chunk(RECONFIG, 0, &both);
    assert_eq!(answers(&mut peer), [(0, PERFORMED), (1, DENIED)]);
}

#[test]
fn a_request_that_is_not_the_next_one_is_wrong_before_it_is_denied() {
    let mut peer = Peer::associated();
    peer.chunk(RECONFIG, 0, &other_request(ADD_OUTGOING, 7));
    assert_eq!(answers(&mut peer), [(7, BAD_NUMBER)]);

    // A message is missing, until which the end of its stream waits.
    peer.next += 1;
    end_stream(&mut peer, 0);
    answers(&mut peer);
    peer.chunk(RECONFIG, 0, &other_request(ADD_OUTGOING, 1));
    assert_eq!(answers(&mut peer), [(1, ALREADY_IN_PROGRESS)]);
}

#[test]
fn a_request_that_is_denied_answers_none_of_the_victims() {
    let mut peer = Peer::associated();
    peer.write(0, b"hello");
    end_stream(&mut peer, 0);
    peer.chunk(RECONFIG, 0, &other_request(ADD_OUTGOING, 1));
    let ends_none = |peer: &Peer| {
        peer.victim
            .session
            .association
            .as_ref()
            .unwrap()
            .ends_none()
    };
    assert!(!ends_none(&peer));
    assert_eq!(agree(&mut peer), [0, 0]);
    assert!(ends_none(&peer));
}

#[test]
fn of_requests_that_are_denied_one_of_a_packet_is_answered_and_the_others_are_counted() {
    let mut peer = Peer::associated();
    let requests = (0..50).map(|it| chunk(RECONFIG, 0, &other_request(TSN_RESET, it)));
    let requests: Vec<u8> = requests.flatten().collect();
    peer.packet(peer.tag, &requests);
    assert_eq!(answers(&mut peer), [(0, DENIED)]);
    assert_eq!(peer.victim.session.take_left_out().ignored, 49);
}

#[test]
fn what_comes_on_a_stream_before_its_end_is_answered_is_as_good_as_lost() {
    let mut peer = Peer::associated();
    peer.write(0, b"hello");
    let missing = peer.next;
    peer.next += 1;
    end_stream(&mut peer, 0);
    peer.messages.clear();
    for _ in 0..2 {
        peer.next = missing + 1;
        peer.messages.clear();
        peer.write(0, b"anew");
        assert_eq!(peer.victim.count(Kind::StreamData), 1);
    }
    assert_eq!(peer.victim.session.take_left_out().ignored, 2);

    peer.next = missing;
    peer.messages.insert(0, 1);
    peer.write(0, b"at last");
    agree(&mut peer);
    peer.messages.clear();
    peer.write(0, b"anew");
    assert_eq!(peer.victim.count(Kind::StreamOpened), 2);
    assert!(peer.is_intact());
}

#[test]
fn a_request_that_was_refused_does_not_count() {
    let mut peer = Peer::associated();
    use_up(&mut peer, 0);
    agree(&mut peer);
    // None of these numbers is the next.
    for request in 100..200 {
        peer.write(2, b"hello");
        end_stream_of(&mut peer, request, 2);
    }
    assert!(peer.is_intact());
    assert_eq!(peer.victim.count(Kind::StreamData), 101);
}

#[test]
fn a_stream_that_is_reset_is_read_on_until_the_peer_has_no_more_to_say() {
    for end in [Flag::Fin, Flag::Reset] {
        let mut peer = Peer::associated();
        peer.write(0, b"hello");
        peer.victim.session.reset(0);
        peer.exchange();
        let last = last_heard(&peer);
        let payload = Bytes::from(vec![1; 16_000]);
        // More than has room in the window of all.
        for _ in 0..100 {
            peer.message(0, &Message::of_payload(payload.clone()));
        }
        peer.pass(Duration::from_millis(300));
        assert_eq!(peer.acknowledged(), Some(peer.next - 1));
        assert_eq!(agree(&mut peer), []);

        peer.message(0, &Message::of_flag(end));
        acknowledge(&mut peer, last);
        assert!(peer.victim.session.abandoned.is_empty());
        assert_eq!(agree(&mut peer), []);
        // Who opened it ends it.
        end_stream(&mut peer, 0);
        assert_eq!(agree(&mut peer), [0, 0]);
        assert!(peer.is_intact());
    }
}

#[test]
fn what_waits_for_room_is_read_when_nobody_wants_it_any_more() {
    for give_up in [
        DtlsSession::stop as fn(&mut DtlsSession, u64),
        DtlsSession::reset,
    ] {
        let mut peer = Peer::associated();
        let payload = Bytes::from(vec![1; 16_000]);
        for _ in 0..40 {
            peer.message(0, &Message::of_payload(payload.clone()));
        }
        assert!(!peer.victim.session.unreceived.is_empty());

        give_up(&mut peer.victim.session, 0);
        peer.exchange();
        assert!(peer.victim.session.unreceived.is_empty());
        peer.pass(Duration::from_millis(300));
        assert!(peer.is_intact());
        let association = peer.victim.session.association.as_ref().unwrap();
        assert!(association.backlog.is_empty());
    }
}

#[test]
fn data_before_the_association_is_there_is_as_good_as_lost() {
    let mut peer = Peer::authenticated();
    peer.init(MY_TAG);
    for _ in 0..100 {
        peer.write(0, b"hello");
    }
    peer.chunk(COOKIE_ECHO, 0, &peer.cookie.clone());
    assert_eq!(peer.victim.count(Kind::StreamData), 0);
    assert_eq!(peer.acknowledged(), None);
    peer.next = FIRST_TSN;
    peer.messages.clear();
    peer.write(0, b"hello");
    assert_eq!(peer.victim.count(Kind::StreamData), 1);
}

#[test]
fn data_along_with_the_cookie_is_taken() {
    let mut peer = Peer::authenticated();
    peer.init(MY_TAG);
    let mut value = FIRST_TSN.to_be_bytes().to_vec();
    value.extend([0, 0, 0, 0, 0, 0, 0, 53]);
    value.extend(b"\x03\x12\x01!");
    let chunks = [
        chunk(COOKIE_ECHO, 0, &peer.cookie.clone()),
        chunk(DATA, WHOLE, &value),
    ];
    peer.packet(peer.tag, &chunks.concat());
    assert_eq!(peer.victim.count(Kind::StreamData), 1);
}

#[test]
fn data_after_a_shutdown_is_not_kept() {
    let mut peer = Peer::associated();
    peer.chunk(SHUTDOWN, 0, &(FIRST_TSN - 1).to_be_bytes());
    peer.heard.clear();
    for _ in 0..100 {
        peer.write(0, b"hello");
    }
    assert_eq!(peer.victim.count(Kind::StreamData), 0);
    let association = peer.victim.session.association.as_ref();
    assert!(association.is_none_or(|it| it.backlog.is_empty()));
}

#[test]
fn another_init_before_the_cookie_is_not_heard() {
    let mut peer = Peer::authenticated();
    peer.init(MY_TAG);
    peer.heard.clear();
    peer.init(MY_TAG + 1);
    assert_eq!(peer.heard, []);
    peer.init(MY_TAG);
    assert!(peer.heard.iter().any(|(kind, _)| *kind == INIT_ACK));
}

#[test]
fn of_two_acknowledgements_in_a_packet_the_first_counts() {
    let mut peer = Peer::associated();
    peer.write(0, b"hello");
    let victim = &mut peer.victim;
    victim
        .session
        .write(0, vec![1; 100].into(), &mut victim.out);
    peer.exchange();
    let last = last_heard(&peer);
    let tag = peer.tag;
    let unacknowledged = |peer: &mut Peer| {
        let association = peer.victim.session.association.as_mut();
        association.unwrap().unacknowledged(0)
    };
    peer.packet(tag, &[sack(last.wrapping_sub(1)), sack(last)].concat());
    assert_ne!(unacknowledged(&mut peer), 0);
    assert_eq!(peer.victim.session.take_left_out().ignored, 1);
    acknowledge(&mut peer, last);
    assert_eq!(unacknowledged(&mut peer), 0);
}

#[test]
fn small_chunks_without_acknowledgement_are_so_many_and_the_rest_goes_together() {
    let mut peer = Peer::associated();
    peer.write(0, b"hello");
    let say = |peer: &mut Peer, payload: Vec<u8>| {
        let victim = &mut peer.victim;
        victim.session.write(0, payload.into(), &mut victim.out);
        peer.exchange();
    };
    // The congestion window grows.
    for _ in 0..50 {
        say(&mut peer, vec![1; 16_000]);
        let last = last_heard(&peer);
        acknowledge(&mut peer, last);
    }
    let last = last_heard(&peer);
    peer.heard.clear();
    for n in 0..20_000 {
        say(&mut peer, vec![n as u8]);
    }
    assert_eq!(last_heard(&peer).wrapping_sub(last), MAX_IN_FLIGHT as u32);
    acknowledge(&mut peer, last.wrapping_add(1));
    assert!(peer.heard.iter().any(|(_, value)| value.len() > 1000));
}

#[test]
fn a_panic_of_the_library_ends_the_session_and_no_other() {
    let mut peer = Peer::associated();
    peer.write(0, b"hello");
    let victim = &mut peer.victim.session;
    victim.association.as_mut().unwrap().break_it();
    peer.write(0, b"hello");
    assert_eq!(peer.victim.closed(), Some(CloseCause::Failed));
    peer.pass(Duration::from_secs(120));
    assert!(peer.victim.session.is_drained());
}

#[test]
fn small_pieces_are_not_kept_in_large_packets() {
    let mut peer = Peer::associated();
    let mut chunks = Vec::new();
    for size in [1, 1100, 1100, 1100, 1100, 1100, 1, 1] {
        let mut value = peer.next.to_be_bytes().to_vec();
        value.extend([0, 0, 0, 0, 0, 0, 0, 53]);
        value.extend(vec![1; size]);
        let flags = if chunks.is_empty() { BEGINNING } else { MIDDLE };
        chunks.extend(chunk(DATA, flags, &value));
        peer.next += 1;
    }
    let given = |peer: &mut Peer| {
        let association = peer.victim.session.association.as_mut().unwrap();
        std::mem::take(&mut association.given)
    };
    given(&mut peer);
    peer.packet(peer.tag, &chunks);
    let [header, small, large] = [12, 16 + 4, 16 + 1100];
    let small = header + small;
    assert_eq!(
        given(&mut peer),
        [small, header + 4 * large, header + large, small, small]
    );
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut peer = Peer::associated();
    peer.next += 1;
    peer.messages.insert(0, 1);
    // The last that is taken may be over it.
    let taken = settings().receive_window / 1000 + 1;
    for _ in 0..taken + 9 {
        peer.fragment(0, WHOLE, &[1; 1000]);
    }
    let left_out = LeftOut {
        overflow: 9,
        ignored: 0,
    };
    assert_eq!(peer.victim.session.take_left_out(), left_out);
}

#[test]
fn requests_to_end_streams_that_find_no_room_are_counted() {
    let mut peer = Peer::associated();
    let requests = (0..70).map(|request| chunk(RECONFIG, 0, &reset_of(FIRST_TSN + request, 0, 0)));
    let requests: Vec<u8> = requests.flatten().collect();
    peer.packet(peer.tag, &requests);
    assert_eq!(peer.victim.session.take_left_out().overflow, 6);
}

#[test]
fn what_is_of_no_use_is_counted() {
    let overlapping = [&[0; 8][..], &[0, 2, 0, 0], &[0, 2, 0, 9, 0, 2, 0, 9]].concat();
    let mut init = (MY_TAG + 1).to_be_bytes().to_vec();
    init.extend([0; 12]);
    for (kind, value) in [
        (INIT, init.clone()),
        (INIT_ACK, init),
        (SACK, overlapping),
        (HEARTBEAT_ACK, vec![]),
        (RECONFIG, vec![0, 13, 0, 4]),
        (FORWARD_TSN, FIRST_TSN.to_be_bytes().to_vec()),
        (64, vec![]),
    ] {
        let mut peer = Peer::associated();
        peer.chunk(kind, 0, &value);
        let left_out = LeftOut {
            overflow: 0,
            ignored: 1,
        };
        assert_eq!(peer.victim.session.take_left_out(), left_out, "{kind}");
    }
}

#[test]
fn a_packet_with_a_wrong_checksum_is_not_heard() {
    let mut peer = Peer::associated();
    let value = [1, 0, 0, 8, 1, 2, 3, 4];
    let mut packet = vec![0x13, 0x88, 0x13, 0x88];
    packet.extend(peer.tag.to_be_bytes());
    packet.extend([1, 2, 3, 4]);
    packet.extend(chunk(HEARTBEAT, 0, &value));
    peer.heard.clear();
    peer.say(&packet);
    assert_eq!(peer.heard, []);
    assert_eq!(peer.victim.session.take_left_out().ignored, 1);
    assert!(peer.is_intact());
}

#[test]
fn an_association_is_asked_for_once() {
    let mut peer = Peer::associated();
    for tag in 100..1100 {
        peer.init(tag);
    }
    assert!(peer.is_intact());
    let size = format!(
        "{:?}",
        peer.victim.session.association.as_ref().unwrap().endpoint
    )
    .len();
    assert!(size < 10_000, "{size}");
    assert!(peer.is_intact());
    peer.write(0, b"hello");
    assert_eq!(peer.victim.count(Kind::StreamData), 1);
}

/// As on a path with a round trip time above the retransmission timeout.
#[test]
fn a_cookie_that_comes_again_does_no_harm() {
    let mut peer = Peer::associated();
    for _ in 0..10 {
        peer.chunk(COOKIE_ECHO, 0, &peer.cookie.clone());
        assert!(peer.is_intact());
    }
    peer.write(0, b"hello");
    assert_eq!(peer.victim.count(Kind::StreamData), 1);
}

#[test]
fn an_init_that_comes_again_does_no_harm() {
    let mut peer = Peer::associated();
    for _ in 0..10 {
        peer.init(MY_TAG);
        assert!(peer.is_intact());
    }
    peer.write(0, b"hello");
    assert_eq!(peer.victim.count(Kind::StreamData), 1);
}

#[test]
fn an_abort_and_a_shutdown_end_the_session() {
    let mut peer = Peer::associated();
    peer.chunk(ABORT, 0, &[]);
    assert_eq!(peer.victim.closed(), Some(CloseCause::RemoteError));

    let mut peer = Peer::associated();
    peer.chunk(SHUTDOWN, 0, &(FIRST_TSN - 1).to_be_bytes());
    peer.pass(Duration::from_secs(120));
    assert!(peer.victim.closed().is_some());
    assert!(peer.victim.session.is_drained());
}

#[test]
fn a_heartbeat_is_answered_each_once() {
    let mut peer = Peer::associated();
    let before = peer.heard.len();
    for number in 0..50 {
        peer.chunk(HEARTBEAT, 0, &[0, 1, 0, 8, 0, 0, 0, number]);
    }
    let answers = peer.heard[before..].iter();
    let answers = answers.filter(|(kind, _)| *kind == HEARTBEAT_ACK).count();
    assert!(answers <= 50);
    peer.chunk(HEARTBEAT_ACK, 0, &[0, 1, 0, 12, 0, 0, 0, 0, 0, 0, 0, 9]);
    assert!(peer.is_intact());
}

#[test]
fn a_stream_that_is_used_again_and_again_leaves_nothing_behind() {
    let mut peer = Peer::associated();
    for request in 0..300u32 {
        peer.write(0, b"hello");
        end_stream(&mut peer, request);
        agree(&mut peer);
        peer.messages.clear();
        peer.check();
    }
    assert!(peer.is_intact());
}

#[derive(Clone, Debug)]
enum Op {
    Chunk(u8, u8, Vec<u8>),
    OtherTag(u8, Vec<u8>),
    Chunks(Vec<u8>),
    Fragment(u16, u8, Vec<u8>),
    Message(u16, Option<i32>, Option<u64>, usize),
    SkipNumbers(u32),
    Init(u32),
    Cookie,
    Say(Vec<u8>),
    Pass(u64),
    Open,
    Write(u64, usize),
    Finish(u64),
    Reset(u64),
    Stop(u64),
    Consumed(u64, usize),
    Close(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let kinds = prop_oneof![
        0..16u8,
        Just(RECONFIG),
        Just(FORWARD_TSN),
        Just(64),
        any::<u8>()
    ];
    let stream = 0..6u16;
    let any_stream = prop_oneof![4 => 0..6u16, 1 => any::<u16>()];
    let own = 0..6u64;
    prop_oneof![
        3 => (kinds.clone(), any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(kind, flags, value)| Op::Chunk(kind, flags, value)),
        1 => (kinds, vec(any::<u8>(), 0..40)).prop_map(|(kind, value)| Op::OtherTag(kind, value)),
        1 => vec(any::<u8>(), 0..60).prop_map(Op::Chunks),
        3 => (any_stream, 0..8u8, vec(any::<u8>(), 0..30)).prop_map(|(stream, flags, content)| Op::Fragment(stream, flags, content)),
        6 => (stream, proptest::option::of(-1..6i32), proptest::option::of(0..2_000u64), 0..1100usize)
            .prop_map(|(stream, flag, limit, size)| Op::Message(stream, flag, limit, size)),
        1 => any::<u32>().prop_map(Op::SkipNumbers),
        1 => prop_oneof![Just(MY_TAG), any::<u32>()].prop_map(Op::Init),
        1 => Just(Op::Cookie),
        1 => vec(any::<u8>(), 0..60).prop_map(Op::Say),
        3 => (0..20_000u64).prop_map(Op::Pass),
        2 => Just(Op::Open),
        2 => (own.clone(), 0..100_000usize).prop_map(|(stream, size)| Op::Write(stream, size)),
        1 => own.clone().prop_map(Op::Finish),
        1 => own.clone().prop_map(Op::Reset),
        1 => own.clone().prop_map(Op::Stop),
        1 => (own, 0..100_000usize).prop_map(|(stream, bytes)| Op::Consumed(stream, bytes)),
        1 => (0..8u8).prop_map(|it| Op::Close(it > 0)),
    ]
}

impl Peer {
    fn step(&mut self, op: Op) {
        let now = self.now;
        let (session, out) = (&mut self.victim.session, &mut self.victim.out);
        match op {
            Op::Chunk(kind, flags, value) => self.chunk(kind, flags, &value),
            Op::OtherTag(kind, value) => self.packet(0, &chunk(kind, 0, &value)),
            Op::Chunks(chunks) => self.packet(self.tag, &chunks),
            Op::Fragment(stream, flags, content) => self.fragment(stream, flags, &content),
            Op::Message(stream, flag, limit, size) => {
                let message = Message {
                    flag,
                    payload: (size > 0).then(|| vec![3; size].into()),
                    limit,
                };
                self.message(stream, &message);
            }
            Op::SkipNumbers(count) => self.next = self.next.wrapping_add(count),
            Op::Init(tag) => self.init(tag),
            Op::Cookie => self.chunk(COOKIE_ECHO, 0, &self.cookie.clone()),
            Op::Say(data) => self.say(&data),
            Op::Pass(milliseconds) => self.pass(Duration::from_millis(milliseconds)),
            Op::Open => session.open_stream(1, out),
            Op::Write(stream, size) => session.write(stream, vec![1; size].into(), out),
            Op::Finish(stream) => session.finish(stream, out),
            Op::Reset(stream) => session.reset(stream),
            Op::Stop(stream) => session.stop(stream),
            Op::Consumed(stream, bytes) => session.consumed(stream, bytes, out, false),
            Op::Close(orderly) => session.close(0, orderly, now, out),
        }
        self.exchange();
        self.check();
    }
}

#[test]
fn datagrams_are_sent_together_only_to_who_knows_what_that_is() {
    let mut peer = Peer::associated();
    // It shows that it does.
    assert_eq!(std::mem::take(&mut peer.records), [[DATAGRAMS]]);
    let mut sent_as = |announcement: &[u8]| {
        peer.say(announcement);
        for payload in [&b"ab"[..], b"", b"c", b"d"] {
            let payload = Bytes::from_static(payload);
            peer.victim.session.datagram(payload, &mut peer.victim.out);
        }
        peer.exchange();
        std::mem::take(&mut peer.records)
    };
    assert_eq!(
        sent_as(&[DATAGRAM, 0]),
        [&b"\0ab"[..], b"\0", b"\0c", b"\0d"]
    );
    assert_eq!(
        sent_as(&[DATAGRAMS]),
        [&b"\0ab"[..], b"\0", b"\x01\x01c\x01d"]
    );
}

#[test]
fn datagrams_that_are_none_end_the_session() {
    let mut peer = Peer::associated();
    peer.say(&[DATAGRAMS, 2, 8, 9, 1, 7, 0, 255]);
    assert_eq!(peer.victim.count(Kind::Datagram), 2);
    peer.say(&[DATAGRAMS, 2, 8]);
    assert_eq!(peer.victim.closed(), Some(CloseCause::Failed));
}

proptest! {
    #[test]
    fn whatever_an_authenticated_peer_says_leaves_the_session_sound(is_associated in prop::bool::weighted(0.9), ops in vec(op(), 1..60)) {
        let mut peer = if is_associated { Peer::associated() } else { Peer::authenticated() };
        for op in ops {
            peer.step(op);
        }
        let now = peer.now;
        peer.victim.session.close(0, false, now, &mut peer.victim.out);
        peer.pass(Duration::from_secs(60));
        peer.pass(Duration::from_secs(1));
        assert!(peer.victim.session.is_drained());
        let ends = peer.victim.notices().filter(|it| matches!(it, Notice::Closed { .. })).count();
        assert_eq!(ends, 1);
    }
}
