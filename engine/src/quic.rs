//! One QUIC session: `quinn_proto::Connection` with the queues between it and JavaScript. Sans-IO.
//!
//! Its packets come as [`QuicSession::handle_event`]; the rest is as [`Session`] says.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionError, ConnectionEvent, ConnectionHandle, Dir, Endpoint, Event,
    ReadError, SendDatagramError, ServerConfig, StreamEvent, StreamId, Transmit, VarInt,
    WriteError,
};
use rustls::pki_types::CertificateDer;

use crate::ahead::STAND_IN;
use crate::congestion::Goodbye;
use crate::events::{Events, Kind};
use crate::identity::QuicIdentity;
use crate::notice::{CloseCause, Notice};
use crate::session::{ABANDONED, Session};
use crate::tls::Claim;

/// How often a changed round trip time is worth telling.
const PATH_INTERVAL: Duration = Duration::from_millis(500);

/// How long a growing datagram size waits: path MTU discovery finds it in several steps right after the handshake, and
/// waking JavaScript for each of them would slow down what it does then.
const PATH_SETTLING: Duration = Duration::from_millis(100);

/// The application error code of a reset stream, and of an orderly close.
const NO_CODE: VarInt = VarInt::from_u32(0);

struct Stream {
    /// Bytes that JavaScript takes before it has to say `Consumed`.
    credit: usize,
    unsent: VecDeque<Bytes>,
    finishing: bool,
    send_over: bool,
    receive_over: bool,
}

impl Stream {
    fn new(credit: usize) -> Self {
        Self {
            credit,
            unsent: VecDeque::new(),
            finishing: false,
            send_over: false,
            receive_over: false,
        }
    }
}

enum State {
    Handshaking,
    Secured,
    /// Close with this code as soon as what was written has been delivered.
    Closing(u32),
    Closed,
}

/// What a session was made with.
pub struct Terms {
    pub identity: Arc<QuicIdentity>,
    pub goodbye: Goodbye,
}

impl Terms {
    pub fn new(identity: Arc<QuicIdentity>) -> Self {
        Self {
            identity,
            goodbye: Goodbye::default(),
        }
    }

    /// Those of a responder, and the configuration that goes with them.
    pub fn of_responder(
        identity: Arc<QuicIdentity>,
        max_udp_payload: u16,
    ) -> (Arc<ServerConfig>, Self) {
        let terms = Self::new(identity);
        let config = terms
            .identity
            .server_config(max_udp_payload, &terms.goodbye);
        (config, terms)
    }
}

pub struct QuicSession {
    id: u32,
    handle: ConnectionHandle,
    connection: Connection,
    terms: Terms,
    state: State,
    /// An initiator before the agreement: it listens already, but nothing leaves.
    first_flight: Option<Vec<Vec<u8>>>,
    /// How many datagrams that is, or was.
    first_flight_length: Option<u64>,
    /// A guest's: nobody hears of it yet.
    unasked: bool,
    /// Cancelled before the agreement: it must not send even its goodbye.
    muted: bool,
    streams: HashMap<StreamId, Stream>,
    /// How many streams the remote has opened.
    accepted: u64,
    /// The first of the remote's streams that JavaScript knows it may not open yet.
    told_limit: Option<StreamId>,
    opening: VecDeque<u32>,
    datagrams: VecDeque<Bytes>,
    /// How many datagrams that came were taken from the connection, or are known to have been dropped there.
    datagrams_seen: u64,
    /// Streams with something to read that JavaScript had no room for, and whether datagrams wait, too.
    starved_streams: HashSet<StreamId>,
    starved_datagrams: bool,
    /// What quinn's empty send buffer for datagrams has room for.
    datagram_space: usize,
    drained: bool,
    told_size: usize,
    told_at: Option<Instant>,
}

impl QuicSession {
    /// `terms` are those that the connection's configuration was made with.
    pub fn new(id: u32, handle: ConnectionHandle, connection: Connection, terms: Terms) -> Self {
        Self {
            id,
            handle,
            connection,
            terms,
            state: State::Handshaking,
            first_flight: None,
            first_flight_length: None,
            unasked: false,
            muted: false,
            streams: HashMap::new(),
            accepted: 0,
            told_limit: None,
            opening: VecDeque::new(),
            datagrams: VecDeque::new(),
            datagrams_seen: 0,
            starved_streams: HashSet::new(),
            starved_datagrams: false,
            datagram_space: 0,
            drained: false,
            told_size: 0,
            told_at: None,
        }
    }

    /// The session of a guest for whom JavaScript has not responded: the handshake goes on, but nobody hears of anything.
    pub fn unasked(self) -> Self {
        Self {
            unasked: true,
            ..self
        }
    }

