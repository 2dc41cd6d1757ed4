//! Two honest ports, a network that an attacker runs, and any order of events: what must hold whatever happens. The attacker
//! delivers, doubles, holds back, changes, shortens and forges datagrams under every source address; JavaScript asks for
//! anything at any time. `docs/fuzzing.md` tells how to run it for long.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::dtls::DtlsSettings;
use crate::events::{Kind, RECORD};
use crate::identity::{QuicIdentity, QuicSettings};
use crate::reception::Welcome;
use crate::shield::{Answer, Answers, Policy};

/// Where the honest ends are, then strangers.
const ADDRESSES: [([u8; 4], u16); 4] = [
    ([10, 0, 0, 1], 4001),
    ([10, 0, 0, 2], 4002),
    ([10, 0, 0, 3], 4003),
    ([10, 9, 9, 9], 9),
];

/// A proposal without initiation packet, and what answers it while the shield is up.
const PROPOSAL: &[u8] =
    b"\x00\x26\x00\x24\x08\x01\x12\x20an Ed25519 key, for all it knows\x01\x02/q";
const OFFER: &[u8] = b"\x01\x02/q";
const ACCEPT: &[u8] = b"\x01\x02/q";

/// Proposals that the shield may remember, fewer than there are strangers.
const MAX_SHIELDED: usize = 2;

/// Datagrams that the attacker has seen, and can use: the oldest are forgotten.
const MAX_SEEN: usize = 64;

/// RFC 9000, section 8: bytes to an address that has not been validated, for each byte that came from it.
const MAX_AMPLIFICATION: usize = 3;

/// Longer than anything lasts that nobody keeps alive. A session drains for some ten round trips, and takes the time between
/// [`Core::initiate`] and [`Command::Proceed`] for a part of one, which here may be an hour.
const THE_END: Duration = Duration::from_secs(1_000_000);

/// A peer, with what it shows by each scheme.
struct Peerage {
    quic: Arc<QuicIdentity>,
    dtls: Arc<DtlsIdentity>,
    peer_id: Vec<u8>,
}

static IDENTITIES: LazyLock<[Peerage; 2]> =
    LazyLock::new(|| [create_identity(), create_identity()]);

