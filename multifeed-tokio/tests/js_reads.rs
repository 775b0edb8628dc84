//! Blocks fetched, sought and given up, with npm's hypercore 9 as the other side, and folders that it makes or that it opens.

use crate::common;

use std::time::Duration;

use common::{facts, hang_up_js, held, join_js, js, js_facts, memory, run, socket, sparse, sync_js};
use multifeed_testkit::blocks::{block, blocks, digest};
use multifeed_testkit::js::{self as testkit, JsFeed, JsPeer};
use multifeed_tokio::{Error, Multifeed, Options, Place, ReadOptions, Replicate, Role, SyncEvent, Wait};
use serde_json::json;

#[test]
fn blocks_are_fetched_from_js() {
    run(async {
        let (mut peer, address) = js(|| JsPeer::listen(&["--live"]));
        let key = js(|| peer.append("js", 500, 100, 1));
        let multi = sparse().await;
        let sync = join_js(&multi, address, Replicate::live()).await;
        let feed = held(&multi, &key, 0).await;
        assert_eq!((feed.len(), feed.downloaded()), (500, 0));
        // The newest block first.
        assert_eq!(feed.head().await.unwrap().unwrap(), block(1, 499, 100));
        assert_eq!(feed.fetch(321).await.unwrap(), block(1, 321, 100));
        assert_eq!(feed.fetch_with(500, Wait::if_available()).await.unwrap_err().code(), "ERR_UNAVAILABLE");
        feed.download(100..140).await.unwrap().await.unwrap();
        feed.download(vec![0, 499]).await.unwrap().await.unwrap();
        assert_eq!(feed.downloaded(), 43);
        let mut stream = feed.blocks(130..150);
        let mut count = 0;
        while let Some(read) = stream.next().await {
            assert_eq!(read.unwrap(), block(1, 130 + count, 100));
            count += 1;
        }
        assert_eq!((count, feed.downloaded()), (20, 53));

        // What it appends while we wait.
        let mut tail = feed.stream(ReadOptions { tail: true, ..ReadOptions::live() });
        let appended = tokio::spawn(async move { tail.next().await });
        let id = js(|| peer.send(json!({"cmd": "append", "name": "js", "count": 3, "size": 7, "seed": 9})));
        assert_eq!(appended.await.unwrap().unwrap().unwrap(), block(9, 0, 7));
        js(|| peer.reply(id, testkit::TIMEOUT));
        assert_eq!(feed.update_to(503, Wait::default()).await.unwrap(), 503);
        assert_eq!(hang_up_js(sync, &mut peer).await.moved.blocks_received, 54);
    });
}

/// JS does not know Cancel: what it sends all the same is not stored, and harms nobody.
#[test]
fn a_fetch_that_was_dropped_leaves_the_session_with_js_as_it_is() {
    run(async {
        let (mut peer, address) = js(|| JsPeer::listen(&["--live", "--delay-reads", "150"]));
        let key = js(|| peer.append("js", 50, 100, 1));
        let multi = sparse().await;
        let sync = join_js(&multi, address, Replicate::live()).await;
        let feed = held(&multi, &key, 0).await;
        assert_eq!(feed.len(), 50);
        for index in 10..20 {
            let impatient = Wait::at_most(Duration::from_millis(10));
            let _ = feed.fetch_with(index, impatient).await;
            drop(tokio::time::timeout(Duration::from_millis(10), feed.fetch(index + 20)).await);
        }
        assert_eq!(feed.fetch(15).await.unwrap(), block(1, 15, 100));
        assert_eq!(feed.fetch(45).await.unwrap(), block(1, 45, 100));
        assert!(feed.downloaded() < 15, "{} blocks", feed.downloaded());
        hang_up_js(sync, &mut peer).await;
    });
}

#[test]
fn bytes_are_sought_with_the_help_of_js() {
    run(async {
        let (mut peer, address) = js(|| JsPeer::listen(&["--live"]));
        let sizes = [5usize, 0, 200, 1, 64, 64, 3, 90, 17, 0, 41];
        let encoded: Vec<String> = (0..).zip(sizes).map(|(index, size)| base64(&block(4, index, size))).collect();
        let reply = js(|| peer.call(json!({"cmd": "append", "name": "js", "blocks": encoded})));
        let key = reply["key"].as_str().unwrap().to_owned();
        let total: u64 = sizes.iter().sum::<usize>() as u64;
        for byte in [1, 4, 5, 204, 205, 206, 300, 336, 337, 400, total - 1] {
            let multi = sparse().await;
            let sync = join_js(&multi, address, Replicate::live()).await;
            let feed = held(&multi, &key, 0).await;
            let place = feed.seek_with(byte, Wait::at_most(Duration::from_secs(10))).await.unwrap();
            let theirs = js(|| peer.call(json!({"cmd": "seek", "key": key, "bytes": byte})));
            let expected =
                Place { block: theirs["index"].as_u64().unwrap(), offset: theirs["offset"].as_u64().unwrap() };
            assert_eq!(place, expected, "byte {byte}");
            assert!(feed.downloaded() <= 1);
            hang_up_js(sync, &mut peer).await;
        }
    });
}

