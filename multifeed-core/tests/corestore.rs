//! The folder of a corestore: keys, names, what is made when, and what is refused.
//! `vectors/corestore.json` was recorded by `interop/vectors/corestore-keys.js`; multifeed-testkit's `corestore` test has the real JS peer.

use crate::common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use common::key_pair;
use multifeed_core::{
    Answer, Core, CoreStorage, Corestore, CorestoreError, CorestoreOptions, Feed, FeedList, FileCoreStorage,
    FileStorage, FileStorageOptions, KeyPair, MasterKey, MemoryCoreStorage, MemoryStorage, Namespace, Slot, StoreError,
    StoreKind, VerifyCursor, prepare,
};
use multifeed_proto::{DiscoveryKey, FeedKey, Request};
use serde_json::Value;

fn master(n: u8) -> MasterKey {
    MasterKey::new([n; 32])
}

fn open(path: &Path) -> Result<Corestore<FileCoreStorage>, CorestoreError> {
    open_with(path, CorestoreOptions::default())
}

fn open_with(path: &Path, options: CorestoreOptions) -> Result<Corestore<FileCoreStorage>, CorestoreError> {
    Corestore::open(FileCoreStorage::open(path)?, options, || master(1))
}

fn in_memory(options: CorestoreOptions) -> Corestore<MemoryCoreStorage> {
    Corestore::open(MemoryCoreStorage::new(), options, || master(1)).unwrap()
}

fn few_open(cores_open: usize) -> CorestoreOptions {
    let mut options = CorestoreOptions::default();
    options.limits.cores_open = cores_open;
    options
}

fn folder_of(path: &Path, core: &DiscoveryKey) -> std::path::PathBuf {
    let name = core.to_string();
    path.join(&name[..2]).join(&name[2..4]).join(name)
}

/// All files and folders below a folder, with the hashes of what is in them, but for the lock.
fn contents(path: &Path) -> BTreeSet<(String, Option<String>)> {
    let mut all = BTreeSet::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let found = entry.unwrap().path();
            let name = found.strip_prefix(path).unwrap().to_str().unwrap().to_owned();
            let kind = found.symlink_metadata().unwrap();
            if kind.is_dir() {
                folders.push(found);
                all.insert((name, None));
            } else if name != "multifeed.lock" {
                all.insert((name, kind.is_file().then(|| hash(&fs::read(&found).unwrap()))));
            }
        }
    }
    all
}

fn hash(bytes: &[u8]) -> String {
    blake2b_simd::Params::new().hash_length(8).hash(bytes).to_hex().to_string()
}

fn blocks<S: CoreStorage>(core: &mut Core<'_, S>) -> Vec<Bytes> {
    (0..core.info().len).filter_map(|index| core.block(index).unwrap()).collect()
}

fn code<T>(result: Result<T, CorestoreError>) -> &'static str {
    result.map(drop).unwrap_err().code()
}

/// A feed of somebody else's, and the messages that bring its blocks.
fn remote(n: u8, count: u64) -> (FeedKey, Vec<multifeed_core::PreparedData>) {
    let (pair, mut storage) = (key_pair(n), MemoryStorage::new());
    let mut feed = Feed::create(&mut storage, Slot(0), pair.public_key(), Some(&pair), None).unwrap();
    let batch: Vec<Bytes> = (0..count).map(|index| Bytes::from(format!("block {index} of {n}"))).collect();
    feed.append(&mut storage, &batch).unwrap();
    let data = (0..count).map(|index| {
        let request = Request { index, bytes: 0, hash: false, nodes: 0 };
        match feed.answer(&mut storage, &request).unwrap() {
            Answer::Data(data) => prepare(data),
            other => panic!("{other:?}"),
        }
    });
    (pair.public_key(), data.collect())
}

