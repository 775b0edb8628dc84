//! Multifeeds of a corestore: each a set of feeds, with a list in the corestore that JS and ours read and append to.
//!
//! The list is a feed that is written here ([`FeedList`]). It is in no set, and no session hears of it; what holds for the feeds of writers holds
//! for it: the journal, recovery, and when it is fsynced.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use multifeed_proto::FeedKey;

use super::cores::{CoreName, unnamed};
use super::rearranged::Rearranged;
use crate::KeyPair;
use crate::cores::journal::name;
use crate::cores::journal::numbers::REMOVED;
use crate::corestore::{FeedList, Namespace};
use crate::error::{AppendError, StoreError};
use crate::feed::Feed;
use crate::ids::{FeedId, SessionId, SetId};
use crate::keys::signer::WriterKey;
use crate::multifeed::Multifeed;
use crate::storage::{Slot, Storage};

/// The multifeeds that are open, by their sets.
#[derive(Debug, Default)]
pub(in crate::multifeed) struct Lists {
    lists: BTreeMap<SetId, List>,
    /// Those with feeds that are not in their lists on the disk.
    pending: BTreeSet<SetId>,
}

/// One multifeed.
#[derive(Debug)]
pub(super) struct List {
    base: Namespace,
    root_key: FeedKey,
    /// The core of the list.
    pub(super) pair: KeyPair,
    /// `None` as long as the corestore has no such core.
    pub(super) feed: Option<FeedId>,
    pub(super) list: FeedList,
    /// Not all of it is here: nothing is appended to it, and it is not made anew unless that is asked for.
    pub(super) lost: Option<StoreError>,
    /// Feeds to append to the list.
    pub(super) new: Vec<FeedKey>,
    /// Feeds that may count as taken out still.
    back: Vec<FeedKey>,
}

impl List {
    /// The blocks that list these feeds.
    pub(super) fn entries(&self, feeds: &[FeedKey]) -> Vec<Bytes> {
        feeds.iter().map(|key| FeedList::entry(key, self.list.name_of(key).unwrap_or_default())).collect()
    }

    /// The block that lists a feed, of a list with so many, or one that comes after it; past the end if the list is still to have it.
    fn entry_at_most(&self, feed: &FeedKey, blocks: u64) -> Option<u64> {
        let listed = self.list.feeds().len().saturating_sub(self.new.len());
        let at = self.list.position(feed)?;
        Some(
            listed
                .checked_sub(at)
                .filter(|after| *after > 0)
                .map_or(blocks, |after| blocks.saturating_sub(after as u64)),
        )
    }

    /// The name of a writer's core, and the key pair that is derived from it.
    fn derive(&self, storage: &impl Storage, writer: Option<&str>) -> Option<(Vec<u8>, KeyPair)> {
        let name = FeedList::writer_namespace_in(&self.base, &self.root_key, writer);
        let name = name.default_name().as_bytes().to_vec();
        let pair = storage.key_pair(&name)?;
        Some((name, pair))
    }

    /// The name of the core of a feed that it lists, if that is a writer's here, and the key pair.
    fn derive_listed(&self, storage: &impl Storage, key: &FeedKey) -> Option<(Vec<u8>, KeyPair)> {
        // JS has no name for the one without, and lists it by a number.
        let derived = [self.list.name_of(key), None].map(|writer| self.derive(storage, writer));
        derived.into_iter().flatten().find(|(_, pair)| pair.public_key() == *key)
    }

    /// How the names of its writers' cores begin.
    pub(super) fn writers_namespace(&self) -> String {
        FeedList::writer_namespace_in(&self.base, &self.root_key, Some("")).default_name().to_owned()
    }
}

impl Lists {
    /// Whether any multifeed is open.
    pub(in crate::multifeed) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// A feed is in a set now: if that is a multifeed, its list has to have it. False if the list is lost, and it is there only as long as that is open.
    pub(in crate::multifeed) fn include(&mut self, set: SetId, key: FeedKey, name: Option<&str>) -> bool {
        let Some(list) = self.lists.get_mut(&set) else { return true };
        if !list.list.has(&key) {
            if list.lost.is_some() {
                // Any number may be another feed's name.
                list.list.add_new(key, Some(name.unwrap_or(&key.to_string())));
                return false;
            }
            list.list.add_new(key, name);
            list.new.push(key);
        }
        // Also one that is new in the list: a power cut may have taken its entry, and not what takes it out.
        list.back.push(key);
        self.pending.insert(set);
        true
    }

