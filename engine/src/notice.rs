//! Events that are rare, or carry more than numbers.

use std::net::{IpAddr, SocketAddr};

#[derive(Debug)]
pub enum Notice {
    /// A datagram that belongs to no scheme (yet): PSEC's, a stranger's, or of a flow that JavaScript serves itself.
    Raw {
        remote: SocketAddr,
        local: Option<IpAddr>,
        data: Vec<u8>,
        /// What the engine has answered to it, a proposal, and the number of the guest.
        answer: Option<(u32, Vec<u8>)>,
    },
    /// A stranger that was held off by the shield has proved that it receives at its address: its proposal, with
    /// `data` as initiation packet, what was answered to that, and the scheme's first packet, which has the proof.
    Validated {
        remote: SocketAddr,
        local: Option<IpAddr>,
        proposal: Vec<u8>,
        answer: Vec<u8>,
        data: Vec<u8>,
    },
    /// A datagram that JavaScript has to send, on an endpoint without a socket of its own.
    Transmit { remote: SocketAddr, data: Vec<u8> },
    /// The handshake is done, and this is the peer it proved: its peer id as a multihash. With it the public keys of the
    /// certificates that both sides showed, as DER of SubjectPublicKeyInfo (RFC 5280, section 4.1).
    Secured {
        peer_id: Vec<u8>,
        local_key: Vec<u8>,
        remote_key: Vec<u8>,
    },
    /// The session is over.
    Closed { cause: CloseCause, message: String },
    /// A stream that was asked for can't be opened any more.
    OpenFailed { token: u32 },
    /// The endpoint is gone, and its port free. `error` if that was not asked for.
    EndpointClosed { error: Option<String> },
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// This side closed it
    Local,
    /// The remote closed it in order
    Remote,
    /// The remote closed it with an application error
    RemoteError,
    /// Nothing heard for too long
    TimedOut,
    /// The remote does not know the session any more
    Reset,
    /// The handshake failed, or a rule of the protocol was broken
    Failed,
}

impl CloseCause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::RemoteError => "remote-error",
            Self::TimedOut => "timed-out",
            Self::Reset => "reset",
            Self::Failed => "failed",
        }
    }
}

impl Notice {
    /// Whether it counts in the bound on raw datagrams that wait for JavaScript.
    pub fn is_raw(&self) -> bool {
        matches!(
            self,
            Self::Raw { .. } | Self::Validated { .. } | Self::Transmit { .. }
        )
    }
}
