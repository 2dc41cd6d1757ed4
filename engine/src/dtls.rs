//! One DTLS session: `dimpl::Dtls`, the SCTP association inside it, and the queues between them and JavaScript. Sans-IO.
//!
//! Its packets come as [`DtlsSession::handle_datagram`]; the rest is as [`Session`] says.

mod association;
mod backlog;
mod bundle;
mod crypto;
mod endings;
mod flight;
mod identity;
mod library;
mod message;
mod outbox;
mod path;
mod record;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dimpl::{Output, ProtocolVersion};
use quinn_proto::{Endpoint, Transmit};
use sctp_proto::{AssociationError, Event, StreamEvent};

pub use self::identity::{DtlsIdentity, DtlsSettings};
pub use self::record::{client_random, is_record};

use self::association::{Association, LeftOut, Signal};
use self::flight::Flight;
use self::library::Library;
use self::message::{Flag, MAX_PAYLOAD, Message};
use self::outbox::Outbox;
use self::path::Path;
use self::record::server_random;
use crate::command::Peer;
use crate::events::{Events, Kind};
use crate::notice::{CloseCause, Notice};
use crate::session::{ABANDONED, Session};
use crate::tls::Claim;

/// What a record of application data is larger than its content: DTLS 1.3 with a short header (RFC 9147, section 4), DTLS 1.2
/// with AES-GCM (RFC 5288).
const RECORD_OVERHEAD: usize = 22;
const RECORD_OVERHEAD_12: usize = 37;

/// What a datagram that waits weighs beside its bytes, of which it may have none.
const DATAGRAM_WEIGHT: usize = 64;

/// The first byte of application data that is a datagram, or [several](bundle); a packet of SCTP begins with
/// [`association::FIRST_BYTE`].
const DATAGRAM: u8 = 0;
const DATAGRAMS: u8 = 1;

/// How many times the bytes of a client that has not proved its address are sent to it, as in QUIC (RFC 9000, section 8.1).
const MAX_AMPLIFICATION: usize = 3;

/// Bytes of streams that SCTP may have ready beyond what its congestion window lets go: what is behind them of other streams
/// waits as long as they do.
const SCTP_BACKLOG: usize = 64 * 1024;

/// Chunks of data that may be under way: 9 MB of large ones. `sctp-proto` looks at all of them for an acknowledgement.
const MAX_IN_FLIGHT: usize = 8192;

/// Bytes of streams that may always be under way; more as the path is found to carry them.
const MIN_FLIGHT: usize = 192 * 1024;

/// How long the path's rate is measured at least, before anything is made of it.
const RATE_INTERVAL: Duration = Duration::from_millis(10);

/// Bytes of packets that may wait for the socket: then nothing more is made.
const PACKET_BACKLOG: usize = 320 * 1024;

/// What the system sends in one call: a UDP payload, cut in segments.
const MAX_TRANSMIT: usize = 65_487;

/// What is taken out of the DTLS library at a time; larger if need be.
const SCRATCH: usize = 2048;

/// Datagrams of a handshake are no larger: those of any path that is not a loop are not.
const MAX_HANDSHAKE_DATAGRAM: usize = 4096;

/// So no certificate is larger than what the DTLS library holds back of them.
const MAX_CERTIFICATE: usize = MAX_HANDSHAKE_DATAGRAM * identity::MAX_RECORDS;

/// How long a session that is over answers packets by telling so.
const LINGER: Duration = Duration::from_secs(3);

/// How long it keeps silent between two times, at first; then twice as long each time. The other side's goodbye can't be told from
/// its other packets any more: once this exceeds the round trip, goodbyes that answer each other end.
const GOODBYE_HOLD_OFF: Duration = Duration::from_millis(100);

/// How long the DTLS library waits at least between two looks at the time. While a message of a flight is missing, it is due at
/// once, again and again, with an ACK each time (RFC 9147, section 7.1): it would never end.
const MIN_WAIT: Duration = Duration::from_millis(100);

/// How often a handshake may begin again.
const MAX_RESTARTS: u8 = 4;

/// How often a changed round trip time is worth telling.
const PATH_INTERVAL: Duration = Duration::from_millis(500);

struct Stream {
    /// Bytes that JavaScript takes before it has to say `Consumed`; below zero after a message that had more.
    credit: i64,
    unsent: VecDeque<Bytes>,
    /// How many bytes have been sent, and how many may be in all: before the remote says, and if it never does, any number.
    sent: u64,
    limit: u64,
    /// What came and was not passed on yet, and how many bytes that is.
    inbox: VecDeque<BytesMut>,
    inbox_size: usize,
    /// What comes after it.
    end: Option<Kind>,
    /// How many bytes have been passed on, and how many the remote may send as far as it has been told.
    delivered: u64,
    told_limit: Option<u64>,
    finishing: bool,
    fin_sent: bool,
    send_over: bool,
    /// JavaScript reads no more, the remote may not know it yet.
    unwanted: bool,
    receive_over: bool,
}

impl Stream {
    fn new(credit: i64) -> Self {
        Self {
            credit,
            unsent: VecDeque::new(),
            sent: 0,
            limit: u64::MAX,
            inbox: VecDeque::new(),
            inbox_size: 0,
            end: None,
            delivered: 0,
            told_limit: None,
            finishing: false,
            fin_sent: false,
            send_over: false,
            unwanted: false,
            receive_over: false,
        }
    }

    /// Whether there is something that may be written.
    fn is_sending(&self) -> bool {
        let has_bytes = !self.unsent.is_empty() && self.sent < self.limit;
        let has_end = self.unsent.is_empty() && self.finishing && !self.fin_sent;
        !self.send_over && (has_bytes || has_end)
    }

    /// The next bytes of the stream, as many as fit a message, and the remote takes. What had to wait goes together.
    fn take_unsent(&mut self) -> Option<Bytes> {
        let most = MAX_PAYLOAD.min(usize::try_from(self.limit - self.sent).unwrap_or(MAX_PAYLOAD));
        let mut chunk = self.unsent.pop_front()?;
        if chunk.len() > most {
            self.unsent.push_front(chunk.split_off(most));
        }
        let fits = |size, next: &Bytes| size + next.len() <= most;
        if self.unsent.front().is_some_and(|it| fits(chunk.len(), it)) {
            let mut joined = BytesMut::from(chunk);
            while self.unsent.front().is_some_and(|it| fits(joined.len(), it))
                && let Some(next) = self.unsent.pop_front()
            {
                joined.extend_from_slice(&next);
            }
            chunk = joined.freeze();
        }
        self.sent += chunk.len() as u64;
        Some(chunk)
    }

    /// Have it wait until it is passed on. Small payloads become one: each alone would take many times its bytes.
    fn keep(&mut self, payload: Bytes) {
        self.inbox_size += payload.len();
        match self.inbox.back_mut() {
            Some(last) if last.len() + payload.len() <= MAX_PAYLOAD => {
                last.extend_from_slice(&payload);
            }
            _ => self.inbox.push_back(payload.into()),
        }
    }

