//! What an application fetches, waits for, gives up and watches.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_lite::future::{poll_once, zip};
use futures_sink::Sink;
use multifeed_driver::{
    Error, Feed, FeedEvent, KeyPair, Multifeed, Options, Place, ReadOptions, Replicate, Wait, WriteOptions,
    generate_key_pair,
};

use super::{
    Adapter, assert_same, connect, connect_with, ends, fill, filled, hang_up, held, is_closed, leave, memory,
    memory_with, sync,
};
use crate::blocks::block;

/// A multifeed that fetches only what it is asked for.
async fn sparse() -> Multifeed {
    memory_with(Options::default().with_sparse(true)).await
}

/// Waits until a multifeed knows a feed.
async fn known(multi: &Multifeed, feed: &Feed) -> Feed {
    held(multi, feed.key(), 0).await
}

/// A block is fetched from any peer that has it, now or later; what is held is returned at once.
pub async fn fetching_waits_for_a_block<A: Adapter>() {
    let (a, b, c) = (memory().await, sparse().await, sparse().await);
    let feed = filled(&a, "a", 1, 10, 100).await;
    assert_eq!(feed.fetch(3).await.unwrap(), block(1, 3, 100));
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let copy = known(&b, &feed).await;
    assert_eq!(copy.fetch(7).await.unwrap(), block(1, 7, 100));
    assert_eq!((copy.downloaded(), copy.len()), (1, 10));

    // C knows the feed from B alone, which lacks the block; A comes later.
    let (bc, cb) = connect::<A>(&b, &c, &Replicate::live());
    let far = known(&c, &feed).await;
    assert_eq!(far.fetch(7).await.unwrap(), block(1, 7, 100));
    let waiting = far.fetch(2);
    let (block_2, (ac, ca)) = zip(waiting, async {
        A::sleep(Duration::from_millis(20)).await;
        connect::<A>(&a, &c, &Replicate::live())
    })
    .await;
    assert_eq!(block_2.unwrap(), block(1, 2, 100));
    // What is yet to be written.
    let (later, ()) = zip(far.fetch(10), fill(&feed, 1, 1, 100)).await;
    assert_eq!(later.unwrap(), block(1, 10, 100));
    for (by, other) in [(left, right), (bc, cb), (ac, ca)] {
        leave(by, other).await;
    }
}

/// Each way in which waiting ends without the block has its own error.
pub async fn fetching_ends_with_typed_errors<A: Adapter>() {
    let (a, b) = (memory().await, sparse().await);
    let feed = filled(&a, "a", 1, 10, 100).await;
    let short = Wait::at_most(Duration::from_millis(20));
    assert_eq!(feed.fetch_with(10, short).await.unwrap_err().code(), "ERR_TIMEOUT");
    assert_eq!(feed.fetch_with(10, Wait::if_available()).await.unwrap_err().code(), "ERR_UNAVAILABLE");
    assert_eq!(feed.fetch(u64::MAX).await.unwrap_err().code(), "ERR_OUT_OF_RANGE");
    feed.clear(4..6).await.unwrap();
    assert!(matches!(feed.fetch(5).await, Err(Error::Cleared { index: 5, .. })));

    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let copy = known(&b, &feed).await;
    assert_eq!(copy.fetch_with(5, short).await.unwrap_err().code(), "ERR_TIMEOUT");
    assert_eq!(copy.fetch_with(5, Wait::if_available()).await.unwrap_err().code(), "ERR_UNAVAILABLE");
    assert_eq!(copy.fetch_with(6, Wait::if_available()).await.unwrap(), block(1, 6, 100));
    let (cancelled, ()) = zip(copy.fetch(5), async { copy.cancel(3..6).await.unwrap() }).await;
    assert_eq!(cancelled.unwrap_err().code(), "ERR_CANCELLED");
    let (closed, result) = zip(copy.fetch(5), b.close()).await;
    result.unwrap();
    assert!(is_closed(&closed));
    let (left, right) = ends(left, right).await;
    left.unwrap();
    right.unwrap();
}

