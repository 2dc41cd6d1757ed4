//! A port: the thread that carries datagrams between a UDP socket, [`Core`] and JavaScript.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mio::net::UdpSocket;
use mio::{Interest, Poll, Registry, Token, Waker};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::command::Command;
use crate::core::{Core, Limits, Origin};
use crate::events::{Batch, Events};
use crate::notice::Notice;

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

/// Datagrams in one system call, by segmentation offload.
const MAX_SEGMENTS: usize = 44;

/// What UDP over IPv6 has room for, which is less than over IPv4.
const MAX_UDP_PAYLOAD: usize = 65_487;

/// Rounds of receiving, and system calls of sending, before the other side gets its turn.
const RECEIVE_ROUNDS: usize = 4;
const SEND_ROUNDS: usize = 32;

/// How long JavaScript need not hear of a guest. Longer than a handshake takes on a local network; on all others it leaves more than enough
/// for JavaScript to respond before the handshake's end.
const GUEST_TIME: Duration = Duration::from_millis(2);

/// Datagrams that wait for JavaScript to send them, before no more are made.
const MAX_HANDED_OUT: usize = 4096;

/// What JavaScript and the port's thread share.
pub struct Shared {
    /// The thread's own, but for the beginning of a dial.
    core: Mutex<Core>,
    commands: Mutex<Vec<Command>>,
    events: Mutex<Events>,
    waiting_bytes: AtomicUsize,
    waiting_raw: AtomicUsize,
    /// JavaScript has been called and has not drained yet.
    notified: AtomicBool,
    /// The thread waits for the poll: only then does a command need to wake it.
    asleep: AtomicBool,
    /// The thread has something that waits for JavaScript to drain.
    starved: AtomicBool,
    /// Sessions are to end whose goodbyes have not left: what JavaScript sends must not overtake them.
    goodbyes_pending: AtomicBool,
    waker: Waker,
    /// By which JavaScript sends past the thread; none when the port is closed.
    outlet: Mutex<Option<Outlet>>,
    pub stats: Stats,
}

/// A port's socket once more, for sending.
struct Outlet {
    socket: Socket,
    state: UdpSocketState,
}

/// Counters since the port was opened.
#[derive(Default)]
pub struct Stats {
    pub datagrams_in: AtomicU64,
    pub datagrams_out: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub send_errors: AtomicU64,
    pub strangers: AtomicU64,
    pub empty: AtomicU64,
    pub raw_overflow: AtomicU64,
    pub unroutable: AtomicU64,
    pub shielded: AtomicU64,
    pub turned_away_prefix: AtomicU64,
    pub turned_away_unprepared: AtomicU64,
    pub challenged: AtomicU64,
    pub validated: AtomicU64,
    pub unproposed: AtomicU64,
    pub responses_overflow: AtomicU64,
    pub sctp_overflow: AtomicU64,
    pub sctp_ignored: AtomicU64,
    pub displaced: AtomicU64,
    pub shielded_proposals: AtomicU64,
    pub welcomed: AtomicU64,
    pub unwanted: AtomicU64,
}

/// How to cut what these datagrams are in one piece, if the system can: all are of one size, but for the last, which may be smaller.
fn segment_size(datagrams: &[&[u8]], max_segments: usize) -> Option<usize> {
    let [first, middle @ .., last] = datagrams else {
        return None;
    };
    let size = first.len();
    let bytes: usize = datagrams.iter().map(|it| it.len()).sum();
    (datagrams.len() <= max_segments
        && bytes <= MAX_UDP_PAYLOAD
        && middle.iter().all(|it| it.len() == size)
        && (1..=size).contains(&last.len()))
    .then_some(size)
}

/// Whether it says that the system knows no way to an address, and will know none soon.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
    )
}