    /// Fails if a feed is new to a list that cannot be appended to.
    pub(in crate::multifeed) fn check_new(&self, set: SetId, key: &FeedKey) -> Result<(), StoreError> {
        let list = self.lists.get(&set).filter(|list| !list.list.has(key));
        list.and_then(|list| list.lost.clone()).map_or(Ok(()), Err)
    }

    /// Whether all feeds of a set are known: not if its list is lost, or a block of it is damaged.
    pub(super) fn is_whole(&self, set: SetId) -> bool {
        self.lists.get(&set).is_none_or(|list| list.lost.is_none() && list.list.problems().is_empty())
    }

    /// The multifeed whose list this core is.
    pub(in crate::multifeed) fn find(&self, key: &FeedKey) -> Option<SetId> {
        self.lists.iter().find(|(_, list)| list.pair.public_key() == *key).map(|(set, _)| *set)
    }

    pub(super) fn get(&self, set: SetId) -> Result<&List, StoreError> {
        self.lists.get(&set).ok_or(StoreError::NotCorestore)
    }

    pub(super) fn get_mut(&mut self, set: SetId) -> Option<&mut List> {
        self.lists.get_mut(&set)
    }

    /// The name of a writer's core that is listed.
    pub(super) fn core_name(&self, storage: &impl Storage, key: &FeedKey) -> Option<Vec<u8>> {
        self.lists.values().find_map(|list| list.derive_listed(storage, key)).map(|(name, _)| name)
    }

    /// The name of a feed in the first list that has it.
    pub(super) fn name_of(&self, key: &FeedKey) -> Option<&str> {
        self.lists.values().find_map(|list| list.list.name_of(key))
    }

    /// The feeds that are lists.
    pub(in crate::multifeed) fn feeds(&self) -> impl Iterator<Item = FeedId> {
        self.lists.values().filter_map(|list| list.feed)
    }

    /// The lists that have a feed.
    fn having(&self, key: &FeedKey) -> Vec<FeedKey> {
        self.lists.values().filter(|list| list.list.has(key)).map(|list| list.pair.public_key()).collect()
    }
}

