//! A folder of a writer that comes into a store which has fetched its feed: as when a disk is there again, or a folder is copied from another
//! device.
//!
//! There is one feed of a key. The writer's folder becomes it if the histories are one. What the fetched copy has beyond it is taken in, each
//! block proven and all of it fsynced. Then the copy's folder is removed as any feed's is. Each step can be cut short: the next opening finds
//! two folders again, or one.

use multifeed_proto::FeedKey;

use crate::cores::journal::Removal;
use crate::error::StoreError;
use crate::feed::{Feed, Recovered, Relation};
use crate::ids::FeedId;
use crate::multifeed::{FeedSlot, Multifeed};
use crate::storage::{FileKind, Slot, Storage};

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
        let occupied = StoreError::SecondFolder { slot: double.slot(), first: first.slot(), key };
        let double_writes = match (first.writable(), double.writable()) {
            (false, false) => return Err(occupied),
            (true, true) => double.len() > first.len(),
            (_, writes) => writes,
        };
        let first = std::mem::replace(first, Feed::gone(key, String::new()));
        let (mut writer, mut copy) = if double_writes { (double, first) } else { (first, double) };
        let before = writer.len();
        let related = writer.relate(&mut self.cores.storage, &mut copy);
        if !matches!(related, Ok(Relation::Same)) {
            let (first, double) = if double_writes { (copy, writer) } else { (writer, copy) };
            self.feeds[id.0 as usize].feed = first;
            return Err(match related {
                Ok(Relation::Two(conflict)) => {
                    self.note_conflict(id, &conflict);
                    let why = "they are of another history than those of the same feed in another folder: its writer signed two; \
                               nothing was changed";
                    StoreError::damaged(double.slot(), FileKind::Signatures, why)
                }
                Ok(_) => occupied,
                Err(error) => error,
            });
        }
        self.put_in_place(id, writer)?;
        if copy.writable() {
            // Somebody's only key may be in it.
            return Err(StoreError::SecondFolder { slot: copy.slot(), first: self.slot(id).feed.slot(), key });
        }
        let taken = self.take_in(id, &mut copy)?;
        let feed = &self.slot(id).feed;
        let mut recovered = Recovered::new(key, feed.slot());
        (recovered.marked_length, recovered.length) = (before, feed.len());
        (recovered.blocks_regained, recovered.copy) = (taken, Some(copy.slot()));
        self.remove_copy(copy.slot(), &key, feed.slot())?;
        self.cores.report.recovered.push(recovered);
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

    /// Takes a copy's blocks into the writer's feed, for good.
    fn take_in(&mut self, id: FeedId, copy: &mut Feed) -> Result<u64, StoreError> {
        self.begin(true)?;
        let feed = &mut self.feeds[id.0 as usize].feed;
        let taken = feed.take_in(&mut self.cores.storage, copy)?;
        if !feed.holds_all_of(copy) {
            // What is damaged, or too large to be proven, may be of use to somebody.
            return Err(StoreError::SecondFolder { slot: copy.slot(), first: feed.slot(), key: feed.key() });
        }
        feed.sync(&mut self.cores.storage)?;
        self.cores.journal.note(feed.slot(), feed.mark(true));
        self.cores.journal.write(&mut self.cores.storage, true)?;
        self.cores.unsynced.remove(&id);
        let slot = FeedSlot::new(std::mem::replace(
            &mut self.feeds[id.0 as usize].feed,
            Feed::gone(copy.key(), String::new()),
        ));
        *self.feeds[id.0 as usize] = slot;
        self.adopt(id);
        Ok(taken)
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