/// A caller that drops a fetch or a download waits no longer, and nothing is kept for it.
pub async fn dropping_a_fetch_ends_it<A: Adapter>() {
    let mut options = Options::default();
    options.multifeed.limits.wants = 3;
    let multi = memory_with(options).await;
    let feed = filled(&multi, "a", 1, 1, 1).await;
    for _ in 0..50 {
        let mut first = pin!(feed.fetch(5));
        let mut second = pin!(feed.fetch(6));
        assert!(poll_once(first.as_mut()).await.is_none());
        assert!(poll_once(second.as_mut()).await.is_none());
        let download = feed.download(7..9).await.unwrap();
        assert!(feed.has(0).await.unwrap());
        let refused = feed.fetch(8).await;
        assert_eq!(refused.unwrap_err().code(), "ERR_LIMIT");
        drop(download);
    }
    // One that was let go goes on, and counts.
    feed.download(7..9).await.unwrap().detach();
    let (first, second) = (feed.download(7).await.unwrap(), feed.download(8).await.unwrap());
    assert_eq!(feed.fetch(8).await.unwrap_err().code(), "ERR_LIMIT");
    fill(&feed, 1, 9, 1).await;
    first.await.unwrap();
    second.await.unwrap();
    let _none = (feed.download(20).await.unwrap(), feed.download(21).await.unwrap(), feed.download(22).await.unwrap());
}

/// Ranges, single blocks and lists are downloaded, and no other; a dropped download is taken back.
pub async fn downloads_of_ranges_and_blocks<A: Adapter>() {
    let (a, b) = (memory().await, sparse().await);
    let feed = filled(&a, "a", 1, 2_000, 50).await;
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let copy = known(&b, &feed).await;
    copy.download(10..20).await.unwrap().await.unwrap();
    copy.download(1_999).await.unwrap().await.unwrap();
    copy.download(vec![3, 700, 3]).await.unwrap().await.unwrap();
    copy.download(30..=31).await.unwrap().await.unwrap();
    copy.download(..2).await.unwrap().await.unwrap();
    assert_eq!(copy.downloaded(), 17);
    assert_eq!(copy.downloaded_in(5..25).await.unwrap(), 10);
    assert_eq!(copy.downloaded_in(..).await.unwrap(), 17);
    assert!(copy.has_all(10..20).await.unwrap() && !copy.has_all(9..20).await.unwrap());
    assert_eq!(copy.fetch_range(695..703, Wait::default()).await.unwrap().len(), 8);

    let mut open = copy.download(1_990..).await.unwrap();
    copy.update_to(2_000, Wait::default()).await.unwrap();
    fill(&feed, 1, 5, 50).await;
    held(&b, feed.key(), 38).await;
    assert!(poll_once(&mut open).await.is_none());
    drop(open);
    fill(&feed, 1, 5, 50).await;
    copy.update_to(2_010, Wait::default()).await.unwrap();
    assert_eq!(copy.downloaded(), 24 + 9 + 5);
    copy.cancel(..).await.unwrap();
    let all = copy.download(0..2_010).await.unwrap();
    all.await.unwrap();
    assert_same(&feed, &b).await;
    leave(left, right).await;
}

