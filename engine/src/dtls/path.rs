//! How large packets may be on a path: path MTU discovery by probes (RFC 8899), since nothing else can be relied upon to tell.
//! Sans-IO.
//!
//! Inputs are [`Path::start`], [`Path::sent`], [`Path::answered`], [`Path::handle_timeout`] and [`Path::suspect`]; after any of them
//! [`Path::poll_probe`] says what is to be sent, [`Path::size`] may have changed, and [`Path::poll_timeout`] says when to come back.

use std::time::{Duration, Instant};

/// Packets that every path carries: IPv6 guarantees 1,280 bytes, less 48 of headers (RFC 8200, section 5).
pub const BASE_SIZE: usize = 1232;

/// The largest packet that is ever looked for. A record holds no more than 2^14 bytes (RFC 9147, section 4), and four packets of
/// this size can be sent in one system call.
pub const MAX_SIZE: usize = 16_000;

/// What is looked for, in this order: the sizes that links have, less 48 bytes of headers. Ethernet, as it is and within PPPoE;
/// jumbo frames, as they are and as cloud networks have them; a loopback.
const SIZES: [usize; 6] = [1432, 1452, 8452, 8848, 8952, MAX_SIZE];

/// Larger ones are looked for once so much has been sent: a session of few bytes has no use for them, and few paths carry them.
const LARGE_SIZE: usize = 1452;
const LARGE_TRAFFIC: u64 = 64 * 1024;

/// How often a probe is repeated before the path is taken not to carry it (RFC 8899, section 5.1.2).
const MAX_PROBES: u8 = 3;

/// When to look for more again, which a new path may carry (RFC 8899, section 5.1.1).
const RAISE_INTERVAL: Duration = Duration::from_secs(600);

/// How long sizes above [`LARGE_SIZE`] are left alone after all of such packets seem to have been lost, doubled each time: what the path
/// carries a remote may yet have no room for, if it comes in bursts.
const LARGE_PAUSE: Duration = Duration::from_secs(5);

/// For how long packets are sent in a size before it is tried again (RFC 8899, section 4.2): what comes after them tells nothing
/// about them if they hold datagrams.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(15);

struct Probe {
    size: usize,
    /// Of its first transmission, and of the latest.
    first: u64,
    last: u64,
    tries: u8,
    /// When it is taken for lost.
    until: Instant,
}

pub struct Path {
    base: usize,
    most: usize,
    size: usize,
    probe: Option<Probe>,
    /// When to look for a larger size, and when to see whether that in use is still carried.
    search_at: Option<Instant>,
    confirm_at: Option<Instant>,
    /// When sizes above [`LARGE_SIZE`] may be looked for again, and how long they are left alone the next time.
    large_at: Option<Instant>,
    large_pause: Duration,
    last_number: u64,
    /// Bytes sent since the start.
    traffic: u64,
}

impl Path {
    /// `base` is carried for certain; nothing above `most` is looked for.
    pub fn new(base: usize, most: usize) -> Self {
        Self {
            base,
            most: most.clamp(base, MAX_SIZE.max(base)),
            size: base,
            probe: None,
            search_at: None,
            confirm_at: None,
            large_at: None,
            large_pause: LARGE_PAUSE,
            last_number: 0,
            traffic: 0,
        }
    }

    /// The most bytes that a packet may have now.
    pub fn size(&self) -> usize {
        self.size
    }

    /// From now on probes can be answered.
    pub fn start(&mut self, now: Instant) {
        self.search_at = Some(now);
    }

    /// So many bytes of packets have been sent, the largest of this size.
    pub fn sent(&mut self, now: Instant, bytes: usize, largest: usize) {
        self.traffic += bytes as u64;
        if largest > self.base {
            self.confirm_at.get_or_insert(now + CONFIRM_INTERVAL);
        }
    }

