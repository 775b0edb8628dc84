//! A storage that cannot be written, with what opening it repairs in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use multifeed_proto::FeedKey;

use super::{FileId, FileKind, Slot, Storage, Unsupported};
use crate::KeyPair;
use crate::error::{StoreError, is_unreadable};
use crate::storage::core_list::CoreList;

/// Bytes of a file that are kept in memory together.
const PAGE: usize = 4096;
/// The most bytes that are kept in memory: marks, roots and signatures. What has to be repaired beyond that cannot be.
const MAX_BYTES: usize = 64 << 20;

/// A storage that is only read, though its store was not closed, or is open in another process. What [`Multifeed::open`](crate::Multifeed::open)
/// sets right in it stays in memory, up to 64 MiB, and is gone with it. Once the store is open every write fails.
#[derive(Debug)]
pub struct RepairedInMemory<S> {
    storage: S,
    files: BTreeMap<FileId, Layer>,
    /// Folders that count as removed.
    gone: BTreeSet<Slot>,
    bytes: usize,
    opened: bool,
}

/// A file with its repair.
#[derive(Debug)]
struct Layer {
    len: u64,
    /// As far as the storage's own bytes count.
    base: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl<S: Storage> RepairedInMemory<S> {
    /// Wraps a storage, which is then not written.
    pub fn new(storage: S) -> Self {
        Self { storage, files: BTreeMap::new(), gone: BTreeSet::new(), bytes: 0, opened: false }
    }

    /// Whether anything was written or removed.
    pub(crate) fn is_repaired(&self) -> bool {
        !self.files.is_empty() || !self.gone.is_empty()
    }

    fn is_gone(&self, file: FileId) -> bool {
        !file.kind.is_beside() && self.gone.contains(&file.slot)
    }

    fn check(&self) -> io::Result<()> {
        if self.opened { Err(read_only()) } else { Ok(()) }
    }

    fn take(&mut self, bytes: usize) -> io::Result<()> {
        if self.bytes + bytes > MAX_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "there is more to repair than fits in memory",
            ));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Returns the file with its repair: until now, the file as it is.
    fn layer(&mut self, file: FileId) -> io::Result<&mut Layer> {
        if !self.files.contains_key(&file) {
            let len = if self.is_gone(file) { 0 } else { self.storage.len(file)?.unwrap_or(0) };
            self.files.insert(file, Layer { len, base: len, pages: BTreeMap::new() });
        }
        self.files.get_mut(&file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Reads what the storage has, and zeros past that.
    fn read_base(&mut self, file: FileId, base: u64, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        let there = usize::try_from(base.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        if there > 0 {
            self.storage.read_at(file, offset, &mut buf[..there])?;
        }
        Ok(())
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the store is opened for reading alone")
}

impl<S: Storage> Storage for RepairedInMemory<S> {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        let mut slots = self.storage.list()?;
        slots.retain(|slot| !self.gone.contains(slot));
        Ok(slots)
    }

    fn obstacles(&mut self) -> io::Result<Vec<Slot>> {
        self.storage.obstacles()
    }

    fn is_numbered(&self) -> bool {
        self.storage.is_numbered()
    }

    fn assign(&mut self, slot: Slot, key: &FeedKey, name: Option<&[u8]>) -> Result<(), StoreError> {
        self.storage.assign(slot, key, name)
    }

    fn restore_name(&mut self, slot: Slot, name: &[u8], _to_disk: bool) -> Result<(), StoreError> {
        self.storage.restore_name(slot, name, false)
    }

    fn release(&mut self, slot: Slot) {
        self.storage.release(slot);
    }

    fn key_pair(&self, name: &[u8]) -> Option<KeyPair> {
        self.storage.key_pair(name)
    }

    fn check_master_key(&mut self) -> Result<(), StoreError> {
        self.storage.check_master_key()
    }

    fn list_cores(&mut self) -> Result<CoreList, StoreError> {
        self.storage.list_cores()
    }

    fn permissions(&mut self, file: FileId) -> io::Result<Option<u32>> {
        self.storage.permissions(file)
    }

    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let Some((len, base)) = self.files.get(&file).map(|layer| (layer.len, layer.base)) else {
            return if self.is_gone(file) { Ok(0) } else { self.storage.read_at(file, offset, buf) };
        };
        let count = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let buf = &mut buf[..count];
        if count == 0 {
            return Ok(0);
        }
        let (first, last) = (offset / PAGE as u64, (offset + count as u64 - 1) / PAGE as u64);
        let kept = self.files.get(&file).map_or(0, |layer| layer.pages.range(first..=last).count());
        // What is all in memory need not be readable.
        if (kept as u64) < last - first + 1 {
            self.read_base(file, base, offset, buf)?;
        }
        let Some(layer) = self.files.get(&file) else { return Ok(count) };
        for (&number, page) in layer.pages.range(first..=last) {
            let start = number * PAGE as u64;
            let (from, to) = (start.max(offset), (start + PAGE as u64).min(offset + count as u64));
            let bytes = &page[(from - start) as usize..(to - start) as usize];
            buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(bytes);
        }
        Ok(count)
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let base = self.layer(file)?.base;
        let mut done = 0;
        while done < data.len() {
            let at = offset.checked_add(done as u64).ok_or(io::ErrorKind::FileTooLarge)?;
            let (number, within) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let count = (PAGE - within).min(data.len() - done);
            if !self.layer(file)?.pages.contains_key(&number) {
                self.take(PAGE)?;
                let mut page = Box::new([0; PAGE]);
                match self.read_base(file, base, number * PAGE as u64, &mut page[..]) {
                    // What the disk does not give beside what is made again counts as zeros.
                    Err(error) if is_unreadable(&error) => page.fill(0),
                    read => read?,
                }
                self.layer(file)?.pages.insert(number, page);
            }
            let layer = self.layer(file)?;
            if let Some(page) = layer.pages.get_mut(&number) {
                page[within..within + count].copy_from_slice(&data[done..done + count]);
            }
            layer.len = layer.len.max(at + count as u64);
            done += count;
        }
        Ok(())
    }

    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        match self.files.get(&file) {
            Some(layer) => Ok(Some(layer.len)),
            None if self.is_gone(file) => Ok(None),
            None => self.storage.len(file),
        }
    }

    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        match self.files.get(&file) {
            Some(layer) => Ok((offset < layer.len).then_some(offset)),
            None if self.is_gone(file) => Ok(None),
            None => self.storage.next_data(file, offset),
        }
    }

    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.check()?;
        let layer = self.layer(file)?;
        layer.len = len;
        layer.base = layer.base.min(len);
        let cut = layer.pages.split_off(&len.div_ceil(PAGE as u64));
        if let Some(page) = layer.pages.get_mut(&(len / PAGE as u64)) {
            page[(len % PAGE as u64) as usize..].fill(0);
        }
        self.bytes -= cut.len() * PAGE;
        Ok(())
    }

    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.truncate(file, 0)?;
        self.write_at(file, 0, data)
    }

    fn sync(&mut self, _file: FileId) -> io::Result<()> {
        Ok(())
    }

    fn check_removable(&mut self, _slot: Slot) -> io::Result<()> {
        Err(read_only())
    }

    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.check()?;
        self.files.retain(|file, _| file.kind.is_beside() || file.slot != slot);
        self.gone.insert(slot);
        Ok(())
    }

    fn rename(&mut self, _from: Slot, _to: Slot) -> io::Result<()> {
        Err(read_only())
    }

    fn close(&mut self) -> io::Result<()> {
        self.files.clear();
        self.opened = true;
        self.storage.close()
    }

    fn free_space(&mut self) -> io::Result<Option<u64>> {
        self.storage.free_space()
    }

    fn check_place(&mut self, slot: Slot) -> io::Result<()> {
        self.storage.check_place(slot)
    }

    fn stamp(&mut self, slot: Slot, settled: bool) -> Option<[u8; 8]> {
        let is_repaired = FileKind::GROWING.iter().any(|kind| self.files.contains_key(&FileId::new(slot, *kind)));
        if is_repaired || self.gone.contains(&slot) { None } else { self.storage.stamp(slot, settled) }
    }

    fn unsupported(&self) -> Unsupported {
        self.storage.unsupported()
    }

    fn opened(&mut self) {
        self.opened = true;
        self.storage.opened();
    }

    fn close_idle_files(&mut self) -> usize {
        self.storage.close_idle_files()
    }

    fn is_read_only(&self) -> bool {
        self.opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{FileKind, MemoryStorage};

    /// Every operation at random places, against one that is written.
    #[test]
    fn it_reads_as_if_it_were_written_and_nothing_is() {
        use rand::{RngExt, SeedableRng};
        let file = FileId::new(Slot(0), FileKind::Tree);
        for seed in 0..200 {
            let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
            let mut written = MemoryStorage::new();
            let old: Vec<u8> = (0..random.random_range(0..12_000)).map(|_| random.random()).collect();
            written.write_at(file, 0, &old).unwrap();
            let mut kept = written.clone();
            let mut layered = RepairedInMemory::new(&mut kept);
            for _ in 0..40 {
                let at = random.random_range(0..16_000_u64);
                let data: Vec<u8> = (0..random.random_range(1..9_000)).map(|_| random.random()).collect();
                match random.random_range(0..8) {
                    0 => {
                        written.truncate(file, at).unwrap();
                        layered.truncate(file, at).unwrap();
                    }
                    1 => {
                        written.replace(file, &data).unwrap();
                        layered.replace(file, &data).unwrap();
                    }
                    2..5 => {
                        written.write_at(file, at, &data).unwrap();
                        layered.write_at(file, at, &data).unwrap();
                    }
                    _ => {}
                }
                let (mut left, mut right) = (data.clone(), data);
                let counts =
                    (written.read_at(file, at, &mut left).unwrap(), layered.read_at(file, at, &mut right).unwrap());
                assert_eq!(counts.0, counts.1, "seed {seed}");
                assert_eq!(left[..counts.0], right[..counts.1], "seed {seed}");
                assert_eq!(written.len(file).unwrap(), layered.len(file).unwrap(), "seed {seed}");
            }
            layered.opened();
            assert_eq!(layered.write_at(file, 0, b"x").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
            let mut now = vec![0; old.len()];
            assert_eq!(kept.read_at(file, 0, &mut now).unwrap(), old.len());
            assert_eq!((now, kept.len(file).unwrap()), (old.clone(), Some(old.len() as u64)));
        }
    }

    #[test]
    fn what_does_not_fit_in_memory_is_refused() {
        let mut layered = RepairedInMemory::new(MemoryStorage::new());
        let file = FileId::new(Slot(0), FileKind::Tree);
        let page = [1; PAGE];
        let refused =
            (0..=(MAX_BYTES / PAGE) as u64).find(|page_at| layered.write_at(file, page_at * 8192, &page).is_err());
        assert_eq!(refused, Some((MAX_BYTES / PAGE) as u64));
        layered.truncate(file, 0).unwrap();
        layered.write_at(file, 0, &page).unwrap();
    }
}
