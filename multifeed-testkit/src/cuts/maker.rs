//! Making a history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use multifeed_core::{Durability, KeyPair, Multifeed, Options, SetId};
use multifeed_proto::FeedKey;

use super::cores::{Places, Store, Writer};
use super::link::Link;
use super::{Held, History, Kind, Promise, Removed};
use crate::disk::{Failure, Faults, FaultyStorage, Record, SharedDisk, errno};
use crate::random::Random;

/// Makes a history.
pub(super) struct Maker {
    random: Random,
    history: History,
    faults: Faults,
    disk: SharedDisk,
    store: Option<Store>,
    /// The feeds of the store that it shows: all, or in a corestore those of its root key.
    set: SetId,
    peer: Multifeed<SharedDisk>,
    peer_disk: SharedDisk,
    now: Duration,
    /// The disk fails: what the store says of itself counts no further than it knows it to be synced.
    faulty: bool,
    /// Batches that were not appended yet: the writer's number, the index at which they begin, and their blocks.
    pending: VecDeque<(u8, u64, Vec<Bytes>)>,
    /// How often each of our writers was removed: the next one of that name has another key.
    generations: [u8; 2],
}

impl Maker {
    pub(super) fn new(kind: Kind, seed: u64) -> Result<Self> {
        let mut random = Random::new(seed);
        let durability = match random.between(0, 4) {
            0 => Durability::None,
            1 | 2 => Durability::Interval(Duration::from_secs(1)),
            _ => Durability::Always,
        };
        let (disk, peer_disk) = (SharedDisk::default(), SharedDisk::default());
        let (storage, faults) = FaultyStorage::new(disk.clone());
        faults.record();
        let history = History {
            kind,
            places: Places::default(),
            seed,
            durability,
            record: Record::default(),
            blocks: BTreeMap::new(),
            written: Vec::new(),
            synced: Vec::new(),
            removed: Vec::new(),
            faults: 0,
            peer: Vec::new(),
        };
        let peer = Multifeed::open(peer_disk.clone(), Options::default())?;
        let mut maker = Self {
            random,
            history,
            faults,
            disk,
            store: None,
            set: SetId::ALL,
            peer,
            peer_disk,
            now: Duration::ZERO,
            faulty: false,
            pending: VecDeque::new(),
            generations: [0; 2],
        };
        maker.open(storage)?;
        Ok(maker)
    }

    /// Opens the store.
    fn open(&mut self, storage: FaultyStorage<SharedDisk>) -> Result<&mut Store> {
        let options = Options { durability: self.history.durability, ..Options::default() };
        let (store, set) = self.history.places.open(self.history.kind, storage, options)?;
        self.set = set;
        Ok(self.store.insert(store))
    }

