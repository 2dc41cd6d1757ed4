//! Strangers that have to prove their address.

use super::*;
use crate::shield::{Answer, Answers, Policy};

pub const OFFER: &[u8] = b"\x01\x02/q";
pub const ACCEPT: &[u8] = b"\x01\x02/q";
const LIFETIME: Duration = Duration::from_secs(15);
pub const BARE: &[u8] =
    b"\x00\x26\x00\x24\x08\x01\x12\x20an Ed25519 key, for all it knows\x01\x02/q";

pub fn shield_b(net: &mut Net) {
    shield_b_for(net, LIFETIME);
}

fn shield_b_for(net: &mut Net, lifetime: Duration) {
    let policy = Policy {
        answers: Answers {
            answers: vec![Answer {
                offer: OFFER.into(),
                response: ACCEPT.into(),
            }],
            own_id: Vec::new(),
        },
        max_proposals: 100,
        max_proposals_per_prefix: 100,
        max_unprepared: 16,
        lifetime,
    };
    let Identity::Quic(identity) = net.b.identity.clone() else {
        panic!("only QUIC has a shield");
    };
    let command = Command::Shield(Some((identity, policy)));
    net.b.core.handle_command(net.now, command);
}

fn unshield_b(net: &mut Net) {
    net.b.core.handle_command(net.now, Command::Shield(None));
}

/// A proposes, its first flight travelling as it does: the first datagram in the proposal, the rest on its heels.
pub fn propose(net: &mut Net) {
    propose_as(net, BARE);
}

/// A proposes with that beginning of a proposal.
pub fn propose_as(net: &mut Net, bare: &[u8]) {
    let claim = Command::Claim { remote: B.into() };
    net.a.core.handle_command(net.now, claim);
    net.initiate(1400);
    let [packet, rest @ ..] = &net.first_flight[..] else {
        panic!("there is no first flight");
    };
    let remote: SocketAddr = A.into();
    net.b.hear(net.now, remote, &proposal(bare, packet));
    for datagram in rest {
        net.b.hear(net.now, remote, datagram);
    }
    net.b.collect();
}

/// A proposal with this initiation packet.
pub fn proposal(bare: &[u8], packet: &[u8]) -> Vec<u8> {
    let length = u16::try_from(packet.len()).unwrap();
    let varint = [length as u8 | 0x80, (length >> 7) as u8];
    [bare, &varint, packet].concat()
}

fn validated(end: &End) -> Vec<(&[u8], &[u8])> {
    end.notices()
        .filter_map(|notice| match notice {
            Notice::Validated { proposal, data, .. } => Some((&proposal[..], &data[..])),
            _ => None,
        })
        .collect()
}

/// A has proposed, and is to prove its address.
fn challenged() -> Net {
    let mut net = Net::new();
    shield_b(&mut net);
    propose(&mut net);
    net.deliver_all();
    assert!(net.b.core.counters.challenged > 0);
    net
}

/// A has heard the answer, and goes on.
fn proved() -> Net {
    let mut net = challenged();
    net.proceed(false);
    net.deliver_all();
    net
}

/// What JavaScript at B does with a stranger who has proved its address.
fn respond_to_validated(net: &mut Net) {
    let [(proposal, packet)] = validated(&net.b)[..] else {
        panic!("not exactly one stranger has proved its address");
    };
    assert!(proposal.starts_with(BARE) && proposal.ends_with(packet));
    let mut early = vec![packet.to_vec()];
    early.extend(net.b.raw().into_iter().map(<[u8]>::to_vec));
    let claim = Command::Claim { remote: A.into() };
    net.b.core.handle_command(net.now, claim);
    net.respond(early);
}

/// A goes on, proves its address, and is served by JavaScript at B.
fn expect_through(net: &mut Net) {
    net.deliver_all();
    respond_to_validated(net);
    net.run(Duration::from_secs(5));
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
}

#[test]
fn a_stranger_is_answered_without_javascript_and_has_to_prove_its_address() {
    let net = challenged();
    assert_eq!(net.a.raw(), [ACCEPT]);
    assert_eq!(net.b.notices().count(), 0);
    assert_eq!(net.b.core.counters.shielded, 1);
    assert_eq!(
        net.b.core.counters.challenged,
        net.first_flight.len() as u64
    );
    assert_eq!(net.b.core.endpoint.open_connections(), 0);
}

#[test]
fn a_stranger_who_has_proved_its_address_gets_through() {
    let mut net = proved();
    respond_to_validated(&mut net);
    net.run(Duration::from_secs(5));
    assert_eq!(net.a.secured_peer(), Some(&net.b.peer_id[..]));
    assert_eq!(net.b.secured_peer(), Some(&net.a.peer_id[..]));
}

