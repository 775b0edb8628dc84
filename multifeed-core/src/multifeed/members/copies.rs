//! A folder of a writer that comes into a store which has fetched its feed: as when a disk is there again, or a folder is copied from another
//! device.
//!
//! There is one feed of a key. The writer's folder becomes it if the histories are one. What the fetched copy has beyond it is taken in, each
//! block proven and all of it fsynced. Then the copy's folder is removed as any feed's is. Each step can be cut short: the next opening finds
//! two folders again, or one.

use std::ops::Range;

use multifeed_proto::FeedKey;

use crate::cores::journal::Removal;
use crate::error::StoreError;
use crate::feed::{Feed, Opening, Recovered, Relation, Repair};
use crate::ids::FeedId;
use crate::multifeed::{FeedSlot, Multifeed};
use crate::storage::{FileId, FileKind, Slot, Storage};

/// Nothing is in the folder that a repair would not keep.
const SPARE: &str = "`verify --repair` takes in what only that folder has, and removes it, while no session runs; what is damaged in both comes by a sync first";
const TWO_KEYS: &str =
    "nothing was changed in either, as a secret key is in both, or was in one; move the one away that has less";
const IN_SESSION: &str =
    "it has more, and a session runs: `verify --repair` takes that in when none does, and removes the folder";
const UNPROVEN: &str = "not all that is in it could be taken in, and nothing was removed; sync with a peer that has the feed, or move the folder away";

impl<S: Storage> Multifeed<S> {
    /// After opening: makes one feed of each that is in two folders. Feeds that stay two are reported, and of each the folder that was opened first
    /// counts.
    pub(in crate::multifeed) fn join_copies(&mut self, doubles: Vec<Feed>) {
        for double in doubles {
            let (slot, writable) = (double.slot(), double.writable());
            if let Err(error) = self.take_over_copy(double) {
                if writable && !error.is_left_to_a_writer() {
                    // Its name is not for another writer.
                    self.lose_writer_in(slot, &error);
                }
                self.cores.report.add_of_order(error);
            }
        }
    }

    /// Makes one feed of the one that was opened and another of its key, in a folder of its own.
    fn take_over_copy(&mut self, double: Feed) -> Result<(), StoreError> {
        let key = double.key();
        let Some(id) = self.members.catalog.find(&key) else {
            return Err(StoreError::Occupied { slot: double.slot() });
        };
        let first = &mut self.feeds[id.0 as usize].feed;
        let two = |what| StoreError::SecondFolder { slot: double.slot(), first: first.slot(), key, what };
        let double_writes = match (first.writable(), double.writable()) {
            (false, false) => {
                let report = &self.cores.report;
                let key_is_lost = report.lost_key(first) || report.lost_key(&double);
                return Err(two(if key_is_lost { TWO_KEYS } else { SPARE }));
            }
            (true, true) => double.len() > first.len(),
            (_, writes) => writes,
        };
        let first = std::mem::replace(first, Feed::gone(key, String::new()));
        let (mut writer, mut copy) = if double_writes { (double, first) } else { (first, double) };
        let before = writer.len();
        let related = writer.relate(&mut self.cores.storage, &mut copy);
        if !matches!(related, Ok(Relation::Same)) {
            let (first, double) = if double_writes { (copy, writer) } else { (writer, copy) };
            let slots = (double.slot(), first.slot());
            self.feeds[id.0 as usize].feed = first;
            return Err(self.why_apart(id, slots, related));
        }
        self.put_in_place(id, writer)?;
        if copy.writable() {
            // Somebody's only key may be in it.
            let first = self.slot(id).feed.slot();
            return Err(StoreError::SecondFolder { slot: copy.slot(), first, key, what: TWO_KEYS });
        }
        let taken = self.take_in(id, &mut copy)?.iter().map(|run| run.end - run.start).sum();
        self.check_all_taken(id, &copy)?;
        // Nothing has seen the feed yet.
        let slot =
            FeedSlot::new(std::mem::replace(&mut self.feeds[id.0 as usize].feed, Feed::gone(key, String::new())));
        *self.feeds[id.0 as usize] = slot;
        self.adopt(id);
        let feed = &self.slot(id).feed;
        let mut recovered = Recovered::new(key, feed.slot());
        (recovered.marked_length, recovered.length) = (before, feed.len());
        (recovered.blocks_regained, recovered.copy) = (taken, Some(copy.slot()));
        self.remove_copy(copy.slot(), &key, feed.slot())?;
        self.cores.report.recovered.push(recovered);
        Ok(())
    }

    /// Why a feed (the second number is its folder's) and the one in the other folder stay two.
    fn why_apart(
        &mut self,
        id: FeedId,
        (slot, first): (Slot, Slot),
        related: Result<Relation, StoreError>,
    ) -> StoreError {
        match related {
            Ok(Relation::Two(conflict)) => {
                self.note_conflict(id, &conflict);
                let why = "they are of another history than those of the same feed in another folder: its writer signed two; \
                           nothing was changed";
                StoreError::damaged(slot, FileKind::Signatures, why)
            }
            Ok(_) => StoreError::SecondFolder { slot, first, key: self.slot(id).feed.key(), what: UNPROVEN },
            Err(error) => error,
        }
    }

