//! A multifeed on a corestore's folder, live with corestore-multifeed; then each side opens the folder of the other.

use crate::common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{held, js, run, socket};
use multifeed_testkit::js::{JsCorestore, JsPeer, TIMEOUT};
use multifeed_tokio::{
    Corestore, Feed, FeedKey, KeyPair, Multifeed, Namespace, Options, Replicate, Role, StreamOptions, open_stream,
};
use serde_json::json;

const ROOT: FeedKey = FeedKey::new([5; 32]);

fn named(feeds: &[Feed]) -> BTreeSet<(String, String, u64)> {
    feeds.iter().map(|feed| (feed.name(), feed.key().to_string(), feed.len())).collect()
}

async fn open(folder: &Path) -> Multifeed {
    let store = Corestore::open(folder, Options::default()).await.unwrap();
    Multifeed::in_corestore(&store, &Namespace::root(), ROOT).await.unwrap()
}

#[test]
fn a_corestore_syncs_with_corestore_multifeed_and_each_opens_the_others_folder() {
    run(async {
        for role in [Role::Initiator, Role::Responder] {
            let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let (root, store) = (ROOT.to_string(), theirs.path().to_str().unwrap().to_owned());
            let mut peer = js(|| JsPeer::spawn(&["--corestore", "--store", &store, "--key", &root]));
            let key = js(|| {
                peer.call(json!({"cmd": "append", "name": "theirs", "key": root, "count": 5, "size": 100, "seed": 1}))
            });
            let key = key["key"].as_str().unwrap().to_owned();
            let multi = open(ours.path()).await;
            let mut events = multi.events();
            let writer = multi.writer("ours").await.unwrap();
            assert_eq!((writer.name(), multi.feeds().len()), ("ours".to_owned(), 1));
            writer.append_batch(["a", "b", "c"]).await.unwrap();
            let sync = multi.replicate(socket(&mut peer, role).await, role, Replicate::live());
            assert_eq!(held(&multi, &key, 5).await.len(), 5);
            js(|| peer.wait(2, 8, TIMEOUT));
            // What comes later goes too.
            writer.append("d").await.unwrap();
            js(|| peer.wait(2, 9, TIMEOUT));
            assert!(events.next().await.is_some());
            let feeds = named(&multi.feeds());
            assert_eq!(multi.feed_by_name("1").unwrap().key().to_string(), key);
            sync.close();
            sync.finish().await.unwrap();
            js(|| peer.close());
            multi.close().await.unwrap();

            // JS has our feeds by the same names and keys, and goes on with our writer.
            let append = json!([{"seed": 3, "from": 0, "count": 2, "size": 10}]);
            let spec = json!({
                "steps": [{"key": key}],
                "multifeeds": [{"key": root, "writers": [{"name": "ours", "append": append}]}],
            });
            let opened = js(|| JsCorestore::open(ours.path(), &spec));
            let listed: BTreeSet<_> =
                opened.multifeeds[0].iter().map(|(name, key)| (name.clone().unwrap(), key.clone())).collect();
            assert_eq!(listed, feeds.iter().map(|(name, key, _)| (name.clone(), key.clone())).collect());
            let core = opened.cores[0].as_ref().unwrap();
            assert_eq!((core.length, core.downloaded), (5, 5));
            js(|| opened.close());
            let multi = open(ours.path()).await;
            let writer = multi.writer("ours").await.unwrap();
            assert_eq!((writer.len(), multi.feeds().len(), multi.problems().len()), (6, 2, 0));
            multi.close().await.unwrap();

            // And we have theirs.
            let multi = open(theirs.path()).await;
            let found = named(&multi.feeds());
            assert_eq!(found.iter().map(|feed| feed.2).collect::<BTreeSet<_>>(), BTreeSet::from([4, 5]));
            let writer = multi.writer("theirs").await.unwrap();
            assert_eq!((writer.key().to_string(), writer.writable(), writer.len()), (key, true, 5));
            writer.append("on").await.unwrap();
            multi.close().await.unwrap();
        }
    });
}

