//! The work that is counted: always the same, on one thread, with stores in files of the current folder.
//!
//! Keys, blocks and randomness come from fixed seeds. What prepares a scenario is not counted, only what runs inside [`first`] and [`second`].

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use multifeed_core::{
    Connection, FeedId, FileStorage, KeyPair, Multifeed, Options, PeerEvent, Replicate, VerifyCursor,
};
use multifeed_proto::{Config, Role};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

type Store = Multifeed<FileStorage>;

/// Bytes that one read of a stream brings.
const READ: usize = 64 << 10;

/// Fixed work, and what its one or two counted sides are called.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) sides: &'static [&'static str],
    pub(crate) run: fn() -> Result<()>,
}

const SYNC: &[&str] = &["sender", "receiver"];

/// All of them, those that take longest first.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "sync 1,024 x 64 KiB", sides: SYNC, run: || sync(1, 1_024, 64 << 10) },
    Scenario { name: "sync 20,000 x 100 B", sides: SYNC, run: || sync(1, 20_000, 100) },
    Scenario { name: "sync 200 feeds x 10 x 100 B", sides: SYNC, run: || sync(200, 10, 100) },
    Scenario { name: "append 1,000 x 100 B, one by one", sides: &[""], run: || append(1_000, 1) },
    Scenario { name: "append 20 x 1,000 x 100 B", sides: &[""], run: || append(20, 1_000) },
    Scenario { name: "get 20,000 x 100 B in order", sides: &[""], run: get },
    Scenario { name: "verify 20,000 x 100 B", sides: &[""], run: verify },
    Scenario { name: "open 200 feeds x 10 x 100 B", sides: &[""], run: open_many },
    Scenario { name: "handshake x 10", sides: &["initiator", "responder"], run: handshake },
];

/// Work that counts for a scenario's first side. The counts are found by the name of this function. The number keeps the compiler from making one
/// function of two that do the same, and the call from being a jump.
#[inline(never)]
fn counted_for_first(work: &mut dyn FnMut()) {
    work();
    black_box(1);
}

/// Work that counts for a scenario's second side.
#[inline(never)]
fn counted_for_second(work: &mut dyn FnMut()) {
    work();
    black_box(2);
}

/// The names of the two functions above, as the profile has them.
pub(crate) const COUNTED: [&str; 2] = ["counted_for_first", "counted_for_second"];

fn first<T>(work: impl FnOnce() -> T) -> Result<T> {
    counted(counted_for_first, work)
}

fn second<T>(work: impl FnOnce() -> T) -> Result<T> {
    counted(counted_for_second, work)
}

fn counted<T>(side: fn(&mut dyn FnMut()), work: impl FnOnce() -> T) -> Result<T> {
    let (mut work, mut done) = (Some(work), None);
    side(&mut || done = work.take().map(|work| work()));
    done.context("counted work ran")
}

/// Two stores, a sender and an empty one, in one session until both have everything.
fn sync(feeds: usize, blocks: usize, size: usize) -> Result<()> {
    let mut sender = written(feeds, blocks, size)?;
    let mut receiver = open("receiver")?;
    let totals = converse(&mut sender, &mut receiver, 1, false)?;
    ensure!(totals == Some((feeds * blocks) as u64), "{totals:?} blocks arrived");
    Ok(())
}

/// A session of two stores, the first one's work counted for the first side, until it ends or until both are ready. The blocks that the second
/// one received, if it ended.
fn converse(a: &mut Store, b: &mut Store, seed: u64, until_ready: bool) -> Result<Option<u64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let now = Duration::ZERO;
    let options = Replicate::default();
    let config = Config::default;
    let mut one = first(|| Connection::new(a, Role::Initiator, config(), options.clone(), now, &mut rng))?;
    let mut other = second(|| Connection::new(b, Role::Responder, config(), options.clone(), now, &mut rng))?;
    let mut ends = [End::default(), End::default()];
    loop {
        let [end_a, end_b] = &mut ends;
        let moved = first(|| end_a.turn(&mut one, a, &mut end_b.wire, now))?;
        let moved = second(|| end_b.turn(&mut other, b, &mut end_a.wire, now))? || moved;
        if until_ready && ends.iter().all(|end| end.ready) {
            return Ok(None);
        }
        if ends.iter().all(|end| end.received.is_some()) {
            return Ok(ends[1].received);
        }
        if !moved {
            bail!("the session stands still");
        }
    }
}

