//! What stands between a flood and JavaScript: while it is up, a proposal of a stranger is answered without a word of
//! JavaScript, and remembered in a few hundred bytes, until the stranger has proved that it receives at its address.
//! Sans-IO.
//!
//! PSEC itself has no such proof, but the scheme that is agreed on has: QUIC's Retry (RFC 9000, section 8.1.2). A response is a
//! function of the proposal ("Loss, order, duplication" in `docs/negotiation.md`), so JavaScript says beforehand which offers
//! are answered how; what is offered otherwise is left to JavaScript, at a small rate.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashlink::LinkedHashMap;
use libp2p_identity::PublicKey;

/// How long a proof is valid where JavaScript has said nothing yet.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(15);

/// The time for which [`Policy::max_unprepared`] holds.
const UNPREPARED_INTERVAL: Duration = Duration::from_millis(100);

/// The type of a proposal (draft, "Frames").
const PROPOSE: u8 = 0;

/// The longest peer id that exists, that of a secp256k1 key: its length, a varint, fits one byte.
const MAX_PEER_ID: usize = 39;

/// What a proposal may offer, as its bytes from the number of schemes to the last name, and the whole frame that answers it.
#[derive(Clone)]
pub struct Answer {
    pub offer: Arc<[u8]>,
    pub response: Arc<[u8]>,
}

impl Answer {
    /// Whether it leads to the scheme that is offered first, whose packet a proposal may bring.
    pub fn takes_initiation_packet(&self) -> bool {
        let accepted = self.response.get(1..).unwrap_or_default();
        self.offer
            .get(1..)
            .is_some_and(|names| names.starts_with(accepted))
    }
}

/// What is prepared.
#[derive(Clone, Default)]
pub struct Answers {
    pub answers: Vec<Answer>,
    /// This node's own peer id: who claims that gets no answer.
    pub own_id: Vec<u8>,
}

impl Answers {
    /// A proposal's peer id, where its initiation packet begins, and what is prepared for it. `None` if nothing is, or the
    /// proposal is not valid.
    pub fn find<'a, 'd>(&'a self, datagram: &'d [u8]) -> Option<(&'d [u8], usize, &'a Answer)> {
        let [PROPOSE, id_length, ref rest @ ..] = *datagram else {
            return None;
        };
        let (peer_id, list) = rest.split_at_checked(id_length.into())?;
        let (packet_at, answer) = self.answers.iter().find_map(|answer| {
            let rest = list.strip_prefix(&answer.offer[..])?;
            let packet_length = rest.len() - packet_offset(rest)?;
            Some((datagram.len() - packet_length, answer))
        })?;
        (is_peer_id(peer_id) && peer_id != self.own_id).then_some((peer_id, packet_at, answer))
    }
}

/// Whether it is a multihash that a libp2p peer id can have (libp2p peer id specification, "Peer Ids").
fn is_peer_id(multihash: &[u8]) -> bool {
    match multihash {
        // sha2-256.
        [0x12, 0x20, digest @ ..] => digest.len() == 32,
        // The identity multihash of an Ed25519 key, which is any 32 bytes.
        [0x00, 0x24, 0x08, 0x01, 0x12, 0x20, key @ ..] => key.len() == 32,
        // That of a secp256k1 key, which has to be a point of the curve.
        [0x00, 0x25, key @ ..] => {
            key.starts_with(&[0x08, 0x02, 0x12, 0x21])
                && key.len() == 37
                && PublicKey::try_decode_protobuf(key).is_ok()
        }
        _ => false,
    }
}

/// What JavaScript decides.
pub struct Policy {
    pub answers: Answers,
    pub max_proposals: usize,
    pub max_proposals_per_prefix: usize,
    /// Proposals with an offer that has no prepared answer which pass in each tenth of a second
    pub max_unprepared: u32,
    /// How long a proposal is remembered after it last came, and a proof of the address is valid
    pub lifetime: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send this; and there is an initiation packet from that byte on, if it is within the datagram.
    Answer {
        response: Arc<[u8]>,
        packet_at: usize,
    },
    /// JavaScript has to decide.
    Pass,
    /// Too many that JavaScript would have to decide.
    Unprepared,
    /// Too many from this part of the network.
    Quota,
}

/// A proposal without its initiation packet. There are as many as a flood can make, so they are small.
struct Proposal {
    id: [u8; MAX_PEER_ID],
    id_length: u8,
    answer: Answer,
    at: Instant,
    /// Whether JavaScript has heard of it.
    passed_on: bool,
}

impl Proposal {
    fn new(peer_id: &[u8], answer: Answer, at: Instant, passed_on: bool) -> Self {
        let mut id = [0; MAX_PEER_ID];
        id[..peer_id.len()].copy_from_slice(peer_id);
        Self {
            id,
            id_length: peer_id.len() as u8,
            answer,
            at,
            passed_on,
        }
    }

