//! Two ports and a network between them, in virtual time.

use std::time::Duration;

use bytes::Bytes;

mod ahead;
mod ahead_moves;
mod path;
mod reception;
mod shield;

use self::shield::ACCEPT;
use super::*;
use crate::dtls::{DtlsIdentity, DtlsSettings};
use crate::events::{Batch, Kind, RECORD};
use crate::identity::{QuicIdentity, QuicSettings};
use crate::tls::{OwnCertificate, own_certificate};

const A: ([u8; 4], u16) = ([10, 0, 0, 1], 4001);
const B: ([u8; 4], u16) = ([10, 0, 0, 2], 4002);

/// How many bytes of a stream JavaScript takes at a time.
const STREAM_QUEUE: usize = 512 * 1024;

const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scheme {
    Quic,
    Dtls,
}

pub fn quic_settings() -> QuicSettings {
    QuicSettings {
        idle_timeout: Duration::from_secs(30),
        keep_alive: KEEP_ALIVE,
        max_streams: 4,
        stream_receive_window: 1 << 20,
        receive_window: 1 << 22,
        send_window: 1 << 22,
        datagram_receive_buffer: 1 << 16,
        datagram_send_buffer: 1 << 16,
        stream_receive_queue: STREAM_QUEUE,
        post_quantum: true,
    }
}

fn dtls_settings() -> DtlsSettings {
    DtlsSettings {
        idle_timeout: Duration::from_secs(30),
        keep_alive: KEEP_ALIVE,
        max_streams: 4,
        stream_receive_window: 1 << 20,
        receive_window: 1 << 22,
        send_window: 1 << 22,
        datagram_receive_buffer: 1 << 16,
        datagram_send_buffer: 1 << 16,
        stream_receive_queue: STREAM_QUEUE,
        max_packet_size: 1232,
        allow_dtls12: false,
    }
}

impl Scheme {
    /// Of a peer that shows this certificate, be it its own or not.
    fn identity(self, own: OwnCertificate) -> Identity {
        self.identity_kept_alive(own, KEEP_ALIVE)
    }

    fn identity_kept_alive(self, own: OwnCertificate, keep_alive: Duration) -> Identity {
        match self {
            Self::Quic => {
                let settings = QuicSettings {
                    keep_alive,
                    ..quic_settings()
                };
                let identity = QuicIdentity::with_certificate(own, settings);
                Identity::Quic(Arc::new(identity.unwrap()))
            }
            Self::Dtls => {
                let settings = DtlsSettings {
                    keep_alive,
                    ..dtls_settings()
                };
                let identity = DtlsIdentity::with_certificate(own, settings);
                Identity::Dtls(Arc::new(identity.unwrap()))
            }
        }
    }
}

/// Tests that every scheme of the engine has to pass.
macro_rules! for_every_scheme {
    ($($name:ident)*) => {
        mod quic {
            use super::*;
            $(#[test]
            fn $name() {
                super::$name(Net::of(Scheme::Quic));
            })*
        }
        mod quic_begun_ahead {
            use super::*;
            $(#[test]
            fn $name() {
                super::$name(Net::begun_ahead());
            })*
        }
        mod dtls {
            use super::*;
            $(#[test]
            fn $name() {
                super::$name(Net::of(Scheme::Dtls));
            })*
        }
    };
}

mod security;

/// One end: a core, its address, and everything it has said.
struct End {
    core: Core,
    address: SocketAddr,
    scheme: Scheme,
    identity: Identity,
    peer_id: Vec<u8>,
    batches: Vec<Batch>,
}

impl End {
    fn new(scheme: Scheme, address: ([u8; 4], u16)) -> Self {
        let keypair = libp2p_identity::Keypair::generate_ed25519();
        let own = own_certificate(&keypair).unwrap();
        Self {
            core: Core::new(false, false, Limits::default()),
            address: address.into(),
            scheme,
            identity: scheme.identity(own),
            peer_id: keypair.public().to_peer_id().to_bytes(),
            batches: Vec::new(),
        }
    }

    /// This end as the other one sees it.
    fn as_peer(&self) -> Peer {
        Peer {
            remote: self.address,
            local: None,
            max_udp_payload: 1452,
            max_probe_payload: 65_487,
            guest: None,
        }
    }

    /// A datagram arrives.
    fn hear(&mut self, now: Instant, remote: SocketAddr, datagram: &[u8]) {
        let origin = Origin {
            remote,
            local: None,
            ecn: None,
        };
        self.core
            .handle_datagram(now, origin, BytesMut::from(datagram));
    }

    fn close(&mut self, now: Instant, session: u32, code: u32, orderly: bool) {
        let command = Command::Close {
            session,
            code,
            orderly,
        };
        self.core.handle_command(now, command);
    }

    fn finish(&mut self, now: Instant, session: u32, stream: u64) {
        self.core
            .handle_command(now, Command::Finish { session, stream });
    }

    fn collect(&mut self) {
        while let Some(batch) = self.core.events.pop() {
            self.batches.push(batch);
        }
    }

    fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.batches.iter().flat_map(|batch| &batch.notices)
    }

    fn raw(&self) -> Vec<&[u8]> {
        self.notices()
            .filter_map(|notice| match notice {
                Notice::Raw { data, .. } => Some(&data[..]),
                _ => None,
            })
            .collect()
    }

    fn secured_peer(&self) -> Option<&[u8]> {
        self.notices().find_map(|notice| match notice {
            Notice::Secured { peer_id, .. } => Some(&peer_id[..]),
            _ => None,
        })
    }

    /// The local certificate's public key, and the remote's.
    fn certificate_keys(&self) -> Option<(&[u8], &[u8])> {
        self.notices().find_map(|notice| match notice {
            Notice::Secured {
                local_key,
                remote_key,
                ..
            } => Some((&local_key[..], &remote_key[..])),
            _ => None,
        })
    }

    fn closed(&self) -> Option<CloseCause> {
        self.notices().find_map(|notice| match notice {
            Notice::Closed { cause, .. } => Some(*cause),
            _ => None,
        })
    }

    fn records(&self, kind: Kind) -> Vec<[u64; 3]> {
        self.batches
            .iter()
            .flat_map(|batch| batch.records.chunks_exact(RECORD))
            .filter(|record| record[0] == f64::from(kind as u8))
            .map(|record| [record[2] as u64, record[3] as u64, record[4] as u64])
            .collect()
    }

    fn stream_bytes(&self, stream: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for batch in &self.batches {
            for record in batch.records.chunks_exact(RECORD) {
                if record[0] == f64::from(Kind::StreamData as u8) && record[2] == stream as f64 {
                    let (offset, length) = (record[3] as usize, record[4] as usize);
                    bytes.extend_from_slice(&batch.data[offset..offset + length]);
                }
            }
        }
        bytes
    }
}

/// Knows a datagram by its number, counted over both directions.
type Change = Box<dyn FnMut(usize, &mut Vec<u8>)>;

struct Net {
    a: End,
    b: End,
    now: Instant,
    first_flight: Vec<Vec<u8>>,
    /// Datagrams seen on the wire, by sender.
    sent: Vec<(SocketAddr, Vec<u8>)>,
    /// Which datagrams (counted over both directions) vanish.
    lose: fn(usize) -> bool,
    /// What becomes of them on their way.
    change: Change,
    /// Whether each is followed by all that its sender has sent before.
    repeat: bool,
}

impl Net {
    fn new() -> Self {
        Self::of(Scheme::Quic)
    }

    fn of(scheme: Scheme) -> Self {
        Self {
            a: End::new(scheme, A),
            b: End::new(scheme, B),
            now: Instant::now(),
            first_flight: Vec::new(),
            sent: Vec::new(),
            lose: |_| false,
            change: Box::new(|_, _| {}),
            repeat: false,
        }
    }

    /// A has a connection of QUIC for its next dial.
    fn begun_ahead() -> Self {
        let mut net = Self::of(Scheme::Quic);
        net.begin_ahead(true);
        net
    }