/// A poisoned lock means that the other thread panicked between two whole operations: the queue itself is sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// Ask for something. The thread sees to it when it is awake anyway, or when [`Self::flush`] wakes it: waking takes longer
    /// than most commands, so JavaScript does it once a turn.
    pub fn command(&self, command: Command) {
        let mut commands = lock(&self.commands);
        if command.ends_session() {
            self.goodbyes_pending.store(true, Ordering::SeqCst);
        }
        commands.push(command);
    }

    /// All that the sessions had to say has left.
    fn goodbyes_have_left(&self) {
        if self.goodbyes_pending.load(Ordering::SeqCst) {
            let commands = lock(&self.commands);
            let is_parting = commands.iter().any(Command::ends_session);
            self.goodbyes_pending.store(is_parting, Ordering::SeqCst);
        }
    }

    /// Send datagrams outside every scheme: at once, since a dial waits for it, and to wake the thread for it would take as long as
    /// the rest. What the socket has no room for now is left to the thread; true if that has to be flushed. An error if the system
    /// knows no way to the remote.
    pub fn send_raw(
        &self,
        remote: SocketAddr,
        local: Option<IpAddr>,
        datagrams: &[&[u8]],
    ) -> io::Result<bool> {
        let leave_to_thread = |data: &[u8]| {
            self.command(Command::SendRaw {
                remote,
                local,
                data: data.to_vec(),
            });
        };
        if self.goodbyes_pending.load(Ordering::SeqCst) {
            datagrams.iter().for_each(|data| leave_to_thread(data));
            return Ok(true);
        }
        let outlet = lock(&self.outlet);
        let send = |contents: &[u8], segment_size: Option<usize>| -> io::Result<()> {
            let outlet = outlet.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
            let transmit = quinn_udp::Transmit {
                destination: remote,
                ecn: None,
                contents,
                segment_size,
                src_ip: local,
            };
            outlet.state.try_send((&outlet.socket).into(), &transmit)
        };
        let max_segments = outlet.as_ref().map_or(1, |it| it.state.max_gso_segments());
        if let Some(segment_size) = segment_size(datagrams, max_segments) {
            let contents = datagrams.concat();
            if send(&contents, Some(segment_size)).is_ok() {
                self.stats
                    .count_sent(&Ok(()), datagrams.len(), contents.len());
                return Ok(false);
            }
        }
        let mut is_left = false;
        for data in datagrams {
            let sent = send(data, None);
            if !self.stats.count_sent(&sent, 1, data.len()) {
                is_left = true;
                leave_to_thread(data);
            } else if sent.as_ref().is_err_and(is_unreachable) {
                return sent.map(|()| false);
            }
        }
        Ok(is_left)
    }

    /// Do what was asked for since the last time.
    fn obey(&self, now: Instant, core: &mut Core) {
        let commands = std::mem::take(&mut *lock(&self.commands));
        for command in commands {
            core.handle_command(now, command);
        }
    }

    /// Do at once what was asked for, and return what has to be sent for it: JavaScript, which carries this port's datagrams, is about to
    /// close the socket.
    pub fn settle(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        let now = Instant::now();
        let mut core = self.core();
        self.obey(now, &mut core);
        core.process(now);
        let mut buf = Vec::new();
        let mut transmits = Vec::new();
        while let Some(transmit) = core.poll_transmit(now, 1, &mut buf) {
            transmits.push((transmit.destination, buf[..transmit.size].to_vec()));
        }
        drop(core);
        // It tells what has come of it, and takes note of the new timeouts.
        self.wake();
        transmits
    }

    pub fn flush(&self) {
        if lock(&self.commands).is_empty() {
            return;
        }
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// The next batch for JavaScript; `None` when there is none: then JavaScript will be called for the next.
    pub fn drain(&self) -> Option<Batch> {
        let mut events = lock(&self.events);
        let batch = events.pop();
        if batch.is_none() {
            self.notified.store(false, Ordering::SeqCst);
        }
        self.waiting_bytes.store(events.bytes(), Ordering::SeqCst);
        self.waiting_raw.store(events.raw(), Ordering::SeqCst);
        drop(events);
        if self.starved.swap(false, Ordering::SeqCst) {
            self.wake();
        }
        batch
    }

    fn wake(&self) {
        // The poll it belongs to lives as long as the thread; afterwards nobody is there to be woken.
        let _ = self.waker.wake();
    }

    /// Hand events to JavaScript; true if it has to be called.
    fn publish(&self, events: &mut Events) -> bool {
        if events.is_empty() {
            return false;
        }
        let mut waiting = lock(&self.events);
        events.append_to(&mut waiting);
        self.waiting_bytes.store(waiting.bytes(), Ordering::SeqCst);
        self.waiting_raw.store(waiting.raw(), Ordering::SeqCst);
        !self.notified.swap(true, Ordering::SeqCst)
    }
}