/// The blocks of a feed as a stream: from anywhere to anywhere, of what is there, of what comes, of what is elsewhere.
pub async fn streams_of_blocks<A: Adapter>() {
    let (a, b) = (memory().await, sparse().await);
    let feed = filled(&a, "a", 1, 600, 10).await;
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let copy = known(&b, &feed).await;
    assert_eq!(copy.len(), 600);

    let mut all = copy.blocks(..);
    let mut count = 0;
    while let Some(read) = all.next().await {
        assert_eq!((read.unwrap(), all.index()), (block(1, count, 10).into(), u64::from(count) + 1));
        count += 1;
    }
    assert_eq!((count, all.next().await.is_none()), (600, true));
    let mut some = feed.blocks(590..595);
    for index in 590..595 {
        assert_eq!(some.next().await.unwrap().unwrap(), block(1, index, 10));
    }
    assert!(some.next().await.is_none() && feed.blocks(7..7).next().await.is_none());
    assert!(feed.blocks(601..).next().await.is_none());

    // Live, and only what is new.
    let (mut live, mut tail) = (
        copy.stream(ReadOptions { start: 598, ..ReadOptions::live() }),
        copy.stream(ReadOptions { tail: true, ..ReadOptions::live() }),
    );
    for index in 598..600 {
        assert_eq!(live.next().await.unwrap().unwrap(), block(1, index, 10));
    }
    assert!(poll_once(pin!(live.next())).await.is_none());
    let (first, ()) = zip(live.next(), fill(&feed, 1, 3, 10)).await;
    assert_eq!(first.unwrap().unwrap(), block(1, 600, 10));
    assert_eq!(tail.next().await.unwrap().unwrap(), block(1, 600, 10));
    assert_eq!(tail.next().await.unwrap().unwrap(), block(1, 601, 10));

    // Its length now, or when it comes there.
    let mut snapshot = feed.blocks(600..);
    let mut growing = feed.stream(ReadOptions { start: 600, snapshot: false, ..ReadOptions::default() });
    fill(&feed, 1, 2, 10).await;
    let (mut snapshots, mut grown) = (0, 0);
    while let Some(read) = snapshot.next().await {
        read.unwrap();
        snapshots += 1;
    }
    while let Some(read) = growing.next().await {
        read.unwrap();
        grown += 1;
    }
    assert_eq!((snapshots, grown), (3, 5));

    // Without waiting a hole is an error, and the end.
    feed.clear(2..3).await.unwrap();
    let mut strict = feed.stream(ReadOptions { wait: None, ..ReadOptions::default() });
    assert!(strict.next().await.unwrap().is_ok() && strict.next().await.unwrap().is_ok());
    assert!(matches!(strict.next().await, Some(Err(Error::NotHeld { index: 2, .. }))));
    assert!(strict.next().await.is_none());
    leave(left, right).await;
}

/// A live stream ends when the application closes its multifeed, whether it waits for a block or is asked for one later. What has an end yields an error
/// instead, so that a part is never taken for the whole.
pub async fn live_streams_end_with_their_multifeed<A: Adapter>() {
    let multi = memory().await;
    let feed = filled(&multi, "a", 1, 3, 10).await;
    let mut live = feed.stream(ReadOptions::live());
    for index in 0..3 {
        assert_eq!(live.next().await.unwrap().unwrap(), block(1, index, 10));
    }
    let mut asked_later = feed.stream(ReadOptions::live());
    let mut waits = feed.blocks(3..5);
    let mut cut = feed.blocks(..);
    let mut all_feeds = multi.all_feeds();
    assert_eq!(all_feeds.next().await, Some(feed.clone()));
    // Both wait in the store while it is closed.
    let (end, (error, closed)) = zip(live.next(), zip(waits.next(), multi.close())).await;
    closed.unwrap();
    assert!(end.is_none() && live.next().await.is_none());
    assert!(matches!(error, Some(Err(Error::Closed))), "{error:?}");
    assert!(asked_later.next().await.is_none());
    assert!(matches!(cut.next().await, Some(Err(Error::Closed))) && cut.next().await.is_none());
    assert!(all_feeds.next().await.is_none());
}

/// A stream that nobody takes from fetches nothing ahead.
pub async fn a_stream_waits_for_its_reader<A: Adapter>() {
    let (a, b) = (memory().await, sparse().await);
    let feed = filled(&a, "a", 1, 100, 1000).await;
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let copy = known(&b, &feed).await;
    let mut blocks = copy.blocks(..);
    for _ in 0..3 {
        blocks.next().await.unwrap().unwrap();
    }
    A::sleep(Duration::from_millis(50)).await;
    assert_eq!(copy.downloaded(), 3);
    leave(left, right).await;
}

