//! A store, its disk, and what must hold of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use multifeed_core::feed::VerifyCursor;
use multifeed_core::{FeedId, Multifeed, Options};
use multifeed_proto::FeedKey;

use crate::disk::{Faults, FaultyStorage, SharedDisk};

/// What was appended to each feed.
pub(super) type Truth = BTreeMap<FeedKey, Vec<Bytes>>;

pub(super) struct Node {
    pub(super) store: Multifeed<FaultyStorage<SharedDisk>>,
    pub(super) faults: Faults,
    /// Feeds that are written here.
    pub(super) writers: Vec<FeedKey>,
    pub(super) disk: SharedDisk,
    /// How each feed was seen last.
    seen: BTreeMap<FeedKey, Seen>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    len: u64,
    downloaded: u64,
}

impl Node {
    pub(super) fn open(disk: SharedDisk) -> Result<Self> {
        let (storage, faults) = FaultyStorage::new(disk.clone());
        let store = Multifeed::open(storage, Options::default())?;
        Ok(Self { store, disk, faults, writers: Vec::new(), seen: BTreeMap::new() })
    }

    pub(super) fn id(&self, key: &FeedKey) -> Result<FeedId> {
        self.store.find(key).with_context(|| format!("{key} is gone"))
    }

    pub(super) fn len(&self, key: &FeedKey) -> Result<u64> {
        Ok(self.store.info(self.id(key)?).unwrap().len)
    }

    /// The process dies, and a new one opens what was written.
    pub(super) fn crash(&mut self) -> Result<()> {
        let mut opened = Node::open(self.disk.clone())?;
        ensure!(opened.store.problems().is_empty(), "after a crash: {:?}", opened.store.problems());
        opened.writers = std::mem::take(&mut self.writers);
        // Of a remote's feed less may be there, if the disk failed before.
        opened.seen = std::mem::take(&mut self.seen);
        opened.seen.retain(|key, _| opened.writers.contains(key));
        *self = opened;
        Ok(())
    }

    /// Blocks held, of all feeds.
    pub(super) fn downloaded(&self) -> u64 {
        self.store.feeds().map(|id| self.store.info(id).unwrap().downloaded).sum()
    }

    /// Each feed is one that somebody made, no longer than its writer made it, and as long as that if it is the writer's;
    /// it never shrinks, and a block of what is new is the one that was appended.
    pub(super) fn check(&mut self, truth: &Truth, which: u64) -> Result<()> {
        // The fault is for the store's own reads.
        let fault = self.faults.take_read_failure();
        let checked = self.check_feeds(truth, which);
        if let Some(fault) = fault {
            self.faults.fail_read(fault);
        }
        checked
    }

    fn check_feeds(&mut self, truth: &Truth, which: u64) -> Result<()> {
        let ids: Vec<FeedId> = self.store.feeds().collect();
        for id in ids {
            let info = self.store.info(id).unwrap();
            let key = info.key;
            let now = Seen { len: info.len, downloaded: info.downloaded };
            let before = self.seen.get(&key).copied().unwrap_or_default();
            let appended = truth.get(&key).with_context(|| format!("a feed {key} that nobody made"))?;
            let all = appended.len() as u64;
            let writes = self.writers.contains(&key);
            ensure!(info.writable == writes, "whose is {key}?");
            ensure!(now.downloaded <= now.len && now.len <= all, "{} blocks of {key}, of {all}", now.len);
            ensure!(!writes || now.downloaded == all, "the writer of {key} has {} of {all} blocks", now.downloaded);
            ensure!(now.len >= before.len, "{key} went from {} blocks to {}", before.len, now.len);
            if now == before {
                continue;
            }
            self.seen.insert(key, now);
            for index in [which % now.len.max(1), now.len.saturating_sub(1)] {
                let Some(block) = appended.get(usize::try_from(index)?).filter(|_| self.store.has(id, index)) else {
                    continue;
                };
                let held = self.store.get(id, index).with_context(|| format!("block {index} of {key}"))?;
                ensure!(held.as_ref() == Some(block), "block {index} of {key}");
            }
        }
        Ok(())
    }

    /// Every block of every feed, and every signature.
    pub(super) fn compare(&mut self, truth: &Truth) -> Result<()> {
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
