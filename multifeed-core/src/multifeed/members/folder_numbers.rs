//! The numbers of folders: JS opens them from 0 on until one has no `key`, so the feeds' come first, and without a gap.
//!
//! A power cut can take a folder, or the `key` in it, of a feed that was not fsynced. What is behind that takes its number. What is left in a
//! folder without a key may be of use to somebody, and nobody can say whose it is: it stands behind the feeds, and is reported.

use multifeed_proto::FeedKey;

use super::rearranged::Rearranged;
use crate::cores::journal::Removal;
use crate::error::StoreError;
use crate::multifeed::Multifeed;
use crate::storage::{Slot, Storage};

/// Whose folder a gap was.
pub(in crate::multifeed) const NOBODY: FeedKey = FeedKey::new([0; 32]);

impl<S: Storage> Multifeed<S> {
    /// After opening: the last feeds take the numbers of those that are gone.
    pub(in crate::multifeed) fn close_gaps(&mut self) -> Result<(), StoreError> {
        if !self.cores.storage.is_numbered() {
            return Ok(());
        }
        while let Some(gap) = self.members.catalog.gap().filter(|_| self.cores.journal.removal().is_none()) {
            let slots = self.cores.storage.list().map_err(|error| StoreError::from_store("list", error))?;
            if slots.contains(&gap) {
                self.set_aside(gap)?;
            }
            let Some((last, key)) = self.last_folder()?.filter(|(last, _)| *last > gap) else { break };
            // Something that is no folder may stand there: nothing is begun that cannot be done.
            self.cores.key_in(gap)?;
            self.begin(true)?;
            self.cores.journal.begin_removal(&mut self.cores.storage, Removal::new(gap, &NOBODY, Some((last, key))))?;
            self.resume_removal()?;
            if self.members.catalog.gap() == Some(gap) {
                break;
            }
        }
        Ok(())
    }

    /// Gives a folder without a key, whose number a feed has to get, one behind all others.
    pub(in crate::multifeed) fn set_aside(&mut self, slot: Slot) -> Result<(), StoreError> {
        let to = Slot(self.members.catalog.end());
        if to == Slot::NOWHERE {
            return Err(StoreError::TooManyFeeds { max: u32::MAX as usize });
        }
        self.members.catalog.see(to);
        self.begin(true)?;
        // A crash later on must not make it what that left.
        self.cores.journal.keep(to);
        self.cores.journal.write(&mut self.cores.storage, true)?;
        self.cores.storage.rename(slot, to).map_err(|error| StoreError::from_slot(slot, "rename", error))?;
        self.renumber_reported(slot, to);
        self.members.rearranged.push(Rearranged::Renumbered { from: slot, to });
        Ok(())
    }

    /// Gives what was reported of a folder the number that the folder has now.
    pub(in crate::multifeed) fn renumber_reported(&mut self, from: Slot, to: Slot) {
        self.cores.report.renumber(from, to);
        self.members.catalog.renumber_lost(from, to);
    }
}
