//! A store that somebody else made: links, pipes, devices and folders in place of its files, and a journal that lies.
#![cfg(unix)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "what is held here is that nothing hangs")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use multifeed_core::feed::Problem;
use multifeed_core::{
    FeedId, FileId, FileKind, FileStorage, FileStorageOptions, Found, KeyPair, Limits, MemoryStorage, Multifeed,
    Options, Replicate, Slot, Storage, StoreError, VerifyCursor, merkle,
};
use multifeed_proto::{FeedKey, Node};

use crate::link::Link;

/// Longer than any of this takes on a busy machine, and shorter than a terabyte.
const SOON: Duration = Duration::from_secs(30);
/// What nobody may be sent, and nobody may change.
const PRECIOUS: &[u8; 32] = b"thirty-two bytes, none of a peer";

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

/// A store with two writers, a folder of somebody's beside it, and another store there.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        for (folder, seeds) in [(place.store(), [1, 2]), (place.victim(), [11, 12])] {
            let mut store = Multifeed::open(FileStorage::open(folder).unwrap(), Options::default()).unwrap();
            for seed in seeds {
                let id = store.writer(Some(&format!("writer {seed}")), || pair(seed)).unwrap();
                store.append(id, &[Bytes::from(format!("block of {seed}")), Bytes::from("second")]).unwrap();
            }
            store.ban(pair(99).public_key()).unwrap();
            store.close().unwrap();
        }
        fs::write(place.victim().join("multifeed.conflicts"), "{\"evidence\":1}\n").unwrap();
        fs::write(place.dir.path().join("precious"), PRECIOUS).unwrap();
        place
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn victim(&self) -> PathBuf {
        self.dir.path().join("victim")
    }

    /// Everything outside of the store.
    fn outside(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.dir.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() && entry.path() != self.store() => folders.push(entry.path()),
                    kind if kind.is_file() => _ = found.insert(entry.path(), fs::read(entry.path()).unwrap()),
                    _ => {}
                }
            }
        }
        found
    }

    /// Writes the journal of a store that was not closed, with one record.
    fn forge_journal(&self, first_new: u32, body: &[u8]) {
        let mut bytes = b"multifeed-journal 1\no\n\0\0".to_vec();
        bytes.extend(first_new.to_le_bytes());
        bytes.resize(32, 0);
        if !body.is_empty() {
            let mut hasher = blake2b_simd::Params::new().hash_length(8).to_state();
            bytes.extend((body.len() as u32).to_le_bytes());
            bytes.extend(hasher.update(&0u64.to_le_bytes()).update(body).finalize().as_bytes());
            bytes.extend(body);
        }
        fs::write(self.store().join("multifeed.journal"), bytes).unwrap();
    }

    /// Says that the feed in a folder is being removed.
    fn forge_removal(&self, slot: u32, key: &[u8]) {
        let mut body = slot.to_le_bytes().to_vec();
        body.push(16);
        body.extend(blake2b_simd::Params::new().hash_length(8).personal(b"multifeed key").hash(key).as_bytes());
        body.extend(u64::MAX.to_le_bytes());
        body.extend([0; 12]);
        self.forge_journal(u32::MAX, &body);
    }
}

/// What is put in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Link,
    Dangling,
    HardLink,
    Pipe,
    /// Or a socket, for who may not make one.
    Device,
    /// Or a file, in place of a folder.
    Other,
}

const THINGS: [Thing; 6] = [Thing::Link, Thing::Dangling, Thing::HardLink, Thing::Pipe, Thing::Device, Thing::Other];

