//! What is not marked, and whether that fits what stands around it.

use super::{Bitfield, Part};

impl Bitfield {
    /// The first node in `from..to` that is not held.
    pub(crate) fn next_missing_node(&self, from: u64, to: u64) -> Option<u64> {
        self.scan(Part::Tree, from, to, true)
    }

    /// Whether the index says something else of the eight blocks around this one than their marks: they were not written together. What the index has
    /// no room for, as with the smallest pages, it does not tell.
    pub(crate) fn is_index_off(&self, block: u64) -> bool {
        let byte = block / 8;
        let node = byte / 4 * 2;
        let is_there = node < self.page_count * self.index_bytes() as u64;
        let told = (self.byte(Part::Index, node) << (2 * (byte % 4))) & 0b1100_0000;
        is_there && told != super::index::state(self.byte(Part::Data, byte))
    }
}
