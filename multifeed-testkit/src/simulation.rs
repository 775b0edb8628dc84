//! Many stores on a simulated network, with faults, on virtual time: everything that happens follows from one seed.
//!
//! Stores append, connect, sync, and are cut off, partitioned, slowed, crashed and given bad disks, a random step after the other.
//! After each step what can be wrong is looked for; at the end the faults stop, everybody is connected, and every store has to hold
//! the union of all that was ever appended, byte for byte. A failure names its seed, and [`run`] with that seed is the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use multifeed_core::feed::VerifyCursor;
use multifeed_core::{
    Connection, FeedId, FileId, KeyPair, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, Slot, Storage,
    SyncError,
};
use multifeed_proto::{Config, Fault, FeedKey, Role, SessionError};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::disk::{Failure, Faults, FaultyStorage};
use crate::net::{Arrival, Link, Shape, Side};
use crate::random::Random;

/// Steps of a simulation.
pub const STEPS: usize = 2000;

/// Virtual time that the end may take until everybody has everything.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What happened in a simulation, and a digest that is the same for the same seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Stores.
    pub stores: usize,
    /// Feeds.
    pub feeds: usize,
    /// Blocks that were appended.
    pub blocks: u64,
    /// Streams that were opened.
    pub streams: u64,
    /// Streams that ended well.
    pub ended: u64,
    /// Streams that were cut, timed out, or failed with a store.
    pub broken: u64,
    /// Stores that were crashed and opened again.
    pub crashes: u64,
    /// Writes that failed.
    pub disk_faults: u64,
    /// Times that the network was parted.
    pub partitions: u64,
    /// Virtual time.
    pub time: Duration,
    /// Of everything that was told, in order.
    pub digest: u64,
}

/// Runs the simulation of a seed.
///
/// # Errors
///
/// Something that must hold did not: what, where, and at which step.
pub fn run(seed: u64) -> Result<Report> {
    let mut world = World::new(seed)?;
    for step in 0..STEPS {
        world.step().and_then(|()| world.check()).with_context(|| format!("seed {seed}, step {step}"))?;
    }
    world.converge().with_context(|| format!("seed {seed}, at the end"))?;
    Ok(world.report)
}

type Store = Multifeed<FaultyStorage<Disk>>;

/// A disk that stays when its store is dropped.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<MemoryStorage>>);

struct World {
    random: Random,
    seed: u64,
    now: Duration,
    nodes: Vec<Node>,
    streams: Vec<Stream>,
    /// What was appended to each feed.
    truth: BTreeMap<FeedKey, Vec<Bytes>>,
    /// Nodes of one side of a partition, while there is one.
    parted: Option<BTreeSet<usize>>,
    report: Report,
}

struct Node {
    store: Store,
    disk: Disk,
    faults: Faults,
    writers: Vec<FeedKey>,
    /// The length that each feed was seen at, and that it must not fall below.
    lengths: BTreeMap<FeedKey, u64>,
}

/// A stream between two nodes.
struct Stream {
    nodes: [usize; 2],
    ends: [Option<Connection>; 2],
    link: Link,
    unsent: [Vec<u8>; 2],
    /// Until when a side reads nothing.
    stalled: [Duration; 2],
    /// A side does not serve, or does not fetch.
    partial: bool,
}

