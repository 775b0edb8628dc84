//! One corestore folder, opened in turn by the real corestore 5.8.2 and by ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use multifeed_core::FeedList;
use multifeed_core::{
    Answer, Core, CoreInfo, CoreStorage, Corestore, CorestoreError, CorestoreOptions, Feed, FileCoreStorage, KeyPair,
    MasterKey, MemoryStorage, Namespace, PreparedData, Slot, VerifyCursor, prepare,
};
use multifeed_proto::{FeedKey, Request};
use multifeed_testkit::blocks::{FeedDigest, block, digest};
use multifeed_testkit::js::{JsCore, JsCorestore, corestore};
use serde_json::{Value, json};

const SIZE: usize = 60;

fn open(path: &Path, master_key: Option<MasterKey>) -> Corestore<FileCoreStorage> {
    let mut options = CorestoreOptions::default();
    options.master_key = master_key;
    Corestore::open(FileCoreStorage::open(path).unwrap(), options, || MasterKey::generate(&mut rand::rng())).unwrap()
}

/// What JS prints of a core, of one of ours.
fn as_js<S: CoreStorage>(core: &mut Core<'_, S>) -> JsCore {
    let CoreInfo { key, discovery_key, writable, len, byte_len, downloaded, .. } = core.info();
    let mut digest = FeedDigest::new();
    for index in 0..len {
        if let Some(value) = core.block(index).unwrap() {
            digest.update(index, &value);
        }
    }
    JsCore {
        key: key.to_string(),
        discovery_key: discovery_key.to_string(),
        length: len,
        bytes: byte_len,
        downloaded,
        writable,
        hash: Some(digest.finish()),
    }
}

fn is_whole<S: CoreStorage>(core: &mut Core<'_, S>) {
    assert!(core.feed().recovered().is_none(), "{:?}", core.feed().recovered());
    let mut cursor = VerifyCursor::default();
    loop {
        let step = core.verify_step(&mut cursor, 1 << 20).unwrap();
        assert!(step.findings.is_empty(), "{:?}", step.findings);
        if step.done {
            return;
        }
    }
}

fn batch(seed: u32, from: u64, count: u32) -> Vec<Bytes> {
    (0..count).map(|index| block(seed, from as u32 + index, SIZE).into()).collect()
}

/// What `batch` gives, for JS.
fn js_batch(seed: u32, from: u64, count: u32) -> Value {
    json!([{"seed": seed, "from": from, "count": count, "size": SIZE}])
}

/// Files and folders, with the digests of what is in them, but for our lock.
fn contents(path: &Path) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let found = entry.unwrap().path();
            let name = found.strip_prefix(path).unwrap().to_str().unwrap().to_owned();
            if found.is_dir() {
                folders.push(found);
            } else if name != "multifeed.lock" {
                all.insert((name, digest([fs::read(&found).unwrap()])));
            }
        }
    }
    all
}

/// Cores of each kind, by what JS calls them; the seed of its blocks is its place.
const KINDS: u32 = 7;

fn js_step(kind: u32) -> Value {
    match kind {
        0 => json!({"default": true}),
        1 => json!({"name": "chat"}),
        2 => json!({"namespace": ["a"], "default": true}),
        3 => json!({"namespace": ["a", "b"], "default": true}),
        4 => json!({"namespace": ["elsewhere"], "name": "grüße"}),
        5 => json!({"seed": "05".repeat(32)}),
        _ => json!({"name": "n".repeat(200)}),
    }
}

fn ours<S: CoreStorage>(store: &mut Corestore<S>, kind: u32) -> Core<'_, S> {
    let root = Namespace::root();
    match kind {
        0 => store.default_core(&root),
        1 => store.named("chat"),
        2 => store.default_core(&root.namespace("a")),
        3 => store.default_core(&root.namespace("a").namespace("b")),
        4 => store.named("grüße"),
        5 => store.with_key_pair(&KeyPair::from_seed(&[5; 32])),
        _ => store.named("n".repeat(200)),
    }
    .unwrap()
}

