//! Feeds that are long by their writer's word alone, between JS and ours, on the wire and on the disk.

use crate::common;
use crate::long;

use std::path::Path;

use bytes::Bytes;
use common::{held, join_js, js, run};
use multifeed_core::{Feed, FileStorage, KeyPair, Limits, Slot, prepare};
use multifeed_testkit::js::{self as testkit, JsFeed, JsPeer, TIMEOUT};
use multifeed_tokio::{Multifeed, Options, Replicate, SyncEvent};

/// A store of feeds with one block each, of writers that sign these lengths. Their keys.
fn claimed(folder: &Path, claims: &[(u64, u64)]) -> Vec<String> {
    let mut storage = FileStorage::open(folder).unwrap();
    let claim = |(slot, &(length, index)): (u32, &(u64, u64))| {
        let pair = KeyPair::from_seed(&[slot as u8 + 1; 32]);
        let mut feed = Feed::create(&mut storage, Slot(slot), pair.public_key(), None, None).unwrap();
        let block = Bytes::from(format!("block {index} of {length}"));
        feed.put(&mut storage, prepare(long::claim(&pair, length, index, &block))).unwrap();
        feed.flush(&mut storage).unwrap();
        pair.public_key().to_string()
    };
    (0..).zip(claims).map(claim).collect()
}

async fn open(folder: &Path) -> Multifeed {
    let multi = Multifeed::open(folder, Options::default()).await.unwrap();
    assert!(multi.problems().is_empty() && multi.recovered().is_empty(), "{:?}", multi.problems());
    multi
}

/// What JS says that a store has: key, length, and blocks that are held, in the order of the keys.
fn lengths(feeds: &[JsFeed]) -> Vec<(String, u64, u64)> {
    let mut lengths: Vec<_> = feeds.iter().map(|feed| (feed.key.clone(), feed.length, feed.downloaded)).collect();
    lengths.sort();
    lengths
}

#[test]
fn js_finds_all_of_it_sound_in_what_ours_wrote() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let claims = [(1 << 17, 0), ((1 << 17) - 1, 77_777), ((1 << 16) + 3, 1 << 16)];
        let keys = claimed(dir.path(), &claims);
        let audited = js(|| testkit::audit(dir.path()));
        assert!(audited.iter().all(JsFeed::is_sound), "{audited:?}");
        let mut expected: Vec<_> = keys.into_iter().zip(claims).map(|(key, (length, _))| (key, length, 1)).collect();
        expected.sort();
        assert_eq!(lengths(&audited), expected);
        // And after JS had it, ours does.
        let multi = open(dir.path()).await;
        for (feed, (length, index)) in multi.feeds().iter().zip(claims) {
            assert_eq!((feed.len(), feed.downloaded()), (length, 1));
            assert_eq!(feed.get(index).await.unwrap().unwrap(), format!("block {index} of {length}"));
        }
        multi.close().await.unwrap();
    });
}

#[test]
fn it_passes_from_ours_to_js_to_ours_and_a_longer_one_does_not() {
    run(async {
        let most = Limits::default().feed_blocks;
        let [first, second, third] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let claims = [(most, most - 1), (most + 1, 0), (1, 0), (most - 1, 5)];
        let keys = claimed(first.path(), &claims);
        let expected: Vec<_> = keys.iter().zip(claims).map(|(key, (length, _))| (key.clone(), length, 1)).collect();

        // JS opens what ours wrote, and serves it: ours takes what is no longer than may be.
        let (mut peer, address) = js(|| JsPeer::listen(&["--store", first.path().to_str().unwrap(), "--live"]));
        let reply = js(|| peer.call(serde_json::json!({"cmd": "feeds", "hash": false})));
        let told: Vec<u64> =
            reply["feeds"].as_array().unwrap().iter().map(|feed| feed["length"].as_u64().unwrap()).collect();
        assert_eq!(told, claims.map(|(length, _)| length));
        let multi = open(second.path()).await;
        let mut sync = join_js(&multi, address, Replicate::live()).await;
        for at in [0, 2, 3] {
            assert_eq!(held(&multi, &keys[at], 1).await.len(), claims[at].0);
        }
        loop {
            let Some(event) = sync.next().await else { panic!("the session ended") };
            if let SyncEvent::LimitReached(error) = event {
                assert!(error.to_string().contains(&keys[1]) && error.code() == "ERR_LIMIT", "{error}");
                break;
            }
        }
        assert!(multi.feed(&keys[1]).is_none());
        multi.close().await.unwrap();
        js(|| peer.close());

        // What ours took, it opens and serves: JS takes all of it.
        let multi = open(second.path()).await;
        let (mut peer, address) = js(|| JsPeer::listen(&["--store", third.path().to_str().unwrap(), "--live"]));
        let _sync = join_js(&multi, address, Replicate::live()).await;
        js(|| peer.wait(3, 3, TIMEOUT));
        multi.close().await.unwrap();
        js(|| peer.close());

        // And what JS wrote, ours opens.
        let multi = open(third.path()).await;
        let mut found: Vec<_> =
            multi.feeds().iter().map(|feed| (feed.key().to_string(), feed.len(), feed.downloaded())).collect();
        found.sort();
        let mut expected: Vec<_> = expected.into_iter().filter(|(key, ..)| *key != keys[1]).collect();
        expected.sort();
        assert_eq!(found, expected);
        multi.close().await.unwrap();
    });
}

/// The only block lies past the first window that is asked about, and it is not the last one of its feed.
#[test]
fn a_block_past_the_first_window_comes_from_ours_to_js() {
    run(async {
        let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let claims = [(3_300_000, 1_100_000), (6_000_000, 2_000_000), (3_300_000, 5)];
        let keys = claimed(first.path(), &claims);
        let multi = open(first.path()).await;
        let (mut peer, address) = js(|| JsPeer::listen(&["--store", second.path().to_str().unwrap(), "--live"]));
        let _sync = join_js(&multi, address, Replicate::live()).await;
        js(|| peer.wait(3, 3, TIMEOUT));
        multi.close().await.unwrap();
        js(|| peer.close());
        let multi = open(second.path()).await;
        for (key, (length, index)) in keys.iter().zip(claims) {
            let feed = multi.feed(key.as_str()).unwrap();
            assert_eq!((feed.len(), feed.downloaded()), (length, 1));
            assert_eq!(feed.get(index).await.unwrap().unwrap(), format!("block {index} of {length}"));
        }
        multi.close().await.unwrap();
    });
}
