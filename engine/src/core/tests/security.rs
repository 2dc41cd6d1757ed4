//! Who does not get through a handshake, and what does not get into a session, whatever the scheme (libp2p TLS specification,
//! "Peer Authentication"; RFC 9000, section 21; RFC 9147, section 11).

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use super::*;
use crate::tls::configurations;
use crate::tls::credentials::Credentials;

/// What an end that authenticates nobody could have been made to pass on.
fn passed_on(end: &End) -> usize {
    [Kind::StreamOpened, Kind::StreamData, Kind::Datagram]
        .into_iter()
        .map(|kind| end.records(kind).len())
        .sum()
}

fn send_datagram(net: &mut Net, payload: &'static [u8]) {
    let command = Command::Datagram {
        session: 1,
        payload: Bytes::from_static(payload),
    };
    net.a.core.handle_command(net.now, command);
}

/// An initiator that believes in the session makes use of it.
fn make_use_of_it(net: &mut Net) {
    let open = Command::OpenStream {
        session: 1,
        token: 77,
    };
    net.a.core.handle_command(net.now, open);
    send_datagram(net, b"hello");
    net.run(Duration::from_secs(1));
}

fn works(net: &mut Net) -> bool {
    let stream = open_stream(net);
    let before = net.b.stream_bytes(stream).len();
    write(net, stream, b"still there");
    net.run(Duration::from_secs(2));
    net.b.stream_bytes(stream)[before..] == *b"still there"
}

/// That the responder (or the initiator) has no session with who shows this.
fn assert_refused(scheme: Scheme, identity: Identity, is_initiator: bool) {
    assert_refused_in(&mut Net::of(scheme), identity, is_initiator);
}

fn assert_refused_in(net: &mut Net, identity: Identity, is_initiator: bool) {
    net.end(is_initiator).identity = identity;
    net.attempt();
    make_use_of_it(net);
    let honest = net.end(!is_initiator);
    assert_eq!(honest.secured_peer(), None);
    assert_eq!(honest.closed(), Some(CloseCause::Failed));
    assert_eq!(passed_on(honest), 0);
}

fn assert_refused_in_both_roles(scheme: Scheme, credentials: impl Fn() -> Credentials) {
    for is_initiator in [true, false] {
        let identity = scheme.identity(credentials().own());
        assert_refused(scheme, identity, is_initiator);
    }
}

fn a_certificate_of_ones_own_with_anothers_public_key_is_refused(net: Net) {
    assert_refused_in_both_roles(net.a.scheme, Credentials::claimed);
}

fn anothers_signature_over_another_certificates_key_is_refused(net: Net) {
    assert_refused_in_both_roles(net.a.scheme, Credentials::transplanted);
}

fn a_replayed_certificate_without_its_private_key_is_refused(net: Net) {
    assert_refused_in_both_roles(net.a.scheme, Credentials::replayed);
}

fn a_certificate_that_is_known_is_refused_without_its_private_key(net: Net) {
    for is_initiator in [true, false] {
        let owned = Credentials::honest(&libp2p_identity::Keypair::generate_ed25519());
        let replayed = Credentials {
            chain: owned.chain.clone(),
            ..Credentials::replayed()
        };
        let mut net = again(&net);
        net.end(is_initiator).identity = net.a.scheme.identity(owned.own());
        net.secure();

        let mut net = again(&net);
        let identity = net.a.scheme.identity(replayed.own());
        assert_refused_in(&mut net, identity, is_initiator);
    }
}

fn a_certificate_that_has_expired_is_refused(net: Net) {
    assert_refused_in_both_roles(net.a.scheme, || Credentials::valid_in(1975..2020));
}

fn a_certificate_that_is_not_valid_yet_is_refused(net: Net) {
    assert_refused_in_both_roles(net.a.scheme, || Credentials::valid_in(3999..4000));
}

fn a_certificate_without_the_extension_is_refused(net: Net) {
    assert_refused_in_both_roles(net.a.scheme, || Credentials::with_extensions(0));
}

