//! The SCTP association inside of a DTLS session (RFC 8261), one packet in each record. Sans-IO.
//!
//! `sctp-proto` does the protocol. What it has no means for is done here beside it: heartbeats (RFC 9260, section 8.3), an
//! abort with a code, to know how much of what was written has not been sent yet, and to keep to the size of packets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use sctp_proto::{
    AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ServerConfig, Stream, StreamEvent, TransportConfig,
};

use super::backlog::{Backlog, Piece, Verdict};

/// RFC 8261, section 4.4: both ports, and the first byte of every packet.
const PORT: u16 = 5000;
pub const FIRST_BYTE: u8 = (PORT >> 8) as u8;

const COMMON_HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;
const DATA_HEADER: usize = 16;
const DATA_VALUE: usize = DATA_HEADER - CHUNK_HEADER;

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

/// Parameters (RFC 9260, section 3.3.5; RFC 6525, sections 4.1 and 4.4).
const HEARTBEAT_INFO: u16 = 1;
const OUTGOING_RESET: u16 = 13;
const RECONFIG_RESPONSE: u16 = 16;

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

/// How often the remote may end a stream whose last messages were not read: an honest one waits until its number is free.
const MAX_RESETS: usize = 16;

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

pub struct Association {
    pub(super) endpoint: Endpoint,
    remote: SocketAddr,
    transport: Arc<TransportConfig>,
    inner: Option<(AssociationHandle, sctp_proto::Association)>,
    packet_size: usize,
    /// What it was at first: the path carries that.
    base_size: usize,
    max_streams: u16,
    /// What the remote's packets say in their INIT: with it ours are addressed.
    remote_tag: Option<u32>,
    remote_max_streams: u16,
    /// The remote has its answer to INIT: one that comes now was under way for longer, and means nothing any more. (The library
    /// would take it for the end, other than RFC 9260, section 5.2.2.)
    has_cookie: bool,
    /// The remote has ended the association in order.
    is_shut_down: bool,
    /// The last number of a chunk of data that was sent.
    last_sent: Option<u32>,
    unsent: usize,
    receive_window: u32,
    pub(super) backlog: Backlog,
    /// How often the remote has ended streams of which the library has not told yet that they are over.
    resets: HashMap<u16, usize>,
    /// The number of the last such request.
    last_reset: Option<u32>,
    /// A timer has run out since anything was sent.
    is_overdue: bool,
    suspects_path: bool,
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
            remote_tag: None,
            remote_max_streams: u16::MAX,
            has_cookie: false,
            is_shut_down: false,
            last_sent: None,
            unsent: 0,
            receive_window,
            backlog: Backlog::new(receive_window as usize),
            resets: HashMap::new(),
            last_reset: None,
            is_overdue: false,
            suspects_path: false,
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
    pub fn handle_packet(
        &mut self,
        now: Instant,
        packet: &[u8],
        is_reading: bool,
    ) -> Option<Signal> {
        let is_known = self.remote_tag.is_some();
        let signal = self.look_at(packet);
        if self.has_cookie && chunks(packet).any(|(kind, _)| kind == INIT) {
            return signal;
        }
        // RFC 9260, section 3.3.1
        if pieces(packet).any(|piece| piece.bytes == 0) {
            return Some(Signal::Violation("a chunk of data came without data"));
        }
        match self.backlog.arrive(pieces(packet), is_reading) {
            Verdict::Take => {}
            Verdict::Drop => return signal,
            Verdict::Refuse => {
                return Some(Signal::Violation(
                    "too many pieces came of messages that are not whole",
                ));
            }
        }
        let packet = only(packet, |kind, value| {
            is_read_whole(kind, value)
                && (kind != SACK || is_in_order(value))
                && !(kind == INIT_ACK && is_known)
        });
        let Some(packet) = packet else {
            return signal;
        };
        if self.count_resets(&packet) > MAX_RESETS {
            return Some(Signal::Violation("a stream was ended again and again"));
        }
        match self.endpoint.handle(now, self.remote, None, None, packet)? {
            (handle, DatagramEvent::NewAssociation(association)) if self.inner.is_none() => {
                self.inner = Some((handle, association));
                self.endpoint.reject_new_associations();
            }
            (handle, DatagramEvent::AssociationEvent(event)) => {
                if let Some((known, association)) = &mut self.inner
                    && *known == handle
                {
                    association.handle_event(event);
                }
            }
            // One session has one association.
            (_, DatagramEvent::NewAssociation(_)) => {}
        }
        signal
    }

