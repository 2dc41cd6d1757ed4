//! The native core of libp2p-psec: UDP ports, their flow tables, and the security schemes on them.
//!
//! JavaScript asks by commands and hears by events; but for the beginning of a dial, neither side waits for the other. A port's thread owns everything
//! that belongs to it; what protocols do is decided in sans-IO parts ([`core`], [`quic`], [`dtls`]), what policy wants is decided
//! in JavaScript.

mod ahead;
mod command;
mod congestion;
mod core;
#[cfg(feature = "dtls")]
mod dtls;
mod events;
mod identity;
mod notice;
mod port;
mod quic;
mod reception;
mod session;
mod shield;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use napi::bindgen_prelude::{Buffer, BufferSlice, Float64ArraySlice, Function, Object, Uint8Array};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi::{Env, Error, Result, Status};
use napi_derive::napi;

use crate::command::{Command, Peer};
use crate::core::Limits;
#[cfg(feature = "dtls")]
use crate::dtls::{DtlsIdentity, DtlsSettings};
use crate::identity::{Identity, QuicIdentity, QuicSettings};
use crate::notice::Notice;
use crate::port::{Port, Shared};
use crate::reception::Welcome;
use crate::shield::{Answer, Answers, Policy};

/// Do ahead, in the background, what the first handshake would have to wait for.
#[napi]
pub fn warm_up() {
    tls::warm_up();
}

/// Settings of QUIC sessions; times in milliseconds, sizes in bytes.
#[napi(object)]
pub struct QuicOptions {
    pub idle_timeout: u32,
    pub keep_alive_interval: u32,
    pub max_inbound_streams: u32,
    pub stream_receive_window: u32,
    pub receive_window: u32,
    pub send_window: u32,
    pub datagram_receive_buffer: u32,
    pub datagram_send_buffer: u32,
    pub stream_receive_queue: u32,
    pub post_quantum: bool,
}

/// Settings of DTLS sessions; times in milliseconds, sizes in bytes.
#[cfg(feature = "dtls")]
#[napi(object)]
pub struct DtlsOptions {
    pub idle_timeout: u32,
    pub keep_alive_interval: u32,
    pub max_inbound_streams: u32,
    pub stream_receive_window: u32,
    pub receive_window: u32,
    pub send_window: u32,
    pub datagram_receive_buffer: u32,
    pub datagram_send_buffer: u32,
    pub stream_receive_queue: u32,
    pub max_packet_size: u32,
    pub allow_dtls12: bool,
}

/// A node's certificate and settings for one scheme.
#[napi]
pub struct NativeIdentity(Identity);

#[napi]
impl NativeIdentity {
    #[napi(factory)]
    pub fn quic(private_key: Uint8Array, options: QuicOptions) -> Result<Self> {
        let settings = QuicSettings {
            idle_timeout: Duration::from_millis(options.idle_timeout.into()),
            keep_alive: Duration::from_millis(options.keep_alive_interval.into()),
            max_streams: options.max_inbound_streams,
            stream_receive_window: options.stream_receive_window,
            receive_window: options.receive_window,
            send_window: options.send_window,
            datagram_receive_buffer: options.datagram_receive_buffer as usize,
            datagram_send_buffer: options.datagram_send_buffer as usize,
            // With none, no stream would ever be read.
            stream_receive_queue: options.stream_receive_queue.max(1) as usize,
            post_quantum: options.post_quantum,
        };
        QuicIdentity::new(&private_key, settings)
            .map(|identity| Self(Identity::Quic(Arc::new(identity))))
            .map_err(|error| Error::new(Status::InvalidArg, error.to_string()))
    }
}

impl NativeIdentity {
    fn as_quic(&self) -> Result<Arc<QuicIdentity>> {
        match &self.0 {
            Identity::Quic(identity) => Ok(identity.clone()),
            #[cfg(feature = "dtls")]
            Identity::Dtls(_) => {
                let message = "only QUIC deals with strangers by itself";
                Err(Error::new(Status::InvalidArg, message))
            }
        }
    }
}