#[test]
fn a_dial_that_is_given_up_once_it_was_told_to_prove_its_address_says_nothing_more() {
    let mut net = challenged();
    cancel_at_a(&mut net, true);
    net.run(Duration::from_secs(5));
    assert_eq!(net.b.core.counters.validated, 0);
}

#[test]
fn a_dial_that_is_given_up_when_it_was_to_prove_its_address_says_nothing_more() {
    let mut net = challenged();
    net.proceed(false);
    net.a.close(net.now, 1, 1, false);
    net.run(Duration::from_secs(5));
    assert_eq!(net.b.core.counters.validated, 0);
}

#[test]
fn a_goodbye_that_is_answered_by_retry_is_not_said_again() {
    let mut net = Net::new();
    shield_b(&mut net);
    let remote: SocketAddr = A.into();
    net.b.hear(net.now, remote, BARE);
    net.initiate(1400);
    cancel_at_a(&mut net, true);
    net.run(Duration::from_secs(5));
    assert_eq!(net.b.core.counters.challenged, 1);
    assert!(net.a.core.sessions.is_empty());
}

#[test]
fn a_proof_is_valid_for_as_long_as_was_said() {
    let mut net = Net::new();
    shield_b_for(&mut net, Duration::ZERO);
    propose(&mut net);
    net.deliver_all();
    net.proceed(false);
    net.deliver_all();
    assert!(net.b.core.counters.challenged > 0);
    assert_eq!(net.b.core.counters.validated, 0);
}

#[test]
fn a_stranger_whose_proposal_came_without_its_first_packet_gets_through() {
    let mut net = Net::new();
    shield_b(&mut net);
    let remote: SocketAddr = A.into();
    net.b.hear(net.now, remote, BARE);
    net.initiate(1400);
    net.proceed(true);
    expect_through(&mut net);
}

#[test]
fn a_stranger_gets_through_although_the_shield_went_down_meanwhile() {
    let mut net = Net::new();
    shield_b(&mut net);
    propose(&mut net);
    unshield_b(&mut net);
    net.deliver_all();
    net.proceed(false);
    expect_through(&mut net);
}

#[test]
fn a_stranger_that_proposes_again_after_the_shield_went_down_need_not_prove_anything() {
    let mut net = Net::new();
    shield_b(&mut net);
    let remote: SocketAddr = A.into();
    net.b.hear(net.now, remote, BARE);
    unshield_b(&mut net);
    propose(&mut net);
    assert_eq!(net.b.raw().len(), net.first_flight.len());
    assert_eq!(net.b.core.counters.challenged, 0);
    assert_eq!(net.b.core.shielded_proposals(), 0);
}

#[test]
fn a_stranger_that_was_served_often_is_remembered_like_any_other() {
    let mut net = Net::new();
    let remote: SocketAddr = A.into();
    for _ in 0..MAX_STRANGERS {
        net.b.hear(net.now, remote, BARE);
        net.b
            .core
            .handle_command(net.now, Command::Claim { remote });
        net.b
            .core
            .handle_command(net.now, Command::Release { remote });
        net.b.collect();
    }
    net.b.hear(net.now, remote, BARE);
    net.b.hear(net.now, (*b"\x0a\x00\x00\x07", 1).into(), BARE);
    net.b.collect();
    net.b.batches.clear();
    net.b.hear(net.now, remote, &[0xc0; 1200]);
    net.b.collect();
    assert_eq!(net.b.raw().len(), 1);
}

#[test]
fn a_proof_of_somebody_elses_address_is_none() {
    let mut net = challenged();
    net.proceed(false);
    net.lose = |_| true;
    net.deliver_all();
    let proofs: Vec<Vec<u8>> = net
        .sent
        .iter()
        .filter(|(from, _)| *from == A.into())
        .map(|(_, datagram)| datagram.clone())
        .collect();
    assert!(!proofs.is_empty());
    let spoofed = SocketAddr::from(([10, 0, 0, 3], 4001));
    net.b.hear(net.now, spoofed, BARE);
    for proof in &proofs {
        net.b.hear(net.now, spoofed, proof);
    }
    net.b.collect();
    assert!(validated(&net.b).is_empty());
}

