//! A writer's feed of which less is here than the journal knows to be signed: an older copy of its folder, or one that lost its end.
//!
//! It is read and served. Nothing is appended to it before it is as long as it was: that would be a second history. A session brings it there, if
//! a remote has the rest.

use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::feed::Feed;
use crate::merkle;

impl Feed {
    /// Less is here than this store knew. Nothing is written before a remote brings something.
    pub(super) fn stay_older_than(&mut self, known: &Checkpoint) {
        self.signed_before = Some(Box::new(known.clone()));
        self.bitfield.mark_clean();
    }

    /// What was signed here before, while less than that is here.
    pub(in crate::feed) fn newer_mark(&self) -> Option<&Checkpoint> {
        let is_newer = |known: &&Checkpoint| {
            let same_length = known.length == self.length;
            known.length > self.length || same_length && !known.has_root(&merkle::root_hash(&self.roots))
        };
        self.signed_before.as_deref().filter(is_newer)
    }

    /// Why nothing can be appended to a feed that is written here: this store signed more than is here.
    pub(crate) fn older_writer(&self) -> Option<StoreError> {
        let known = self.newer_mark()?;
        Some(StoreError::OlderWriter {
            slot: self.slot,
            key: self.key,
            name: self.local_name.clone(),
            blocks: self.length,
            signed: known.length,
        })
    }
}
