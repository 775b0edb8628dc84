//! What the feed tests share: the contents that `interop/vectors/folders.js` has too, and a disk that fails.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::io;

use bytes::Bytes;
use multifeed_core::feed::{Finding, VerifyCursor};
use multifeed_core::{Answer, Feed, FileId, FileKind, KeyPair, MemoryStorage, Put, Slot, Storage, prepare};
use multifeed_proto::Request;

pub fn key_pair(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

/// Block `i` of feed `n`.
pub fn block(n: u8, i: u64) -> Bytes {
    let size = (i * 7 + u64::from(n)) % 50;
    (0..size).map(|j| (u64::from(n) * 31 + i * 5 + j * 3) as u8).collect::<Vec<u8>>().into()
}

pub fn blocks(n: u8, range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(|i| block(n, i)).collect()
}

pub fn create<S: Storage>(storage: &mut S, slot: u32, n: u8, name: Option<&str>) -> Feed {
    let pair = key_pair(n);
    Feed::create(storage, Slot(slot), pair.public_key(), Some(&pair), name).unwrap()
}

pub fn create_copy<S: Storage>(storage: &mut S, slot: u32, n: u8) -> Feed {
    Feed::create(storage, Slot(slot), key_pair(n).public_key(), None, None).unwrap()
}

pub fn verify<S: Storage>(feed: &mut Feed, storage: &mut S) -> Vec<Finding> {
    let mut cursor = VerifyCursor::default();
    let mut findings = Vec::new();
    loop {
        let step = feed.verify_step(storage, &mut cursor, 10_000).unwrap();
        findings.extend(step.findings);
        if step.done {
            return findings;
        }
    }
}

/// Asks one feed for a block and puts the answer into another, as replication does.
pub fn pull<A: Storage, B: Storage>(from: (&mut Feed, &mut A), to: (&mut Feed, &mut B), index: u64) -> Put {
    let request = Request { index, bytes: 0, hash: false, nodes: to.0.digest(index) };
    let Answer::Data(data) = from.0.answer(from.1, &request).unwrap() else { panic!("no answer for block {index}") };
    to.0.put(to.1, prepare(data)).unwrap()
}

/// xorshift32, as in `interop/vectors/folders.js`.
pub struct Random(pub u32);

impl Random {
    pub fn below(&mut self, below: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % below
    }
}

/// A disk whose n-th write is cut short, and which is then gone, or (`transient`) works again.
pub struct Faulty {
    pub disk: MemoryStorage,
    /// Writes until the one that fails.
    pub writes: usize,
    /// How much of that one reaches the disk, in quarters.
    pub quarters: usize,
    pub transient: bool,
    pub failed: bool,
}

impl Faulty {
    pub fn new(disk: MemoryStorage, writes: usize, quarters: usize) -> Self {
        Self { disk, writes, quarters, transient: false, failed: false }
    }

    fn up(&self) -> io::Result<()> {
        if self.failed && !self.transient { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn fails(&mut self) -> bool {
        if self.failed {
            return false;
        }
        self.failed = self.writes == 0;
        self.writes = self.writes.saturating_sub(1);
        self.failed
    }
}

impl Storage for Faulty {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.up()?;
        self.disk.list()
    }
    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.up()?;
        self.disk.read_at(file, offset, buf)
    }
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.up()?;
        if self.fails() {
            let cut = data.len() * self.quarters / 4;
            if cut > 0 {
                self.disk.write_at(file, offset, &data[..cut])?;
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.write_at(file, offset, data)
    }
    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.up()?;
        self.disk.len(file)
    }
    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.up()?;
        if self.fails() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.truncate(file, len)
    }
    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        self.up()?;
        if self.fails() {
            // All of it or nothing.
            if self.quarters == 4 {
                self.disk.replace(file, data)?;
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.replace(file, data)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.up()?;
        self.disk.sync(file)
    }
    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.up()?;
        self.disk.remove(slot)
    }
    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        self.up()?;
        self.disk.rename(from, to)
    }
    fn close(&mut self) -> io::Result<()> {
        self.disk.close()
    }
}

pub fn file(slot: u32, kind: FileKind) -> FileId {
    FileId::new(Slot(slot), kind)
}
