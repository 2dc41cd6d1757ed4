//! The SCTP association inside of a DTLS session (RFC 8261), one packet in each record. Sans-IO.
//!
//! `sctp-proto` does the protocol. What it has no means for is done here beside it: heartbeats (RFC 9260, section 8.3), an
//! abort with a code, to know how much of what was written has not been sent yet, and to keep to the size of packets.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use sctp_proto::{
    AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ServerConfig, Stream, StreamEvent, TransportConfig,
};

use super::backlog::{Backlog, Piece, is_behind};
use super::endings::{DENIED, Endings, MAX_RESETS, PERFORMED, Request};

/// RFC 8261, section 4.4: both ports, and the first byte of every packet.
const PORT: u16 = 5000;
pub const FIRST_BYTE: u8 = (PORT >> 8) as u8;

const COMMON_HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;
const DATA_HEADER: usize = 16;
const DATA_VALUE: usize = DATA_HEADER - CHUNK_HEADER;
/// What INIT and INIT ACK have before their parameters.
const INIT_VALUE: usize = 16;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const SHUTDOWN_COMPLETE: u8 = 14;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const RECONFIG: u8 = 130;

/// Parameters (RFC 9260, section 3.3.5; RFC 6525, section 4).
const HEARTBEAT_INFO: u16 = 1;
const OUTGOING_RESET: u16 = 13;
const INCOMING_RESET: u16 = 14;
const TSN_RESET: u16 = 15;
const RECONFIG_RESPONSE: u16 = 16;
const ADD_OUTGOING: u16 = 17;
const ADD_INCOMING: u16 = 18;

/// There are 65,535 streams at most (RFC 9260, section 3.3.2), so none has this number.
const NO_STREAM: u16 = u16::MAX;

/// RFC 9260, section 3.3.10.12.
const USER_INITIATED_ABORT: u16 = 12;
/// What the number of a probe has beside it in a heartbeat: they are counted apart, since a probe's loss says nothing of congestion
/// (RFC 8899, section 3).
const PROBE: u64 = 1 << 63;

/// A chunk's flag: whoever gets it is to acknowledge at once (RFC 7053).
const IMMEDIATE: u8 = 8;

/// Retransmission timeouts in milliseconds. RFC 9260 (section 16) has a second for the lowest, of times when clocks were coarse; a delayed
/// acknowledgement takes 200 ms.
const RTO_INITIAL: u64 = 500;
const RTO_MIN: u64 = 300;
const RTO_MAX: u64 = 10_000;

/// Chunks of data that the library gets together: for as long as it keeps one piece of a message it keeps the whole packet that it got. Small
/// ones it gets alone; so each piece keeps four times as much at most.
const MAX_SHARING: usize = 4;
const MIN_SHARING: usize = 1024;

/// How many streams are ended at a time: they share a chunk, that has to fit any packet.
const MAX_RESETTING: usize = 256;

/// A message of a remote's may be as large as this: our own are of 16 KiB at most, as the specification wants.
const MAX_REMOTE_MESSAGE: u32 = 64 * 1024;

/// What a packet said to this layer.
#[derive(Debug, PartialEq, Eq)]
pub enum Signal {
    /// Nobody who keeps to the protocol sends that
    Violation(&'static str),
    /// The answer to the heartbeat of this number
    Alive(u64),
    /// The answer to the probe of this number
    Carried(u64),
    /// The remote ended the session with this error code
    Aborted(u32),
}

/// Chunks of the remote's that the library did not get, though nobody was told.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// There was no room for them.
    pub overflow: u64,
    /// Nobody who keeps to the protocol sends them, or they were of no use any more, or yet.
    pub ignored: u64,
}

pub struct Association {
    pub(super) endpoint: Endpoint,
    remote: SocketAddr,
    transport: Arc<TransportConfig>,
    inner: Option<(AssociationHandle, sctp_proto::Association)>,
    packet_size: usize,
    /// What it was at first: the path carries that.
    base_size: usize,
    max_streams: u16,
    /// What the remote's INIT or INIT ACK begins with: its tag, with which our packets are addressed, its window, its numbers of streams, and
    /// that of its first chunk of data.
    init: Option<[u8; INIT_VALUE]>,
    /// The remote has its answer to INIT: one that comes now was under way for longer, and means nothing any more. (The library
    /// would take it for the end, other than RFC 9260, section 5.2.2.)
    has_cookie: bool,
    /// The remote has ended the association in order.
    is_shut_down: bool,
    /// The last number of a chunk of data that was sent, and up to which the remote has all.
    last_sent: Option<u32>,
    acknowledged: u32,
    unsent: usize,
    /// Messages for streams that can't be written to yet.
    unwritten: HashMap<u16, VecDeque<Bytes>>,
    receive_window: u32,
    pub(super) backlog: Backlog,
    endings: Endings,
    /// The numbers of the requests in the last chunk of those that are denied.
    denied: Vec<u32>,
    /// The number of this side's last request.
    last_request: u32,
    /// Streams that this side ends, those that it has asked for, and those that wait for them.
    resetting: HashSet<u16>,
    to_reset: VecDeque<u16>,
    /// A timer has run out since anything was sent.
    is_overdue: bool,
    suspects_path: bool,
    is_broken: bool,
    pub left_out: LeftOut,
    /// The sizes of the packets that the library got.
    #[cfg(test)]
    pub given: Vec<usize>,
}

