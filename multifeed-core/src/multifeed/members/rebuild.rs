//! A list of feeds that is lost for good, made anew from the cores that are here.
//!
//! No peer has a list, so that a second history of it contradicts nobody. But the old one, put back later, would be one: so this is done only if it is
//! asked for.

use std::collections::BTreeSet;

use multifeed_proto::FeedKey;

use crate::cores::journal::name;
use crate::corestore::FeedList;
use crate::error::StoreError;
use crate::ids::SetId;
use crate::multifeed::Multifeed;
use crate::storage::core_list::CoreList;
use crate::storage::{Slot, Storage};

/// How the name of a list's core ends.
const LIST: &[u8] = b":@multifeed:persist";

impl<S: Storage> Multifeed<S> {
    /// Makes the list of feeds of a multifeed of a corestore anew, if it is [lost](StoreError::ListLost), or blocks of it are damaged, and says how many
    /// feeds it has then. `None` if there is nothing wrong with it; nothing is changed then.
    ///
    /// It has the feeds that can be read of the old one. Then, in the order in which they first came here, it has the other cores that are here: the
    /// writers of this multifeed, by their names, and feeds that were fetched, unless another multifeed of the corestore lists them. What was [taken
    /// out](Self::take_out_of) stays out. What is left of the old one is removed.
    ///
    /// # Errors
    /// [`StoreError::NotCorestore`] if the set is no multifeed of a corestore; else the storage's error. The list is lost then as before, and the next
    /// call begins anew.
    pub fn rebuild_list(&mut self, set: SetId) -> Result<Option<usize>, StoreError> {
        let list = self.members.sets.lists.get(set)?;
        if list.lost.is_none() && list.list.is_whole() {
            return Ok(None);
        }
        let (key, old) = (list.pair.public_key(), list.feed);
        let mut new = FeedList::default();
        for feed in list.list.feeds() {
            // One that a session brought meanwhile has no name.
            let name = Some(&*feed.name).filter(|name| list.lost.is_none() || *name != feed.key.to_string());
            new.add_new(feed.key, name);
        }
        let found: Vec<_> = self.unlisted(set)?.into_iter().filter(|(key, _)| !new.has(key)).collect();
        found.iter().for_each(|(key, name)| new.add_new(*key, name.as_deref()));
        let feeds: Vec<_> = new.feeds().iter().map(|feed| feed.key).collect();

        // What the journal knows of the old one stays until the new one is on the disk: if this is cut short, the list is lost as before.
        let known = old.map_or(0, |id| self.slot(id).feed.len());
        if let Some(list) = self.members.sets.lists.get_mut(set) {
            list.lost.get_or_insert(StoreError::ListLost { key, held: None, known });
        }
        if let Some(id) = old {
            let slot = self.slot(id).feed.slot();
            let removable = self.cores.storage.check_removable(slot);
            removable.map_err(|error| StoreError::from_slot(slot, "remove", error))?;
            self.begin(true)?;
            self.cores.storage.remove(slot).map_err(|error| StoreError::from_slot(slot, "remove", error))?;
            self.forget_feed(id);
            self.cores.storage.release(slot);
            self.members.catalog.release(slot);
        }
        if let Some(list) = self.members.sets.lists.get_mut(set) {
            (list.feed, list.list, list.new) = (None, new, Vec::new());
        }
        let id = self.make_list(set)?;
        let entries = self.members.sets.lists.get(set)?.entries(&feeds);
        self.append_entries(id, &entries)?;
        self.sync_feed(id)?;
        if let Some(list) = self.members.sets.lists.get_mut(set) {
            list.lost = None;
        }
        let core = key.discovery_key();
        self.cores.report.problems.retain(|problem| match problem {
            StoreError::ListLost { key: list, .. } => *list != key,
            StoreError::Core(error) => error.core() != Some(core),
            _ => true,
        });
        for (key, _) in found {
            self.open_again(set, &key);
        }
        self.commit(self.now);
        Ok(Some(feeds.len()))
    }

    /// The cores on the disk that may be feeds of a multifeed, and their writers' names, in the order in which they came here first.
    fn unlisted(&mut self, set: SetId) -> Result<Vec<(FeedKey, Option<String>)>, StoreError> {
        let CoreList { cores, .. } = self.cores.storage.list_cores()?;
        let list = self.members.sets.lists.get(set)?;
        let (own, writers) = (list.pair.public_key(), list.writers_namespace());
        let mut others = BTreeSet::new();
        for core in cores.iter().filter(|core| core.key != own) {
            if core.name.as_ref().is_some_and(|name| name.ends_with(LIST)) {
                others.extend(self.feeds_of_list(&core.key)?);
            }
        }
        let mut found = Vec::new();
        for core in cores {
            let slot = self.cores.journal.slot_of(&name(&core.key));
            let writer = core.name.as_deref().and_then(|name| name.strip_prefix(writers.as_bytes()));
            let name = match writer.map(std::str::from_utf8) {
                // JS has no name for the one without.
                Some(Ok("undefined")) => None,
                Some(Ok(name)) => Some(name.to_owned()),
                Some(Err(_)) => continue,
                None if core.writable || slot.is_none() || others.contains(&core.key) => continue,
                None => None,
            };
            if !self.members.removed.contains(&own, &core.key) {
                found.push((slot.unwrap_or(Slot::NOWHERE), core.key, name));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, key, name)| (key, name)).collect())
    }

    /// The feeds that another list of the corestore has, as far as it can be read.
    fn feeds_of_list(&mut self, key: &FeedKey) -> Result<Vec<FeedKey>, StoreError> {
        let mut list = FeedList::default();
        self.members.banned.hide(*key);
        // A list that cannot be opened is reported when its multifeed is opened.
        if let Ok(Some(id)) = self.open_core(key) {
            self.keep_to_itself(id);
            self.read_list(id, &mut list)?;
        }
        Ok(list.feeds().iter().map(|feed| feed.key).collect())
    }
}
