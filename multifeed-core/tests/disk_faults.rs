//! A table of faults: every error of a real disk, at every call of the system that a store makes in its life. What the system does not support
//! is gone without, and reported; what it supports and does not do is a typed error. Nothing that was acknowledged is ever lost.
#![cfg(unix)]

use crate::common;
use crate::link;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use common::{block, blocks, key_pair};
use link::{Link, run};
use multifeed_core::storage::faults::{DiskCall, DiskOp, Fault, Faults, FaultyDisk};
use multifeed_core::{
    Durability, FileStorage, FileStorageOptions, MemoryStorage, Multifeed, Options, Replicate, Slot, Storage,
    StoreError,
};
use rustix::io::Errno;

const N: u8 = 1;
const THEIRS: u8 = 2;
const START: Duration = Duration::ZERO;

/// What is called, and where.
type Call = (DiskOp, Option<Slot>, String);

/// What a call is known by from one run to the next: what it does, where, and how often that came before, as far as that matters.
type Place = (DiskOp, Option<Slot>, String, usize);

/// How many repeats of one call at one place count as different.
const REPEATS: usize = 2;

/// A disk that notes its calls, and fails at one of them, or from that one on.
#[derive(Debug, Default)]
struct Table {
    seen: Mutex<BTreeMap<Call, usize>>,
    at: Option<Place>,
    fault: Option<Fault>,
    lasting: bool,
    struck: AtomicUsize,
}

impl FaultyDisk for Table {
    fn fault(&self, call: &DiskCall<'_>) -> Option<Fault> {
        let place = (call.op, call.slot, call.name.to_owned());
        let mut seen = self.seen.lock().unwrap();
        let count = seen.entry(place.clone()).or_default();
        *count += 1;
        if call.op == DiskOp::Stamp && self.at.as_ref().is_none_or(|at| at.0 != DiskOp::Stamp) {
            // Whether a feed's files can be known again depends on how fast the machine is. What is read if they are is read in any case.
            return Some(Fault::Errno(Errno::NOSYS.raw_os_error()));
        }
        let (op, slot, name, repeat) = self.at.as_ref()?;
        let here = (*op, *slot, name) == (place.0, place.1, &place.2);
        if here && (*count == *repeat || self.lasting && *count > *repeat) {
            self.struck.fetch_add(1, Relaxed);
            return self.fault;
        }
        None
    }
}

fn open(path: &Path, disk: Arc<dyn FaultyDisk>) -> Result<Multifeed<Box<dyn Storage>>, StoreError> {
    let mut files = FileStorageOptions::default();
    files.faults = Faults::new(disk);
    let options = Options { durability: Durability::Always, ..Options::default() };
    Multifeed::open(Box::new(FileStorage::open_with(path, files)?), options)
}

/// How far a life went.
#[derive(Debug, Default)]
struct Life {
    /// Blocks of our writer that were acknowledged, and that were to be appended.
    acknowledged: u64,
    tried: u64,
    /// What failed.
    errors: Vec<StoreError>,
    unsupported: multifeed_core::Unsupported,
}

impl Life {
    fn note<T>(&mut self, result: Result<T, StoreError>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }

    fn append(&mut self, store: &mut Multifeed<Box<dyn Storage>>, count: u64) {
        let Some(ours) = self.note(store.writer(Some("ours"), || key_pair(N))) else { return };
        let held = store.info(ours).unwrap().len;
        assert!(
            held >= self.acknowledged,
            "{held} blocks of {} that were acknowledged, after {:?}",
            self.acknowledged,
            self.errors
        );
        self.tried = self.tried.max(held + count);
        let appended = store.append(ours, &blocks(N, held..held + count));
        store.commit(START);
        match appended {
            Ok(range) if store.synced_len(ours) >= range.end => self.acknowledged = range.end,
            Ok(_) => self.errors.extend(store.sync_error(ours).cloned()),
            Err(error) => self.errors.push(match error {
                multifeed_core::AppendError::Store(error) => error,
                other => panic!("{other}"),
            }),
        }
    }

    fn close(&mut self, store: Multifeed<Box<dyn Storage>>) {
        let (result, unsupported) = store.close_and_tell();
        let told = &mut self.unsupported;
        told.locks |= unsupported.locks;
        told.folder_sync |= unsupported.folder_sync;
        told.file_sync |= unsupported.file_sync;
        told.holes |= unsupported.holes;
        self.note(result);
    }
}