    /// The number and size of the probe that is to be sent now. It is lost if it was not answered within `answer_time`.
    pub fn poll_probe(&mut self, now: Instant, answer_time: Duration) -> Option<(u64, usize)> {
        let size = match &self.probe {
            Some(probe) if now < probe.until => return None,
            Some(probe) => probe.size,
            None if self.confirm_at.is_some_and(|at| now >= at) => self.size,
            None if self.next_at().is_some_and(|at| now >= at) => self.next_size()?,
            None => return None,
        };
        self.last_number += 1;
        let number = self.last_number;
        let probe = self.probe.get_or_insert(Probe {
            size,
            first: number,
            last: number,
            tries: 0,
            until: now,
        });
        probe.last = number;
        probe.tries += 1;
        probe.until = now + answer_time;
        Some((number, size))
    }

    /// A probe was answered. Returns whether packets may be larger now.
    pub fn answered(&mut self, number: u64, now: Instant) -> bool {
        let is_expected = |probe: &mut Probe| (probe.first..=probe.last).contains(&number);
        let Some(probe) = self.probe.take_if(is_expected) else {
            return false;
        };
        if probe.size == self.size {
            self.confirm_at = None;
            return false;
        }
        self.size = probe.size;
        self.search_at = Some(now);
        true
    }

    /// Packets larger than the path's may have been lost, and all with them. Returns whether they have to be smaller now.
    pub fn suspect(&mut self, now: Instant) -> bool {
        let shrinks = self.size > self.base;
        if shrinks {
            if self.size > LARGE_SIZE {
                self.large_at = Some(now + self.large_pause);
                self.large_pause = RAISE_INTERVAL.min(self.large_pause * 2);
            }
            self.size = self.base;
            self.probe = None;
            self.confirm_at = None;
            self.search_at = Some(now);
        }
        shrinks
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.probe {
            Some(probe) => Some(probe.until),
            None => [self.next_at(), self.confirm_at]
                .into_iter()
                .flatten()
                .min(),
        }
    }