fn create_identity() -> Peerage {
    let keypair = libp2p_identity::Keypair::generate_ed25519();
    let dtls = DtlsSettings {
        idle_timeout: Duration::from_secs(30),
        keep_alive: Duration::from_secs(10),
        max_streams: 4,
        stream_receive_window: 1 << 16,
        receive_window: 1 << 17,
        send_window: 1 << 17,
        datagram_receive_buffer: 1 << 14,
        datagram_send_buffer: 1 << 14,
        stream_receive_queue: 512 * 1024,
        max_packet_size: 1232,
        allow_dtls12: false,
    };
    let settings = QuicSettings {
        idle_timeout: Duration::from_secs(30),
        keep_alive: Duration::from_secs(10),
        max_streams: 4,
        stream_receive_window: 1 << 16,
        receive_window: 1 << 17,
        send_window: 1 << 17,
        datagram_receive_buffer: 1 << 14,
        datagram_send_buffer: 1 << 14,
        stream_receive_queue: 512 * 1024,
        post_quantum: true,
    };
    let key = keypair.to_protobuf_encoding().unwrap();
    Peerage {
        quic: Arc::new(QuicIdentity::new(&key, settings).unwrap()),
        dtls: Arc::new(DtlsIdentity::new(&key, dtls).unwrap()),
        peer_id: keypair.public().to_peer_id().to_bytes(),
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// All that it takes to get a session, if nobody comes between.
    Connect {
        is_dtls: bool,
    },
    Initiate {
        is_dtls: bool,
        max_first: usize,
    },
    Respond {
        is_dtls: bool,
        early: bool,
    },
    Proceed {
        session: u8,
        first_flight: bool,
    },
    Cancel {
        session: u8,
        sent: bool,
    },
    Close {
        session: u8,
        code: u32,
        orderly: bool,
    },
    Claim {
        remote: u8,
    },
    Release {
        remote: u8,
    },
    Dismiss {
        remote: u8,
    },
    Share {
        remote: u8,
        shared: bool,
    },
    SendRaw {
        remote: u8,
        data: Vec<u8>,
    },
    Inject {
        remote: u8,
        seen: u8,
    },
    OpenStream {
        session: u8,
    },
    Write {
        session: u8,
        stream: u64,
        size: usize,
    },
    Finish {
        session: u8,
        stream: u64,
    },
    Reset {
        session: u8,
        stream: u64,
    },
    Stop {
        session: u8,
        stream: u64,
    },
    Consumed {
        session: u8,
        stream: u64,
        bytes: usize,
    },
    Datagram {
        session: u8,
        size: usize,
    },
    Waiting {
        bytes: usize,
        raw: usize,
    },
    /// JavaScript takes the events.
    Collect,
    Shutdown,
    Tick {
        milliseconds: u64,
    },
    /// The network does its work: everything under way arrives, in order.
    Settle,
    Deliver {
        index: u8,
    },
    Drop {
        index: u8,
    },
    Replay {
        seen: u8,
        from: u8,
    },
    Mutate {
        seen: u8,
        from: u8,
        at: u16,
        value: u8,
    },
    Truncate {
        seen: u8,
        from: u8,
        length: u16,
    },
    Shield {
        up: bool,
    },
    Welcome {
        on: bool,
    },
    /// The other end's proposal, with its first flight, and this one's answer.
    Arrive {
        is_dtls: bool,
    },
    Propose {
        from: u8,
        seen: Option<u8>,
    },
    Forge {
        from: u8,
        data: Vec<u8>,
    },
}

/// An honest end (0 or 1), and what happens there.
type Step = (usize, Op);

fn op() -> impl Strategy<Value = Op> {
    let stream = 0..12u64;
    let garbage = prop_oneof![
        vec(any::<u8>(), 0..40),
        // what begins like a frame, a handshake or a session's packet, in full length
        (
            prop_oneof![Just(0u8), Just(1), Just(22), Just(64), Just(192), Just(255)],
            vec(any::<u8>(), 20..60),
            0..1500usize
        )
            .prop_map(|(first, mut data, length)| {
                data[0] = first;
                data.resize(length.max(1), 0);
                data
            }),
    ];
    prop_oneof![
        3 => any::<bool>().prop_map(|is_dtls| Op::Connect { is_dtls }),
        3 => (any::<bool>(), prop_oneof![Just(1400usize), Just(1199)]).prop_map(|(is_dtls, max_first)| Op::Initiate { is_dtls, max_first }),
        4 => any::<(bool, bool)>().prop_map(|(is_dtls, early)| Op::Respond { is_dtls, early }),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(session, first_flight)| Op::Proceed { session, first_flight }),
        1 => any::<(u8, bool)>().prop_map(|(session, sent)| Op::Cancel { session, sent }),
        2 => (any::<u8>(), 0..3u32, any::<bool>()).prop_map(|(session, code, orderly)| Op::Close { session, code, orderly }),
        2 => (0..4u8).prop_map(|remote| Op::Claim { remote }),
        1 => (0..4u8).prop_map(|remote| Op::Release { remote }),
        1 => (0..4u8).prop_map(|remote| Op::Dismiss { remote }),
        1 => (0..4u8, any::<bool>()).prop_map(|(remote, shared)| Op::Share { remote, shared }),
        1 => (0..4u8, garbage.clone()).prop_map(|(remote, data)| Op::SendRaw { remote, data }),
        1 => (0..4u8, any::<u8>()).prop_map(|(remote, seen)| Op::Inject { remote, seen }),
        2 => any::<u8>().prop_map(|session| Op::OpenStream { session }),
        2 => (any::<u8>(), stream.clone(), 0..200_000usize).prop_map(|(session, stream, size)| Op::Write { session, stream, size }),
        1 => (any::<u8>(), stream.clone()).prop_map(|(session, stream)| Op::Finish { session, stream }),
        1 => (any::<u8>(), stream.clone()).prop_map(|(session, stream)| Op::Reset { session, stream }),
        1 => (any::<u8>(), stream.clone()).prop_map(|(session, stream)| Op::Stop { session, stream }),
        1 => (any::<u8>(), stream, 0..200_000usize).prop_map(|(session, stream, bytes)| Op::Consumed { session, stream, bytes }),
        2 => (any::<u8>(), 0..2000usize).prop_map(|(session, size)| Op::Datagram { session, size }),
        1 => (0..2 * MAX_WAITING_BYTES, 0..2 * MAX_WAITING_RAW).prop_map(|(bytes, raw)| Op::Waiting { bytes, raw }),
        2 => Just(Op::Collect),
        1 => (0..8u8).prop_map(|it| if it == 0 { Op::Shutdown } else { Op::Collect }),
        4 => prop_oneof![0..50u64, 0..5_000u64, 0..60_000u64].prop_map(|milliseconds| Op::Tick { milliseconds }),
        6 => Just(Op::Settle),
        4 => any::<u8>().prop_map(|index| Op::Deliver { index }),
        1 => any::<u8>().prop_map(|index| Op::Drop { index }),
        2 => (any::<u8>(), 0..4u8).prop_map(|(seen, from)| Op::Replay { seen, from }),
        3 => (any::<u8>(), 0..4u8, any::<u16>(), any::<u8>()).prop_map(|(seen, from, at, value)| Op::Mutate { seen, from, at, value }),
        2 => (any::<u8>(), 0..4u8, any::<u16>()).prop_map(|(seen, from, length)| Op::Truncate { seen, from, length }),
        1 => any::<bool>().prop_map(|up| Op::Shield { up }),
        2 => (0..8u8).prop_map(|it| Op::Welcome { on: it > 0 }),
        3 => any::<bool>().prop_map(|is_dtls| Op::Arrive { is_dtls }),
        3 => (0..4u8, any::<Option<u8>>()).prop_map(|(from, seen)| Op::Propose { from, seen }),
        3 => (0..4u8, garbage).prop_map(|(from, data)| Op::Forge { from, data }),
    ]
}

