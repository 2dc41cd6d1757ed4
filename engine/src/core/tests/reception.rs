//! Strangers that are welcome.

use super::shield::{ACCEPT, OFFER, proposal, propose_as, shield_b};
use super::*;
use crate::reception::Welcome;
use crate::shield::{Answer, Answers};

const MAX_UDP_PAYLOAD: u16 = 1452;

/// A proposal of an Ed25519 key with that offer, as far as its initiation packet.
fn bare(key: u8, offer: &[u8]) -> Vec<u8> {
    let id = peer_id(key);
    [&[0, id.len() as u8], &id[..], offer].concat()
}

fn peer_id(key: u8) -> Vec<u8> {
    [&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20], &[key; 32][..]].concat()
}

fn quic_identity(net: &Net) -> Arc<QuicIdentity> {
    let Identity::Quic(identity) = net.b.identity.clone() else {
        panic!("only QUIC welcomes anybody");
    };
    identity
}

fn tell_b(net: &mut Net, command: Command) {
    net.b.core.handle_command(net.now, command);
}

pub fn welcome(net: &mut Net, offer: &[u8]) {
    let welcome = Welcome {
        identity: quic_identity(net),
        answers: Answers {
            answers: vec![Answer {
                offer: offer.into(),
                response: ACCEPT.into(),
            }],
            own_id: peer_id(9),
        },
        max_udp_payload: MAX_UDP_PAYLOAD,
    };
    tell_b(net, Command::Welcome(Some(welcome)));
}

/// B welcomes strangers.
fn hospitable() -> Net {
    let mut net = Net::new();
    welcome(&mut net, OFFER);
    net
}

/// A has proposed, and its session has begun.
fn begun() -> Net {
    let mut net = hospitable();
    propose_as(&mut net, &bare(1, OFFER));
    assert!(net.b.core.begin_session(net.now));
    assert_eq!(net.b.core.welcomed(), (1, 0));
    net
}

/// Its handshake is done, as far as it can see.
fn handshaken() -> Net {
    let mut net = begun();
    net.proceed(false);
    net.deliver_all();
    net
}

fn guests(net: &Net) -> Vec<(u32, &[u8])> {
    net.b
        .notices()
        .filter_map(|notice| match notice {
            Notice::Raw { answer, .. } => answer.as_ref().map(|(guest, it)| (*guest, &it[..])),
            _ => None,
        })
        .collect()
}

fn answers(net: &Net) -> Vec<&[u8]> {
    guests(net).into_iter().map(|(_, answer)| answer).collect()
}

/// What JavaScript at B does with a proposal.
fn respond(net: &mut Net) {
    let packet = net.first_flight[0].clone();
    respond_with(net, vec![packet]);
}

fn respond_with(net: &mut Net, early: Vec<Vec<u8>>) {
    tell_b(net, Command::Claim { remote: A.into() });
    let guest = guests(net).last().map(|(guest, _)| *guest);
    let command = Command::Respond {
        session: 9,
        identity: net.b.identity.clone(),
        peer: Peer {
            guest,
            ..net.a.as_peer()
        },
        early,
        claimed_id: None,
        validate_address: false,
    };
    tell_b(net, command);
}

fn assert_nothing_is_left(net: &mut Net) {
    tell_b(net, Command::Release { remote: A.into() });
    net.b.close(net.now, 9, 0, false);
    net.run(Duration::from_secs(60));
    assert_eq!(net.b.core.reception.len(), 0);
    assert!(net.b.core.sessions.is_empty() && net.b.core.flows.is_empty());
    assert!(net.b.core.by_handle.is_empty() && net.b.core.timeout_of.is_empty());
    assert_eq!(net.b.core.endpoint.open_connections(), 0);
    assert_eq!(net.b.core.poll_timeout(), None);
}

#[test]
fn a_stranger_has_its_answer_and_its_handshake_before_javascript_says_a_word() {
    let net = handshaken();
    assert_eq!(net.a.raw(), [ACCEPT]);
    assert_eq!(net.a.secured_peer(), Some(&net.b.peer_id[..]));
    assert_eq!(net.b.notices().count(), 1);
    assert_eq!(answers(&net), [ACCEPT]);
}

#[test]
fn the_answer_leaves_before_what_the_handshake_says() {
    let mut net = begun();
    let said = said_by(&mut net.b, net.now);
    assert_eq!(said[0], ACCEPT);
    assert!(said.len() > 1);
}