    /// One end gives up a dial to somebody else.
    fn begin_ahead(&mut self, is_a: bool) {
        let (now, session, sent) = (self.now, 99, false);
        let peer = Peer {
            remote: ([10, 0, 0, 99], 1).into(),
            ..self.a.as_peer()
        };
        let end = self.end(is_a);
        let identity = end.identity.clone();
        end.core
            .initiate(now, session, identity, peer, 1400)
            .unwrap();
        end.core
            .handle_command(now, Command::Cancel { session, sent });
        self.run(Duration::from_secs(60));
        assert!(self.sent.is_empty());
        let end = self.end(is_a);
        assert!(end.core.sessions.is_empty());
        end.batches.clear();
    }

    fn end(&mut self, is_initiator: bool) -> &mut End {
        if is_initiator {
            &mut self.a
        } else {
            &mut self.b
        }
    }

    fn deliver_all(&mut self) {
        loop {
            let mut quiet = true;
            for from_a in [true, false] {
                let (from, to) = if from_a {
                    (&mut self.a, &mut self.b)
                } else {
                    (&mut self.b, &mut self.a)
                };
                let mut buf = Vec::new();
                while let Some(transmit) = from.core.poll_transmit(self.now, 4, &mut buf) {
                    quiet = false;
                    assert!(transmit.destination.is_ipv4(), "nobody else is known here");
                    let size = transmit.segment_size.unwrap_or(transmit.size);
                    for datagram in buf[..transmit.size].chunks(size) {
                        let number = self.sent.len();
                        self.sent.push((from.address, datagram.to_vec()));
                        if (self.lose)(number) || transmit.destination != to.address {
                            continue;
                        }
                        let remote: SocketAddr = from.address;
                        let mut datagram = datagram.to_vec();
                        (self.change)(number, &mut datagram);
                        to.hear(self.now, remote, &datagram);
                        let earlier = self.sent.iter().filter(|_| self.repeat);
                        for (_, datagram) in earlier.filter(|(sender, _)| *sender == remote) {
                            to.hear(self.now, remote, datagram);
                        }
                    }
                }
                from.collect();
            }
            self.b.collect();
            if quiet {
                return;
            }
        }
    }

    /// Let time pass until nothing is due any more within `limit`.
    fn run(&mut self, limit: Duration) {
        let end = self.now + limit;
        self.deliver_all();
        let mut wakings = 0;
        loop {
            wakings += 1;
            assert!(wakings < 100_000, "waking never ends");
            let next = [self.a.core.poll_timeout(), self.b.core.poll_timeout()]
                .into_iter()
                .flatten()
                .min();
            match next {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => break,
            }
            self.a.core.handle_timeout(self.now);
            self.b.core.handle_timeout(self.now);
            self.deliver_all();
        }
        self.now = end;
    }

    fn initiate(&mut self, max_first_datagram: usize) {
        let (identity, peer) = (self.a.identity.clone(), self.b.as_peer());
        self.first_flight = self
            .a
            .core
            .initiate(self.now, 1, identity, peer, max_first_datagram)
            .unwrap();
    }

    fn proceed(&mut self, send_first_flight: bool) {
        self.proceed_with(!send_first_flight, send_first_flight);
    }

    fn proceed_with(&mut self, sent: bool, send_first_flight: bool) {
        let command = Command::Proceed {
            session: 1,
            sent,
            send_first_flight,
            early: Vec::new(),
        };
        self.a.core.handle_command(self.now, command);
    }

    fn respond(&mut self, early: Vec<Vec<u8>>) {
        let command = Command::Respond {
            session: 9,
            identity: self.b.identity.clone(),
            peer: self.a.as_peer(),
            early,
            claimed_id: None,
            validate_address: false,
        };
        self.b.core.handle_command(self.now, command);
    }

    /// Both sides agreed, and the responder has the first flight.
    fn attempt(&mut self) {
        self.initiate(1400);
        let early = self.first_flight.clone();
        self.respond(early);
        self.proceed(false);
        self.run(Duration::from_secs(5));
    }

    /// Another session beside the one that is secured.
    fn secure_another(&mut self, is_from_a: bool, identities: [Identity; 2]) {
        let [theirs, ours] = identities;
        let now = self.now;
        let (dialler, listener) = if is_from_a {
            (&mut self.a, &mut self.b)
        } else {
            (&mut self.b, &mut self.a)
        };
        let first_flight = dialler
            .core
            .initiate(now, 20, theirs, listener.as_peer(), 1400);
        let respond = Command::Respond {
            session: 21,
            identity: ours,
            peer: dialler.as_peer(),
            early: first_flight.unwrap(),
            claimed_id: None,
            validate_address: false,
        };
        listener.core.handle_command(now, respond);
        let proceed = Command::Proceed {
            session: 20,
            sent: true,
            send_first_flight: false,
            early: Vec::new(),
        };
        dialler.core.handle_command(now, proceed);
        self.run(Duration::from_secs(5));
        for end in [&self.a, &self.b] {
            let is_secured = |notice: &&Notice| matches!(notice, Notice::Secured { .. });
            assert_eq!(end.notices().filter(is_secured).count(), 2);
        }
    }

    fn secure(&mut self) {
        self.attempt();
        assert!(self.a.secured_peer().is_some() && self.b.secured_peer().is_some());
    }
}

#[test]
fn a_library_of_dtls_that_panics_ends_its_session_and_the_port_goes_on() {
    for is_secured in [false, true] {
        let mut net = Net::of(Scheme::Dtls);
        if is_secured {
            net.secure();
        } else {
            net.initiate(1400);
            net.respond(net.first_flight.clone());
        }
        let Some((AnySession::Dtls(session), _)) = net.b.core.sessions.get_mut(&9) else {
            panic!("there is no session of DTLS");
        };
        session.break_it();
        net.b.hear(net.now, A.into(), &[22; 100]);
        net.run(Duration::from_millis(1));
        assert_eq!(net.b.closed(), Some(CloseCause::Failed));

        net.run(Duration::from_secs(60));
        assert!(net.b.core.sessions.is_empty());
        net.a = End::new(Scheme::Dtls, A);
        net.b.batches.clear();
        net.secure();
    }
}

#[test]
fn a_client_of_dtls_proves_its_address_before_it_gets_more_than_it_sent() {
    let mut net = Net::of(Scheme::Dtls);
    net.initiate(1400);
    let command = Command::Respond {
        session: 9,
        identity: net.b.identity.clone(),
        peer: net.a.as_peer(),
        early: net.first_flight.clone(),
        claimed_id: None,
        validate_address: true,
    };
    net.b.core.handle_command(net.now, command);
    net.proceed(false);
    net.run(Duration::from_secs(5));
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());

    let before: Vec<_> = net
        .sent
        .iter()
        .take_while(|(from, _)| *from == B.into())
        .collect();
    let [(_, only)] = before[..] else {
        panic!("one HelloRetryRequest comes first");
    };
    assert!(only.len() < net.first_flight[0].len());
}

#[test]
fn a_client_of_dtls_whose_hello_is_small_is_asked_for_a_cookie_at_once() {
    for allow_dtls12 in [false, true] {
        let mut net = Net::of(Scheme::Dtls);
        let keypair = libp2p_identity::Keypair::generate_ed25519();
        let settings = DtlsSettings {
            max_packet_size: 250,
            allow_dtls12,
            ..dtls_settings()
        };
        let identity = DtlsIdentity::with_certificate(own_certificate(&keypair).unwrap(), settings);
        net.a.identity = Identity::Dtls(Arc::new(identity.unwrap()));
        net.initiate(1400);
        net.respond(net.first_flight.clone());
        net.proceed(false);
        // no flight was sent again
        net.run(Duration::from_millis(100));
        assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
    }
}

#[test]
fn an_initiator_that_offers_classical_key_exchanges_alone_says_less_and_gets_through() {
    let mut net = Net::new();
    let settings = QuicSettings {
        post_quantum: false,
        ..quic_settings()
    };
    let own = own_certificate(&libp2p_identity::Keypair::generate_ed25519()).unwrap();
    let identity = QuicIdentity::with_certificate(own, settings).unwrap();
    net.a.identity = Identity::Quic(Arc::new(identity));
    net.secure();
    assert_eq!(net.first_flight.len(), 1);
}