    /// What the remote is to be told of how much it may send: at first when it sends so much that it matters, then when it
    /// has used up half of that.
    fn next_limit(&mut self, window: u64) -> Option<u64> {
        let limit = self.delivered + window;
        let is_due = match self.told_limit {
            None => self.delivered + self.inbox_size as u64 >= window / 8,
            Some(told) => limit - told >= window / 2,
        };
        is_due.then(|| *self.told_limit.insert(limit))
    }
}

#[derive(Clone, Copy)]
enum Role {
    Initiator,
    Responder { validate_address: bool },
}

impl Role {
    fn is_initiator(self) -> bool {
        matches!(self, Self::Initiator)
    }

    fn validates_address(self) -> bool {
        matches!(
            self,
            Self::Responder {
                validate_address: true
            }
        )
    }
}

enum State {
    Handshaking,
    Secured,
    /// Close with this code as soon as what was written has been delivered.
    Closing(u32),
    Closed,
}

pub struct DtlsSession {
    id: u32,
    identity: Arc<DtlsIdentity>,
    remote: SocketAddr,
    local: Option<IpAddr>,
    role: Role,
    path: Path,
    /// The path's size has changed since the rest was told.
    is_resized: bool,
    dtls: Library,
    dtls_timeout: Option<Instant>,
    /// When it was last told the time.
    dtls_told_at: Instant,
    /// What a ClientHello has to begin with to be of this handshake, if this side is the responder.
    client_random: Option<[u8; 32]>,
    /// The random of the ServerHello that was taken, if this side is the initiator.
    server_random: Option<[u8; 32]>,
    /// Of those that contradicted each other: they are of no use any more.
    refused_randoms: Vec<[u8; 32]>,
    restarts: u8,
    /// What the remote's certificate says, proved once the handshake is done, or what is wrong with it.
    claim: Option<Result<Arc<Claim>, String>>,
    state: State,
    /// Why it is over, as long as JavaScript has not been told.
    end: Option<(CloseCause, String)>,
    /// An initiator before the agreement: it listens already, but nothing leaves.
    first_flight: Option<Vec<Vec<u8>>>,
    /// Cancelled before the agreement.
    muted: bool,
    received_bytes: usize,
    sent_bytes: usize,

    packets: Outbox,
    /// The last packets, which say that it is over.
    goodbye: Vec<Vec<u8>>,
    /// When it may be repeated, and how long not after that.
    goodbye_due: Option<(Instant, Duration)>,
    linger_until: Option<Instant>,
    /// A responder that was closed before its handshake was done: the initiator can be told when it has finished its part, and takes
    /// itself for connected.
    is_parting: bool,
    drained: bool,

    association: Option<Association>,
    is_associated: bool,
    streams: HashMap<u16, Stream>,
    opening: VecDeque<u32>,
    /// Numbers of streams of this side: those that were used and are free again, and the first that never was. One comes back
    /// as late as can be: datagrams go by the number of their stream, and may be slower than its end.
    free: VecDeque<u16>,
    next: u16,
    /// Streams that have something to be written, in the order of their turns.
    writing: VecDeque<u16>,
    /// Streams with bytes that the remote has not acknowledged.
    unacknowledged: HashMap<u16, usize>,
    /// Those that JavaScript had no room for, and those that wait in SCTP.
    starved_streams: HashSet<u16>,
    unreceived: HashSet<u16>,
    /// Streams that were reset on this side while the remote may still send: what comes is read, and thrown away.
    abandoned: HashSet<u16>,
    /// Bytes in all inboxes.
    inbox_size: usize,
    /// Somebody has given up to read, so that there may be room for what waits in SCTP.
    has_room: bool,

    datagrams: VecDeque<Bytes>,
    /// Bytes of datagrams that JavaScript has given, those of them that are gone, and those for which it was told to give more.
    datagrams_given: u64,
    datagrams_gone: u64,
    datagrams_told: u64,
    received: VecDeque<Bytes>,
    received_size: usize,
    /// The remote has shown that it knows what several datagrams in one record are.
    takes_bundles: bool,

    heard_at: Option<Instant>,
    flight: Flight,
    /// Bytes written to streams, those of them that had been acknowledged at the last look at the rate, and when that was.
    written: u64,
    acknowledged: u64,
    rated_at: Option<Instant>,
    /// Bytes per second that the path was found to carry.
    rate: f64,
    /// Whether SCTP may have something to send.
    is_due: bool,
    path_told_at: Option<Instant>,
    scratch: Vec<u8>,
}

impl DtlsSession {
    pub fn initiate(
        id: u32,
        now: Instant,
        identity: Arc<DtlsIdentity>,
        peer: Peer,
    ) -> Result<Self, dimpl::Error> {
        let mut session = Self::new(id, now, identity, peer, Role::Initiator)?;
        session.dtls.begin_as_client();
        session.dtls.handle_timeout(now)?;
        session.drain(now, &mut Events::default(), true);
        Ok(session)
    }

    pub fn respond(
        id: u32,
        now: Instant,
        identity: Arc<DtlsIdentity>,
        peer: Peer,
        validate_address: bool,
    ) -> Result<Self, dimpl::Error> {
        let mut session = Self::new(
            id,
            now,
            identity,
            peer,
            Role::Responder { validate_address },
        )?;
        session.dtls.handle_timeout(now)?;
        Ok(session)
    }

    fn new(
        id: u32,
        now: Instant,
        identity: Arc<DtlsIdentity>,
        peer: Peer,
        role: Role,
    ) -> Result<Self, dimpl::Error> {
        let is_initiator = role.is_initiator();
        let path = identity.path(peer);
        Ok(Self {
            id,
            dtls: identity.dtls(now, path.size(), role.validates_address())?,
            role,
            identity,
            remote: peer.remote,
            local: peer.local,
            path,
            is_resized: false,
            dtls_timeout: None,
            dtls_told_at: now,
            client_random: None,
            server_random: None,
            refused_randoms: Vec::new(),
            restarts: 0,
            claim: None,
            state: State::Handshaking,
            end: None,
            first_flight: None,
            muted: false,
            received_bytes: 0,
            sent_bytes: 0,
            packets: Outbox::default(),
            goodbye: Vec::new(),
            goodbye_due: None,
            linger_until: None,
            is_parting: false,
            drained: false,
            association: None,
            is_associated: false,
            streams: HashMap::new(),
            opening: VecDeque::new(),
            free: VecDeque::new(),
            next: u16::from(!is_initiator),
            writing: VecDeque::new(),
            unacknowledged: HashMap::new(),
            starved_streams: HashSet::new(),
            unreceived: HashSet::new(),
            abandoned: HashSet::new(),
            has_room: false,
            inbox_size: 0,
            datagrams: VecDeque::new(),
            datagrams_given: 0,
            datagrams_gone: 0,
            datagrams_told: 0,
            received: VecDeque::new(),
            received_size: 0,
            takes_bundles: false,
            heard_at: None,
            flight: Flight::default(),
            written: 0,
            acknowledged: 0,
            rated_at: None,
            rate: 0.0,
            is_due: false,
            path_told_at: None,
            scratch: vec![0; SCRATCH],
        })
    }

