//! The folder of one core: whose it is, and what is written to it beside the feed's own files.

use multifeed_proto::FeedKey;

use super::Cores;
use super::journal::numbers::REMOVED;
use super::report::ExposedKey;
use crate::error::StoreError;
use crate::feed::Feed;
use crate::storage::{FileId, FileKind, Slot, Storage};

impl<S: Storage> Cores<S> {
    /// Returns whose folder a number's is; `None` if it has no whole key.
    pub(crate) fn key_in(&mut self, slot: Slot) -> Result<Option<FeedKey>, StoreError> {
        let file = FileId::new(slot, FileKind::Key);
        let mut key = [0; 32];
        let count = self.storage.read_at(file, 0, &mut key);
        let count = count.map_err(|error| StoreError::from_file(file, "read", error))?;
        Ok((count == key.len()).then(|| FeedKey::new(key)))
    }

    /// Fsyncs the key in a folder.
    pub(crate) fn sync_key(&mut self, slot: Slot) -> Result<(), StoreError> {
        let file = FileId::new(slot, FileKind::Key);
        self.storage.sync(file).map_err(|error| StoreError::from_file(file, "sync", error))
    }

    /// Writes a feed's name into its folder. The journal has it before, as the name that it knows of a writer is the one that counts.
    pub(crate) fn write_name(&mut self, slot: Slot, key: &FeedKey, name: &str) -> Result<(), StoreError> {
        self.journal.rename_writer(&mut self.storage, slot, key, name)?;
        let file = FileId::new(slot, FileKind::LocalName);
        self.storage.replace(file, name.as_bytes()).map_err(|error| StoreError::from_file(file, "write", error))
    }

    /// The error for a core that was written here, by what the journal knows, if it is not on the disk.
    pub(crate) fn missing_core(&self, key: &FeedKey, name: Option<&str>) -> Option<StoreError> {
        let (_, mark) = self.journal.signed(key).filter(|(slot, _)| *slot < REMOVED)?;
        Some(StoreError::CoreMissing { key: *key, name: name.map(str::to_owned), blocks: mark.length })
    }

    /// Notes whether others may read a feed's secret key.
    pub(crate) fn look_at_permissions(&mut self, feed: &Feed) -> Result<(), StoreError> {
        let file = FileId::new(feed.slot(), FileKind::SecretKey);
        if feed.key_pair().is_some() {
            let mode = self.storage.permissions(file).map_err(|error| StoreError::from_file(file, "look at", error))?;
            let exposed = mode.filter(|mode| mode & 0o077 != 0);
            let slot = if self.storage.is_numbered() { feed.slot() } else { Slot::NOWHERE };
            self.report.exposed.extend(exposed.map(|mode| ExposedKey { key: feed.key(), slot, mode }));
        }
        Ok(())
    }
}
