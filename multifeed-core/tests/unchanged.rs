//! A feed whose files nobody changed since the store was closed is opened by what the journal has of it. That gives the same as by its files,
//! and only if they are the same.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // The disk's clock has to go on.

use crate::common;

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use common::{Random, block, blocks, create, create_copy, key_pair, pull};
use multifeed_core::{Feed, FileId, FileKind, FileStorage, MemoryStorage, Multifeed, Options, Slot, Storage};

/// The clocks of disks tick this often, or oftener.
const TICK: Duration = Duration::from_millis(30);

const GROWING: [FileKind; 4] = [FileKind::Tree, FileKind::Signatures, FileKind::Bitfield, FileKind::Data];

/// A storage that counts the bytes that are read of a feed's growing files, and may not know whether they changed.
struct Looked<S> {
    inner: S,
    read: u64,
    knows: bool,
}

impl<S: Storage> Looked<S> {
    fn at(inner: S) -> Self {
        Self { inner, read: 0, knows: true }
    }
}

impl<S: Storage> Storage for Looked<S> {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.inner.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read_at(file, offset, buf)?;
        self.read += if GROWING.contains(&file.kind) { read as u64 } else { 0 };
        Ok(read)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.inner.len(file)
    }
    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        self.inner.next_data(file, offset)
    }
    fn can_punch(&self) -> bool {
        self.inner.can_punch()
    }
    fn punch(&mut self, file: FileId, range: Range<u64>) -> io::Result<()> {
        self.inner.punch(file, range)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.inner.truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.inner.replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.inner.sync(file)
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.inner.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn stamp(&mut self, slot: Slot, settled: bool) -> Option<[u8; 8]> {
        if self.knows { self.inner.stamp(slot, settled) } else { None }
    }
    fn close(&mut self) -> io::Result<()> {
        self.inner.close()
    }
}

/// A feed of these many blocks, with the storage that it is in.
fn writer(length: u64) -> (Feed, MemoryStorage) {
    let mut disk = MemoryStorage::new();
    let mut feed = create(&mut disk, 0, 1, None);
    feed.append(&mut disk, &blocks(1, 0..length)).unwrap();
    (feed, disk)
}

/// A store in a folder with a copy of a feed, of which some blocks are held, closed some time after it was written.
fn store(path: &Path) {
    let (mut writer, mut disk) = writer(20);
    let mut storage = FileStorage::open(path).unwrap();
    let mut copy = create_copy(&mut storage, 0, 1);
    for index in [3, 9, 19] {
        pull((&mut writer, &mut disk), (&mut copy, &mut storage), index);
    }
    copy.flush(&mut storage).unwrap();
    sleep(TICK);
    let mut store = Multifeed::open(storage, Options::default()).unwrap();
    store.writer(Some("ours"), || key_pair(2)).unwrap();
    store.close().unwrap();
}

/// Opens a store: how many bytes of the feeds' growing files that read, and whether anything had to be set right.
fn look(path: &Path) -> (u64, bool) {
    let mut storage = Looked::at(FileStorage::open(path).unwrap());
    let store = Multifeed::open(&mut storage, Options::default()).unwrap();
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    let changed = !store.recovered().is_empty();
    drop(store);
    (storage.read, changed)
}

/// How many bytes that reads if the files are looked at.
fn look_at_all(path: &Path) -> u64 {
    let mut storage = Looked::at(FileStorage::open(path).unwrap());
    storage.knows = false;
    drop(Multifeed::open(&mut storage, Options::default()).unwrap());
    storage.read
}

