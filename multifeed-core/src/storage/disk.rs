//! What all folders and open files of one store share: what its disk turned out not to support, and the faults that a test gives it.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::Slot;
use super::faults::{DiskOp, Faults};
use super::unsupported::{Unsupported, is_unsupported};

#[derive(Debug, Default)]
pub(super) struct Disk {
    faults: Faults,
    no_locks: AtomicBool,
    no_folder_sync: AtomicBool,
    no_file_sync: AtomicBool,
    no_holes: AtomicBool,
}

impl Disk {
    pub(super) fn new(faults: Faults) -> Self {
        Self { faults, ..Self::default() }
    }

    /// Fails if a test wants the call to fail.
    pub(super) fn check(&self, op: DiskOp, slot: Option<Slot>, name: &str) -> io::Result<()> {
        self.faults.check(op, slot, name)
    }

    /// As [`check`](Self::check), of bytes at an offset: how many of them a test lets through at once.
    pub(super) fn check_bytes(
        &self,
        op: DiskOp,
        slot: Option<Slot>,
        name: &str,
        offset: u64,
        bytes: usize,
    ) -> io::Result<usize> {
        let range: Range<u64> = offset..offset.saturating_add(bytes as u64);
        Ok(self.faults.check_bytes(op, slot, name, range)?.min(bytes))
    }

    /// What the disk does not support, as far as it was tried.
    pub(super) fn unsupported(&self) -> Unsupported {
        Unsupported {
            locks: self.no_locks.load(Relaxed),
            folder_sync: self.no_folder_sync.load(Relaxed),
            file_sync: self.no_file_sync.load(Relaxed),
            holes: self.no_holes.load(Relaxed),
        }
    }

    /// Notes that there are no locks.
    pub(super) fn has_no_locks(&self) {
        self.no_locks.store(true, Relaxed);
    }

    /// Whether holes can be made in files, as far as it was tried.
    pub(super) fn can_punch(&self) -> bool {
        !self.no_holes.load(Relaxed)
    }

    /// Passes over that no hole can be made on this disk, and notes it: the bytes stay, unread.
    pub(super) fn pass_punch(&self, punched: io::Result<()>) -> io::Result<()> {
        pass(&self.no_holes, punched)
    }

    /// Passes over that a folder cannot be fsynced on this disk, and notes it.
    pub(super) fn pass_folder_sync(&self, synced: io::Result<()>) -> io::Result<()> {
        pass(&self.no_folder_sync, synced)
    }

    /// As [`pass_folder_sync`](Self::pass_folder_sync), of a file.
    pub(super) fn pass_file_sync(&self, synced: io::Result<()>) -> io::Result<()> {
        pass(&self.no_file_sync, synced)
    }
}

fn pass(lacks: &AtomicBool, synced: io::Result<()>) -> io::Result<()> {
    match synced {
        Err(error) if is_unsupported(&error) => {
            lacks.store(true, Relaxed);
            Ok(())
        }
        synced => synced,
    }
}