#[cfg(feature = "dtls")]
#[napi]
impl NativeIdentity {
    #[napi(factory)]
    pub fn dtls(private_key: Uint8Array, options: DtlsOptions) -> Result<Self> {
        let settings = DtlsSettings {
            idle_timeout: Duration::from_millis(options.idle_timeout.into()),
            keep_alive: Duration::from_millis(options.keep_alive_interval.into()),
            max_streams: u16::try_from(options.max_inbound_streams).unwrap_or(u16::MAX),
            stream_receive_window: options.stream_receive_window,
            receive_window: options.receive_window,
            send_window: options.send_window as usize,
            datagram_receive_buffer: options.datagram_receive_buffer as usize,
            datagram_send_buffer: options.datagram_send_buffer as usize,
            // With none, no stream would ever be read.
            stream_receive_queue: options.stream_receive_queue.max(1) as usize,
            max_packet_size: u16::try_from(options.max_packet_size).unwrap_or(u16::MAX),
            allow_dtls12: options.allow_dtls12,
        };
        DtlsIdentity::new(&private_key, settings)
            .map(|identity| Self(Identity::Dtls(Arc::new(identity))))
            .map_err(|error| Error::new(Status::InvalidArg, error.to_string()))
    }
}

/// The other end of a flow. Sizes in bytes of UDP payload.
#[napi(object)]
pub struct NativePeer {
    pub host: String,
    pub port: u16,
    pub local_host: Option<String>,
    pub max_datagram_size: u16,
    pub max_probe_size: u16,
    pub guest: Option<u32>,
}

impl TryFrom<NativePeer> for Peer {
    type Error = Error;

    fn try_from(peer: NativePeer) -> Result<Self> {
        Ok(Self {
            remote: address(&peer.host, peer.port)?,
            local: local(peer.local_host)?,
            max_udp_payload: peer.max_datagram_size,
            max_probe_payload: peer.max_probe_size,
            guest: peer.guest,
        })
    }
}

/// So many bytes are copied sooner than given away: memory that JavaScript does not own costs it a finalizer each.
const SMALL_BATCH: usize = 2048;

/// A batch of events, see `src/engine/port.ts`.
#[napi(object)]
pub struct NativeBatch<'env> {
    pub records: Float64ArraySlice<'env>,
    pub data: BufferSlice<'env>,
    pub notices: Vec<Object<'env>>,
}

#[napi(object)]
pub struct NativeAddress {
    pub host: String,
    pub port: u16,
}

#[napi(object)]
pub struct NativeTransmit {
    pub host: String,
    pub port: u16,
    pub data: Buffer,
}

/// Counters since the port was opened.
#[napi(object)]
pub struct NativeStats {
    pub datagrams_in: f64,
    pub datagrams_out: f64,
    pub bytes_in: f64,
    pub bytes_out: f64,
    pub send_errors: f64,
    pub strangers: f64,
    pub empty: f64,
    pub raw_overflow: f64,
    pub unroutable: f64,
    pub shielded: f64,
    pub turned_away_prefix: f64,
    pub turned_away_unprepared: f64,
    pub challenged: f64,
    pub validated: f64,
    pub unproposed: f64,
    pub responses_overflow: f64,
    pub sctp_overflow: f64,
    pub sctp_ignored: f64,
    pub displaced: f64,
    pub shielded_proposals: f64,
    pub welcomed: f64,
    pub unwanted: f64,
}

/// What is answered to proposals: see `src/sockets/index.ts`.
#[napi(object)]
pub struct NativeAnswer {
    pub offer: Buffer,
    pub response: Buffer,
}

/// All of them, and whose they are.
#[napi(object)]
pub struct NativeAnswers {
    pub answers: Vec<NativeAnswer>,
    pub peer_id: Buffer,
}