    /// At the end of a repair: takes in what other folders of the feed hold beyond it, and removes those of which it has all. One with a secret key stays. While
    /// there are sessions nothing is taken in. What stays two is among the problems, with the reason.
    pub(in crate::multifeed) fn join_spare_folders(&mut self, id: FeedId, done: &mut Repair) -> Result<(), StoreError> {
        let key = self.slot(id).feed.key();
        let is_spare =
            |problem: &&StoreError| matches!(problem, StoreError::SecondFolder { key: of, .. } if *of == key);
        // The last first: what takes the number of one that goes is none that waits here.
        let mut spare: Vec<_> =
            self.cores.report.problems.iter().filter(is_spare).filter_map(StoreError::slot).collect();
        spare.sort_unstable();
        for slot in spare.into_iter().rev() {
            match self.join_spare_folder(id, slot, &mut done.joined) {
                Ok(()) => done.folders_joined += 1,
                Err(error) if error.slot() == Some(slot) => {
                    let is_it = |problem: &StoreError| matches!(problem, StoreError::SecondFolder { slot: of, .. } if *of == slot);
                    self.cores.report.problems.retain(|problem| !is_it(problem));
                    self.cores.report.note_problem(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds to `joined` what was taken in of the folder, also if not all of it could be.
    fn join_spare_folder(&mut self, id: FeedId, slot: Slot, joined: &mut Vec<Range<u64>>) -> Result<(), StoreError> {
        let secret = FileId::new(slot, FileKind::SecretKey);
        let secret = self.cores.storage.len(secret).map_err(|error| StoreError::from_file(secret, "look at", error))?;
        let mut opening = Opening::new(&self.limits, &self.cores.signers);
        let mut copy = Feed::open_known(&mut self.cores.storage, slot, &self.cores.journal, &mut opening)?;
        let feed = &mut self.feeds[id.0 as usize].feed;
        let (key, first) = (feed.key(), feed.slot());
        if copy.key() != key || first == slot {
            return Err(StoreError::Occupied { slot });
        }
        let two = |what| StoreError::SecondFolder { slot, first, key, what };
        if secret.is_some() || copy.writable() || self.cores.report.lost_key(feed) || self.cores.report.lost_key(&copy)
        {
            return Err(two(TWO_KEYS));
        }
        let is_more = copy.len() > feed.len() || !feed.holds_all_of(&copy);
        if is_more && !self.sessions.is_empty() {
            return Err(two(IN_SESSION));
        }
        let related = feed.relate(&mut self.cores.storage, &mut copy);
        if !matches!(related, Ok(Relation::Same)) {
            return Err(self.why_apart(id, (slot, first), related));
        }
        let runs = self.take_in(id, &mut copy)?;
        for run in runs {
            self.feeds[id.0 as usize].unannounced.push((run.clone(), None));
            self.mark_dirty(id);
            self.gained(id, run.clone(), None);
            joined.push(run);
        }
        self.check_all_taken(id, &copy)?;
        self.remove_copy(slot, &key, first)?;
        self.cores.report.forget(slot);
        Ok(())
    }

    /// The feed of an id is in this folder.
    fn put_in_place(&mut self, id: FeedId, feed: Feed) -> Result<(), StoreError> {
        let key = feed.key();
        let is_new = self.members.catalog.at(feed.slot()) != Some(id);
        if is_new {
            self.cores.report.recovered.extend(feed.recovered().cloned());
            self.cores.look_at_permissions(&feed)?;
        }
        *self.feeds[id.0 as usize] = FeedSlot::new(feed);
        self.members.catalog.remove(id, &key);
        self.index(id);
        self.adopt(id);
        Ok(())
    }

    /// Takes a copy's blocks into the feed, for good. Returns which.
    fn take_in(&mut self, id: FeedId, copy: &mut Feed) -> Result<Vec<Range<u64>>, StoreError> {
        self.begin(true)?;
        let feed = &mut self.feeds[id.0 as usize].feed;
        let taken = feed.take_in(&mut self.cores.storage, copy)?;
        feed.sync(&mut self.cores.storage)?;
        self.cores.journal.note(feed.slot(), feed.mark(true));
        self.cores.journal.write(&mut self.cores.storage, true)?;
        self.cores.unsynced.remove(&id);
        Ok(taken)
    }

    /// That every block of a copy is in the feed. What is damaged, or too large to be proven, may be of use to somebody.
    fn check_all_taken(&self, id: FeedId, copy: &Feed) -> Result<(), StoreError> {
        let feed = &self.feeds[id.0 as usize].feed;
        if feed.holds_all_of(copy) {
            return Ok(());
        }
        Err(StoreError::SecondFolder { slot: copy.slot(), first: feed.slot(), key: feed.key(), what: UNPROVEN })
    }

    /// Removes the folder of a copy; the writer's is another one.
    fn remove_copy(&mut self, slot: Slot, key: &FeedKey, writer: Slot) -> Result<(), StoreError> {
        self.cores.storage.check_removable(slot).map_err(|error| StoreError::from_slot(slot, "remove", error))?;
        let mut slot = slot;
        if self.last_folder()?.is_some_and(|(last, _)| last == writer) {
            // The folder that takes the number must not have the key of the one that goes: after a crash nobody could tell which it is.
            let to = Slot(self.members.catalog.end());
            if to == Slot::NOWHERE {
                return Err(StoreError::TooManyFeeds { max: u32::MAX as usize });
            }
            self.cores.storage.rename(slot, to).map_err(|error| StoreError::from_slot(slot, "rename", error))?;
            self.cores.journal.forget(slot);
            self.members.catalog.release(slot);
            self.members.catalog.occupy(to);
            slot = to;
        }
        let last = self.last_folder()?.filter(|(last, _)| *last != slot);
        self.cores.journal.begin_removal(&mut self.cores.storage, Removal::new(slot, key, last))?;
        self.resume_removal()
    }
}
