//! In a store whose folders are known by their keys, the journal is what gives a feed the same number again.

use super::Journal;
use crate::storage::Slot;

impl Journal {
    /// The numbers of which anything is known. From now on they are found by what stands for the feeds' keys.
    pub(crate) fn index_slots(&mut self) -> Vec<Slot> {
        self.slots = self.marks.iter().map(|(slot, mark)| (mark.key, *slot)).collect();
        self.marks.keys().copied().collect()
    }

    /// The number under which something is known of a feed.
    pub(crate) fn slot_of(&self, name: &[u8; 8]) -> Option<Slot> {
        self.slots.get(name).copied()
    }
}
