//! The cryptography of DTLS: that of `dimpl`'s aws-lc-rs provider, save for how a record's number is hidden (RFC 9147, section 4.2.3).
//! The provider makes a key of aws-lc for each record to encrypt one block, which takes as long as the rest of a small record.

use std::sync::LazyLock;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use dimpl::CryptoError;
use dimpl::crypto::{
    Cipher, CryptoProvider, Dtls13CipherSuite, HashAlgorithm, SupportedDtls13CipherSuite, aws_lc_rs,
};

pub fn provider() -> CryptoProvider {
    static SUITES: LazyLock<Vec<&'static dyn SupportedDtls13CipherSuite>> = LazyLock::new(|| {
        let suites = aws_lc_rs::default_provider().dtls13_cipher_suites;
        suites
            .iter()
            .map(|suite| match suite.suite() {
                Dtls13CipherSuite::AES_128_GCM_SHA256 => leak(*suite, mask::<Aes128>),
                Dtls13CipherSuite::AES_256_GCM_SHA384 => leak(*suite, mask::<Aes256>),
                _ => *suite,
            })
            .collect()
    });
    CryptoProvider {
        dtls13_cipher_suites: SUITES.as_slice(),
        ..aws_lc_rs::default_provider()
    }
}

type Mask = fn(&[u8], &[u8; 16]) -> [u8; 16];

/// A suite that computes the mask of record numbers in this way.
#[derive(Debug)]
struct Masking {
    suite: &'static dyn SupportedDtls13CipherSuite,
    mask: Mask,
}

/// Once for each suite of the process.
fn leak(
    suite: &'static dyn SupportedDtls13CipherSuite,
    mask: Mask,
) -> &'static dyn SupportedDtls13CipherSuite {
    Box::leak(Box::new(Masking { suite, mask }))
}

fn mask<A: BlockCipherEncrypt + KeyInit>(key: &[u8], sample: &[u8; 16]) -> [u8; 16] {
    let cipher = A::new_from_slice(key).expect("the suite's own key length");
    let mut block = aes::cipher::Block::<A>::try_from(&sample[..]).expect("a block of AES");
    cipher.encrypt_block(&mut block);
    block.as_slice().try_into().expect("a block of AES")
}

impl SupportedDtls13CipherSuite for Masking {
    fn suite(&self) -> Dtls13CipherSuite {
        self.suite.suite()
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.suite.hash_algorithm()
    }

    fn key_len(&self) -> usize {
        self.suite.key_len()
    }

    fn iv_len(&self) -> usize {
        self.suite.iv_len()
    }

    fn tag_len(&self) -> usize {
        self.suite.tag_len()
    }

    fn min_protected_fragment_len(&self) -> usize {
        self.suite.min_protected_fragment_len()
    }

    fn create_cipher(&self, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
        self.suite.create_cipher(key)
    }

    fn encrypt_sn(&self, key: &[u8], sample: &[u8; 16]) -> [u8; 16] {
        (self.mask)(key, sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_those_of_the_library() {
        let ours = provider().dtls13_cipher_suites;
        let theirs = aws_lc_rs::default_provider().dtls13_cipher_suites;
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(ours.suite(), theirs.suite());
            for byte in 0..=255 {
                let key = vec![byte; ours.key_len()];
                let sample = [byte ^ 0x5a; 16];
                assert_eq!(
                    ours.encrypt_sn(&key, &sample),
                    theirs.encrypt_sn(&key, &sample)
                );
            }
        }
    }
}
