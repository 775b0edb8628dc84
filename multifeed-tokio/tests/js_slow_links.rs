//! Real JS peers behind slow links: what is said of blocks that are on their way, and who is left waiting.

use crate::common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::*;
use multifeed_testkit::blocks::block;
use multifeed_testkit::js::JsPeer;
use multifeed_testkit::throttle::Throttle;
use multifeed_tokio::{Replicate, Replication, Role, SyncEvent};
use serde_json::json;
use tokio::time::{sleep, timeout};

/// One block that takes 22 s, which is longer than a request may go unanswered. It comes, and nobody is in sync before.
async fn a_block_longer_than_a_timeout(role: Role) {
    let multi = memory().await;
    let mut peer = js(|| JsPeer::spawn(&["--live"]));
    let key = js(|| peer.append("photos", 1, 660_000, 1));
    let mut sync = join_slowly(&multi, &mut peer, role, Throttle::rate(30_000), Replicate::live()).await;
    let start = Instant::now();
    let held = || multi.feed(key.as_str()).is_some_and(|feed| feed.downloaded() == 1);
    while !held() {
        let event =
            timeout(Duration::from_secs(40), sync.next()).await.expect("the block does not come").expect("it ends");
        if let SyncEvent::Progress(state) = event {
            assert!(state.moved.blocks_received == 0 || held(), "the handle does not show the block");
            assert!(!state.in_sync || held(), "in sync after {:?} without the block", start.elapsed());
        }
    }
    assert!(start.elapsed() > Duration::from_secs(20), "the link is too fast to show anything");
    timeout(Duration::from_secs(10), sync.in_sync()).await.expect("both hold it").unwrap();
    hang_up_js(sync, &mut peer).await;
}

/// A JS peer on a slow link that also reads from us does not wait so long for an answer that it gives up, which it does after 20 s.
async fn a_js_peer_that_gives_and_takes(role: Role) {
    let multi = memory().await;
    let ours = multi.writer("ours").await.unwrap();
    ours.append_batch((0..64).map(|index| block(9, index, 65_536))).await.unwrap();
    let mut peer = js(|| JsPeer::spawn(&["--live"]));
    for feed in 0..10 {
        js(|| peer.append(&format!("feed {feed}"), 64, 65_536, feed));
    }
    let sync = join_slowly(&multi, &mut peer, role, Throttle::rate(1_000_000), Replicate::live()).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(24) {
        if let Some(error) = js(|| peer.poll_event("ended")) {
            panic!("JS gave up after {:?}: {error}; {}", start.elapsed(), peer.history());
        }
        sleep(Duration::from_millis(100)).await;
    }
    let blocks: u64 = multi.feeds().iter().map(|feed| feed.downloaded()).sum();
    assert!(blocks > 64 + 100, "{blocks} blocks after 24 s at 1 MB/s");
    hang_up_js(sync, &mut peer).await;
}

/// At 10 kB/s each way, what a JS peer asks for waits behind what it was asked for: not so long that it gives up. JS with JS completes this too.
async fn a_js_peer_that_gives_and_takes_at_10_kilobytes_a_second(role: Role) {
    let multi = memory().await;
    let ours = multi.writer("ours").await.unwrap();
    ours.append_batch((0..100).map(|index| block(9, index, 4_000))).await.unwrap();
    let mut peer = js(|| JsPeer::spawn(&["--live"]));
    let key = js(|| peer.append("theirs", 100, 4_000, 1));
    let sync = join_slowly(&multi, &mut peer, role, Throttle::rate(10_000), Replicate::live()).await;
    in_sync_before_js_gives_up(&sync, &mut peer).await;
    assert_eq!(multi.feed(key.as_str()).unwrap().downloaded(), 100);
    assert!(js(|| peer.feeds()).iter().all(|feed| feed.downloaded == 100));
    hang_up_js(sync, &mut peer).await;
}

