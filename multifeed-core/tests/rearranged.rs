//! What opening a store changed of its folders, and what it found wrong, is reported: by name, and once.

use crate::link;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use link::{Link, run};
use multifeed_core::{
    FileId, FileKind, FileStorage, KeyPair, MemoryStorage, Multifeed, Options, Rearranged, RepairedInMemory, Replicate,
    Slot, Storage,
};
use multifeed_proto::FeedKey;

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

fn key(seed: u8) -> FeedKey {
    pair(seed).public_key()
}

fn open(folder: &Path) -> Multifeed<FileStorage> {
    Multifeed::open(FileStorage::open(folder).unwrap(), Options::default()).unwrap()
}

/// A closed store with a writer in folder 0, and feeds of others in 1 and 2.
fn closed_store() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let id = store.writer(Some("w"), || pair(1)).unwrap();
    store.append(id, &[Bytes::from("block")]).unwrap();
    for seed in [2, 3] {
        store.add(key(seed)).unwrap();
    }
    assert!(store.rearranged().is_empty(), "{:?}", store.rearranged());
    store.close().unwrap();
    folder
}

#[test]
fn a_folder_without_a_feed_that_has_to_move_is_reported() {
    let folder = closed_store();
    // Somebody's files stand where feed 1 was, whose folder somebody deleted.
    fs::remove_dir_all(folder.path().join("1")).unwrap();
    fs::create_dir(folder.path().join("1")).unwrap();
    fs::write(folder.path().join("1/notes"), "somebody's").unwrap();
    let store = open(folder.path());
    let told = store.rearranged().to_vec();
    let [Rearranged::Renumbered { from: Slot(1), to }] = told[..] else { panic!("{told:?}") };
    assert_eq!(told[0].to_string(), format!("folder 1 holds no feed, and is folder {to} now: a feed needs its number"));
    assert_eq!(fs::read_to_string(folder.path().join(to.to_string()).join("notes")).unwrap(), "somebody's");
    store.close().unwrap();
    // What is done is not reported again.
    assert!(open(folder.path()).rearranged().is_empty());
}

/// The folder of a feed that was fetched is gone: that is reported until a command writes, and the feed comes again.
#[test]
fn a_fetched_feed_whose_folder_is_gone_is_reported() {
    for gone in [1, 2] {
        let folder = closed_store();
        let store = open(folder.path());
        let mut source = Multifeed::open(MemoryStorage::new(), Options::default()).unwrap();
        // What a session would bring.
        for seed in [2, 3] {
            let id = source.writer(Some(&format!("w{seed}")), || pair(seed)).unwrap();
            source.append(id, &[Bytes::from("a"), Bytes::from("b")]).unwrap();
        }
        let source = source.storage().clone();
        store.close().unwrap();
        let fetched = |folder: &Path| {
            let disks: [Box<dyn Storage>; 2] = [Box::new(FileStorage::open(folder).unwrap()), Box::new(source.clone())];
            let mut stores = disks.map(|disk| Multifeed::open(disk, Options::default()).unwrap());
            let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
            run(&mut stores, &mut links, std::time::Duration::ZERO);
            drop(links);
            let [store, _] = stores;
            store.close().unwrap();
        };
        fetched(folder.path());
        fs::remove_dir_all(folder.path().join(gone.to_string())).unwrap();
        let told = [Rearranged::Gone { slot: Slot(gone), blocks: 2 }];
        for _ in 0..2 {
            let storage = RepairedInMemory::new(FileStorage::open_read_only(folder.path()).unwrap());
            let store = Multifeed::open(storage, Options::default()).unwrap();
            assert_eq!(store.rearranged(), told);
            assert!(told[0].to_string().contains("fetches it again"), "{}", told[0]);
            store.close().unwrap();
        }
        let mut store = open(folder.path());
        assert_eq!((store.rearranged(), store.problems().len()), (&told[..], 0));
        let id = store.writer(Some("w"), || pair(1)).unwrap();
        store.append(id, &[Bytes::from("more")]).unwrap();
        store.close().unwrap();
        let store = open(folder.path());
        assert_eq!((store.rearranged().len(), store.feeds().count()), (0, 2));
        store.close().unwrap();
        fetched(folder.path());
        let store = open(folder.path());
        assert_eq!((store.rearranged().len(), store.problems().len(), store.feeds().count()), (0, 0, 3));
        let key = key(gone as u8 + 1);
        assert_eq!(store.info(store.find(&key).unwrap()).unwrap().downloaded, 2);
    }
}