/// JavaScript, as the thread sees it.
struct Listener<C> {
    shared: Arc<Shared>,
    call: C,
    /// When it has to be called for what was published, if it was not yet.
    called_by: Option<Instant>,
}

impl<C: Fn()> Listener<C> {
    fn tell(&mut self, events: &mut Events) {
        if self.shared.publish(events) || self.called_by.is_some() {
            self.called_by = None;
            (self.call)();
        }
    }

    /// Of guests, whose handshakes go on without JavaScript: it is called with whatever comes next, which on short paths is the end of the
    /// handshake. What it had to do for a proposal would keep that waiting, where both sides share a processor.
    fn tell_later(&mut self, now: Instant, events: &mut Events) {
        if self.shared.publish(events) {
            self.called_by = Some(now + GUEST_TIME);
        } else if self.called_by.is_some_and(|at| at <= now) {
            self.tell(events);
        }
    }
}

struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    readable: bool,
    receive_buffer: Vec<u8>,
    /// What the kernel had no room for.
    unsent: Option<(quinn_proto::Transmit, Vec<u8>)>,
    /// Whether the poll tells when it has room: it would tell so of every datagram that has left.
    awaits_room: bool,
}

pub struct Port {
    udp: Option<Udp>,
    poll: Poll,
    shared: Arc<Shared>,
    local: SocketAddr,
}

