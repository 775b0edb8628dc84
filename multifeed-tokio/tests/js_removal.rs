//! Stores from which feeds were removed, and JS, which opens them afterwards and goes on.

use crate::common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{facts, hang_up_js, held, join_js, js, js_facts, memory, run, sync, sync_js};
use multifeed_testkit::js::{self as testkit, JsFeed, JsPeer};
use multifeed_tokio::{Feed, Multifeed, Options, Replicate};
use serde_json::json;

async fn open(path: &Path) -> Multifeed {
    let multi = Multifeed::open(path, Options::default()).await.unwrap();
    assert!(multi.problems().is_empty() && multi.recovered().is_empty(), "{:?}", multi.problems());
    multi
}

/// Writers of a store in memory, which a folder's store gets as a remote's feeds.
async fn bring(multi: &Multifeed, writers: &[&str]) {
    let other = memory().await;
    for name in writers {
        let feed = other.writer(*name).await.unwrap();
        feed.append_batch(["one", "two", "three"]).await.unwrap();
    }
    sync(multi, &other).await;
}

async fn remove(feed: &Feed) {
    match feed.writable() {
        true => feed.remove_writer().await.unwrap(),
        false => feed.remove().await.unwrap(),
    }
}

fn names(multi: &Multifeed) -> BTreeMap<String, String> {
    multi.feeds().iter().map(|feed| (feed.name(), feed.key().to_string())).collect()
}

fn js_names(feeds: &[JsFeed]) -> BTreeMap<String, String> {
    feeds.iter().map(|feed| (feed.name.clone().unwrap_or_default(), feed.key.clone())).collect()
}

/// The first, a middle and the last folder; a remote's feed, a named writer and an unnamed one.
#[test]
fn js_opens_what_is_left_and_goes_on() {
    run(async {
        // 0 and 1 are writers, the second one unnamed; 2 and 3 are a remote's; 4 is unnamed again, 5 a remote's.
        for gone in [vec![0], vec![1], vec![2], vec![4], vec![5], vec![0, 3, 5], vec![5, 4, 3], vec![0, 1, 2, 3]] {
            let dir = tempfile::tempdir().unwrap();
            let multi = open(dir.path()).await;
            multi.writer("named").await.unwrap().append("a").await.unwrap();
            multi.writer(None).await.unwrap().append("b").await.unwrap();
            bring(&multi, &["x", "y"]).await;
            multi.writer(None).await.unwrap().append("c").await.unwrap();
            bring(&multi, &["z"]).await;
            let feeds = multi.feeds();
            assert_eq!(feeds.len(), 6);
            for &at in &gone {
                remove(&feeds[at]).await;
            }
            let (ours, told) = (facts(&multi).await, names(&multi));
            assert_eq!((ours.len(), told.len()), (6 - gone.len(), 6 - gone.len()));
            multi.close().await.unwrap();
            for slot in 0..6 {
                assert_eq!(dir.path().join(slot.to_string()).exists(), slot < ours.len(), "{gone:?}");
            }

            // JS finds exactly the rest, sound, under the same names; appends, adds a writer of each kind, and syncs.
            let audited = js(|| testkit::audit(dir.path()));
            assert!(audited.iter().all(JsFeed::is_sound), "{audited:?}");
            assert_eq!((js_facts(&audited), js_names(&audited)), (ours.clone(), told.clone()), "{gone:?}");
            let store = dir.path().to_str().unwrap().to_owned();
            let (mut peer, address) = js(|| JsPeer::listen(&["--store", &store]));
            for (name, key) in &told {
                let writable = audited.iter().any(|feed| feed.key == *key && feed.writable);
                if writable {
                    assert_eq!(js(|| peer.append(name, 2, 30, 5)), *key);
                }
            }
            js(|| peer.append("of js", 3, 30, 6));
            js(|| peer.call(json!({"cmd": "writer"})));
            let other = memory().await;
            other.writer("other").await.unwrap().append("d").await.unwrap();
            sync_js(&other, &mut peer, address).await;
            let theirs = js(|| peer.feeds());
            assert_eq!((theirs.len(), js_names(&theirs).len()), (ours.len() + 3, ours.len() + 3), "{theirs:?}");
            js(|| peer.close());

            // And ours again: the same feeds and names, and on.
            let multi = open(dir.path()).await;
            assert_eq!((facts(&multi).await, names(&multi)), (js_facts(&theirs), js_names(&theirs)));
            let first = multi.feeds()[0].clone();
            remove(&first).await;
            multi.writer("of ours").await.unwrap().append("e").await.unwrap();
            let ours = facts(&multi).await;
            multi.close().await.unwrap();
            let audited = js(|| testkit::audit(dir.path()));
            assert!(audited.iter().all(JsFeed::is_sound), "{audited:?}");
            assert_eq!(js_facts(&audited), ours);
        }
    });
}

