//! Streams of two sessions over a network that delays, loses and reorders, and of applications that end them in any way.

use std::collections::BTreeMap;

use super::*;

const DELAY: Duration = Duration::from_millis(20);

/// Xorshift, which is as random as this needs.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

#[derive(Clone, Copy)]
struct Path {
    /// Of a hundred.
    loss: u64,
    /// In milliseconds.
    jitter: u64,
}

struct Network {
    pair: Pair,
    random: Random,
    path: Path,
    /// What is under way, by the time of its arrival, and whether to the second.
    wire: BTreeMap<(Instant, usize), (bool, Vec<u8>)>,
    sent: usize,
}

/// What an application does about an event of its stream: kind, stream, bytes.
type App<'a> = dyn FnMut(&mut DtlsSession, &mut Events, &mut Random, [u64; 3]) + 'a;

impl Network {
    fn new(seed: u64, path: Path) -> Self {
        Self {
            pair: Pair::secured(),
            random: Random(seed * 7919 + 12_345),
            path,
            wire: BTreeMap::new(),
            sent: 0,
        }
    }

    fn ends(&mut self) -> [&mut End; 2] {
        [&mut self.pair.a, &mut self.pair.b]
    }

    fn send(&mut self) {
        let now = self.pair.now;
        for is_first in [true, false] {
            let end = &mut self.ends()[usize::from(!is_first)];
            for datagram in end.say(now) {
                let jitter = Duration::from_micros(self.random.below(self.path.jitter * 1000 + 1));
                self.sent += 1;
                if self.random.below(100) >= self.path.loss {
                    let arrival = (now + DELAY + jitter, self.sent);
                    self.wire.insert(arrival, (is_first, datagram));
                }
            }
        }
    }

    /// Let both applications hear what has happened.
    fn tell(&mut self, app: &mut App<'_>) {
        let random = &mut self.random;
        for end in [&mut self.pair.a, &mut self.pair.b] {
            for batch in std::mem::take(&mut end.batches) {
                let is_end = |it: &&Notice| matches!(it, Notice::Closed { .. });
                assert!(batch.notices.iter().find(is_end).is_none());
                for record in batch.records.chunks_exact(RECORD) {
                    let event = [record[0] as u64, record[2] as u64, record[4] as u64];
                    app(&mut end.session, &mut end.out, random, event);
                }
            }
        }
    }

    fn run(&mut self, time: Duration, app: &mut App<'_>) {
        let end = self.pair.now + time;
        while self.pair.now < end {
            self.send();
            self.tell(app);
            self.send();
            let [a, b] = self.ends().map(|it| it.session.poll_timeout());
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            let next = [a, b, arrival, Some(end)].into_iter().flatten().min();
            let now = next.unwrap_or(end).max(self.pair.now);
            self.pair.now = now;
            for end in self.ends() {
                end.session.handle_timeout(now);
            }
            while let Some(entry) = self.wire.first_entry().filter(|it| it.key().0 <= now) {
                let (is_to_second, datagram) = entry.remove();
                self.ends()[usize::from(is_to_second)].hear(now, &datagram);
            }
        }
    }

    /// All numbers that were ever used are free again, and nothing is left of them.
    fn check(&mut self) {
        for end in self.ends() {
            assert_eq!(end.session.take_left_out(), LeftOut::default());
            let session = &end.session;
            assert!(session.streams.is_empty(), "{:?}", session.streams.keys());
            assert!(session.abandoned.is_empty(), "{:?}", session.abandoned);
            assert_eq!(session.inbox_size, 0);
            let used = (session.next - u16::from(!session.role.is_initiator())) / 2;
            let free: HashSet<u16> = session.free.iter().copied().collect();
            assert_eq!(free.len(), usize::from(used), "free are {free:?}");
            assert_eq!(session.free.len(), free.len());
            assert!(session.association.as_ref().unwrap().ends_none());
        }
    }
}

const PATHS: [Path; 3] = [
    Path { loss: 0, jitter: 0 },
    Path { loss: 3, jitter: 0 },
    Path {
        loss: 10,
        jitter: 40,
    },
];

fn is(kind: Kind, event: [u64; 3]) -> bool {
    event[0] == kind as u64
}

