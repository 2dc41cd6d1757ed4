//! The messages that a stream is made of: those of libp2p's WebRTC specification, "Multiplexing", one in each message of SCTP.

use bytes::{Bytes, BytesMut};
use prost::Message as _;

/// The most bytes that a message has, with its length in front.
const MAX_MESSAGE: usize = 16 * 1024;

/// The most bytes of a stream that fit a message: two tags, a flag, and two lengths go with them.
pub const MAX_PAYLOAD: usize = MAX_MESSAGE - 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Flag {
    /// The sender will send no more.
    Fin = 0,
    /// The sender will read no more.
    StopSending = 1,
    /// The sender abandons what it was sending.
    Reset = 2,
    /// The sender has got everything up to the FIN.
    FinAck = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(enumeration = "Flag", optional, tag = "1")]
    pub flag: Option<i32>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub payload: Option<Bytes>,
    /// How many bytes of the stream its other side may send in all, from the first on. SCTP has no window for each stream, and
    /// libp2p's specification none at all: this is ours, and who does not know it skips it.
    #[prost(uint64, optional, tag = "15")]
    pub limit: Option<u64>,
}

impl Message {
    pub fn of_flag(flag: Flag) -> Self {
        Self {
            flag: Some(flag.into()),
            ..Self::default()
        }
    }

    pub fn of_payload(payload: Bytes) -> Self {
        Self {
            payload: Some(payload),
            ..Self::default()
        }
    }

    pub fn of_limit(limit: u64) -> Self {
        Self {
            limit: Some(limit),
            ..Self::default()
        }
    }

    pub fn stream_limit(&self) -> Option<u64> {
        self.limit
    }

    /// What it says beside its payload: flags that are not known say nothing.
    pub fn known_flag(&self) -> Option<Flag> {
        self.flag.and_then(|flag| Flag::try_from(flag).ok())
    }

    pub fn into_payload(self) -> Bytes {
        self.payload.unwrap_or_default()
    }

    pub fn encode(&self) -> Bytes {
        let mut buf = BytesMut::with_capacity(self.encoded_len() + 3);
        self.encode_length_delimited(&mut buf)
            .expect("a growing buffer has room");
        buf.freeze()
    }

    /// What a message of SCTP holds; `None` if that is not one of these and nothing more.
    pub fn decode(mut data: Bytes) -> Option<Self> {
        let size = data.len();
        let mut message = Self::decode_length_delimited(&mut data).ok()?;
        // Where most of a message is skipped, its payload would keep that, too: they share their memory.
        if let Some(payload) = message.payload.as_mut().filter(|it| it.len() < size / 2) {
            *payload = Bytes::copy_from_slice(payload);
        }
        data.is_empty().then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_payload_fits_a_message() {
        let message = Message {
            flag: Some(Flag::FinAck.into()),
            payload: Some(Bytes::from(vec![1; MAX_PAYLOAD])),
            limit: None,
        };
        assert!(message.encode().len() <= MAX_MESSAGE);
    }

    #[test]
    fn is_as_the_specification_writes_it() {
        let message = Message::of_payload(Bytes::from_static(b"hi"));
        assert_eq!(message.encode()[..], [4, 0x12, 2, b'h', b'i']);
        assert_eq!(Message::of_flag(Flag::FinAck).encode()[..], [2, 8, 3]);
        assert_eq!(Message::of_flag(Flag::Fin).encode()[..], [2, 8, 0]);
        assert_eq!(Message::of_limit(300).encode()[..], [3, 0x78, 0xac, 2]);
    }

    #[test]
    fn is_the_only_one() {
        assert_eq!(
            Message::decode(Bytes::from_static(&[2, 8, 0, 2, 8, 0])),
            None
        );
        assert_eq!(Message::decode(Bytes::from_static(&[3, 8, 0])), None);
        assert_eq!(Message::decode(Bytes::new()), None);
    }

    #[test]
    fn a_payload_does_not_keep_what_else_its_message_had() {
        let payload = Message::of_payload(Bytes::from_static(b"hi"));
        // A field of the future (number 3), behind it and before it.
        let field = [&[0x1a, 0xe8, 0x07][..], &[7; 1000]].concat();
        let payload = &payload.encode()[1..];
        for fields in [[payload, &field], [&field, payload]] {
            let data = [&[0xef, 0x07], &fields.concat()[..]].concat();
            let message = Message::decode(data.into()).unwrap();
            let kept = BytesMut::from(message.into_payload());
            assert!(kept == b"hi"[..] && kept.capacity() < 100);
        }
    }

    #[test]
    fn a_flag_of_the_future_says_nothing() {
        let message = Message::decode(Bytes::from_static(&[2, 8, 9])).unwrap();
        assert_eq!(message.known_flag(), None);
    }
}
