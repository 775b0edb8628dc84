//! Nobody waits for anybody.

use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures_lite::future::zip;
use multifeed_core::{FileId, Slot};
use multifeed_driver::{
    Budget, DEFAULT_ROOT_KEY, MemoryStorage, Multifeed, Options, Replicate, Role, SessionError, Storage, SyncError,
    Wait,
};

use super::{
    Adapter, Gate, Proxy, assert_same, connect, connect_with, ends, fill, filled, hang_up, held, memory, memory_with,
    sync,
};
use crate::disk::FaultyStorage;
use crate::strangers::{Hoarder, StuckReader};

/// Options with which a session waits without end, however long the rest takes on a busy machine.
fn patient() -> Options {
    let mut options = Options::default();
    options.session.idle_timeout = None;
    options.multifeed.limits.request_timeout = Duration::from_secs(3600);
    options
}

/// Channels of one slot, and more in both directions than any socket holds.
pub async fn both_directions_full_with_one_slot<A: Adapter>() {
    let one_slot = || {
        let mut options = Options::default();
        options.calls = 1;
        options.quantum_bytes = 1;
        options.pump.events = 1;
        options.pump.event_bytes = 1;
        options.pump.credit_bytes = 1;
        options.session.limits.events = 1;
        options.session.limits.output_bytes = 1;
        options
    };
    let (a, b) = (memory_with(one_slot()).await, memory_with(one_slot()).await);
    let ours = filled(&a, "a", 1, 20, 1 << 20).await;
    let theirs = filled(&b, "b", 2, 20, 1 << 20).await;
    let small = filled(&a, "small", 3, 1000, 10).await;
    sync::<A>(&a, &b).await;
    assert_same(&ours, &b).await;
    assert_same(&theirs, &a).await;
    assert_same(&small, &b).await;
}

/// A remote that stops reading holds up itself, and nobody else; it goes on when it reads again.
pub async fn a_stuck_reader_stops_nobody_else<A: Adapter>() {
    // Nothing gets through to it, not even a keep-alive: however long the others take on a busy machine, that is not to end it.
    let hub = memory_with(patient()).await;
    let feed = filled(&hub, "hub", 1, 64, 256 * 1024).await;
    let stuck = memory_with(patient()).await;
    let (left, proxy, right) = Proxy::new(u64::MAX);
    let hub_side = A::replicate(&hub, A::stream(left), Role::Initiator, Replicate::default());
    let stuck_side = A::replicate(&stuck, A::stream(right), Role::Responder, Replicate::default());
    held(&stuck, feed.key(), 1).await;
    proxy.rightward.shut();

    for _ in 0..3 {
        let other = memory().await;
        sync::<A>(&hub, &other).await;
        assert_same(&feed, &other).await;
    }
    let late = filled(&hub, "late", 2, 10, 10).await;
    assert_eq!(late.len(), 10);
    assert!(stuck.feed(feed.key()).unwrap().downloaded() < 64);

    proxy.rightward.open();
    let (hub_side, stuck_side) = ends(hub_side, stuck_side).await;
    hub_side.unwrap();
    stuck_side.unwrap();
    assert_same(&feed, &stuck).await;
}

/// A store that is stuck for longer than the time-out makes neither side give up: keep-alives go on, and silence that is our own
/// is not the remote's.
pub async fn a_stuck_store_times_nobody_out<A: Adapter>() {
    // On a busy machine a keep-alive may come too late. It does not at ten times the time, or at a hundred times.
    let mut time_out = Duration::from_millis(600);
    while let Err(error) = while_a_store_is_stuck::<A>(time_out).await {
        time_out *= 3;
        assert!(time_out < Duration::from_secs(60), "{error}");
    }
}

