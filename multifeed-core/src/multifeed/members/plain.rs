//! Plain cores of a corestore: those that the application asks for itself, beside the multifeeds.
//!
//! They are in a set of their own, which no list has. A core may also be a multifeed's feed: it is stored once.

use std::collections::BTreeMap;

use multifeed_proto::FeedKey;

use super::cores::CoreName;
use crate::KeyPair;
use crate::error::{CorestoreError, StoreError};
use crate::ids::{FeedId, SetId};
use crate::keys::signer::WriterKey;
use crate::multifeed::Multifeed;
use crate::storage::Storage;
use crate::storage::core_list::CoreList;

/// The plain cores that were asked for.
#[derive(Debug, Default)]
pub(in crate::multifeed) struct PlainCores {
    set: Option<SetId>,
    /// What they were asked for by, if it is text.
    names: BTreeMap<FeedId, String>,
}

impl PlainCores {
    /// The name of a core in this set.
    pub(in crate::multifeed) fn name_in(&self, set: SetId, id: FeedId) -> Option<&str> {
        self.names.get(&id).filter(|_| self.set == Some(set)).map(String::as_str)
    }

    /// A feed is gone.
    pub(in crate::multifeed) fn forget(&mut self, id: FeedId) {
        self.names.remove(&id);
    }
}

impl<S: Storage> Multifeed<S> {
    /// Returns the set of the plain cores of a corestore: those that the next calls gave. It is no multifeed, and nothing lists it on the disk. A
    /// session of one of them is [`connect_feed`](Self::connect_feed).
    ///
    /// # Errors
    /// [`StoreError::NotCorestore`] if the storage is not that of a corestore.
    pub fn plain_cores(&mut self) -> Result<SetId, StoreError> {
        if self.cores.storage.is_numbered() {
            return Err(StoreError::NotCorestore);
        }
        if let Some(set) = self.members.sets.plain.set {
            return Ok(set);
        }
        let set = self.add_set();
        self.members.sets.plain.set = Some(set);
        Ok(set)
    }

    /// Opens the core of a name, or makes it: its key pair is derived from the master key and the name, which is bytes. A core that has blocks and
    /// no `name`, as one that was fetched by its key, is opened to be read, as in JS.
    ///
    /// # Errors
    /// - [`StoreError::NotCorestore`], [`CorestoreError::BadName`], [`StoreError::ListOfFeeds`], [`StoreError::Banned`];
    /// - [`StoreError::CoreMissing`] if the core was here and is gone, as a new one would be a second history;
    /// - an error if the core's folder cannot be used, or writing fails.
    pub fn core_named(&mut self, name: &[u8]) -> Result<FeedId, StoreError> {
        let max = self.limits.core_name_bytes;
        if name.is_empty() || name.len() > max {
            return Err(CorestoreError::BadName { size: name.len(), max }.into());
        }
        let pair = self.cores.storage.key_pair(name).ok_or(StoreError::NotCorestore)?;
        self.plain_core(&pair, Some(name))
    }

    /// Opens the core of a key pair, or makes it, with its secret key in `secret_key`. A core that has blocks and no secret key is opened to be read.
    ///
    /// # Errors
    /// As [`core_named`](Self::core_named).
    pub fn core_with_key_pair(&mut self, pair: &KeyPair) -> Result<FeedId, StoreError> {
        self.plain_core(pair, None)
    }

    /// Opens the core of a key. `None` if it is not in the corestore; nothing is made then.
    ///
    /// # Errors
    /// As [`core_named`](Self::core_named).
    pub fn core_of(&mut self, key: &FeedKey) -> Result<Option<FeedId>, StoreError> {
        self.check_no_list(key)?;
        let Some(id) = self.open_core(key)? else { return Ok(None) };
        self.include_plain(id, None).map(Some)
    }

    /// Opens the core of a key, or makes its folder, so that its blocks can be fetched.
    ///
    /// # Errors
    /// As [`core_named`](Self::core_named), and [`StoreError::TooManyFeeds`].
    pub fn add_core(&mut self, key: FeedKey) -> Result<FeedId, StoreError> {
        if let Some(id) = self.core_of(&key)? {
            return Ok(id);
        }
        let id = self.add(key)?;
        self.include_plain(id, None)
    }

    /// Lists the cores that are on the disk, also those of multifeeds: see [`Corestore::list`](crate::Corestore::list).
    ///
    /// # Errors
    /// [`StoreError::NotCorestore`], and as [`Corestore::list`](crate::Corestore::list).
    pub fn list_cores(&mut self) -> Result<CoreList, StoreError> {
        self.cores.storage.list_cores()
    }

    fn plain_core(&mut self, pair: &KeyPair, name: Option<&[u8]>) -> Result<FeedId, StoreError> {
        self.check_no_list(&pair.public_key())?;
        let text = name.and_then(|name| std::str::from_utf8(name).ok());
        let id = self.derived_core(pair, name, text)?;
        self.include_plain(id, name)
    }

    /// The core of a key pair, opened or made. The pair of a name is derived from it; `writer` is what it is called.
    pub(in crate::multifeed) fn derived_core(
        &mut self,
        pair: &KeyPair,
        name: Option<&[u8]>,
        writer: Option<&str>,
    ) -> Result<FeedId, StoreError> {
        let key = pair.public_key();
        if self.members.banned.contains(&key) {
            return Err(StoreError::Banned { key });
        }
        let opened = match name {
            Some(name) => self.open_core_named(&key, CoreName::Asked(name)),
            None => self.open_core(&key),
        };
        if let Some(id) = opened? {
            return Ok(id);
        }
        match self.cores.missing_core(&key, writer) {
            Some(missing) => Err(missing),
            None => {
                if name.is_some() {
                    self.cores.storage.check_master_key()?;
                }
                self.create(key, Some(WriterKey::Here(pair.clone())), name, None)
            }
        }
    }

    fn include_plain(&mut self, id: FeedId, name: Option<&[u8]>) -> Result<FeedId, StoreError> {
        let set = self.plain_cores()?;
        let key = self.slot(id).feed.key();
        let text = name.and_then(|name| std::str::from_utf8(name).ok());
        let text = text.map_or_else(|| key.to_string(), str::to_owned);
        if self.include_in(set, id, None) || name.is_some() {
            self.members.sets.plain.names.insert(id, text);
        }
        Ok(id)
    }

    /// A multifeed's list of feeds is read and appended to by the multifeed alone.
    fn check_no_list(&self, key: &FeedKey) -> Result<(), StoreError> {
        if self.members.sets.lists.find(key).is_some() { Err(StoreError::ListOfFeeds { key: *key }) } else { Ok(()) }
    }
}
