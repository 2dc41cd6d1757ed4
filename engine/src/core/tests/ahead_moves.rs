//! Remotes that move, and proofs of their address, beside flows of which quinn knows the remote by its stand-in.

use super::shield::{BARE, proposal, propose, shield_b};
use super::*;

/// Where A is seen after its NAT has given it another port.
const MOVED: ([u8; 4], u16) = ([10, 0, 0, 1], 4444);

/// Somebody else, whom B has dialled.
const C: ([u8; 4], u16) = ([10, 0, 0, 3], 4003);

/// With a connection that was begun ahead.
fn dial(end: &mut End, now: Instant, session: u32, remote: SocketAddr) -> Vec<Vec<u8>> {
    let peer = Peer {
        remote,
        local: None,
        max_udp_payload: 1452,
        max_probe_payload: 65_487,
        guest: None,
    };
    let Identity::Quic(identity) = end.identity.clone() else {
        panic!("only QUIC begins ahead");
    };
    let settings = Settings {
        identity,
        max_udp_payload: peer.max_udp_payload,
    };
    let core = &mut end.core;
    core.ahead.handle_dial(now, settings);
    let at = core.ahead.poll_timeout().unwrap();
    core.ahead.handle_timeout(at, &mut core.endpoint);
    let identity = end.identity.clone();
    core.initiate(now, session, identity, peer, 1400).unwrap()
}

fn b_dials(net: &mut Net, session: u32, remote: SocketAddr) {
    dial(&mut net.b, net.now, session, remote);
}

fn tell_b(net: &mut Net, command: Command) {
    net.b.core.handle_command(net.now, command);
}

/// A's stream goes on in both directions.
fn assert_goes_on(net: &mut Net, stream: u64) {
    let before = net.b.stream_bytes(stream).len();
    for _ in 0..5 {
        write(net, stream, &[7; 200_000]);
        consume_at_b(net, stream, 200_000);
        net.run(Duration::from_secs(1));
    }
    assert_eq!(net.b.stream_bytes(stream).len(), before + 1_000_000);
    assert!(net.a.closed().is_none() && net.b.closed().is_none());
}

/// Where B sends now.
fn destinations(net: &mut Net) -> Vec<SocketAddr> {
    let command = Command::Datagram {
        session: 9,
        payload: vec![7].into(),
    };
    tell_b(net, command);
    let mut buf = Vec::new();
    let mut destinations = Vec::new();
    while let Some(transmit) = net.b.core.poll_transmit(net.now, 1, &mut buf) {
        destinations.push(transmit.destination);
    }
    destinations
}

/// A has a session with B, and a stream in it.
fn streaming() -> (Net, u64) {
    let mut net = Net::new();
    net.secure();
    let stream = open_stream(&mut net);
    (net, stream)
}

#[test]
fn a_session_goes_on_whose_remote_has_moved_to_where_nobody_was() {
    let (mut net, stream) = streaming();
    net.a.address = MOVED.into();
    assert_goes_on(&mut net, stream);
    net.a.address = A.into();
    assert_goes_on(&mut net, stream);
}

#[test]
fn a_session_goes_on_that_is_dialled_where_it_has_moved_to() {
    let (mut net, stream) = streaming();
    net.a.address = MOVED.into();
    assert_goes_on(&mut net, stream);
    tell_b(
        &mut net,
        Command::Claim {
            remote: MOVED.into(),
        },
    );
    b_dials(&mut net, 20, MOVED.into());
    assert_goes_on(&mut net, stream);
}

#[test]
fn a_session_goes_on_that_moves_to_where_we_have_dialled() {
    let (mut net, stream) = streaming();
    b_dials(&mut net, 20, MOVED.into());
    net.a.address = MOVED.into();
    assert_goes_on(&mut net, stream);
}

/// B has a responder's session on a flow that began with a dial.
fn responder_beside_a_dial() -> (Net, u64) {
    let mut net = Net::new();
    b_dials(&mut net, 20, A.into());
    assert!(net.b.core.has_stand_in(&A.into()));
    net.secure();
    let stream = open_stream(&mut net);
    (net, stream)
}