fn answers() -> Answers {
    Answers {
        answers: vec![Answer {
            offer: OFFER.into(),
            response: ACCEPT.into(),
        }],
        own_id: Vec::new(),
    }
}

/// A proposal with this initiation packet.
fn propose(packet: &[u8]) -> Vec<u8> {
    let length = packet.len();
    let varint = [length as u8 | 0x80, (length >> 7) as u8];
    [PROPOSAL, &varint, packet].concat()
}

fn address(index: u8) -> SocketAddr {
    ADDRESSES[usize::from(index) % ADDRESSES.len()].into()
}

struct End {
    core: Core,
    index: usize,
    created: Vec<u32>,
    responders: HashSet<u32>,
    /// Whose flows JavaScript has asked for: only to these it may send what it likes.
    wanted: HashSet<SocketAddr>,
    /// From where a session's packets came, real ones perhaps: QUIC then sends there to see whether its remote has moved (RFC
    /// 9000, section 9), quinn more than it should (`docs/fuzzing.md`).
    moved: HashSet<SocketAddr>,
    /// The guest that JavaScript was told of last.
    last_guest: Option<u32>,
    /// Who was welcome: their sessions may begin without JavaScript.
    guests: HashSet<SocketAddr>,
    /// Bytes that came from, and went to, everybody.
    bytes: HashMap<SocketAddr, (usize, usize)>,
    heard: HashSet<(SocketAddr, Vec<u8>)>,
    ended: HashSet<u32>,
    is_down: bool,
}

impl End {
    fn new(index: usize) -> Self {
        Self {
            core: Core::new(false, false, Limits::default()),
            index,
            created: Vec::new(),
            responders: HashSet::new(),
            wanted: HashSet::new(),
            moved: HashSet::new(),
            last_guest: None,
            guests: HashSet::new(),
            bytes: HashMap::new(),
            heard: HashSet::new(),
            ended: HashSet::new(),
            is_down: false,
        }
    }

    fn identity(&self, is_dtls: bool) -> Identity {
        let own = &IDENTITIES[self.index];
        if is_dtls {
            Identity::Dtls(own.dtls.clone())
        } else {
            Identity::Quic(own.quic.clone())
        }
    }

    fn peer(&self) -> Peer {
        Peer {
            remote: address(1 - self.index as u8),
            local: None,
            max_udp_payload: 1452,
            max_probe_payload: 1452,
            guest: None,
        }
    }

    /// JavaScript never uses a number twice.
    fn next_session(&mut self) -> u32 {
        let id = self.created.len() as u32 + 1;
        self.created.push(id);
        id
    }

    fn session(&self, choice: u8) -> u32 {
        match self.created.len() {
            0 => 1,
            length => self.created[usize::from(choice) % length],
        }
    }