/// Stops a store for three times the time-out, in the middle of a sync.
async fn while_a_store_is_stuck<A: Adapter>(time_out: Duration) -> Result<(), SyncError> {
    let options = || {
        let mut options = Options::default();
        options.session.idle_timeout = Some(time_out);
        options.session.keep_alive = Some(time_out / 6);
        options.pump.event_bytes = 256 * 1024;
        options
    };
    let a = memory_with(options()).await;
    let feed = filled(&a, "a", 1, 64, 256 * 1024).await;
    let gate = Gate::default();
    let storage = Gated(MemoryStorage::default(), gate.clone());
    let b = Multifeed::with_storage(storage, options()).await.unwrap();
    let (left, right) = connect::<A>(&a, &b, &Replicate::default());
    held(&b, feed.key(), 1).await;
    gate.shut();
    A::sleep(time_out * 3).await;
    let got = b.feed(feed.key()).unwrap().downloaded();
    gate.open();
    let (left, right) = ends(left, right).await;
    left.and(right)?;
    assert!(got < 64);
    assert_same(&feed, &b).await;
    Ok(())
}

/// Sessions whose messages do not fit into the budget together take turns, also with a store that is slow to take them; small ones go
/// on beside them.
pub async fn large_messages_take_turns<A: Adapter>() {
    let budget = Budget::new(256 * 1024);
    let mut options = Options::default();
    options.pump.receive_budget = budget.clone();
    options.pump.event_bytes = 1;
    let hub = memory_with(options).await;
    let mut syncs = Vec::new();
    let mut feeds = Vec::new();
    for n in 0..6 {
        let peer = memory().await;
        let size = if n % 3 == 0 { 20_000 } else { 200_000 };
        feeds.push(filled(&peer, "large", n, 8, size).await);
        // Each has its own feed to bring, and no other's to fetch.
        let [uploads, downloads] = [Replicate::default().upload_only(), Replicate::default().download_only()];
        syncs.push(connect_with::<A>(&peer, uploads, &hub, downloads));
    }
    for feed in &feeds {
        held(&hub, feed.key(), 8).await;
        assert_same(feed, &hub).await;
    }
    for (left, right) in syncs {
        let (left, right) = ends(left, right).await;
        left.unwrap();
        right.unwrap();
    }
    hub.close().await.unwrap();
    // Their tasks end right behind the sessions.
    while budget.used() > 0 {
        A::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(budget.waiting(), 0);
}

/// Who began a large message and does not go on with it holds others up for no longer than five seconds; if nobody waits, it may.
pub async fn a_slow_message_gives_way_to_others<A: Adapter>() {
    let budget = Budget::new(1 << 20);
    // It sends no keep-alives either.
    let mut options = patient();
    options.pump.receive_budget = budget.clone();
    let hub = memory_with(options).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let hoarder = thread::spawn(move || Hoarder::connect(address, Some(DEFAULT_ROOT_KEY), 1_000_000, 10).unwrap());
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let slow = A::replicate(&hub, A::stream(stream), Role::Responder, Replicate::live());
    while budget.used() == 0 {
        A::sleep(Duration::from_millis(1)).await;
    }

    let quick = memory().await;
    let small = filled(&quick, "small", 3, 100, 1000).await;
    sync::<A>(&quick, &hub).await;
    assert_same(&small, &hub).await;
    assert!(budget.used() > 0, "small blocks wait for nobody");

    let other = memory_with(patient()).await;
    let large = filled(&other, "large", 2, 3, 900_000).await;
    let (left, right) = connect::<A>(&other, &hub, &Replicate::default());
    let (left, right) = ends(left, right).await;
    left.unwrap();
    right.unwrap();
    assert_same(&large, &hub).await;
    let error = slow.finish().await.unwrap_err();
    assert!(matches!(error, SyncError::Session(SessionError::SlowMessage { .. })), "{error}");
    drop(hoarder.join().unwrap());
}

/// Who asks for a large block and does not read it holds up others' large blocks for no longer than five seconds, and their small ones not at all.
pub async fn a_reader_that_is_stuck_gives_way_to_others<A: Adapter>() {
    let budget = Budget::new(9_000_000);
    // It sends no keep-alives either.
    let mut options = patient();
    options.pump.send_budget = budget.clone();
    let hub = memory_with(options).await;
    let large = filled(&hub, "large", 1, 1, 8_000_000).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let reader = thread::spawn(move || StuckReader::connect(None, address, DEFAULT_ROOT_KEY, 0..1).unwrap());
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let stuck = A::replicate(&hub, A::stream(stream), Role::Responder, Replicate::live());
    while budget.used() < 7_000_000 {
        A::sleep(Duration::from_millis(1)).await;
    }
    let reader = reader.join().unwrap();

    let small = filled(&hub, "small", 2, 100, 1000).await;
    let other = memory_with(patient()).await;
    let (left, right) = connect::<A>(&other, &hub, &Replicate::default());
    held(&other, small.key(), 100).await;
    assert!(budget.used() > 0, "small blocks wait for nobody");
    let (left, right) = ends(left, right).await;
    left.unwrap();
    right.unwrap();
    assert_same(&large, &other).await;
    let error = stuck.finish().await.unwrap_err();
    assert!(matches!(error, SyncError::Session(SessionError::SlowReader { .. })), "{error}");
    drop(reader);
    hub.close().await.unwrap();
    // Their tasks end right behind the sessions.
    while budget.used() > 0 {
        A::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(budget.waiting(), 0);
}

/// A session that is not live does not wait without end for a remote that only keeps the stream alive, here one whose store is stuck; a live
/// one does, and gets it all later.
pub async fn a_session_that_only_waits_ends<A: Adapter>() {
    let options = || {
        let mut options = Options::default();
        options.session.stall_timeout = Some(Duration::from_millis(600));
        options.session.keep_alive = Some(Duration::from_millis(100));
        options.pump.linger = Duration::from_millis(50);
        options
    };
    let a = memory_with(options()).await;
    let feed = filled(&a, "a", 1, 10, 10).await;
    let gate = Gate::default();
    let b = Multifeed::with_storage(Gated(MemoryStorage::default(), gate.clone()), Options::default()).await.unwrap();

    gate.shut();
    let (left, right) = connect::<A>(&a, &b, &Replicate::default());
    let error = left.finish().await.unwrap_err();
    assert!(matches!(error, SyncError::Session(SessionError::Stalled { .. })), "{error}");
    assert_eq!(error.code(), "ERR_TIMEOUT");
    gate.open();
    assert!(right.finish().await.is_err());

    fill(&feed, 1, 10, 10).await;
    gate.shut();
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    A::sleep(Duration::from_millis(1500)).await;
    gate.open();
    held(&b, feed.key(), 20).await;
    hang_up(left, right).await;
}

/// A disk that is full ends the session that wanted to write, if it is not live, after it has served; and leaves everyone else alone.
pub async fn a_full_disk_is_our_own_fault<A: Adapter>() {
    let (storage, faults) = FaultyStorage::new(MemoryStorage::default());
    let hub = Multifeed::with_storage(storage, Options::default()).await.unwrap();
    let ours = filled(&hub, "ours", 1, 50, 1000).await;
    let (giver, taker) = (memory().await, memory().await);
    let theirs = filled(&giver, "theirs", 2, 200, 10_000).await;
    faults.limit_space(500_000);

    let (left, right) = connect::<A>(&hub, &giver, &Replicate::default());
    let (left, right) = ends(left, right).await;
    assert_eq!(left.unwrap_err().code(), "ERR_STORE_FULL");
    right.unwrap();
    // It still serves what it has, and says that it took nothing; it takes the rest when there is room.
    let (left, right) = connect::<A>(&hub, &taker, &Replicate::default());
    let (left, right) = ends(left, right).await;
    assert_eq!(left.unwrap_err().code(), "ERR_STORE_FULL");
    right.unwrap();
    assert_same(&ours, &taker).await;
    faults.heal();
    sync::<A>(&hub, &giver).await;
    assert_same(&theirs, &hub).await;
}

/// Memory behind a gate: while that is shut, writing does not return.
pub(super) struct Gated(pub(super) MemoryStorage, pub(super) Gate);

impl Storage for Gated {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.0.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.1.pass();
        self.0.write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.0.len(file)
    }
    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        self.0.next_data(file, offset)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.0.truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.0.replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.0.sync(file)
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.0.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        self.0.close()
    }
}

