//! The cores of a corestore as the folders of a [`Multifeed`].

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use multifeed_proto::{DiscoveryKey, FeedKey};

use super::Corestore;
use super::keyed_files::{KeyedFiles, SecretKey, refuse};
use super::opening::Keys;
use crate::KeyPair;
use crate::error::{CorestoreError, StoreError};
use crate::limits::Limits;
use crate::multifeed::{Multifeed, Options};
use crate::storage::core_list::CoreList;
use crate::storage::{CoreStorage, FileId, FileKind, Slot, Storage, Unsupported};

/// The cores of a [`Corestore`] as the storage of a [`Multifeed`]: see [`Corestore::into_multifeeds`].
///
/// A folder's number stands for a core as long as the storage is open. What stands beside the folders of a multifeed stands in the corestore's own
/// folder: `multifeed.journal`, `multifeed.blocked`, `multifeed.conflicts`, and `multifeed.removed`.
pub struct CoreFiles<S> {
    store: Corestore<S>,
    cores: BTreeMap<Slot, Placed>,
    /// The master key was found to be that of the cores.
    is_key_checked: bool,
    /// In place of a secret key, of the files that are of no core.
    none: SecretKey,
}

impl<S> std::fmt::Debug for CoreFiles<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secret keys are among it.
        f.debug_struct("CoreFiles").field("cores", &self.cores).finish_non_exhaustive()
    }
}

/// A core that has a number.
struct Placed {
    core: DiscoveryKey,
    /// Its number in the corestore's storage.
    slot: Slot,
    secret: SecretKey,
    /// The core has a journal of its own, which knows nothing of what a multifeed changes.
    has_journal: bool,
}

impl std::fmt::Debug for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Placed").field("core", &self.core).field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl<S: CoreStorage> Corestore<S> {
    /// Closes the cores that are open, and goes on as the storage of multifeeds: any number of them, each by its root key
    /// ([`Multifeed::open_root`]), as JS's `@frando/corestore-multifeed` has them. They share the cores, and see nothing of each other.
    ///
    /// The limits are those of `options`.
    ///
    /// ```
    /// use multifeed_core::{Corestore, CorestoreOptions, MasterKey, MemoryCoreStorage, Namespace, Options};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let storage = MemoryCoreStorage::new();
    /// let store = Corestore::open(storage, CorestoreOptions::default(), || MasterKey::new([7; 32]))?;
    /// let mut feeds = store.into_multifeeds(Options::default())?;
    ///
    /// let chat = feeds.open_root(&Namespace::root(), &multifeed_proto::DEFAULT_ROOT_KEY)?;
    /// let alice = feeds.writer_in(chat, Some("alice"))?;
    /// feeds.append(alice, &["hello".into()])?;
    /// assert_eq!(feeds.feeds_in(chat).count(), 1);
    /// feeds.close()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`into_files`](Self::into_files), and if the corestore's own files cannot be read.
    pub fn into_multifeeds(self, options: Options) -> Result<Multifeed<CoreFiles<S>>, StoreError> {
        Multifeed::open(self.into_files(&options.limits)?, options)
    }

    /// Closes the cores that are open, and goes on as the storage of a [`Multifeed`], as [`into_multifeeds`](Self::into_multifeeds) does.
    ///
    /// # Errors
    /// If a core cannot be closed.
    pub fn into_files(mut self, limits: &Limits) -> Result<CoreFiles<S>, StoreError> {
        for core in self.open.keys().copied().collect::<Vec<_>>() {
            self.shut(core)?;
        }
        self.limits = limits.clone();
        Ok(CoreFiles { store: self, cores: BTreeMap::new(), is_key_checked: false, none: SecretKey::default() })
    }
}

impl<S: CoreStorage> CoreFiles<S> {
    /// Returns the core that a folder's number stands for.
    pub fn core_of(&self, slot: Slot) -> Option<DiscoveryKey> {
        self.cores.get(&slot).map(|placed| placed.core)
    }

    /// Returns the storage of the corestore, to be looked at.
    pub fn storage(&self) -> &S {
        &self.store.storage
    }