#[test]
fn keys_names_and_folders_are_those_of_js() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/corestore.json")).unwrap();
    for vector in vectors["vectors"].as_array().unwrap() {
        let hex_of = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
        let given = MasterKey::new(hex_of(&vector["masterKey"]).try_into().unwrap());
        let root = vector["rootKey"].as_str().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut options = CorestoreOptions::default();
        options.master_key = Some(given.clone());
        let mut store = open_with(folder.path(), options).unwrap();
        let multifeed = Namespace::root().namespace(&format!("@multifeed:{root}"));
        let writer = |name: &str| multifeed.namespace(&format!("@multifeed:feed:{name}"));
        let mut checked = 0;
        for recorded in vector["cores"].as_array().unwrap() {
            let label = recorded["label"].as_str().unwrap();
            let core = match label {
                "default" => store.default_core(&Namespace::root()),
                "chat" | "namespace a, chat" => store.named("chat"),
                "namespace a, default" => store.default_core(&Namespace::root().namespace("a")),
                "namespace a, namespace b, default" => {
                    store.default_core(&Namespace::root().namespace("a").namespace("b"))
                }
                "namespace of bytes, default" => store.default_core(&Namespace::root().namespace("abcd")),
                "name of bytes" => store.named([0, 0xff, 0x80]),
                "name of 300 bytes" => store.named([b'n'; 300]),
                "writer without a name" => store.default_core(&writer("undefined")),
                "list of feeds" => store.default_core(&multifeed.namespace("@multifeed:persist")),
                label => store.default_core(&writer(label.strip_prefix("writer ").unwrap())),
            };
            let core = core.unwrap();
            let info = core.info();
            assert_eq!(info.key.to_string(), recorded["publicKey"], "{label}");
            assert_eq!(info.discovery_key.to_string(), recorded["discoveryKey"], "{label}");
            let secret = core.feed().key_pair().unwrap().secret_key();
            assert_eq!(hex::encode(*secret), recorded["secretKey"], "{label}");
            let name = fs::read(folder.path().join(recorded["folder"].as_str().unwrap()).join("name")).unwrap();
            assert_eq!(hex::encode(name), recorded["nameFile"], "{label}");
            checked += 1;
        }
        assert_eq!(checked, 13);
        store.close().unwrap();
        assert!(!folder.path().join("master_key").exists());
    }
}

#[test]
fn what_is_closed_is_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let pair = key_pair(9);
    for round in 0..3u8 {
        let mut store = Corestore::open(FileCoreStorage::open(folder.path()).unwrap(), few_open(1), || {
            assert_eq!(round, 0, "a second master key");
            master(5)
        })
        .unwrap();
        for name in ["chat", "notes"] {
            let mut core = store.named(name).unwrap();
            assert_eq!(core.append(&[Bytes::from(vec![round]), Bytes::new()]).unwrap().start, u64::from(round) * 2);
            assert_eq!(core.info().name.as_deref(), Some(name.as_bytes()));
        }
        store.with_key_pair(&pair).unwrap().append(&[Bytes::from(vec![round; 9])]).unwrap();
        assert_eq!(store.open_cores(), 1);
        store.close().unwrap();
    }
    let mut store = open(folder.path()).unwrap();
    assert_eq!(fs::read(folder.path().join("master_key")).unwrap(), [5; 32]);
    let key = master(5).key_pair(b"chat").public_key();
    let mut core = store.get(&key).unwrap();
    assert_eq!(blocks(&mut core), [&b"\0"[..], b"", b"\x01", b"", b"\x02", b""]);
    assert!(core.info().writable);
    core.append(&[Bytes::from_static(b"by its key")]).unwrap();
    let mut core = store.get(&pair.public_key()).unwrap();
    assert_eq!(blocks(&mut core).len(), 3);
    assert!(core.info().writable && core.info().name.is_none());
    let listed = store.list().unwrap();
    assert!(listed.problems.is_empty());
    assert_eq!(listed.cores.len(), 3);
    assert!(listed.cores.iter().all(|core| core.writable));
    assert!(listed.cores.is_sorted_by_key(|core| core.discovery_key));
}

#[test]
fn what_is_secret_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).unwrap();
    let core = store.named("chat").unwrap().info().discovery_key;
    store.with_key_pair(&key_pair(2)).unwrap();
    store.close().unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let own = folder_of(folder.path(), &key_pair(2).public_key().discovery_key()).join("secret_key");
        for file in [folder.path().join("master_key"), folder_of(folder.path(), &core).join("name"), own] {
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
        }
        fs::set_permissions(folder.path().join("master_key"), fs::Permissions::from_mode(0o644)).unwrap();
        let store = open(folder.path()).unwrap();
        assert_eq!(store.master_key_mode(), Some(0o644));
        assert!(!format!("{store:?}").contains("0101"), "the master key is printed");
    }
    assert!(!folder_of(folder.path(), &core).join("secret_key").exists());
}