/// 20 times JS, then ours: all find all, each appends to every core and makes one that the other then finds. `ours_first` says who makes them.
fn back_and_forth(ours_first: bool, master_key: Option<[u8; 32]>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut spec = json!({});
    if let Some(key) = &master_key {
        spec["masterKey"] = json!(hex::encode(key));
    }
    let given = || master_key.map(MasterKey::new);
    let mut length = 0;
    let mut known: Vec<JsCore> = Vec::new();
    for turn in 0..40u32 {
        let count = 1 + turn % 3;
        // One by name and one by key, which the other made.
        let (made, others) = (format!("turn {turn}"), known.last().map(|core| core.key.clone()));
        if (turn % 2 == 0) == ours_first {
            let mut store = open(path, given());
            for kind in 0..KINDS {
                let mut core = ours(&mut store, kind);
                assert!(core.info().len == length && core.info().writable);
                is_whole(&mut core);
                core.append(&batch(kind, length, count)).unwrap();
            }
            ours(&mut store, 1).append(&[]).unwrap();
            let mut core = store.named(&made).unwrap();
            assert_eq!(core.info().len, 0);
            core.append(&batch(turn, 0, count)).unwrap();
            let made = as_js(&mut core);
            if let Some(key) = others {
                let mut core = store.get(&key.parse().unwrap()).unwrap();
                assert_eq!(known.last(), Some(&as_js(&mut core)), "{turn}");
                core.append(&batch(turn + 1, 0, 1)).unwrap();
                let _ = known.pop();
                known.push(as_js(&mut core));
            }
            known.push(made);
            for core in &known {
                assert_eq!(*core, as_js(&mut store.get(&core.key.parse().unwrap()).unwrap()), "{turn}");
            }
            let listed = store.list().unwrap();
            assert!(listed.problems.is_empty(), "{:?}", listed.problems);
            assert_eq!(listed.cores.len(), KINDS as usize + known.len());
            store.close().unwrap();
        } else {
            let mut steps: Vec<Value> = (0..KINDS).map(js_step).collect();
            for (kind, step) in (0..).zip(&mut steps) {
                step["append"] = js_batch(kind, length, count);
            }
            steps.push(json!({"name": made, "append": js_batch(turn, 0, count)}));
            let before = known.len();
            steps.extend(known.iter().map(|core| json!({"key": core.key})));
            if let Some(key) = others {
                steps.push(json!({"key": key, "append": js_batch(turn + 1, 0, 1)}));
            }
            spec["steps"] = json!(steps);
            let mut cores = corestore(path, &spec).unwrap();
            for core in &cores[..KINDS as usize] {
                assert!(core.writable && core.length == length + u64::from(count) && core.downloaded == core.length);
            }
            let rest = cores.split_off(KINDS as usize);
            assert_eq!(rest[1..=before], known, "{turn}");
            if before > 0 {
                let _ = known.pop();
                known.push(rest[before + 1].clone());
            }
            known.push(rest[0].clone());
        }
        length += u64::from(count);
        assert_eq!(path.join("master_key").exists(), master_key.is_none());
    }
    // Each core has what both wrote, in the order of their turns.
    let mut store = open(path, given());
    for kind in 0..KINDS {
        let mut core = ours(&mut store, kind);
        assert_eq!(core.info().len, length);
        for index in 0..length {
            assert_eq!(core.block(index).unwrap().unwrap(), block(kind, index as u32, SIZE));
        }
    }
    assert_eq!(known.len(), 40);
    store.close().unwrap();
}

#[test]
fn a_folder_that_js_made_is_opened_in_turn_20_times() {
    back_and_forth(false, None);
}

#[test]
fn a_folder_that_we_made_is_opened_in_turn_20_times() {
    back_and_forth(true, None);
}

#[test]
fn a_folder_with_a_master_key_that_was_given_is_opened_in_turn_20_times() {
    back_and_forth(false, Some([7; 32]));
}

/// A feed of somebody else's, and the messages that bring its blocks.
fn remote(n: u8, blocks: &[Bytes]) -> (FeedKey, Vec<PreparedData>) {
    let (pair, mut storage) = (KeyPair::from_seed(&[n; 32]), MemoryStorage::new());
    let mut feed = Feed::create(&mut storage, Slot(0), pair.public_key(), Some(&pair), None).unwrap();
    feed.append(&mut storage, blocks).unwrap();
    let answer = |index| match feed.answer(&mut storage, &Request { index, bytes: 0, hash: false, nodes: 0 }).unwrap() {
        Answer::Data(data) => prepare(data),
        other => panic!("{other:?}"),
    };
    (pair.public_key(), (0..blocks.len() as u64).map(answer).collect())
}

