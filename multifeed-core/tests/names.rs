//! Names of feeds: unique here and for JS, whoever is named like a number.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use multifeed_core::{
    FeedId, FileId, FileKind, FileStorage, KeyPair, MemoryStorage, Multifeed, MultifeedEvent, Options, Slot, Storage,
    StoreError, is_object_property,
};
use multifeed_proto::FeedKey;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn pair(seed: u32) -> KeyPair {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    KeyPair::from_seed(&bytes)
}

fn key(seed: u32) -> FeedKey {
    pair(seed).public_key()
}

fn open(disk: &mut MemoryStorage) -> Multifeed<&mut MemoryStorage> {
    disk.reopen();
    Multifeed::open(disk, Options::default()).unwrap()
}

fn writer<S: Storage>(store: &mut Multifeed<S>, name: Option<&str>, seed: u32) -> FeedId {
    store.writer(name, || pair(seed)).unwrap()
}

fn localname(slot: u32) -> FileId {
    FileId::new(Slot(slot), FileKind::LocalName)
}

/// What JS finds in a store: it opens folders until one has no key, and names a feed by its `localname`, or else by its number.
fn as_js(disk: &MemoryStorage) -> BTreeMap<String, FeedKey> {
    let mut feeds = BTreeMap::new();
    for slot in 0.. {
        let Some(key) = disk.contents(FileId::new(Slot(slot), FileKind::Key)) else { break };
        let name = disk.contents(localname(slot)).map(|name| String::from_utf8(name).unwrap());
        let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| slot.to_string());
        let key = FeedKey::new(key.try_into().unwrap());
        assert_eq!(feeds.insert(name.clone(), key), None, "two feeds are named {name}");
    }
    feeds
}

fn names<S: Storage>(store: &Multifeed<S>) -> BTreeMap<String, FeedKey> {
    let mut names = BTreeMap::new();
    for id in store.feeds() {
        let info = store.info(id).unwrap();
        assert_eq!(store.find_name(&info.name), Some(id), "{}", info.name);
        assert_eq!(names.insert(info.name, info.key), None);
    }
    names
}

#[test]
fn a_writer_has_the_number_that_it_is_named_by_and_the_feed_there_gives_way() {
    let mut disk = MemoryStorage::new();
    let mut store = open(&mut disk);
    let [first, second] = [1, 2].map(|seed| store.add(key(seed)).unwrap());
    assert_eq!(store.info(first).unwrap().name, "0");
    while store.poll_event().is_some() {}
    let named = writer(&mut store, Some("0"), 3);
    let by_key = key(1).to_string();
    assert!(matches!(&store.poll_event(), Some(MultifeedEvent::Moved { id, name }) if (*id, name) == (first, &by_key)));
    assert!(matches!(store.poll_event(), Some(MultifeedEvent::Feed { id, .. }) if id == named));
    assert_eq!((store.info(first).unwrap().name, store.info(named).unwrap().name), (by_key.clone(), "0".to_owned()));
    assert_eq!((store.find_name("0"), store.find_name("1"), store.find_name("2")), (Some(named), Some(second), None));
    // Before the feed whose number it will be: that has no number for a name, with or without a key pair.
    let later = [writer(&mut store, Some("4"), 4), writer(&mut store, Some("5"), 5)];
    assert_eq!(later.map(|id| store.info(id).unwrap().name), ["4", "5"]);
    let late = store.add(key(6)).unwrap();
    assert_eq!((store.slot_of(late).unwrap(), store.info(late).unwrap().name), (Slot(5), key(6).to_string()));
    writer(&mut store, Some("6"), 7);
    writer(&mut store, Some("8"), 8);
    let unnamed = writer(&mut store, None, 9);
    assert_eq!((store.slot_of(unnamed).unwrap(), store.info(unnamed).unwrap().name), (Slot(8), key(9).to_string()));
    // Names that JS does not make of numbers are in nobody's way.
    writer(&mut store, Some("00"), 10);
    writer(&mut store, Some("+1"), 11);
    assert_eq!(store.info(second).unwrap().name, "1");
    let told = names(&store);
    store.close().unwrap();
    assert_eq!(as_js(&disk), told);
    let mut store = open(&mut disk);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    assert_eq!(names(&store), told);
    // A name that was made of a key is no writer's, nor is one for another feed.
    let error = store.writer(Some(&by_key), || pair(12)).unwrap_err();
    assert!(matches!(error, StoreError::NameTaken { slot: Slot(0), .. }), "{error}");
    assert_eq!(error.code(), "ERR_NAME_TAKEN");
    assert_eq!(store.writer(Some("0"), || unreachable!()).ok(), store.find(&key(3)));
}

