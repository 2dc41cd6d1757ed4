//! How many bytes of datagrams may be under way: DTLS itself sends as fast as it is asked to (RFC 8085, section 3.1).
//!
//! Datagrams are not acknowledged, so after every few of them goes a heartbeat of SCTP, which the remote has to answer (RFC 9260,
//! section 8.3). An answer says that what was sent before it has left the path; a heartbeat without one says that the path, or
//! the remote, does not keep up. The window doubles with every round trip up to the first of those; then it shrinks with each, and
//! grows back faster than TCP's, since what waits is not sent late but dropped.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many bytes of datagrams go before the next heartbeat: about as many as the system sends in one call, which a heartbeat ends.
const MARK_BYTES: usize = 48 * 1024;

const MIN_WINDOW: usize = 32 * 1024;
const INITIAL_WINDOW: usize = 64 * 1024;
const MAX_WINDOW: usize = 4 * 1024 * 1024;

/// What is left of the window after an answer has failed to come, and the part of what is answered by which it then grows.
const REDUCTION: f64 = 0.8;
const GROWTH: usize = 16;

/// An answer is waited for as long as this many round trips, and at least so long.
const ANSWER_ROUND_TRIPS: u32 = 4;
const MIN_ANSWER_TIME: Duration = Duration::from_millis(200);

/// If no answer comes for so many round trips, and at least so long, another heartbeat goes: its answer says what became of the
/// last ones.
const PROBE_ROUND_TRIPS: u32 = 2;
const MIN_PROBE_TIME: Duration = Duration::from_millis(4);

/// Before a round trip was measured.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// How much a new measurement counts: one in so many parts.
const RTT_GAIN: u32 = 8;

struct Mark {
    number: u64,
    bytes: usize,
    at: Instant,
}

pub struct Flight {
    window: usize,
    /// Below it the window grows by as much as is answered.
    threshold: usize,
    unmarked: usize,
    marked: usize,
    /// Oldest first.
    marks: VecDeque<Mark>,
    last_number: u64,
    /// When to ask once more, if no answer comes until then.
    probe_at: Option<Instant>,
    /// Marks up to it were sent before the window was made smaller.
    reduced_at: u64,
    rtt: Option<Duration>,
    min_rtt: Option<Duration>,
}

impl Default for Flight {
    fn default() -> Self {
        Self {
            window: INITIAL_WINDOW,
            threshold: MAX_WINDOW,
            unmarked: 0,
            marked: 0,
            marks: VecDeque::new(),
            last_number: 0,
            probe_at: None,
            reduced_at: 0,
            rtt: None,
            min_rtt: None,
        }
    }
}

impl Flight {
    pub fn has_room(&self) -> bool {
        self.unmarked + self.marked < self.window
    }

    pub fn sent(&mut self, bytes: usize) {
        self.unmarked += bytes;
    }

    /// Whether a heartbeat should follow what was sent.
    pub fn wants_mark(&self) -> bool {
        self.unmarked >= MARK_BYTES || (self.unmarked > 0 && !self.has_room())
    }

    /// A heartbeat of this number goes now.
    pub fn mark(&mut self, now: Instant) -> u64 {
        self.last_number += 1;
        if self.unmarked > 0 {
            self.probe_at = Some(now + self.probe_time());
        }
        self.marked += self.unmarked;
        self.marks.push_back(Mark {
            number: self.last_number,
            bytes: std::mem::take(&mut self.unmarked),
            at: now,
        });
        self.last_number
    }

    /// When the latest heartbeat went.
    pub fn marked_at(&self) -> Option<Instant> {
        self.marks.back().map(|mark| mark.at)
    }

    /// A heartbeat was answered.
    pub fn answered(&mut self, number: u64, now: Instant) {
        let Some(index) = self.marks.iter().position(|mark| mark.number == number) else {
            return;
        };
        let mut answered = 0;
        let mut is_one_missing = false;
        for mark in self.marks.drain(..=index) {
            answered += mark.bytes;
            if mark.number == number {
                let sample = now.duration_since(mark.at);
                self.min_rtt = Some(self.min_rtt.map_or(sample, |least| least.min(sample)));
                self.rtt = Some(
                    self.rtt
                        .map_or(sample, |rtt| (rtt * (RTT_GAIN - 1) + sample) / RTT_GAIN),
                );
            } else {
                is_one_missing |= mark.number > self.reduced_at;
            }
        }
        self.marked -= answered;
        self.probe_at = self
            .probe_at
            .filter(|_| self.marked > 0)
            .map(|_| now + self.probe_time());
        if is_one_missing {
            self.reduce();
        } else if self.window < self.threshold {
            self.window += answered;
        } else {
            self.window += answered / GROWTH;
        }
        self.window = self.window.min(MAX_WINDOW);
    }

