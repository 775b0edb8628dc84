//! Multifeeds in one corestore folder, opened in turn by the real `@frando/corestore-multifeed` and by ours.

use std::path::Path;

use bytes::Bytes;
use multifeed_core::{
    CoreFiles, Corestore, CorestoreOptions, FileCoreStorage, KeyPair, MasterKey, Multifeed, Namespace, Options, SetId,
};
use multifeed_proto::FeedKey;
use multifeed_testkit::blocks::{FeedDigest, block};
use multifeed_testkit::js::JsCorestore;
use serde_json::{Value, json};

const SIZE: usize = 60;
const ROOTS: [FeedKey; 2] = [FeedKey::new([0x11; 32]), FeedKey::new([0x22; 32])];

type Store = Multifeed<CoreFiles<FileCoreStorage>>;

fn open(path: &Path) -> (Store, [SetId; 2]) {
    let storage = FileCoreStorage::open(path).unwrap();
    let store =
        Corestore::open(storage, CorestoreOptions::default(), || MasterKey::generate(&mut rand::rng())).unwrap();
    let mut store = store.into_multifeeds(Options::default()).unwrap();
    let sets = ROOTS.map(|root| store.open_root(&Namespace::root(), &root).unwrap());
    (store, sets)
}

fn js_batch(seed: u32, from: u64, count: u32) -> Value {
    json!([{"seed": seed, "from": from, "count": count, "size": SIZE}])
}

fn append(store: &mut Store, set: SetId, name: &str, seed: u32, from: u64, count: u32) {
    let id = store.writer_in(set, Some(name)).unwrap();
    assert_eq!(store.info(id).unwrap().len, from);
    let blocks: Vec<Bytes> = (0..count).map(|index| block(seed, from as u32 + index, SIZE).into()).collect();
    store.append(id, &blocks).unwrap();
}

/// The feeds of a set in the order of the list: name, key, length and digest.
fn ours(store: &mut Store, set: SetId) -> Vec<(String, String, u64, String)> {
    let ids: Vec<_> = store.feeds_in(set).collect();
    let mut feeds = Vec::new();
    for id in ids {
        let info = store.info(id).unwrap();
        let mut digest = FeedDigest::new();
        for index in 0..info.len {
            if let Some(value) = store.get(id, index).unwrap() {
                digest.update(index, &value);
            }
        }
        let name = store.name_in(set, id).unwrap().to_owned();
        feeds.push((name, info.key.to_string(), info.len, digest.finish()));
    }
    feeds.sort();
    feeds
}

fn back_and_forth(ours_first: bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // The length of the writers of either side.
    let (mut js_len, mut our_len) = (0, 0);
    let mut feeds: [Vec<(String, String, u64, String)>; 2] = Default::default();
    for turn in 0..20u32 {
        if turn > 0 || !ours_first {
            // JS finds what ours had, appends to its own writer, and makes another one; so in either multifeed.
            let keys = feeds.iter().flatten().map(|feed| json!({"key": feed.1}));
            let spec = json!({
                "steps": keys.collect::<Vec<_>>(),
                "multifeeds": ROOTS.iter().zip(0u32..).map(|(root, place)| json!({
                    "key": root.to_string(),
                    "twice": turn == 3,
                    "writers": [
                        {"name": "js", "append": js_batch(place, js_len, 2)},
                        {"name": format!("js {turn}")},
                    ],
                    "remotes": if turn == 5 { json!([
                        {"seed": format!("0{}", 5 + place).repeat(32), "fetch": {"append": js_batch(9, 0, 4)}},
                    ]) } else { json!([]) },
                })).collect::<Vec<_>>(),
            });
            let js = JsCorestore::open(path, &spec).unwrap();
            for ((.., len, hash), core) in feeds.iter().flatten().zip(&js.cores) {
                let core = core.as_ref().unwrap();
                assert_eq!((core.length, core.hash.as_ref().unwrap(), core.downloaded), (*len, hash, *len));
            }
            let listed = js.multifeeds.clone();
            js.close().unwrap();
            js_len += 2;
            let (mut store, sets) = open(path);
            assert!(store.problems().is_empty() && store.recovered().is_empty(), "{:?}", store.problems());
            for (set, listed) in sets.into_iter().zip(&listed) {
                let mut listed: Vec<_> =
                    listed.iter().map(|(name, key)| (name.clone().unwrap(), key.clone())).collect();
                listed.sort();
                let found: Vec<_> = ours(&mut store, set).into_iter().map(|(name, key, ..)| (name, key)).collect();
                assert_eq!(found, listed, "in turn {turn}");
            }
            store.close().unwrap();
        }
        let (mut store, sets) = open(path);
        for (set, place) in sets.into_iter().zip(0u32..) {
            append(&mut store, set, "ours", 10 + place, our_len, 3);
            store.writer_in(set, Some(&format!("ours {turn}"))).unwrap();
            feeds[place as usize] = ours(&mut store, set);
        }
        our_len += 3;
        if turn == 7 {
            // One of somebody else's, without a name.
            let key = KeyPair::from_seed(&[77; 32]).public_key();
            let id = store.add(key).unwrap();
            assert!(store.include(sets[0], id).unwrap());
            store.commit(std::time::Duration::ZERO);
            feeds[0] = ours(&mut store, sets[0]);
        }
        store.close().unwrap();
    }
    assert!(feeds[0].len() >= 42 && feeds[1].len() >= 42);
}

#[test]
fn multifeeds_that_js_made_are_opened_in_turn_20_times() {
    back_and_forth(false);
}

#[test]
fn multifeeds_that_we_made_are_opened_in_turn_20_times() {
    back_and_forth(true);
}

#[test]
fn what_we_take_out_js_has_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (mut store, sets) = open(path);
    for name in ["alice", "bob"] {
        append(&mut store, sets[0], name, 1, 0, 2);
    }
    let bob = store.find_name_in(sets[0], "bob").unwrap();
    assert!(store.take_out_of(sets[0], bob).unwrap());
    store.close().unwrap();
    let js = JsCorestore::open(path, &json!({"multifeeds": [{"key": ROOTS[0].to_string()}]})).unwrap();
    let names: Vec<_> = js.multifeeds[0].iter().map(|(name, _)| name.clone().unwrap()).collect();
    assert_eq!(names, ["alice", "bob"]);
    js.close().unwrap();
    let (mut store, sets) = open(path);
    assert_eq!(ours(&mut store, sets[0]).len(), 1);
    // Its own writer comes back as it is asked for, and is not listed twice.
    append(&mut store, sets[0], "bob", 1, 2, 1);
    store.close().unwrap();
    let (mut store, sets) = open(path);
    assert_eq!(ours(&mut store, sets[0]).len(), 2);
    store.close().unwrap();
}
