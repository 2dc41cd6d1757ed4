//! What a port asks of a session, whichever scheme it is of. Sans-IO.
//!
//! After any input the owner calls [`Session::process`], then [`Session::poll_transmit`] until it returns `None`.

use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Endpoint, Transmit};

#[cfg(feature = "dtls")]
use crate::dtls::DtlsSession;
use crate::events::Events;
use crate::quic::QuicSession;

/// The application error code of a session that was given up: 0 would read as an orderly close.
pub const ABANDONED: u32 = 1;

/// The methods named like commands do what [`crate::command::Command`] says of them.
pub trait Session: Send {
    /// Whether it is an initiator that waits for [`Self::proceed`].
    fn is_prepared(&self) -> bool;
    /// Let a prepared initiator go; returns its first flight, unless that was `sent` and the remote wants another one.
    fn proceed(&mut self, sent: bool) -> Vec<Vec<u8>>;
    /// Let nothing leave, not even a goodbye.
    fn mute(&mut self);
    /// Whether it is over for good and can be forgotten.
    fn is_drained(&self) -> bool;
    /// Whether it was closed so early that the remote can't be told yet.
    fn is_parting(&self) -> bool;
    /// Whether it has something that JavaScript had no room for.
    fn is_starved(&self) -> bool;
    /// JavaScript has room again.
    fn resume(&mut self, out: &mut Events, full: &dyn Fn(&Events) -> bool);

    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&mut self) -> Option<Instant>;
    /// Take what happened in the session. `endpoint` is that of the port's QUIC sessions.
    fn process(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        out: &mut Events,
        full: &dyn Fn(&Events) -> bool,
    );
    fn poll_transmit(
        &mut self,
        now: Instant,
        max_datagrams: usize,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit>;

    fn open_stream(&mut self, token: u32, out: &mut Events);
    fn cancel_open(&mut self, token: u32);
    fn write(&mut self, stream: u64, data: Bytes, out: &mut Events);
    fn finish(&mut self, stream: u64, out: &mut Events);
    fn reset(&mut self, stream: u64);
    fn stop(&mut self, stream: u64);
    fn consumed(&mut self, stream: u64, bytes: usize, out: &mut Events, full: bool);
    fn datagram(&mut self, payload: Bytes, out: &mut Events);
    fn cancel(&mut self, sent: bool, now: Instant, out: &mut Events);
    fn close(&mut self, code: u32, orderly: bool, now: Instant, out: &mut Events);
}

/// A session as the port's tables hold it: packets reach each scheme's sessions in their own way.
pub enum AnySession {
    Quic(Box<QuicSession>),
    #[cfg(feature = "dtls")]
    Dtls(Box<DtlsSession>),
}

impl AnySession {
    pub fn get(&mut self) -> &mut dyn Session {
        match self {
            Self::Quic(session) => session.as_mut(),
            #[cfg(feature = "dtls")]
            Self::Dtls(session) => session.as_mut(),
        }
    }
}
