//! Numbers under which the journal knows feeds that have no folder of that number.
//!
//! In a store whose folders are known by their keys, the journal is what gives a feed the same number again. And what is known of a writer that was
//! removed stands under a number from [`REMOVED`] on. Its key pair may be there again, and must not sign a second history.

use multifeed_proto::FeedKey;

use super::checkpoint::name;
use super::{Checkpoint, Journal};
use crate::storage::Slot;

/// Numbers from here on are no folders': what is known of writers stands there whose old numbers other feeds have.
pub(crate) const HOMELESS: Slot = Slot(0xf000_0000);

/// Numbers from here on are no folders': what is known of writers that were removed stands there.
pub(crate) const REMOVED: Slot = Slot(0xf800_0000);

impl Journal {
    /// The numbers of folders of which anything is known. From now on they are found by what stands for the feeds' keys.
    pub(crate) fn index_slots(&mut self) -> Vec<Slot> {
        let here = || self.marks.iter().filter(|(slot, _)| **slot < REMOVED);
        let slots = here().map(|(slot, mark)| (mark.key, *slot)).collect();
        let numbers = here().map(|(slot, _)| *slot).collect();
        self.slots = slots;
        numbers
    }

    /// The number under which something is known of a feed.
    pub(crate) fn slot_of(&self, name: &[u8; 8]) -> Option<Slot> {
        self.slots.get(name).copied()
    }

    /// What was signed of a feed that was written here, and is not open or was removed: the longest that is known.
    pub(crate) fn signed(&self, key: &FeedKey) -> Option<(Slot, &Checkpoint)> {
        let key = name(key);
        let when_opened = self.writers.get(&key).and_then(|slot| Some((slot, self.marks.get(slot)?)));
        let marks = self.marks.range(HOMELESS..).chain(when_opened);
        let its = marks.filter(|(_, mark)| mark.key == key && mark.length > 0 && mark.is_of_a_writer());
        its.max_by_key(|(_, mark)| mark.length).map(|(slot, mark)| (*slot, mark))
    }

    /// Notes what was signed of a writer that is about to be removed.
    pub(crate) fn note_removed(&mut self, key: &FeedKey, mut mark: Checkpoint) {
        // Its name is free.
        mark.writer.iter_mut().for_each(|writer| writer.name = None);
        let name = name(key);
        let before = self.marks.range(REMOVED..).find(|(_, mark)| mark.key == name).map(|(slot, _)| *slot);
        let mut slot = before.unwrap_or(REMOVED);
        while before.is_none() && self.has_mark(slot) {
            slot.0 += 1;
        }
        self.note(slot, mark);
    }
}
