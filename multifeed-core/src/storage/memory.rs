//! A store in memory, sparse as files are.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use super::{FileId, FileKind, Slot, Storage};

/// Bytes of a page. A page holds only as many as were written to it.
const PAGE: u64 = 64 * 1024;

/// A store in memory: for tests, and for multifeeds that need not outlive the process.
///
/// A clone is a copy of the contents, as of a disk at one moment. Gaps cost nothing.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    files: BTreeMap<FileId, MemoryFile>,
    /// Changes that were made.
    changes: u64,
    closed: bool,
}

#[derive(Debug, Clone, Default)]
struct MemoryFile {
    len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
    /// The number of the last change.
    change: u64,
}

impl MemoryStorage {
    /// Returns an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has a bit of a file of the first folder rot.
    #[cfg(test)]
    pub(crate) fn flip(&mut self, kind: FileKind, at: u64) {
        let (file, mut byte) = (FileId::new(Slot(0), kind), [0]);
        self.read_at(file, at, &mut byte).unwrap();
        self.write_at(file, at, &[byte[0] ^ 0x40]).unwrap();
    }

    /// Returns the bytes of a file, gaps as zeros; `None` if it is absent.
    pub fn contents(&self, file: FileId) -> Option<Vec<u8>> {
        let file = self.files.get(&file)?;
        let mut bytes = vec![0; usize::try_from(file.len).ok()?];
        file.read(0, &mut bytes);
        Some(bytes)
    }

    /// Takes one file away, as a removal of its folder that is cut short does.
    pub fn lose(&mut self, file: FileId) {
        self.files.remove(&file);
    }

    /// Opens the store again after [`close`](Storage::close), as a new process would.
    pub fn reopen(&mut self) {
        self.closed = false;
    }

    /// The file, made if it is missing, to be changed.
    fn changed(&mut self, file: FileId) -> &mut MemoryFile {
        self.changes += 1;
        let changed = self.files.entry(file).or_default();
        changed.change = self.changes;
        changed
    }

    fn check(&self) -> io::Result<()> {
        if self.closed { Err(io::Error::other("the store is closed")) } else { Ok(()) }
    }
}

impl Storage for MemoryStorage {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.check()?;
        let feeds = self.files.keys().filter(|file| !file.kind.is_beside());
        let mut slots: Vec<Slot> = feeds.map(|file| file.slot).collect();
        slots.dedup();
        Ok(slots)
    }

    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        Ok(self.files.get(&file).map_or(0, |file| file.read(offset, buf)))
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.changed(file).write(offset, data)
    }

    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.check()?;
        Ok(self.files.get(&file).map(|file| file.len))
    }

    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        self.check()?;
        Ok(self.files.get(&file).and_then(|file| file.next_data(offset)))
    }

    fn can_punch(&self) -> bool {
        true
    }

    fn punch(&mut self, file: FileId, range: Range<u64>) -> io::Result<()> {
        self.check()?;
        if self.files.contains_key(&file) {
            self.changed(file).punch(range);
        }
        Ok(())
    }

    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.check()?;
        self.changed(file).truncate(len);
        Ok(())
    }

    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let file = self.changed(file);
        file.truncate(0);
        file.write(0, data)
    }

    fn sync(&mut self, _file: FileId) -> io::Result<()> {
        self.check()
    }

    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.check()?;
        self.files.retain(|file, _| !is_in(file, slot));
        Ok(())
    }

    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.check()?;
        let moved: Vec<FileId> = self.files.keys().copied().filter(|file| is_in(file, from)).collect();
        if moved.is_empty() || self.files.keys().any(|file| is_in(file, to)) {
            return Err(if moved.is_empty() { io::ErrorKind::NotFound } else { io::ErrorKind::AlreadyExists }.into());
        }
        for file in moved {
            if let Some(contents) = self.files.remove(&file) {
                self.files.insert(FileId::new(to, file.kind), contents);
            }
        }
        Ok(())
    }

    fn stamp(&mut self, slot: Slot, _settled: bool) -> Option<[u8; 8]> {
        let mut state = blake2b_simd::Params::new().hash_length(8).to_state();
        for kind in FileKind::GROWING {
            let change = self.files.get(&FileId::new(slot, kind)).map_or(0, |file| file.change);
            state.update(&change.to_le_bytes());
        }
        state.finalize().as_bytes().first_chunk().copied()
    }

    fn close(&mut self) -> io::Result<()> {
        self.closed = true;
        Ok(())
    }
}

/// Whether a file is in a folder, and not beside them all.
fn is_in(file: &FileId, slot: Slot) -> bool {
    file.slot == slot && !file.kind.is_beside()
}

