//! A session with a responder that was dialled before is resumed (RFC 8446, section 2.2): nobody signs, nor shows and verifies a
//! certificate, and the first flight is one packet. Each side proves instead that it has the secret that came of a handshake with
//! certificates; whom these named is kept beside the secret.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashlink::LruCache;
use rustls::NamedGroup;
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

/// Of how many responders a ticket is kept, the last of each.
const MAX_TICKETS: usize = 128;

/// For how long after a handshake with certificates its session can be resumed, also by what was resumed from it: so long the secrecy
/// of all of them rests on that handshake's post-quantum exchange.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// What a responder knows a session by, with the session's secret.
pub struct Ticket {
    session: Tls13ClientSessionValue,
    /// When the handshake with certificates began.
    proven: Instant,
}

/// The tickets that an initiator has got. Each is used once, so that nobody can tell by it that two dials are of one peer.
pub struct Tickets {
    by_remote: Mutex<LruCache<SocketAddr, Ticket>>,
}

impl Default for Tickets {
    fn default() -> Self {
        Self {
            by_remote: Mutex::new(LruCache::new(MAX_TICKETS)),
        }
    }
}

impl Tickets {
    /// The ticket for a dial of whoever is at that address: another that has come there does not know it, and makes a handshake with
    /// certificates of it.
    pub fn take(&self, remote: SocketAddr, now: Instant) -> Option<Ticket> {
        let ticket = self.by_remote().remove(&remote)?;
        (now.saturating_duration_since(ticket.proven) < LIFETIME).then_some(ticket)
    }

    fn keep(&self, remote: SocketAddr, ticket: Ticket) {
        self.by_remote().insert(remote, ticket);
    }

    fn by_remote(&self) -> MutexGuard<'_, LruCache<SocketAddr, Ticket>> {
        self.by_remote
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one dial resumes from, and where the tickets go that it is given.
struct Dial {
    tickets: Arc<Tickets>,
    remote: SocketAddr,
    proven: Instant,
    offered: Mutex<Option<Tls13ClientSessionValue>>,
}

/// The resumption of one dial, begun now.
pub fn of_dial(
    tickets: Arc<Tickets>,
    remote: SocketAddr,
    ticket: Option<Ticket>,
    now: Instant,
) -> Resumption {
    // If it is not accepted, the session is proven afresh, and its own tickets are good for longer than this says.
    let (proven, offered) = match ticket {
        Some(Ticket { session, proven }) => (proven, Some(session)),
        None => (now, None),
    };
    Resumption::store(Arc::new(Dial {
        tickets,
        remote,
        proven,
        offered: Mutex::new(offered),
    }))
}

impl ClientSessionStore for Dial {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    /// The configuration says which group is offered.
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, session: Tls13ClientSessionValue) {
        let ticket = Ticket {
            session,
            proven: self.proven,
        };
        self.tickets.keep(self.remote, ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.offered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Dial")
    }
}
