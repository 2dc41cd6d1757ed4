//! What JavaScript asks of an endpoint. Sessions are numbered by JavaScript, streams by their scheme.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use crate::identity::{Identity, QuicIdentity};
use crate::reception::Welcome;
use crate::shield::Policy;

pub enum Command {
    /// Send a datagram outside every scheme.
    SendRaw {
        remote: SocketAddr,
        local: Option<IpAddr>,
        data: Vec<u8>,
    },
    /// Treat a datagram as if it had just arrived, for a flow that was handed over.
    Inject {
        remote: SocketAddr,
        data: Vec<u8>,
    },
    /// JavaScript serves this remote: all its datagrams are wanted.
    Claim {
        remote: SocketAddr,
    },
    /// Whether JavaScript, beside the sessions, wants what none of them takes of a flow that was handed over.
    Share {
        remote: SocketAddr,
        shared: bool,
    },
    /// JavaScript no longer serves this remote.
    Release {
        remote: SocketAddr,
    },
    /// Have strangers prove that they receive at their address before JavaScript hears of them; `None` to trust them again.
    Shield(Option<(Arc<QuicIdentity>, Policy)>),
    /// Answer strangers' proposals like this, and begin their handshakes, at the same time as JavaScript is told; `None` to leave that
    /// to JavaScript again.
    Welcome(Option<Welcome>),
    /// JavaScript has no use for a welcome guest.
    Dismiss {
        remote: SocketAddr,
        guest: u32,
    },
    /// The scheme was agreed on: take the flow over.
    Proceed {
        session: u32,
        /// Whether the remote may have the first flight already.
        sent: bool,
        send_first_flight: bool,
        early: Vec<Vec<u8>>,
    },
    /// Take the flow over as the responder; with the session that has begun, if it is a welcome guest's.
    Respond {
        session: u32,
        identity: Identity,
        peer: Peer,
        early: Vec<Vec<u8>>,
        /// Who the initiator claims to be, as a multihash, if that is known.
        claimed_id: Option<Vec<u8>>,
        /// Have the initiator prove that it receives at its address, if its scheme does not see to that by itself.
        validate_address: bool,
    },
    OpenStream {
        session: u32,
        token: u32,
    },
    CancelOpen {
        session: u32,
        token: u32,
    },
    Write {
        session: u32,
        stream: u64,
        data: Bytes,
    },
    Finish {
        session: u32,
        stream: u64,
    },
    Reset {
        session: u32,
        stream: u64,
    },
    Stop {
        session: u32,
        stream: u64,
    },
    /// JavaScript has passed this many of a stream's bytes on, and takes as many more.
    Consumed {
        session: u32,
        stream: u64,
        bytes: usize,
    },
    Datagram {
        session: u32,
        payload: Bytes,
    },
    /// Give an initiator up that was not told to proceed. `sent`: the remote may have its first flight.
    Cancel {
        session: u32,
        sent: bool,
    },
    /// `orderly`: deliver what was written to finished streams first.
    Close {
        session: u32,
        code: u32,
        orderly: bool,
    },
    /// Close every session, then the port.
    Shutdown,
}

impl Command {
    /// Whether a session may say goodbye for it.
    pub fn ends_session(&self) -> bool {
        matches!(self, Self::Cancel { .. } | Self::Close { .. })
    }
}

/// The other end of a flow.
#[derive(Clone, Copy)]
pub struct Peer {
    pub remote: SocketAddr,
    pub local: Option<IpAddr>,
    /// The largest UDP payload that its path is assumed to carry.
    pub max_udp_payload: u16,
    /// Up to which size a scheme may search for what it carries.
    pub max_probe_payload: u16,
    /// The number of the guest that it is, if its proposal was answered here.
    pub guest: Option<u32>,
}