#[test]
fn a_feed_that_takes_the_number_of_a_removed_one_has_nobodys_name() {
    // A writer named "0" behind folder 0, and in the last folder a remote's feed, an unnamed writer, and a named one.
    for last in 0..3 {
        let mut disk = MemoryStorage::new();
        let mut store = open(&mut disk);
        writer(&mut store, Some("first"), 1);
        writer(&mut store, Some("0"), 2);
        let moved = match last {
            0 => store.add(key(3)).unwrap(),
            1 => writer(&mut store, None, 3),
            _ => writer(&mut store, Some("last"), 3),
        };
        let first = store.find(&key(1)).unwrap();
        store.remove_writer(first).unwrap();
        let expected = if last == 2 { "last".to_owned() } else { key(3).to_string() };
        assert_eq!((store.slot_of(moved).unwrap(), store.info(moved).unwrap().name), (Slot(0), expected));
        let told = names(&store);
        assert_eq!(told.len(), 2);
        store.close().unwrap();
        assert_eq!(as_js(&disk), told);
        assert_eq!(names(&open(&mut disk)), told);
    }
}

#[test]
fn names_are_unique_whatever_is_made_and_removed() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut disk = MemoryStorage::new();
        let mut store = open(&mut disk);
        let mut kept = BTreeSet::new();
        for step in 0..60 {
            let feeds: Vec<FeedId> = store.feeds().collect();
            let number = rng.random_range(0..9u32).to_string();
            match rng.random_range(0..9) {
                0..2 => _ = writer(&mut store, Some(&number), step),
                2..4 => _ = writer(&mut store, None, step),
                4..6 => _ = store.add(key(step)).unwrap(),
                6..8 if !feeds.is_empty() => {
                    let id = feeds[rng.random_range(0..feeds.len())];
                    kept.remove(&store.info(id).unwrap().key);
                    if store.info(id).unwrap().writable {
                        store.remove_writer(id).unwrap()
                    } else {
                        store.remove(id).unwrap()
                    }
                }
                8 => {
                    let told = names(&store);
                    store.close().unwrap();
                    store = open(&mut disk);
                    assert!(store.problems().is_empty(), "{:?}", store.problems());
                    assert_eq!(names(&store), told, "{seed}, {step}");
                }
                _ => {}
            }
            kept.extend(store.feeds().map(|id| store.info(id).unwrap().key));
            let told = names(&store);
            assert_eq!(told.values().copied().collect::<BTreeSet<_>>(), kept, "{seed}, {step}");
            assert_eq!(as_js(store.storage()), told, "{seed}, {step}");
        }
    }
}

/// A closed store with so many feeds, each with one block: writers named by letters, and from `remote` on feeds of a remote's.
fn letters(writers: u32, remotes: u32) -> MemoryStorage {
    let mut disk = MemoryStorage::new();
    let mut store = open(&mut disk);
    for seed in 0..writers {
        let id = writer(&mut store, Some(&char::from(b'a' + seed as u8).to_string()), seed);
        store.append(id, &[Bytes::from("block")]).unwrap();
    }
    for seed in writers..writers + remotes {
        store.add(key(seed)).unwrap();
    }
    store.close().unwrap();
    disk.reopen();
    disk
}