/// Bytes are found, here and with the help of peers.
pub async fn seeks<A: Adapter>() {
    let (a, b) = (memory().await, sparse().await);
    let feed = a.writer("a").await.unwrap();
    feed.append_batch(["one", "", "three", "fourteen"]).await.unwrap();
    let places = [(0, 0, 0), (2, 0, 2), (3, 2, 0), (7, 2, 4), (8, 3, 0), (15, 3, 7), (16, 4, 0)];
    for (byte, block, offset) in places {
        assert_eq!(feed.seek(byte).await.unwrap(), Some(Place { block, offset }), "byte {byte}");
    }
    assert_eq!(feed.seek(17).await.unwrap(), None);
    assert_eq!(feed.seek_with(17, Wait::if_available()).await.unwrap_err().code(), "ERR_UNAVAILABLE");
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let copy = known(&b, &feed).await;
    assert_eq!(copy.seek(7).await.unwrap(), None);
    for (byte, block, offset) in places {
        assert_eq!(copy.seek_with(byte, Wait::default()).await.unwrap(), Place { block, offset }, "byte {byte}");
    }
    leave(left, right).await;
}

/// A feed's length is waited for, with or without its blocks.
pub async fn updates<A: Adapter>() {
    let (a, b) = (memory().await, sparse().await);
    let feed = filled(&a, "a", 1, 5, 10).await;
    let nobody = feed.update(Wait::if_available()).await;
    assert_eq!(nobody.unwrap_err().code(), "ERR_UNAVAILABLE");
    assert_eq!(feed.update_to(5, Wait::default()).await.unwrap(), 5);
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let copy = known(&b, &feed).await;
    assert_eq!((copy.len(), copy.byte_len(), copy.downloaded()), (5, 50, 0));
    assert_eq!(copy.update(Wait::if_available()).await.unwrap_err().code(), "ERR_UNAVAILABLE");
    let (grown, ()) = zip(copy.update_to(7, Wait::default()), fill(&feed, 1, 3, 10)).await;
    assert_eq!((grown.unwrap(), copy.downloaded()), (8, 0));
    assert_eq!(copy.remote_len().await.unwrap(), 8);
    leave(left, right).await;
}

/// Blocks are given up, peers hear of it, an audit gives up what is damaged, and the next sync brings it back.
pub async fn clearing_and_auditing<A: Adapter>() {
    let folder = tempfile::tempdir().unwrap();
    let a = memory().await;
    let b = Multifeed::open(folder.path(), Options::default()).await.unwrap();
    let feed = filled(&a, "a", 1, 100, 100).await;
    sync::<A>(&a, &b).await;
    let copy = b.feed(feed.key()).unwrap();
    assert_eq!(copy.clear(10..30).await.unwrap(), 20);
    assert_eq!((copy.downloaded(), copy.len(), copy.get(15).await.unwrap()), (80, 100, None));
    assert_eq!(copy.audit().await.unwrap().valid, 80);
    b.close().await.unwrap();

    let data = folder.path().join("0/data");
    let mut bytes = std::fs::read(&data).unwrap();
    assert_eq!(bytes.len(), 10_000);
    bytes[4_250] ^= 1;
    bytes[4_350] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let b = Multifeed::open(folder.path(), Options::default()).await.unwrap();
    assert!(b.problems().is_empty() && b.recovered().is_empty());
    let copy = b.feed(feed.key()).unwrap();
    assert_eq!(copy.downloaded(), 80);
    let audit = copy.audit().await.unwrap();
    assert_eq!((audit.valid, audit.invalid), (78, 2));
    assert_eq!(audit.dropped.into_iter().flatten().collect::<Vec<_>>(), [42, 43]);
    assert_eq!(copy.downloaded(), 78);
    sync::<A>(&a, &b).await;
    assert_same(&feed, &b).await;
    assert_eq!(copy.audit().await.unwrap().invalid, 0);
    b.close().await.unwrap();
}

