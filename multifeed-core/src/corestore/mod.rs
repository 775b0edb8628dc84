//! A corestore: any number of cores in one folder, their key pairs derived from one master key, as corestore 5 keeps them.
//!
//! # The folder
//!
//! | file | what it is |
//! |---|---|
//! | `master_key` | 32 bytes. Not there if the application gives the master key |
//! | `ab/cd/abcd…/` | a core, by its discovery key in hex |
//! | `…/key` | its public key, 32 bytes |
//! | `…/name` | what its key pair is derived from, with its length in front; only in cores that are written here |
//! | `…/secret_key` | its secret key, 64 bytes, if it was made with a key pair of its own |
//! | `…/{bitfield,data,signatures,tree}` | the feed, as hypercore 9 has it |
//! | `…/multifeed.journal` | ours, and not looked at by JS: what is known to be whole of a core that was changed here |
//!
//! The rules are those of corestore 5.8.2 (`index.js`), derived-key-storage 2.1.0 and derive-key 1.0.1.
//!
//! # Other than JS
//!
//! - A core that was asked for by its key leaves nothing on the disk until it has a block. JS makes its folder.
//! - A `master_key` that is short or gone is an error. JS makes a new one in its place, and every `name` then derives another key.
//! - A `name` that is torn is an error. JS opens the core as one that cannot be written.
//! - [`list`](Corestore::list) gives what is on the disk. JS lists what it opened.
//! - [`close`](Corestore::close) ends it. In JS `get` opens cores again after `close`.
//! - `master_key` and `name` are for their owner alone (mode 0600). JS has the process's default, mostly 0644:
//!   [`master_key_mode`](Corestore::master_key_mode) reports it.
//!
//! # After a crash
//!
//! If the process is killed, acknowledged writes survive. A power cut may take what was written since the last [`sync`](Corestore::sync), which
//! [`close`](Corestore::close) does too. A core that was not closed is checked from there on when it is opened, and what was torn is repaired.

mod core_files;
mod feed_list;
mod keyed_files;
mod list;
mod master_key;
mod name;
mod open_core;
mod opening;

use std::collections::{BTreeMap, VecDeque};

use multifeed_proto::{DiscoveryKey, FeedKey};

use crate::KeyPair;
use crate::error::{CorestoreError, StoreError};
use crate::limits::Limits;
use crate::storage::{CoreFile, CoreStorage, Storage, Unsupported};

pub use core_files::CoreFiles;
pub use feed_list::{FeedList, NamedFeed};
pub use master_key::MasterKey;
pub use name::Namespace;
pub use open_core::{Core, CoreInfo};

use open_core::OpenCore;
use opening::Asked;

/// How a [`Corestore`] is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CorestoreOptions {
    /// The master key. If it is given, `master_key` is neither read nor written, as in JS. By default the file's is used, or a new one made.
    pub master_key: Option<MasterKey>,
    /// The bounds: [`cores_open`](Limits::cores_open), [`cores_listed`](Limits::cores_listed), [`core_name_bytes`](Limits::core_name_bytes),
    /// and those of feeds.
    pub limits: Limits,
}

/// A corestore: cores by name and by key, opened when they are used.
///
/// A core is a [`Feed`](crate::Feed). It is lent as a [`Core`] for one call after another, and closed again when
/// [`Limits::cores_open`] others were used since.
///
/// ```
/// use multifeed_core::{Corestore, CorestoreOptions, MasterKey, MemoryCoreStorage, Namespace};
///
/// # fn main() -> Result<(), multifeed_core::CorestoreError> {
/// // `FileCoreStorage::open("./db")` for a folder; a new master key is random.
/// let storage = MemoryCoreStorage::new();
/// let mut store = Corestore::open(storage, CorestoreOptions::default(), || MasterKey::new([7; 32]))?;
///
/// let mut chat = store.named("chat")?;
/// chat.append(&["hello".into()])?;
/// assert_eq!(chat.block(0)?.as_deref(), Some(&b"hello"[..]));
/// let key = chat.info().key;
///
/// let mut notes = store.default_core(&Namespace::root().namespace("notes"))?;
/// notes.append(&["a note".into()])?;
///
/// assert_eq!(store.get(&key)?.info().len, 1);
/// assert_eq!(store.list()?.cores.len(), 2);
/// store.close()
/// # }
/// ```
#[derive(Debug)]
pub struct Corestore<S> {
    storage: S,
    master_key: MasterKey,
    master_key_mode: Option<u32>,
    limits: Limits,
    open: BTreeMap<DiscoveryKey, OpenCore>,
    /// Those that are open, by when they were used last.
    order: BTreeMap<u64, DiscoveryKey>,
    /// When the last one was used.
    clock: u64,
    /// Those that keep what was read of their files, the one that began first in front.
    in_use: VecDeque<DiscoveryKey>,
    /// Bytes that wait to be written, of all cores.
    staged_bytes: usize,
}