    fn root(&mut self) -> KeyedFiles<'_, S::Files> {
        KeyedFiles { files: self.store.storage.files_mut(), slot: Slot::NOWHERE, secret: &mut self.none }
    }

    /// The files that one is among; `None` if its number stands for nothing.
    fn files(&mut self, file: FileId) -> Option<KeyedFiles<'_, S::Files>> {
        if file.kind.is_beside() {
            return Some(self.root());
        }
        let placed = self.cores.get_mut(&file.slot)?;
        Some(KeyedFiles { files: self.store.storage.files_mut(), slot: placed.slot, secret: &mut placed.secret })
    }

    /// As [`files`](Self::files), to be written.
    fn changed(&mut self, file: FileId) -> io::Result<KeyedFiles<'_, S::Files>> {
        if let Some(placed) = self.cores.get_mut(&file.slot).filter(|placed| placed.has_journal)
            && !file.kind.is_beside()
        {
            self.store.storage.files_mut().truncate(FileId::new(placed.slot, FileKind::Journal), 0)?;
            placed.has_journal = false;
        }
        self.files(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The cores that are open, each with its place in the corestore's storage.
    fn open_cores(&self) -> BTreeMap<DiscoveryKey, Slot> {
        self.cores.values().map(|placed| (placed.core, placed.slot)).collect()
    }

    fn inner(&self, slot: Slot) -> Option<Slot> {
        self.cores.get(&slot).map(|placed| placed.slot)
    }

    /// Writes `key` again that a power cut left torn: the folder's name tells that it is this one.
    fn mend_key(&mut self, core: DiscoveryKey, inner: Slot, key: &FeedKey) -> Result<(), CorestoreError> {
        let file = FileId::new(inner, FileKind::Key);
        let failed = |op| move |error| CorestoreError::of_core(core, StoreError::from_file(file, op, error));
        let files = self.store.storage.files_mut();
        let mut bytes = [0; 33];
        let count = files.read_at(file, 0, &mut bytes).map_err(failed("read"))?;
        let there = &bytes[..count];
        let written = there.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if count > 0 && count <= 32 && there != key.as_bytes() && key.as_bytes().starts_with(&there[..written]) {
            files.replace(file, key.as_bytes()).map_err(failed("write"))?;
        }
        Ok(())
    }

    fn place(
        &mut self,
        core: DiscoveryKey,
        inner: Slot,
        name: Option<&[u8]>,
    ) -> Result<(SecretKey, bool), CorestoreError> {
        let Keys { name: named, mut secret, has_secret_file, .. } = self.store.read_keys(core, inner)?;
        if let Some(name) = name.filter(|_| named.is_none() && !has_secret_file) {
            // Of a core with blocks, and no name, nobody knows whether all of it is here: it is not written, as in JS.
            if self.store.has_no_blocks(core, inner)? {
                let has_key = self.store.read_fixed::<32>(core, inner, FileKind::Key)?.is_some();
                self.store.make_name(core, inner, name)?;
                secret = match has_key {
                    true => SecretKey::Derived(self.store.master_key.key_pair(name).secret_key()),
                    false => SecretKey::Awaited,
                };
            }
        }
        let journal = FileId::new(inner, FileKind::Journal);
        let len = self.store.storage.files_mut().len(journal);
        let len =
            len.map_err(|error| CorestoreError::of_core(core, StoreError::from_file(journal, "look at", error)))?;
        Ok((secret, len.unwrap_or(0) > 0))
    }
}

impl<S: CoreStorage> Storage for CoreFiles<S> {
    fn is_numbered(&self) -> bool {
        false
    }

    fn assign(&mut self, slot: Slot, key: &FeedKey, name: Option<&[u8]>) -> Result<(), StoreError> {
        let core = key.discovery_key();
        let before = self.cores.get(&slot);
        if before.is_some_and(|before| before.core != core) {
            return Err(StoreError::Occupied { slot });
        }
        if before.is_some() && name.is_none() {
            return Ok(());
        }
        let assigned = self.store.storage.assign(core);
        let inner = assigned.map_err(|error| StoreError::from_store("open", error))?;
        match self.mend_key(core, inner, key).and_then(|()| self.place(core, inner, name)) {
            Ok((secret, has_journal)) => {
                self.cores.insert(slot, Placed { core, slot: inner, secret, has_journal });
                Ok(())
            }
            Err(error) => {
                self.cores.remove(&slot);
                self.store.storage.release(inner);
                Err(error.into())
            }
        }
    }

