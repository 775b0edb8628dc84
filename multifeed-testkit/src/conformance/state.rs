//! How far a sync is, and what is on the disk.

use multifeed_driver::{Error, MemoryStorage, Multifeed, MultifeedEvent, Options, Replicate, SyncEvent};

use super::{Adapter, assert_same, connect, ends, fill, filled, hang_up, held, leave, memory};
use crate::disk::FaultyStorage;

/// What was appended and received before `sync_to_disk` outlives a power cut after it, at the level that promises nothing.
pub async fn what_is_synced_to_disk_outlives_a_power_cut<A: Adapter>() {
    let (storage, faults) = FaultyStorage::new(MemoryStorage::default());
    faults.record();
    let store = Multifeed::with_storage(storage, Options::default()).await.unwrap();
    let ours = filled(&store, "ours", 1, 20, 100).await;
    let other = memory().await;
    let theirs = filled(&other, "theirs", 2, 20, 100).await;
    let (left, right) = connect::<A>(&store, &other, &Replicate::live());
    held(&store, theirs.key(), 20).await;
    store.sync_to_disk().await.unwrap();
    let synced_at = faults.recorded();
    fill(&ours, 1, 20, 100).await;
    drop((left, right));
    store.close().await.unwrap();

    let record = faults.take_record();
    let mut lost = false;
    for seed in 0..20 {
        let disk = record.after_power_cut(&MemoryStorage::default(), synced_at, seed).unwrap();
        let after = Multifeed::with_storage(disk, Options::default()).await.unwrap();
        assert!(after.problems().is_empty());
        let copy = after.feed(theirs.key()).expect("the feed is there");
        assert_eq!((copy.len(), copy.downloaded()), (20, 20), "seed {seed}");
        assert_same(&theirs, &after).await;
        assert_eq!(after.feed(ours.key()).expect("the writer is there").len(), 20, "seed {seed}");
        // Before it, nothing was promised: the test could fail.
        let disk = record.after_power_cut(&MemoryStorage::default(), synced_at / 2, seed).unwrap();
        let before = Multifeed::with_storage(disk, Options::default()).await.unwrap();
        lost |= before.feed(theirs.key()).is_none_or(|copy| copy.downloaded() < 20);
    }
    assert!(lost);
}

/// What a session reports as received is written, and the feeds' handles show it, though nobody asks for the session's state.
pub async fn handles_show_what_is_reported<A: Adapter>() {
    let (store, other) = (memory().await, memory().await);
    let theirs = filled(&other, "theirs", 2, 1, 10).await;
    let (mut left, right) = connect::<A>(&store, &other, &Replicate::live());
    for count in 1..=100 {
        let received = loop {
            if let SyncEvent::Progress(state) = left.next().await.expect("an event") {
                break state.moved.blocks_received;
            }
        };
        let held = store.feed(theirs.key()).expect("its block came").downloaded();
        assert_eq!((received, held), (count, count));
        theirs.append("more").await.unwrap();
    }
    hang_up(left, right).await;
}

/// A writer that comes back by its key pair alone has its history again before it goes on; both report a second history.
pub async fn a_writer_comes_back_by_its_key_pair<A: Adapter>() {
    let (first, second) = (memory().await, memory().await);
    let ours = filled(&first, "w", 1, 20, 100).await;
    let again = second.writer_with("w", ours.key_pair().await.unwrap().unwrap()).await.unwrap();
    let mut events = second.events();
    let (left, mut right) = connect::<A>(&first, &second, &Replicate::default());
    let told = loop {
        if let SyncEvent::WriterBehind { key, held, len } = right.next().await.expect("an event") {
            break (key, held, len);
        }
    };
    assert_eq!(told, (ours.key(), 0, 20));
    let (left, right) = ends(left, right).await;
    left.unwrap();
    right.unwrap();
    assert_same(&ours, &second).await;
    while !matches!(events.next().await.expect("an event"), MultifeedEvent::WriterBehind(feed) if feed.key() == again.key())
    {
    }

    assert_eq!(again.append("on").await.unwrap(), 20);
    ours.append("too").await.unwrap();
    let (mut left, mut right) = connect::<A>(&first, &second, &Replicate::live());
    for sync in [&mut left, &mut right] {
        let conflict = loop {
            if let SyncEvent::Conflict { conflict, .. } = sync.next().await.expect("an event") {
                break conflict;
            }
        };
        assert_eq!((conflict.held_length, conflict.length), (21, 21));
    }
    // Two histories are never in sync.
    leave(left, right).await;
    assert_eq!(
        (ours.get(20).await.unwrap().unwrap(), again.get(20).await.unwrap().unwrap()),
        ("too".into(), "on".into())
    );
}