impl<S: Storage> Multifeed<S> {
    /// Opens the multifeed of a root key in a corestore ([`Corestore::into_multifeeds`](crate::Corestore::into_multifeeds)), or in a namespace of
    /// one, with the feeds that its list has. It is a set of feeds, whose sessions are those with
    /// [`Replicate::set`](crate::Replicate::set). What is in the set, by [`include`](Self::include) or because a session brought it, is in
    /// the list from the next [`commit`](Self::commit) on. Nothing is made on the disk before there is a feed.
    ///
    /// A feed whose core cannot be opened is among the [problems](Self::problems), and so is one that was written here if its core is gone or is an older
    /// copy. Any other that is not on the disk is fetched once it is offered.
    ///
    /// # Errors
    /// - [`StoreError::NotCorestore`];
    /// - [`CorestoreError::MasterKeyMismatch`](crate::CorestoreError::MasterKeyMismatch) if there is no list, and the cores are those of another
    ///   master key;
    /// - an error if the list itself cannot be opened or read, or has more feeds than [`Limits::feeds`](crate::Limits::feeds).
    pub fn open_root(&mut self, base: &Namespace, root_key: &FeedKey) -> Result<SetId, StoreError> {
        let name = FeedList::list_namespace_in(base, root_key);
        let name = name.default_name().as_bytes();
        let pair = self.cores.storage.key_pair(name).ok_or(StoreError::NotCorestore)?;
        let key = pair.public_key();
        if let Some(set) = self.members.sets.lists.find(&key) {
            return Ok(set);
        }
        self.members.banned.hide(key);
        let feed = self.open_core_named(&key, CoreName::OfList(name))?;
        if feed.is_none() {
            self.cores.storage.check_master_key()?;
        }
        let mut list = FeedList::default();
        if let Some(id) = feed {
            self.keep_to_itself(id);
            self.read_list(id, &mut list)?;
        }
        let lost = self.lost_list(&key, feed);
        let set = self.add_set();
        let (base, root_key, feeds) = (base.clone(), *root_key, list.feeds().to_vec());
        let damaged: Vec<_> = list.problems().iter().cloned().map(StoreError::from).collect();
        let list = List { base, root_key, pair, feed, list, lost: lost.clone(), new: Vec::new(), back: Vec::new() };
        self.members.sets.lists.lists.insert(set, list);
        for feed in &feeds {
            if self.members.removed.contains(&key, &feed.key) {
                continue;
            }
            match self.open_core(&feed.key) {
                Ok(Some(id)) => {
                    let feeds = self.members.sets.get_mut(set);
                    feeds.into_iter().for_each(|feeds| _ = feeds.insert(u64::from(id.0)));
                }
                Ok(None) => match self.cores.missing_core(&feed.key, Some(&feed.name)) {
                    Some(missing) => self.cores.report.note_problem(missing),
                    None => self.look_for_gone_core(&feed.key),
                },
                Err(error) => self.cores.report.problems.push(error),
            }
        }
        lost.into_iter().for_each(|lost| self.cores.report.note_problem(lost));
        let opened = feeds.iter().filter_map(|feed| self.members.catalog.find(&feed.key));
        let older: Vec<_> = opened.filter_map(|id| self.slot(id).feed.older_copy()).collect();
        older.into_iter().for_each(|older| self.cores.report.note_problem(older));
        self.cores.report.problems.extend(damaged);
        self.cores.storage.opened();
        Ok(set)
    }

    /// Reads a list from its core. A block that is damaged hides no other.
    pub(in crate::multifeed) fn read_list(&mut self, id: FeedId, list: &mut FeedList) -> Result<(), StoreError> {
        let core = self.slot(id).feed.discovery_key();
        for index in 0..self.slot(id).feed.len() {
            let block = match self.get(id, index) {
                Err(error) if !error.is_of_one_place() => return Err(error),
                block => block,
            };
            let block = block.as_ref().map(|block| block.as_deref());
            list.read_block(block, core, &self.limits)?;
        }
        Ok(())
    }

    /// The error for a list of which less is here than was written, by what the journal knows.
    fn lost_list(&self, key: &FeedKey, feed: Option<FeedId>) -> Option<StoreError> {
        let known = self.cores.journal.signed(key).filter(|(slot, _)| *slot < REMOVED).map(|(_, mark)| mark.length);
        let (held, known) = match feed.map(|id| &self.slot(id).feed) {
            None => (None, known?),
            Some(feed) => (Some(feed.len()), feed.most_signed()?),
        };
        Some(StoreError::ListLost { key: *key, held, known })
    }

    /// A writer of a session's multifeed that is not here, as it was removed or its core is gone. It is here again as an older copy of it would be,
    /// and the session brings what it signed. `None` if the key is that of no such writer.
    pub(in crate::multifeed) fn take_back_writer(
        &mut self,
        session: SessionId,
        key: &FeedKey,
    ) -> Result<Option<FeedId>, StoreError> {
        let set = self.set_of(session).unwrap_or_default();
        let Ok(list) = self.members.sets.lists.get(set) else { return Ok(None) };
        if self.cores.journal.signed(key).is_none() {
            return Ok(None);
        }
        let Some((core_name, pair)) = list.derive_listed(&self.cores.storage, key) else { return Ok(None) };
        let id = self.create(*key, Some(WriterKey::Here(pair)), Some(&core_name), None)?;
        self.include_in(set, id, Some(session));
        Ok(Some(id))
    }

    /// Reports the core of a feed that was fetched and is gone, once, and forgets what is known of it: it comes again like any other.
    fn look_for_gone_core(&mut self, key: &FeedKey) {
        let slot = self.cores.journal.slot_of(&name(key));
        let known = slot.and_then(|slot| Some((slot, self.cores.journal.mark(slot, key)?.length)));
        if let Some((slot, blocks)) = known.filter(|(_, blocks)| *blocks > 0) {
            self.members.rearranged.push(Rearranged::CoreGone { key: *key, blocks });
            self.cores.journal.forget(slot);
        }
    }