    fn restore_name(&mut self, slot: Slot, name: &[u8], to_disk: bool) -> Result<(), StoreError> {
        let Some(placed) = self.cores.get_mut(&slot) else { return Ok(()) };
        let Keys { name: named, has_secret_file, .. } = self.store.read_keys(placed.core, placed.slot)?;
        if named.is_some() || has_secret_file {
            return Ok(());
        }
        let pair = self.store.master_key.key_pair(name);
        if pair.public_key().discovery_key() != placed.core {
            return Err(CorestoreError::NameMismatch { core: placed.core, name: name.to_vec() }.into());
        }
        if to_disk {
            self.store.make_name(placed.core, placed.slot, name)?;
        }
        placed.secret = SecretKey::Derived(pair.secret_key());
        Ok(())
    }

    fn release(&mut self, slot: Slot) {
        if let Some(placed) = self.cores.remove(&slot) {
            self.store.storage.release(placed.slot);
        }
    }

    fn key_pair(&self, name: &[u8]) -> Option<KeyPair> {
        Some(self.store.master_key.key_pair(name))
    }

    fn check_master_key(&mut self) -> Result<(), StoreError> {
        if !self.is_key_checked {
            let open = self.open_cores();
            self.store.check_master_key(&open)?;
            self.is_key_checked = true;
        }
        Ok(())
    }

    fn list_cores(&mut self) -> Result<CoreList, StoreError> {
        let open = self.open_cores();
        Ok(self.store.list_beside(&open)?)
    }

    fn list(&mut self) -> io::Result<Vec<Slot>> {
        Ok(self.cores.keys().copied().collect())
    }

    fn permissions(&mut self, file: FileId) -> io::Result<Option<u32>> {
        self.files(file).map_or(Ok(None), |mut files| files.permissions(file))
    }

    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.files(file).map_or(Ok(0), |mut files| files.read_at(file, offset, buf))
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.changed(file)?.write_at(file, offset, data)
    }

    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.files(file).map_or(Ok(None), |mut files| files.len(file))
    }

    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        self.files(file).map_or(Ok(None), |mut files| files.next_data(file, offset))
    }

    fn can_punch(&self) -> bool {
        self.store.storage.files().can_punch()
    }

    fn punch(&mut self, file: FileId, range: Range<u64>) -> io::Result<()> {
        self.changed(file)?.punch(file, range)
    }

    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.changed(file)?.truncate(file, len)
    }

    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.changed(file)?.replace(file, data)
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.files(file).map_or(Ok(()), |mut files| files.sync(file))
    }

    fn check_removable(&mut self, slot: Slot) -> io::Result<()> {
        self.inner(slot).map_or(Ok(()), |inner| self.store.storage.files_mut().check_removable(inner))
    }

    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        let Some(placed) = self.cores.get(&slot) else { return Ok(()) };
        match placed.secret {
            // It is being made: what an earlier creation left goes, and not its name.
            SecretKey::Awaited => self.store.storage.files_mut().remove(placed.slot),
            _ => self.store.storage.remove(placed.slot),
        }
    }

    fn rename(&mut self, _from: Slot, _to: Slot) -> io::Result<()> {
        // A core's folder has its name from the key.
        refuse()
    }

    fn close(&mut self) -> io::Result<()> {
        self.root().close()
    }

    fn free_space(&mut self) -> io::Result<Option<u64>> {
        self.root().free_space()
    }

    fn check_place(&mut self, slot: Slot) -> io::Result<()> {
        self.inner(slot).map_or(Ok(()), |inner| self.store.storage.files_mut().check_place(inner))
    }

    fn stamp(&mut self, slot: Slot, settled: bool) -> Option<[u8; 8]> {
        let inner = self.inner(slot)?;
        self.store.storage.files_mut().stamp(inner, settled)
    }

    fn unsupported(&self) -> Unsupported {
        self.store.unsupported()
    }

    fn close_idle_files(&mut self) -> usize {
        self.root().close_idle_files()
    }
}