impl Port {
    /// Open a UDP port, and ask the kernel to buffer that many bytes in each direction: it may grant less. Or, without an address,
    /// one whose datagrams JavaScript carries.
    pub fn open(
        address: Option<(SocketAddr, usize)>,
        any_stranger: bool,
        limits: Limits,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let udp = address
            .map(|(address, buffer)| Udp::bind(address, buffer))
            .transpose()?;
        let (may_fragment, local) = match &udp {
            Some(udp) => (udp.state.may_fragment(), udp.socket.local_addr()?),
            None => (false, SocketAddr::from(([0, 0, 0, 0], 0))),
        };
        let shared = Shared {
            core: Mutex::new(Core::new(may_fragment, any_stranger, limits)),
            commands: Mutex::default(),
            events: Mutex::default(),
            waiting_bytes: AtomicUsize::new(0),
            waiting_raw: AtomicUsize::new(0),
            notified: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            goodbyes_pending: AtomicBool::new(false),
            waker,
            outlet: Mutex::new(udp.as_ref().map(Udp::outlet).transpose()?),
            stats: Stats::default(),
        };
        let mut port = Self {
            udp,
            poll,
            shared: Arc::new(shared),
            local,
        };
        if let Some(udp) = &mut port.udp {
            port.poll
                .registry()
                .register(&mut udp.socket, SOCKET, Interest::READABLE)?;
        }
        Ok(port)
    }

    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Run until [`Command::Shutdown`]; `call` is one of JavaScript, which then drains.
    pub fn run(mut self, call: impl Fn()) {
        let mut listener = Listener {
            shared: self.shared.clone(),
            call,
            called_by: None,
        };
        let carry = std::panic::AssertUnwindSafe(|| self.carry(&mut listener));
        let result = std::panic::catch_unwind(carry);
        let error = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the engine's thread panicked".into()),
        };
        // The port is free before anybody hears that it is.
        lock(&self.shared.outlet).take();
        drop(self);
        let mut events = Events::default();
        events.push_notice(0, Notice::EndpointClosed { error });
        listener.tell(&mut events);
    }

    fn carry(&mut self, listener: &mut Listener<impl Fn()>) -> io::Result<()> {
        let shared = self.shared.clone();
        let mut polled = mio::Events::with_capacity(8);
        let mut buf = Vec::new();
        loop {
            let mut core = shared.core();
            let now = Instant::now();
            core.set_waiting(
                shared.waiting_bytes.load(Ordering::SeqCst),
                shared.waiting_raw.load(Ordering::SeqCst),
            );
            shared.obey(now, &mut core);
            self.receive(now, &mut core, listener);
            core.handle_timeout(now);
            // Its first flight leaves on the heels of the answer.
            let has_begun = core.begin_session(now);
            core.process(now);
            // Before the sending, which takes its time. But JavaScript must hear of a session's end after its goodbye, which what it sends
            // itself to that remote would overtake. And what it could say to a stranger who is welcome is about to leave.
            let can_wait =
                has_begun || core.has_arriving() || core.events.holds_end() || self.udp.is_none();
            if !can_wait {
                listener.tell(&mut core.events);
            }
            let all_sent = self.transmit(now, &mut core, &mut buf);
            if all_sent && self.udp.as_ref().is_none_or(|udp| udp.unsent.is_none()) {
                shared.goodbyes_have_left();
            }
            if has_begun && core.events.holds_guests_alone() {
                listener.tell_later(now, &mut core.events);
            } else {
                listener.tell(&mut core.events);
            }
            shared.stats.count(&core);
            if core.is_closed() && all_sent {
                return Ok(());
            }

            let is_busy = core.has_arriving()
                || !all_sent
                || self.udp.as_ref().is_some_and(|udp| udp.readable);
            let is_starved = core.is_starved();
            let timeouts = [core.poll_timeout(), listener.called_by];
            let timeout = timeouts.into_iter().flatten().min();
            drop(core);
            self.wait(&mut polled, is_busy, is_starved, timeout)?;
        }
    }

    fn wait(
        &mut self,
        polled: &mut mio::Events,
        is_busy: bool,
        is_starved: bool,
        timeout: Option<Instant>,
    ) -> io::Result<()> {
        let shared = &self.shared;
        shared.starved.store(is_starved, Ordering::SeqCst);
        if let Some(udp) = &mut self.udp {
            udp.await_room(self.poll.registry())?;
        }
        shared.asleep.store(true, Ordering::SeqCst);
        // A command that came before `asleep` was set has woken nobody; likewise a drain before `starved` was.
        let has_missed = !lock(&shared.commands).is_empty()
            || (is_starved && shared.waiting_bytes.load(Ordering::SeqCst) == 0);
        let timeout = if is_busy || has_missed {
            Some(Duration::ZERO)
        } else {
            timeout.map(|at| at.saturating_duration_since(Instant::now()))
        };
        match self.poll.poll(polled, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        shared.asleep.store(false, Ordering::SeqCst);
        if let Some(udp) = &mut self.udp {
            for event in polled.iter().filter(|event| event.token() == SOCKET) {
                udp.readable |= event.is_readable();
            }
        }
        Ok(())
    }

    fn receive(&mut self, now: Instant, core: &mut Core, listener: &mut Listener<impl Fn()>) {
        let Some(udp) = &mut self.udp else { return };
        for _ in 0..RECEIVE_ROUNDS {
            if !udp.readable {
                return;
            }
            udp.receive(now, core, &self.shared.stats, listener);
        }
    }

    /// Give JavaScript what it has to send, before it hears of anything else: a session's goodbye comes before its end.
    fn hand_out(&self, now: Instant, core: &mut Core, buf: &mut Vec<u8>) {
        let mut events = Events::default();
        let waiting = self.shared.waiting_raw.load(Ordering::SeqCst);
        while waiting + core.events.raw() + events.raw() < MAX_HANDED_OUT {
            let Some(transmit) = core.poll_transmit(now, 1, buf) else {
                break;
            };
            let notice = Notice::Transmit {
                remote: transmit.destination,
                data: buf[..transmit.size].to_vec(),
            };
            events.push_notice(0, notice);
        }
        core.events.append_to(&mut events);
        core.events = events;
    }

    /// Returns false when there is more to send at once.
    fn transmit(&mut self, now: Instant, core: &mut Core, buf: &mut Vec<u8>) -> bool {
        let Some(udp) = &mut self.udp else {
            self.hand_out(now, core, buf);
            return true;
        };
        let max_segments = udp.state.max_gso_segments().min(MAX_SEGMENTS);
        for _ in 0..SEND_ROUNDS {
            let (transmit, data) = match udp.unsent.take() {
                Some(unsent) => unsent,
                None => match core.poll_transmit(now, max_segments, buf) {
                    Some(transmit) => (transmit, std::mem::take(buf)),
                    None => return true,
                },
            };
            if !udp.send(&transmit, &data, &self.shared.stats) {
                udp.unsent = Some((transmit, data));
                return true;
            }
            *buf = data;
        }
        false
    }
}