    /// Take the datagrams of the first flight out of a fresh initiator, and let nothing leave until [`Session::proceed`].
    pub fn prepare(&mut self) -> Vec<Vec<u8>> {
        let first_flight: Vec<_> = self.packets.iter().map(<[u8]>::to_vec).collect();
        self.packets.clear();
        self.first_flight = Some(first_flight.clone());
        first_flight
    }

    /// Returns false if the datagram is of another session, or of none: nothing has come of it.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: Option<IpAddr>,
        data: &[u8],
        out: &mut Events,
        full: bool,
    ) -> bool {
        if let Some(random) = client_random(data) {
            let is_mine = !self.role.is_initiator()
                && matches!(self.state, State::Handshaking)
                && self.client_random.is_none_or(|mine| mine == random);
            if !is_mine {
                return false;
            }
            self.client_random = Some(random);
        }
        if matches!(self.state, State::Closed) && !self.is_parting {
            self.repeat_goodbye(now);
            return true;
        }
        if self.role.is_initiator()
            && matches!(self.state, State::Handshaking)
            && let Some(random) = server_random(data)
        {
            if self.refused_randoms.contains(&random) {
                return true;
            }
            let known = *self.server_random.get_or_insert(random);
            if known != random {
                self.refused_randoms.extend([known, random]);
                self.begin_again(now, out, full);
                return true;
            }
        }
        if matches!(self.state, State::Handshaking)
            && (data.len() > MAX_HANDSHAKE_DATAGRAM
                || self.role.is_initiator()
                    && !record::is_for_initiator(data, self.dtls.protocol_version()))
        {
            return true;
        }
        self.received_bytes += data.len();
        self.local = local.or(self.local);
        let result = self
            .tell_time(now)
            .and_then(|()| self.dtls.handle_packet(data));
        let was_handshaking = matches!(self.state, State::Handshaking);
        match result {
            Ok(()) => self.drain(now, out, full) || was_handshaking || self.dtls.is_broken(),
            Err(error) => {
                self.fail(&error);
                true
            }
        }
    }

    #[cfg(test)]
    pub fn break_it(&mut self) {
        self.dtls.break_it();
    }

    /// Application data, as the test wants it.
    #[cfg(test)]
    pub fn say(&mut self, data: &[u8]) {
        self.send(data);
        self.take_packets();
    }

    /// What SCTP was not given since this was last asked.
    pub fn take_left_out(&mut self) -> LeftOut {
        let association = self.association.as_mut();
        association.map_or_else(LeftOut::default, |it| std::mem::take(&mut it.left_out))
    }

    fn tell_time(&mut self, now: Instant) -> Result<(), dimpl::Error> {
        self.dtls_told_at = now;
        self.dtls.handle_timeout(now)
    }

    /// Two ServerHellos contradict each other. Which of them answers us can't be told: one may be for the last ClientHello of this
    /// address, whose dial was given up, or anybody's; and with the wrong one a handshake never ends. So ask once more, by
    /// another ClientHello, for which the responder does [`Self::restart`].
    fn begin_again(&mut self, now: Instant, out: &mut Events, full: bool) {
        if !self.renew(now) {
            return;
        }
        self.server_random = None;
        self.dtls.begin_as_client();
        match self.tell_time(now) {
            Ok(()) => {
                self.drain(now, out, full);
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Have a responder whose handshake is under way take another ClientHello. Returns whether it does.
    pub fn restart(&mut self, now: Instant) -> bool {
        let is_handshaking = !self.role.is_initiator() && matches!(self.state, State::Handshaking);
        if !is_handshaking || !self.renew(now) {
            return false;
        }
        self.client_random = None;
        self.tell_time(now).is_ok()
    }

    /// Forget what was said. Whoever can send in the remote's name can bring that about: not for ever.
    fn renew(&mut self, now: Instant) -> bool {
        if self.restarts == MAX_RESTARTS {
            return false;
        }
        let validate_address = self.role.validates_address();
        let Ok(dtls) = self.identity.dtls(now, self.path.size(), validate_address) else {
            return false;
        };
        self.restarts += 1;
        self.dtls = dtls;
        self.claim = None;
        self.packets.clear();
        true
    }

    /// Take out of the DTLS library what it has: packets, and what it received. Returns whether there was anything.
    fn drain(&mut self, now: Instant, out: &mut Events, full: bool) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        let was_handshaking = self.is_parting || matches!(self.state, State::Handshaking);
        if was_handshaking {
            // The DTLS library panics for want of room for the certificate, and can't have one larger than what came.
            let most = self.received_bytes.min(MAX_CERTIFICATE);
            scratch.resize(scratch.len().max(most), 0);
        }
        let mut has_any = false;
        while let Some(output) = self.dtls.poll_output(&mut scratch) {
            has_any |= !matches!(output, Output::Timeout(_));
            match output {
                Output::Packet(packet) => self.packets.push(packet),
                Output::BufferTooSmall { needed } => scratch.resize(needed, 0),
                Output::Timeout(at) => {
                    self.dtls_timeout = Some(at.max(self.dtls_told_at + MIN_WAIT));
                    break;
                }
                Output::PeerCert(der) => {
                    let claim = self.identity.verify(der);
                    // Who dialled does not show its own certificate to somebody without a valid one.
                    if self.role.is_initiator()
                        && let Err(message) = &claim
                    {
                        self.lose(CloseCause::Failed, message.clone());
                        break;
                    }
                    self.claim = Some(claim);
                }
                Output::Connected => self.connected(now, out),
                Output::ApplicationData(_) if matches!(self.state, State::Closed) => {}
                Output::ApplicationData(data) => {
                    self.heard_at = Some(now);
                    self.application_data(now, data, out, full);
                }
                Output::CloseNotify => self.lose(CloseCause::Remote, String::new()),
                _ => {}
            }
        }
        if was_handshaking && !self.is_parting && !matches!(self.state, State::Handshaking) {
            scratch = vec![0; SCRATCH];
        }
        self.scratch = scratch;
        has_any
    }

    fn connected(&mut self, now: Instant, out: &mut Events) {
        if std::mem::take(&mut self.is_parting) {
            self.say_goodbye(0, now);
            return;
        }
        let claim = match self.claim.take() {
            Some(Ok(claim)) => claim,
            refused => {
                let message = match refused {
                    Some(Err(message)) => message,
                    _ => "the remote showed no certificate".into(),
                };
                self.say_goodbye(1, now);
                self.lose(CloseCause::Failed, message);
                return;
            }
        };
        if !matches!(self.state, State::Handshaking) {
            return;
        }
        self.state = State::Secured;
        self.heard_at = Some(now);
        self.is_due = true;
        let mut association = Association::new(
            self.remote,
            self.path.size() - self.record_overhead(),
            self.max_numbers(),
            self.identity.settings.receive_window,
        );
        if self.role.is_initiator()
            && let Err(error) = association.connect()
        {
            self.lose(CloseCause::Failed, error.to_string());
            return;
        }
        self.association = Some(association);
        let local_key = self.identity.public_key_info().to_vec();
        self.tell_stream_limit(out);
        self.tell_path(now, out);
        out.push_notice(
            self.id,
            Notice::Secured {
                peer_id: claim.peer_id.clone(),
                local_key,
                remote_key: claim.remote_key.clone(),
            },
        );
    }

    fn max_credit(&self) -> i64 {
        self.identity.settings.stream_receive_queue as i64
    }

    fn record_overhead(&self) -> usize {
        match self.dtls.protocol_version() {
            Some(ProtocolVersion::DTLS1_3) => RECORD_OVERHEAD,
            _ => RECORD_OVERHEAD_12,
        }
    }

    /// The most bytes that a record's content may have.
    fn max_content(&self) -> usize {
        self.path.size() - self.record_overhead()
    }

    fn tell_path(&mut self, now: Instant, out: &mut Events) {
        let size = self.max_content() - 1;
        let rtt = self.flight.rtt().unwrap_or_default().as_micros() as u64;
        out.push(Kind::Path, self.id, size as u64, rtt);
        self.path_told_at = self.flight.rtt().map(|_| now);
    }

    fn application_data(&mut self, now: Instant, data: &[u8], out: &mut Events, full: bool) {
        match data.split_first() {
            Some((&DATAGRAM, payload)) => self.receive_datagram(payload, out, full),
            Some((&DATAGRAMS, bundle)) => self.receive_bundle(bundle, out, full),
            Some((&association::FIRST_BYTE, _)) => {
                let Some(association) = &mut self.association else {
                    return;
                };
                self.is_due = true;
                let is_reading = self.unreceived.is_empty();
                match association.handle_packet(now, data, is_reading) {
                    Some(Signal::Alive(number)) => self.flight.answered(number, now),
                    Some(Signal::Carried(number)) => {
                        self.is_resized |= self.path.answered(number, now);
                    }
                    Some(Signal::Violation(message)) => {
                        self.lose(CloseCause::Failed, message.into());
                    }
                    Some(Signal::Aborted(code)) => {
                        let message = format!("application error {code:#x}");
                        self.lose(CloseCause::RemoteError, message);
                    }
                    None => {}
                }
                if self
                    .association
                    .as_ref()
                    .is_some_and(Association::is_crowded)
                {
                    self.hear_association(now, out, &|_| full);
                }
            }
            // Of a later version of the scheme.
            _ => {}
        }
    }

    fn receive_bundle(&mut self, mut bundle: &[u8], out: &mut Events, full: bool) {
        self.takes_bundles = true;
        loop {
            match bundle::take(bundle) {
                Ok(Some((payload, rest))) => {
                    self.receive_datagram(payload, out, full);
                    bundle = rest;
                }
                Ok(None) => return,
                Err(bundle::Malformed) => {
                    let message = "what came as datagrams is none".into();
                    self.lose(CloseCause::Failed, message);
                    return;
                }
            }
        }
    }

    fn receive_datagram(&mut self, payload: &[u8], out: &mut Events, full: bool) {
        if !full && self.received.is_empty() {
            out.push_datagram(self.id, payload);
            return;
        }
        self.received_size += DATAGRAM_WEIGHT + payload.len();
        self.received.push_back(Bytes::copy_from_slice(payload));
        let mut dropped = 0;
        while self.received_size > self.identity.settings.datagram_receive_buffer {
            let Some(oldest) = self.received.pop_front() else {
                break;
            };
            self.received_size -= DATAGRAM_WEIGHT + oldest.len();
            dropped += 1;
        }
        if dropped > 0 {
            out.push(Kind::DatagramsDropped, self.id, dropped, 0);
        }
    }

    fn deliver_datagrams(&mut self, out: &mut Events, full: &dyn Fn(&Events) -> bool) {
        while !full(out)
            && let Some(payload) = self.received.pop_front()
        {
            self.received_size -= DATAGRAM_WEIGHT + payload.len();
            out.push_datagram(self.id, &payload);
        }
    }

    /// Something that the remote has to answer, and beside it what shows that several datagrams in one record are understood here.
    fn send_greeting(&mut self, now: Instant) {
        self.send_heartbeat(now);
        self.send(&[DATAGRAMS]);
    }

    /// Something that the remote has to answer.
    fn send_heartbeat(&mut self, now: Instant) {
        let number = self.flight.mark(now);
        let packet = self
            .association
            .as_ref()
            .and_then(|it| it.heartbeat(number));
        if let Some(packet) = packet {
            self.send(&packet);
        }
    }

    /// Have the remote answer a packet of the size that is looked for: a record of datagrams that holds none, and behind it, in the
    /// same packet, a heartbeat, which any implementation can answer. Who has room for the beginning of the packet only does not.
    fn send_probes(&mut self, now: Instant) {
        while self.is_associated
            && let Some((number, size)) = self.path.poll_probe(now, self.flight.answer_time())
        {
            let Some(heartbeat) = self.association.as_ref().and_then(|it| it.probe(number)) else {
                return;
            };
            self.take_packets();
            let before = self.packets.len();
            let records = heartbeat.len() + 2 * self.record_overhead();
            let mut padding = vec![0; size.saturating_sub(records).max(1)];
            padding[0] = DATAGRAMS;
            for content in [&padding[..], &heartbeat] {
                self.send(content);
                self.take_packets();
            }
            self.packets.join_from(before);
        }
    }

    /// Packets may be larger now, or have to be smaller.
    fn resize(&mut self, now: Instant, out: &mut Events) {
        if !std::mem::take(&mut self.is_resized) {
            return;
        }
        let size = self.max_content();
        if let Some(association) = &mut self.association {
            association.set_packet_size(size);
        }
        self.tell_path(now, out);
    }

    /// Protect and send.
    fn send(&mut self, data: &[u8]) {
        if let Err(error) = self.dtls.send_application_data(data) {
            self.fail(&error);
        }
    }

    fn broken_library(&self) -> Option<&'static str> {
        let association = self.association.as_ref();
        if self.dtls.is_broken() {
            Some("DTLS")
        } else if association.is_some_and(Association::is_broken) {
            Some("SCTP")
        } else {
            None
        }
    }

    fn fail(&mut self, error: &dimpl::Error) {
        self.lose(CloseCause::Failed, error.to_string());
    }

    /// It is over; JavaScript hears of it when the session is processed.
    fn lose(&mut self, cause: CloseCause, message: String) {
        if matches!(self.state, State::Closed) {
            return;
        }
        // The DTLS library may tell that the remote has closed before it gives out why, which came in the same datagram.
        let is_explained =
            cause == CloseCause::RemoteError && matches!(self.end, Some((CloseCause::Remote, _)));
        if self.end.is_none() || is_explained {
            self.end = Some((cause, message));
        }
    }

    fn associated(&mut self, now: Instant) {
        self.is_associated = true;
        self.path.start(now);
        // The round trip time is worth knowing from the beginning.
        self.send_greeting(now);
    }

    fn hear_association(&mut self, now: Instant, out: &mut Events, full: &dyn Fn(&Events) -> bool) {
        while let Some(event) = self.association.as_mut().and_then(Association::poll) {
            self.association_event(now, event, out, full);
        }
        self.open_streams(out);
    }

    fn association_event(
        &mut self,
        now: Instant,
        event: Event,
        out: &mut Events,
        full: &dyn Fn(&Events) -> bool,
    ) {
        match event {
            Event::Connected => self.associated(now),
            Event::HandshakeFailed { reason } => self.lose(CloseCause::Failed, reason.to_string()),
            Event::AssociationLost { reason } => match reason {
                AssociationError::ApplicationClosed | AssociationError::AssociationClosed
                    if self
                        .association
                        .as_ref()
                        .is_some_and(Association::is_shut_down) =>
                {
                    self.lose(CloseCause::Remote, String::new());
                }
                AssociationError::TimedOut => self.lose(CloseCause::TimedOut, String::new()),
                AssociationError::Reset => self.lose(CloseCause::Reset, String::new()),
                reason => self.lose(CloseCause::Failed, reason.to_string()),
            },
            Event::Stream(event) => self.stream_event(event, out, full),
            _ => {}
        }
    }

    fn stream_event(
        &mut self,
        event: StreamEvent,
        out: &mut Events,
        full: &dyn Fn(&Events) -> bool,
    ) {
        match event {
            StreamEvent::Opened { .. } => {
                while let Some(id) = self.association.as_mut().and_then(Association::accept) {
                    self.accepted(id, out, full(out));
                }
            }
            StreamEvent::Readable { id } => self.read(id, out, full(out)),
            StreamEvent::Finished { id } => self.torn(id, out),
            StreamEvent::ResetComplete { id } if self.is_mine(id) && !self.free.contains(&id) => {
                self.free.push_back(id);
            }
            _ => {}
        }
    }

    /// Whether this side opens the streams of this number: the initiator has the even ones.
    fn is_mine(&self, id: u16) -> bool {
        id.is_multiple_of(2) == self.role.is_initiator()
    }

    /// How many numbers of streams there may be: both sides', by turns.
    fn max_numbers(&self) -> u16 {
        self.identity.settings.max_streams.saturating_mul(2)
    }

    fn tell_stream_limit(&self, out: &mut Events) {
        let numbers = self.max_numbers();
        let limit = u64::from(numbers) + u64::from(self.is_mine(numbers));
        out.push(Kind::StreamLimit, self.id, limit, 0);
    }

    fn accepted(&mut self, id: u16, out: &mut Events, full: bool) {
        if self.is_mine(id) {
            let message = format!("the remote opened stream {id}, which is not its to open");
            self.lose(CloseCause::Failed, message);
            return;
        }
        // Of a remote that uses a number again without having said that it may.
        self.torn(id, out);
        self.streams.insert(id, Stream::new(self.max_credit()));
        out.push(Kind::StreamOpened, self.id, id.into(), 0);
        self.read(id, out, full);
    }

    fn open_streams(&mut self, out: &mut Events) {
        let max_credit = self.max_credit();
        let Some(association) = self.association.as_mut().filter(|_| self.is_associated) else {
            return;
        };
        let mut attempts = self.free.len();
        while !self.opening.is_empty() {
            let id = if self.next < association.max_streams() {
                let id = self.next;
                self.next = id.saturating_add(2);
                id
            } else if let Some(id) = self.free.pop_front() {
                id
            } else {
                return;
            };
            if !association.open(id) {
                // The remote has not agreed yet that this side has ended it, too.
                self.free.push_back(id);
                attempts = attempts.saturating_sub(1);
                if attempts == 0 {
                    return;
                }
                continue;
            }
            if let Some(token) = self.opening.pop_front() {
                self.streams.insert(id, Stream::new(max_credit));
                out.push(Kind::StreamReady, self.id, id.into(), token.into());
            }
        }
    }

    /// Make a stream's number free. Who opened it does: if both did, the end of one stream might meet the next.
    fn reset_number(&mut self, id: u16) {
        if !self.is_mine(id) {
            return;
        }
        self.is_due = true;
        if let Some(association) = &mut self.association {
            association.reset(id);
        }
    }

    fn write_message(&mut self, id: u16, message: &Message) {
        self.is_due = true;
        let message = message.encode();
        self.written += message.len() as u64;
        if let Some(association) = &mut self.association {
            association.write(id, message);
            self.unacknowledged
                .insert(id, association.unacknowledged(id));
        }
    }

    /// Write what streams have to send, each a message at a time, as far as it leaves at once.
    fn write_streams(&mut self, now: Instant, out: &mut Events) {
        if self.is_due {
            self.count_unacknowledged();
            self.rate(now);
        }
        loop {
            self.transmit_association(now);
            let Some(association) = &self.association else {
                return;
            };
            if self.writing.is_empty()
                || self.packets.bytes() >= PACKET_BACKLOG
                || association.unsent() >= SCTP_BACKLOG
                || association.in_flight() >= MAX_IN_FLIGHT
                || self.stream_flight() >= self.max_stream_flight()
            {
                return;
            }
            let mut written = 0;
            while written < SCTP_BACKLOG
                && let Some(id) = self.writing.pop_front()
            {
                written += self.write_turn(id, out);
            }
        }
    }

    /// A stream's turn: a message's worth, and the FIN behind the last.
    fn write_turn(&mut self, id: u16, out: &mut Events) -> usize {
        let Some(stream) = self.streams.get_mut(&id).filter(|it| it.is_sending()) else {
            return 0;
        };
        let mut written = 0;
        if let Some(payload) = stream.take_unsent() {
            written = payload.len();
            self.write_message(id, &Message::of_payload(payload));
            out.push(Kind::StreamWritten, self.id, id.into(), written as u64);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return written;
        };
        if !stream.unsent.is_empty() {
            if stream.is_sending() {
                self.writing.push_back(id);
            }
        } else if stream.finishing && !stream.fin_sent {
            stream.fin_sent = true;
            self.write_message(id, &Message::of_flag(Flag::Fin));
        }
        written
    }

    /// Bytes of streams that were written and not acknowledged.
    fn stream_flight(&self) -> usize {
        self.unacknowledged.values().sum()
    }

    /// How many of them there may be: twice what the path holds. More would only wait on the way, and SCTP looks through all of
    /// them again and again.
    fn max_stream_flight(&self) -> usize {
        let path = self.rate * self.flight.min_rtt().as_secs_f64();
        (MIN_FLIGHT + 2 * path as usize).min(self.identity.settings.send_window)
    }

    /// Measure the rate at which what was written is acknowledged.
    fn rate(&mut self, now: Instant) {
        let acknowledged = self.written - self.stream_flight() as u64;
        let Some(rated_at) = self.rated_at else {
            self.rated_at = Some(now);
            self.acknowledged = acknowledged;
            return;
        };
        let interval = now.duration_since(rated_at);
        if interval >= RATE_INTERVAL.max(self.flight.min_rtt()) {
            let sample = (acknowledged - self.acknowledged) as f64 / interval.as_secs_f64();
            // It may rise at once, and falls slowly: a pause of the writer's says nothing of the path.
            self.rate = sample.max(self.rate * 0.9);
            self.rated_at = Some(now);
            self.acknowledged = acknowledged;
        }
    }

    fn count_unacknowledged(&mut self) {
        if let Some(association) = &mut self.association {
            self.unacknowledged.retain(|id, bytes| {
                *bytes = association.unacknowledged(*id);
                *bytes > 0
            });
        }
    }

    /// Everything that SCTP has to send becomes records.
    fn transmit_association(&mut self, now: Instant) {
        let is_held_back = self.stream_flight() >= self.max_stream_flight();
        let Some(association) = self.association.as_mut().filter(|_| self.is_due) else {
            return;
        };
        self.is_due = false;
        // Whoever can't go on without an answer wants it at once (RFC 7053).
        let packets = association.poll_transmit(now, is_held_back);
        if association.suspects_path() {
            self.is_resized |= self.path.suspect(now);
        }
        // As many at a time as the DTLS library holds.
        for batch in packets.chunks(identity::MAX_RECORDS / 2) {
            for packet in batch {
                self.send(packet);
            }
            self.take_packets();
        }
    }

    /// Take records out of the DTLS library: nothing was received meanwhile.
    fn take_packets(&mut self) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(output) = self.dtls.poll_output(&mut scratch) {
            match output {
                Output::Packet(packet) => self.packets.push(packet),
                Output::BufferTooSmall { needed } => scratch.resize(needed, 0),
                Output::Timeout(at) => {
                    self.dtls_timeout = Some(at.max(self.dtls_told_at + MIN_WAIT));
                    break;
                }
                _ => {}
            }
        }
        self.scratch = scratch;
    }

    /// Take what has come on a stream, and pass on what JavaScript takes of it.
    fn read(&mut self, id: u16, out: &mut Events, full: bool) {
        self.receive(id, out);
        self.deliver(id, out, full);
    }

    /// Take messages from SCTP as long as there is room for them. Beyond that they fill its window, which all streams have in
    /// common: it comes to that only with a remote that does not know of limits.
    fn receive(&mut self, id: u16, out: &mut Events) {
        let settings = &self.identity.settings;
        let (window, all) = (settings.stream_receive_window, settings.receive_window);
        loop {
            // What comes on a stream that is over on this side is nobody's, but must not fill the window.
            let size = self.streams.get(&id).map_or(0, |it| it.inbox_size);
            if size >= window as usize || self.inbox_size >= all as usize {
                self.unreceived.insert(id);
                return;
            }
            let Some(data) = self.association.as_mut().and_then(|it| it.read(id)) else {
                self.unreceived.remove(&id);
                return;
            };
            let Some(message) = Message::decode(data) else {
                let message = format!("what came on stream {id} is no message of a stream");
                self.lose(CloseCause::Failed, message);
                return;
            };
            self.received_message(id, message, out);
        }
    }

    fn received_message(&mut self, id: u16, message: Message, out: &mut Events) {
        let Some(stream) = self.streams.get_mut(&id) else {
            let is_end = matches!(message.known_flag(), Some(Flag::Fin | Flag::Reset));
            if is_end && self.abandoned.remove(&id) {
                self.reset_number(id);
            }
            return;
        };
        if let Some(limit) = message.stream_limit() {
            // It is never taken back.
            stream.limit = match stream.limit {
                u64::MAX => limit.max(stream.sent),
                known => known.max(limit),
            };
            self.begin_writing(id);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let flag = message.known_flag();
        let payload = message.into_payload();
        if !payload.is_empty() && stream.end.is_none() && !stream.unwanted {
            self.inbox_size += payload.len();
            stream.keep(payload);
        }
        match flag {
            Some(Flag::Fin) => {
                stream.end.get_or_insert(Kind::StreamFinished);
            }
            Some(Flag::FinAck) => stream.send_over |= stream.fin_sent,
            Some(Flag::Reset) => {
                stream.end = Some(Kind::StreamReset);
                self.empty_inbox(id);
            }
            Some(Flag::StopSending) if !stream.send_over => {
                stream.send_over = true;
                stream.unsent.clear();
                out.push(Kind::StreamStopped, self.id, id.into(), 0);
                self.write_message(id, &Message::of_flag(Flag::Reset));
            }
            Some(Flag::StopSending) | None => {}
        }
        self.forget_if_over(id);
    }

    fn empty_inbox(&mut self, id: u16) {
        self.has_room = true;
        if let Some(stream) = self.streams.get_mut(&id) {
            self.inbox_size -= std::mem::take(&mut stream.inbox_size);
            stream.inbox.clear();
        }
    }

    /// Pass on what came, and behind it that nothing more will come.
    fn deliver(&mut self, id: u16, out: &mut Events, full: bool) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if full && (!stream.inbox.is_empty() || stream.end.is_some()) {
            self.starved_streams.insert(id);
            return;
        }
        while stream.credit > 0
            && let Some(payload) = stream.inbox.pop_front()
        {
            stream.inbox_size -= payload.len();
            self.inbox_size -= payload.len();
            stream.delivered += payload.len() as u64;
            stream.credit -= payload.len() as i64;
            out.push_stream_data(self.id, id.into(), &payload);
        }
        if stream.inbox.is_empty()
            && let Some(end) = stream.end.filter(|_| !stream.receive_over)
        {
            stream.receive_over = true;
            if !stream.unwanted {
                out.push(end, self.id, id.into(), 0);
            }
            // Only now: whoever has the acknowledgement may use the stream's number again.
            if end == Kind::StreamFinished {
                self.write_message(id, &Message::of_flag(Flag::FinAck));
            }
            self.forget_if_over(id);
            return;
        }
        let window = self.identity.settings.stream_receive_window.into();
        if stream.end.is_none()
            && let Some(limit) = stream.next_limit(window)
        {
            self.write_message(id, &Message::of_limit(limit));
        }
    }

    /// There may be room for what waits in SCTP.
    fn receive_more(&mut self, out: &mut Events, full: &dyn Fn(&Events) -> bool) {
        for id in std::mem::take(&mut self.unreceived) {
            self.read(id, out, full(out));
        }
    }

    /// The remote made the stream's number free, or has agreed to that.
    fn torn(&mut self, id: u16, out: &mut Events) {
        self.unacknowledged.remove(&id);
        self.abandoned.remove(&id);
        let Some(stream) = self.forget(id) else {
            return;
        };
        if !stream.receive_over && !stream.unwanted {
            out.push(Kind::StreamReset, self.id, id.into(), 0);
        } else if !stream.send_over {
            out.push(Kind::StreamStopped, self.id, id.into(), 0);
        }
    }

    fn forget_if_over(&mut self, id: u16) {
        let is_over = self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.send_over && stream.receive_over);
        if is_over {
            self.forget(id);
            self.reset_number(id);
        }
    }

    fn forget(&mut self, id: u16) -> Option<Stream> {
        self.empty_inbox(id);
        self.starved_streams.remove(&id);
        self.streams.remove(&id)
    }

    fn begin_writing(&mut self, id: u16) {
        if !self.writing.contains(&id) {
            self.writing.push_back(id);
        }
    }

    fn send_datagrams(&mut self, now: Instant, out: &mut Events) {
        let mut dropped = 0;
        let most = self.max_content();
        let mut data = Vec::new();
        while self.packets.bytes() < PACKET_BACKLOG
            && self.flight.has_room()
            && let Some(payload) = self.datagrams.pop_front()
        {
            self.datagrams_gone += payload.len() as u64;
            if 1 + payload.len() > most {
                dropped += 1;
                continue;
            }
            data.clear();
            data.push(DATAGRAM);
            if self.next_in_bundle(1 + bundle::encoded_len(&payload), most) && !payload.is_empty() {
                data[0] = DATAGRAMS;
                bundle::put(&mut data, &payload);
                while self.next_in_bundle(data.len(), most)
                    && let Some(next) = self.datagrams.pop_front()
                {
                    self.datagrams_gone += next.len() as u64;
                    bundle::put(&mut data, &next);
                }
            } else {
                data.extend_from_slice(&payload);
            }
            self.send(&data);
            self.flight.sent(data.len());
            if self.is_associated && self.flight.wants_mark() {
                self.send_heartbeat(now);
            }
            self.take_packets();
        }
        // So much waits here, beside what waits in JavaScript: else the path would be idle whenever JavaScript is busy.
        let buffer = self.identity.settings.datagram_send_buffer as u64;
        let told = self.datagrams_given.min(self.datagrams_gone + buffer);
        if told > self.datagrams_told || dropped > 0 {
            let more = told - self.datagrams_told;
            self.datagrams_told = told;
            out.push(Kind::DatagramsSent, self.id, more, dropped);
        }
    }

    /// Whether the next datagram fits a record of so many bytes with so many others.
    fn next_in_bundle(&self, bytes: usize, most: usize) -> bool {
        self.takes_bundles
            && self
                .datagrams
                .front()
                .is_some_and(|next| !next.is_empty() && bytes + bundle::encoded_len(next) <= most)
    }

    /// Make the packets that say that it is over, and close the DTLS library.
    fn say_goodbye(&mut self, code: u32, now: Instant) {
        self.take_packets();
        let before = self.packets.len();
        if code != 0
            && let Some(abort) = self.association.as_ref().and_then(|it| it.abort(code))
        {
            // Nothing is left to fail.
            let _ = self.dtls.send_application_data(&abort);
        }
        let _ = self.dtls.close();
        self.take_packets();
        // What waited before it is repeated by nobody.
        let goodbye = self.packets.iter_from(before);
        self.goodbye = goodbye.map(<[u8]>::to_vec).collect();
        self.goodbye_due = Some((now + GOODBYE_HOLD_OFF, GOODBYE_HOLD_OFF * 2));
        let linger = if self.goodbye.is_empty() {
            Duration::ZERO
        } else {
            LINGER
        };
        self.linger_until = Some(now + linger);
    }

    /// Who still sends has not heard that it is over.
    fn repeat_goodbye(&mut self, now: Instant) {
        if let Some((_, hold_off)) = self.goodbye_due.take_if(|(due, _)| now >= *due) {
            self.goodbye_due = Some((now + hold_off, hold_off * 2));
            for packet in &self.goodbye {
                self.packets.push(packet);
            }
        }
    }

    fn close_now(&mut self, code: u32, now: Instant, out: &mut Events) {
        let is_answering = !self.role.is_initiator() && self.client_random.is_some();
        self.is_parting = is_answering && matches!(self.state, State::Handshaking);
        if self.is_parting {
            self.linger_until = Some(now + LINGER);
        } else {
            self.say_goodbye(code, now);
        }
        self.tell_closed(now, CloseCause::Local, String::new(), out);
    }

    fn close_if_delivered(&mut self, now: Instant, out: &mut Events) {
        let State::Closing(code) = self.state else {
            return;
        };
        self.count_unacknowledged();
        // The remote has it, even if nobody has read it there.
        let undelivered = self.streams.iter().any(|(id, stream)| {
            let is_delivered = stream.fin_sent && !self.unacknowledged.contains_key(id);
            stream.finishing && !stream.send_over && !is_delivered
        });
        if !undelivered && self.datagrams.is_empty() {
            self.close_now(code, now, out);
        }
    }

    fn tell_closed(&mut self, now: Instant, cause: CloseCause, message: String, out: &mut Events) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.state = State::Closed;
        self.end = None;
        // Nothing of an initiator that was not told to proceed has left, and nobody will tell it to now.
        self.muted |= self.first_flight.take().is_some();
        self.linger_until.get_or_insert(now);
        self.association = None;
        self.streams.clear();
        self.starved_streams.clear();
        self.unreceived.clear();
        self.inbox_size = 0;
        self.opening.clear();
        self.datagrams.clear();
        self.received.clear();
        self.received_size = 0;
        out.push_notice(self.id, Notice::Closed { cause, message });
    }

    /// What came before the end is delivered before it: at most a receive window.
    fn read_all(&mut self, out: &mut Events) {
        let ids: Vec<u16> = self.streams.keys().copied().collect();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.credit = i64::MAX;
            }
            self.read(id, out, false);
        }
        // All of it was passed on: there is room again.
        while !self.unreceived.is_empty() && self.end.is_none() {
            self.receive_more(out, &|_| false);
        }
        self.deliver_datagrams(out, &|_| false);
    }

    /// Look after time: who is silent for too long is gone, and who is silent for a while is asked.
    fn keep_alive(&mut self, now: Instant) {
        let Some(heard_at) = self.heard_at else {
            return;
        };
        let settings = &self.identity.settings;
        if now >= heard_at + settings.idle_timeout {
            self.lose(CloseCause::TimedOut, String::new());
        } else if self.next_probe().is_some_and(|at| now >= at) {
            self.send_greeting(now);
        }
    }

    fn next_probe(&self) -> Option<Instant> {
        let interval = self.identity.settings.keep_alive;
        let last = self.flight.marked_at().max(self.heard_at)?;
        (!interval.is_zero()).then(|| last + interval)
    }

    /// Whether so many bytes may be sent to a client that has not proved its address.
    fn may_send(&self, bytes: usize) -> bool {
        self.role.is_initiator()
            || !matches!(self.state, State::Handshaking)
            || self.sent_bytes + bytes <= self.received_bytes * MAX_AMPLIFICATION
    }
}

