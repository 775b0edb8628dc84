//! Making a history.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use multifeed_core::{Durability, KeyPair, Multifeed, Options};
use multifeed_proto::FeedKey;

use super::link::Link;
use super::{Held, History, Promise, Removed};
use crate::disk::{Faults, FaultyStorage, Record, SharedDisk};
use crate::random::Random;

/// Makes a history.
pub(super) struct Maker {
    random: Random,
    history: History,
    faults: Faults,
    disk: SharedDisk,
    store: Option<Multifeed<FaultyStorage<SharedDisk>>>,
    peer: Multifeed<SharedDisk>,
    peer_disk: SharedDisk,
    now: Duration,
    /// How often each of our writers was removed: the next one of that name has another key.
    generations: [u8; 2],
}

impl Maker {
    pub(super) fn new(seed: u64) -> Result<Self> {
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
            seed,
            durability,
            record: Record::default(),
            blocks: BTreeMap::new(),
            written: Vec::new(),
            synced: Vec::new(),
            removed: Vec::new(),
            peer: Vec::new(),
        };
        let peer = Multifeed::open(peer_disk.clone(), Options::default())?;
        let mut maker = Self {
            random,
            history,
            faults,
            disk,
            store: None,
            peer,
            peer_disk,
            now: Duration::ZERO,
            generations: [0; 2],
        };
        maker.store = Some(maker.open(storage)?);
        Ok(maker)
    }

    fn open(&self, storage: FaultyStorage<SharedDisk>) -> Result<Multifeed<FaultyStorage<SharedDisk>>> {
        let options = Options { durability: self.history.durability, ..Options::default() };
        Ok(Multifeed::open(storage, options)?)
    }

    pub(super) fn make(mut self) -> Result<History> {
        let steps = self.random.between(6, 14);
        self.append(true)?;
        for _ in 0..steps {
            self.now += Duration::from_millis(self.random.between(0, 700));
            match self.random.between(0, 12) {
                0..4 => self.append(true)?,
                4 | 5 => self.append(false)?,
                6..8 => self.sync(usize::MAX)?,
                8 => {
                    let turns = usize::try_from(self.random.between(3, 12))?;
                    self.sync(turns)?;
                }
                9 => self.reopen()?,
                10 => self.remove()?,
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

    fn store(&mut self) -> Result<&mut Multifeed<FaultyStorage<SharedDisk>>> {
        self.store.as_mut().context("the store is not open")
    }

    /// Appends to a writer of the store's, or of the peer's.
    fn append(&mut self, ours: bool) -> Result<()> {
        let number = self.random.between(0, if ours { 1 } else { 0 });
        let pair = if ours { self.pair(number as u8) } else { KeyPair::from_seed(&[100; 32]) };
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

    /// The key pair of one of our writers.
    fn pair(&self, number: u8) -> KeyPair {
        let generation = self.generations.get(usize::from(number)).copied().unwrap_or(0);
        KeyPair::from_seed(&[1 + number + 2 * generation; 32])
    }

    /// Removes a feed, ours or the peer's, where the store has it.
    fn remove(&mut self) -> Result<()> {
        let number = self.random.between(0, 2) as u8;
        let own = number < 2;
        let key = if own { self.pair(number).public_key() } else { KeyPair::from_seed(&[100; 32]).public_key() };
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
            link.ended_well(&store)?;
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
        let ours = |key: &FeedKey| [0, 1].into_iter().any(|number| self.pair(number).public_key() == *key);
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
        self.history.peer.push((moment, self.peer_disk.snapshot(), seen));
    }
}