/// Both sides, and each store, come in sync, fall out of it by an append, and come back.
pub async fn in_sync_again_and_again<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let (ours, theirs) = (filled(&a, "a", 1, 300, 100).await, filled(&b, "b", 2, 20, 100).await);
    let (mut left, right) = connect::<A>(&a, &b, &Replicate::live());
    // Asked for before the handshake, on the session and on the store.
    let (one, other) = futures_lite::future::zip(left.in_sync(), b.in_sync()).await;
    one.unwrap();
    other.unwrap();
    right.in_sync().await.unwrap();
    assert_same(&ours, &b).await;
    assert_same(&theirs, &a).await;
    let state = left.state().await.unwrap();
    assert!(state.in_sync);
    assert_eq!((state.feeds, state.feeds_in_sync, state.missing_here, state.missing_there), (2, 2, 0, 0));
    assert_eq!((state.moved.blocks_sent, state.moved.bytes_sent, state.moved.blocks_received), (300, 30_000, 20));

    for round in 1..=5 {
        fill(&ours, 1, 10, 100).await;
        left.in_sync().await.unwrap();
        // What was sent may be on its way: the other side says when it is there.
        let there = held(&b, ours.key(), 300 + 10 * round).await;
        b.in_sync().await.unwrap();
        assert_eq!(there.downloaded(), ours.len());
    }
    let late = filled(&b, "late", 3, 5, 10).await;
    b.in_sync().await.unwrap();
    held(&a, late.key(), 5).await;

    // Progress comes without asking, the newest state at the end.
    let mut newest = None;
    let end = left.in_sync();
    left.close();
    while let Some(event) = left.next().await {
        if let SyncEvent::Progress(state) = event {
            newest = Some(state);
        }
    }
    assert_eq!(newest.expect("progress").moved.blocks_sent, 350);
    // It may have been in sync when it was asked for.
    assert!(matches!(end.await, Ok(()) | Err(Error::SessionEnded)));
    // It was in sync until then.
    left.in_sync().await.unwrap();
    assert!(matches!(left.state().await, Err(Error::SessionEnded)));
    let (left, right) = ends(left, right).await;
    left.unwrap();
    right.unwrap();
    let feed = ours.sync_state().await.unwrap();
    assert_eq!((feed.len, feed.moved.blocks_sent, feed.sessions), (350, 350, 0));
    let store = a.sync_state().await.unwrap();
    assert_eq!((store.sessions, store.all.moved.blocks_sent, store.all.moved.blocks_received), (0, 350, 25));
}

/// A session that is not live stays in sync after its end; one that breaks ends the waiting, and so does closing the store.
pub async fn waiting_for_in_sync_ends<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let ours = filled(&a, "a", 1, 50, 100).await;
    let (left, right) = connect::<A>(&a, &b, &Replicate::default());
    let all = b.in_sync();
    let (first, second) = (left.in_sync(), right.in_sync());
    let (all, first) = futures_lite::future::zip(all, first).await;
    all.unwrap();
    first.unwrap();
    second.await.unwrap();
    assert_same(&ours, &b).await;
    let again = right.in_sync();
    let (left, right) = ends(left, right).await;
    left.unwrap();
    right.unwrap();
    again.await.unwrap();

    // A remote that never says a word.
    let (near, far) = super::pair();
    let silent = A::replicate(&a, A::stream(near), multifeed_driver::Role::Initiator, Replicate::live());
    let waiting = silent.in_sync();
    drop(far);
    assert_eq!(waiting.await.unwrap_err().code(), "ERR_SESSION_ENDED");
    silent.finish().await.unwrap_err();

    // Nobody is there: it waits, until the store is closed.
    let lonely = memory().await;
    let (waiting, closed) = futures_lite::future::zip(lonely.in_sync(), lonely.close()).await;
    assert!(matches!(waiting, Err(Error::Closed)));
    closed.unwrap();
}

/// Blocks that nobody has are named, by feed and range.
pub async fn holes_are_named<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let ours = filled(&a, "a", 1, 100, 10).await;
    for range in [3..5, 40..41, 90..100] {
        ours.clear(range).await.unwrap();
    }
    let (left, right) = super::sync::<A>(&a, &b).await;
    // What a writer cleared it does not miss.
    assert_eq!(left.moved.holes, []);
    let [holes] = &right.moved.holes[..] else { panic!("{right:?}") };
    assert_eq!((holes.key, holes.blocks, holes.unlisted), (ours.key(), 13, 0));
    assert_eq!(holes.ranges, [3..5, 40..41, 90..100]);
}
