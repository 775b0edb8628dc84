//! What fuzzers and simulators reach, and nothing else: no part of the API.

use std::ops::Range;

use multifeed_proto::Data;

use crate::bitfield::Bitfield;
use crate::error::PutError;
use crate::feed::{Compared, Feed};
pub use crate::keys::signatures::Remembered;
use crate::sets::sparse_bits::SparseBits;
use crate::storage::Storage;

/// Marks a block held or not. Returns whether that changed anything.
pub fn set(bits: &mut Bitfield, block: u64, held: bool) -> bool {
    bits.set(block, held)
}

/// Marks a tree node held, and each parent whose two children then are.
pub fn set_node(bits: &mut Bitfield, node: u64) {
    bits.set_node(node);
}

/// Takes the mark of a node away.
pub fn clear_node(bits: &mut Bitfield, node: u64) {
    bits.clear_node(node);
}

/// Returns whether a tree node is held.
pub fn node(bits: &Bitfield, node: u64) -> bool {
    bits.node(node)
}

/// Returns the first node in `from..to` that is held.
pub fn next_node(bits: &Bitfield, from: u64, to: u64) -> Option<u64> {
    bits.next_node(from, to)
}

/// Returns the first block from this one on that is held while its leaf is not.
pub fn next_without_leaf(bits: &Bitfield, from: u64) -> Option<u64> {
    bits.next_without_leaf(from)
}

/// Returns a page as it stands in the file.
pub fn page(bits: &Bitfield, number: usize) -> Option<Vec<u8>> {
    bits.page_as_stored(number)
}

/// Returns the bitfield that is read back from the pages of another one.
pub fn reload(bits: &Bitfield, pages: usize) -> Bitfield {
    let mut read = Bitfield::load(bits.page_bytes(), pages as u64);
    for number in 0..pages {
        if let Some(page) = bits.page_as_stored(number) {
            read.load_page(number as u64, &page);
        }
    }
    read
}

/// Holds a proof without a block against all that is held, as of a feed that is written here. Whether the feed grew by it.
///
/// # Errors
/// As [`Feed::put`].
pub fn compare<S: Storage>(feed: &mut Feed, storage: &mut S, data: &Data) -> Result<bool, PutError> {
    feed.compare(storage, data, crate::limits::FeedSize::MAX).map(|compared| compared == Compared::Grew)
}

/// The set in which sessions keep what a remote has, and what is asked for.
#[derive(Debug, Default)]
pub struct Wanted(SparseBits);

impl Wanted {
    /// Adds an index; false if it was a member already.
    pub fn insert(&mut self, index: u64) -> bool {
        self.0.insert(index)
    }

    /// Takes an index out; false if it was none.
    pub fn remove(&mut self, index: u64) -> bool {
        self.0.remove(index)
    }

    /// Takes every index of a range out.
    pub fn remove_range(&mut self, range: Range<u64>) {
        self.0.remove_range(range.start, range.end);
    }

    /// Sets the members among the 64 from `64 * word` on, the first in the most significant bit.
    pub fn set_word(&mut self, word: u64, members: u64) {
        self.0.set_word(word, members);
    }

    /// Returns whether an index is a member.
    pub fn contains(&self, index: u64) -> bool {
        self.0.get(index)
    }

    /// Returns the first member of a range that is not in `except` too.
    pub fn first_in(&self, range: Range<u64>, except: Option<&Wanted>) -> Option<u64> {
        self.0.first_in(range, except.map(|except| &except.0))
    }

    /// Returns the number of members.
    pub fn count(&self) -> u64 {
        self.0.count()
    }
}