#[test]
fn a_responders_session_beside_a_dial_follows_its_remote_and_back() {
    let (mut net, stream) = responder_beside_a_dial();
    net.a.address = MOVED.into();
    assert_goes_on(&mut net, stream);
    assert_eq!(destinations(&mut net), [MOVED.into()]);
    net.a.address = A.into();
    assert_goes_on(&mut net, stream);
    assert_eq!(destinations(&mut net), [A.into()]);
}

#[test]
fn a_responders_session_beside_a_dial_follows_its_remote_to_another_flow_with_a_dial() {
    let (mut net, stream) = responder_beside_a_dial();
    b_dials(&mut net, 21, MOVED.into());
    net.a.address = MOVED.into();
    assert_goes_on(&mut net, stream);
}

#[test]
fn what_comes_from_another_flow_is_not_an_initiators_sessions() {
    let mut net = Net::begun_ahead();
    net.secure();
    // A dials somebody else, who has got hold of a packet of B's before A has it.
    dial(&mut net.a, net.now, 20, C.into());
    let command = Command::Datagram {
        session: 9,
        payload: vec![7].into(),
    };
    tell_b(&mut net, command);
    let packets = said_by(&mut net.b, net.now);
    assert!(!packets.is_empty());
    for packet in &packets {
        net.a.hear(net.now, C.into(), packet);
    }
    net.a.core.process(net.now);
    net.a.collect();
    assert!(net.a.records(Kind::Datagram).is_empty());
}

#[test]
fn a_proof_counts_also_if_we_have_dialled_meanwhile() {
    for dials in [false, true] {
        let mut net = Net::new();
        shield_b(&mut net);
        propose(&mut net);
        net.deliver_all();
        assert!(net.b.core.counters.challenged > 0);
        tell_b(&mut net, Command::Shield(None));
        // Its proposal comes again: the shield forgets it.
        net.b.hear(net.now, A.into(), BARE);
        tell_b(&mut net, Command::Claim { remote: A.into() });
        if dials {
            b_dials(&mut net, 20, A.into());
        }
        net.b.collect();
        net.b.batches.clear();
        net.proceed(false);
        net.deliver_all();
        let early: Vec<Vec<u8>> = net.b.raw().into_iter().map(<[u8]>::to_vec).collect();
        assert!(!early.is_empty());
        net.respond(early);
        net.run(Duration::from_secs(5));
        assert!(net.a.closed().is_none(), "{dials}");
        assert!(
            net.a.secured_peer().is_some() && net.b.secured_peer().is_some(),
            "{dials}"
        );
    }
}

/// B has given up a dial to them, is behind its shield, has heard their proposals, and dials them again.
fn dialled_again(net: &mut Net, remotes: &[SocketAddr], packet: &[u8]) {
    for (session, remote) in (20..).zip(remotes) {
        b_dials(net, session, *remote);
        tell_b(
            net,
            Command::Cancel {
                session,
                sent: true,
            },
        );
    }
    said_by(&mut net.b, net.now);
    shield_b(net);
    for (session, remote) in (30..).zip(remotes) {
        net.b.hear(net.now, *remote, &proposal(BARE, packet));
        tell_b(net, Command::Claim { remote: *remote });
        b_dials(net, session, *remote);
        assert!(net.b.core.has_stand_in(remote));
    }
}

#[test]
fn a_proof_of_one_dialled_remote_is_none_of_another() {
    let mut net = Net::new();
    net.initiate(1400);
    let packet = net.first_flight[0].clone();
    dialled_again(&mut net, &[A.into(), C.into()], &packet);
    let first_flight = net.first_flight.clone();
    for packet in &first_flight {
        net.b.hear(net.now, A.into(), packet);
    }
    net.proceed(false);
    // Its proofs, which B does not get from A.
    let retries = said_by(&mut net.b, net.now);
    for retry in &retries {
        net.a.hear(net.now, B.into(), retry);
    }
    let proofs = said_by(&mut net.a, net.now);
    assert!(net.b.core.counters.challenged > 0 && !proofs.is_empty());
    for proof in &proofs {
        net.b.hear(net.now, C.into(), proof);
    }
    net.b.collect();
    assert_eq!(net.b.core.counters.validated, 0);
}