impl MemoryFile {
    fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let left = self.len.saturating_sub(offset);
        let total = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let mut done = 0;
        while done < total {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let count = (PAGE as usize - within).min(total - done);
            let out = &mut buf[done..done + count];
            let page = self.pages.get(&(at / PAGE)).map_or(&[][..], Vec::as_slice);
            let have = page.get(within..).unwrap_or(&[]);
            let have = &have[..have.len().min(count)];
            out[..have.len()].copy_from_slice(have);
            out[have.len()..].fill(0);
            done += count;
        }
        total
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        let (&number, _) = self.pages.range(offset / PAGE..).next()?;
        let next = offset.max(number * PAGE);
        (next < self.len).then_some(next)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset
            .checked_add(data.len() as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "past the largest offset"))?;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let count = (PAGE as usize - within).min(data.len() - done);
            let page = self.pages.entry(at / PAGE).or_default();
            if page.len() < within + count {
                page.resize(within + count, 0);
            }
            page[within..within + count].copy_from_slice(&data[done..done + count]);
            done += count;
        }
        self.len = self.len.max(end);
        Ok(())
    }

    fn punch(&mut self, range: Range<u64>) {
        let (start, end) = (range.start, range.end.min(self.len));
        self.pages.retain(|number, page| {
            let (from, to) = (number * PAGE, (number + 1) * PAGE);
            if end <= from || to <= start {
                return true;
            }
            let held = page.len() as u64;
            let (first, last) = (start.max(from) - from, (end.min(to) - from).min(held));
            if first < last {
                page[first as usize..last as usize].fill(0);
            }
            first > 0 || last < held
        });
    }

    fn truncate(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                page.truncate((len % PAGE) as usize);
            }
        }
        self.len = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId { slot: Slot(3), kind: FileKind::Data };

    #[test]
    fn gaps_read_as_zeros_and_cost_nothing() {
        let mut store = MemoryStorage::new();
        store.write_at(FILE, 1 << 50, b"far").unwrap();
        store.write_at(FILE, PAGE - 1, b"ab").unwrap();
        let mut buf = [9; 4];
        assert_eq!(store.read_at(FILE, PAGE - 2, &mut buf).unwrap(), 4);
        assert_eq!(&buf, b"\0ab\0");
        assert_eq!(store.read_at(FILE, (1 << 50) + 1, &mut buf).unwrap(), 2);
        assert_eq!(store.len(FILE).unwrap(), Some((1 << 50) + 3));
        let next: Vec<_> = [0, PAGE + 1, 2 * PAGE, 1 << 51].map(|at| store.next_data(FILE, at).unwrap()).into();
        assert_eq!(next, [Some(0), Some(PAGE + 1), Some(1 << 50), None]);
        assert!(store.files[&FILE].pages.values().map(Vec::capacity).sum::<usize>() < 1 << 20);
    }

    #[test]
    fn a_cut_file_has_no_memory_of_what_it_held() {
        let mut store = MemoryStorage::new();
        store.write_at(FILE, 0, &[7; 100_000]).unwrap();
        store.truncate(FILE, 10).unwrap();
        store.truncate(FILE, 20).unwrap();
        assert_eq!(store.contents(FILE).unwrap(), [[7; 10], [0; 10]].concat());
        store.write_at(FILE, 70_000, &[1]).unwrap();
        assert_eq!(store.contents(FILE).unwrap()[10..70_000], [0; 69_990]);
    }

    #[test]
    fn a_hole_reads_as_zeros_and_costs_nothing() {
        let mut store = MemoryStorage::new();
        store.write_at(FILE, 0, &[7; 300_000]).unwrap();
        store.punch(FILE, 100..200_000).unwrap();
        store.punch(FILE, 299_999..400_000).unwrap();
        let expected = [&[7; 100][..], &[0; 199_900], &[7; 99_999], &[0]].concat();
        assert_eq!(store.contents(FILE).unwrap(), expected);
        assert_eq!(store.next_data(FILE, PAGE).unwrap(), Some(3 * PAGE));
        store.punch(FileId::new(Slot(9), FileKind::Data), 0..10).unwrap();
        assert_eq!(store.list().unwrap(), [Slot(3)]);
    }

    #[test]
    fn folders_are_listed_in_order() {
        let mut store = MemoryStorage::new();
        for slot in [10, 2, 0] {
            store.write_at(FileId::new(Slot(slot), FileKind::Key), 0, &[1]).unwrap();
            store.write_at(FileId::new(Slot(slot), FileKind::Tree), 0, &[1]).unwrap();
        }
        assert_eq!(store.list().unwrap(), [Slot(0), Slot(2), Slot(10)]);
        store.remove(Slot(2)).unwrap();
        assert_eq!(store.list().unwrap(), [Slot(0), Slot(10)]);
    }
}
