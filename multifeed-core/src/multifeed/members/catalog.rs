//! Which feed has which key, name and folder.

use std::collections::{BTreeMap, BTreeSet};

use multifeed_proto::FeedKey;

use super::unopened::Unopened;
use crate::error::StoreError;
use crate::ids::FeedId;
use crate::storage::Slot;

/// The index of the set of feeds.
#[derive(Debug, Default)]
pub(in crate::multifeed) struct Catalog {
    by_key: BTreeMap<FeedKey, FeedId>,
    by_slot: BTreeMap<Slot, FeedId>,
    /// Those that are written here.
    ours: BTreeSet<FeedId>,
    /// Those that have a name of their own, writers nearly all.
    names: BTreeMap<String, FeedId>,
    /// Feeds that remotes are asked for, and of which nothing came: they have no folder, and nobody sees them.
    offered: BTreeMap<FeedKey, FeedId>,
    /// The folders with a key, whether they could be opened or not.
    taken: BTreeSet<Slot>,
    /// Those of them that hold no feed which is open.
    pub(super) unopened: Unopened,
    /// The least number of none of them.
    first_free: u32,
    /// A number past those of all folders.
    end: u32,
    /// Writers whose folders could not be opened: another one must not take their name.
    pub(in crate::multifeed) lost: BTreeMap<String, StoreError>,
    /// Why names of folders could not be read.
    unread: Vec<StoreError>,
    /// Names that a new writer may have, though a missing one has or may have them.
    released: BTreeSet<String>,
}

impl Catalog {
    pub(in crate::multifeed) fn find(&self, key: &FeedKey) -> Option<FeedId> {
        self.by_key.get(key).copied()
    }