#[test]
fn javascript_that_responds_goes_on_with_what_has_begun() {
    let mut net = handshaken();
    let before = net.sent.len();
    respond(&mut net);
    net.deliver_all();
    assert_eq!(net.b.secured_peer(), Some(&net.a.peer_id[..]));
    // Not the handshake once more.
    assert!(net.sent.len() - before < 3);
    let [stream] = open_streams(&mut net)[..] else {
        panic!("not exactly one stream came");
    };
    assert_eq!(net.b.stream_bytes(stream), b"hello");
    assert_eq!(net.b.core.welcomed(), (1, 0));
    assert_nothing_is_left(&mut net);
}

/// A opens a stream and says hello; returns B's streams.
fn open_streams(net: &mut Net) -> Vec<u64> {
    let open = Command::OpenStream {
        session: 1,
        token: 5,
    };
    net.a.core.handle_command(net.now, open);
    net.run(Duration::from_millis(100));
    let stream = net.a.records(Kind::StreamReady)[0][0];
    let write = Command::Write {
        session: 1,
        stream,
        data: Bytes::from_static(b"hello"),
    };
    net.a.core.handle_command(net.now, write);
    net.run(Duration::from_millis(100));
    let opened = net.b.records(Kind::StreamOpened);
    opened.into_iter().map(|[id, ..]| id).collect()
}

#[test]
fn what_a_guest_does_before_javascript_responds_is_told_afterwards() {
    let mut net = handshaken();
    assert!(open_streams(&mut net).is_empty());
    respond(&mut net);
    net.run(Duration::from_millis(100));
    assert!(net.b.secured_peer().is_some());
    let stream = net.b.records(Kind::StreamOpened)[0][0];
    assert_eq!(net.b.stream_bytes(stream), b"hello");
}

#[test]
fn what_follows_the_proposal_is_the_sessions_before_and_after_javascripts_claim() {
    for is_claimed in [false, true] {
        let mut net = hospitable();
        let claim = Command::Claim { remote: B.into() };
        net.a.core.handle_command(net.now, claim);
        net.initiate(1400);
        let [packet, rest @ ..] = &net.first_flight.clone()[..] else {
            panic!("there is no first flight");
        };
        assert!(!rest.is_empty());
        let proposal = proposal(&bare(1, OFFER), packet);
        net.b.hear(net.now, A.into(), &proposal);
        net.b.core.begin_session(net.now);
        if is_claimed {
            tell_b(&mut net, Command::Claim { remote: A.into() });
        }
        for datagram in rest {
            net.b.hear(net.now, A.into(), datagram);
        }
        net.b.collect();
        assert_eq!(net.b.raw().len(), 1);
        respond_with(&mut net, vec![packet.clone()]);
        net.proceed(false);
        net.deliver_all();
        assert!(net.b.secured_peer().is_some());
    }
}

#[test]
fn javascript_may_respond_before_the_session_has_begun() {
    let mut net = hospitable();
    propose_as(&mut net, &bare(1, OFFER));
    respond(&mut net);
    assert!(!net.b.core.begin_session(net.now));
    net.proceed(false);
    net.deliver_all();
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
    assert_nothing_is_left(&mut net);
}

#[test]
fn a_guest_that_javascript_says_nothing_of_is_told_within_five_seconds() {
    let mut net = begun();
    net.proceed(false);
    net.run(Duration::from_millis(4_900));
    assert!(net.a.closed().is_none());
    net.run(Duration::from_millis(101));
    assert_eq!(net.a.closed(), Some(CloseCause::RemoteError));
    assert_eq!(net.b.core.welcomed(), (1, 1));
    assert!(net.b.secured_peer().is_none() && net.b.closed().is_none());
    assert_nothing_is_left(&mut net);
}

#[test]
fn javascript_that_responds_later_hears_at_once_that_it_is_too_late() {
    for lateness in [5_001, 20_000] {
        let mut net = begun();
        net.proceed(false);
        net.run(Duration::from_millis(lateness));
        respond(&mut net);
        net.deliver_all();
        assert_eq!(net.b.closed(), Some(CloseCause::Failed));
        assert_nothing_is_left(&mut net);
    }
}

fn dismiss(net: &mut Net, index: usize) {
    let (guest, _) = guests(net)[index];
    let remote = A.into();
    tell_b(net, Command::Dismiss { remote, guest });
}

#[test]
fn a_guest_that_javascript_dismisses_is_told_at_once() {
    let mut net = handshaken();
    dismiss(&mut net, 0);
    net.deliver_all();
    assert_eq!(net.a.closed(), Some(CloseCause::RemoteError));
    assert_eq!(net.b.core.welcomed(), (1, 1));
    assert_nothing_is_left(&mut net);
}

