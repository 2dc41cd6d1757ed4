//! Who gets through a handshake, and who does not (libp2p TLS specification, "Peer Authentication").

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConnection, ServerConnection};

use super::*;

/// An extension's content, by the certificate's public key.
type Content<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

const EXTENSION: &[u64] = &[1, 3, 6, 1, 4, 1, 53594, 1, 1];

/// A certificate and its key, as an attacker would put them together.
struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    fn honest(identity: &Keypair) -> Self {
        let (certificate, key) = certificate::generate(identity).unwrap();
        Self {
            chain: vec![certificate],
            key,
        }
    }

    /// A self-signed certificate with these extensions, valid until this year.
    fn made(extensions: &[Content], until: i32) -> Self {
        Self::named("", extensions, until)
    }

    /// The same with a name, which libp2p has no use for.
    fn named(name: &str, extensions: &[Content], until: i32) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        for content in extensions {
            let content = content(&key.public_key_der());
            params
                .custom_extensions
                .push(rcgen::CustomExtension::from_oid_content(EXTENSION, content));
        }
        let certificate = params.self_signed(&key).unwrap();
        Self {
            chain: vec![certificate.into()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

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

/// The extension's content: an identity's public key, and a signature over the certificate's key. DER by hand: all lengths
/// are below 128.
fn signed_key(claimed: &Keypair, signer: &Keypair, certificate_key: &[u8]) -> Vec<u8> {
    let public_key = claimed.public().encode_protobuf();
    let signature = signer
        .sign(&[b"libp2p-tls-handshake:", certificate_key].concat())
        .unwrap();
    let mut content = vec![0x04, public_key.len() as u8];
    content.extend(public_key);
    content.extend([0x04, signature.len() as u8]);
    content.extend(signature);
    content.splice(0..0, [0x30, content.len() as u8]);
    content
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
    let large = Credentials::named(&"x".repeat(MAX_REMEMBERED), &[&content], 4000);
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
    let made = Credentials::made(&[&|key| signed_key(&identity, &identity, key)], 4000);
    assert!(!refused(&made));
}

#[test]
fn a_replayed_certificate_without_its_private_key_is_refused() {
    let victim = Credentials::honest(&Keypair::generate_ed25519());
    let own = Credentials::honest(&Keypair::generate_ed25519());
    let chain = victim.chain;
    assert!(refused(&Credentials {
        chain,
        key: own.key
    }));
}

#[test]
fn anothers_public_key_in_the_extension_is_refused() {
    let (victim, own) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let forged = Credentials::made(&[&|key| signed_key(&victim, &own, key)], 4000);
    assert!(refused(&forged));
}

#[test]
fn anothers_signature_over_another_certificates_key_is_refused() {
    let victim = Keypair::generate_ed25519();
    let forged = Credentials::made(&[&|_| signed_key(&victim, &victim, b"another key")], 4000);
    assert!(refused(&forged));
}

#[test]
fn an_expired_certificate_is_refused() {
    let identity = Keypair::generate_ed25519();
    let expired = Credentials::made(&[&|key| signed_key(&identity, &identity, key)], 2020);
    assert!(refused(&expired));
}

#[test]
fn a_certificate_without_the_extension_is_refused() {
    assert!(refused(&Credentials::made(&[], 4000)));
}

#[test]
fn a_certificate_with_two_extensions_is_refused() {
    let identity = Keypair::generate_ed25519();
    let content = |key: &[u8]| signed_key(&identity, &identity, key);
    assert!(refused(&Credentials::made(&[&content, &content], 4000)));
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