    /// Returns the root key of a multifeed of a corestore.
    pub fn root_key_of(&self, set: SetId) -> Option<FeedKey> {
        Some(self.members.sets.lists.lists.get(&set)?.root_key)
    }

    /// Returns the feed of a local writer of a multifeed of a corestore, found or made. Its key is derived from the master key, the root key and
    /// the name, as JS derives it. Without a name it is JS's one writer without one.
    ///
    /// It is in the multifeed's list when this returns.
    ///
    /// # Errors
    /// - [`StoreError::NotCorestore`] if the set is no multifeed of a corestore;
    /// - [`StoreError::BadName`], [`StoreError::Banned`];
    /// - [`StoreError::NameTaken`] if the name is that of a feed that is not written here;
    /// - [`StoreError::CoreMissing`] if the core was here and is gone, as a new one would be a second history;
    /// - [`StoreError::ListLost`] if the writer is new and the list cannot be appended to;
    /// - else the storage's error.
    pub fn writer_in(&mut self, set: SetId, name: Option<&str>) -> Result<FeedId, StoreError> {
        let list = self.members.sets.lists.get(set)?;
        if let Some(name) = name.filter(|name| name.is_empty() || name.len() > self.limits.name_bytes) {
            return Err(StoreError::BadName { size: name.len(), max: self.limits.name_bytes });
        }
        let named = name.and_then(|name| list.list.find_name(name)).and_then(|feed| self.find(&feed.key));
        let (core_name, pair) = self.derive_writer(set, name)?;
        let key = pair.public_key();
        if let Some(id) = named.filter(|id| self.is_in(set, *id)) {
            let feed = &self.slot(id).feed;
            if feed.writable() {
                return Ok(id);
            }
            if feed.key() != key {
                let name = name.unwrap_or("undefined").to_owned();
                return Err(StoreError::NameTaken { name, slot: feed.slot() });
            }
        }
        if self.open_core(&key)?.is_none() {
            self.members.sets.lists.check_new(set, &key)?;
        }
        let id = self.derived_core(&pair, Some(&core_name), name)?;
        if !self.slot(id).feed.writable() {
            return Err(unnamed(self.slot(id).feed.slot(), false));
        }
        if !self.is_in(set, id) {
            self.members.sets.lists.include(set, key, name);
            self.include_in(set, id, None);
        }
        self.write_lists().map(|()| id)
    }

    /// Returns the key that a new writer of this name has in a multifeed of a corestore.
    ///
    /// # Errors
    /// [`StoreError::NotCorestore`] if the set is no multifeed of a corestore.
    pub fn writer_key_in(&self, set: SetId, name: Option<&str>) -> Result<FeedKey, StoreError> {
        self.derive_writer(set, name).map(|(_, pair)| pair.public_key())
    }

    fn derive_writer(&self, set: SetId, name: Option<&str>) -> Result<(Vec<u8>, KeyPair), StoreError> {
        let list = self.members.sets.lists.get(set)?;
        list.derive(&self.cores.storage, name).ok_or(StoreError::NotCorestore)
    }

    /// Returns the name of a feed in a multifeed of a corestore: its writer's. For a feed of somebody else's it is the number of feeds that were
    /// in the list before it (its key, if that number is a feed's name). Of a plain core what it was asked for by.
    pub fn name_in(&self, set: SetId, id: FeedId) -> Option<&str> {
        if let Some(name) = self.members.sets.plain.name_in(set, id) {
            return Some(name);
        }
        let list = self.members.sets.lists.lists.get(&set)?;
        list.list.name_of(&self.entry(id)?.feed.key()).filter(|_| self.is_in(set, id))
    }

    /// Returns the feed of a name in a multifeed of a corestore; of two with one name the later one, as in JS.
    pub fn find_name_in(&self, set: SetId, name: &str) -> Option<FeedId> {
        let list = self.members.sets.lists.lists.get(&set)?;
        self.find(&list.list.find_name(name)?.key).filter(|id| self.is_in(set, *id))
    }