    /// JavaScript responds with that identity: what it would have begun by this number has begun. False if it would be another.
    pub fn ask_for(&mut self, id: u32, identity: &Arc<QuicIdentity>) -> bool {
        if matches!(self.state, State::Closed) || !Arc::ptr_eq(&self.terms.identity, identity) {
            return false;
        }
        self.id = id;
        self.unasked = false;
        true
    }

    pub fn handle(&self) -> ConnectionHandle {
        self.handle
    }

    /// Whether it is a dial that was begun ahead, whose remote quinn does not know. An initiator's session stays with its remote.
    pub fn has_stand_in(&self) -> bool {
        self.connection.side().is_client() && self.connection.remote_address() == STAND_IN
    }

    /// Take the datagrams of the first flight out of a fresh initiator, and let nothing leave until [`Session::proceed`].
    pub fn prepare(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut first_flight = Vec::new();
        loop {
            let mut datagram = Vec::new();
            match self.connection.poll_transmit(now, 1, &mut datagram) {
                Some(transmit) => {
                    datagram.truncate(transmit.size);
                    first_flight.push(datagram);
                }
                None => break,
            }
        }
        self.first_flight = Some(first_flight.clone());
        self.first_flight_length = Some(self.connection.stats().udp_tx.datagrams);
        first_flight
    }