/// What a store gives up of a feed while a session runs, the session fetches again, if the remote has it and all is fetched.
pub async fn what_is_given_up_is_fetched_again<A: Adapter>() {
    let folder = tempfile::tempdir().unwrap();
    let a = memory().await;
    let b = Multifeed::open(folder.path(), Options::default()).await.unwrap();
    let feed = filled(&a, "a", 1, 100, 100).await;
    for alike in [false, true] {
        // Of a feed that both hold alike no channel is open.
        let (left, right) = connect::<A>(&a, &b, &Replicate::live());
        let copy = held(&b, feed.key(), 100).await;
        right.in_sync().await.unwrap();
        assert_eq!(copy.clear(10..30).await.unwrap(), 20, "{alike}");
        held(&b, feed.key(), 100).await;
        assert_same(&feed, &b).await;
        let data = folder.path().join("0/data");
        let mut bytes = std::fs::read(&data).unwrap();
        bytes[4_250] ^= 1;
        bytes[4_350] ^= 1;
        std::fs::write(&data, bytes).unwrap();
        let audit = copy.audit().await.unwrap();
        assert_eq!(audit.dropped.into_iter().flatten().collect::<Vec<_>>(), [42, 43], "{alike}");
        held(&b, feed.key(), 100).await;
        assert_same(&feed, &b).await;
        hang_up(left, right).await;
    }
    // One that fetches only what is asked for leaves it.
    let (left, right) = connect_with::<A>(&a, Replicate::live(), &b, Replicate::live().with_sparse(true));
    let copy = held(&b, feed.key(), 100).await;
    copy.clear(10..30).await.unwrap();
    feed.append("more").await.unwrap();
    copy.fetch(100).await.unwrap();
    assert_eq!(copy.downloaded(), 81);
    leave(left, right).await;
    b.close().await.unwrap();
}