/// A store's life: made, written, synced with somebody, read, closed, opened again, cleared, and rid of a feed.
fn live(path: &Path, disk: &Arc<Table>) -> Life {
    let mut life = Life::default();
    if let Some(mut store) = life.note(open(path, disk.clone())) {
        life.append(&mut store, 3);
        let theirs = Multifeed::open(Box::new(MemoryStorage::default()) as Box<dyn Storage>, Options::default());
        let mut stores = vec![store, theirs.unwrap()];
        let feed = stores[1].writer(Some("theirs"), || key_pair(THEIRS)).unwrap();
        stores[1].append(feed, &blocks(THEIRS, 0..20)).unwrap();
        let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
        run(&mut stores, &mut links, START);
        if let Some(Err(error)) = links[0].result(0) {
            match error {
                multifeed_core::SyncError::Store(error) => life.errors.push(error.clone()),
                error => panic!("{error}"),
            }
        }
        let mut store = stores.swap_remove(0);
        life.append(&mut store, 1);
        read(&mut store, &mut life);
        life.close(store);
    }
    if let Some(mut store) = life.note(open(path, disk.clone())) {
        life.errors.extend(store.problems().iter().cloned());
        read(&mut store, &mut life);
        life.append(&mut store, 2);
        let _ = store.disk_full();
        if let Some(theirs) = store.find(&key_pair(THEIRS).public_key()) {
            life.note(store.clear(theirs, 2..4));
            life.note(store.clear(theirs, 5..20));
            life.note(store.audit_step(theirs, 0, 1 << 20));
            life.note(store.remove(theirs));
        }
        life.append(&mut store, 1);
        life.close(store);
    }
    life
}

/// Reads all that is held: what comes is right.
fn read(store: &mut Multifeed<Box<dyn Storage>>, life: &mut Life) {
    for n in [N, THEIRS] {
        let Some(id) = store.find(&key_pair(n).public_key()) else { continue };
        for index in 0..store.info(id).unwrap().len {
            if let Some(Some(bytes)) = life.note(store.get(id, index)) {
                assert_eq!(bytes, block(n, index));
            }
        }
        let mut cursor = multifeed_core::VerifyCursor::default();
        while let Some(step) = life.note(store.verify_step(id, &mut cursor, 1 << 20)) {
            if step.done {
                break;
            }
        }
    }
}

/// What is on the disk after a life, whatever happened in it: opens without faults, and lacks nothing that was acknowledged.
fn check(path: &Path, life: &Life, what: &dyn Debug) {
    let mut store = open(path, Arc::new(Table::default())).unwrap_or_else(|error| panic!("{what:?}: {error}"));
    // What a remote had is not lost for good.
    let ours = store.writer(Some("ours"), || key_pair(N)).unwrap_or_else(|error| panic!("{what:?}: {error}"));
    let info = store.info(ours).unwrap();
    assert!(
        info.writable && info.len >= life.acknowledged && info.len <= life.tried,
        "{what:?}: {} blocks, {} were acknowledged and {} tried",
        info.len,
        life.acknowledged,
        life.tried
    );
    for index in 0..info.len {
        assert_eq!(store.get(ours, index).unwrap(), Some(block(N, index)), "{what:?}");
    }
    for id in store.feeds().collect::<Vec<_>>() {
        let mut cursor = multifeed_core::VerifyCursor::default();
        loop {
            let step = store.verify_step(id, &mut cursor, 1 << 20).unwrap();
            assert!(step.findings.is_empty(), "{what:?}: {:?}", step.findings);
            if step.done {
                break;
            }
        }
    }
    let range =
        store.append(ours, &blocks(N, info.len..info.len + 1)).unwrap_or_else(|error| panic!("{what:?}: {error}"));
    assert_eq!(range, info.len..info.len + 1);
    store.commit(START);
    assert_eq!(store.synced_len(ours), info.len + 1, "{what:?}: {:?}", store.sync_error(ours));
    store.close().unwrap_or_else(|error| panic!("{what:?}: {error}"));
}

/// In memory, if the system has such a folder: thousands of stores are made and synced.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// The places in the store's life at which it calls the system.
fn places() -> Vec<Place> {
    let folder = folder();
    let table = Arc::new(Table::default());
    let life = live(folder.path(), &table);
    assert!(life.errors.is_empty() && life.acknowledged == 7, "{life:?}");
    check(folder.path(), &life, &"no fault");
    let seen = table.seen.lock().unwrap();
    let repeats = |(place, count): (&Call, &usize)| {
        let (op, slot, name) = place.clone();
        let last = Some(*count).filter(|count| *count > REPEATS);
        (1..=REPEATS.min(*count)).chain(last).map(move |repeat| (op, slot, name.clone(), repeat)).collect::<Vec<_>>()
    };
    seen.iter().flat_map(repeats).collect()
}

