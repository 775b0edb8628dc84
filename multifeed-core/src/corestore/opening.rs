//! Opening cores: a bounded number of them, each only if its folder is what it must be.

use multifeed_proto::{DiscoveryKey, FeedKey};

use super::Corestore;
use super::keyed_files::{HERE, KeyedFiles, SecretKey};
use super::name;
use super::open_core::{Core, OpenCore};
use crate::KeyPair;
use crate::cores::journal::{Checkpoint, Journal};
use crate::error::{CorestoreError, StoreError};
use crate::feed::{Feed, Opening};
use crate::keys::signer::Signers;
use crate::merkle;
use crate::storage::other_store::OtherStore;
use crate::storage::{CoreFile, CoreStorage, FileId, FileKind, Slot, Storage};

/// How a core is asked for.
#[derive(Clone, Copy)]
pub(super) enum Asked<'a> {
    /// By its folder's name: only if it is here.
    Folder,
    /// By its key.
    Key(FeedKey),
    /// By its key pair.
    Pair(&'a KeyPair),
    /// By the name that this key pair is derived from.
    Name { name: &'a [u8], pair: &'a KeyPair },
}

/// What a core's folder says of its keys.
pub(super) struct Keys {
    pub(super) key: Option<FeedKey>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) secret: SecretKey,
    pub(super) has_secret_file: bool,
}

impl<S: CoreStorage> Corestore<S> {
    /// Has a core open, and others closed for it; whether it is here, which only one that is asked for by its folder may not be.
    pub(super) fn prepare(&mut self, core: DiscoveryKey, asked: Asked<'_>) -> Result<bool, CorestoreError> {
        let same = |open: &OpenCore| match asked {
            // It was read before it had its keys, and nothing is in it: it gets them.
            Asked::Pair(_) | Asked::Name { .. } => open.feed.writable() || !open.feed.is_empty(),
            Asked::Folder => open.feed.is_settled(),
            Asked::Key(_) => true,
        };
        match self.open.get(&core) {
            Some(open) if same(open) => {}
            Some(_) if matches!(asked, Asked::Folder) => return Ok(false),
            open => {
                if open.is_some() {
                    self.shut(core)?;
                }
                self.make_room()?;
                let slot = self.storage.assign(core).map_err(|error| StoreError::from_store("open", error))?;
                match self.open_core(core, slot, asked) {
                    Ok(Some(open)) => _ = self.open.insert(core, open),
                    other => {
                        self.storage.release(slot);
                        return other.map(|_| false);
                    }
                }
            }
        }
        self.begin_use(core);
        Ok(true)
    }

    /// Notes that a core is used: it is the last to be closed, and keeps what is read of its files. Another one may have to rest for it.
    fn begin_use(&mut self, core: DiscoveryKey) {
        let Some(open) = self.open.get_mut(&core) else { return };
        self.clock += 1;
        self.order.remove(&open.used);
        open.used = self.clock;
        self.order.insert(self.clock, core);
        if !std::mem::replace(&mut open.in_use, true) {
            self.in_use.push_back(core);
        }
        while self.in_use.len() > self.limits.feeds_in_use.max(1)
            && let Some(oldest) = self.in_use.pop_front()
        {
            if let Some(open) = self.open.get_mut(&oldest) {
                open.in_use = false;
                open.feed.trim();
            }
        }
    }

    /// Closes the cores that were used longest ago, if as many are open as may be. One that cannot be written stays open, and the next is tried.
    fn make_room(&mut self) -> Result<(), CorestoreError> {
        if self.open.len() < self.limits.cores_open.max(1) {
            return Ok(());
        }
        let mut result = Ok(());
        for core in self.order.values().copied().collect::<Vec<_>>() {
            if self.open.len() < self.limits.cores_open.max(1) {
                return Ok(());
            }
            result = self.shut(core);
        }
        if self.open.len() < self.limits.cores_open.max(1) { Ok(()) } else { result }
    }

