//! A disk that does not give `secret_key` or `localname` of a feed, or gives something else. The feed is read, the file is reported by name, and
//! nobody else gets the writer's name. Once the disk gives it again, the writer goes on. And parts of `bitfield` and `signatures` that it does not
//! give.
#![cfg(unix)]

use crate::common;
use crate::link;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{block, blocks, key_pair};
use link::{Link, run};
use multifeed_core::storage::faults::{DiskCall, DiskOp, Fault, Faults, FaultyDisk};
use multifeed_core::{Durability, FileStorage, FileStorageOptions, Multifeed, Options, Replicate, StoreError};
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
                // By the name of the file, or that which the journal knows.
                if closed || !disk.names.contains(&"localname") {
                    assert_eq!(
                        (&*store.info(id).unwrap().name, store.find_name("ours")),
                        ("ours", Some(id)),
                        "{what:?}"
                    );
                }
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

/// Opens a store of the writer `ours` whose secret key is none: it is shown, read and served, nobody gets its name, and `written` is not changed.
fn check_read_only(path: &Path, durability: Durability, what: &str) {
    let mut store = open(path, durability, None);
    let told: Vec<String> = store.problems().iter().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].starts_with("`secret_key` of folder 0 is damaged"), "{what}: {told:?}");
    let id = store.find(&key_pair(N).public_key()).unwrap();
    let info = store.info(id).unwrap();
    assert!(info.len == 5 && !info.writable && info.lost_key, "{what}: {info:?}");
    let refused = store.writer(Some("ours"), || key_pair(9)).unwrap_err();
    assert!(refused.to_string().contains("nothing can be appended"), "{what}: {refused}");
    assert!(matches!(store.remove(id), Err(StoreError::OwnWriter { .. })), "{what}");
    let mut stores = [store, open(&path.join("reader"), durability, None)];
    let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
    run(&mut stores, &mut links, std::time::Duration::ZERO);
    let id = stores[1].find(&key_pair(N).public_key()).unwrap();
    assert_eq!(stores[1].info(id).unwrap().downloaded, 4, "{what}");
    stores.into_iter().for_each(|store| store.close().unwrap());
    fs::remove_dir_all(path.join("reader")).unwrap();
}

/// A secret key that rotted, or is empty, or is another feed's, is reported; what can be made again of it is.
#[test]
fn a_secret_key_that_is_none_makes_the_feed_read_only() {
    for (durability, closed) in
        [Durability::None, Durability::Always].into_iter().flat_map(|level| [(level, true), (level, false)])
    {
        for knows in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            written(folder.path(), durability, true);
            let mut store = open(folder.path(), durability, None);
            let id = store.find(&key_pair(N).public_key()).unwrap();
            store.clear(id, 1..2).unwrap();
            store.commit(std::time::Duration::ZERO);
            if closed {
                store.close().unwrap();
            } else {
                drop(store);
            }
            if !knows {
                fs::remove_file(folder.path().join("multifeed.journal")).unwrap();
            }
            let file = folder.path().join("0/secret_key");
            let good = fs::read(&file).unwrap();
            let mut rotten = vec![Vec::new(), good[..63].to_vec(), key_pair(9).secret_key().to_vec(), vec![0; 64]];
            rotten.extend([0, 100, 255].map(|bit| {
                let mut secret = good.clone();
                secret[bit / 8] ^= 1 << (bit % 8);
                secret
            }));
            for secret in rotten {
                let what =
                    format!("{durability:?}, closed {closed}, journal {knows}, {} bytes {secret:?}", secret.len());
                fs::write(&file, &secret).unwrap();
                // As often as it is opened.
                for _ in 0..2 {
                    check_read_only(folder.path(), durability, &what);
                    assert_eq!(fs::read(&file).unwrap(), secret, "{what}");
                }
            }
            // Its public half is in `key`, too.
            let mut secret = good.clone();
            secret[40] ^= 4;
            fs::write(&file, &secret).unwrap();
            let store = open(folder.path(), durability, None);
            assert!(store.problems().len() == 1 && store.problems()[0].to_string().contains("`secret_key`"));
            store.close().unwrap();
            assert_eq!(fs::read(&file).unwrap(), good);
            let mut store = open(folder.path(), durability, None);
            assert!(store.problems().is_empty(), "{:?}", store.problems());
            let ours = store.writer(Some("ours"), || key_pair(9)).unwrap();
            assert_eq!(store.append(ours, &blocks(N, 5..6)).unwrap(), 5..6);
            assert_eq!(store.info(ours).unwrap().downloaded, 5);
        }
    }
}

