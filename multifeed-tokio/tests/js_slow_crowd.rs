//! Many JS peers on slow links at one of ours, which read and write at once.

use crate::common;

use std::time::{Duration, Instant};

use common::*;
use multifeed_testkit::blocks::block;
use multifeed_testkit::js::JsPeer;
use multifeed_testkit::throttle::Throttle;
use multifeed_tokio::{Replicate, Role};
use serde_json::json;
use tokio::time::{sleep, timeout};

/// JS peers, and blocks of 5 kB that each of them writes: each has 1.6 MB to fetch, which takes the slowest one 22 s at the least.
const PEERS: u32 = 16;
const BLOCKS: u32 = 20;

async fn read_and_write() {
    let multi = memory().await;
    let ours = multi.writer("ours").await.unwrap();
    ours.append_batch((0..20).map(|index| block(9, index, 5_000))).await.unwrap();
    let mut peers = Vec::new();
    let mut syncs = Vec::new();
    for number in 0..PEERS {
        let mut peer = js(|| JsPeer::spawn(&["--live"]));
        js(|| peer.append("theirs", BLOCKS, 5_000, number));
        peers.push(peer);
    }
    let start = Instant::now();
    for (number, peer) in (0..).zip(&mut peers) {
        // 75 to 150 kB/s.
        let link = Throttle { delay: Duration::from_millis(50), ..Throttle::rate(75_000 + 5_000 * number) };
        let role = if number % 2 == 0 { Role::Initiator } else { Role::Responder };
        syncs.push(join_slowly(&multi, peer, role, link, Replicate::live()).await);
    }
    let feeds = u64::from(PEERS) + 1;
    let blocks = u64::from(PEERS * BLOCKS) + 20;
    loop {
        let held: Vec<u64> =
            peers.iter_mut().map(|peer| js(|| peer.call(json!({"cmd": "wait"})))["blocks"].as_u64().unwrap()).collect();
        for (number, peer) in peers.iter_mut().enumerate() {
            let ended = js(|| peer.poll_event("ended"));
            assert!(ended.is_none(), "peer {number} gave up after {:?}: {held:?}; {}", start.elapsed(), peer.history());
        }
        if held.iter().all(|held| *held == blocks) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(90), "of {blocks} blocks, the peers hold {held:?}");
        sleep(Duration::from_millis(250)).await;
    }
    println!("all hold everything after {:?}", start.elapsed());
    timeout(Duration::from_secs(20), multi.in_sync()).await.expect("all hold everything").unwrap();
    let facts = facts(&multi).await;
    assert_eq!((facts.len() as u64, facts.iter().map(|fact| fact.2).sum::<u64>()), (feeds, blocks));
    for (sync, peer) in syncs.into_iter().zip(&mut peers) {
        assert_eq!(js_facts(&js(|| peer.feeds())), facts);
        hang_up_js(sync, peer).await;
    }
}

/// Sixteen real JS peers, half of which connect, write a feed each and fetch those of all the others from one of ours. None of them gives up, and
/// every one holds everything in the end.
#[test]
fn sixteen_that_read_and_write() {
    run(read_and_write());
}

/// A JS peer brings a new feed, and another one, which does not stay, fetches it, so that its channel closes. The rest takes that one some seconds over
/// 100 kB/s, and meanwhile more of the new feed comes. Ours does not say that it is in sync with it.
async fn a_feed_that_grows_after_its_channel_closed(role: Role) {
    for hub in [Replicate::default(), Replicate::live()] {
        let multi = memory().await;
        let ours = multi.writer("ours").await.unwrap();
        ours.append_batch((0..100).map(|index| block(9, index, 5_000))).await.unwrap();
        let mut uploader = js(|| JsPeer::spawn(&["--live"]));
        let key = js(|| uploader.append("new", 3, 100, 1));
        let uploads = join_slowly(&multi, &mut uploader, role, Throttle::rate(1_000_000), Replicate::live()).await;
        let new = held(&multi, &key, 3).await;
        let mut third = js(|| JsPeer::spawn(&[]));
        let mut sync = join_slowly(&multi, &mut third, role, Throttle::rate(100_000), hub).await;
        let there = |third: &mut JsPeer| {
            let feeds = js(|| third.feeds());
            feeds.iter().find(|feed| feed.key == key).map_or(0, |feed| feed.downloaded)
        };
        let start = Instant::now();
        while there(&mut third) < 3 || new.peers().await.unwrap().len() > 1 {
            assert!(start.elapsed() < Duration::from_secs(20), "the feed is not taken, or its channel does not close");
            sleep(Duration::from_millis(50)).await;
        }
        js(|| uploader.append("new", 2, 100, 1));
        held(&multi, &key, 5).await;
        while timeout(Duration::from_secs(30), sync.next()).await.expect("it goes on").is_some() {}
        let alike = sync.in_sync().await;
        let end = sync.finish().await.unwrap().moved;
        assert_eq!(js(|| third.event("ended"))["clean"], true, "{}", third.history());
        assert_eq!((there(&mut third), end.blocks_sent), (3, 103), "it was over before more came");
        assert_eq!((end.not_taken, end.missing), (1, 0), "{end:?}");
        alike.expect_err("in sync with one that lacks blocks");
        hang_up_js(uploads, &mut uploader).await;
    }
}

#[test]
fn a_feed_that_grows_after_its_channel_closed_as_initiator() {
    run(a_feed_that_grows_after_its_channel_closed(Role::Initiator));
}

#[test]
fn a_feed_that_grows_after_its_channel_closed_as_responder() {
    run(a_feed_that_grows_after_its_channel_closed(Role::Responder));
}
