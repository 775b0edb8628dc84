//! Folders that lost their key, or are gone: the feeds stand before them, without a gap, and what is left stays.

use bytes::Bytes;
use multifeed_core::{FileId, FileKind, KeyPair, MemoryStorage, Multifeed, Options, Slot, Storage};
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

/// A closed store with a writer in folder 0, and remotes' feeds of the given seeds behind it.
fn with_remotes(seeds: &[u8]) -> MemoryStorage {
    let mut disk = MemoryStorage::new();
    let mut store = open(&mut disk);
    let id = store.writer(Some("w"), || pair(1)).unwrap();
    store.append(id, &[Bytes::from("block")]).unwrap();
    for seed in seeds {
        store.add(key(*seed)).unwrap();
    }
    store.close().unwrap();
    disk.reopen();
    disk
}

/// The keys of the folders from 0 on that have one, as JS opens them; there is no other key.
fn keys(disk: &MemoryStorage) -> Vec<FeedKey> {
    let key = |slot| disk.contents(file(slot, FileKind::Key)).filter(|key| key.len() >= 4);
    let keys: Vec<_> = (0..).map_while(key).map(|key| FeedKey::new(key.try_into().unwrap())).collect();
    let end = u32::try_from(keys.len()).unwrap();
    assert!((end..end + 20).all(|slot| key(slot).is_none()));
    keys
}

#[test]
fn a_folder_without_a_key_is_kept_behind_the_feeds() {
    let mut disk = with_remotes(&[2, 3, 4]);
    // The power went after the store was closed, and took the keys of two feeds. Something of them is there.
    for slot in [1, 2] {
        disk.truncate(file(slot, FileKind::Key), 0).unwrap();
        disk.write_at(file(slot, FileKind::Data), 0, &[slot as u8; 7]).unwrap();
    }
    let mut store = open(&mut disk);
    let told: Vec<_> = store.problems().iter().map(|problem| problem.slot().unwrap()).collect();
    assert_eq!((store.feeds().count(), told.len()), (2, 2));
    assert_eq!(keys(store.storage()), [key(1), key(4)]);
    let kept = |store: &Multifeed<&mut MemoryStorage>| {
        let problems = store.problems().iter().map(|problem| problem.slot().unwrap().0);
        let data: Vec<_> = problems.map(|slot| store.storage().contents(file(slot, FileKind::Data))).collect();
        assert_eq!(data, [Some(vec![1; 7]), Some(vec![2; 7])]);
    };
    kept(&store);
    // Feeds that are made now stand before them, whatever number they had; and a crash does not make them what it left.
    for seed in 5..9 {
        store.add(key(seed)).unwrap();
        kept(&store);
    }
    assert_eq!(keys(store.storage()).len(), 6);
    drop(store);
    disk.reopen();
    let mut store = open(&mut disk);
    assert_eq!(store.problems().len(), 2, "{:?}", store.problems());
    let mut still: Vec<_> = store.problems().iter().map(|problem| problem.slot().unwrap().0).collect();
    still.sort_unstable();
    assert!(still.iter().all(|slot| store.storage().contents(file(*slot, FileKind::Data)).is_some()));
    let gone = store.find(&key(4)).unwrap();
    store.remove(gone).unwrap();
    store.add(key(9)).unwrap();
    assert_eq!(keys(store.storage()).len(), 6);
    store.close().unwrap();
    assert_eq!(keys(&disk).len(), 6);
    assert_eq!(open(&mut disk).problems().len(), 2);
}

#[test]
fn a_folder_that_is_gone_leaves_no_gap_also_where_the_store_was_closed() {
    // Of a writer the journal knows: tests/missing.rs.
    for gone in [&[1][..], &[2], &[3], &[1, 2], &[1, 3], &[1, 2, 3]] {
        let mut disk = with_remotes(&[2, 3, 4]);
        let mut expected = keys(&disk);
        for slot in gone.iter().rev() {
            disk.remove(Slot(*slot)).unwrap();
            expected.remove(*slot as usize);
        }
        let mut store = open(&mut disk);
        assert!(store.problems().is_empty(), "{:?}", store.problems());
        let mut found = keys(store.storage());
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert!(store.feeds().all(|id| store.find(&store.info(id).unwrap().key) == Some(id)));
        store.add(key(9)).unwrap();
        store.close().unwrap();
        assert_eq!(keys(&disk).len(), expected.len() + 1);
        assert!(open(&mut disk).problems().is_empty());
    }
}

#[test]
fn a_folder_of_a_great_number_is_no_place_to_go_on_from() {
    let mut disk = with_remotes(&[2]);
    disk.write_at(file(4_000_000_000, FileKind::Data), 0, b"somebody's").unwrap();
    let mut store = open(&mut disk);
    assert_eq!(store.problems().len(), 1);
    store.add(key(3)).unwrap();
    assert_eq!(keys(store.storage()), [key(1), key(2), key(3)]);
    assert!(store.storage().contents(file(4_000_000_000, FileKind::Data)).is_some());
}
