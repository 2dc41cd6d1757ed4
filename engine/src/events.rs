//! What the engine tells JavaScript, packed so that a batch of events crosses the border in one piece.
//!
//! An event is a record of [`RECORD`] numbers: its [`Kind`], a session, and up to three more. Bytes (stream chunks,
//! datagrams) lie behind each other in the batch's `data`; events that are rare and carry more than numbers lie in `notices`.

use std::collections::VecDeque;

use crate::notice::Notice;

/// Numbers in a record: kind, session, a, b, c.
pub const RECORD: usize = 5;
const RECORD_BYTES: usize = RECORD * size_of::<f64>();

/// A batch is closed once it holds this many bytes, so that a small chunk which JavaScript keeps cannot pin more.
const BATCH_BYTES: usize = 256 * 1024;

/// And once it holds this many records: 40 bytes each.
const BATCH_RECORDS: usize = 4096;

/// A chunk of a stream is grown up to this many bytes before the next one begins.
const MAX_CHUNK: usize = 128 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// The remote opened a stream: a = stream
    StreamOpened = 1,
    /// A stream that JavaScript asked for is open: a = stream, b = the request's token
    StreamReady = 2,
    /// a = stream, b = offset into `data`, c = length
    StreamData = 3,
    /// The remote will send no more: a = stream
    StreamFinished = 4,
    /// The remote abandoned its sending side: a = stream
    StreamReset = 5,
    /// The remote will read no more: a = stream
    StreamStopped = 6,
    /// Bytes left the engine's queue: a = stream, b = bytes
    StreamWritten = 7,
    /// a = offset into `data`, b = length
    Datagram = 8,
    /// Datagrams left the engine's queue: a = bytes, b = how many of them were dropped because they no longer fit the path
    DatagramsSent = 9,
    /// a = the most bytes a datagram may have, b = smoothed round trip time in microseconds
    Path = 10,
    /// a = index into `notices`
    Notice = 11,
    /// Datagrams came and were dropped, because too many waited to be taken: a = how many
    DatagramsDropped = 12,
    /// The remote may open no more streams for now than those before this one: a = stream
    StreamLimit = 13,
}

#[derive(Default)]
pub struct Batch {
    pub records: Vec<f64>,
    pub data: Vec<u8>,
    pub notices: Vec<Notice>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.data.len() >= BATCH_BYTES
            || self.records.len() >= BATCH_RECORDS * RECORD
            || self.ends()
    }

    /// Whether its last event is a session's end. JavaScript deals with that before it takes the next batch: what comes of the same
    /// remote is for nobody who had the session.
    fn ends(&self) -> bool {
        matches!(self.notices.last(), Some(Notice::Closed { .. }))
    }

    fn holds_guests_alone(&self) -> bool {
        let is_guest = |notice: &Notice| {
            matches!(
                notice,
                Notice::Raw {
                    answer: Some(_),
                    ..
                }
            )
        };
        self.notices.len() * RECORD == self.records.len() && self.notices.iter().all(is_guest)
    }

    fn record(&mut self, kind: Kind, session: u32, a: f64, b: f64, c: f64) {
        self.records
            .extend_from_slice(&[f64::from(kind as u8), f64::from(session), a, b, c]);
    }

    pub fn bytes(&self) -> usize {
        self.data.len() + self.records.len() * size_of::<f64>()
    }
}

/// Batches on their way to JavaScript, oldest first.
#[derive(Default)]
pub struct Events {
    batches: VecDeque<Batch>,
    bytes: usize,
    raw: usize,
}

impl Events {
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Bytes of stream chunks and datagrams in it, and of the records: a chunk or a datagram may be as good as empty.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Datagrams in it that are outside the schemes, or that JavaScript has to send.
    pub fn raw(&self) -> usize {
        self.raw
    }

    /// Whether a session is over.
    pub fn holds_end(&self) -> bool {
        self.batches.iter().any(Batch::ends)
    }

    /// Whether there is nothing in it but strangers that have been answered.
    pub fn holds_guests_alone(&self) -> bool {
        self.batches.iter().all(Batch::holds_guests_alone)
    }

    fn batch(&mut self) -> &mut Batch {
        if self.batches.back().is_none_or(Batch::is_full) {
            self.batches.push_back(Batch::default());
        }
        self.batches.back_mut().expect("there is one now")
    }

    pub fn push(&mut self, kind: Kind, session: u32, a: u64, b: u64) {
        self.batch().record(kind, session, a as f64, b as f64, 0.0);
        self.bytes += RECORD_BYTES;
    }

    pub fn push_notice(&mut self, session: u32, notice: Notice) {
        self.raw += usize::from(notice.is_raw());
        let batch = self.batch();
        let index = batch.notices.len();
        batch.notices.push(notice);
        batch.record(Kind::Notice, session, index as f64, 0.0, 0.0);
        self.bytes += RECORD_BYTES;
    }

