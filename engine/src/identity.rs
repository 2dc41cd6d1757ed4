//! A node's identity as the schemes present it: a libp2p TLS certificate, made once, and the settings that go with it.

use std::sync::Arc;
use std::time::Duration;

use libp2p_identity::Keypair;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};

use rustls::pki_types::CertificateDer;

use crate::congestion::Goodbye;
use crate::tls::{Claim, Configurations, Libp2pVerifier, OwnCertificate};

/// What sessions of a scheme are made from, on either side.
#[derive(Clone)]
pub enum Identity {
    Quic(Arc<QuicIdentity>),
    #[cfg(feature = "dtls")]
    Dtls(Arc<crate::dtls::DtlsIdentity>),
}

/// Settings of QUIC sessions; JavaScript decides them all.
#[derive(Clone, Debug)]
pub struct QuicSettings {
    pub idle_timeout: Duration,
    /// Zero: nothing is sent to keep a session alive.
    pub keep_alive: Duration,
    pub max_streams: u32,
    pub stream_receive_window: u32,
    pub receive_window: u32,
    pub send_window: u32,
    pub datagram_receive_buffer: usize,
    pub datagram_send_buffer: usize,
    /// How many bytes of one stream may be under way to JavaScript, or wait there.
    pub stream_receive_queue: usize,
    /// Whether initiators offer X25519MLKEM768.
    pub post_quantum: bool,
}

/// Everything a QUIC session is made from, on either side.
pub struct QuicIdentity {
    settings: QuicSettings,
    client: Arc<QuicClientConfig>,
    server: ServerConfig,
    verifier: Arc<Libp2pVerifier>,
    public_key_info: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the private key can't be read: {0}")]
    Key(#[from] libp2p_identity::DecodingError),
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    #[error("the cipher suites do not fit QUIC: {0}")]
    Cipher(#[from] quinn_proto::crypto::rustls::NoInitialCipherSuite),
    #[cfg(feature = "dtls")]
    #[error("the DTLS library refuses the configuration: {0}")]
    Dtls(#[from] dimpl::Error),
}

impl QuicIdentity {
    /// `private_key` is protobuf-encoded, as libp2p stores keys.
    pub fn new(private_key: &[u8], settings: QuicSettings) -> Result<Self, IdentityError> {
        let keypair = Keypair::from_protobuf_encoding(private_key)?;
        Self::with_certificate(crate::tls::own_certificate(&keypair)?, settings)
    }

    pub fn with_certificate(
        own: OwnCertificate,
        settings: QuicSettings,
    ) -> Result<Self, IdentityError> {
        let tls = crate::tls::configurations(settings.post_quantum, own)?;
        Self::with_configurations(tls, settings)
    }

    pub fn with_configurations(
        tls: Configurations,
        settings: QuicSettings,
    ) -> Result<Self, IdentityError> {
        Ok(Self {
            settings,
            client: Arc::new(tls.client.try_into()?),
            server: ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls.server)?)),
            verifier: tls.verifier,
            public_key_info: tls.public_key_info,
        })
    }

    pub fn stream_receive_queue(&self) -> usize {
        self.settings.stream_receive_queue
    }

    /// The public key of the certificate that this side shows, as DER of SubjectPublicKeyInfo.
    pub fn public_key_info(&self) -> &[u8] {
        &self.public_key_info
    }

    /// What this certificate, of a handshake that has ended well, says.
    pub fn claim_of(&self, certificate: &CertificateDer) -> Option<Arc<Claim>> {
        self.verifier.claim_of(certificate)
    }

    pub fn client_config(&self, max_udp_payload: u16, goodbye: &Goodbye) -> ClientConfig {
        let mut config = ClientConfig::new(self.client.clone());
        config.transport_config(self.transport(max_udp_payload, goodbye));
        config
    }

    pub fn server_config(&self, max_udp_payload: u16, goodbye: &Goodbye) -> Arc<ServerConfig> {
        let mut config = self.server.clone();
        config.transport_config(self.transport(max_udp_payload, goodbye));
        Arc::new(config)
    }

    /// For first packets that nobody expects yet. All configurations have the key of the proofs of address in common, and a proof is
    /// valid for `lifetime`.
    pub fn validating_config(&self, lifetime: Duration) -> Arc<ServerConfig> {
        let mut config = self.server.clone();
        config.retry_token_lifetime(lifetime);
        Arc::new(config)
    }

    fn transport(&self, max_udp_payload: u16, goodbye: &Goodbye) -> Arc<TransportConfig> {
        let settings = &self.settings;
        let mut config = TransportConfig::default();
        config
            .max_idle_timeout(IdleTimeout::try_from(settings.idle_timeout).ok())
            .keep_alive_interval(Some(settings.keep_alive).filter(|it| !it.is_zero()))
            .max_concurrent_bidi_streams(settings.max_streams.into())
            // libp2p has none (its quic-v1 specification, "Streams").
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(settings.stream_receive_window.into())
            .receive_window(settings.receive_window.into())
            .send_window(settings.send_window.into())
            .datagram_receive_buffer_size(Some(settings.datagram_receive_buffer))
            .datagram_send_buffer_size(settings.datagram_send_buffer)
            .congestion_controller_factory(Arc::new(goodbye.clone()))
            .allow_spin(false);
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(max_udp_payload);
        config.mtu_discovery_config(Some(discovery));
        Arc::new(config)
    }
}