#[test]
fn a_core_asked_for_by_key_leaves_no_folder_until_it_has_a_block() {
    let folder = tempfile::tempdir().unwrap();
    let (key, data) = remote(3, 5);
    let before = {
        open(folder.path()).unwrap().close().unwrap();
        contents(folder.path())
    };
    let mut store = open_with(folder.path(), few_open(1)).unwrap();
    let mut core = store.get(&key).unwrap();
    assert_eq!((core.info().on_disk, core.info().writable, core.block(0).unwrap()), (false, false, None));
    core.flush().unwrap();
    core.sync().unwrap();
    assert!(store.find(&key.discovery_key()).unwrap().is_none());
    // Others take its place.
    store.get(&key_pair(4).public_key()).unwrap();
    assert_eq!(store.list().unwrap().cores, []);
    assert_eq!(contents(folder.path()), before);

    let mut core = store.get(&key).unwrap();
    core.put(data[3].clone()).unwrap();
    assert_eq!(contents(folder.path()), before);
    core.flush().unwrap();
    assert!(core.info().on_disk && folder_of(folder.path(), &key.discovery_key()).join("key").exists());
    core.put(data[0].clone()).unwrap();
    // Closed by another one that is used, it is written.
    store.get(&key_pair(4).public_key()).unwrap();
    let mut core = store.find(&key.discovery_key()).unwrap().unwrap();
    assert_eq!(blocks(&mut core), ["block 0 of 3", "block 3 of 3"]);
    assert!(core.append(&[Bytes::from_static(b"x")]).is_err_and(|error| error.code() == "ERR_READ_ONLY"));
    store.close().unwrap();
    let mut store = open(folder.path()).unwrap();
    let mut core = store.get(&key).unwrap();
    assert_eq!(
        (core.info().len, core.info().downloaded, core.block(3).unwrap().unwrap()),
        (5, 2, "block 3 of 3".into())
    );
    assert!(core.feed().recovered().is_none());
    let mut cursor = VerifyCursor::default();
    while !core.verify_step(&mut cursor, 1 << 20).unwrap().done {}
    let wrong = prepare(multifeed_proto::Data { value: Some("forged".into()), ..data[1].data().clone() });
    assert_eq!(core.put(wrong).unwrap_err().code(), "ERR_PROOF");
}

#[test]
fn a_bounded_number_of_cores_and_files_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = FileStorageOptions::default();
    files.max_open_files = 20;
    let storage = FileCoreStorage::open_with(folder.path(), files).unwrap();
    let mut options = few_open(7);
    options.limits.feeds_in_use = 2;
    let mut store = Corestore::open(storage, options, || master(1)).unwrap();
    for round in 0..3u8 {
        for core in 0..50u8 {
            store.named([core]).unwrap().append(&[Bytes::from(vec![core, round])]).unwrap();
            assert!(store.open_cores() <= 7);
            assert!(store.storage().open_files() <= 20);
        }
    }
    // The one that was used last is open; the one used longest ago is not.
    let of = |name: u8| master(1).key_pair(&[name]).public_key().discovery_key();
    assert!(store.is_open(&of(49)) && store.is_open(&of(43)) && !store.is_open(&of(42)));
    store.named([43]).unwrap();
    store.named([0]).unwrap();
    assert!(store.is_open(&of(43)) && !store.is_open(&of(44)));
    assert_eq!(store.list().unwrap().cores.len(), 50);
    for core in 0..50u8 {
        let expected: Vec<Bytes> = (0..3).map(|round| Bytes::from(vec![core, round])).collect();
        assert_eq!(blocks(&mut store.named([core]).unwrap()), expected);
    }
    store.close().unwrap();
    let mut few = CorestoreOptions::default();
    few.limits.cores_listed = 49;
    let mut store = open_with(folder.path(), few).unwrap();
    assert!(matches!(store.list(), Err(CorestoreError::TooManyCores { max: 49 })));
}

