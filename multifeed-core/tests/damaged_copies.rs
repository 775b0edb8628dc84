//! A feed that was fetched, and of which less is here than the journal knows: `tree` or `signatures` is cut, zeroed or gone, or is an older one. What the
//! journal knows is not given up: nothing is cut, each opening reports it, what can be proven is served, and a peer brings the rest.

use crate::common;
use crate::link;

use std::time::Duration;

use common::{block, blocks, file, key_pair};
use link::{Link, run};
use multifeed_core::{
    Durability, FeedId, FileKind, MemoryStorage, Multifeed, Options, Replicate, Slot, Storage, StoreError, VerifyCursor,
};

type Store = Multifeed<MemoryStorage>;
type Damage = (&'static str, fn(&mut MemoryStorage, &MemoryStorage));

const THEIRS: u8 = 7;
const OURS: u8 = 1;
const NOW: Duration = Duration::ZERO;
/// The folder of the feed that was fetched.
const COPY: u32 = 0;

fn open(mut disk: MemoryStorage, durability: Durability) -> Store {
    disk.reopen();
    Multifeed::open(disk, Options { durability, ..Options::default() }).unwrap()
}

/// What is on the disk once the store was closed.
fn closed(mut store: Store) -> MemoryStorage {
    store.commit(NOW);
    let mut disk = store.storage().clone();
    let durability = store.durability();
    store.close().unwrap();
    disk.reopen();
    Multifeed::open(&mut disk, Options { durability, ..Options::default() }).unwrap().close().unwrap();
    disk.reopen();
    disk
}

/// A store that wrote so many blocks of the feed, each signed if they are appended one by one.
fn writer(len: u64, one_by_one: bool) -> Store {
    let mut store = link::store();
    let id = store.writer(Some("theirs"), || key_pair(THEIRS)).unwrap();
    match one_by_one {
        true => (0..len).for_each(|at| _ = store.append(id, &[block(THEIRS, at)]).unwrap()),
        false => _ = store.append(id, &blocks(THEIRS, 0..len)).unwrap(),
    }
    store
}

fn sync(stores: &mut [Store], options: &Replicate) -> bool {
    let mut links = [Link::plain(stores, [0, 1], options.clone())];
    run(stores, &mut links, NOW);
    links[0].totals(0);
    stores[0].in_sync(links[0].ends[0].1.peer())
}

/// A disk of a store that fetched the feed up to a length, and then up to a second one; what it was in between; and the store that has it all. The
/// store is a writer too.
fn fetched(lens: [u64; 2], one_by_one: bool, durability: Durability) -> (MemoryStorage, MemoryStorage, Store) {
    let mut stores = vec![open(MemoryStorage::new(), durability), writer(lens[0], one_by_one)];
    sync(&mut stores, &Replicate::default());
    let ours = stores[0].writer(Some("ours"), || key_pair(OURS)).unwrap();
    stores[0].append(ours, &blocks(OURS, 0..3)).unwrap();
    let older = closed(stores.remove(0));
    let id = theirs(&stores[0]);
    for at in lens[0]..lens[1] {
        stores[0].append(id, &[block(THEIRS, at)]).unwrap();
    }
    stores.insert(0, open(older.clone(), durability));
    sync(&mut stores, &Replicate::default());
    let source = stores.pop().unwrap();
    (closed(stores.pop().unwrap()), older, source)
}

fn theirs(store: &Store) -> FeedId {
    store.find(&key_pair(THEIRS).public_key()).expect("the feed that was fetched")
}

fn append(store: &mut Store) {
    let id = store.writer(Some("ours"), || panic!("another writer")).unwrap();
    let len = store.info(id).unwrap().len;
    store.append(id, &[block(OURS, len)]).unwrap();
}

/// The length that can be proven of a copy that is reported, and the one that the journal knows.
fn reported(store: &Store) -> Option<(u64, u64)> {
    let told = |problem: &StoreError| match problem {
        StoreError::OlderCopy { blocks, known, key, .. } if *key == key_pair(THEIRS).public_key() => (*blocks, *known),
        // The last root was made again of its block, and the signature is lost.
        StoreError::Damaged { file: FileKind::Signatures, .. } => {
            let len = store.info(theirs(store)).unwrap().len;
            (len, len)
        }
        other => panic!("{other}"),
    };
    let told: Vec<_> = store.problems().iter().map(told).collect();
    assert!(told.len() <= 1, "{told:?}");
    told.first().copied()
}

/// All of it is there and sound, also once it was closed and opened.
fn whole(store: Store, len: u64, case: &str) -> Store {
    let durability = store.durability();
    let mut store = store;
    for turn in 0..2 {
        assert!(store.problems().is_empty(), "{case}, {turn}: {:?}", store.problems());
        let id = theirs(&store);
        let info = store.info(id).unwrap();
        assert_eq!((info.len, info.downloaded), (len, len), "{case}, {turn}");
        (0..len).for_each(|at| assert_eq!(store.get(id, at).unwrap(), Some(block(THEIRS, at)), "{case}"));
        let mut cursor = VerifyCursor::default();
        let step = store.verify_step(id, &mut cursor, usize::MAX).unwrap();
        assert!(step.done && step.findings.is_empty(), "{case}, {turn}: {:?}", step.findings);
        if turn == 0 {
            store = open(closed(store), durability);
            assert!(store.recovered().is_empty(), "{case}: {:?}", store.recovered());
        }
    }
    store
}

fn set(disk: &mut MemoryStorage, kind: FileKind, bytes: Option<Vec<u8>>) {
    match bytes {
        Some(bytes) => disk.replace(file(COPY, kind), &bytes).unwrap(),
        None => disk.lose(file(COPY, kind)),
    }
}

fn changed(disk: &mut MemoryStorage, kind: FileKind, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = disk.contents(file(COPY, kind)).unwrap();
    change(&mut bytes);
    set(disk, kind, Some(bytes));
}

const OF_TREE: [Damage; 7] = [
    ("a byte short", |disk, _| changed(disk, FileKind::Tree, |bytes| _ = bytes.pop())),
    ("half of it", |disk, _| changed(disk, FileKind::Tree, |bytes| bytes.truncate(bytes.len() / 2))),
    ("zeros", |disk, _| changed(disk, FileKind::Tree, |bytes| bytes.fill(0))),
    ("zeros after the header", |disk, _| changed(disk, FileKind::Tree, |bytes| bytes[32..].fill(0))),
    ("gone", |disk, _| set(disk, FileKind::Tree, None)),
    ("an older one, and older signatures", |disk, older| {
        let kinds = [FileKind::Tree, FileKind::Signatures];
        kinds.into_iter().for_each(|kind| set(disk, kind, older.contents(file(COPY, kind))));
    }),
    ("all of an older one", |disk, older| {
        let kinds = [FileKind::Tree, FileKind::Signatures, FileKind::Bitfield, FileKind::Data];
        kinds.into_iter().for_each(|kind| set(disk, kind, older.contents(file(COPY, kind))));
    }),
];

#[test]
fn what_the_journal_knows_of_a_copy_is_not_given_up() {
    let mut reports = 0;
    for lens in [[1, 2], [2, 5], [4, 8], [8, 9], [1, 20], [16, 17]] {
        for one_by_one in [false, true] {
            for durability in [Durability::None, Durability::Always] {
                for (what, damage) in OF_TREE {
                    let case = format!("{lens:?}, {one_by_one}, {durability:?}: {what}");
                    let (mut disk, older, source) = fetched(lens, one_by_one, durability);
                    damage(&mut disk, &older);
                    let before = [FileKind::Data, FileKind::Signatures]
                        .map(|kind| (kind, disk.contents(file(COPY, kind)).unwrap()));
                    let mut told = None;
                    for turn in 0..3 {
                        let mut store = open(disk, durability);
                        let now = reported(&store);
                        assert!(turn == 0 || now == told, "{case}, {turn}: {now:?} after {told:?}");
                        told = now;
                        let len = store.info(theirs(&store)).unwrap().len;
                        match told {
                            Some(told) => assert_eq!(told, (len, lens[1]), "{case}"),
                            None => assert_eq!(len, lens[1], "{case}"),
                        }
                        let id = theirs(&store);
                        for at in 0..len {
                            let held = store.get(id, at).unwrap();
                            assert!(held.is_none_or(|held| held == block(THEIRS, at)), "{case}");
                        }
                        append(&mut store);
                        disk = closed(store);
                        for (kind, before) in &before {
                            assert_eq!(disk.contents(file(COPY, *kind)).as_ref(), Some(before), "{case}: {kind:?}");
                        }
                    }
                    reports += u64::from(told.is_some());
                    // A peer that has nothing of it changes nothing, nor one that has no more.
                    let mut stores = vec![open(disk, durability), link::store()];
                    sync(&mut stores, &Replicate::default());
                    assert_eq!(reported(&stores[0]), told, "{case}");
                    stores[1] = source;
                    assert!(sync(&mut stores, &Replicate::default()), "{case}");
                    let store = whole(stores.remove(0), lens[1], &case);
                    // It serves what came.
                    let mut stores = vec![link::store(), store];
                    sync(&mut stores, &Replicate::default());
                    whole(stores.remove(0), lens[1], &case);
                }
            }
        }
    }
    assert!(reports > 60, "{reports}");
}

/// The signature of its length is lost. The journal knows the history, so that the length stays; a remote is asked for the signature.
#[test]
fn a_lost_signature_is_asked_for_again() {
    let of_signatures: [Damage; 4] = [
        ("gone", |disk, _| set(disk, FileKind::Signatures, None)),
        ("empty", |disk, _| set(disk, FileKind::Signatures, Some(Vec::new()))),
        ("a byte short", |disk, _| changed(disk, FileKind::Signatures, |bytes| _ = bytes.pop())),
        ("a flipped bit of the newest", |disk, _| {
            changed(disk, FileKind::Signatures, |bytes| {
                let at = bytes.len() - 5;
                bytes[at] ^= 4;
            });
        }),
    ];
    let is_it = |problem: &StoreError| matches!(problem, StoreError::Damaged { file: FileKind::Signatures, .. });
    for lens in [[1, 2], [2, 5], [8, 9], [1, 20]] {
        for one_by_one in [false, true] {
            for (options, live) in [(Replicate::default(), false), (Replicate::live(), true)] {
                for (what, damage) in of_signatures {
                    let case = format!("{lens:?}, {one_by_one}, live {live}: {what}");
                    let (mut disk, older, source) = fetched(lens, one_by_one, Durability::None);
                    damage(&mut disk, &older);
                    for _ in 0..2 {
                        let mut store = open(disk, Durability::None);
                        let problems = store.problems();
                        assert!(problems.len() == 1 && problems.iter().all(is_it), "{case}: {problems:?}");
                        assert_eq!(store.info(theirs(&store)).unwrap().len, lens[1], "{case}");
                        append(&mut store);
                        disk = closed(store);
                    }
                    // Nobody else has it.
                    let mut stores = vec![open(disk, Durability::None), link::store()];
                    assert!(!sync(&mut stores, &Replicate::default()), "{case}");
                    assert_eq!(stores[0].problems().len(), 1, "{case}");
                    stores[1] = source;
                    let mut links = [Link::plain(&mut stores, [0, 1], options.clone())];
                    run(&mut stores, &mut links, NOW);
                    assert!(live || stores[0].in_sync(links[0].ends[0].1.peer()), "{case}");
                    assert!(stores[0].problems().is_empty(), "{case}: {:?}", stores[0].problems());
                    drop(links);
                    let store = whole(open(closed(stores.remove(0)), Durability::None), lens[1], &case);
                    let mut stores = vec![link::store(), store];
                    assert!(sync(&mut stores, &Replicate::default()), "{case}");
                    whole(stores.remove(0), lens[1], &case);
                }
            }
        }
    }
}

/// A byte of `key` is another one: the journal knows the key.
#[test]
fn a_key_that_rotted_is_made_again() {
    for (at, bit) in [(0, 0), (17, 3), (31, 7)] {
        let (mut disk, ..) = fetched([2, 5], true, Durability::None);
        let key = disk.contents(file(COPY, FileKind::Key));
        changed(&mut disk, FileKind::Key, |bytes| bytes[at] ^= 1 << bit);
        let store = open(disk, Durability::None);
        let [StoreError::Damaged { slot: Slot(COPY), file: FileKind::Key, why }] = store.problems() else {
            panic!("{:?}", store.problems())
        };
        assert!(why.contains(&key_pair(THEIRS).public_key().to_string()), "{why}");
        let disk = store.storage().clone();
        assert_eq!(disk.contents(file(COPY, FileKind::Key)), key);
        drop(store);
        whole(open(disk, Durability::None), 5, "once more");
    }
}

/// Of files, as a disk has them that fails.
#[cfg(unix)]
mod failing {
    use super::*;

    use std::sync::Arc;

    use multifeed_core::storage::faults::{DiskCall, DiskOp, Fault, Faults, FaultyDisk};
    use multifeed_core::{FileStorage, FileStorageOptions, RepairedInMemory};

    /// No read of this file of the copy is answered. Whether files were changed is never known.
    #[derive(Debug)]
    struct Unread(&'static str);

    impl FaultyDisk for Unread {
        fn fault(&self, call: &DiskCall<'_>) -> Option<Fault> {
            match call.op {
                DiskOp::Stamp => Some(Fault::Errno(rustix::io::Errno::NOSYS.raw_os_error())),
                DiskOp::Read if call.slot == Some(Slot(COPY)) && call.name == self.0 => {
                    Some(Fault::Errno(rustix::io::Errno::IO.raw_os_error()))
                }
                _ => None,
            }
        }
    }

    fn storage(path: &std::path::Path, unread: &'static str) -> FileStorage {
        let mut files = FileStorageOptions::default();
        files.faults = Faults::new(Arc::new(Unread(unread)));
        FileStorage::open_with(path, files).unwrap()
    }

    fn open_files(path: &std::path::Path, unread: &'static str) -> Multifeed<FileStorage> {
        Multifeed::open(storage(path, unread), Options::default()).unwrap()
    }

    /// A folder of a store that fetched a feed of so many blocks, and writes one.
    fn folder(len: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let mut source = open_files(other.path(), "nothing");
        let id = source.writer(Some("theirs"), || key_pair(THEIRS)).unwrap();
        source.append(id, &blocks(THEIRS, 0..len)).unwrap();
        let mut stores = [open_files(folder.path(), "nothing"), source];
        let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
        run(&mut stores, &mut links, NOW);
        let [mut store, _] = stores;
        let ours = store.writer(Some("ours"), || key_pair(OURS)).unwrap();
        store.append(ours, &blocks(OURS, 0..3)).unwrap();
        store.close().unwrap();
        folder
    }

    #[test]
    fn a_disk_that_fails_for_once_takes_nothing() {
        for len in [1, 2, 5, 8, 20] {
            for unread in ["tree", "signatures", "bitfield", "data"] {
                let folder = folder(len);
                let mut store = open_files(folder.path(), unread);
                let ours = store.writer(Some("ours"), || panic!("another writer")).unwrap();
                store.append(ours, &blocks(OURS, 3..4)).unwrap();
                let told = store.problems().iter().any(|problem| problem.to_string().contains("Input/output"));
                assert!(told || unread == "data", "{len}, {unread}: {:?}", store.problems());
                store.close().unwrap();
                let mut store = open_files(folder.path(), "nothing");
                assert!(store.problems().is_empty(), "{len}, {unread}: {:?}", store.problems());
                let id = store.find(&key_pair(THEIRS).public_key()).unwrap();
                assert_eq!(store.info(id).unwrap().len, len, "{unread}");
                for at in 0..len {
                    assert_eq!(store.get(id, at).unwrap(), Some(block(THEIRS, at)), "{len}, {unread}");
                }
            }
        }
    }

    /// A store that is only read shows a feed whose marks the disk does not give.
    #[test]
    fn marks_that_cannot_be_read_hide_no_feed() {
        let folder = folder(20);
        let storage = RepairedInMemory::new(storage(folder.path(), "bitfield"));
        let mut store = Multifeed::open(storage, Options::default()).unwrap();
        let of_marks =
            |problem: &StoreError| matches!(problem, StoreError::Io { op: "read", file: Some(FileKind::Bitfield), .. });
        assert!(!store.problems().is_empty() && store.problems().iter().all(of_marks), "{:?}", store.problems());
        let id = store.find(&key_pair(THEIRS).public_key()).unwrap();
        assert_eq!(store.info(id).unwrap().downloaded, 20);
        (0..20).for_each(|at| assert_eq!(store.get(id, at).unwrap(), Some(block(THEIRS, at))));
    }
}
