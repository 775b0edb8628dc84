//! Feeds that are never to be synced, whoever offers or asks for them.
//!
//! Their keys stand in `multifeed.blocked`, beside the folders: 64 hex digits and a newline for each, in ascending order.

use std::collections::BTreeSet;

use multifeed_proto::FeedKey;

use super::Multifeed;
use crate::error::StoreError;
use crate::limits::Limits;
use crate::storage::{FileId, FileKind, Slot, Storage};

const FILE: FileId = FileId { slot: Slot(0), kind: FileKind::Blocked };

/// Bytes of a key and its newline.
const LINE: usize = 65;

/// The blocked keys.
#[derive(Debug, Default)]
pub(super) struct Blocked(BTreeSet<FeedKey>);

impl Blocked {
    /// Reads the file. Lines that are no keys are passed over, and told.
    pub(super) fn read<S: Storage>(storage: &mut S, limits: &Limits) -> Result<(Self, Option<StoreError>), StoreError> {
        let failed = |error| StoreError::from_file(FILE, "read", error);
        let Some(len) = storage.len(FILE).map_err(failed)? else { return Ok((Self::default(), None)) };
        let most = limits.blocked.saturating_mul(LINE);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(most)];
        let count = storage.read_at(FILE, 0, &mut bytes).map_err(failed)?;
        bytes.truncate(count);
        let text = String::from_utf8_lossy(&bytes);
        let mut keys = BTreeSet::new();
        let mut why = (len > most as u64).then(|| format!("it has {len} bytes, and {most} are read"));
        for (number, line) in (1..).zip(text.lines()) {
            match line.parse::<FeedKey>() {
                Ok(key) => _ = keys.insert(key),
                Err(_) => why = why.or_else(|| Some(format!("its line {number} is no key"))),
            }
        }
        Ok((Self(keys), why.map(|why| StoreError::damaged(FILE.slot, FILE.kind, why))))
    }

    pub(super) fn contains(&self, key: &FeedKey) -> bool {
        self.0.contains(key)
    }

    /// Replaces the file.
    fn write<S: Storage>(&self, storage: &mut S) -> Result<(), StoreError> {
        let lines: String = self.0.iter().map(|key| format!("{key}\n")).collect();
        storage.replace(FILE, lines.as_bytes()).map_err(|error| StoreError::from_file(FILE, "write", error))
    }
}

impl<S: Storage> Multifeed<S> {
    /// Blocks a feed, whether it is here or not: it is not offered, not asked for, not opened for a remote and not fetched, on any session,
    /// until it is [unblocked](Self::unblock). Sessions that sync it close its channel, and go on. It is known for good when this returns.
    /// False where it was blocked before.
    ///
    /// What is here of it stays, and can be read; [`remove`](Self::remove) takes it away. A writer that is blocked can be appended to, and
    /// nobody hears of it; a key pair of a blocked feed that is not here is not taken for a new writer.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooManyBlocked`], or what the storage says; it is not blocked then.
    pub fn block(&mut self, key: FeedKey) -> Result<bool, StoreError> {
        if self.blocked.contains(&key) {
            return Ok(false);
        }
        let max = self.limits.blocked;
        if self.blocked.0.len() >= max {
            return Err(StoreError::TooManyBlocked { max });
        }
        self.blocked.0.insert(key);
        if let Err(error) = self.blocked.write(&mut self.storage) {
            self.blocked.0.remove(&key);
            return Err(error);
        }
        match self.catalog.find(&key) {
            Some(id) => self.leave_sessions(id),
            None => self.leave_offers(&key),
        }
        Ok(true)
    }

    /// Unblocks a feed. What is here of it is offered to the sessions that are there; what they offered of it before is asked for by later
    /// ones. False where it was not blocked.
    ///
    /// # Errors
    ///
    /// What the storage says; it is blocked then as before.
    pub fn unblock(&mut self, key: FeedKey) -> Result<bool, StoreError> {
        if !self.blocked.0.remove(&key) {
            return Ok(false);
        }
        if let Err(error) = self.blocked.write(&mut self.storage) {
            self.blocked.0.insert(key);
            return Err(error);
        }
        if let Some(id) = self.catalog.find(&key) {
            self.peerings.values_mut().for_each(|peering| _ = peering.known.remove(u64::from(id.0)));
            self.unannounced.push(id);
        }
        Ok(true)
    }

    /// Whether a feed is blocked.
    pub fn is_blocked(&self, key: &FeedKey) -> bool {
        self.blocked.contains(key)
    }

    /// The blocked feeds, ascending.
    pub fn blocked(&self) -> impl Iterator<Item = FeedKey> {
        self.blocked.0.iter().copied()
    }
}
