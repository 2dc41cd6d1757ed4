//! Who gets through a handshake, and who does not (libp2p TLS specification, "Peer Authentication").

use rustls::{ClientConnection, ServerConnection};

use super::credentials::{ALWAYS, Credentials, signed_key};
use super::*;

impl Credentials {
    fn resolver(&self) -> Arc<SingleCertAndKey> {
        let signer = provider(GROUPS)
            .key_provider
            .load_private_key(self.key.clone_key())
            .unwrap();
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            self.chain.clone(),
            signer,
        )))
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider(GROUPS)))
            .with_protocol_versions(VERSIONS)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Libp2pVerifier::default()))
            .with_client_cert_resolver(self.resolver());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    }

    fn server(&self) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider(GROUPS)))
            .with_protocol_versions(VERSIONS)
            .unwrap()
            .with_client_cert_verifier(Arc::new(Libp2pVerifier::default()))
            .with_cert_resolver(self.resolver());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    }
}

/// Errors if either side refuses the other.
fn handshake(client: ClientConfig, server: ServerConfig) -> Result<(), Error> {
    shake_hands(client, Arc::new(server)).map(|_| ())
}

fn shake_hands(
    client: ClientConfig,
    server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), Error> {
    let name = ServerName::try_from("l").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut unread = &wire[..];
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
        }
        server.process_new_packets()?;

        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut unread = &wire[..];
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
        }
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

/// Whether an honest peer refuses these credentials in either role.
fn refused(credentials: &Credentials) -> bool {
    let honest = Credentials::honest(&Keypair::generate_ed25519());
    let as_client = handshake(credentials.client(), honest.server());
    let as_server = handshake(honest.client(), credentials.server());
    as_client.is_err() && as_server.is_err()
}

#[test]
fn two_honest_peers_get_through() {
    let (alice, bob) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (alice, bobs) = (
        configurations(own_certificate(&alice).unwrap(), true).unwrap(),
        configurations(own_certificate(&bob).unwrap(), true).unwrap(),
    );
    handshake(alice.client.unknown, bobs.server).unwrap();
}

#[test]
fn a_certificate_far_larger_than_needed_gets_through() {
    let identity = Keypair::generate_ed25519();
    let content = |key: &[u8]| signed_key(&identity, &identity, key);
    let large = Credentials::named(&"x".repeat(5000), &[&content], ALWAYS);
    assert!(!refused(&large));
}

#[test]
fn a_well_made_certificate_of_our_own_making_gets_through() {
    let identity = Keypair::generate_ed25519();
    let made = Credentials::made(&[&|key| signed_key(&identity, &identity, key)], ALWAYS);
    assert!(!refused(&made));
}

#[test]
fn a_replayed_certificate_without_its_private_key_is_refused() {
    assert!(refused(&Credentials::replayed()));
}

#[test]
fn anothers_public_key_in_the_extension_is_refused() {
    assert!(refused(&Credentials::claimed()));
}

#[test]
fn anothers_signature_over_another_certificates_key_is_refused() {
    assert!(refused(&Credentials::transplanted()));
}

#[test]
fn a_certificate_is_refused_before_and_after_its_time() {
    assert!(!refused(&Credentials::valid_in(ALWAYS)));
    assert!(refused(&Credentials::valid_in(1975..2020)));
    assert!(refused(&Credentials::valid_in(3999..4000)));
}

#[test]
fn a_certificate_has_exactly_one_extension() {
    assert!(!refused(&Credentials::with_extensions(1)));
    assert!(refused(&Credentials::with_extensions(0)));
    assert!(refused(&Credentials::with_extensions(2)));
}

#[test]
fn a_chain_of_two_certificates_is_refused() {
    let mut twice = Credentials::honest(&Keypair::generate_ed25519());
    twice.chain.push(twice.chain[0].clone());
    assert!(refused(&twice));
}

#[test]
fn a_client_that_does_not_authenticate_is_refused() {
    let honest = Credentials::honest(&Keypair::generate_ed25519());
    let mut anonymous = ClientConfig::builder_with_provider(Arc::new(provider(GROUPS)))
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Libp2pVerifier::default()))
        .with_no_client_auth();
    anonymous.alpn_protocols = vec![ALPN.to_vec()];
    assert!(handshake(anonymous, honest.server()).is_err());
}