/// A call knows of each session that was begun before it, also if the store gets to both of them late.
pub async fn a_call_knows_the_sessions_before_it<A: Adapter>() {
    let a = memory().await;
    let feed = filled(&a, "a", 7, 4, 9).await;
    let gate = Gate::default();
    let storage = Gated(MemoryStorage::default(), gate.clone());
    let b = Multifeed::with_storage(storage, Options::default()).await.unwrap();
    sync::<A>(&a, &b).await;
    let copy = b.feed(feed.key()).unwrap();
    copy.clear(3..).await.unwrap();
    gate.shut();
    let late = async {
        let ends = connect::<A>(&a, &b, &Replicate::live().with_sparse(true));
        let open = async {
            A::sleep(Duration::from_millis(20)).await;
            gate.open();
        };
        let (fetched, ()) = zip(copy.fetch_with(3, Wait::if_available()), open).await;
        (fetched, ends)
    };
    // Making a writer is what the store is stuck at.
    let (writer, (fetched, (left, right))) = zip(b.writer("w"), late).await;
    writer.unwrap();
    assert_eq!(fetched.unwrap(), feed.get(3).await.unwrap().unwrap());
    hang_up(left, right).await;
}

/// The application's calls are answered while a session is busy.
pub async fn calls_go_on_during_a_sync<A: Adapter>() {
    let (a, b) = (memory().await, memory().await);
    let feed = filled(&a, "a", 1, 3000, 1000).await;
    let local = filled(&b, "local", 2, 1, 1).await;
    let (left, right) = connect::<A>(&a, &b, &Replicate::live());
    held(&b, feed.key(), 1).await;
    for _ in 0..200 {
        fill(&local, 2, 1, 1).await;
        assert!(local.head().await.unwrap().is_some());
    }
    held(&b, feed.key(), 3000).await;
    held(&a, local.key(), 201).await;
    drop(left);
    right.finish().await.unwrap();
    assert_same(&local, &a).await;
}

