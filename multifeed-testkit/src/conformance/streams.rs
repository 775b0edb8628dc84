//! Several multifeeds on one stream.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use multifeed_driver::proto::{Direction, Record, Tracer};
use multifeed_driver::{
    Fault, FeedKey, MemoryStorage, Multifeed, Options, ProtocolStream, Replicate, Role, StaticKeyPair, StreamEvent,
    StreamOptions, SyncError, SyncEvent,
};

use super::flow::Gated;
use super::{Adapter, Gate, assert_same, ends, fill, filled, held, memory_with};
use crate::disk::FaultyStorage;

fn root(n: u8) -> FeedKey {
    FeedKey::new([n; 32])
}

async fn memory(n: u8) -> Multifeed {
    memory_with(Options::new(root(n))).await
}

/// Both ends of a stream.
fn open<A: Adapter>() -> (ProtocolStream, ProtocolStream) {
    open_with::<A>(StreamOptions::default(), StreamOptions::default())
}

fn open_with<A: Adapter>(ours: StreamOptions, theirs: StreamOptions) -> (ProtocolStream, ProtocolStream) {
    let (left, right) = A::pair();
    (A::open_stream(A::stream(left), Role::Initiator, ours), A::open_stream(A::stream(right), Role::Responder, theirs))
}

async fn finish_both(left: ProtocolStream, right: ProtocolStream) {
    let (left, right) = futures_lite::future::zip(left.finish(), right.finish()).await;
    for totals in [left, right] {
        assert!(totals.expect("a clean end").bytes_in > 0);
    }
}

/// Three of each side, each with its own feeds, totals and end, whatever their order; writers of one name are not the same.
pub async fn several_multifeeds_on_one_stream<A: Adapter>() {
    let (left, right) = open::<A>();
    let mut ours = Vec::new();
    for n in [1, 2, 3] {
        let multi = memory(n).await;
        let feed = filled(&multi, "writer", n.into(), 10 * u32::from(n), 1000).await;
        ours.push((multi.replicate_over(&left, Replicate::default()), multi, feed));
    }
    let mut theirs = Vec::new();
    for n in [3, 1, 2] {
        let multi = memory(n).await;
        let feed = filled(&multi, "writer", 10 + u32::from(n), 5, 100).await;
        theirs.push((multi.replicate_over(&right, Replicate::default()), multi, feed));
    }
    theirs.rotate_left(1);
    for (blocks, ((our_sync, ours, our_feed), (their_sync, theirs, their_feed))) in
        (1..).map(|n| 10 * n).zip(ours.into_iter().zip(theirs))
    {
        let (our_end, their_end) = ends(our_sync, their_sync).await;
        let (our_end, their_end) = (our_end.unwrap().moved, their_end.unwrap().moved);
        assert_eq!((our_end.blocks_sent, our_end.blocks_received, our_end.feeds), (blocks, 5, 2));
        assert_eq!((their_end.blocks_sent, their_end.blocks_received, their_end.feeds), (5, blocks, 2));
        assert_same(&our_feed, &theirs).await;
        assert_same(&their_feed, &ours).await;
        assert_eq!((ours.feeds().len(), theirs.feeds().len()), (2, 2));
    }
    finish_both(left, right).await;
}

/// On a shared stream too, multifeeds that hold the same find out without a word of any feed, each on its root key's own channel; also with a
/// remote whose stream is for one multifeed alone.
pub async fn equal_ones_share_a_stream<A: Adapter>() {
    let mut pairs = Vec::new();
    for n in [1, 2] {
        let (a, b) = (memory(n).await, memory(n).await);
        for feed in 0..40 {
            filled(&a, &format!("a{feed}"), u32::from(50 * n) + feed, 2, 10).await;
        }
        pairs.push((a, b));
    }
    for in_step in [0, 40] {
        let (left, right) = open::<A>();
        let sync = |multi: &Multifeed, stream| multi.replicate_over(stream, Replicate::default());
        let syncs: Vec<_> = pairs.iter().map(|(a, b)| (sync(a, &left), sync(b, &right))).collect();
        for (ours, theirs) in syncs {
            let (ours, theirs) = ends(ours, theirs).await;
            for moved in [ours.unwrap().moved, theirs.unwrap().moved] {
                assert_eq!((moved.feeds, moved.in_step), (40, in_step));
            }
        }
        finish_both(left, right).await;
    }
    // What differs, and nothing else, is spoken of.
    let (a, b) = &pairs[0];
    filled(b, "b", 100, 3, 10).await;
    let (left, right) = A::pair();
    let left = A::open_stream(A::stream(left), Role::Initiator, StreamOptions::default());
    let ours = a.replicate_over(&left, Replicate::default());
    let theirs = A::replicate(b, A::stream(right), Role::Responder, Replicate::default());
    let (ours, theirs) = ends(ours, theirs).await;
    assert_eq!((ours.unwrap().moved.in_step, theirs.unwrap().moved.in_step), (40, 40));
    assert_eq!(a.feeds().len(), 41);
}

