//! Folders that releases 1 to 5 of npm multifeed made (recorded by `interop/vectors/old.js`): ours opens each, and goes on with it.

use bytes::Bytes;
use multifeed_core::{FileId, FileKind, KeyPair, MemoryStorage, Multifeed, Options, Slot, Storage, VerifyCursor};
use multifeed_proto::FeedKey;
use serde_json::Value;

/// The folder as it was recorded; files beside those of feeds are left out.
fn folder(release: &Value) -> MemoryStorage {
    let mut disk = MemoryStorage::new();
    for (path, file) in release["files"].as_object().unwrap() {
        let (slot, name) = path.split_once('/').unwrap();
        // Releases 1 to 3 have a folder `fake` or `_fake` too, for a feed of nobody's.
        let Ok(slot) = slot.parse() else { continue };
        let kind = FileKind::ALL.into_iter().find(|kind| kind.name() == name).unwrap();
        let id = FileId::new(Slot(slot), kind);
        disk.write_at(id, 0, &hex::decode(file["hex"].as_str().unwrap()).unwrap()).unwrap();
        disk.truncate(id, file["length"].as_u64().unwrap()).unwrap();
    }
    disk
}

fn blocks(feed: &Value) -> Vec<Bytes> {
    feed["blocks"].as_array().unwrap().iter().map(|text| Bytes::from(text.as_str().unwrap().to_owned())).collect()
}

/// The feed's key, blocks, name and whether it is written there.
fn check(store: &mut Multifeed<&mut MemoryStorage>, release: &Value, more: &[Bytes]) {
    assert!(store.problems().is_empty(), "{}: {:?}", release["release"], store.problems());
    let feeds = release["feeds"].as_array().unwrap();
    assert_eq!(store.feeds().count(), feeds.len());
    for feed in feeds {
        let key: FeedKey = feed["key"].as_str().unwrap().parse().unwrap();
        let id = store.find(&key).unwrap_or_else(|| panic!("{}: no feed {key}", release["release"]));
        let info = store.info(id).unwrap();
        let writable = feed["writable"].as_bool().unwrap();
        assert_eq!(info.writable, writable);
        match feed["name"].as_str().filter(|_| writable) {
            Some(name) => assert_eq!(info.name, name),
            // By the folder's number.
            None => assert_eq!(info.name, store.slot_of(id).unwrap().to_string()),
        }
        let mut expected = blocks(feed);
        expected.extend(more.iter().filter(|_| writable).cloned());
        let held: Vec<Bytes> = (0..info.len).map(|index| store.get(id, index).unwrap().unwrap()).collect();
        assert_eq!(held, expected, "{}: {key}", release["release"]);
        let mut cursor = VerifyCursor::default();
        loop {
            let step = store.verify_step(id, &mut cursor, 1 << 20).unwrap();
            assert!(step.findings.is_empty(), "{}: {:?}", release["release"], step.findings);
            if step.done {
                break;
            }
        }
    }
}

#[test]
fn ours_opens_the_folders_of_old_releases_and_appends_to_their_writers() {
    let releases: Value = serde_json::from_str(include_str!("vectors/old_releases.json")).unwrap();
    let releases = releases.as_array().unwrap();
    assert!(releases.iter().map(|release| &release["release"]).eq(["1.3.12", "2.1.0", "3.0.8", "4.3.0", "5.2.4"]));
    for release in releases {
        let mut disk = folder(release);
        let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
        assert!(store.recovered().is_empty(), "{}: {:?}", release["release"], store.recovered());
        check(&mut store, release, &[]);
        let more = [Bytes::from("by ours"), Bytes::new()];
        for feed in release["feeds"].as_array().unwrap().iter().filter(|feed| feed["writable"] == true) {
            let key: FeedKey = feed["key"].as_str().unwrap().parse().unwrap();
            let id = match feed["name"].as_str() {
                Some(name) => store.writer(Some(name), || KeyPair::from_seed(&[1; 32])).unwrap(),
                None => store.find(&key).unwrap(),
            };
            assert_eq!(store.info(id).unwrap().key, key);
            let length = blocks(feed).len() as u64;
            assert_eq!(store.append(id, &more).unwrap(), length..length + 2);
        }
        store.close().unwrap();
        disk.reopen();
        let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
        assert!(store.recovered().is_empty());
        check(&mut store, release, &more);
    }
}