impl<S: CoreStorage> Corestore<S> {
    /// Opens a corestore. `new_master_key` is called if the folder is new and the options give no master key; it is then written, and fsynced.
    ///
    /// No core is opened.
    ///
    /// # Errors
    /// [`CorestoreError::MasterKeyDamaged`] if `master_key` has not 32 bytes, or only zeros, as a torn write leaves them;
    /// [`CorestoreError::MasterKeyMissing`] if there are cores without it; else the storage's error.
    pub fn open(
        mut storage: S,
        options: CorestoreOptions,
        new_master_key: impl FnOnce() -> MasterKey,
    ) -> Result<Self, CorestoreError> {
        let failed = |op| move |error| CorestoreError::from(StoreError::from_store(op, error));
        let mut master_key_mode = None;
        let master_key = match options.master_key {
            Some(given) => given,
            None => match storage.read_file(CoreFile::MasterKey, MasterKey::BYTES).map_err(failed("read"))? {
                Some(file) => {
                    master_key_mode = file.mode;
                    match <[u8; MasterKey::BYTES]>::try_from(&file.bytes[..]) {
                        Ok(bytes) if file.len == MasterKey::BYTES as u64 && bytes != [0; 32] => MasterKey::new(bytes),
                        Ok(_) if file.len == MasterKey::BYTES as u64 => {
                            let why = "it has nothing but zeros".to_owned();
                            return Err(CorestoreError::MasterKeyDamaged { why });
                        }
                        _ => {
                            let why = format!("it has {} bytes, where {} belong", file.len, MasterKey::BYTES);
                            return Err(CorestoreError::MasterKeyDamaged { why });
                        }
                    }
                }
                None => {
                    let folders = storage.folders(0).map_err(failed("list"))?;
                    if folders.more {
                        return Err(CorestoreError::MasterKeyMissing);
                    }
                    let new = new_master_key();
                    storage.make_file(CoreFile::MasterKey, new.as_bytes()).map_err(failed("write"))?;
                    new
                }
            },
        };
        Ok(Self {
            storage,
            master_key,
            master_key_mode,
            limits: options.limits,
            open: BTreeMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            in_use: VecDeque::new(),
            staged_bytes: 0,
        })
    }