impl Stats {
    /// Returns false if the kernel has no room now.
    fn count_sent(&self, sent: &io::Result<()>, datagrams: usize, bytes: usize) -> bool {
        match sent {
            Ok(()) => {
                self.datagrams_out
                    .fetch_add(datagrams as u64, Ordering::Relaxed);
                self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // Unreachable, forbidden, too large: lost, as on any network.
            Err(_) => {
                self.send_errors.fetch_add(1, Ordering::Relaxed);
            }
        }
        true
    }

    fn count(&self, core: &Core) {
        let counters = core.counters;
        self.strangers.store(counters.strangers, Ordering::Relaxed);
        self.empty.store(counters.empty, Ordering::Relaxed);
        self.raw_overflow
            .store(counters.raw_overflow, Ordering::Relaxed);
        self.unroutable
            .store(counters.unroutable, Ordering::Relaxed);
        self.shielded.store(counters.shielded, Ordering::Relaxed);
        self.turned_away_prefix
            .store(counters.turned_away_prefix, Ordering::Relaxed);
        self.turned_away_unprepared
            .store(counters.turned_away_unprepared, Ordering::Relaxed);
        self.challenged
            .store(counters.challenged, Ordering::Relaxed);
        self.validated.store(counters.validated, Ordering::Relaxed);
        self.unproposed
            .store(counters.unproposed, Ordering::Relaxed);
        self.responses_overflow
            .store(counters.responses_overflow, Ordering::Relaxed);
        self.sctp_overflow
            .store(counters.sctp_overflow, Ordering::Relaxed);
        self.sctp_ignored
            .store(counters.sctp_ignored, Ordering::Relaxed);
        self.displaced
            .store(core.displaced_proposals(), Ordering::Relaxed);
        self.shielded_proposals
            .store(core.shielded_proposals() as u64, Ordering::Relaxed);
        let (welcomed, unwanted) = core.welcomed();
        self.welcomed.store(welcomed, Ordering::Relaxed);
        self.unwanted.store(unwanted, Ordering::Relaxed);
    }
}

impl Udp {
    fn bind(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // IPv4 has its own listen address, perhaps on the same port.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Best effort: the kernel's limit may be lower, and smaller buffers only cost speed.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), buffer);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), buffer);
        let receive_buffer = vec![0; BATCH_SIZE * 64 * 1024];
        Ok(Self {
            socket: UdpSocket::from_std(socket.into()),
            state,
            readable: true,
            receive_buffer,
            unsent: None,
            awaits_room: false,
        })
    }

