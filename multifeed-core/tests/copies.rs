//! A writer's folder that is put into a store which had fetched the feed: one feed comes of both, in every order and after a cut anywhere.

use crate::common;

use std::cell::Cell;
use std::io;

use bytes::Bytes;
use common::pull;
use multifeed_core::{
    Feed, FeedId, FileId, FileKind, KeyPair, MemoryStorage, Multifeed, MultifeedEvent, Options, Repair, RepairCursor,
    Slot, Storage, StoreError,
};
use multifeed_proto::FeedKey;

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

fn key(seed: u8) -> FeedKey {
    pair(seed).public_key()
}

fn file(slot: u32, kind: FileKind) -> FileId {
    FileId::new(Slot(slot), kind)
}

fn open(disk: &mut MemoryStorage) -> Multifeed<&mut MemoryStorage> {
    disk.reopen();
    Multifeed::open(disk, Options::default()).unwrap()
}

fn block(index: u64) -> Bytes {
    Bytes::from(format!("block {index}"))
}

/// A writer's folder with so many blocks.
fn written(blocks: u64) -> (Feed, MemoryStorage) {
    let mut disk = MemoryStorage::new();
    let mut feed = Feed::create(&mut disk, Slot(0), key(1), Some(&pair(1)), Some("w")).unwrap();
    for index in 0..blocks {
        feed.append(&mut disk, &[block(index)]).unwrap();
    }
    (feed, disk)
}

/// A closed store with three feeds of others, of which the one in folder 1 is the writer's as fetched: these blocks, when it had `len`.
fn reader(len: u64, blocks: impl IntoIterator<Item = u64>) -> MemoryStorage {
    let mut disk = MemoryStorage::new();
    let mut store = open(&mut disk);
    for seed in [8, 1, 9] {
        store.add(key(seed)).unwrap();
    }
    store.close().unwrap();
    disk.reopen();
    let (mut from, mut theirs) = written(len);
    let mut copy = Feed::open(&mut disk, Slot(1)).unwrap();
    for index in blocks {
        pull((&mut from, &mut theirs), (&mut copy, &mut disk), index);
    }
    copy.flush(&mut disk).unwrap();
    disk
}

fn put(folder: &MemoryStorage, disk: &mut MemoryStorage, slot: u32) {
    for kind in FileKind::ALL {
        if let Some(bytes) = folder.contents(file(0, kind)) {
            disk.write_at(file(slot, kind), 0, &bytes).unwrap();
        }
    }
}

/// The keys of the folders that have one.
fn folders(disk: &MemoryStorage) -> Vec<(u32, FeedKey)> {
    let key = |slot| disk.contents(file(slot, FileKind::Key)).and_then(|key| key.try_into().ok()).map(FeedKey::new);
    (0..30).filter_map(|slot| Some((slot, key(slot)?))).collect()
}

/// The store has one feed of the writer's, with these blocks, goes on with it, and has no gap.
fn goes_on(disk: &mut MemoryStorage, len: u64) {
    let mut store = open(disk);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    let id = store.writer(Some("w"), || pair(50)).unwrap();
    assert_eq!(
        (store.info(id).unwrap().key, store.info(id).unwrap().len, store.info(id).unwrap().downloaded),
        (key(1), len, len)
    );
    for index in 0..len {
        assert_eq!(store.get(id, index).unwrap(), Some(block(index)));
    }
    assert_eq!(store.append(id, &[block(len)]).unwrap(), len..len + 1);
    store.close().unwrap();
    let keys: Vec<_> = folders(disk).into_iter().map(|(_, key)| key).collect();
    assert_eq!(folders(disk).iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [0, 1, 2], "{keys:?}");
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    let mut expected = [8, 1, 9].map(key);
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    assert!(open(disk).problems().is_empty());
}

