//! A disk that does not give `secret_key` or `localname` of a feed: the feed is read, the file is reported by name, and nobody else gets the
//! writer's name. Once the disk gives it again, the writer goes on.
#![cfg(unix)]

use crate::common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{block, blocks, key_pair};
use multifeed_core::storage::faults::{DiskCall, DiskOp, Fault, Faults, FaultyDisk};
use multifeed_core::{Durability, FileStorage, FileStorageOptions, Multifeed, Options, StoreError};
use rustix::io::Errno;

const N: u8 = 1;

/// A disk that does not give these files.
#[derive(Debug, Clone)]
struct Unread {
    op: DiskOp,
    names: &'static [&'static str],
    errno: Errno,
}

impl FaultyDisk for Unread {
    fn fault(&self, call: &DiskCall<'_>) -> Option<Fault> {
        let hit = call.op == self.op && self.names.contains(&call.name);
        hit.then(|| Fault::Errno(self.errno.raw_os_error()))
    }
}

fn open(path: &Path, durability: Durability, disk: Option<&Unread>) -> Multifeed<FileStorage> {
    let mut files = FileStorageOptions::default();
    if let Some(disk) = disk {
        files.faults = Faults::new(Arc::new(disk.clone()));
    }
    let options = Options { durability, ..Options::default() };
    Multifeed::open(FileStorage::open_with(path, files).unwrap(), options).unwrap()
}

/// A store with the writer `ours`, of 5 blocks, that was closed or not.
fn written(path: &Path, durability: Durability, closed: bool) {
    let mut store = open(path, durability, None);
    let ours = store.writer(Some("ours"), || key_pair(N)).unwrap();
    store.append(ours, &blocks(N, 0..5)).unwrap();
    store.commit(std::time::Duration::ZERO);
    if closed {
        store.close().unwrap();
    }
}

fn each_fault(mut run: impl FnMut(Unread, Durability)) {
    for names in [&["secret_key"][..], &["localname"], &["secret_key", "localname"]] {
        for (op, errno) in [(DiskOp::Read, Errno::IO), (DiskOp::OpenFile, Errno::IO), (DiskOp::OpenFile, Errno::ACCESS)]
        {
            for durability in [Durability::None, Durability::Always] {
                run(Unread { op, names, errno }, durability);
            }
        }
    }
}

#[test]
fn the_feed_is_read_and_the_file_is_reported_by_name() {
    each_fault(|disk, durability| {
        for closed in [true, false] {
            let what = (&disk, durability, closed);
            let folder = tempfile::tempdir().unwrap();
            written(folder.path(), durability, closed);
            // As often as it is opened.
            for _ in 0..3 {
                let mut store = open(folder.path(), durability, Some(&disk));
                let told: Vec<String> = store.problems().iter().map(ToString::to_string).collect();
                assert_eq!(told.len(), disk.names.len(), "{what:?}: {told:?}");
                for name in disk.names {
                    assert!(told.iter().any(|told| told.contains(&format!("0/{name}"))), "{what:?}: {told:?}");
                }
                let id = store.find(&key_pair(N).public_key()).unwrap();
                assert_eq!(store.info(id).unwrap().len, 5, "{what:?}");
                for index in 0..5 {
                    assert_eq!(store.get(id, index).unwrap(), Some(block(N, index)), "{what:?}");
                }
                assert_eq!(store.info(id).unwrap().writable, !disk.names.contains(&"secret_key"), "{what:?}");
                // The writer itself, or nobody.
                match store.writer(Some("ours"), || key_pair(9)) {
                    Ok(same) => assert!(same == id && store.info(id).unwrap().writable, "{what:?}"),
                    Err(error) => assert!(matches!(error, StoreError::Io { .. }), "{what:?}: {error}"),
                }
                assert_eq!(store.feeds().count(), 1, "{what:?}");
                store.close().unwrap();
            }
            // The disk gives it again.
            let mut store = open(folder.path(), durability, None);
            assert!(store.problems().is_empty(), "{what:?}: {:?}", store.problems());
            let ours = store.writer(Some("ours"), || key_pair(9)).unwrap();
            assert_eq!(store.append(ours, &blocks(N, 5..6)).unwrap(), 5..6, "{what:?}");
            store.close().unwrap();
        }
    });
}

/// Opened as a feed of somebody else's, it stays the writer's to the journal: a disk that fails more is found out.
#[test]
fn the_folder_that_is_gone_later_is_still_a_writers() {
    each_fault(|disk, durability| {
        let what = (&disk, durability);
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), durability, true);
        for _ in 0..2 {
            open(folder.path(), durability, Some(&disk)).close().unwrap();
        }
        fs::rename(folder.path().join("0"), folder.path().join("away")).unwrap();
        let mut store = open(folder.path(), durability, None);
        assert_eq!(
            store.problems().iter().map(StoreError::code).collect::<Vec<_>>(),
            ["ERR_WRITER_MISSING"],
            "{what:?}"
        );
        assert_eq!(store.writer(Some("ours"), || key_pair(9)).unwrap_err().code(), "ERR_WRITER_MISSING", "{what:?}");
        store.close().unwrap();
        fs::rename(folder.path().join("away"), folder.path().join("0")).unwrap();
        let mut store = open(folder.path(), durability, None);
        let ours = store.writer(Some("ours"), || key_pair(9)).unwrap();
        assert_eq!(store.append(ours, &blocks(N, 5..6)).unwrap(), 5..6, "{what:?}");
    });
}