impl Association {
    /// `packet_size`: how large a packet of SCTP may be. `max_streams`: how many numbers of streams there may be.
    pub fn new(
        remote: SocketAddr,
        packet_size: usize,
        max_streams: u16,
        receive_window: u32,
    ) -> Self {
        let transport = TransportConfig::default()
            .with_max_receive_buffer_size(receive_window)
            .with_max_receive_message_size(MAX_REMOTE_MESSAGE)
            .with_max_num_inbound_streams(max_streams)
            .with_rto_initial_ms(RTO_INITIAL)
            .with_rto_min_ms(RTO_MIN)
            .with_rto_max_ms(RTO_MAX)
            .with_max_init_retransmits(None)
            .with_local_port(PORT)
            .with_remote_port(PORT);
        let transport = Arc::new(transport);
        let mut config = EndpointConfig::new();
        // Chunks are padded to four bytes.
        let payload = (packet_size - COMMON_HEADER - DATA_HEADER) & !3;
        config.max_payload_size(payload as u32);
        let mut server = ServerConfig::new();
        server.transport = transport.clone();
        Self {
            endpoint: Endpoint::new(Arc::new(config), Some(Arc::new(server))),
            remote,
            transport,
            inner: None,
            packet_size,
            base_size: packet_size,
            max_streams,
            init: None,
            has_cookie: false,
            is_shut_down: false,
            last_sent: None,
            acknowledged: 0,
            unsent: 0,
            unwritten: HashMap::new(),
            receive_window,
            backlog: Backlog::new(receive_window as usize),
            endings: Endings::default(),
            denied: Vec::new(),
            last_request: 0,
            resetting: HashSet::new(),
            to_reset: VecDeque::new(),
            is_overdue: false,
            suspects_path: false,
            is_broken: false,
            left_out: LeftOut::default(),
            #[cfg(test)]
            given: Vec::new(),
        }
    }

    /// Ask the remote for it, once; a responder waits to be asked.
    pub fn connect(&mut self) -> Result<(), sctp_proto::ConnectError> {
        let mut config = ClientConfig::new();
        config.transport = self.transport.clone();
        self.inner = Some(self.endpoint.connect(config, self.remote)?);
        // What it remembers of each that the remote asks for, it never forgets.
        self.endpoint.reject_new_associations();
        Ok(())
    }

    /// `is_reading`: whether all messages that can be read were read.
    ///
    /// The library does not get what an honest remote does not send, nor what is of no use in the state that the association is in; and data
    /// in packets of few chunks, see [`MAX_SHARING`].
    pub fn handle_packet(
        &mut self,
        now: Instant,
        packet: &[u8],
        is_reading: bool,
    ) -> Option<Signal> {
        self.guarded(|it| it.hear_packet(now, packet, is_reading))
    }

    fn hear_packet(&mut self, now: Instant, packet: &[u8], is_reading: bool) -> Option<Signal> {
        let header = packet.get(..COMMON_HEADER)?;
        if !has_right_checksum(packet) {
            self.left_out.ignored += 1;
            return None;
        }
        let mut heard = None;
        let mut part = BytesMut::from(header);
        let mut sharing = 0;
        let mut has_acknowledged = false;
        let mut has_denied = false;
        for (kind, flags, value) in raw_chunks(packet) {
            if kind == DATA {
                match self.takes_data(value, is_reading) {
                    // All there is, and nothing that would be read otherwise.
                    Ok(true) if COMMON_HEADER + CHUNK_HEADER + value.len() == packet.len() => {
                        self.give(now, Bytes::copy_from_slice(packet));
                        return None;
                    }
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(violation) => return Some(Signal::Violation(violation)),
                }
                let may_share = value.len() >= MIN_SHARING;
                if sharing == 0 || sharing == MAX_SHARING || !may_share {
                    self.give_part(now, &mut part);
                    sharing = 0;
                }
                put_chunk(&mut part, kind, flags, value);
                sharing = if may_share { sharing + 1 } else { MAX_SHARING };
                continue;
            }
            // Of these the first of a packet counts.
            let is_another = match kind {
                SACK => std::mem::replace(&mut has_acknowledged, true),
                RECONFIG if is_denied(value) => std::mem::replace(&mut has_denied, true),
                _ => false,
            };
            let is_wanted = !is_another && self.is_wanted(kind, value);
            let signal = self.look_at(kind, value, is_wanted);
            // Answers to heartbeats are not for the library.
            if !is_wanted && signal.is_none() {
                self.leave_out(kind);
            }
            heard = signal.or(heard);
            if !is_wanted {
                continue;
            }
            if kind == RECONFIG && self.note_endings(value) > MAX_RESETS {
                return Some(Signal::Violation("a stream was ended again and again"));
            }
            if sharing > 0 {
                self.give_part(now, &mut part);
                sharing = 0;
            }
            if kind == RECONFIG && is_denied(value) {
                self.put_denied(&mut part, value);
                continue;
            }
            put_chunk(&mut part, kind, flags, value);
            // What comes behind it may be of use from then on.
            if matches!(kind, COOKIE_ECHO | COOKIE_ACK) {
                self.give_part(now, &mut part);
            }
        }
        self.give_part(now, &mut part);
        heard
    }

