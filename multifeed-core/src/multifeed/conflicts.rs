//! Second histories of feeds, found by sessions or by opening.

use super::{Multifeed, MultifeedEvent};
use crate::cores::evidence::KeptConflict;
use crate::error::{Conflict, StoreError};
use crate::ids::FeedId;
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// Returns how many second histories are kept as evidence, in `multifeed.conflicts` beside the feeds.
    pub fn conflicts_kept(&self) -> usize {
        self.cores.evidence.len()
    }

    /// Returns the second histories that are kept, also of feeds that were removed. What cannot be read of the file is left out.
    pub fn conflicts(&self) -> Vec<KeptConflict> {
        self.cores.evidence.list()
    }

    /// Removes the evidence of all second histories, and returns how many there were. One that a remote shows again is reported, and kept, anew.
    ///
    /// # Errors
    /// If the file cannot be written: nothing is forgotten then.
    pub fn clear_conflicts(&mut self) -> Result<usize, StoreError> {
        self.cores.evidence.clear(&mut self.cores.storage)
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
