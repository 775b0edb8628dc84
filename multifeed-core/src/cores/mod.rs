//! The cores of a folder, whichever multifeed has them: their files, the journal, and what has to be fsynced.

pub(crate) mod disk;
pub(crate) mod durability;
pub(crate) mod evidence;
mod folder;
pub(crate) mod journal;
pub(crate) mod report;

use std::collections::BTreeSet;
use std::time::Duration;

use self::disk::Disk;
use self::durability::Durability;
use self::evidence::Evidence;
use self::journal::Journal;
use self::report::Report;
use crate::error::StoreError;
use crate::ids::FeedId;
use crate::keys::signer::Signers;
use crate::limits::Limits;
use crate::storage::{FileId, FileKind, Slot, Storage};

/// The owner of a folder's files.
#[derive(Debug)]
pub(crate) struct Cores<S> {
    pub(crate) storage: S,
    pub(crate) journal: Journal,
    pub(crate) evidence: Evidence,
    /// What opening found.
    pub(crate) report: Report,
    /// Whether the disk takes anything new.
    pub(crate) disk: Disk,
    pub(crate) durability: Durability,
    /// Who signs for writers whose secret keys are not in the store.
    pub(crate) signers: Signers,
    /// Feeds with changes that the journal does not know of.
    pub(crate) unsynced: BTreeSet<FeedId>,
    /// When to fsync them.
    pub(crate) next_sync: Option<Duration>,
}

impl<S: Storage> Cores<S> {
    /// Reads the journal and the evidence. No core is opened.
    pub(crate) fn open(
        mut storage: S,
        limits: &Limits,
        durability: Durability,
        signers: Signers,
    ) -> Result<Self, StoreError> {
        // What the disk does not give of it is damage that the journal tells.
        let (mut journal, _) = Journal::read_as_far(&mut storage, limits)?;
        journal.index_writers();
        let mut report = Report::default();
        report.problems.extend(journal.damage());
        // Without the evidence the feeds are none the worse.
        let evidence = Evidence::read(&mut storage, limits.conflicts).unwrap_or_else(|error| {
            report.problems.push(error);
            Evidence::default()
        });
        Ok(Self {
            storage,
            journal,
            evidence,
            report,
            disk: Disk::default(),
            durability,
            signers,
            unsynced: BTreeSet::new(),
            next_sync: None,
        })
    }

    /// Whether a folder without a key is of a feed that was new when the power went, and nobody can say whose it was. A writer's has its
    /// secret key from the first: whatever happened to the other, that is not thrown away.
    pub(crate) fn is_leftover(&mut self, slot: Slot) -> Result<bool, StoreError> {
        let secret = FileId::new(slot, FileKind::SecretKey);
        let len = self.storage.len(secret).map_err(|error| StoreError::from_file(secret, "look at", error))?;
        Ok(len.unwrap_or(0) == 0 && self.journal.is_leftover(slot))
    }

    /// Sets the time of the next fsync, if one is due.
    pub(crate) fn plan_sync(&mut self, now: Duration) {
        if let Some(interval) = self.durability.interval()
            && !self.unsynced.is_empty()
        {
            self.next_sync.get_or_insert(now + interval);
        }
    }

    /// Bytes that are free on the disk. If it cannot be known, only a write that fails tells.
    pub(crate) fn free_space(&mut self) -> u64 {
        self.storage.free_space().ok().flatten().unwrap_or(u64::MAX)
    }
}
