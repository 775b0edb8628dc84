//! No two feeds have one name.
//!
//! JS keeps its feeds by name: by their `localname`, or if there is none by the number of the folder. Of two with one name it loses the first
//! that it opened. It numbers the next writer by how many names there are, so that one goes into a folder which is taken. A writer
//! may well be named like a number. So a feed that is named by its folder's number gives way if that is somebody's name. Its `localname` is
//! its key then, which nobody else has, whatever number its folder gets.

use multifeed_proto::FeedKey;

use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::feed::Feed;
use crate::feed::local_name::is_key_name;
use crate::ids::FeedId;
use crate::multifeed::{Multifeed, MultifeedEvent, feed_name};
use crate::storage::{Slot, Storage};

impl<S: Storage> Multifeed<S> {
    /// Returns the name of a feed that gets its folder there, if the number must not be its name.
    pub(in crate::multifeed) fn name_instead(&self, slot: Slot, key: &FeedKey) -> Option<String> {
        self.members.catalog.has_name(&slot.to_string()).then(|| self.members.catalog.key_name(key))
    }

    /// A writer is about to have this name: a feed that has it by its number gives way.
    pub(in crate::multifeed) fn make_way(&mut self, name: &str) -> Result<(), StoreError> {
        let Some(slot) = numbered(name) else { return Ok(()) };
        let Some(key) = self.cores.key_in(slot)? else { return Ok(()) };
        match self.members.catalog.at(slot) {
            Some(id) if self.slot(id).feed.local_name().is_some() => Ok(()),
            Some(_) if self.rename_to_key(slot, &key)? => Ok(()),
            // What is damaged is left as it is.
            _ => Err(StoreError::NameTaken { name: name.to_owned(), slot }),
        }
    }

    /// A folder without a name is about to take a number: if that is somebody's name, gives it one of its own before.
    pub(in crate::multifeed) fn dedupe_names(&mut self, from: Slot, to: Slot, key: &FeedKey) -> Result<(), StoreError> {
        if self.members.catalog.has_name(&to.to_string()) {
            self.rename_to_key(from, key)?;
        }
        Ok(())
    }

    /// After opening: two `writer` calls of JS's at once make two feeds with one name. So does a writer of JS's that is named like a number that
    /// another feed's folder has, or gets. Of two writers that one gives way which may have the name by its number, else the later one.
    pub(in crate::multifeed) fn part_names(&mut self) -> Result<(), StoreError> {
        for id in self.feeds().collect::<Vec<_>>() {
            let feed = &self.slot(id).feed;
            let (slot, key) = (feed.slot(), feed.key());
            let Some(name) = feed.local_name() else {
                self.dedupe_names(slot, slot, &key)?;
                continue;
            };
            let Some(first) = self.members.catalog.named(name).filter(|first| *first != id) else { continue };
            let other = &self.slot(first).feed;
            if numbered(name) == Some(other.slot()) {
                self.name_by_key(other.slot(), &other.key())?;
                self.index(id);
            } else {
                self.name_by_key(slot, &key)?;
            }
        }
        Ok(())
    }

    /// Names a feed by its key if it has no name. False if it has one on the disk.
    fn rename_to_key(&mut self, slot: Slot, key: &FeedKey) -> Result<bool, StoreError> {
        match Feed::name_in(&mut self.cores.storage, slot)? {
            None => self.name_by_key(slot, key)?,
            // Written before, when the disk said that it failed.
            Some(name) if is_key_name(&name, key) => {
                let unnamed = |id: &FeedId| self.slot(*id).feed.local_name().is_none();
                if let Some(id) = self.members.catalog.at(slot).filter(unnamed) {
                    self.rename_feed(id, name);
                }
            }
            Some(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Names a feed by its key, on the disk and, if it is open, here.
    fn name_by_key(&mut self, slot: Slot, key: &FeedKey) -> Result<(), StoreError> {
        let name = self.members.catalog.key_name(key);
        self.cores.write_name(slot, key, &name)?;
        if let Some(id) = self.members.catalog.at(slot) {
            self.rename_feed(id, name);
        }
        Ok(())
    }

    /// Another writer is about to have the name of a missing one: that is named by its key from now on, also if its folder comes back.
    pub(in crate::multifeed) fn rename_missing(&mut self, name: &str) -> Result<(), StoreError> {
        let has_it = |(slot, mark): (Slot, &Checkpoint)| {
            let writer = mark.writer.as_ref().filter(|writer| writer.name.as_deref() == Some(name))?;
            self.members.catalog.find(&writer.key).is_none().then_some((slot, writer.key))
        };
        for (slot, key) in self.cores.journal.writers().filter_map(has_it).collect::<Vec<_>>() {
            let instead = self.members.catalog.key_name(&key);
            self.cores.journal.rename_writer(&mut self.cores.storage, slot, &key, &instead)?;
        }
        Ok(())
    }

    /// A feed has another name on the disk: gives it that name here too, and reports it.
    pub(in crate::multifeed) fn rename_feed(&mut self, id: FeedId, name: String) {
        let feed = &mut self.feeds[id.0 as usize].feed;
        let before = feed_name(feed);
        feed.set_local_name(name.clone());
        self.members.catalog.rename(id, &before, &name);
        self.outbox.push(MultifeedEvent::Moved { id, name });
    }
}

/// The folder whose number this is, as JS writes it.
pub(in crate::multifeed) fn numbered(name: &str) -> Option<Slot> {
    name.parse().ok().map(Slot).filter(|slot| slot.to_string() == name)
}