/// A feed's own events, in order, for any subscriber.
pub async fn events_of_a_feed<A: Adapter>() {
    let (a, b) = (memory().await, sparse().await);
    let feed = filled(&a, "a", 1, 5, 10).await;
    let mut ours = feed.events().await.unwrap();
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let copy = known(&b, &feed).await;
    let mut theirs = copy.events().await.unwrap();
    assert_eq!(ours.next().await, Some(FeedEvent::PeerOpen { peer: Some(left.id()) }));
    copy.fetch(2).await.unwrap();
    assert_eq!(ours.next().await, Some(FeedEvent::Upload { blocks: 2..3 }));
    loop {
        match theirs.next().await.unwrap() {
            FeedEvent::Download { blocks } => break assert_eq!(blocks, 2..3),
            FeedEvent::Append { len } => assert_eq!(len, 5),
            FeedEvent::RemoteUpdate { peer, len } => assert_eq!((peer, len), (Some(right.id()), 5)),
            FeedEvent::PeerOpen { peer } => assert_eq!(peer, Some(right.id())),
            other => panic!("{other:?}"),
        }
    }
    copy.download(0..5).await.unwrap().await.unwrap();
    loop {
        match theirs.next().await.unwrap() {
            FeedEvent::Sync => break,
            FeedEvent::Download { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let peers = copy.peers().await.unwrap();
    assert_eq!((peers.len(), peers[0].sync, peers[0].info.remote_len), (1, right.id(), 5));

    // A subscriber that does not take them loses the oldest, and reads how many.
    for _ in 0..2_000 {
        feed.append("x").await.unwrap();
        feed.clear(feed.len() - 1..).await.unwrap();
    }
    let (mut missed, mut came) = (0, 0);
    while let Some(event) = poll_once(pin!(ours.next())).await {
        match event.unwrap() {
            FeedEvent::Lagged { missed: more } => missed += more,
            _ => came += 1,
        }
    }
    // Those of the last calls may come while these are taken.
    assert!(missed >= 2_900 && came <= 1_024 + 16, "{missed} missed, {came} came");
    a.close().await.unwrap();
    let (left, right) = ends(left, right).await;
    left.unwrap();
    right.unwrap();
}

/// Fetching and serving a feed can end and begin on sessions that run.
pub async fn transfers_can_be_switched<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = filled(&a, "a", 1, 10, 100).await;
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    let copy = held(&b, feed.key(), 10).await;

    copy.set_downloading(false).await.unwrap();
    fill(&feed, 1, 5, 100).await;
    A::sleep(Duration::from_millis(30)).await;
    assert_eq!(copy.downloaded(), 10);
    copy.set_downloading(true).await.unwrap();
    held(&b, feed.key(), 15).await;

    feed.set_uploading(false).await.unwrap();
    fill(&feed, 1, 5, 100).await;
    A::sleep(Duration::from_millis(30)).await;
    assert_eq!(copy.downloaded(), 15);
    feed.set_uploading(true).await.unwrap();
    held(&b, feed.key(), 20).await;
    assert_same(&feed, &b).await;
    // What was said holds for later sessions too.
    copy.set_downloading(false).await.unwrap();
    leave(left, right).await;
    fill(&feed, 1, 5, 100).await;
    let (_, there) = sync::<A>(&a, &b).await;
    assert_eq!((there.moved.blocks_received, copy.downloaded()), (0, 20));
}

/// Signatures and roots are for everyone to check.
pub async fn signatures_and_roots<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = filled(&a, "a", 1, 3, 10).await;
    fill(&feed, 1, 4, 10).await;
    let (blocks, first) = feed.signature(0).await.unwrap().unwrap();
    let (all, last) = feed.signature(5).await.unwrap().unwrap();
    assert_eq!((blocks, all), (3, 7));
    assert_eq!(feed.signature(7).await.unwrap(), None);
    sync::<A>(&a, &b).await;
    let copy = b.feed(feed.key()).unwrap();
    assert_eq!(copy.verify_signature(3, &first).await.unwrap(), Some(true));
    assert_eq!(copy.verify_signature(7, &last).await.unwrap(), Some(true));
    assert_eq!(copy.verify_signature(7, &first).await.unwrap(), Some(false));
    assert_eq!(copy.verify_signature(8, &last).await.unwrap(), None);
    let roots = copy.root_hashes(7).await.unwrap().unwrap();
    assert_eq!(roots.iter().map(|root| (root.index, root.size)).collect::<Vec<_>>(), [(3, 40), (9, 20), (12, 10)]);
    assert_eq!(copy.root_hashes(8).await.unwrap(), None);
}

/// Key pairs are made, exported, imported, and write the same feed elsewhere once the blocks are there.
pub async fn key_pairs_come_and_go<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let pair = generate_key_pair().unwrap();
    let feed = a.writer_with("mine", pair.clone()).await.unwrap();
    assert_eq!(feed.key(), pair.public_key());
    fill(&feed, 1, 3, 10).await;
    let exported = feed.key_pair().await.unwrap().unwrap();
    let imported = KeyPair::from_secret_key(&exported.secret_key()).unwrap();
    assert_eq!(imported.public_key(), feed.key());
    sync::<A>(&a, &b).await;
    let copy = b.feed(feed.key()).unwrap();
    assert!(feed.writable() && !copy.writable() && copy.key_pair().await.unwrap().is_none());
    // A folder that is there is not made writable by that: its writer may be at work elsewhere.
    assert_eq!(b.writer_with("mine", imported).await.unwrap_err().code(), "ERR_KEY_IN_USE");
}