#[test]
fn what_is_staged_is_bounded_over_all_cores() {
    let mut options = CorestoreOptions::default();
    options.limits.staged_bytes = 1_000;
    let mut store = in_memory(options);
    let mut staged = 0;
    for n in 1..40 {
        let (key, data) = remote(n, 4);
        for data in data {
            let mut core = store.get(&key).unwrap();
            core.put(data).unwrap();
            staged = staged.max(core.feed().staged_bytes());
        }
    }
    let now: usize = (1..40).map(|n| store.get(&key_pair(n).public_key()).unwrap().feed().staged_bytes()).sum();
    assert!(staged <= 1_000 && now <= 1_000, "{staged} {now}");
    let (result, mut storage) = store.close_and_keep();
    result.unwrap();
    storage.reopen();
    let mut store = Corestore::open(storage, CorestoreOptions::default(), || panic!("a second master key")).unwrap();
    assert_eq!(store.list().unwrap().cores.len(), 39);
    assert_eq!(store.get(&key_pair(7).public_key()).unwrap().info().downloaded, 4);
}

#[test]
fn close_gives_the_locks_back_and_a_second_opener_is_refused_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).unwrap();
    store.named("chat").unwrap();
    assert_eq!(code(open(folder.path())), "ERR_STORE_LOCKED");
    store.close().unwrap();
    let mut store = open(folder.path()).unwrap();
    store.named("chat").unwrap();
}

#[test]
fn a_corestore_is_no_multifeed_and_is_not_opened_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).unwrap();
    for name in 0u8..40 {
        store.named([name]).unwrap();
    }
    store.close().unwrap();
    let numbers = fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().parse::<u32>().is_ok());
    assert!(numbers.count() > 0);
    let before = contents(folder.path());
    for opened in [FileStorage::open(folder.path()), FileStorage::open_read_only(folder.path())] {
        let error = opened.unwrap_err();
        assert_eq!(error.code(), "ERR_OTHER_STORE");
        assert!(error.to_string().contains("is a corestore, and no multifeed"), "{error}");
    }
    assert_eq!(contents(folder.path()), before);
    // A file of that name in a multifeed's folder is an application's.
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("0")).unwrap();
    fs::write(folder.path().join("master_key"), b"somebody's").unwrap();
    FileStorage::open(folder.path()).unwrap();
}

