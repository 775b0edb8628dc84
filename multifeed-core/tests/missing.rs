//! Writers whose folders are gone: they are reported, nobody takes their number or their name, and they come back.

use bytes::Bytes;
use multifeed_core::{
    Feed, FileId, FileKind, KeyPair, MemoryStorage, Multifeed, Options, Rearranged, Slot, Storage, StoreError,
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

/// A closed store: the writers `w1` to `w4` in the folders 0 to 3, with two blocks each, and a remote's feed behind them.
fn store() -> MemoryStorage {
    let mut disk = MemoryStorage::new();
    let mut store = open(&mut disk);
    for seed in 1..=4 {
        let id = store.writer(Some(&format!("w{seed}")), || pair(seed)).unwrap();
        store.append(id, &[Bytes::from("a"), Bytes::from("b")]).unwrap();
    }
    store.add(key(9)).unwrap();
    store.close().unwrap();
    disk.reopen();
    disk
}

fn copy(from: &MemoryStorage, slot: u32, to: &mut MemoryStorage, number: u32) {
    to.reopen();
    for kind in FileKind::ALL {
        if let Some(bytes) = from.contents(file(slot, kind)) {
            to.write_at(file(number, kind), 0, &bytes).unwrap();
        }
    }
}

/// The folder is gone, or nothing is left in it but an empty file.
fn lose(disk: &mut MemoryStorage, slot: u32, all: bool) {
    disk.reopen();
    disk.remove(Slot(slot)).unwrap();
    if !all {
        disk.truncate(file(slot, FileKind::Data), 0).unwrap();
    }
}

/// Number, key, name, blocks.
type Missing = (Option<u32>, Option<FeedKey>, Option<String>, u64);

/// The missing writers.
fn missing<S: Storage>(store: &Multifeed<S>) -> Vec<Missing> {
    let told = |problem: &StoreError| match problem {
        StoreError::MissingWriter { slot, key, name, blocks } => (slot.map(|slot| slot.0), *key, name.clone(), *blocks),
        other => panic!("{other}"),
    };
    store.problems().iter().map(told).collect()
}

fn folders(disk: &MemoryStorage) -> Vec<(u32, FeedKey)> {
    let key = |slot| disk.contents(file(slot, FileKind::Key)).and_then(|key| key.try_into().ok()).map(FeedKey::new);
    (0..30).filter_map(|slot| Some((slot, key(slot)?))).collect()
}

#[test]
fn it_is_reported_and_keeps_its_number_and_its_name_until_it_is_there_again() {
    for (slot, all) in [(0, true), (1, true), (1, false), (3, true), (3, false)] {
        let whole = store();
        let mut disk = whole.clone();
        lose(&mut disk, slot, all);
        let seed = slot as u8 + 1;
        let name = format!("w{seed}");
        let expected = [(Some(slot), Some(key(seed)), Some(name.clone()), 2)];
        let before = folders(&disk);
        for round in 0..2 {
            let mut store = open(&mut disk);
            assert_eq!(missing(&store), expected, "round {round}");
            let told = store.problems()[0].to_string();
            assert!(told.contains(&key(seed).to_string()) && told.contains(&name), "{told}");
            let refused = store.writer(Some(&name), || pair(50)).unwrap_err();
            assert_eq!(refused.code(), "ERR_WRITER_MISSING");
            // Others are made behind it, and go, and no gap is closed.
            let id = store.writer(Some(&format!("new{round}")), || pair(20 + round)).unwrap();
            store.append(id, &[Bytes::from("c")]).unwrap();
            let gone = store.add(key(40 + round)).unwrap();
            store.remove(gone).unwrap();
            store.close().unwrap();
            let now = folders(&disk);
            assert!(before.iter().all(|folder| now.contains(folder)), "{before:?} {now:?}");
            assert!(now.iter().all(|(taken, _)| *taken != slot), "{now:?}");
        }
        lose(&mut disk, slot, true);
        copy(&whole, slot, &mut disk, slot);
        let mut store = open(&mut disk);
        assert_eq!(missing(&store), []);
        let id = store.writer(Some(&name), || pair(50)).unwrap();
        assert_eq!((store.info(id).unwrap().key, store.info(id).unwrap().len), (key(seed), 2));
        assert_eq!(store.append(id, &[Bytes::from("c")]).unwrap(), 2..3);
        store.close().unwrap();
        assert_eq!(missing(&open(&mut disk)), []);
    }
}

#[test]
fn a_new_writer_has_the_name_only_if_it_is_released() {
    let whole = store();
    let mut disk = whole.clone();
    lose(&mut disk, 1, true);
    let mut store = open(&mut disk);
    assert!(!store.release_missing_name("w1") && !store.release_missing_name("other"));
    assert!(store.release_missing_name("w2"));
    let id = store.writer(Some("w2"), || pair(50)).unwrap();
    assert_eq!(store.append(id, &[Bytes::from("x")]).unwrap(), 0..1);
    store.close().unwrap();
    // The old one is known as before, and the name is the new one's.
    let mut store = open(&mut disk);
    assert_eq!(missing(&store), [(Some(1), Some(key(2)), None, 2)]);
    let id = store.writer(Some("w2"), || pair(51)).unwrap();
    assert_eq!(store.info(id).unwrap().key, key(50));
    store.close().unwrap();
    // It comes back: the one that is in use keeps its name, and this is reported.
    copy(&whole, 1, &mut disk, 1);
    let store = open(&mut disk);
    assert_eq!(missing(&store), []);
    let names: Vec<String> = [2, 50].map(|seed| store.info(store.find(&key(seed)).unwrap()).unwrap().name).into();
    assert_eq!(names, [key(2).to_string(), "w2".to_owned()]);
    assert_eq!(store.rearranged(), [Rearranged::NamedByKey { slot: Slot(1) }]);
}

#[test]
fn it_is_known_also_when_js_put_a_feed_in_its_number_and_comes_back_under_any() {
    let whole = store();
    let mut disk = whole.clone();
    lose(&mut disk, 1, true);
    Feed::create(&mut disk, Slot(1), key(60), Some(&pair(60)), Some("js")).unwrap();
    for _ in 0..2 {
        let mut store = open(&mut disk);
        assert_eq!(missing(&store), [(None, Some(key(2)), Some("w2".to_owned()), 2)]);
        assert!(matches!(store.writer(Some("w2"), || pair(50)), Err(StoreError::MissingWriter { .. })));
        let js = store.writer(Some("js"), || pair(51)).unwrap();
        assert_eq!(store.info(js).unwrap().key, key(60));
        store.append(js, &[Bytes::from("x")]).unwrap();
        store.close().unwrap();
    }
    let mut back = disk.clone();
    copy(&whole, 1, &mut back, 7);
    let mut store = open(&mut back);
    assert_eq!(missing(&store), []);
    let id = store.writer(Some("w2"), || pair(50)).unwrap();
    assert_eq!((store.info(id).unwrap().key, store.info(id).unwrap().len), (key(2), 2));
    store.append(id, &[Bytes::from("c")]).unwrap();
    store.close().unwrap();
    assert_eq!(folders(&back).iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(missing(&open(&mut back)), []);

    // An older copy of it is not gone on with: that would be a second history.
    let mut old = MemoryStorage::new();
    let mut first = Feed::create(&mut old, Slot(0), key(2), Some(&pair(2)), Some("w2")).unwrap();
    first.append(&mut old, &[Bytes::from("a")]).unwrap();
    copy(&old, 0, &mut disk, 7);
    for seed in [70, 71] {
        let mut store = open(&mut disk);
        let older = |problem: &StoreError| matches!(problem, StoreError::OlderWriter { blocks: 1, signed: 2, .. });
        assert!(store.problems().len() == 1 && older(&store.problems()[0]), "{:?}", store.problems());
        let id = store.writer(Some("w2"), || pair(50)).unwrap();
        assert_eq!((store.info(id).unwrap().key, store.info(id).unwrap().len), (key(2), 1));
        assert_eq!(store.append(id, &[Bytes::from("other")]).unwrap_err().code(), "ERR_WRITER_OLDER");
        let other = store.writer(Some(&format!("other{seed}")), || pair(seed)).unwrap();
        store.append(other, &[Bytes::from("x")]).unwrap();
        store.close().unwrap();
    }
}

#[test]
fn one_that_is_given_up_is_banned_and_its_number_and_name_are_free() {
    let mut disk = store();
    lose(&mut disk, 1, false);
    let mut store = open(&mut disk);
    assert!(!store.give_up_missing(&key(1)).unwrap() && store.give_up_missing(&key(2)).unwrap());
    assert!(!store.give_up_missing(&key(2)).unwrap());
    assert!(store.problems().is_empty() && store.banned().eq([key(2)]));
    let id = store.writer(Some("w2"), || pair(50)).unwrap();
    assert_eq!(store.info(id).unwrap().len, 0);
    store.close().unwrap();
    assert_eq!(folders(&disk).iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(open(&mut disk).problems().is_empty());
}

#[test]
fn a_writer_that_was_removed_or_never_had_a_block_is_not_missing() {
    let mut disk = store();
    let mut open_store = open(&mut disk);
    let id = open_store.writer(Some("w2"), || pair(50)).unwrap();
    open_store.remove_writer(id).unwrap();
    open_store.writer(Some("empty"), || pair(51)).unwrap();
    open_store.close().unwrap();
    let slot = folders(&disk).into_iter().find(|(_, found)| *found == key(51)).unwrap().0;
    lose(&mut disk, slot, true);
    let mut store = open(&mut disk);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    store.writer(Some("empty"), || pair(52)).unwrap();
    store.writer(Some("w2"), || pair(53)).unwrap();
}

#[test]
fn a_feed_of_one_fetched_meanwhile_does_not_stand_for_the_writer() {
    let whole = store();
    let mut disk = whole.clone();
    lose(&mut disk, 1, true);
    let mut store = open(&mut disk);
    let id = store.add(key(2)).unwrap();
    assert!(!store.info(id).unwrap().writable);
    store.close().unwrap();
    let mut store = open(&mut disk);
    assert_eq!(missing(&store), [(Some(1), Some(key(2)), Some("w2".to_owned()), 2)]);
    assert!(store.writer(Some("w2"), || pair(50)).is_err());
    store.close().unwrap();
    copy(&whole, 1, &mut disk, 1);
    let mut store = open(&mut disk);
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    assert_eq!(store.feeds().count(), 5);
    let id = store.writer(Some("w2"), || pair(50)).unwrap();
    assert_eq!((store.info(id).unwrap().key, store.info(id).unwrap().len), (key(2), 2));
}

#[cfg(unix)]
#[test]
fn a_link_to_a_disk_that_is_out_leaves_other_names_free() {
    use multifeed_core::{FileStorage, FileStorageOptions};
    let folder = tempfile::tempdir().unwrap();
    let (root, card) = (folder.path().join("store"), folder.path().join("card"));
    let open = || {
        let mut options = FileStorageOptions::default();
        options.follow_links = true;
        Multifeed::open(FileStorage::open_with(&root, options).unwrap(), Options::default()).unwrap()
    };
    let mut store = open();
    for seed in 1..=3 {
        let id = store.writer(Some(&format!("w{seed}")), || pair(seed)).unwrap();
        store.append(id, &[Bytes::from("a")]).unwrap();
    }
    store.close().unwrap();
    std::fs::rename(root.join("1"), &card).unwrap();
    std::os::unix::fs::symlink(&card, root.join("1")).unwrap();
    let mut store = open();
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    let id = store.writer(Some("w2"), || pair(50)).unwrap();
    store.append(id, &[Bytes::from("b")]).unwrap();
    store.close().unwrap();
    let out = folder.path().join("out");
    std::fs::rename(&card, &out).unwrap();
    let mut store = open();
    let told = store.problems().iter().any(|problem| {
        matches!(problem, StoreError::MissingWriter { key: Some(missing), blocks: 2, .. } if *missing == key(2))
    });
    assert!(told, "{:?}", store.problems());
    assert!(store.writer(Some("w2"), || pair(50)).is_err());
    let id = store.writer(Some("other"), || pair(51)).unwrap();
    assert_eq!(store.slot_of(id).unwrap(), Slot(3));
    store.close().unwrap();
    std::fs::rename(&out, &card).unwrap();
    let mut store = open();
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    let id = store.writer(Some("w2"), || pair(50)).unwrap();
    assert_eq!((store.info(id).unwrap().key, store.info(id).unwrap().len), (key(2), 2));
}

/// A disk with many writers is put back: a session that begins opens one folder, and each call for the clock another one.
#[test]
fn many_that_come_back_at_once_are_opened_one_after_the_other() {
    use multifeed_core::{FileStorage, Replicate};

    let folder = tempfile::tempdir().unwrap();
    let (root, away) = (folder.path().join("store"), folder.path().join("away"));
    let open = || Multifeed::open(FileStorage::open(&root).unwrap(), Options::default()).unwrap();
    let mut store = open();
    for seed in 1..=80 {
        let id = store.writer(Some(&format!("w{seed}")), || pair(seed)).unwrap();
        store.append(id, &[Bytes::from("a")]).unwrap();
    }
    store.close().unwrap();
    std::fs::create_dir(&away).unwrap();
    for slot in 1..80 {
        std::fs::rename(root.join(slot.to_string()), away.join(slot.to_string())).unwrap();
    }
    let mut store = open();
    assert_eq!((store.feeds().count(), missing(&store).len()), (1, 79));
    for slot in 1..80 {
        std::fs::rename(away.join(slot.to_string()), root.join(slot.to_string())).unwrap();
    }
    let mut here = vec![store.feeds().count()];
    // Of more than 64 the rest is left to the next session.
    for expected in [65, 80] {
        store.connect(Replicate::default());
        here.push(store.feeds().count());
        while store.poll_timeout() == Some(std::time::Duration::ZERO) {
            store.handle_timeout(std::time::Duration::ZERO);
            here.push(store.feeds().count());
        }
        assert_eq!(here.last(), Some(&expected), "{here:?}");
    }
    assert!(here.windows(2).all(|both| both[1] - both[0] <= 1), "{here:?}");
    assert_eq!(missing(&store), []);
}

/// A folder that is put back while the store is open: its writer is there for who asks for it, and for sessions, those that go on too. One that is
/// being copied is not touched before it is whole.
#[test]
fn it_comes_back_while_the_store_is_open() {
    use crate::link::{Link, run};
    use multifeed_core::{FileStorage, Replicate};
    use std::time::Duration;

    let folder = tempfile::tempdir().unwrap();
    let (root, away) = (folder.path().join("store"), folder.path().join("away"));
    let open = |path: &std::path::Path| {
        let storage: Box<dyn Storage> = Box::new(FileStorage::open(path).unwrap());
        Multifeed::open(storage, Options::default()).unwrap()
    };
    for by_session in [false, true] {
        let mut store = open(&root);
        for seed in 1..=3 {
            let id = store.writer(Some(&format!("w{seed}")), || pair(seed)).unwrap();
            store.append(id, &[Bytes::from("a")]).unwrap();
        }
        store.close().unwrap();
        let older = ["bitfield", "data", "key", "localname", "secret_key", "signatures", "tree"]
            .map(|file| (file, std::fs::read(root.join("1").join(file)).unwrap()));
        let mut store = open(&root);
        for id in store.feeds().collect::<Vec<_>>() {
            store.append(id, &[Bytes::from("b")]).unwrap();
        }
        store.close().unwrap();
        std::fs::rename(root.join("1"), &away).unwrap();
        let reader: Box<dyn Storage> = Box::new(MemoryStorage::new());
        let mut stores = vec![open(&root), Multifeed::open(reader, Options::default()).unwrap()];
        assert_eq!(missing(&stores[0]), [(Some(1), Some(key(2)), Some("w2".to_owned()), 2)]);
        assert!(stores[0].writer(Some("w2"), || pair(50)).is_err());
        let mut links = vec![Link::plain(&mut stores, [0, 1], Replicate::live())];
        run(&mut stores, &mut links, Duration::ZERO);
        assert_eq!(stores[1].feeds().count(), 2);

        // An older copy of it is looked at, and does not stand in its way later.
        std::fs::create_dir(root.join("1")).unwrap();
        for (file, bytes) in &older {
            std::fs::write(root.join("1").join(file), bytes).unwrap();
        }
        assert!(stores[0].writer(Some("w2"), || pair(50)).is_err());
        std::fs::remove_dir_all(root.join("1")).unwrap();
        // A part of it is left alone, whatever there is, and stays as it is.
        std::fs::create_dir(root.join("1")).unwrap();
        for part in ["key", "secret_key", "localname", "bitfield", "signatures", "tree"] {
            std::fs::copy(away.join(part), root.join("1").join(part)).unwrap();
            assert!(stores[0].writer(Some("w2"), || pair(50)).is_err(), "{part}");
            assert_eq!(std::fs::read(away.join(part)).unwrap(), std::fs::read(root.join("1").join(part)).unwrap());
        }
        assert_eq!(missing(&stores[0]).len(), 1);
        std::fs::copy(away.join("data"), root.join("1/data")).unwrap();

        if by_session {
            links.push(Link::plain(&mut stores, [0, 1], Replicate::live()));
        } else {
            let id = stores[0].writer(Some("w2"), || pair(50)).unwrap();
            assert_eq!((stores[0].info(id).unwrap().key, stores[0].info(id).unwrap().len), (key(2), 2));
            assert_eq!(stores[0].append(id, &[Bytes::from("c")]).unwrap(), 2..3);
        }
        run(&mut stores, &mut links, Duration::ZERO);
        assert_eq!(missing(&stores[0]), []);
        let id = stores[1].find(&key(2)).expect("it was not told to those who are there");
        assert_eq!(stores[1].info(id).unwrap().downloaded, if by_session { 2 } else { 3 });
        stores.swap_remove(0).close().unwrap();
        let store = open(&root);
        assert_eq!((missing(&store), store.recovered().len()), (vec![], 0));
        store.close().unwrap();
        std::fs::remove_dir_all(&root).unwrap();
        std::fs::remove_dir_all(&away).unwrap();
    }
}

#[test]
fn a_writer_whose_name_is_lost_has_the_one_that_the_journal_knows() {
    let name = file(1, FileKind::LocalName);
    for damage in [None, Some(&b""[..]), Some(b"\0\0")] {
        let mut disk = store();
        match damage {
            None => disk.lose(name),
            Some(bytes) => disk.replace(name, bytes).unwrap(),
        }
        let mut store = open(&mut disk);
        let told = |problem: &StoreError| {
            matches!(problem, StoreError::Damaged { slot: Slot(1), file: FileKind::LocalName, .. })
        };
        assert!(store.problems().len() == 1 && store.problems().iter().all(told), "{:?}", store.problems());
        let id = store.writer(Some("w2"), || pair(8)).unwrap();
        assert_eq!(store.info(id).unwrap().key, key(2));
        store.close().unwrap();
        // It is there again, also for JS.
        disk.reopen();
        assert_eq!(disk.contents(name).as_deref(), Some(&b"w2"[..]));
        assert!(open(&mut disk).problems().is_empty());
    }
}