#[test]
fn an_initiator_sends_nothing_before_the_agreement() {
    let mut net = Net::new();
    net.initiate(1400);
    net.run(Duration::from_secs(10));
    assert!(net.sent.is_empty());
    assert!(net.first_flight.iter().all(|it| it.len() == 1200));
}

/// Let one end say what it has to say, to nobody.
fn said_by(end: &mut End, now: Instant) -> Vec<Vec<u8>> {
    let mut said = Vec::new();
    let mut buf = Vec::new();
    while let Some(transmit) = end.core.poll_transmit(now, 1, &mut buf) {
        said.push(buf[..transmit.size].to_vec());
    }
    end.collect();
    said
}

fn a_responder_that_closes_before_its_handshake_is_done_tells_the_initiator(mut net: Net) {
    net.initiate(1400);
    let early = net.first_flight.clone();
    net.respond(early);
    net.proceed(false);
    for datagram in said_by(&mut net.b, net.now) {
        net.a.hear(net.now, B.into(), &datagram);
    }
    let last_flight = said_by(&mut net.a, net.now);
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_none());

    net.b.close(net.now, 9, 1, false);
    let release = Command::Release { remote: A.into() };
    net.b.core.handle_command(net.now, release);
    net.b.core.handle_command(net.now, Command::Shutdown);
    assert_eq!(net.b.core.is_closed(), net.b.scheme == Scheme::Quic);
    for datagram in last_flight {
        net.b.hear(net.now, A.into(), &datagram);
    }
    net.run(Duration::from_millis(100));
    assert!(net.b.core.is_closed());
    assert!(net.a.closed().is_some());
    assert_eq!(net.b.closed(), Some(CloseCause::Local));
}

fn a_port_does_not_wait_for_ever_for_an_initiator_that_says_nothing(mut net: Net) {
    net.initiate(1400);
    let early = net.first_flight.clone();
    net.respond(early);
    said_by(&mut net.b, net.now);
    net.b.core.handle_command(net.now, Command::Shutdown);
    net.b.core.handle_timeout(net.now + PARTING_TIME);
    assert!(net.b.core.is_closed());
}

fn a_cancelled_initiator_never_sends_anything(mut net: Net) {
    net.initiate(1400);
    net.a.close(net.now, 1, 0, false);
    net.run(Duration::from_secs(60));
    assert!(net.sent.is_empty());
    assert_eq!(net.a.closed(), Some(CloseCause::Local));
    assert!(net.a.core.sessions.is_empty() && net.a.core.flows.is_empty());
}

/// JavaScript at A has a socket for B.
fn dialling() -> Net {
    let mut net = Net::new();
    let claim = Command::Claim { remote: B.into() };
    net.a.core.handle_command(net.now, claim);
    net
}

#[test]
fn an_initiator_that_is_refused_before_the_agreement_leaves_nothing_behind() {
    let mut net = dialling();
    net.initiate(1400);
    let early = net.first_flight.clone();
    net.respond(early);
    net.b.close(net.now, 9, 0, false);
    net.run(Duration::from_secs(60));
    assert_eq!(net.a.closed(), Some(CloseCause::Failed));
    assert!(net.sent.iter().all(|(from, _)| *from == B.into()));

    let release = Command::Release { remote: B.into() };
    net.a.core.handle_command(net.now, release);
    assert!(net.a.core.sessions.is_empty() && net.a.core.flows.is_empty());
}

#[test]
fn javascript_hears_at_once_what_the_remote_says_of_a_dial() {
    let mut net = dialling();
    net.a.hear(net.now, B.into(), ACCEPT);
    assert!(!net.a.core.take_dial_answered(), "there is no dial");

    net.initiate(1400);
    assert!(!net.a.core.take_dial_answered());
    net.a.hear(net.now, B.into(), ACCEPT);
    assert!(net.a.core.take_dial_answered());
    assert!(!net.a.core.take_dial_answered());
}

#[test]
fn what_the_remote_says_of_a_dial_waits_for_the_goodbye_of_one_that_has_ended() {
    let mut net = dialling();
    net.initiate(1400);
    net.a.close(net.now, 1, 0, false);
    let (identity, peer) = (net.a.identity.clone(), net.b.as_peer());
    net.a
        .core
        .initiate(net.now, 2, identity, peer, 1400)
        .unwrap();
    net.a.hear(net.now, B.into(), ACCEPT);
    assert!(net.a.core.events.holds_end());
    assert!(!net.a.core.take_dial_answered());
}

fn a_waiting_responder_outlives_another_session_of_its_flow(mut net: Net) {
    net.initiate(1400);
    let command = Command::Respond {
        session: 2,
        identity: net.a.identity.clone(),
        peer: net.b.as_peer(),
        early: Vec::new(),
        claimed_id: None,
        validate_address: false,
    };
    net.a.core.handle_command(net.now, command);
    net.a.close(net.now, 1, 0, false);
    net.run(Duration::from_secs(60));
    assert!(net.a.core.sessions.is_empty() && net.a.core.flows.len() == 1);

    net.a.close(net.now, 2, 0, false);
    net.a.collect();
    let ends = net
        .a
        .notices()
        .filter(|it| matches!(it, Notice::Closed { .. }));
    assert_eq!(ends.count(), 2);
    assert!(net.a.core.flows.is_empty());
}

#[test]
fn a_first_datagram_over_the_limit_is_no_initiation_packet() {
    let mut net = Net::new();
    net.initiate(1199);
    assert!(net.first_flight.is_empty());
}

fn both_sides_learn_who_the_other_is(mut net: Net) {
    net.secure();
    assert_eq!(net.a.secured_peer(), Some(&net.b.peer_id[..]));
    assert_eq!(net.b.secured_peer(), Some(&net.a.peer_id[..]));

    let (alices, bobs) = net.a.certificate_keys().unwrap();
    assert_eq!(net.b.certificate_keys(), Some((bobs, alices)));
    assert_ne!(alices, bobs);
}

fn an_answer_that_overtakes_the_accept_is_taken_while_javascript_reads_that(mut net: Net) {
    let claim = Command::Claim { remote: B.into() };
    net.a.core.handle_command(net.now, claim);
    net.initiate(1400);
    let early = net.first_flight.clone();
    net.respond(early);
    net.deliver_all();
    assert!(net.a.secured_peer().is_some());
    assert!(net.sent.iter().all(|(from, _)| *from == B.into()));
    net.proceed(false);
    // Without anything sent again: no time passes.
    net.deliver_all();
    assert!(net.b.secured_peer().is_some());
}

fn a_handshake_outlives_the_answer_to_one_that_was_given_up(mut net: Net) {
    net.initiate(1400);
    let early = net.first_flight.clone();
    respond_at_b(&mut net, 9, early);
    restart_a(&mut net);
    net.initiate(1400);
    let early = net.first_flight.clone();
    respond_at_b(&mut net, 10, early);
    net.proceed(false);
    // What was meant for the last comes first, and no time passes.
    net.deliver_all();
    assert!(net.a.secured_peer().is_some());
    assert_eq!(secured_at_b(&net), 1);
}

#[test]
fn a_goodbye_that_is_late_does_not_begin_the_next_dials_session() {
    let mut net = Net::new();
    net.initiate(1400);
    net.proceed(false);
    net.a.close(net.now, 1, 1, false);
    let goodbye = said_by(&mut net.a, net.now);
    assert_eq!(goodbye.len(), 1);

    restart_a(&mut net);
    net.initiate(1400);
    net.proceed(true);
    respond_at_b(&mut net, 9, goodbye.clone());
    net.b.hear(net.now, A.into(), &goodbye[0]);
    assert!(net.b.core.sessions.is_empty());
    assert_eq!(net.b.core.endpoint.open_connections(), 0);
    net.deliver_all();
    assert!(net.a.secured_peer().is_some());
    assert_eq!(secured_at_b(&net), 1);
}

