//! A core that is open, and what can be done with it.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use multifeed_proto::{DiscoveryKey, FeedKey};

use super::keyed_files::{HERE, KeyedFiles, SecretKey};
use crate::cores::journal::{Checkpoint, Journal};
use crate::error::{AppendError, CorestoreError, StoreError};
use crate::feed::{Feed, Put, VerifyCursor, VerifyStep};
use crate::limits::Limits;
use crate::prepared::PreparedData;
use crate::storage::{CoreStorage, Slot, Storage};

/// A core, its files' number, and how its secret key is come by.
pub(super) struct OpenCore {
    pub(super) feed: Feed,
    pub(super) slot: Slot,
    pub(super) name: Option<Vec<u8>>,
    pub(super) secret: SecretKey,
    /// What is known to be whole of it on the disk.
    pub(super) journal: Journal,
    /// When it was used last.
    pub(super) used: u64,
    /// It keeps what was read of its files.
    pub(super) in_use: bool,
    /// Something was written and not fsynced.
    pub(super) unsynced: bool,
    /// An fsync failed, and no second one would tell what is on the disk.
    pub(super) failed: Option<StoreError>,
}

impl fmt::Debug for OpenCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenCore").field("key", &self.feed.key()).field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// What a core is and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoreInfo {
    /// The public key.
    pub key: FeedKey,
    /// The discovery key, which names the core's folder.
    pub discovery_key: DiscoveryKey,
    /// What the key pair is derived from, if it is.
    pub name: Option<Vec<u8>>,
    /// Whether it can be appended to.
    pub writable: bool,
    /// The length in blocks.
    pub len: u64,
    /// The length in bytes.
    pub byte_len: u64,
    /// How many blocks are held.
    pub downloaded: u64,
    /// Whether it has a folder. One that was asked for by key has none before its first block is written.
    pub on_disk: bool,
}

/// A core of a [`Corestore`](super::Corestore), lent while it is used.
#[derive(Debug)]
pub struct Core<'a, S> {
    pub(super) core: DiscoveryKey,
    pub(super) open: &'a mut OpenCore,
    pub(super) storage: &'a mut S,
    pub(super) limits: &'a Limits,
    pub(super) staged_bytes: &'a mut usize,
}