#[test]
fn files_of_nobodys_that_a_removed_feed_leaves_are_put_aside_and_reported() {
    let folder = closed_store();
    fs::write(folder.path().join("1/notes"), "somebody's").unwrap();
    let mut store = open(folder.path());
    assert!(store.rearranged().is_empty(), "{:?}", store.rearranged());
    let id = store.find(&key(2)).unwrap();
    store.remove(id).unwrap();
    assert_eq!(store.rearranged(), [Rearranged::PutAside { slot: Slot(1) }]);
    assert!(store.rearranged()[0].to_string().contains("1.left"), "{}", store.rearranged()[0]);
    assert_eq!(fs::read_to_string(folder.path().join("1.left/notes")).unwrap(), "somebody's");
    store.close().unwrap();
    let store = open(folder.path());
    assert!(store.rearranged().is_empty() && store.problems().is_empty() && store.feeds().count() == 2);
}

/// What fails on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fails {
    Nothing,
    Removing,
    ReadingKey1,
}

#[derive(Debug)]
struct Stuck<'a> {
    disk: &'a mut MemoryStorage,
    fails: Rc<Cell<Fails>>,
}

impl Storage for Stuck<'_> {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.disk.list()
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.disk.len(file)
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let is_key = file == FileId::new(Slot(1), FileKind::Key);
        if is_key && self.fails.get() == Fails::ReadingKey1 {
            return Err(io::Error::other("it cannot be read"));
        }
        self.disk.read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(file, offset, data)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.disk.truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.disk.replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.disk.sync(file)
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        match self.fails.get() {
            Fails::Removing => Err(io::Error::other("it is stuck")),
            _ => self.disk.remove(slot),
        }
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        self.disk.close()
    }
}

#[test]
fn a_removal_that_was_cut_short_is_reported_when_it_is_done_and_what_hinders_it_once() {
    fn reopen<'a>(disk: &'a mut MemoryStorage, fails: &Rc<Cell<Fails>>) -> Multifeed<Stuck<'a>> {
        Multifeed::open(Stuck { disk, fails: fails.clone() }, Options::default()).unwrap()
    }
    let mut disk = MemoryStorage::new();
    let fails = Rc::new(Cell::new(Fails::Removing));
    let mut store = reopen(&mut disk, &fails);
    let id = store.writer(Some("w"), || pair(1)).unwrap();
    store.append(id, &[Bytes::from("block")]).unwrap();
    let gone = store.add(key(2)).unwrap();
    store.add(key(3)).unwrap();
    assert!(store.remove(gone).is_err());
    drop(store);

    // The key cannot be read for the removal, and then not for opening the feed.
    for still in [Fails::Removing, Fails::ReadingKey1] {
        fails.set(still);
        disk.reopen();
        let store = reopen(&mut disk, &fails);
        assert_eq!((store.rearranged(), store.problems().len()), (&[][..], 1), "{still:?}: {:#?}", store.problems());
    }

    fails.set(Fails::Nothing);
    disk.reopen();
    let store = reopen(&mut disk, &fails);
    assert_eq!(store.rearranged(), [Rearranged::Removed { slot: Slot(1) }]);
    let text = "the removal of the feed in folder 1, which was cut short before, is done";
    assert_eq!((store.rearranged()[0].to_string().as_str(), store.problems().len()), (text, 0));
    assert_eq!((store.find(&key(2)), store.feeds().count()), (None, 2));
    store.close().unwrap();
    disk.reopen();
    assert!(reopen(&mut disk, &fails).rearranged().is_empty());
}

#[test]
fn what_is_wrong_is_reported_once() {
    let folder = closed_store();
    // It is in the way of the feed as the store is listed, and of the feed behind it that would take the number.
    fs::remove_dir_all(folder.path().join("1")).unwrap();
    fs::write(folder.path().join("1"), "no folder").unwrap();
    let store = open(folder.path());
    let told: Vec<String> = store.problems().iter().map(ToString::to_string).collect();
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "{told:#?}");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(store.feeds().count(), 2);
}

#[test]
fn a_name_ends_at_its_first_nul() {
    let mut disk = MemoryStorage::new();
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    let writers = [("first", 1), ("second", 2), ("third", 3)];
    for (name, seed) in writers {
        store.writer(Some(name), || pair(seed)).unwrap();
    }
    store.close().unwrap();
    let name_of = |slot| FileId::new(Slot(slot), FileKind::LocalName);
    disk.reopen();
    // A file that is a terabyte long, and all but the name is a hole; one whose write was torn; and a hole alone.
    disk.write_at(name_of(0), 1 << 12, &[0]).unwrap();
    disk.replace(name_of(1), b"sec\0nd").unwrap();
    disk.replace(name_of(2), &[0; 300]).unwrap();
    disk.reopen();
    let store = Multifeed::open(&mut disk, Options::default()).unwrap();
    let names: Vec<String> = store.feeds().map(|id| store.info(id).unwrap().name).collect();
    // Of the last two the journal knows what they were.
    assert_eq!(names, ["first", "second", "third"]);
    assert!(names.iter().all(|name| !name.contains('\0')) && store.feeds().count() == 3);
}
