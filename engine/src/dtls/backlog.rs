//! How many pieces of the remote's messages `sctp-proto` holds. It bounds the bytes of those that wait to be read, not their number,
//! and nothing of those that came beyond a gap. Sans-IO.

use std::collections::BTreeMap;

/// 8 MB in packets of a common size. Each piece takes `sctp-proto` a few hundred bytes beside its content, and a look at all the others; and
/// an acknowledgement has room for the gaps between twice as many, with the rest of a packet.
pub const MAX_PIECES: usize = 7_000;

/// What is half-way round is neither ahead nor behind (RFC 1982).
const MAX_BEHIND: u64 = 1 << 30;

/// An acknowledgement has 16 bits for how far beyond a gap something is (RFC 9260, section 3.3.4).
const MAX_AHEAD: u64 = 0xffff;

/// A chunk of data, without its content.
pub struct Piece {
    pub number: u32,
    pub bytes: usize,
}

#[derive(Default)]
pub struct Backlog {
    max_bytes: usize,
    /// Up to which number all have come, if the remote was told yet. Of 64 bits, so that numbers do not begin again.
    cumulative: Option<u64>,
    /// Up to which number they have, told or not.
    in_order: u64,
    /// Those beyond what was told that have come, and their bytes.
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

    /// Whether one is taken. Another one is as good as lost: it comes again. `is_reading`: all messages that can be read were read.
    pub fn arrive(&mut self, piece: Piece, is_reading: bool) -> bool {
        // Nobody sends any before it has said with which number it begins.
        let Some(cumulative) = self.cumulative else {
            return false;
        };
        let number = extended(piece.number, cumulative);
        if number > cumulative + MAX_AHEAD || number + MAX_BEHIND < cumulative {
            return false;
        }
        if number <= cumulative || self.beyond.contains_key(&number) {
            return true;
        }
        // What comes next in order may be all that is missing to make room, unless room has to be made by reading.
        let may_make_room = is_reading && number == self.in_order + 1;
        if self.exceeds(if may_make_room { 2 } else { 1 }) {
            return false;
        }
        self.beyond.insert(number, piece.bytes);
        self.beyond_bytes += piece.bytes;
        self.unread += 1;
        while self.beyond.contains_key(&(self.in_order + 1)) {
            self.in_order += 1;
        }
        true
    }

    /// A message of so many pieces was read.
    pub fn read(&mut self, pieces: usize) {
        self.unread = self.unread.saturating_sub(pieces);
    }

    /// The remote is told up to which number all have come. `is_empty`: and that nothing is held.
    pub fn acknowledge(&mut self, number: u32, is_empty: bool) {
        let cumulative = extended(number, self.cumulative.unwrap_or(1 << 32));
        self.cumulative = Some(cumulative);
        self.in_order = self.in_order.max(cumulative);
        let beyond = self.beyond.split_off(&(cumulative + 1));
        let done = std::mem::replace(&mut self.beyond, beyond);
        self.beyond_bytes -= done.values().sum::<usize>();
        if is_empty {
            self.unread = 0;
        }
    }

    /// Up to which number the remote was told that all have come.
    pub fn acknowledged(&self) -> u32 {
        self.cumulative.unwrap_or_default() as u32
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.unread == 0 && self.beyond.is_empty()
    }

    #[cfg(test)]
    pub fn check(&self) {
        assert_eq!(self.beyond_bytes, self.beyond.values().sum::<usize>());
        assert!(self.beyond.keys().all(|it| Some(*it) > self.cumulative));
        // What is one packet's may be over it.
        assert!(self.unread.max(self.beyond.len()) < 2 * MAX_PIECES + 1000);
    }

    /// Whether it is time to read: what comes before that may find no room.
    pub fn is_crowded(&self) -> bool {
        self.unread >= MAX_PIECES / 2
    }

    fn exceeds(&self, times: usize) -> bool {
        self.unread >= times * MAX_PIECES
            || self.beyond.len() >= times * MAX_PIECES
            || self.beyond_bytes >= times * self.max_bytes
    }
}