/// Puts it there, in place of what is there. Returns false if it cannot be.
fn put(thing: Thing, at: &Path, target: &Path, is_folder: bool) -> bool {
    if at.is_dir() && !at.is_symlink() {
        fs::remove_dir_all(at).unwrap();
    } else {
        let _ = fs::remove_file(at);
    }
    let run = |command: &str, args: &[&str]| {
        let status = Command::new(command).arg(at).args(args).stderr(std::process::Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    match thing {
        Thing::Link => symlink(target, at).unwrap(),
        Thing::Dangling => symlink(target.with_file_name("made through a link"), at).unwrap(),
        Thing::HardLink if is_folder => return false,
        Thing::HardLink => fs::hard_link(target, at).unwrap(),
        Thing::Pipe => assert!(run("mkfifo", &[])),
        Thing::Device => {
            // Bound to a short path: the kernel has a limit.
            if !run("mknod", &["c", "1", "5"]) {
                let short = tempfile::tempdir().unwrap();
                UnixListener::bind(short.path().join("s")).unwrap();
                fs::rename(short.path().join("s"), at).unwrap();
            }
        }
        Thing::Other if is_folder => fs::write(at, b"a file").unwrap(),
        Thing::Other => fs::create_dir(at).unwrap(),
    }
    true
}

/// What does not change of a thing that is left alone.
fn look(at: &Path) -> (u64, u32, u64, Option<PathBuf>) {
    let meta = fs::symlink_metadata(at).unwrap();
    let kind = meta.file_type();
    assert!(!kind.is_socket() || meta.nlink() == 1);
    (meta.ino(), meta.mode(), if kind.is_dir() { 0 } else { meta.len() }, fs::read_link(at).ok())
}

/// Joins two stores until nothing moves any more.
fn sync<A: Storage, B: Storage>(a: &mut Multifeed<A>, b: &mut Multifeed<B>) {
    let mut link = Link::between(a, b, [Replicate::default(), Replicate::default()]);
    for _ in 0..5000 {
        if !link.turn_between(a, b, Duration::ZERO) {
            break;
        }
    }
    link.close(a, b);
}

/// Does all that can be done with a store, whatever comes of it, and gives what went wrong.
fn use_it(folder: &Path, files: &FileStorageOptions) -> Vec<StoreError> {
    let mut errors = Vec::new();
    for round in 0..2u8 {
        let storage = match FileStorage::open_with(folder, files.clone()) {
            Ok(storage) => storage,
            Err(error) => return vec![error],
        };
        let mut store = match Multifeed::open(storage, Options::default()) {
            Ok(store) => store,
            Err(error) => return vec![error],
        };
        errors.extend(store.problems().iter().cloned());
        // A peer with the feeds of the victim, of this store, and one of its own.
        let mut peer = Multifeed::open(MemoryStorage::new(), Options::default()).unwrap();
        for seed in [3, 11, 12] {
            let id = peer.writer(Some(&seed.to_string()), || pair(seed)).unwrap();
            let blocks: Vec<Bytes> =
                (0..4 + round).map(|at| Bytes::from(format!("from the peer: {seed} {at}"))).collect();
            peer.append(id, &blocks).unwrap();
        }
        peer.add(FeedKey::new(*PRECIOUS)).unwrap();
        sync(&mut store, &mut peer);
        for id in peer.feeds().collect::<Vec<_>>() {
            for index in 0..peer.info(id).unwrap().len {
                let block = peer.get(id, index).unwrap().unwrap_or_default();
                assert!(![&b"block of 11"[..], b"block of 12"].contains(&&block[..]), "{block:?}");
            }
        }
        for name in ["writer 1", "writer 2", "new"] {
            match store.writer(Some(name), || pair(40 + round)) {
                Ok(id) => {
                    _ = store.append(id, &[Bytes::from("more")]).map_err(|error| errors.extend(store_error(error)))
                }
                Err(error) => errors.push(error),
            }
        }
        errors.extend(store.ban(pair(60 + round).public_key()).err());
        errors.extend(store.unban(pair(60 + round).public_key()).err());
        let all: Vec<FeedId> = store.feeds().collect();
        for id in &all {
            let mut cursor = VerifyCursor::default();
            while let Ok(step) = store.verify_step(*id, &mut cursor, 1 << 16) {
                if step.done {
                    break;
                }
            }
        }
        if let Some(first) = all.first() {
            errors.extend(store.remove_writer(*first).err());
        }
        errors.extend(store.sync().err());
        errors.extend(store.close().err());
    }
    errors
}

fn store_error(error: multifeed_core::AppendError) -> Option<StoreError> {
    match error {
        multifeed_core::AppendError::Store(error) => Some(error),
        _ => None,
    }
}

fn is_about(error: &StoreError, at: &Path) -> bool {
    match error {
        StoreError::NotRegular { path, .. } => path.as_deref() == Some(at),
        // Without it the store is read.
        StoreError::Damaged { file: FileKind::Journal, why, .. } => why.starts_with(&at.display().to_string()),
        _ => false,
    }
}

/// Puts each thing at a name, uses the store, and looks whether anything outside changed, or the thing.
fn in_place_of(name: &str, is_folder: bool, must_tell: bool) {
    for thing in THINGS {
        let place = Place::new();
        let at = place.store().join(name);
        let target = place.victim().join(name);
        let target = if target.exists() { target } else { place.dir.path().join("precious") };
        if !put(thing, &at, &target, is_folder) {
            continue;
        }
        let case = format!("{thing:?} in place of {name}");
        let (before, outside) = (look(&at), place.outside());
        let began = Instant::now();
        let errors = use_it(&place.store(), &FileStorageOptions::default());
        assert!(began.elapsed() < SOON, "{case}: it took {:?}", began.elapsed());
        // A crash's leftover is a file like any other.
        let is_ours = name.ends_with(".tmp") && thing == Thing::HardLink;
        assert!(is_ours || look(&at) == before, "{case}: it did not stay");
        assert_eq!(place.outside(), outside, "{case}: something outside changed");
        let told = errors.iter().find(|error| is_about(error, &at));
        assert!(!must_tell || told.is_some(), "{case}: {errors:?}");
        let code = if name == FileKind::Journal.name() { "ERR_STORE_DAMAGED" } else { "ERR_STORE_NOT_REGULAR" };
        assert!(told.is_none_or(|error| error.code() == code), "{case}: {told:?}");
    }
}

#[test]
fn anything_in_place_of_a_feeds_file_is_reported_and_left_alone() {
    for kind in FileKind::ALL {
        in_place_of(&format!("0/{kind}"), false, true);
    }
}

#[test]
fn anything_in_place_of_a_file_that_is_being_replaced_is_left_alone() {
    for kind in FileKind::EVERY {
        let name = if kind.is_beside() { format!("{kind}.tmp") } else { format!("0/{kind}.tmp") };
        in_place_of(&name, false, false);
    }
}

#[test]
fn anything_in_place_of_a_file_beside_the_feeds_is_reported_and_left_alone() {
    for name in ["multifeed.lock", "multifeed.journal", "multifeed.conflicts", "multifeed.blocked"] {
        in_place_of(name, false, true);
    }
}

#[test]
fn anything_in_place_of_a_numbered_folder_is_reported_and_left_alone() {
    for name in ["0", "1", "2", "7"] {
        in_place_of(name, true, true);
    }
}

#[test]
fn nothing_behind_a_link_is_read() {
    let place = Place::new();
    let secret = place.dir.path().join("precious");
    fs::create_dir(place.store().join("2")).unwrap();
    symlink(&secret, place.store().join("2/key")).unwrap();
    symlink(place.victim().join("1"), place.store().join("3")).unwrap();
    fs::create_dir(place.store().join("4")).unwrap();
    fs::hard_link(&secret, place.store().join("4/key")).unwrap();
    let mut store = Multifeed::open(FileStorage::open(place.store()).unwrap(), Options::default()).unwrap();
    assert_eq!(store.feeds().count(), 2);
    assert_eq!(store.find(&FeedKey::new(*PRECIOUS)), None);
    assert_eq!(store.find(&pair(12).public_key()), None);
    let found: Vec<Found> = store
        .problems()
        .iter()
        .map(|problem| match problem {
            StoreError::NotRegular { found, .. } => *found,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(found, [Found::Link, Found::HardLink, Found::Link]);
    assert!(store.problems()[0].to_string().contains("--follow-links"), "{}", store.problems()[0]);
    let mut peer = Multifeed::open(MemoryStorage::new(), Options::default()).unwrap();
    sync(&mut store, &mut peer);
    let keys: Vec<FeedKey> = peer.feeds().map(|id| peer.info(id).unwrap().key).collect();
    assert_eq!(keys.len(), 2);
    assert!([1, 2].iter().all(|seed| keys.contains(&pair(*seed).public_key())), "{keys:?}");
}

#[test]
fn a_forged_journal_deletes_nothing_that_is_no_feed() {
    // Folders that the journal calls left over: a link to somebody's, and real ones with files of the same names.
    let place = Place::new();
    let photos = place.dir.path().join("photos");
    fs::create_dir(&photos).unwrap();
    for name in ["data", "tree", "localname", "secret_key"] {
        fs::write(photos.join(name), b"").unwrap();
    }
    symlink(&photos, place.store().join("2")).unwrap();
    for (slot, name) in [("2024", "data"), ("2025", "tree")] {
        fs::create_dir(place.store().join(slot)).unwrap();
        fs::write(place.store().join(slot).join(name), b"holidays").unwrap();
    }
    let outside = place.outside();
    place.forge_journal(2, &[]);
    let errors = use_it(&place.store(), &FileStorageOptions::default());
    assert_eq!(place.outside(), outside);
    assert!(errors.iter().any(|error| is_about(error, &place.store().join("2"))), "{errors:?}");
    // They may have another number.
    let kept = |name: &str| {
        fs::read_dir(place.store())
            .unwrap()
            .any(|entry| fs::read(entry.unwrap().path().join(name)).is_ok_and(|bytes| bytes == b"holidays"))
    };
    assert!(kept("data") && kept("tree"));

    // A removal of what is behind a link.
    for slot in [2, 5] {
        let place = Place::new();
        symlink(place.victim().join("0"), place.store().join(slot.to_string())).unwrap();
        place.forge_removal(slot, pair(11).public_key().as_bytes());
        let outside = place.outside();
        for follow_links in [false, true] {
            let mut files = FileStorageOptions::default();
            files.follow_links = follow_links;
            let mut store =
                Multifeed::open(FileStorage::open_with(place.store(), files).unwrap(), Options::default()).unwrap();
            let told = store.problems().iter().any(|error| is_about(error, &place.store().join(slot.to_string())));
            assert!(told, "{:?}", store.problems());
            // It says what is so, and keeps nobody from writing.
            let told: Vec<String> = store.problems().iter().map(ToString::to_string).collect();
            let through = "nothing is deleted, cut, replaced or renamed through a link";
            assert_eq!(told.iter().any(|told| told.contains(through)), follow_links, "{told:?}");
            assert_eq!(told.iter().any(|told| told.contains("--follow-links")), !follow_links, "{told:?}");
            if follow_links {
                let id = store.writer(Some("new"), || pair(51)).unwrap();
                store.append(id, &[Bytes::from("block")]).unwrap();
            } else {
                store.add(pair(50).public_key()).unwrap();
            }
            store.close().unwrap();
            assert_eq!(place.outside(), outside);
        }
    }

    // One of a real folder, with a file in it that is a link: none of it goes.
    let place = Place::new();
    let (from, to) = (place.store().join("1/data"), place.dir.path().join("elsewhere"));
    fs::rename(&from, &to).unwrap();
    symlink(&to, &from).unwrap();
    place.forge_removal(1, pair(2).public_key().as_bytes());
    let outside = place.outside();
    use_it(&place.store(), &FileStorageOptions::default());
    assert_eq!(place.outside(), outside);
    assert!(place.store().join("1/secret_key").exists() && from.is_symlink());
    // And of what holds no key, and was made by no store.
    let place = Place::new();
    fs::create_dir(place.store().join("2024")).unwrap();
    fs::write(place.store().join("2024/data"), b"holidays").unwrap();
    place.forge_removal(2024, pair(2).public_key().as_bytes());
    use_it(&place.store(), &FileStorageOptions::default());
    assert_eq!(fs::read(place.store().join("2024/data")).unwrap(), b"holidays");
    // And of what has a key, or a secret key, and beside it nothing that a store made.
    for key in ["key", "secret_key"] {
        let place = Place::new();
        let folder = place.store().join("2024");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(key), pair(60).public_key().as_bytes()).unwrap();
        for name in ["data", "tree", "signatures", "bitfield"] {
            fs::write(folder.join(name), b"holidays").unwrap();
        }
        place.forge_removal(2024, pair(60).public_key().as_bytes());
        use_it(&place.store(), &FileStorageOptions::default());
        let stays = fs::read_dir(place.store()).unwrap().any(|entry| {
            let file = |name: &str| fs::read(entry.as_ref().unwrap().path().join(name)).unwrap_or_default();
            [file("data"), file("tree"), file("signatures"), file("bitfield")].iter().all(|bytes| bytes == b"holidays")
        });
        assert!(stays, "{key}");
    }
}

#[test]
fn a_forged_seal_is_found_by_verify_and_refused_by_peers() {
    let place = Place::new();
    // Somebody's own block and signature, under the key of another writer.
    let (key, folder) = (pair(20).public_key(), place.store().join("0"));
    fs::write(folder.join("key"), key.as_bytes()).unwrap();
    fs::remove_file(folder.join("secret_key")).unwrap();
    fs::remove_file(folder.join("localname")).unwrap();
    let tree = fs::read(folder.join("tree")).unwrap();
    let node = |index: u64| {
        let at = 32 + index as usize * 40;
        let size = u64::from_be_bytes(tree[at + 32..at + 40].try_into().unwrap());
        Node { index, hash: tree[at..at + 32].try_into().unwrap(), size }
    };
    let signatures = fs::read(folder.join("signatures")).unwrap();
    let start = |hash: &[u8], personal: &[u8]| {
        blake2b_simd::Params::new().hash_length(8).personal(personal).hash(hash).as_bytes().to_vec()
    };
    let mut body = 0u32.to_le_bytes().to_vec();
    body.push(1 | 2 | 4);
    body.extend(start(key.as_bytes(), b"multifeed key"));
    body.extend(2u64.to_le_bytes());
    body.extend(&merkle::root_hash(&[node(1)])[..8]);
    body.extend(start(&signatures[signatures.len() - 64..], b"multifeed seal"));
    body.extend([0; 12]);
    place.forge_journal(u32::MAX, &body);
    let journal = place.store().join("multifeed.journal");
    let mut bytes = fs::read(&journal).unwrap();
    bytes[20] = b'c';
    fs::write(&journal, bytes).unwrap();

    let mut store = Multifeed::open(FileStorage::open(place.store()).unwrap(), Options::default()).unwrap();
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    let id = store.find(&key).unwrap();
    assert_eq!(store.get(id, 0).unwrap(), Some(Bytes::from("block of 1")));
    let (mut cursor, mut found) = (VerifyCursor::default(), Vec::new());
    loop {
        let step = store.verify_step(id, &mut cursor, 1 << 16).unwrap();
        found.extend(step.findings.iter().map(|finding| finding.problem));
        if step.done {
            break;
        }
    }
    assert_eq!(found, [Problem::SignatureInvalid { length: 2 }]);
    let mut peer = Multifeed::open(MemoryStorage::new(), Options::default()).unwrap();
    sync(&mut store, &mut peer);
    assert!(peer.find(&key).is_none_or(|id| peer.info(id).unwrap().len == 0));
}

/// Whoever knows what the stamp is made of, as from a raw image of the disk, can have the journal say that nothing changed.
#[test]
fn a_forged_stamp_is_found_by_verify_and_brings_peers_no_wrong_block() {
    struct Stamped(MemoryStorage);
    impl Storage for Stamped {
        fn list(&mut self) -> std::io::Result<Vec<Slot>> {
            self.0.list()
        }
        fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0.read_at(file, offset, buf)
        }
        fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.0.write_at(file, offset, data)
        }
        fn len(&mut self, file: FileId) -> std::io::Result<Option<u64>> {
            self.0.len(file)
        }
        fn truncate(&mut self, file: FileId, len: u64) -> std::io::Result<()> {
            self.0.truncate(file, len)
        }
        fn replace(&mut self, file: FileId, data: &[u8]) -> std::io::Result<()> {
            self.0.replace(file, data)
        }
        fn sync(&mut self, file: FileId) -> std::io::Result<()> {
            self.0.sync(file)
        }
        fn remove(&mut self, slot: Slot) -> std::io::Result<()> {
            self.0.remove(slot)
        }
        fn rename(&mut self, from: Slot, to: Slot) -> std::io::Result<()> {
            self.0.rename(from, to)
        }
        fn stamp(&mut self, _slot: Slot, _settled: bool) -> Option<[u8; 8]> {
            Some([7; 8])
        }
        fn close(&mut self) -> std::io::Result<()> {
            self.0.close()
        }
    }
    let mut writer = Multifeed::open(MemoryStorage::new(), Options::default()).unwrap();
    let id = writer.writer(Some("theirs"), || pair(30)).unwrap();
    let key = pair(30).public_key();
    let blocks: Vec<Bytes> = (0..20).map(|number| Bytes::from(format!("block number {number:02}"))).collect();
    writer.append(id, &blocks).unwrap();
    let mut storage = Stamped(MemoryStorage::new());
    let mut store = Multifeed::open(&mut storage, Options::default()).unwrap();
    sync(&mut writer, &mut store);
    store.close().unwrap();
    storage.0.reopen();
    // The blocks are gone, and what is there has their length.
    let data = FileId::new(Slot(0), FileKind::Data);
    let len = storage.len(data).unwrap().unwrap() as usize;
    assert_eq!(len, 20 * 15);
    storage.write_at(data, 0, &vec![0xee; len]).unwrap();
    let mut store = Multifeed::open(&mut storage, Options::default()).unwrap();
    let id = store.find(&key).unwrap();
    assert!(store.recovered().is_empty() && store.problems().is_empty());
    assert_eq!(store.info(id).unwrap().downloaded, 20);
    let (mut cursor, mut found) = (VerifyCursor::default(), 0);
    loop {
        let step = store.verify_step(id, &mut cursor, 1 << 16).unwrap();
        found += step.findings.len();
        if step.done {
            break;
        }
    }
    assert_eq!(found, 20);
    let mut peer = Multifeed::open(MemoryStorage::new(), Options::default()).unwrap();
    sync(&mut store, &mut peer);
    assert!(peer.find(&key).is_none_or(|id| peer.info(id).unwrap().downloaded == 0));
}

#[test]
fn links_are_followed_on_request_and_nothing_is_lost_through_them() {
    let mut files = FileStorageOptions::default();
    files.follow_links = true;
    let open = |place: &Place| {
        Multifeed::open(FileStorage::open_with(place.store(), files.clone()).unwrap(), Options::default()).unwrap()
    };
    let place = Place::new();
    let (folder, elsewhere) = (place.store().join("0"), place.dir.path().join("elsewhere"));
    fs::rename(&folder, &elsewhere).unwrap();
    symlink(&elsewhere, &folder).unwrap();
    let (data, other) = (place.store().join("1/data"), place.dir.path().join("other data"));
    fs::rename(&data, &other).unwrap();
    symlink(&other, &data).unwrap();
    // Without the option it is as if they were not there, and the writer behind the folder's link is missing.
    let store = Multifeed::open(FileStorage::open(place.store()).unwrap(), Options::default()).unwrap();
    assert_eq!((store.feeds().count(), store.problems().len()), (0, 3));
    drop(store);
    let mut store = open(&place);
    assert_eq!(store.problems().len(), 0, "{:?}", store.problems());
    for seed in [1, 2] {
        let id = store.find(&pair(seed).public_key()).unwrap();
        assert_eq!(store.append(id, &[Bytes::from("third")]).unwrap(), 2..3);
        assert_eq!(store.get(id, 2).unwrap(), Some(Bytes::from("third")));
    }
    assert!(fs::read(elsewhere.join("data")).unwrap().ends_with(b"third"));
    assert!(fs::read(&other).unwrap().ends_with(b"third"));
    let outside = place.outside();
    for seed in [1, 2] {
        let id = store.find(&pair(seed).public_key()).unwrap();
        let error = store.remove_writer(id).unwrap_err();
        assert!(matches!(error, StoreError::NotRegular { found: Found::BehindLink, .. }), "{error}");
        // Nor is a block cleared: first it would be lost, and then its bytes could not be cut.
        for range in [0..3, 0..1, 2..3] {
            let error = store.clear(id, range).unwrap_err();
            assert!(matches!(error, StoreError::NotRegular { found: Found::BehindLink, .. }), "{error}");
        }
        assert_eq!(store.clear(id, 3..9).unwrap(), 0);
        assert_eq!(store.info(id).unwrap().downloaded, 3);
    }
    drop(store);
    assert_eq!(place.outside(), outside);
    // The storage by itself.
    let mut storage = FileStorage::open_with(place.store(), files.clone()).unwrap();
    for file in [FileId::new(Slot(0), FileKind::Data), FileId::new(Slot(1), FileKind::Data)] {
        let len = storage.len(file).unwrap().unwrap();
        assert!(storage.truncate(file, 1).is_err() && storage.replace(file, b"x").is_err());
        assert_eq!(storage.len(file).unwrap(), Some(len));
        assert!(storage.remove(file.slot).is_err());
        storage.write_at(file, len, b"!").unwrap();
    }
    storage.close().unwrap();
    assert!(fs::read(elsewhere.join("data")).unwrap().ends_with(b"third!"));
    assert!(fs::read(&other).unwrap().ends_with(b"third!"));
    // A folder that is behind a link to nothing is reported as that.
    fs::rename(&elsewhere, place.dir.path().join("out")).unwrap();
    let store = open(&place);
    let told: Vec<String> = store.problems().iter().map(ToString::to_string).collect();
    assert!(
        told.iter().any(|told| told.contains("is a link to nothing") && !told.contains("--follow-links")),
        "{told:?}"
    );
    assert_eq!(store.feeds().count(), 1);
    drop(store);
    // What a dangling link names is not made, and pipes are no better than before.
    for thing in [Thing::Dangling, Thing::Pipe, Thing::Device] {
        for kind in FileKind::EVERY {
            let place = Place::new();
            let name = if kind.is_beside() { kind.name().to_owned() } else { format!("0/{kind}") };
            let at = place.store().join(name);
            put(thing, &at, &place.dir.path().join("precious"), false);
            let (before, outside) = (look(&at), place.outside());
            use_it(&place.store(), &files);
            assert_eq!((look(&at), place.outside()), (before, outside), "{thing:?} {kind}");
        }
    }
}

#[test]
fn a_removal_that_is_refused_is_not_done_later() {
    for name in ["0/localname.tmp", "0/data"] {
        let place = Place::new();
        let (at, aside) = (place.store().join(name), place.dir.path().join("aside"));
        let key = pair(1).public_key();
        let mut store = Multifeed::open(FileStorage::open(place.store()).unwrap(), Options::default()).unwrap();
        if at.exists() {
            fs::rename(&at, &aside).unwrap();
        }
        symlink(place.dir.path().join("nothing"), &at).unwrap();
        let id = store.find(&key).unwrap();
        let error = store.remove_writer(id).unwrap_err();
        assert!(matches!(error, StoreError::NotRegular { found: Found::Link, .. }), "{error}");
        assert!(!store.is_banned(&key) && !store.is_removed(id));
        drop(store);
        fs::remove_file(&at).unwrap();
        if aside.exists() {
            fs::rename(&aside, &at).unwrap();
        }
        let mut store = Multifeed::open(FileStorage::open(place.store()).unwrap(), Options::default()).unwrap();
        let id = store.find(&key).expect("it is still there");
        assert!(store.info(id).unwrap().writable && store.append(id, &[Bytes::from("more")]).is_ok());
    }
}

#[test]
fn the_folder_of_the_store_may_be_a_link() {
    let place = Place::new();
    let link = place.dir.path().join("link");
    symlink(place.store(), &link).unwrap();
    let store = Multifeed::open(FileStorage::open(&link).unwrap(), Options::default()).unwrap();
    assert_eq!((store.feeds().count(), store.problems().len()), (2, 0));
    // It is what it was when it was opened, wherever the link leads now, and takes nothing more: nobody would look for it there.
    fs::remove_file(&link).unwrap();
    symlink(place.victim(), &link).unwrap();
    let (mut store, outside) = (store, place.outside());
    let id = store.find(&pair(1).public_key()).unwrap();
    assert_eq!(store.append(id, &[Bytes::from("third")]).unwrap_err().code(), "ERR_STORE_MOVED");
    assert_eq!(store.get(id, 0).unwrap().as_deref(), Some(&b"block of 1"[..]));
    store.close().unwrap();
    assert_eq!(place.outside(), outside);
}

#[test]
fn a_link_that_comes_while_the_store_is_open_is_not_followed() {
    let place = Place::new();
    let mut storage = FileStorage::open(place.store()).unwrap();
    let file = FileId::new(Slot(0), FileKind::Data);
    // The folder is swapped for a link, after it was listed and before a file of it is opened.
    assert_eq!(storage.list().unwrap(), [Slot(0), Slot(1)]);
    fs::rename(place.store().join("0"), place.dir.path().join("moved")).unwrap();
    symlink(place.victim().join("0"), place.store().join("0")).unwrap();
    let outside = place.outside();
    assert!(storage.write_at(file, 0, b"evil").is_err());
    assert!(storage.replace(FileId::new(Slot(0), FileKind::LocalName), b"evil").is_err());
    assert!(storage.truncate(file, 0).is_err() && storage.remove(Slot(0)).is_err());
    assert!(storage.rename(Slot(0), Slot(2)).is_err() && storage.rename(Slot(1), Slot(0)).is_err());
    assert_eq!(place.outside(), outside);
}

#[test]
fn files_that_are_huge_by_claim_alone_are_opened_at_once() {
    const HUGE: u64 = 1 << 40;
    let names = FileKind::ALL.map(|kind| format!("0/{kind}"));
    let beside = ["multifeed.journal", "multifeed.conflicts", "multifeed.blocked", "multifeed.lock"].map(str::to_owned);
    for name in names.into_iter().chain(beside) {
        for remote in [false, true] {
            let place = Place::new();
            let at = place.store().join(&name);
            let file = fs::File::options().append(true).create(true).open(&at).unwrap();
            if file.set_len(HUGE).is_err() {
                return;
            }
            if remote {
                // Nothing of what the journal and the marks say is left.
                let _ = fs::remove_file(place.store().join("multifeed.journal"));
                let _ = fs::remove_file(place.store().join("0/secret_key"));
                for kind in ["tree", "signatures", "data"] {
                    fs::File::options()
                        .write(true)
                        .open(place.store().join("0").join(kind))
                        .unwrap()
                        .set_len(HUGE)
                        .unwrap();
                }
                if name != "0/bitfield" {
                    fs::write(place.store().join("0/bitfield"), b"").unwrap();
                }
            }
            let began = Instant::now();
            let store = Multifeed::open(FileStorage::open(place.store()).unwrap(), Options::default()).unwrap();
            assert!(store.find(&pair(2).public_key()).is_some(), "{name}: the other feed is gone");
            store.close().unwrap();
            assert!(began.elapsed() < SOON, "{name}: it took {:?}", began.elapsed());
        }
    }
}

#[test]
fn a_block_of_a_terabyte_of_nothing_takes_no_memory() {
    for (size, last) in [(1u64 << 40, false), (1 << 31, false), (1 << 31, true), (1 << 40, true)] {
        let place = Place::new();
        let folder = place.store().join("0");
        fs::remove_file(place.store().join("multifeed.journal")).unwrap();
        // The writer's own history, of one block more than anybody has room for.
        let mut tree = fs::read(folder.join("tree")).unwrap();
        let node = |tree: &[u8], index: u64| {
            let at = 32 + index as usize * 40;
            let size = u64::from_be_bytes(tree[at + 32..at + 40].try_into().unwrap());
            Node { index, hash: tree[at..at + 32].try_into().unwrap(), size }
        };
        let large = if last { 2 } else { 0 };
        let at = 32 + large as usize * 40 + 32;
        tree[at..at + 8].copy_from_slice(&size.to_be_bytes());
        let (first, second) = (node(&tree, 0), node(&tree, 2));
        let parent = merkle::parent(&first, &second).unwrap();
        tree[72..104].copy_from_slice(&parent.hash);
        tree[104..112].copy_from_slice(&parent.size.to_be_bytes());
        let mut signatures = fs::read(folder.join("signatures")).unwrap();
        for (length, root) in [(1, first), (2, parent)] {
            let signed = pair(1).sign(&merkle::signable(&merkle::root_hash(&[root]), length));
            signatures[32 + (length as usize - 1) * 64..][..64].copy_from_slice(&signed);
        }
        fs::write(folder.join("tree"), tree).unwrap();
        fs::write(folder.join("signatures"), signatures).unwrap();
        let data = fs::File::create(folder.join("data")).unwrap();
        if data.set_len(parent.size).is_err() {
            return;
        }
        if !last {
            std::os::unix::fs::FileExt::write_all_at(&data, b"second", size).unwrap();
        }
        drop(data);

        let began = Instant::now();
        let mut store = Multifeed::open(FileStorage::open(place.store()).unwrap(), Options::default()).unwrap();
        if last {
            // The last block of each feed is checked.
            let id = store.find(&pair(1).public_key()).unwrap();
            assert!(store.info(id).unwrap().len == 2 && !store.has(id, 1), "{:?}", store.problems());
            assert_eq!(store.recovered().iter().map(|told| &told.lost[..]).collect::<Vec<_>>(), [[1, 0]]);
        } else {
            let id = store.find(&pair(1).public_key()).unwrap();
            assert_eq!(store.get(id, 1).unwrap(), Some(Bytes::from("second")));
            let error = store.get(id, 0).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { file: FileKind::Data, .. }), "{error}");
            let step = store.verify_step(id, &mut VerifyCursor::default(), usize::MAX).unwrap();
            assert!(step.findings.iter().any(|finding| finding.problem == Problem::BlockMissing { block: 0 }));
        }
        assert!(began.elapsed() < SOON, "{size}: it took {:?}", began.elapsed());
    }
}