    /// Whether the library is to have a chunk of data; an error says what is wrong with it.
    fn takes_data(&mut self, value: &[u8], is_reading: bool) -> Result<bool, &'static str> {
        // RFC 9260, section 3.3.1
        if value.len() <= DATA_VALUE {
            return Err("a chunk of data came without data");
        }
        let stream = u16_at(value, 4) as u16;
        if stream >= self.max_streams {
            return Err("data came on a stream that can't be");
        }
        let piece = Piece {
            number: u32_at(value, 0),
            bytes: value.len() - DATA_VALUE,
        };
        let is_of_use = self.is_established()
            && !self.is_shut_down
            && !self.endings.have_ended(stream, piece.number);
        let is_taken = is_of_use && self.backlog.arrive(piece, is_reading);
        self.left_out.ignored += u64::from(!is_of_use);
        self.left_out.overflow += u64::from(is_of_use && !is_taken);
        Ok(is_taken)
    }

    /// Let the library have the chunks of a packet, if there are any; the header is left.
    fn give_part(&mut self, now: Instant, part: &mut BytesMut) {
        if part.len() > COMMON_HEADER {
            let header = BytesMut::from(&part[..COMMON_HEADER]);
            self.give(now, sealed(std::mem::replace(part, header)));
        }
    }

    fn give(&mut self, now: Instant, packet: Bytes) {
        #[cfg(test)]
        self.given.push(packet.len());
        match self.endpoint.handle(now, self.remote, None, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association))) if self.inner.is_none() => {
                self.inner = Some((handle, association));
                self.endpoint.reject_new_associations();
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((known, association)) = &mut self.inner
                    && *known == handle
                {
                    association.handle_event(event);
                }
            }
            // One session has one association.
            Some((_, DatagramEvent::NewAssociation(_))) | None => {}
        }
    }

    fn is_established(&self) -> bool {
        let inner = self.inner.as_ref();
        inner.is_some_and(|(_, association)| !association.is_handshaking())
    }

    /// Whether the library is to have a chunk that is none of data.
    fn is_wanted(&self, kind: u8, value: &[u8]) -> bool {
        is_read_whole(kind, value)
            && match kind {
                // Until the remote has its answer it may ask again, and for the same.
                INIT => !self.has_cookie && self.init.is_none_or(|init| value.starts_with(&init)),
                INIT_ACK => self.init.is_none(),
                SACK => self.is_established() && is_in_order(value),
                RECONFIG => self.is_established() && !self.endings.is_full(),
                SHUTDOWN | SHUTDOWN_ACK | SHUTDOWN_COMPLETE => self.is_established(),
                _ => true,
            }
    }

    fn leave_out(&mut self, kind: u8) {
        if kind == RECONFIG && self.endings.is_full() {
            self.left_out.overflow += 1;
        } else {
            self.left_out.ignored += 1;
        }
    }

    /// Whether what has come should be read before more does.
    pub fn is_crowded(&self) -> bool {
        self.backlog.is_crowded()
    }

    pub fn poll(&mut self) -> Option<Event> {
        self.guarded(Self::poll_event)
    }

    fn poll_event(&mut self) -> Option<Event> {
        let (handle, association) = self.inner.as_mut()?;
        while let Some(event) = association.poll_endpoint_event() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                association.handle_event(event);
            }
        }
        let event = association.poll()?;
        if let Event::Stream(event) = &event {
            self.note(event);
        }
        Some(event)
    }

    fn note(&mut self, event: &StreamEvent) {
        match *event {
            StreamEvent::Finished { id } => {
                self.to_reset.retain(|it| *it != id);
                self.unwritten.remove(&id);
            }
            StreamEvent::ResetComplete { id } => {
                self.has_been_reset(id);
                self.write_what_waits(id);
            }
            StreamEvent::ResetFailed { id, .. } => {
                self.has_been_reset(id);
                self.unwritten.remove(&id);
            }
            _ => {}
        }
    }

    fn has_been_reset(&mut self, id: u16) {
        self.endings.agreed(id);
        self.resetting.remove(&id);
        self.reset_more();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.is_overdue = true;
        self.guarded(|it| {
            if let Some((_, association)) = &mut it.inner {
                association.handle_timeout(now);
            }
        });
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.inner.as_ref()?.1.poll_timeout()
    }

    /// How large a packet may be from now on.
    pub fn set_packet_size(&mut self, size: usize) {
        self.packet_size = size;
    }

    /// Everything there is to send now. `wants_answer`: the remote is to acknowledge it at once; likewise if there is more to send that
    /// has to wait for that.
    pub fn poll_transmit(&mut self, now: Instant, wants_answer: bool) -> Vec<Bytes> {
        self.guarded(|it| it.gather(now, wants_answer))
    }

    fn gather(&mut self, now: Instant, wants_answer: bool) -> Vec<Bytes> {
        let mut packets = Vec::new();
        while let Some(transmit) = self.endpoint.poll_transmit() {
            take_payload(transmit.payload, &mut packets);
        }
        if let Some((_, association)) = &mut self.inner {
            // It gives all at once.
            if let Some(transmit) = association.poll_transmit(now) {
                take_payload(transmit.payload, &mut packets);
            }
        }
        let mut is_repeated = false;
        for packet in &mut packets {
            is_repeated |= self.count_sent(packet);
            self.count_acknowledged(packet);
            self.note_answers(packet);
            self.correct_answers(packet);
        }
        // Nothing was acknowledged: the path may carry smaller packets only (RFC 8899, section 4.3).
        if std::mem::take(&mut self.is_overdue) && is_repeated && self.packet_size > self.base_size
        {
            self.packet_size = self.base_size;
            self.suspects_path = true;
        }
        let wants_answer = wants_answer || is_repeated || self.unsent > 0;
        if packets.iter().any(|it| it.len() > self.packet_size) {
            packets = packets
                .into_iter()
                .flat_map(|it| fit(it, self.packet_size))
                .collect();
        }
        join(packets, self.packet_size, wants_answer)
    }

    /// Whether packets became smaller since it was last asked, because the path may not carry larger ones any more.
    pub fn suspects_path(&mut self) -> bool {
        std::mem::take(&mut self.suspects_path)
    }

    /// Whether the remote has begun to end it in order (RFC 9260, section 9.2).
    pub fn is_shut_down(&self) -> bool {
        self.is_shut_down
    }

    /// How many streams there can be: the lower of both sides' counts.
    pub fn max_streams(&self) -> u16 {
        let remote = self
            .init
            .map_or(u16::MAX, |init| u16::from_be_bytes([init[10], init[11]]));
        self.max_streams.min(remote)
    }

    pub fn open(&mut self, stream: u16) -> bool {
        self.guarded(|it| {
            it.inner.as_mut().is_some_and(|(_, association)| {
                association
                    .open_stream(stream, PayloadProtocolIdentifier::Binary)
                    .is_ok()
            })
        })
    }

    /// The next stream that the remote has opened.
    pub fn accept(&mut self) -> Option<u16> {
        self.guarded(|it| {
            let mut stream = it.inner.as_mut()?.1.accept_stream()?;
            // It exists: the remote has just made it.
            let _ = stream.set_default_payload_type(PayloadProtocolIdentifier::Binary);
            Some(stream.stream_identifier())
        })
    }

    /// The next message of a stream.
    pub fn read(&mut self, stream: u16) -> Option<Bytes> {
        self.guarded(|it| {
            let message = it.stream(stream)?.read().ok()??;
            it.backlog.read(message.chunks.len());
            let mut data = BytesMut::zeroed(message.len());
            message.read(&mut data).ok()?;
            Some(data.freeze())
        })
    }

    /// Queue a message on a stream; lost if that is over.
    pub fn write(&mut self, stream: u16, message: Bytes) {
        let has_to_wait = self.unwritten.contains_key(&stream);
        if (has_to_wait || !self.write_now(stream, &message)) && self.may_be_written_to(stream) {
            self.unwritten.entry(stream).or_default().push_back(message);
        }
    }

    fn write_now(&mut self, stream: u16, message: &Bytes) -> bool {
        let is_written = self.guarded(|it| {
            it.stream(stream)
                .is_some_and(|mut it| it.write_chunks(&mut [message.clone()]).is_ok())
        });
        if is_written {
            self.unsent += message.len();
        }
        is_written
    }

    /// Whether what can't be written now can be later: the remote uses a number again, and has not agreed yet to the end of this side's
    /// direction of the stream before.
    fn may_be_written_to(&mut self, stream: u16) -> bool {
        !self.resetting.contains(&stream)
            && !self.to_reset.contains(&stream)
            && self.guarded(|it| it.stream(stream).is_some())
    }

    fn write_what_waits(&mut self, stream: u16) {
        for message in self.unwritten.remove(&stream).unwrap_or_default() {
            self.write(stream, message);
        }
    }

    /// Bytes of a stream that the remote has not acknowledged, or that could not be written yet.
    pub fn unacknowledged(&mut self, stream: u16) -> usize {
        let written = self.guarded(|it| {
            it.stream(stream)
                .and_then(|stream| stream.buffered_amount().ok())
                .unwrap_or(0)
        });
        let waiting = self.unwritten.get(&stream).into_iter().flatten();
        written + waiting.map(Bytes::len).sum::<usize>()
    }

    /// Bytes of all streams that have not been sent at all, for want of congestion window.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Chunks of data that were sent, and of which the remote has not said that it has all before them.
    pub fn in_flight(&self) -> usize {
        let sent = self.last_sent.unwrap_or(self.acknowledged);
        usize::try_from(sent.wrapping_sub(self.acknowledged) as i32).unwrap_or(0)
    }

    /// Make a stream's number free, for both sides, once what was written is there (RFC 6525). What comes on it is not read any more, and takes
    /// room: the remote's direction should be over.
    pub fn reset(&mut self, stream: u16) {
        self.to_reset.push_back(stream);
        self.guarded(Self::reset_more);
    }

    fn reset_more(&mut self) {
        while self.resetting.len() < MAX_RESETTING
            && let Some(id) = self.to_reset.pop_front()
        {
            // Fails only when the association is over, and the stream with it.
            if self.stream(id).is_some_and(|mut it| it.close().is_ok()) {
                self.resetting.insert(id);
            }
        }
    }

    /// Throw away what was not read of a stream that the remote has ended: it is kept otherwise, as is what comes on the next stream of that
    /// number, for as long as something is not read, and be it a message that never will be whole.
    fn discard(&mut self, stream: u16) {
        while self.read(stream).is_some() {}
        if let Some(mut stream) = self.stream(stream) {
            let _ = stream.stop();
        }
    }

    /// A packet that the remote has to answer, by [`Signal::Alive`].
    pub fn heartbeat(&self, number: u64) -> Option<Bytes> {
        self.heartbeat_with(number)
    }

    /// A packet that the remote has to answer, by [`Signal::Carried`].
    pub fn probe(&self, number: u64) -> Option<Bytes> {
        self.heartbeat_with(number | PROBE)
    }

    fn heartbeat_with(&self, number: u64) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        chunk.put_u8(HEARTBEAT);
        chunk.put_u8(0);
        chunk.put_u16(16);
        chunk.put_u16(HEARTBEAT_INFO);
        chunk.put_u16(12);
        chunk.put_u64(number);
        self.packet(&chunk)
    }

    /// A packet that ends the remote's side, and tells why.
    pub fn abort(&self, code: u32) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        chunk.put_u8(ABORT);
        chunk.put_u8(0);
        chunk.put_u16(12);
        chunk.put_u16(USER_INITIATED_ABORT);
        chunk.put_u16(8);
        chunk.put_u32(code);
        self.packet(&chunk)
    }

    /// Whether the library has panicked: the association is over, and nobody can be told within it.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Ask something of the library. If it panics, that is this association's end, and nobody else's.
    fn guarded<R: Default>(&mut self, ask: impl FnOnce(&mut Self) -> R) -> R {
        if self.is_broken {
            return R::default();
        }
        let answer = catch_unwind(AssertUnwindSafe(|| ask(self)));
        answer.unwrap_or_else(|_| {
            self.is_broken = true;
            self.inner = None;
            R::default()
        })
    }

    /// Whether no stream is being ended, by whichever side.
    #[cfg(test)]
    pub fn ends_none(&self) -> bool {
        self.resetting.is_empty() && self.to_reset.is_empty() && self.endings.is_empty()
    }

    #[cfg(test)]
    pub fn break_it(&mut self) {
        self.guarded::<()>(|_| panic!("as the test wants it"));
    }

    fn stream(&mut self, stream: u16) -> Option<Stream<'_>> {
        self.inner.as_mut()?.1.stream(stream).ok()
    }

    fn packet(&self, chunk: &[u8]) -> Option<Bytes> {
        let mut packet = BytesMut::with_capacity(COMMON_HEADER + chunk.len());
        packet.put_u16(PORT);
        packet.put_u16(PORT);
        packet.put_slice(&self.init?[..4]);
        packet.put_u32(0);
        packet.put_slice(chunk);
        Some(sealed(packet))
    }

    fn look_at(&mut self, kind: u8, value: &[u8], is_wanted: bool) -> Option<Signal> {
        match kind {
            INIT | INIT_ACK if is_wanted && self.init.is_none() => {
                let init: [u8; INIT_VALUE] = value.get(..INIT_VALUE)?.try_into().ok()?;
                self.init = Some(init);
                self.backlog
                    .acknowledge(u32_at(&init, 12).wrapping_sub(1), true);
            }
            COOKIE_ECHO => self.has_cookie = true,
            SACK if is_wanted && is_behind(self.acknowledged, u32_at(value, 0)) => {
                self.acknowledged = u32_at(value, 0);
            }
            HEARTBEAT_ACK if value.len() == 12 => {
                let number = u64::from(u32_at(value, 4)) << 32 | u64::from(u32_at(value, 8));
                return Some(if number & PROBE == 0 {
                    Signal::Alive(number)
                } else {
                    Signal::Carried(number & !PROBE)
                });
            }
            ABORT => {
                let is_ours = value.len() == 8 && value[..4] == [0, 12, 0, 8];
                return Some(Signal::Aborted(if is_ours { u32_at(value, 4) } else { 1 }));
            }
            SHUTDOWN | SHUTDOWN_ACK | SHUTDOWN_COMPLETE => self.is_shut_down |= is_wanted,
            _ => {}
        }
        None
    }

    /// Returns how often the one stream of these is being ended that is so most often.
    fn note_endings(&mut self, value: &[u8]) -> usize {
        let Some((_, association)) = &self.inner else {
            return 0;
        };
        let existing: HashSet<u16> = association.stream_ids().into_iter().collect();
        let mut most = 0;
        let requests = parameters(value).into_iter();
        for (_, request) in requests.filter(|(kind, _)| *kind == OUTGOING_RESET) {
            let ids = request[12..].chunks_exact(2).map(|it| u16_at(it, 0) as u16);
            let named: Vec<u16> = ids.filter(|id| *id < self.max_streams).collect();
            let is_of_all = request.len() == 12;
            let request = Request {
                number: u32_at(request, 0),
                last: u32_at(request, 8),
                streams: if is_of_all {
                    existing.iter().copied().collect()
                } else {
                    named
                },
                is_of_all,
            };
            most = most.max(self.endings.request(request, |id| existing.contains(&id)));
        }
        most
    }

    fn count_acknowledged(&mut self, packet: &[u8]) {
        for (kind, value) in chunks(packet) {
            if kind != SACK || value.len() < 12 {
                continue;
            }
            let has_gaps = value[8..10] != [0, 0];
            let is_empty = !has_gaps && u32_at(value, 4) == self.receive_window;
            self.backlog.acknowledge(u32_at(value, 0), is_empty);
        }
    }

    /// Give the library requests that it does not know as ones to end a stream that there is not: it has to count them, so that it knows the
    /// next one (RFC 6525, section 5.2.1). Its answers become denials on their way. Each has a chunk of its own: it takes no two of a kind in one.
    fn put_denied(&mut self, part: &mut BytesMut, value: &[u8]) {
        self.denied.clear();
        for (kind, request) in parameters(value) {
            let mut given = BytesMut::from(request);
            if !is_known(kind) {
                self.denied.push(u32_at(request, 0));
                given.truncate(4);
                // It must not be taken for the answer to a request of ours.
                given.put_u32(self.last_request.wrapping_sub(1));
                given.put_u32(self.backlog.acknowledged());
                given.put_u16(NO_STREAM);
            }
            let mut parameter = BytesMut::new();
            parameter.put_u16(if is_known(kind) { kind } else { OUTGOING_RESET });
            parameter.put_u16((CHUNK_HEADER + given.len()) as u16);
            parameter.put_slice(&given);
            put_chunk(part, RECONFIG, 0, &parameter);
        }
    }

    /// The remote is told what became of its requests to end streams.
    fn note_answers(&mut self, packet: &[u8]) {
        let reconfigs = chunks(packet).filter(|(kind, _)| *kind == RECONFIG);
        for (kind, answer) in reconfigs.flat_map(|(_, value)| parameters(value)) {
            if kind == OUTGOING_RESET && answer.len() >= 4 {
                self.last_request = u32_at(answer, 0);
            }
            if kind == RECONFIG_RESPONSE && answer.len() >= 8 {
                let over = self.endings.answer(u32_at(answer, 0), u32_at(answer, 4));
                over.into_iter().for_each(|id| self.discard(id));
            }
        }
    }

    /// A request of ours to end streams has the number of the remote's last, and is an answer to that (RFC 6525, section 4.1). The library
    /// says so even while that waits for something, and the remote would not repeat it any more: the number before is meant. And what it takes
    /// for performed may be denied, see [`Self::put_denied`].
    fn correct_answers(&self, packet: &mut Bytes) {
        let mut at = COMMON_HEADER;
        let mut corrected = None;
        for (kind, value) in chunks(packet) {
            if kind == RECONFIG && value.len() >= 12 {
                // Of requests and answers alike.
                let (first, second) = (u32_at(value, 4), u32_at(value, 8));
                let meant = match u16_at(value, 0) as u16 {
                    OUTGOING_RESET if self.endings.await_answer(second) => second.wrapping_sub(1),
                    RECONFIG_RESPONSE if second == PERFORMED && self.denied.contains(&first) => {
                        DENIED
                    }
                    _ => second,
                };
                if meant != second {
                    let copy = corrected.get_or_insert_with(|| BytesMut::from(&packet[..]));
                    let field = at + CHUNK_HEADER + 8..at + CHUNK_HEADER + 12;
                    copy[field].copy_from_slice(&meant.to_be_bytes());
                }
            }
            at += (CHUNK_HEADER + value.len()).next_multiple_of(4);
        }
        if let Some(corrected) = corrected {
            *packet = sealed(corrected);
        }
    }

    /// Returns whether there is data in it that was sent before.
    fn count_sent(&mut self, packet: &[u8]) -> bool {
        let mut is_repeated = false;
        for (kind, value) in chunks(packet) {
            if kind != DATA || value.len() < DATA_VALUE {
                continue;
            }
            let number = u32_at(value, 0);
            // RFC 1982
            let is_new = self
                .last_sent
                .is_none_or(|last| (number.wrapping_sub(last) as i32) > 0);
            if is_new {
                if self.last_sent.replace(number).is_none() {
                    self.acknowledged = number.wrapping_sub(1);
                }
                let bytes = value.len() - DATA_VALUE;
                self.unsent = self.unsent.saturating_sub(bytes);
            }
            is_repeated |= !is_new;
        }
        is_repeated
    }
}

