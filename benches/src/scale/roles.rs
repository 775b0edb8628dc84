//! What a measured process does with a store. Each prints one JSON object at its end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Subcommand;
use multifeed_core::{Feed, FileId, FileStorage, KeyPair, Multifeed, Options, Slot, Storage};
use serde_json::{Value, json};

use multifeed_benches::watch::own_peak_bytes;

#[path = "../../../multifeed-core/tests/common/long.rs"]
mod long;

#[derive(Subcommand)]
pub(crate) enum Role {
    /// A store of writers, each with some blocks.
    Make { store: PathBuf, feeds: u32, blocks: u64, size: usize },
    /// A store of remote feeds that sign a length, with one block each.
    Claim { store: PathBuf, feeds: u32, length: u64 },
    /// Opens a store, asks each feed its length, and closes it.
    Open { store: PathBuf },
    /// Appends to one writer, in batches.
    Append { store: PathBuf, blocks: u64, size: usize, batch: u64 },
    /// Reads blocks of the first feed, far apart from each other.
    Read { store: PathBuf, reads: u64 },
}

impl Role {
    pub(crate) fn run(self) -> Result<()> {
        let start = Instant::now();
        let mut report = match self {
            Role::Make { store, feeds, blocks, size } => make(&store, feeds, blocks, size)?,
            Role::Claim { store, feeds, length } => claim(&store, feeds, length)?,
            Role::Open { store } => open(&store)?,
            Role::Append { store, blocks, size, batch } => append(&store, blocks, size, batch)?,
            Role::Read { store, reads } => read(&store, reads)?,
        };
        report["process"] = json!(start.elapsed().as_secs_f64());
        report["bytes"] = json!(own_peak_bytes());
        println!("{report}");
        Ok(())
    }
}

fn make(store: &Path, feeds: u32, blocks: u64, size: usize) -> Result<Value> {
    let mut multi = Multifeed::open(Hasty(FileStorage::open(store)?), Options::default())?;
    for number in 0..feeds {
        let feed = multi.writer(Some(&format!("writer-{number}")), || key_pair(number))?;
        let blocks: Vec<Bytes> = (0..blocks).map(|index| block(u64::from(number) << 32 | index, size)).collect();
        multi.append(feed, &blocks)?;
        multi.commit(Duration::ZERO);
        while multi.poll_event().is_some() {}
    }
    multi.close()?;
    Ok(json!({}))
}

fn claim(store: &Path, feeds: u32, length: u64) -> Result<Value> {
    let mut storage = Hasty(FileStorage::open(store)?);
    for number in 0..feeds {
        let pair = key_pair(number);
        let mut feed = Feed::create(&mut storage, Slot(number), pair.public_key(), None, None)?;
        let data = long::claim(&pair, length, u64::from(number) * 7_919_777 % length, &block(number.into(), 100));
        feed.put(&mut storage, multifeed_core::prepare(data))?;
        feed.flush(&mut storage)?;
    }
    // With a writer beside them, so that they are known to the journal when the store is closed.
    let mut multi = Multifeed::open(storage, Options::default())?;
    ensure!(multi.problems().is_empty() && multi.recovered().is_empty(), "{:?}", multi.problems());
    let writer = multi.writer(Some("writer"), || key_pair(feeds))?;
    multi.append(writer, &[block(0, 100)])?;
    multi.commit(Duration::ZERO);
    multi.close()?;
    Ok(json!({}))
}

fn open(store: &Path) -> Result<Value> {
    let start = Instant::now();
    let multi = Multifeed::open(FileStorage::open(store)?, Options::default())?;
    let ready = start.elapsed();
    let (mut feeds, mut blocks) = (0u64, 0u64);
    for feed in multi.feeds().collect::<Vec<_>>() {
        feeds += 1;
        blocks += multi.info(feed).unwrap().len;
    }
    let seconds = start.elapsed();
    ensure!(multi.problems().is_empty(), "{:?}", multi.problems());
    multi.close()?;
    Ok(json!({ "ready": ready.as_secs_f64(), "seconds": seconds.as_secs_f64(), "feeds": feeds, "blocks": blocks }))
}

fn append(store: &Path, blocks: u64, size: usize, batch: u64) -> Result<Value> {
    let mut multi = Multifeed::open(FileStorage::open(store)?, Options::default())?;
    let feed = multi.writer(Some("writer"), || key_pair(0))?;
    let start = Instant::now();
    let mut from = 0;
    while from < blocks {
        let count = batch.min(blocks - from);
        let batch: Vec<Bytes> = (from..from + count).map(|index| block(index, size)).collect();
        multi.append(feed, &batch)?;
        multi.commit(Duration::ZERO);
        while multi.poll_event().is_some() {}
        from += count;
    }
    let seconds = start.elapsed().as_secs_f64();
    multi.close()?;
    Ok(json!({ "seconds": seconds, "blocks": blocks }))
}

fn read(store: &Path, reads: u64) -> Result<Value> {
    let mut multi = Multifeed::open(FileStorage::open(store)?, Options::default())?;
    let feed = multi.feeds().next().context("no feed")?;
    let len = multi.info(feed).unwrap().len;
    ensure!(len > 0, "an empty feed");
    let start = Instant::now();
    for number in 0..reads {
        // A step that has no factor in common with most lengths.
        let index = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % len;
        multi.get(feed, index)?.with_context(|| format!("block {index} is not there"))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    multi.close()?;
    Ok(json!({ "seconds": seconds, "blocks": reads }))
}

fn key_pair(number: u32) -> KeyPair {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    KeyPair::from_seed(&seed)
}

/// A block that no other number has.
fn block(number: u64, size: usize) -> Bytes {
    let mut block = vec![0; size];
    for (to, from) in block.iter_mut().zip(number.to_le_bytes()) {
        *to = from;
    }
    block.into()
}

/// Files whose syncs are left out: stores to measure are made by the thousand.
struct Hasty(FileStorage);

impl Storage for Hasty {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.0.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
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
        self.0.truncate(file, data.len() as u64)?;
        self.0.write_at(file, 0, data)
    }
    fn sync(&mut self, _: FileId) -> io::Result<()> {
        Ok(())
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.0.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn stamp(&mut self, slot: Slot, settled: bool) -> Option<[u8; 8]> {
        self.0.stamp(slot, settled)
    }
    fn close(&mut self) -> io::Result<()> {
        self.0.close()
    }
}