#[test]
fn a_stranger_who_was_answered_before_we_dialled_it_still_proves_its_address() {
    let mut net = challenged();
    let claim = Command::Claim { remote: A.into() };
    net.b.core.handle_command(net.now, claim);
    net.proceed(false);
    net.deliver_all();
    respond_to_validated(&mut net);
    net.run(Duration::from_secs(5));
    assert_eq!(net.a.secured_peer(), Some(&net.b.peer_id[..]));
    assert_eq!(net.b.secured_peer(), Some(&net.a.peer_id[..]));
}

/// A has proposed, and is to prove its address, and JavaScript at B, which does not know, dials it.
fn crossed() -> Net {
    let mut net = challenged();
    let claim = Command::Claim { remote: A.into() };
    net.b.core.handle_command(net.now, claim);
    let (identity, peer) = (net.b.identity.clone(), net.a.as_peer());
    let first_flight = net.b.core.initiate(net.now, 7, identity, peer, 1400);
    assert!(first_flight.is_ok());
    net
}

/// A says something, which is answered.
fn say(net: &mut Net, datagram: &[u8]) {
    net.b.hear(net.now, A.into(), datagram);
    net.b.collect();
}

#[test]
fn who_is_dialled_once_it_was_answered_and_proposes_again_is_answered_as_before() {
    let mut net = crossed();
    net.now += Duration::from_millis(1_999);
    say(&mut net, BARE);
    assert_eq!(net.b.core.counters.shielded, 2);
    assert!(net.b.raw().is_empty());
    net.deliver_all();
    assert_eq!(net.a.raw(), [ACCEPT, ACCEPT]);
}

#[test]
fn who_is_dialled_once_it_was_answered_seems_to_have_lost_the_answer_if_it_goes_on_proposing() {
    let mut net = crossed();
    net.now += Duration::from_secs(2);
    say(&mut net, BARE);
    assert_eq!(net.b.raw(), [BARE]);
}

#[test]
fn what_is_no_repetition_is_the_dials() {
    let mut net = crossed();
    let other = BARE.to_ascii_uppercase();
    say(&mut net, &other);
    assert_eq!(net.b.raw(), [&other[..]]);
    assert_eq!(net.b.core.counters.shielded, 1);
}

#[test]
fn who_is_dialled_once_it_was_answered_proves_its_address_also_by_a_first_proposal_that_comes_late()
{
    let mut net = crossed();
    let challenged = net.b.core.counters.challenged;
    let late = proposal(BARE, &net.first_flight[0].clone());
    say(&mut net, &late);
    assert!(net.b.raw().is_empty());
    assert_eq!(net.b.core.counters.shielded, 2);
    assert_eq!(net.b.core.counters.challenged, challenged + 1);
}

#[test]
fn who_proposes_again_once_it_has_proved_its_address_is_javascripts() {
    let mut net = crossed();
    net.proceed(false);
    net.deliver_all();
    assert_eq!(validated(&net.b).len(), 1);
    say(&mut net, BARE);
    assert_eq!(net.b.raw().last(), Some(&BARE));
}

#[test]
fn a_first_flight_is_not_sent_again_when_a_proof_was_asked_for() {
    let mut net = challenged();
    let challenged = net.b.core.counters.challenged;
    net.proceed_with(true, true);
    net.deliver_all();
    assert_eq!(net.b.core.counters.challenged, challenged);
    respond_to_validated(&mut net);
    net.run(Duration::from_secs(5));
    assert_eq!(net.b.secured_peer(), Some(&net.a.peer_id[..]));
}

/// A has proved its address, and begins again, before JavaScript has got as far as to serve it.
fn dial_again_behind_the_shield() -> Net {
    let mut net = proved();
    assert_eq!(validated(&net.b).len(), 1);
    restart_a(&mut net);
    propose(&mut net);
    net.deliver_all();
    assert_eq!(net.b.core.counters.shielded, 2);
    net
}

/// What JavaScript at B does with the first proof.
fn serve_first_proof(net: &mut Net) {
    let proof = validated(&net.b)[0].1.to_vec();
    let claim = Command::Claim { remote: A.into() };
    net.b.core.handle_command(net.now, claim);
    respond_at_b(net, 9, vec![proof]);
}

/// A goes on with its second dial, proves its address once more, and is served by JavaScript at B.
fn expect_through_again(mut net: Net) {
    let raw = net.b.raw().len();
    net.proceed(false);
    net.deliver_all();
    let [_, (proposal, packet)] = validated(&net.b)[..] else {
        panic!("the second dial has not proved its address");
    };
    assert!(proposal.starts_with(BARE) && proposal.ends_with(packet));
    let mut early = vec![packet.to_vec()];
    early.extend(net.b.raw()[raw..].iter().map(|it| it.to_vec()));
    respond_at_b(&mut net, 10, early);
    net.run(Duration::from_millis(500));
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
}

