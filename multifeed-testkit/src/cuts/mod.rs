//! Random histories of a store, cut at every moment. What is left on the disk opens, verifies, holds what was promised, and syncs
//! on with a peer that saw the store before the cut.
//!
//! A history is made of a seed. The store under test has writers of its own, and syncs with a peer that has a feed too. It is closed and
//! opened again, clears blocks, and goes on after errors of its disk. Its storage notes every change and every sync. Then, for each moment of
//! that record, the disk is put together as a kill at that moment leaves it, and as a power cut does. After a power cut, anything that was not
//! synced may be gone or torn.

mod cores;
mod folder;
mod js;
mod link;
mod maker;
mod numbers;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use multifeed_core::fuzzing::Remembered;
use multifeed_core::{
    Durability, FeedId, MemoryStorage, Multifeed, MultifeedEvent, Options, SetId, Storage, StoreError, VerifyCursor,
};
use multifeed_proto::FeedKey;

use crate::disk::{Record, Replay, SharedDisk};
use crate::random::Random;
use cores::{Places, Store};
use link::Link;
use maker::Maker;
use numbers::check_numbers;

pub use cores::Kind;
pub use js::js_opens_a_sample;

/// One disk in so many is opened in real files too.
const IN_FILES_EVERY: u64 = 32;

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
    /// What was done while the disk failed.
    pub faults: u64,
    /// Disks that were opened.
    pub cuts: u64,
    /// Of these, those after which it was synced on with the peer.
    pub synced_on: u64,
    /// Of these, those that were opened in real files too, on a system with its oddities.
    pub in_files: u64,
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
            faults: self.faults + other.faults,
            cuts: self.cuts + other.cuts,
            synced_on: self.synced_on + other.synced_on,
            in_files: self.in_files + other.in_files,
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

/// The removal of a feed of the store under test: a cut in between leaves all of it, or nothing.
#[derive(Clone, Copy, Debug)]
struct Removed {
    key: FeedKey,
    begin: usize,
    end: usize,
    /// It was written here, and so is banned, and never comes back.
    own: bool,
}

/// A history, and what was promised in its course.
pub struct History {
    kind: Kind,
    /// Of a corestore, which folder of the disk is which core's.
    places: Places,
    seed: u64,
    durability: Durability,
    record: Record,
    /// All blocks that were ever appended anywhere, those of an append that was cut included.
    blocks: BTreeMap<FeedKey, Vec<Vec<u8>>>,
    /// From which moment on a kill may take nothing of this; and a power cut.
    written: Vec<(usize, Promise)>,
    synced: Vec<(usize, Promise)>,
    /// The feeds that were removed.
    removed: Vec<Removed>,
    /// What was done while the disk failed.
    faults: u64,
    /// What the peer held from a moment on, and what it knew of our writers' lengths.
    peer: Vec<(usize, MemoryStorage, BTreeMap<FeedKey, u64>)>,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "history {} ({:?}, {:?}, {} changes)",
            self.seed,
            self.kind,
            self.durability,
            self.record.changes().len()
        )
    }
}

/// Makes the histories of `count` seeds from `first` on, of one kind of store, and tries all their cuts. After one cut in `sync_every` of each kind it is
/// synced on.
///
/// # Errors
///
/// The first cut after which something does not hold, with all that it takes to replay it.
pub fn try_histories(kind: Kind, first: u64, count: u64, sync_every: u64) -> Result<Tried> {
    let _once = Remembered::begin();
    let mut tried = Tried::default();
    for seed in first..first + count {
        let history = History::new(kind, seed).with_context(|| format!("making history {seed} of {kind:?}"))?;
        history.try_all(sync_every, &mut tried)?;
        tried.histories += 1;
        tried.faults += history.faults;
    }
    Ok(tried)
}

impl History {
    /// Makes the history of a seed.
    ///
    /// # Errors
    ///
    /// If the store fails without any fault of its disk.
    pub fn new(kind: Kind, seed: u64) -> Result<History> {
        Maker::new(kind, seed)?.make()
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
        self.disk_at(&mut self.record.replay(&MemoryStorage::new()), cut, at)
    }

    fn disk_at(&self, replay: &mut Replay<'_>, cut: Cut, at: usize) -> io::Result<MemoryStorage> {
        let variant = Random::new(self.seed ^ (at as u64).rotate_left(32)).number();
        match cut {
            Cut::Kill => replay.after_crash(at, usize::try_from(variant % 200).unwrap_or(0)),
            Cut::Power => self.record.after_power_cut(&MemoryStorage::new(), at, variant),
        }
    }

