//! Packets that wait for the socket, one behind the other in one buffer.

use std::collections::VecDeque;

#[derive(Default)]
pub struct Outbox {
    data: Vec<u8>,
    /// Where the first packet begins.
    head: usize,
    sizes: VecDeque<usize>,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Bytes of all packets.
    pub fn bytes(&self) -> usize {
        self.data.len() - self.head
    }

    /// The size of the first packet.
    pub fn first(&self) -> Option<usize> {
        self.sizes.front().copied()
    }

    pub fn push(&mut self, packet: &[u8]) {
        self.data.extend_from_slice(packet);
        self.sizes.push_back(packet.len());
    }

    /// Move the first packet to the end of `buf`.
    pub fn pop_to(&mut self, buf: &mut Vec<u8>) {
        if let Some(size) = self.sizes.pop_front() {
            buf.extend_from_slice(&self.data[self.head..self.head + size]);
            self.consume(size);
        }
    }

    pub fn drop_first(&mut self) {
        if let Some(size) = self.sizes.pop_front() {
            self.consume(size);
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Make one packet of all but the first `count`.
    pub fn join_from(&mut self, count: usize) {
        let joined: usize = self.sizes.drain(count..).sum();
        if joined > 0 {
            self.sizes.push_back(joined);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.iter_from(0)
    }

    /// All but the first `count`.
    pub fn iter_from(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let before: usize = self.sizes.range(..count).sum();
        let mut rest = &self.data[self.head + before..];
        self.sizes.range(count..).map(move |size| {
            let (packet, behind) = rest.split_at(*size);
            rest = behind;
            packet
        })
    }

    fn consume(&mut self, bytes: usize) {
        self.head += bytes;
        if self.sizes.is_empty() {
            self.data.clear();
            self.head = 0;
        } else if self.head > self.data.len() / 2 {
            self.data.drain(..self.head);
            self.head = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(outbox: &Outbox) -> Vec<&[u8]> {
        outbox.iter().collect()
    }

    #[test]
    fn gives_packets_in_their_order() {
        let mut outbox = Outbox::default();
        let mut buf = Vec::new();
        for n in 0..10 {
            outbox.push(&[n; 3]);
            outbox.push(&[n]);
        }
        for n in 0..10 {
            assert_eq!(outbox.first(), Some(3));
            outbox.pop_to(&mut buf);
            assert_eq!(buf, [n; 3]);
            buf.clear();
            outbox.drop_first();
            assert_eq!(outbox.bytes(), usize::from(9 - n) * 4);
        }
        assert!(outbox.is_empty() && outbox.data.is_empty());
    }

    #[test]
    fn joins_the_last_ones() {
        let mut outbox = Outbox::default();
        for packet in [&b"a"[..], b"bc", b"d"] {
            outbox.push(packet);
        }
        outbox.join_from(1);
        assert_eq!(packets(&outbox), [&b"a"[..], b"bcd"]);
        outbox.join_from(2);
        assert_eq!(outbox.len(), 2);
    }
}
