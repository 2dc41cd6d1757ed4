//! A port without its socket: the flow table, and the sessions on the flows. Sans-IO.
//!
//! Inputs are [`Core::handle_command`], [`Core::handle_datagram`] and [`Core::handle_timeout`]; after any of them the owner calls
//! [`Core::begin_session`], then [`Core::poll_transmit`] until it returns `None`, takes what [`Core::events`] holds, and
//! comes back at [`Core::poll_timeout`] at the latest. [`Core::set_waiting`] tells how far behind JavaScript is.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hashlink::LinkedHashMap;
use quinn_proto::{
    AcceptError, ConnectError, Connection, ConnectionEvent, ConnectionHandle, ConnectionId,
    DatagramEvent, EcnCodepoint, Endpoint, EndpointConfig, EndpointEvent, Incoming,
    RandomConnectionIdGenerator, ServerConfig, Transmit,
};

use crate::ahead::{Ahead, Begun, STAND_IN, Settings};
use crate::command::{Command, Peer};
#[cfg(feature = "dtls")]
use crate::dtls::{self, DtlsIdentity, DtlsSession};
use crate::events::Events;
use crate::identity::{Identity, QuicIdentity};
use crate::notice::{CloseCause, Notice};
use crate::quic::{QuicSession, Terms};
use crate::reception::{Arrival, MAX_GUESTS, Reception, State};
use crate::session::{ABANDONED, AnySession, Session};
use crate::shield::{self, Shield, Verdict};

/// Datagrams outside the schemes that may wait for JavaScript; more are dropped and counted.
const MAX_WAITING_RAW: usize = 512;

/// Strangers whose proposal has just been passed on: what follows on its heels is theirs, too (design: the rest of a first
/// flight). The oldest is forgotten for the newest.
const MAX_STRANGERS: usize = 1024;

/// Datagrams of such a stranger that are passed on before JavaScript claims the flow; likewise of a remote with a session that
/// proposes afresh.
const STRANGER_DATAGRAMS: u32 = 8;

/// How long a stranger that was answered, and that JavaScript has dialled since, may go on proposing before it seems to have lost the
/// answer: it has no other one before it gives its proof, which takes two round trips.
const CROSSING_TIME: Duration = Duration::from_secs(2);

/// Answers of QUIC itself (version negotiation, stateless reset) and first flights that wait to be sent.
const MAX_RESPONSES: usize = 1024;

/// While this many bytes wait for JavaScript, nothing more is taken from the sessions: flow control then holds streams back
/// at the sender, and the bounded receive queue drops datagrams.
const MAX_WAITING_BYTES: usize = 2 * 1024 * 1024;

/// How long a port stays open for remotes that can't be told yet that it closes: more than a round trip, less than anybody minds.
const PARTING_TIME: Duration = Duration::from_millis(250);

/// A packet that begins with this or more is a Retry (RFC 9000, section 17.2.5).
const RETRY: u8 = 0xf0;

/// Bytes of a connection id of ours.
const CONNECTION_ID: usize = 8;

/// What a port keeps for its remotes; JavaScript decides.
#[derive(Clone, Copy)]
pub struct Limits {
    /// See [`MAX_WAITING_RAW`]
    pub waiting: usize,
    /// See [`MAX_STRANGERS`]
    pub strangers: usize,
    /// See [`STRANGER_DATAGRAMS`]
    pub stranger_datagrams: u32,
    /// See [`MAX_RESPONSES`]
    pub responses: usize,
    /// See [`MAX_WAITING_BYTES`]
    pub waiting_bytes: usize,
    /// See [`MAX_GUESTS`]
    pub guests: usize,
    /// See [`CROSSING_TIME`]
    pub crossing_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting: MAX_WAITING_RAW,
            strangers: MAX_STRANGERS,
            stranger_datagrams: STRANGER_DATAGRAMS,
            responses: MAX_RESPONSES,
            waiting_bytes: MAX_WAITING_BYTES,
            guests: MAX_GUESTS,
            crossing_time: CROSSING_TIME,
        }
    }
}

#[derive(Default)]
struct Flow {
    /// JavaScript has a socket for it.
    claimed: bool,
    /// Its datagrams go to a scheme, all but PSEC frames.
    handed_over: bool,
    /// JavaScript serves it, too: what no session takes is for a scheme there (design: a session, and the one that may
    /// replace it).
    shared: bool,
    /// How much of what no session takes is passed on, since it may be the rest of a first flight.
    heel: u32,
    /// Responders that wait for the initiator's first packet, which goes to the first of them: the newest.
    expecting: VecDeque<Expected>,
    sessions: usize,
    /// Those of DTLS among them. Its packets do not say which session they are of: each of them looks.
    #[cfg(feature = "dtls")]
    dtls: Vec<u32>,
    /// An initiator's session that has not been told to proceed.
    prepared: Option<u32>,
    /// Sessions for whose remote quinn takes [`STAND_IN`]: dials that were begun ahead.
    stand_ins: usize,
    /// The connection id by which the remote last sent to one of them.
    stand_in_id: Option<ConnectionId>,
}

/// A datagram that is ready to be sent.
struct Response {
    remote: SocketAddr,
    local: Option<IpAddr>,
    data: Vec<u8>,
    /// The session of whose first flight it is.
    of: Option<FirstFlight>,
}

#[derive(Clone, Copy)]
struct FirstFlight {
    session: u32,
    /// The remote has nothing of the session before it has this.
    begins: bool,
}

struct Expected {
    session: u32,
    role: Responder,
}

/// What makes the session of a responder, once the initiator's first packet is there.
enum Responder {
    Quic(Arc<ServerConfig>, Terms),
    #[cfg(feature = "dtls")]
    /// And whether the initiator has to prove its address.
    Dtls(Arc<DtlsIdentity>, Peer, bool),
}

impl Flow {
    /// Whether a packet may be of one of its sessions, as far as that can be seen from outside.
    #[cfg(feature = "dtls")]
    fn may_know(&self, data: &[u8]) -> bool {
        !self.dtls.is_empty() && dtls::is_record(data)
    }

    #[cfg(not(feature = "dtls"))]
    fn may_know(&self, _data: &[u8]) -> bool {
        false
    }

    /// The first of those who wait for a first packet of their scheme.
    fn take_expected(&mut self, is_it: impl Fn(&Responder) -> bool) -> Option<Expected> {
        let index = self.expecting.iter().position(|it| is_it(&it.role))?;
        self.expecting.remove(index)
    }
}

