//! The index over the block bits, as hypercore 9 writes it (its `lib/bitfield.js`).
//!
//! It is a flat tree of bytes. Byte `2i` tells of the bytes `4i` to `4i + 3` of the block bits, two bits for each, high first:
//! 11 all ones, 00 all zeros, 01 mixed. A parent's high nibble is its left child's two nibbles reduced in the same way, the low
//! one its right child's. JS skips what is marked 11 when it looks for missing blocks, so a false 11 would hide holes from it;
//! ours scans words and does not read it.

use super::{Bitfield, Part};
use crate::merkle::index as flat;

impl Bitfield {
    /// Brings the index in line with a byte of block bits that changed, and upward as far as that changes anything.
    pub(super) fn update_index(&mut self, data_byte: u64, value: u8) {
        let shift = 2 * (data_byte % 4);
        let mut node = data_byte / 4 * 2;
        let mut byte = (self.byte(Part::Index, node) & !(0b1100_0000 >> shift)) | (state(value) >> shift);
        let len = self.index_len;
        // JS goes no further than the pages that there are.
        let end = self.page_count * self.index_bytes() as u64;
        while node < end && self.set_byte(Part::Index, node, byte) {
            (node, byte) = self.index_parent(node, byte);
        }
        if self.index_len != len {
            self.expand_index(len * 8);
        }
    }

    /// Takes back what the index says falsely, if a page was written in part: blocks that it hides from JS.
    pub(crate) fn mend_index(&mut self) {
        let size = self.index_bytes() as u64;
        let pages: Vec<u64> = self.pages.iter().map(|(number, _)| u64::from(*number)).collect();
        for node in pages.into_iter().flat_map(|page| page * size..(page + 1) * size) {
            let old = self.byte(Part::Index, node);
            // As many bytes of block bits for each of the four, from the first one on.
            let span = 1 << flat::depth(node);
            let first = flat::left_span(node) / 2 * 4;
            let mut byte = old;
            for part in 0..4 {
                let shift = 6 - 2 * part;
                let (from, to) = ((first + part * span) * 8, (first + (part + 1) * span) * 8);
                let wrong = match old >> shift & 3 {
                    0b11 => self.next_missing(from, to).is_some(),
                    0 if span == 1 => self.next_held(from, to).is_some(),
                    _ => false,
                };
                if wrong {
                    byte &= !(3 << shift);
                    // Whole bytes on the lowest level, else mixed or nothing.
                    let state = match (self.next_missing(from, to), self.next_held(from, to)) {
                        (None, _) => 0b11,
                        (_, Some(_)) => 0b01,
                        (_, None) => 0,
                    };
                    byte |= state << shift;
                }
            }
            if byte != old {
                self.set_byte(Part::Index, node, byte);
            }
        }
    }

    /// The byte above one, from it and its sibling.
    fn index_parent(&self, node: u64, byte: u8) -> (u64, u8) {
        let other = reduce(self.byte(Part::Index, flat::sibling(node)));
        let left = flat::offset(node).is_multiple_of(2);
        let byte = if left { reduce(byte) << 4 | other } else { reduce(byte) | other << 4 };
        (flat::parent(node), byte)
    }

    /// After the index grew: carries upward what ended at its old end. `len` is that end as JS counts it, in bits, and its
    /// roots are taken as if they were bytes; kept so, for the same bytes on disk.
    fn expand_index(&mut self, len: u64) {
        for root in flat::full_roots(len) {
            let mut node = root;
            let mut byte = self.byte(Part::Index, node);
            loop {
                (node, byte) = self.index_parent(node, byte);
                if node >= self.index_len || !self.set_byte(Part::Index, node, byte) {
                    break;
                }
            }
        }
    }
}

/// What the index says of a byte of block bits, in its two highest bits.
pub(super) fn state(byte: u8) -> u8 {
    match byte {
        0xff => 0b1100_0000,
        0 => 0,
        _ => 0b0100_0000,
    }
}

/// An index byte's two nibbles, each reduced to two bits, in the low nibble.
fn reduce(byte: u8) -> u8 {
    let two = |nibble: u8| match nibble {
        0b1111 => 0b11,
        0 => 0,
        _ => 0b01,
    };
    two(byte >> 4) << 2 | two(byte & 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every 11 in the index, on every level, stands over ones alone.
    fn no_hole_is_hidden(bitfield: &Bitfield) {
        let end = bitfield.page_count * bitfield.index_bytes() as u64;
        for node in 0..end {
            let byte = bitfield.byte(Part::Index, node);
            let leaf = flat::left_span(node) / 2 * 4;
            let quarter = flat::right_span(node).saturating_sub(flat::left_span(node)) / 2 + 1;
            for part in 0..4u64 {
                if byte >> (6 - 2 * part) & 0b11 == 0b11 {
                    let first = leaf + part * quarter;
                    for at in first..first + quarter {
                        assert_eq!(bitfield.byte(Part::Data, at), 0xff, "index {node}, part {part}, byte {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn forty_blocks() {
        let mut bitfield = Bitfield::new();
        for block in 0..40 {
            bitfield.set(block, true);
        }
        let bytes: Vec<u8> = (0..4).map(|at| bitfield.byte(Part::Index, at)).collect();
        assert_eq!(bytes, [0xff, 0xf4, 0xc0, 0xd0]);
    }

    #[test]
    fn an_index_that_was_torn_from_its_blocks_is_mended() {
        let mut whole = Bitfield::new();
        (0..20_000).for_each(|block| _ = whole.set(block, true));
        let mut mended = whole.clone();
        mended.mend_index();
        assert!(mended.pages == whole.pages);
        // The blocks as they were before, the index as it came to be: and the other way around.
        let mut before = Bitfield::new();
        (0..20_000).filter(|block| block % 1000 != 7).for_each(|block| _ = before.set(block, true));
        for (blocks, index) in [(&before, &whole), (&whole, &before)] {
            let mut torn = blocks.clone();
            for ((_, page), (_, other)) in torn.pages.iter_mut().zip(&index.pages) {
                (3072..3584).for_each(|at| _ = page.set(at, other.get(at)));
            }
            torn.mend_index();
            no_hole_is_hidden(&torn);
            for at in 0..20_000 / 8 {
                let state = torn.byte(Part::Index, at / 4 * 2) >> (6 - 2 * (at % 4)) & 3;
                assert_eq!(state == 0, torn.byte(Part::Data, at) == 0);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn holes_stay_visible(steps in prop::collection::vec((0u64..30_000, prop::bool::weighted(0.9), 1u64..5000), 1..15)) {
            let mut bitfield = Bitfield::new();
            for (start, held, count) in steps {
                for block in start..start + count {
                    bitfield.set(block, held);
                }
            }
            no_hole_is_hidden(&bitfield);
        }
    }
}
