//! How far a sync is, and when both sides hold the same, with npm's multifeed 6 as the other side, in both roles.

use crate::common;

use std::net::SocketAddr;

use common::{facts, hang_up_js, held, join_js, js, js_facts, memory, run};
use multifeed_testkit::blocks::blocks;
use multifeed_testkit::js::{self as testkit, JsPeer};
use multifeed_tokio::{Multifeed, Replicate, Replication, Role, SyncEvent};
use serde_json::json;
use tokio::net::TcpListener;

/// A session with a JS peer that was spawned with these options: we connect, or it does.
async fn join(multi: &Multifeed, connects: bool, options: &[&str], replicate: Replicate) -> (JsPeer, Replication) {
    if !connects {
        let (peer, address) = js(|| JsPeer::listen(options));
        return (peer, join_js(multi, address, replicate).await);
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let mut peer = js(|| JsPeer::spawn(options));
    js(|| peer.connect(address));
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    (peer, multi.replicate(stream, Role::Responder, replicate))
}

/// JS holds the same as we do, as it says itself. What we sent last may still be on its way to it.
async fn assert_same(multi: &Multifeed, peer: &mut JsPeer) {
    let (feeds, held) = multi.feeds().iter().fold((0, 0), |(feeds, held), feed| (feeds + 1, held + feed.downloaded()));
    js(|| peer.wait(feeds, held, testkit::TIMEOUT));
    assert_eq!(facts(multi).await, js_facts(&js(|| peer.feeds())));
}

#[test]
fn in_sync_with_js_again_and_again() {
    for connects in [false, true] {
        run(async {
            let multi = memory().await;
            let ours = multi.writer("rust").await.unwrap();
            ours.append_batch(blocks(200, 100, 1)).await.unwrap();
            let (mut peer, sync) = join(&multi, connects, &["--live"], Replicate::live()).await;
            sync.in_sync().await.unwrap();
            assert_same(&multi, &mut peer).await;

            // What we append, what it appends, a writer of its own that is new, and one of ours.
            for round in 0..3 {
                ours.append_batch(blocks(20, 50, 2)).await.unwrap();
                sync.in_sync().await.unwrap();
                assert_same(&multi, &mut peer).await;
                let key = js(|| peer.append("js", 30, 100, 3));
                held(&multi, &key, 30 * (round + 1)).await;
                multi.in_sync().await.unwrap();
                assert_same(&multi, &mut peer).await;
            }
            let late = multi.writer("late").await.unwrap();
            late.append("x").await.unwrap();
            multi.in_sync().await.unwrap();
            assert_same(&multi, &mut peer).await;

            let state = sync.state().await.unwrap();
            assert!(state.in_sync);
            assert_eq!((state.feeds, state.feeds_in_sync, state.missing_here, state.missing_there), (3, 3, 0, 0));
            assert_eq!((state.moved.blocks_sent, state.moved.blocks_received), (261, 90));
            for feed in multi.feeds() {
                let [peer] = &feed.peers().await.unwrap()[..] else { panic!("one peer") };
                assert!(peer.info.in_sync && peer.info.told);
                assert_eq!(peer.info.remote_blocks, Some(feed.len()));
            }
            // It is in sync as it is asked, and JS leaves; a session of which JS reported no error ended well here too.
            sync.in_sync().await.unwrap();
            js(|| peer.close());
            sync.finish().await.unwrap();
        });
    }
}

/// JS that already holds what we have says so: nothing has to move.
#[test]
fn what_js_holds_already_is_known() {
    for connects in [false, true] {
        run(async {
            let multi = memory().await;
            multi.writer("rust").await.unwrap().append_batch(blocks(500, 20, 1)).await.unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().to_str().unwrap();
            let options = ["--live", "--store", path];
            for moved in [500, 0] {
                let (mut peer, sync) = join(&multi, connects, &options, Replicate::live()).await;
                sync.in_sync().await.unwrap();
                assert_eq!(sync.state().await.unwrap().moved.blocks_sent, moved);
                assert_same(&multi, &mut peer).await;
                hang_up_js(sync, &mut peer).await;
                js(|| peer.close());
            }
        });
    }
}

/// A JS peer that serves nothing does not report what it has: its silence counts as having all of it.
#[test]
fn js_that_serves_nothing_is_in_sync_when_it_asks_for_nothing_more() {
    for connects in [false, true] {
        run(async {
            let multi = memory().await;
            multi.writer("rust").await.unwrap().append_batch(blocks(100, 100, 1)).await.unwrap();
            let options = ["--live", "--upload", "false"];
            let (mut peer, sync) = join(&multi, connects, &options, Replicate::live()).await;
            sync.in_sync().await.unwrap();
            assert_same(&multi, &mut peer).await;
            hang_up_js(sync, &mut peer).await;
        });
    }
}

/// Blocks that neither side has are named, and a one-shot sync ends all the same.
#[test]
fn holes_that_js_cannot_fill_are_named() {
    for connects in [false, true] {
        run(async {
            let spec = json!({"copies": [{"append": [{"count": 60, "size": 4, "seed": 9}], "have": [[0, 10], [13, 20], [21, 60]]}]});
            let folder = tempfile::tempdir().unwrap();
            let key = js(|| testkit::make(folder.path(), &spec))[0].key.clone();
            let multi = memory().await;
            let path = folder.path().to_str().unwrap();
            let (mut peer, mut sync) = join(&multi, connects, &["--live", "--store", path], Replicate::default()).await;
            let mut newest = None;
            while let Some(event) = sync.next().await {
                if let SyncEvent::Progress(state) = event {
                    newest = Some(state);
                }
            }
            let totals = sync.finish().await.unwrap();
            let [holes] = &totals.moved.holes[..] else { panic!("{totals:?}") };
            assert_eq!((holes.key.to_string(), holes.blocks, holes.unlisted), (key.clone(), 4, 0));
            assert_eq!(holes.ranges, [10..13, 20..21]);
            assert_eq!(newest.expect("progress").moved.blocks_received, 56);
            assert_eq!(multi.feed(&key).expect("it came").downloaded(), 56);
            assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
        });
    }
}
