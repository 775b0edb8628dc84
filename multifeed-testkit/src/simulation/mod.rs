//! Many stores on a simulated network, with faults, on virtual time: everything that happens follows from one seed.
//!
//! Stores append, connect, sync, and are cut off, partitioned, slowed, crashed and given bad disks, a random step after the other.
//! After each step what can be wrong is looked for; at the end the faults stop, everybody is connected, and every store has to hold
//! the union of all that was ever appended, byte for byte. A failure names its seed, and [`run`] with that seed is the same again.

mod claims;
mod field;
mod node;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use multifeed_core::fuzzing::Remembered;
use multifeed_core::{KeyPair, Replicate};
use multifeed_proto::FeedKey;

use crate::disk::{Failure, SharedDisk, errno};
use crate::net::{Shape, Side};
use crate::random::Random;
pub use claims::Checked;
pub use field::Field;
use node::{Node, Truth};
use stream::Stream;

/// Steps of a simulation.
pub const STEPS: usize = 2000;

/// Virtual time that the end may take until everybody has everything.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What a simulation has beside the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Links of as little as 1 kB/s, delays of up to 2 s, and buffers of 4 MiB. Directions and remotes differ in speed, and some blocks
    /// take longer than a time-out.
    pub slow_links: bool,
    /// What sessions report that is held against what both stores hold.
    pub claims: Checked,
}

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
    /// Reports of sessions that claimed something, and were checked.
    pub claims: u64,
    /// Virtual time.
    pub time: Duration,
    /// Of every reported event, in order.
    pub digest: u64,
}

/// Runs the simulation of a seed.
///
/// # Errors
///
/// Something that must hold did not: what, where, and at which step.
pub fn run(seed: u64) -> Result<Report> {
    run_with(seed, Setup::default())
}

/// As [`run`], with what else there is.
///
/// # Errors
///
/// As [`run`].
pub fn run_with(seed: u64, setup: Setup) -> Result<Report> {
    let _once = Remembered::begin();
    let mut world = World::new(seed, setup)?;
    for step in 0..STEPS {
        world.step().and_then(|()| world.check()).with_context(|| format!("seed {seed}, step {step}"))?;
    }
    world.converge().with_context(|| format!("seed {seed}, at the end"))?;
    Ok(world.report)
}

struct World {
    setup: Setup,
    random: Random,
    seed: u64,
    now: Duration,
    nodes: Vec<Node>,
    streams: Vec<Stream>,
    truth: Truth,
    /// Nodes of one side of a partition, while there is one.
    parted: Option<BTreeSet<usize>>,
    /// Nodes at which something happened since the last look.
    touched: BTreeSet<usize>,
    report: Report,
}