#[test]
fn zeros_are_read_to_a_bound_where_nothing_tells_of_holes() {
    /// A disk that knows no holes.
    struct Dense(MemoryStorage);

    impl Storage for Dense {
        fn list(&mut self) -> std::io::Result<Vec<Slot>> {
            self.0.list()
        }
        fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0.read_at(file, offset, buf)
        }
        fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.0.write_at(file, offset, data)
        }
        fn len(&mut self, file: FileId) -> std::io::Result<Option<u64>> {
            self.0.len(file)
        }
        fn truncate(&mut self, file: FileId, len: u64) -> std::io::Result<()> {
            self.0.truncate(file, len)
        }
        fn replace(&mut self, file: FileId, data: &[u8]) -> std::io::Result<()> {
            self.0.replace(file, data)
        }
        fn sync(&mut self, file: FileId) -> std::io::Result<()> {
            self.0.sync(file)
        }
        fn remove(&mut self, slot: Slot) -> std::io::Result<()> {
            self.0.remove(slot)
        }
        fn rename(&mut self, from: Slot, to: Slot) -> std::io::Result<()> {
            self.0.rename(from, to)
        }
        fn close(&mut self) -> std::io::Result<()> {
            self.0.close()
        }
    }

    let mut disk = MemoryStorage::new();
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    for seed in [1, 2] {
        let id = store.writer(Some(&seed.to_string()), || pair(seed)).unwrap();
        store.append(id, &[Bytes::from("first")]).unwrap();
    }
    store.close().unwrap();
    disk.reopen();
    let signatures = FileId::new(Slot(0), FileKind::Signatures);
    disk.truncate(signatures, 1 << 45).unwrap();
    let before = disk.clone();
    let mut limits = Limits::default();
    limits.opening_zeros = 8 << 20;
    let options = Options { limits, ..Options::default() };
    let began = Instant::now();
    let store = Multifeed::open(Dense(disk), options.clone()).unwrap();
    let told = |error: &StoreError| error.code() == "ERR_STORE_DAMAGED" && error.to_string().contains("opening_zeros");
    assert!(matches!(store.problems(), [error] if told(error)), "{:?}", store.problems());
    assert!(store.find(&pair(2).public_key()).is_some());
    assert!(began.elapsed() < SOON);
    assert_eq!(store.storage().0.clone().len(signatures).unwrap(), Some(1 << 45));
    // Holes that are known do not count.
    let store = Multifeed::open(before, options).unwrap();
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    assert_eq!(store.feeds().count(), 2);
}