#[test]
fn the_writer_is_taken_over_whichever_of_the_two_is_longer() {
    // Behind all others, with room between, and before the copy, as when a disk is there again.
    for slot in [3, 5, 0] {
        for (ours, theirs) in [(5, 5), (7, 5), (1, 5), (0, 5), (5, 0), (3, 20), (20, 3)] {
            let mut disk = reader(theirs, 0..theirs);
            if slot == 0 {
                disk.rename(Slot(0), Slot(3)).unwrap();
            }
            put(&written(ours).1, &mut disk, slot);
            let store = open(&mut disk);
            assert!(store.problems().is_empty(), "{slot} {ours} {theirs}: {:?}", store.problems());
            let joined = store.recovered().iter().find(|recovered| recovered.copy.is_some()).unwrap();
            assert_eq!((joined.key, joined.marked_length, joined.length), (key(1), ours, ours.max(theirs)));
            assert_eq!(joined.blocks_regained, theirs.saturating_sub(ours));
            assert!(joined.to_string().contains("taken into it"));
            drop(store);
            goes_on(&mut disk, ours.max(theirs));
        }
    }
}

#[test]
fn a_copy_with_holes_gives_what_it_has_and_the_length() {
    let mut disk = reader(9, [0, 4, 5, 8]);
    put(&written(4).1, &mut disk, 3);
    let mut store = open(&mut disk);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    let id = store.writer(Some("w"), || pair(50)).unwrap();
    assert_eq!((store.info(id).unwrap().len, store.info(id).unwrap().downloaded), (9, 7));
    assert_eq!((0..9).filter(|index| store.has(id, *index)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 8]);
    assert_eq!(store.append(id, &[block(9)]).unwrap(), 9..10);
    store.close().unwrap();
    let mut store = open(&mut disk);
    let id = store.writer(Some("w"), || pair(50)).unwrap();
    assert_eq!((store.info(id).unwrap().len, store.info(id).unwrap().downloaded), (10, 8));
}

#[test]
fn a_longer_copy_that_does_not_prove_what_follows_ours_changes_nothing() {
    let mut disk = reader(9, [0, 8]);
    put(&written(4).1, &mut disk, 3);
    let before = folders(&disk);
    let mut store = open(&mut disk);
    assert!(matches!(store.problems(), [StoreError::SecondFolder { slot: Slot(3), .. }]), "{:?}", store.problems());
    // Nobody gets its name, and it is not gone on with at a shorter length.
    assert!(store.writer(Some("w"), || pair(50)).is_err());
    store.close().unwrap();
    assert_eq!(folders(&disk), before);
}

#[test]
fn two_histories_are_told_with_the_evidence_and_both_stay() {
    for (ours, theirs) in [(6, 5), (5, 5), (4, 6)] {
        let mut other = MemoryStorage::new();
        let mut feed = Feed::create(&mut other, Slot(0), key(1), Some(&pair(1)), Some("w")).unwrap();
        for index in 0..ours {
            feed.append(&mut other, &[if index == 3 { Bytes::from("other") } else { block(index) }]).unwrap();
        }
        let mut disk = reader(theirs, 0..theirs);
        put(&other, &mut disk, 3);
        let before = folders(&disk);
        let mut store = open(&mut disk);
        assert!(matches!(store.problems(), [StoreError::Damaged { slot: Slot(3), .. }]), "{:?}", store.problems());
        assert_eq!(store.conflicts_kept(), 1);
        let conflict =
            std::iter::from_fn(|| store.poll_event()).find(|event| matches!(event, MultifeedEvent::Conflict { .. }));
        assert!(conflict.is_some());
        assert!(store.writer(Some("w"), || pair(50)).is_err());
        store.close().unwrap();
        assert_eq!(folders(&disk), before);
    }
}

#[test]
fn of_two_folders_with_the_secret_key_the_longer_counts_and_both_stay() {
    for (first, second) in [(5, 3), (3, 5)] {
        let mut disk = MemoryStorage::new();
        put(&written(first).1, &mut disk, 0);
        put(&written(second).1, &mut disk, 1);
        let mut store = open(&mut disk);
        let id = store.writer(Some("w"), || pair(50)).unwrap();
        assert_eq!(store.info(id).unwrap().len, 5);
        let other = if first > second { 1 } else { 0 };
        assert!(
            matches!(store.problems(), [StoreError::SecondFolder { slot, first, .. }] if slot.0 == other && first != slot),
            "{:?}",
            store.problems()
        );
        store.close().unwrap();
        assert_eq!(folders(&disk).len(), 2);
    }
}

