//! Second histories of feeds, found by sessions or by opening.

use super::{Multifeed, MultifeedEvent};
use crate::error::Conflict;
use crate::ids::FeedId;
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// Returns how many second histories are kept as evidence, in `multifeed.conflicts` beside the feeds.
    pub fn conflicts_kept(&self) -> usize {
        self.cores.evidence.len()
    }

    /// Keeps a second history as evidence, and reports it the first time that it is found.
    pub(super) fn note_conflict(&mut self, id: FeedId, conflict: &Conflict) {
        let key = self.slot(id).feed.key();
        let noted = self.cores.evidence.note(&mut self.cores.storage, &key, conflict, self.limits.conflicts);
        // If the evidence cannot be kept, it is reported all the same.
        if !matches!(noted, Ok(true)) {
            self.outbox.push(MultifeedEvent::Conflict { id, key, conflict: Box::new(conflict.clone()) });
        }
    }
}