impl World {
    fn new(seed: u64) -> Result<Self> {
        let mut random = Random::new(seed);
        let count = random.between(3, 5) as usize;
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(Node::open(Disk::default())?);
        }
        let report = Report { stores: count, ..Report::default() };
        let mut world = Self {
            random,
            seed,
            now: Duration::ZERO,
            nodes,
            streams: Vec::new(),
            truth: BTreeMap::new(),
            parted: None,
            report,
        };
        // Five feeds at the least, whatever comes.
        for feed in 0..5 {
            world.writer(feed % count)?;
        }
        Ok(world)
    }

    fn step(&mut self) -> Result<()> {
        let node = self.any(self.nodes.len());
        match self.random.between(0, 99) {
            0..25 => self.append(node)?,
            25..27 if self.truth.len() < 12 => self.writer(node)?,
            27..37 => self.connect()?,
            37..39 => self.trouble(),
            39 => self.crash(node)?,
            40 => self.bad_disk(node),
            41 if self.random.one_in(4) => self.part(),
            42..46 => self.parted = None,
            46..60 => self.now += Duration::from_millis(self.random.between(1, 300)),
            60 if self.random.one_in(5) => self.now += Duration::from_secs(self.random.between(1, 30)),
            _ => {
                for _ in 0..self.random.between(1, 4) {
                    if !self.streams.is_empty() {
                        let stream = self.any(self.streams.len());
                        self.turn(stream)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn any(&mut self, count: usize) -> usize {
        self.random.between(0, count as u64 - 1) as usize
    }

    fn writer(&mut self, node: usize) -> Result<()> {
        let feed = self.truth.len() as u8;
        let mut key = [feed; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        let pair = KeyPair::from_seed(&key);
        let (name, public) = (format!("writer {feed}"), pair.public_key());
        match self.nodes[node].store.writer(Some(&name), || pair) {
            Ok(_) => {}
            // A disk that fails now may leave it made or not made: it is there when the same call works.
            Err(_) => {
                self.crash(node)?;
                let pair = KeyPair::from_seed(&key);
                self.nodes[node].store.writer(Some(&name), || pair).context("a writer on a sound disk")?;
            }
        }
        self.nodes[node].writers.push(public);
        self.truth.insert(public, Vec::new());
        self.report.feeds += 1;
        Ok(())
    }

    fn append(&mut self, node: usize) -> Result<()> {
        let writers = &self.nodes[node].writers;
        if writers.is_empty() {
            return Ok(());
        }
        let key = writers[self.random.number() as usize % writers.len()];
        let count = if self.random.one_in(20) { 40 } else { self.random.between(1, 4) };
        let batch: Vec<Bytes> = (0..count).map(|_| self.block()).collect();
        let id = self.nodes[node].id(&key)?;
        let before = self.truth[&key].len() as u64;
        match self.nodes[node].store.append(id, &batch) {
            Ok(range) => {
                ensure!(range == (before..before + count), "appended at {range:?}, the feed had {before} blocks");
                self.note(key, batch);
            }
            Err(_) => {
                // Whether it is there is known when the store was opened again: all of it or nothing.
                self.crash(node)?;
                let len = self.nodes[node].len(&key)?;
                ensure!(len == before || len == before + count, "a torn append left {len} blocks after {before}");
                if len > before {
                    self.note(key, batch);
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, key: FeedKey, batch: Vec<Bytes>) {
        self.report.blocks += batch.len() as u64;
        self.truth.entry(key).or_default().extend(batch);
    }

    fn block(&mut self) -> Bytes {
        let size = match self.random.between(0, 39) {
            0 => 0,
            1 => self.random.between(1000, 9000),
            _ => self.random.between(1, 100),
        };
        let first = self.random.number();
        (0..size).map(|at| (first >> (at % 8 * 8)) as u8 ^ (at / 8) as u8).collect()
    }

    fn connect(&mut self) -> Result<()> {
        let (a, b) = (self.any(self.nodes.len()), self.any(self.nodes.len()));
        let joined = self.streams.iter().any(|stream| stream.joins(a, b));
        if a == b || joined || !self.reaches(a, b) {
            return Ok(());
        }
        let shape = match self.random.between(0, 9) {
            0 => Shape::narrow(self.random.between(50, 5000) as usize),
            1 => Shape { piece: 1..=40, ..Shape::rough() },
            2..5 => Shape::rough(),
            _ => Shape { delay: Duration::ZERO..=Duration::from_millis(self.random.between(0, 50)), ..Shape::plain() },
        };
        let mut options = [Replicate::default(), Replicate::default()];
        for options in &mut options {
            options.live = !self.random.one_in(3);
            options.upload = self.random.one_in(20).then_some(false);
            options.download = self.random.one_in(20).then_some(false);
        }
        self.join([a, b], shape, options);
        Ok(())
    }

    fn join(&mut self, nodes: [usize; 2], shape: Shape, options: [Replicate; 2]) {
        let mut rng = StdRng::seed_from_u64(self.random.number());
        let roles = [Role::Initiator, Role::Responder];
        let mut ends = [None, None];
        let partial = options.iter().any(|options| options.upload.is_some() || options.download.is_some());
        for (side, options) in options.into_iter().enumerate() {
            let store = &mut self.nodes[nodes[side]].store;
            ends[side] = Some(Connection::new(store, roles[side], Config::default(), options, self.now, &mut rng));
        }
        let mut link = Link::new(shape, self.random.number());
        link.advance(self.now);
        let (unsent, stalled) = Default::default();
        self.streams.push(Stream { nodes, ends, link, unsent, stalled, partial });
        self.report.streams += 1;
    }

    /// Something happens to a stream.
    fn trouble(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let at = self.any(self.streams.len());
        let side = if self.random.one_in(2) { Side::A } else { Side::B };
        let until = self.now + Duration::from_millis(self.random.between(100, 40_000));
        let more = self.random.between(0, 3000);
        let what = self.random.between(0, 3);
        let Stream { nodes, ends, link, stalled, .. } = &mut self.streams[at];
        match what {
            0 => link.cut(),
            1 => link.cut_after(side, link.sent(side) + more),
            2 => stalled[side as usize] = until,
            _ => {
                if let Some(end) = &ends[side as usize] {
                    let peer = end.peer();
                    self.nodes[nodes[side as usize]].store.finish(peer);
                }
            }
        }
    }

    fn part(&mut self) {
        let side: BTreeSet<usize> = (0..self.nodes.len()).filter(|_| self.random.one_in(2)).collect();
        for stream in &mut self.streams {
            if side.contains(&stream.nodes[0]) != side.contains(&stream.nodes[1]) {
                stream.link.cut();
            }
        }
        self.parted = Some(side);
        self.report.partitions += 1;
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        self.parted.as_ref().is_none_or(|side| side.contains(&a) == side.contains(&b))
    }

    /// A process dies; what it wrote stays.
    fn crash(&mut self, node: usize) -> Result<()> {
        for stream in &mut self.streams {
            for side in 0..2 {
                if stream.nodes[side] == node {
                    stream.ends[side] = None;
                    stream.link.cut();
                }
            }
        }
        let Node { disk, writers, lengths, .. } = &self.nodes[node];
        let mut opened = Node::open(disk.clone())?;
        (opened.writers, opened.lengths) = (writers.clone(), lengths.clone());
        ensure!(opened.store.problems().is_empty(), "after a crash: {:?}", opened.store.problems());
        self.nodes[node] = opened;
        self.report.crashes += 1;
        Ok(())
    }

    fn bad_disk(&mut self, node: usize) {
        let kind = if self.random.one_in(2) { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        let failure = Failure::once(self.random.between(0, 30), kind).torn(self.random.between(0, 100) as usize);
        self.nodes[node].faults.fail_change(failure);
        self.report.disk_faults += 1;
    }

    /// Moves bytes and events of a stream, in both directions, as far as they have come by now.
    fn turn(&mut self, at: usize) -> Result<bool> {
        let mut moved = false;
        let stream = &mut self.streams[at];
        stream.link.advance(self.now);
        for side in Side::BOTH {
            let place = side as usize;
            let Some(end) = &mut stream.ends[place] else {
                // Nobody is there any more: what comes is lost.
                while stream.link.poll(side).is_some() {}
                continue;
            };
            let store = &mut self.nodes[stream.nodes[place]].store;
            if store.poll_timeout().is_some_and(|time| time <= self.now) {
                store.handle_timeout(self.now);
            }
            if end.session().poll_timeout().is_some_and(|time| time <= self.now) {
                end.session().handle_timeout(self.now);
            }
            moved |= end.pump(store, self.now);
            if stream.stalled[place] <= self.now {
                moved |= read(end, store, &mut stream.link, side, self.now);
            }
            let mut out = BytesMut::new();
            while end.session().poll_output(&mut out) {}
            let unsent = &mut stream.unsent[place];
            unsent.extend_from_slice(&out);
            let taken = stream.link.send(side, unsent);
            unsent.drain(..taken);
            moved |= taken > 0;
            let mut over = None;
            while let Some(event) = end.poll_event(store) {
                self.report.digest = mix(self.report.digest, &event);
                match event {
                    PeerEvent::Closed(result) => over = Some(result),
                    PeerEvent::Conflict { key, .. } => bail!("a conflict of {key}, which has one writer"),
                    _ => {}
                }
            }
            if end.session().output_finished() && unsent.is_empty() {
                stream.link.shut(side);
            }
            if let Some(result) = over {
                moved = true;
                match result {
                    Ok(_) => self.report.ended += 1,
                    // Everybody is honest: it may be the network, or a disk, and nobody's fault.
                    Err(SyncError::Session(error)) if matches!(error.fault(), Fault::Network | Fault::Local) => {
                        self.report.broken += 1;
                    }
                    Err(SyncError::Store(_)) => self.report.broken += 1,
                    Err(error) => bail!("between {:?}: {error}", stream.nodes),
                }
                if let Some(end) = stream.ends[place].take() {
                    stream.link.send(side, &stream.unsent[place]);
                    end.close(store);
                }
                stream.link.shut(side);
            }
        }
        if stream.ends.iter().all(Option::is_none) {
            self.streams.swap_remove(at);
        }
        Ok(moved)
    }

    /// Looks for what must not be, at one node.
    fn check(&mut self) -> Result<()> {
        let at = self.any(self.nodes.len());
        let which = self.random.number();
        let node = &mut self.nodes[at];
        let ids: Vec<FeedId> = node.store.feeds().collect();
        let Some(id) = ids.get(which as usize % ids.len().max(1)) else { return Ok(()) };
        let info = node.store.info(*id);
        let truth = self.truth.get(&info.key).with_context(|| format!("a feed {} that nobody made", info.key))?;
        ensure!(
            info.len <= truth.len() as u64,
            "store {at} has {} blocks of {}, of {}",
            info.len,
            info.key,
            truth.len()
        );
        let least = node.lengths.get(&info.key).copied().unwrap_or(0);
        if node.writers.contains(&info.key) {
            ensure!(
                info.len == truth.len() as u64,
                "the writer of {} has {} of {} blocks",
                info.key,
                info.len,
                truth.len()
            );
            ensure!(info.len >= least, "the writer of {} went from {least} blocks to {}", info.key, info.len);
            node.lengths.insert(info.key, info.len);
        }
        if info.len > 0 {
            let index = (which >> 32) % info.len;
            if let Ok(Some(block)) = node.store.get(*id, index) {
                ensure!(block == truth[index as usize], "store {at}, block {index} of {}", info.key);
            }
        }
        Ok(())
    }

    /// The faults stop, everybody is joined in a chain, and all get everything.
    fn converge(&mut self) -> Result<()> {
        self.parted = None;
        let end = self.now + PATIENCE;
        for node in &mut self.nodes {
            node.faults.heal();
        }
        for stream in &mut self.streams {
            stream.stalled = Default::default();
            if stream.partial {
                stream.link.cut();
            }
        }
        while !self.equal() {
            for next in 1..self.nodes.len() {
                if !self.streams.iter().any(|stream| stream.joins(next - 1, next)) {
                    self.join([next - 1, next], Shape::plain(), [Replicate::live(), Replicate::live()]);
                }
            }
            let mut moved = true;
            while std::mem::take(&mut moved) {
                for at in (0..self.streams.len()).rev() {
                    moved |= self.turn(at)?;
                }
            }
            let times = self.streams.iter_mut().flat_map(|stream| {
                let ends = stream.ends.iter_mut().flatten();
                let wakes: Vec<_> = ends.filter_map(|end| end.session().poll_timeout()).collect();
                wakes.into_iter().chain(stream.link.poll_timeout())
            });
            let stores = self.nodes.iter_mut().filter_map(|node| node.store.poll_timeout()).collect::<Vec<_>>();
            let next = times.chain(stores).filter(|time| *time > self.now).min();
            self.now = next.unwrap_or(self.now + Duration::from_secs(1));
            ensure!(self.now < end, "not in sync after an hour: {}", self.state());
        }
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.compare(&self.truth).with_context(|| format!("store {at}"))?;
        }
        self.report.time = self.now;
        Ok(())
    }

    fn equal(&self) -> bool {
        let has_all = |node: &Node| {
            let ids: Vec<FeedId> = node.store.feeds().collect();
            let held: u64 = ids.into_iter().map(|id| node.store.info(id).downloaded).sum();
            held == self.report.blocks
        };
        self.nodes.iter().all(has_all)
    }

    fn state(&self) -> String {
        let mut text = format!("{} blocks; {} streams", self.report.blocks, self.streams.len());
        for (at, node) in self.nodes.iter().enumerate() {
            for id in node.store.feeds() {
                let info = node.store.info(id);
                let all = self.truth.get(&info.key).map_or(0, Vec::len);
                if info.downloaded < all as u64 {
                    text +=
                        &format!("; store {at} has {} of {all} of {}, length {}", info.downloaded, info.key, info.len);
                }
            }
        }
        text
    }
}

impl Node {
    fn open(disk: Disk) -> Result<Self> {
        let (storage, faults) = FaultyStorage::new(disk.clone());
        let store = Multifeed::open(storage, Options::default())?;
        Ok(Self { store, disk, faults, writers: Vec::new(), lengths: BTreeMap::new() })
    }

    fn id(&self, key: &FeedKey) -> Result<FeedId> {
        self.store.find(key).with_context(|| format!("{key} is gone"))
    }

    fn len(&self, key: &FeedKey) -> Result<u64> {
        Ok(self.store.info(self.id(key)?).len)
    }

    /// Every block of every feed, and every signature.
    fn compare(&mut self, truth: &BTreeMap<FeedKey, Vec<Bytes>>) -> Result<()> {
        for (key, blocks) in truth.iter().filter(|(_, blocks)| !blocks.is_empty()) {
            let id = self.id(key)?;
            ensure!(self.len(key)? == blocks.len() as u64, "the length of {key}");
            for (index, block) in (0..).zip(blocks) {
                ensure!(self.store.get(id, index)?.as_ref() == Some(block), "block {index} of {key}");
            }
            let mut cursor = VerifyCursor::default();
            loop {
                let step = self.store.verify_step(id, &mut cursor, 1 << 20)?;
                ensure!(step.findings.is_empty(), "{key}: {:?}", step.findings);
                if step.done {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Stream {
    fn joins(&self, a: usize, b: usize) -> bool {
        self.nodes == [a, b] || self.nodes == [b, a]
    }
}

/// Reads what has come, as far as the session takes it.
fn read(end: &mut Connection, store: &mut Store, link: &mut Link, side: Side, now: Duration) -> bool {
    let mut moved = false;
    while end.session().recv_buf().is_some()
        && let Some(arrival) = link.poll(side)
    {
        moved = true;
        match arrival {
            Arrival::Bytes(bytes) => {
                if let Some(buf) = end.session().recv_buf() {
                    buf.extend_from_slice(&bytes);
                }
                end.handle_input(store, now);
            }
            Arrival::End => {
                end.session().handle_eof();
                end.pump(store, now);
            }
            Arrival::Cut => {
                end.session().abort(SessionError::Network("cut".into()));
                end.pump(store, now);
            }
        }
    }
    moved
}

fn mix(digest: u64, event: &impl fmt::Debug) -> u64 {
    format!("{event:?}").bytes().fold(digest, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Disk {
    fn with<T>(&self, act: impl FnOnce(&mut MemoryStorage) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Storage for Disk {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.with(MemoryStorage::list)
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.with(|disk| disk.read_at(file, offset, buf))
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|disk| disk.write_at(file, offset, data))
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.with(|disk| disk.len(file))
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.with(|disk| disk.truncate(file, len))
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.with(|disk| disk.replace(file, data))
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.with(|disk| disk.sync(file))
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.with(|disk| disk.remove(slot))
    }
    fn close(&mut self) -> io::Result<()> {
        self.with(MemoryStorage::close)
    }
}