/// It ends in time, by an error that says so; the others go on.
pub async fn a_root_key_that_one_side_lacks_ends_alone<A: Adapter>() {
    let mut options = StreamOptions::default();
    options.session.handshake_timeout = Some(Duration::from_millis(1500));
    let (left, right) = open_with::<A>(options, StreamOptions::default());
    let (lone, a, b) = (memory(9).await, memory(1).await, memory(1).await);
    let feed = filled(&a, "a", 1, 10, 100).await;
    let lone = lone.replicate_over(&left, Replicate::live());
    let ours = a.replicate_over(&left, Replicate::live());
    let theirs = b.replicate_over(&right, Replicate::live());
    held(&b, feed.key(), 10).await;
    assert_eq!(lone.finish().await.unwrap_err().code(), "ERR_TIMEOUT");
    fill(&feed, 1, 10, 100).await;
    held(&b, feed.key(), 20).await;
    ours.close();
    let (ours, theirs) = ends(ours, theirs).await;
    ours.unwrap();
    theirs.unwrap();
    finish_both(left, right).await;
}

/// One comes while another is synced, one goes and comes again; a multifeed that is closed leaves.
pub async fn late_joins_and_leaves<A: Adapter>() {
    let (left, right) = open::<A>();
    let (a, b) = (memory(1).await, memory(1).await);
    let first = filled(&a, "first", 1, 10, 100).await;
    let (ours, theirs) = (a.replicate_over(&left, Replicate::live()), b.replicate_over(&right, Replicate::live()));
    held(&b, first.key(), 10).await;

    let (c, d) = (memory(2).await, memory(2).await);
    let second = filled(&d, "second", 2, 10, 100).await;
    let late = c.replicate_over(&left, Replicate::live());
    let late_there = d.replicate_over(&right, Replicate::live());
    held(&c, second.key(), 10).await;

    // The first leaves: its remote reports it, and the second goes on.
    ours.close();
    let (ours, theirs) = ends(ours, theirs).await;
    ours.unwrap();
    theirs.unwrap();
    fill(&first, 1, 5, 100).await;
    fill(&second, 2, 5, 100).await;
    held(&c, second.key(), 15).await;
    assert_eq!(b.feed(first.key()).unwrap().len(), 10);

    // It comes back, on the same stream.
    let (ours, theirs) = (a.replicate_over(&left, Replicate::live()), b.replicate_over(&right, Replicate::live()));
    held(&b, first.key(), 15).await;

    d.close().await.unwrap();
    late_there.finish().await.unwrap();
    late.finish().await.unwrap();
    fill(&first, 1, 1, 100).await;
    held(&b, first.key(), 16).await;
    drop(ours);
    theirs.finish().await.unwrap();
    finish_both(left, right).await;
}

/// One side gives the stream away, the other shares it; what leaves the shared one ends there too.
pub async fn a_stream_of_ones_own_meets_a_shared_one<A: Adapter>() {
    for role in [Role::Initiator, Role::Responder] {
        for options in [Replicate::default(), Replicate::live()] {
            let (left, right) = A::pair();
            let other = if role == Role::Initiator { Role::Responder } else { Role::Initiator };
            let (a, b) = (memory(1).await, memory(1).await);
            let (ours, theirs) = (filled(&a, "a", 1, 10, 100).await, filled(&b, "b", 2, 10, 100).await);
            let own = A::replicate(&a, A::stream(left), role, options.clone());
            let stream = A::open_stream(A::stream(right), other, StreamOptions::default());
            let shared = b.replicate_over(&stream, options.clone());
            held(&a, theirs.key(), 10).await;
            held(&b, ours.key(), 10).await;
            if options.live {
                shared.close();
            }
            let (own, shared) = ends(own, shared).await;
            own.unwrap();
            shared.unwrap();
            stream.finish().await.unwrap();
        }
    }
}

