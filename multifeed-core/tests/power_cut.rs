//! What a power cut may take, on a disk that forgets all that was not synced; what syncing costs, and what its failure means.

use crate::common;
use crate::link;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use common::{block, key_pair};
use link::Link;
use multifeed_core::{
    Durability, FeedId, FileId, FileKind, MemoryStorage, Multifeed, Options, Replicate, Slot, Storage, StoreError,
    VerifyCursor,
};

const START: Duration = Duration::ZERO;
const INTERVAL: Duration = Duration::from_millis(300);
const N: u8 = 1;

/// A disk, and what a power cut would leave of it.
#[derive(Debug, Clone, Default)]
struct Disk {
    written: MemoryStorage,
    kept: MemoryStorage,
    syncs: Vec<FileKind>,
    /// Syncs of these files fail.
    broken: Rc<Cell<Option<FileKind>>>,
}

impl Storage for Disk {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.written.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.written.read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.written.write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.written.len(file)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.written.truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.syncs.push(file.kind);
        self.written.replace(file, data)?;
        self.kept.replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        if self.broken.get() == Some(file.kind) {
            return Err(io::Error::other("the disk is broken"));
        }
        self.syncs.push(file.kind);
        let contents = self.written.contents(file);
        contents.map_or(Ok(()), |contents| self.kept.replace(file, &contents))
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.kept.remove(slot)?;
        self.written.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.kept.rename(from, to)?;
        self.written.rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk {
    /// One whose contents were written, and never synced.
    fn unsynced(written: MemoryStorage) -> Self {
        Self { written, ..Self::default() }
    }

    fn says_open(disk: &MemoryStorage) -> bool {
        disk.contents(FileId::beside(FileKind::Journal)).is_some_and(|journal| journal[20] == b'o')
    }
}

fn open<S: Storage>(disk: S, durability: Durability) -> Multifeed<S> {
    Multifeed::open(disk, Options { durability, ..Options::default() }).unwrap()
}

fn fill<S: Storage>(store: &mut Multifeed<S>, blocks: std::ops::Range<u64>) -> FeedId {
    let id = store.writer(Some("w"), || key_pair(N)).unwrap();
    blocks.for_each(|at| _ = store.append(id, &[block(N, at)]).unwrap());
    store.commit(START);
    id
}

/// What stores opened on a disk have of the feed: its length, and the blocks that are held.
fn held(disk: &MemoryStorage) -> (u64, u64) {
    let store = open(disk.clone(), Durability::None);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    let id = store.find(&key_pair(N).public_key());
    id.map_or((0, 0), |id| (store.info(id).unwrap().len, store.info(id).unwrap().downloaded))
}

fn cut(store: &Multifeed<Disk>) -> (u64, u64) {
    held(&store.storage().kept)
}

fn syncs(store: &Multifeed<Disk>) -> usize {
    store.storage().syncs.len()
}

/// A copy of ten blocks, as a session leaves it in a store that does not sync, which is closed then.
fn closed_copy() -> MemoryStorage {
    let mut stores = [link::store(), link::store()];
    fill(&mut stores[0], 0..10);
    let link = Link::plain(&mut stores, [0, 1], Replicate::default());
    link::run(&mut stores, &mut [link], START);
    let [_, copy] = stores;
    let mut disk = copy.storage().clone();
    drop(copy);
    open(&mut disk, Durability::None).close().unwrap();
    disk.reopen();
    disk
}

#[test]
fn a_cut_takes_no_block_of_a_feed_that_was_cleared_in() {
    for durability in [Durability::None, Durability::Interval(INTERVAL)] {
        for audit in [false, true] {
            let mut store = open(Disk::default(), durability);
            let id = fill(&mut store, 0..10);
            store.sync().unwrap();
            fill(&mut store, 10..15);
            if audit {
                store.audit_step(id, 0, usize::MAX).unwrap();
            } else {
                assert_eq!(store.clear(id, 12..13).unwrap(), 1);
            }
            // Whether all of what was written comes to the disk, or what was synced.
            let left = if audit { 15 } else { 14 };
            assert_eq!((store.synced_len(id), held(&store.storage().written)), (15, (15, left)));
            assert_eq!(cut(&store).0, 15);
        }
    }
}

#[test]
fn clearing_costs_no_sync_where_nothing_would_be_lost() {
    let mut store = open(Disk::default(), Durability::None);
    let id = fill(&mut store, 0..10);
    store.sync().unwrap();
    let before = syncs(&store);
    store.clear(id, 3..4).unwrap();
    assert_eq!(syncs(&store), before);
    // Nor of a copy: what it lacks can be fetched again.
    let mut store = open(Disk::unsynced(closed_copy()), Durability::None);
    let id = store.find(&key_pair(N).public_key()).unwrap();
    store.clear(id, 3..4).unwrap();
    assert_eq!(syncs(&store), 0);
}

#[test]
fn a_store_does_not_clear_what_it_cannot_sync() {
    let mut store = open(Disk::default(), Durability::None);
    let id = fill(&mut store, 0..10);
    store.storage().broken.set(Some(FileKind::Data));
    assert!(store.clear(id, 3..4).is_err());
    assert!(store.has(id, 3));
}

#[test]
fn what_a_killed_process_left_unsynced_is_synced_by_the_next() {
    let mut store = open(Disk::default(), Durability::None);
    fill(&mut store, 0..2);
    store.sync().unwrap();
    fill(&mut store, 2..5);
    assert_eq!(cut(&store), (2, 2));
    let disk = store.storage().clone();
    drop(store);
    for durability in [Durability::None, Durability::Interval(INTERVAL)] {
        let mut store = open(disk.clone(), durability);
        let id = store.find(&key_pair(N).public_key()).unwrap();
        assert_eq!((store.info(id).unwrap().len, store.synced_len(id)), (5, 2));
        store.sync().unwrap();
        assert_eq!((store.synced_len(id), cut(&store)), (5, (5, 5)));
        let before = syncs(&store);
        store.sync().unwrap();
        assert_eq!(syncs(&store), before);
    }
}

#[test]
fn a_copy_that_was_never_synced_is_in_time_where_that_is_asked_for() {
    let disk = Disk::unsynced(closed_copy());
    // As it is, nothing is new.
    let mut store = open(disk.clone(), Durability::None);
    store.commit(START);
    assert_eq!(store.poll_timeout(), None);
    store.sync().unwrap();
    assert_eq!((syncs(&store), cut(&store)), (0, (0, 0)));

    let mut store = open(disk, Durability::Interval(INTERVAL));
    let id = store.find(&key_pair(N).public_key()).unwrap();
    store.commit(START);
    assert_eq!((store.synced_len(id), store.poll_timeout()), (0, Some(INTERVAL)));
    store.handle_timeout(INTERVAL - Duration::from_nanos(1));
    assert_eq!(cut(&store), (0, 0));
    store.handle_timeout(INTERVAL);
    assert_eq!((store.synced_len(id), store.storage().syncs.contains(&FileKind::Data)), (10, true));
    assert_eq!(store.poll_timeout(), None);
    let disk = store.storage().clone();
    store.close().unwrap();
    // And then it is known to be.
    let mut store = open(disk, Durability::Interval(INTERVAL));
    let id = store.find(&key_pair(N).public_key()).unwrap();
    store.commit(START);
    let before = syncs(&store);
    store.sync().unwrap();
    assert_eq!((store.synced_len(id), store.poll_timeout(), syncs(&store)), (10, None, before));
}

#[test]
fn the_disk_knows_that_a_writer_is_in_use_before_it_changes() {
    let (disk, result) = closed(Disk::default(), Durability::None, 0..2);
    result.unwrap();
    assert!(!Disk::says_open(&disk.kept));
    let mut store = open(disk, Durability::None);
    fill(&mut store, 2..3);
    assert!(Disk::says_open(&store.storage().kept));
    // Once is enough.
    let before = syncs(&store);
    fill(&mut store, 3..9);
    assert_eq!(syncs(&store), before);
}

/// Of a writer that JS made the journal knows nothing, and a power cut may leave any part of the first append. What was there before is known by
/// then. Nothing that is left of the append makes the feed be refused.
#[test]
fn a_writer_that_js_made_is_known_before_the_first_append() {
    for (before, durability) in
        [0, 1, 3].into_iter().flat_map(|n| [Durability::None, Durability::Always].map(|d| (n, d)))
    {
        let (disk, result) = closed(Disk::default(), Durability::None, 0..before);
        result.unwrap();
        let mut made = disk.written;
        made.lose(FileId::beside(FileKind::Journal));
        let mut store = open(Disk { kept: made.clone(), written: made, ..Disk::default() }, durability);
        let id = store.find_name("w").unwrap();
        assert_eq!(store.append(id, &[block(N, before), block(N, before + 1)]).unwrap(), before..before + 2);
        let Disk { written, kept, .. } = store.storage().clone();
        // Every file as it was, or as it is: what the cut leaves.
        for files in 0..16 {
            let mut left = kept.clone();
            let kinds = [FileKind::Data, FileKind::Tree, FileKind::Signatures, FileKind::Bitfield];
            for (at, kind) in kinds.into_iter().enumerate().filter(|(at, _)| files >> at & 1 == 1) {
                let contents = written.contents(common::file(0, kind)).unwrap_or_else(|| panic!("{at}"));
                left.replace(common::file(0, kind), &contents).unwrap();
            }
            let (len, downloaded) = held(&left);
            assert!(len == downloaded && len >= before, "{before}, {durability:?}, {files:b}: {len}");
        }
    }
}

#[test]
fn a_store_that_promises_nothing_does_not_wait_for_the_disk_for_a_copy() {
    let copy = closed_copy();
    let mut without_journal = copy.clone();
    without_journal.lose(FileId::beside(FileKind::Journal));
    for written in [copy.clone(), without_journal] {
        let mut store = open(Disk::unsynced(written), Durability::None);
        let id = store.find(&key_pair(N).public_key()).unwrap();
        store.clear(id, 0..1).unwrap();
        assert!(Disk::says_open(&store.storage().written) && syncs(&store) == 0);
    }
    // A writer's first change is one that has to outlive a cut, also if a copy's came before it.
    let mut disk = Disk::unsynced(copy.clone());
    let mut store = open(&mut disk, Durability::None);
    store.writer(Some("another"), || key_pair(2)).unwrap();
    store.close().unwrap();
    assert!(!Disk::says_open(&disk.kept));
    let mut store = open(disk, Durability::None);
    let id = store.find(&key_pair(N).public_key()).unwrap();
    store.clear(id, 0..1).unwrap();
    assert!(!Disk::says_open(&store.storage().kept));
    let id = store.find_name("another").unwrap();
    store.append(id, &[block(2, 0)]).unwrap();
    assert!(Disk::says_open(&store.storage().kept));
    let mut store = open(Disk::unsynced(copy), Durability::Interval(INTERVAL));
    let id = store.find(&key_pair(N).public_key()).unwrap();
    store.clear(id, 0..1).unwrap();
    assert!(Disk::says_open(&store.storage().kept));
}

/// Closes a store, and gives its disk.
fn closed(mut disk: Disk, durability: Durability, blocks: std::ops::Range<u64>) -> (Disk, Result<(), StoreError>) {
    let mut store = open(&mut disk, durability);
    fill(&mut store, blocks);
    let result = store.close();
    (disk, result)
}

#[test]
fn what_is_written_here_outlives_a_cut_once_the_store_is_closed() {
    for durability in [Durability::None, Durability::Interval(INTERVAL), Durability::Always] {
        let (disk, result) = closed(Disk::default(), durability, 0..5);
        result.unwrap();
        assert_eq!(held(&disk.kept), (5, 5));
        assert!(!Disk::says_open(&disk.kept) && !Disk::says_open(&disk.written), "{durability:?}");
        // Opened and closed, nothing is synced or written again.
        let mut again = disk.clone();
        open(&mut again, durability).close().unwrap();
        assert_eq!(again.syncs, disk.syncs);
    }
}

#[test]
fn closing_syncs_only_what_changed() {
    let mut disk = Disk::default();
    let mut store = open(&mut disk, Durability::None);
    fill(&mut store, 0..5);
    store.writer(Some("another"), || key_pair(2)).unwrap();
    store.close().unwrap();
    disk.syncs.clear();
    let (disk, result) = closed(disk, Durability::None, 5..6);
    result.unwrap();
    assert_eq!(disk.syncs.iter().filter(|kind| **kind == FileKind::Data).count(), 1);
}

#[test]
fn what_a_cut_tore_of_a_new_writer_is_noticed() {
    let mut store = open(Disk::default(), Durability::None);
    fill(&mut store, 0..5);
    // All of it came to the disk but its last byte, and of the journal what was synced.
    let journal = FileId::beside(FileKind::Journal);
    let mut disk = store.storage().written.clone();
    disk.replace(journal, &store.storage().kept.contents(journal).unwrap()).unwrap();
    let data = FileId::new(Slot(0), FileKind::Data);
    let end = disk.len(data).unwrap().unwrap();
    disk.write_at(data, end - 1, b"!").unwrap();
    assert_eq!(held(&disk), (4, 4));
}

#[test]
fn a_store_that_could_not_be_synced_does_not_count_as_closed() {
    for durability in [Durability::None, Durability::Interval(INTERVAL)] {
        let disk = Disk::default();
        disk.broken.set(Some(FileKind::Data));
        let (disk, result) = closed(disk, durability, 0..5);
        assert!(matches!(result, Err(StoreError::Io { .. })), "{result:?}");
        assert!(Disk::says_open(&disk.written));
    }
}

#[test]
fn a_failed_sync_of_a_feed_lasts_until_the_store_is_opened_again() {
    let mut store = open(Disk::default(), Durability::Interval(INTERVAL));
    assert_eq!(store.durability(), Durability::Interval(INTERVAL));
    let id = fill(&mut store, 0..5);
    let broken = store.storage().broken.clone();
    broken.set(Some(FileKind::Data));
    store.handle_timeout(INTERVAL);
    assert!(matches!(store.sync_error(id), Some(StoreError::Io { .. })));
    assert_eq!(store.synced_len(id), 0);
    // A second sync might go well, and would tell nothing.
    broken.set(None);
    let _ = store.sync();
    assert!(store.append(id, &[block(N, 5)]).is_err());
    assert!(store.sync_error(id).is_some() && store.synced_len(id) == 0);
    // Nor does it count as closed then.
    let disk = store.storage().clone();
    assert!(store.close().is_err() && Disk::says_open(&disk.written));
    let mut store = open(disk, Durability::Interval(INTERVAL));
    let id = fill(&mut store, 5..6);
    store.sync().unwrap();
    assert_eq!((store.sync_error(id).is_none(), cut(&store)), (true, (6, 6)));
}

#[test]
fn a_failed_sync_of_the_journal_is_tried_again_in_time() {
    let mut store = open(Disk::default(), Durability::Interval(INTERVAL));
    let id = fill(&mut store, 0..5);
    let broken = store.storage().broken.clone();
    broken.set(Some(FileKind::Journal));
    store.handle_timeout(INTERVAL);
    assert!(store.sync_error(id).is_some());
    assert_eq!(store.poll_timeout(), Some(2 * INTERVAL));
    assert_eq!(store.append(id, &[block(N, 5)]).unwrap(), 5..6);
    broken.set(None);
    store.handle_timeout(2 * INTERVAL);
    assert!(store.sync_error(id).is_none());
    assert_eq!((store.synced_len(id), cut(&store)), (6, (6, 6)));
}

#[test]
fn many_feeds_are_synced_some_at_a_time() {
    let many = |durability| {
        let mut store = open(Disk::default(), durability);
        let ids: Vec<FeedId> = (0..150).map(|n| store.writer(None, || key_pair(n)).unwrap()).collect();
        ids.iter().for_each(|&id| _ = store.append(id, &[Bytes::from_static(b"one")]).unwrap());
        store.commit(START);
        (store, ids)
    };
    let synced = |store: &Multifeed<Disk>, ids: &[FeedId]| ids.iter().filter(|&&id| store.synced_len(id) == 1).count();
    let (mut store, ids) = many(Durability::Interval(INTERVAL));
    for expected in [64, 128, 150] {
        assert_eq!(store.poll_timeout(), Some(INTERVAL));
        store.handle_timeout(INTERVAL);
        assert_eq!(synced(&store, &ids), expected);
    }
    assert_eq!(store.poll_timeout(), None);

    let (mut store, ids) = many(Durability::None);
    let (mut next, mut steps) = (None, Vec::new());
    loop {
        let (from, result) = store.sync_step(next);
        result.unwrap();
        steps.push(synced(&store, &ids));
        next = from;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(steps, [64, 128, 150]);
}

#[test]
fn a_feed_that_could_not_be_synced_stops_no_other() {
    let mut store = open(Disk::default(), Durability::None);
    let failed = fill(&mut store, 0..5);
    let broken = store.storage().broken.clone();
    broken.set(Some(FileKind::Data));
    assert!(store.sync().is_err());
    broken.set(None);
    let ids: Vec<FeedId> = (2..102).map(|n| store.writer(None, || key_pair(n)).unwrap()).collect();
    ids.iter().for_each(|&id| _ = store.append(id, &[block(0, 0)]).unwrap());
    let _ = store.sync();
    assert!(ids.iter().all(|&id| store.synced_len(id) == 1));
    assert_eq!(store.synced_len(failed), 0);
}

/// With `None`, what was received is not synced, and a power cut takes any of it. Opening finds that out for all that came since the journal knew of
/// the feed; a block that was cleared meanwhile is no reason to believe the others.
#[test]
fn what_a_cut_takes_of_a_copy_is_found_also_if_blocks_of_it_were_cleared() {
    let mut source = link::store();
    fill(&mut source, 0..10);
    let mut stores = vec![source, open(closed_copy(), Durability::None)];
    fill(&mut stores[0], 10..20);
    let sync = |stores: &mut Vec<link::Store>| {
        let link = Link::plain(stores, [0, 1], Replicate::default());
        link::run(stores, &mut [link], START);
    };
    sync(&mut stores);
    let id = stores[1].find(&key_pair(N).public_key()).unwrap();
    assert_eq!(stores[1].clear(id, 3..5).unwrap(), 2);
    let cleared = stores[1].storage().clone();
    // They come again.
    sync(&mut stores);
    assert_eq!(stores[1].info(id).unwrap().downloaded, 20);
    let fetched = stores[1].storage().clone();
    let (data, journal) = (FileId::new(Slot(0), FileKind::Data), FileId::beside(FileKind::Journal));
    let old_journal = closed_copy().contents(journal).unwrap();

    for (disk, again) in [(&cleared, false), (&fetched, true)] {
        for knows_of_the_clear in [true, false] {
            let mut disk = disk.clone();
            disk.reopen();
            // Of the blocks that came last the first five are not there, and neither are those that came again.
            let size = |blocks: std::ops::Range<u64>| blocks.map(|at| block(N, at).len()).sum::<usize>();
            for lost in [3..5, 10..15] {
                disk.write_at(data, size(0..lost.start) as u64, &vec![0; size(lost)]).unwrap();
            }
            if !knows_of_the_clear {
                // The records since are lost, and what the header says of the store is not.
                let open = [&disk.contents(journal).unwrap()[..32], &old_journal[32..]].concat();
                disk.replace(journal, &open).unwrap();
            }
            assert!(Disk::says_open(&disk));
            let mut store = open(&mut disk, Durability::None);
            let what = format!("fetched again: {again}, known to be cleared: {knows_of_the_clear}");
            assert!(store.problems().is_empty(), "{what}: {:?}", store.problems());
            let id = store.find(&key_pair(N).public_key()).unwrap();
            // Nobody could tell of those that the old journal knows, that came again and are not there: reading does.
            let unknown = if again && !knows_of_the_clear { 3..5 } else { 0..0 };
            for at in 0..20 {
                let read = store.get(id, at);
                match at {
                    at if unknown.contains(&at) => assert_eq!(read.unwrap_err().code(), "ERR_STORE_DAMAGED"),
                    3 | 4 | 10..15 => assert_eq!(read.unwrap(), None, "{what}: block {at}"),
                    at => assert_eq!(read.unwrap(), Some(block(N, at)), "{what}"),
                }
            }
            let found = store.verify_step(id, &mut VerifyCursor::default(), usize::MAX).unwrap().findings;
            assert_eq!(found.len(), unknown.count(), "{what}: {found:?}");
            let lost: u64 = store.recovered().iter().map(|recovered| recovered.blocks_unmarked).sum();
            assert_eq!(lost, if again && knows_of_the_clear { 7 } else { 5 }, "{what}");
        }
    }
}

/// The very first append of a writer is torn, and the store is opened and closed before anything is appended again.
#[test]
fn what_a_cut_left_of_a_first_append_is_no_damage_once_the_store_was_closed() {
    let mut store = open(Disk::default(), Durability::Interval(INTERVAL));
    let id = store.writer(Some("w"), || key_pair(N)).unwrap();
    store.sync().unwrap();
    store.append(id, &[block(N, 0), block(N, 1)]).unwrap();
    store.commit(START);
    for left in [&[FileKind::Tree][..], &[FileKind::Data], &[FileKind::Tree, FileKind::Signatures]] {
        let Disk { mut kept, written, .. } = store.storage().clone();
        for kind in left {
            let file = FileId::new(Slot(0), *kind);
            kept.replace(file, &written.contents(file).unwrap()).unwrap();
        }
        kept.reopen();
        let mut disk = Disk { written: kept.clone(), kept, ..Disk::default() };
        open(&mut disk, Durability::None).close().unwrap();
        // What was closed may lose nothing by another cut.
        for mut disk in [disk.written, disk.kept] {
            disk.reopen();
            let mut store = open(&mut disk, Durability::None);
            assert!(store.problems().is_empty(), "{left:?}: {:?}", store.problems());
            let id = store.writer(Some("w"), || key_pair(9)).unwrap();
            assert_eq!(
                (store.info(id).unwrap().key, store.info(id).unwrap().len),
                (key_pair(N).public_key(), 0),
                "{left:?}"
            );
            store.append(id, &[block(N, 5)]).unwrap();
            assert_eq!(store.get(id, 0).unwrap(), Some(block(N, 5)));
        }
    }
}