fn cancel_at_a(net: &mut Net, sent: bool) {
    let command = Command::Cancel { session: 1, sent };
    net.a.core.handle_command(net.now, command);
}

#[test]
fn a_cancelled_initiator_says_goodbye_if_its_first_flight_was_sent() {
    let mut net = Net::new();
    net.initiate(1400);
    let early = net.first_flight.clone();
    net.respond(early);
    cancel_at_a(&mut net, true);
    net.deliver_all();
    assert_eq!(net.b.closed(), Some(CloseCause::Failed));
    net.run(Duration::from_secs(60));
    assert!(net.a.core.sessions.is_empty() && net.b.core.sessions.is_empty());
}

#[test]
fn a_cancelled_initiator_says_goodbye_although_the_responder_lacks_the_rest_of_its_first_flight() {
    let mut net = Net::new();
    net.initiate(1400);
    let [first, _] = &net.first_flight[..] else {
        panic!("it takes two datagrams");
    };
    let early = vec![first.clone()];
    net.respond(early);
    net.deliver_all();
    cancel_at_a(&mut net, true);
    net.deliver_all();
    assert_eq!(net.b.closed(), Some(CloseCause::Failed));
}

#[test]
fn a_cancelled_initiator_says_nothing_if_its_first_flight_was_not_sent() {
    let mut net = Net::new();
    net.initiate(1400);
    cancel_at_a(&mut net, false);
    net.run(Duration::from_secs(60));
    assert!(net.sent.is_empty());
    assert!(net.a.core.sessions.is_empty() && net.a.core.flows.is_empty());
}

fn an_initiator_that_ends_before_its_first_flight_has_left_says_nothing(mut net: Net) {
    net.initiate(1400);
    net.proceed(true);
    net.a.close(net.now, 1, 1, false);
    net.run(Duration::from_secs(60));
    assert!(net.sent.is_empty());
    assert!(net.a.core.sessions.is_empty() && net.a.core.flows.is_empty());
}

#[test]
fn an_initiator_that_ends_before_its_first_flight_has_left_again_says_goodbye() {
    let mut net = Net::new();
    net.initiate(1400);
    net.respond(net.first_flight.clone());
    net.proceed_with(true, true);
    net.a.close(net.now, 1, 1, false);
    net.deliver_all();
    assert_eq!(net.b.closed(), Some(CloseCause::Failed));
    let (from_a, _): (Vec<_>, Vec<_>) = net.sent.iter().partition(|(from, _)| *from == A.into());
    assert_eq!(from_a.len(), 1);
}

#[test]
fn a_goodbye_leaves_before_what_javascript_sends_next() {
    // Whoever's turn it was.
    for polls in 0..2 {
        let mut net = Net::new();
        net.initiate(1400);
        net.proceed(true);
        let first_flight = said_by(&mut net.a, net.now);
        for _ in 0..polls {
            assert!(said_by(&mut net.a, net.now).is_empty());
        }
        net.a.close(net.now, 1, 1, false);
        let next = Command::SendRaw {
            remote: B.into(),
            local: None,
            data: vec![0; 60],
        };
        net.a.core.handle_command(net.now, next);
        let said = said_by(&mut net.a, net.now);
        let connection_id = |datagram: &[u8]| datagram[6..14].to_vec();
        assert_eq!(connection_id(&said[0]), connection_id(&first_flight[0]));
        assert_eq!(said[1..], [[0; 60]]);
    }
}

fn a_remote_can_begin_afresh_while_its_last_session_drains(mut net: Net) {
    net.secure();
    net.b.close(net.now, 9, 0, false);
    net.b
        .core
        .handle_command(net.now, Command::Release { remote: A.into() });
    net.deliver_all();
    assert!(!net.b.core.sessions.is_empty());

    let remote: SocketAddr = A.into();
    for datagram in [&[0, 5][..], &[200; 1200]] {
        net.b.hear(net.now, remote, datagram);
    }
    net.b.collect();
    assert_eq!(net.b.raw(), [&[0, 5][..], &[200; 1200]]);
}

fn the_first_flight_is_sent_when_the_responder_lacks_it(mut net: Net) {
    net.initiate(1400);
    net.respond(Vec::new());
    net.proceed(true);
    net.run(Duration::from_secs(5));
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
}

fn a_handshake_survives_the_loss_of_every_third_datagram(mut net: Net) {
    net.lose = |number| number % 3 == 1;
    net.initiate(1400);
    net.respond(Vec::new());
    net.proceed(true);
    net.run(Duration::from_secs(60));
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
}

fn nothing_a_scheme_sends_reads_as_a_psec_frame(mut net: Net) {
    net.secure();
    let command = Command::Datagram {
        session: 1,
        payload: Bytes::from_static(&[0; 100]),
    };
    net.a.core.handle_command(net.now, command);
    net.run(Duration::from_secs(120));
    assert!(net.sent.len() > 10);
    assert!(net.sent.iter().all(|(_, datagram)| datagram[0] >= 20));
}

#[test]
fn psec_frames_surface_on_a_flow_that_was_handed_over() {
    let mut net = Net::new();
    net.b
        .core
        .handle_command(net.now, Command::Claim { remote: A.into() });
    net.secure();
    for frame in [&[1, 9][..], &[255], &[255, 1], &[80, 1], &[0, 1, 2]] {
        let remote: SocketAddr = A.into();
        net.b.hear(net.now, remote, frame);
    }
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.raw(), [&[1, 9][..], &[255], &[0, 1, 2]]);
}

#[test]
fn a_strangers_datagram_surfaces_only_if_it_may_be_a_proposal() {
    let mut net = Net::new();
    let remote: SocketAddr = A.into();
    for datagram in [&[1, 1][..], &[255], &[200; 1200], &[22, 254], &[7]] {
        net.b.hear(net.now, remote, datagram);
    }
    net.b.collect();
    assert!(net.b.raw().is_empty());
    assert_eq!(net.b.core.counters.strangers, 5);

    // What follows on the heels of a proposal is a part of the same first flight.
    for datagram in [&[0, 5][..], &[200; 1200]] {
        net.b.hear(net.now, remote, datagram);
    }
    net.b.collect();
    assert_eq!(net.b.raw(), [&[0, 5][..], &[200; 1200]]);
}

#[test]
fn strangers_that_javascript_has_no_room_for_are_dropped_and_counted() {
    let mut net = Net::new();
    for port in 1..=MAX_WAITING_RAW as u16 + 10 {
        let remote: SocketAddr = SocketAddr::from((A.0, port));
        net.b.hear(net.now, remote, &[0, 1][..]);
    }
    net.b.collect();
    assert_eq!(net.b.raw().len(), MAX_WAITING_RAW);
    assert_eq!(net.b.core.counters.raw_overflow, 10);
}

#[test]
fn strangers_are_remembered_in_a_table_of_fixed_size() {
    let mut net = Net::new();
    for number in 0..3 * MAX_STRANGERS as u32 {
        let remote: SocketAddr = SocketAddr::from(([10, 1, (number >> 8) as u8, number as u8], 1));
        net.b.hear(net.now, remote, &[0][..]);
    }
    assert_eq!(net.b.core.strangers.len(), MAX_STRANGERS);
}

fn a_flow_without_a_waiting_responder_accepts_no_initiator(mut net: Net) {
    net.initiate(1400);
    let command = Command::Claim { remote: A.into() };
    net.b.core.handle_command(net.now, command);
    net.b.core.flows.get_mut(&A.into()).unwrap().handed_over = true;
    net.proceed(true);
    net.run(Duration::from_secs(5));
    assert!(net.b.core.sessions.is_empty());
    assert!(net.b.core.counters.unroutable > 0);
}

/// Give one datagram of the other end to `b`, and return what it passed on to JavaScript.
fn receive_at_b(net: &mut Net, datagram: &[u8]) -> usize {
    let remote: SocketAddr = A.into();
    let before = net.b.raw().len();
    net.b.hear(net.now, remote, datagram);
    net.b.collect();
    net.b.raw().len() - before
}

