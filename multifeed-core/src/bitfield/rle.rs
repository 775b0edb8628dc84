//! The run-length encoding of bitfields on the wire (npm's `bitfield-rle`, decoding with `align(4)`).
//!
//! A varint `n`, then: `n` odd, `n >> 2` bytes of 0xff if bit 1 is set, else of 0; `n` even, `n / 2` bytes as they follow.

use thiserror::Error;

use super::page::FEW;

/// A bitfield on the wire is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RleError {
    /// It ends inside a number or a run.
    #[error("the bitfield ends too early")]
    Truncated,
    /// A number has more than 64 bits.
    #[error("the bitfield has a number past 64 bits")]
    Varint,
    /// It would be longer than the caller takes.
    #[error("the bitfield is longer than {limit} bytes")]
    TooLong {
        /// The caller's limit, in bytes.
        limit: usize,
    },
}

/// Encodes a bitfield, with JS's very bytes: trailing zero bytes dropped, a run only if it is shorter.
pub fn encode(bitfield: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    bitfield.iter().for_each(|&byte| encoder.push(byte, 1));
    encoder.finish()
}

/// Encodes a bitfield that comes in pieces. A long run costs no more than a short one.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// What is written as it is, in front of the run.
    head: Vec<u8>,
    /// The run that has not ended: how often `bits` came, all zeros or all ones.
    len: u64,
    bits: u8,
    output: Vec<u8>,
}

impl Encoder {
    /// Takes a byte, so many times.
    pub(super) fn push(&mut self, byte: u8, count: u64) {
        if byte == self.bits || count == 0 {
            self.len += count;
            return;
        }
        self.end_run();
        if byte == 0 || byte == 255 {
            (self.bits, self.len) = (byte, count);
        } else {
            self.head.extend(std::iter::repeat_n(byte, count as usize));
        }
    }

    /// The encoding of all that came.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.bits == 255 {
            self.end_run();
        }
        self.literal();
        self.output
    }

    /// Takes the run that ends here, if it and the bytes before it are shorter than all of it as it stands.
    fn end_run(&mut self) {
        let len = std::mem::take(&mut self.len);
        if len == 0 {
            return;
        }
        let head = self.head.len() as u64;
        let head_cost = if head == 0 { 0 } else { varint_bytes(2 * head) + head };
        let run = 4 * len + if self.bits == 255 { 3 } else { 1 };
        let plain = head + len;
        if head_cost + varint_bytes(run) >= varint_bytes(2 * plain) + plain {
            self.head.extend(std::iter::repeat_n(self.bits, len as usize));
            return;
        }
        self.literal();
        put_varint(run, &mut self.output);
    }

    fn literal(&mut self) {
        if !self.head.is_empty() {
            put_varint(2 * self.head.len() as u64, &mut self.output);
            self.output.append(&mut self.head);
        }
    }
}

