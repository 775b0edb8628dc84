//! Random histories of a store, cut at every moment: what is left on the disk opens, verifies, holds what was promised, and syncs
//! on with a peer that saw the store before the cut.
//!
//! A history is made of a seed. The store under test has writers of its own, syncs with a peer that has a feed too, is closed and
//! opened again; its storage notes every change and every sync. Then, for each moment of that record, the disk is put together as
//! a kill at that moment leaves it, and as a power cut does: of what was not synced, anything may be gone or torn.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use multifeed_core::{
    Connection, Durability, FeedId, FileId, KeyPair, MemoryStorage, Multifeed, MultifeedEvent, Options, PeerEvent,
    Replicate, Slot, Storage, StoreError, VerifyCursor,
};
use multifeed_proto::{Config, FeedKey, Role};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::disk::{Faults, FaultyStorage, Record};
use crate::random::Random;

/// How the disk came to be what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The process was killed: every change before it is there, in order.
    Kill,
    /// The power went: what was synced is there, of the rest anything.
    Power,
}

/// How much was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Histories.
    pub histories: u64,
    /// Disks that were opened.
    pub cuts: u64,
    /// Of these, those after which it was synced on with the peer.
    pub synced_on: u64,
    /// Disks on which something had to be set right.
    pub recovered: u64,
    /// Blocks that were cut back, since nobody had been promised them.
    pub cut_back: u64,
}

impl std::ops::Add for Tried {
    type Output = Tried;

    fn add(self, other: Tried) -> Tried {
        Tried {
            histories: self.histories + other.histories,
            cuts: self.cuts + other.cuts,
            synced_on: self.synced_on + other.synced_on,
            recovered: self.recovered + other.recovered,
            cut_back: self.cut_back + other.cut_back,
        }
    }
}

/// What was true of a feed of the store under test at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    length: u64,
    blocks: Vec<bool>,
}

type Promise = BTreeMap<FeedKey, Held>;

/// A history, and what was promised in its course.
pub struct History {
    seed: u64,
    durability: Durability,
    record: Record,
    /// All blocks that were ever appended anywhere, those of an append that was cut included.
    blocks: BTreeMap<FeedKey, Vec<Vec<u8>>>,
    /// From which moment on a kill may take nothing of this; and a power cut.
    written: Vec<(usize, Promise)>,
    synced: Vec<(usize, Promise)>,
    /// What the peer held from a moment on, and what it knew of our writers' lengths.
    peer: Vec<(usize, MemoryStorage, BTreeMap<FeedKey, u64>)>,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "history {} ({:?}, {} changes)", self.seed, self.durability, self.record.changes().len())
    }
}

/// Makes the histories of `count` seeds from `first` on, and tries all their cuts. After one cut in `sync_every` of each kind it is
/// synced on.
///
/// # Errors
///
/// The first cut after which something does not hold, with all that it takes to replay it.
pub fn try_histories(first: u64, count: u64, sync_every: u64) -> Result<Tried> {
    let mut tried = Tried::default();
    for seed in first..first + count {
        let history = History::new(seed).with_context(|| format!("making history {seed}"))?;
        history.try_all(sync_every, &mut tried)?;
        tried.histories += 1;
    }
    Ok(tried)
}

impl History {
    /// Makes the history of a seed.
    ///
    /// # Errors
    ///
    /// Where the store fails without any fault of its disk.
    pub fn new(seed: u64) -> Result<History> {
        Maker::new(seed)?.make()
    }

    /// What the storage was asked for.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The disk after a cut.
    ///
    /// # Errors
    ///
    /// The storage's own.
    pub fn disk(&self, cut: Cut, at: usize) -> io::Result<MemoryStorage> {
        let base = MemoryStorage::new();
        let variant = Random::new(self.seed ^ (at as u64).rotate_left(32)).number();
        match cut {
            Cut::Kill => self.record.after_crash(&base, at, usize::try_from(variant % 200).unwrap_or(0)),
            Cut::Power => self.record.after_power_cut(&base, at, variant),
        }
    }

