//! A disk with faults, for tests alone: whoever opened the store decides what each call of the system fails with.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::Slot;

/// A call of the system that a [`FileStorage`](super::FileStorage) makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DiskOp {
    /// Opens a numbered folder.
    OpenFolder,
    /// Makes a numbered folder.
    MakeFolder,
    /// Opens or makes a file.
    OpenFile,
    /// Looks at what has a name.
    Look,
    /// Looks whether a file was changed since.
    Stamp,
    /// Lists what is in a folder.
    List,
    /// Takes a name away.
    Unlink,
    /// Removes an empty folder.
    RemoveFolder,
    /// Renames a file or a folder.
    Rename,
    /// Fsyncs a folder.
    SyncFolder,
    /// Fsyncs a file.
    SyncFile,
    /// Locks a file.
    Lock,
    /// Reads at an offset.
    Read,
    /// Writes at an offset.
    Write,
    /// Asks for a file's length.
    Len,
    /// Sets a file's length.
    SetLen,
    /// Makes a hole.
    PunchHole,
    /// Looks for the end of a hole.
    SeekData,
    /// Asks for the free space.
    FreeSpace,
}

impl DiskOp {
    /// Each of them.
    pub const ALL: [DiskOp; 19] = [
        DiskOp::OpenFolder,
        DiskOp::MakeFolder,
        DiskOp::OpenFile,
        DiskOp::Look,
        DiskOp::Stamp,
        DiskOp::List,
        DiskOp::Unlink,
        DiskOp::RemoveFolder,
        DiskOp::Rename,
        DiskOp::SyncFolder,
        DiskOp::SyncFile,
        DiskOp::Lock,
        DiskOp::Read,
        DiskOp::Write,
        DiskOp::Len,
        DiskOp::SetLen,
        DiskOp::PunchHole,
        DiskOp::SeekData,
        DiskOp::FreeSpace,
    ];
}

/// One call of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskCall<'a> {
    /// What is called.
    pub op: DiskOp,
    /// The numbered folder that it happens in; `None` for the store's own.
    pub slot: Option<Slot>,
    /// The name in that folder; empty for the folder itself.
    pub name: &'a str,
    /// The bytes that are read or written; empty for other calls.
    pub range: Range<u64>,
}

/// What happens instead of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails with this error number of the system.
    Errno(i32),
    /// A read ends after this many bytes, or a write takes no more. As the system does, a call of 0 bytes is the file's end.
    Short(usize),
}

/// Decides what each call comes to. A slow disk sleeps in here.
pub trait FaultyDisk: Debug + Send + Sync {
    /// What happens instead of this call; `None` lets it be.
    fn fault(&self, call: &DiskCall<'_>) -> Option<Fault>;
}

/// The faults of a store's disk; none outside tests.
#[derive(Debug, Clone, Default)]
pub struct Faults(Option<Arc<dyn FaultyDisk>>);

impl Faults {
    /// Makes the faults that `disk` decides.
    pub fn new(disk: Arc<dyn FaultyDisk>) -> Self {
        Self(Some(disk))
    }

    /// Fails if the call must fail.
    pub(super) fn check(&self, op: DiskOp, slot: Option<Slot>, name: &str) -> io::Result<()> {
        self.check_bytes(op, slot, name, 0..0).map(drop)
    }

    /// As [`check`](Self::check), of bytes: how many of them the call may move.
    pub(super) fn check_bytes(
        &self,
        op: DiskOp,
        slot: Option<Slot>,
        name: &str,
        range: Range<u64>,
    ) -> io::Result<usize> {
        let Some(disk) = &self.0 else { return Ok(usize::MAX) };
        match disk.fault(&DiskCall { op, slot, name, range }) {
            None => Ok(usize::MAX),
            Some(Fault::Short(bytes)) => Ok(bytes),
            Some(Fault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}