    /// Closes a core, written, fsynced and whole.
    pub(super) fn shut(&mut self, core: DiscoveryKey) -> Result<(), CorestoreError> {
        self.lend(core).map_or(Ok(()), |mut core: Core<'_, S>| core.finish())?;
        if let Some(open) = self.open.remove(&core) {
            self.order.remove(&open.used);
            self.in_use.retain(|other| *other != core);
            self.staged_bytes = self.staged_bytes.saturating_sub(open.feed.staged_bytes());
            self.storage.release(open.slot);
        }
        Ok(())
    }

    /// Opens or makes a core in its folder; `None` if that is none, and was asked for by its own name.
    fn open_core(
        &mut self,
        core: DiscoveryKey,
        slot: Slot,
        asked: Asked<'_>,
    ) -> Result<Option<OpenCore>, CorestoreError> {
        let Keys { key, mut name, mut secret, has_secret_file } = self.read_keys(core, slot)?;
        let failed = |error| CorestoreError::of_core(core, error);
        let limits = self.limits.clone();
        let mut journal = Journal::read(&mut self.keyed(slot, &mut secret), &limits).map_err(failed)?;
        let is_new = key.is_none() && Feed::is_vacant(&mut self.keyed(slot, &mut secret), HERE).map_err(failed)?;
        let unnamed = name.is_none() && !has_secret_file;
        // JS makes `key` first: one that has nothing else may be cut short, and has no block that anybody signed.
        let is_empty = unnamed && (is_new || self.has_no_blocks(core, slot)?);

        let feed = match asked {
            Asked::Folder if key.is_none() && unnamed => return Ok(None),
            Asked::Key(key) if is_new && unnamed => Feed::offered(key),
            Asked::Name { name: asked, pair } if is_empty => {
                self.make_name(core, slot, asked)?;
                name = Some(asked.to_vec());
                if is_new {
                    secret = SecretKey::Awaited;
                    self.create(slot, pair, &mut secret, &mut journal).map_err(failed)?
                } else {
                    secret = SecretKey::Derived(pair.secret_key());
                    self.open_feed(slot, &mut secret, &journal).map_err(failed)?
                }
            }
            Asked::Pair(pair) if is_empty && is_new => {
                self.create(slot, pair, &mut secret, &mut journal).map_err(failed)?
            }
            Asked::Pair(pair) if is_empty => {
                let file = FileId::new(slot, FileKind::SecretKey);
                let written = self.storage.files_mut().replace(file, &*pair.secret_key());
                written.map_err(|error| failed(StoreError::from_file(file, "write", error)))?;
                self.open_feed(slot, &mut secret, &journal).map_err(failed)?
            }
            // Its creation was cut short after `name`.
            _ if is_new && name.is_some() => {
                let pair = name.as_ref().map(|name| self.master_key.key_pair(name));
                let Some(pair) = pair else { return Ok(None) };
                secret = SecretKey::Awaited;
                self.create(slot, &pair, &mut secret, &mut journal).map_err(failed)?
            }
            _ if key.is_none() && unnamed => {
                return Err(CorestoreError::of_core(core, StoreError::Occupied { slot }));
            }
            _ => self.open_feed(slot, &mut secret, &journal).map_err(failed)?,
        };
        // What was made or repaired is not fsynced yet.
        let made = feed.is_settled() && (is_new || (is_empty && !matches!(asked, Asked::Key(_) | Asked::Folder)));
        let unsynced = made || feed.recovered().is_some() || journal.is_open();
        Ok(Some(OpenCore { feed, slot, name, secret, journal, used: 0, in_use: false, unsynced, failed: None }))
    }

    /// Reads and checks a core's keys. Nothing is written, and no other store's folder is taken for a core.
    pub(super) fn read_keys(&mut self, core: DiscoveryKey, slot: Slot) -> Result<Keys, CorestoreError> {
        let failed = |error| CorestoreError::of_core(core, StoreError::from_slot(slot, "look at", error));
        let other =
            OtherStore::recognise_core(&format!("the folder of core {core}"), |name| self.storage.has_name(slot, name));
        if let Some(other) = other.map_err(failed)? {
            return Err(CorestoreError::OtherStore(other));
        }
        let key = self.read_fixed::<32>(core, slot, FileKind::Key)?.map(FeedKey::new);
        if key.is_some_and(|key| key.discovery_key() != core) {
            return Err(CorestoreError::damaged(core, "key", "it is that of another core"));
        }
        let name = self.read_name(core, slot)?;
        let (mut secret, mut has_secret_file) = (SecretKey::Stored, false);
        if let Some(name) = &name {
            let pair = self.master_key.key_pair(name);
            if pair.public_key().discovery_key() != core {
                return Err(CorestoreError::NameMismatch { core, name: name.clone() });
            }
            secret = SecretKey::Derived(pair.secret_key());
        } else if let Some(bytes) = self.read_fixed::<64>(core, slot, FileKind::SecretKey)? {
            let damaged = |why| CorestoreError::damaged(core, "secret_key", why);
            let pair = KeyPair::from_secret_key(&zeroize::Zeroizing::new(bytes));
            let pair = pair.map_err(|_| damaged("its two halves do not belong together"))?;
            if pair.public_key().discovery_key() != core {
                return Err(damaged("it is that of another core"));
            }
            has_secret_file = true;
        }
        Ok(Keys { key, name, secret, has_secret_file })
    }

    /// What is in a core's `name`.
    pub(super) fn read_name(&mut self, core: DiscoveryKey, slot: Slot) -> Result<Option<Vec<u8>>, CorestoreError> {
        let max = name::file_bytes(self.limits.core_name_bytes);
        let read = self.storage.read_file(CoreFile::Name(slot), max);
        let read = read.map_err(|error| CorestoreError::of_core(core, StoreError::from_slot(slot, "read", error)))?;
        let Some(file) = read else { return Ok(None) };
        let name = name::decode(&file.bytes).filter(|_| file.len == file.bytes.len() as u64);
        let why = || {
            let (len, max) = (file.len, self.limits.core_name_bytes);
            format!("its {len} bytes are not a length and a name of 1 to {max} bytes")
        };
        name.map(|name| Some(name.to_vec())).ok_or_else(|| CorestoreError::damaged(core, "name", why()))
    }

    /// A file of exactly so many bytes; `None` if it is absent, or empty, as a crash may leave it.
    pub(super) fn read_fixed<const N: usize>(
        &mut self,
        core: DiscoveryKey,
        slot: Slot,
        kind: FileKind,
    ) -> Result<Option<[u8; N]>, CorestoreError> {
        let file = FileId::new(slot, kind);
        let failed = |error| CorestoreError::of_core(core, StoreError::from_file(file, "read", error));
        let files = self.storage.files_mut();
        let len = files.len(file).map_err(failed)?.unwrap_or(0);
        let mut bytes = [0; N];
        if len == 0 {
            return Ok(None);
        }
        if len != N as u64 || files.read_at(file, 0, &mut bytes).map_err(failed)? != N {
            return Err(CorestoreError::damaged(core, kind.name(), format!("it has {len} bytes, where {N} belong")));
        }
        Ok(Some(bytes))
    }

    /// Whether a core's folder has nothing of any block.
    pub(super) fn has_no_blocks(&mut self, core: DiscoveryKey, slot: Slot) -> Result<bool, CorestoreError> {
        for (kind, most) in
            [(FileKind::Data, 0), (FileKind::Tree, 32), (FileKind::Signatures, 32), (FileKind::Bitfield, 32)]
        {
            let file = FileId::new(slot, kind);
            let len = self.storage.files_mut().len(file);
            let len = len.map_err(|error| CorestoreError::of_core(core, StoreError::from_file(file, "look at", error)));
            if len?.unwrap_or(0) > most {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn make_name(&mut self, core: DiscoveryKey, slot: Slot, name: &[u8]) -> Result<(), CorestoreError> {
        let made = self.storage.make_file(CoreFile::Name(slot), &name::encode(name));
        made.map_err(|error| CorestoreError::of_core(core, StoreError::from_slot(slot, "make `name` in", error)))
    }

    /// Makes the feed of a core that is written here. The journal has to know it first, or else after a crash it would be taken for one of
    /// somebody else's.
    fn create(
        &mut self,
        slot: Slot,
        pair: &KeyPair,
        secret: &mut SecretKey,
        journal: &mut Journal,
    ) -> Result<Feed, StoreError> {
        let mut files = self.keyed(slot, secret);
        journal.begin(&mut files, HERE.0, true)?;
        let mut mark = Checkpoint::new(&pair.public_key(), 0, &merkle::root_hash(&[]));
        mark.synced = true;
        journal.note(HERE, mark);
        journal.write(&mut files, true)?;
        Feed::create(&mut files, HERE, pair.public_key(), Some(pair), None)
    }

    fn open_feed(&mut self, slot: Slot, secret: &mut SecretKey, journal: &Journal) -> Result<Feed, StoreError> {
        let mut opening = Opening::new(&self.limits, &Signers::default());
        let feed = Feed::open_known(&mut self.keyed(slot, secret), HERE, journal, &mut opening)?;
        opening.unread.pop().map_or(Ok(feed), Err)
    }

    fn keyed<'a>(&'a mut self, slot: Slot, secret: &'a mut SecretKey) -> KeyedFiles<'a, S::Files> {
        KeyedFiles { files: self.storage.files_mut(), slot, secret }
    }
}
