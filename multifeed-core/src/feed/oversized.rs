//! Blocks that no peer can be sent: JS appends blocks of up to 8 MiB, whose messages can pass what JS accepts.

use super::Feed;
use crate::error::StoreError;
use crate::limits::MAX_BLOCK_BYTES;
use crate::merkle::index as flat;
use crate::storage::Storage;

impl Feed {
    /// Returns the held blocks of more than [`MAX_BLOCK_BYTES`], each with its size in bytes, ascending. They are never served.
    ///
    /// Only the parts of the tree that span so many bytes are looked at. That is nothing in a feed of fewer, and two nodes
    /// for each 8 MiB or so in a large one.
    ///
    /// # Errors
    /// The storage's error.
    pub fn oversized<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<Vec<(u64, u64)>, StoreError> {
        let mut found = Vec::new();
        let mut spans: Vec<(u64, u64)> = self.roots.iter().rev().map(|root| (root.index, root.size)).collect();
        while let Some((node, size)) = spans.pop() {
            if size <= MAX_BLOCK_BYTES as u64 {
                continue;
            }
            match flat::children(node) {
                None if self.has(node / 2) => found.push((node / 2, size)),
                None => {}
                Some((low, high)) => {
                    // If a child is not held, neither are the blocks below it.
                    for child in [high, low] {
                        if self.bitfield.node(child) {
                            spans.push((child, self.node(storage, child)?.size));
                        }
                    }
                }
            }
        }
        Ok(found)
    }
}