/// The errors that a disk has: those of systems and file systems that lack something, of a bad one, of a full one, and of a process.
const ERRORS: [Errno; 9] = [
    Errno::NOSYS,
    Errno::OPNOTSUPP,
    Errno::NOLCK,
    Errno::INVAL,
    Errno::IO,
    Errno::WOULDBLOCK,
    Errno::MFILE,
    Errno::NOSPC,
    Errno::ROFS,
];

/// Whether the call is one that can be gone without, and the error says that the system does not have it.
fn is_unsupported(op: DiskOp, errno: Errno) -> bool {
    matches!(op, DiskOp::Lock | DiskOp::SyncFolder | DiskOp::SyncFile | DiskOp::PunchHole)
        && matches!(errno, Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK | Errno::INVAL)
}

/// Every error at every call of a life, once or from then on. `MULTIFEED_FAULTS=all` does all of it, in minutes; else each place has a third of
/// those that are failures.
#[test]
fn every_error_at_every_call_is_told_or_gone_without_and_loses_nothing() {
    let places = places();
    let ops: std::collections::BTreeSet<DiskOp> = places.iter().map(|(op, ..)| *op).collect();
    // A life has no obstacle in its way, and no limit on free space.
    let missing: Vec<DiskOp> = DiskOp::ALL.into_iter().filter(|op| !ops.contains(op)).collect();
    assert_eq!(missing, [DiskOp::FreeSpace]);
    let (mut told, mut passed, mut wrong) = (0, 0, Vec::new());
    let all = std::env::var_os("MULTIFEED_FAULTS").is_some_and(|all| all == "all");
    for (number, place) in places.iter().enumerate() {
        for (turn, errno) in ERRORS.into_iter().enumerate() {
            if !all && !is_unsupported(place.0, errno) && !(number + turn).is_multiple_of(3) {
                continue;
            }
            for lasting in [false, true] {
                let run = std::panic::catch_unwind(|| try_one(place, errno, lasting));
                match run {
                    Ok(true) => told += 1,
                    Ok(false) => passed += 1,
                    // Each of them shows above.
                    Err(_) => wrong.push((place, errno, lasting)),
                }
            }
        }
    }
    println!("{} places: {told} runs had an error, {passed} had none", places.len());
    assert!(wrong.is_empty(), "{} runs: {wrong:#?}", wrong.len());
    assert!(told > 500 && passed > 100, "{told} runs had an error, {passed} had none");
}

/// A life with this error at this place: whether it reported an error.
fn try_one(place: &Place, errno: Errno, lasting: bool) -> bool {
    let op = place.0;
    let folder = folder();
    let what = (place, errno, lasting);
    let fault = Some(Fault::Errno(errno.raw_os_error()));
    let table = Arc::new(Table { at: Some(place.clone()), fault, lasting, ..Table::default() });
    let life = live(folder.path(), &table);
    assert!(table.struck.load(Relaxed) > 0, "{what:?} never came");
    let told = life.unsupported;
    if is_unsupported(op, errno) {
        assert!(life.errors.is_empty() && life.acknowledged == 7, "{what:?}: {life:?}");
        match op {
            DiskOp::Lock => assert!(told.locks, "{what:?}"),
            DiskOp::SyncFolder => assert!(told.folder_sync, "{what:?}"),
            DiskOp::PunchHole => assert!(told.holes, "{what:?}"),
            _ => assert!(told.file_sync, "{what:?}"),
        }
    } else {
        assert_eq!(told, multifeed_core::Unsupported::default(), "{what:?}");
        if matches!(op, DiskOp::SyncFile | DiskOp::SyncFolder) && errno == Errno::IO {
            assert!(!life.errors.is_empty(), "{what:?} was passed over");
        }
    }
    check(folder.path(), &life, &what);
    !life.errors.is_empty()
}