#[test]
fn a_master_key_that_is_damaged_or_gone_is_refused_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).unwrap();
    let mine = store.named("chat").unwrap().info();
    let (key, data) = remote(3, 1);
    store.get(&key).unwrap().put(data[0].clone()).unwrap();
    store.close().unwrap();
    let file = folder.path().join("master_key");
    for damaged in [&[][..], &[1; 12], &[1; 31], &[1; 33], &[0; 32]] {
        fs::write(&file, damaged).unwrap();
        let before = contents(folder.path());
        let error = open(folder.path()).unwrap_err();
        assert_eq!(error.code(), "ERR_MASTER_KEY_DAMAGED");
        assert!(error.to_string().contains("backup"), "{error}");
        assert_eq!(contents(folder.path()), before);
    }
    fs::remove_file(&file).unwrap();
    let before = contents(folder.path());
    assert!(matches!(open(folder.path()), Err(CorestoreError::MasterKeyMissing)));
    assert_eq!(contents(folder.path()), before);

    // With another master key what others wrote can be read, and what is ours is refused by its name.
    let mut options = CorestoreOptions::default();
    options.master_key = Some(master(8));
    let mut store = open_with(folder.path(), options).unwrap();
    assert_eq!(store.get(&key).unwrap().block(0).unwrap().unwrap(), "block 0 of 3");
    let error = store.get(&mine.key).map(drop).unwrap_err();
    assert!(
        matches!(&error, CorestoreError::NameMismatch { core, name } if *core == mine.discovery_key && name == b"chat")
    );
    assert!(error.to_string().contains("`name` (chat)"), "{error}");
    let listed = store.list().unwrap();
    assert_eq!((listed.cores.len(), listed.problems.len()), (1, 1));
    store.close().unwrap();
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn a_folder_that_is_not_what_its_name_says_is_refused_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let other = key_pair(6).public_key();
    // What is done to the folder of `chat`, and what is said to it.
    type Harm = fn(&Path, FeedKey);
    let harms: [(&str, Harm); 11] = [
        ("ERR_NAME_MISMATCH", |dir, _| fs::write(dir.join("name"), b"\x04chap").unwrap()),
        ("ERR_STORE_DAMAGED", |dir, _| fs::write(dir.join("name"), b"\x04cha").unwrap()),
        ("ERR_STORE_DAMAGED", |dir, _| fs::write(dir.join("name"), b"").unwrap()),
        ("ERR_STORE_DAMAGED", |dir, _| {
            fs::write(dir.join("name"), [&b"\xac\xff\x03"[..], &[b'x'; 65_452]].concat()).unwrap()
        }),
        ("ERR_STORE_DAMAGED", |dir, other| fs::write(dir.join("key"), other).unwrap()),
        ("ERR_STORE_DAMAGED", |dir, _| fs::write(dir.join("key"), [1; 31]).unwrap()),
        ("ERR_STORE_DAMAGED", |dir, _| fs::write(dir.join("bitfield"), [9; 40]).unwrap()),
        ("ERR_OTHER_STORE", |dir, _| fs::write(dir.join("oplog"), b"").unwrap()),
        ("ERR_OTHER_STORE", |dir, _| fs::create_dir(dir.join("db")).unwrap()),
        ("ERR_STORE_DAMAGED", |dir, _| {
            fs::remove_file(dir.join("name")).unwrap();
            fs::write(dir.join("secret_key"), *key_pair(6).secret_key()).unwrap();
        }),
        ("ERR_STORE_DAMAGED", |dir, _| {
            fs::remove_file(dir.join("name")).unwrap();
            fs::remove_file(dir.join("key")).unwrap();
        }),
    ];
    for (number, (expected, harm)) in harms.into_iter().enumerate() {
        let path = path.join(number.to_string());
        let mut store = open(&path).unwrap();
        store.named("chat").unwrap().append(&[Bytes::from_static(b"hello")]).unwrap();
        let core = store.named("chat").unwrap().info();
        store.named("other").unwrap();
        store.close().unwrap();
        harm(&folder_of(&path, &core.discovery_key), other);
        let before = contents(&path);
        let mut store = open(&path).unwrap();
        for asked in 0..3 {
            let error = match asked {
                0 => store.named("chat").map(drop),
                1 => store.get(&core.key).map(drop),
                _ => store.find(&core.discovery_key).map(|found| assert!(found.is_none())),
            };
            // A folder without any key is no core for one who asks for no key.
            if let Err(error) = error {
                assert_eq!(error.code(), expected, "{number}: {error}");
            } else {
                assert_eq!((number, asked), (10, 2));
            }
        }
        assert_eq!(contents(&path), before, "{number}");
        // The others are none the worse.
        store.named("other").unwrap().append(&[Bytes::from_static(b"x")]).unwrap();
        store.close().unwrap();
    }
}

#[test]
fn a_creation_that_was_cut_short_is_finished() {
    // JS makes `key`, then `name`, then what else there is; ours makes `name` first and `key` last.
    let keep: [&[&str]; 6] = [
        &["name"],
        &["name", "bitfield", "tree"],
        &["bitfield", "signatures", "tree"],
        &["key"],
        &["key", "bitfield", "signatures", "tree"],
        &["key", "name"],
    ];
    for kept in keep {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path()).unwrap();
        let core = store.named("chat").unwrap().info();
        store.close().unwrap();
        let files = || contents(folder.path()).into_iter().filter(|(name, _)| !name.ends_with(".journal"));
        let whole: Vec<_> = files().collect();
        let dir = folder_of(folder.path(), &core.discovery_key);
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            if !kept.contains(&entry.file_name().to_str().unwrap()) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        let mut store = open(folder.path()).unwrap();
        let listed = store.list().unwrap();
        assert_eq!((listed.cores.len(), listed.problems.len()), (usize::from(kept.contains(&"key")), 0), "{kept:?}");
        let mut opened = store.named("chat").unwrap();
        assert!(opened.info().writable, "{kept:?}");
        store.sync().unwrap();
        assert_eq!(files().collect::<Vec<_>>(), whole, "{kept:?}");
        opened = store.named("chat").unwrap();
        opened.append(&[Bytes::from_static(b"on")]).unwrap();
        store.close().unwrap();
    }
}