/// The feed as fetched, when it had `len` blocks, with these of them.
fn fetched(len: u64, blocks: &[u64]) -> MemoryStorage {
    let (mut disk, (mut from, mut theirs)) = (MemoryStorage::new(), written(len));
    let mut copy = Feed::create(&mut disk, Slot(0), key(1), None, None).unwrap();
    for index in blocks {
        pull((&mut from, &mut theirs), (&mut copy, &mut disk), *index);
    }
    copy.flush(&mut disk).unwrap();
    disk
}

fn repair<S: Storage>(store: &mut Multifeed<S>, id: FeedId) -> Repair {
    let (mut all, mut cursor) = (Repair::default(), RepairCursor::default());
    while !all.done {
        all.add(store.repair_step(id, &mut cursor, 1000).unwrap());
    }
    store.commit(std::time::Duration::ZERO);
    all
}

#[test]
fn a_repair_makes_one_feed_of_two_fetched_copies_and_loses_no_block() {
    let all: &[u64] = &[0, 1, 2, 3, 4];
    let cases: [(u64, &[u64], u64, &[u64]); 7] = [
        (5, all, 5, all),
        (5, all, 3, &[0, 1, 2]),
        (3, &[0, 1, 2], 5, all),
        (5, &[0, 4], 5, &[1, 4]),
        (5, &[0, 1, 2], 5, &[3, 4]),
        (5, &[], 5, &[3]),
        (5, all, 5, &[]),
    ];
    for slot in [0, 3, 5] {
        for (len, blocks, other_len, other_blocks) in cases {
            let case = format!("folder {slot}: {blocks:?} of {len} and {other_blocks:?} of {other_len}");
            let mut disk = reader(len, blocks.iter().copied());
            if slot == 0 {
                disk.rename(Slot(0), Slot(3)).unwrap();
            }
            put(&fetched(other_len, other_blocks), &mut disk, slot);
            let mut store = open(&mut disk);
            let id = store.find(&key(1)).unwrap();
            let [StoreError::SecondFolder { .. }] = store.problems() else { panic!("{case}: {:?}", store.problems()) };
            let says = store.problems()[0].to_string();
            assert!(says.contains("`verify --repair`"), "{says}");
            let held: Vec<_> = (0..5).filter(|index| blocks.contains(index) || other_blocks.contains(index)).collect();
            let before = store.info(id).unwrap().downloaded;
            let done = repair(&mut store, id);
            let joined = done.joined.into_iter().flatten().count() as u64;
            assert_eq!((done.folders_joined, joined), (1, held.len() as u64 - before), "{case}");
            assert!(store.problems().is_empty(), "{case}: {:?}", store.problems());
            store.close().unwrap();
            assert_eq!(folders(&disk).iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [0, 1, 2], "{case}");
            let mut store = open(&mut disk);
            assert!(store.problems().is_empty(), "{case}: {:?}", store.problems());
            let id = store.find(&key(1)).unwrap();
            assert_eq!(store.info(id).unwrap().len, if held.is_empty() { 0 } else { len.max(other_len) }, "{case}");
            for index in 0..5 {
                let expected = held.contains(&index).then(|| block(index));
                assert_eq!(store.get(id, index).unwrap(), expected, "{case}: {index}");
            }
            assert_eq!(repair(&mut store, id), Repair { done: true, ..Repair::default() }, "{case}");
        }
    }
}

#[test]
fn a_block_that_rotted_comes_back_from_the_copy_beside_it() {
    let mut disk = reader(5, 0..5);
    put(&fetched(5, &[0, 1, 2, 3, 4]), &mut disk, 3);
    disk.write_at(file(1, FileKind::Data), 9, b"X").unwrap();
    let mut store = open(&mut disk);
    let id = store.find(&key(1)).unwrap();
    let done = repair(&mut store, id);
    assert!(done.dropped.is_empty() && done.joined.into_iter().flatten().eq([1]));
    assert_eq!(
        (0..5).map(|index| store.get(id, index).unwrap().unwrap()).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4].map(block)
    );
}