    pub fn poll(&mut self) -> Option<Event> {
        let (handle, association) = self.inner.as_mut()?;
        while let Some(event) = association.poll_endpoint_event() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                association.handle_event(event);
            }
        }
        let event = association.poll()?;
        if let Event::Stream(StreamEvent::Finished { id } | StreamEvent::ResetComplete { id }) =
            &event
        {
            self.resets.remove(id);
        }
        Some(event)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.is_overdue = true;
        if let Some((_, association)) = &mut self.inner {
            association.handle_timeout(now);
        }
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
        for packet in &packets {
            is_repeated |= self.count_sent(packet);
            self.count_acknowledged(packet);
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
        self.max_streams.min(self.remote_max_streams)
    }

    pub fn open(&mut self, stream: u16) -> bool {
        self.inner.as_mut().is_some_and(|(_, association)| {
            association
                .open_stream(stream, PayloadProtocolIdentifier::Binary)
                .is_ok()
        })
    }

    /// The next stream that the remote has opened.
    pub fn accept(&mut self) -> Option<u16> {
        let mut stream = self.inner.as_mut()?.1.accept_stream()?;
        // It exists: the remote has just made it.
        let _ = stream.set_default_payload_type(PayloadProtocolIdentifier::Binary);
        Some(stream.stream_identifier())
    }

    /// The next message of a stream.
    pub fn read(&mut self, stream: u16) -> Option<Bytes> {
        let message = self.stream(stream)?.read().ok()??;
        self.backlog.read(message.chunks.len());
        let mut data = BytesMut::zeroed(message.len());
        message.read(&mut data).ok()?;
        Some(data.freeze())
    }

    /// Queue a message on a stream; lost if that is over.
    pub fn write(&mut self, stream: u16, message: Bytes) {
        let bytes = message.len();
        let written = self
            .stream(stream)
            .and_then(|mut stream| stream.write_chunks(&mut [message]).ok());
        if written.is_some() {
            self.unsent += bytes;
        }
    }

    /// Bytes of a stream that the remote has not acknowledged.
    pub fn unacknowledged(&mut self, stream: u16) -> usize {
        self.stream(stream)
            .and_then(|stream| stream.buffered_amount().ok())
            .unwrap_or(0)
    }

    /// Bytes of all streams that have not been sent at all, for want of congestion window.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Make a stream's number free, for both sides, once what was written is there (RFC 6525).
    pub fn reset(&mut self, stream: u16) {
        if let Some(mut stream) = self.stream(stream) {
            // Fails only when the association is over, and the stream with it.
            let _ = stream.close();
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

    fn stream(&mut self, stream: u16) -> Option<Stream<'_>> {
        self.inner.as_mut()?.1.stream(stream).ok()
    }

    fn packet(&self, chunk: &[u8]) -> Option<Bytes> {
        let mut packet = BytesMut::with_capacity(COMMON_HEADER + chunk.len());
        packet.put_u16(PORT);
        packet.put_u16(PORT);
        packet.put_u32(self.remote_tag?);
        packet.put_u32(0);
        packet.put_slice(chunk);
        Some(sealed(packet))
    }

    fn look_at(&mut self, packet: &[u8]) -> Option<Signal> {
        let mut signal = None;
        for (kind, value) in chunks(packet) {
            match kind {
                INIT | INIT_ACK if value.len() >= 16 && self.remote_tag.is_none() => {
                    self.remote_tag = Some(u32_at(value, 0));
                    self.remote_max_streams = u16::from_be_bytes([value[10], value[11]]);
                }
                COOKIE_ECHO => self.has_cookie = true,
                HEARTBEAT_ACK if value.len() == 12 => {
                    let number = u64::from(u32_at(value, 4)) << 32 | u64::from(u32_at(value, 8));
                    signal = Some(if number & PROBE == 0 {
                        Signal::Alive(number)
                    } else {
                        Signal::Carried(number & !PROBE)
                    });
                }
                ABORT => {
                    let is_ours = value.len() == 8 && value[..4] == [0, 12, 0, 8];
                    let code = if is_ours { u32_at(value, 4) } else { 1 };
                    signal = Some(Signal::Aborted(code));
                }
                SHUTDOWN | SHUTDOWN_ACK | SHUTDOWN_COMPLETE => self.is_shut_down = true,
                _ => {}
            }
        }
        signal
    }

    /// Returns how often the one stream of these was ended that was so most often.
    fn count_resets(&mut self, packet: &[u8]) -> usize {
        let mut most = 0;
        for (_, value) in chunks(packet).filter(|(kind, _)| *kind == RECONFIG) {
            for (_, request) in parameters(value)
                .into_iter()
                .filter(|(kind, _)| *kind == OUTGOING_RESET)
            {
                let number = u32_at(request, 0);
                if self.last_reset.replace(number) == Some(number) {
                    continue;
                }
                let ids = request[12..].chunks_exact(2);
                let mut named: Vec<u16> = ids.map(|it| u16_at(it, 0) as u16).collect();
                if let Some((_, association)) = &self.inner
                    && named.is_empty()
                {
                    named = association.stream_ids();
                }
                for id in named {
                    if self.stream(id).is_some() {
                        let count = self.resets.entry(id).or_default();
                        *count += 1;
                        most = most.max(*count);
                    }
                }
            }
        }
        most
    }

    fn count_acknowledged(&mut self, packet: &[u8]) {
        for (_, value) in chunks(packet).filter(|(kind, _)| *kind == SACK) {
            let has_gaps = value[8..10] != [0, 0];
            let is_empty = !has_gaps && u32_at(value, 4) == self.receive_window;
            self.backlog.acknowledge(u32_at(value, 0), is_empty);
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
                self.last_sent = Some(number);
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
    chunks(packet).all(|(kind, _)| kind == DATA)
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

/// A packet's chunks that are wanted; nothing if there are none.
fn only(packet: &[u8], is_wanted: impl Fn(u8, &[u8]) -> bool) -> Option<Bytes> {
    if chunks(packet).all(|(kind, value)| is_wanted(kind, value)) {
        return Some(Bytes::copy_from_slice(packet));
    }
    let mut rest = BytesMut::from(packet.get(..COMMON_HEADER)?);
    for (kind, flags, value) in raw_chunks(packet).filter(|(kind, _, it)| is_wanted(*kind, it)) {
        rest.put_slice(&encode_chunk(kind, flags, value, usize::MAX));
    }
    (rest.len() > COMMON_HEADER).then(|| sealed(rest))
}

/// Whether `sctp-proto` knows a chunk, and reads all of it: it takes what it has not read for the next chunk. What it does not know makes it
/// refuse the whole packet; skipped numbers (RFC 3758) have no use here.
fn is_read_whole(kind: u8, value: &[u8]) -> bool {
    match kind {
        DATA | INIT | INIT_ACK | COOKIE_ECHO | ABORT => true,
        SACK => value.len() >= 12 && value.len() == 12 + 4 * (u16_at(value, 8) + u16_at(value, 10)),
        HEARTBEAT => matches!(parameters(value)[..], [(HEARTBEAT_INFO, _)]),
        RECONFIG => {
            let parameters = parameters(value);
            matches!(parameters.len(), 1 | 2)
                && parameters.iter().all(|(kind, it)| match *kind {
                    OUTGOING_RESET => it.len() >= 12 && it.len().is_multiple_of(2),
                    RECONFIG_RESPONSE => it.len() == 8,
                    _ => false,
                })
        }
        SHUTDOWN => value.len() == 4,
        COOKIE_ACK | SHUTDOWN_ACK | SHUTDOWN_COMPLETE => value.is_empty(),
        _ => false,
    }
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

fn encode_chunk(kind: u8, flags: u8, value: &[u8], most: usize) -> BytesMut {
    let mut chunk = BytesMut::with_capacity(CHUNK_HEADER + value.len() + 3);
    chunk.put_u8(kind);
    chunk.put_u8(flags);
    chunk.put_u16((CHUNK_HEADER + value.len()) as u16);
    chunk.put_slice(value);
    if kind == SACK && chunk.len() > most {
        shorten_sack(&mut chunk, most);
    }
    chunk.resize(chunk.len().next_multiple_of(4), 0);
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

fn pieces(packet: &[u8]) -> impl Iterator<Item = Piece> + Clone {
    let data = chunks(packet).filter(|(kind, value)| *kind == DATA && value.len() >= DATA_VALUE);
    data.map(|(_, value)| Piece {
        number: u32_at(value, 0),
        bytes: value.len() - DATA_VALUE,
    })
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
    fn what_comes_with_the_answer_to_a_heartbeat_is_not_lost() {
        let packet = packet_of(&[(HEARTBEAT_ACK, vec![1; 12]), (DATA, vec![2; 20])]);
        let rest = only(&packet, is_read_whole).unwrap();
        assert_eq!(rest, packet_of(&[(DATA, vec![2; 20])]));
        let answer = packet_of(&[(HEARTBEAT_ACK, vec![1; 12])]);
        assert_eq!(only(&answer, is_read_whole), None);
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
            &[0, 17, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1]
        ));
        assert!(!is_read_whole(RECONFIG, &[response; 3].concat()));
        assert!(!is_read_whole(HEARTBEAT, &[0, 1, 0, 4, 0, 1, 0, 4]));
        assert!(!is_read_whole(192, &[0; 4]));
    }
}