fn a_certificate_with_two_extensions_is_refused(net: Net) {
    assert_refused_in_both_roles(net.a.scheme, || Credentials::with_extensions(2));
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn an_initiator_that_shows_no_certificate_is_refused(net: Net) {
    let own = Credentials::with_extensions(1).own();
    let identity = match net.a.scheme {
        Scheme::Quic => {
            let mut tls = configurations(true, own).unwrap();
            tls.client.client_auth_cert_resolver = Arc::new(NoCertificate);
            let identity = QuicIdentity::with_configurations(tls, quic_settings());
            Identity::Quic(Arc::new(identity.unwrap()))
        }
        scheme => scheme.identity(OwnCertificate {
            certificate: Vec::new().into(),
            ..own
        }),
    };
    assert_refused(net.a.scheme, identity, true);
}

/// What has to be refused is refused for what is wrong with it: the same certificate in order gets through.
fn a_certificate_of_our_own_making_is_accepted(mut net: Net) {
    net.a.identity = net.a.scheme.identity(Credentials::with_extensions(1).own());
    net.attempt();
    assert!(net.b.secured_peer().is_some());
    assert!(works(&mut net));
}

fn a_large_certificate_is_accepted(net: Net) {
    for size in [1000, 2500, 6000] {
        for is_initiator in [true, false] {
            let mut net = again(&net);
            let identity = net.a.scheme.identity(Credentials::of_size(size).own());
            net.end(is_initiator).identity = identity;
            net.attempt();
            assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
            assert!(works(&mut net));
        }
    }
}

/// Either side has who it is meant to have, or nobody.
fn assert_nobody_is_deceived(net: &Net) {
    for (end, other) in [(&net.a, &net.b), (&net.b, &net.a)] {
        assert!(end.secured_peer().is_none_or(|it| it == other.peer_id));
    }
    if let (Some((a, b)), Some(bs)) = (net.a.certificate_keys(), net.b.certificate_keys()) {
        assert_eq!(bs, (b, a));
    }
}

/// The same two peers, anew.
fn again(net: &Net) -> Net {
    let mut fresh = Net::of(net.a.scheme);
    for (end, old) in [(&mut fresh.a, &net.a), (&mut fresh.b, &net.b)] {
        end.identity = old.identity.clone();
        end.peer_id = old.peer_id.clone();
    }
    fresh
}

fn connect_over_the_wire(net: &mut Net) {
    net.initiate(1400);
    net.respond(Vec::new());
    net.proceed(true);
    net.run(Duration::from_secs(20));
}

fn no_change_to_a_byte_of_the_handshake_deceives_anybody(mut net: Net) {
    net.initiate(1400);
    net.respond(Vec::new());
    net.proceed(true);
    net.deliver_all();
    assert!(net.a.secured_peer().is_some() && net.b.secured_peer().is_some());
    let sizes: Vec<usize> = net.sent.iter().map(|(_, it)| it.len()).collect();
    let (mut came_about, mut attempts) = (0, 0);
    for (number, size) in sizes.into_iter().enumerate() {
        // All of a datagram's headers, and a sample of what follows.
        for at in (0..size).filter(|at| *at < 64 || at % 41 == number % 41) {
            let mut net = again(&net);
            net.change = Box::new(move |it, datagram| {
                if it == number
                    && let Some(byte) = datagram.get_mut(at)
                {
                    *byte ^= 1 << (at % 8);
                }
            });
            connect_over_the_wire(&mut net);
            assert_nobody_is_deceived(&net);
            attempts += 1;
            if net.a.closed().is_none()
                && net.b.closed().is_none()
                && net.b.secured_peer().is_some()
            {
                assert!(works(&mut net), "byte {at} of datagram {number}");
                came_about += 1;
            }
        }
    }
    // Most changes are as good as a loss.
    assert!(came_about * 2 > attempts, "{came_about} of {attempts}");
}

/// What the initiator sends now does not arrive, and is returned.
fn intercept(net: &mut Net) -> Vec<Vec<u8>> {
    let before = net.sent.len();
    let lose = std::mem::replace(&mut net.lose, |_| true);
    net.deliver_all();
    net.lose = lose;
    let sent = net.sent[before..].iter();
    sent.filter(|(from, _)| *from == net.a.address)
        .map(|(_, datagram)| datagram.clone())
        .collect()
}

fn a_packet_that_was_changed_is_not_taken_and_one_that_is_repeated_is_taken_once(mut net: Net) {
    net.secure();
    send_datagram(&mut net, b"once");
    let packets = intercept(&mut net);
    let remote = net.a.address;
    for packet in &packets {
        for at in 0..packet.len() {
            for bit in 0..8 {
                let mut changed = packet.clone();
                changed[at] ^= 1 << bit;
                net.b.hear(net.now, remote, &changed);
            }
            net.b.hear(net.now, remote, &packet[..at]);
        }
    }
    net.b.collect();
    assert_eq!(net.b.records(Kind::Datagram).len(), 0);

    for _ in 0..3 {
        for packet in &packets {
            net.b.hear(net.now, remote, packet);
        }
    }
    net.run(Duration::from_secs(1));
    assert_eq!(net.b.records(Kind::Datagram).len(), 1);
    assert!(works(&mut net));
}

fn a_session_that_is_said_again_from_its_beginning_has_no_effect(mut net: Net) {
    net.secure();
    let stream = open_stream(&mut net);
    write(&mut net, stream, b"hello");
    send_datagram(&mut net, b"once");
    net.run(Duration::from_secs(1));
    let said = [net.first_flight.clone(), Vec::new()];
    for datagram in &said[0] {
        net.b.hear(net.now, net.a.address, datagram);
    }
    for (from, datagram) in net.sent.clone() {
        let to = if from == net.a.address {
            &mut net.b
        } else {
            &mut net.a
        };
        to.hear(net.now, from, &datagram);
    }
    net.run(Duration::from_secs(5));
    assert_eq!(secured_at_b(&net), 1);
    assert_eq!(net.b.stream_bytes(stream), b"hello");
    assert_eq!(net.b.records(Kind::Datagram).len(), 1);
    assert!(net.a.closed().is_none() && net.b.closed().is_none());
    assert!(works(&mut net));
}

fn a_handshake_comes_about_although_everything_is_said_again_and_again(mut net: Net) {
    net.repeat = true;
    connect_over_the_wire(&mut net);
    assert_nobody_is_deceived(&net);
    assert_eq!(secured_at_b(&net), 1);
    assert!(works(&mut net));
}

/// Both sides of a session that was, as they were heard: the first flight, and then what each has sent.
fn record(net: &Net) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut net = again(net);
    net.secure();
    make_use_of_it(&mut net);
    let of = |from: SocketAddr| {
        let sent = net.sent.iter().filter(move |(it, _)| *it == from);
        sent.map(|(_, datagram)| datagram.clone())
    };
    let initiator = net.first_flight.iter().cloned().chain(of(net.a.address));
    (initiator.collect(), of(net.b.address).collect())
}