#[test]
fn a_guest_is_not_dismissed_for_one_before_it() {
    let mut net = begun();
    net.run(Duration::from_millis(5_001));
    tell_b(&mut net, Command::Claim { remote: A.into() });
    tell_b(&mut net, Command::Release { remote: A.into() });
    net.a = End::new(Scheme::Quic, A);
    propose_as(&mut net, &bare(1, OFFER));
    assert!(net.b.core.begin_session(net.now));
    dismiss(&mut net, 0);
    respond(&mut net);
    net.proceed(false);
    net.run(Duration::from_secs(5));
    assert!(net.b.secured_peer().is_some());
    assert_nothing_is_left(&mut net);
}

#[test]
fn a_guest_hears_of_its_end_again_if_it_has_not_heard() {
    let mut net = begun();
    net.proceed(false);
    dismiss(&mut net, 0);
    // Its handshake, and the end of that.
    assert!(!said_by(&mut net.b, net.now).is_empty());
    net.run(Duration::from_secs(2));
    assert!(net.a.closed().is_some());
    assert_nothing_is_left(&mut net);
}

#[test]
fn a_guest_whose_packet_javascript_does_not_mean_is_turned_away() {
    let mut net = begun();
    respond_with(&mut net, vec![vec![0xc0; 1200]]);
    assert_eq!(net.b.core.welcomed(), (1, 1));
    assert!(!net.b.core.sessions.contains_key(&9));
    assert_nothing_is_left(&mut net);
}

#[test]
fn a_guest_waits_while_javascript_responds_to_what_the_remote_began_before() {
    let mut net = begun();
    tell_b(&mut net, Command::Claim { remote: A.into() });
    net.respond(vec![vec![0xc0; 1200]]);
    assert_eq!(net.b.core.welcomed(), (1, 0));
    let packet = net.first_flight[0].clone();
    respond_at_b(&mut net, 10, vec![packet]);
    net.proceed(false);
    net.deliver_all();
    assert!(net.a.secured_peer().is_some());
    assert_eq!(secured_at_b(&net), 1);
    close_at_b(&mut net, 10);
    assert_nothing_is_left(&mut net);
}

#[test]
fn a_response_to_an_earlier_proposal_takes_a_guest_up() {
    let mut net = begun();
    tell_b(&mut net, Command::Claim { remote: A.into() });
    net.respond(Vec::new());
    net.proceed(false);
    net.deliver_all();
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
    assert_nothing_is_left(&mut net);
}

#[test]
fn nobody_is_answered_of_whom_javascript_has_just_been_told() {
    let mut net = hospitable();
    net.b.hear(net.now, A.into(), &bare(1, OFFER));
    propose_as(&mut net, &bare(1, OFFER));
    assert!(answers(&net).is_empty());
}

#[test]
fn nobody_is_told_to_have_been_answered_whose_answer_has_no_room() {
    let mut net = Net::new();
    let limits = Limits {
        responses: 0,
        ..Limits::default()
    };
    net.b.core = Core::new(false, false, limits);
    welcome(&mut net, OFFER);
    propose_as(&mut net, &bare(1, OFFER));
    assert!(answers(&net).is_empty());
}

#[test]
fn a_guest_that_has_arrived_is_served_also_if_nobody_is_welcome_any_more() {
    let mut net = hospitable();
    propose_as(&mut net, &bare(1, OFFER));
    tell_b(&mut net, Command::Welcome(None));
    assert!(net.b.core.begin_session(net.now));
    respond(&mut net);
    net.proceed(false);
    net.deliver_all();
    assert!(net.b.secured_peer().is_some());
    assert_nothing_is_left(&mut net);
}

#[test]
fn a_guest_that_comes_to_another_identity_or_scheme_is_turned_away() {
    let other = End::new(Scheme::Quic, B).identity;
    let dtls = End::new(Scheme::Dtls, B).identity;
    for identity in [other, dtls] {
        let mut net = begun();
        net.b.identity = identity;
        respond(&mut net);
        assert_eq!(net.b.core.welcomed(), (1, 1));
        net.deliver_all();
        assert_eq!(net.b.closed(), Some(CloseCause::Failed));
        assert_nothing_is_left(&mut net);
    }
}

#[test]
fn the_rest_of_a_first_flight_is_javascripts_behind_a_guest_that_was_forged() {
    let mut net = hospitable();
    let forged = proposal(&bare(2, OFFER), &[0xc0; 1200]);
    net.b.hear(net.now, A.into(), &forged);
    tell_b(&mut net, Command::Claim { remote: A.into() });
    propose_as(&mut net, &bare(1, OFFER));
    net.b.core.begin_session(net.now);
    net.b.collect();
    assert_eq!(net.b.raw().len(), 1 + net.first_flight.len());
}