    /// Whether it only says goodbye any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    pub fn handle_event(&mut self, event: ConnectionEvent) {
        self.connection.handle_event(event);
    }

    fn max_credit(&self) -> usize {
        self.terms.identity.stream_receive_queue()
    }

    /// Whom the handshake has proved to be there, if that is done and nobody has heard of it yet.
    pub fn unannounced_peer(&self) -> Option<Vec<u8>> {
        let is_done = matches!(self.state, State::Handshaking)
            && !self.connection.is_handshaking()
            && !self.connection.is_closed();
        if !is_done {
            return None;
        }
        Some(self.claim()?.peer_id.clone())
    }

    /// What the remote's certificate says, once the handshake has ended well.
    fn claim(&self) -> Option<Arc<Claim>> {
        let identity = self.connection.crypto_session().peer_identity()?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        self.terms.identity.claim_of(chain.first()?)
    }

    fn connected(&mut self, now: Instant, out: &mut Events) {
        let Some(claim) = self.claim() else {
            // The verifier has verified the same certificate: this does not happen, and must not pass if it does.
            let message = "the remote showed no certificate of a libp2p peer".into();
            self.tell_closed(CloseCause::Failed, message, out);
            self.terms.goodbye.let_pass();
            self.connection.close(now, NO_CODE, Bytes::new());
            return;
        };
        self.state = State::Secured;
        self.datagram_space = self.connection.datagrams().send_buffer_space();
        self.tell_path(now, out);
        let local_key = self.terms.identity.public_key_info().to_vec();
        out.push_notice(
            self.id,
            Notice::Secured {
                peer_id: claim.peer_id.clone(),
                local_key,
                remote_key: claim.remote_key.clone(),
            },
        );
    }

    fn lost(&mut self, reason: &ConnectionError, out: &mut Events) {
        let (cause, message) = match reason {
            ConnectionError::ApplicationClosed(close) if close.error_code == NO_CODE => {
                (CloseCause::Remote, String::new())
            }
            ConnectionError::ApplicationClosed(close) => (
                CloseCause::RemoteError,
                format!("application error {:#x}", close.error_code.into_inner()),
            ),
            ConnectionError::TimedOut => (CloseCause::TimedOut, String::new()),
            ConnectionError::Reset => (CloseCause::Reset, String::new()),
            ConnectionError::LocallyClosed => (CloseCause::Local, String::new()),
            reason => (CloseCause::Failed, reason.to_string()),
        };
        self.read_all(out);
        if !matches!(self.state, State::Closed) {
            // Those that wait still will not be taken any more.
            self.tell_dropped_datagrams(out);
        }
        self.tell_closed(cause, message, out);
    }

    /// What came before the end is delivered before it. There is nothing left to hold back: at most a receive window.
    fn read_all(&mut self, out: &mut Events) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.credit = usize::MAX;
            }
            self.read(id, out, false);
        }
    }

    fn tell_closed(&mut self, cause: CloseCause, message: String, out: &mut Events) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.state = State::Closed;
        // Nothing of an initiator that was not told to proceed has left, and nobody will tell it to now.
        self.muted |= self.first_flight.take().is_some();
        self.streams.clear();
        self.starved_streams.clear();
        self.starved_datagrams = false;
        self.opening.clear();
        self.datagrams.clear();
        if !self.unasked {
            out.push_notice(self.id, Notice::Closed { cause, message });
        }
    }

    /// Whether it was told to prove its address, and has not done so yet.
    fn owes_proof(&self) -> bool {
        let stats = self.connection.stats();
        let has_heard_frames = stats.frame_rx.acks + stats.frame_rx.crypto > 0;
        let has_said_more = self.first_flight_length != Some(stats.udp_tx.datagrams);
        stats.udp_rx.datagrams > 0 && !has_heard_frames && !has_said_more
    }

    fn close_now(&mut self, code: u32, now: Instant, out: &mut Events) {
        // A Retry (RFC 9000, section 8.1.2) is from somebody who remembers nothing, and whom a goodbye with the proof of address that
        // was asked for would seem to begin.
        self.muted |= self.owes_proof();
        self.tell_closed(CloseCause::Local, String::new(), out);
        self.terms.goodbye.let_pass();
        self.connection.close(now, code.into(), Bytes::new());
    }

    fn close_if_delivered(&mut self, now: Instant, out: &mut Events) {
        let State::Closing(code) = self.state else {
            return;
        };
        let undelivered = self
            .streams
            .values()
            .any(|stream| stream.finishing && !stream.send_over);
        let datagrams_left = !self.datagrams.is_empty()
            || self.connection.datagrams().send_buffer_space() < self.datagram_space;
        if !undelivered && !datagrams_left {
            self.close_now(code, now, out);
        }
    }

    fn tell_path(&mut self, now: Instant, out: &mut Events) {
        if !matches!(self.state, State::Secured | State::Closing(_)) {
            return;
        }
        let size = self.connection.datagrams().max_size().unwrap_or(0);
        let is_due = self.told_at.is_none_or(|told_at| {
            let age = now.duration_since(told_at);
            size < self.told_size
                || (size > self.told_size && age >= PATH_SETTLING)
                || age >= PATH_INTERVAL
        });
        if is_due {
            self.told_size = size;
            self.told_at = Some(now);
            let rtt = self.connection.rtt().as_micros() as u64;
            out.push(Kind::Path, self.id, size as u64, rtt);
        }
    }

    fn stream_event(
        &mut self,
        event: StreamEvent,
        out: &mut Events,
        full: &dyn Fn(&Events) -> bool,
    ) {
        match event {
            StreamEvent::Opened { .. } => self.accept_streams(out, full),
            StreamEvent::Readable { id } => {
                let full = full(out);
                self.read(id, out, full);
            }
            StreamEvent::Writable { id } => self.write_unsent(id, out),
            StreamEvent::Finished { id } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.send_over = true;
                }
                self.forget_if_over(id);
            }
            StreamEvent::Stopped { id, .. } => self.stopped(id, out),
            StreamEvent::Available { .. } => self.open_streams(out),
        }
    }

    fn accept_streams(&mut self, out: &mut Events, full: &dyn Fn(&Events) -> bool) {
        while let Some(id) = self.connection.streams().accept(Dir::Bi) {
            self.accepted += 1;
            self.streams.insert(id, Stream::new(self.max_credit()));
            out.push(Kind::StreamOpened, self.id, id.into(), 0);
            let full = full(out);
            self.read(id, out, full);
        }
    }

    /// Each of the remote's streams that is over makes room for another one (RFC 9000, section 4.6).
    fn tell_stream_limit(&mut self, out: &mut Events, full: &dyn Fn(&Events) -> bool) {
        self.accept_streams(out, full);
        let over = self.accepted - self.connection.streams().remote_open_streams(Dir::Bi);
        let limit = StreamId::new(
            !self.connection.side(),
            Dir::Bi,
            over + self.connection.max_concurrent_streams(Dir::Bi),
        );
        if self.told_limit != Some(limit) {
            self.told_limit = Some(limit);
            out.push(Kind::StreamLimit, self.id, limit.into(), 0);
        }
    }

    fn open_streams(&mut self, out: &mut Events) {
        while let Some(token) = self.opening.front().copied() {
            let Some(id) = self.connection.streams().open(Dir::Bi) else {
                return;
            };
            self.opening.pop_front();
            self.streams.insert(id, Stream::new(self.max_credit()));
            out.push(Kind::StreamReady, self.id, id.into(), token.into());
        }
    }

    /// The remote reads no more: what is left to send has nowhere to go.
    fn stopped(&mut self, id: StreamId, out: &mut Events) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.send_over {
            return;
        }
        stream.send_over = true;
        stream.unsent.clear();
        // RFC 9000, section 3.5: STOP_SENDING is answered with RESET_STREAM.
        let _ = self.connection.send_stream(id).reset(NO_CODE);
        out.push(Kind::StreamStopped, self.id, id.into(), 0);
        self.forget_if_over(id);
    }

    fn write_unsent(&mut self, id: StreamId, out: &mut Events) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.send_over {
            return;
        }
        let mut bytes = 0;
        let mut was_stopped = false;
        while !stream.unsent.is_empty() {
            let chunks = stream.unsent.make_contiguous();
            match self.connection.send_stream(id).write_chunks(chunks) {
                Ok(written) => {
                    stream.unsent.drain(..written.chunks);
                    bytes += written.bytes as u64;
                }
                Err(WriteError::Blocked) => break,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    was_stopped = true;
                    break;
                }
            }
        }
        if bytes > 0 {
            out.push(Kind::StreamWritten, self.id, id.into(), bytes);
        }
        if was_stopped {
            self.stopped(id, out);
        } else if stream.finishing && stream.unsent.is_empty() {
            // Fails only on a stream that is finished already.
            let _ = self.connection.send_stream(id).finish();
        }
    }

    fn read(&mut self, id: StreamId, out: &mut Events, full: bool) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.receive_over {
            return;
        }
        if full {
            self.starved_streams.insert(id);
            return;
        }
        let mut recv = self.connection.recv_stream(id);
        let Ok(mut chunks) = recv.read(true) else {
            return;
        };
        while stream.credit > 0 {
            match chunks.next(stream.credit) {
                Ok(Some(chunk)) => {
                    stream.credit -= chunk.bytes.len();
                    out.push_stream_data(self.id, id.into(), &chunk.bytes);
                }
                Ok(None) => {
                    stream.receive_over = true;
                    out.push(Kind::StreamFinished, self.id, id.into(), 0);
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(_)) => {
                    stream.receive_over = true;
                    out.push(Kind::StreamReset, self.id, id.into(), 0);
                    break;
                }
            }
        }
        // Every caller transmits afterwards.
        let _ = chunks.finalize();
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get(&id)
            && stream.send_over
            && stream.receive_over
        {
            self.streams.remove(&id);
        }
    }

    fn receive_datagrams(&mut self, out: &mut Events, full: &dyn Fn(&Events) -> bool) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.tell_stream_limit(out, full);
        loop {
            if full(out) {
                self.starved_datagrams = true;
                return;
            }
            let Some(payload) = self.connection.datagrams().recv() else {
                self.tell_dropped_datagrams(out);
                return;
            };
            self.datagrams_seen += 1;
            out.push_datagram(self.id, &payload);
        }
    }

    /// What has come and was not taken, nor waits any more, quinn has dropped: the oldest for the newest.
    fn tell_dropped_datagrams(&mut self, out: &mut Events) {
        let came = self.connection.stats().frame_rx.datagram;
        let dropped = came.saturating_sub(self.datagrams_seen);
        if dropped > 0 {
            self.datagrams_seen = came;
            out.push(Kind::DatagramsDropped, self.id, dropped, 0);
        }
    }

    fn send_datagrams(&mut self, out: &mut Events) {
        let mut sent = 0;
        let mut dropped = 0;
        while let Some(payload) = self.datagrams.pop_front() {
            let bytes = payload.len() as u64;
            match self.connection.datagrams().send(payload, false) {
                Ok(()) => {}
                Err(SendDatagramError::Blocked(payload)) => {
                    self.datagrams.push_front(payload);
                    break;
                }
                Err(_) => dropped += 1,
            }
            sent += bytes;
        }
        if sent > 0 || dropped > 0 {
            out.push(Kind::DatagramsSent, self.id, sent, dropped);
        }
    }
}

