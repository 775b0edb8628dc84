//! Open file handles, a bounded number of them: a thousand feeds have seven thousand files.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::disk::Disk;
use super::faults::DiskOp;
use super::folder::{Access, Opened, not_regular};
use super::unsupported::is_unsupported;
use super::{FileError, FileId, FileKind, Found, Slot};

/// Open files by name, the least recently used closed first.
#[derive(Debug)]
pub(super) struct Pool {
    open: BTreeMap<FileId, Handle>,
    /// By when they were used last.
    order: BTreeMap<u64, FileId>,
    max: usize,
    /// When the last one was used; 0 is never.
    clock: u64,
    disk: Arc<Disk>,
    /// Another process may write: nothing is locked, and no length is kept.
    shared: bool,
}

#[derive(Debug)]
struct Handle {
    file: OpenFile,
    used: u64,
}

/// An open file, with a lock on it or without.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    site: Site,
    locked: bool,
    /// Its length, if it is known: nobody else writes to it while the store is locked.
    len: Option<u64>,
    /// Somebody else may write to it.
    shared: bool,
    /// Its permissions on unix when it was opened.
    pub(super) mode: u32,
    /// It was reached by a link.
    linked: bool,
    /// Why it can only be read.
    denied: Option<io::Error>,
}

/// The place of a file, for the faults of a test.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) disk: Arc<Disk>,
    pub(super) slot: Option<Slot>,
    pub(super) name: &'static str,
}

impl Pool {
    pub(super) fn new(max: usize, disk: Arc<Disk>) -> Self {
        Self { open: BTreeMap::new(), order: BTreeMap::new(), max: max.max(1), clock: 1, disk, shared: false }
    }

    /// The same, beside another process that may write.
    pub(super) fn shared(self) -> Self {
        Self { shared: true, ..self }
    }

    /// The open file, opened now if it was not. `None` if it does not exist and must not be made.
    ///
    /// `bitfield` is locked as hypercore locks it, for as long as it is open.
    // Each access to a file comes by here.
    #[inline]
    pub(super) fn get(
        &mut self,
        id: FileId,
        path: impl FnOnce() -> std::path::PathBuf,
        mut opens: impl FnMut() -> io::Result<Option<Opened>>,
    ) -> io::Result<Option<&mut OpenFile>> {
        if !self.open.contains_key(&id) {
            self.make_room();
            let opened = loop {
                match opens() {
                    // The process has as many files open as it may: fewer of ours, then.
                    Err(error) if is_exhausted(&error) && !self.open.is_empty() => {
                        self.max = (self.open.len() / 2).max(1);
                        self.make_room();
                    }
                    opened => break opened?,
                }
            };
            let Some(opened) = opened else { return Ok(None) };
            let site = Site::of(id, &self.disk);
            let file = match id.kind {
                _ if self.shared => OpenFile::shared(opened, site),
                FileKind::Bitfield => OpenFile::locked(opened, site, &path())?,
                _ => OpenFile::new(opened, site),
            };
            self.open.insert(id, Handle { file, used: 0 });
        }
        let Self { open, order, clock, .. } = self;
        Ok(open.get_mut(&id).map(|handle| {
            // What was used last stands last already.
            if handle.used != *clock {
                *clock += 1;
                order.remove(&handle.used);
                order.insert(*clock, id);
                handle.used = *clock;
            }
            &mut handle.file
        }))
    }

    pub(super) fn forget(&mut self, id: FileId) {
        if let Some(handle) = self.open.remove(&id) {
            self.order.remove(&handle.used);
        }
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.order.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Closes all but so many of the files, those that were used last; how many it closed. They are opened again as they are needed, half as
    /// many at once from now on: others need handles too.
    pub(super) fn close_all_but(&mut self, kept: usize) -> usize {
        let before = self.open.len();
        while self.open.len() > kept {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.open.remove(&oldest);
        }
        let closed = before - self.open.len();
        if closed > 0 {
            self.max = (before / 2).clamp(kept, self.max.max(kept));
        }
        closed
    }

    /// Whether an open file of a folder has no name any more: what is written to it is lost.
    pub(super) fn has_lost_file(&self, slot: Slot) -> bool {
        let (first, last) = (FileId::new(slot, FileKind::ALL[0]), FileId::new(slot, FileKind::ALL[6]));
        self.open.range(first..=last).any(|(_, handle)| handle.file.is_lost())
    }

    fn make_room(&mut self) {
        while self.open.len() >= self.max {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.open.remove(&oldest);
        }
    }
}

impl Site {
    /// That of a file of a store.
    pub(super) fn of(id: FileId, disk: &Arc<Disk>) -> Self {
        let slot = Some(id.slot).filter(|_| !id.kind.is_beside());
        Self { disk: disk.clone(), slot, name: id.kind.name() }
    }

    fn check(&self, op: DiskOp) -> io::Result<()> {
        self.disk.check(op, self.slot, self.name)
    }

    fn check_bytes(&self, op: DiskOp, offset: u64, bytes: usize) -> io::Result<usize> {
        self.disk.check_bytes(op, self.slot, self.name, offset, bytes)
    }
}

impl OpenFile {
    pub(super) fn new(opened: Opened, site: Site) -> Self {
        let Opened { file, len, mode, linked, denied } = opened;
        Self { file, site, locked: false, len: Some(len), shared: false, mode, linked, denied }
    }

    /// One that another process may write to.
    fn shared(opened: Opened, site: Site) -> Self {
        let mut file = Self::new(opened, site);
        (file.shared, file.len) = (true, None);
        file
    }