/// A read or a write that does less than it was asked for is gone on with.
#[test]
fn short_reads_and_writes_are_gone_on_with() {
    #[derive(Debug)]
    struct Short;
    impl FaultyDisk for Short {
        fn fault(&self, call: &DiskCall<'_>) -> Option<Fault> {
            let bytes = call.range.end - call.range.start;
            matches!(call.op, DiskOp::Read | DiskOp::Write).then(|| Fault::Short(bytes.div_ceil(3) as usize))
        }
    }
    let folder = folder();
    let mut life = Life::default();
    let mut store = open(folder.path(), Arc::new(Short)).unwrap();
    life.append(&mut store, 30);
    read(&mut store, &mut life);
    life.close(store);
    let mut store = open(folder.path(), Arc::new(Short)).unwrap();
    read(&mut store, &mut life);
    life.append(&mut store, 30);
    life.close(store);
    assert!(life.errors.is_empty() && life.acknowledged == 60, "{life:?}");
    check(folder.path(), &life, &"short");
}

/// EIO at one byte of a file.
#[derive(Debug)]
struct BadSector {
    name: &'static str,
    at: u64,
}

impl FaultyDisk for BadSector {
    fn fault(&self, call: &DiskCall<'_>) -> Option<Fault> {
        let hit = call.op == DiskOp::Read && call.name == self.name && call.range.contains(&self.at);
        hit.then(|| Fault::Errno(Errno::IO.raw_os_error()))
    }
}

/// One block on a bad sector: a remote gets every other, the session ends well and says which, and so does verifying. An audit gives the block
/// up, and it comes again.
#[test]
fn a_bad_sector_costs_what_is_on_it() {
    const BLOCKS: u64 = 300;
    let folder = folder();
    let pair = || key_pair(N);
    let mut store = open(folder.path(), Arc::new(Table::default())).unwrap();
    let ours = store.writer(Some("ours"), pair).unwrap();
    store.append(ours, &(0..BLOCKS).map(|i| vec![i as u8; 40].into()).collect::<Vec<_>>()).unwrap();
    store.commit(START);
    store.close().unwrap();

    // Of `tree`, the leaf of block 100 and nothing beside it.
    for (name, at, lost) in [("data", 100 * 40 + 7, 1), ("tree", 32 + 200 * 40 + 3, 4)] {
        let store = open(folder.path(), Arc::new(BadSector { name, at })).unwrap();
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        let theirs = Multifeed::open(Box::new(MemoryStorage::default()) as Box<dyn Storage>, Options::default());
        let mut stores = vec![store, theirs.unwrap()];
        let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
        run(&mut stores, &mut links, START);
        links[0].totals(0);
        let damaged = links[0].events[0].iter().filter_map(|event| match event {
            multifeed_core::PeerEvent::Damaged { block, .. } => Some(*block),
            _ => None,
        });
        let damaged: Vec<Option<u64>> = damaged.collect();
        // By the first block that was asked for and could not be sent.
        assert!(matches!(damaged[..], [Some(98..104)]), "{name}: {damaged:?}");
        let feed = stores[1].find(&pair().public_key()).unwrap();
        let held = stores[1].count_held(feed, 0..BLOCKS);
        assert!((BLOCKS - lost..BLOCKS).contains(&held), "{name}: {held} blocks came");

        let store = &mut stores[0];
        let ours = store.find(&pair().public_key()).unwrap();
        let mut cursor = multifeed_core::VerifyCursor::default();
        let step = store.verify_step(ours, &mut cursor, 1 << 20).unwrap();
        assert!(step.done && !step.findings.is_empty(), "{name}: {step:?}");
        let text = step.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(text.contains("cannot be read: the disk fails there"), "{text}");
        assert_eq!(store.get(ours, 99).unwrap().unwrap()[0], 99);
        assert!(store.get(ours, 100).is_err());
    }

    // Of a feed that was signed twice, the first signature.
    let mut store = open(folder.path(), Arc::new(Table::default())).unwrap();
    let ours = store.writer(Some("ours"), pair).unwrap();
    store.append(ours, &[vec![7; 40].into()]).unwrap();
    store.commit(START);
    store.close().unwrap();
    let disk = BadSector { name: "signatures", at: 32 + (BLOCKS - 1) * 64 + 5 };
    let mut store = open(folder.path(), Arc::new(disk)).unwrap();
    let ours = store.writer(Some("ours"), pair).unwrap();
    let step = store.verify_step(ours, &mut multifeed_core::VerifyCursor::default(), 1 << 20).unwrap();
    let found: Vec<(u64, String)> = step.findings.iter().map(|found| (found.block(), found.to_string())).collect();
    assert!(step.done && found.len() == 1 && found[0].0 == BLOCKS - 1, "{found:?}");
    assert!(found[0].1.contains(&format!("the signature of length {BLOCKS} cannot be read")), "{found:?}");
}

