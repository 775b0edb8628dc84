//! The layout of a history's store: numbered folders, or a corestore. A corestore's cores are folders of the same disk, so that its changes and syncs
//! are recorded, and cut, like any.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use multifeed_core::{
    CoreFile, CoreFolders, CoreStorage, Corestore, CorestoreOptions, FileId, FileKind, KeyPair, MasterKey, Multifeed,
    Namespace, Options, SetId, Slot, SmallFile, Storage,
};
use multifeed_proto::{DEFAULT_ROOT_KEY, DiscoveryKey, FeedKey};

/// A store that a history is made of, or that was opened after a cut.
pub(super) type Store = Multifeed<Box<dyn Storage>>;

/// The files of a core stand under its number, and its `name` under that and this one.
const NAMES: u32 = 1 << 20;

/// What a history's store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Numbered folders, as JS's multifeed has them.
    #[default]
    Folder,
    /// A corestore, as JS's corestore-multifeed has it.
    Corestore,
}

/// Which folder of the disk is which core's: in a corestore that is the folder's name, which no cut takes without the folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<BTreeMap<DiscoveryKey, Slot>>>);

impl Places {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<DiscoveryKey, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the store on a disk.
    pub(super) fn open(&self, kind: Kind, disk: impl Storage + 'static, options: Options) -> Result<(Store, SetId)> {
        if kind == Kind::Folder {
            return Ok((Multifeed::open(Box::new(disk) as Box<dyn Storage>, options)?, SetId::ALL));
        }
        let storage = Cores { files: disk, places: self.clone() };
        let mut given = CorestoreOptions::default();
        given.master_key = Some(MasterKey::new([7; 32]));
        let store = Corestore::open(storage, given, || MasterKey::new([7; 32]))?;
        let files = store.into_files(&options.limits)?;
        let mut store = Multifeed::open(Box::new(files) as Box<dyn Storage>, options)?;
        let set = store.open_root(&Namespace::root(), &DEFAULT_ROOT_KEY)?;
        Ok((store, set))
    }
}

/// One of the store's writers: each removal makes it another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    pub(super) number: u8,
    pub(super) generation: u8,
}

impl Writer {
    fn pair(self) -> KeyPair {
        KeyPair::from_seed(&[1 + self.number + 2 * self.generation; 32])
    }

    /// In a corestore the key pair comes of the name.
    fn name(self, set: SetId) -> String {
        match set {
            SetId::ALL => format!("w{}", self.number),
            _ => format!("w{} {}", self.number, self.generation),
        }
    }

    pub(super) fn key(self, store: &Store, set: SetId) -> Result<FeedKey> {
        match set {
            SetId::ALL => Ok(self.pair().public_key()),
            _ => Ok(store.writer_key_in(set, Some(&self.name(set)))?),
        }
    }

    /// The writer, found or made.
    pub(super) fn open(self, store: &mut Store, set: SetId) -> Result<multifeed_core::FeedId> {
        let name = self.name(set);
        match set {
            SetId::ALL => Ok(store.writer(Some(&name), || self.pair())?),
            _ => Ok(store.writer_in(set, Some(&name))?),
        }
    }
}

struct Cores<S> {
    files: S,
    places: Places,
}

fn name_of(slot: Slot) -> FileId {
    FileId::new(Slot(slot.0 + NAMES), FileKind::LocalName)
}

impl<S: Storage> CoreStorage for Cores<S> {
    type Files = S;

    fn files(&self) -> &S {
        &self.files
    }

    fn files_mut(&mut self) -> &mut S {
        &mut self.files
    }

    fn assign(&mut self, core: DiscoveryKey) -> io::Result<Slot> {
        let mut places = self.places.lock();
        let next = Slot(u32::try_from(places.len()).unwrap_or(NAMES));
        Ok(*places.entry(core).or_insert(next))
    }

    fn release(&mut self, _slot: Slot) {}

    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.files.remove(slot)?;
        self.files.remove(name_of(slot).slot)
    }

    fn folders(&mut self, max: usize) -> io::Result<CoreFolders> {
        let there = self.files.list()?;
        let is_there = |slot: &Slot| there.contains(slot) || there.contains(&name_of(*slot).slot);
        let places = self.places.lock();
        let mut cores: Vec<_> = places.iter().filter(|(_, slot)| is_there(slot)).map(|(core, _)| *core).collect();
        let more = cores.len() > max;
        cores.truncate(max);
        Ok(CoreFolders { cores, obstacles: Vec::new(), more })
    }

    fn has_name(&mut self, _slot: Slot, _name: &str) -> io::Result<bool> {
        Ok(false)
    }

    fn read_file(&mut self, file: CoreFile, max: usize) -> io::Result<Option<SmallFile>> {
        let Some(file) = file.slot().map(name_of) else { return Ok(None) };
        let Some(len) = self.files.len(file)? else { return Ok(None) };
        let mut bytes = vec![0; max.min(usize::try_from(len).unwrap_or(max))];
        let count = self.files.read_at(file, 0, &mut bytes)?;
        bytes.truncate(count);
        Ok(Some(SmallFile { bytes: bytes.into(), len, mode: None }))
    }

    fn make_file(&mut self, file: CoreFile, bytes: &[u8]) -> io::Result<()> {
        let file = file.slot().map(name_of).ok_or(io::ErrorKind::Unsupported)?;
        if self.files.len(file)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.files.replace(file, bytes)
    }
}