#[test]
fn cores_of_others_are_read_and_filled_up_by_either_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let blocks = batch(3, 0, 40);
    let fetch = |seed: &str, have: Value| json!({"seed": seed.repeat(32), "fetch": {"append": js_batch(3, 0, 40), "have": have}});
    // JS has a part of one, ours of another.
    let js = corestore(path, &json!({"steps": [fetch("11", json!([[0, 5], [20, 23]]))]})).unwrap();
    assert_eq!((js[0].length, js[0].downloaded, js[0].writable), (40, 8, false));
    let mut store = open(path, None);
    let (first, data) = remote(0x11, &blocks);
    assert_eq!(first.to_string(), js[0].key);
    let mut core = store.get(&first).unwrap();
    assert_eq!(as_js(&mut core), js[0]);
    is_whole(&mut core);
    for index in [5, 6, 39, 30] {
        core.put(data[index].clone()).unwrap();
    }
    let ours = as_js(&mut core);
    assert_eq!(ours.downloaded, 12);
    let (second, data) = remote(0x22, &blocks);
    let mut core = store.get(&second).unwrap();
    for index in [39, 0, 17] {
        core.put(data[index].clone()).unwrap();
    }
    let partial = as_js(&mut core);
    store.close().unwrap();

    let steps = json!([
        {"key": ours.key}, {"key": partial.key},
        fetch("11", json!([[0, 40]])), fetch("22", json!([[0, 40]])),
    ]);
    let js = corestore(path, &json!({"steps": steps})).unwrap();
    assert_eq!((&js[0], &js[1]), (&ours, &partial));
    let mut store = open(path, None);
    for (key, js) in [(first, &js[2]), (second, &js[3])] {
        let mut core = store.get(&key).unwrap();
        assert_eq!((as_js(&mut core), js.downloaded), (js.clone(), 40));
        is_whole(&mut core);
    }
    store.close().unwrap();
}

#[test]
fn what_js_leaves_of_cores_without_blocks_is_no_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let pair = KeyPair::from_seed(&[9; 32]);
    let key = pair.public_key();
    let steps = json!([
        {"key": key.to_string()},
        {"discoveryKey": "09".repeat(32)},
        {"random": true},
        {"name": "chat"},
    ]);
    let js = JsCorestore::open(path, &json!({"steps": steps})).unwrap().close().unwrap();
    assert!(js[1].is_err(), "{js:?}");
    let before = contents(path);
    let mut store = open(path, None);
    let listed = store.list().unwrap();
    // The random one has a name of 32 bytes, with which we derive its key too; the unknown discovery key is no core.
    assert!(listed.problems.is_empty());
    assert_eq!((listed.cores.len(), listed.cores.iter().filter(|core| core.writable).count()), (3, 2));
    for listed in &listed.cores {
        let mut core = store.get(&listed.key).unwrap();
        assert_eq!((core.info().len, core.info().writable, core.info().on_disk), (0, listed.writable, true));
        assert!(listed.name.as_ref().is_none_or(|name| matches!(name.len(), 4 | 32)));
        is_whole(&mut core);
    }
    assert!(store.find(&[9; 32].into()).unwrap().is_none());
    store.close().unwrap();
    assert_eq!(contents(path), before);
    // The blocks of the one by key come to where JS left it; the one with an unknown key gets a key.
    let (key, data) = remote(9, &batch(1, 0, 3));
    let mut store = open(path, None);
    store.get(&key).unwrap().put(data[1].clone()).unwrap();
    let ours = as_js(&mut store.get(&key).unwrap());
    store.close().unwrap();
    assert_eq!(corestore(path, &json!({"steps": [{"key": key.to_string()}]})).unwrap(), [ours]);
}

#[test]
fn js_keeps_us_out_of_a_core_that_it_has_open_and_we_keep_js_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let steps = json!([{"name": "theirs", "append": js_batch(1, 0, 2)}]);
    let js = JsCorestore::open(path, &json!({"steps": steps})).unwrap();
    let mut store = open(path, None);
    let error = store.named("theirs").map(drop).unwrap_err();
    assert_eq!(error.code(), "ERR_STORE_LOCKED", "{error}");
    // A core that JS has not open is nobody's.
    store.named("ours").unwrap().append(&batch(2, 0, 1)).unwrap();
    js.close().unwrap();
    assert_eq!(store.named("theirs").unwrap().info().len, 2);
    let js = JsCorestore::open(path, &json!({"steps": [{"name": "ours"}]})).unwrap();
    assert!(js.cores[0].is_err(), "{:?}", js.cores);
    drop(js);
    store.close().unwrap();
    let js = corestore(path, &json!({"steps": [{"name": "ours"}]})).unwrap();
    assert_eq!((js[0].length, js[0].writable), (1, true));
}