fn varint_bytes(value: u64) -> u64 {
    (u64::BITS - value.leading_zeros()).div_ceil(7).max(1).into()
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 128 {
        out.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Decodes a bitfield of at most `limit` bytes, then padded with zeros to a multiple of 4 as JS pads it.
///
/// # Errors
/// [`RleError`], before anything of the claimed length is allocated.
pub fn decode(mut encoded: &[u8], limit: usize) -> Result<Vec<u8>, RleError> {
    let mut bitfield = Vec::new();
    while !encoded.is_empty() {
        let head = take_varint(&mut encoded)?;
        let run = head & 1 == 1;
        let len = if run { head >> 2 } else { head >> 1 };
        let room = limit - bitfield.len();
        let len = usize::try_from(len).ok().filter(|len| *len <= room).ok_or(RleError::TooLong { limit })?;
        if run {
            bitfield.resize(bitfield.len() + len, if head & 2 == 2 { 255 } else { 0 });
        } else {
            let (bytes, rest) = encoded.split_at_checked(len).ok_or(RleError::Truncated)?;
            bitfield.extend_from_slice(bytes);
            encoded = rest;
        }
    }
    bitfield.resize(bitfield.len().next_multiple_of(4), 0);
    Ok(bitfield)
}

/// The bytes that are not zero, each with its place, if there are some and no more than [`FEW`], all of them before `limit`.
pub(super) fn few(mut encoded: &[u8], limit: usize) -> Option<([u16; FEW], [u8; FEW])> {
    let (mut places, mut found, mut count, mut at) = ([0; FEW], [0; FEW], 0, 0usize);
    while !encoded.is_empty() {
        let head = take_varint(&mut encoded).ok()?;
        let run = head & 1 == 1;
        let len = usize::try_from(if run { head >> 2 } else { head >> 1 }).ok()?;
        let end = at.checked_add(len).filter(|end| *end <= limit)?;
        let bytes = match run {
            true if head & 2 == 2 => return None,
            true => &[],
            false => encoded.split_off(..len)?,
        };
        for (at, byte) in (at..).zip(bytes).filter(|(_, byte)| **byte != 0) {
            (*places.get_mut(count)?, *found.get_mut(count)?) = (u16::try_from(at).ok()?, *byte);
            count += 1;
        }
        at = end;
    }
    (count > 0).then_some((places, found))
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, RleError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(RleError::Truncated)?;
        *bytes = rest;
        if shift == 63 && byte > 1 {
            return Err(RleError::Varint);
        }
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Ok(value);
        }
    }
    Err(RleError::Varint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn jss_own_bytes() {
        for (plain, encoded) in
            [("", ""), ("00", ""), ("e0", "02e0"), ("ffff", "0b"), ("ff00ff00", "070507"), ("ffffffff80", "130280")]
        {
            assert_eq!(hex::encode(encode(&hex::decode(plain).unwrap())), encoded, "{plain}");
        }
    }

    #[test]
    fn what_is_not_one_is_told() {
        assert_eq!(decode(&[0x80], 100), Err(RleError::Truncated));
        assert_eq!(decode(&[8, 1, 2], 100), Err(RleError::Truncated));
        assert_eq!(decode(&[0xff; 11], 100), Err(RleError::Varint));
        // 2^60 bytes of ones, in nine bytes.
        let bomb = [0x83, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
        assert_eq!(decode(&bomb, 1 << 20), Err(RleError::TooLong { limit: 1 << 20 }));
        assert_eq!(decode(&[0x13, 0x13], 4), Err(RleError::TooLong { limit: 4 }));
        assert_eq!(decode(&[0x13], 4), Ok(vec![255; 4]));
        assert_eq!(decode(&[0x0b], 4), Ok(vec![255, 255, 0, 0]));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(runs in prop::collection::vec((prop::sample::select(vec![0u8, 255, 1, 128]), 1usize..40), 0..30)) {
            let plain: Vec<u8> = runs.iter().flat_map(|(byte, count)| vec![*byte; *count]).collect();
            let encoded = encode(&plain);
            let mut expected = plain.clone();
            while expected.last() == Some(&0) {
                expected.pop();
            }
            expected.resize(expected.len().next_multiple_of(4), 0);
            prop_assert_eq!(decode(&encoded, 2000).unwrap(), expected);
            let set: Vec<(u16, u8)> = (0..).zip(plain.iter().copied()).filter(|(_, byte)| *byte != 0).collect();
            if let Some((places, bytes)) = few(&encoded, plain.len()) {
                let found: Vec<(u16, u8)> = places.into_iter().zip(bytes).filter(|(_, byte)| *byte != 0).collect();
                prop_assert_eq!(found, set);
            } else {
                prop_assert!(set.is_empty() || set.len() > FEW || plain.contains(&255));
            }
        }

        #[test]
        fn garbage_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(plain) = decode(&bytes, 1000) {
                prop_assert!(plain.len() <= 1000);
            }
        }
    }
}