    fn hear(&mut self, now: Instant, remote: SocketAddr, data: &[u8]) {
        self.bytes.entry(remote).or_default().0 += data.len();
        self.heard.insert((remote, data.to_vec()));
        let origin = Origin {
            remote,
            local: None,
            ecn: None,
        };
        let (welcomed, _) = self.core.welcomed();
        self.core.handle_datagram(now, origin, BytesMut::from(data));
        if self.core.welcomed().0 > welcomed {
            self.guests.insert(remote);
        }
    }

    /// JavaScript hears of what has happened: only of what can have.
    fn collect(&mut self) {
        while let Some(batch) = self.core.events.pop() {
            for record in batch.records.chunks_exact(RECORD) {
                let (kind, session) = (record[0], record[1] as u32);
                if kind == f64::from(Kind::Notice as u8) {
                    self.notice(session, &batch.notices[record[2] as usize]);
                } else {
                    assert!(self.created.contains(&session));
                }
            }
        }
    }

    fn notice(&mut self, session: u32, notice: &Notice) {
        match notice {
            Notice::Raw {
                remote,
                data,
                answer,
                ..
            } => {
                assert!(self.heard.contains(&(*remote, data.clone())));
                if let Some((guest, _)) = answer {
                    self.last_guest = Some(*guest);
                }
            }
            Notice::Validated { proposal, data, .. } => {
                assert!(proposal.starts_with(PROPOSAL) && proposal.ends_with(data));
            }
            Notice::Secured { peer_id, .. } => {
                // Its own, if its packets are reflected to it: a peer that nobody has dialled or heard a proposal of.
                assert!(IDENTITIES.iter().any(|it| it.peer_id == *peer_id));
                assert!(!self.ended.contains(&session));
            }
            Notice::Closed { .. } => {
                assert!(self.created.contains(&session));
                assert!(self.ended.insert(session), "a session ends once");
            }
            _ => {}
        }
    }

    /// What comes with every input: events, then everything there is to send.
    fn advance(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut sent = Vec::new();
        let mut buf = Vec::new();
        self.core.process(now);
        while let Some(transmit) = self.core.poll_transmit(now, 4, &mut buf) {
            assert!(transmit.size <= buf.len() && transmit.size > 0);
            let size = transmit.segment_size.unwrap_or(transmit.size);
            for datagram in buf[..transmit.size].chunks(size) {
                self.count_sent(transmit.destination, datagram);
                sent.push((transmit.destination, datagram.to_vec()));
            }
            assert!(sent.len() < 10_000, "sending never ends");
        }
        self.core.begin_session(now);
        sent
    }

    fn count_sent(&mut self, destination: SocketAddr, datagram: &[u8]) {
        let (received, sent) = self.bytes.entry(destination).or_default();
        *sent += datagram.len();
        // quinn sends a whole datagram for the last byte that it may send.
        let overdraft = usize::from(self.guests.contains(&destination)) * 1452;
        assert!(
            self.wanted.contains(&destination)
                || self.moved.contains(&destination)
                || *sent <= MAX_AMPLIFICATION * *received + overdraft,
            "{sent} bytes to a stranger that sent {received}"
        );
    }

    fn check(&self) {
        let core = &self.core;
        assert!(core.strangers.len() <= MAX_STRANGERS);
        assert!(core.shielded_proposals() <= MAX_SHIELDED);
        let (welcomed, turned_away) = core.welcomed();
        assert!(turned_away <= welcomed && core.reception.len() <= ADDRESSES.len());
        assert!(core.events.raw() <= MAX_WAITING_RAW);
        assert!(core.responses.is_empty() && core.ready.is_empty() && core.is_ready.is_empty());
        let quic = core
            .sessions
            .values()
            .filter(|(it, _)| matches!(it, AnySession::Quic(_)));
        assert_eq!(core.by_handle.len(), quic.count());
        let dtls: usize = core.flows.values().map(|flow| flow.dtls.len()).sum();
        assert_eq!(core.by_handle.len() + dtls, core.sessions.len());
        assert_eq!(core.timeouts.len(), core.timeout_of.len());
        assert!(
            core.timeout_of
                .keys()
                .all(|id| core.sessions.contains_key(id))
        );
        assert!(core.starved.len() <= self.created.len());
        let (mut sessions, mut expecting) = (0, 0);
        for flow in core.flows.values() {
            sessions += flow.sessions;
            expecting += flow.expecting.len();
        }
        assert_eq!(sessions, core.sessions.len());
        assert!(core.claimed_ids.len() <= sessions + expecting);
        assert!(core.sessions.len() + expecting <= self.created.len() + welcomed as usize);
        let is_known = |remote| self.wanted.contains(remote) || self.guests.contains(remote);
        assert!(core.flows.keys().all(is_known));
    }
}