/// A bit that flipped in `key`: the secret key and the journal tell whose feed it is. Without the journal
/// nobody does, unless `key` is no key at all.
#[test]
fn a_key_that_rotted_is_written_again_if_the_journal_knows_the_secret_keys() {
    for (durability, knows) in
        [Durability::None, Durability::Always].into_iter().flat_map(|level| [(level, true), (level, false)])
    {
        for is_short in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            written(folder.path(), durability, true);
            let file = folder.path().join("0/key");
            let good = fs::read(&file).unwrap();
            let mut key = good.clone();
            match is_short {
                true => key.truncate(31),
                false => key[7] ^= 1,
            }
            fs::write(&file, &key).unwrap();
            if !knows {
                fs::remove_file(folder.path().join("multifeed.journal")).unwrap();
            }
            let mut store = open(folder.path(), durability, None);
            assert_eq!(store.problems().len(), 1, "{:?}", store.problems());
            let told = store.problems()[0].to_string();
            match knows || is_short {
                true => {
                    assert!(told.starts_with("`key` of folder 0 is damaged"), "{told}");
                    let ours = store.writer(Some("ours"), || key_pair(9)).unwrap();
                    assert_eq!(store.append(ours, &blocks(N, 5..6)).unwrap(), 5..6);
                    store.close().unwrap();
                    assert_eq!(fs::read(&file).unwrap(), good);
                }
                false => {
                    assert!(told.starts_with("`secret_key` of folder 0 is damaged"), "{told}");
                    assert!(store.feeds().count() == 0 && store.writer(Some("ours"), || key_pair(9)).is_err());
                    store.close().unwrap();
                    assert_eq!(fs::read(&file).unwrap(), key);
                }
            }
        }
    }
}

/// EIO at some bytes of a file.
#[derive(Debug, Clone)]
struct BadBytes {
    name: &'static str,
    at: u64,
}

impl FaultyDisk for BadBytes {
    fn fault(&self, call: &DiskCall<'_>) -> Option<Fault> {
        let hit = call.op == DiskOp::Read && call.name == self.name && call.range.contains(&self.at);
        hit.then(|| Fault::Errno(Errno::IO.raw_os_error()))
    }
}

/// A bad sector under the marks, or under the newest signature, hides no feed, of a writer or of a remote.
#[test]
fn a_bad_sector_under_marks_or_signatures_hides_no_feed() {
    for (durability, closed) in
        [Durability::None, Durability::Always].into_iter().flat_map(|level| [(level, true), (level, false)])
    {
        let places =
            [("bitfield", 0), ("bitfield", 32), ("bitfield", 3700), ("signatures", 0), ("signatures", 32 + 4 * 64)];
        for (name, at) in places {
            for blocks_held in [5, 9000] {
                if blocks_held > 5 && (name, durability) != ("bitfield", Durability::None) {
                    continue;
                }
                let at = if name == "signatures" && at > 0 { 32 + (blocks_held - 1) * 64 } else { at };
                let what = format!("{durability:?}, closed {closed}, {name} at {at}, {blocks_held} blocks");
                let folder = tempfile::tempdir().unwrap();
                let mut store = open(folder.path(), durability, None);
                let ours = store.writer(Some("ours"), || key_pair(N)).unwrap();
                store.append(ours, &blocks(N, 0..blocks_held)).unwrap();
                store.sync().unwrap();
                let mut stores = [store, open(&folder.path().join("reader"), durability, None)];
                let mut links = [Link::plain(&mut stores, [0, 1], Replicate::default())];
                run(&mut stores, &mut links, std::time::Duration::ZERO);
                for mut store in stores {
                    match closed {
                        true => store.close().unwrap(),
                        false => store.sync().unwrap(),
                    }
                }
                for path in [folder.path().to_owned(), folder.path().join("reader")] {
                    for _ in 0..2 {
                        let mut files = FileStorageOptions::default();
                        files.faults = Faults::new(Arc::new(BadBytes { name, at }));
                        let storage = FileStorage::open_with(&path, files).unwrap();
                        let options = Options { durability, ..Options::default() };
                        let mut store = Multifeed::open(storage, options).unwrap();
                        let told: Vec<String> = store.problems().iter().map(ToString::to_string).collect();
                        let Some(id) = store.find(&key_pair(N).public_key()) else {
                            panic!("{what}: {}: hidden: {told:?}", path.display())
                        };
                        let info = store.info(id).unwrap();
                        let held = (info.len, info.downloaded);
                        assert_eq!(held, (blocks_held, blocks_held), "{what}: {}: {told:?}", path.display());
                        assert!(told.iter().all(|told| told.contains(&format!("0/{name}"))), "{what}: {told:?}");
                        assert_eq!(store.get(id, 3).unwrap(), Some(block(N, 3)), "{what}");
                        store.close().unwrap();
                    }
                    let mut store = open(&path, durability, None);
                    assert!(store.problems().is_empty(), "{what}: {:?}", store.problems());
                    let id = store.find(&key_pair(N).public_key()).unwrap();
                    let info = store.info(id).unwrap();
                    assert_eq!((info.len, info.downloaded), (blocks_held, blocks_held), "{what}");
                    if info.writable {
                        assert!(store.append(id, &blocks(N, blocks_held..blocks_held + 1)).is_ok(), "{what}");
                    }
                }
            }
        }
    }
}