/// A JS peer whose feed is banned here: its other feeds are synced, and its session ends well.
#[test]
fn what_js_offers_of_a_banned_feed_is_not_taken() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (mut peer, address) = js(|| JsPeer::listen(&[]));
        let junk = js(|| peer.append("junk", 4, 20, 1));
        let good = js(|| peer.append("good", 4, 20, 2));
        let multi = open(dir.path()).await;
        let secret = multi.writer("secret").await.unwrap();
        secret.append("not for JS").await.unwrap();
        multi.ban(junk.parse().unwrap()).await.unwrap();
        multi.ban(secret.key()).await.unwrap();
        for _ in 0..2 {
            join_js(&multi, address, Replicate::default()).await.finish().await.unwrap();
            assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
            assert_eq!((multi.feeds().len(), multi.feed(&good).unwrap().downloaded()), (2, 4));
            assert_eq!(js(|| peer.feeds()).len(), 2);
        }
        multi.unban(junk.parse().unwrap()).await.unwrap();
        multi.unban(secret.key()).await.unwrap();
        sync_js(&multi, &mut peer, address).await;
        assert_eq!(multi.feeds().len(), 3);
        js(|| peer.close());
        multi.close().await.unwrap();
        let audited = js(|| testkit::audit(dir.path()));
        assert!(audited.len() == 3 && audited.iter().all(JsFeed::is_sound), "{audited:?}");
    });
}

/// A feed of JS's that is banned, and unbanned while the session runs, comes on that session: its channel was never open.
#[test]
fn what_js_offered_of_a_banned_feed_comes_once_it_is_unbanned() {
    run(async {
        let (mut peer, address) = js(|| JsPeer::listen(&["--live"]));
        let junk = js(|| peer.append("junk", 4, 20, 1));
        let good = js(|| peer.append("good", 4, 20, 2));
        let multi = memory().await;
        multi.ban(junk.parse().unwrap()).await.unwrap();
        let sync = join_js(&multi, address, Replicate::live()).await;
        held(&multi, &good, 4).await;
        assert_eq!(multi.feed(&junk), None);
        multi.unban(junk.parse().unwrap()).await.unwrap();
        held(&multi, &junk, 4).await;
        js(|| peer.append("junk", 2, 20, 1));
        held(&multi, &junk, 6).await;
        hang_up_js(sync, &mut peer).await;
        js(|| peer.close());
    });
}

/// A feed that is removed while a JS peer syncs it, live: the channel closes, the others go on.
#[test]
fn a_feed_is_removed_while_js_syncs_it() {
    run(async {
        let (mut peer, address) = js(|| JsPeer::listen(&["--live"]));
        let (first, second) = (js(|| peer.append("first", 4, 20, 1)), js(|| peer.append("second", 4, 20, 2)));
        let multi = memory().await;
        let mine = multi.writer("mine").await.unwrap();
        mine.append("a").await.unwrap();
        let sync = join_js(&multi, address, Replicate::live()).await;
        held(&multi, &first, 4).await.remove().await.unwrap();
        held(&multi, &second, 4).await;
        js(|| peer.append("first", 2, 20, 1));
        js(|| peer.append("second", 2, 20, 2));
        held(&multi, &second, 6).await;
        mine.append("b").await.unwrap();
        js(|| peer.wait(3, 14, testkit::TIMEOUT));
        assert_eq!(multi.feed(&first), None);
        sync.close();
        sync.finish().await.unwrap();
        js(|| peer.close());
    });
}

/// The same while JS is still reading what it was asked for of the feed: its answers come on no channel, and nothing else is the worse for them.
#[test]
fn a_feed_is_removed_while_js_reads_it_from_a_slow_disk() {
    run(async {
        let (mut peer, address) = js(|| JsPeer::listen(&["--live", "--delay-reads", "100"]));
        let (first, second) = (js(|| peer.append("first", 200, 20, 1)), js(|| peer.append("second", 4, 20, 2)));
        let multi = memory().await;
        let sync = join_js(&multi, address, Replicate::live()).await;
        held(&multi, &first, 10).await.remove().await.unwrap();
        held(&multi, &second, 4).await;
        for blocks in [6, 8, 10] {
            js(|| peer.append("second", 2, 20, 2));
            held(&multi, &second, blocks).await;
        }
        sync.close();
        sync.finish().await.unwrap();
        js(|| peer.close());
    });
}
