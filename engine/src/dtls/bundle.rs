//! Several datagrams in one record: each behind its length, a multiformats unsigned varint. A length of 0 says that the rest is
//! padding.

/// A length has at most three bytes: a record has no more than 2^14.
const MAX_LENGTH_BYTES: usize = 3;

/// How many bytes a datagram takes.
pub fn encoded_len(payload: &[u8]) -> usize {
    let length = payload.len();
    1 + usize::from(length >= 1 << 7) + usize::from(length >= 1 << 14) + length
}

pub fn put(data: &mut Vec<u8>, payload: &[u8]) {
    let mut length = payload.len();
    while length >= 0x80 {
        data.push(length as u8 | 0x80);
        length >>= 7;
    }
    data.push(length as u8);
    data.extend_from_slice(payload);
}

/// The next datagram, and what is behind it: `Ok(None)` at the end.
#[expect(clippy::type_complexity)]
pub fn take(data: &[u8]) -> Result<Option<(&[u8], &[u8])>, Malformed> {
    if data.is_empty() {
        return Ok(None);
    }
    let bytes = data.iter().take(MAX_LENGTH_BYTES);
    let end = bytes.clone().position(|byte| *byte < 0x80);
    let end = end.ok_or(Malformed)? + 1;
    let length = bytes
        .take(end)
        .rev()
        .fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
    if length == 0 && end == 1 {
        return Ok(None);
    }
    let is_minimal = data[end - 1] != 0;
    let rest = &data[end..];
    if !is_minimal || rest.len() < length {
        return Err(Malformed);
    }
    Ok(Some(rest.split_at(length)))
}

/// What is no bundle of datagrams.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut data: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
        let mut payloads = Vec::new();
        while let Some((payload, rest)) = take(data)? {
            payloads.push(payload);
            data = rest;
        }
        Ok(payloads)
    }

    #[test]
    fn holds_datagrams_of_every_length() {
        let payloads: Vec<Vec<u8>> = [1, 2, 127, 128, 1200, 16_383, 16_384]
            .map(|length| vec![7; length])
            .into();
        let mut data = Vec::new();
        for payload in &payloads {
            let before = data.len();
            put(&mut data, payload);
            assert_eq!(data.len() - before, encoded_len(payload));
        }
        assert_eq!(all(&data).unwrap(), payloads);
    }

    #[test]
    fn ends_where_padding_begins() {
        assert_eq!(all(&[2, 8, 9, 0, 200, 200]).unwrap(), [[8, 9]]);
        assert_eq!(all(&[]).unwrap(), [[0; 0]; 0]);
    }

    #[test]
    fn is_read_in_its_one_form_only() {
        for data in [
            &[2, 8][..],
            &[0x80],
            &[0x80, 0x80, 0x80, 1],
            &[0x81, 0x00, 5],
            &[0x80, 0x00],
        ] {
            assert_eq!(all(data), Err(Malformed));
        }
    }
}
