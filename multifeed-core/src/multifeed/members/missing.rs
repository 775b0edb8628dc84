//! Writers whose folders are gone: deleted, emptied, or on a disk that is not there now.
//!
//! The journal knows whose they are. Such a folder's number is neither closed nor given to another feed, and its name not to another writer unless
//! the application says so. The folder may come back, and is then the writer's as before, whatever number it has. Under its old number it is
//! noticed while the store is open, when its writer is asked for and when a session begins.
//!
//! JS does not open what stands behind the number, and puts its next feed in it. What is known of the writer is then kept under a number that
//! no folder has.

use std::collections::{BTreeMap, BTreeSet};

use multifeed_proto::FeedKey;

use super::folder_numbers::NOBODY;
use super::rearranged::Rearranged;
use crate::cores::journal::numbers::{HOMELESS, REMOVED};
use crate::cores::journal::{Checkpoint, name};
use crate::error::StoreError;
use crate::feed::local_name::is_key_name;
use crate::feed::{Feed, Opening};
use crate::multifeed::{Multifeed, feed_name};
use crate::storage::{FileId, FileKind, RepairedInMemory, Slot, Storage};

/// Missing writers that are reported one by one. A forged journal can tell of millions.
const MAX_MISSING: usize = 16_384;

/// Missing writers whose folders are looked for again as a session begins.
const MAX_LOOKED_FOR: usize = 64;

/// Which missing writers' folders are still to be looked for, of those that a session looks for as it begins.
#[derive(Debug, Default)]
pub(in crate::multifeed) struct LookAgain {
    /// The next one, and those after it: they have their turns.
    next: Slot,
    left: usize,
}

impl LookAgain {
    pub(in crate::multifeed) fn begin(&mut self) {
        self.left = MAX_LOOKED_FOR;
    }

    pub(in crate::multifeed) fn is_under_way(&self) -> bool {
        self.left > 0
    }
}

impl<S: Storage> Multifeed<S> {
    /// Gives the name of a missing writer free for a new one. False if no writer is missing that has, or may have, that name. In a store whose
    /// journal was damaged any name that no feed has may be a missing writer's.
    ///
    /// The missing one stays known. Once a new writer has the name it keeps it: if the missing one's folder comes back, that is named by its key, which
    /// [`rearranged`](Self::rearranged) then tells.
    pub fn release_missing_name(&mut self, name: &str) -> bool {
        self.members.catalog.release_name(name)
    }

    /// Gives a missing writer up: its number is closed, its name is free, and its feed is [banned](Self::ban), as a copy of its key
    /// elsewhere could sign a second history. How much it signed stays known, as of one that is [removed](Self::remove_writer). False if no writer of
    /// that key is missing.
    ///
    /// # Errors
    ///
    /// As [`ban`](Self::ban), or the storage's error.
    pub fn give_up_missing(&mut self, key: &FeedKey) -> Result<bool, StoreError> {
        if !self.cores.report.problems.iter().any(|problem| problem.is_of_missing(key)) {
            return Ok(false);
        }
        self.ban(*key)?;
        self.begin(true)?;
        let of_key = self.cores.journal.writers().filter(|(slot, mark)| *slot < REMOVED && mark.is_of(key));
        for (slot, mark) in of_key.map(|(slot, mark)| (slot, mark.clone())).collect::<Vec<_>>() {
            self.cores.journal.note_removed(key, mark);
            self.cores.journal.forget(slot);
            let obstacle = self.cores.storage.obstacles().is_ok_and(|slots| slots.contains(&slot));
            if slot < HOMELESS && !obstacle && self.members.catalog.at(slot).is_none() {
                self.members.catalog.release(slot);
            }
        }
        self.cores.journal.write(&mut self.cores.storage, true)?;
        self.cores.report.found_missing(key);
        self.members.catalog.forget_missing(key);
        self.close_gaps()?;
        Ok(true)
    }

    /// Looks for the folders of missing writers, as after a disk was put back, until one is there again: that is opened, and the others are left to the
    /// next step.
    pub(in crate::multifeed) fn take_back_missing(&mut self) {
        if !self.steps.missing.is_under_way() {
            return;
        }
        let LookAgain { next, left } = self.steps.missing;
        let mut missing: Vec<_> = self.cores.report.missing_writers().map(|(slot, key, _)| (slot, key)).collect();
        missing.sort_unstable_by_key(|(slot, _)| (*slot < next, *slot));
        self.steps.missing.left = left.min(missing.len());
        for (slot, key) in missing.into_iter().take(left) {
            self.steps.missing = LookAgain { next: Slot(slot.0.saturating_add(1)), left: self.steps.missing.left - 1 };
            if self.reopen_missing(slot, key) {
                break;
            }
        }
    }