    pub fn push_stream_data(&mut self, session: u32, stream: u64, chunk: &[u8]) {
        self.bytes += chunk.len();
        let batch = self.batch();
        let offset = batch.data.len();
        batch.data.extend_from_slice(chunk);

        // What follows directly on the same stream's bytes makes their chunk longer.
        if batch.records.len() >= RECORD {
            let last = batch.records.len() - RECORD;
            let record = &mut batch.records[last..];
            if record[0] == f64::from(Kind::StreamData as u8)
                && record[1] == f64::from(session)
                && record[2] == stream as f64
                && record[4] as usize + chunk.len() <= MAX_CHUNK
            {
                record[4] += chunk.len() as f64;
                return;
            }
        }
        batch.record(
            Kind::StreamData,
            session,
            stream as f64,
            offset as f64,
            chunk.len() as f64,
        );
        self.bytes += RECORD_BYTES;
    }

    pub fn push_datagram(&mut self, session: u32, payload: &[u8]) {
        self.bytes += payload.len();
        let batch = self.batch();
        let offset = batch.data.len();
        batch.data.extend_from_slice(payload);
        batch.record(
            Kind::Datagram,
            session,
            offset as f64,
            payload.len() as f64,
            0.0,
        );
        self.bytes += RECORD_BYTES;
    }

    /// Move everything to the end of `other`.
    pub fn append_to(&mut self, other: &mut Events) {
        other.batches.append(&mut self.batches);
        other.bytes += std::mem::take(&mut self.bytes);
        other.raw += std::mem::take(&mut self.raw);
    }

    pub fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.bytes();
        self.raw -= batch.notices.iter().filter(|n| n.is_raw()).count();
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_one_stream_that_follow_each_other_become_one() {
        let mut events = Events::default();
        events.push_stream_data(1, 0, b"ab");
        events.push_stream_data(1, 0, b"cd");
        events.push_stream_data(1, 4, b"ef");
        let batch = events.pop().unwrap();
        assert_eq!(batch.data, b"abcdef");
        assert_eq!(
            batch.records,
            [3.0, 1.0, 0.0, 0.0, 4.0, 3.0, 1.0, 4.0, 4.0, 2.0]
        );
        assert_eq!(events.bytes(), 0);
    }

    #[test]
    fn datagrams_of_no_bytes_fill_it_too() {
        let mut events = Events::default();
        for _ in 0..100_000 {
            events.push_datagram(1, b"");
        }
        assert_eq!(events.bytes(), 100_000 * RECORD_BYTES);
        while events.pop().is_some() {}
        assert_eq!(events.bytes(), 0);
    }

    #[test]
    fn the_end_of_a_session_is_the_last_of_a_batch() {
        let mut events = Events::default();
        let closed = || Notice::Closed {
            cause: crate::notice::CloseCause::Remote,
            message: String::new(),
        };
        events.push_datagram(1, b"a");
        assert!(!events.holds_end());
        events.push_notice(1, closed());
        assert!(events.holds_end());
        events.push_datagram(2, b"b");
        let records: Vec<usize> = std::iter::from_fn(|| events.pop())
            .map(|batch| batch.records.len() / RECORD)
            .collect();
        assert_eq!(records, [2, 1]);
    }

    #[test]
    fn guests_are_alone_until_something_else_happens() {
        let guest = |answer| Notice::Raw {
            remote: ([10, 0, 0, 1], 1).into(),
            local: None,
            data: vec![0],
            answer,
        };
        let others: [fn(&mut Events); 3] = [
            |events| events.push_datagram(1, b"a"),
            |events| events.push(Kind::StreamFinished, 1, 0, 0),
            |events| events.push_notice(1, Notice::OpenFailed { token: 1 }),
        ];
        for other in others {
            let mut events = Events::default();
            events.push_notice(0, guest(Some((1, vec![1]))));
            events.push_notice(0, guest(Some((2, vec![1]))));
            assert!(events.holds_guests_alone());
            other(&mut events);
            assert!(!events.holds_guests_alone());
        }
        let mut events = Events::default();
        events.push_notice(0, guest(None));
        assert!(!events.holds_guests_alone());
    }

    #[test]
    fn a_full_batch_is_followed_by_another() {
        let mut events = Events::default();
        let payload = vec![7; 1200];
        let count = BATCH_BYTES / payload.len() + 2;
        for _ in 0..count {
            events.push_datagram(1, &payload);
        }
        let first = events.pop().unwrap();
        let second = events.pop().unwrap();
        assert!(first.data.len() < BATCH_BYTES + payload.len());
        assert_eq!(first.data.len() + second.data.len(), count * payload.len());
        assert!(events.pop().is_none());
        assert_eq!(events.bytes(), 0);
    }
}