/// Both directions carry blocks at once. Each alone needs 22 s, and JS with JS 22 to 34 s for both.
async fn both_directions_at_once(role: Role) {
    let multi = memory().await;
    let ours = multi.writer("ours").await.unwrap();
    ours.append_batch((0..60).map(|index| block(9, index, 16_384))).await.unwrap();
    let mut peer = js(|| JsPeer::spawn(&["--live"]));
    let key = js(|| peer.append("theirs", 60, 16_384, 1));
    let sync = join_slowly(&multi, &mut peer, role, Throttle::rate(45_000), Replicate::live()).await;
    let start = Instant::now();
    let received = || multi.feed(key.as_str()).map_or(0, |feed| feed.downloaded());
    let mut halfway = None;
    while received() < 60 || js(|| peer.feeds()).iter().any(|feed| feed.downloaded < 60) {
        if let Some(error) = js(|| peer.poll_event("ended")) {
            panic!("JS gave up after {:?}: {error}; {}", start.elapsed(), peer.history());
        }
        sleep(Duration::from_millis(200)).await;
        if start.elapsed() > Duration::from_secs(15) {
            halfway.get_or_insert_with(received);
        }
    }
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(36), "{elapsed:?}, {halfway:?} blocks received after 15 s");
    hang_up_js(sync, &mut peer).await;
}

/// Many feeds, and 4 s until an answer can come: JS reads all of them before any request is 20 s old, as it does from JS.
async fn a_js_peer_that_reads_many_feeds_from_far_away(role: Role) {
    let multi = memory().await;
    for feed in 0..200 {
        let writer = multi.writer(format!("feed {feed}").as_str()).await.unwrap();
        writer.append_batch((0..2).map(|index| block(feed, index, 500))).await.unwrap();
    }
    let mut peer = js(|| JsPeer::spawn(&["--live"]));
    let link = Throttle { delay: Duration::from_secs(2), ..Throttle::rate(50_000) };
    let sync = join_slowly(&multi, &mut peer, role, link, Replicate::live()).await;
    in_sync_before_js_gives_up(&sync, &mut peer).await;
    assert_eq!(js(|| peer.feeds()).iter().map(|feed| feed.downloaded).sum::<u64>(), 400);
    hang_up_js(sync, &mut peer).await;
}

/// Waits until both hold the same. JS gives up after 20 s without an answer, and nothing here takes 90 s.
async fn in_sync_before_js_gives_up(sync: &Replication, peer: &mut JsPeer) {
    let start = Instant::now();
    let in_sync = sync.in_sync();
    let mut in_sync = std::pin::pin!(in_sync);
    while timeout(Duration::from_millis(200), &mut in_sync).await.is_err() {
        let (elapsed, sent) = (start.elapsed(), sync.state().await.unwrap().moved.blocks_sent);
        if let Some(error) = js(|| peer.poll_event("ended")) {
            panic!("JS gave up after {elapsed:?}, {sent} blocks sent: {error}; {}", peer.history());
        }
        assert!(elapsed < Duration::from_secs(90), "{sent} blocks sent after {elapsed:?}");
    }
}

/// A remote on a slow link was met first, and a second one has all of it too and is fast. JS needs 3.6 s.
async fn a_slow_remote_met_first(role: Role) {
    let multi = memory().await;
    let seed = "5a".repeat(32);
    let mut peers = Vec::new();
    let mut key = String::new();
    for _ in 0..2 {
        let mut peer = js(|| JsPeer::spawn(&["--live"]));
        js(|| peer.call(json!({"cmd": "writer", "name": "w", "seed": seed})));
        key = js(|| peer.append("w", 200, 10_000, 1));
        peers.push(peer);
    }
    let slow = Throttle::rate(50_000);
    let first = join_slowly(&multi, &mut peers[0], role, slow, Replicate::live()).await;
    held(&multi, &key, 1).await;
    let start = Instant::now();
    let fast = Throttle::rate(100_000_000);
    let second = join_slowly(&multi, &mut peers[1], role, fast, Replicate::live()).await;
    timeout(Duration::from_secs(20), held(&multi, &key, 200)).await.expect("the fast remote was left idle");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    // The slow one is done with what it was asked for, too, and neither was harmed.
    timeout(Duration::from_secs(20), first.in_sync()).await.expect("the slow remote is not in sync").unwrap();
    for (sync, peer) in [first, second].into_iter().zip(&mut peers) {
        hang_up_js(sync, peer).await;
    }
}

/// A JS peer that fetches only what is asked for never says that it is done. Our side, which is not live, ends well all the same.
async fn a_sparse_js_peer(role: Role) {
    let multi = memory().await;
    multi.writer("ours").await.unwrap().append_batch(vec!["block"; 20]).await.unwrap();
    let mut peer = js(|| JsPeer::spawn(&["--sparse"]));
    js(|| peer.append("theirs", 20, 100, 1));
    let link = Throttle { delay: Duration::from_millis(300), ..Throttle::rate(100_000) };
    let sync = join_slowly(&multi, &mut peer, role, link, Replicate::default()).await;
    let end = timeout(Duration::from_secs(20), sync.finish()).await.expect("it hangs");
    assert_eq!(end.unwrap().moved.blocks_received, 20);
    assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
}

