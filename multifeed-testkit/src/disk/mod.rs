//! Storage that fails when a test wants it to, and what a disk holds after a crash at any moment.

mod record;
mod shared;

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use multifeed_core::{FileId, Slot, Storage};

pub use record::{Change, Record, Replay};
pub use shared::SharedDisk;

/// Storage that does as its [`Faults`] say, and otherwise as the storage in it.
#[derive(Debug)]
pub struct FaultyStorage<S> {
    inner: S,
    faults: Faults,
}

impl<S: Storage> FaultyStorage<S> {
    /// Wraps a storage; no faults yet. The [`Faults`] stay with the test while the storage goes to its owner.
    pub fn new(inner: S) -> (FaultyStorage<S>, Faults) {
        let faults = Faults::default();
        (FaultyStorage { inner, faults: faults.clone() }, faults)
    }

    /// Wraps a storage that others were wrapped by before, with the same faults and the same record.
    pub fn over(inner: S, faults: Faults) -> FaultyStorage<S> {
        FaultyStorage { inner, faults }
    }

    /// The storage in it.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

/// What a [`FaultyStorage`] does wrong, and what was asked of it.
///
/// A change is a write, a hole, a truncation, a replacement, a removal or a renaming.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    counts: Counts,
    fail_change: Option<Failure>,
    fail_read: Option<Failure>,
    fail_sync: Option<Failure>,
    space: Option<u64>,
    delay: Duration,
    record: Option<Record>,
}

/// What was asked of a [`FaultyStorage`] so far, failures included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads of bytes, lengths and the list of folders.
    pub reads: u64,
    /// Writes, holes, truncations, replacements, removals and renamings.
    pub changes: u64,
    /// Syncs.
    pub syncs: u64,
    /// Bytes in writes and replacements.
    pub bytes_written: u64,
}

/// A failure that comes after `after` more calls of its sort, with this kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Calls that still go well.
    pub after: u64,
    /// The error that then comes.
    pub kind: io::ErrorKind,
    /// The system's number of the error, instead of its kind.
    pub errno: Option<i32>,
    /// How many bytes of a failing write still reach the file, at most.
    pub torn: usize,
    /// Whether all later calls fail too, or just the one.
    pub lasting: bool,
}

impl Failure {
    /// Just the call after `after` good ones fails; nothing of it reaches the disk.
    pub fn once(after: u64, kind: io::ErrorKind) -> Failure {
        Failure { after, kind, errno: None, torn: 0, lasting: false }
    }

    /// Everything fails after `after` good calls.
    pub fn lasting(after: u64, kind: io::ErrorKind) -> Failure {
        Failure { lasting: true, ..Failure::once(after, kind) }
    }

    /// As it is, with the system's own number of the error, one of [`errno`], by which a store knows a bad sector.
    pub fn with_errno(self, errno: i32) -> Failure {
        Failure { errno: Some(errno), ..self }
    }

    /// As it is, but up to `bytes` bytes of a failing write reach the file.
    pub fn torn(self, bytes: usize) -> Failure {
        Failure { torn: bytes, ..self }
    }
}

impl Faults {
    /// Lets a change fail.
    pub fn fail_change(&self, failure: Failure) {
        self.plan().fail_change = Some(failure);
    }

    /// Lets a read fail.
    pub fn fail_read(&self, failure: Failure) {
        self.plan().fail_read = Some(failure);
    }

    /// Lets a sync fail.
    pub fn fail_sync(&self, failure: Failure) {
        self.plan().fail_sync = Some(failure);
    }

    /// Lets the disk be full after so many more bytes of writes and replacements: the write that does not fit writes
    /// what fits, and fails with [`io::ErrorKind::StorageFull`]. Overwriting takes space here too.
    pub fn limit_space(&self, bytes: u64) {
        self.plan().space = Some(bytes);
    }

    /// Lets every call take so long, in real time: a slow disk.
    pub fn delay(&self, delay: Duration) {
        self.plan().delay = delay;
    }