#[test]
fn what_js_does_to_a_short_master_key_we_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let made = corestore(path, &json!({"steps": [{"name": "chat", "append": js_batch(1, 0, 2)}]})).unwrap();
    let file = path.join("master_key");
    let master_key = fs::read(&file).unwrap();
    fs::write(&file, &master_key[..20]).unwrap();
    let before = contents(path);
    let opened = Corestore::open(FileCoreStorage::open(path).unwrap(), CorestoreOptions::default(), || {
        panic!("a second master key")
    });
    assert!(matches!(opened, Err(CorestoreError::MasterKeyDamaged { .. })));
    assert_eq!(contents(path), before);
    // JS writes a new one, with which `chat` is another core, and the old one cannot be opened.
    let js =
        JsCorestore::open(path, &json!({"steps": [{"name": "chat"}, {"key": made[0].key}]})).unwrap().close().unwrap();
    assert_ne!(js[0].as_ref().unwrap().key, made[0].key);
    assert!(js[1].is_err(), "{js:?}");
    let mut store = open(path, None);
    let error = store.get(&made[0].key.parse().unwrap()).map(drop).unwrap_err();
    assert_eq!(error.code(), "ERR_NAME_MISMATCH");
    assert_eq!(store.named("chat").unwrap().info().key.to_string(), js[0].as_ref().unwrap().key);
    let listed = store.list().unwrap();
    assert_eq!((listed.cores.len(), listed.problems.len()), (1, 1));
    store.close().unwrap();
    // With the master key that was there before the old core is there too.
    let mut store = open(path, Some(MasterKey::new(master_key.try_into().unwrap())));
    assert_eq!(as_js(&mut store.named("chat").unwrap()), made[0]);
}

fn names(list: &FeedList) -> Vec<(Option<String>, String)> {
    list.feeds().iter().map(|feed| (Some(feed.name.clone()), feed.key.to_string())).collect()
}

#[test]
fn the_feeds_of_a_multifeed_in_a_corestore_are_found_by_either_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (first, second) = (FeedKey::new([0x11; 32]), FeedKey::new([0x22; 32]));
    let writers = json!([{"name": "alice", "append": js_batch(1, 0, 3)}, {"name": "grüße \"2\""}, {}]);
    let spec = json!({"multifeeds": [
        {"key": first.to_string(), "writers": writers, "twice": true},
        {"key": second.to_string(), "writers": [{"name": "alice"}]},
    ]});
    let js = JsCorestore::open(path, &spec).unwrap();
    let feeds = js.multifeeds.clone();
    js.close().unwrap();
    assert_eq!((feeds[0].len(), feeds[1].len()), (3, 1), "{feeds:?}");

    let mut store = open(path, None);
    let mut core = store.default_core(&FeedList::list_namespace(&first)).unwrap();
    // JS listed each twice.
    assert_eq!(core.info().len, 6);
    let mut list = FeedList::default();
    list.read(&mut core).unwrap();
    assert_eq!((names(&list), list.problems().len()), (feeds[0].clone(), 0));
    // Each writer's feed is the default core of the writer's namespace.
    for (name, js) in [(Some("alice"), &feeds[0][0]), (Some("grüße \"2\""), &feeds[0][1]), (None, &feeds[0][2])] {
        let core = store.default_core(&FeedList::writer_namespace(&first, name)).unwrap();
        assert_eq!(core.info().key.to_string(), js.1);
    }
    assert_eq!(store.get(&list.find_name("alice").unwrap().key).unwrap().info().len, 3);

    // A writer of ours, and a feed of somebody else's under its number.
    let mut bob = store.default_core(&FeedList::writer_namespace(&first, Some("bob"))).unwrap();
    bob.append(&batch(2, 0, 2)).unwrap();
    let bob = bob.info().key;
    let (other, data) = remote(0x33, &batch(3, 0, 1));
    store.get(&other).unwrap().put(data[0].clone()).unwrap();
    let mut core = store.default_core(&FeedList::list_namespace(&first)).unwrap();
    core.append(&[FeedList::entry(&bob, "bob"), FeedList::entry(&other, "4")]).unwrap();
    list.read(&mut core).unwrap();
    let mut ours = names(&list);
    assert_eq!(ours.len(), 5);
    store.close().unwrap();

    // JS finds them, goes on with `bob`, and adds one; another multifeed sees none of it.
    let writers = json!([{"name": "carol"}, {"name": "bob"}]);
    let spec = json!({"multifeeds": [{"key": first.to_string(), "writers": writers}, {"key": second.to_string()}]});
    let js = JsCorestore::open(path, &spec).unwrap();
    let again = js.multifeeds.clone();
    js.close().unwrap();
    assert_eq!((&again[0][..5], again[0].len(), &again[1]), (&ours[..], 6, &feeds[1]));
    ours.push(again[0][5].clone());
    let mut store = open(path, None);
    let mut core = store.default_core(&FeedList::list_namespace(&first)).unwrap();
    list.read(&mut core).unwrap();
    assert_eq!(names(&list), ours);
    store.close().unwrap();
}
