//! Who gets through a handshake, and who does not (libp2p TLS specification, "Peer Authentication").

use rustls::{ClientConnection, ServerConnection};

use super::credentials::{ALWAYS, Credentials, signed_key};
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
fn two_honest_peers_get_through() {
    let (alice, bob) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (alice, bobs) = (
        configurations(true, own_certificate(&alice).unwrap()).unwrap(),
        configurations(true, own_certificate(&bob).unwrap()).unwrap(),
    );
    handshake(alice.client, bobs.server).unwrap();
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
    let mut anonymous = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Libp2pVerifier::default()))
        .with_no_client_auth();
    anonymous.alpn_protocols = vec![ALPN.to_vec()];
    assert!(handshake(anonymous, honest.server()).is_err());
}