    /// When to ask once more, or to give up waiting for an answer.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let answer_by = self.marks.front()?.at + self.answer_time();
        Some(self.probe_at.map_or(answer_by, |at| at.min(answer_by)))
    }

    /// Returns whether a heartbeat has to go.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let answer_time = self.answer_time();
        while let Some(mark) = self.marks.front()
            && now >= mark.at + answer_time
        {
            self.marked -= mark.bytes;
            if mark.bytes > 0 && mark.number > self.reduced_at {
                self.reduce();
            }
            self.marks.pop_front();
        }
        // Once: what is not answered then is given up.
        self.marked > 0 && self.probe_at.take_if(|at| now >= *at).is_some()
    }

    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    pub fn min_rtt(&self) -> Duration {
        self.min_rtt.unwrap_or(INITIAL_RTT)
    }

    fn probe_time(&self) -> Duration {
        MIN_PROBE_TIME.max(self.rtt.unwrap_or(INITIAL_RTT) * PROBE_ROUND_TRIPS)
    }

    /// How long an answer is waited for.
    pub fn answer_time(&self) -> Duration {
        MIN_ANSWER_TIME.max(self.rtt.unwrap_or(INITIAL_RTT) * ANSWER_ROUND_TRIPS)
    }

    /// Once for everything that is under way.
    fn reduce(&mut self) {
        self.reduced_at = self.last_number;
        self.threshold = ((self.window as f64 * REDUCTION) as usize).max(MIN_WINDOW);
        self.window = self.threshold;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    /// Fill the window, mark by mark; returns the numbers.
    fn fill(flight: &mut Flight, now: Instant) -> Vec<u64> {
        let mut numbers = Vec::new();
        while flight.has_room() {
            flight.sent(1000);
            if flight.wants_mark() {
                numbers.push(flight.mark(now));
            }
        }
        numbers
    }

    #[test]
    fn no_more_is_under_way_than_the_window_holds() {
        let mut flight = Flight::default();
        fill(&mut flight, Instant::now());
        assert!(flight.marked + flight.unmarked < INITIAL_WINDOW + 1000);
        assert_eq!(flight.unmarked, 0);
    }

    #[test]
    fn the_window_doubles_with_each_round_trip_as_long_as_everything_is_answered() {
        let mut flight = Flight::default();
        let mut now = Instant::now();
        let mut before = flight.window;
        for _ in 0..3 {
            let numbers = fill(&mut flight, now);
            now += RTT;
            numbers.iter().for_each(|it| flight.answered(*it, now));
            assert!(flight.window >= before * 2);
            before = flight.window;
        }
        assert_eq!(flight.rtt(), Some(RTT));
    }

    #[test]
    fn the_window_never_passes_its_bound() {
        let mut flight = Flight::default();
        let now = Instant::now();
        for _ in 0..20 {
            for number in fill(&mut flight, now) {
                flight.answered(number, now);
            }
        }
        assert_eq!(flight.window, MAX_WINDOW);
    }

    #[test]
    fn a_missing_answer_shrinks_the_window_once_for_all_that_was_under_way() {
        let mut flight = Flight::default();
        let now = Instant::now();
        for _ in 0..3 {
            for number in fill(&mut flight, now) {
                flight.answered(number, now);
            }
        }
        let before = flight.window;
        let numbers = fill(&mut flight, now);
        for pair in numbers.chunks(2) {
            if let [_missing, answered] = pair {
                flight.answered(*answered, now);
            }
        }
        assert!(flight.window >= before * 7 / 10 && flight.window < before * 9 / 10);
    }

    #[test]
    fn what_is_not_answered_in_time_makes_room_again() {
        let mut flight = Flight::default();
        let now = Instant::now();
        fill(&mut flight, now);
        assert!(!flight.has_room());
        let probe_at = flight.poll_timeout().unwrap();
        assert!(flight.handle_timeout(probe_at));
        flight.mark(probe_at);
        assert!(!flight.has_room());
        let at = flight.poll_timeout().unwrap();
        assert!(at > probe_at && !flight.handle_timeout(at));
        assert!(flight.has_room() && flight.marked == 0);
        assert!((MIN_WINDOW..INITIAL_WINDOW).contains(&flight.window));
    }

    #[test]
    fn the_answer_to_another_heartbeat_says_what_became_of_the_last_ones() {
        let mut flight = Flight::default();
        let now = Instant::now();
        fill(&mut flight, now);
        let probe_at = flight.poll_timeout().unwrap();
        assert!(flight.handle_timeout(probe_at) && !flight.has_room());
        let number = flight.mark(probe_at);
        flight.answered(number, probe_at + RTT);
        assert!(flight.has_room() && flight.window < INITIAL_WINDOW);
        assert_eq!(flight.poll_timeout(), None);
    }

    #[test]
    fn an_answer_that_was_not_waited_for_says_nothing() {
        let mut flight = Flight::default();
        let now = Instant::now();
        flight.answered(1, now);
        let number = flight.mark(now);
        flight.answered(number + 1, now);
        assert_eq!(flight.rtt(), None);
    }
}