    fn receive(
        &mut self,
        now: Instant,
        core: &mut Core,
        stats: &Stats,
        listener: &mut Listener<impl Fn()>,
    ) {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut chunks = self.receive_buffer.chunks_exact_mut(64 * 1024);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("one per slice")));
        let received = self.socket.try_io(|| {
            self.state
                .recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas)
        });
        let count = match received {
            Ok(count) => count,
            Err(error) => {
                // Others than "would block" are news of earlier sends (ICMP), which the sessions notice by themselves.
                if error.kind() == io::ErrorKind::WouldBlock {
                    self.readable = false;
                }
                return;
            }
        };
        for (meta, slice) in metas.iter().zip(slices.iter()).take(count) {
            let origin = Origin {
                remote: meta.addr,
                local: meta.dst_ip,
                ecn: meta.ecn.map(|ecn| {
                    quinn_proto::EcnCodepoint::from_bits(ecn as u8).expect("the same code points")
                }),
            };
            let mut data = BytesMut::from(&slice[..meta.len]);
            stats.bytes_in.fetch_add(meta.len as u64, Ordering::Relaxed);
            loop {
                let datagram = data.split_to(meta.stride.min(data.len()));
                stats.datagrams_in.fetch_add(1, Ordering::Relaxed);
                core.handle_datagram(now, origin, datagram);
                // JavaScript thinks about it while the handshake goes on here.
                if core.take_dial_answered() {
                    listener.tell(&mut core.events);
                }
                // A datagram may be empty.
                if data.is_empty() {
                    break;
                }
            }
        }
    }

    /// Have the poll tell when the kernel has room again, if it has none.
    fn await_room(&mut self, registry: &Registry) -> io::Result<()> {
        if self.awaits_room == self.unsent.is_some() {
            return Ok(());
        }
        self.awaits_room = self.unsent.is_some();
        let interest = if self.awaits_room {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        registry.reregister(&mut self.socket, SOCKET, interest)
    }

    /// Returns false if the kernel has no room now.
    fn send(&mut self, transmit: &quinn_proto::Transmit, data: &[u8], stats: &Stats) -> bool {
        let contents = &data[..transmit.size];
        let outgoing = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit
                .ecn
                .and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let sent = self.socket.try_io(|| {
            self.state
                .try_send(UdpSockRef::from(&self.socket), &outgoing)
        });
        let datagrams = transmit
            .segment_size
            .map_or(1, |size| contents.len().div_ceil(size));
        stats.count_sent(&sent, datagrams, contents.len())
    }

    fn outlet(&self) -> io::Result<Outlet> {
        let socket = SockRef::from(&self.socket).try_clone()?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Outlet { socket, state })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// The thread has this to tell: something, or nothing.
        Tell(bool),
        TellLater(bool),
        /// Until JavaScript has to be called.
        Wait,
        /// JavaScript, which was called, takes one batch, or hears that there is none.
        Drain,
    }

    const STEPS: [Step; 6] = [
        Step::Tell(false),
        Step::Tell(true),
        Step::TellLater(false),
        Step::TellLater(true),
        Step::Wait,
        Step::Drain,
    ];

    fn events(any: bool) -> Events {
        let mut events = Events::default();
        if any {
            events.push_notice(0, Notice::EndpointClosed { error: None });
        }
        events
    }

    /// What is published is taken by a JavaScript that has been called and not found nothing since, or that will be called.
    fn assert_nothing_is_lost(shared: &Arc<Shared>, steps: &[Step]) {
        shared.notified.store(false, Ordering::SeqCst);
        *lock(&shared.events) = Events::default();
        let mut now = Instant::now();
        let is_draining = Rc::new(Cell::new(false));
        let called = is_draining.clone();
        let mut listener = Listener {
            shared: shared.clone(),
            call: move || called.set(true),
            called_by: None,
        };
        for step in steps {
            match step {
                Step::Tell(any) => listener.tell(&mut events(*any)),
                Step::TellLater(any) => listener.tell_later(now, &mut events(*any)),
                Step::Wait => {
                    if let Some(at) = listener.called_by {
                        assert!(at <= now + GUEST_TIME, "{steps:?}");
                        now = at;
                        listener.tell_later(now, &mut events(false));
                        assert!(listener.called_by.is_none(), "{steps:?}");
                    }
                }
                // Also one that nobody called.
                Step::Drain => {
                    if shared.drain().is_none() {
                        is_draining.set(false);
                    }
                }
            }
            let is_there = !lock(&shared.events).is_empty();
            let is_told = is_draining.get() || listener.called_by.is_some();
            assert!(!is_there || is_told, "{steps:?}");
        }
        listener.tell(&mut events(true));
        assert!(is_draining.get(), "the end is told: {steps:?}");
    }

    #[test]
    fn javascript_is_called_for_all_that_is_told_whatever_the_order() {
        let port = Port::open(None, false, Limits::default()).unwrap();
        let shared = port.shared();
        let length = 6;
        for number in 0..STEPS.len().pow(length) {
            let digits = (0..length).map(|at| number / STEPS.len().pow(at) % STEPS.len());
            let steps: Vec<Step> = digits.map(|digit| STEPS[digit]).collect();
            assert_nothing_is_lost(&shared, &steps);
        }
    }
}