    /// Looks for the folder of the missing writer of a name.
    pub(in crate::multifeed) fn take_back_named(&mut self, name: &str) {
        let named = self
            .cores
            .report
            .missing_writers()
            .find(|(.., named)| *named == Some(name))
            .map(|(slot, key, _)| (slot, key));
        if let Some((slot, key)) = named {
            self.reopen_missing(slot, key);
        } else {
            self.steps.missing.begin();
        }
    }

    /// Opens a missing writer's folder if it is there again. It waits until the store is opened anew if it is not yet whole, as while it is being copied,
    /// or if its feed was fetched meanwhile. Returns whether there was something to open.
    fn reopen_missing(&mut self, slot: Slot, key: FeedKey) -> bool {
        // What was there when it was last looked at may be another folder now: an older copy, say.
        self.cores.storage.release(slot);
        if !matches!(self.cores.key_in(slot), Ok(Some(found)) if found == key) || self.members.banned.contains(&key) {
            return false;
        }
        let mut untouched = RepairedInMemory::new(&mut self.cores.storage);
        let mut opening = Opening::new(&self.limits, &self.cores.signers);
        let opened = Feed::open_known(&mut untouched, slot, &self.cores.journal, &mut opening);
        let Ok(feed) = opened else { return true };
        let is_whole = feed.writable() && feed.older_copy().is_none() && !untouched.is_repaired();
        let is_new = self.members.catalog.find(&key).is_none() && self.members.catalog.offered(&key).is_none();
        let has_name = feed.local_name().is_none_or(|name| self.members.catalog.named(name).is_none());
        if !(is_whole && is_new && has_name && opening.unread.is_empty()) {
            return true;
        }
        if let Err(error) = self.cores.look_at_permissions(&feed) {
            self.cores.report.note_problem(error);
        }
        let name = feed_name(&feed);
        let id = self.insert(feed);
        self.index(id);
        self.adopt(id);
        self.cores.report.found_missing(&key);
        self.members.catalog.forget_missing(&key);
        self.created(id, key, name);
        self.adopt_offers(id, key, None);
        true
    }

    /// After the feeds were opened: reports feeds that were fetched and whose folders are gone, once, and forgets what is known of them: they come again
    /// like any other.
    pub(in crate::multifeed) fn look_for_gone(&mut self) {
        let removed = self.cores.journal.removal().map(|removal| removal.slot);
        let is_gone = |slot: Slot, mark: &Checkpoint| {
            let known = !mark.is_of_a_writer() && mark.length > 0 && !mark.is_of(&NOBODY);
            known && !self.members.catalog.is_taken(slot) && Some(slot) != removed
        };
        let gone = self.cores.journal.marks().filter(|(slot, mark)| is_gone(*slot, mark));
        let gone: Vec<_> = gone.map(|(slot, mark)| (slot, mark.key, mark.length)).collect();
        if gone.is_empty() {
            return;
        }
        let here: BTreeSet<_> = self.feeds().map(|id| name(&self.slot(id).feed.key())).collect();
        for (slot, key, blocks) in gone {
            // A folder may have another number than it had.
            if !here.contains(&key) && self.members.rearranged.len() < MAX_MISSING {
                self.members.rearranged.push(Rearranged::Gone { slot, blocks });
            }
            self.cores.journal.forget(slot);
        }
    }

