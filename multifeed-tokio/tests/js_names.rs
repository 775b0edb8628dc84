//! Feeds whose names would be one for JS, which loses all but one of those: stores of ours that it opens, and of its own that we set right.

use crate::common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{facts, js, js_facts, memory, run, sync, sync_js};
use multifeed_testkit::js::{self as testkit, JsFeed, JsPeer};
use multifeed_tokio::core::FileKind;
use multifeed_tokio::{Multifeed, Options, StoreError};
use serde_json::json;

async fn open(path: &Path) -> Multifeed {
    let multi = Multifeed::open(path, Options::default()).await.unwrap();
    assert!(multi.problems().is_empty() && multi.recovered().is_empty(), "{:?}", multi.problems());
    multi
}

/// A feed of somebody else's, with one block.
async fn bring(multi: &Multifeed, block: &'static str) {
    let other = memory().await;
    other.writer("x").await.unwrap().append(block).await.unwrap();
    sync(multi, &other).await;
}

async fn write(multi: &Multifeed, name: Option<&str>) {
    multi.writer(name).await.unwrap().append("block").await.unwrap();
}

fn names(multi: &Multifeed) -> BTreeMap<String, String> {
    multi.feeds().iter().map(|feed| (feed.name(), feed.key().to_string())).collect()
}

fn js_names(feeds: &[JsFeed]) -> BTreeMap<String, String> {
    feeds.iter().map(|feed| (feed.name.clone().unwrap_or_default(), feed.key.clone())).collect()
}

/// JS finds every feed of a closed store of ours, each under its name; it makes an unnamed writer, takes a feed of a remote's, and both are
/// there when ours opens it again.
async fn js_finds_all(path: &Path, told: BTreeMap<String, String>) {
    let audited = js(|| testkit::audit(path));
    assert!(audited.iter().all(JsFeed::is_sound), "{audited:?}");
    assert_eq!(js_names(&audited), told);
    let store = path.to_str().unwrap().to_owned();
    let (mut peer, address) = js(|| JsPeer::listen(&["--store", &store]));
    js(|| peer.call(json!({"cmd": "writer"})));
    let other = memory().await;
    write(&other, Some("other")).await;
    sync_js(&other, &mut peer, address).await;
    let theirs = js(|| peer.feeds());
    assert_eq!((theirs.len(), js_names(&theirs).len()), (told.len() + 2, told.len() + 2), "{theirs:?}");
    js(|| peer.close());
    let multi = open(path).await;
    assert_eq!((facts(&multi).await, names(&multi)), (js_facts(&theirs), js_names(&theirs)));
    multi.close().await.unwrap();
}

#[test]
fn js_finds_every_feed_beside_writers_that_are_named_like_numbers() {
    run(async {
        // 0 and 2 are a remote's; 1 is named "0", 3 "2", 4 "5"; 5 is unnamed, 6 a remote's. What is removed then, by place.
        for gone in [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), Some(6)] {
            let dir = tempfile::tempdir().unwrap();
            let multi = open(dir.path()).await;
            bring(&multi, "first").await;
            write(&multi, Some("0")).await;
            bring(&multi, "second").await;
            write(&multi, Some("2")).await;
            write(&multi, Some("5")).await;
            write(&multi, None).await;
            bring(&multi, "third").await;
            if let Some(gone) = gone {
                let feed = multi.feeds()[gone].clone();
                if feed.writable() { feed.remove_writer().await.unwrap() } else { feed.remove().await.unwrap() }
            }
            let told = names(&multi);
            assert_eq!(told.len(), 7 - usize::from(gone.is_some()));
            for (name, key) in &told {
                assert_eq!(multi.feed_by_name(name).map(|feed| feed.key().to_string()).as_ref(), Some(key));
            }
            multi.close().await.unwrap();
            js_finds_all(dir.path(), told).await;
        }
    });
}

/// What two calls of JS's `writer('x')` at once leave, and a writer that JS named like a number of a feed that came later.
#[test]
fn a_store_of_js_with_two_feeds_of_one_name_is_set_right() {
    run(async {
        for (slot, name) in [("1", "a"), ("0", "2")] {
            let dir = tempfile::tempdir().unwrap();
            let writers =
                json!({"writers": [{"name": "a", "append": [{"count": 2}]}, {"name": "b", "append": [{"count": 3}]}]});
            js(|| testkit::make(dir.path(), &writers));
            let multi = open(dir.path()).await;
            bring(&multi, "remote's").await;
            let before = facts(&multi).await;
            assert_eq!(before.len(), 3);
            multi.close().await.unwrap();
            std::fs::write(dir.path().join(slot).join("localname"), name).unwrap();
            assert_eq!(js(|| testkit::audit(dir.path())).len(), 2, "JS finds one of the two");
            // The journal knows the names.
            let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
            let [problem] = &multi.problems()[..] else { panic!("{:?}", multi.problems()) };
            assert!(matches!(problem, StoreError::Damaged { file: FileKind::LocalName, .. }), "{problem}");
            assert_eq!(facts(&multi).await, before);
            let told = names(&multi);
            assert_eq!(told.len(), 3);
            multi.close().await.unwrap();
            js_finds_all(dir.path(), told).await;
        }
    });
}