#[test]
fn a_guest_whose_session_has_ended_is_nobodys_any_more() {
    let mut net = handshaken();
    net.a.close(net.now, 1, 0, false);
    net.run(Duration::from_millis(900));
    assert!(net.b.core.sessions.is_empty());
    respond(&mut net);
    net.deliver_all();
    assert_eq!(net.b.closed(), Some(CloseCause::Failed));
    assert_nothing_is_left(&mut net);
}

#[test]
fn a_port_that_closes_tells_its_guests() {
    let mut net = handshaken();
    tell_b(&mut net, Command::Shutdown);
    net.deliver_all();
    assert!(net.a.closed().is_some());
    assert_eq!(net.b.core.reception.len(), 0);
    assert!(net.b.core.is_closed());
}

#[test]
fn a_stranger_that_proposes_again_is_javascripts() {
    let mut net = begun();
    let packet = net.first_flight[0].clone();
    for _ in 0..3 {
        let again = proposal(&bare(1, OFFER), &packet);
        net.b.hear(net.now, A.into(), &again);
        net.b.core.begin_session(net.now);
    }
    // Afresh, with another packet.
    net.a = End::new(Scheme::Quic, A);
    propose_as(&mut net, &bare(1, OFFER));
    net.b.core.begin_session(net.now);
    assert_eq!(answers(&net).len(), 1);
    assert_eq!(net.b.core.welcomed(), (1, 0));
    assert_eq!(net.b.core.endpoint.open_connections(), 1);
}

#[test]
fn there_are_so_many_guests_at_a_time() {
    let mut net = hospitable();
    let mut other = Net::new();
    for number in 0..40u8 {
        other.a = End::new(Scheme::Quic, A);
        other.initiate(1400);
        let remote = SocketAddr::from(([10, 1, 1, number], 9));
        let proposal = proposal(&bare(1, OFFER), &other.first_flight[0]);
        net.b.hear(net.now, remote, &proposal);
        for _ in 0..20 {
            net.b.hear(net.now, remote, &[0xc0; 1200]);
        }
        net.b.core.begin_session(net.now);
    }
    assert_eq!(net.b.core.welcomed(), (MAX_GUESTS as u64, 0));
    assert_eq!(net.b.core.endpoint.open_connections(), MAX_GUESTS);
    net.run(Duration::from_secs(6));
    assert_eq!(net.b.core.welcomed().1, MAX_GUESTS as u64);
    assert_nothing_is_left(&mut net);
}

#[test]
fn who_is_answered_by_javascript_alone() {
    let cases: [(&str, Vec<u8>, &[u8]); 6] = [
        ("who claims our id", bare(9, OFFER), OFFER),
        ("who offers something else", bare(1, b"\x01\x02/x"), OFFER),
        (
            "whose packet is not of the scheme that it comes to",
            bare(1, b"\x02\x02/d\x02/q"),
            b"\x02\x02/d\x02/q",
        ),
        ("whose id is none", [b"\x00\x01\x07", OFFER].concat(), OFFER),
        (
            "whose id is of no secp256k1 key: no point of the curve",
            [
                &[0, 39, 0x00, 0x25, 0x08, 0x02, 0x12, 0x21, 0x02],
                &[0; 31][..],
                &[5],
                OFFER,
            ]
            .concat(),
            OFFER,
        ),
        (
            "whose id is of no known kind",
            [&[0, 38, 0x00, 0x24, 0x08, 0x07], &[1; 34][..], OFFER].concat(),
            OFFER,
        ),
    ];
    for (who, bare, offer) in cases {
        let mut net = Net::new();
        welcome(&mut net, offer);
        propose_as(&mut net, &bare);
        assert!(answers(&net).is_empty(), "{who}");
        assert_eq!(net.b.core.reception.len(), 0, "{who}");
        assert_eq!(net.b.raw().len(), net.first_flight.len(), "{who}");
        assert!(said_by(&mut net.b, net.now).is_empty(), "{who}");
    }
}

#[test]
fn a_hashed_id_is_as_welcome_as_a_key() {
    let mut net = hospitable();
    let bare = [&[0, 34, 0x12, 0x20], &[1; 32][..], OFFER].concat();
    propose_as(&mut net, &bare);
    assert_eq!(answers(&net), [ACCEPT]);
}

