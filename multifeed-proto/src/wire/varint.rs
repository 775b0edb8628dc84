//! LEB128 varints, as frames (at most 8 bytes) and protobuf (at most 10) have them.

use bytes::BufMut;

/// The most bytes of a varint in a frame: 8 × 7 bits are what JS numbers hold (simple-message-channels).
pub const FRAME_MAX: usize = 8;
/// The most bytes of a varint in protobuf.
pub const PROTOBUF_MAX: usize = 10;

/// A varint that is longer than it may be, or past 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Reads a varint of at most `max` bytes from the start of `bytes`: its value and its length, or `None` if more bytes are
/// needed.
#[inline]
pub fn decode(bytes: &[u8], max: usize) -> Result<Option<(u64, usize)>, TooLong> {
    // Most are one byte.
    match bytes.first() {
        Some(&byte) if byte < 0x80 => Ok(Some((byte.into(), 1))),
        _ => decode_long(bytes, max),
    }
}

fn decode_long(bytes: &[u8], max: usize) -> Result<Option<(u64, usize)>, TooLong> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().take(max.min(PROTOBUF_MAX)).enumerate() {
        if at == 9 && byte > 1 {
            return Err(TooLong);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() >= max { Err(TooLong) } else { Ok(None) }
}

/// Writes a varint.
#[inline]
pub fn encode(value: u64, buf: &mut impl BufMut) {
    if value < 0x80 {
        return buf.put_u8(value as u8);
    }
    prost::encoding::encode_varint(value, buf);
}

/// Writes a varint into a buffer that has room for it, from this place on. Returns the place after it.
#[inline]
pub(crate) fn encode_at(mut value: u64, buf: &mut [u8], mut at: usize) -> usize {
    while value >= 0x80 {
        buf[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    buf[at] = value as u8;
    at + 1
}

/// Returns how many bytes [`encode`] writes.
pub const fn len(value: u64) -> usize {
    // 7 bits a byte, and one byte for zero: ceil(bits / 7) without a division.
    ((64 - (value | 1).leading_zeros() as usize) * 9 + 64) / 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(value in prop_oneof![any::<u64>(), 0u64..1 << 20, Just(u64::MAX), Just((1 << 56) - 1)]) {
            let mut buf = Vec::new();
            encode(value, &mut buf);
            prop_assert_eq!(buf.len(), len(value));
            let mut placed = [9; 12];
            prop_assert_eq!(encode_at(value, &mut placed, 1), 1 + buf.len());
            prop_assert_eq!(&placed[1..1 + buf.len()], &buf[..]);
            prop_assert_eq!(decode(&buf, PROTOBUF_MAX), Ok(Some((value, buf.len()))));
            for cut in 0..buf.len() {
                prop_assert_eq!(decode(&buf[..cut], PROTOBUF_MAX), Ok(None));
            }
        }

        #[test]
        fn agrees_with_prost(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let ours = decode(&bytes, PROTOBUF_MAX);
            match prost::encoding::decode_varint(&mut &bytes[..]) {
                Ok(value) => prop_assert_eq!(ours.unwrap().unwrap().0, value),
                Err(_) => prop_assert!(!matches!(ours, Ok(Some(_)))),
            }
        }
    }

    #[test]
    fn refuses_what_is_longer_than_allowed() {
        assert_eq!(decode(&[0x80; 7], FRAME_MAX), Ok(None));
        assert_eq!(decode(&[0x80; 8], FRAME_MAX), Err(TooLong));
        assert_eq!(decode(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], FRAME_MAX), Ok(Some((1 << 49, 8))));
        assert_eq!(decode(&[0xff; 10], PROTOBUF_MAX), Err(TooLong));
        assert_eq!(decode(&[], FRAME_MAX), Ok(None));
    }
}