fn take_payload(payload: Payload, packets: &mut Vec<Bytes>) {
    if let Payload::RawEncode(mut contents) = payload {
        packets.append(&mut contents);
    }
}

fn has_right_checksum(packet: &[u8]) -> bool {
    let (before, after) = (&packet[..8], &packet[COMMON_HEADER..]);
    let checksum = crc32c::crc32c_append(
        crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]),
        after,
    );
    packet[8..COMMON_HEADER] == checksum.to_le_bytes()
}

/// With the checksum that it has to have (RFC 9260, section 6.8).
fn sealed(mut packet: BytesMut) -> Bytes {
    packet[8..12].fill(0);
    let checksum = crc32c::crc32c(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet.freeze()
}

/// A packet as several that are no larger than this. When `sctp-proto` bundles chunks, it counts neither their padding nor the header
/// of the last; and it tells of every gap in what has arrived, however many there are.
fn fit(packet: Bytes, size: usize) -> Vec<Bytes> {
    if packet.len() <= size {
        return vec![packet];
    }
    let header = &packet[..COMMON_HEADER];
    let mut packets = Vec::new();
    let mut part = BytesMut::from(header);
    for (kind, flags, value) in raw_chunks(&packet) {
        let chunk = encode_chunk(kind, flags, value, size - COMMON_HEADER);
        if part.len() > COMMON_HEADER && part.len() + chunk.len() > size {
            packets.push(sealed(std::mem::replace(&mut part, BytesMut::from(header))));
        }
        part.put_slice(&chunk);
    }
    packets.push(sealed(part));
    packets
}

/// Packets of data as fewer that are as large as may be: `sctp-proto` fills no packet beyond the size that the association began with.
fn join(packets: Vec<Bytes>, size: usize, wants_answer: bool) -> Vec<Bytes> {
    let last = packets.iter().rposition(|it| holds_data_only(it));
    let mut joined: Vec<Bytes> = Vec::with_capacity(packets.len());
    let mut part = BytesMut::new();
    for (index, packet) in packets.into_iter().enumerate() {
        let has_data = last.is_some_and(|last| index <= last) && holds_data_only(&packet);
        let wants_answer = wants_answer && Some(index) == last;
        let chunks = packet.len() - COMMON_HEADER;
        let fits = has_data && !part.is_empty() && part.len() + chunks <= size;
        if !fits && !part.is_empty() {
            joined.push(sealed(std::mem::take(&mut part)));
        }
        let takes_more = has_data && packet.len() + COMMON_HEADER + DATA_HEADER <= size;
        if !fits && !takes_more && !wants_answer {
            joined.push(packet);
            continue;
        }
        if part.is_empty() {
            part.reserve(size);
            part.put_slice(&packet[..COMMON_HEADER]);
        }
        let begin = part.len();
        part.put_slice(&packet[COMMON_HEADER..]);
        if wants_answer {
            let at = last_chunk(&part[begin..]);
            part[begin + at + 1] |= IMMEDIATE;
        }
    }
    if !part.is_empty() {
        joined.push(sealed(part));
    }
    joined
}

fn holds_data_only(packet: &[u8]) -> bool {
    let mut chunks = chunks(packet).peekable();
    chunks.peek().is_some() && chunks.all(|(kind, _)| kind == DATA)
}

/// Where the last of these chunks begins.
fn last_chunk(chunks: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let length = usize::from(u16::from_be_bytes([chunks[at + 2], chunks[at + 3]]));
        let next = at + length.next_multiple_of(4);
        if next + CHUNK_HEADER > chunks.len() {
            return at;
        }
        at = next;
    }
}