#[test]
fn a_core_with_blocks_and_no_secret_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).unwrap();
    store.named("chat").unwrap().append(&[Bytes::from_static(b"hello")]).unwrap();
    let core = store.named("chat").unwrap().info();
    store.close().unwrap();
    let dir = folder_of(folder.path(), &core.discovery_key);
    fs::remove_file(dir.join("name")).unwrap();
    let before = contents(folder.path());
    let mut store = open(folder.path()).unwrap();
    let mut read = store.named("chat").unwrap();
    assert_eq!((read.info().writable, read.block(0).unwrap().unwrap()), (false, "hello".into()));
    assert_eq!(code(read.append(&[Bytes::from_static(b"x")])), "ERR_READ_ONLY");
    store.close().unwrap();
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn other_stores_are_recognised_and_left() {
    let name = key_pair(1).public_key().discovery_key().to_string();
    let core = format!("{}/{}/{name}/key", &name[..2], &name[2..4]);
    let stores: [(StoreKind, &[&str], &str); 10] = [
        (StoreKind::Corestore6, &["primary-key", "cores/7d/35/7d35/oplog"], "corestore 6"),
        (StoreKind::Corestore7, &["CORESTORE", "db/CURRENT", "db/IDENTITY"], "corestore 7"),
        (StoreKind::Corestore7, &["CORESTORE", "db/CURRENT", "db/master_key"], "copy `master_key`"),
        (StoreKind::Corestore7, &["CORESTORE", "db/master_key", "master_key"], "copy `master_key`"),
        (StoreKind::Corestore7Db, &["CURRENT", "IDENTITY", "master_key"], "into another folder"),
        (StoreKind::Hypercore10, &["oplog", "tree", "bitfield", "data"], "hypercore 10"),
        (StoreKind::Hypercore9, &["key", "tree", "bitfield"], "single hypercore 9"),
        (StoreKind::Multifeed, &["0/key", "multifeed.journal"], "as a multifeed"),
        (StoreKind::Multifeed, &["0/key", "0/localname", "1/key"], "as a multifeed"),
        (StoreKind::MultifeedAndCores, &["0/key", core.as_str()], "into another folder"),
    ];
    for (kind, files, says) in stores {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, b"x").unwrap();
        }
        let before = contents(folder.path());
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(&error, CorestoreError::OtherStore(other) if other.kind() == kind), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        // As a multifeed's folder neither, unless it is one.
        if kind != StoreKind::Multifeed {
            for open in [FileStorage::open_with, FileStorage::open_read_only_with, FileStorage::open_beside_with] {
                let error = open(folder.path(), FileStorageOptions::default()).unwrap_err();
                assert_eq!((error.code(), error.to_string().contains(says)), ("ERR_OTHER_STORE", true), "{error}");
            }
        }
        assert_eq!(contents(folder.path()), before);
        assert!(!folder.path().join("multifeed.lock").exists());
    }
    // A hypercore that somebody made in a corestore's own folder changes nothing of that, as in JS.
    for name in ["chat", ""] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path()).unwrap();
        if !name.is_empty() {
            store.named(name).unwrap();
        }
        store.close().unwrap();
        let foreign = ["key", "secret_key", "tree", "data", "bitfield", "signatures", "localname"];
        foreign.iter().for_each(|file| fs::write(folder.path().join(file), b"x").unwrap());
        open(folder.path()).unwrap().close().unwrap();
        assert!(foreign.iter().all(|file| fs::read(folder.path().join(file)).unwrap() == b"x"));
        assert!(matches!(FileStorage::open(folder.path()), Err(StoreError::IsCorestore { .. })));
    }
    // Cores make a corestore, also without a `master_key`.
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join(&core).parent().unwrap()).unwrap();
    fs::write(folder.path().join(&core), b"x").unwrap();
    let before = contents(folder.path());
    assert!(matches!(FileStorage::open(folder.path()), Err(StoreError::IsCorestore { .. })));
    assert_eq!(contents(folder.path()), before);
    // corestore 6 leaves a folder of corestore 5 alone, and so it can be opened; so does what is an application's.
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).unwrap().close().unwrap();
    fs::write(folder.path().join("primary-key"), b"x").unwrap();
    fs::create_dir_all(folder.path().join("cores/ab")).unwrap();
    fs::create_dir_all(folder.path().join("ab/notes/x")).unwrap();
    fs::write(folder.path().join("settings.json"), b"{}").unwrap();
    let mut store = open(folder.path()).unwrap();
    store.named("chat").unwrap();
    let listed = store.list().unwrap();
    assert_eq!((listed.cores.len(), listed.problems.len()), (1, 0));
}