#[test]
fn requests_go_on_over_a_network_that_loses() {
    for path in PATHS {
        let mut network = Network::new(1, path);
        let mut answered = 0;
        let mut app = |session: &mut DtlsSession,
                       out: &mut Events,
                       _: &mut Random,
                       event @ [_, stream, bytes]: [u64; 3]| {
            if is(Kind::StreamReady, event) {
                session.write(stream, vec![1; 100].into(), out);
                session.finish(stream, out);
            } else if is(Kind::StreamOpened, event) {
                session.write(stream, vec![1; 5_000].into(), out);
                session.finish(stream, out);
            } else if is(Kind::StreamData, event) {
                session.consumed(stream, bytes as usize, out, false);
            } else if is(Kind::StreamFinished, event) {
                answered += 1;
            }
            assert!(!is(Kind::StreamReset, event) && !is(Kind::StreamStopped, event));
        };
        for token in 0..300 {
            for end in network.ends() {
                end.session.open_stream(token, &mut end.out);
            }
            network.run(Duration::from_millis(30), &mut app);
        }
        network.run(Duration::from_secs(60), &mut app);
        network.check();
        // Of each, the request ends there, and the answer here.
        assert_eq!(answered, 4 * 300, "of a loss of {} %", path.loss);
    }
}

#[test]
fn whatever_becomes_of_streams_their_numbers_are_free_in_the_end() {
    for (seed, path) in (1..=6).flat_map(|seed| PATHS.map(|path| (seed, path))) {
        let mut network = Network::new(seed, path);
        let mut app = |session: &mut DtlsSession,
                       out: &mut Events,
                       random: &mut Random,
                       event @ [_, stream, bytes]: [u64; 3]| {
            if is(Kind::StreamReady, event) || is(Kind::StreamOpened, event) {
                let size = [0, 100, 20_000, 300_000][random.below(4) as usize];
                session.write(stream, vec![1; size].into(), out);
                match random.below(8) {
                    0..4 => session.finish(stream, out),
                    4 => session.reset(stream),
                    5 => session.stop(stream),
                    _ => {}
                }
            } else if is(Kind::StreamData, event) && random.below(3) > 0 {
                session.consumed(stream, bytes as usize, out, false);
            } else if is(Kind::StreamFinished, event) || is(Kind::StreamStopped, event) {
                match random.below(3) {
                    0 => session.finish(stream, out),
                    1 => session.reset(stream),
                    _ => {}
                }
            } else if is(Kind::StreamReset, event) {
                session.reset(stream);
            }
        };
        for token in 0..200 {
            for end in network.ends() {
                end.session.open_stream(token, &mut end.out);
            }
            network.run(Duration::from_millis(30), &mut app);
        }
        // The applications have had enough.
        for end in network.ends() {
            end.session.opening.clear();
        }
        let mut give_up =
            |session: &mut DtlsSession,
             _: &mut Events,
             _: &mut Random,
             [_, stream, _]: [u64; 3]| session.reset(stream);
        for end in network.ends() {
            for stream in end.session.streams.keys().copied().collect::<Vec<_>>() {
                end.session.reset(stream.into());
            }
        }
        network.path.loss = 0;
        network.run(Duration::from_secs(60), &mut give_up);
        network.check();
    }
}

/// The first has a stream, on which the second sends more than is read.
fn with_a_writer(before: impl Fn(&mut Pair)) -> Pair {
    let mut pair = Pair::secured();
    pair.a.session.open_stream(1, &mut pair.a.out);
    pair.a
        .session
        .write(0, vec![1; 100].into(), &mut pair.a.out);
    pair.run(Duration::from_secs(1));
    before(&mut pair);
    pair.run(Duration::from_secs(1));
    let b = &mut pair.b;
    b.session.write(0, vec![1; 3 << 20].into(), &mut b.out);
    pair.run(Duration::from_secs(1));
    pair
}

fn expect_reset_to_be_heard(mut pair: Pair) {
    pair.a.session.reset(0);
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.b.count(Kind::StreamStopped), 1);
    assert!(pair.a.session.abandoned.is_empty());
    assert!(pair.b.session.streams.is_empty());
}

#[test]
fn a_reset_is_heard_by_who_has_the_end_of_the_stream_already() {
    let finish = |pair: &mut Pair| pair.a.session.finish(0, &mut pair.a.out);
    expect_reset_to_be_heard(with_a_writer(finish));
}

#[test]
fn a_reset_is_heard_by_who_has_stopped_reading() {
    expect_reset_to_be_heard(with_a_writer(|pair| pair.b.session.stop(0)));
}

#[test]
fn numbers_that_both_sides_end_at_once_are_used_again() {
    let mut pair = Pair::secured();
    for round in 1..=10 {
        for token in 0..16 {
            pair.a.session.open_stream(token, &mut pair.a.out);
        }
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.a.count(Kind::StreamReady), 16 * round);
        for stream in (0..32).step_by(2) {
            let a = &mut pair.a;
            a.session.write(stream, vec![1; 1000].into(), &mut a.out);
        }
        pair.run(Duration::from_secs(1));
        for stream in (0..32).step_by(2) {
            pair.a.session.reset(stream);
            pair.b.session.reset(stream);
        }
        pair.run(Duration::from_secs(5));
    }
}
