//! A multifeed on a corestore's folder, live with corestore-multifeed; then each side opens the folder of the other.

use crate::common;

use std::collections::BTreeSet;

use common::{held, js, run, socket};
use multifeed_testkit::js::{JsCorestore, JsPeer, TIMEOUT};
use multifeed_tokio::{Feed, FeedKey, Multifeed, Namespace, Options, Replicate, Role};
use serde_json::json;

const ROOT: FeedKey = FeedKey::new([5; 32]);

fn named(feeds: &[Feed]) -> BTreeSet<(String, String, u64)> {
    feeds.iter().map(|feed| (feed.name(), feed.key().to_string(), feed.len())).collect()
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
            let namespace = Namespace::root();
            let multi = Multifeed::open_corestore(ours.path(), &namespace, Options::new(ROOT)).await.unwrap();
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
            let multi = Multifeed::open_corestore(ours.path(), &namespace, Options::new(ROOT)).await.unwrap();
            let writer = multi.writer("ours").await.unwrap();
            assert_eq!((writer.len(), multi.feeds().len(), multi.problems().len()), (6, 2, 0));
            multi.close().await.unwrap();

            // And we have theirs.
            let multi = Multifeed::open_corestore(theirs.path(), &namespace, Options::new(ROOT)).await.unwrap();
            let found = named(&multi.feeds());
            assert_eq!(found.iter().map(|feed| feed.2).collect::<BTreeSet<_>>(), BTreeSet::from([4, 5]));
            let writer = multi.writer("theirs").await.unwrap();
            assert_eq!((writer.key().to_string(), writer.writable(), writer.len()), (key, true, 5));
            writer.append("on").await.unwrap();
            multi.close().await.unwrap();
        }
    });
}