    /// Takes away the failure of reads that is still to come, for a look at the store by the test itself: [`Faults::fail_read`] puts it back.
    pub fn take_read_failure(&self) -> Option<Failure> {
        self.plan().fail_read.take()
    }

    /// Ends all faults. A recording goes on.
    pub fn heal(&self) {
        let mut plan = self.plan();
        *plan = Plan { counts: plan.counts, record: plan.record.take(), ..Plan::default() };
    }

    /// What was asked of the storage so far.
    pub fn counts(&self) -> Counts {
        self.plan().counts
    }

    /// From now on, keeps every change and every sync, for [`Faults::take_record`].
    pub fn record(&self) {
        self.plan().record = Some(Record::default());
    }

    /// How many changes and syncs were kept since [`Faults::record`].
    pub fn recorded(&self) -> usize {
        self.plan().record.as_ref().map_or(0, |record| record.changes().len())
    }

    /// What was kept since [`Faults::record`]; keeps no more.
    pub fn take_record(&self) -> Record {
        self.plan().record.take().unwrap_or_default()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn before_read(&self) -> io::Result<()> {
        let delay = {
            let mut plan = self.plan();
            plan.counts.reads += 1;
            if let Some(failure) = take_turn(&mut plan.fail_read) {
                return Err(failure.error());
            }
            plan.delay
        };
        pause(delay);
        Ok(())
    }

    /// How many of the change's bytes reach the disk, and the error it ends with, if any.
    fn before_change(&self, len: usize) -> (usize, Option<io::Error>) {
        let (outcome, delay) = {
            let mut plan = self.plan();
            plan.counts.changes += 1;
            plan.counts.bytes_written += len as u64;
            let mut outcome = (len, None);
            if let Some(failure) = take_turn(&mut plan.fail_change) {
                outcome = (failure.torn.min(len), Some(failure.error()));
            } else if let Some(space) = plan.space
                && space < len as u64
            {
                outcome = (usize::try_from(space).unwrap_or(len), Some(injected(io::ErrorKind::StorageFull)));
            }
            if let Some(space) = &mut plan.space {
                *space -= outcome.0 as u64;
            }
            (outcome, plan.delay)
        };
        pause(delay);
        outcome
    }

    fn keep(&self, change: impl FnOnce() -> Change) {
        if let Some(record) = &mut self.plan().record {
            record.push(change());
        }
    }
}

impl<S: Storage> Storage for FaultyStorage<S> {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.faults.before_read()?;
        self.inner.list()
    }

    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.faults.before_read()?;
        self.inner.read_at(file, offset, buf)
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        let (reaches, error) = self.faults.before_change(data.len());
        if reaches > 0 || error.is_none() {
            let data = &data[..reaches];
            self.inner.write_at(file, offset, data)?;
            self.faults.keep(|| Change::Write { file, offset, data: data.to_vec() });
        }
        error.map_or(Ok(()), Err)
    }

    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        self.faults.before_read()?;
        self.inner.len(file)
    }

    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        self.faults.before_read()?;
        self.inner.next_data(file, offset)
    }

    fn can_punch(&self) -> bool {
        self.inner.can_punch()
    }

    fn punch(&mut self, file: FileId, range: Range<u64>) -> io::Result<()> {
        if let (_, Some(error)) = self.faults.before_change(0) {
            return Err(error);
        }
        self.inner.punch(file, range.clone())?;
        self.faults.keep(|| Change::Punch { file, range });
        Ok(())
    }

    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        if let (_, Some(error)) = self.faults.before_change(0) {
            return Err(error);
        }
        self.inner.truncate(file, len)?;
        self.faults.keep(|| Change::Truncate { file, len });
        Ok(())
    }

    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        // All or nothing: a torn replacement leaves the old file.
        if let (_, Some(error)) = self.faults.before_change(data.len()) {
            return Err(error);
        }
        self.inner.replace(file, data)?;
        self.faults.keep(|| Change::Replace { file, data: data.to_vec() });
        Ok(())
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        let delay = {
            let mut plan = self.faults.plan();
            plan.counts.syncs += 1;
            if let Some(failure) = take_turn(&mut plan.fail_sync) {
                return Err(failure.error());
            }
            plan.delay
        };
        pause(delay);
        self.inner.sync(file)?;
        self.faults.keep(|| Change::Sync { file });
        Ok(())
    }

    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        if let (_, Some(error)) = self.faults.before_change(0) {
            return Err(error);
        }
        self.inner.remove(slot)?;
        self.faults.keep(|| Change::Remove { slot });
        Ok(())
    }

    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        if let (_, Some(error)) = self.faults.before_change(0) {
            return Err(error);
        }
        self.inner.rename(from, to)?;
        self.faults.keep(|| Change::Rename { from, to });
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.inner.close()
    }
}