/// Why a dial could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum InitiateError {
    #[error(transparent)]
    Quic(#[from] ConnectError),
    #[cfg(feature = "dtls")]
    #[error(transparent)]
    Dtls(#[from] dimpl::Error),
}

/// Where a datagram came from.
#[derive(Clone, Copy)]
pub struct Origin {
    pub remote: SocketAddr,
    pub local: Option<IpAddr>,
    pub ecn: Option<EcnCodepoint>,
}

/// What was turned away, and why.
#[derive(Default, Clone, Copy)]
pub struct Counters {
    /// Datagrams of strangers that were no proposals
    pub strangers: u64,
    /// Datagrams of no bytes, whoever sent them
    pub empty: u64,
    /// Datagrams for which JavaScript had no room
    pub raw_overflow: u64,
    /// Packets of a scheme that no session took
    pub unroutable: u64,
    /// Proposals that the shield answered
    pub shielded: u64,
    /// Proposals that the shield turned away: too many of a part of the network
    pub turned_away_prefix: u64,
    /// Too many that only JavaScript could answer
    pub turned_away_unprepared: u64,
    /// Strangers that were told to prove their address
    pub challenged: u64,
    /// Strangers that did
    pub validated: u64,
    /// Proofs of strangers whose proposals were not remembered, any more or at all
    pub unproposed: u64,
    /// Packets of its own for which there was no room
    pub responses_overflow: u64,
    /// Chunks of SCTP beyond what is kept of a session's
    pub sctp_overflow: u64,
    /// Those that no honest remote sends, or that were of no use any more, or yet
    pub sctp_ignored: u64,
}

pub struct Core {
    endpoint: Endpoint,
    flows: HashMap<SocketAddr, Flow>,
    /// How many more datagrams of them are passed on; oldest first.
    strangers: LinkedHashMap<SocketAddr, u32>,
    may_fragment: bool,
    any_stranger: bool,
    limits: Limits,
    shield: Shield,
    reception: Reception,
    sessions: HashMap<u32, (AnySession, SocketAddr)>,
    by_handle: HashMap<ConnectionHandle, u32>,
    /// Who claims to be at the other end of responders' sessions, also of those that have not begun.
    claimed_ids: HashMap<u32, Vec<u8>>,
    timeouts: BTreeSet<(Instant, u32)>,
    timeout_of: HashMap<u32, Instant>,
    ready: VecDeque<u32>,
    is_ready: HashSet<u32>,
    responses: VecDeque<Response>,
    is_responses_turn: bool,
    /// The remote of a dial has sent a frame, which JavaScript has not heard of.
    dial_answered: bool,
    starved: Vec<u32>,
    waiting_bytes: usize,
    waiting_raw: usize,
    closing: bool,
    /// How long to wait then for remotes that can't be told yet.
    parting_until: Option<Instant>,
    ahead: Ahead,
    pub events: Events,
    pub counters: Counters,
}

impl Core {
    /// `any_stranger`: pass on every datagram of unknown remotes, not only what begins like a proposal.
    /// `may_fragment`: packets that are too large may be cut on their way, so that a path can't be searched for its size.
    pub fn new(may_fragment: bool, any_stranger: bool, limits: Limits) -> Self {
        let mut config = EndpointConfig::default();
        // RFC 9287 would let QUIC packets begin with 0..63, where PSEC frames and DTLS records are told apart from them.
        config.grease_quic_bit(false);
        // RFC 9000 alone: not its drafts, which quinn would take, too.
        config.supported_versions(vec![1]);
        // quinn's own choice has 24 random bits. An id in a Retry is not looked up before it is given away, and where thousands are in
        // use, now and then it would be one of them: whoever was told to use it would be heard as somebody else.
        config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID)));
        Self {
            endpoint: Endpoint::new(Arc::new(config), None, !may_fragment, None),
            flows: HashMap::new(),
            strangers: LinkedHashMap::new(),
            may_fragment,
            any_stranger,
            limits,
            shield: Shield::default(),
            reception: Reception::new(limits.guests),
            sessions: HashMap::new(),
            by_handle: HashMap::new(),
            claimed_ids: HashMap::new(),
            timeouts: BTreeSet::new(),
            timeout_of: HashMap::new(),
            ready: VecDeque::new(),
            is_ready: HashSet::new(),
            responses: VecDeque::new(),
            is_responses_turn: false,
            dial_answered: false,
            starved: Vec::new(),
            waiting_bytes: 0,
            waiting_raw: 0,
            closing: false,
            parting_until: None,
            ahead: Ahead::default(),
            events: Events::default(),
            counters: Counters::default(),
        }
    }

    /// How much waits for JavaScript outside of [`Self::events`].
    pub fn set_waiting(&mut self, bytes: usize, raw: usize) {
        self.waiting_bytes = bytes;
        self.waiting_raw = raw;
        let max = self.limits.waiting_bytes;
        if self.starved.is_empty() || bytes + self.events.bytes() >= max {
            return;
        }
        for id in std::mem::take(&mut self.starved) {
            if let Some((session, _)) = self.sessions.get_mut(&id) {
                session
                    .get()
                    .resume(&mut self.events, &|out| bytes + out.bytes() >= max);
                self.touch(id);
            }
        }
    }

    /// Whether sessions have something that JavaScript had no room for.
    pub fn is_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// Whether [`Command::Shutdown`] was asked for, and nobody is left who could not be told yet.
    pub fn is_closed(&mut self) -> bool {
        let mut sessions = self.sessions.values_mut();
        self.closing
            && (self.parting_until.is_none()
                || !sessions.any(|(session, _)| session.get().is_parting()))
    }

    pub fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::SendRaw {
                remote,
                local,
                data,
            } => self.respond_raw(remote, local, data),
            Command::Inject { remote, data } => {
                let origin = Origin {
                    remote,
                    local: None,
                    ecn: None,
                };
                self.route_or_count(now, origin, BytesMut::from(&data[..]));
            }
            Command::Claim { remote } => {
                self.strangers.remove(&remote);
                let flow = self.flows.entry(remote).or_default();
                flow.claimed = true;
                flow.handed_over = false;
                flow.shared = false;
            }
            Command::Share { remote, shared } => {
                if let Some(flow) = self.flows.get_mut(&remote) {
                    flow.shared = shared;
                }
            }
            Command::Release { remote } => self.release(remote),
            Command::Shield(policy) => {
                let (identity, policy) = policy.unzip();
                self.shield.set(policy);
                if let Some(identity) = identity {
                    self.expect_first_packets(&identity);
                }
            }
            Command::Welcome(welcome) => {
                if let Some(welcome) = &welcome {
                    self.expect_first_packets(&welcome.identity);
                }
                self.reception.set(welcome);
            }
            Command::Dismiss { remote, guest } => {
                if self.reception.take(&remote, Some(guest)).is_some() {
                    self.turn_away(now, guest);
                }
            }
            Command::Proceed {
                session,
                sent,
                send_first_flight,
                early,
            } => self.proceed(now, session, sent, send_first_flight, early),
            Command::Respond {
                session,
                identity,
                peer,
                early,
                claimed_id,
                validate_address,
            } => {
                if let Some(claimed_id) = claimed_id {
                    self.claimed_ids.insert(session, claimed_id);
                }
                self.respond(now, session, identity, peer, early, validate_address);
            }
            Command::Cancel { session, sent } => {
                self.cancel(now, session, sent);
                self.say_goodbye_first(session);
            }
            Command::Close {
                session,
                code,
                orderly,
            } => {
                self.close(now, session, code, orderly);
                self.say_goodbye_first(session);
            }
            Command::Shutdown => {
                self.closing = true;
                self.parting_until = Some(now + PARTING_TIME);
                self.reception.clear();
                self.ahead.end(&mut self.endpoint);
                let ids: Vec<u32> = self.sessions.keys().copied().collect();
                for id in ids {
                    self.close(now, id, 0, false);
                }
            }
            Command::OpenStream { session, token } => {
                self.with_session(session, |session, out| session.open_stream(token, out));
            }
            Command::CancelOpen { session, token } => {
                self.with_session(session, |session, _| session.cancel_open(token));
            }
            Command::Write {
                session,
                stream,
                data,
            } => self.with_session(session, |session, out| session.write(stream, data, out)),
            Command::Finish { session, stream } => {
                self.with_session(session, |session, out| session.finish(stream, out));
            }
            Command::Reset { session, stream } => {
                self.with_session(session, |session, _| session.reset(stream));
            }
            Command::Stop { session, stream } => {
                self.with_session(session, |session, _| session.stop(stream));
            }
            Command::Consumed {
                session,
                stream,
                bytes,
            } => {
                let full = self.is_full();
                self.with_session(session, |session, out| {
                    session.consumed(stream, bytes, out, full);
                });
            }
            Command::Datagram { session, payload } => {
                self.with_session(session, |session, out| session.datagram(payload, out));
            }
        }
    }

    pub fn handle_datagram(&mut self, now: Instant, origin: Origin, data: BytesMut) {
        let Some(first) = data.first().copied() else {
            self.counters.empty += 1;
            return;
        };
        // The first byte tells a PSEC frame from scheme traffic; reject is exactly one byte.
        let is_frame = first <= 1 || (first == 255 && data.len() == 1);
        if !is_frame
            && (self.hear_guest(now, origin, &data) || self.hear_parting(now, origin, &data))
        {
            return;
        }
        // JavaScript hears in the order in which things came: that a session is over before that its remote begins another one.
        let has_sessions = |flow: &Flow| flow.sessions > 0;
        if is_frame && self.flows.get(&origin.remote).is_some_and(has_sessions) {
            self.process(now);
        }
        match self.flows.get_mut(&origin.remote) {
            Some(flow) if flow.handed_over && !is_frame => {
                if flow.shared {
                    if !self.route(now, origin, data.clone(), false) {
                        self.surface(origin, &data);
                    }
                } else if flow.heel > 0 {
                    // It may be of the proposal that JavaScript is just reading. Who waited before, for somebody who may have forged that
                    // one's address, shall not have it: what JavaScript has no use for comes back.
                    if !self.route_to_session(now, origin, data.clone()) {
                        self.surface_on_heels(origin, &data);
                    }
                } else if first >= 0xc0 && self.shield.awaits_proof(&origin.remote) {
                    if !self.route(now, origin, data.clone(), false) {
                        self.receive_shielded(now, origin, data);
                    }
                } else {
                    self.route_or_count(now, origin, data);
                }
            }
            Some(flow) if flow.claimed => {
                if flow.handed_over && first == 0 {
                    flow.heel = self.limits.stranger_datagrams;
                }
                self.dial_answered |= is_frame && flow.prepared.is_some();
                if first == 0 && flow.prepared.is_none() {
                    self.shield.pass_on(now, &origin.remote, &data);
                }
                // The responder's answer may overtake its accept: the handshake goes on while JavaScript reads that.
                let is_expected = flow.prepared.is_some() || flow.may_know(&data);
                let is_taken =
                    is_expected && !is_frame && self.route_to_session(now, origin, data.clone());
                if is_taken {
                    return;
                }
                if first >= 0xc0 && self.shield.awaits_proof(&origin.remote) {
                    self.receive_shielded(now, origin, data);
                } else if let Some((response, packet_at)) = self.shield.answer_to_repetition(
                    now,
                    &origin.remote,
                    &data,
                    self.limits.crossing_time,
                ) {
                    self.answer(now, origin, data, &response, packet_at);
                } else {
                    self.surface(origin, &data);
                }
            }
            _ if first == 0 && self.shield.is_up() => self.shield(now, origin, data),
            _ if first == 0 || self.any_stranger => {
                if first == 0 {
                    // JavaScript's from now on: its first packets need no proof.
                    self.shield.forget(&origin.remote);
                }
                self.receive_stranger(now, origin, &data);
            }
            _ => match self.strangers.get_mut(&origin.remote) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    self.surface(origin, &data);
                }
                _ if first >= 0xc0 && self.shield.guards(&origin.remote) => {
                    self.validate(now, origin, data);
                }
                // A session whose remote got a new address from its NAT: QUIC knows it by its connection id.
                _ if (0x40..0x80).contains(&first) => self.route_or_count(now, origin, data),
                _ => self.counters.strangers += 1,
            },
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.shield.handle_timeout(now);
        self.parting_until.take_if(|until| now >= *until);
        self.ahead.handle_timeout(now, &mut self.endpoint);
        while let Some(guest) = self.reception.pop_expired(now) {
            self.turn_away(now, guest.number);
        }
        while let Some((at, id)) = self.timeouts.first().copied() {
            if at > now {
                return;
            }
            self.timeouts.pop_first();
            self.timeout_of.remove(&id);
            if let Some((session, _)) = self.sessions.get_mut(&id) {
                session.get().handle_timeout(now);
                self.touch(id);
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let session = self.timeouts.first().map(|(at, _)| *at);
        let strangers = [self.shield.poll_timeout(), self.reception.poll_timeout()];
        strangers
            .into_iter()
            .chain([session, self.parting_until, self.ahead.poll_timeout()])
            .flatten()
            .min()
    }

    /// Whether the remote of a dial has just sent a frame: JavaScript need not wait for what else came. True once.
    pub fn take_dial_answered(&mut self) -> bool {
        // What was there before an end is told with it.
        std::mem::take(&mut self.dial_answered) && !self.events.holds_end()
    }

    /// Whether there are strangers that have been answered, and whose session has to begin.
    pub fn has_arriving(&self) -> bool {
        self.reception.has_arriving()
    }

    /// Begin the session of one of them, which takes longest of all: the others have to wait for the next turn. True if there was one.
    pub fn begin_session(&mut self, now: Instant) -> bool {
        let Some((remote, number, arrival)) = self.reception.take_arriving() else {
            return false;
        };
        let Arrival {
            identity,
            max_udp_payload,
            datagrams,
        } = arrival;
        // What answers the proposal comes before what answers the packet.
        self.is_responses_turn = false;
        let mut datagrams = datagrams.into_iter();
        if let Some((origin, packet)) = datagrams.next() {
            let terms = Terms::of_responder(identity, max_udp_payload);
            if !self.receive_first_packet(now, number, origin, packet, terms) {
                self.reception.handle_no_session(&remote, number);
            }
        }
        for (origin, datagram) in datagrams {
            let is_taken = self.route_to_session(now, origin, datagram.clone());
            if !is_taken && self.is_wanted(&origin.remote) {
                self.surface(origin, &datagram);
            }
        }
        true
    }

    /// Whether JavaScript wants what comes from there: it serves that remote, or has just been told of a proposal.
    fn is_wanted(&mut self, remote: &SocketAddr) -> bool {
        self.is_claimed(remote) || self.is_on_the_heels(remote)
    }

    /// Strangers whose proposals were answered at once, and those of them that JavaScript did not want.
    pub fn welcomed(&self) -> (u64, u64) {
        (self.reception.welcomed(), self.reception.turned_away())
    }

    /// Proposals of strangers that the shield remembers.
    pub fn shielded_proposals(&self) -> usize {
        self.shield.len()
    }

    /// Proposals that the shield forgot to make room for others.
    pub fn displaced_proposals(&self) -> u64 {
        self.shield.displaced()
    }

    /// Take the sessions' events, before anything is sent.
    pub fn process(&mut self, now: Instant) {
        let (waiting, max) = (self.waiting_bytes, self.limits.waiting_bytes);
        for at in 0..self.ready.len() {
            let id = self.give_to_claimant(self.ready[at]);
            if let Some((session, _)) = self.sessions.get_mut(&id) {
                let full = |out: &Events| waiting + out.bytes() >= max;
                session
                    .get()
                    .process(now, &mut self.endpoint, &mut self.events, &full);
            }
        }
    }

    /// The next thing to send: `buf` holds it afterwards.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        max_datagrams: usize,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        buf.clear();
        // By turns: neither strangers nor sessions have to wait until the others have had everything.
        self.is_responses_turn = !self.is_responses_turn;
        if self.is_responses_turn {
            self.poll_response(buf)
                .or_else(|| self.poll_session(now, max_datagrams, buf))
        } else {
            self.poll_session(now, max_datagrams, buf)
                .or_else(|| self.poll_response(buf))
        }
    }

    fn poll_response(&mut self, buf: &mut Vec<u8>) -> Option<Transmit> {
        let response = self.responses.pop_front()?;
        *buf = response.data;
        Some(Transmit {
            destination: response.remote,
            ecn: None,
            size: buf.len(),
            segment_size: None,
            src_ip: response.local,
        })
    }

    fn poll_session(
        &mut self,
        now: Instant,
        max_datagrams: usize,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        while let Some(id) = self.ready.pop_front() {
            if self.give_to_claimant(id) != id {
                // Its turn comes by its new number.
                self.is_ready.remove(&id);
                continue;
            }
            let Some((session, remote)) = self.sessions.get_mut(&id) else {
                self.is_ready.remove(&id);
                continue;
            };
            let (waiting, max) = (self.waiting_bytes, self.limits.waiting_bytes);
            let full = |out: &Events| waiting + out.bytes() >= max;
            let session = session.get();
            session.process(now, &mut self.endpoint, &mut self.events, &full);
            if let Some(mut transmit) = session.poll_transmit(now, max_datagrams, buf) {
                self.ready.push_back(id);
                if transmit.destination == STAND_IN {
                    transmit.destination = *remote;
                }
                return Some(transmit);
            }
            self.is_ready.remove(&id);
            let timeout = session.poll_timeout();
            if session.is_starved() && !self.starved.contains(&id) {
                self.starved.push(id);
            }
            let (is_drained, remote) = (session.is_drained(), *remote);
            if is_drained {
                self.forget_session(id, remote);
            } else {
                self.set_timeout(id, timeout);
            }
        }
        None
    }

    fn is_full(&self) -> bool {
        self.waiting_bytes + self.events.bytes() >= self.limits.waiting_bytes
    }

    fn touch(&mut self, id: u32) {
        if self.is_ready.insert(id) {
            self.ready.push_back(id);
        }
    }

    fn with_session(&mut self, id: u32, act: impl FnOnce(&mut dyn Session, &mut Events)) {
        if let Some((session, _)) = self.sessions.get_mut(&id) {
            act(session.get(), &mut self.events);
            self.touch(id);
        }
    }

    fn set_timeout(&mut self, id: u32, timeout: Option<Instant>) {
        let before = match timeout {
            Some(at) => self.timeout_of.insert(id, at),
            None => self.timeout_of.remove(&id),
        };
        if before == timeout {
            return;
        }
        if let Some(before) = before {
            self.timeouts.remove(&(before, id));
        }
        if let Some(at) = timeout {
            self.timeouts.insert((at, id));
        }
    }

    fn remember_stranger(&mut self, remote: SocketAddr) {
        self.strangers
            .insert(remote, self.limits.stranger_datagrams);
        if self.strangers.len() > self.limits.strangers {
            self.strangers.pop_front();
        }
    }

    /// Whether a datagram belongs to what has just been passed on, of which so many are taken.
    fn is_on_the_heels(&mut self, remote: &SocketAddr) -> bool {
        match self.strangers.get_mut(remote) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    fn surface(&mut self, origin: Origin, data: &[u8]) {
        self.surface_answered(origin, data, None);
    }

    fn surface_answered(&mut self, origin: Origin, data: &[u8], answer: Option<(u32, Vec<u8>)>) {
        self.push_raw(Notice::Raw {
            remote: origin.remote,
            local: origin.local,
            data: data.to_vec(),
            answer,
        });
    }

    fn has_room_for_raw(&self) -> bool {
        self.waiting_raw + self.events.raw() < self.limits.waiting
    }

    /// False if there is no room.
    fn push_raw(&mut self, notice: Notice) -> bool {
        let has_room = self.has_room_for_raw();
        if has_room {
            self.events.push_notice(0, notice);
        } else {
            self.counters.raw_overflow += 1;
        }
        has_room
    }

    /// A stranger's first datagram, while there is no need to hold anybody off. It is answered here if JavaScript can't have anything
    /// else of that stranger before it, and if the answer is sure to leave.
    fn receive_stranger(&mut self, now: Instant, origin: Origin, data: &[u8]) {
        let mut answer = None;
        if !self.strangers.contains_key(&origin.remote)
            && self.has_room_for_raw()
            && self.has_room_for_response()
        {
            answer = self.reception.propose(now, origin, data);
        }
        if let Some((_, answer)) = &answer {
            self.respond_raw(origin.remote, origin.local, answer.clone());
        }
        self.remember_stranger(origin.remote);
        self.surface_answered(origin, data, answer);
    }

    /// Give a guest's packet to its session; false if it is of something else, or of nobody who is welcome.
    fn hear_guest(&mut self, now: Instant, origin: Origin, data: &BytesMut) -> bool {
        self.reception.has(&origin.remote)
            && (self.reception.note(origin, data)
                || self.route_to_session(now, origin, data.clone()))
    }

    /// Give a packet to a session that JavaScript is done with: its remote may not have heard of the end. False if it is of none.
    fn hear_parting(&mut self, now: Instant, origin: Origin, data: &BytesMut) -> bool {
        let has_sessions = |flow: &Flow| !flow.claimed && flow.sessions > 0;
        self.flows.get(&origin.remote).is_some_and(has_sessions)
            && self.route_to_session(now, origin, data.clone())
    }

    /// Begin a guest's session with its first packet; false if this is not one. JavaScript has it, and decides what is to become of it.
    fn receive_first_packet(
        &mut self,
        now: Instant,
        number: u32,
        origin: Origin,
        packet: BytesMut,
        (config, terms): (Arc<ServerConfig>, Terms),
    ) -> bool {
        let mut buf = Vec::new();
        match self.handle(now, origin, packet, &mut buf) {
            Some(DatagramEvent::NewConnection(incoming)) => {
                let Ok(Some((handle, connection))) = self.accept(now, incoming, config, &mut buf)
                else {
                    return false;
                };
                let session = QuicSession::new(number, handle, connection, terms).unasked();
                self.add_session(number, AnySession::Quic(Box::new(session)), origin.remote);
                true
            }
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                self.tell(handle, event);
                false
            }
            _ => false,
        }
    }

    /// JavaScript responds to a guest: its session goes by JavaScript's number from now on. `early` loses what that session has heard, and
    /// gets what it should have heard. False if there is no such session to go on with, and one has to be waited for.
    fn take_guest(
        &mut self,
        now: Instant,
        id: u32,
        identity: &Identity,
        peer: &Peer,
        early: &mut Vec<Vec<u8>>,
    ) -> bool {
        let taken = match peer.guest {
            Some(_) => self.reception.take(&peer.remote, peer.guest),
            // One that has begun with something else is of a later proposal, which JavaScript has not read yet.
            None => self.reception.take_begun_with(&peer.remote, early),
        };
        let Some(guest) = taken else {
            // Another one would begin with the same packet as the one that JavaScript means.
            if peer.guest.is_some() {
                self.closed(id, CloseCause::Failed, "it was given up meanwhile".into());
            }
            return peer.guest.is_some();
        };
        if guest.began_with(early) {
            match guest.state {
                State::Arriving(arrival) => {
                    let mut datagrams = arrival.datagrams.into_iter();
                    // The initiation packet, which JavaScript has.
                    datagrams.next();
                    early.extend(datagrams.map(|(_, it)| it.to_vec()));
                    return false;
                }
                State::Begun if self.rename_guest(guest.number, id, identity) => {
                    early.drain(..early.len().min(1));
                    return true;
                }
                State::NotBegun => return false,
                State::Begun | State::Over => {}
            }
        }
        self.turn_away(now, guest.number);
        if peer.guest.is_some() {
            self.closed(id, CloseCause::Failed, "it was given up meanwhile".into());
        }
        peer.guest.is_some()
    }

    /// False if JavaScript would have begun another session.
    fn rename_guest(&mut self, from: u32, to: u32, identity: &Identity) -> bool {
        let identity = match identity {
            Identity::Quic(identity) => identity,
            #[cfg(feature = "dtls")]
            Identity::Dtls(_) => return false,
        };
        let Some((AnySession::Quic(session), _)) = self.sessions.get_mut(&from) else {
            return false;
        };
        if !session.ask_for(to, identity) {
            return false;
        }
        let handle = session.handle();
        self.renumber(handle, from, to);
        true
    }

    fn renumber(&mut self, handle: ConnectionHandle, from: u32, to: u32) {
        self.by_handle.insert(handle, to);
        if let Some(session) = self.sessions.remove(&from) {
            self.sessions.insert(to, session);
        }
        self.set_timeout(from, None);
        self.touch(to);
    }

    /// A first packet does not say whose it is, and anybody may propose in the remote's place: when the handshake has proved who is there,
    /// that may be whom another responder waits for. They change places then. Returns the session's number.
    fn give_to_claimant(&mut self, id: u32) -> u32 {
        let Some((AnySession::Quic(session), remote)) = self.sessions.get_mut(&id) else {
            return id;
        };
        let Some(flow) = self
            .flows
            .get_mut(remote)
            .filter(|it| !it.expecting.is_empty())
        else {
            return id;
        };
        // Initiators have none, nor have guests for whom JavaScript has not responded.
        let Some(claimed_id) = self.claimed_ids.get(&id) else {
            return id;
        };
        let Some(peer_id) = session.unannounced_peer().filter(|it| it != claimed_id) else {
            return id;
        };
        let claims = |id: &u32| self.claimed_ids.get(id) == Some(&peer_id);
        let claimant = flow.expecting.iter_mut().find_map(|it| match &it.role {
            Responder::Quic(_, terms) if claims(&it.session) => Some((&mut it.session, terms)),
            _ => None,
        });
        match claimant {
            Some((to, terms)) if session.ask_for(*to, &terms.identity) => {
                let to = std::mem::replace(to, id);
                let handle = session.handle();
                self.renumber(handle, id, to);
                to
            }
            _ => id,
        }
    }

    /// JavaScript has no use for a guest.
    fn turn_away(&mut self, now: Instant, session: u32) {
        self.reception.count_turned_away();
        self.with_session(session, |session, out| {
            session.close(ABANDONED, false, now, out)
        });
    }

    /// A stranger proposes while the shield is up.
    fn shield(&mut self, now: Instant, origin: Origin, data: BytesMut) {
        // As good as lost on its way: nobody shall be forgotten for one that is not answered.
        if !self.has_room_for_response() {
            self.counters.responses_overflow += 1;
            return;
        }
        match self.shield.propose(now, origin.remote, &data) {
            Verdict::Answer {
                response,
                packet_at,
            } => {
                // What comes now is this proposal's, and has to prove the address afresh.
                self.strangers.remove(&origin.remote);
                self.answer(now, origin, data, &response, packet_at);
            }
            Verdict::Pass => {
                self.remember_stranger(origin.remote);
                self.surface(origin, &data);
            }
            Verdict::Unprepared => self.counters.turned_away_unprepared += 1,
            Verdict::Quota => self.counters.turned_away_prefix += 1,
        }
    }

    /// Answer a proposal, the first time or once more; its initiation packet is the scheme's.
    fn answer(
        &mut self,
        now: Instant,
        origin: Origin,
        mut data: BytesMut,
        response: &[u8],
        packet_at: usize,
    ) {
        if !self.has_room_for_response() {
            self.counters.responses_overflow += 1;
            return;
        }
        self.counters.shielded += 1;
        self.respond_raw(origin.remote, origin.local, response.to_vec());
        let packet = data.split_off(packet_at);
        if !packet.is_empty() {
            self.receive_shielded(now, origin, packet);
        }
    }

    /// What may be the first packet of QUIC from somebody behind the shield: passed on if it proves the sender's address, else
    /// answered with what makes it prove that (RFC 9000, section 8.1.2).
    fn validate(&mut self, now: Instant, origin: Origin, data: BytesMut) {
        // To find out what a packet is takes work that would be done for nothing.
        if !self.has_room_for_response() && !shield::has_token(&data) {
            self.counters.responses_overflow += 1;
            return;
        }
        let mut buf = Vec::new();
        match self.handle(now, origin, data.clone(), &mut buf) {
            Some(DatagramEvent::NewConnection(incoming)) => {
                if !incoming.remote_address_validated() {
                    if let Ok(transmit) = self.endpoint.retry(incoming, &mut buf) {
                        self.counters.challenged += 1;
                        buf.truncate(transmit.size);
                        self.respond_raw(origin.remote, transmit.src_ip, buf);
                    }
                    return;
                }
                // Looked at again once JavaScript has a session for it.
                self.endpoint.ignore(incoming);
                if let Some((proposal, answer)) = self.shield.proposal_of(&origin.remote, &data) {
                    self.counters.validated += 1;
                    let notice = Notice::Validated {
                        remote: origin.remote,
                        local: origin.local,
                        proposal,
                        answer: answer.to_vec(),
                        data: data.to_vec(),
                    };
                    if self.push_raw(notice) {
                        // What follows on its heels is its own.
                        self.remember_stranger(origin.remote);
                        self.shield.handle_proof(&origin.remote);
                    }
                } else {
                    self.counters.unproposed += 1;
                }
            }
            Some(DatagramEvent::ConnectionEvent(handle, event)) => self.tell(handle, event),
            Some(DatagramEvent::Response(_)) | None => self.counters.strangers += 1,
        }
    }

    /// What may be a first packet comes to a flow that JavaScript has claimed since, or while it read something else of the same
    /// remote: it may go by the shield's latest answer.
    fn receive_shielded(&mut self, now: Instant, origin: Origin, data: BytesMut) {
        if self.is_on_the_heels(&origin.remote) {
            self.surface(origin, &data);
        } else {
            self.validate(now, origin, data);
        }
    }

    fn handle(
        &mut self,
        now: Instant,
        origin: Origin,
        data: BytesMut,
        buf: &mut Vec<u8>,
    ) -> Option<DatagramEvent> {
        let Origin { remote, local, ecn } = origin;
        let is_retry = data.first().is_some_and(|first| *first >= RETRY);
        let event = if self.has_stand_in(&remote) {
            self.handle_by_stand_in(now, origin, data, buf)
        } else {
            self.endpoint.handle(now, remote, local, ecn, data, buf)
        };
        match event {
            // It is the answer to a goodbye, and would be answered by another one, without end.
            Some(DatagramEvent::ConnectionEvent(handle, _)) if is_retry && self.is_over(handle) => {
                None
            }
            event => event,
        }
    }

    /// Of a remote for which quinn takes somebody else in some of its sessions: quinn looks whether it is of one of these, and if not, again.
    fn handle_by_stand_in(
        &mut self,
        now: Instant,
        origin: Origin,
        data: BytesMut,
        buf: &mut Vec<u8>,
    ) -> Option<DatagramEvent> {
        let Origin { remote, local, ecn } = origin;
        let id = short_header_id(&data);
        let last_id = self.flows.get(&remote).and_then(|flow| flow.stand_in_id);
        if id.is_some() && id == last_id {
            return self.endpoint.handle(now, STAND_IN, local, ecn, data, buf);
        }
        let first_look = self
            .endpoint
            .handle(now, STAND_IN, local, ecn, data.clone(), buf);
        let said = std::mem::take(buf);
        match first_look {
            Some(DatagramEvent::ConnectionEvent(handle, event))
                if self.is_known_by_stand_in(handle, &remote) =>
            {
                if let Some(flow) = self.flows.get_mut(&remote) {
                    flow.stand_in_id = id.or(last_id);
                }
                return Some(DatagramEvent::ConnectionEvent(handle, event));
            }
            // One of few that quinn says. But what is for nobody there may be the reset of another session.
            Some(DatagramEvent::Response(reset)) if id.is_some() => {
                let event = self.endpoint.handle(now, remote, local, ecn, data, buf);
                if matches!(event, Some(DatagramEvent::ConnectionEvent(..))) {
                    return event;
                }
                *buf = said;
                return Some(DatagramEvent::Response(reset));
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.endpoint.ignore(incoming),
            _ => {}
        }
        self.endpoint.handle(now, remote, local, ecn, data, buf)
    }

    fn is_known_by_stand_in(&self, handle: ConnectionHandle, remote: &SocketAddr) -> bool {
        let id = self.by_handle.get(&handle);
        match id.and_then(|id| self.sessions.get(id)) {
            Some((AnySession::Quic(session), its)) => its == remote && session.has_stand_in(),
            _ => false,
        }
    }

    fn is_over(&self, handle: ConnectionHandle) -> bool {
        let id = self.by_handle.get(&handle);
        match id.and_then(|id| self.sessions.get(id)) {
            Some((AnySession::Quic(session), _)) => session.is_over(),
            _ => true,
        }
    }

    /// Begin a connection; none if all that its first packet says is that it is over: somebody has given a dial up, and this is late.
    fn accept(
        &mut self,
        now: Instant,
        incoming: Incoming,
        config: Arc<ServerConfig>,
        buf: &mut Vec<u8>,
    ) -> Result<Option<(ConnectionHandle, Connection)>, Box<AcceptError>> {
        let accepted = self.endpoint.accept(incoming, now, buf, Some(config));
        let (handle, connection) = accepted.map_err(Box::new)?;
        if connection.is_closed() {
            self.endpoint.handle_event(handle, EndpointEvent::drained());
            return Ok(None);
        }
        Ok(Some((handle, connection)))
    }

    fn tell(&mut self, handle: ConnectionHandle, event: ConnectionEvent) {
        if let Some(id) = self.by_handle.get(&handle).copied()
            && let Some((AnySession::Quic(session), _)) = self.sessions.get_mut(&id)
        {
            session.handle_event(event);
            self.touch(id);
        }
    }

    /// Give a packet to the session it belongs to; false if there is none, and nothing has happened.
    fn route_to_session(&mut self, now: Instant, origin: Origin, data: BytesMut) -> bool {
        #[cfg(feature = "dtls")]
        if dtls::is_record(&data) {
            return self.tell_dtls(now, origin, &data);
        }
        match self.handle(now, origin, data, &mut Vec::new()) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                self.tell(handle, event);
                true
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.endpoint.ignore(incoming);
                false
            }
            _ => false,
        }
    }

    fn route_or_count(&mut self, now: Instant, origin: Origin, data: BytesMut) {
        if !self.route(now, origin, data, true) {
            self.counters.unroutable += 1;
        }
    }

    fn surface_on_heels(&mut self, origin: Origin, data: &[u8]) {
        if let Some(flow) = self.flows.get_mut(&origin.remote) {
            flow.heel = flow.heel.saturating_sub(1);
        }
        self.surface(origin, data);
    }

    /// Give a packet to the session it belongs to, or to the responder that waits for it; false if nobody takes it. QUIC
    /// itself answers some that no session takes, if it may.
    fn route(&mut self, now: Instant, origin: Origin, data: BytesMut, may_answer: bool) -> bool {
        #[cfg(feature = "dtls")]
        if dtls::is_record(&data) {
            return self.tell_dtls(now, origin, &data)
                || self.begin_dtls(now, origin, &data)
                || self.restart_dtls(now, origin, &data);
        }
        let mut buf = Vec::new();
        match self.handle(now, origin, data, &mut buf) {
            None => return false,
            Some(DatagramEvent::ConnectionEvent(handle, event)) => self.tell(handle, event),
            Some(DatagramEvent::Response(transmit)) => {
                if !may_answer || !self.flows.contains_key(&origin.remote) {
                    return false;
                }
                buf.truncate(transmit.size);
                self.respond_raw(origin.remote, transmit.src_ip, buf);
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let expected = self
                    .flows
                    .get_mut(&origin.remote)
                    .and_then(|flow| flow.take_expected(|it| matches!(it, Responder::Quic(..))));
                let Some(Expected {
                    session: id,
                    role: Responder::Quic(config, terms),
                }) = expected
                else {
                    self.endpoint.ignore(incoming);
                    return false;
                };
                match self.accept(now, incoming, config.clone(), &mut buf) {
                    Ok(None) => {
                        let role = Responder::Quic(config, terms);
                        let flow = self.flows.entry(origin.remote).or_default();
                        flow.expecting.push_front(Expected { session: id, role });
                    }
                    Ok(Some((handle, connection))) => {
                        let session = QuicSession::new(id, handle, connection, terms);
                        self.add_session(id, AnySession::Quic(Box::new(session)), origin.remote);
                    }
                    Err(error) => {
                        if let Some(transmit) = error.response {
                            buf.truncate(transmit.size);
                            self.respond_raw(origin.remote, transmit.src_ip, buf);
                        }
                        let message = error.cause.to_string();
                        self.closed(id, CloseCause::Failed, message);
                        self.forget_unused_flow(origin.remote);
                    }
                }
            }
        }
        true
    }

    /// Give a packet to the sessions of DTLS that it may be of; false if there is none.
    #[cfg(feature = "dtls")]
    fn tell_dtls(&mut self, now: Instant, origin: Origin, data: &[u8]) -> bool {
        let full = self.is_full();
        let Some(flow) = self.flows.get(&origin.remote) else {
            return false;
        };
        let mut is_taken = false;
        for id in flow.dtls.clone() {
            let Some((AnySession::Dtls(session), _)) = self.sessions.get_mut(&id) else {
                continue;
            };
            if session.handle_datagram(now, origin.local, data, &mut self.events, full) {
                let left_out = session.take_left_out();
                self.counters.sctp_overflow += left_out.overflow;
                self.counters.sctp_ignored += left_out.ignored;
                is_taken = true;
                self.touch(id);
            }
        }
        is_taken
    }

    /// Begin the session of the responder that waits for the first packet of DTLS; false if this is not one, or nobody does.
    #[cfg(feature = "dtls")]
    fn begin_dtls(&mut self, now: Instant, origin: Origin, data: &[u8]) -> bool {
        if dtls::client_random(data).is_none() {
            return false;
        }
        let expected = self
            .flows
            .get_mut(&origin.remote)
            .and_then(|flow| flow.take_expected(|it| matches!(it, Responder::Dtls(..))));
        let Some(Expected {
            session: id,
            role: Responder::Dtls(identity, peer, validate_address),
        }) = expected
        else {
            return false;
        };
        let validate_address = validate_address || !identity.can_answer(data.len());
        match DtlsSession::respond(id, now, identity, peer, validate_address) {
            Ok(session) => {
                self.add_session(id, AnySession::Dtls(Box::new(session)), origin.remote);
                self.tell_dtls(now, origin, data);
            }
            Err(error) => {
                self.closed(id, CloseCause::Failed, error.to_string());
                self.forget_unused_flow(origin.remote);
            }
        }
        true
    }

    /// Let the newest responder whose handshake is under way take another ClientHello; false if this is none, or there is none.
    #[cfg(feature = "dtls")]
    fn restart_dtls(&mut self, now: Instant, origin: Origin, data: &[u8]) -> bool {
        if dtls::client_random(data).is_none() {
            return false;
        }
        let Some(flow) = self.flows.get(&origin.remote) else {
            return false;
        };
        let ids = flow.dtls.clone();
        let has_restarted = ids
            .into_iter()
            .rev()
            .any(|id| match self.sessions.get_mut(&id) {
                Some((AnySession::Dtls(session), _)) => session.restart(now),
                _ => false,
            });
        has_restarted && self.tell_dtls(now, origin, data)
    }

    fn has_room_for_response(&self) -> bool {
        self.responses.len() < self.limits.responses
    }

    fn respond_raw(&mut self, remote: SocketAddr, local: Option<IpAddr>, data: Vec<u8>) {
        self.push_response(Response {
            remote,
            local,
            data,
            of: None,
        });
    }

    fn push_response(&mut self, response: Response) {
        if self.has_room_for_response() {
            self.responses.push_back(response);
        } else {
            self.counters.responses_overflow += 1;
        }
    }

    fn closed(&mut self, id: u32, cause: CloseCause, message: String) {
        self.claimed_ids.remove(&id);
        self.events
            .push_notice(id, Notice::Closed { cause, message });
    }

    fn add_session(&mut self, id: u32, session: AnySession, remote: SocketAddr) {
        let flow = self.flows.entry(remote).or_default();
        flow.sessions += 1;
        match &session {
            AnySession::Quic(session) => {
                flow.stand_ins += usize::from(session.has_stand_in());
                self.by_handle.insert(session.handle(), id);
            }
            #[cfg(feature = "dtls")]
            AnySession::Dtls(_) => flow.dtls.push(id),
        }
        self.sessions.insert(id, (session, remote));
        self.touch(id);
    }

    fn forget_session(&mut self, id: u32, remote: SocketAddr) {
        if let Some((AnySession::Quic(session), _)) = self.sessions.remove(&id) {
            self.by_handle.remove(&session.handle());
            if let Some(flow) = self.flows.get_mut(&remote) {
                flow.stand_ins -= usize::from(session.has_stand_in());
            }
        }
        self.set_timeout(id, None);
        self.claimed_ids.remove(&id);
        self.reception.handle_end(&remote, id);
        self.forget_prepared(id, remote);
        if let Some(flow) = self.flows.get_mut(&remote) {
            flow.sessions = flow.sessions.saturating_sub(1);
            #[cfg(feature = "dtls")]
            flow.dtls.retain(|it| *it != id);
        }
        self.forget_unused_flow(remote);
    }

    fn forget_prepared(&mut self, id: u32, remote: SocketAddr) {
        if let Some(flow) = self.flows.get_mut(&remote)
            && flow.prepared == Some(id)
        {
            flow.prepared = None;
        }
    }

    fn forget_unused_flow(&mut self, remote: SocketAddr) {
        if let Some(flow) = self.flows.get(&remote)
            && !flow.claimed
            && flow.sessions == 0
            && flow.expecting.is_empty()
        {
            self.flows.remove(&remote);
        }
    }

    /// Prepare an initiator: nothing is sent before [`Command::Proceed`]. Returns its first flight, empty if its first
    /// datagram is larger than allowed.
    pub fn initiate(
        &mut self,
        now: Instant,
        id: u32,
        identity: Identity,
        mut peer: Peer,
        max_first_datagram: usize,
    ) -> Result<Vec<Vec<u8>>, InitiateError> {
        self.limit_probes(&mut peer);
        let (session, mut first_flight) = match identity {
            Identity::Quic(identity) => {
                let settings = Settings {
                    identity,
                    max_udp_payload: peer.max_udp_payload,
                };
                let begun = self.connect(now, peer.remote, &settings)?;
                if !self.closing {
                    self.ahead.handle_dial(now, settings);
                }
                let mut session = QuicSession::new(id, begun.handle, begun.connection, begun.terms);
                let first_flight = session.prepare(now);
                (AnySession::Quic(Box::new(session)), first_flight)
            }
            #[cfg(feature = "dtls")]
            Identity::Dtls(identity) => {
                let mut session = DtlsSession::initiate(id, now, identity, peer)?;
                let first_flight = session.prepare();
                (AnySession::Dtls(Box::new(session)), first_flight)
            }
        };
        if first_flight
            .first()
            .is_some_and(|first| first.len() > max_first_datagram)
        {
            first_flight.clear();
        }
        self.add_session(id, session, peer.remote);
        self.flows.entry(peer.remote).or_default().prepared = Some(id);
        Ok(first_flight)
    }

    /// Begin a connection of QUIC, or go on with the one that was begun ahead.
    fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        settings: &Settings,
    ) -> Result<Begun, ConnectError> {
        // Where nobody can be, quinn says so.
        let may_be_there = remote.port() != 0 && !remote.ip().is_unspecified();
        if may_be_there && let Some(begun) = self.ahead.take(settings) {
            return Ok(begun);
        }
        settings.clone().connect(now, remote, &mut self.endpoint)
    }

    /// Whether quinn takes somebody else for that remote in any of its sessions.
    fn has_stand_in(&self, remote: &SocketAddr) -> bool {
        self.flows
            .get(remote)
            .is_some_and(|flow| flow.stand_ins > 0)
    }

    fn is_claimed(&self, remote: &SocketAddr) -> bool {
        self.flows.get(remote).is_some_and(|flow| flow.claimed)
    }

    fn proceed(
        &mut self,
        now: Instant,
        id: u32,
        sent: bool,
        send_first_flight: bool,
        early: Vec<Vec<u8>>,
    ) {
        let Some((session, remote)) = self.sessions.get_mut(&id) else {
            return;
        };
        let remote = *remote;
        let first_flight = session.get().proceed(sent);
        self.forget_prepared(id, remote);
        if send_first_flight {
            for (place, data) in first_flight.into_iter().enumerate() {
                self.push_response(Response {
                    remote,
                    local: None,
                    data,
                    of: Some(FirstFlight {
                        session: id,
                        begins: place == 0 && !sent,
                    }),
                });
            }
        }
        self.touch(id);
        self.hand_over(now, remote, None, early);
    }

    fn respond(
        &mut self,
        now: Instant,
        id: u32,
        identity: Identity,
        mut peer: Peer,
        mut early: Vec<Vec<u8>>,
        #[cfg_attr(not(feature = "dtls"), expect(unused_variables))] validate_address: bool,
    ) {
        if self.take_guest(now, id, &identity, &peer, &mut early) {
            self.hand_over(now, peer.remote, peer.local, early);
            return;
        }
        self.limit_probes(&mut peer);
        let role = match identity {
            Identity::Quic(identity) => {
                self.expect_first_packets(&identity);
                let (config, terms) = Terms::of_responder(identity, peer.max_udp_payload);
                Responder::Quic(config, terms)
            }
            #[cfg(feature = "dtls")]
            Identity::Dtls(identity) => Responder::Dtls(identity, peer, validate_address),
        };
        let expected = Expected { session: id, role };
        let flow = self.flows.entry(peer.remote).or_default();
        flow.expecting.push_front(expected);
        self.hand_over(now, peer.remote, peer.local, early);
    }

    /// Whether a packet fits the path can't be seen where it may be cut.
    fn limit_probes(&self, peer: &mut Peer) {
        if self.may_fragment {
            peer.max_probe_payload = peer.max_udp_payload;
        }
    }

    /// quinn wants a configuration to look at first packets at all; which one a session gets is said when it is accepted.
    fn expect_first_packets(&mut self, identity: &QuicIdentity) {
        let config = identity.validating_config(self.shield.lifetime());
        self.endpoint.set_server_config(Some(config));
    }

    fn hand_over(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: Option<IpAddr>,
        early: Vec<Vec<u8>>,
    ) {
        self.flows.entry(remote).or_default().handed_over = true;
        for datagram in early {
            let origin = Origin {
                remote,
                local,
                ecn: None,
            };
            self.route_or_count(now, origin, BytesMut::from(&datagram[..]));
        }
    }

    fn cancel(&mut self, now: Instant, id: u32, sent: bool) {
        if let Some((_, remote)) = self.sessions.get(&id) {
            self.forget_prepared(id, *remote);
            self.with_session(id, |session, out| session.cancel(sent, now, out));
        }
    }

    fn close(&mut self, now: Instant, id: u32, code: u32, orderly: bool) {
        if let Some((_, remote)) = self.sessions.get(&id) {
            self.forget_prepared(id, *remote);
            self.withdraw_first_flight(id);
            self.with_session(id, |session, out| session.close(code, orderly, now, out));
            return;
        }
        let waiting_on = self.flows.iter_mut().find_map(|(remote, flow)| {
            let before = flow.expecting.len();
            flow.expecting.retain(|expected| expected.session != id);
            (flow.expecting.len() < before).then_some(*remote)
        });
        if let Some(remote) = waiting_on {
            self.closed(id, CloseCause::Local, String::new());
            self.forget_unused_flow(remote);
        }
    }

    /// What of a first flight has not left shall not begin a session that ends at once; nor does anybody wait for the end of one of
    /// which nothing has left.
    fn withdraw_first_flight(&mut self, id: u32) {
        let its = |it: &Response| it.of.filter(|of| of.session == id);
        let has_begun = !self.responses.iter().filter_map(its).any(|it| it.begins);
        self.responses.retain(|it| its(it).is_none());
        if !has_begun && let Some((session, _)) = self.sessions.get_mut(&id) {
            session.get().mute();
        }
    }

    /// What JavaScript sends to the same remote from now on is of another dial.
    fn say_goodbye_first(&mut self, id: u32) {
        if self.is_ready.contains(&id) {
            self.ready.retain(|ready| *ready != id);
            self.ready.push_front(id);
            self.is_responses_turn = true;
        }
    }

    fn release(&mut self, remote: SocketAddr) {
        if let Some(flow) = self.flows.get_mut(&remote) {
            flow.claimed = false;
            flow.handed_over = false;
            flow.shared = false;
            let is_heeled = std::mem::take(&mut flow.heel) > 0;
            // Nobody can get to them any more, and JavaScript remembers a session until it hears of its end.
            for expected in std::mem::take(&mut flow.expecting) {
                self.closed(expected.session, CloseCause::Local, String::new());
            }
            // JavaScript is about to hear of another proposal, and of what follows it.
            if is_heeled {
                self.remember_stranger(remote);
            }
        }
        self.forget_unused_flow(remote);
    }
}

/// Of a packet with a short header (RFC 9000, section 17.3.1).
fn short_header_id(packet: &[u8]) -> Option<ConnectionId> {
    let (first, rest) = packet.split_first()?;
    let id = rest.get(..CONNECTION_ID)?;
    (*first < 0x80).then(|| ConnectionId::new(id))
}

#[cfg(test)]
pub mod tests;

#[cfg(test)]
mod fuzz;