    /// The feeds, in the order of their folders.
    pub(in crate::multifeed) fn feeds(&self) -> impl Iterator<Item = FeedId> + '_ {
        self.by_slot.values().copied()
    }

    /// How many feeds there are that are not written here.
    pub(in crate::multifeed) fn others(&self) -> usize {
        self.by_slot.len().saturating_sub(self.ours.len())
    }

    /// Notes that a feed is written here.
    pub(in crate::multifeed) fn own(&mut self, id: FeedId) {
        self.ours.insert(id);
    }

    /// The feed that has that name of its own.
    pub(in crate::multifeed) fn named(&self, name: &str) -> Option<FeedId> {
        self.names.get(name).copied()
    }

    /// Whether a feed has that name of its own, or one has it that could not be opened.
    pub(in crate::multifeed) fn has_name(&self, name: &str) -> bool {
        self.names.contains_key(name) || self.lost.contains_key(name)
    }

    /// Notes that a folder which could not be opened holds the writer of that name.
    pub(in crate::multifeed) fn lose_writer(&mut self, name: String, why: StoreError) {
        self.lost.insert(name, why);
    }

    /// Notes that the name in a folder could not be read.
    pub(in crate::multifeed) fn lose_name(&mut self, why: StoreError) {
        self.unread.push(why);
    }

    /// Returns why the writer of that name could not be opened, if it is there and could not. A name that could not be read may be any.
    pub(in crate::multifeed) fn lost_writer(&self, name: &str) -> Option<&StoreError> {
        let released = self.released.contains(name);
        self.lost.get(name).or_else(|| self.unread.iter().find(|why| !(released && why.is_of_the_missing())))
    }

    /// Gives a missing writer's name free. False if none is missing that has, or may have, that name.
    pub(in crate::multifeed) fn release_name(&mut self, name: &str) -> bool {
        if self.names.contains_key(name) || !self.lost_writer(name).is_some_and(StoreError::is_of_the_missing) {
            return false;
        }
        self.lost.remove(name);
        self.released.insert(name.to_owned());
        true
    }

    /// Whether a new writer may have a name that a missing one has or may have.
    pub(in crate::multifeed) fn is_released(&self, name: &str) -> bool {
        self.released.contains(name)
    }

    /// Forgets a missing writer.
    pub(in crate::multifeed) fn forget_missing(&mut self, key: &FeedKey) {
        self.lost
            .retain(|_, why| !matches!(why, StoreError::MissingWriter { key: Some(missing), .. } if missing == key));
    }

    /// The folder for the next feed: JS wants no gaps.
    pub(in crate::multifeed) fn next_slot(&self) -> Slot {
        Slot(self.first_free)
    }

    /// A number past those of all folders.
    pub(in crate::multifeed) fn end(&self) -> u32 {
        self.end
    }

    /// Returns the first number that no feed has, if a later one has one: JS would not find that.
    pub(in crate::multifeed) fn gap(&self) -> Option<Slot> {
        let free = Slot(self.first_free);
        self.taken.last().is_some_and(|last| *last > free).then_some(free)
    }

    /// A name made of a key that nobody has.
    pub(in crate::multifeed) fn key_name(&self, key: &FeedKey) -> String {
        let mut name = key.to_string();
        while self.has_name(&name) {
            name.push('.');
        }
        name
    }

    /// Notes that there is a folder, whatever it holds.
    pub(in crate::multifeed) fn see(&mut self, slot: Slot) {
        self.end = self.end.max(slot.0.saturating_add(1));
    }

    /// Notes that a folder holds a feed, whether that can be opened or not.
    pub(in crate::multifeed) fn occupy(&mut self, slot: Slot) {
        self.see(slot);
        self.taken.insert(slot);
        self.mind_unopened(slot);
        while self.taken.contains(&Slot(self.first_free)) {
            self.first_free += 1;
        }
    }

    /// Whether a folder holds a feed, whether that can be opened or not.
    pub(in crate::multifeed) fn is_taken(&self, slot: Slot) -> bool {
        self.taken.contains(&slot)
    }

    fn mind_unopened(&mut self, slot: Slot) {
        match self.taken.contains(&slot) && !self.by_slot.contains_key(&slot) {
            true => self.unopened.note(slot),
            false => self.unopened.forget(slot),
        }
    }

    /// Notes that a folder holds no feed any more.
    pub(in crate::multifeed) fn release(&mut self, slot: Slot) {
        self.unopened.forget(slot);
        if self.taken.remove(&slot) {
            self.first_free = self.first_free.min(slot.0);
        }
    }

    /// Forgets a feed.
    pub(in crate::multifeed) fn remove(&mut self, id: FeedId, key: &FeedKey) {
        self.by_key.remove(key);
        self.ours.remove(&id);
        let its = |(&slot, &feed): (&Slot, &FeedId)| (feed == id).then_some(slot);
        for slot in self.by_slot.iter().filter_map(its).collect::<Vec<_>>() {
            self.by_slot.remove(&slot);
            self.mind_unopened(slot);
        }
        self.names.retain(|_, named| *named != id);
    }

    /// The feed in a folder.
    pub(in crate::multifeed) fn at(&self, slot: Slot) -> Option<FeedId> {
        self.by_slot.get(&slot).copied()
    }

    /// A feed's folder has another number now.
    pub(in crate::multifeed) fn renumber(&mut self, id: FeedId, from: Slot, to: Slot) {
        self.by_slot.remove(&from);
        self.by_slot.insert(to, id);
        self.mind_unopened(from);
        self.mind_unopened(to);
    }

    /// A feed has another name now.
    pub(in crate::multifeed) fn rename(&mut self, id: FeedId, old: &str, new: &str) {
        if self.names.get(old) == Some(&id) {
            self.names.remove(old);
        }
        self.names.entry(new.to_owned()).or_insert(id);
    }

    /// A folder that could not be opened has another number now.
    pub(in crate::multifeed) fn renumber_lost(&mut self, from: Slot, to: Slot) {
        self.lost.values_mut().chain(&mut self.unread).for_each(|why| why.renumber(from, to));
    }

    /// A writer that could not be opened has another name now.
    pub(in crate::multifeed) fn rename_lost(&mut self, slot: Slot, old: &str, new: &str) {
        if self.lost.get(old).is_some_and(|why| why.slot() == Some(slot))
            && let Some(why) = self.lost.remove(old)
        {
            self.lost.insert(new.to_owned(), why);
        }
    }

    /// A folder is gone, and the name in it is free.
    pub(in crate::multifeed) fn forget_lost(&mut self, slot: Slot) {
        self.lost.retain(|_, why| why.slot() != Some(slot));
        self.unread.retain(|why| why.slot() != Some(slot));
    }

    /// Adds a feed, with the name of its own that it has. Of two with one name the first has it.
    pub(in crate::multifeed) fn insert(&mut self, id: FeedId, key: FeedKey, slot: Slot, name: Option<&str>) {
        self.offered.remove(&key);
        self.by_key.insert(key, id);
        self.by_slot.insert(slot, id);
        self.mind_unopened(slot);
        if let Some(name) = name {
            self.names.entry(name.to_owned()).or_insert(id);
        }
    }

    /// The feed of a key that remotes are asked for and of which nothing came.
    pub(in crate::multifeed) fn offered(&self, key: &FeedKey) -> Option<FeedId> {
        self.offered.get(key).copied()
    }

    /// Adds a feed that remotes are asked for.
    pub(in crate::multifeed) fn offer(&mut self, id: FeedId, key: FeedKey) {
        self.offered.insert(key, id);
    }

    /// Nobody is asked for a feed any more.
    pub(in crate::multifeed) fn withdraw(&mut self, key: &FeedKey) {
        self.offered.remove(key);
    }
}
