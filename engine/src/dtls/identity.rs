//! A node's identity as DTLS presents it, and the settings that go with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, NamedGroup};
use libp2p_identity::Keypair;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::MAX_AMPLIFICATION;
use super::library::Library;
use super::path::{BASE_SIZE, Path};
use crate::command::Peer;
use crate::identity::IdentityError;
use crate::tls::{Certificates, Claim, OwnCertificate};

/// How long a flight waits for its answer before it is sent again; doubled each time (RFC 9147, section 5.8.2).
const FLIGHT_TIMEOUT: Duration = Duration::from_millis(400);

/// How often at most: the attempt's own end, which JavaScript decides, comes before that.
const FLIGHT_RETRIES: usize = 8;

/// Longer than any attempt that JavaScript allows.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Records that may wait to be taken out of the DTLS library: they are taken at once, so that it never comes to that.
pub const MAX_RECORDS: usize = 64;

/// Configurations that are kept for the sessions to come. Paths have few sizes: beyond that one is made for its session alone.
const MAX_CONFIGS: usize = 16;

/// What a responder's first flight has beside its certificate; in DTLS 1.2 it is less.
const FLIGHT_BESIDE_CERTIFICATE: usize = 400;

/// Settings of DTLS sessions; JavaScript decides them all.
#[derive(Clone, Debug)]
pub struct DtlsSettings {
    pub idle_timeout: Duration,
    /// Zero: nothing is sent to keep a session alive.
    pub keep_alive: Duration,
    pub max_streams: u16,
    pub stream_receive_window: u32,
    pub receive_window: u32,
    pub send_window: usize,
    pub datagram_receive_buffer: usize,
    pub datagram_send_buffer: usize,
    /// How many bytes of a stream may be under way to JavaScript, or wait there.
    pub stream_receive_queue: usize,
    /// The largest UDP payload that is sent, if the path is found to carry it.
    pub max_packet_size: u16,
    pub allow_dtls12: bool,
}

/// Everything a DTLS session is made from, on either side.
pub struct DtlsIdentity {
    pub settings: DtlsSettings,
    certificate: DtlsCertificate,
    public_key_info: Vec<u8>,
    certificates: Certificates,
    /// By packet size, and whether the address is validated: with each new one the DTLS library tries all of its cryptography, which
    /// takes as long as the rest of a handshake.
    configs: Mutex<HashMap<(usize, bool), Arc<Config>>>,
}

impl DtlsIdentity {
    /// `private_key` is protobuf-encoded, as libp2p stores keys.
    pub fn new(private_key: &[u8], settings: DtlsSettings) -> Result<Self, IdentityError> {
        let keypair = Keypair::from_protobuf_encoding(private_key)?;
        Self::with_certificate(crate::tls::own_certificate(&keypair)?, settings)
    }

    pub fn with_certificate(
        own: OwnCertificate,
        settings: DtlsSettings,
    ) -> Result<Self, IdentityError> {
        let identity = Self {
            settings,
            certificate: DtlsCertificate {
                certificate: own.certificate.to_vec(),
                private_key: own.private_key.secret_der().to_vec(),
            },
            public_key_info: own.public_key_info,
            certificates: Certificates::default(),
            configs: Mutex::default(),
        };
        // A setting that does not fit shows here, not in a session.
        let most = usize::from(identity.settings.max_packet_size);
        identity.config(BASE_SIZE.min(most), false)?;
        Ok(identity)
    }

    /// The public key of the certificate that this side shows, as DER of SubjectPublicKeyInfo.
    pub fn public_key_info(&self) -> &[u8] {
        &self.public_key_info
    }

    /// Whether a client that has not proved its address can be sent the whole answer to a ClientHello of so many bytes.
    pub fn can_answer(&self, client_hello: usize) -> bool {
        self.certificate.certificate.len() + FLIGHT_BESIDE_CERTIFICATE
            <= client_hello * MAX_AMPLIFICATION
    }

    /// How large packets may be on the path to a peer, and up to what that may be searched for.
    pub fn path(&self, peer: Peer) -> Path {
        let most = usize::from(self.settings.max_packet_size);
        let base = BASE_SIZE.min(most).min(peer.max_udp_payload.into());
        Path::new(base, most.min(peer.max_probe_payload.into()))
    }

    /// Judge a certificate by the libp2p TLS specification.
    pub fn verify(&self, der: &[u8]) -> Result<Arc<Claim>, String> {
        self.certificates
            .verify(&CertificateDer::from(der), UnixTime::now())
            .map_err(|error| format!("the certificate is not one of a libp2p peer: {error}"))
    }

    /// A responder, or after `set_active` an initiator.
    pub fn dtls(
        &self,
        now: Instant,
        packet_size: usize,
        validate_address: bool,
    ) -> Result<Library, dimpl::Error> {
        let config = self.config(packet_size, validate_address)?;
        let certificate = self.certificate.clone();
        let dtls = if self.settings.allow_dtls12 {
            Dtls::new_auto(config, certificate, now)
        } else {
            Dtls::new_13(config, certificate, now)
        };
        Ok(dtls.into())
    }

    fn config(
        &self,
        packet_size: usize,
        validate_address: bool,
    ) -> Result<Arc<Config>, dimpl::Error> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (packet_size, validate_address);
        if let Some(config) = configs.get(&key) {
            return Ok(config.clone());
        }
        let config = Arc::new(Self::new_config(packet_size, validate_address)?);
        if configs.len() < MAX_CONFIGS {
            configs.insert(key, config.clone());
        }
        Ok(config)
    }

    fn new_config(packet_size: usize, validate_address: bool) -> Result<Config, dimpl::Error> {
        Config::builder()
            .with_crypto_provider(super::crypto::provider())
            .mtu(packet_size)
            .max_queue_tx(MAX_RECORDS)
            .max_queue_rx(MAX_RECORDS)
            // A round trip more. Without it, who has not proved its address gets no more than three times the bytes it has sent,
            // see `DtlsSession`.
            .use_server_cookie(validate_address)
            .require_client_certificate(true)
            .flight_start_rto(FLIGHT_TIMEOUT)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            .kx_groups(&[NamedGroup::X25519, NamedGroup::Secp256r1])
            .build()
    }
}
