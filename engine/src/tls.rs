//! TLS 1.3 by the libp2p TLS specification.
//!
//! Certificates are made and judged by `libp2p-tls`; its ready-made configurations are not used, because they prefer
//! ChaCha20-Poly1305, which is the slower cipher on every processor with AES instructions.

mod certificates;

use std::fmt;
use std::sync::{Arc, Once};

use libp2p_identity::Keypair;
use libp2p_tls::certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, NamedGroup,
    PeerIncompatible, ServerConfig, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

pub use self::certificates::{Certificates, Claim};

/// libp2p TLS specification, "ALPN".
const ALPN: &[u8] = b"libp2p";

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("no certificate could be made: {0}")]
    Certificate(#[from] certificate::GenError),
    #[error("the TLS library refuses the configuration: {0}")]
    Configuration(#[from] Error),
}

/// What an initiator and a responder with one identity use.
pub struct Configurations {
    pub client: ClientConfig,
    pub server: ServerConfig,
    /// The verifier of both, which knows whom it has verified.
    pub verifier: Arc<Libp2pVerifier>,
    /// The public key of the certificate that both show, as DER of SubjectPublicKeyInfo.
    pub public_key_info: Vec<u8>,
}

/// What one side shows to the other, and proves with.
pub struct OwnCertificate {
    pub certificate: CertificateDer<'static>,
    pub private_key: PrivateKeyDer<'static>,
    /// The certificate's public key, as DER of SubjectPublicKeyInfo.
    pub public_key_info: Vec<u8>,
}

/// Make a certificate, with a key of its own, for an identity.
pub fn own_certificate(keypair: &Keypair) -> Result<OwnCertificate, TlsError> {
    let (certificate, private_key) = certificate::generate(keypair)?;
    let public_key_info = public_key_info(&certificate)
        .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(OwnCertificate {
        certificate,
        private_key,
        public_key_info,
    })
}

/// The certificate lives as long as the configurations do. Whether initiators offer a key exchange that withstands quantum computers is
/// for the first argument to say; responders do what is offered.
pub fn configurations(post_quantum: bool, own: OwnCertificate) -> Result<Configurations, TlsError> {
    let OwnCertificate {
        certificate,
        private_key: key,
        public_key_info,
    } = own;
    let signer = provider().key_provider.load_private_key(key)?;
    let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(
        vec![certificate],
        signer,
    )));
    let verifier = Arc::new(Libp2pVerifier::default());
    let mut offered = provider();
    offered
        .kx_groups
        .retain(|group| post_quantum || group.name() != NamedGroup::X25519MLKEM768);

    let mut client = ClientConfig::builder_with_provider(Arc::new(offered))
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_cert_resolver(resolver.clone());
    client.alpn_protocols = vec![ALPN.to_vec()];
    // A session is always proven afresh: resumption would take the peer's word for who it was.
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_sni = false;

    let mut server = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(VERSIONS)?
        .with_client_cert_verifier(verifier.clone())
        .with_cert_resolver(resolver);
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;

    Ok(Configurations {
        client,
        server,
        verifier,
        public_key_info,
    })
}

/// A certificate's public key, as DER of SubjectPublicKeyInfo (RFC 5280, section 4.1).
pub fn public_key_info(certificate: &CertificateDer) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

/// The TLS 1.3 suites, AES first, and the hybrid key exchange X25519MLKEM768 before the classical ones.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// Seed the process's random number generator, which takes tens of milliseconds (it gathers entropy from the processor's
/// jitter), on a thread of its own: the first handshake need not wait for it.
pub fn warm_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| X25519MLKEM768.start());
    });
}

/// Both sides show exactly one certificate, self-signed, with the libp2p extension; who it names is told afterwards.
#[derive(Default)]
pub struct Libp2pVerifier {
    certificates: Certificates,
}

impl Libp2pVerifier {
    /// What this certificate, of a handshake that has ended well, says.
    pub fn claim_of(&self, certificate: &CertificateDer) -> Option<Arc<Claim>> {
        // Known, if it was not pushed out by others meanwhile, or too large.
        self.certificates.verify(certificate, UnixTime::now()).ok()
    }

    fn verify(
        &self,
        end_entity: &CertificateDer,
        rest: &[CertificateDer],
        now: UnixTime,
    ) -> Result<(), Error> {
        if !rest.is_empty() {
            return Err(Error::General(
                "a libp2p peer shows exactly one certificate".into(),
            ));
        }
        self.certificates.verify(end_entity, now)?;
        Ok(())
    }

    /// That the other side has the private key of the certificate it shows.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let claim = self.certificates.verify(certificate, UnixTime::now())?;
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(&claim.remote_key[..]),
            signed,
            &provider().signature_verification_algorithms,
        )
    }
}

impl fmt::Debug for Libp2pVerifier {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Libp2pVerifier")
    }
}

/// Not reached: only TLS 1.3 is offered and accepted.
fn refuse_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerIncompatible::Tls12NotOffered.into())
}

/// What TLS 1.3 signs with and libp2p allows (libp2p TLS specification, "Peer Authentication").
fn signature_schemes() -> Vec<SignatureScheme> {
    vec![
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
        SignatureScheme::RSA_PSS_SHA512,
        SignatureScheme::RSA_PSS_SHA384,
        SignatureScheme::RSA_PSS_SHA256,
    ]
}

impl ServerCertVerifier for Libp2pVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer,
        intermediates: &[CertificateDer],
        _server_name: &ServerName,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_schemes()
    }
}

impl ClientCertVerifier for Libp2pVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer,
        intermediates: &[CertificateDer],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_schemes()
    }
}

#[cfg(test)]
pub mod credentials;

#[cfg(test)]
mod tests;
