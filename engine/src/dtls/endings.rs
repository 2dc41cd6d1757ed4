//! The remote's requests to end streams (RFC 6525, section 4.1), from when they come to when they are answered; and how often it has ended
//! each without agreeing that this side does, too. Sans-IO.

use std::collections::{HashMap, HashSet};

use super::backlog::is_behind;

/// How often the remote may end a stream before it has answered that this side ends it, too: an honest one waits until its number is
/// free.
pub const MAX_RESETS: usize = 8;

/// Requests of the remote's to end streams that may wait for what it sent before. One is usual.
const MAX_ENDINGS: usize = 64;

/// Results (RFC 6525, section 4.4); in progress is what waits for what was sent before.
const NOTHING_TO_DO: u32 = 0;
pub const PERFORMED: u32 = 1;
pub const DENIED: u32 = 2;
const IN_PROGRESS: u32 = 6;

/// What a request says.
pub struct Request {
    pub number: u32,
    /// The last chunk of data that was sent before.
    pub last: u32,
    pub streams: Vec<u16>,
    /// It names none, and so means all.
    pub is_of_all: bool,
}

struct Ending {
    number: u32,
    last: u32,
    streams: HashSet<u16>,
    is_of_all: bool,
    /// Those of the streams that are counted.
    counted: Vec<u16>,
}

#[derive(Default)]
pub struct Endings {
    /// Requests to which the remote has no answer yet: it may use none of the streams before.
    pending: Vec<Ending>,
    /// The number of the last that was performed.
    last_performed: Option<u32>,
    /// How often streams are being ended.
    counts: HashMap<u16, usize>,
}

impl Endings {
    pub fn is_full(&self) -> bool {
        self.pending.len() >= MAX_ENDINGS
    }

    /// `exists`: whether there is such a stream. Returns how often the one of them is being ended that is so most often.
    pub fn request(&mut self, request: Request, exists: impl Fn(u16) -> bool) -> usize {
        let Request {
            number,
            last,
            streams,
            is_of_all,
        } = request;
        // Performed, and answered again.
        if self.last_performed.is_some_and(|it| !is_behind(it, number)) {
            return 0;
        }
        let known = self.pending.iter().position(|it| it.number == number);
        let at = known.unwrap_or_else(|| {
            self.pending.push(Ending {
                number,
                last,
                streams: HashSet::new(),
                is_of_all,
                counted: Vec::new(),
            });
            self.pending.len() - 1
        });
        let ending = &mut self.pending[at];
        // What was refused may come again, and be another one.
        ending.is_of_all |= is_of_all;
        if is_behind(last, ending.last) {
            ending.last = last;
        }
        let mut most = 0;
        for id in streams {
            if ending.streams.insert(id) && exists(id) {
                ending.counted.push(id);
                let count = self.counts.entry(id).or_default();
                *count += 1;
                most = most.max(*count);
            }
        }
        most
    }

    /// Whether a chunk of data comes on a stream that the remote has just ended, and before it was told that it is over.
    pub fn have_ended(&self, stream: u16, number: u32) -> bool {
        self.pending.iter().any(|ending| {
            (ending.is_of_all || ending.streams.contains(&stream)) && is_behind(ending.last, number)
        })
    }

    pub fn await_answer(&self, number: u32) -> bool {
        self.pending.iter().any(|it| it.number == number)
    }

    /// The remote is told what became of a request. Returns the streams that are over.
    pub fn answer(&mut self, number: u32, result: u32) -> HashSet<u16> {
        let at = self.pending.iter().position(|it| it.number == number);
        let Some(at) = at.filter(|_| result != IN_PROGRESS) else {
            return HashSet::new();
        };
        let ending = self.pending.swap_remove(at);
        if matches!(result, NOTHING_TO_DO | PERFORMED) {
            self.last_performed = Some(number);
            return ending.streams;
        }
        for id in ending.counted {
            self.agreed(id);
        }
        HashSet::new()
    }

    /// The remote has agreed that this side ends a stream, or never will.
    pub fn agreed(&mut self, id: u16) {
        if let Some(count) = self.counts.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&id);
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.counts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(endings: &mut Endings, number: u32, streams: &[u16]) -> usize {
        let request = Request {
            number,
            last: 100,
            streams: streams.to_vec(),
            is_of_all: false,
        };
        endings.request(request, |_| true)
    }

    #[test]
    fn what_comes_behind_a_request_is_held_off_until_that_is_answered() {
        let mut endings = Endings::default();
        request(&mut endings, 1, &[2]);
        assert!(endings.answer(1, IN_PROGRESS).is_empty());
        assert!(endings.have_ended(2, 101) && !endings.have_ended(2, 100));
        assert!(!endings.have_ended(4, 101));
        assert_eq!(endings.answer(1, PERFORMED), HashSet::from([2]));
        assert!(!endings.have_ended(2, 101));
    }

    #[test]
    fn a_request_that_was_refused_may_come_again_and_name_others() {
        let mut endings = Endings::default();
        request(&mut endings, 1, &[2]);
        assert!(endings.answer(1, 4).is_empty());
        assert!(endings.is_empty());
        request(&mut endings, 1, &[4]);
        assert_eq!(endings.answer(1, PERFORMED), HashSet::from([4]));
    }

    #[test]
    fn a_request_that_was_performed_means_nothing_when_it_comes_again() {
        let mut endings = Endings::default();
        for number in [1, 2] {
            request(&mut endings, number, &[2]);
            endings.answer(number, PERFORMED);
        }
        assert_eq!(request(&mut endings, 1, &[2]), 0);
        assert!(!endings.have_ended(2, 101));
    }

    #[test]
    fn ends_are_counted_until_the_remote_has_agreed_to_them() {
        let mut endings = Endings::default();
        for number in 1..=3 {
            assert_eq!(request(&mut endings, number, &[2]), number as usize);
            assert_eq!(request(&mut endings, number, &[2]), 0);
            endings.answer(number, PERFORMED);
        }
        (0..3).for_each(|_| endings.agreed(2));
        assert!(endings.is_empty());
    }
}