    /// Takes a feed out of a multifeed of a corestore, for good: it is not in it when that is opened again. Its core stays in the corestore, for
    /// other multifeeds. Sessions of the set close its channel. False if it was not in it.
    ///
    /// The list of feeds keeps it, as nothing is ever taken out of that: `multifeed.removed` has it beside the cores. JS, which does not look there,
    /// has the feed again. A remote that offers it brings it back, unless it is [banned](Self::ban).
    ///
    /// # Errors
    /// [`StoreError::NotCorestore`] if the set is no multifeed of a corestore, or the storage's error; it is in it then as before.
    pub fn take_out_of(&mut self, set: SetId, id: FeedId) -> Result<bool, StoreError> {
        let key = self.live(id)?.key();
        let list = self.members.sets.lists.get(set)?.pair.public_key();
        if !self.is_in(set, id) {
            return Ok(false);
        }
        self.members.removed.add(&mut self.cores.storage, &self.limits, &[list], key, false)?;
        let lists = &mut self.members.sets.lists.lists;
        lists.get_mut(&set).into_iter().for_each(|list| list.back.retain(|back| *back != key));
        self.exclude(set, id)
    }

    /// Removes the core of a feed from the corestore, and the feed from all multifeeds that are open.
    pub(in crate::multifeed) fn take_out_core(&mut self, id: FeedId) -> Result<(), StoreError> {
        let feed = self.live(id)?;
        let (slot, key) = (feed.slot(), feed.key());
        let lists = self.members.sets.lists.having(&key);
        self.begin(true)?;
        self.members.removed.add(&mut self.cores.storage, &self.limits, &lists, key, true)?;
        self.leave_sessions(id);
        self.forget_feed(id);
        self.remove_core(slot, &key)
    }

    fn remove_core(&mut self, slot: Slot, key: &FeedKey) -> Result<(), StoreError> {
        self.cores.storage.remove(slot).map_err(|error| StoreError::from_slot(slot, "remove", error))?;
        self.cores.storage.release(slot);
        self.members.catalog.release(slot);
        if self.cores.journal.has_mark(slot) {
            self.cores.journal.forget(slot);
            self.cores.journal.write(&mut self.cores.storage, true)?;
        }
        self.members.removed.gone(&mut self.cores.storage, key)
    }

    /// The ban of a feed is about to be lifted. If it is a writer that was removed, the multifeeds that list it have it again, once its core is there.
    /// Returns those that are open. One that was only taken out stays out.
    pub(in crate::multifeed) fn list_again(&mut self, key: &FeedKey) -> Result<Vec<SetId>, StoreError> {
        let mut sets = Vec::new();
        if self.cores.journal.signed(key).is_some_and(|(slot, _)| slot >= REMOVED) {
            for list in self.members.removed.lists_of(key) {
                self.members.removed.take_back(&mut self.cores.storage, list, std::iter::once(*key))?;
                sets.extend(self.members.sets.lists.find(&list));
            }
        }
        Ok(sets)
    }

    /// A feed of a multifeed that is open may be there again, as its folder was put back.
    pub(in crate::multifeed) fn open_again(&mut self, set: SetId, key: &FeedKey) {
        match self.open_core(key) {
            Ok(Some(id)) => _ = self.include_in(set, id, None),
            Ok(None) => {}
            Err(error) => self.cores.report.note_problem(error),
        }
    }

    /// After opening: does what is left of removals that were cut short.
    pub(in crate::multifeed) fn finish_removals(&mut self) {
        for key in self.members.removed.going() {
            let removed = self.number_for(&key).and_then(|slot| {
                self.cores.storage.assign(slot, &key, None)?;
                self.begin(true)?;
                self.remove_core(slot, &key)
            });
            if let Err(error) = removed {
                self.cores.report.add_of_order(error);
            }
        }
    }