#[test]
fn js_fetches_seeks_and_updates_from_us() {
    run(async {
        let multi = memory().await;
        let feed = multi.writer("rust").await.unwrap();
        feed.append_batch(blocks(300, 50, 2)).await.unwrap();
        let (mut peer, address) = js(|| JsPeer::listen(&["--live", "--sparse"]));
        let sync = join_js(&multi, address, Replicate::live()).await;
        js(|| peer.wait(1, 0, testkit::TIMEOUT));
        let key = feed.key().to_string();
        let update = js(|| peer.call(json!({"cmd": "update", "key": key, "length": 300})));
        assert_eq!((&update["length"], &update["downloaded"]), (&json!(300), &json!(0)));
        let seek = js(|| peer.call(json!({"cmd": "seek", "key": key, "bytes": 7_777})));
        assert_eq!((&seek["index"], &seek["offset"]), (&json!(155), &json!(27)));
        js(|| peer.call(json!({"cmd": "get", "key": key, "index": 42, "wait": true})));
        js(|| peer.call(json!({"cmd": "download", "key": key, "start": 200, "end": 250})));
        let theirs = js(|| peer.feeds());
        assert_eq!((theirs[0].length, theirs[0].downloaded), (300, 51));
        hang_up_js(sync, &mut peer).await;
    });
}

#[test]
fn js_hears_of_what_we_clear_and_gets_it_from_nobody() {
    run(async {
        let multi = memory().await;
        let feed = multi.writer("rust").await.unwrap();
        feed.append_batch(blocks(40, 50, 2)).await.unwrap();
        let (mut peer, address) = js(|| JsPeer::listen(&["--live", "--sparse"]));
        let sync = join_js(&multi, address, Replicate::live()).await;
        js(|| peer.wait(1, 0, testkit::TIMEOUT));
        let key = feed.key().to_string();
        js(|| peer.call(json!({"cmd": "update", "key": key, "length": 40})));
        let mut has = |index: u64| {
            let reply = js(|| peer.call(json!({"cmd": "remote-has", "key": key, "index": index})));
            reply["has"].as_bool().unwrap()
        };
        assert!(has(12) && has(20));
        feed.clear(10..15).await.unwrap();
        while has(12) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!([9, 15, 20].into_iter().all(&mut has) && !(10..15).any(&mut has));
        js(|| peer.call(json!({"cmd": "get", "key": key, "index": 9, "wait": true})));
        hang_up_js(sync, &mut peer).await;
    });
}

/// What is cleared while a session with JS runs comes again on it.
#[test]
fn what_we_clear_of_a_feed_of_js_comes_again() {
    run(async {
        for role in [Role::Initiator, Role::Responder] {
            let multi = memory().await;
            let mut peer = js(|| JsPeer::spawn(&["--live"]));
            let key = js(|| peer.append("js", 40, 50, 1));
            let sync = multi.replicate(socket(&mut peer, role).await, role, Replicate::live());
            let feed = held(&multi, &key, 40).await;
            for blocks in [10..15, 0..40] {
                feed.clear(blocks).await.unwrap();
                held(&multi, &key, 40).await;
            }
            assert_eq!(feed.get(12).await.unwrap().unwrap(), block(1, 12, 50));
            hang_up_js(sync, &mut peer).await;
        }
    });
}

#[test]
fn folders_that_we_cleared_open_in_js_and_the_other_way_round() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
        let (middle, tail) = (multi.writer("middle").await.unwrap(), multi.writer("tail").await.unwrap());
        for feed in [&middle, &tail] {
            feed.append_batch(blocks(30, 100, 3)).await.unwrap();
        }
        middle.clear(5..10).await.unwrap();
        tail.clear(20..).await.unwrap();
        let ours = facts(&multi).await;
        multi.close().await.unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("1/data")).unwrap().len(), 2_000);
        let audited = js(|| testkit::audit(dir.path()));
        assert!(audited.iter().all(JsFeed::is_sound), "{audited:?}");
        assert_eq!(js_facts(&audited), ours);

        // JS goes on with the folder, and clears too; then we do.
        let append = json!([{"count": 5, "size": 40, "seed": 8}]);
        let made = js(|| {
            testkit::make(
                dir.path(),
                &json!({"writers": [
                    {"name": "middle", "append": append, "clear": [[0, 2], [33, 35]]},
                    {"name": "tail", "append": append, "clear": [[0, 35]]},
                ]}),
            )
        });
        let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
        assert!(multi.problems().is_empty() && multi.recovered().is_empty(), "{:?}", multi.recovered());
        assert_eq!(facts(&multi).await, js_facts(&made));
        let tail = multi.feed_by_name("tail").unwrap();
        assert_eq!((tail.len(), tail.downloaded()), (35, 0));
        tail.append("again").await.unwrap();
        assert_eq!(tail.get(35).await.unwrap().unwrap(), "again");
        assert_eq!(tail.audit().await.unwrap().invalid, 0);
        let ours = facts(&multi).await;
        multi.close().await.unwrap();
        let audited = js(|| testkit::audit(dir.path()));
        assert!(audited.iter().all(JsFeed::is_sound), "{audited:?}");
        assert_eq!(js_facts(&audited), ours);
    });
}