/// Its backlog is bounded in bytes and in time; then it is taken off, and says why.
pub async fn a_stuck_store_holds_up_others_for_a_while<A: Adapter>() {
    let mut options = StreamOptions::default();
    options.pump.backlog_bytes = 64 * 1024;
    options.pump.backlog_time = Duration::from_millis(300);
    let (left, right) = open_with::<A>(StreamOptions::default(), options);
    let mut small = Options::new(root(2));
    small.pump.event_bytes = 64 * 1024;
    let gate = Gate::default();
    let stuck = Multifeed::with_storage(Gated(MemoryStorage::default(), gate.clone()), small).await.unwrap();
    let (a, b, giver) = (memory(1).await, memory(1).await, memory(2).await);
    let feed = filled(&a, "a", 1, 1, 1000).await;
    let large = filled(&giver, "large", 2, 64, 256 * 1024).await;
    let syncs = [a.replicate_over(&left, Replicate::live()), b.replicate_over(&right, Replicate::live())];
    let gives = giver.replicate_over(&left, Replicate::live());
    let takes = stuck.replicate_over(&right, Replicate::live());
    // By then several blocks are asked for at once.
    held(&stuck, large.key(), 8).await;
    gate.shut();
    held(&b, feed.key(), 1).await;
    fill(&feed, 1, 1, 1000).await;
    // What came for it fills its backlog, and it is taken off: the others hear each other again.
    held(&b, feed.key(), 2).await;
    gives.finish().await.unwrap();
    fill(&feed, 1, 100, 1000).await;
    held(&b, feed.key(), 102).await;
    gate.open();
    let error = takes.finish().await.unwrap_err();
    assert_eq!(error.code(), "ERR_BEHIND");
    match error {
        SyncError::Session(error) => assert_eq!(error.fault(), Fault::Local),
        error => panic!("{error}"),
    }
    let [ours, theirs] = syncs;
    drop(ours);
    theirs.finish().await.unwrap();
    finish_both(left, right).await;
}

/// What its backlog holds stops nobody, and is not lost.
pub async fn a_store_that_is_behind_catches_up<A: Adapter>() {
    let (left, right) = open::<A>();
    let mut small = Options::new(root(2));
    small.pump.events = 4;
    let gate = Gate::default();
    let slow = Multifeed::with_storage(Gated(MemoryStorage::default(), gate.clone()), small).await.unwrap();
    let (a, b, giver) = (memory(1).await, memory(1).await, memory(2).await);
    let feed = filled(&a, "a", 1, 1, 1000).await;
    let many = filled(&giver, "many", 2, 1000, 1000).await;
    let syncs = [a.replicate_over(&left, Replicate::live()), b.replicate_over(&right, Replicate::live())];
    let gives = giver.replicate_over(&left, Replicate::live());
    let takes = slow.replicate_over(&right, Replicate::live());
    held(&slow, many.key(), 1).await;
    gate.shut();
    for len in 2..50 {
        fill(&feed, 1, 1, 1000).await;
        held(&b, feed.key(), len).await;
    }
    gate.open();
    held(&slow, many.key(), 1000).await;
    assert_same(&many, &slow).await;
    left.close();
    for sync in syncs.into_iter().chain([gives, takes]) {
        sync.finish().await.unwrap();
    }
    finish_both(left, right).await;
}

/// A disk that is full ends its own multifeed's session.
pub async fn a_failing_store_fails_alone<A: Adapter>() {
    let (left, right) = open::<A>();
    let (storage, faults) = FaultyStorage::new(MemoryStorage::default());
    let full = Multifeed::with_storage(storage, Options::new(root(2))).await.unwrap();
    faults.limit_space(100_000);
    let (a, b, giver) = (memory(1).await, memory(1).await, memory(2).await);
    let feed = filled(&a, "a", 1, 1, 1000).await;
    filled(&giver, "large", 2, 200, 10_000).await;
    let syncs = [a.replicate_over(&left, Replicate::live()), b.replicate_over(&right, Replicate::live())];
    let gives = giver.replicate_over(&left, Replicate::live());
    let mut takes = full.replicate_over(&right, Replicate::live());
    // It goes on, and ends as one that lost something.
    while !matches!(takes.next().await.expect("it told of no full disk"), SyncEvent::DiskFull { .. }) {}
    takes.close();
    let (gives, takes) = ends(gives, takes).await;
    assert_eq!(takes.unwrap_err().code(), "ERR_STORE_FULL");
    gives.unwrap();
    fill(&feed, 1, 10, 1000).await;
    held(&b, feed.key(), 11).await;
    let [ours, theirs] = syncs;
    drop(ours);
    theirs.finish().await.unwrap();
    finish_both(left, right).await;
}