#[test]
fn a_store_of_js_with_two_feeds_of_one_name_is_set_right() {
    // What folders 0, 1 and 2 are named by JS, whether 2 is a remote's, and who keeps its name.
    type Case = (&'static [&'static str], bool, [Option<&'static str>; 3]);
    let cases: [Case; 7] = [
        // Two calls of `writer` at once.
        (&["x", "x", "z"], false, [Some("x"), None, Some("z")]),
        (&["x", "x", "x"], false, [Some("x"), None, None]),
        // A writer named like a number, and then one that has no other name, or a remote's feed.
        (&["1", "1", "z"], false, [Some("1"), None, Some("z")]),
        (&["2", "y"], true, [Some("2"), Some("y"), None]),
        // And after it.
        (&["0", "0", "0"], false, [None, Some("0"), None]),
        // A name that is lost is the number.
        (&["1", "", "z"], false, [Some("1"), None, Some("z")]),
        (&["0", "1"], true, [Some("0"), Some("1"), Some("2")]),
    ];
    for (given, remote, kept) in cases {
        let mut disk = letters(3 - u32::from(remote), u32::from(remote));
        for (slot, name) in (0..).zip(given) {
            disk.replace(localname(slot), name.as_bytes()).unwrap();
        }
        // JS has no journal, which would know the names.
        disk.lose(FileId::new(Slot(0), FileKind::Journal));
        let mut store = open(&mut disk);
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        let told = names(&store);
        for (seed, name) in (0..).zip(kept) {
            let expected = name.map_or_else(|| key(seed).to_string(), str::to_owned);
            assert_eq!(told.get(&expected), Some(&key(seed)), "{given:?}: {told:?}");
        }
        let renamed = std::iter::from_fn(|| store.poll_event()).count();
        assert_eq!(renamed, kept.iter().filter(|name| name.is_none()).count());
        drop(store);
        assert_eq!(as_js(&disk), told, "{given:?}");
        // That was all there was to do.
        let mut again = open(&mut disk);
        assert_eq!((names(&again), again.poll_event()), (told, None));
    }
}

#[test]
fn a_damaged_folder_gives_no_name_away() {
    // A remote's feed whose name was left there by another one; a folder that cannot be opened; one that nobody finds.
    let mut disk = letters(1, 2);
    disk.replace(localname(1), b"stale").unwrap();
    disk.replace(FileId::new(Slot(2), FileKind::Tree), &[7; 40]).unwrap();
    disk.replace(FileId::new(Slot(9), FileKind::Data), b"something").unwrap();
    let mut store = open(&mut disk);
    assert_eq!(store.problems().len(), 3, "{:?}", store.problems());
    for slot in [1, 2] {
        let error = store.writer(Some(&slot.to_string()), || pair(20)).unwrap_err();
        assert!(matches!(&error, StoreError::NameTaken { name, slot: at } if *name == at.to_string()), "{error}");
        assert_eq!(error.slot(), Some(Slot(slot)));
    }
    writer(&mut store, Some("9"), 21);
    drop(store);
    assert_eq!((disk.contents(localname(1)).unwrap(), disk.contents(localname(2))), (b"stale".to_vec(), None));
}

#[test]
fn a_name_that_cannot_be_read_may_be_any() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let open = || Multifeed::open(FileStorage::open(dir.path()).unwrap(), Options::default()).unwrap();
    let mut store = open();
    for (name, seed) in [("w", 1), ("v", 2)] {
        let id = writer(&mut store, Some(name), seed);
        store.append(id, &[Bytes::from("block")]).unwrap();
    }
    store.close().unwrap();
    std::fs::rename(path("0/localname"), path("0/aside")).unwrap();
    std::fs::create_dir(path("0/localname")).unwrap();
    let mut store = open();
    assert_eq!(store.problems().len(), 1, "{:?}", store.problems());
    // A new writer would have another key, and what is appended to it be in a feed that nobody looks for. The journal knows whose the name is.
    let id = store.writer(Some("w"), || pair(3)).unwrap();
    assert_eq!(store.info(id).unwrap().key, key(1));
    let id = store.writer(Some("v"), || pair(4)).unwrap();
    assert_eq!(store.info(id).unwrap().key, key(2));
    store.writer(None, || pair(5)).unwrap();
    // Without that folder nothing is unknown.
    store.close().unwrap();
    std::fs::remove_dir(path("0/localname")).unwrap();
    std::fs::rename(path("0/aside"), path("0/localname")).unwrap();
    let mut store = open();
    assert!(store.problems().is_empty());
    let id = store.writer(Some("w"), || pair(6)).unwrap();
    assert_eq!((store.info(id).unwrap().key, store.info(id).unwrap().len), (key(1), 1));
    store.writer(Some("new"), || pair(7)).unwrap();
}