fn respond_at_b(net: &mut Net, session: u32, early: Vec<Vec<u8>>) {
    respond_to_at_b(net, session, None, early);
}

fn respond_to_at_b(net: &mut Net, session: u32, claimed_id: Option<&[u8]>, early: Vec<Vec<u8>>) {
    let command = Command::Respond {
        session,
        identity: net.b.identity.clone(),
        peer: net.a.as_peer(),
        early,
        claimed_id: claimed_id.map(<[u8]>::to_vec),
        validate_address: false,
    };
    net.b.core.handle_command(net.now, command);
}

fn close_at_b(net: &mut Net, session: u32) {
    let command = Command::Close {
        session,
        code: 1,
        orderly: false,
    };
    net.b.core.handle_command(net.now, command);
}

/// The other end crashes and comes back.
fn restart_a(net: &mut Net) {
    let identity = net.a.identity.clone();
    net.a = End::new(net.a.scheme, A);
    net.a.identity = identity;
}

fn secured_at_b(net: &Net) -> usize {
    net.b
        .notices()
        .filter(|notice| matches!(notice, Notice::Secured { .. }))
        .count()
}

fn closed_at_b(net: &Net) -> usize {
    net.b
        .notices()
        .filter(|notice| matches!(notice, Notice::Closed { .. }))
        .count()
}

fn a_new_session_outlives_the_one_that_it_replaces_on_the_same_flow(mut net: Net) {
    let claim = Command::Claim { remote: A.into() };
    net.b.core.handle_command(net.now, claim);
    net.secure();
    restart_a(&mut net);
    net.initiate(1400);
    let early = net.first_flight.clone();
    respond_at_b(&mut net, 10, early);
    net.proceed(false);
    net.run(Duration::from_secs(5));
    assert_eq!(secured_at_b(&net), 2);

    close_at_b(&mut net, 9);
    net.run(Duration::from_secs(60));
    assert_eq!(closed_at_b(&net), 1);
    let stream = open_stream(&mut net);
    write(&mut net, stream, b"back again");
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.stream_bytes(stream), b"back again");
    assert!(net.b.raw().is_empty());
}

fn a_session_outlives_the_handshake_of_somebody_who_forged_its_remote(mut net: Net) {
    net.secure();
    let stream = open_stream(&mut net);
    respond_at_b(&mut net, 10, vec![vec![200; 1200]]);
    net.run(Duration::from_secs(5));
    close_at_b(&mut net, 10);
    write(&mut net, stream, b"still here");
    net.run(Duration::from_secs(5));
    assert_eq!(net.b.stream_bytes(stream), b"still here");
    assert_eq!(closed_at_b(&net), 1);
}

fn what_follows_on_the_heels_of_a_renewed_proposal_surfaces_and_the_sessions_packets_do_not(
    mut net: Net,
) {
    let claim = Command::Claim { remote: A.into() };
    net.b.core.handle_command(net.now, claim);
    net.secure();
    assert_eq!(receive_at_b(&mut net, &[200; 1200]), 0);
    assert_eq!(receive_at_b(&mut net, &[0, 5]), 1);
    assert_eq!(net.b.core.counters.unroutable, 1);

    let stream = open_stream(&mut net);
    write(&mut net, stream, b"hello");
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.stream_bytes(stream), b"hello");
    assert_eq!(net.b.raw().len(), 1);

    for _ in 0..STRANGER_DATAGRAMS {
        assert_eq!(receive_at_b(&mut net, &[200; 1200]), 1);
    }
    assert_eq!(receive_at_b(&mut net, &[200; 1200]), 0);
}

fn what_follows_on_the_heels_of_a_renewed_proposal_surfaces_although_the_flow_was_released(
    mut net: Net,
) {
    let remote: SocketAddr = A.into();
    let claim = Command::Claim { remote };
    net.b.core.handle_command(net.now, claim);
    net.secure();
    assert_eq!(receive_at_b(&mut net, &[0, 5]), 1);
    let release = Command::Release { remote };
    net.b.core.handle_command(net.now, release);
    for surfaced in [1; STRANGER_DATAGRAMS as usize].into_iter().chain([0]) {
        assert_eq!(receive_at_b(&mut net, &[200; 1200]), surfaced);
    }
}

#[test]
fn a_responder_that_waits_for_somebody_who_forged_an_address_does_not_get_the_next_first_flight() {
    let mut net = Net::new();
    let claim = Command::Claim { remote: A.into() };
    net.b.core.handle_command(net.now, claim);
    respond_at_b(&mut net, 8, Vec::new());
    self::shield::propose_as(&mut net, b"\x00\x01\x01");
    assert_eq!(net.b.raw().len(), net.first_flight.len());
    let early = net.first_flight.clone();
    respond_at_b(&mut net, 9, early);
    net.proceed(false);
    net.run(Duration::from_secs(1));
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
    assert!(net.b.core.sessions.contains_key(&9) && !net.b.core.sessions.contains_key(&8));
}

#[test]
fn a_datagram_of_no_bytes_is_counted_and_nothing_else() {
    let mut net = Net::new();
    assert_eq!(receive_at_b(&mut net, &[]), 0);
    assert_eq!(net.b.core.counters.empty, 1);
}

#[test]
fn as_many_datagrams_of_a_stranger_follow_its_proposal_as_was_said() {
    let mut net = Net::new();
    net.b.core.limits.stranger_datagrams = 2;
    assert_eq!(receive_at_b(&mut net, &[0, 5]), 1);
    for surfaced in [1, 1, 0] {
        assert_eq!(receive_at_b(&mut net, &[200; 1200]), surfaced);
    }
    assert_eq!(net.b.core.counters.strangers, 1);
}

fn a_flow_that_javascript_shares_surfaces_what_no_session_takes(mut net: Net) {
    let claim = Command::Claim { remote: A.into() };
    net.b.core.handle_command(net.now, claim);
    net.secure();
    for shared in [true, false] {
        let remote = A.into();
        let share = Command::Share { remote, shared };
        net.b.core.handle_command(net.now, share);
        for first in [20, 80, 200] {
            let surfaced = receive_at_b(&mut net, &[first; 100]);
            assert_eq!(surfaced, usize::from(shared));
        }
    }
    let stream = open_stream(&mut net);
    write(&mut net, stream, b"hello");
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.stream_bytes(stream), b"hello");
}

fn of_two_waiting_responders_the_newer_gets_the_initiator(mut net: Net) {
    net.initiate(1400);
    respond_at_b(&mut net, 9, Vec::new());
    respond_at_b(&mut net, 10, vec![vec![200; 1200]]);
    net.proceed(true);
    net.run(Duration::from_secs(5));
    assert!(net.b.core.sessions.contains_key(&10));
    assert!(!net.b.core.sessions.contains_key(&9));
}

fn a_responder_gets_the_initiator_whose_first_flight_it_was_given_although_another_is_newer(
    mut net: Net,
) {
    net.initiate(1400);
    let early = net.first_flight.clone();
    respond_at_b(&mut net, 9, early);
    respond_at_b(&mut net, 10, Vec::new());
    net.proceed(false);
    net.run(Duration::from_secs(5));
    assert!(net.b.core.sessions.contains_key(&9));
    assert!(!net.b.core.sessions.contains_key(&10));
}

/// The numbers of the sessions of which it was told that they are secured.
fn whose_are_secured_at_b(net: &mut Net) -> Vec<u64> {
    net.b.collect();
    let records = net.b.batches.iter().flat_map(|batch| {
        let notices = batch.records.chunks_exact(RECORD);
        let notices = notices.filter(|it| it[0] == f64::from(Kind::Notice as u8));
        notices.filter_map(|it| {
            matches!(batch.notices[it[2] as usize], Notice::Secured { .. }).then_some(it[1] as u64)
        })
    });
    records.collect()
}