/// The same root key twice, and a stream that is over.
pub async fn joining_what_cannot_be_joined<A: Adapter>() {
    let (left, right) = open::<A>();
    let (a, b, again) = (memory(1).await, memory(1).await, memory(1).await);
    let feed = filled(&a, "a", 1, 1, 10).await;
    let (ours, theirs) = (a.replicate_over(&left, Replicate::live()), b.replicate_over(&right, Replicate::live()));
    held(&b, feed.key(), 1).await;
    let second = again.replicate_over(&left, Replicate::live());
    assert_eq!(second.finish().await.unwrap_err().code(), "ERR_LOCAL");
    fill(&feed, 1, 1, 10).await;
    held(&b, feed.key(), 2).await;
    let kept = left.clone();
    left.close();
    finish_both(left, right).await;
    ours.finish().await.unwrap();
    theirs.finish().await.unwrap();
    let late = again.replicate_over(&kept, Replicate::live());
    assert_eq!(late.finish().await.unwrap_err().code(), "ERR_LOCAL");
}

/// Accepted, and refused, by the static key; the handshake's hash is one of this stream.
pub async fn remotes_are_judged_by_their_key<A: Adapter>() {
    for accepted in [true, false] {
        let (mut ours, mut theirs) = (StreamOptions::default(), StreamOptions::default());
        ours.session.authenticate = true;
        let known = StaticKeyPair::from_secret_key([7; 32]);
        let public_key = *known.public_key();
        theirs.session.static_key = Some(known);
        let (mut left, mut right) = open_with::<A>(ours, theirs);
        let (a, b) = (memory(1).await, memory(1).await);
        let feed = filled(&a, "a", 1, 10, 10).await;
        let mut our_sync = a.replicate_over(&left, Replicate::default());
        let their_sync = b.replicate_over(&right, Replicate::default());
        let Some(StreamEvent::Connected { remote_public_key, handshake_hash }) = left.next().await else {
            panic!("no Connected");
        };
        assert_eq!(remote_public_key, public_key);
        let Some(StreamEvent::Connected { handshake_hash: theirs, .. }) = right.next().await else {
            panic!("no Connected");
        };
        assert_eq!(handshake_hash, theirs);
        match our_sync.next().await {
            Some(SyncEvent::Connected { remote_public_key, .. }) => assert_eq!(remote_public_key, public_key),
            other => panic!("{other:?}"),
        }
        A::sleep(Duration::from_millis(50)).await;
        assert!(b.feeds().is_empty(), "nothing is said before");
        if accepted {
            left.accept();
            let (our_end, their_end) = ends(our_sync, their_sync).await;
            our_end.unwrap();
            their_end.unwrap();
            assert_same(&feed, &b).await;
            finish_both(left, right).await;
        } else {
            left.refuse();
            assert_eq!(our_sync.finish().await.unwrap_err().code(), "ERR_REFUSED");
            assert_eq!(left.finish().await.unwrap_err().code(), "ERR_REFUSED");
            assert_eq!(their_sync.finish().await.unwrap_err().code(), "ERR_DISCONNECTED");
            // To the stream itself it is an end like any other.
            right.finish().await.unwrap();
        }
    }
}