/// Whether `sctp-proto` knows a chunk, and reads all of it: it takes what it has not read for the next chunk. What it does not know makes it
/// refuse the whole packet; skipped numbers (RFC 3758) have no use here.
fn is_read_whole(kind: u8, value: &[u8]) -> bool {
    match kind {
        INIT | INIT_ACK => value.len() >= INIT_VALUE,
        COOKIE_ECHO | ABORT => true,
        SACK => value.len() >= 12 && value.len() == 12 + 4 * (u16_at(value, 8) + u16_at(value, 10)),
        HEARTBEAT => matches!(parameters(value)[..], [(HEARTBEAT_INFO, _)]),
        RECONFIG => {
            let parameters = parameters(value);
            matches!(parameters.len(), 1 | 2)
                && parameters.iter().all(|(kind, it)| match *kind {
                    OUTGOING_RESET => it.len() >= 12 && it.len().is_multiple_of(2),
                    RECONFIG_RESPONSE => it.len() == 8,
                    INCOMING_RESET | TSN_RESET | ADD_OUTGOING | ADD_INCOMING => it.len() >= 4,
                    _ => false,
                })
        }
        SHUTDOWN => value.len() == 4,
        COOKIE_ACK | SHUTDOWN_ACK | SHUTDOWN_COMPLETE => value.is_empty(),
        _ => false,
    }
}

