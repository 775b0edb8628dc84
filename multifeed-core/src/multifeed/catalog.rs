//! Which feed has which key, name and folder.

use std::collections::BTreeMap;

use multifeed_proto::FeedKey;

use super::FeedId;
use crate::storage::Slot;

/// The index of the set of feeds.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    by_key: BTreeMap<FeedKey, FeedId>,
    writers: BTreeMap<String, FeedId>,
    next_slot: u32,
}

impl Catalog {
    pub(super) fn find(&self, key: &FeedKey) -> Option<FeedId> {
        self.by_key.get(key).copied()
    }

    /// The local writer of that name.
    pub(super) fn writer(&self, name: &str) -> Option<FeedId> {
        self.writers.get(name).copied()
    }

    /// The folder for the next feed: past every one there is, so that nothing is ever overwritten.
    pub(super) fn next_slot(&self) -> Slot {
        Slot(self.next_slot)
    }

    /// Notes that a folder is taken, whatever it holds.
    pub(super) fn occupy(&mut self, slot: Slot) {
        self.next_slot = self.next_slot.max(slot.0.saturating_add(1));
    }

    /// Adds a feed. Of two local writers with one name (two calls of JS's `writer` at once make such) the first has it.
    pub(super) fn insert(&mut self, id: FeedId, key: FeedKey, writer: Option<&str>) {
        self.by_key.insert(key, id);
        if let Some(name) = writer {
            self.writers.entry(name.to_owned()).or_insert(id);
        }
    }
}