/// A lock that another process has is no lock that the system lacks.
#[test]
fn a_lock_that_is_held_is_told() {
    let folder = folder();
    let at = Some((DiskOp::Lock, None, "multifeed.lock".to_owned(), 1));
    let fault = Some(Fault::Errno(Errno::WOULDBLOCK.raw_os_error()));
    let table = Table { at, fault, ..Table::default() };
    assert_eq!(open(folder.path(), Arc::new(table)).err().unwrap().code(), "ERR_STORE_LOCKED");
    // Of one feed: the others are there.
    let life = live(folder.path(), &Arc::new(Table::default()));
    check(folder.path(), &life, &"no fault");
    let mut store = open(folder.path(), Arc::new(Table::default())).unwrap();
    store.writer(Some("another"), || key_pair(9)).unwrap();
    store.close().unwrap();
    let at = Some((DiskOp::Lock, Some(Slot(0)), "bitfield".to_owned(), 1));
    let mut store = open(folder.path(), Arc::new(Table { at, fault, lasting: true, ..Table::default() })).unwrap();
    assert_eq!(store.problems().iter().map(StoreError::code).collect::<Vec<_>>(), ["ERR_STORE_LOCKED"]);
    assert!(store.find_name("another").is_some());
    // Its name is nobody else's.
    assert_eq!(store.writer(Some("ours"), || key_pair(8)).unwrap_err().code(), "ERR_STORE_LOCKED");
}

/// Files that are open give way, and are opened again.
#[test]
fn open_files_give_way_to_others() {
    let folder = folder();
    let mut storage = FileStorage::open(folder.path()).unwrap();
    for slot in 0..20 {
        storage.write_at(multifeed_core::FileId::new(Slot(slot), multifeed_core::FileKind::Data), 0, b"x").unwrap();
    }
    let before = storage.open_files();
    let closed = storage.close_idle_files();
    assert_eq!((closed, storage.open_files()), (16, before - 16));
    assert_eq!(storage.close_idle_files(), 0);
    for slot in 0..20 {
        let file = multifeed_core::FileId::new(Slot(slot), multifeed_core::FileKind::Data);
        assert_eq!(storage.read_at(file, 0, &mut [0]).unwrap(), 1);
    }
    assert!(storage.open_files() < before, "{} of {before}", storage.open_files());
}