/// What goes over it is counted, traced and discovered.
pub async fn a_stream_that_is_watched<A: Adapter>() {
    #[derive(Clone, Default)]
    struct Trace(Arc<Mutex<Vec<(Direction, &'static str)>>>);
    impl Tracer for Trace {
        fn message(&mut self, record: &Record<'_>) {
            self.0.lock().expect("a lock").push((record.direction, record.name()));
        }
    }
    let trace = Trace::default();
    let mut options = StreamOptions::default();
    options.session.discover = true;
    options.tracer = Some(Box::new(trace.clone()));
    let (mut left, right) = open_with::<A>(options, StreamOptions::default());
    let (a, b) = (memory(1).await, memory(1).await);
    let feed = filled(&a, "a", 1, 3, 10).await;
    let theirs = b.replicate_over(&right, Replicate::default());
    // The server of many multifeeds learns which one is wanted.
    loop {
        match left.next().await {
            Some(StreamEvent::Discovered { discovery_key }) => {
                assert_eq!(discovery_key, root(1).discovery_key());
                break;
            }
            Some(StreamEvent::Connected { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let before = left.totals().bytes_out;
    left.ping();
    while left.totals().bytes_out == before {
        A::sleep(Duration::from_millis(1)).await;
    }
    let ours = a.replicate_over(&left, Replicate::default());
    let (ours, theirs) = ends(ours, theirs).await;
    ours.unwrap();
    theirs.unwrap();
    assert_same(&feed, &b).await;
    finish_both(left, right).await;
    let trace = trace.0.lock().expect("a lock");
    let data = trace.iter().filter(|entry| **entry == (Direction::Out, "Data")).count();
    assert_eq!(data, 3);
}

/// No root key and no list: each side names the feed, beside a multifeed that both have.
pub async fn one_feed_alone<A: Adapter>() {
    let (left, right) = open::<A>();
    let (ours, theirs) = (memory(1).await, memory(2).await);
    let feed = filled(&ours, "a", 1, 30, 1000).await;
    filled(&ours, "b", 2, 5, 100).await;
    let (our_shared, their_shared) = (memory(3).await, memory(3).await);
    let shared = filled(&our_shared, "shared", 3, 5, 100).await;
    let our_multi = our_shared.replicate_over(&left, Replicate::live());
    let their_multi = their_shared.replicate_over(&right, Replicate::live());

    let our_sync = ours.replicate_feed(&left, feed.key(), Replicate::default());
    let twice = ours.replicate_feed(&left, feed.key(), Replicate::default());
    assert!(matches!(twice.finish().await, Err(SyncError::Session(error)) if error.fault() == Fault::Local));
    let their_sync = theirs.replicate_feed(&right, feed.key(), Replicate::default());
    let (our_end, their_end) = ends(our_sync, their_sync).await;
    let (our_end, their_end) = (our_end.unwrap().moved, their_end.unwrap().moved);
    assert_eq!((our_end.feeds, our_end.blocks_sent), (1, 30));
    assert_eq!((their_end.feeds, their_end.blocks_received), (1, 30));
    assert_same(&feed, &theirs).await;
    assert_eq!(theirs.feeds().len(), 1, "not the other one");

    // Again, live: what is new goes over, until one side has enough. The other ends with it.
    let our_sync = ours.replicate_feed(&left, feed.key(), Replicate::live());
    let mut their_sync = theirs.replicate_feed(&right, feed.key(), Replicate::live());
    their_sync.in_sync().await.unwrap();
    fill(&feed, 4, 1, 100).await;
    held(&theirs, feed.key(), 31).await;
    assert!(their_sync.state().await.unwrap().feeds == 1);
    drop(our_sync);
    while their_sync.next().await.is_some() {}
    their_sync.finish().await.unwrap();

    fill(&shared, 5, 1, 100).await;
    held(&their_shared, shared.key(), 6).await;
    drop((our_multi, their_multi));
    finish_both(left, right).await;
}

/// A request for a feed that the remote never opens fails in time. What is live waits for it.
pub async fn a_feed_that_the_remote_lacks<A: Adapter>() {
    let (left, right) = open::<A>();
    let mut options = Options::new(root(1));
    options.multifeed.limits.request_timeout = Duration::from_millis(500);
    let (ours, theirs) = (memory_with(options).await, memory(1).await);
    let feed = filled(&theirs, "a", 1, 3, 10).await;
    let waiting = ours.replicate_feed(&left, feed.key(), Replicate::live());
    let missing = ours.replicate_feed(&left, root(9), Replicate::default());
    match missing.finish().await {
        Err(error) => {
            assert_eq!((error.code(), error.to_string().contains(&root(9).to_string())), ("ERR_NO_FEED", true))
        }
        Ok(totals) => panic!("{totals:?}"),
    }
    let late = theirs.replicate_feed(&right, feed.key(), Replicate::default());
    held(&ours, feed.key(), 3).await;
    late.finish().await.unwrap();
    waiting.finish().await.unwrap();
    finish_both(left, right).await;
}