/// Whether a number comes behind another one (RFC 1982).
pub fn is_behind(before: u32, number: u32) -> bool {
    (number.wrapping_sub(before) as i32) > 0
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

    /// Whether all of them are taken.
    fn arrive(backlog: &mut Backlog, numbers: impl IntoIterator<Item = u32>) -> bool {
        arrive_while(backlog, numbers, true)
    }

    fn arrive_while(
        backlog: &mut Backlog,
        numbers: impl IntoIterator<Item = u32>,
        is_reading: bool,
    ) -> bool {
        let mut pieces = numbers.into_iter().map(|number| Piece { number, bytes: 1 });
        pieces.all(|piece| backlog.arrive(piece, is_reading))
    }

    const MOST: u32 = MAX_PIECES as u32;

    #[test]
    fn beyond_a_gap_there_are_so_many_and_what_closes_it_is_taken_still() {
        let mut backlog = backlog();
        assert!(arrive(&mut backlog, 1002..1002 + MOST));
        assert!(!arrive(&mut backlog, 1002 + MOST..1003 + MOST));
        assert!(arrive(&mut backlog, 1001..1002));
        // Nothing is missing any more, and the remote need not hear that before.
        let next = 1002 + MOST;
        assert!(arrive(&mut backlog, next..next + 5));
        assert!(!arrive(&mut backlog, next + 6..next + 7));
        backlog.read(MAX_PIECES + 6);
        backlog.acknowledge(next + 4, false);
        assert!(arrive(&mut backlog, next + 6..next + 7));
    }

    #[test]
    fn beyond_a_gap_there_are_no_more_bytes_than_may_be_under_way() {
        let mut backlog = backlog();
        for (number, is_taken) in [(1002, true), (1003, true), (1004, false)] {
            let bytes = 60_000;
            assert_eq!(backlog.arrive(Piece { number, bytes }, true), is_taken);
            backlog.read(1);
        }
    }

    #[test]
    fn what_closes_gaps_and_opens_others_gets_no_further() {
        let mut backlog = backlog();
        for next in 1001..1001 + MOST {
            assert!(arrive(&mut backlog, next..next + 1));
            arrive(&mut backlog, next + 10..next + 20);
            backlog.acknowledge(next, false);
            backlog.read(9);
            assert!(backlog.beyond.len() <= MAX_PIECES);
        }
    }

    #[test]
    fn pieces_in_order_that_are_never_read_are_dropped_in_the_end() {
        let mut backlog = backlog();
        for number in 1001..1001 + 2 * MOST {
            assert!(arrive(&mut backlog, number..number + 1));
            backlog.acknowledge(number, false);
        }
        let next = 1001 + 2 * MOST;
        assert!(!arrive(&mut backlog, next..next + 1));
    }

    #[test]
    fn what_is_not_read_for_want_of_room_is_dropped_until_there_is_some() {
        let mut backlog = backlog();
        assert!(arrive_while(&mut backlog, 1001..1001 + MOST, false));
        backlog.acknowledge(1000 + MOST, false);
        let next = [1001 + MOST];
        assert!(!arrive_while(&mut backlog, next.into_iter(), false));
        backlog.read(1);
        assert!(arrive_while(&mut backlog, next.into_iter(), false));
    }

    #[test]
    fn what_comes_again_is_taken_and_not_counted() {
        let mut backlog = backlog();
        for _ in 0..10 {
            assert!(arrive(&mut backlog, 990..1100));
        }
        assert_eq!((backlog.unread, backlog.beyond_bytes), (99, 99));
    }

    #[test]
    fn what_no_acknowledgement_could_name_is_dropped() {
        let mut backlog = backlog();
        let near = 1000 + 0xffff;
        assert!(arrive(&mut backlog, near..near + 1));
        for far in [
            near + 1,
            1000_u32.wrapping_add(1 << 31),
            1000_u32.wrapping_sub((1 << 30) + 1),
        ] {
            assert!(!arrive(&mut backlog, far..far + 1));
        }
    }

    #[test]
    fn before_it_is_known_with_which_number_the_remote_begins_all_is_dropped() {
        let mut backlog = Backlog::new(100_000);
        assert!(!arrive(&mut backlog, 1001..1002));
    }

    #[test]
    fn numbers_begin_again_after_the_highest() {
        let mut backlog = Backlog::new(100_000);
        backlog.acknowledge(u32::MAX - 1, true);
        let numbers = [u32::MAX, 0, 1];
        assert!(arrive(&mut backlog, numbers.into_iter()));
        assert_eq!(backlog.beyond.len(), 3);
        backlog.acknowledge(1, false);
        assert_eq!(backlog.beyond.len(), 0);
        assert_eq!(backlog.unread, 3);
        backlog.acknowledge(1, true);
        assert_eq!(backlog.unread, 0);
    }
}