impl<S: CoreStorage> Core<'_, S> {
    /// Returns what the core is and holds.
    pub fn info(&self) -> CoreInfo {
        let feed = &self.open.feed;
        CoreInfo {
            key: feed.key(),
            discovery_key: self.core,
            name: self.open.name.clone(),
            writable: feed.writable(),
            len: feed.len(),
            byte_len: feed.byte_len(),
            downloaded: feed.downloaded(),
            on_disk: feed.is_settled(),
        }
    }

    /// Returns the feed, to be looked at: which blocks it has, its roots, what opening it repaired.
    pub fn feed(&self) -> &Feed {
        &self.open.feed
    }

    /// Appends blocks as one batch under one signature, writes them, and returns their indexes.
    ///
    /// # Errors
    /// [`CorestoreError::Append`] if the secret key is not here, or a block is too large; else the storage's error. The core is then as it was
    /// before. After a failed [`sync`](Self::sync) nothing is appended until the corestore is opened again.
    pub fn append(&mut self, blocks: &[Bytes]) -> Result<Range<u64>, CorestoreError> {
        if let Some(error) = &self.open.failed {
            return Err(CorestoreError::of_core(self.core, error.clone()));
        }
        let core = self.core;
        if !self.open.feed.writable() {
            let source = AppendError::ReadOnly { key: self.open.feed.key() };
            return Err(CorestoreError::Append { core, source });
        }
        if !blocks.is_empty() {
            if self.open.journal.mark(HERE, &self.open.feed.key()).is_none() {
                // What a crash left of the append could not be told from what was lost before.
                self.open.unsynced = true;
                self.sync()?;
            }
            self.touch()?;
        }
        self.with(|feed, files| feed.append(files, blocks)).map_err(|error| CorestoreError::of_append(core, error))
    }

    /// Reads a block, or `None` if it is not held, and checks it against its hash.
    ///
    /// # Errors
    /// [`CorestoreError::Damaged`] if it has another hash; else the storage's error.
    pub fn block(&mut self, index: u64) -> Result<Option<Bytes>, CorestoreError> {
        self.read(|feed, files| feed.get_verified(files, index))
    }

    /// Proves a block that was received, and holds it. It is written by [`flush`](Self::flush), or once [`Limits::staged_bytes`] wait in all
    /// cores together. A core without a folder gets it then, if it has a block.
    ///
    /// # Errors
    /// [`CorestoreError::Put`] if it does not prove what it claims, or is larger than [`Limits::feed_blocks`] and [`Limits::feed_bytes`]
    /// allow; else the storage's error.
    pub fn put(&mut self, prepared: PreparedData) -> Result<Put, CorestoreError> {
        let (core, size) = (self.core, self.limits.feed_size());
        let put = self.with(|feed, files| feed.put_within(files, prepared, size));
        let put = put.map_err(|error| CorestoreError::of_put(core, error))?;
        if self.open.feed.writable() {
            // After a crash the first block that is missing would be taken for its end.
            self.sync()?;
        }
        if *self.staged_bytes > self.limits.staged_bytes {
            self.flush()?;
        }
        Ok(put)
    }

    /// Checks a slice of the core again: about `max_bytes` of its blocks, its nodes and its signatures, from `cursor` on.
    ///
    /// # Errors
    /// If reading fails. What does not verify is a finding of the step, not an error.
    pub fn verify_step(&mut self, cursor: &mut VerifyCursor, max_bytes: usize) -> Result<VerifyStep, CorestoreError> {
        self.read(|feed, files| feed.verify_step(files, cursor, max_bytes))
    }

    /// Writes what waits to be written. Nothing if no block came of a core without a folder.
    ///
    /// # Errors
    /// The storage's error. All waits then, and the next call tries again.
    pub fn flush(&mut self) -> Result<(), CorestoreError> {
        if !self.open.feed.is_staged() || (!self.open.feed.is_settled() && self.open.feed.downloaded() == 0) {
            return Ok(());
        }
        if let Some(error) = &self.open.failed {
            return Err(CorestoreError::of_core(self.core, error.clone()));
        }
        let core = self.core;
        if !self.open.feed.is_settled() {
            let settled = self.with(|feed, files| {
                feed.settle(files, HERE, None).inspect_err(|error| {
                    if !matches!(error, StoreError::Occupied { .. }) {
                        // A disk that is full, most likely: nothing of it stays.
                        let _ = files.remove(HERE);
                    }
                })
            });
            settled.map_err(|error| CorestoreError::of_core(core, error))?;
        }
        self.touch()?;
        self.with(|feed, files| feed.flush(files)).map_err(|error| CorestoreError::of_core(core, error))
    }

    /// Writes what waits to be written, and fsyncs what was written, so that it outlives a power cut.
    ///
    /// # Errors
    /// The storage's error. Nobody knows then what of the core is on the disk.
    pub fn sync(&mut self) -> Result<(), CorestoreError> {
        self.flush()?;
        if let Some(error) = &self.open.failed {
            return Err(CorestoreError::of_core(self.core, error.clone()));
        }
        if !self.open.unsynced || !self.open.feed.is_settled() {
            return Ok(());
        }
        self.touch()?;
        let OpenCore { feed, slot, secret, journal, unsynced, failed, .. } = &mut *self.open;
        let mut files = KeyedFiles { files: self.storage.files_mut(), slot: *slot, secret };
        let mut sync = || {
            feed.undo_failed_append(&mut files)?;
            feed.sync(&mut files)?;
            // Of one whose secret key is gone it stays known that it was written here.
            let is_no_writer = !journal.mark(HERE, &feed.key()).is_some_and(Checkpoint::is_of_a_writer);
            if feed.is_known_to_be_whole() && (feed.writable() || is_no_writer) {
                journal.note(HERE, feed.mark(true));
            }
            journal.write(&mut files, true)
        };
        let synced = sync();
        // No second fsync would tell what is on the disk.
        *failed = synced.as_ref().err().cloned();
        *unsynced = failed.is_some();
        synced.map_err(|error| CorestoreError::of_core(self.core, error))
    }

    /// Leaves it whole on the disk: the next opening need not look for what a crash tore.
    pub(super) fn finish(&mut self) -> Result<(), CorestoreError> {
        self.sync()?;
        let OpenCore { slot, secret, journal, .. } = &mut *self.open;
        if !journal.is_open() {
            return Ok(());
        }
        let mut files = KeyedFiles { files: self.storage.files_mut(), slot: *slot, secret };
        journal.close(&mut files, true).map_err(|error| CorestoreError::of_core(self.core, error))
    }

    /// To be called before the first change: the journal says that the core is in use. Fails if the folder was moved since it was opened.
    fn touch(&mut self) -> Result<(), CorestoreError> {
        let OpenCore { feed, slot, secret, journal, .. } = &mut *self.open;
        let mut files = KeyedFiles { files: self.storage.files_mut(), slot: *slot, secret };
        let here = files.check_place(HERE).map_err(|error| StoreError::from_slot(HERE, "write to", error));
        let begun = here.and_then(|()| journal.begin(&mut files, HERE.0 + 1, feed.writable()));
        begun.map_err(|error| CorestoreError::of_core(self.core, error))
    }

    /// Reads, and so changes nothing that would have to be fsynced.
    fn read<T>(
        &mut self,
        call: impl FnOnce(&mut Feed, &mut KeyedFiles<'_, S::Files>) -> Result<T, StoreError>,
    ) -> Result<T, CorestoreError> {
        let OpenCore { feed, slot, secret, .. } = &mut *self.open;
        let mut files = KeyedFiles { files: self.storage.files_mut(), slot: *slot, secret };
        call(feed, &mut files).map_err(|error| CorestoreError::of_core(self.core, error))
    }

    /// Changes the core, and counts what waits to be written.
    fn with<T>(&mut self, call: impl FnOnce(&mut Feed, &mut KeyedFiles<'_, S::Files>) -> T) -> T {
        let OpenCore { feed, slot, secret, unsynced, .. } = &mut *self.open;
        let mut files = KeyedFiles { files: self.storage.files_mut(), slot: *slot, secret };
        let before = feed.staged_bytes();
        let result = call(feed, &mut files);
        *self.staged_bytes = (*self.staged_bytes + feed.staged_bytes()).saturating_sub(before);
        *unsynced = true;
        result
    }
}