impl From<NativeAnswers> for Answers {
    fn from(prepared: NativeAnswers) -> Self {
        let answers = prepared.answers.iter().map(|answer| Answer {
            offer: answer.offer[..].into(),
            response: answer.response[..].into(),
        });
        Self {
            answers: answers.collect(),
            own_id: prepared.peer_id.to_vec(),
        }
    }
}

/// What a port keeps for its remotes, see `UdpInit` in `src/sockets/udp.ts`.
#[napi(object)]
pub struct NativeLimits {
    pub waiting: u32,
    pub strangers: u32,
    pub stranger_datagrams: u32,
    pub responses: u32,
    pub waiting_bytes: u32,
    pub guests: u32,
    pub crossing_time: u32,
    pub socket_buffer: u32,
}

impl From<NativeLimits> for Limits {
    fn from(limits: NativeLimits) -> Self {
        Self {
            waiting: limits.waiting as usize,
            strangers: limits.strangers as usize,
            stranger_datagrams: limits.stranger_datagrams,
            responses: limits.responses as usize,
            // With none, no session would ever be heard.
            waiting_bytes: limits.waiting_bytes.max(1) as usize,
            guests: limits.guests as usize,
            crossing_time: Duration::from_millis(limits.crossing_time.into()),
        }
    }
}

/// A UDP port and the thread that serves it.
#[napi]
pub struct NativePort {
    shared: Arc<Shared>,
    local: SocketAddr,
}

#[napi]
impl NativePort {
    /// Open a UDP port. `wake` is called when there is something to drain. Throws the system's error code and message.
    #[napi(factory)]
    pub fn bind(
        host: String,
        port: u16,
        any_stranger: bool,
        limits: NativeLimits,
        wake: Function<(), ()>,
    ) -> Result<Self> {
        let bound = (address(&host, port)?, limits.socket_buffer as usize);
        Self::open(Some(bound), any_stranger, limits.into(), &wake)
    }

    /// Open a port whose datagrams JavaScript carries, by `inject` and `transmit` notices.
    #[napi(factory)]
    pub fn detached(wake: Function<(), ()>) -> Result<Self> {
        Self::open(None, true, Limits::default(), &wake)
    }

    fn open(
        address: Option<(SocketAddr, usize)>,
        any_stranger: bool,
        limits: Limits,
        wake: &Function<(), ()>,
    ) -> Result<Self> {
        let port = Port::open(address, any_stranger, limits).map_err(|error| {
            let code = match error.kind() {
                std::io::ErrorKind::AddrInUse => "EADDRINUSE",
                std::io::ErrorKind::AddrNotAvailable => "EADDRNOTAVAIL",
                std::io::ErrorKind::PermissionDenied => "EACCES",
                _ => "EIO",
            };
            Error::new(Status::GenericFailure, format!("{code}: {error}"))
        })?;
        let shared = port.shared();
        let local = port.local_address();
        let wake = wake.build_threadsafe_function::<()>().build()?;
        std::thread::Builder::new()
            .name("psec-port".into())
            .spawn(move || {
                port.run(|| {
                    wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
                });
            })
            .map_err(|error| Error::new(Status::GenericFailure, error.to_string()))?;
        Ok(Self { shared, local })
    }

    #[napi]
    pub fn local_address(&self) -> NativeAddress {
        NativeAddress {
            host: self.local.ip().to_string(),
            port: self.local.port(),
        }
    }