#[test]
fn a_responder_gets_who_claimed_to_be_there_although_a_forged_proposal_is_newer() {
    let mut net = Net::new();
    net.initiate(1400);
    let honest = net.a.peer_id.clone();
    respond_to_at_b(&mut net, 9, Some(&honest), Vec::new());
    respond_to_at_b(&mut net, 10, Some(b"somebody else"), Vec::new());
    net.proceed(true);
    net.run(Duration::from_secs(5));
    assert!(net.a.secured_peer().is_some());
    assert_eq!(whose_are_secured_at_b(&mut net), [9]);

    let stream = open_stream(&mut net);
    write(&mut net, stream, b"hello");
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.stream_bytes(stream), b"hello");

    // The other one still waits, and is served.
    restart_a(&mut net);
    net.initiate(1400);
    net.proceed(true);
    net.run(Duration::from_secs(5));
    assert_eq!(whose_are_secured_at_b(&mut net), [9, 10]);

    close_at_b(&mut net, 10);
    close_at_b(&mut net, 9);
    net.run(Duration::from_secs(60));
    assert_eq!(closed_at_b(&net), 2);
    assert!(net.b.core.sessions.is_empty() && net.b.core.claimed_ids.is_empty());
}

#[test]
fn a_dial_of_ours_is_not_taken_for_somebody_that_a_responder_waits_for() {
    let mut net = Net::new();
    net.initiate(1400);
    let peer_id = net.b.peer_id.clone();
    let command = Command::Respond {
        session: 2,
        identity: net.a.identity.clone(),
        peer: net.b.as_peer(),
        early: Vec::new(),
        claimed_id: Some(peer_id),
        validate_address: false,
    };
    net.a.core.handle_command(net.now, command);
    net.respond(net.first_flight.clone());
    net.proceed(false);
    net.run(Duration::from_secs(5));
    assert!(net.a.secured_peer().is_some());
    assert!(net.a.core.sessions.contains_key(&1) && !net.a.core.sessions.contains_key(&2));
}

#[test]
fn a_responder_keeps_who_claimed_to_be_there_although_another_waits_for_the_same() {
    let mut net = Net::new();
    net.initiate(1400);
    let (honest, early) = (net.a.peer_id.clone(), net.first_flight.clone());
    respond_to_at_b(&mut net, 9, Some(&honest), early);
    respond_to_at_b(&mut net, 10, Some(&honest), Vec::new());
    net.proceed(false);
    net.run(Duration::from_secs(5));
    assert_eq!(whose_are_secured_at_b(&mut net), [9]);
}

#[test]
fn who_is_not_whom_any_responder_waits_for_is_told_to_the_one_that_began() {
    let mut net = Net::new();
    net.initiate(1400);
    respond_to_at_b(&mut net, 9, Some(b"somebody"), Vec::new());
    respond_to_at_b(&mut net, 10, Some(b"somebody else"), Vec::new());
    net.proceed(true);
    net.run(Duration::from_secs(5));
    assert_eq!(whose_are_secured_at_b(&mut net), [10]);
}

fn of_two_waiting_responders_one_goes_on_when_the_other_is_closed(mut net: Net) {
    net.initiate(1400);
    respond_at_b(&mut net, 9, Vec::new());
    respond_at_b(&mut net, 10, Vec::new());
    close_at_b(&mut net, 9);
    net.proceed(true);
    net.run(Duration::from_secs(5));
    assert_eq!(closed_at_b(&net), 1);
    assert!(net.b.core.sessions.contains_key(&10));
}

fn javascript_hears_of_the_end_of_a_waiting_responder_whose_flow_it_released(mut net: Net) {
    respond_at_b(&mut net, 9, Vec::new());
    let release = Command::Release { remote: A.into() };
    net.b.core.handle_command(net.now, release);
    close_at_b(&mut net, 9);
    net.b.collect();
    assert_eq!(closed_at_b(&net), 1);
    assert!(net.b.core.flows.is_empty());
}

fn open_stream(net: &mut Net) -> u64 {
    let command = Command::OpenStream {
        session: 1,
        token: 77,
    };
    net.a.core.handle_command(net.now, command);
    net.run(Duration::from_millis(1));
    let [stream, token, _] = *net.a.records(Kind::StreamReady).last().unwrap();
    assert_eq!(token, 77);
    stream
}

fn write(net: &mut Net, stream: u64, data: &[u8]) {
    let command = Command::Write {
        session: 1,
        stream,
        data: Bytes::copy_from_slice(data),
    };
    net.a.core.handle_command(net.now, command);
}

fn a_stream_carries_its_bytes_and_its_end(mut net: Net) {
    net.secure();
    let stream = open_stream(&mut net);
    let data: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
    write(&mut net, stream, &data);
    net.a.finish(net.now, 1, stream);
    net.run(Duration::from_secs(5));
    assert_eq!(net.b.records(Kind::StreamOpened), [[stream, 0, 0]]);
    assert_eq!(net.b.stream_bytes(stream), data);
    assert_eq!(net.b.records(Kind::StreamFinished).len(), 1);
    assert_eq!(written_at_a(&net), data.len());
}

fn written_at_a(net: &Net) -> usize {
    let records = net.a.records(Kind::StreamWritten);
    records.iter().map(|record| record[1] as usize).sum()
}

fn consume_at_b(net: &mut Net, stream: u64, bytes: usize) {
    let command = Command::Consumed {
        session: 9,
        stream,
        bytes,
    };
    net.b.core.handle_command(net.now, command);
}

fn javascript_hears_once_of_each_byte_that_was_written_however_long_it_waited(mut net: Net) {
    net.secure();
    let stream = open_stream(&mut net);
    let data = vec![5; 100_001];
    for _ in 0..64 {
        write(&mut net, stream, &data);
    }
    net.run(Duration::from_secs(1));
    let all = 64 * data.len();
    let before = written_at_a(&net);
    assert!(net.b.stream_bytes(stream).len() <= before && before < all);
    // The write in whose midst it stopped goes on there.
    assert_ne!(before % data.len(), 0);

    for _ in 0..=all / STREAM_QUEUE {
        consume_at_b(&mut net, stream, STREAM_QUEUE);
        net.run(Duration::from_secs(1));
    }
    assert_eq!(net.b.stream_bytes(stream).len(), all);
    assert_eq!(written_at_a(&net), all);
}

/// Datagrams go by it, and may be slower than its end.
fn the_number_of_a_stream_that_is_over_is_not_the_next_ones(mut net: Net) {
    net.secure();
    let first = open_stream(&mut net);
    write(&mut net, first, b"last words");
    net.a.finish(net.now, 1, first);
    net.run(Duration::from_secs(1));
    net.b.finish(net.now, 9, first);
    net.run(Duration::from_secs(1));
    assert_ne!(open_stream(&mut net), first);
}

fn a_reader_that_takes_nothing_holds_the_writer_back(mut net: Net) {
    net.secure();
    let stream = open_stream(&mut net);
    let data = vec![5; 8 << 20];
    write(&mut net, stream, &data);
    net.run(Duration::from_secs(20));
    // Messages of DTLS are of 16 KiB, and go whole.
    let most = STREAM_QUEUE + (16 << 10);
    let before = net.b.stream_bytes(stream).len();
    assert!((STREAM_QUEUE..most).contains(&before));

    consume_at_b(&mut net, stream, 1 << 15);
    net.run(Duration::from_secs(1));
    let after = net.b.stream_bytes(stream).len();
    assert!(after > before && after < most + (1 << 15));
}

fn nothing_more_is_taken_from_the_sessions_while_as_much_as_was_said_waits_for_javascript(
    mut net: Net,
) {
    net.secure();
    let stream = open_stream(&mut net);
    net.b.core.limits.waiting_bytes = 1000;
    net.b.core.set_waiting(1000, 0);
    write(&mut net, stream, b"hello");
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.stream_bytes(stream), b"");
    assert!(net.b.core.is_starved());

    net.b.core.set_waiting(999, 0);
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.stream_bytes(stream), b"hello");
}

