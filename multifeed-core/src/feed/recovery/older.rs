//! A feed of which less is here than the journal knows: an older copy of its folder, or one that lost its end. Or another history of a writer is
//! here: an older copy that was extended elsewhere.
//!
//! It is read and served, and nothing of it is changed before a remote brings something. Nothing is appended to a writer's before it is as long as it
//! was: that would be a second history. A session brings it there, if a remote has the rest.

use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::feed::Feed;
use crate::merkle;
use crate::storage::Storage;

impl Feed {
    /// Less is here than this store knew. Nothing is written before a remote brings something.
    pub(crate) fn stay_older_than(&mut self, known: &Checkpoint) {
        self.known_before = Some(Box::new(known.clone()));
        self.untouched = true;
    }

    /// Nodes that opening made again are not held, nor the blocks that they are the leaves of: on the disk nothing is changed, so something else stands there.
    pub(super) fn forget_remade(&mut self) {
        for node in std::mem::take(&mut self.staged).nodes() {
            self.bitfield.clear_node(node);
            if node % 2 == 0 {
                self.bitfield.set(node / 2, false);
            }
        }
    }

    /// Whether nothing is written of what opening it came to: see [`stay_older_than`](Self::stay_older_than).
    pub(in crate::feed) fn is_untouched(&self) -> bool {
        self.untouched && self.staged.is_empty()
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

    /// What was known of it before, while less than that is here, or another history.
    pub(in crate::feed) fn newer_mark(&self) -> Option<&Checkpoint> {
        let is_newer = |known: &&Checkpoint| {
            let same_length = known.length == self.length;
            self.forked || known.length > self.length || same_length && !known.has_root(&merkle::root_hash(&self.roots))
        };
        self.known_before.as_deref().filter(is_newer)
    }

    /// How long a feed of ours was known, or may have been, of which less is here, or another history.
    pub(crate) fn most_signed(&self) -> Option<u64> {
        self.refused_length().or_else(|| self.newer_mark().map(|known| known.length))
    }

    /// What is wrong with a feed of which this store knew more than is here. Nothing can be appended to it.
    pub(crate) fn older_copy(&self) -> Option<StoreError> {
        if let Some(refusal) = self.refusal() {
            return Some(refusal.clone());
        }
        let known = self.newer_mark()?;
        let (slot, key, name, blocks) = (self.slot, self.key, self.local_name.clone(), self.length);
        let known = known.length;
        Some(match (self.forked, self.writable()) {
            (true, _) => StoreError::ForkedWriter { slot, key, name, blocks, signed: known },
            (false, true) => StoreError::OlderWriter { slot, key, name, blocks, signed: known },
            (false, false) => StoreError::OlderCopy { slot, key, blocks, known },
        })
    }
}