/// A JS peer that asked for all that it lacks says nothing while the answers are on their way, here for 16 s. It is not left before it has them.
async fn a_js_reader_that_waits_for_what_it_asked(role: Role) {
    let multi = memory().await;
    let ours = multi.writer("ours").await.unwrap();
    ours.append_batch((0..20).map(|index| block(9, index, 40_000))).await.unwrap();
    let mut peer = js(|| JsPeer::spawn(&[]));
    let sync = join_slowly(&multi, &mut peer, role, Throttle::rate(40_000), Replicate::default()).await;
    let in_sync = sync.in_sync();
    let (in_sync, end) =
        timeout(Duration::from_secs(60), async { tokio::join!(in_sync, sync.finish()) }).await.expect("it hangs");
    assert_eq!(end.unwrap().moved.blocks_sent, 20);
    in_sync.expect("JS has all of it");
    assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
    let theirs = js(|| peer.feeds());
    assert_eq!(theirs[0].downloaded, 20);
}

/// One block takes a JS peer 30 s, and it gives up after 20 s. That is said while the block is sent, before JS gives up.
async fn a_block_that_js_does_not_wait_for(role: Role) {
    let multi = memory().await;
    let ours = multi.writer("ours").await.unwrap();
    let sizes = [20_000, 20_000, 20_000, 20_000, 20_000, 1_200_000];
    ours.append_batch(sizes.into_iter().zip(0..).map(|(size, index)| block(9, index, size))).await.unwrap();
    let mut peer = js(|| JsPeer::spawn(&["--live"]));
    // What the system holds is not known to be on its way: small buffers show the link's rate soon.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(64 * 1024).unwrap();
    let link = Throttle { buffer: 32 * 1024, ..Throttle::rate(40_000) };
    let stream = match role {
        Role::Initiator => {
            let reply = js(|| peer.call(json!({"cmd": "listen", "address": "127.0.0.1:0"})));
            let target: SocketAddr = reply["address"].as_str().unwrap().parse().unwrap();
            socket.connect(link.listen(target).unwrap()).await.unwrap()
        }
        Role::Responder => {
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = socket.listen(1).unwrap();
            let address = link.listen(listener.local_addr().unwrap()).unwrap();
            js(|| peer.connect(address));
            listener.accept().await.unwrap().0
        }
    };
    let mut sync = multi.replicate(stream, role, Replicate::live());
    let start = Instant::now();
    let told = loop {
        let event = timeout(Duration::from_secs(30), sync.next()).await.expect("nothing is said").expect("it ends");
        if let SyncEvent::SlowBlock { key, index, size, per_second } = event {
            assert_eq!((key, index, size), (ours.key(), 5, 1_200_000));
            // What the system and the link hold counts as sent at first. 10 s for the block are the bound.
            assert!((20_000..=120_000).contains(&per_second), "{per_second}");
            break start.elapsed();
        }
    };
    assert!(js(|| peer.poll_event("ended")).is_none(), "JS gave up before");
    assert!(told < Duration::from_secs(15), "{told:?}");
    let ended = js(|| peer.event("ended"));
    assert_eq!(ended["clean"], false, "{}", peer.history());
    let mut again = 0;
    while let Some(event) = sync.next().await {
        again += u32::from(matches!(event, SyncEvent::SlowBlock { .. }));
    }
    assert_eq!(again, 0, "it was said");
}

macro_rules! in_both_roles {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use super::*;

            #[test]
            fn as_initiator() {
                run(super::$scenario(Role::Initiator));
            }

            #[test]
            fn as_responder() {
                run(super::$scenario(Role::Responder));
            }
        }
    )+};
}

in_both_roles!(
    a_block_longer_than_a_timeout,
    a_js_peer_that_gives_and_takes,
    both_directions_at_once,
    a_js_peer_that_gives_and_takes_at_10_kilobytes_a_second,
    a_slow_remote_met_first,
    a_sparse_js_peer,
    a_js_peer_that_reads_many_feeds_from_far_away,
    a_js_reader_that_waits_for_what_it_asked,
    a_block_that_js_does_not_wait_for,
);