/// A store, or a feed of it, that is moved, removed or replaced while it is open. What is appended then is refused by name, and nothing is made at
/// the old path.
#[test]
fn a_store_that_is_moved_while_it_is_open_takes_nothing_more() {
    type Act = (&'static str, fn(&Path));
    let acts: [Act; 5] = [
        ("moved", |here| fs::rename(here, here.with_file_name("moved")).unwrap()),
        ("removed", |here| fs::remove_dir_all(here).unwrap()),
        ("replaced", |here| {
            fs::rename(here, here.with_file_name("moved")).unwrap();
            fs::create_dir(here).unwrap();
        }),
        ("its feed removed", |here| fs::remove_dir_all(here.join("0")).unwrap()),
        ("its feed replaced", |here| {
            fs::rename(here.join("0"), here.with_file_name("moved")).unwrap();
            fs::create_dir(here.join("0")).unwrap();
        }),
    ];
    for durability in [Durability::None, Durability::Always] {
        for (what, act) in acts {
            let folder = folder();
            let here = folder.path().join("here");
            let options = || Options { durability, ..Options::default() };
            let mut store = Multifeed::open(FileStorage::open(&here).unwrap(), options()).unwrap();
            let ours = store.writer(Some("ours"), || key_pair(N)).unwrap();
            store.append(ours, &blocks(N, 0..3)).unwrap();
            store.commit(START);
            act(&here);
            let before = list(&here);
            let error = store.append(ours, &blocks(N, 3..4)).unwrap_err();
            assert_eq!(error.code(), "ERR_STORE_MOVED", "{what}");
            assert!(error.to_string().contains("here"), "{what}: {error}");
            if !what.contains("feed") {
                let error = store.writer(Some("another"), || key_pair(9)).unwrap_err();
                assert_eq!(error.code(), "ERR_STORE_MOVED", "{what}: {error}");
            }
            let _ = store.close();
            assert_eq!(list(&here), before, "{what}: something was made at the old path");
            // What was acknowledged is in the folder's new place.
            if here.with_file_name("moved").join("0").exists() {
                let now = FileStorage::open(here.with_file_name("moved")).unwrap();
                let mut store = Multifeed::open(now, options()).unwrap();
                let ours = store.writer(Some("ours"), || key_pair(N)).unwrap();
                assert_eq!(store.info(ours).unwrap().len, 3, "{what}");
            }
        }
    }
}

/// The same of a feed whose files were closed for those of others, as a server of many feeds does: its folder is known all the same.
#[test]
fn a_feed_that_is_moved_while_its_files_are_closed_takes_nothing_more() {
    for replaced in [false, true] {
        for durability in [Durability::None, Durability::Always] {
            let folder = folder();
            let (here, moved) = (folder.path().join("here"), folder.path().join("moved"));
            let mut files = FileStorageOptions::default();
            files.max_open_files = 20;
            let options = || Options { durability, ..Options::default() };
            let mut store = Multifeed::open(FileStorage::open_with(&here, files).unwrap(), options()).unwrap();
            let ours = store.writer(Some("ours"), || key_pair(N)).unwrap();
            store.append(ours, &blocks(N, 0..3)).unwrap();
            let others: Vec<_> = (50..70).map(|n| store.writer(None, || key_pair(n)).unwrap()).collect();
            store.commit(START);
            for &other in &others {
                store.append(other, &blocks(N, 0..1)).unwrap();
            }
            fs::rename(here.join("0"), &moved).unwrap();
            if replaced {
                fs::create_dir(here.join("0")).unwrap();
            }
            let before = list(&here);
            for &other in &others {
                store.append(other, &blocks(N, 1..2)).unwrap();
            }
            store.commit(START);
            assert_eq!(store.append(ours, &blocks(N, 3..4)).unwrap_err().code(), "ERR_STORE_MOVED");
            assert_eq!(list(&here), before);
            assert_eq!(list(&here.join("0")), Vec::<std::ffi::OsString>::new());
            // Back in its place, it takes more.
            if replaced {
                fs::remove_dir(here.join("0")).unwrap();
            }
            fs::rename(&moved, here.join("0")).unwrap();
            store.append(ours, &blocks(N, 3..4)).unwrap();
            store.close().unwrap();
            let mut store = Multifeed::open(FileStorage::open(&here).unwrap(), options()).unwrap();
            let ours = store.writer(Some("ours"), || key_pair(N)).unwrap();
            assert_eq!(
                (store.info(ours).unwrap().len, store.info(ours).unwrap().downloaded, store.problems().len()),
                (4, 4, 0)
            );
        }
    }
}

fn list(folder: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.collect();
    names.sort();
    names
}

/// A store that was not closed, on a disk that cannot be written or beside the process that has it: it is repaired in memory, and nothing in it
/// changes.
#[test]
fn a_store_that_is_not_closed_can_be_read_and_is_not_changed() {
    use multifeed_core::RepairedInMemory;
    let folder = folder();
    let mut store = open(folder.path(), Arc::new(Table::default())).unwrap();
    let ours = store.writer(Some("ours"), || key_pair(N)).unwrap();
    store.append(ours, &blocks(N, 0..50)).unwrap();
    store.commit(START);
    store.append(ours, &blocks(N, 50..60)).unwrap();
    let contents = |path: &Path| {
        fs::read_dir(path.join("0"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect::<BTreeMap<_, _>>()
    };
    let before = contents(folder.path());
    let read = FileStorage::open_beside_with(folder.path(), FileStorageOptions::default()).unwrap();
    let mut beside = Multifeed::open(RepairedInMemory::new(read), Options::default()).unwrap();
    assert!(beside.problems().is_empty(), "{:?}", beside.problems());
    let theirs = beside.find_name("ours").unwrap();
    assert_eq!(beside.info(theirs).unwrap().len, 60);
    for index in 0..60 {
        assert_eq!(beside.get(theirs, index).unwrap(), Some(block(N, index)));
    }
    // It is not written.
    let error = beside.append(theirs, &blocks(N, 60..61)).unwrap_err();
    assert!(error.to_string().contains("for reading alone"), "{error}");
    beside.close().unwrap();
    assert_eq!(contents(folder.path()), before);
    // The one who has it goes on.
    store.append(ours, &blocks(N, 60..61)).unwrap();
    store.close().unwrap();
}
