//! Connections that were begun before anybody dialled.

use super::reception::welcome;
use super::shield::{OFFER, propose, shield_b};
use super::*;

/// Whether A's quinn takes somebody else for B.
fn has_stand_in(net: &Net) -> bool {
    net.a.core.has_stand_in(&B.into())
}

#[test]
fn a_dial_goes_on_with_the_one_that_was_begun_ahead() {
    let mut net = Net::begun_ahead();
    assert_eq!(net.a.core.endpoint.open_connections(), 1);
    net.initiate(1400);
    assert_eq!(net.a.core.endpoint.open_connections(), 1);
    assert!(has_stand_in(&net));
    let early = net.first_flight.clone();
    net.respond(early);
    net.proceed(false);
    net.deliver_all();
    assert_eq!(net.a.secured_peer(), Some(&net.b.peer_id[..]));
    assert_eq!(net.b.secured_peer(), Some(&net.a.peer_id[..]));
}

#[test]
fn its_first_flight_is_as_new_as_the_dial() {
    let mut net = Net::begun_ahead();
    net.run(Duration::from_secs(3600));
    net.secure();
    let [_, rtt, _] = net.a.records(Kind::Path)[0];
    assert!(rtt < 1_000, "{rtt} microseconds");
}

#[test]
fn the_next_dial_does_not_go_on_with_the_same() {
    let mut net = Net::begun_ahead();
    net.initiate(1400);
    let first = net.first_flight.clone();
    let command = Command::Cancel {
        session: 1,
        sent: true,
    };
    net.a.core.handle_command(net.now, command);
    net.run(Duration::from_secs(60));
    assert!(!has_stand_in(&net));
    net.initiate(1400);
    assert!(has_stand_in(&net));
    assert_ne!(net.first_flight, first);
}

#[test]
fn a_second_dial_with_one_remote_goes_on_with_one_too() {
    let mut net = Net::begun_ahead();
    net.secure();
    net.run(Duration::from_secs(1));
    let open = net.a.core.endpoint.open_connections();
    let (identity, peer) = (net.a.identity.clone(), net.b.as_peer());
    let first_flight = net.a.core.initiate(net.now, 2, identity, peer, 1400);
    assert!(!first_flight.unwrap().is_empty());
    assert_eq!(net.a.core.endpoint.open_connections(), open);
}

#[test]
fn a_responder_beside_such_a_dial_gets_through() {
    let mut net = Net::begun_ahead();
    net.secure();
    let identities = [&net.b, &net.a].map(|end| end.identity.clone());
    net.secure_another(false, identities);
}

#[test]
fn a_dial_goes_on_with_one_also_where_something_of_the_remote_may_be_under_way() {
    type Case = (&'static str, fn(&mut Net));
    let cases: [Case; 4] = [
        ("a session that waits for its first packet", |net| {
            net.respond(Vec::new());
        }),
        ("a proof of address", |net| {
            shield_b(net);
            propose(net);
        }),
        ("a proof of address, after the flood", |net| {
            shield_b(net);
            propose(net);
            net.b.core.handle_command(net.now, Command::Shield(None));
        }),
        ("a guest", |net| {
            welcome(net, OFFER);
            propose(net);
        }),
    ];
    for (what, begin) in cases {
        let mut net = Net::new();
        net.begin_ahead(false);
        begin(&mut net);
        let (identity, peer) = (net.b.identity.clone(), net.a.as_peer());
        let first_flight = net.b.core.initiate(net.now, 7, identity, peer, 1400);
        assert!(!first_flight.unwrap().is_empty());
        assert!(net.b.core.has_stand_in(&A.into()), "{what}");
    }
}

/// B has given up a dial, and its goodbye is not over.
fn parting() -> Net {
    let mut net = Net::new();
    net.begin_ahead(false);
    let (identity, peer) = (net.b.identity.clone(), net.a.as_peer());
    let first_flight = net.b.core.initiate(net.now, 7, identity, peer, 1400);
    assert!(!first_flight.unwrap().is_empty());
    let command = Command::Cancel {
        session: 7,
        sent: true,
    };
    net.b.core.handle_command(net.now, command);
    said_by(&mut net.b, net.now);
    assert!(net.b.core.has_stand_in(&A.into()));
    net
}

#[test]
fn who_proves_its_address_beside_a_dial_gets_through_when_that_is_over() {
    let mut net = parting();
    shield_b(&mut net);
    propose(&mut net);
    assert!(net.b.core.counters.challenged > 0);
    net.run(Duration::from_secs(10));
    assert!(!net.b.core.has_stand_in(&A.into()));
    net.proceed(false);
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.core.counters.validated, 1);
}

#[test]
fn a_port_that_closes_forgets_the_one_that_was_begun_ahead() {
    let mut net = Net::begun_ahead();
    net.a.core.handle_command(net.now, Command::Shutdown);
    assert_eq!(net.a.core.endpoint.open_connections(), 0);
    assert!(net.a.core.is_closed());
}