/// A corrupt block, leaf and inner node in a store of ours: JS gets nothing false and everything else, and the session ends well.
#[test]
fn js_gets_all_but_what_rotted_here() {
    run(async {
        for role in [Role::Initiator, Role::Responder] {
            let dir = tempfile::tempdir().unwrap();
            let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
            let (bad, good) = (multi.writer("bad").await.unwrap(), multi.writer("good").await.unwrap());
            let kept = [bad.key(), good.key()].map(|key| key.to_string());
            for feed in [bad, good] {
                feed.append_batch(blocks(64, 30, 1)).await.unwrap();
            }
            multi.close().await.unwrap();
            let flip = |file: &str, at: usize| {
                let path = dir.path().join("0").join(file);
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[at] ^= 4;
                std::fs::write(path, bytes).unwrap();
            };
            // In block 10; in the hash of the leaf of block 21; in the node above the blocks 40 and 41.
            flip("data", 10 * 30 + 7);
            flip("tree", 32 + 40 * 42 + 5);
            flip("tree", 32 + 40 * 81 + 5);

            let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
            assert!(multi.problems().is_empty());
            let reader = tempfile::tempdir().unwrap();
            let mut peer = js(|| JsPeer::spawn(&["--store", reader.path().to_str().unwrap()]));
            let mut sync = multi.replicate(socket(&mut peer, role).await, role, Replicate::default());
            let mut damaged = Vec::new();
            while let Some(event) = sync.next().await {
                match event {
                    SyncEvent::Damaged { key, reason, .. } => damaged.push((key.to_string(), reason)),
                    SyncEvent::Progress(state) => assert!(!state.in_sync || damaged.is_empty(), "{state:?}"),
                    _ => {}
                }
            }
            sync.finish().await.unwrap();
            assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
            assert_eq!(damaged.len(), 1, "{damaged:?}");
            assert_eq!(damaged[0].0, kept[0]);
            let feeds = js(|| peer.feeds());
            let held = |key: &str| feeds.iter().find(|feed| feed.key == key).map(|feed| (feed.length, feed.downloaded));
            assert_eq!(held(&kept[1]), Some((64, 64)));
            let (length, downloaded) = held(&kept[0]).unwrap();
            // Nothing proves the blocks 20, 21 and 40 to 43 but corrupt nodes, unless it got what is above those with another block's proof.
            assert!(length == 64 && (57..=61).contains(&downloaded), "{downloaded} of {length}");
            js(|| peer.close());
            // What it got is sound, and nothing corrupt is among it.
            let audited = js(|| testkit::audit(reader.path()));
            assert!(audited.iter().all(JsFeed::is_sound), "{audited:?}");
        }
    });
}

/// JS sends what is corrupt on its disk unchecked. The session ends with an error that names the feed and the block. What came before it is kept, so
/// later sessions bring its other feeds, and another peer brings the block.
#[test]
fn what_rotted_at_js_ends_the_session_by_feed_and_block_and_nothing_else() {
    run(async {
        for role in [Role::Initiator, Role::Responder] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_str().unwrap();
            let mut peer = js(|| JsPeer::spawn(&["--store", path]));
            let keys = ["bad", "good"].map(|name| js(|| peer.append(name, 64, 30, 1)));
            js(|| peer.close());
            let data = dir.path().join("0/data");
            let whole = std::fs::read(&data).unwrap();
            let mut rotten = whole.clone();
            rotten[10 * 30 + 7] ^= 4;
            std::fs::write(&data, &rotten).unwrap();

            let multi = memory().await;
            let held = |key: &str| multi.feed(key).map_or(0, |feed| feed.downloaded());
            let mut sessions = 0;
            while sessions == 0 || held(&keys[1]) < 64 {
                sessions += 1;
                assert!(sessions < 10, "{} of the good feed", held(&keys[1]));
                let mut peer = js(|| JsPeer::spawn(&["--store", path]));
                let sync = multi.replicate(socket(&mut peer, role).await, role, Replicate::default());
                let error = sync.finish().await.unwrap_err();
                assert_eq!(error.code(), "ERR_PROOF", "{error}");
                let text = error.to_string();
                assert!(text.contains(&keys[0]) && text.contains("block 10 "), "{text}");
                js(|| peer.kill());
            }
            assert!(held(&keys[0]) < 64);
            // What came is right, and the rest comes from a disk that is whole.
            std::fs::write(&data, &whole).unwrap();
            let (mut peer, address) = js(|| JsPeer::listen(&["--store", path]));
            sync_js(&multi, &mut peer, address).await;
            assert_eq!(keys.each_ref().map(|key| held(key)), [64, 64]);
            js(|| peer.close());
        }
    });
}

