//! A disk that outlives its store.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use multifeed_core::{FileId, MemoryStorage, Slot, Storage};

/// A disk that stays when the store on it is dropped.
#[derive(Clone, Debug, Default)]
pub struct SharedDisk(Arc<Mutex<MemoryStorage>>);

impl From<MemoryStorage> for SharedDisk {
    fn from(disk: MemoryStorage) -> Self {
        Self(Arc::new(Mutex::new(disk)))
    }
}

impl SharedDisk {
    /// The disk itself. The store's own calls wait as long as this is held.
    pub fn lock(&self) -> MutexGuard<'_, MemoryStorage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk of its own with what this one holds now, as a new process finds it.
    pub fn snapshot(&self) -> MemoryStorage {
        let mut disk = self.lock().clone();
        disk.reopen();
        disk
    }
}

impl Storage for SharedDisk {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.lock().list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.lock().read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.lock().write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.lock().len(file)
    }
    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        self.lock().next_data(file, offset)
    }
    fn can_punch(&self) -> bool {
        self.lock().can_punch()
    }
    fn punch(&mut self, file: FileId, range: Range<u64>) -> io::Result<()> {
        self.lock().punch(file, range)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.lock().truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.lock().replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.lock().sync(file)
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.lock().remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.lock().rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        self.lock().close()
    }
}
