//! Who gets through a handshake, and who does not (libp2p TLS specification, "Peer Authentication").

use rustls::{ClientConnection, ServerConnection};

use super::credentials::{ALWAYS, Credentials, VECTORS, from_hex, signed_key};
use super::*;

impl Credentials {
    fn resolver(&self) -> Arc<SingleCertAndKey> {
        let signer = provider()
            .key_provider
            .load_private_key(self.key.clone_key())
            .unwrap();
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            self.chain.clone(),
            signer,
        )))
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(VERSIONS)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Libp2pVerifier::default()))
            .with_client_cert_resolver(self.resolver());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    }

    fn server(&self) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
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
    let name = ServerName::try_from("l").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
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
    Ok(())
}

/// Whether an honest peer refuses these credentials in either role.
fn refused(credentials: &Credentials) -> bool {
    let honest = Credentials::honest(&Keypair::generate_ed25519());
    let as_client = handshake(credentials.client(), honest.server());
    let as_server = handshake(honest.client(), credentials.server());
    as_client.is_err() && as_server.is_err()
}

#[test]
fn two_honest_peers_learn_who_the_other_is() {
    let (alice, bob) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (alice, bobs) = (
        configurations(own_certificate(&alice).unwrap()).unwrap(),
        configurations(own_certificate(&bob).unwrap()).unwrap(),
    );
    handshake(alice.client, bobs.server).unwrap();
    let known = alice.verifier.verified.lock().unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].1, bob.public().to_peer_id());
}

#[test]
fn a_verified_certificate_is_looked_up_once_and_verified_again_afterwards() {
    let identity = Keypair::generate_ed25519();
    let certificate = Credentials::honest(&identity).chain.remove(0);
    let verifier = Libp2pVerifier::default();
    verifier.verify(&certificate, &[]).unwrap();
    for _ in 0..2 {
        let peer = verifier.peer_of(&certificate);
        assert_eq!(peer, Some(identity.public().to_peer_id()));
    }
    assert!(verifier.verified.lock().unwrap().is_empty());
}

#[test]
fn the_certificates_remembered_are_bounded() {
    let certificate = Credentials::honest(&Keypair::generate_ed25519())
        .chain
        .remove(0);
    let verifier = Libp2pVerifier::default();
    for _ in 0..MAX_VERIFIED + 10 {
        verifier.verify(&certificate, &[]).unwrap();
    }
    assert_eq!(verifier.verified.lock().unwrap().len(), MAX_VERIFIED);
}

#[test]
fn a_certificate_far_larger_than_needed_is_not_remembered_and_gets_through() {
    let identity = Keypair::generate_ed25519();
    let content = |key: &[u8]| signed_key(&identity, &identity, key);
    let large = Credentials::named(&"x".repeat(MAX_REMEMBERED), &[&content], ALWAYS);
    let verifier = Libp2pVerifier::default();
    verifier.verify(&large.chain[0], &[]).unwrap();
    assert!(verifier.verified.lock().unwrap().is_empty());
    let peer = verifier.peer_of(&large.chain[0]);
    assert_eq!(peer, Some(identity.public().to_peer_id()));
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
fn the_test_vectors_of_the_specification_are_judged_as_it_says() {
    for (name, peer, der) in VECTORS {
        let certificate = CertificateDer::from(from_hex(der));
        let verifier = Libp2pVerifier::default();
        let verified = verifier.verify(&certificate, &[]).is_ok();
        assert_eq!(verified, peer.is_some(), "{name}");
        let known = verifier.peer_of(&certificate).map(|it| it.to_string());
        assert_eq!(known.as_deref(), *peer, "{name}");
    }
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
    let mut anonymous = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Libp2pVerifier::default()))
        .with_no_client_auth();
    anonymous.alpn_protocols = vec![ALPN.to_vec()];
    assert!(handshake(anonymous, honest.server()).is_err());
}
