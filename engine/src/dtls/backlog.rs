//! How many pieces of the remote's messages `sctp-proto` holds. It bounds the bytes of those that wait to be read, not their number,
//! and nothing of those that came beyond a gap. Sans-IO.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// 9 MiB in packets of a common size. Each piece takes `sctp-proto` a few hundred bytes beside its content, and a look at all the others.
pub const MAX_PIECES: usize = 8192;

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Take,
    /// As if it had been lost: it comes again.
    Drop,
    /// Nobody who keeps to the protocol gets there.
    Refuse,
}

/// A chunk of data, without its content.
#[derive(Clone)]
pub struct Piece {
    pub number: u32,
    pub bytes: usize,
}

#[derive(Default)]
pub struct Backlog {
    max_bytes: usize,
    /// Up to which number all have come, if the remote was told yet. Of 64 bits, so that numbers do not begin again.
    cumulative: Option<u64>,
    /// Those beyond it that have come, and their bytes.
    beyond: BTreeMap<u64, usize>,
    beyond_bytes: usize,
    /// Pieces that have come and were not read. Some are never: it is set right whenever nothing can be held.
    unread: usize,
}

impl Backlog {
    /// `max_bytes`: how many the remote may have under way.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            ..Self::default()
        }
    }

    /// What to do with a packet of these. `is_reading`: all messages that can be read were read.
    pub fn arrive(
        &mut self,
        pieces: impl Iterator<Item = Piece> + Clone,
        is_reading: bool,
    ) -> Verdict {
        let Some(cumulative) = self.cumulative else {
            return Verdict::Take;
        };
        let number = |piece: &Piece| extended(piece.number, cumulative);
        let is_new = |number: &u64| *number > cumulative && !self.beyond.contains_key(number);
        let Some(first) = pieces.clone().map(|it| number(&it)).find(is_new) else {
            return Verdict::Take;
        };
        // What comes next in order may be all that is missing to make room, unless room has to be made by reading.
        let may_make_room = is_reading && first == cumulative + 1;
        if self.exceeds(1) && !may_make_room {
            return Verdict::Drop;
        }
        if self.exceeds(2) {
            return Verdict::Refuse;
        }
        for piece in pieces {
            let number = number(&piece);
            if number > cumulative
                && let Entry::Vacant(entry) = self.beyond.entry(number)
            {
                entry.insert(piece.bytes);
                self.beyond_bytes += piece.bytes;
                self.unread += 1;
            }
        }
        Verdict::Take
    }

    /// A message of so many pieces was read.
    pub fn read(&mut self, pieces: usize) {
        self.unread = self.unread.saturating_sub(pieces);
    }

    /// The remote is told up to which number all have come. `is_empty`: and that nothing is held.
    pub fn acknowledge(&mut self, number: u32, is_empty: bool) {
        let cumulative = extended(number, self.cumulative.unwrap_or(1 << 32));
        self.cumulative = Some(cumulative);
        let beyond = self.beyond.split_off(&(cumulative + 1));
        let done = std::mem::replace(&mut self.beyond, beyond);
        self.beyond_bytes -= done.values().sum::<usize>();
        if is_empty {
            self.unread = 0;
        }
    }

    #[cfg(test)]
    pub fn check(&self) {
        assert_eq!(self.beyond_bytes, self.beyond.values().sum::<usize>());
        assert!(self.beyond.keys().all(|it| Some(*it) > self.cumulative));
        // What is one packet's may be over it.
        assert!(self.unread.max(self.beyond.len()) < 2 * MAX_PIECES + 1000);
    }

    fn exceeds(&self, times: usize) -> bool {
        self.unread >= times * MAX_PIECES
            || self.beyond.len() >= times * MAX_PIECES
            || self.beyond_bytes >= times * self.max_bytes
    }
}