impl Session for QuicSession {
    /// Whether it waits for [`Session::proceed`].
    fn is_prepared(&self) -> bool {
        self.first_flight.is_some()
    }

    /// Let a prepared initiator go; returns its first flight.
    fn proceed(&mut self, sent: bool) -> Vec<Vec<u8>> {
        let first_flight = self.first_flight.take().unwrap_or_default();
        // What quinn says next has the proof. A responder that asks for none any more could begin with this one, which nobody goes on with.
        if sent && self.owes_proof() {
            return Vec::new();
        }
        first_flight
    }

    fn mute(&mut self) {
        self.muted = true;
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        if self.is_prepared() {
            return None;
        }
        self.connection.poll_timeout()
    }

    fn poll_transmit(
        &mut self,
        now: Instant,
        max_datagrams: usize,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        if self.muted || self.is_prepared() {
            return None;
        }
        self.connection.poll_transmit(now, max_datagrams, buf)
    }

    fn open_stream(&mut self, token: u32, out: &mut Events) {
        if matches!(self.state, State::Secured) {
            self.opening.push_back(token);
            self.open_streams(out);
        } else {
            out.push_notice(self.id, Notice::OpenFailed { token });
        }
    }

    fn cancel_open(&mut self, token: u32) {
        self.opening.retain(|waiting| *waiting != token);
    }