/// Whether there is a request in a RE-CONFIG that this side denies: all but Outgoing SSN Resets.
fn is_denied(value: &[u8]) -> bool {
    parameters(value).iter().any(|(kind, _)| !is_known(*kind))
}

fn is_known(reconfiguration: u16) -> bool {
    matches!(reconfiguration, OUTGOING_RESET | RECONFIG_RESPONSE)
}

/// Whether each gap of an acknowledgement is behind the one before (RFC 9260, section 3.3.4): `sctp-proto` looks at all that was sent for each.
fn is_in_order(value: &[u8]) -> bool {
    let mut before = 0;
    value[12..]
        .chunks_exact(4)
        .take(u16_at(value, 8))
        .all(|gap| {
            let (start, end) = (u16_at(gap, 0), u16_at(gap, 2));
            let is_behind = before < start && start <= end;
            before = end;
            is_behind
        })
}

/// The parameters that fill a chunk (RFC 9260, section 3.2.1); none if they do not.
fn parameters(value: &[u8]) -> Vec<(u16, &[u8])> {
    let mut parameters = Vec::new();
    let mut at = 0;
    while at < value.len() {
        if at + 4 > value.len() {
            return Vec::new();
        }
        let end = at + u16_at(value, at + 2);
        let Some(content) = value.get(at + 4..end) else {
            return Vec::new();
        };
        parameters.push((u16_at(value, at) as u16, content));
        at = end.next_multiple_of(4);
    }
    parameters
}