#[test]
fn evidence_that_is_no_evidence_is_not_read_and_not_lost() {
    let place = Place::new();
    let at = place.store().join("multifeed.conflicts");
    fs::write(&at, vec![b'x'; 300 << 10]).unwrap();
    let store = Multifeed::open(FileStorage::open(place.store()).unwrap(), Options::default()).unwrap();
    assert!(matches!(store.problems(), [StoreError::Damaged { file: FileKind::Conflicts, .. }]));
    assert_eq!(store.conflicts_kept(), 0);
    store.close().unwrap();
    assert_eq!(fs::metadata(&at).unwrap().len(), 300 << 10);
    fs::write(&at, "one\ntwo\n").unwrap();
    let mut store = Multifeed::open(FileStorage::open(place.store()).unwrap(), Options::default()).unwrap();
    assert_eq!((store.problems().len(), store.conflicts_kept(), store.conflicts()), (0, 2, vec![]));
    assert_eq!(store.clear_conflicts().unwrap(), 2);
    assert_eq!((fs::read(&at).unwrap(), store.conflicts_kept()), (Vec::new(), 0));
}

#[test]
fn a_secret_key_that_others_can_read_is_reported() {
    let place = Place::new();
    let at = place.store().join("0/secret_key");
    for (mode, told) in [(0o600, false), (0o400, false), (0o644, true), (0o640, true), (0o606, true)] {
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
        let store = Multifeed::open(FileStorage::open(place.store()).unwrap(), Options::default()).unwrap();
        let exposed: Vec<_> = store.exposed_keys().iter().map(|key| (key.slot, key.mode)).collect();
        assert_eq!(exposed, if told { vec![(Slot(0), mode)] } else { vec![] });
        assert!(store.problems().is_empty());
        let text = store.exposed_keys().first().map(ToString::to_string).unwrap_or_default();
        assert!(!told || (text.contains("folder 0") && text.contains(&format!("{mode:04o}"))), "{text}");
    }
}