/// A sends so many datagrams one after another while JavaScript at B takes none.
fn send_datagrams_to_busy_b(net: &mut Net, count: u64) {
    net.b.core.set_waiting(MAX_WAITING_BYTES, 0);
    for _ in 0..count {
        let command = Command::Datagram {
            session: 1,
            payload: vec![7; 1000].into(),
        };
        net.a.core.handle_command(net.now, command);
        net.run(Duration::from_millis(100));
    }
    assert_eq!(net.b.records(Kind::Datagram).len(), 0);
}

fn dropped_at_b(net: &Net) -> u64 {
    let records = net.b.records(Kind::DatagramsDropped);
    records.iter().map(|record| record[0]).sum()
}

fn datagrams_that_nobody_took_in_time_are_counted(mut net: Net) {
    net.secure();
    send_datagrams_to_busy_b(&mut net, 100);
    net.b.core.set_waiting(0, 0);
    net.run(Duration::from_secs(1));
    let taken = net.b.records(Kind::Datagram).len() as u64;
    assert!((1..100).contains(&taken));
    assert_eq!(dropped_at_b(&net), 100 - taken);
}

#[test]
fn datagrams_of_no_bytes_fill_what_waits_of_a_session_of_dtls_too() {
    let mut net = Net::of(Scheme::Dtls);
    net.secure();
    net.b.core.set_waiting(MAX_WAITING_BYTES, 0);
    let before = net.b.core.sessions.len();
    for _ in 0..2000 {
        let command = Command::Datagram {
            session: 1,
            payload: Bytes::new(),
        };
        net.a.core.handle_command(net.now, command);
        net.run(Duration::from_millis(1));
    }
    net.b.core.set_waiting(0, 0);
    net.run(Duration::from_secs(1));
    let taken = net.b.records(Kind::Datagram).len() as u64;
    assert!(taken <= dtls_settings().datagram_receive_buffer as u64 / 64);
    assert_eq!(dropped_at_b(&net), 2000 - taken);
    assert_eq!(net.b.core.sessions.len(), before);
}

fn datagrams_that_nobody_took_before_the_session_ended_are_delivered_or_counted(mut net: Net) {
    net.secure();
    send_datagrams_to_busy_b(&mut net, 3);
    net.a.close(net.now, 1, 0, false);
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.closed(), Some(CloseCause::Remote));
    let taken = net.b.records(Kind::Datagram).len() as u64;
    assert_eq!(dropped_at_b(&net), 3 - taken);
}

fn no_datagram_is_counted_as_dropped_that_was_taken(mut net: Net) {
    net.secure();
    for _ in 0..3 {
        let command = Command::Datagram {
            session: 1,
            payload: vec![7; 1000].into(),
        };
        net.a.core.handle_command(net.now, command);
        net.run(Duration::from_millis(100));
    }
    assert_eq!(net.b.records(Kind::Datagram).len(), 3);
    assert_eq!(net.b.records(Kind::DatagramsDropped).len(), 0);
}

/// Each side sends a datagram; which of the other's streams each then knows to be the first that may not be open.
fn stream_limits(net: &mut Net) -> [u64; 2] {
    for (end, session) in [(&mut net.a, 1), (&mut net.b, 9)] {
        let payload = Bytes::from_static(b"hello");
        let command = Command::Datagram { session, payload };
        end.core.handle_command(net.now, command);
    }
    net.run(Duration::from_secs(1));
    [&net.a, &net.b].map(|end| end.records(Kind::StreamLimit).last().unwrap()[0])
}

#[test]
fn the_limit_of_quic_streams_is_told_with_datagrams_and_moves_with_each_that_is_over() {
    let mut net = Net::of(Scheme::Quic);
    net.secure();
    assert_eq!(stream_limits(&mut net), [4 * 4 + 1, 4 * 4]);

    let stream = open_stream(&mut net);
    net.a.finish(net.now, 1, stream);
    assert_eq!(stream_limits(&mut net), [4 * 4 + 1, 4 * 4]);

    net.b.finish(net.now, 9, stream);
    net.run(Duration::from_secs(1));
    assert_eq!(stream_limits(&mut net), [4 * 4 + 1, 4 * 5]);
}

#[test]
fn the_limit_of_quic_streams_is_told_once_while_it_stays() {
    let mut net = Net::of(Scheme::Quic);
    net.secure();
    stream_limits(&mut net);
    stream_limits(&mut net);
    assert_eq!(net.b.records(Kind::Datagram).len(), 2);
    assert_eq!(net.b.records(Kind::StreamLimit).len(), 1);
}

#[test]
fn the_limit_of_dtls_streams_is_that_of_their_numbers() {
    let mut net = Net::of(Scheme::Dtls);
    net.secure();
    assert_eq!(stream_limits(&mut net), [4 * 2 + 1, 4 * 2]);
}

fn streams_wait_while_the_remote_allows_no_more(mut net: Net) {
    net.secure();
    for token in 0..5 {
        let command = Command::OpenStream { session: 1, token };
        net.a.core.handle_command(net.now, command);
    }
    net.run(Duration::from_secs(1));
    assert_eq!(net.a.records(Kind::StreamReady).len(), 4);

    let reset = |session| Command::Reset { session, stream: 0 };
    net.a.core.handle_command(net.now, reset(1));
    net.run(Duration::from_secs(1));
    net.b.core.handle_command(net.now, reset(9));
    net.run(Duration::from_secs(5));
    assert_eq!(net.a.records(Kind::StreamReady).len(), 5);
}

fn a_reset_is_told_to_the_other_side(mut net: Net) {
    net.secure();
    let stream = open_stream(&mut net);
    write(&mut net, stream, b"hello");
    net.run(Duration::from_secs(1));
    let reset = Command::Reset { session: 1, stream };
    net.a.core.handle_command(net.now, reset);
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.records(Kind::StreamReset).len(), 1);
    assert_eq!(net.b.records(Kind::StreamStopped).len(), 1);
}

fn datagrams_arrive_whole(mut net: Net) {
    net.secure();
    let [size, ..] = *net.a.records(Kind::Path).last().unwrap();
    for length in [0, 1, 1000, size] {
        let command = Command::Datagram {
            session: 1,
            payload: Bytes::from(vec![3; length as usize]),
        };
        net.a.core.handle_command(net.now, command);
    }
    net.run(Duration::from_secs(1));
    let lengths: Vec<u64> = net
        .b
        .records(Kind::Datagram)
        .iter()
        .map(|record| record[1])
        .collect();
    assert_eq!(lengths, [0, 1, 1000, size]);
}

fn an_orderly_close_delivers_what_was_written_before(mut net: Net) {
    net.secure();
    // A fifth of them, and never in step with what is sent again (Knuth's multiplicative hash).
    net.lose = |number| (number as u32).wrapping_mul(2_654_435_769) < u32::MAX / 5;
    let stream = open_stream(&mut net);
    write(&mut net, stream, &[1; 50_000]);
    net.a.finish(net.now, 1, stream);
    net.a.close(net.now, 1, 0, true);
    net.run(Duration::from_secs(60));
    assert_eq!(net.b.stream_bytes(stream).len(), 50_000);
    assert_eq!(net.a.closed(), Some(CloseCause::Local));
}

fn what_came_before_a_close_is_delivered_even_to_a_slow_reader(mut net: Net) {
    net.secure();
    let stream = open_stream(&mut net);
    let data = vec![9; 900_000];
    write(&mut net, stream, &data);
    net.a.finish(net.now, 1, stream);
    net.a.close(net.now, 1, 0, true);
    net.run(Duration::from_secs(10));
    assert_eq!(net.b.stream_bytes(stream).len(), data.len());
    assert_eq!(net.b.records(Kind::StreamFinished).len(), 1);
    assert_eq!(net.b.closed(), Some(CloseCause::Remote));
}

fn a_close_in_the_middle_of_a_transfer_is_told_at_once(mut net: Net) {
    net.secure();
    let stream = open_stream(&mut net);
    write(&mut net, stream, &vec![1; 4 << 20]);
    net.lose = |_| true;
    net.run(Duration::from_millis(100));
    net.lose = |_| false;
    net.a.close(net.now, 1, 7, false);
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.closed(), Some(CloseCause::RemoteError));
}