fn put_chunk(packet: &mut BytesMut, kind: u8, flags: u8, value: &[u8]) {
    packet.reserve(CHUNK_HEADER + value.len() + 3);
    packet.put_u8(kind);
    packet.put_u8(flags);
    packet.put_u16((CHUNK_HEADER + value.len()) as u16);
    packet.put_slice(value);
    packet.put_bytes(0, value.len().next_multiple_of(4) - value.len());
}

fn encode_chunk(kind: u8, flags: u8, value: &[u8], most: usize) -> BytesMut {
    let mut chunk = BytesMut::new();
    put_chunk(&mut chunk, kind, flags, value);
    if kind == SACK && chunk.len() > most {
        shorten_sack(&mut chunk, most);
    }
    chunk
}

/// Tell of as many gaps as there is room for, the first ones (RFC 9260, section 3.3.4): the others are told of later.
fn shorten_sack(chunk: &mut BytesMut, most: usize) {
    const GAPS: usize = CHUNK_HEADER + 12;
    let told = u16::from_be_bytes([chunk[GAPS - 4], chunk[GAPS - 3]]);
    let gaps = told.min((most.saturating_sub(GAPS) / 4) as u16);
    chunk.truncate(GAPS + 4 * usize::from(gaps));
    let length = chunk.len() as u16;
    chunk[2..4].copy_from_slice(&length.to_be_bytes());
    chunk[GAPS - 4..GAPS - 2].copy_from_slice(&gaps.to_be_bytes());
    // No duplicates
    chunk[GAPS - 2..GAPS].fill(0);
}

/// The chunks of a packet: their types and values (RFC 9260, section 3.2).
pub(super) fn chunks(packet: &[u8]) -> impl Iterator<Item = (u8, &[u8])> + Clone {
    raw_chunks(packet).map(|(kind, _, value)| (kind, value))
}

/// With their flags.
fn raw_chunks(packet: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> + Clone {
    let mut rest = packet.get(COMMON_HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
        let (kind, flags) = (rest[0], rest[1]);
        let value = rest.get(CHUNK_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, flags, value))
    })
}