    fn bare(&self) -> Vec<u8> {
        let id = &self.id[..self.id_length.into()];
        [&[PROPOSE, self.id_length], id, &self.answer.offer].concat()
    }

    fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let mut frame = self.bare();
        let mut length = packet.len();
        while length > 0x7f {
            frame.push(length as u8 | 0x80);
            length >>= 7;
        }
        frame.push(length as u8);
        frame.extend_from_slice(packet);
        frame
    }
}

/// A site's share of the address space: what one attacker can have many addresses of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Prefix {
    /// /24
    V4([u8; 3]),
    /// /48
    V6([u8; 6]),
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

pub struct Shield {
    /// While it is up.
    policy: Option<Policy>,
    /// That of the latest policy.
    lifetime: Duration,
    /// Oldest first.
    proposals: LinkedHashMap<SocketAddr, Proposal>,
    of_prefix: HashMap<Prefix, usize>,
    /// How many were forgotten to make room.
    displaced: u64,
    unprepared: u32,
    unprepared_since: Option<Instant>,
}

impl Default for Shield {
    fn default() -> Self {
        Self {
            policy: None,
            lifetime: DEFAULT_LIFETIME,
            proposals: LinkedHashMap::new(),
            of_prefix: HashMap::new(),
            displaced: 0,
            unprepared: 0,
            unprepared_since: None,
        }
    }
}

impl Shield {
    /// Put it up; or, without a policy, down: those whose proposals are remembered can still get through.
    pub fn set(&mut self, policy: Option<Policy>) {
        if let Some(policy) = &policy {
            self.lifetime = policy.lifetime;
        }
        self.policy = policy;
    }