    /// Takes the lock that no second process can have, or says that another one has it. If there are no locks, none is taken.
    pub(super) fn locked(opened: Opened, site: Site, path: &Path) -> io::Result<Self> {
        let mut file = Self::new(opened, site);
        let injected = file.site.check(DiskOp::Lock).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => TryLockError::WouldBlock,
            _ => TryLockError::Error(error),
        });
        match injected.and_then(|()| file.file.try_lock()) {
            Ok(()) => {
                // The length before that may be out of date.
                (file.locked, file.len) = (true, None);
                Ok(file)
            }
            Err(TryLockError::WouldBlock) => Err(FileError::locked(path)),
            Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                file.site.disk.has_no_locks();
                Ok(file)
            }
            Err(TryLockError::Error(error)) => Err(FileError::wrap(path, error)),
        }
    }

    /// Makes what was written outlive a power cut, if the disk can.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        // `sync_data` also writes what is needed to find the data again: the length.
        let synced = self.site.check(DiskOp::SyncFile).and_then(|()| self.file.sync_data());
        self.site.disk.pass_file_sync(synced)
    }

    /// Whether it has no name any more.
    #[cfg(unix)]
    fn is_lost(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// A file that is open keeps its name here.
    #[cfg(not(unix))]
    fn is_lost(&self) -> bool {
        false
    }

    /// The length in bytes.
    pub(super) fn len(&mut self) -> io::Result<u64> {
        if let Some(len) = self.len {
            return Ok(len);
        }
        self.site.check(DiskOp::Len)?;
        let len = self.file.metadata()?.len();
        self.len = Some(len).filter(|_| !self.shared);
        Ok(len)
    }

    /// Reads until `buf` is full or the file ends.
    pub(super) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        // If it is known that the file ends earlier, the system need not say so too.
        let wanted = self.len.map_or(u64::MAX, |len| len.saturating_sub(offset));
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(buf.len());
        let mut done = 0;
        while done < wanted {
            let at = offset.saturating_add(done as u64);
            let read = self.site.check_bytes(DiskOp::Read, at, wanted - done);
            match read.and_then(|most| read_some_at(&self.file, at, &mut buf[done..done + most])) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes all of it.
    pub(super) fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        // Nobody knows how much of a write is there after an error.
        let len = self.len.take();
        let mut done = 0;
        while done < data.len() {
            let at = offset.saturating_add(done as u64);
            let wrote = self.site.check_bytes(DiskOp::Write, at, data.len() - done);
            match wrote.and_then(|most| write_some_at(&self.file, at, &data[done..done + most])) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let end = if data.is_empty() { 0 } else { offset.saturating_add(data.len() as u64) };
        self.len = len.map(|len| len.max(end));
        Ok(())
    }

    /// Finds the first offset from this one on that is in no hole; `None` if none is before the end.
    pub(super) fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        if offset >= self.len()? {
            return Ok(None);
        }
        self.site.check(DiskOp::SeekData)?;
        seek_data(&self.file, offset)
    }

    /// Gives the blocks of the disk that hold nothing but these bytes back to it; the bytes then are zeros. Nothing if there are no holes here.
    pub(super) fn punch(&mut self, range: Range<u64>) -> io::Result<()> {
        let end = range.end.min(self.len()?);
        // Others have what is behind a link.
        if range.start >= end || self.linked {
            return Ok(());
        }
        let punched = self.site.check(DiskOp::PunchHole);
        let punched = punched.and_then(|()| punch_hole(&self.file, range.start, end - range.start));
        self.site.disk.pass_punch(punched)
    }

    /// Fails with what the system said if it could be opened only to be read: a write would say that the file handle is no good.
    fn check_writable(&self) -> io::Result<()> {
        let denied = |error: &io::Error| match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => error.kind().into(),
        };
        self.denied.as_ref().map_or(Ok(()), |error| Err(denied(error)))
    }

    /// Fails if it was reached by a link.
    pub(super) fn check_cuttable(&self) -> io::Result<()> {
        if self.linked { Err(not_regular(Found::BehindLink)) } else { Ok(()) }
    }

    /// Cuts it, or lengthens it with zeros.
    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        if self.linked && len < self.len()? {
            self.check_cuttable()?;
        }
        self.check_writable()?;
        self.len = None;
        self.site.check(DiskOp::SetLen)?;
        self.file.set_len(len)?;
        self.len = Some(len);
        Ok(())
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // A child process that somebody is starting has the file open as well, for a moment: closing ours would leave it locked.
        if self.locked {
            let _ = self.file.unlock();
        }
    }
}

/// Whether the process, or the system, has no file handle left.
fn is_exhausted(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    cfg!(unix) && matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

/// Opens a file to be read and written, or, if that is not allowed, to be read.
pub(super) fn open_as_allowed(
    mut open: impl FnMut(Access) -> io::Result<Option<Opened>>,
) -> io::Result<Option<Opened>> {
    match open(Access::Write) {
        // What cannot be written can still be read; a write then says why not. A disk that fails is made read-only by the system, maybe while
        // the store is open.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            Ok(open(Access::Read)?.map(|opened| Opened { denied: Some(error), ..opened }))
        }
        opened => opened,
    }
}

/// Makes a folder, and those above it, for their owner alone.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(unix)]
fn read_some_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

#[cfg(unix)]
fn write_some_at(file: &File, offset: u64, data: &[u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, data, offset)
}

/// Every read and write names its offset: the file's own position does not matter.
#[cfg(any(target_vendor = "apple", target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn seek_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    use rustix::{fs::SeekFrom, io::Errno};
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        // This disk does not know.
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS | Errno::OVERFLOW) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(target_vendor = "apple", target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn seek_data(_file: &File, offset: u64) -> io::Result<Option<u64>> {
    Ok(Some(offset))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, hole, offset, len))?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn punch_hole(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(windows)]
fn read_some_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}

#[cfg(windows)]
fn write_some_at(file: &File, offset: u64, data: &[u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, data, offset)
}
