//! Open file handles, a bounded number of them: a thousand feeds have seven thousand files.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use super::{FileError, FileId, FileKind};

/// Open files by name, the least recently used closed first.
#[derive(Debug)]
pub(super) struct Pool {
    open: BTreeMap<FileId, Handle>,
    /// By when they were used last.
    order: BTreeMap<u64, FileId>,
    max: usize,
    /// Files are opened for reading alone.
    read_only: bool,
    /// When the last one was used; 0 is never.
    clock: u64,
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
    locked: bool,
    /// Its length, once it is known: nobody else writes to it while the store is locked.
    len: Option<u64>,
}

impl Pool {
    pub(super) fn new(max: usize, read_only: bool) -> Self {
        Self { open: BTreeMap::new(), order: BTreeMap::new(), max: max.max(1), read_only, clock: 1 }
    }

    /// The open file, opened now if it was not. `None` where it does not exist and is not to be made.
    ///
    /// `bitfield` is locked as hypercore locks it, for as long as it is open.
    pub(super) fn get(
        &mut self,
        id: FileId,
        create: bool,
        path: impl FnOnce() -> std::path::PathBuf,
    ) -> io::Result<Option<&mut OpenFile>> {
        if !self.open.contains_key(&id) {
            let path = path();
            self.make_room();
            let opened = loop {
                let opened = if self.read_only { open_to_read(&path) } else { open(&path, create) };
                match opened {
                    // The process has as many files open as it may: fewer of ours, then.
                    Err(error) if is_exhausted(&error) && !self.open.is_empty() => {
                        self.max = (self.open.len() / 2).max(1);
                        self.make_room();
                    }
                    opened => break opened.map_err(|error| FileError::wrap(&path, error))?,
                }
            };
            let Some(file) = opened else { return Ok(None) };
            let file = match id.kind {
                FileKind::Bitfield => OpenFile::locked(file, &path)?,
                _ => OpenFile { file, locked: false, len: None },
            };
            self.open.insert(id, Handle { file, used: 0 });
        }
        let Self { open, order, clock, .. } = self;
        Ok(open.get_mut(&id).map(|handle| {
            // What was used last is where it belongs.
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

    fn make_room(&mut self) {
        while self.open.len() >= self.max {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.open.remove(&oldest);
        }
    }
}

impl OpenFile {
    /// Takes the lock that no second process can have, or says that another one has it.
    pub(super) fn locked(file: File, path: &Path) -> io::Result<Self> {
        match file.try_lock() {
            Ok(()) => Ok(Self { file, locked: true, len: None }),
            Err(TryLockError::WouldBlock) => Err(FileError::locked(path)),
            Err(TryLockError::Error(error)) => Err(FileError::wrap(path, error)),
        }
    }

    /// The length in bytes.
    pub(super) fn len(&mut self) -> io::Result<u64> {
        if let Some(len) = self.len {
            return Ok(len);
        }
        let len = self.file.metadata()?.len();
        self.len = Some(len);
        Ok(len)
    }

    /// Reads until `buf` is full or the file ends.
    pub(super) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        // Where it is known that the file ends earlier, the system need not say so too.
        let wanted = self.len.map_or(u64::MAX, |len| len.saturating_sub(offset));
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(buf.len());
        let mut done = 0;
        while done < wanted {
            match read_some_at(&self.file, offset.saturating_add(done as u64), &mut buf[done..wanted]) {
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
        // Nobody knows how much of a write is there after an error.
        let len = self.len.take();
        write_all_at(&self.file, offset, data)?;
        let end = if data.is_empty() { 0 } else { offset.saturating_add(data.len() as u64) };
        self.len = len.map(|len| len.max(end));
        Ok(())
    }

    /// The first offset from this one on that is in no hole; `None` where none is before the end.
    pub(super) fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        if offset >= self.len()? {
            return Ok(None);
        }
        seek_data(&self.file, offset)
    }

    /// Cuts it, or lengthens it with zeros.
    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.len = None;
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

/// Opens a file for reading alone. `None` where it does not exist.
pub(super) fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open(path: &Path, create: bool) -> io::Result<Option<File>> {
    match options().read(true).write(true).open(path) {
        Ok(file) => return Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // What cannot be written can still be read; a write then says why not.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !create => {
            return options().read(true).open(path).map(Some);
        }
        Err(error) => return Err(error),
    }
    if !create {
        return Ok(None);
    }
    match options().read(true).write(true).create(true).truncate(false).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                make_folder(folder)?;
            }
            options().read(true).write(true).create(true).truncate(false).open(path).map(Some)
        }
        Err(error) => Err(error),
    }
}

/// Options that make a file for its owner alone.
pub(super) fn options() -> OpenOptions {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
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
fn write_all_at(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset)
}

/// Every read and write names its offset: where the file stands does not matter.
#[cfg(any(target_vendor = "apple", target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn seek_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    use rustix::{fs::SeekFrom, io::Errno};
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        // This disk does not know.
        Err(Errno::INVAL | Errno::NOTSUP | Errno::OVERFLOW) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(target_vendor = "apple", target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn seek_data(_file: &File, offset: u64) -> io::Result<Option<u64>> {
    Ok(Some(offset))
}

#[cfg(windows)]
fn read_some_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        match std::os::windows::fs::FileExt::seek_write(file, &data[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