#[cfg(unix)]
#[test]
fn links_and_pipes_below_the_folder_are_not_followed() {
    use std::os::unix::fs::symlink;
    let elsewhere = tempfile::tempdir().unwrap();
    let core = master(1).key_pair(b"chat").public_key();
    let name = core.discovery_key().to_string();
    type Trap = fn(&Path, &str, &Path);
    let pipe = |path: &Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let traps: [Trap; 6] = [
        |root, name, to| symlink(to, root.join(&name[..2])).unwrap(),
        |root, name, to| {
            fs::create_dir(root.join(&name[..2])).unwrap();
            symlink(to, root.join(&name[..2]).join(&name[2..4])).unwrap();
        },
        |root, name, to| {
            let above = root.join(&name[..2]).join(&name[2..4]);
            fs::create_dir_all(&above).unwrap();
            symlink(to, above.join(name)).unwrap();
        },
        |root, name, _| fs::write(root.join(&name[..2]), b"a file").unwrap(),
        |root, name, to| {
            let dir = root.join(&name[..2]).join(&name[2..4]).join(name);
            fs::create_dir_all(&dir).unwrap();
            symlink(to.join("name"), dir.join("name")).unwrap();
        },
        |root, name, to| {
            let dir = root.join(&name[..2]).join(&name[2..4]).join(name);
            fs::create_dir_all(&dir).unwrap();
            symlink(to.join("key"), dir.join("key")).unwrap();
        },
    ];
    for trap in traps {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap().close().unwrap();
        trap(folder.path(), &name, elsewhere.path());
        let before = contents(folder.path());
        let mut store = open(folder.path()).unwrap();
        for _ in 0..2 {
            assert_eq!(code(store.named("chat")), "ERR_STORE_NOT_REGULAR");
            assert_eq!(code(store.get(&core)), "ERR_STORE_NOT_REGULAR");
        }
        let listed = store.list().unwrap();
        assert!(listed.cores.is_empty());
        store.named("other").unwrap();
        store.close().unwrap();
        let kept = contents(folder.path());
        assert!(before.iter().all(|entry| kept.contains(entry)));
        assert_eq!(contents(elsewhere.path()), BTreeSet::new());
    }
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).unwrap().close().unwrap();
    fs::remove_file(folder.path().join("master_key")).unwrap();
    pipe(&folder.path().join("master_key"));
    assert_eq!(code(open(folder.path())), "ERR_STORE_NOT_REGULAR");
    fs::remove_file(folder.path().join("master_key")).unwrap();
    symlink(elsewhere.path().join("master_key"), folder.path().join("master_key")).unwrap();
    assert_eq!(code(open(folder.path())), "ERR_STORE_NOT_REGULAR");
    assert_eq!(contents(elsewhere.path()), BTreeSet::new());

    // A folder of a core that is kept elsewhere on purpose.
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).unwrap().close().unwrap();
    symlink(elsewhere.path(), folder.path().join(&name[..2])).unwrap();
    let mut files = FileStorageOptions::default();
    files.follow_links = true;
    fs::create_dir_all(elsewhere.path().join(&name[2..4]).join(&name)).unwrap();
    let storage = FileCoreStorage::open_with(folder.path(), files).unwrap();
    let mut store = Corestore::open(storage, CorestoreOptions::default(), || panic!("a second master key")).unwrap();
    assert_eq!(store.list().unwrap().problems.len(), 0);
}

#[test]
fn a_folder_opened_for_reading_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).unwrap();
    store.named("chat").unwrap().append(&[Bytes::from_static(b"hello")]).unwrap();
    store.close().unwrap();
    let before = contents(folder.path());
    let storage = FileCoreStorage::open_read_only_with(folder.path(), FileStorageOptions::default()).unwrap();
    let mut store = Corestore::open(storage, CorestoreOptions::default(), || panic!("a second master key")).unwrap();
    let mut core = store.named("chat").unwrap();
    assert_eq!(core.block(0).unwrap().unwrap(), "hello");
    assert_eq!(code(core.append(&[Bytes::from_static(b"x")])), "ERR_STORE_IO");
    assert_eq!(code(store.named("new")), "ERR_STORE_IO");
    store.get(&key_pair(3).public_key()).unwrap();
    store.close().unwrap();
    assert_eq!(contents(folder.path()), before);
    let empty = tempfile::tempdir().unwrap();
    let storage = FileCoreStorage::open_read_only_with(empty.path(), FileStorageOptions::default()).unwrap();
    assert_eq!(code(Corestore::open(storage, CorestoreOptions::default(), || master(1))), "ERR_STORE_IO");
    assert_eq!(contents(empty.path()), BTreeSet::new());
}