impl Failure {
    fn error(&self) -> io::Error {
        self.errno.map_or_else(|| injected(self.kind), io::Error::from_raw_os_error)
    }
}

/// Numbers of errors, the same on every unix.
pub mod errno {
    /// The disk fails there.
    pub const EIO: i32 = 5;
    /// The call makes no sense to the file system.
    pub const EINVAL: i32 = 22;
    /// The disk is full.
    pub const ENOSPC: i32 = 28;
}

/// Counts one call; the failure, if it is this call's turn.
fn take_turn(failure: &mut Option<Failure>) -> Option<Failure> {
    let due = failure.as_mut()?;
    if due.after > 0 {
        due.after -= 1;
        return None;
    }
    let due = *due;
    if !due.lasting {
        *failure = None;
    }
    Some(due)
}

fn injected(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, "injected by the test")
}

fn pause(delay: Duration) {
    if delay > Duration::ZERO {
        thread::sleep(delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io::ErrorKind::{Other, StorageFull};
    use multifeed_core::{FileKind, MemoryStorage};

    const DATA: FileId = FileId { slot: Slot(0), kind: FileKind::Data };
    const TREE: FileId = FileId { slot: Slot(0), kind: FileKind::Tree };

    #[test]
    fn the_chosen_call_fails_and_the_next_does_not() -> io::Result<()> {
        let (mut disk, faults) = FaultyStorage::new(MemoryStorage::new());
        faults.fail_change(Failure::once(1, Other).torn(2));
        disk.write_at(DATA, 0, b"abc")?;
        assert_eq!(disk.write_at(DATA, 3, b"def").map_err(|err| err.kind()), Err(Other));
        assert_eq!(disk.inner.contents(DATA).as_deref(), Some(&b"abcde"[..]));
        disk.write_at(DATA, 3, b"def")?;
        assert_eq!(disk.inner.contents(DATA).as_deref(), Some(&b"abcdef"[..]));
        assert_eq!(faults.counts(), Counts { changes: 3, bytes_written: 9, ..Counts::default() });
        Ok(())
    }

    #[test]
    fn a_full_disk_stays_full_until_it_is_healed() -> io::Result<()> {
        let (mut disk, faults) = FaultyStorage::new(MemoryStorage::new());
        faults.limit_space(4);
        disk.write_at(DATA, 0, b"abc")?;
        for _ in 0..2 {
            assert_eq!(disk.replace(TREE, b"xy").map_err(|err| err.kind()), Err(StorageFull));
        }
        assert_eq!(disk.inner.contents(TREE), None);
        faults.heal();
        disk.replace(TREE, b"xy")
    }

    #[test]
    fn lasting_failures_of_reads_and_syncs() -> io::Result<()> {
        let (mut disk, faults) = FaultyStorage::new(MemoryStorage::new());
        faults.fail_read(Failure::lasting(1, Other));
        faults.fail_sync(Failure::lasting(0, Other));
        disk.list()?;
        for _ in 0..2 {
            assert!(disk.len(DATA).is_err() && disk.sync(DATA).is_err());
        }
        disk.write_at(DATA, 0, b"abc")
    }
}
