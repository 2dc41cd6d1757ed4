use super::*;

const RESPONSE: &[u8] = b"\x01\x02/q";
const MAX_UNPREPARED: u32 = 16;
const LIFETIME: Duration = Duration::from_secs(7);
const OFFER: &[u8] = b"\x01\x02/q";

fn shield(max_proposals: usize, max_proposals_per_prefix: usize) -> Shield {
    let mut shield = Shield::default();
    shield.set(Some(Policy {
        answers: Answers {
            answers: vec![Answer {
                offer: OFFER.into(),
                response: RESPONSE.into(),
            }],
            own_id: peer_id(9),
        },
        max_proposals,
        max_proposals_per_prefix,
        max_unprepared: MAX_UNPREPARED,
        lifetime: LIFETIME,
    }));
    shield
}

fn stranger(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([10, high, low, 1], 4001))
}

fn peer_id(key: u8) -> Vec<u8> {
    [&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20], &[key; 32][..]].concat()
}

/// What offers `offer`, with whatever follows.
fn proposal(offer: &[u8], field: &[u8]) -> Vec<u8> {
    proposal_of(&peer_id(7), offer, field)
}

fn proposal_of(peer_id: &[u8], offer: &[u8], field: &[u8]) -> Vec<u8> {
    [&[PROPOSE, peer_id.len() as u8], peer_id, offer, field].concat()
}

/// Where the initiation packet of a bare proposal would begin.
const BARE: usize = 44;

fn answer(packet_at: usize) -> Verdict {
    Verdict::Answer {
        response: RESPONSE.into(),
        packet_at,
    }
}

#[test]
fn a_known_offer_is_answered_and_remembered_until_another_packet_proves_the_address() {
    let mut shield = shield(10, 10);
    let bare = proposal(OFFER, b"");
    let with_packet = proposal(OFFER, b"\x02hi");
    let now = Instant::now();
    assert_eq!(shield.propose(now, stranger(1), &bare), answer(BARE));
    assert_eq!(
        shield.propose(now, stranger(2), &with_packet),
        answer(BARE + 1)
    );
    let proved = |field| Some((proposal(OFFER, field), RESPONSE.into()));
    let proof = proved(b"\x05proof");
    assert_eq!(shield.proposal_of(&stranger(1), b"proof"), proof);
    assert_eq!(shield.proposal_of(&stranger(2), b"proof"), proof);
    assert_eq!(shield.proposal_of(&stranger(3), b"proof"), None);
    let long = [&[0xb0, 0x09][..], &[1; 1200]].concat();
    assert_eq!(shield.proposal_of(&stranger(1), &[1; 1200]), proved(&long));
}

#[test]
fn the_latest_proposal_of_an_address_counts_so_that_one_forged_before_spoils_nothing() {
    let mut shield = shield(10, 10);
    let now = Instant::now();
    let forged = proposal_of(&peer_id(6), OFFER, b"");
    let own = proposal(OFFER, b"");
    assert_eq!(shield.propose(now, stranger(1), &forged), answer(BARE));
    assert_eq!(shield.propose(now, stranger(1), &own), answer(BARE));
    assert_eq!(
        shield.proposal_of(&stranger(1), b"proof"),
        Some((proposal(OFFER, b"\x05proof"), RESPONSE.into()))
    );
    assert_eq!(shield.len(), 1);
    assert_eq!(shield.poll_timeout(), Some(now + LIFETIME));
}

#[test]
fn an_initiation_packet_may_have_any_length_that_fits_a_datagram() {
    let now = Instant::now();
    for (length, varint) in [
        (127, &[0x7f][..]),
        (128, &[0x80, 0x01]),
        (1200, &[0xb0, 0x09]),
        (16_384, &[0x80, 0x80, 0x01]),
        (65_000, &[0xe8, 0xfb, 0x03]),
    ] {
        let mut shield = shield(10, 10);
        let datagram = proposal(OFFER, &[varint, &vec![1; length]].concat());
        let packet_at = datagram.len() - length;
        assert_eq!(
            shield.propose(now, stranger(1), &datagram),
            answer(packet_at)
        );
    }
}

#[test]
fn what_is_no_known_offer_is_left_to_javascript_at_a_small_rate() {
    let mut shield = shield(10, 10);
    let now = Instant::now();
    for datagram in [
        proposal(b"\x01\x02/x", b""),
        proposal(OFFER, b"\x03hi"),
        proposal(OFFER, b"\x01hi"),
        proposal(OFFER, b"\x82\x00hi"),
        proposal(b"\x02\x02/q", b""),
        vec![PROPOSE],
        vec![PROPOSE, 3, 7],
        [&[PROPOSE, 40][..], &[7; 40], OFFER].concat(),
        // Ids that are none, or our own.
        proposal_of(&[], OFFER, b""),
        proposal_of(&[7; 38], OFFER, b""),
        proposal_of(&peer_id(7)[..37], OFFER, b""),
        proposal_of(
            &[
                &[0x00, 0x25, 0x08, 0x02, 0x12, 0x21, 0x02],
                &[0; 31][..],
                &[5],
            ]
            .concat(),
            OFFER,
            b"",
        ),
        proposal_of(&peer_id(9), OFFER, b""),
        // A length that is not minimal.
        proposal(OFFER, &[&[0x80, 0x00, 0x01], &[1; 16_384][..]].concat()),
    ] {
        assert_eq!(
            shield.propose(now, stranger(1), &datagram),
            Verdict::Pass,
            "{datagram:?}"
        );
    }
    let unknown = proposal(b"\x00", b"");
    for _ in 14..MAX_UNPREPARED {
        assert_eq!(shield.propose(now, stranger(2), &unknown), Verdict::Pass);
    }
    assert_eq!(
        shield.propose(now, stranger(3), &unknown),
        Verdict::Unprepared
    );
    assert_eq!(
        shield.propose(now + UNPREPARED_INTERVAL, stranger(3), &unknown),
        Verdict::Pass
    );
    assert_eq!(shield.len(), 0);
}