/// One side of a session, and the bytes that it sent and the other side has not read yet.
#[derive(Default)]
struct End {
    wire: BytesMut,
    ready: bool,
    received: Option<u64>,
    /// Whether it sent its last byte, and whether it saw the other's.
    sent_all: bool,
}

impl End {
    /// Reads what came, and sends what there is. Whether anything happened.
    fn turn(&mut self, connection: &mut Connection, store: &mut Store, came: &mut BytesMut, now: Duration) -> bool {
        let mut moved = false;
        while !came.is_empty() {
            let Some(buffer) = connection.session().recv_buf() else { break };
            let count = came.len().min(READ);
            buffer.extend_from_slice(&came[..count]);
            came.advance(count);
            connection.handle_input(store, now);
            moved = true;
        }
        moved |= connection.pump(store, now);
        while connection.session().poll_output(&mut self.wire) {
            moved = true;
            connection.pump(store, now);
        }
        if connection.session().output_finished() && !self.sent_all {
            (self.sent_all, moved) = (true, true);
        }
        while let Some(event) = connection.poll_event(store) {
            match event {
                PeerEvent::Ready(_) => self.ready = true,
                PeerEvent::Closed(Ok(totals)) => self.received = Some(totals.blocks_received),
                _ => {}
            }
        }
        moved
    }
}

fn append(batches: usize, size: usize) -> Result<()> {
    let mut store = open("sender")?;
    let id = writer(&mut store, 0)?;
    let batches: Vec<Vec<Bytes>> = (0..batches).map(|batch| blocks(batch as u64, size, 100)).collect();
    for batch in &batches {
        first(|| store.append(id, batch))??;
    }
    Ok(())
}

fn get() -> Result<()> {
    let mut store = written(1, 20_000, 100)?;
    let id = only(&store)?;
    let read =
        first(|| (0..20_000).try_fold(0, |sum, index| Ok(sum + store.get(id, index)?.map_or(0, |block| block.len()))));
    let read: Result<usize> = read?;
    ensure!(read? == 20_000 * 100, "not all was read");
    Ok(())
}

fn verify() -> Result<()> {
    let mut store = written(1, 20_000, 100)?;
    let id = only(&store)?;
    let mut cursor = VerifyCursor::default();
    loop {
        let step = first(|| store.verify_step(id, &mut cursor, 1 << 20))??;
        ensure!(step.findings.is_empty(), "{:?}", step.findings);
        if step.done {
            return Ok(());
        }
    }
}

fn open_many() -> Result<()> {
    drop(written(200, 10, 100)?);
    let store = first(|| open("sender"))??;
    ensure!(store.feeds().count() == 200 && store.recovered().is_empty() && store.problems().is_empty());
    Ok(())
}

fn handshake() -> Result<()> {
    let (mut a, mut b) = (open("sender")?, open("receiver")?);
    (0..10).try_for_each(|seed| converse(&mut a, &mut b, seed, true).map(drop))
}

fn open(name: &str) -> Result<Store> {
    Ok(Multifeed::open(FileStorage::open(name)?, Options::default())?)
}

/// A store that was written, closed and opened again, so that nothing of it is in a cache of ours.
fn written(feeds: usize, count: usize, size: usize) -> Result<Store> {
    let mut store = open("sender")?;
    for feed in 0..feeds {
        let id = writer(&mut store, feed)?;
        store.append(id, &blocks(feed as u64, count, size))?;
    }
    store.close()?;
    open("sender")
}

fn writer(store: &mut Store, number: usize) -> Result<FeedId> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    Ok(store.writer(Some(&format!("writer-{number:03}")), || KeyPair::from_seed(&seed))?)
}

fn only(store: &Store) -> Result<FeedId> {
    store.feeds().next().context("a feed")
}

fn blocks(seed: u64, count: usize, size: usize) -> Vec<Bytes> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = vec![0; count * size];
    rng.fill(&mut bytes[..]);
    let bytes = Bytes::from(bytes);
    (0..count).map(|at| bytes.slice(at * size..(at + 1) * size)).collect()
}