    /// How long a proof of an address is valid.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub fn is_up(&self) -> bool {
        self.policy.is_some()
    }

    /// Proposals that are remembered.
    pub fn len(&self) -> usize {
        self.proposals.len()
    }

    /// Proposals that were forgotten to make room for others, ever.
    pub fn displaced(&self) -> u64 {
        self.displaced
    }

    /// Whether this stranger's first packets are to be looked at.
    pub fn guards(&self, remote: &SocketAddr) -> bool {
        self.is_up() || self.remembers(remote)
    }

    /// Whether this stranger has been answered, and may prove its address yet.
    pub fn remembers(&self, remote: &SocketAddr) -> bool {
        self.proposals.contains_key(remote)
    }

    /// Whether this stranger has been answered, and JavaScript will hear of that once the address is proved: it has heard of no
    /// proposal since.
    pub fn awaits_proof(&self, remote: &SocketAddr) -> bool {
        self.proposals.get(remote).is_some_and(|it| !it.passed_on)
    }

    /// A proposal of somebody whom JavaScript dials, and who may go by the answer that it was given before: that answer, if it is the same
    /// proposal again, and where its initiation packet begins, since the first transmission may come last. `None` if JavaScript is to have
    /// it, as it is when `crossing_time` is over: the answer may be lost, and what JavaScript proposes be taken for what crosses this one.
    pub fn answer_to_repetition(
        &self,
        now: Instant,
        remote: &SocketAddr,
        proposal: &[u8],
        crossing_time: Duration,
    ) -> Option<(Arc<[u8]>, usize)> {
        let known = self.proposals.get(remote).filter(|it| !it.passed_on)?;
        if now.duration_since(known.at) >= crossing_time {
            return None;
        }
        let field = proposal.strip_prefix(&known.bare()[..])?;
        let packet_length = field.len() - packet_offset(field)?;
        let packet_at = proposal.len() - packet_length;
        Some((known.answer.response.clone(), packet_at))
    }

    /// JavaScript hears of the proposal, with its proof.
    pub fn handle_proof(&mut self, remote: &SocketAddr) {
        if let Some(known) = self.proposals.get_mut(remote) {
            known.passed_on = true;
        }
    }

    /// JavaScript hears of a proposal, and answers it, but what it has at that address may end in this very moment: who proves the
    /// address then goes by that answer.
    pub fn pass_on(&mut self, now: Instant, remote: &SocketAddr, datagram: &[u8]) {
        let policy = self.policy.as_ref();
        match policy.and_then(|policy| policy.answers.find(datagram)) {
            Some((peer_id, _, answer)) => {
                let proposal = Proposal::new(peer_id, answer.clone(), now, true);
                // Who is not remembered is JavaScript's anyway.
                let _ = self.replace(remote, proposal);
            }
            None => self.forget(remote),
        }
    }

    /// A stranger proposes again. Gives the proposal back if there is none to replace.
    fn replace(&mut self, remote: &SocketAddr, proposal: Proposal) -> Result<(), Proposal> {
        let Some(known) = self.proposals.get_mut(remote) else {
            return Err(proposal);
        };
        *known = proposal;
        self.proposals.to_back(remote);
        Ok(())
    }

    /// A stranger proposes.
    pub fn propose(&mut self, now: Instant, remote: SocketAddr, datagram: &[u8]) -> Verdict {
        let Some(policy) = &self.policy else {
            return Verdict::Pass;
        };
        let Some((peer_id, packet_at, answer)) = policy.answers.find(datagram) else {
            let max = policy.max_unprepared;
            return self.pass_unprepared(now, max);
        };
        let (max, max_per_prefix) = (policy.max_proposals, policy.max_proposals_per_prefix);
        let response = answer.response.clone();
        let proposal = Proposal::new(peer_id, answer.clone(), now, false);

        // The same peer again, most likely. If not, one of the two is forged, and the latest is what who proves the address has just
        // sent: nobody shall spoil a peer's dials by having spoken before it.
        if let Err(proposal) = self.replace(&remote, proposal) {
            let prefix = Prefix::from(remote.ip());
            let count = self.of_prefix.get(&prefix).copied().unwrap_or_default();
            if count >= max_per_prefix {
                return Verdict::Quota;
            }
            self.of_prefix.insert(prefix, count + 1);
            // The oldest has had the most time: under a flood, a place in the table must come round sooner than a dial gives up.
            if self.proposals.len() >= max {
                self.displaced += 1;
                self.forget_oldest();
            }
            self.proposals.insert(remote, proposal);
        }

        Verdict::Answer {
            response,
            packet_at,
        }
    }

    /// A stranger has proved that it receives at its address: what it has proposed, with the packet that proves it as initiation
    /// packet, and what was answered. That packet is what tells this beginning from another one of the same peer.
    pub fn proposal_of(&self, remote: &SocketAddr, packet: &[u8]) -> Option<(Vec<u8>, Arc<[u8]>)> {
        let proposal = self.proposals.get(remote)?;
        Some((proposal.frame(packet), proposal.answer.response.clone()))
    }

    /// Its proposals are dealt with elsewhere.
    pub fn forget(&mut self, remote: &SocketAddr) {
        if self.proposals.remove(remote).is_some() {
            self.count_down(remote);
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            self.forget_oldest();
        }
        if self.proposals.is_empty() {
            // What a flood has made large.
            self.proposals.shrink_to_fit();
            self.of_prefix.shrink_to_fit();
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let (_, oldest) = self.proposals.front()?;
        Some(oldest.at + self.lifetime)
    }

    fn forget_oldest(&mut self) {
        if let Some((remote, _)) = self.proposals.pop_front() {
            self.count_down(&remote);
        }
    }

    fn count_down(&mut self, remote: &SocketAddr) {
        let prefix = remote.ip().into();
        if let Some(count) = self.of_prefix.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                self.of_prefix.remove(&prefix);
            }
        }
    }

    fn pass_unprepared(&mut self, now: Instant, max: u32) -> Verdict {
        if self
            .unprepared_since
            .is_none_or(|since| now.duration_since(since) >= UNPREPARED_INTERVAL)
        {
            self.unprepared_since = Some(now);
            self.unprepared = 0;
        }
        self.unprepared += 1;
        if self.unprepared > max {
            return Verdict::Unprepared;
        }
        Verdict::Pass
    }
}

/// Whether a first packet of QUIC brings what may prove its sender's address (RFC 9000, section 17.2.2).
pub fn has_token(packet: &[u8]) -> bool {
    fn skip_connection_id(rest: &[u8]) -> Option<&[u8]> {
        let (length, rest) = rest.split_first()?;
        rest.get(usize::from(*length)..)
    }
    // The header's form and the packet's type, then the version.
    let [0xc0..=0xcf, _, _, _, _, ref ids @ ..] = *packet else {
        return false;
    };
    skip_connection_id(ids)
        .and_then(skip_connection_id)
        .and_then(|rest| rest.first())
        .is_some_and(|length| *length != 0)
}

/// Where the initiation packet begins in the last field of a proposal, which has to be its length and exactly as much, or
/// nothing at all.
fn packet_offset(field: &[u8]) -> Option<usize> {
    let (length, offset) = match *field {
        [] => return Some(0),
        [low @ 0..0x80, ..] => (usize::from(low), 1),
        // A datagram has no room for more than three bytes of a multiformats varint, which is minimal.
        [low, high @ 1..0x80, ..] => (usize::from(low & 0x7f) | usize::from(high) << 7, 2),
        [low, middle @ 0x80..=0xff, high @ 1..0x04, ..] => (
            usize::from(low & 0x7f) | usize::from(middle & 0x7f) << 7 | usize::from(high) << 14,
            3,
        ),
        _ => return None,
    };
    (offset + length == field.len()).then_some(offset)
}

#[cfg(test)]
mod tests;