    /// Returns whether packets have to be smaller now.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_lost = |probe: &mut Probe| now >= probe.until && probe.tries == MAX_PROBES;
        let Some(probe) = self.probe.take_if(is_lost) else {
            return false;
        };
        if probe.size > self.size {
            self.search_at = Some(now + RAISE_INTERVAL);
            return false;
        }
        // What was carried is so no more.
        self.suspect(now)
    }

    /// When to look for [`Self::next_size`].
    fn next_at(&self) -> Option<Instant> {
        let is_large = self.next_size()? > LARGE_SIZE;
        let large_at = self.large_at.filter(|_| is_large);
        self.search_at.max(large_at)
    }

    fn next_size(&self) -> Option<usize> {
        SIZES
            .into_iter()
            .filter(|size| *size < self.most)
            .chain([self.most])
            .find(|size| *size > self.size)
            .filter(|size| *size <= LARGE_SIZE || self.traffic >= LARGE_TRAFFIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER_TIME: Duration = Duration::from_millis(200);

    /// Let a path that carries so much answer, until nothing is due before `end`.
    fn play(path: &mut Path, carries: usize, from: Instant, end: Instant) -> Vec<usize> {
        let mut probes = Vec::new();
        let mut now = from;
        loop {
            path.handle_timeout(now);
            while let Some((number, size)) = path.poll_probe(now, ANSWER_TIME) {
                probes.push(size);
                if size <= carries {
                    path.answered(number, now);
                }
            }
            match path.poll_timeout() {
                Some(at) if at <= end => now = at,
                _ => return probes,
            }
        }
    }

    fn started(most: usize, now: Instant) -> Path {
        let mut path = Path::new(BASE_SIZE, most);
        path.start(now);
        path
    }

    #[test]
    fn finds_what_an_ethernet_carries_and_no_more() {
        let now = Instant::now();
        let mut path = started(MAX_SIZE, now);
        path.sent(now, 1 << 20, 1000);
        let probes = play(&mut path, 1460, now, now + Duration::from_secs(500));
        assert_eq!(probes, [1432, 1452, 8452, 8452, 8452]);
        assert_eq!(path.size(), 1452);
    }

    #[test]
    fn looks_for_jumbo_frames_only_if_much_is_sent() {
        let now = Instant::now();
        let mut path = started(MAX_SIZE, now);
        let end = now + Duration::from_secs(5);
        assert_eq!(play(&mut path, MAX_SIZE, now, end), [1432, 1452]);
        assert_eq!(path.poll_timeout(), None);
        path.sent(now, 1 << 20, 1000);
        let probes = play(&mut path, MAX_SIZE, now, end);
        assert_eq!(probes, [8452, 8848, 8952, MAX_SIZE]);
    }

    #[test]
    fn looks_for_no_more_than_it_may() {
        let now = Instant::now();
        let end = now + Duration::from_secs(5000);
        assert_eq!(play(&mut started(1232, now), MAX_SIZE, now, end), []);
        assert_eq!(
            play(&mut started(1440, now), MAX_SIZE, now, end),
            [1432, 1440]
        );
    }

    #[test]
    fn looks_again_after_a_while() {
        let now = Instant::now();
        let mut path = started(MAX_SIZE, now);
        let end = now + Duration::from_secs(1000);
        assert_eq!(play(&mut path, 1300, now, end).len(), 6);
        let later = now + RAISE_INTERVAL * 3;
        assert_eq!(play(&mut path, 1500, now, later)[..2], [1432, 1452]);
    }

    #[test]
    fn one_lost_probe_says_nothing() {
        let now = Instant::now();
        let mut path = started(1432, now);
        let (first, _) = path.poll_probe(now, ANSWER_TIME).unwrap();
        let later = now + ANSWER_TIME;
        assert!(!path.handle_timeout(later));
        let (second, size) = path.poll_probe(later, ANSWER_TIME).unwrap();
        assert!(size == 1432 && second > first);
        // The answer to the first was only late.
        assert!(path.answered(first, later) && path.size() == 1432);
        assert!(!path.answered(second, later));
    }

    #[test]
    fn a_path_that_carries_less_than_before_is_noticed() {
        let now = Instant::now();
        let mut path = started(1452, now);
        play(&mut path, 1500, now, now);
        assert_eq!((path.size(), path.poll_timeout()), (1452, None));
        path.sent(now, 1452, 1452);
        let end = now + CONFIRM_INTERVAL + Duration::from_secs(1);
        assert_eq!(play(&mut path, 1500, now, end), [1452]);
        path.sent(end, 1452, 1452);
        let probes = play(&mut path, 1300, end, end + Duration::from_secs(60));
        assert_eq!(probes[..3], [1452, 1452, 1452]);
        assert_eq!(path.size(), BASE_SIZE);
    }

    #[test]
    fn it_is_tried_anew_at_once_if_all_is_lost() {
        let now = Instant::now();
        let mut path = started(1452, now);
        play(&mut path, 1500, now, now);
        assert!(path.suspect(now) && path.size() == BASE_SIZE);
        assert!(!path.suspect(now));
        assert_eq!(play(&mut path, 1500, now, now), [1432, 1452]);
    }

    #[test]
    fn large_packets_that_are_lost_are_left_alone_for_longer_each_time() {
        let now = Instant::now();
        let mut path = started(MAX_SIZE, now);
        path.sent(now, 1 << 20, 1000);
        play(&mut path, MAX_SIZE, now, now);
        let mut lost_at = now;
        for pause in [5, 10, 20] {
            assert_eq!(path.size(), MAX_SIZE);
            assert!(path.suspect(lost_at));
            play(&mut path, MAX_SIZE, lost_at, lost_at);
            assert_eq!(path.size(), 1452);
            let back_at = lost_at + Duration::from_secs(pause);
            assert_eq!(path.poll_timeout(), Some(back_at));
            play(&mut path, MAX_SIZE, back_at, back_at);
            lost_at = back_at;
        }
    }
}
