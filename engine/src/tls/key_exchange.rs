//! The key exchange that initiators offer, X25519MLKEM768, of which one can be begun ahead: it has two key pairs to make, and while a
//! first flight is made, a dial waits.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SupportedKxGroup};
use rustls::{Error, NamedGroup, ProtocolVersion};

/// The one of this process: an exchange is bound to nobody before it is completed, so the sessions of all ports can share it.
pub static KEY_EXCHANGE: KeyExchange = KeyExchange {
    begun: Mutex::new(None),
};

pub struct KeyExchange {
    /// Taken by the first who needs one, so that none is used twice.
    begun: Mutex<Option<Box<dyn ActiveKeyExchange>>>,
}

impl KeyExchange {
    /// Begin an exchange for the next who needs one, if there is none yet.
    pub fn begin_ahead(&self) {
        if self.begun().is_some() {
            return;
        }
        // Others need not wait for it. Without, they begin their own, and find out what is wrong.
        if let Ok(exchange) = X25519MLKEM768.start() {
            self.begun().get_or_insert(exchange);
        }
    }

    fn begun(&self) -> MutexGuard<'_, Option<Box<dyn ActiveKeyExchange>>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SupportedKxGroup for KeyExchange {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let begun = self.begun().take();
        begun.map_or_else(|| X25519MLKEM768.start(), Ok)
    }

    fn start_and_complete(&self, peer_pub_key: &[u8]) -> Result<CompletedKeyExchange, Error> {
        X25519MLKEM768.start_and_complete(peer_pub_key)
    }

    fn name(&self) -> NamedGroup {
        X25519MLKEM768.name()
    }

    fn fips(&self) -> bool {
        X25519MLKEM768.fips()
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        X25519MLKEM768.usable_for_version(version)
    }
}

impl fmt::Debug for KeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("KeyExchange")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> KeyExchange {
        KeyExchange {
            begun: Mutex::new(None),
        }
    }

    #[test]
    fn one_that_was_begun_ahead_is_used_once() {
        let group = empty();
        group.begin_ahead();
        let ahead = group.begun().as_ref().unwrap().pub_key().to_vec();
        let [first, second] = [(), ()].map(|()| group.start().unwrap().pub_key().to_vec());
        assert_eq!(first, ahead);
        assert_ne!(second, ahead);
    }

    #[test]
    fn there_is_never_more_than_one_ahead() {
        let group = empty();
        group.begin_ahead();
        let ahead = group.begun().as_ref().unwrap().pub_key().to_vec();
        group.begin_ahead();
        assert_eq!(group.start().unwrap().pub_key(), ahead);
        assert!(group.begun().is_none());
    }

    #[test]
    fn one_that_was_begun_ahead_comes_to_the_responders_secret() {
        let group = empty();
        group.begin_ahead();
        let initiator = group.start().unwrap();
        let responder = group.start_and_complete(initiator.pub_key()).unwrap();
        let secret = initiator.complete(&responder.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), responder.secret.secret_bytes());
    }
}