#[test]
fn names_have_a_bound_and_a_key_pair_has_its_own_core() {
    let mut options = CorestoreOptions::default();
    options.limits.core_name_bytes = 10;
    let mut store = in_memory(options);
    assert_eq!(code(store.named("")), "ERR_BAD_NAME");
    assert_eq!(code(store.named("01234567890")), "ERR_BAD_NAME");
    store.named("0123456789").unwrap();
    let pair = KeyPair::from_seed(&[4; 32]);
    // Asked for by its key first, it gets its secret when that is given.
    assert!(!store.get(&pair.public_key()).unwrap().info().on_disk);
    store.with_key_pair(&pair).unwrap().append(&[Bytes::from_static(b"a")]).unwrap();
    assert!(store.get(&pair.public_key()).unwrap().info().writable);
    let named = master(1).key_pair(b"later");
    assert!(!store.get(&named.public_key()).unwrap().info().writable);
    assert!(store.named("later").unwrap().info().writable);
}

#[test]
fn a_list_of_feeds_is_read_with_what_is_no_entry_of_one() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/corestore.json")).unwrap();
    for vector in vectors["vectors"].as_array().unwrap() {
        let root: FeedKey = vector["rootKey"].as_str().unwrap().parse().unwrap();
        let mut store = in_memory(CorestoreOptions::default());
        let mut core = store.default_core(&FeedList::list_namespace(&root)).unwrap();
        let lines = vector["list"].as_str().unwrap().split_inclusive('\n');
        let blocks: Vec<Bytes> = lines.map(|line| Bytes::copy_from_slice(line.as_bytes())).collect();
        core.append(&blocks).unwrap();
        let mut list = FeedList::default();
        list.read(&mut core).unwrap();
        let names: Vec<&str> = list.feeds().iter().map(|feed| &feed.name[..]).collect();
        assert_eq!((names, list.problems().len()), (vec!["local", "zwei", "grüße", "3"], 0));
        // What we write is what JS wrote.
        let written: Vec<Bytes> = list.feeds().iter().map(|feed| FeedList::entry(&feed.key, &feed.name)).collect();
        assert_eq!(written, blocks);
    }

    let mut options = CorestoreOptions::default();
    options.limits.feeds = 3;
    options.limits.core_name_bytes = 200;
    let mut store = in_memory(options);
    let key = |n| key_pair(n).public_key();
    let line = |text: String| Bytes::from(text);
    let mut core = store.named("list").unwrap();
    core.append(&[
        FeedList::entry(&key(1), "a"),
        line("{".to_owned()),
        line(format!("{{\"key\":\"{}\",\"name\":7}}", key(2))),
        line("{\"name\":\"b\"}".to_owned()),
        line("{\"key\":\"beef\",\"name\":\"b\"}".to_owned()),
        FeedList::entry(&key(2), &"n".repeat(201)),
        FeedList::entry(&key(1), "again"),
        line(format!("{{\"more\":[1],\"key\":\"{}\"}}", key(3).to_string().to_uppercase())),
        FeedList::entry(&key(4), "a"),
    ])
    .unwrap();
    let mut list = FeedList::default();
    list.read(&mut core).unwrap();
    let names: Vec<&str> = list.feeds().iter().map(|feed| &feed.name[..]).collect();
    assert_eq!((names, list.problems().len()), (vec!["a", "1", "a"], 3));
    assert!(list.has(&key(3)) && !list.has(&key(2)));
    assert_eq!(list.find_name("a").unwrap().key, key(4));
    assert!(list.problems()[0].to_string().contains("block 1 of the list of feeds"), "{}", list.problems()[0]);
    core.append(&[FeedList::entry(&key(5), "e")]).unwrap();
    assert_eq!(code(list.read(&mut core)), "ERR_LIMIT");
    assert_eq!(list.feeds().len(), 3);
}