#[test]
fn whatever_was_changed_in_its_files_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path());
    let whole = look_at_all(folder.path());
    let (read, changed) = look(folder.path());
    assert!(!changed && whole > read + 3584, "{read} bytes of {whole}");
    let places = [
        (FileKind::Tree, 32 + 40 * 38),
        (FileKind::Signatures, 32 + 64 * 19),
        (FileKind::Bitfield, 32 + 2),
        (FileKind::Data, 0),
    ];
    // One byte of each file, so that no length changes, with the times put back, as soon as the store is closed or later.
    for (kind, offset) in places {
        for pause in [Duration::ZERO, TICK] {
            let folder = tempfile::tempdir().unwrap();
            store(folder.path());
            sleep(pause);
            let path = folder.path().join("0").join(kind.name());
            let file = fs::File::options().read(true).write(true).open(path).unwrap();
            let before = file.metadata().unwrap().modified().unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            file.write_all_at(&[byte[0] ^ 255], offset).unwrap();
            file.set_modified(before).unwrap();
            drop(file);
            let mut storage = Looked::at(FileStorage::open(folder.path()).unwrap());
            drop(Multifeed::open(&mut storage, Options::default()));
            assert!(storage.read > whole / 2, "{kind} after {pause:?}: {} bytes of {whole}", storage.read);
        }
    }
    // A copy of the folder has files of its own.
    let other = tempfile::tempdir().unwrap();
    store(other.path());
    for entry in fs::read_dir(folder.path().join("0")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), other.path().join("0").join(entry.file_name())).unwrap();
    }
    assert_eq!(look(other.path()), (whole, false));
}

#[test]
fn a_change_in_the_same_tick_of_the_clock_as_the_close_is_noticed() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, mut disk) = writer(3);
        let mut store = Multifeed::open(FileStorage::open(folder.path()).unwrap(), Options::default()).unwrap();
        store.writer(Some("ours"), || key_pair(2)).unwrap();
        store.close().unwrap();
        let mut storage = FileStorage::open(folder.path()).unwrap();
        let mut copy = create_copy(&mut storage, 1, 1);
        (0..3).for_each(|index| _ = pull((&mut writer, &mut disk), (&mut copy, &mut storage), index));
        copy.flush(&mut storage).unwrap();
        let mut store = Multifeed::open(storage, Options::default()).unwrap();
        let ours = store.writer(Some("ours"), || key_pair(2)).unwrap();
        store.append(ours, &[block(2, 0)]).unwrap();
        store.close().unwrap();
        // Its last block, for another one of the same length.
        let path = folder.path().join("1").join("data");
        let len = fs::metadata(&path).unwrap().len();
        fs::File::options().write(true).open(path).unwrap().write_all_at(&[0xee], len - 1).unwrap();
        let store = Multifeed::open(FileStorage::open(folder.path()).unwrap(), Options::default()).unwrap();
        assert_eq!(store.recovered().len(), 1);
    }
}

/// One store is always opened by its files, the other by its journal if it can be: both come to have the same bytes.
#[test]
fn it_goes_on_as_one_that_was_opened_by_its_files() {
    const LENGTH: u64 = 20_000;
    let (mut writer, mut disk) = writer(LENGTH);
    let key = writer.key();
    for seed in 1..6 {
        let mut random = Random(seed * 77);
        let steps: Vec<Vec<(bool, u64)>> = (0..6)
            .map(|_| (0..30).map(|_| (random.below(5) > 0, u64::from(random.below(LENGTH as u32)))).collect())
            .collect();
        let mut files = [true, false].map(|knows| {
            let mut storage = Looked::at(MemoryStorage::new());
            storage.knows = knows;
            drop(create_copy(&mut storage, 0, 1));
            for steps in &steps {
                let mut store = Multifeed::open(&mut storage, Options::default()).unwrap();
                assert!(store.recovered().is_empty() && store.problems().is_empty());
                // What is written next has the journal know the feed as it is.
                let ours = store.writer(Some("ours"), || key_pair(2)).unwrap();
                store.append(ours, &[block(2, 0)]).unwrap();
                store.close().unwrap();
                storage.inner.reopen();
                let mut store = Multifeed::open(&mut storage, Options::default()).unwrap();
                let id = store.find(&key).unwrap();
                for (_, index) in steps.iter().filter(|(put, _)| !put) {
                    store.clear(id, *index..index + 500).unwrap();
                }
                store.close().unwrap();
                storage.inner.reopen();
                let mut copy = Feed::open(&mut storage, Slot(0)).unwrap();
                for (_, index) in steps.iter().filter(|(put, _)| *put) {
                    pull((&mut writer, &mut disk), (&mut copy, &mut storage), *index);
                }
                copy.flush(&mut storage).unwrap();
            }
            let read = storage.read;
            (GROWING.map(|kind| storage.inner.contents(FileId::new(Slot(0), kind)).unwrap()), read)
        });
        let [(known, read), (looked, whole)] = &mut files;
        assert!(known == looked, "seed {seed}");
        assert!(read < whole, "seed {seed}: {read} bytes read of {whole}");
    }
}