#[test]
fn a_stranger_that_begins_again_proves_its_address_again_although_it_just_did() {
    let net = dial_again_behind_the_shield();
    expect_through_again(net);
}

#[test]
fn a_stranger_that_begins_again_gets_through_although_javascript_serves_what_it_began_before() {
    let mut net = dial_again_behind_the_shield();
    serve_first_proof(&mut net);
    expect_through_again(net);
}

#[test]
fn a_stranger_that_begins_again_gets_through_although_javascript_has_claimed_its_flow() {
    let mut net = dial_again_behind_the_shield();
    let claim = Command::Claim { remote: A.into() };
    net.b.core.handle_command(net.now, claim);
    expect_through_again(net);
}

#[test]
fn what_follows_a_proposal_that_javascript_hears_of_needs_no_proof() {
    // Whether JavaScript serves the flow itself, or a session has it.
    for handed_over in [false, true] {
        let mut net = dial_again_behind_the_shield();
        if handed_over {
            serve_first_proof(&mut net);
        } else {
            let claim = Command::Claim { remote: A.into() };
            net.b.core.handle_command(net.now, claim);
        }
        let challenged = net.b.core.counters.challenged;
        let raw = net.b.raw().len();
        restart_a(&mut net);
        propose(&mut net);
        assert_eq!(net.b.raw().len(), raw + net.first_flight.len());
        assert_eq!(net.b.core.counters.challenged, challenged);
    }
}

#[test]
fn a_stranger_gets_through_although_the_socket_that_answered_it_was_closed_at_once() {
    let mut net = dial_again_behind_the_shield();
    serve_first_proof(&mut net);
    // In the second dial's place: JavaScript takes it for a repetition of the first one.
    let remote: SocketAddr = A.into();
    net.b.hear(net.now, remote, BARE);
    close_at_b(&mut net, 9);
    net.b
        .core
        .handle_command(net.now, Command::Release { remote });
    for _ in 0..STRANGER_DATAGRAMS {
        net.b.hear(net.now, remote, &[200; 1200]);
    }
    net.b.collect();
    expect_through_again(net);
}

#[test]
fn a_proof_that_javascript_had_no_room_for_counts_when_it_comes_again() {
    let mut net = challenged();
    net.b.core.limits.waiting = 0;
    net.proceed(false);
    net.deliver_all();
    assert!(net.b.core.counters.raw_overflow > 0 && validated(&net.b).is_empty());
    net.b.core.limits.waiting = MAX_WAITING_RAW;
    net.run(Duration::from_secs(2));
    assert!(!validated(&net.b).is_empty());
}

#[test]
fn a_proof_that_comes_twice_is_told_once() {
    let mut net = proved();
    let proof = validated(&net.b)[0].1.to_vec();
    net.b
        .core
        .handle_command(net.now, Command::Claim { remote: A.into() });
    assert_eq!(receive_at_b(&mut net, &proof), 1);
    assert_eq!(validated(&net.b).len(), 1);
}

#[test]
fn a_proof_that_comes_too_late_is_counted() {
    let mut net = Net::new();
    shield_b(&mut net);
    let remote: SocketAddr = A.into();
    net.b.hear(net.now, remote, BARE);
    net.initiate(1400);
    net.proceed(true);
    for number in 0..100u16 {
        let other = SocketAddr::from(([10, 1, number as u8, 1], 9));
        net.b.hear(net.now, other, BARE);
    }
    assert_eq!(net.b.core.displaced_proposals(), 1);
    net.deliver_all();
    assert!(net.b.core.counters.challenged > 0);
    assert!(net.b.core.counters.unproposed > 0);
    assert_eq!(net.b.core.counters.validated, 0);
    assert!(validated(&net.b).is_empty());
}

#[test]
fn proposals_that_are_turned_away_are_counted_by_reason() {
    let mut net = Net::new();
    shield_b(&mut net);
    for number in 0..102u8 {
        let remote = SocketAddr::from(([10, 1, 1, number], 9));
        net.b.hear(net.now, remote, BARE);
    }
    let remote: SocketAddr = A.into();
    for _ in 0..16 + 3 {
        net.b.hear(net.now, remote, b"\x00\x01\x07\x01\x02/z");
    }
    assert_eq!(net.b.core.counters.turned_away_prefix, 2);
    assert_eq!(net.b.core.counters.turned_away_unprepared, 3);
}

