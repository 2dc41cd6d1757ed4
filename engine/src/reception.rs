//! Strangers that are welcome: their proposals are answered, and their handshakes begun, while JavaScript still reads them. Sans-IO.
//!
//! JavaScript says beforehand which offers are answered how, as for the [shield](crate::shield), which takes over when strangers have
//! to be held off. It hears of every proposal all the same, and has the last word: a guest's session is nobody's until JavaScript
//! responds, and ends if it does not.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hashlink::LinkedHashMap;

use crate::core::Origin;
use crate::identity::QuicIdentity;
use crate::shield::{Answer, Answers};

/// Guests at a time. What others propose is answered by JavaScript.
pub const MAX_GUESTS: usize = 16;

/// How long JavaScript may take to respond or to dismiss: longer than it is ever busy with something else.
const LIFETIME: Duration = Duration::from_secs(5);

/// Datagrams of a first flight that are kept until the session has begun. One with the key exchange X25519MLKEM768 has two.
const MAX_NOTED: usize = 4;

/// What JavaScript would do with strangers' proposals.
pub struct Welcome {
    pub identity: Arc<QuicIdentity>,
    pub answers: Answers,
    /// The largest UDP payload that a stranger's path is assumed to carry.
    pub max_udp_payload: u16,
}

impl Welcome {
    /// The answer to a proposal, and its initiation packet.
    fn answer<'d>(&self, proposal: &'d [u8]) -> Option<(&Answer, &'d [u8])> {
        let (_, packet_at, answer) = self.answers.find(proposal)?;
        let packet = &proposal[packet_at..];
        is_first_packet(packet, self.max_udp_payload).then_some((answer, packet))
    }
}

/// Whether it may be a packet of a first flight: it has a long header, and no more bytes than one has.
fn is_first_packet(datagram: &[u8], max_udp_payload: u16) -> bool {
    datagram.len() <= max_udp_payload.into() && datagram.first().is_some_and(|first| *first >= 0xc0)
}

/// Somebody whose proposal was answered, and for whom JavaScript has not responded yet.
pub struct Guest {
    /// What its session is called until JavaScript names it, and the guest.
    pub number: u32,
    /// The initiation packet: it tells this beginning from another one.
    pub packet: BytesMut,
    pub state: State,
    until: Instant,
}

impl Guest {
    /// Whether JavaScript, which gives this to the scheme, means what has begun: nothing came before it.
    pub fn began_with(&self, early: &[Vec<u8>]) -> bool {
        early.first().is_none_or(|first| *first == self.packet)
    }
}

/// What a session is to begin with.
pub struct Arrival {
    pub identity: Arc<QuicIdentity>,
    pub max_udp_payload: u16,
    /// The initiation packet, and what followed it.
    pub datagrams: Vec<(Origin, BytesMut)>,
}

pub enum State {
    Arriving(Arrival),
    Begun,
    /// Its first packet was none.
    NotBegun,
    Over,
}

pub struct Reception {
    welcome: Option<Welcome>,
    max_guests: usize,
    /// Oldest first.
    guests: LinkedHashMap<SocketAddr, Guest>,
    arriving: VecDeque<SocketAddr>,
    /// Counts down: JavaScript's own numbers begin with 1.
    last_number: u32,
    welcomed: u64,
    turned_away: u64,
}

impl Reception {
    pub fn new(max_guests: usize) -> Self {
        Self {
            welcome: None,
            max_guests,
            guests: LinkedHashMap::new(),
            arriving: VecDeque::new(),
            last_number: 0,
            welcomed: 0,
            turned_away: 0,
        }
    }

    /// `None` to welcome nobody any more. Who is there stays.
    pub fn set(&mut self, welcome: Option<Welcome>) {
        self.welcome = welcome.map(|mut it| {
            it.answers.answers.retain(Answer::takes_initiation_packet);
            it
        });
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.guests.len()
    }

    /// Proposals that were answered here, ever.
    pub fn welcomed(&self) -> u64 {
        self.welcomed
    }

    /// Those of them whose handshake was given up, since JavaScript did not want it, or not in time.
    pub fn turned_away(&self) -> u64 {
        self.turned_away
    }

