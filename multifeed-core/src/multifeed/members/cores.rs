//! Feeds whose folders are known by their keys: the cores of a corestore.
//!
//! A number stands for a core while the store is open. It is the one that the journal has for the feed, so that what is known of it is found
//! again. There are gaps in these numbers, and nothing depends on them.

use multifeed_proto::FeedKey;

use crate::cores::journal::name;
use crate::cores::journal::numbers::REMOVED;
use crate::error::StoreError;
use crate::feed::{Feed, Opening};
use crate::ids::{FeedId, SessionId};
use crate::multifeed::{Multifeed, MultifeedEvent};
use crate::storage::{FileId, FileKind, Slot, Storage};

/// What is known of the name of a core that may be written here.
#[derive(Debug, Clone, Copy)]
pub(in crate::multifeed) enum CoreName<'a> {
    /// What the lists of the multifeeds that are open say.
    Listed,
    /// It is asked for by this name.
    Asked(&'a [u8]),
    /// It is a list of feeds. No remote has that: another history of it contradicts nobody.
    OfList(&'a [u8]),
}

impl<S: Storage> Multifeed<S> {
    /// After the journal was read: numbers that it has are those of the same feeds.
    pub(in crate::multifeed) fn keep_numbers(&mut self) {
        for slot in self.cores.journal.index_slots() {
            self.members.catalog.see(slot);
        }
    }

    /// The number for a feed that has none while the store is open.
    pub(in crate::multifeed) fn number_for(&self, key: &FeedKey) -> Result<Slot, StoreError> {
        let known = self.cores.journal.slot_of(&name(key));
        let known = known.filter(|slot| !self.members.catalog.is_taken(*slot));
        let slot = known.unwrap_or(Slot(self.members.catalog.end()));
        if slot == Slot::NOWHERE { Err(StoreError::TooManyFeeds { max: u32::MAX as usize }) } else { Ok(slot) }
    }

    /// The feed of a key, opened now if its core is on the disk. `None` if it is not, or if folders are numbered. A core that cannot be opened is
    /// an error, and a problem of the store.
    pub(in crate::multifeed) fn open_core(&mut self, key: &FeedKey) -> Result<Option<FeedId>, StoreError> {
        self.open_core_named(key, CoreName::Listed)
    }

    /// As [`open_core`](Self::open_core), of a core whose name is known, if it is written here.
    pub(in crate::multifeed) fn open_core_named(
        &mut self,
        key: &FeedKey,
        name: CoreName<'_>,
    ) -> Result<Option<FeedId>, StoreError> {
        if let Some(id) = self.members.catalog.find(key) {
            return Ok(Some(id));
        }
        if self.cores.storage.is_numbered() {
            return Ok(None);
        }
        let slot = self.number_for(key)?;
        self.cores.storage.assign(slot, key, None)?;
        let opened = self.find_core_name(slot, key, name).and_then(|()| self.open_in(slot, key));
        if !matches!(opened, Ok(Some(_))) {
            self.cores.storage.release(slot);
            self.members.catalog.release(slot);
        }
        opened.map_err(|error| error.of_core(*key, self.called(key)))
    }

    /// Has a core that is here and was written here have its name, also if its folder lost it. It is written again if it is known how much was signed, or
    /// that it is of no matter.
    fn find_core_name(&mut self, slot: Slot, key: &FeedKey, name: CoreName<'_>) -> Result<(), StoreError> {
        let secret = FileId::new(slot, FileKind::SecretKey);
        let has_key = self.cores.storage.len(secret).map_err(|error| StoreError::from_file(secret, "read", error))?;
        if has_key.is_some() || self.cores.key_in(slot)?.is_none() {
            return Ok(());
        }
        let is_signed = self.cores.journal.signed(key).is_some();
        let found;
        let name = match name {
            // Of one with blocks nobody knows whether all of it is here: it is not written, as in JS.
            CoreName::Asked(name) if !is_signed => return self.cores.storage.assign(slot, key, Some(name)),
            CoreName::Asked(name) | CoreName::OfList(name) => name,
            CoreName::Listed if is_signed => match self.members.sets.lists.core_name(&self.cores.storage, key) {
                Some(name) => {
                    found = name;
                    &found
                }
                None => return Ok(()),
            },
            CoreName::Listed => return Ok(()),
        };
        self.cores.storage.restore_name(slot, name, true)
    }

    /// Makes an error ready to be reported: a core of a corestore has no number, and is named by its key, its path and what it is called.
    pub fn told(&self, error: StoreError) -> StoreError {
        let id = if self.cores.storage.is_numbered() { None } else { error.slot() };
        match id.and_then(|slot| self.members.catalog.at(slot)).map(|id| self.slot(id).feed.key()) {
            Some(key) => error.of_core(key, self.called(&key)),
            None => error,
        }
    }

    /// What a feed is called in a multifeed of the corestore that is open, if it is not by its key.
    fn called(&self, key: &FeedKey) -> Option<&str> {
        self.members.sets.lists.name_of(key)
    }

    fn open_in(&mut self, slot: Slot, key: &FeedKey) -> Result<Option<FeedId>, StoreError> {
        if self.cores.key_in(slot)?.is_none() {
            if Feed::is_vacant(&mut self.cores.storage, slot)? {
                return Ok(None);
            }
            // The folder's name tells whose it is: a power cut took no more than the key.
            let file = FileId::new(slot, FileKind::Key);
            let written = self.cores.storage.replace(file, key.as_bytes());
            written.map_err(|error| StoreError::from_file(file, "write", error))?;
        }
        let (recovered, problems) = (self.cores.report.recovered.len(), self.cores.report.problems.len());
        let mut opening = Opening::new(&self.limits, &self.cores.signers);
        self.open_folder(slot, &mut opening, &mut Vec::new())?;
        // JS made a writer anew that was removed here.
        if let Some((removed, _)) = self.cores.journal.signed(key).filter(|(at, _)| *at >= REMOVED)
            && self.cores.journal.mark(slot, key).is_none()
        {
            self.cores.journal.renumber(removed, slot, key);
        }
        let is_list = self.members.banned.is_hidden(key);
        let recovered = &mut self.cores.report.recovered[recovered..];
        for recovered in recovered.iter_mut() {
            (recovered.is_list, recovered.slot) = (is_list, Slot::NOWHERE);
        }
        let recovered = recovered.iter().cloned();
        recovered.for_each(|recovered| self.outbox.push(MultifeedEvent::Recovered(recovered)));
        match self.members.catalog.find(key) {
            Some(id) => Ok(Some(id)),
            None => {
                // It is the caller who says what comes of it.
                let mut problems = self.cores.report.problems.drain(problems..);
                Err(problems.next().unwrap_or(StoreError::Occupied { slot }))
            }
        }
    }

    /// As [`open_core`](Self::open_core), of a feed that a remote offers on a session: a writer that was here is made again. An error is a problem of
    /// the store.
    pub(in crate::multifeed) fn find_offered(
        &mut self,
        session: SessionId,
        key: &FeedKey,
    ) -> Result<Option<FeedId>, StoreError> {
        let found = match self.open_core(key) {
            Ok(None) => self.take_back_writer(session, key),
            found => found,
        };
        let set = self.set_of(session).unwrap_or_default();
        let found = found.and_then(|found| match found {
            None => self.members.sets.lists.check_new(set, key).map(|()| None),
            found => Ok(found),
        });
        found.inspect_err(|error| self.cores.report.note_problem(error.clone()))
    }
}

/// The error for a core of a writer's that has neither `name` nor a secret key.
pub(in crate::multifeed) fn unnamed(slot: Slot, is_known: bool) -> StoreError {
    let why = match is_known {
        true => {
            "it is missing, and the feed was written here. It can be read, and nothing can be appended to it until the file, or the `secret_key` of a core with \
             a key pair of its own, is put back"
        }
        false => {
            "it is missing, and how much was written of the feed is not known here. It can be read, and nothing can be appended to it until the file is put \
             back: write under another name"
        }
    };
    StoreError::damaged(slot, FileKind::LocalName, why)
}
