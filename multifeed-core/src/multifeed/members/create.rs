//! How a feed gets its folder, and with it the number that names it if it has no other name.

use multifeed_proto::FeedKey;

use crate::error::StoreError;
use crate::feed::Feed;
use crate::ids::FeedId;
use crate::keys::signer::WriterKey;
use crate::multifeed::{Multifeed, MultifeedEvent, feed_name};
use crate::replication::wants::Wants;
use crate::storage::{Slot, Storage};

impl<S: Storage> Multifeed<S> {
    pub(in crate::multifeed) fn create(
        &mut self,
        key: FeedKey,
        writer_key: Option<WriterKey>,
        core_name: Option<&[u8]>,
        name: Option<&str>,
    ) -> Result<FeedId, StoreError> {
        if self.members.banned.contains(&key) {
            return Err(StoreError::Banned { key });
        }
        if let Some(name) = name {
            // A number may be another feed's as long as a removal is not done.
            self.resume_removal_before_a_feed()?;
            self.make_way(name)?;
        }
        let numbered = self.cores.storage.is_numbered();
        let ours = writer_key.is_some();
        let mut feed = self.find_folder(&key, ours, core_name, |storage, slot, instead| {
            let number = (ours && numbered).then(|| slot.to_string());
            Feed::create_as(storage, slot, key, writer_key.clone(), name.or(instead).or(number.as_deref()))
        })?;
        // Its key pair was here before: what it signed then has to come back first.
        let signed = self.cores.journal.mark(feed.slot(), &key).filter(|mark| mark.length > 0);
        if let Some(signed) = signed.filter(|_| ours) {
            feed.stay_older_than(signed);
            self.cores.report.found_missing(&key);
            feed.older_copy().into_iter().for_each(|older| self.cores.report.note_problem(older));
        }
        let name = feed_name(&feed);
        let id = match self.members.catalog.offered(&key) {
            // Remotes are asked for it. What they have of it came from here once, and has to come back.
            Some(id) => {
                let slot = &mut self.feeds[id.0 as usize];
                (slot.feed, slot.wants) = (feed, Wants::default());
                id
            }
            None => self.insert(feed),
        };
        self.index(id);
        if self.cores.durability.syncs() && ours {
            self.feeds[id.0 as usize].feed.serve(Some(0));
        }
        self.created(id, key, name);
        self.adopt_offers(id, key, None);
        Ok(id)
    }

    /// Makes a feed in the next folder that it can be made in, with a name of its own if it must not be named by the number.
    pub(in crate::multifeed) fn find_folder<T>(
        &mut self,
        key: &FeedKey,
        ours: bool,
        core_name: Option<&[u8]>,
        mut make: impl FnMut(&mut S, Slot, Option<&str>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // If an error cut a removal short there may be a gap, which the feed must not close.
        self.resume_removal_before_a_feed()?;
        // Remotes must not be able to keep the store's owner from writing.
        if !ours && self.members.catalog.others() >= self.limits.feeds {
            return Err(StoreError::TooManyFeeds { max: self.limits.feeds });
        }
        self.check_unopened(key)?;
        if !self.cores.storage.is_numbered() {
            let slot = self.number_for(key)?;
            self.cores.storage.assign(slot, key, core_name)?;
            let made = self.make_core(slot, key, ours, make);
            match &made {
                Ok(_) => self.members.catalog.occupy(slot),
                Err(_) => self.cores.storage.release(slot),
            }
            return made;
        }
        loop {
            let slot = self.members.catalog.next_slot();
            if slot == Slot::NOWHERE {
                return Err(StoreError::TooManyFeeds { max: u32::MAX as usize });
            }
            self.expect_feed(slot, key, ours)?;
            // A folder without a key that holds blocks is somebody's all the same.
            let instead = self.name_instead(slot, key);
            match make(&mut self.cores.storage, slot, instead.as_deref()) {
                Ok(made) => {
                    self.members.catalog.occupy(slot);
                    return Ok(made);
                }
                Err(error @ StoreError::Occupied { .. }) => match self.cores.key_in(slot)? {
                    None => self.set_aside(slot)?,
                    Some(found) if found == *key => return Err(error),
                    Some(_) => self.members.catalog.occupy(slot),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes a feed in the folder of its core, which holds nothing of one.
    fn make_core<T>(
        &mut self,
        slot: Slot,
        key: &FeedKey,
        ours: bool,
        mut make: impl FnMut(&mut S, Slot, Option<&str>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !Feed::is_vacant(&mut self.cores.storage, slot)? {
            return Err(StoreError::Occupied { slot });
        }
        self.members.catalog.see(slot);
        self.expect_feed(slot, key, ours)?;
        make(&mut self.cores.storage, slot, None)
    }

    /// A feed has its folder: it is fsynced in time, and everyone hears of it.
    pub(in crate::multifeed) fn created(&mut self, id: FeedId, key: FeedKey, name: String) {
        self.cores.unsynced.insert(id);
        self.uncommitted.unannounced.push(id);
        self.outbox.push(MultifeedEvent::Feed { id, key, name });
    }
}