/// The number of 64 bits that is nearest to `near`, of those that end in this one (RFC 1982).
fn extended(number: u32, near: u64) -> u64 {
    near.wrapping_add_signed(i64::from(number.wrapping_sub(near as u32) as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After 1000 pieces.
    fn backlog() -> Backlog {
        let mut backlog = Backlog::new(100_000);
        backlog.acknowledge(1000, true);
        backlog
    }

    fn pieces(numbers: impl Iterator<Item = u32> + Clone) -> impl Iterator<Item = Piece> + Clone {
        numbers.map(|number| Piece { number, bytes: 1 })
    }

    fn arrive(backlog: &mut Backlog, numbers: impl Iterator<Item = u32> + Clone) -> Verdict {
        backlog.arrive(pieces(numbers), true)
    }

    const MOST: u32 = MAX_PIECES as u32;

    #[test]
    fn beyond_a_gap_there_are_so_many_and_what_closes_it_is_taken_still() {
        let mut backlog = backlog();
        assert_eq!(arrive(&mut backlog, 1002..1002 + MOST), Verdict::Take);
        assert_eq!(
            arrive(&mut backlog, 1002 + MOST..1003 + MOST),
            Verdict::Drop
        );
        assert_eq!(arrive(&mut backlog, 1001..1002), Verdict::Take);
        backlog.read(MAX_PIECES + 1);
        backlog.acknowledge(1001 + MOST, false);
        assert_eq!(
            arrive(&mut backlog, 1003 + MOST..1004 + MOST),
            Verdict::Take
        );
    }

    #[test]
    fn beyond_a_gap_there_are_no_more_bytes_than_may_be_under_way() {
        let mut backlog = backlog();
        let large = |number| {
            std::iter::once(Piece {
                number,
                bytes: 60_000,
            })
        };
        for (number, verdict) in [
            (1002, Verdict::Take),
            (1003, Verdict::Take),
            (1004, Verdict::Drop),
        ] {
            assert_eq!(backlog.arrive(large(number), true), verdict);
            backlog.read(1);
        }
    }

    #[test]
    fn what_closes_gaps_and_opens_others_is_refused_in_the_end() {
        let mut backlog = backlog();
        for round in 0..2 * MOST {
            let next = 1001 + round;
            let numbers = std::iter::once(next).chain(1_000_000 + 8 * round..1_000_008 + 8 * round);
            match arrive(&mut backlog, numbers) {
                Verdict::Take => {
                    backlog.acknowledge(next, false);
                    backlog.read(9);
                }
                verdict => {
                    assert_eq!(verdict, Verdict::Refuse);
                    assert_eq!(backlog.beyond.len(), 2 * MAX_PIECES);
                    return;
                }
            }
        }
        panic!("all of it was taken");
    }

    #[test]
    fn pieces_in_order_that_are_never_read_are_refused_in_the_end() {
        let mut backlog = backlog();
        for number in 1001..1001 + 2 * MOST {
            assert_eq!(arrive(&mut backlog, number..number + 1), Verdict::Take);
            backlog.acknowledge(number, false);
        }
        let next = 1001 + 2 * MOST;
        assert_eq!(arrive(&mut backlog, next..next + 1), Verdict::Refuse);
    }

    #[test]
    fn what_is_not_read_for_want_of_room_is_dropped_until_there_is_some() {
        let mut backlog = backlog();
        assert_eq!(
            backlog.arrive(pieces(1001..1001 + MOST), false),
            Verdict::Take
        );
        backlog.acknowledge(1000 + MOST, false);
        let next = 1001 + MOST;
        assert_eq!(backlog.arrive(pieces(next..next + 1), false), Verdict::Drop);
        backlog.read(1);
        assert_eq!(backlog.arrive(pieces(next..next + 1), false), Verdict::Take);
    }

    #[test]
    fn what_comes_again_is_taken_and_not_counted() {
        let mut backlog = backlog();
        for _ in 0..10 {
            assert_eq!(arrive(&mut backlog, 990..1100), Verdict::Take);
        }
        assert_eq!((backlog.unread, backlog.beyond_bytes), (99, 99));
    }

    #[test]
    fn numbers_begin_again_after_the_highest() {
        let mut backlog = Backlog::new(100_000);
        backlog.acknowledge(u32::MAX - 1, true);
        let numbers = [u32::MAX, 0, 1];
        assert_eq!(arrive(&mut backlog, numbers.into_iter()), Verdict::Take);
        assert_eq!(backlog.beyond.len(), 3);
        backlog.acknowledge(1, false);
        assert_eq!(backlog.beyond.len(), 0);
        assert_eq!(backlog.unread, 3);
        backlog.acknowledge(1, true);
        assert_eq!(backlog.unread, 0);
    }
}