#[test]
fn an_id_is_one_that_libp2p_can_have() {
    let keys = [
        libp2p_identity::Keypair::generate_ed25519(),
        libp2p_identity::Keypair::generate_secp256k1(),
    ];
    for id in keys.map(|key| key.public().to_peer_id().to_bytes()) {
        assert!(is_peer_id(&id) && !is_peer_id(&id[..id.len() - 1]));
        assert!(!is_peer_id(&[&id[..], &[0]].concat()));
    }
    let hashed = [&[0x12, 0x20], &[1; 32][..]].concat();
    assert!(is_peer_id(&hashed) && !is_peer_id(&hashed[..33]));
    // x = 5 is of no point of the curve.
    let no_point = [&[0x00, 0x25, 8, 2, 0x12, 0x21, 2], &[0; 31][..], &[5]].concat();
    assert!(!is_peer_id(&no_point) && !is_peer_id(&[]));
}

#[test]
fn the_table_is_bounded_and_its_oldest_entry_goes_first() {
    let mut shield = shield(3, 10);
    let now = Instant::now();
    for number in 0..5 {
        shield.propose(now, stranger(number), &proposal(OFFER, b""));
    }
    assert_eq!(shield.len(), 3);
    assert!(!shield.remembers(&stranger(1)) && shield.remembers(&stranger(2)));
    assert_eq!(shield.of_prefix.len(), 3);
}

#[test]
fn who_proposes_again_is_remembered_longer() {
    let mut shield = shield(3, 10);
    let now = Instant::now();
    for number in [0, 1, 2, 0, 3, 4] {
        shield.propose(now, stranger(number), &proposal(OFFER, b""));
    }
    assert!(shield.remembers(&stranger(0)) && !shield.remembers(&stranger(2)));
    assert_eq!((shield.len(), shield.of_prefix.len()), (3, 3));

    let later = now + LIFETIME / 2;
    shield.propose(later, stranger(0), &proposal(OFFER, b""));
    shield.handle_timeout(now + LIFETIME);
    assert_eq!(shield.len(), 1);
    assert_eq!(shield.poll_timeout(), Some(later + LIFETIME));
}

#[test]
fn a_part_of_the_network_has_a_share_of_the_table() {
    let mut shield = shield(10, 2);
    let now = Instant::now();
    let neighbour = |port| SocketAddr::from(([192, 0, 2, 200], port));
    let frame = proposal(OFFER, b"");
    assert_eq!(shield.propose(now, neighbour(1), &frame), answer(BARE));
    assert_eq!(shield.propose(now, neighbour(2), &frame), answer(BARE));
    assert_eq!(shield.propose(now, neighbour(3), &frame), Verdict::Quota);
    assert_eq!(shield.propose(now, neighbour(2), &frame), answer(BARE));
    assert_eq!(shield.propose(now, stranger(1), &frame), answer(BARE));
}

#[test]
fn of_a_network_that_has_no_share_of_the_table_nothing_is_remembered() {
    let mut shield = shield(10, 0);
    let frame = proposal(OFFER, b"");
    for number in 0..3 {
        let verdict = shield.propose(Instant::now(), stranger(number), &frame);
        assert_eq!(verdict, Verdict::Quota);
    }
    assert!(shield.proposals.is_empty() && shield.of_prefix.is_empty());
}

#[test]
fn addresses_of_one_ipv6_site_are_one_part_of_the_network() {
    let of = |text: &str| Prefix::from(text.parse::<IpAddr>().unwrap());
    assert!(of("2001:db8:1:2::1") == of("2001:db8:1:ffff::2"));
    assert!(of("2001:db8:1::1") != of("2001:db8:2::1"));
    assert!(of("192.0.2.1") == of("192.0.2.255"));
    assert!(of("192.0.2.1") != of("192.0.3.1"));
}

#[test]
fn everything_is_forgotten_in_time_also_when_it_is_down() {
    let mut shield = shield(1000, 1000);
    let now = Instant::now();
    for number in 0..1000 {
        shield.propose(now, stranger(number), &proposal(OFFER, b""));
    }
    shield.set(None);
    assert!(shield.guards(&stranger(7)) && !shield.guards(&stranger(1000)));
    assert_eq!(shield.poll_timeout(), Some(now + LIFETIME));
    shield.handle_timeout(now + LIFETIME - Duration::from_millis(1));
    assert_eq!(shield.len(), 1000);
    shield.handle_timeout(now + LIFETIME);
    assert_eq!(shield.len(), 0);
    assert_eq!(shield.poll_timeout(), None);
    assert!(shield.proposals.capacity() == 0 && shield.of_prefix.is_empty());
}

#[test]
fn a_first_packet_tells_whether_it_has_a_token() {
    let packet = |token: &[u8]| [b"\xc3\0\0\0\x01\x02ab\x01c", token, b"\x44\xd0rest"].concat();
    assert!(has_token(&packet(b"\x02hi")));
    assert!(has_token(&packet(b"\x40\x02hi")));
    assert!(!has_token(&packet(b"\0")));
    // That of another type may begin in the same way.
    for first in [0x43, 0xd3, 0xe3, 0xf3] {
        let mut other = packet(b"\x02hi");
        other[0] = first;
        assert!(!has_token(&other), "{first:#x}");
    }
    for length in 0..10 {
        assert!(!has_token(&packet(b"\x02hi")[..length]), "{length}");
    }
}