    /// Whether a remote may bring a feed into a set: not one that is written here and not listed, as that may be of another multifeed of the
    /// corestore.
    pub(in crate::multifeed) fn may_be_brought(&self, set: SetId, feed: FeedId) -> bool {
        let (sets, feed_here) = (&self.members.sets, &self.slot(feed).feed);
        let is_listed = || sets.lists.lists.get(&set).is_some_and(|list| list.list.has(&feed_here.key()));
        sets.lists.is_empty() || sets.contains(set, feed) || !feed_here.writable() || is_listed()
    }

    /// The feed of a list is no remote's business.
    pub(super) fn keep_to_itself(&mut self, id: FeedId) {
        self.members.sets.own(id);
        // Nobody waits for what is new in it.
        self.feeds[id.0 as usize].reported = true;
    }

    /// Why the entry of a feed could not be fsynced: nobody would find the feed after a power cut, also if it is fsynced itself.
    pub(in crate::multifeed) fn listing_failure(&self, id: FeedId) -> Option<StoreError> {
        let key = self.slot(id).feed.key();
        self.members.sets.lists.lists.values().filter(|list| list.lost.is_none()).find_map(|list| {
            let feed = list.feed?;
            let failure = self.sync_error(feed)?;
            let at = list.entry_at_most(&key, self.slot(feed).feed.len())?;
            (at >= self.synced_len(feed)).then(|| failure.clone())
        })
    }

    /// Whether there are feeds that the lists on the disk do not have.
    pub(in crate::multifeed) fn has_unlisted(&self) -> bool {
        !self.members.sets.lists.pending.is_empty()
    }

    /// Appends new feeds to the lists of their multifeeds. What fails is tried again by the next commit.
    pub(in crate::multifeed) fn write_lists(&mut self) -> Result<(), StoreError> {
        let mut result = Ok(());
        for set in self.members.sets.lists.pending.iter().copied().collect::<Vec<_>>() {
            let written = self.write_list(set);
            if written.is_ok() {
                self.members.sets.lists.pending.remove(&set);
            }
            result = result.and(written);
        }
        result
    }

    fn write_list(&mut self, set: SetId) -> Result<(), StoreError> {
        let Some(list) = self.members.sets.lists.lists.get_mut(&set) else { return Ok(()) };
        let back = list.back.iter().copied();
        self.members.removed.take_back(&mut self.cores.storage, list.pair.public_key(), back)?;
        list.back.clear();
        if list.new.is_empty() {
            return Ok(());
        }
        let entries = list.entries(&list.new);
        let id = match list.feed {
            Some(id) => id,
            None => self.make_list(set)?,
        };
        self.append_entries(id, &entries)?;
        let lists = &mut self.members.sets.lists.lists;
        lists.get_mut(&set).into_iter().for_each(|list| list.new.clear());
        Ok(())
    }

    pub(super) fn append_entries(&mut self, id: FeedId, entries: &[Bytes]) -> Result<(), StoreError> {
        match self.append(id, entries) {
            Ok(_) => Ok(()),
            Err(AppendError::Store(error)) => Err(error),
            Err(_) => {
                let key = self.slot(id).feed.key();
                let why = "the list of feeds cannot be appended to";
                Err(crate::CorestoreError::damaged(key.discovery_key(), "name", why).into())
            }
        }
    }

    pub(super) fn make_list(&mut self, set: SetId) -> Result<FeedId, StoreError> {
        let list = self.members.sets.lists.get(set)?;
        let (pair, name) = (list.pair.clone(), FeedList::list_namespace_in(&list.base, &list.root_key));
        let (key, name) = (pair.public_key(), name.default_name().as_bytes().to_vec());
        let make = |storage: &mut S, slot, _: Option<&str>| Feed::create(storage, slot, key, Some(&pair), None);
        let feed = self.find_folder(&key, true, Some(&name), make)?;
        let id = self.insert(feed);
        self.keep_to_itself(id);
        self.index(id);
        self.cores.unsynced.insert(id);
        if self.cores.durability.syncs() {
            self.feeds[id.0 as usize].feed.serve(Some(0));
        }
        self.members.sets.lists.lists.get_mut(&set).into_iter().for_each(|list| list.feed = Some(id));
        Ok(id)
    }
}
