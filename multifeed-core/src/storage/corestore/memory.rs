//! A corestore in memory.

use std::collections::BTreeMap;
use std::io;

use multifeed_proto::DiscoveryKey;
use zeroize::Zeroizing;

use super::{CoreFile, CoreFolders, CoreStorage, SmallFile};
use crate::storage::{FileId, FileKind, MemoryStorage, Slot, Storage};

/// A corestore in memory: for tests, and for cores that need not outlive the process.
#[derive(Debug, Clone, Default)]
pub struct MemoryCoreStorage {
    files: MemoryStorage,
    cores: BTreeMap<DiscoveryKey, Slot>,
    master_key: Option<Zeroizing<Vec<u8>>>,
    names: BTreeMap<Slot, Vec<u8>>,
    next: u32,
}

impl MemoryCoreStorage {
    /// Returns an empty corestore.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the corestore again after it was closed, as a new process would.
    pub fn reopen(&mut self) {
        self.files.reopen();
    }

    fn is_empty(&mut self, slot: Slot) -> bool {
        !self.names.contains_key(&slot) && !self.files.list().is_ok_and(|slots| slots.contains(&slot))
    }
}

impl CoreStorage for MemoryCoreStorage {
    type Files = MemoryStorage;

    fn files(&self) -> &MemoryStorage {
        &self.files
    }

    fn files_mut(&mut self) -> &mut MemoryStorage {
        &mut self.files
    }

    fn assign(&mut self, core: DiscoveryKey) -> io::Result<Slot> {
        let next = Slot(self.next);
        let slot = *self.cores.entry(core).or_insert(next);
        self.next += u32::from(slot == next);
        Ok(slot)
    }

    fn release(&mut self, slot: Slot) {
        if self.is_empty(slot) {
            self.cores.retain(|_, number| *number != slot);
        }
    }

    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.files.lose(FileId::new(slot, FileKind::Journal));
        self.names.remove(&slot);
        self.files.remove(slot)
    }

    fn folders(&mut self, max: usize) -> io::Result<CoreFolders> {
        let mut cores: Vec<DiscoveryKey> = Vec::new();
        for (core, slot) in self.cores.clone() {
            if !self.is_empty(slot) {
                cores.push(core);
            }
        }
        let more = cores.len() > max;
        cores.truncate(max);
        Ok(CoreFolders { cores, obstacles: Vec::new(), more })
    }

    fn has_name(&mut self, _slot: Slot, _name: &str) -> io::Result<bool> {
        Ok(false)
    }

    fn read_file(&mut self, file: CoreFile, max: usize) -> io::Result<Option<SmallFile>> {
        let bytes = match file {
            CoreFile::MasterKey => self.master_key.as_deref(),
            CoreFile::Name(slot) => self.names.get(&slot),
        };
        Ok(bytes.map(|bytes| SmallFile {
            bytes: Zeroizing::new(bytes[..bytes.len().min(max)].to_vec()),
            len: bytes.len() as u64,
            mode: None,
        }))
    }

    fn make_file(&mut self, file: CoreFile, bytes: &[u8]) -> io::Result<()> {
        if self.read_file(file, 0)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        match file {
            CoreFile::MasterKey => self.master_key = Some(Zeroizing::new(bytes.to_vec())),
            CoreFile::Name(slot) => _ = self.names.insert(slot, bytes.to_vec()),
        }
        Ok(())
    }
}