impl World {
    fn new(seed: u64, setup: Setup) -> Result<Self> {
        let mut random = Random::new(seed);
        let count = random.between(3, 5) as usize;
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(Node::open(SharedDisk::default())?);
        }
        let report = Report { stores: count, ..Report::default() };
        let mut world = Self {
            setup,
            random,
            seed,
            now: Duration::ZERO,
            nodes,
            streams: Vec::new(),
            truth: BTreeMap::new(),
            parted: None,
            touched: BTreeSet::new(),
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
            0..9 => self.append(node)?,
            9..11 if self.truth.len() < 12 => self.writer(node)?,
            27..37 => self.connect()?,
            37..39 => self.trouble(),
            39 if self.random.one_in(2) => self.crash(node)?,
            40 => self.bad_disk(node),
            41 if self.random.one_in(4) => self.part(),
            42..46 => self.parted = None,
            46..60 => self.now += Duration::from_millis(self.random.between(1, 300)),
            60 | 61 if self.setup.slow_links => {
                let time = Duration::from_millis(self.random.between(100, 20_000));
                self.pass(time)?;
            }
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
        self.touched.insert(node);
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
        let count = if self.random.one_in(30) { 40 } else { self.random.between(1, 4) };
        let batch: Vec<Bytes> = (0..count).map(|_| self.block()).collect();
        let id = self.nodes[node].id(&key)?;
        let before = self.truth[&key].len() as u64;
        self.touched.insert(node);
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
            1 if self.setup.slow_links && self.random.one_in(2) => self.random.between(9000, 60_000),
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
        let slow = if self.setup.slow_links && !self.random.one_in(3) { self.slow() } else { None };
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
            // As with JS: lists of all feeds, and acknowledgements of single blocks.
            options.reconcile = self.random.one_in(2).then_some(false);
        }
        self.join([a, b], slow.unwrap_or_else(|| [shape.clone(), shape]), options);
        Ok(())
    }

    /// A slow link: both directions, or one of them.
    fn slow(&mut self) -> Option<[Shape; 2]> {
        let mut shape = || {
            let rate = match self.random.between(0, 3) {
                0 => self.random.between(1_000, 5_000),
                1 => self.random.between(5_000, 50_000),
                _ => self.random.between(50_000, 1_000_000),
            };
            let delay = if self.random.one_in(2) { 2_000 } else { 200 };
            Shape::slow(rate, Duration::from_millis(self.random.between(0, delay)))
        };
        let (one, other) = (shape(), shape());
        Some(match self.random.between(0, 3) {
            0 => [one, Shape::plain()],
            1 => [Shape::plain(), one],
            2 => [one, other],
            _ => [one.clone(), one],
        })
    }

    fn join(&mut self, nodes: [usize; 2], shapes: [Shape; 2], options: [Replicate; 2]) {
        let seed = self.random.number();
        let mut stream = Stream::new(&mut self.nodes, nodes, shapes, options, self.now, seed);
        if self.setup.claims.any() {
            let observed = [0, 1].map(|side| seed.rotate_left(side) % 3 > 0);
            stream.check_claims(self.setup.claims, &mut self.nodes, observed);
        }
        stream.link.advance(self.now);
        self.streams.push(stream);
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
        let stream = &mut self.streams[at];
        match what {
            0 => stream.link.cut(),
            1 => stream.link.cut_after(side, stream.link.sent(side) + more),
            2 => stream.stall(side, until),
            _ => stream.finish(side, &mut self.nodes),
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
            stream.lose(node);
        }
        self.nodes[node].crash()?;
        self.touched.insert(node);
        self.report.crashes += 1;
        Ok(())
    }

    fn bad_disk(&mut self, node: usize) {
        let errors = [errno::ENOSPC, errno::EIO, errno::EINVAL];
        let error = errors[self.random.between(0, 2) as usize];
        let failure = Failure::once(self.random.between(0, 30), io::ErrorKind::Other).with_errno(error);
        let failure = failure.torn(self.random.between(0, 100) as usize);
        let faults = &self.nodes[node].faults;
        match self.random.between(0, 3) {
            0 => faults.fail_read(failure),
            1 => faults.fail_sync(failure),
            _ => faults.fail_change(failure),
        }
        self.report.disk_faults += 1;
    }

    /// Moves what has come by now on a stream, in both directions.
    fn turn(&mut self, at: usize) -> Result<bool> {
        let stream = &mut self.streams[at];
        let moved = stream.turn(&mut self.nodes, self.now, &mut self.report)?;
        if moved {
            self.touched.extend(stream.nodes);
        }
        if stream.is_over() {
            self.streams.swap_remove(at);
        }
        Ok(moved)
    }

    /// Looks for what must not be, at the nodes that the last step has touched.
    fn check(&mut self) -> Result<()> {
        while let Some(at) = self.touched.pop_first() {
            let which = self.random.number();
            self.nodes[at].check(&self.truth, which).with_context(|| format!("store {at}"))?;
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
            stream.heal();
        }
        while !self.equal() {
            for next in 1..self.nodes.len() {
                if !self.streams.iter().any(|stream| stream.joins(next - 1, next)) {
                    let plain = [Shape::plain(), Shape::plain()];
                    self.join([next - 1, next], plain, [Replicate::live(), Replicate::live()]);
                }
            }
            self.rest()?;
            self.now = self.wakes().unwrap_or(self.now + Duration::from_secs(1));
            ensure!(self.now < end, "not in sync after an hour: {}", self.state());
        }
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.compare(&self.truth).with_context(|| format!("store {at}"))?;
        }
        self.report.time = self.now;
        Ok(())
    }

    /// Time passes, and every stream moves as it does.
    fn pass(&mut self, time: Duration) -> Result<()> {
        let end = self.now + time;
        loop {
            self.rest()?;
            self.check()?;
            match self.wakes().filter(|time| *time < end) {
                Some(next) => self.now = next,
                None => break,
            }
        }
        self.now = end;
        Ok(())
    }

    /// Moves all that can without time passing.
    fn rest(&mut self) -> Result<()> {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for at in (0..self.streams.len()).rev() {
                moved |= self.turn(at)?;
            }
        }
        Ok(())
    }

    /// When something happens next.
    fn wakes(&mut self) -> Option<Duration> {
        let times = self.streams.iter_mut().flat_map(Stream::wakes);
        let stores = self.nodes.iter_mut().filter_map(|node| node.store.poll_timeout()).collect::<Vec<_>>();
        times.chain(stores).filter(|time| *time > self.now).min()
    }

    fn equal(&self) -> bool {
        self.nodes.iter().all(|node| node.downloaded() == self.report.blocks)
    }

    fn state(&self) -> String {
        let mut text = format!("{} blocks; {} streams", self.report.blocks, self.streams.len());
        for (at, node) in self.nodes.iter().enumerate() {
            for id in node.store.feeds() {
                let info = node.store.info(id).unwrap();
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