    /// After the feeds were opened: what is known of a writer is known of the folder that it is in now, and those that are in none are reported.
    pub(in crate::multifeed) fn look_for_missing(&mut self) {
        let in_place = |slot: Slot, mark: &Checkpoint| {
            let feed = self.members.catalog.at(slot).map(|id| &self.slot(id).feed).filter(|feed| feed.writable());
            feed.is_some_and(|feed| mark.writer.as_ref().is_some_and(|writer| writer.key == feed.key()))
        };
        let known = self.cores.journal.writers().filter(|(slot, mark)| !in_place(*slot, mark));
        let known: Vec<_> = known.map(|(slot, mark)| (slot, mark.clone())).collect();
        if known.is_empty() {
            return;
        }
        let ours: Vec<_> = self.feeds().filter(|id| self.slot(*id).feed.writable()).collect();
        let ours: BTreeMap<_, _> = ours.into_iter().map(|id| (name(&self.slot(id).feed.key()), id)).collect();
        // Writers' folders that are reported for what is wrong with them.
        let slots: BTreeSet<Slot> = self.cores.report.problems.iter().filter_map(StoreError::slot).collect();
        let mut unopened = BTreeMap::new();
        for slot in slots {
            let secret = self.cores.storage.len(FileId::new(slot, FileKind::SecretKey));
            let secret = secret.map_err(|error| StoreError::from_slot(slot, "open", error));
            let key =
                secret.and_then(|secret| if matches!(secret, Some(1..)) { self.cores.key_in(slot) } else { Ok(None) });
            let is_unread = |error: &StoreError| matches!(error, StoreError::Io { .. }) && error.slot() == Some(slot);
            match key {
                Ok(Some(key)) => _ = unopened.insert(name(&key), (slot, key)),
                // Whose folder this is stays unknown: its writer may be reported as missing.
                Err(error) if is_unread(&error) && !self.cores.report.problems.iter().any(is_unread) => {
                    self.cores.report.problems.push(error)
                }
                Ok(None) | Err(_) => {}
            }
        }
        let removed = self.cores.journal.removal().map(|removal| removal.slot);
        let (mut told, mut free) = (0, HOMELESS.0);
        for (slot, mark) in known.into_iter().filter(|(slot, _)| Some(*slot) != removed) {
            if let Some(feed) = ours.get(&mark.key).map(|id| &self.slot(*id).feed) {
                if feed.slot() != slot && self.cores.journal.mark(feed.slot(), &feed.key()).is_none() {
                    self.cores.journal.renumber(slot, feed.slot(), &feed.key());
                }
                continue;
            }
            if mark.length == 0 || slot >= REMOVED {
                continue;
            }
            if let Some((there, key)) = unopened.get(&mark.key) {
                if *there != slot {
                    self.cores.journal.renumber(slot, *there, key);
                }
                continue;
            }
            // A folder that cannot be read is reported for that.
            let elsewhere = match self.cores.key_in(slot) {
                Ok(key) => !key.is_some_and(|key| mark.is_of(&key)),
                // Something else stands in its place; what is in a real folder stays for a person to look into.
                Err(StoreError::NotRegular { .. }) => {
                    self.cores.storage.obstacles().is_ok_and(|slots| slots.contains(&slot))
                }
                Err(_) => false,
            };
            if !elsewhere {
                continue;
            }
            told += 1;
            let replaced = self.members.catalog.at(slot).is_some();
            let place = Some(slot).filter(|slot| *slot < HOMELESS && !replaced);
            if let Some(slot) = place {
                self.members.catalog.occupy(slot);
            }
            if replaced && let Some(writer) = &mark.writer {
                // What is noted of the feed that is there now would take its place.
                while self.cores.journal.has_mark(Slot(free)) {
                    free += 1;
                }
                self.cores.journal.renumber(slot, Slot(free), &writer.key);
            }
            let (key, named) = mark.writer.map_or((None, None), |writer| (Some(writer.key), writer.name));
            let name = match (named, key) {
                // Another writer has the name that it had.
                (Some(name), Some(key)) if is_key_name(&name, &key) => None,
                (Some(name), _) => Some(name),
                (None, key) => place.filter(|_| key.is_some()).map(|slot| slot.to_string()),
            };
            let error = StoreError::MissingWriter { slot: place, key, name: name.clone(), blocks: mark.length };
            if told > MAX_MISSING {
                // Of those that are not reported any name may be one.
                self.members.catalog.lose_name(error);
                return;
            }
            match name {
                Some(name) if self.members.catalog.named(&name).is_some_and(|id| self.slot(id).feed.writable()) => {}
                Some(name) => self.members.catalog.lose_writer(name, error.clone()),
                None if key.is_none() => self.members.catalog.lose_name(error.clone()),
                None => {}
            }
            self.cores.report.problems.push(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::keys::key_pair::KeyPair;
    use crate::multifeed::Options;
    use crate::storage::MemoryStorage;

    #[test]
    fn of_a_store_that_an_earlier_build_wrote_no_new_name_is_given_unless_that_is_said() {
        let mut disk = MemoryStorage::new();
        let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
        for seed in 1..=3 {
            let id = store.writer(Some(&format!("w{seed}")), || KeyPair::from_seed(&[seed; 32])).unwrap();
            store.append(id, &[Bytes::from("a")]).unwrap();
        }
        store.sync().unwrap();
        for slot in (0..3).map(Slot) {
            let (_, mark) = store.cores.journal.writers().find(|(known, _)| *known == slot).unwrap();
            let old = Checkpoint { writer: None, ..mark.clone() };
            store.cores.journal.forget(slot);
            store.cores.journal.note(slot, old);
        }
        store.close().unwrap();
        disk.reopen();
        disk.remove(Slot(1)).unwrap();
        let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
        let told = |problem: &StoreError| {
            matches!(problem, StoreError::MissingWriter { slot: Some(Slot(1)), key: None, blocks: 1, .. })
        };
        assert!(store.problems().len() == 1 && store.problems().iter().all(told), "{:?}", store.problems());
        assert!(store.writer(Some("w3"), || KeyPair::from_seed(&[8; 32])).is_ok());
        let new = || KeyPair::from_seed(&[9; 32]);
        assert!(matches!(store.writer(Some("w2"), new), Err(StoreError::MissingWriter { .. })));
        assert!(store.release_missing_name("w2"));
        let id = store.writer(Some("w2"), new).unwrap();
        assert_eq!(store.slot_of(id).unwrap(), Slot(3));
    }
}