fn u16_at(data: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([data[at], data[at + 1]]))
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(data[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet_of(chunks: &[(u8, Vec<u8>)]) -> Bytes {
        let mut packet = BytesMut::from(&[0x13, 0x88, 0x13, 0x88, 1, 2, 3, 4, 0, 0, 0, 0][..]);
        for (kind, value) in chunks {
            packet.put_slice(&encode_chunk(*kind, 3, value, usize::MAX));
        }
        sealed(packet)
    }

    fn values(packets: &[Bytes]) -> Vec<(u8, u8, Vec<u8>)> {
        packets
            .iter()
            .flat_map(|it| raw_chunks(it))
            .map(|(kind, flags, value)| (kind, flags, value.to_vec()))
            .collect()
    }

    #[test]
    fn a_packet_that_is_too_large_becomes_several() {
        let chunks: Vec<_> = (0..80).map(|n| (DATA, vec![n; 13])).collect();
        let packet = packet_of(&chunks);
        assert!(packet.len() > 1200);
        let packets = fit(packet.clone(), 1200);
        assert_eq!(packets.len(), 2);
        assert_eq!(values(&packets), values(&[packet]));
        for packet in packets {
            assert!(packet.len() <= 1200);
            assert_eq!(sealed(BytesMut::from(&packet[..])), packet);
        }
    }

    #[test]
    fn packets_of_data_become_as_few_as_fit_and_the_last_wants_an_answer() {
        let data = |n| packet_of(&[(DATA, vec![n; 400])]);
        let packets = [data(1), data(2), data(3), packet_of(&[(SACK, vec![4; 12])])];
        let joined = join(packets.to_vec(), 1000, true);
        assert_eq!(joined.len(), 3);
        assert!(joined.iter().all(|it| it.len() <= 1000));
        assert_eq!(joined[2], packets[3]);
        let flags: Vec<u8> = values(&joined).iter().map(|(_, flags, _)| *flags).collect();
        assert_eq!(flags, [3, 3, 3 | IMMEDIATE, 3]);
        let kept = join(packets.to_vec(), 500, false);
        assert_eq!(kept, packets);
    }

    #[test]
    fn an_acknowledgement_tells_of_the_gaps_that_fit() {
        let mut value = vec![9; 12];
        value[8..12].copy_from_slice(&[1, 144, 0, 2]);
        value.extend((0..400_u16).flat_map(|n| [n.to_be_bytes(), n.to_be_bytes()].concat()));
        value.extend([7; 8]);
        let packets = fit(packet_of(&[(SACK, value.clone())]), 1200);
        assert_eq!(packets.len(), 1);
        assert!(packets[0].len() <= 1200);
        let (_, _, shorter) = values(&packets).remove(0);
        let gaps = usize::from(u16::from_be_bytes([shorter[8], shorter[9]]));
        assert_eq!(gaps, (1200 - COMMON_HEADER - CHUNK_HEADER - 12) / 4);
        assert_eq!(shorter[10..12], [0, 0]);
        assert_eq!(shorter[12..], value[12..12 + 4 * gaps]);
    }

    #[test]
    fn an_acknowledgement_with_gaps_out_of_order_is_none() {
        let is_in_order = |gaps: &[[u16; 2]]| {
            let mut value = vec![0; 8];
            value.extend([0, gaps.len() as u8, 0, 1]);
            value.extend(gaps.iter().flatten().flat_map(|it| it.to_be_bytes()));
            value.extend([0, 0, 0, 1]);
            assert!(is_read_whole(SACK, &value));
            is_in_order(&value)
        };
        assert!(is_in_order(&[]));
        assert!(is_in_order(&[[2, 2], [3, 9], [11, 65_535]]));
        for gaps in [
            [[2, 9], [2, 9]],
            [[2, 9], [9, 10]],
            [[11, 12], [2, 3]],
            [[3, 2], [5, 5]],
            [[0, 1], [5, 5]],
        ] {
            assert!(!is_in_order(&gaps), "{gaps:?}");
        }
    }

    #[test]
    fn chunks_that_are_longer_than_what_they_hold_are_left_out() {
        let [reset, response] = [
            &[0, 13, 0, 18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2][..],
            &[0, 16, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1],
        ];
        for (kind, value) in [
            (SACK, [&[0; 8][..], &[0, 1, 0, 1], &[0; 8]].concat()),
            (HEARTBEAT, vec![0, 1, 0, 7, 1, 2, 3]),
            (RECONFIG, reset.to_vec()),
            (RECONFIG, response.to_vec()),
            (RECONFIG, [response, reset].concat()),
            (RECONFIG, [reset, &[0, 0], response].concat()),
            (RECONFIG, vec![0, 15, 0, 8, 0, 0, 0, 1]),
            (SHUTDOWN, vec![0; 4]),
            (COOKIE_ACK, vec![]),
        ] {
            assert!(is_read_whole(kind, &value), "{kind} {value:?}");
            for more in [4, 8, 20] {
                let longer = [&value[..], &vec![0; more]].concat();
                assert!(!is_read_whole(kind, &longer), "{kind} {longer:?}");
            }
        }
        // More than the library reads of such parameters.
        assert!(!is_read_whole(
            RECONFIG,
            &[0, 16, 0, 16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]
        ));
        assert!(!is_read_whole(
            RECONFIG,
            &[0, 19, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1]
        ));
        assert!(!is_read_whole(RECONFIG, &[response; 3].concat()));
        assert!(!is_read_whole(HEARTBEAT, &[0, 1, 0, 4, 0, 1, 0, 4]));
        assert!(!is_read_whole(192, &[0; 4]));
    }
}