#[test]
fn static_feeds_and_old_signatures_are_read_and_synced() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let append = json!([{"count": 21, "size": 30, "seed": 6}]);
        js(|| {
            testkit::make(
                dir.path(),
                &json!({"cores": [
                    {"slot": 0, "kind": "static", "append": append},
                    {"slot": 1, "kind": "old", "append": append},
                ]}),
            )
        });
        let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
        assert!(multi.problems().is_empty() && multi.recovered().is_empty(), "{:?}", multi.problems());
        let feeds = multi.feeds();
        let told: Vec<_> = feeds.iter().map(|feed| (feed.len(), feed.downloaded(), feed.writable())).collect();
        assert_eq!(told, [(21, 21, false), (21, 21, true)]);
        for feed in &feeds {
            assert_eq!(feed.audit().await.unwrap().valid, 21);
            let mut verification = feed.verify();
            while let Some(step) = verification.next().await.unwrap() {
                assert!(step.findings.is_empty(), "{:?}", step.findings);
            }
        }
        assert!(matches!(feeds[0].append("more").await, Err(Error::Append(_))));
        assert!(facts(&multi).await.iter().all(|fact| fact.3 == digest(blocks(21, 30, 6))));

        // From us to JS, and from JS to us, whole; and one block of each to a sparse copy.
        let (mut peer, address) = js(|| JsPeer::listen(&[]));
        sync_js(&multi, &mut peer, address).await;
        let other = memory().await;
        sync_js(&other, &mut peer, address).await;
        assert_eq!(facts(&other).await, facts(&multi).await);
        let few = sparse().await;
        let (left, right) = common::join(&multi, &few, &Replicate::live());
        for feed in &feeds {
            let copy = held(&few, &feed.key().to_string(), 0).await;
            assert_eq!(copy.fetch(13).await.unwrap(), block(6, 13, 30));
            assert_eq!((copy.len(), copy.downloaded()), (21, 1));
        }
        // The sparse copy has what it asked for; of what it is not asked for the other side cannot know.
        right.in_sync().await.unwrap();
        right.close();
        common::finish(left).await;
        common::finish(right).await;
        // A writer goes on from old signatures with new ones.
        feeds[1].append("newer").await.unwrap();
        sync_js(&multi, &mut peer, address).await;
        multi.close().await.unwrap();
    });
}

/// Standard base64, for the JS peer's command line.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(ALPHABET[(bits & 63) as usize]);
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            let mut four = [digit(bits >> 18), digit(bits >> 12), digit(bits >> 6), digit(bits)];
            four[chunk.len() + 1..].fill('=');
            four
        })
        .collect()
}

/// The name of our extension is all that JS sees of it, in either role: feeds that both have are listed and opened as ever.
#[test]
fn js_does_not_notice_that_we_would_reconcile() {
    run(async {
        let (mut peer, address) = js(|| JsPeer::listen(&[]));
        js(|| peer.append("js", 3, 100, 1));
        let multi = memory().await;
        for name in ["a", "b"] {
            multi.writer(name).await.unwrap().append(name).await.unwrap();
        }
        sync_js(&multi, &mut peer, address).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for initiator in [true, false] {
            for reconcile in [None, Some(false)] {
                let options = Replicate { reconcile, ..Replicate::default() };
                let sync = if initiator {
                    join_js(&multi, address, options).await
                } else {
                    js(|| peer.connect(listener.local_addr()?));
                    multi.replicate(listener.accept().await.unwrap().0, Role::Responder, options)
                };
                let totals = sync.finish().await.unwrap();
                assert_eq!((totals.moved.feeds, totals.moved.in_step), (3, 0), "{initiator} {reconcile:?}");
                assert!(totals.stream.messages_out > 2 * 3, "{:?}", totals.stream);
                assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
            }
        }
        assert_eq!(facts(&multi).await, js_facts(&js(|| peer.feeds())));
    });
}