/// Handles are for any thread, and clones are the same feed.
pub async fn handles_cross_threads<A: Adapter>() {
    fn shared<T: Send + Sync + Clone + 'static>(value: &T) -> T {
        value.clone()
    }
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    let multi = memory().await;
    let feed = filled(&multi, "a", 1, 100, 10).await;
    let mut threads = Vec::new();
    for thread in 0..4 {
        let (multi, feed) = (shared(&multi), shared(&feed));
        threads.push(std::thread::spawn(move || {
            futures_lite::future::block_on(async {
                assert_eq!(multi.feed(feed.key()), Some(feed.clone()));
                for index in 0..100 {
                    assert_eq!(feed.fetch(index).await.unwrap(), block(1, index as u32, 10));
                }
                multi.writer(format!("t{thread}").as_str()).await.unwrap().append("x").await.unwrap();
            });
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(multi.feeds().len(), 5);
    drop(sendable(feed.blocks(..)));
    drop(sendable(feed.fetch(0)));
    drop(sendable(multi.events()));
    drop(sendable(feed.events().await.unwrap()));
}

/// A sink splits what is too long, appends in batches, and reports a batch that failed.
pub async fn a_sink_splits_and_batches<A: Adapter>() {
    let multi = memory().await;
    let feed = multi.writer("sink").await.unwrap();
    let mut sink = feed.sink(WriteOptions { max_block_bytes: Some(100) });
    let items: Vec<Vec<u8>> = (0..3000usize).map(|n| vec![n as u8; n % 350]).collect();
    for item in &items {
        poll_fn(|cx| Sink::<Vec<u8>>::poll_ready(Pin::new(&mut sink), cx)).await.unwrap();
        Pin::new(&mut sink).start_send(item.clone()).unwrap();
    }
    // Full batches went by themselves, and the rest waits.
    let before = feed.len();
    assert!(before > 0, "nothing was appended before the flush");
    poll_fn(|cx| Sink::<Vec<u8>>::poll_close(Pin::new(&mut sink), cx)).await.unwrap();
    let expected: Vec<&[u8]> = items
        .iter()
        .flat_map(|item| if item.is_empty() { vec![&item[..]] } else { item.chunks(100).collect() })
        .collect();
    assert!(before < feed.len());
    assert_eq!(feed.len(), expected.len() as u64);
    for (index, block) in (0..).zip(&expected) {
        assert_eq!(feed.get(index).await.unwrap().as_deref(), Some(*block), "block {index}");
    }
    // Batches of many, not one signature for each block.
    assert_eq!(feed.signature(0).await.unwrap().map(|(len, _)| len > 100), Some(true));

    // By its own calls it does the same.
    let mut own = multi.writer("own").await.unwrap().sink(WriteOptions { max_block_bytes: Some(2) });
    own.send("abc").await.unwrap();
    own.flush().await.unwrap();
    own.send(vec![7]).await.unwrap();
    own.close().await.unwrap();
    let own = multi.writer("own").await.unwrap();
    for (index, block) in [&b"ab"[..], b"c", b"\x07"].into_iter().enumerate() {
        assert_eq!(own.get(index as u64).await.unwrap().as_deref(), Some(block));
    }
    // Two handles of one feed are one entry of a set.
    let handles = [own.clone(), multi.feed(own.key()).unwrap(), feed.clone()];
    assert_eq!(handles.into_iter().collect::<std::collections::HashSet<_>>().len(), 2);

    // A block that no peer could be sent: of its batch nothing is appended, and what comes later is.
    let mut whole = feed.sink(WriteOptions::default());
    for item in [vec![1], vec![0; 8 << 20]] {
        poll_fn(|cx| Sink::<Vec<u8>>::poll_ready(Pin::new(&mut whole), cx)).await.unwrap();
        Pin::new(&mut whole).start_send(item).unwrap();
    }
    let failed = poll_fn(|cx| Sink::<Vec<u8>>::poll_flush(Pin::new(&mut whole), cx)).await;
    assert!(matches!(failed, Err(Error::Append(_))), "{failed:?}");
    assert_eq!(feed.len(), expected.len() as u64);
    Pin::new(&mut whole).start_send("text".to_owned()).unwrap();
    poll_fn(|cx| Sink::<String>::poll_flush(Pin::new(&mut whole), cx)).await.unwrap();
    assert_eq!(feed.head().await.unwrap().as_deref(), Some(&b"text"[..]));
}