    fn write(&mut self, stream: u64, data: Bytes, out: &mut Events) {
        let Some((id, entry)) = find(&mut self.streams, stream) else {
            return;
        };
        if entry.send_over {
            return;
        }
        entry.unsent.push_back(data);
        self.write_unsent(id, out);
    }

    fn finish(&mut self, stream: u64, out: &mut Events) {
        let Some((id, entry)) = find(&mut self.streams, stream) else {
            return;
        };
        entry.finishing = true;
        self.write_unsent(id, out);
    }

    fn reset(&mut self, stream: u64) {
        let Some((id, entry)) = find(&mut self.streams, stream) else {
            return;
        };
        // Both calls fail only where that side is over already.
        if !entry.send_over {
            let _ = self.connection.send_stream(id).reset(NO_CODE);
        }
        if !entry.receive_over {
            let _ = self.connection.recv_stream(id).stop(NO_CODE);
        }
        self.starved_streams.remove(&id);
        self.streams.remove(&id);
    }

    fn stop(&mut self, stream: u64) {
        let Some((id, entry)) = find(&mut self.streams, stream) else {
            return;
        };
        if !entry.receive_over {
            entry.receive_over = true;
            let _ = self.connection.recv_stream(id).stop(NO_CODE);
        }
        self.starved_streams.remove(&id);
        self.forget_if_over(id);
    }

    fn consumed(&mut self, stream: u64, bytes: usize, out: &mut Events, full: bool) {
        let max_credit = self.max_credit();
        let Some((id, entry)) = find(&mut self.streams, stream) else {
            return;
        };
        entry.credit = (entry.credit + bytes).min(max_credit);
        self.read(id, out, full);
    }

    fn datagram(&mut self, payload: Bytes, out: &mut Events) {
        self.datagrams.push_back(payload);
        self.send_datagrams(out);
    }

    fn cancel(&mut self, sent: bool, now: Instant, out: &mut Events) {
        if sent {
            self.first_flight = None;
        }
        self.close_now(ABANDONED, now, out);
    }

    fn close(&mut self, code: u32, orderly: bool, now: Instant, out: &mut Events) {
        match self.state {
            State::Closed => {}
            State::Secured | State::Closing(_) if orderly => {
                self.state = State::Closing(code);
                self.close_if_delivered(now, out);
            }
            _ => self.close_now(code, now, out),
        }
    }

    /// JavaScript has room again.
    fn resume(&mut self, out: &mut Events, full: &dyn Fn(&Events) -> bool) {
        if std::mem::take(&mut self.starved_datagrams) {
            self.receive_datagrams(out, full);
        }
        for id in std::mem::take(&mut self.starved_streams) {
            let full = full(out);
            self.read(id, out, full);
        }
    }

    fn is_parting(&self) -> bool {
        // A CONNECTION_CLOSE can be sent at any time (RFC 9000, section 10.2.3).
        false
    }

    fn is_starved(&self) -> bool {
        self.starved_datagrams || !self.starved_streams.is_empty()
    }

    /// Take the connection's events.
    fn process(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        out: &mut Events,
        full: &dyn Fn(&Events) -> bool,
    ) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            self.drained |= event.is_drained();
            if let Some(event) = endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }

        if self.unasked {
            return;
        }

        while let Some(event) = self.connection.poll() {
            match event {
                Event::HandshakeDataReady => {}
                Event::Connected => self.connected(now, out),
                Event::ConnectionLost { reason } => self.lost(&reason, out),
                Event::DatagramReceived => self.receive_datagrams(out, full),
                Event::DatagramsUnblocked => self.send_datagrams(out),
                Event::Stream(event) => self.stream_event(event, out, full),
            }
        }

        self.tell_path(now, out);
        self.close_if_delivered(now, out);
    }

    /// Whether the session is over for good and can be forgotten.
    fn is_drained(&self) -> bool {
        self.drained
    }
}

/// Stream numbers come from JavaScript; one that is not open is not an error: its stream may have ended meanwhile.
fn find(streams: &mut HashMap<StreamId, Stream>, stream: u64) -> Option<(StreamId, &mut Stream)> {
    let id = StreamId::from(VarInt::from_u64(stream).ok()?);
    streams.get_mut(&id).map(|entry| (id, entry))
}