    fn try_all(&self, sync_every: u64, tried: &mut Tried) -> Result<()> {
        let mut replay = self.record.replay(&MemoryStorage::new());
        for at in self.record.moments() {
            for cut in [Cut::Kill, Cut::Power] {
                let syncs = (at as u64 + self.seed).is_multiple_of(sync_every.max(1));
                let disk = self.disk_at(&mut replay, cut, at)?;
                self.try_disk(disk, cut, at, syncs, tried).with_context(|| {
                    format!(
                        "seed {} of {:?}, {:?}: {cut:?} at {at} of {}",
                        self.seed,
                        self.kind,
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
        self.try_disk(self.disk(cut, at)?, cut, at, syncs, tried)
    }

    /// Opens the store on a disk.
    fn open(&self, disk: &SharedDisk) -> Result<(Store, SetId)> {
        let options = Options { durability: self.durability, ..Options::default() };
        self.places.open(self.kind, disk.clone(), options)
    }

    fn try_disk(&self, disk: MemoryStorage, cut: Cut, at: usize, syncs: bool, tried: &mut Tried) -> Result<()> {
        tried.cuts += 1;
        // Without any sync a power cut may take anything, the key of a feed too: that is reported, and hides nothing else from JS.
        let as_js = cut == Cut::Power && self.durability == Durability::None;
        if self.kind == Kind::Folder && (at as u64 + self.seed).is_multiple_of(IN_FILES_EVERY) {
            tried.in_files += 1;
            self.try_folder(&disk, at, as_js)?;
        }
        let disk = SharedDisk::from(disk);
        let (mut store, set) = self.open(&disk)?;
        ensure!(as_js || store.problems().is_empty(), "{:?}", store.problems());
        tried.recovered += u64::from(!store.recovered().is_empty());
        verify(&mut store, as_js)?;
        let kept = self.check_contents(&mut store, set, as_js)?;

        let numbers = || if self.kind == Kind::Folder { check_numbers(disk.lock().clone()) } else { Ok(()) };
        numbers().with_context(|| format!("it was told of {:?}", store.problems()))?;
        let between = |key: &FeedKey| self.removed.iter().any(|it| it.key == *key && it.begin <= at && at < it.end);
        for Removed { key, .. } in self.removed.iter().filter(|it| it.own && it.end <= at) {
            ensure!(!kept.contains_key(key) && store.is_banned(key), "{key} was removed, and is there again");
        }

        let promises = if cut == Cut::Kill { &self.written } else { &self.synced };
        if let Some((_, promise)) = promises.iter().rev().find(|(moment, _)| *moment <= at) {
            let mut promise = promise.clone();
            promise.retain(|key, _| kept.contains_key(key) || !between(key));
            check_promise(&promise, &kept)?;
        }
        let peer = self.peer.iter().rev().find(|(moment, ..)| *moment <= at);
        if let Some((_, _, seen)) = peer
            && !as_js
        {
            let gone = |key: &FeedKey| self.removed.iter().any(|it| it.key == *key && it.begin <= at);
            for (key, length) in seen.iter().filter(|(key, _)| !gone(key)) {
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
        let ours: Vec<FeedId> = store.feeds_in(set).filter(|id| store.info(*id).unwrap().writable).collect();
        for id in &ours {
            store.append(*id, &[format!("after the cut at {at}").into_bytes().into()])?;
        }
        store.commit(Duration::ZERO);
        let mut peer_disk = peer.map_or_else(MemoryStorage::new, |(_, disk, _)| disk.clone());
        peer_disk.reopen();
        let mut peer = Multifeed::open(&mut peer_disk, Options::default())?;
        ensure!(peer.problems().is_empty(), "the peer: {:?}", peer.problems());
        let mut link = Link::new(&mut store, set, &mut peer, Duration::ZERO, self.seed);
        link.run(&mut store, &mut peer, Duration::ZERO, usize::MAX)?;
        numbers()?;
        if as_js {
            return Ok(());
        }
        link.ended_well(&store)?;
        ensure!(
            events(&mut store).iter().chain(&events(&mut peer)).all(|event| !is_conflict(event)),
            "a second history"
        );
        let (all, mut b) = (contents(&mut store, set)?, contents(&mut peer, SetId::ALL)?);
        let mut a = all.clone();
        // A banned feed is not synced, even if it was not removed yet.
        a.retain(|key, _| !store.is_banned(key));
        b.retain(|key, _| !store.is_banned(key));
        ensure!(a == b, "the two differ after a sync: {} and {}", told(&a), told(&b));
        ensure!(a.values().flatten().all(Option::is_some), "blocks are missing after a sync: {}", told(&a));
        verify(&mut store, false)?;
        verify(&mut peer, false)?;
        store.close()?;
        disk.lock().reopen();
        let (mut store, set) = self.open(&disk)?;
        ensure!(store.recovered().is_empty(), "closed well, and yet {:?}", store.recovered());
        ensure!(contents(&mut store, set)? == all, "closed well, and opened as another one");
        Ok(())
    }

    /// Every block that is held is the one that was appended. What is held of each feed.
    fn check_contents(&self, store: &mut Store, set: SetId, as_js: bool) -> Result<Promise> {
        let mut kept = Promise::new();
        for id in store.feeds_in(set).collect::<Vec<_>>() {
            let info = store.info(id).unwrap();
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

/// Everything in the store is what it must be; or, with `ours`, what was appended here.
fn verify<S: Storage>(store: &mut Multifeed<S>, ours: bool) -> Result<()> {
    for id in store.feeds().filter(|id| !ours || store.info(*id).unwrap().writable).collect::<Vec<_>>() {
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

fn contents<S: Storage>(store: &mut Multifeed<S>, set: SetId) -> Result<Contents> {
    let mut all = BTreeMap::new();
    for id in store.feeds_in(set).collect::<Vec<_>>() {
        let info = store.info(id).unwrap();
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