struct World {
    ends: [End; 2],
    now: Instant,
    /// Receiver, sender, datagram.
    under_way: VecDeque<(usize, SocketAddr, Vec<u8>)>,
    seen: VecDeque<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        Self {
            ends: [End::new(0), End::new(1)],
            now: Instant::now(),
            under_way: VecDeque::new(),
            seen: VecDeque::new(),
        }
    }

    fn step(&mut self, (at, op): Step) {
        match op {
            Op::Settle => self.settle(),
            Op::Tick { milliseconds } => self.tick(Duration::from_millis(milliseconds)),
            Op::Deliver { index } => {
                if let Some((to, from, data)) = self.take(index) {
                    self.hear(to, from, &data);
                }
            }
            Op::Drop { index } => {
                self.take(index);
            }
            Op::Replay { seen, from } => self.attack(at, seen, from, |_| {}),
            Op::Mutate {
                seen,
                from,
                at: position,
                value,
            } => self.attack(at, seen, from, |data| {
                let length = data.len();
                data[usize::from(position) % length] ^= value;
            }),
            Op::Truncate { seen, from, length } => self.attack(at, seen, from, |data| {
                data.truncate(usize::from(length) % data.len());
            }),
            Op::Forge { from, data } => self.hear(at, address(from), &data),
            Op::Shield { up } => self.shield(at, up),
            Op::Welcome { on } => self.welcome(at, on),
            Op::Arrive { is_dtls } => self.arrive(at, is_dtls),
            Op::Propose { from, seen: None } => self.hear(at, address(from), PROPOSAL),
            Op::Propose {
                from,
                seen: Some(seen),
            } => self.attack(at, seen, from, |packet| *packet = propose(packet)),
            Op::Collect => self.ends[at].collect(),
            Op::Waiting { bytes, raw } => self.ends[at].core.set_waiting(bytes, raw),
            Op::Initiate { is_dtls, max_first } => {
                self.initiate(at, is_dtls, max_first);
            }
            Op::Connect { is_dtls } => self.connect(at, is_dtls),
            op => self.command(at, op),
        }
        self.advance(at);
        self.ends.iter().for_each(End::check);
    }

    fn shield(&mut self, at: usize, up: bool) {
        let policy = Policy {
            answers: answers(),
            max_proposals: MAX_SHIELDED,
            max_proposals_per_prefix: 1,
            max_unprepared: 16,
            lifetime: Duration::from_secs(15),
        };
        let end = &mut self.ends[at];
        let command = Command::Shield(up.then(|| (IDENTITIES[at].quic.clone(), policy)));
        end.core.handle_command(self.now, command);
    }

    fn welcome(&mut self, at: usize, on: bool) {
        let welcome = on.then(|| Welcome {
            identity: IDENTITIES[at].quic.clone(),
            answers: answers(),
            max_udp_payload: 1452,
        });
        let end = &mut self.ends[at];
        if !end.is_down {
            end.core.handle_command(self.now, Command::Welcome(welcome));
        }
    }

    fn arrive(&mut self, at: usize, is_dtls: bool) {
        let from = address(1 - at as u8);
        let first_flight = self.initiate(1 - at, is_dtls, 1400);
        self.advance(1 - at);
        let [packet, rest @ ..] = &first_flight[..] else {
            return;
        };
        self.hear(at, from, &propose(packet));
        for datagram in rest {
            self.hear(at, from, datagram);
        }
        self.remember(packet.clone());
        let early = true;
        self.command(at, Op::Respond { is_dtls, early });
    }

    fn connect(&mut self, at: usize, is_dtls: bool) {
        let early = false;
        self.command(1 - at, Op::Respond { is_dtls, early });
        self.advance(1 - at);
        self.initiate(at, is_dtls, 1400);
        let session = self.ends[at].created.len().saturating_sub(1) as u8;
        let first_flight = true;
        self.command(
            at,
            Op::Proceed {
                session,
                first_flight,
            },
        );
        self.advance(at);
        self.settle();
    }

    fn initiate(&mut self, at: usize, is_dtls: bool, max_first: usize) -> Vec<Vec<u8>> {
        let now = self.now;
        let end = &mut self.ends[at];
        if end.is_down {
            return Vec::new();
        }
        let (id, identity, peer) = (end.next_session(), end.identity(is_dtls), end.peer());
        end.wanted.insert(peer.remote);
        let first_flight = end.core.initiate(now, id, identity, peer, max_first);
        let first_flight = first_flight.unwrap();
        for datagram in &first_flight {
            assert!(datagram.len() <= 1452);
            self.remember(datagram.clone());
        }
        first_flight
    }

    fn command(&mut self, at: usize, op: Op) {
        let early = self.seen.back().cloned();
        let end = &mut self.ends[at];
        if end.is_down {
            return;
        }
        let command = match op {
            Op::Respond {
                is_dtls,
                early: has_early,
            } => {
                let (session, identity, mut peer) =
                    (end.next_session(), end.identity(is_dtls), end.peer());
                peer.guest = end.last_guest.take();
                end.wanted.insert(peer.remote);
                end.responders.insert(session);
                Command::Respond {
                    session,
                    identity,
                    peer,
                    early: early.filter(|_| has_early).into_iter().collect(),
                    claimed_id: (!has_early).then(|| IDENTITIES[1 - at].peer_id.clone()),
                    validate_address: false,
                }
            }
            Op::Proceed {
                session,
                first_flight,
            } => {
                let session = end.session(session);
                // a responder has nothing to proceed with
                if end.responders.contains(&session) {
                    return;
                }
                Command::Proceed {
                    session,
                    sent: !first_flight,
                    send_first_flight: first_flight,
                    early: Vec::new(),
                }
            }
            Op::Cancel { session, sent } => {
                let session = end.session(session);
                if end.responders.contains(&session) {
                    return;
                }
                Command::Cancel { session, sent }
            }
            Op::Close {
                session,
                code,
                orderly,
            } => Command::Close {
                session: end.session(session),
                code,
                orderly,
            },
            Op::Claim { remote } => {
                end.wanted.insert(address(remote));
                Command::Claim {
                    remote: address(remote),
                }
            }
            Op::Dismiss { remote } => Command::Dismiss {
                remote: address(remote),
                guest: end.last_guest.unwrap_or(0),
            },
            Op::Release { remote } => Command::Release {
                remote: address(remote),
            },
            Op::Share { remote, shared } => Command::Share {
                remote: address(remote),
                shared,
            },
            Op::SendRaw { remote, data } => {
                end.wanted.insert(address(remote));
                if data.is_empty() {
                    return;
                }
                Command::SendRaw {
                    remote: address(remote),
                    local: None,
                    data,
                }
            }
            Op::Inject { remote, seen } => {
                let Some(data) = self.seen.get(usize::from(seen) % MAX_SEEN).cloned() else {
                    return;
                };
                end.heard.insert((address(remote), data.clone()));
                end.moved.insert(address(remote));
                end.bytes.entry(address(remote)).or_default().0 += data.len();
                Command::Inject {
                    remote: address(remote),
                    data,
                }
            }
            Op::OpenStream { session } => Command::OpenStream {
                session: end.session(session),
                token: 1,
            },
            Op::Write {
                session,
                stream,
                size,
            } => Command::Write {
                session: end.session(session),
                stream,
                data: Bytes::from(vec![7; size]),
            },
            Op::Finish { session, stream } => Command::Finish {
                session: end.session(session),
                stream,
            },
            Op::Reset { session, stream } => Command::Reset {
                session: end.session(session),
                stream,
            },
            Op::Stop { session, stream } => Command::Stop {
                session: end.session(session),
                stream,
            },
            Op::Consumed {
                session,
                stream,
                bytes,
            } => Command::Consumed {
                session: end.session(session),
                stream,
                bytes,
            },
            Op::Datagram { session, size } => Command::Datagram {
                session: end.session(session),
                payload: Bytes::from(vec![9; size]),
            },
            Op::Shutdown => {
                end.is_down = true;
                Command::Shutdown
            }
            _ => unreachable!("not a command"),
        };
        end.core.handle_command(self.now, command);
    }

    /// The attacker sends what it has seen, changed or not, under any address.
    fn attack(&mut self, to: usize, seen: u8, from: u8, change: impl FnOnce(&mut Vec<u8>)) {
        let index = usize::from(seen) % MAX_SEEN;
        let Some(mut data) = self.seen.get(index).cloned() else {
            return;
        };
        change(&mut data);
        self.ends[to].moved.insert(address(from));
        self.hear(to, address(from), &data);
    }

    fn hear(&mut self, to: usize, from: SocketAddr, data: &[u8]) {
        self.ends[to].hear(self.now, from, data);
        self.advance(to);
    }

    fn take(&mut self, index: u8) -> Option<(usize, SocketAddr, Vec<u8>)> {
        let length = self.under_way.len();
        if length == 0 {
            return None;
        }
        self.under_way.remove(usize::from(index) % length)
    }

    fn remember(&mut self, datagram: Vec<u8>) {
        if datagram.is_empty() {
            return;
        }
        self.seen.push_back(datagram);
        if self.seen.len() > MAX_SEEN {
            self.seen.pop_front();
        }
    }

    fn advance(&mut self, at: usize) {
        for (destination, datagram) in self.ends[at].advance(self.now) {
            self.remember(datagram.clone());
            let to = 1 - at;
            if destination == address(to as u8) {
                self.under_way.push_back((to, address(at as u8), datagram));
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..500 {
            let Some((to, from, data)) = self.under_way.pop_front() else {
                return;
            };
            self.hear(to, from, &data);
        }
    }

    fn tick(&mut self, time: Duration) {
        let end = self.now + time;
        let mut wakings = 0;
        while let Some(next) = self.next_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            for at in 0..2 {
                self.ends[at].core.handle_timeout(self.now);
                self.advance(at);
            }
            wakings += 1;
            assert!(wakings < 20_000, "waking never ends");
        }
        self.now = end;
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.ends
            .iter()
            .filter_map(|end| end.core.poll_timeout())
            .min()
    }

    /// Everybody goes: nothing may be left.
    fn end(mut self) {
        for at in 0..2 {
            self.ends[at].core.set_waiting(0, 0);
            self.shield(at, false);
            self.welcome(at, false);
            self.ends[at].collect();
            for session in self.ends[at].created.clone() {
                let command = Command::Close {
                    session,
                    code: 0,
                    orderly: false,
                };
                self.ends[at].core.handle_command(self.now, command);
            }
            for remote in 0..ADDRESSES.len() as u8 {
                let command = Command::Release {
                    remote: address(remote),
                };
                self.ends[at].core.handle_command(self.now, command);
            }
            self.advance(at);
        }
        self.under_way.clear();
        self.tick(THE_END);
        for end in &mut self.ends {
            end.collect();
            let core = &mut end.core;
            core.ahead.end(&mut core.endpoint);
            let left: Vec<u32> = core.sessions.keys().copied().collect();
            assert!(
                left.is_empty(),
                "sessions {left:?} of {} are left",
                end.created.len()
            );
            assert_eq!(core.endpoint.open_connections(), 0);
            assert!(core.by_handle.is_empty() && core.flows.is_empty());
            assert!(core.timeouts.is_empty() && core.timeout_of.is_empty());
            assert!(core.events.is_empty() && core.shielded_proposals() == 0);
            assert_eq!(core.reception.len(), 0);
            assert_eq!(end.ended.len(), end.created.len(), "every session ends");
        }
    }
}

proptest! {
    #[test]
    fn any_order_of_events_leaves_the_port_sound(steps in vec((0..2usize, op()), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.end();
    }
}

/// JavaScript responds to a guest while the end that the guest seemed to be is down.
#[test]
fn a_guest_that_is_responded_to_by_an_end_whose_other_is_down() {
    let steps = [
        (0, Op::Shutdown),
        (1, Op::Connect { is_dtls: false }),
        (1, Op::Welcome { on: true }),
        (
            1,
            Op::Propose {
                from: 0,
                seen: Some(0),
            },
        ),
        (0, Op::Connect { is_dtls: false }),
    ];
    let mut world = World::new();
    for step in steps {
        world.step(step);
    }
    world.end();
}