#[test]
fn answers_that_find_no_room_are_counted() {
    let mut net = Net::new();
    shield_b(&mut net);
    let remote: SocketAddr = A.into();
    for _ in 0..MAX_RESPONSES + 3 {
        net.b.hear(net.now, remote, BARE);
    }
    assert_eq!(net.b.core.counters.responses_overflow, 3);
}

/// As many strangers propose to B as it has room for answers.
fn fill_responses(net: &mut Net) {
    let remote = SocketAddr::from(([10, 1, 1, 1], 9));
    for _ in 0..MAX_RESPONSES {
        net.b.hear(net.now, remote, BARE);
    }
    assert_eq!(net.b.core.responses.len(), MAX_RESPONSES);
}

#[test]
fn a_stranger_that_could_not_be_answered_takes_nobodys_place() {
    let mut net = Net::new();
    shield_b(&mut net);
    fill_responses(&mut net);
    let remote: SocketAddr = A.into();
    net.b.hear(net.now, remote, BARE);
    assert!(!net.b.core.shield.remembers(&remote));
}

#[test]
fn a_first_packet_that_could_not_be_answered_is_not_looked_at() {
    let mut net = Net::new();
    shield_b(&mut net);
    fill_responses(&mut net);
    net.initiate(1400);
    let remote: SocketAddr = A.into();
    for packet in net.first_flight.clone() {
        net.b.hear(net.now, remote, &packet);
    }
    assert_eq!(net.b.core.counters.challenged, 0);
    assert_eq!(net.b.core.counters.responses_overflow, 2);
}

#[test]
fn a_stranger_who_proves_its_address_needs_no_room_for_an_answer() {
    let mut net = challenged();
    fill_responses(&mut net);
    net.proceed(false);
    expect_through(&mut net);
}

#[test]
fn neither_sessions_nor_strangers_wait_until_the_others_have_had_everything() {
    let mut net = Net::new();
    net.secure();
    shield_b(&mut net);
    fill_responses(&mut net);
    for _ in 0..100 {
        let datagram = Command::Datagram {
            session: 9,
            payload: vec![7; 1000].into(),
        };
        net.b.core.handle_command(net.now, datagram);
    }
    let mut buf = Vec::new();
    let to: Vec<SocketAddr> = (0..10)
        .filter_map(|_| net.b.core.poll_transmit(net.now, 1, &mut buf))
        .map(|transmit| transmit.destination)
        .collect();
    assert_eq!(to.len(), 10);
    assert_eq!(to.iter().filter(|it| **it == A.into()).count(), 5);
}

#[test]
fn what_is_no_first_packet_gets_no_answer() {
    let mut net = Net::new();
    shield_b(&mut net);
    net.initiate(1400);
    let packet = net.first_flight[0].clone();
    let remote: SocketAddr = A.into();
    for datagram in [&packet[..1199], &[0xc0; 1200], &[0x40; 1200], &[0xff; 2]] {
        net.b.hear(net.now, remote, datagram);
    }
    net.deliver_all();
    assert!(net.sent.is_empty());
    assert_eq!(net.b.notices().count(), 0);
}

#[test]
fn no_answer_is_larger_than_what_it_answers() {
    let mut net = Net::new();
    shield_b(&mut net);
    let remote: SocketAddr = A.into();
    net.b.hear(net.now, remote, BARE);
    net.deliver_all();
    let [(_, accept)] = &net.sent[..] else {
        panic!("a proposal has one answer");
    };
    assert!(accept.len() <= BARE.len());

    propose(&mut net);
    net.deliver_all();
    let out: usize = net.sent[1..]
        .iter()
        .map(|(_, datagram)| datagram.len())
        .sum();
    assert!(
        out < 500,
        "{out} bytes for a first flight of two times 1200"
    );
}

#[test]
fn a_million_proposals_leave_nothing_behind() {
    let mut net = Net::new();
    shield_b(&mut net);
    for number in 0..1_000_000u32 {
        let [_, a, b, c] = number.to_be_bytes();
        let remote = SocketAddr::from(([11, a, b, c], 9));
        net.b.hear(net.now, remote, BARE);
        if number % 500 == 0 {
            while net
                .b
                .core
                .poll_transmit(net.now, 1, &mut Vec::new())
                .is_some()
            {}
        }
    }
    assert_eq!(net.b.core.shielded_proposals(), 100);
    assert!(net.b.core.flows.is_empty() && net.b.core.strangers.is_empty());
    net.run(Duration::from_secs(20));
    assert_eq!(net.b.core.shielded_proposals(), 0);
    assert_eq!(net.b.core.poll_timeout(), None);
}