mod resumption {
    use std::time::Duration;

    use rustls::{HandshakeKind, NamedGroup};

    use super::*;

    const REMOTE: ([u8; 4], u16) = ([10, 0, 0, 2], 4002);

    fn peer(resumption: bool) -> Configurations {
        let own = Credentials::honest(&Keypair::generate_ed25519()).own();
        configurations(own, resumption).unwrap()
    }

    /// Two peers of which one dials the other, again and again.
    struct Dials {
        client: ClientConfigurations,
        server: Arc<ServerConfig>,
        remote: SocketAddr,
        now: Instant,
    }

    impl Dials {
        fn new(client: Configurations, server: Configurations) -> Self {
            Self {
                client: client.client,
                server: Arc::new(server.server),
                remote: REMOTE.into(),
                now: Instant::now(),
            }
        }

        fn dial(&self) -> (ClientConnection, ServerConnection) {
            let client = self.client.of_dial(self.remote, self.now);
            shake_hands(client, self.server.clone()).unwrap()
        }

        fn is_resumed(&self) -> bool {
            let (client, server) = self.dial();
            assert_eq!(client.handshake_kind(), server.handshake_kind());
            client.handshake_kind() == Some(HandshakeKind::Resumed)
        }
    }

    fn dials() -> Dials {
        Dials::new(peer(true), peer(true))
    }

    #[test]
    fn whoever_was_dialled_before_is_dialled_without_certificates_and_is_known_by_the_same() {
        let dials = dials();
        let (client, server) = dials.dial();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        let certificates = [client.peer_certificates(), server.peer_certificates()];
        for _ in 0..3 {
            let (client, server) = dials.dial();
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Resumed));
            let known = [client.peer_certificates(), server.peer_certificates()];
            assert!(known.iter().all(Option::is_some));
            assert_eq!(known, certificates);
        }
    }

    #[test]
    fn the_post_quantum_exchange_is_made_once() {
        let dials = dials();
        for expected in [NamedGroup::X25519MLKEM768, NamedGroup::X25519] {
            let (client, _) = dials.dial();
            let group = client.negotiated_key_exchange_group().unwrap().name();
            assert_eq!(group, expected);
        }
    }

    #[test]
    fn a_ticket_is_offered_once() {
        let dials = dials();
        dials.dial();
        // Comes to nothing, so that there is no other.
        drop(dials.client.of_dial(dials.remote, dials.now));
        assert!(!dials.is_resumed());
    }

    #[test]
    fn a_ticket_is_offered_to_whom_it_is_of() {
        let mut dials = dials();
        dials.dial();
        dials.remote.set_port(1);
        assert!(!dials.is_resumed());
        dials.remote = REMOTE.into();
        assert!(dials.is_resumed());
    }

    #[test]
    fn a_session_and_what_was_resumed_from_it_can_be_resumed_for_an_hour() {
        let mut dials = dials();
        assert!(!dials.is_resumed());
        for minutes in [30, 29] {
            dials.now += Duration::from_secs(minutes * 60);
            assert!(dials.is_resumed());
        }
        dials.now += Duration::from_secs(60);
        assert!(!dials.is_resumed());
        dials.now += Duration::from_secs(59 * 60);
        assert!(dials.is_resumed());
    }

    #[test]
    fn a_ticket_means_nothing_to_another_than_who_made_it() {
        let mut dials = dials();
        dials.dial();
        dials.server = Arc::new(peer(true).server);
        assert!(!dials.is_resumed());
        assert!(dials.is_resumed());
    }

    #[test]
    fn nothing_is_resumed_unless_both_sides_want_it() {
        for (client, server) in [(true, false), (false, true), (false, false)] {
            let dials = Dials::new(peer(client), peer(server));
            for _ in 0..2 {
                assert!(!dials.is_resumed());
            }
        }
    }

    #[test]
    fn the_tickets_of_those_that_were_dialled_last_are_kept() {
        let mut dials = dials();
        for port in 1..=129 {
            dials.remote.set_port(port);
            assert!(!dials.is_resumed());
        }
        for (port, is_known) in [(2, true), (129, true), (1, false)] {
            dials.remote.set_port(port);
            assert_eq!(dials.is_resumed(), is_known, "{port}");
        }
    }
}
