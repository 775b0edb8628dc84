//! Sessions that stay.

use futures_lite::future::zip;
use multifeed_driver::{Error, FeedKey, MultifeedEvent, Replicate};

use super::{Adapter, assert_same, connect, connect_with, ends, fill, filled, held, memory};

/// Blocks and writers that come while a session runs, on either side.
pub async fn late_writers_and_late_blocks<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let early = filled(&a, "early", 1, 10, 100).await;
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    held(&b, early.key(), 10).await;

    fill(&early, 1, 1, 100).await;
    held(&b, early.key(), 11).await;
    fill(&early, 1, 500, 100).await;
    held(&b, early.key(), 511).await;

    let late = filled(&b, "late", 2, 20, 100).await;
    held(&a, late.key(), 20).await;
    let empty = a.writer("empty at first").await.unwrap();
    assert!(b.feed(empty.key()).is_none(), "a feed of nothing is here");
    fill(&empty, 3, 3, 100).await;
    held(&b, empty.key(), 3).await;

    let (here, there) = zip(left.in_sync(), right.in_sync()).await;
    here.unwrap();
    there.unwrap();
    left.close();
    let (left, right) = ends(left, right).await;
    assert_eq!(left.unwrap().moved.blocks_sent, 514);
    assert_eq!(right.unwrap().moved.blocks_sent, 20);
    assert_same(&early, &b).await;
    assert_same(&late, &a).await;
    assert_same(&empty, &b).await;
}

/// A, B and C in a row: what A and C write comes to both.
pub async fn gossip_over_a_middle<A: Adapter>() {
    let (a, b, c) = (memory().await, memory().await, memory().await);
    let (ab, ba) = connect::<A>(&a, &b, &Replicate::live());
    let (bc, cb) = connect::<A>(&b, &c, &Replicate::live());
    let left = filled(&a, "left", 1, 30, 100).await;
    held(&c, left.key(), 30).await;
    let right = filled(&c, "right", 2, 30, 100).await;
    held(&a, right.key(), 30).await;
    fill(&left, 1, 100, 100).await;
    held(&c, left.key(), 130).await;
    fill(&right, 2, 1, 100).await;
    held(&a, right.key(), 31).await;
    assert_same(&left, &c).await;
    assert_same(&right, &a).await;

    for sync in [&ab, &ba, &bc, &cb] {
        sync.in_sync().await.unwrap();
    }
    b.close().await.unwrap();
    for sync in [ab, ba, bc, cb] {
        sync.finish().await.unwrap();
    }
}

/// The multifeed's own events: each feed once, then its growth.
pub async fn events_tell_of_feeds_and_blocks<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let mut events = b.events();
    let feed = filled(&a, "a", 1, 5, 10).await;
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    match events.next().await {
        Some(MultifeedEvent::Feed(new)) => assert_eq!(new.key(), feed.key()),
        other => panic!("{other:?}"),
    }
    loop {
        match events.next().await {
            Some(MultifeedEvent::Blocks(grown)) if grown.downloaded() == 5 => break,
            Some(MultifeedEvent::Blocks(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    // A hundred appends that nobody takes note of are one event.
    let local = b.writer("local").await.unwrap();
    for _ in 0..100 {
        local.append("x").await.unwrap();
    }
    let (here, there) = zip(left.in_sync(), right.in_sync()).await;
    here.unwrap();
    there.unwrap();
    assert_same(&local, &a).await;
    b.close().await.unwrap();
    let (mut created, mut grew) = (0, 0);
    while let Some(event) = events.next().await {
        match event {
            MultifeedEvent::Feed(new) => {
                assert_eq!((new, grew), (local.clone(), 0));
                created += 1;
            }
            MultifeedEvent::Blocks(grown) if grown == local => grew += 1,
            // The last event of the other feed may have come while an earlier one was looked at.
            MultifeedEvent::Blocks(grown) => assert_eq!(grown.key(), feed.key()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((created, grew, local.len()), (1, 1, 100));
    let (left, right) = ends(left, right).await;
    left.unwrap();
    right.unwrap();
}

/// Feeds that are here are listed, and each new one once; one that was removed is new again. It can be waited for by its key.
pub async fn every_feed_is_listed_once<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let (old, theirs) = (filled(&b, "old", 1, 1, 10).await, filled(&a, "theirs", 2, 1, 10).await);
    let mut feeds = b.all_feeds();
    let local = b.writer("local").await.unwrap();
    assert_eq!(feeds.next().await, Some(old.clone()));
    let (waited, (left, right)) =
        zip(b.wait_for(theirs.key()), async { connect::<A>(&a, &b, &Replicate::live()) }).await;
    let copy = waited.unwrap();
    assert_eq!((copy.key(), feeds.next().await), (theirs.key(), Some(local.clone())));
    assert_eq!(feeds.next().await, Some(copy.clone()));
    assert_eq!(b.wait_for(old.key()).await.unwrap(), old);
    copy.remove().await.unwrap();
    let again = b.add(theirs.key()).await.unwrap();
    assert_ne!(again, copy);
    assert_eq!(feeds.next().await, Some(again));
    let (nobodys, closed) = zip(b.wait_for(FeedKey::new([9; 32])), b.close()).await;
    assert!(matches!(nobodys, Err(Error::Closed)), "{nobodys:?}");
    closed.unwrap();
    assert_eq!(feeds.next().await, None);
    let (left, right) = ends(left, right).await;
    left.unwrap();
    right.unwrap();
}

/// One side stays, the other does not: the session ends when everything is there.
pub async fn one_live_side<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let ours = filled(&a, "a", 1, 10, 100).await;
    let theirs = filled(&b, "b", 2, 10, 100).await;
    let (left, right) = connect_with::<A>(&a, Replicate::live(), &b, Replicate::default());
    let in_sync = zip(left.in_sync(), right.in_sync());
    let ((here, there), (left, right)) = zip(in_sync, ends(left, right)).await;
    here.unwrap();
    there.unwrap();
    left.unwrap();
    right.unwrap();
    assert_same(&ours, &b).await;
    assert_same(&theirs, &a).await;
}