    pub(super) fn make(mut self) -> Result<History> {
        let steps = self.random.between(6, 14);
        self.append(true)?;
        for _ in 0..steps {
            self.now += Duration::from_millis(self.random.between(0, 700));
            match self.random.between(0, 16) {
                0..4 => self.append(true)?,
                4 | 5 => self.append(false)?,
                6..8 => self.sync(usize::MAX)?,
                8 => {
                    let turns = usize::try_from(self.random.between(3, 12))?;
                    self.sync(turns)?;
                }
                9 => self.reopen()?,
                10 => self.remove()?,
                11 => self.clear()?,
                12..15 => self.fail()?,
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

    fn store(&mut self) -> Result<&mut Store> {
        self.store.as_mut().context("the store is not open")
    }

    /// Appends to a writer of the store's, or of the peer's.
    fn append(&mut self, ours: bool) -> Result<()> {
        let number = self.random.between(0, if ours { 1 } else { 0 });
        let theirs = KeyPair::from_seed(&[100; 32]);
        let key = if ours { self.key(number as u8)? } else { theirs.public_key() };
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
        let all = self.history.blocks.entry(key).or_default();
        let mut start = all.len() as u64;
        all.extend(blocks.iter().cloned());
        let batches: Vec<Vec<_>> = match self.random.one_in(2) {
            true => vec![blocks],
            false => blocks.into_iter().map(|block| vec![block]).collect(),
        };
        let now = self.now;
        for batch in batches {
            let batch: Vec<Bytes> = batch.into_iter().map(Into::into).collect();
            let blocks = batch.len() as u64;
            if ours {
                self.pending.push_back((number as u8, start, batch));
            } else {
                let id = self.peer.writer(Some("theirs"), || theirs.clone())?;
                self.peer.append(id, &batch)?;
                self.peer.commit(now);
            }
            start += blocks;
        }
        if ours { self.append_pending() } else { self.note_written() }
    }

    /// Appends what is not appended yet. A batch of which the store said that it failed may have come to the disk all the same.
    fn append_pending(&mut self) -> Result<()> {
        let mut appended = BTreeSet::new();
        while let Some((number, start, batch)) = self.pending.front().cloned() {
            let (writer, set) = (self.writer(number), self.set);
            let store = self.store()?;
            let id = writer.open(store, set)?;
            let held = store.info(id).unwrap().len;
            if held == start {
                appended.insert(store.info(id)?.key);
                store.append(id, &batch)?;
            } else {
                ensure!(
                    held == start + batch.len() as u64,
                    "{held} blocks, and a batch of {start} and on was not appended"
                );
            }
            self.pending.pop_front();
            self.note_written()?;
        }
        let now = self.now;
        self.store()?.commit(now);
        if self.history.durability == Durability::Always {
            if !self.faulty {
                self.ensure_synced(&appended)?;
            }
            self.note_synced(false)?;
        }
        Ok(())
    }

    /// What was appended with [`Durability::Always`] counts as synced.
    fn ensure_synced(&mut self, writers: &BTreeSet<FeedKey>) -> Result<()> {
        let store = self.store()?;
        for key in writers {
            let id = store.find(key).context("a writer is gone")?;
            let (synced, length) = (store.synced_len(id), store.info(id).unwrap().len);
            ensure!(synced == length, "{synced} of {length} blocks are synced: {:?}", store.sync_error(id));
        }
        Ok(())
    }

    /// Does something while the disk fails, and goes on with a new process on a disk that is whole again.
    fn fail(&mut self) -> Result<()> {
        // EIO, EINVAL, a full disk, and a disk behind a network that is gone.
        let kind = self.random.between(0, 3);
        let after = self.random.between(0, 20);
        let timed_out = ErrorKind::TimedOut;
        let failure =
            if self.random.one_in(2) { Failure::once(after, timed_out) } else { Failure::lasting(after, timed_out) };
        let failure = match kind {
            0 => failure.with_errno(errno::EIO),
            1 => failure.with_errno(errno::EINVAL),
            2 => failure.with_errno(errno::ENOSPC),
            _ => failure,
        };
        let torn = usize::try_from(self.random.between(0, 200))?;
        match self.random.between(0, 2) {
            0 => self.faults.fail_read(failure),
            1 => self.faults.fail_change(failure.torn(torn)),
            _ => self.faults.fail_sync(Failure { after: after / 4, ..failure }),
        }
        self.faulty = true;
        self.history.faults += 1;
        let done = match self.random.between(0, 3) {
            0 | 1 => self.append(true),
            2 => self.sync(usize::MAX),
            _ => self.clear(),
        };
        let ticked = self.tick();
        self.faulty = false;
        self.faults.heal();
        // What failed of it is the fault's. What counts is what the next process finds.
        drop((done, ticked));
        self.store = None;
        self.disk.lock().reopen();
        let store = self.open(FaultyStorage::over(self.disk.clone(), self.faults.clone()))?;
        ensure!(store.problems().is_empty(), "after a fault: {:?}", store.problems());
        self.note_written()?;
        self.append_pending()
    }

    /// Clears blocks of the peer's feed.
    fn clear(&mut self) -> Result<()> {
        let key = KeyPair::from_seed(&[100; 32]).public_key();
        let Some(id) = self.store()?.find(&key) else { return Ok(()) };
        let length = self.store()?.info(id).unwrap().len;
        let start = self.random.between(0, length);
        let end = self.random.between(start, length);
        // From now on they may be gone.
        let moment = self.moment();
        let History { written, synced, .. } = &mut self.history;
        for promises in [written, synced] {
            let Some((_, last)) = promises.last() else { continue };
            let mut promise = last.clone();
            if let Some(held) = promise.get_mut(&key) {
                let gone = held.blocks.iter_mut().skip(start as usize).take((end - start) as usize);
                gone.for_each(|held| *held = false);
            }
            promises.push((moment, promise));
        }
        self.store()?.clear(id, start..end)?;
        self.note_written()
    }

    /// One of our writers.
    fn writer(&self, number: u8) -> Writer {
        Writer { number, generation: self.generations.get(usize::from(number)).copied().unwrap_or(0) }
    }

    fn key(&mut self, number: u8) -> Result<FeedKey> {
        let (writer, set) = (self.writer(number), self.set);
        writer.key(self.store()?, set)
    }

    /// Removes a feed, ours or the peer's, if the store has it.
    fn remove(&mut self) -> Result<()> {
        let number = self.random.between(0, 2) as u8;
        let own = number < 2;
        let key = if own { self.key(number)? } else { KeyPair::from_seed(&[100; 32]).public_key() };
        let Some(id) = self.store()?.find(&key) else { return Ok(()) };
        self.note_written()?;
        let begin = self.moment();
        if own {
            self.store()?.remove_writer(id)?;
            if let Some(generation) = self.generations.get_mut(usize::from(number)) {
                *generation += 1;
            }
        } else {
            self.store()?.remove(id)?;
        }
        let end = self.moment();
        self.history.removed.push(Removed { key, begin, end, own });
        self.note_written()?;
        let mut synced = self.history.synced.last().map(|(_, promise)| promise.clone()).unwrap_or_default();
        synced.remove(&key);
        self.history.synced.push((end, synced));
        Ok(())
    }

    /// Syncs with the peer, for so many turns at most.
    fn sync(&mut self, turns: usize) -> Result<()> {
        let now = self.now;
        let seed = self.random.number();
        let mut store = self.store.take().context("the store is not open")?;
        let mut link = Link::new(&mut store, self.set, &mut self.peer, now, seed);
        for _ in 0..turns {
            let moved = link.run(&mut store, &mut self.peer, now, 1)?;
            let moment = self.moment();
            self.note_peer(moment);
            if !moved {
                break;
            }
        }
        let ended = if turns == usize::MAX && !self.faulty { link.ended_well(&store) } else { Ok(()) };
        link.part(&mut store, &mut self.peer);
        self.store = Some(store);
        ended?;
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
        let ours = [self.key(0)?, self.key(1)?];
        let durability = self.history.durability;
        if let Some(store) = self.store.take() {
            store.close()?;
        }
        let ours = |key: &FeedKey| ours.contains(key);
        let promise = closed.into_iter().filter(|(key, _)| durability != Durability::None || ours(key)).collect();
        let moment = self.moment();
        self.history.synced.push((moment, promise));
        self.disk.lock().reopen();
        let storage = FaultyStorage::over(self.disk.clone(), self.faults.clone());
        let store = self.open(storage)?;
        ensure!(store.recovered().is_empty(), "closed well, and yet {:?}", store.recovered());
        Ok(())
    }

    fn moment(&self) -> usize {
        self.faults.recorded()
    }

    fn held(&mut self) -> Result<Promise> {
        let set = self.set;
        let store = self.store()?;
        Ok(store
            .feeds_in(set)
            .map(|id| {
                let info = store.info(id).unwrap();
                let blocks = (0..info.len).map(|index| store.has(id, index)).collect();
                (info.key, Held { length: info.len, blocks })
            })
            .collect())
    }

    fn note_written(&mut self) -> Result<()> {
        let mut held = self.held()?;
        if self.faulty {
            // What came of a remote's feed may be in memory alone, and comes again.
            let theirs = KeyPair::from_seed(&[100; 32]).public_key();
            held.remove(&theirs);
            let before = self.history.written.last().and_then(|(_, promise)| promise.get(&theirs));
            held.extend(before.map(|promise| (theirs, promise.clone())));
        }
        let moment = self.moment();
        self.history.written.push((moment, held));
        Ok(())
    }

    /// All is promised, or only what was appended here.
    fn note_synced(&mut self, all: bool) -> Result<()> {
        let mut held = self.held()?;
        // What was left unsynced by a fault, and found by the process after it, may be so still.
        let store = self.store()?;
        held.retain(|key, held| store.find(key).is_some_and(|id| store.synced_len(id) >= held.length));
        if !all || self.faulty {
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
        let seen = peer.feeds().map(|id| peer.info(id).unwrap()).filter(|info| !info.writable);
        let seen: BTreeMap<FeedKey, u64> = seen.map(|info| (info.key, info.len)).collect();
        self.history.peer.push((moment, self.peer_disk.snapshot(), seen));
    }
}
