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
use crate::shield::{Answer, find_answer};

/// Guests at a time. What others propose is answered by JavaScript.
pub const MAX_GUESTS: usize = 16;

/// How long JavaScript may take to respond.
const LIFETIME: Duration = Duration::from_secs(1);

/// Datagrams of a first flight that are kept until the session has begun. One with the key exchange X25519MLKEM768 has two.
const MAX_NOTED: usize = 4;

/// What JavaScript would do with strangers' proposals.
pub struct Welcome {
    pub identity: Arc<QuicIdentity>,
    pub answers: Vec<Answer>,
    /// This node's own peer id: who claims that gets no answer.
    pub peer_id: Vec<u8>,
    /// The largest UDP payload that a stranger's path is assumed to carry.
    pub max_udp_payload: u16,
}

impl Welcome {
    /// Whether it may be a packet of a first flight: it has a long header, and no more bytes than one has.
    fn takes(&self, datagram: &[u8]) -> bool {
        datagram.len() <= self.max_udp_payload.into()
            && datagram.first().is_some_and(|first| *first >= 0xc0)
    }

    /// The answer to a proposal, and its initiation packet.
    fn answer<'d>(&self, proposal: &'d [u8]) -> Option<(&Answer, &'d [u8])> {
        let (peer_id, packet_at, answer) = find_answer(&self.answers, proposal)?;
        let packet = &proposal[packet_at..];
        (is_certainly_valid(peer_id) && peer_id != self.peer_id && self.takes(packet))
            .then_some((answer, packet))
    }
}

/// A proposal with another id may be valid, too: only JavaScript knows.
fn is_certainly_valid(peer_id: &[u8]) -> bool {
    match peer_id.len() {
        // The identity multihash of an Ed25519 key, which is any 32 bytes (libp2p peer id specification, "Peer Ids").
        38 => peer_id.starts_with(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]),
        // sha2-256.
        34 => peer_id.starts_with(&[0x12, 0x20]),
        _ => false,
    }
}

/// Somebody whose proposal was answered, and for whom JavaScript has not responded yet.
pub struct Guest {
    /// What its session is called until JavaScript names it.
    pub session: u32,
    /// The initiation packet: it tells this beginning from another one.
    pub packet: BytesMut,
    pub state: State,
    until: Instant,
}

pub enum State {
    /// Its session has yet to begin, with these: the initiation packet, and what followed it.
    Arriving(Vec<(Origin, BytesMut)>),
    Begun,
    Over,
}

pub struct Reception {
    welcome: Option<Welcome>,
    max_guests: usize,
    /// Oldest first.
    guests: LinkedHashMap<SocketAddr, Guest>,
    arriving: VecDeque<SocketAddr>,
    /// Counts down: JavaScript's own numbers begin with 1.
    last_session: u32,
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
            last_session: 0,
            welcomed: 0,
            turned_away: 0,
        }
    }

    /// `None` to welcome nobody any more. Who is there stays.
    pub fn set(&mut self, welcome: Option<Welcome>) {
        self.welcome = welcome.map(|mut it| {
            it.answers.retain(Answer::takes_initiation_packet);
            it
        });
    }

    /// With whom, and up to which size of datagrams, guests are talked to.
    pub fn terms(&self) -> Option<(Arc<QuicIdentity>, u16)> {
        let welcome = self.welcome.as_ref()?;
        Some((welcome.identity.clone(), welcome.max_udp_payload))
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

    /// A stranger proposes: the answer, if it is welcome. Its handshake begins with [`Self::take_arriving`].
    pub fn propose(&mut self, now: Instant, origin: Origin, proposal: &[u8]) -> Option<Vec<u8>> {
        let (answer, packet) = self.welcome.as_ref()?.answer(proposal)?;
        if self.guests.len() >= self.max_guests || self.guests.contains_key(&origin.remote) {
            return None;
        }
        let response = answer.response.clone();
        self.last_session = self.last_session.wrapping_sub(1);
        let guest = Guest {
            session: self.last_session,
            packet: BytesMut::from(packet),
            state: State::Arriving(vec![(origin, BytesMut::from(packet))]),
            until: now + LIFETIME,
        };
        self.guests.insert(origin.remote, guest);
        self.arriving.push_back(origin.remote);
        self.welcomed += 1;
        Some(response)
    }

    pub fn has_arriving(&self) -> bool {
        !self.arriving.is_empty()
    }

    pub fn has(&self, remote: &SocketAddr) -> bool {
        self.guests.contains_key(remote)
    }

    /// Keep a datagram of a guest whose session has not begun; false if that is none.
    pub fn note(&mut self, origin: Origin, datagram: &BytesMut) -> bool {
        let Some(welcome) = &self.welcome else {
            return false;
        };
        match self.guests.get_mut(&origin.remote) {
            Some(Guest {
                state: State::Arriving(noted),
                ..
            }) if noted.len() < MAX_NOTED && welcome.takes(datagram) => {
                noted.push((origin, datagram.clone()));
                true
            }
            _ => false,
        }
    }

    /// The next guest whose session is to begin, and what it has sent.
    pub fn take_arriving(&mut self) -> Option<(u32, Vec<(Origin, BytesMut)>)> {
        while let Some(remote) = self.arriving.pop_front() {
            if let Some(guest) = self.guests.get_mut(&remote)
                && let State::Arriving(noted) = std::mem::replace(&mut guest.state, State::Begun)
            {
                return Some((guest.session, noted));
            }
        }
        None
    }

    /// JavaScript responds.
    pub fn take(&mut self, remote: &SocketAddr) -> Option<Guest> {
        self.guests.remove(remote)
    }

    /// A session has ended. If it is a guest's, JavaScript hears of that when it responds.
    pub fn handle_end(&mut self, remote: &SocketAddr, session: u32) {
        if let Some(guest) = self.guests.get_mut(remote)
            && guest.session == session
        {
            guest.state = State::Over;
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