#[test]
fn nobody_is_answered_without_an_initiation_packet() {
    let mut net = hospitable();
    net.b.hear(net.now, A.into(), &bare(1, OFFER));
    let short = proposal(&bare(1, OFFER), &[0x40; 1200]);
    net.b.hear(net.now, A.into(), &short);
    net.b.collect();
    assert_eq!(net.b.raw().len(), 2);
    assert!(answers(&net).is_empty());
}

#[test]
fn nobody_is_welcome_behind_the_shield_or_when_javascript_has_no_room_or_has_withdrawn_it() {
    let prevent: [fn(&mut Net); 3] = [
        |net| shield_b(net),
        |net| net.b.core.set_waiting(0, MAX_WAITING_RAW),
        |net| tell_b(net, Command::Welcome(None)),
    ];
    for prevent in prevent {
        let mut net = hospitable();
        prevent(&mut net);
        propose_as(&mut net, &bare(1, OFFER));
        assert_eq!(net.b.core.reception.len(), 0);
        assert_eq!(net.b.core.welcomed(), (0, 0));
    }
}

/// The end of B's session if the initiation packet was changed like this.
fn failure(mut net: Net, change: fn(&mut Vec<u8>)) -> Vec<String> {
    let claim = Command::Claim { remote: B.into() };
    net.a.core.handle_command(net.now, claim);
    net.initiate(1400);
    change(&mut net.first_flight[0]);
    let proposal = proposal(&bare(1, OFFER), &net.first_flight[0]);
    net.b.hear(net.now, A.into(), &proposal);
    net.b.core.begin_session(net.now);
    net.run(Duration::from_millis(10));
    respond(&mut net);
    net.run(Duration::from_millis(10));
    let ends = net.b.notices().filter_map(|notice| match notice {
        Notice::Closed { cause, message } => Some(format!("{cause:?} {message}")),
        _ => None,
    });
    let ends = ends.collect();
    assert_nothing_is_left(&mut net);
    ends
}

#[test]
fn what_fails_fails_as_if_it_had_begun_with_javascripts_word() {
    let changes: [fn(&mut Vec<u8>); 4] = [
        |packet| packet[600] ^= 1,
        |packet| packet[3] ^= 1,
        |packet| packet[5] = 255,
        |packet| packet.truncate(1100),
    ];
    for change in changes {
        assert_eq!(failure(hospitable(), change), failure(Net::new(), change));
    }
}

#[test]
fn a_packet_that_begins_nothing_is_told_of_once() {
    let mut net = hospitable();
    let packet = [0xc0; 1200];
    net.b
        .hear(net.now, A.into(), &proposal(&bare(1, OFFER), &packet));
    net.b.core.begin_session(net.now);
    net.b.collect();
    assert_eq!(net.b.raw().len(), 1);
    assert_eq!(answers(&net), [ACCEPT]);
}

#[test]
fn what_somebody_else_repeats_of_a_proposal_spoils_nothing() {
    let mut net = begun();
    let other = SocketAddr::from(([10, 0, 0, 3], 4001));
    let repeated = proposal(&bare(1, OFFER), &net.first_flight[0]);
    net.b.hear(net.now, other, &repeated);
    net.b.core.begin_session(net.now);
    respond(&mut net);
    net.proceed(false);
    net.deliver_all();
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
    net.run(Duration::from_secs(6));
    assert_nothing_is_left(&mut net);
}

/// What B sends to somebody who never answers.
fn sent_in_vain(mut net: Net, lateness: Duration) -> usize {
    net.lose = |_| true;
    propose_as(&mut net, &bare(1, OFFER));
    net.b.core.begin_session(net.now);
    tell_b(&mut net, Command::Claim { remote: A.into() });
    net.run(lateness);
    let [_proposal, rest @ ..] = &net.b.raw()[..] else {
        panic!("nothing came");
    };
    let mut early = vec![net.first_flight[0].clone()];
    early.extend(rest.iter().map(|it| it.to_vec()));
    respond_with(&mut net, early);
    net.run(Duration::from_secs(25));
    net.sent.iter().map(|(_, datagram)| datagram.len()).sum()
}

#[test]
fn who_never_answers_is_sent_no_more_than_if_javascript_had_answered() {
    let usual = sent_in_vain(Net::new(), Duration::ZERO) + ACCEPT.len();
    for lateness in [0, 3, 8, 20].map(Duration::from_secs) {
        let ahead = sent_in_vain(hospitable(), lateness);
        // Certificates differ by some bytes; and what JavaScript gives up itself in the other case ends with a datagram, too.
        let end = usize::from(lateness > Duration::from_secs(5)) * 1200;
        assert!(ahead < usual + end + 100, "{ahead} instead of {usual}");
    }
}