fn who_says_again_what_an_initiator_said_is_nobody(mut net: Net) {
    let (said, _) = record(&net);
    net.respond(vec![said[0].clone()]);
    for datagram in &said {
        net.b.hear(net.now, net.a.address, datagram);
        net.deliver_all();
    }
    net.run(Duration::from_secs(60));
    assert_eq!(net.b.secured_peer(), None);
    assert_eq!(passed_on(&net.b), 0);
}

fn who_says_again_what_a_responder_said_is_nobody(mut net: Net) {
    let (_, said) = record(&net);
    net.initiate(1400);
    net.proceed(true);
    for datagram in &said {
        net.a.hear(net.now, net.b.address, datagram);
        net.deliver_all();
    }
    net.run(Duration::from_secs(60));
    assert_eq!(net.a.secured_peer(), None);
    assert_eq!(passed_on(&net.a), 0);
}

fn nobody_takes_over_the_handshake_that_another_began(mut net: Net) {
    let mut other = Net::of(net.a.scheme);
    other.b.identity = net.b.identity.clone();
    let (others, _) = record(&other);

    net.initiate(1400);
    let early = net.first_flight.clone();
    net.respond(early);
    net.proceed(false);
    // Its first flight, with another random, and all that followed it.
    for datagram in &others {
        net.b.hear(net.now, net.a.address, datagram);
    }
    net.b.collect();
    assert_eq!(net.b.secured_peer(), None);

    net.run(Duration::from_secs(5));
    assert_eq!(net.b.secured_peer(), Some(&net.a.peer_id[..]));
    assert!(works(&mut net));
}

fn nobody_takes_over_the_session_of_another(mut net: Net) {
    let mut other = Net::of(net.a.scheme);
    other.b.identity = net.b.identity.clone();
    let (others, _) = record(&other);
    net.secure();
    for datagram in &others {
        net.b.hear(net.now, net.a.address, datagram);
        net.deliver_all();
    }
    net.run(Duration::from_secs(5));
    assert_eq!(secured_at_b(&net), 1);
    assert_eq!(passed_on(&net.b), 0);
    assert!(works(&mut net));
}

for_every_scheme! {
    a_certificate_of_ones_own_with_anothers_public_key_is_refused
    anothers_signature_over_another_certificates_key_is_refused
    a_replayed_certificate_without_its_private_key_is_refused
    a_certificate_that_is_known_is_refused_without_its_private_key
    a_certificate_that_has_expired_is_refused
    a_certificate_that_is_not_valid_yet_is_refused
    a_certificate_without_the_extension_is_refused
    a_certificate_with_two_extensions_is_refused
    an_initiator_that_shows_no_certificate_is_refused
    a_certificate_of_our_own_making_is_accepted
    a_large_certificate_is_accepted
    no_change_to_a_byte_of_the_handshake_deceives_anybody
    a_packet_that_was_changed_is_not_taken_and_one_that_is_repeated_is_taken_once
    a_session_that_is_said_again_from_its_beginning_has_no_effect
    a_handshake_comes_about_although_everything_is_said_again_and_again
    who_says_again_what_an_initiator_said_is_nobody
    who_says_again_what_a_responder_said_is_nobody
    nobody_takes_over_the_handshake_that_another_began
    nobody_takes_over_the_session_of_another
}