/// What an append left that was cut is the writer's to repair: without its key nothing is cut.
#[test]
fn nothing_is_repaired_without_the_secret_key() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), Durability::Always, false);
    let files = ["tree", "signatures", "data", "bitfield"].map(|name| folder.path().join("0").join(name));
    let signatures = fs::OpenOptions::new().write(true).open(&files[1]).unwrap();
    // The marks of blocks that are signed are lost.
    let torn = signatures.metadata().unwrap().len();
    fs::write(&files[3], &fs::read(&files[3]).unwrap()[..32]).unwrap();
    signatures.set_len(torn + 20).unwrap();
    let contents = || files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>();
    let before = contents();
    let disk = Unread { op: DiskOp::Read, names: &["secret_key"], errno: Errno::IO };
    let mut store = open(folder.path(), Durability::Always, Some(&disk));
    assert!(store.problems().iter().all(|told| told.to_string().contains("0/secret_key")), "{:?}", store.problems());
    assert_eq!(store.problems().len(), 1);
    assert!(store.writer(Some("ours"), || key_pair(9)).is_err());
    store.close().unwrap();
    assert_eq!(contents(), before);
    let mut store = open(folder.path(), Durability::Always, None);
    let ours = store.writer(Some("ours"), || key_pair(9)).unwrap();
    assert_eq!(store.info(ours).unwrap().len, 5);
}

/// An append that a crash tore right after the feed was made is still one after a store without the key was opened and closed.
#[test]
fn what_a_crash_left_is_still_that_once_the_key_is_there() {
    let folder = tempfile::tempdir().unwrap();
    {
        let mut store = open(folder.path(), Durability::Always, None);
        store.writer(Some("ours"), || key_pair(N)).unwrap();
        store.sync().unwrap();
    }
    // Of its first append there is a node, and no mark of it.
    let tree = folder.path().join("0/tree");
    let mut bytes = fs::read(&tree).unwrap();
    bytes.extend([7; 40]);
    fs::write(&tree, bytes).unwrap();
    for errno in [Errno::IO, Errno::ACCESS] {
        let disk = Unread { op: DiskOp::Read, names: &["secret_key"], errno };
        open(folder.path(), Durability::Always, Some(&disk)).close().unwrap();
    }
    let mut store = open(folder.path(), Durability::Always, None);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    let ours = store.writer(Some("ours"), || key_pair(9)).unwrap();
    assert_eq!(store.append(ours, &blocks(N, 0..2)).unwrap(), 0..2);
}

/// Nobody removes by mistake what the disk does not show to be a writer's.
#[test]
fn a_writer_whose_key_is_not_there_is_removed_by_name_only() {
    each_fault(|disk, durability| {
        let what = (&disk, durability);
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), durability, true);
        let mut store = open(folder.path(), durability, Some(&disk));
        let id = store.find(&key_pair(N).public_key()).unwrap();
        let info = store.info(id).unwrap();
        assert_eq!(info.lost_key, !info.writable, "{what:?}");
        assert!(matches!(store.remove(id), Err(StoreError::OwnWriter { .. })), "{what:?}");
        store.close().unwrap();
        let mut store = open(folder.path(), durability, None);
        let ours = store.writer(Some("ours"), || key_pair(9)).unwrap();
        assert!(
            !store.info(ours).unwrap().lost_key && store.append(ours, &blocks(N, 5..6)).unwrap() == (5..6),
            "{what:?}"
        );
        store.close().unwrap();

        // A secret key that was taken away may come back, too.
        let (secret, elsewhere) = (folder.path().join("0/secret_key"), folder.path().join("elsewhere"));
        fs::rename(&secret, &elsewhere).unwrap();
        let mut store = open(folder.path(), durability, None);
        let id = store.find(&key_pair(N).public_key()).unwrap();
        assert!(
            store.info(id).unwrap().lost_key && matches!(store.remove(id), Err(StoreError::OwnWriter { .. })),
            "{what:?}"
        );
        // By name it goes, and is banned.
        store.remove_writer(id).unwrap();
        assert!(store.is_banned(&key_pair(N).public_key()), "{what:?}");
    });
}

/// A writer is known by any one of its secret key, its name and the journal. Without all three nothing tells its folder from that of a feed that
/// was fetched, as JS makes it.
#[test]
fn a_writer_is_known_by_any_of_the_three_that_tell() {
    let names = ["0/secret_key", "0/localname", "multifeed.journal"];
    for lost in 0..8u8 {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), Durability::None, true);
        for (_, name) in names.iter().enumerate().filter(|(bit, _)| lost & (1 << bit) > 0) {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        let mut store = open(folder.path(), Durability::None, None);
        let id = store.find(&key_pair(N).public_key()).unwrap();
        let removed = store.remove(id);
        match lost {
            7 => removed.unwrap(),
            _ => assert!(matches!(removed, Err(StoreError::OwnWriter { .. })), "{lost:03b}: {removed:?}"),
        }
        assert_eq!(folder.path().join("0/data").exists(), lost != 7);
    }
}