    /// Returns the core of a name, made if it is missing: its key pair is derived from the master key and the name. It does not depend on a
    /// namespace.
    ///
    /// A name is bytes; JS encodes text as UTF-8, and draws 32 random bytes if it is given no name. A core that has blocks and no `name`, as one
    /// that was fetched by its key, is not written to, as in JS.
    ///
    /// # Errors
    /// [`CorestoreError::BadName`]; if the core's folder cannot be used; if writing fails.
    pub fn named(&mut self, name: impl AsRef<[u8]>) -> Result<Core<'_, S>, CorestoreError> {
        let name = name.as_ref();
        if name.is_empty() || name.len() > self.limits.core_name_bytes {
            return Err(CorestoreError::BadName { size: name.len(), max: self.limits.core_name_bytes });
        }
        let pair = self.master_key.key_pair(name);
        self.core(pair.public_key().discovery_key(), Asked::Name { name, pair: &pair })
    }

    /// Returns the default core of a namespace, made if it is missing; that of the corestore itself for [`Namespace::root`].
    ///
    /// # Errors
    /// As [`named`](Self::named).
    pub fn default_core(&mut self, namespace: &Namespace) -> Result<Core<'_, S>, CorestoreError> {
        self.named(namespace.default_name())
    }

    /// Returns the core of a key pair, made if it is missing. Its secret key is written to `secret_key`. A core that has blocks and no secret
    /// key is not written to, as in JS.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn with_key_pair(&mut self, pair: &KeyPair) -> Result<Core<'_, S>, CorestoreError> {
        self.core(pair.public_key().discovery_key(), Asked::Pair(pair))
    }

    /// Returns the core of a key. If it is not here, nothing is made on the disk before it has a block; [`CoreInfo::on_disk`] tells.
    ///
    /// # Errors
    /// If the core's folder cannot be used: see [`CorestoreError`]. Nothing in it was changed.
    pub fn get(&mut self, key: &FeedKey) -> Result<Core<'_, S>, CorestoreError> {
        self.core(key.discovery_key(), Asked::Key(*key))
    }

    /// Returns the core of a discovery key, if it is here.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn find(&mut self, core: &DiscoveryKey) -> Result<Option<Core<'_, S>>, CorestoreError> {
        Ok(if self.prepare(*core, Asked::Folder)? { self.lend(*core) } else { None })
    }

    /// Returns whether a core is open now.
    pub fn is_open(&self, core: &DiscoveryKey) -> bool {
        self.open.contains_key(core)
    }

    /// Returns how many cores are open now.
    pub fn open_cores(&self) -> usize {
        self.open.len()
    }

    /// Returns the storage, to be looked at.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Returns the permission bits of `master_key` (`0o777`) when it was read: if others than its owner may read it, they can write all named cores.
    /// `None` if it was not read, or the storage has no permissions.
    pub fn master_key_mode(&self) -> Option<u32> {
        self.master_key_mode
    }

    /// Returns what the disk turned out not to support, as far as it was tried.
    pub fn unsupported(&self) -> Unsupported {
        self.storage.files().unsupported()
    }

    /// Writes what waits to be written, of all cores.
    ///
    /// # Errors
    /// The first failure. What failed still waits, and the next call tries again; the other cores were written.
    pub fn flush(&mut self) -> Result<(), CorestoreError> {
        self.each_open(|core| core.flush())
    }

    /// Writes what waits to be written, and fsyncs all that was written since the last call, so that it outlives a power cut.
    ///
    /// # Errors
    /// The first failure. Nobody knows then what of that core is on the disk.
    pub fn sync(&mut self) -> Result<(), CorestoreError> {
        self.each_open(|core| core.sync())
    }

    /// Closes all cores, and the storage with its locks: writes and [syncs](Self::sync) first.
    ///
    /// # Errors
    /// As [`sync`](Self::sync), and what closing says. All is closed nevertheless.
    pub fn close(self) -> Result<(), CorestoreError> {
        self.close_and_keep().0
    }

    /// As [`close`](Self::close), and gives the storage back.
    pub fn close_and_keep(mut self) -> (Result<(), CorestoreError>, S) {
        let synced = self.each_open(|core| core.finish());
        let closed = self.storage.files_mut().close().map_err(|error| StoreError::from_store("close", error).into());
        (synced.and(closed), self.storage)
    }

    fn core(&mut self, core: DiscoveryKey, asked: Asked<'_>) -> Result<Core<'_, S>, CorestoreError> {
        self.prepare(core, asked)?;
        let missing = || CorestoreError::damaged(core, "key", "it is missing");
        self.lend(core).ok_or_else(missing)
    }

    fn lend(&mut self, core: DiscoveryKey) -> Option<Core<'_, S>> {
        let Self { open, storage, limits, staged_bytes, .. } = self;
        open.get_mut(&core).map(|open| Core { core, open, storage, limits, staged_bytes })
    }

    /// Does this with each open core; the first error.
    fn each_open(
        &mut self,
        mut call: impl FnMut(&mut Core<'_, S>) -> Result<(), CorestoreError>,
    ) -> Result<(), CorestoreError> {
        let mut result = Ok(());
        for core in self.open.keys().copied().collect::<Vec<_>>() {
            let called = self.lend(core).map_or(Ok(()), |mut core| call(&mut core));
            result = result.and(called);
        }
        result
    }
}