impl Session for DtlsSession {
    fn is_prepared(&self) -> bool {
        self.first_flight.is_some()
    }

    fn proceed(&mut self, _sent: bool) -> Vec<Vec<u8>> {
        self.first_flight.take().unwrap_or_default()
    }

    fn mute(&mut self) {
        self.muted = true;
    }

    fn is_drained(&self) -> bool {
        self.drained
    }

    fn is_parting(&self) -> bool {
        self.is_parting
    }

    fn is_starved(&self) -> bool {
        !self.received.is_empty() || !self.starved_streams.is_empty()
    }

    fn resume(&mut self, out: &mut Events, full: &dyn Fn(&Events) -> bool) {
        self.deliver_datagrams(out, full);
        for id in std::mem::take(&mut self.starved_streams) {
            self.deliver(id, out, full(out));
        }
        self.receive_more(out, full);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.state, State::Closed) {
            return;
        }
        if !self.is_prepared()
            && self.dtls_timeout.is_some_and(|at| now >= at)
            && let Err(error) = self.tell_time(now)
        {
            self.fail(&error);
        }
        if let Some(association) = &mut self.association
            && association.poll_timeout().is_some_and(|at| now >= at)
        {
            association.handle_timeout(now);
            self.is_due = true;
        }
        if self.flight.handle_timeout(now) {
            self.send_heartbeat(now);
        }
        self.is_resized |= self.path.handle_timeout(now);
        self.keep_alive(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        if self.is_prepared() {
            return None;
        }
        if matches!(self.state, State::Closed) {
            return self.linger_until;
        }
        let idle = self
            .heard_at
            .map(|at| at + self.identity.settings.idle_timeout);
        let association = self
            .association
            .as_ref()
            .and_then(Association::poll_timeout);
        [
            self.dtls_timeout,
            association,
            self.flight.poll_timeout(),
            self.path.poll_timeout(),
            idle,
            self.next_probe(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn process(
        &mut self,
        now: Instant,
        _endpoint: &mut Endpoint,
        out: &mut Events,
        full: &dyn Fn(&Events) -> bool,
    ) {
        if matches!(self.state, State::Closed) {
            self.drained |=
                self.packets.is_empty() && self.linger_until.is_none_or(|until| now >= until);
            return;
        }
        self.drain(now, out, full(out));
        self.hear_association(now, out, full);
        if std::mem::take(&mut self.has_room) {
            self.receive_more(out, full);
        }
        self.resize(now, out);
        self.write_streams(now, out);
        self.send_datagrams(now, out);
        self.send_probes(now);
        self.take_packets();
        if let Some(broken) = self.broken_library() {
            let message =
                format!("the library of {broken} panicked, please report what it printed");
            self.lose(CloseCause::Failed, message);
        }
        if let Some((cause, message)) = self.end.take() {
            self.read_all(out);
            if matches!(self.state, State::Handshaking) && self.role.is_initiator() {
                // The DTLS library has its last flight ready, with the certificate, for whoever was refused.
                self.packets.clear();
            } else if self.linger_until.is_none() {
                self.say_goodbye(u32::from(cause != CloseCause::Remote), now);
            }
            self.tell_closed(now, cause, message, out);
            return;
        }
        let is_path_known = matches!(self.state, State::Secured) && self.flight.rtt().is_some();
        if is_path_known && self.path_told_at.is_none_or(|at| now >= at + PATH_INTERVAL) {
            self.tell_path(now, out);
        }
        self.close_if_delivered(now, out);
    }

    fn poll_transmit(
        &mut self,
        now: Instant,
        max_datagrams: usize,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        if self.muted {
            self.packets.clear();
        }
        // What answers a remote that was quicker than JavaScript leaves when that says so, not when it is missed.
        if self.is_prepared() {
            return None;
        }
        let size = loop {
            let size = self.packets.first()?;
            // Not sent is as good as lost: it is sent again when the client has.
            if self.may_send(size) {
                break size;
            }
            self.packets.drop_first();
        };
        self.packets.pop_to(buf);
        let mut count = 1;
        // A probe that is too large must be lost alone.
        while size <= self.path.size()
            && count < max_datagrams
            && let Some(next) = self.packets.first()
            && next <= size
            && buf.len() + next <= MAX_TRANSMIT
            && self.may_send(buf.len() + next)
        {
            self.packets.pop_to(buf);
            count += 1;
            if next < size {
                break;
            }
        }
        if size <= self.path.size() {
            self.path.sent(now, buf.len(), size);
        }
        self.sent_bytes += buf.len();
        Some(Transmit {
            destination: self.remote,
            ecn: None,
            size: buf.len(),
            segment_size: (count > 1).then_some(size),
            src_ip: self.local,
        })
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

    fn write(&mut self, stream: u64, data: Bytes, _out: &mut Events) {
        let Some((id, entry)) = find(&mut self.streams, stream) else {
            return;
        };
        if !entry.send_over {
            entry.unsent.push_back(data);
            self.begin_writing(id);
        }
    }

    fn finish(&mut self, stream: u64, _out: &mut Events) {
        let Some((id, entry)) = find(&mut self.streams, stream) else {
            return;
        };
        entry.finishing = true;
        self.begin_writing(id);
    }

    fn reset(&mut self, stream: u64) {
        let Some((id, entry)) = find(&mut self.streams, stream) else {
            return;
        };
        let was_sending = !entry.send_over;
        let may_receive = entry.end.is_none();
        self.forget(id);
        if may_receive {
            self.write_message(id, &Message::of_flag(Flag::StopSending));
        }
        if was_sending {
            self.write_message(id, &Message::of_flag(Flag::Reset));
        }
        if may_receive {
            self.abandoned.insert(id);
        } else {
            self.reset_number(id);
        }
    }

    fn stop(&mut self, stream: u64) {
        let Some((id, entry)) = find(&mut self.streams, stream) else {
            return;
        };
        if entry.receive_over || entry.unwanted {
            return;
        }
        entry.unwanted = true;
        self.empty_inbox(id);
        self.starved_streams.remove(&id);
        self.write_message(id, &Message::of_flag(Flag::StopSending));
        // It may have ended already, and only the rest of it been waited for.
        self.deliver(id, &mut Events::default(), false);
    }

    fn consumed(&mut self, stream: u64, bytes: usize, out: &mut Events, full: bool) {
        let max_credit = self.max_credit();
        let Some((id, entry)) = find(&mut self.streams, stream) else {
            return;
        };
        entry.credit = (entry.credit + bytes as i64).min(max_credit);
        self.deliver(id, out, full);
        self.receive_more(out, &|_| full);
    }

    fn datagram(&mut self, payload: Bytes, _out: &mut Events) {
        if matches!(self.state, State::Secured | State::Closing(_)) {
            self.datagrams_given += payload.len() as u64;
            self.datagrams.push_back(payload);
        }
    }

    /// There is nothing that it could say yet.
    fn cancel(&mut self, _sent: bool, now: Instant, out: &mut Events) {
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
}

/// Stream numbers come from JavaScript; one that is not open is not an error: its stream may have ended meanwhile.
fn find(streams: &mut HashMap<u16, Stream>, stream: u64) -> Option<(u16, &mut Stream)> {
    let id = u16::try_from(stream).ok()?;
    streams.get_mut(&id).map(|entry| (id, entry))
}

#[cfg(test)]
mod tests;
