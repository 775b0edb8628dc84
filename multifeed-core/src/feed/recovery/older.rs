//! A writer's feed of which less is here than the journal knows to be signed: an older copy of its folder, or one that lost its end. Or another history
//! is here: an older copy that was extended elsewhere.
//!
//! It is read and served. Nothing is appended to it before it is as long as it was: that would be a second history. A session brings it there, if
//! a remote has the rest.

use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::feed::Feed;
use crate::merkle;
use crate::storage::Storage;

impl Feed {
    /// Less is here than this store knew. Nothing is written before a remote brings something.
    pub(super) fn stay_older_than(&mut self, known: &Checkpoint) {
        self.signed_before = Some(Box::new(known.clone()));
        self.bitfield.mark_clean();
    }

    /// Whether this store signed another history than the one that is here, whole and signed: its folder is an older copy that was extended elsewhere.
    pub(super) fn is_another_history<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        known: &Checkpoint,
    ) -> Result<bool, StoreError> {
        if known.length == 0 || self.length < known.length {
            return Ok(false);
        }
        let Some(roots) = self.roots_of(storage, known.length)? else { return Ok(false) };
        if known.has_root(&merkle::root_hash(&roots)) {
            return Ok(false);
        }
        // A node that rotted is none of the roots that are signed, nor below one.
        for root in roots {
            if !self.roots.contains(&root) && !self.prove_node(storage, root, &[])? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What was signed here before, while less than that is here, or another history.
    pub(in crate::feed) fn newer_mark(&self) -> Option<&Checkpoint> {
        let is_newer = |known: &&Checkpoint| {
            let same_length = known.length == self.length;
            self.forked || known.length > self.length || same_length && !known.has_root(&merkle::root_hash(&self.roots))
        };
        self.signed_before.as_deref().filter(is_newer)
    }

    /// Why nothing can be appended to a feed that is written here: this store signed more than is here.
    pub(crate) fn older_writer(&self) -> Option<StoreError> {
        let known = self.newer_mark()?;
        if self.forked {
            return Some(StoreError::ForkedWriter {
                slot: self.slot,
                key: self.key,
                name: self.local_name.clone(),
                blocks: self.length,
                signed: known.length,
            });
        }
        Some(StoreError::OlderWriter {
            slot: self.slot,
            key: self.key,
            name: self.local_name.clone(),
            blocks: self.length,
            signed: known.length,
        })
    }
}