    /// A stranger proposes: its number and the answer, if it is welcome. Its handshake begins with [`Self::take_arriving`].
    pub fn propose(
        &mut self,
        now: Instant,
        origin: Origin,
        proposal: &[u8],
    ) -> Option<(u32, Vec<u8>)> {
        let welcome = self.welcome.as_ref()?;
        let (answer, packet) = welcome.answer(proposal)?;
        if self.guests.len() >= self.max_guests || self.guests.contains_key(&origin.remote) {
            return None;
        }
        let response = answer.response.to_vec();
        let arrival = Arrival {
            identity: welcome.identity.clone(),
            max_udp_payload: welcome.max_udp_payload,
            datagrams: vec![(origin, BytesMut::from(packet))],
        };
        self.last_number = self.last_number.wrapping_sub(1);
        let guest = Guest {
            number: self.last_number,
            packet: BytesMut::from(packet),
            state: State::Arriving(arrival),
            until: now + LIFETIME,
        };
        self.guests.insert(origin.remote, guest);
        self.arriving.push_back(origin.remote);
        self.welcomed += 1;
        Some((self.last_number, response))
    }

    pub fn has_arriving(&self) -> bool {
        !self.arriving.is_empty()
    }

    pub fn has(&self, remote: &SocketAddr) -> bool {
        self.guests.contains_key(remote)
    }

    /// Keep a datagram of a guest whose session has not begun; false if that is none.
    pub fn note(&mut self, origin: Origin, datagram: &BytesMut) -> bool {
        match self.guests.get_mut(&origin.remote) {
            Some(Guest {
                state: State::Arriving(arrival),
                ..
            }) if arrival.datagrams.len() < MAX_NOTED
                && is_first_packet(datagram, arrival.max_udp_payload) =>
            {
                arrival.datagrams.push((origin, datagram.clone()));
                true
            }
            _ => false,
        }
    }

    /// The next guest whose session is to begin, by its number.
    pub fn take_arriving(&mut self) -> Option<(SocketAddr, u32, Arrival)> {
        while let Some(remote) = self.arriving.pop_front() {
            if let Some(guest) = self.guests.get_mut(&remote)
                && matches!(guest.state, State::Arriving(_))
                && let State::Arriving(arrival) = std::mem::replace(&mut guest.state, State::Begun)
            {
                return Some((remote, guest.number, arrival));
            }
        }
        None
    }

    /// JavaScript decides about a guest, or about whoever is there at that address.
    pub fn take(&mut self, remote: &SocketAddr, number: Option<u32>) -> Option<Guest> {
        let guest = self.guests.get(remote)?;
        if number.is_some_and(|it| it != guest.number) {
            return None;
        }
        self.guests.remove(remote)
    }

    /// JavaScript responds to somebody at that address: the guest, unless it has begun with something else.
    pub fn take_begun_with(&mut self, remote: &SocketAddr, early: &[Vec<u8>]) -> Option<Guest> {
        if !self.guests.get(remote)?.began_with(early) {
            return None;
        }
        self.guests.remove(remote)
    }

    /// No session came of what a guest has sent.
    pub fn handle_no_session(&mut self, remote: &SocketAddr, number: u32) {
        self.set_state(remote, number, State::NotBegun);
    }

    /// A session has ended. If it is a guest's, JavaScript hears of that when it responds.
    pub fn handle_end(&mut self, remote: &SocketAddr, number: u32) {
        self.set_state(remote, number, State::Over);
    }

    fn set_state(&mut self, remote: &SocketAddr, number: u32, state: State) {
        if let Some(guest) = self.guests.get_mut(remote)
            && guest.number == number
        {
            guest.state = state;
        }
    }

    pub fn count_turned_away(&mut self) {
        self.turned_away += 1;
    }

    /// Whoever has waited for too long, one after the other.
    pub fn pop_expired(&mut self, now: Instant) -> Option<Guest> {
        self.poll_timeout().filter(|at| *at <= now)?;
        let (_, guest) = self.guests.pop_front()?;
        Some(guest)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.guests.front().map(|(_, oldest)| oldest.until)
    }

    pub fn clear(&mut self) {
        self.welcome = None;
        self.guests.clear();
        self.arriving.clear();
    }
}
