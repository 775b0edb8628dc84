//! What remotes may see of a feed: of one that is written here, nothing that a power cut could still take back; of any, no block that is
//! not written.
//!
//! A block that was received may wait for a disk that is full, for as long as that takes. It may never be here: so a remote is not told of it, is not
//! served it, and the two are not compared by it.
//!
//! A block that nobody saw can be cut off after a crash, and another one signed in its place. One that somebody saw cannot:
//! there would be two histories. So until it is fsynced an appended block is not announced, not served, and no proof or
//! signature that covers it is sent.

use std::ops::Range;

use multifeed_proto::Node;

use super::Feed;
use crate::bitfield::Bitfield;
use crate::merkle::{HeldNodes, index as flat};

impl Feed {
    /// Returns the length in blocks that remotes may see.
    pub fn served_len(&self) -> u64 {
        self.served.map_or(self.length, |served| served.min(self.length))
    }

    /// Lets remotes see no more than this length; `None` for all that there will ever be.
    pub(crate) fn serve(&mut self, length: Option<u64>) {
        self.served = length;
    }

    /// Whether there are blocks that remotes may not see yet.
    pub(crate) fn is_held_back(&self) -> bool {
        self.served_len() < self.length
    }

    /// Whether a block is held, and remotes may see it.
    pub(crate) fn serves(&self, index: u64) -> bool {
        index < self.served_len() && self.is_written(index)
    }

    /// Whether a block is held, and not only on its way to the files.
    pub(crate) fn is_written(&self, index: u64) -> bool {
        self.has(index) && self.staged.word(index / 64) << (index % 64) >> 63 == 0
    }

    /// How many blocks are held and not only on their way to the files.
    pub(crate) fn written(&self) -> u64 {
        self.downloaded().saturating_sub(self.staged.count())
    }

    /// The last block that is held and that remotes may see, without some that are `hidden`, ascending.
    pub(crate) fn last_served(&self, hidden: &[(u64, u64)]) -> Option<u64> {
        let mut end = self.served_len();
        loop {
            let last = self.bitfield.last_held(end)?;
            if self.is_written(last) && hidden.binary_search_by_key(&last, |&(index, _)| index).is_err() {
                return Some(last);
            }
            end = last;
        }
    }

    /// As [`Bitfield::word`], of the blocks that remotes may see.
    pub(crate) fn served_word(&self, number: u64) -> u64 {
        let word = self.bitfield.word(number) & !self.staged.word(number);
        match self.served_len().checked_sub(number.saturating_mul(64)) {
            Some(64..) => word,
            Some(blocks) => word & !(u64::MAX >> blocks),
            None => 0,
        }
    }

    /// As [`Bitfield::rle_range`], of the blocks that remotes may see, without some that are `hidden`.
    pub(crate) fn served_range(&self, start: u64, length: u64, hidden: &[(u64, u64)]) -> Vec<u8> {
        let end = if self.is_held_back() { self.served_len() } else { u64::MAX };
        self.bitfield.rle_range_of(start, length, |number, byte| {
            let hidden = hidden.iter().filter(|(index, _)| index / 8 == number);
            let byte = hidden.fold(byte, |byte, (index, _)| byte & !(0x80 >> (index % 8)));
            // The byte of the word, whose first block is its highest bit.
            let staged = self.staged.word(number / 8).to_be_bytes()[(number % 8) as usize];
            let byte = byte & !staged;
            match end.saturating_sub(number * 8) {
                0 => 0,
                blocks @ 1..8 => byte & !(0xff >> blocks),
                _ => byte,
            }
        })
    }

    /// Returns the hashes of the roots of the length that remotes may see; none if it is not the whole length, whose roots alone are known without
    /// the disk.
    pub(crate) fn served_roots(&self) -> impl Iterator<Item = [u8; 32]> + use<'_> {
        let roots: &[Node] = if self.is_held_back() { &[] } else { &self.roots };
        roots.iter().map(|root| root.hash)
    }

    /// The runs of blocks that are held and that remotes may see, ascending.
    pub(crate) fn served_runs(&self) -> impl Iterator<Item = Range<u64>> + use<'_> {
        let end = self.served_len();
        let is_whole = self.written() == end && !self.is_held_back();
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = if is_whole { from } else { self.next_served(from, end)? };
            let stop = if is_whole { end } else { self.bitfield.next_missing(start, end).unwrap_or(end) };
            let stop = self.staged.next_block(start..stop).unwrap_or(stop);
            from = stop;
            (start < stop).then_some(start..stop)
        })
    }

    /// The first block in `from..end` that is held and not only on its way to the files.
    fn next_served(&self, mut from: u64, end: u64) -> Option<u64> {
        loop {
            let held = self.bitfield.next_held(from, end)?;
            match self.staged.run_end(held, end) {
                after if after == held => return Some(held),
                after => from = after,
            }
        }
    }

    /// The nodes that proofs for remotes are made of.
    pub(super) fn served_nodes(&self) -> Served<'_> {
        Served { bitfield: &self.bitfield, end: if self.is_held_back() { self.served_len() } else { u64::MAX } }
    }
}

/// The held nodes that lie within a length.
pub(super) struct Served<'a> {
    bitfield: &'a Bitfield,
    end: u64,
}

impl HeldNodes for Served<'_> {
    fn holds(&self, node: u64) -> bool {
        flat::right_span(node) / 2 < self.end && self.bitfield.holds(node)
    }

    fn word(&self, number: u64) -> u64 {
        let word = self.bitfield.word_of_nodes(number);
        if self.end == u64::MAX {
            return word;
        }
        let hidden = |at: &u64| flat::right_span(number.wrapping_mul(64) | at) / 2 >= self.end;
        (0..64).filter(hidden).fold(word, |word, at| word & !(1 << (63 - at)))
    }
}