#[test]
fn a_proof_counts_also_if_our_dial_is_over_meanwhile() {
    let mut net = Net::new();
    net.initiate(1400);
    let packet = net.first_flight[0].clone();
    dialled_again(&mut net, &[A.into()], &packet);
    let first_flight = net.first_flight.clone();
    for packet in &first_flight {
        net.b.hear(net.now, A.into(), packet);
    }
    tell_b(
        &mut net,
        Command::Cancel {
            session: 30,
            sent: false,
        },
    );
    net.deliver_all();
    assert!(net.b.core.counters.challenged > 0);
    tell_b(&mut net, Command::Release { remote: A.into() });
    net.run(Duration::from_secs(10));
    assert!(!net.b.core.has_stand_in(&A.into()));
    net.proceed(false);
    net.run(Duration::from_secs(5));
    assert_eq!(net.b.core.counters.validated, 1);
}

#[test]
fn a_stateless_reset_ends_a_session_of_either_side_beside_a_dial() {
    for is_a in [false, true] {
        let mut net = Net::begun_ahead();
        // B's flow has its stand-in, too.
        b_dials(&mut net, 20, A.into());
        net.secure();
        net.run(Duration::from_secs(1));
        let (forgetful, id) = if is_a {
            (&mut net.a, 1)
        } else {
            (&mut net.b, 9)
        };
        let Some((AnySession::Quic(session), _)) = forgetful.core.sessions.get(&id) else {
            panic!("there is a session");
        };
        let handle = session.handle();
        forgetful
            .core
            .endpoint
            .handle_event(handle, EndpointEvent::drained());
        // The other one has something to say.
        let (session, end) = if is_a {
            (9, &mut net.b)
        } else {
            (1, &mut net.a)
        };
        let command = Command::Datagram {
            session,
            payload: vec![7; 500].into(),
        };
        end.core.handle_command(net.now, command);
        // JavaScript at both ends has handed the flow over.
        for (end, remote) in [(&mut net.a, B), (&mut net.b, A)] {
            let flow = end.core.flows.get_mut(&remote.into()).unwrap();
            (flow.claimed, flow.handed_over) = (true, true);
        }
        net.deliver_all();
        let end = if is_a { &net.b } else { &net.a };
        println!("{is_a} {:?}", end.closed());
        assert_eq!(end.closed(), Some(CloseCause::Reset), "{is_a}");
    }
}

#[test]
fn a_dial_to_nobody_fails_at_once_although_another_one_was_begun_ahead() {
    for remote in ["0.0.0.0:4001", "[::]:4001", "10.0.0.2:0"] {
        let mut net = Net::begun_ahead();
        let (identity, peer) = (net.a.identity.clone(), net.b.as_peer());
        let peer = Peer {
            remote: remote.parse().unwrap(),
            ..peer
        };
        let result = net.a.core.initiate(net.now, 1, identity, peer, 1400);
        assert!(result.is_err(), "{remote}");
        assert!(net.a.core.flows.is_empty());
    }
}