#[test]
fn a_repair_leaves_a_copy_of_which_not_all_can_be_taken_in_and_says_so() {
    // It is of another history; a block of it that is nowhere else rotted; there is a secret key, which may be somebody's only one.
    let mut other = MemoryStorage::new();
    let mut feed = Feed::create(&mut other, Slot(0), key(1), Some(&pair(1)), None).unwrap();
    (0..5)
        .for_each(|at| _ = feed.append(&mut other, &[if at == 3 { Bytes::from("other") } else { block(at) }]).unwrap());
    [FileKind::SecretKey, FileKind::LocalName].into_iter().for_each(|kind| other.lose(file(0, kind)));
    let mut rotten = fetched(5, &[3, 4]);
    rotten.write_at(file(0, FileKind::Data), 3 * 7, b"X").unwrap();
    let mut sealed = written(5).1;
    sealed.truncate(file(0, FileKind::SecretKey), 10).unwrap();
    for (case, spare) in [("history", other), ("rotten", rotten), ("sealed", sealed)] {
        let mut disk = reader(5, 0..3);
        put(&spare, &mut disk, 3);
        let before = folders(&disk);
        let mut store = open(&mut disk);
        let id = store.find(&key(1)).unwrap();
        let done = repair(&mut store, id);
        assert_eq!(done.folders_joined, 0, "{case}");
        let problems: Vec<_> = store.problems().iter().filter(|problem| problem.slot() == Some(Slot(3))).collect();
        assert!(!problems.is_empty(), "{case}");
        for problem in problems {
            assert!(!problem.to_string().contains("--repair"), "{case}: {problem}");
        }
        assert_eq!(store.conflicts_kept(), usize::from(case == "history"), "{case}");
        store.close().unwrap();
        assert_eq!(folders(&disk), before, "{case}");
    }
}

/// A disk that is gone before its n-th change.
struct Cut<'a> {
    disk: &'a mut MemoryStorage,
    left: Cell<u64>,
}

impl Cut<'_> {
    fn change(&self) -> io::Result<()> {
        self.up()?;
        self.left.set(self.left.get() - 1);
        self.up()
    }

    fn up(&self) -> io::Result<()> {
        if self.left.get() == 0 { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }
}

impl Storage for Cut<'_> {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.up()?;
        self.disk.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.up()?;
        self.disk.read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change()?;
        self.disk.write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.up()?;
        self.disk.len(file)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.change()?;
        self.disk.truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.change()?;
        self.disk.replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.up()?;
        self.disk.sync(file)
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        // File by file, `key` last.
        for kind in FileKind::ALL.into_iter().filter(|kind| *kind != FileKind::Key) {
            self.change()?;
            self.disk.lose(FileId::new(slot, kind));
        }
        self.change()?;
        self.disk.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.change()?;
        self.disk.rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        self.disk.close()
    }
}

#[test]
fn a_cut_at_any_change_loses_no_block_and_no_key() {
    for slot in [3, 5, 0] {
        for (ours, theirs) in [(7, 5), (2, 6)] {
            let mut cuts = 0;
            for left in 1.. {
                let mut disk = reader(theirs, 0..theirs);
                if slot == 0 {
                    disk.rename(Slot(0), Slot(3)).unwrap();
                }
                put(&written(ours).1, &mut disk, slot);
                disk.reopen();
                let cut = Cut { disk: &mut disk, left: Cell::new(left) };
                let opened = Multifeed::open(cut, Options::default());
                let whole = opened.is_ok_and(|store| store.problems().is_empty());
                cuts += 1;
                goes_on(&mut disk, ours.max(theirs));
                if whole {
                    break;
                }
            }
            assert!(cuts > 8, "{cuts}");
        }
    }
}

#[cfg(unix)]
#[test]
fn on_a_disk_that_cannot_be_written_the_writer_counts_and_nothing_is_changed() {
    use multifeed_core::FileStorage;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let mut disk = reader(5, 0..5);
    put(&written(3).1, &mut disk, 3);
    {
        let mut files = FileStorage::open(&root).unwrap();
        for slot in 0..4 {
            for kind in FileKind::ALL {
                if let Some(bytes) = disk.contents(file(slot, kind)) {
                    files.write_at(file(slot, kind), 0, &bytes).unwrap();
                }
            }
        }
    }
    let mut store = Multifeed::open(FileStorage::open_read_only(&root).unwrap(), Options::default()).unwrap();
    let id = store.find(&key(1)).unwrap();
    assert!(store.info(id).unwrap().writable);
    // What only one who writes may do is no damage.
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    assert_eq!(store.get(id, 2).unwrap(), Some(block(2)));
    assert!(root.join("1/key").exists() && root.join("3/key").exists());
}
