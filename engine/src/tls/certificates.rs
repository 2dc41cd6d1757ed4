//! Certificates that were verified. Whoever shows the same one again is not kept waiting for its signatures to be verified once
//! more: whether they are in order, and whom they name, is a function of the certificate's bytes.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;
use libp2p_tls::certificate;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How many are remembered.
const MAX_VERIFIED: usize = 256;

/// The largest that is remembered, in bytes: that of any honest peer. A remote may show one of 64 KiB, and end the handshake there.
const MAX_REMEMBERED: usize = 4096;

/// What a certificate in order says. That the remote has its private key, which makes it true of the remote, is for the handshake
/// to prove.
#[derive(Debug)]
pub struct Claim {
    /// As a multihash.
    pub peer_id: Vec<u8>,
    /// As DER of SubjectPublicKeyInfo.
    pub remote_key: Vec<u8>,
    /// In seconds since 1970.
    validity: RangeInclusive<i64>,
}

impl Claim {
    /// Verifies the self-signature, the identity key's signature in the extension, and the period of validity.
    fn new(certificate: &CertificateDer) -> Result<Self, Error> {
        let peer = certificate::parse(certificate)?.peer_id();
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let validity = certificate.validity();
        Ok(Self {
            peer_id: peer.to_bytes(),
            remote_key: certificate.public_key().raw.to_vec(),
            validity: validity.not_before.timestamp()..=validity.not_after.timestamp(),
        })
    }
}

pub struct Certificates {
    verified: Mutex<LruCache<Box<[u8]>, Arc<Claim>>>,
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            verified: Mutex::new(LruCache::new(MAX_VERIFIED)),
        }
    }
}

impl Certificates {
    /// What this certificate says, if it is one of a libp2p peer, and valid now.
    pub fn verify(&self, certificate: &CertificateDer, now: UnixTime) -> Result<Arc<Claim>, Error> {
        let known = self.verified().get(&certificate[..]).cloned();
        let claim = match known {
            Some(claim) => claim,
            None => self.remember(certificate, Claim::new(certificate)?),
        };
        // One that was valid when it was verified need not be any more.
        match i64::try_from(now.as_secs()) {
            Ok(now) if claim.validity.contains(&now) => Ok(claim),
            _ => Err(Error::InvalidCertificate(CertificateError::Expired)),
        }
    }

    fn remember(&self, certificate: &CertificateDer, claim: Claim) -> Arc<Claim> {
        let claim = Arc::new(claim);
        if certificate.len() <= MAX_REMEMBERED {
            self.verified()
                .insert(certificate[..].into(), claim.clone());
        }
        claim
    }

    fn verified(&self) -> MutexGuard<'_, LruCache<Box<[u8]>, Arc<Claim>>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use libp2p_identity::Keypair;

    use super::*;
    use crate::tls::credentials::{ALWAYS, Credentials, VECTORS, from_hex, signed_key};

    fn at(seconds: i64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds.try_into().unwrap()))
    }

    fn certificate_of(identity: &Keypair) -> CertificateDer<'static> {
        Credentials::honest(identity).chain.remove(0)
    }

    #[test]
    fn one_that_is_known_says_the_same_as_before() {
        let identity = Keypair::generate_ed25519();
        let certificate = certificate_of(&identity);
        let certificates = Certificates::default();
        let fresh = certificates.verify(&certificate, UnixTime::now()).unwrap();
        let known = certificates.verify(&certificate, UnixTime::now()).unwrap();
        assert!(Arc::ptr_eq(&fresh, &known));
        assert_eq!(known.peer_id, identity.public().to_peer_id().to_bytes());
        let key = crate::tls::public_key_info(&certificate);
        assert_eq!(Some(&known.remote_key), key.as_ref());
        assert_eq!(certificates.verified().len(), 1);
    }

    #[test]
    fn one_that_is_known_is_refused_outside_its_time() {
        let identity = Keypair::generate_ed25519();
        let content = |key: &[u8]| signed_key(&identity, &identity, key);
        let certificate = Credentials::made(&[&content], 2000..3000).chain.remove(0);
        let certificates = Certificates::default();
        let claim = certificates.verify(&certificate, UnixTime::now()).unwrap();
        let (first, last) = (*claim.validity.start(), *claim.validity.end());
        for (time, is_valid) in [
            (first - 1, false),
            (first, true),
            (last, true),
            (last + 1, false),
        ] {
            let verified = certificates.verify(&certificate, at(time));
            assert_eq!(verified.is_ok(), is_valid, "{time}");
        }
    }

    #[test]
    fn one_that_is_not_in_order_is_not_remembered() {
        let certificates = Certificates::default();
        for refused in [
            Credentials::claimed(),
            Credentials::transplanted(),
            Credentials::with_extensions(0),
            Credentials::valid_in(1975..2020),
            Credentials::valid_in(3999..4000),
        ] {
            for _ in 0..2 {
                let verified = certificates.verify(&refused.chain[0], UnixTime::now());
                assert!(verified.is_err());
            }
        }
        assert!(certificates.verified().is_empty());
    }

    #[test]
    fn one_that_differs_in_a_bit_is_another() {
        let certificate = certificate_of(&Keypair::generate_ed25519());
        let certificates = Certificates::default();
        let claim = certificates.verify(&certificate, UnixTime::now()).unwrap();
        for at in 0..certificate.len() {
            let mut changed = certificate.to_vec();
            changed[at] ^= 1;
            // Few bits mean nothing, so that it is in order all the same.
            let verified = certificates.verify(&changed.into(), UnixTime::now());
            assert!(!verified.is_ok_and(|it| Arc::ptr_eq(&it, &claim)));
        }
    }

    #[test]
    fn those_that_were_seen_last_are_remembered() {
        let certificates = Certificates::default();
        let often = certificate_of(&Keypair::generate_ed25519());
        let once = certificate_of(&Keypair::generate_ed25519());
        for certificate in [&often, &once] {
            certificates.verify(certificate, UnixTime::now()).unwrap();
        }
        for _ in 0..MAX_VERIFIED {
            let other = certificate_of(&Keypair::generate_ed25519());
            certificates.verify(&other, UnixTime::now()).unwrap();
            certificates.verify(&often, UnixTime::now()).unwrap();
        }
        assert_eq!(certificates.verified().len(), MAX_VERIFIED);
        assert!(certificates.verified().contains_key(&often[..]));
        assert!(!certificates.verified().contains_key(&once[..]));
    }

    #[test]
    fn one_far_larger_than_needed_is_not_remembered() {
        let identity = Keypair::generate_ed25519();
        let content = |key: &[u8]| signed_key(&identity, &identity, key);
        let large = Credentials::named(&"x".repeat(MAX_REMEMBERED), &[&content], ALWAYS);
        let certificates = Certificates::default();
        for _ in 0..2 {
            let claim = certificates.verify(&large.chain[0], UnixTime::now());
            assert_eq!(
                claim.unwrap().peer_id,
                identity.public().to_peer_id().to_bytes()
            );
        }
        assert!(certificates.verified().is_empty());
    }

    #[test]
    fn the_test_vectors_of_the_specification_are_judged_as_it_says() {
        for (name, peer, der) in VECTORS {
            let certificate = CertificateDer::from(from_hex(der));
            let claim = Certificates::default().verify(&certificate, UnixTime::now());
            let known = claim
                .ok()
                .map(|it| libp2p_identity::PeerId::from_bytes(&it.peer_id).unwrap());
            assert_eq!(known.map(|it| it.to_string()).as_deref(), *peer, "{name}");
        }
    }
}