#[test]
fn a_dial_that_was_begun_ahead_proves_its_address_and_survives_rebinding_at_the_responder() {
    let mut net = Net::new();
    shield_b(&mut net);
    net.begin_ahead(true);
    propose(&mut net);
    assert!(net.a.core.has_stand_in(&B.into()));
    net.deliver_all();
    assert!(net.b.core.counters.challenged > 0);
    net.proceed(false);
    net.deliver_all();
    assert_eq!(net.b.core.counters.validated, 1);
    let mut early: Vec<Vec<u8>> = Vec::new();
    for notice in net.b.notices() {
        if let Notice::Validated { data, .. } = notice {
            early.push(data.clone());
        }
    }
    early.extend(net.b.raw().into_iter().map(<[u8]>::to_vec));
    tell_b(&mut net, Command::Claim { remote: A.into() });
    net.respond(early);
    net.run(Duration::from_secs(1));
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
    let stream = open_stream(&mut net);
    net.a.address = MOVED.into();
    assert_goes_on(&mut net, stream);
}

/// Of any version but 1, as QUIC's invariants have it (RFC 8999).
#[test]
fn an_unknown_version_is_answered_to_the_real_remote_beside_a_dial() {
    let mut net = Net::new();
    shield_b(&mut net);
    tell_b(&mut net, Command::Shield(None));
    b_dials(&mut net, 20, A.into());
    let flow = net.b.core.flows.get_mut(&A.into()).unwrap();
    (flow.claimed, flow.handed_over) = (true, true);
    let mut packet = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0];
    packet.resize(1200, 0);
    net.b.hear(net.now, A.into(), &packet);
    let mut buf = Vec::new();
    let transmit = net.b.core.poll_transmit(net.now, 1, &mut buf).unwrap();
    assert_eq!(transmit.destination, A.into());
    assert_eq!(buf[1..5], [0; 4]);
}

#[test]
fn a_dial_that_was_begun_ahead_hears_that_its_version_is_not_known() {
    let mut net = Net::begun_ahead();
    net.initiate(1400);
    net.proceed(true);
    assert!(net.a.core.has_stand_in(&B.into()));
    let packet = &net.first_flight[0];
    let (destination, rest) = packet[6..].split_at(packet[5].into());
    let source = &rest[1..=rest[0].into()];
    let lengths = [destination.len() as u8, source.len() as u8];
    let versions = [0x6b, 0x33, 0x43, 0xcf];
    let answer = [
        &[0xc0, 0, 0, 0, 0, lengths[1]],
        source,
        &[lengths[0]],
        destination,
        &versions,
    ]
    .concat();
    net.a.hear(net.now, B.into(), &answer);
    net.deliver_all();
    assert_eq!(net.a.closed(), Some(CloseCause::Failed));
}

#[test]
fn a_session_of_dtls_comes_about_beside_a_dial_that_was_begun_ahead() {
    let mut net = Net::begun_ahead();
    net.secure();
    assert!(net.a.core.has_stand_in(&B.into()));
    let identities = [(), ()].map(|()| {
        let keypair = libp2p_identity::Keypair::generate_ed25519();
        Scheme::Dtls.identity(own_certificate(&keypair).unwrap())
    });
    net.secure_another(true, identities);
    let stream = open_stream(&mut net);
    assert_goes_on(&mut net, stream);
}

/// Somebody makes A's packet seem to be from there, where quinn takes all remotes of dials for.
#[test]
fn what_seems_to_come_from_the_stand_in_sends_nothing_there() {
    hear_from_stand_in(false);
    hear_from_stand_in(true);
}

fn hear_from_stand_in(ends_there: bool) {
    let (mut net, stream) = streaming();
    let command = Command::Datagram {
        session: 1,
        payload: vec![7].into(),
    };
    net.a.core.handle_command(net.now, command);
    for packet in said_by(&mut net.a, net.now) {
        net.b.hear(net.now, STAND_IN, &packet);
    }
    let mut buf = Vec::new();
    while let Some(transmit) = net.b.core.poll_transmit(net.now, 1, &mut buf) {
        assert!(transmit.destination.is_ipv4());
    }
    if ends_there {
        net.b.close(net.now, 9, 0, false);
        net.run(Duration::from_secs(60));
        assert!(net.b.core.sessions.is_empty() && net.b.core.flows.is_empty());
        return;
    }
    // Everything that is sent goes to an address of IPv4.
    assert_goes_on(&mut net, stream);
}