    #[napi]
    pub fn drain<'env>(&self, env: &'env Env) -> Result<Option<NativeBatch<'env>>> {
        let Some(batch) = self.shared.drain() else {
            return Ok(None);
        };
        let (records, data) = if batch.bytes() <= SMALL_BATCH {
            (
                Float64ArraySlice::copy_from(env, &batch.records)?,
                BufferSlice::copy_from(env, &batch.data)?,
            )
        } else {
            (
                Float64ArraySlice::from_data(env, batch.records)?,
                BufferSlice::from_data(env, batch.data)?,
            )
        };
        let mut notices = Vec::with_capacity(batch.notices.len());
        for notice in batch.notices {
            notices.push(notice_object(env, notice)?);
        }
        Ok(Some(NativeBatch {
            records,
            data,
            notices,
        }))
    }

    #[napi]
    pub fn stats(&self) -> NativeStats {
        let stats = &self.shared.stats;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
        NativeStats {
            datagrams_in: read(&stats.datagrams_in),
            datagrams_out: read(&stats.datagrams_out),
            bytes_in: read(&stats.bytes_in),
            bytes_out: read(&stats.bytes_out),
            send_errors: read(&stats.send_errors),
            strangers: read(&stats.strangers),
            empty: read(&stats.empty),
            raw_overflow: read(&stats.raw_overflow),
            unroutable: read(&stats.unroutable),
            shielded: read(&stats.shielded),
            turned_away_prefix: read(&stats.turned_away_prefix),
            turned_away_unprepared: read(&stats.turned_away_unprepared),
            challenged: read(&stats.challenged),
            validated: read(&stats.validated),
            unproposed: read(&stats.unproposed),
            responses_overflow: read(&stats.responses_overflow),
            sctp_overflow: read(&stats.sctp_overflow),
            sctp_ignored: read(&stats.sctp_ignored),
            displaced: read(&stats.displaced),
            shielded_proposals: read(&stats.shielded_proposals),
            welcomed: read(&stats.welcomed),
            unwanted: read(&stats.unwanted),
        }
    }

    #[napi]
    pub fn claim(&self, host: String, port: u16) -> Result<()> {
        let remote = address(&host, port)?;
        self.shared.command(Command::Claim { remote });
        Ok(())
    }

    #[napi]
    pub fn share(&self, host: String, port: u16, shared: bool) -> Result<()> {
        let remote = address(&host, port)?;
        self.shared.command(Command::Share { remote, shared });
        Ok(())
    }

    #[napi]
    pub fn release(&self, host: String, port: u16) -> Result<()> {
        let remote = address(&host, port)?;
        self.shared.command(Command::Release { remote });
        Ok(())
    }

    #[napi]
    pub fn shield(
        &self,
        identity: &NativeIdentity,
        answers: NativeAnswers,
        max_proposals: u32,
        max_proposals_per_prefix: u32,
        max_unprepared: u32,
        lifetime: u32,
    ) -> Result<()> {
        let identity = identity.as_quic()?;
        let policy = Policy {
            answers: answers.into(),
            max_proposals: max_proposals as usize,
            max_proposals_per_prefix: max_proposals_per_prefix as usize,
            max_unprepared,
            lifetime: Duration::from_millis(lifetime.into()),
        };
        self.shared
            .command(Command::Shield(Some((identity, policy))));
        Ok(())
    }

    #[napi]
    pub fn unshield(&self) {
        self.shared.command(Command::Shield(None));
    }

    #[napi]
    pub fn welcome(
        &self,
        identity: &NativeIdentity,
        answers: NativeAnswers,
        max_datagram_size: u16,
    ) -> Result<()> {
        let welcome = Welcome {
            identity: identity.as_quic()?,
            answers: answers.into(),
            max_udp_payload: max_datagram_size,
        };
        self.shared.command(Command::Welcome(Some(welcome)));
        Ok(())
    }

    #[napi]
    pub fn unwelcome(&self) {
        self.shared.command(Command::Welcome(None));
    }

    #[napi]
    pub fn dismiss(&self, host: String, port: u16, guest: u32) -> Result<()> {
        let remote = address(&host, port)?;
        self.shared.command(Command::Dismiss { remote, guest });
        Ok(())
    }

    #[napi]
    pub fn send_raw(
        &self,
        host: String,
        port: u16,
        local_host: Option<String>,
        datagrams: Vec<&[u8]>,
    ) -> Result<bool> {
        let (remote, local) = (address(&host, port)?, local(local_host)?);
        self.shared
            .send_raw(remote, local, &datagrams)
            .map_err(|error| Error::new(Status::GenericFailure, error.to_string()))
    }

    #[napi]
    pub fn inject(&self, host: String, port: u16, data: &[u8]) -> Result<()> {
        self.shared.command(Command::Inject {
            remote: address(&host, port)?,
            data: data.to_vec(),
        });
        Ok(())
    }

    /// Prepare an initiator and return its first flight. The one call that waits for the port's thread, so that a dial does
    /// not have to wait for two.
    #[napi]
    pub fn initiate<'env>(
        &self,
        env: &'env Env,
        session: u32,
        identity: &NativeIdentity,
        peer: NativePeer,
        max_first_datagram: u32,
    ) -> Result<Vec<BufferSlice<'env>>> {
        let peer = peer.try_into()?;
        let max_first_datagram = max_first_datagram as usize;
        let datagrams = self
            .shared
            .core()
            .initiate(
                Instant::now(),
                session,
                identity.0.clone(),
                peer,
                max_first_datagram,
            )
            .map_err(|error| Error::new(Status::GenericFailure, error.to_string()))?;
        datagrams
            .iter()
            .map(|it| BufferSlice::copy_from(env, it))
            .collect()
    }

    #[napi]
    pub fn proceed(
        &self,
        session: u32,
        sent: bool,
        send_first_flight: bool,
        early: Vec<Uint8Array>,
    ) {
        self.shared.command(Command::Proceed {
            session,
            sent,
            send_first_flight,
            early: copies(&early),
        });
    }

    #[napi]
    pub fn respond(
        &self,
        session: u32,
        identity: &NativeIdentity,
        peer: NativePeer,
        early: Vec<Uint8Array>,
        claimed_id: Option<&[u8]>,
        validate_address: bool,
    ) -> Result<()> {
        self.shared.command(Command::Respond {
            session,
            identity: identity.0.clone(),
            peer: peer.try_into()?,
            early: copies(&early),
            claimed_id: claimed_id.map(<[u8]>::to_vec),
            validate_address,
        });
        Ok(())
    }

    #[napi]
    pub fn cancel(&self, session: u32, sent: bool) {
        self.shared.command(Command::Cancel { session, sent });
    }

    #[napi]
    pub fn close_session(&self, session: u32, code: u32, orderly: bool) {
        self.shared.command(Command::Close {
            session,
            code,
            orderly,
        });
    }

    #[napi]
    pub fn open_stream(&self, session: u32, token: u32) {
        self.shared.command(Command::OpenStream { session, token });
    }

    #[napi]
    pub fn cancel_open(&self, session: u32, token: u32) {
        self.shared.command(Command::CancelOpen { session, token });
    }

    #[napi]
    pub fn write(&self, session: u32, stream: f64, data: &[u8]) {
        self.shared.command(Command::Write {
            session,
            stream: stream as u64,
            data: Bytes::copy_from_slice(data),
        });
    }

    #[napi]
    pub fn finish(&self, session: u32, stream: f64) {
        let stream = stream as u64;
        self.shared.command(Command::Finish { session, stream });
    }

    #[napi]
    pub fn reset(&self, session: u32, stream: f64) {
        let stream = stream as u64;
        self.shared.command(Command::Reset { session, stream });
    }

    #[napi]
    pub fn stop(&self, session: u32, stream: f64) {
        let stream = stream as u64;
        self.shared.command(Command::Stop { session, stream });
    }

    #[napi]
    pub fn consumed(&self, session: u32, stream: f64, bytes: u32) {
        self.shared.command(Command::Consumed {
            session,
            stream: stream as u64,
            bytes: bytes as usize,
        });
    }

    #[napi]
    pub fn send_datagram(&self, session: u32, payload: &[u8]) {
        self.shared.command(Command::Datagram {
            session,
            payload: Bytes::copy_from_slice(payload),
        });
    }

    /// Close every session and the port; an `endpointClosed` notice tells when it is free.
    #[napi]
    pub fn shutdown(&self) {
        self.shared.command(Command::Shutdown);
    }

    /// Of a port whose datagrams JavaScript carries: see to the commands given since the last flush, and return what has to be sent.
    #[napi]
    pub fn settle(&self) -> Vec<NativeTransmit> {
        let transmits = self.shared.settle().into_iter();
        let transmits = transmits.map(|(remote, data)| NativeTransmit {
            host: remote.ip().to_string(),
            port: remote.port(),
            data: data.into(),
        });
        transmits.collect()
    }

    /// Have the port's thread see to the commands given since the last flush.
    #[napi]
    pub fn flush(&self) {
        self.shared.flush();
    }
}