/// Three multifeeds of one folder of ours on one stream with three of JS, both live; then JS has ours by their names, and goes on.
#[test]
fn three_multifeeds_of_a_corestore_share_a_stream_with_js() {
    run(async {
        for role in [Role::Initiator, Role::Responder] {
            let keys = [1, 2, 3].map(|n| FeedKey::new([n; 32]));
            let texts = keys.map(|key| key.to_string());
            let mut peer =
                js(|| JsPeer::spawn(&["--corestore", "--key", &texts[0], "--key", &texts[1], "--key", &texts[2]]));
            let mut append = |key: &str, count: u32, seed: u32| {
                let call = json!({"cmd": "append", "name": "w", "key": key, "count": count, "size": 100, "seed": seed});
                js(|| peer.call(call))["key"].as_str().unwrap().to_owned()
            };
            let theirs = texts.clone().map(|key| append(&key, 5, 1));
            let ours = tempfile::tempdir().unwrap();
            let store = Corestore::open(ours.path(), Options::default()).await.unwrap();
            let stream = open_stream(socket(&mut peer, role).await, role, StreamOptions::default());
            let mut joined = Vec::new();
            for at in [2, 0, 1] {
                let multi = Multifeed::in_corestore(&store, &Namespace::root(), keys[at]).await.unwrap();
                let writer = multi.writer("ours").await.unwrap();
                writer.append_batch(["a", "b"]).await.unwrap();
                let sync = multi.replicate_over(&stream, Replicate::live());
                joined.push((at, multi, writer, sync));
            }
            for (at, multi, writer, _) in &joined {
                assert_eq!(held(multi, &theirs[*at], 5).await.len(), 5);
                assert_eq!(multi.feeds().len(), 2, "no feed of another root key");
                writer.append("late").await.unwrap();
            }
            js(|| peer.wait(6, 24, TIMEOUT));
            for (.., sync) in &joined {
                sync.in_sync().await.unwrap();
            }
            stream.close();
            for (.., sync) in joined {
                sync.finish().await.unwrap();
            }
            stream.finish().await.unwrap();
            js(|| peer.close());
            store.close().await.unwrap();

            let append = json!([{"seed": 3, "from": 0, "count": 2, "size": 10}]);
            let multifeeds =
                texts.clone().map(|key| json!({"key": key, "writers": [{"name": "ours", "append": append}]}));
            let opened = js(|| JsCorestore::open(ours.path(), &json!({"steps": [], "multifeeds": multifeeds})));
            for (feeds, theirs) in opened.multifeeds.iter().zip(&theirs) {
                assert_eq!(feeds.len(), 2, "{feeds:?}");
                assert!(feeds.iter().any(|(_, key)| key == theirs), "{feeds:?}");
            }
            js(|| opened.close());
            let store = Corestore::open(ours.path(), Options::default()).await.unwrap();
            for key in keys {
                let multi = Multifeed::in_corestore(&store, &Namespace::root(), key).await.unwrap();
                assert_eq!((multi.feeds().len(), multi.feed_by_name("ours").unwrap().len()), (2, 5));
            }
        }
    });
}

/// Plain cores that JS made, and goes on with, by name, default and key pair; and those that we made.
#[test]
fn plain_cores_are_opened_in_turn_with_js() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let seed = [5; 32];
        let steps = |from: u32| {
            let append = json!([{"seed": 1, "from": from, "count": 2, "size": 20}]);
            let seed = "05".repeat(32);
            let ways = [json!({"name": "chat"}), json!({"namespace": ["a"], "default": true}), json!({"seed": seed})];
            let steps = ways.map(|mut way| {
                way["append"] = append.clone();
                way
            });
            json!({"steps": steps})
        };
        let ours = async |store: &Corestore| {
            [
                store.named("chat").await.unwrap(),
                store.default_core(&Namespace::root().namespace("a")).await.unwrap(),
                store.with_key_pair(KeyPair::from_seed(&seed)).await.unwrap(),
            ]
        };
        let store = Corestore::open(folder.path(), Options::default()).await.unwrap();
        let made = ours(&store).await.map(|core| core.key().to_string());
        for core in ours(&store).await {
            core.append("a").await.unwrap();
        }
        store.close().await.unwrap();
        for turn in 0..2 {
            let opened = js(|| JsCorestore::open(folder.path(), &steps(turn * 2)));
            let cores: Vec<_> = opened.cores.iter().map(|core| core.as_ref().unwrap()).collect();
            let seen: Vec<_> = cores.iter().map(|core| (core.key.clone(), core.length, core.writable)).collect();
            assert_eq!(seen, made.clone().map(|key| (key, u64::from(turn) * 3 + 3, true)));
            js(|| opened.close());
            let store = Corestore::open(folder.path(), Options::default()).await.unwrap();
            for core in ours(&store).await {
                assert_eq!(core.append("b").await.unwrap(), u64::from(turn) * 3 + 3);
                let key = store.get(core.key()).await.unwrap().unwrap();
                assert_eq!(key.head().await.unwrap().as_deref(), Some(&b"b"[..]));
                let mut check = key.verify();
                while let Some(step) = check.next().await.unwrap() {
                    assert!(step.findings.is_empty(), "{step:?}");
                }
            }
            assert_eq!(store.list().await.unwrap().cores.len(), 3);
            store.close().await.unwrap();
        }
    });
}