/// Dropping the future of a call that was accepted drops its answer, not the call.
pub async fn an_accepted_call_completes<A: Adapter>() {
    let multi = memory().await;
    let feed = multi.writer("a").await.unwrap();
    {
        let mut append = pin!(feed.append("first"));
        // The first poll hands the call over.
        poll_fn(|cx| {
            let _ = append.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
    }
    assert_eq!(feed.append("second").await.unwrap(), 1);
    assert_eq!(feed.get(0).await.unwrap().unwrap(), "first");
    multi.close().await.unwrap();
}

/// Many remotes on one store, all at once.
pub async fn many_sessions_at_once<A: Adapter>() {
    let hub = memory().await;
    let feed = filled(&hub, "hub", 1, 200, 1000).await;
    let mut sessions = Vec::new();
    for seed in 0..12 {
        let other = memory().await;
        let theirs = filled(&other, "theirs", 100 + seed, 20, 100).await;
        let (left, right) = connect::<A>(&hub, &other, &Replicate::live());
        sessions.push((other, theirs, left, right));
    }
    for (_, theirs, ..) in &sessions {
        held(&hub, theirs.key(), 20).await;
        for (other, ..) in &sessions {
            held(other, theirs.key(), 20).await;
        }
    }
    for (other, ..) in &sessions {
        held(other, feed.key(), 200).await;
        assert_eq!(other.feeds().len(), 13);
    }
    hub.close().await.unwrap();
    for (other, _, left, right) in sessions {
        let (left, right) = ends(left, right).await;
        left.unwrap();
        right.unwrap();
        other.close().await.unwrap();
    }
}