impl Drop for NativePort {
    /// Garbage collection of a port that nobody shut down must not leave its thread behind.
    fn drop(&mut self) {
        self.shared.command(Command::Shutdown);
        self.shared.flush();
    }
}

fn address(host: &str, port: u16) -> Result<SocketAddr> {
    // An IPv6 zone (`%2`) is part of a socket address, not of an IP address.
    let text = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    text.parse().map_err(|_| {
        Error::new(
            Status::InvalidArg,
            format!("\"{host}\" is not an IP address"),
        )
    })
}

fn local(host: Option<String>) -> Result<Option<IpAddr>> {
    host.map(|host| address(&host, 0).map(|address| address.ip()))
        .transpose()
}

fn copies(datagrams: &[Uint8Array]) -> Vec<Vec<u8>> {
    datagrams.iter().map(|data| data.to_vec()).collect()
}

fn host_of(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        address => address.ip().to_string(),
    }
}

fn notice_object<'env>(env: &'env Env, notice: Notice) -> Result<Object<'env>> {
    let mut object = Object::new(env)?;
    match notice {
        Notice::Raw {
            remote,
            local,
            data,
            answer,
        } => {
            object.set("type", "raw")?;
            object.set("host", host_of(remote))?;
            object.set("port", remote.port())?;
            object.set("localHost", local.map(|ip| ip.to_string()))?;
            object.set("data", BufferSlice::copy_from(env, &data)?)?;
            if let Some((guest, answer)) = answer {
                object.set("guest", guest)?;
                object.set("answer", BufferSlice::copy_from(env, &answer)?)?;
            }
        }
        Notice::Validated {
            remote,
            local,
            proposal,
            answer,
            data,
        } => {
            object.set("type", "validated")?;
            object.set("host", host_of(remote))?;
            object.set("port", remote.port())?;
            object.set("localHost", local.map(|ip| ip.to_string()))?;
            object.set("proposal", BufferSlice::copy_from(env, &proposal)?)?;
            object.set("answer", BufferSlice::copy_from(env, &answer)?)?;
            object.set("data", BufferSlice::copy_from(env, &data)?)?;
        }
        Notice::Transmit { remote, data } => {
            object.set("type", "transmit")?;
            object.set("host", host_of(remote))?;
            object.set("port", remote.port())?;
            object.set("data", BufferSlice::copy_from(env, &data)?)?;
        }
        Notice::Secured {
            peer_id,
            local_key,
            remote_key,
        } => {
            object.set("type", "secured")?;
            object.set("peerId", BufferSlice::copy_from(env, &peer_id)?)?;
            object.set("localKey", BufferSlice::copy_from(env, &local_key)?)?;
            object.set("remoteKey", BufferSlice::copy_from(env, &remote_key)?)?;
        }
        Notice::Closed { cause, message } => {
            object.set("type", "closed")?;
            object.set("cause", cause.as_str())?;
            object.set("message", message)?;
        }
        Notice::OpenFailed { token } => {
            object.set("type", "openFailed")?;
            object.set("token", token)?;
        }
        Notice::EndpointClosed { error } => {
            object.set("type", "endpointClosed")?;
            object.set("error", error)?;
        }
    }
    Ok(object)
}