fn the_remote_of_a_closed_session_is_told_and_nothing_is_left(mut net: Net) {
    net.secure();
    net.a.close(net.now, 1, 0, true);
    net.run(Duration::from_secs(60));
    assert_eq!(net.b.closed(), Some(CloseCause::Remote));
    for core in [&mut net.a.core, &mut net.b.core] {
        core.ahead.end(&mut core.endpoint);
        assert!(core.sessions.is_empty() && core.by_handle.is_empty());
        assert!(core.timeouts.is_empty() && core.timeout_of.is_empty());
        assert_eq!(core.endpoint.open_connections(), 0);
    }
}

fn that_a_session_is_over_is_told_before_that_its_remote_proposes_again(mut net: Net) {
    let claim = Command::Claim { remote: A.into() };
    net.b.core.handle_command(net.now, claim);
    net.secure();
    net.a.close(net.now, 1, 0, true);
    let goodbye = said_by(&mut net.a, net.now);
    net.b.batches.clear();
    for datagram in goodbye.iter().map(Vec::as_slice).chain([&b"\0"[..]]) {
        net.b.hear(net.now, A.into(), datagram);
    }
    net.deliver_all();
    let told: Vec<_> = net.b.notices().collect();
    assert!(
        matches!(told[..], [Notice::Closed { .. }, Notice::Raw { .. }]),
        "{told:?}"
    );
}

/// How many datagrams each end has sent since there were so many in all.
fn sent_since(net: &Net, before: usize) -> [usize; 2] {
    [A, B].map(|end| {
        let sent = net.sent[before..].iter();
        sent.filter(|(from, _)| *from == end.into()).count()
    })
}

fn goodbyes_do_not_go_on_answering_each_other(mut net: Net) {
    net.secure();
    let before = net.sent.len();
    net.a.close(net.now, 1, 0, true);
    net.b.close(net.now, 9, 1, false);
    net.run(Duration::from_secs(60));
    let sent = sent_since(&net, before);
    assert!(sent.iter().all(|it| *it <= 2), "{sent:?}");
}

#[test]
fn what_sctp_was_not_given_of_a_session_is_counted_when_that_is_over_too() {
    let mut net = Net::of(Scheme::Dtls);
    net.secure();
    let Some((AnySession::Dtls(session), _)) = net.a.core.sessions.get_mut(&1) else {
        panic!("it is of DTLS");
    };
    let of_wrong_checksum = [0x13, 0x88, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0];
    session.say(&of_wrong_checksum);
    net.a.core.touch(1);
    net.a.close(net.now, 1, 0, true);
    net.run(Duration::from_secs(60));
    assert!(net.b.core.sessions.is_empty());
    assert_eq!(net.b.core.counters.sctp_ignored, 1);
}

#[test]
fn a_goodbye_of_dtls_that_was_lost_is_said_again_to_who_still_sends() {
    let mut net = Net::of(Scheme::Dtls);
    net.secure();
    net.lose = |_| true;
    net.a.close(net.now, 1, 0, true);
    net.run(Duration::from_millis(500));
    assert_eq!(net.b.closed(), None);
    net.lose = |_| false;
    let command = Command::Datagram {
        session: 9,
        payload: vec![7].into(),
    };
    net.b.core.handle_command(net.now, command);
    net.run(Duration::from_millis(500));
    assert_eq!(net.b.closed(), Some(CloseCause::Remote));
}

fn a_session_whose_remote_is_gone_times_out(mut net: Net) {
    net.secure();
    net.lose = |_| true;
    net.run(Duration::from_secs(120));
    assert_eq!(net.a.closed(), Some(CloseCause::TimedOut));
    assert_eq!(net.b.closed(), Some(CloseCause::TimedOut));
}

fn a_session_that_is_not_kept_alive_is_silent_until_it_times_out(mut net: Net) {
    for end in [&mut net.a, &mut net.b] {
        let own = own_certificate(&libp2p_identity::Keypair::generate_ed25519()).unwrap();
        end.identity = end.scheme.identity_kept_alive(own, Duration::ZERO);
    }
    net.secure();
    let before = net.sent.len();
    net.run(Duration::from_secs(20));
    assert_eq!(net.sent.len(), before);
    net.run(Duration::from_secs(60));
    assert_eq!(net.a.closed(), Some(CloseCause::TimedOut));
    assert_eq!(net.b.closed(), Some(CloseCause::TimedOut));
}

fn no_bytes_of_any_kind_disturb_a_session(mut net: Net) {
    net.secure();
    let mut state = 1u64;
    for _ in 0..5_000 {
        let mut garbage = Vec::new();
        for _ in 0..1 + state % 60 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            garbage.push((state >> 40) as u8);
        }
        let remote: SocketAddr = A.into();
        net.b.hear(net.now, remote, &garbage[..]);
        net.b.collect();
    }
    let stream = open_stream(&mut net);
    write(&mut net, stream, b"still there");
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.stream_bytes(stream), b"still there");
}

for_every_scheme! {
    a_responder_that_closes_before_its_handshake_is_done_tells_the_initiator
    a_port_does_not_wait_for_ever_for_an_initiator_that_says_nothing
    the_number_of_a_stream_that_is_over_is_not_the_next_ones
    a_handshake_outlives_the_answer_to_one_that_was_given_up
    nothing_more_is_taken_from_the_sessions_while_as_much_as_was_said_waits_for_javascript
    datagrams_that_nobody_took_in_time_are_counted
    datagrams_that_nobody_took_before_the_session_ended_are_delivered_or_counted
    no_datagram_is_counted_as_dropped_that_was_taken
    a_cancelled_initiator_never_sends_anything
    an_initiator_that_ends_before_its_first_flight_has_left_says_nothing
    a_waiting_responder_outlives_another_session_of_its_flow
    both_sides_learn_who_the_other_is
    an_answer_that_overtakes_the_accept_is_taken_while_javascript_reads_that
    a_remote_can_begin_afresh_while_its_last_session_drains
    the_first_flight_is_sent_when_the_responder_lacks_it
    a_handshake_survives_the_loss_of_every_third_datagram
    nothing_a_scheme_sends_reads_as_a_psec_frame
    a_flow_without_a_waiting_responder_accepts_no_initiator
    a_new_session_outlives_the_one_that_it_replaces_on_the_same_flow
    a_session_outlives_the_handshake_of_somebody_who_forged_its_remote
    what_follows_on_the_heels_of_a_renewed_proposal_surfaces_and_the_sessions_packets_do_not
    what_follows_on_the_heels_of_a_renewed_proposal_surfaces_although_the_flow_was_released
    a_flow_that_javascript_shares_surfaces_what_no_session_takes
    of_two_waiting_responders_the_newer_gets_the_initiator
    a_responder_gets_the_initiator_whose_first_flight_it_was_given_although_another_is_newer
    of_two_waiting_responders_one_goes_on_when_the_other_is_closed
    javascript_hears_of_the_end_of_a_waiting_responder_whose_flow_it_released
    a_stream_carries_its_bytes_and_its_end
    a_reader_that_takes_nothing_holds_the_writer_back
    streams_wait_while_the_remote_allows_no_more
    a_reset_is_told_to_the_other_side
    datagrams_arrive_whole
    an_orderly_close_delivers_what_was_written_before
    what_came_before_a_close_is_delivered_even_to_a_slow_reader
    a_close_in_the_middle_of_a_transfer_is_told_at_once
    the_remote_of_a_closed_session_is_told_and_nothing_is_left
    that_a_session_is_over_is_told_before_that_its_remote_proposes_again
    goodbyes_do_not_go_on_answering_each_other
    a_session_whose_remote_is_gone_times_out
    no_bytes_of_any_kind_disturb_a_session
    a_session_that_is_not_kept_alive_is_silent_until_it_times_out
    javascript_hears_once_of_each_byte_that_was_written_however_long_it_waited
}