/// A bit of `localname` that flipped makes no other author of its writer, with its secret key or without.
#[test]
fn the_journal_knows_a_name_in_which_a_bit_flipped() {
    for (bit, with_key) in (0..8).flat_map(|bit| [(bit, true), (bit, false)]) {
        let what = format!("bit {bit}, secret key {with_key}");
        let mut disk = letters(3, 1);
        let flipped = [b'b' ^ (1 << bit)];
        disk.replace(localname(1), &flipped).unwrap();
        if !with_key {
            disk.lose(FileId::new(Slot(1), FileKind::SecretKey));
        }
        let mut store = open(&mut disk);
        let told: Vec<String> = store.problems().iter().map(ToString::to_string).collect();
        assert!(told.len() == 1 && told[0].contains("folder 1"), "{what}: {told:?}");
        match store.writer(Some("b"), || pair(20)) {
            Ok(id) => assert!(with_key && store.info(id).unwrap().key == key(1), "{what}"),
            Err(error) => assert!(!with_key && error.slot() == Some(Slot(1)), "{what}: {error}"),
        }
        store.close().unwrap();
        if with_key {
            assert!(told[0].contains("`localname`") && told[0].contains("`b`"), "{told:?}");
            assert_eq!(disk.contents(localname(1)).unwrap(), b"b");
            assert_eq!(open(&mut disk).problems().len(), 0, "{what}");
        }
    }
}

/// Names that ours changes stay changed, also those of folders that are older copies.
#[test]
fn a_writer_that_is_renamed_keeps_its_new_name() {
    // Two writers without names, and one that gets the number of the first as its name.
    let mut disk = MemoryStorage::new();
    let mut store = open(&mut disk);
    for (seed, name) in [(0, None), (1, Some("1")), (2, Some("x")), (3, Some("3"))] {
        let id = writer(&mut store, name, seed);
        store.append(id, &[Bytes::from("block")]).unwrap();
    }
    store.close().unwrap();
    // The last one gets the number, and the name, of the second one.
    let mut store = open(&mut disk);
    let second = store.find_name("1").unwrap();
    store.remove_writer(second).unwrap();
    let told = names(&store);
    assert_eq!(told.get("1"), Some(&key(3)), "{told:?}");
    // As it crashes, and as it closes.
    drop(store);
    for _ in 0..2 {
        let store = open(&mut disk);
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        assert_eq!(names(&store), told);
        store.close().unwrap();
    }
    assert_eq!(as_js(&disk), told);
}

#[test]
fn the_names_of_what_every_js_object_has_are_refused_for_new_writers_alone() {
    let mut disk = MemoryStorage::new();
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    for name in ["__proto__", "constructor", "hasOwnProperty", "toString", "valueOf", "isPrototypeOf"] {
        assert!(is_object_property(name));
        let refused = store.writer(Some(name), || KeyPair::from_seed(&[7; 32])).unwrap_err();
        assert_eq!(refused.code(), "ERR_BAD_NAME");
        assert!(refused.to_string().contains(name), "{refused}");
    }
    for name in ["proto", "Constructor", "tostring", "length", "key"] {
        assert!(!is_object_property(name), "{name}");
    }
    assert_eq!(store.feeds().count(), 0);
    let id = store.writer(Some("w"), || KeyPair::from_seed(&[7; 32])).unwrap();
    store.append(id, &[Bytes::from("a")]).unwrap();
    store.close().unwrap();
    // One that is there, from JS or an earlier build, is as any other.
    disk.reopen();
    disk.replace(FileId::new(Slot(0), FileKind::LocalName), b"__proto__").unwrap();
    disk.lose(FileId::new(Slot(0), FileKind::Journal));
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    assert!(store.problems().is_empty());
    let id = store.writer(Some("__proto__"), || KeyPair::from_seed(&[8; 32])).unwrap();
    assert_eq!(store.append(id, &[Bytes::from("b")]).unwrap(), 1..2);
}
