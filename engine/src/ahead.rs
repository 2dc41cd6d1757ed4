//! The next dial's connection, begun before anybody dials: to make two key pairs, a ClientHello and the first keys takes a good part of
//! a dial. Sans-IO.
//!
//! Nobody knows yet whom it will reach. quinn wants to know from the beginning, and takes [`STAND_IN`] for the remote: where packets are
//! given to quinn, and taken from it, that has to be put in the remote's place.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::{ConnectError, Connection, ConnectionHandle, Endpoint, EndpointEvent};

use crate::identity::QuicIdentity;
use crate::quic::Terms;

/// How long a dial is left alone before the next one's connection is begun. On short paths the handshake is over by then; on all others
/// it has to wait for the remote anyway.
const DIAL_TIME: Duration = Duration::from_millis(10);

/// Nobody is there: RFC 6666 has packets to 100::/64 discarded.
pub const STAND_IN: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x0100, 0, 0, 0, 0, 0, 0, 0)), 1);

/// What a dial's connection is made with.
#[derive(Clone)]
pub struct Settings {
    pub identity: Arc<QuicIdentity>,
    pub max_udp_payload: u16,
}

impl Settings {
    fn are(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.identity, &other.identity)
            && self.max_udp_payload == other.max_udp_payload
    }

    /// Begin a connection; nothing of it is sent.
    pub fn connect(
        self,
        now: Instant,
        remote: SocketAddr,
        endpoint: &mut Endpoint,
    ) -> Result<Begun, ConnectError> {
        let terms = Terms::new(self.identity);
        let config = terms
            .identity
            .client_config(self.max_udp_payload, &terms.goodbye);
        // The name goes into SNI, which libp2p does not use (its TLS specification).
        let (handle, connection) = endpoint.connect(now, config, remote, "l")?;
        Ok(Begun {
            terms,
            handle,
            connection,
        })
    }
}

pub struct Begun {
    pub terms: Terms,
    pub handle: ConnectionHandle,
    pub connection: Connection,
}

/// One connection, like that of the last dial.
#[derive(Default)]
pub struct Ahead {
    /// When to begin it.
    plan: Option<(Instant, Settings)>,
    begun: Option<(Settings, Begun)>,
}

impl Ahead {
    /// There is a dial, and another one may follow.
    pub fn handle_dial(&mut self, now: Instant, settings: Settings) {
        // Who dials all the time shall not have to do without.
        let at = self.poll_timeout().unwrap_or(now + DIAL_TIME);
        self.plan = Some((at, settings));
    }

    /// The connection for a dial that is made with these.
    pub fn take(&mut self, settings: &Settings) -> Option<Begun> {
        let (_, begun) = self.begun.take_if(|(its, _)| its.are(settings))?;
        Some(begun)
    }

    pub fn handle_timeout(&mut self, now: Instant, endpoint: &mut Endpoint) {
        let Some((_, settings)) = self.plan.take_if(|(at, _)| now >= *at) else {
            return;
        };
        if self
            .begun
            .as_ref()
            .is_some_and(|(its, _)| its.are(&settings))
        {
            return;
        }
        self.forget(endpoint);
        // Without, the dial begins its own, and finds out what is wrong.
        if let Ok(begun) = settings.clone().connect(now, STAND_IN, endpoint) {
            self.begun = Some((settings, begun));
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.plan.as_ref().map(|(at, _)| *at)
    }

    /// Nobody will dial any more.
    pub fn end(&mut self, endpoint: &mut Endpoint) {
        self.plan = None;
        self.forget(endpoint);
    }

    fn forget(&mut self, endpoint: &mut Endpoint) {
        if let Some((_, begun)) = self.begun.take() {
            endpoint.handle_event(begun.handle, EndpointEvent::drained());
        }
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::EndpointConfig;

    use super::*;
    use crate::core::tests::quic_settings;
    use crate::tls::own_certificate;

    fn endpoint() -> Endpoint {
        Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None)
    }

    fn settings(max_udp_payload: u16) -> Settings {
        let own = own_certificate(&libp2p_identity::Keypair::generate_ed25519()).unwrap();
        let identity = QuicIdentity::with_certificate(own, quic_settings()).unwrap();
        Settings {
            identity: Arc::new(identity),
            max_udp_payload,
        }
    }

    /// Everything that is due.
    fn pass(ahead: &mut Ahead, endpoint: &mut Endpoint) {
        while let Some(at) = ahead.poll_timeout() {
            ahead.handle_timeout(at, endpoint);
        }
    }

    #[test]
    fn a_dial_has_one_begun_for_the_next_which_has_it_alone() {
        let (mut ahead, mut endpoint, settings) = (Ahead::default(), endpoint(), settings(1452));
        let now = Instant::now();
        assert!(ahead.take(&settings).is_none());
        ahead.handle_dial(now, settings.clone());
        ahead.handle_timeout(now, &mut endpoint);
        assert!(ahead.take(&settings).is_none());
        assert_eq!(ahead.poll_timeout(), Some(now + DIAL_TIME));
        pass(&mut ahead, &mut endpoint);
        assert!(ahead.take(&settings).is_some());
        assert!(ahead.take(&settings).is_none());
    }

    #[test]
    fn one_that_is_made_otherwise_is_not_taken() {
        let (mut ahead, mut endpoint, used) = (Ahead::default(), endpoint(), settings(1452));
        ahead.handle_dial(Instant::now(), used.clone());
        pass(&mut ahead, &mut endpoint);
        let other_size = Settings {
            max_udp_payload: 1432,
            ..used.clone()
        };
        assert!(ahead.take(&other_size).is_none());
        assert!(ahead.take(&settings(1452)).is_none());
        assert!(ahead.take(&used).is_some());
    }

    #[test]
    fn there_is_one_at_most_like_that_of_the_last_dial() {
        let (mut ahead, mut endpoint) = (Ahead::default(), endpoint());
        let [first, last] = [settings(1452), settings(1452)];
        for settings in [&first, &first, &last] {
            ahead.handle_dial(Instant::now(), settings.clone());
            pass(&mut ahead, &mut endpoint);
            assert_eq!(endpoint.open_connections(), 1);
        }
        assert!(ahead.take(&first).is_none());
        assert!(ahead.take(&last).is_some());
    }

    #[test]
    fn dials_that_follow_each_other_do_not_put_it_off() {
        let (mut ahead, settings) = (Ahead::default(), settings(1452));
        let now = Instant::now();
        ahead.handle_dial(now, settings.clone());
        ahead.handle_dial(now + DIAL_TIME / 2, settings);
        assert_eq!(ahead.poll_timeout(), Some(now + DIAL_TIME));
    }

    #[test]
    fn nothing_is_left_at_the_end() {
        let (mut ahead, mut endpoint, settings) = (Ahead::default(), endpoint(), settings(1452));
        ahead.handle_dial(Instant::now(), settings.clone());
        pass(&mut ahead, &mut endpoint);
        ahead.handle_dial(Instant::now(), settings.clone());
        ahead.end(&mut endpoint);
        assert_eq!(endpoint.open_connections(), 0);
        assert_eq!(ahead.poll_timeout(), None);
        assert!(ahead.take(&settings).is_none());
    }
}