    fn try_all(&self, sync_every: u64, tried: &mut Tried) -> Result<()> {
        for at in self.record.moments() {
            for cut in [Cut::Kill, Cut::Power] {
                let syncs = (at as u64 + self.seed).is_multiple_of(sync_every.max(1));
                self.try_cut(cut, at, syncs, tried).with_context(|| {
                    format!(
                        "seed {}, {:?}: {cut:?} at {at} of {}",
                        self.seed,
                        self.durability,
                        self.record.changes().len()
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Opens the disk after one cut, and checks it.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn try_cut(&self, cut: Cut, at: usize, syncs: bool, tried: &mut Tried) -> Result<()> {
        tried.cuts += 1;
        let mut disk = self.disk(cut, at)?;
        // Without any sync a power cut may take anything, the key of a feed too.
        let as_js = cut == Cut::Power && self.durability == Durability::None;
        let options = Options { durability: self.durability, ..Options::default() };
        let mut store = Multifeed::open(&mut disk, options)?;
        ensure!(as_js || store.problems().is_empty(), "{:?}", store.problems());
        tried.recovered += u64::from(!store.recovered().is_empty());
        verify(&mut store, as_js)?;
        let kept = self.check_contents(&mut store, as_js)?;

        let promises = if cut == Cut::Kill { &self.written } else { &self.synced };
        if let Some((_, promise)) = promises.iter().rev().find(|(moment, _)| *moment <= at) {
            check_promise(promise, &kept)?;
        }
        let peer = self.peer.iter().rev().find(|(moment, ..)| *moment <= at);
        if let Some((_, _, seen)) = peer
            && !as_js
        {
            for (key, length) in seen {
                let ours = kept.get(key).map_or(0, |held| held.length);
                ensure!(ours >= *length, "{key} had {length} blocks that a peer knew of, and has {ours}");
            }
        }
        if cut == Cut::Power {
            let most = self.written.iter().rev().find(|(moment, _)| *moment <= at);
            let lost = |(key, held): (&FeedKey, &Held)| {
                held.length.saturating_sub(kept.get(key).map_or(0, |held| held.length))
            };
            tried.cut_back += most.map_or(0, |(_, most)| most.iter().map(lost).sum());
        }
        if !syncs {
            return Ok(());
        }

        // On, with a block that is not the one that was cut off.
        tried.synced_on += 1;
        let ours: Vec<FeedId> = store.feeds().filter(|id| store.info(*id).writable).collect();
        for id in &ours {
            store.append(*id, &[format!("after the cut at {at}").into_bytes().into()])?;
        }
        store.commit(Duration::ZERO);
        let mut peer_disk = peer.map_or_else(MemoryStorage::new, |(_, disk, _)| disk.clone());
        peer_disk.reopen();
        let mut peer = Multifeed::open(&mut peer_disk, Options::default())?;
        ensure!(peer.problems().is_empty(), "the peer: {:?}", peer.problems());
        let mut link = Link::new(&mut store, &mut peer, Duration::ZERO, self.seed);
        link.run(&mut store, &mut peer, Duration::ZERO, usize::MAX)?;
        if as_js {
            return Ok(());
        }
        link.ended_well()?;
        ensure!(
            events(&mut store).iter().chain(&events(&mut peer)).all(|event| !is_conflict(event)),
            "a second history"
        );
        let (a, b) = (contents(&mut store)?, contents(&mut peer)?);
        ensure!(a == b, "the two differ after a sync: {} and {}", told(&a), told(&b));
        ensure!(a.values().flatten().all(Option::is_some), "blocks are missing after a sync: {}", told(&a));
        verify(&mut store, false)?;
        verify(&mut peer, false)?;
        store.close()?;
        disk.reopen();
        let options = Options { durability: self.durability, ..Options::default() };
        let mut store = Multifeed::open(&mut disk, options)?;
        ensure!(store.recovered().is_empty(), "closed well, and yet {:?}", store.recovered());
        ensure!(contents(&mut store)? == a, "closed well, and opened as another one");
        Ok(())
    }

    /// Every block that is held is the one that was appended. What is held of each feed.
    fn check_contents<S: Storage>(&self, store: &mut Multifeed<S>, as_js: bool) -> Result<Promise> {
        let mut kept = Promise::new();
        for id in store.feeds().collect::<Vec<_>>() {
            let info = store.info(id);
            let appended =
                self.blocks.get(&info.key).with_context(|| format!("a feed that never was: {}", info.key))?;
            ensure!(info.len <= appended.len() as u64, "{} is longer than ever", info.key);
            ensure!(!info.writable || info.downloaded == info.len, "a writer with holes: {info:?}");
            let mut held = Held { length: info.len, blocks: Vec::new() };
            for (index, block) in appended.iter().enumerate().take(usize::try_from(info.len)?) {
                let ours = match store.get(id, index as u64) {
                    // What was received is not even synced when the store is closed: it may be gone, and show only when it is read.
                    Err(StoreError::Damaged { .. }) if as_js && !info.writable => None,
                    read => read?,
                };
                if let Some(ours) = &ours {
                    ensure!(ours == block, "block {index} of {} is another one", info.key);
                }
                held.blocks.push(ours.is_some());
            }
            kept.insert(info.key, held);
        }
        Ok(kept)
    }
}

fn check_promise(promise: &Promise, kept: &Promise) -> Result<()> {
    let nothing = Held::default();
    for (key, promised) in promise {
        let held = kept.get(key).unwrap_or(&nothing);
        ensure!(held.length >= promised.length, "{key} had {} blocks, and has {}", promised.length, held.length);
        let lost = |(index, promised): (usize, &bool)| *promised && !held.blocks.get(index).is_some_and(|held| *held);
        if let Some(index) = promised.blocks.iter().enumerate().position(lost) {
            bail!("block {index} of {key} is gone");
        }
    }
    Ok(())
}

/// Makes a history.
struct Maker {
    random: Random,
    history: History,
    faults: Faults,
    disk: Shared,
    store: Option<Multifeed<FaultyStorage<Shared>>>,
    peer: Multifeed<Shared>,
    peer_disk: Shared,
    now: Duration,
}

impl Maker {
    fn new(seed: u64) -> Result<Self> {
        let mut random = Random::new(seed);
        let durability = match random.between(0, 4) {
            0 => Durability::None,
            1 | 2 => Durability::Interval(Duration::from_secs(1)),
            _ => Durability::Always,
        };
        let (disk, peer_disk) = (Shared::default(), Shared::default());
        let (storage, faults) = FaultyStorage::new(disk.clone());
        faults.record();
        let history = History {
            seed,
            durability,
            record: Record::default(),
            blocks: BTreeMap::new(),
            written: Vec::new(),
            synced: Vec::new(),
            peer: Vec::new(),
        };
        let peer = Multifeed::open(peer_disk.clone(), Options::default())?;
        let mut maker = Self { random, history, faults, disk, store: None, peer, peer_disk, now: Duration::ZERO };
        maker.store = Some(maker.open(storage)?);
        Ok(maker)
    }

    fn open(&self, storage: FaultyStorage<Shared>) -> Result<Multifeed<FaultyStorage<Shared>>> {
        let options = Options { durability: self.history.durability, ..Options::default() };
        Ok(Multifeed::open(storage, options)?)
    }

    fn make(mut self) -> Result<History> {
        let steps = self.random.between(6, 14);
        self.append(true)?;
        for _ in 0..steps {
            self.now += Duration::from_millis(self.random.between(0, 700));
            match self.random.between(0, 11) {
                0..4 => self.append(true)?,
                4 | 5 => self.append(false)?,
                6..8 => self.sync(usize::MAX)?,
                8 => {
                    let turns = usize::try_from(self.random.between(3, 12))?;
                    self.sync(turns)?;
                }
                9 => self.reopen()?,
                _ => self.now += Duration::from_secs(1),
            }
            self.tick()?;
        }
        if self.random.one_in(2) {
            self.reopen()?;
        }
        self.history.record = self.faults.take_record();
        Ok(self.history)
    }

    fn store(&mut self) -> Result<&mut Multifeed<FaultyStorage<Shared>>> {
        self.store.as_mut().context("the store is not open")
    }

    /// Appends to a writer of the store's, or of the peer's.
    fn append(&mut self, ours: bool) -> Result<()> {
        let number = self.random.between(0, if ours { 1 } else { 0 });
        let seed = if ours { number as u8 + 1 } else { 100 };
        let pair = KeyPair::from_seed(&[seed; 32]);
        let count = self.random.between(1, 4);
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        for _ in 0..count {
            let size = match self.random.between(0, 5) {
                0 => 0,
                1 => self.random.between(500, 1500),
                _ => self.random.between(1, 90),
            };
            let byte = self.random.number() as u8;
            blocks.push((0..size).map(|at| byte.wrapping_add(at as u8)).collect());
        }
        let all = self.history.blocks.entry(pair.public_key()).or_default();
        all.extend(blocks.iter().cloned());
        let batches: Vec<Vec<_>> = match self.random.one_in(2) {
            true => vec![blocks],
            false => blocks.into_iter().map(|block| vec![block]).collect(),
        };
        let now = self.now;
        for batch in batches {
            let batch: Vec<_> = batch.into_iter().map(Into::into).collect();
            if ours {
                let store = self.store()?;
                let id = store.writer(Some(&format!("w{number}")), || pair.clone())?;
                store.append(id, &batch)?;
            } else {
                let id = self.peer.writer(Some("theirs"), || pair.clone())?;
                self.peer.append(id, &batch)?;
                self.peer.commit(now);
            }
            self.note_written()?;
        }
        if ours {
            self.store()?.commit(now);
            if self.history.durability == Durability::Always {
                self.note_synced(false)?;
            }
        }
        Ok(())
    }

    /// Syncs with the peer, for so many turns at most.
    fn sync(&mut self, turns: usize) -> Result<()> {
        let now = self.now;
        let seed = self.random.number();
        let mut store = self.store.take().context("the store is not open")?;
        let mut link = Link::new(&mut store, &mut self.peer, now, seed);
        for _ in 0..turns {
            let moved = link.run(&mut store, &mut self.peer, now, 1)?;
            let moment = self.moment();
            self.note_peer(moment);
            if !moved {
                break;
            }
        }
        if turns == usize::MAX {
            link.ended_well()?;
        }
        link.part(&mut store, &mut self.peer);
        self.store = Some(store);
        self.note_written()
    }

    /// Lets the time pass that passed.
    fn tick(&mut self) -> Result<()> {
        let now = self.now;
        let store = self.store()?;
        store.commit(now);
        let mut synced = false;
        while store.poll_timeout().is_some_and(|due| due <= now) {
            store.handle_timeout(now);
            synced = true;
        }
        if synced {
            self.note_synced(true)?;
        }
        self.note_written()
    }

    fn reopen(&mut self) -> Result<()> {
        let closed = self.held()?;
        let durability = self.history.durability;
        if let Some(store) = self.store.take() {
            store.close()?;
        }
        let ours = |key: &FeedKey| [1u8, 2].iter().any(|seed| KeyPair::from_seed(&[*seed; 32]).public_key() == *key);
        let promise = closed.into_iter().filter(|(key, _)| durability != Durability::None || ours(key)).collect();
        let moment = self.moment();
        self.history.synced.push((moment, promise));
        self.disk.lock().reopen();
        let storage = FaultyStorage::over(self.disk.clone(), self.faults.clone());
        let store = self.open(storage)?;
        ensure!(store.recovered().is_empty(), "closed well, and yet {:?}", store.recovered());
        self.store = Some(store);
        Ok(())
    }

    fn moment(&self) -> usize {
        self.faults.recorded()
    }

    fn held(&mut self) -> Result<Promise> {
        let store = self.store()?;
        Ok(store
            .feeds()
            .map(|id| {
                let info = store.info(id);
                let blocks = (0..info.len).map(|index| store.has(id, index)).collect();
                (info.key, Held { length: info.len, blocks })
            })
            .collect())
    }

    fn note_written(&mut self) -> Result<()> {
        let held = self.held()?;
        let moment = self.moment();
        self.history.written.push((moment, held));
        Ok(())
    }

    /// All is promised, or only what was appended here.
    fn note_synced(&mut self, all: bool) -> Result<()> {
        let mut held = self.held()?;
        if !all {
            let theirs = KeyPair::from_seed(&[100; 32]).public_key();
            held.remove(&theirs);
        }
        if let Some((_, before)) = self.history.synced.last() {
            for (key, promise) in before {
                held.entry(*key).or_insert_with(|| promise.clone());
            }
        }
        let moment = self.moment();
        self.history.synced.push((moment, held));
        Ok(())
    }

    fn note_peer(&mut self, moment: usize) {
        let peer = &self.peer;
        let seen = peer.feeds().map(|id| peer.info(id)).filter(|info| !info.writable);
        let seen: BTreeMap<FeedKey, u64> = seen.map(|info| (info.key, info.len)).collect();
        let mut disk = self.peer_disk.lock().clone();
        disk.reopen();
        self.history.peer.push((moment, disk, seen));
    }
}

/// Two stores on one thread, joined by their sessions' bytes.
struct Link {
    ends: [Connection; 2],
    ended: [bool; 2],
    over: [bool; 2],
    failures: Vec<String>,
}

impl Link {
    fn new<A: Storage, B: Storage>(a: &mut Multifeed<A>, b: &mut Multifeed<B>, now: Duration, seed: u64) -> Link {
        let mut rng = StdRng::seed_from_u64(seed);
        let options = Replicate::default();
        let first = Connection::new(a, Role::Initiator, Config::default(), options.clone(), now, &mut rng);
        let second = Connection::new(b, Role::Responder, Config::default(), options, now, &mut rng);
        Link { ends: [first, second], ended: [false; 2], over: [false; 2], failures: Vec::new() }
    }

    /// Moves bytes until nothing moves, or for so many turns. Whether anything moved in the last of them.
    fn run<A: Storage, B: Storage>(
        &mut self,
        a: &mut Multifeed<A>,
        b: &mut Multifeed<B>,
        now: Duration,
        turns: usize,
    ) -> Result<bool> {
        for turn in 0..turns {
            ensure!(turn < 100_000, "it never comes to rest");
            let moved = self.side(0, a, now) | self.side(1, b, now);
            let carried = self.carry(0, a, b, now) | self.carry(1, a, b, now);
            if !(moved || carried) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn side<S: Storage>(&mut self, side: usize, store: &mut Multifeed<S>, now: Duration) -> bool {
        let end = &mut self.ends[side];
        let mut moved = end.pump(store, now);
        while let Some(event) = end.poll_event(store) {
            match event {
                PeerEvent::Progress(_) => continue,
                PeerEvent::Closed(Ok(totals)) => {
                    self.over[side] = true;
                    if !totals.holes.is_empty() {
                        self.failures.push(format!("side {side} has holes: {:?}", totals.holes));
                    }
                }
                PeerEvent::Closed(Err(error)) => self.failures.push(format!("side {side}: {error}")),
                PeerEvent::Conflict { key, .. } => self.failures.push(format!("side {side}: two histories of {key}")),
                _ => {}
            }
            moved = true;
        }
        moved
    }

    fn carry<A: Storage, B: Storage>(
        &mut self,
        from: usize,
        a: &mut Multifeed<A>,
        b: &mut Multifeed<B>,
        now: Duration,
    ) -> bool {
        let mut wire = bytes::BytesMut::new();
        while self.ends[from].session().poll_output(&mut wire) {}
        let over = self.ends[from].session().output_finished();
        let to = 1 - from;
        let mut moved = false;
        if !wire.is_empty()
            && let Some(buffer) = self.ends[to].session().recv_buf()
        {
            moved = true;
            buffer.extend_from_slice(&wire);
            match to {
                0 => self.ends[0].handle_input(a, now),
                _ => self.ends[1].handle_input(b, now),
            }
        }
        if over && !std::mem::replace(&mut self.ended[from], true) {
            moved = true;
            self.ends[to].session().handle_eof();
        }
        moved
    }

    fn ended_well(&self) -> Result<()> {
        ensure!(self.failures.is_empty(), "{}", self.failures.join("; "));
        ensure!(self.over == [true; 2], "the session did not end");
        Ok(())
    }

    fn part<A: Storage, B: Storage>(self, a: &mut Multifeed<A>, b: &mut Multifeed<B>) {
        let [first, second] = self.ends;
        first.close(a);
        second.close(b);
        a.commit(Duration::ZERO);
        b.commit(Duration::ZERO);
    }
}

/// Everything in the store is what it must be; or, with `ours`, what was appended here.
fn verify<S: Storage>(store: &mut Multifeed<S>, ours: bool) -> Result<()> {
    for id in store.feeds().filter(|id| !ours || store.info(*id).writable).collect::<Vec<_>>() {
        let mut cursor = VerifyCursor::default();
        loop {
            let step = store.verify_step(id, &mut cursor, 1 << 20)?;
            ensure!(
                step.findings.is_empty(),
                "{}",
                step.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            );
            if step.done {
                break;
            }
        }
    }
    Ok(())
}

type Contents = BTreeMap<FeedKey, Vec<Option<Vec<u8>>>>;

fn contents<S: Storage>(store: &mut Multifeed<S>) -> Result<Contents> {
    let mut all = BTreeMap::new();
    for id in store.feeds().collect::<Vec<_>>() {
        let info = store.info(id);
        let mut blocks = Vec::new();
        for index in 0..info.len {
            blocks.push(store.get(id, index)?.map(|block| block.to_vec()));
        }
        all.insert(info.key, blocks);
    }
    Ok(all)
}

fn told(contents: &Contents) -> String {
    let feed = |(key, blocks): (&FeedKey, &Vec<Option<Vec<u8>>>)| {
        format!("{}…: {} of {}", &key.to_string()[..6], blocks.iter().flatten().count(), blocks.len())
    };
    contents.iter().map(feed).collect::<Vec<_>>().join(", ")
}

fn events<S: Storage>(store: &mut Multifeed<S>) -> Vec<MultifeedEvent> {
    std::iter::from_fn(|| store.poll_event()).collect()
}

fn is_conflict(event: &MultifeedEvent) -> bool {
    matches!(event, MultifeedEvent::Conflict { .. })
}

/// A disk that stays when the store on it is dropped.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<MemoryStorage>>);

impl Shared {
    /// The disk.
    pub fn lock(&self) -> MutexGuard<'_, MemoryStorage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Shared {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.lock().list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.lock().read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.lock().write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.lock().len(file)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.lock().truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.lock().replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.lock().sync(file)
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.lock().remove(slot)
    }
    fn close(&mut self) -> io::Result<()> {
        self.lock().close()
    }
}
