//! A store in a folder on disk, laid out as multifeed 6 lays it out.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::changes::{check_removable, in_folder, remove, rename, replace};
use super::corestore::has_cores;
use super::disk::Disk;
use super::faults::Faults;
use super::folder::{Access, Folder};
use super::folders::Folders;
use super::layout::Paths;
use super::other_store::{OtherStore, StoreKind};
use super::pool::{self, Pool, Site};
use super::unsupported::Unsupported;
use super::{FileError, FileId, FileKind, Found, Slot, Storage};
use crate::error::StoreError;

/// The name of the lock beside the numbered folders. JS does not look at it.
const LOCK: &str = "multifeed.lock";

/// How a [`FileStorage`] is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FileStorageOptions {
    /// The most files that are open at once, the lock, two folders and whatever is open for a moment alone included. At least 5. By default
    /// 240, or a quarter of what the process may have open if that is less: the rest is for sockets. See
    /// [`Storage::close_idle_files`].
    pub max_open_files: usize,
    /// Whether links are followed: a numbered folder, or a file, that is kept elsewhere on purpose. By default they are not, nor is a file
    /// used that has other names (hard links). In a folder that comes from somebody else they lead to any file of this machine.
    ///
    /// If they are, what is behind a link is read and written, and never deleted, cut, replaced or renamed: what needs that fails with
    /// [`StoreError::NotRegular`]. The folder of the store itself may always be a link.
    pub follow_links: bool,
    /// For tests alone: what the calls of the system come to.
    #[doc(hidden)]
    pub faults: Faults,
}

impl Default for FileStorageOptions {
    fn default() -> Self {
        Self { max_open_files: default_open_files(), follow_links: false, faults: Faults::default() }
    }
}

/// Fails if the folder is another kind of store's.
fn check_kind(folder: &Folder, paths: &Paths, follow: bool) -> io::Result<()> {
    let look = |name: &str| folder.look(name).map_err(|error| FileError::wrap(paths.root(), error));
    // What stands in the place of a folder, or one that cannot be read, is reported when it is opened.
    let has = |name: &str| match look(name) {
        Err(_) if name.contains('/') => Ok(false),
        found => Ok(found?.is_some()),
    };
    let has_cores = has_cores(folder, paths.root(), follow);
    let found = OtherStore::recognise(paths.root(), has_cores, has)?;
    match found {
        Some(other) if paths.is_corestore() || other.kind() != StoreKind::Multifeed => {
            Err(FileError::of_other_store(paths.root(), other))
        }
        // Of the two hex digits that the folders of cores are named by some are numbers.
        None if !paths.is_corestore() && (has_cores || has("master_key")? && !has("0")?) => {
            Err(FileError::corestore(paths.root()))
        }
        _ => Ok(()),
    }
}

/// The most files that a store has open by default.
const MAX_OPEN_FILES: usize = 240;

#[cfg(unix)]
fn default_open_files() -> usize {
    let may = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    may.and_then(|may| usize::try_from(may / 4).ok()).map_or(MAX_OPEN_FILES, |files| files.clamp(8, MAX_OPEN_FILES))
}

#[cfg(not(unix))]
fn default_open_files() -> usize {
    MAX_OPEN_FILES
}

/// A store in a folder: a numbered folder for each feed, either side's (JS's or ours), one at a time.
///
/// While it is open it holds `multifeed.lock`, which keeps a second process of ours out. While a feed's `bitfield` is open, it also holds the
/// lock on it that hypercore 9 and Corestore take. multifeed 6 itself takes no lock, and so cannot be kept out.
///
/// Below the store's folder links are not followed, unless [`FileStorageOptions::follow_links`] says so, and nothing but real folders and
/// regular files is used. Whatever else has one of their names is left as it is, and fails with [`StoreError::NotRegular`].
#[derive(Debug)]
pub struct FileStorage {
    pub(super) paths: Paths,
    pub(super) disk: Arc<Disk>,
    pub(super) folders: Folders,
    pool: Pool,
    /// Files whose entries in their folders are on the disk too: a bit for each kind.
    entered: BTreeMap<Slot, u16>,
    access: Use,
    /// Held as long as the store is open, if there is one.
    lock: Option<pool::OpenFile>,
}

/// What may be done with the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    All,
    Reading,
    /// Nothing any more.
    Closed,
}

impl FileStorage {
    /// Opens the folder, made if it is missing (mode 0700), and locks it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open, else the disk's error.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(root, FileStorageOptions::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(root: impl Into<PathBuf>, options: FileStorageOptions) -> Result<Self, StoreError> {
        let root = root.into();
        let open = || {
            pool::make_folder(&root).map_err(|error| FileError::wrap(&root, error))?;
            Self::start(&Paths::numbered(&root), &options, Use::All)
        };
        open().map_err(|error| StoreError::from_store("open", error))
    }

    /// Opens a folder for reading alone, such as one on a disk that cannot be written: nothing is made or changed in it, and every write fails by
    /// [`ReadOnlyFilesystem`](io::ErrorKind::ReadOnlyFilesystem). A store that needs repair, after a crash say, so cannot be opened in it.
    ///
    /// If the folder has no lock, nothing is locked but the `bitfield`s that are open: another process may change what is read.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if there is no such folder.
    pub fn open_read_only(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_read_only_with(root, FileStorageOptions::default())
    }

    /// As [`open_read_only`](Self::open_read_only), with options.
    ///
    /// # Errors
    /// As [`open_read_only`](Self::open_read_only).
    pub fn open_read_only_with(root: impl Into<PathBuf>, options: FileStorageOptions) -> Result<Self, StoreError> {
        let opened = Self::start(&Paths::numbered(root), &options, Use::Reading);
        opened.map_err(|error| StoreError::from_store("open", error))
    }

    /// As [`open_read_only_with`](Self::open_read_only_with), also while another process has the store open: no lock is taken. That process may
    /// change what is read, so that a feed can seem to be torn or a block damaged, and be whole when it is read again.
    ///
    /// # Errors
    /// As [`open_read_only`](Self::open_read_only), but for the lock.
    pub fn open_beside_with(root: impl Into<PathBuf>, options: FileStorageOptions) -> Result<Self, StoreError> {
        let opened = Self::start_with(&Paths::numbered(root), &options, Use::Reading, false);
        opened.map_err(|error| StoreError::from_store("open", error))
    }

    fn start(paths: &Paths, options: &FileStorageOptions, access: Use) -> io::Result<Self> {
        Self::start_with(paths, options, access, true)
    }

    /// Opens the folder, and takes the lock in it.
    pub(super) fn start_with(
        paths: &Paths,
        options: &FileStorageOptions,
        access: Use,
        locks: bool,
    ) -> io::Result<Self> {
        let root = paths.root();
        let follow = options.follow_links;
        let disk = Arc::new(Disk::new(options.faults.clone()));
        let wrap = |error| FileError::wrap(root, error);
        let folder = Folder::open(root, disk.clone()).map_err(wrap)?;
        let place = std::path::absolute(root).map_err(wrap)?;
        // Before the lock is made: a folder that is another store's gets nothing of ours.
        check_kind(&folder, paths, follow)?;
        let lock = if access == Use::All { Access::Make } else { Access::Read };
        let path = root.join(LOCK);
        let lock = if locks { folder.file(LOCK, lock, follow) } else { Ok(None) };
        let lock = lock.map_err(|error| FileError::wrap(&path, error))?;
        let site = Site { disk: disk.clone(), slot: None, name: LOCK };
        let lock = lock.map(|file| pool::OpenFile::locked(file, site, &path)).transpose()?;
        // Those that are not in the pool: the lock, two folders, and a folder that is fsynced or a file that replaces another.
        let pool = Pool::new(options.max_open_files.saturating_sub(4), disk.clone());
        let pool = if locks { pool } else { pool.shared() };
        let folders = Folders::new(folder, place, follow);
        Ok(Self { paths: paths.clone(), disk, folders, pool, entered: BTreeMap::new(), access, lock })
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        self.paths.root()
    }

    /// Returns how many files are open, the lock and folders included.
    pub fn open_files(&self) -> usize {
        self.pool.len() + usize::from(self.lock.is_some()) + self.folders.open_files()
    }

    /// Returns the path of one file.
    pub fn path_of(&self, file: FileId) -> PathBuf {
        self.paths.of(file)
    }

    pub(super) fn check(&self) -> io::Result<()> {
        if self.access == Use::Closed { Err(io::Error::other("the store is closed")) } else { Ok(()) }
    }

    /// As [`check`](Self::check), of what changes something at a path.
    pub(super) fn check_change(&self, path: impl FnOnce() -> PathBuf) -> io::Result<()> {
        self.check()?;
        if self.access == Use::Reading {
            let error = io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "the store is opened for reading alone, and nothing in it can be repaired",
            );
            return Err(FileError::wrap(&path(), error));
        }
        Ok(())
    }

    fn file(&mut self, id: FileId, create: bool) -> io::Result<Option<&mut pool::OpenFile>> {
        self.check()?;
        let Self { paths, folders, pool, access, .. } = self;
        let file = pool.get(
            id,
            || paths.of(id),
            || match (create, *access) {
                (true, _) => folders.open(paths, id, Access::Make),
                (false, Use::Reading) => folders.open(paths, id, Access::Read),
                (false, _) => pool::open_as_allowed(|access| folders.open(paths, id, access)),
            },
        );
        file.map_err(|error| named(paths, id, error))
    }

    /// The open file, made if it was missing.
    fn made(&mut self, id: FileId) -> io::Result<&mut pool::OpenFile> {
        self.check_change(|| self.path_of(id))?;
        self.file(id, true)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn forget_entry(&mut self, file: FileId) {
        if let Some(kinds) = self.entered.get_mut(&file.slot) {
            *kinds &= !bit(file.kind);
            if *kinds == 0 {
                self.entered.remove(&file.slot);
            }
        }
    }

    /// The numbers that have a real folder, or those that something else has.
    fn slots(&self, real: bool) -> io::Result<Vec<Slot>> {
        if self.paths.is_corestore() {
            return Ok(if real { self.paths.assigned().collect() } else { Vec::new() });
        }
        let wrap = |error| FileError::wrap(self.paths.root(), error);
        let mut slots = Vec::new();
        for (name, found) in self.folders.root.entries().map_err(wrap)? {
            let Some(slot) = slot_of(&name) else { continue };
            let is_real = match found {
                Found::Folder => true,
                Found::Link if self.folders.follow => {
                    matches!(self.folders.root.folder(&name, Some(slot), true), Ok(Some(_)))
                }
                _ => false,
            };
            if is_real == real {
                slots.push(slot);
            }
        }
        slots.sort_unstable();
        Ok(slots)
    }

    /// Closes all files of a folder.
    pub(super) fn forget_folder(&mut self, slot: Slot) {
        self.folders.forget(slot);
        let all = self.paths.is_corestore();
        for kind in FileKind::EVERY.into_iter().filter(|kind| all || !kind.is_beside()) {
            let id = FileId::new(slot, kind);
            self.pool.forget(id);
            self.forget_entry(id);
        }
    }

    /// Removes a feed's files, and before them those that are named in `more`.
    pub(super) fn remove_with(&mut self, slot: Slot, more: &'static [&'static str]) -> io::Result<()> {
        let path = self.paths.folder(slot);
        self.check_change(|| path.clone())?;
        self.forget_folder(slot);
        let follow = self.folders.follow;
        let Some((above, name)) = self.folders.above(&self.paths, slot)? else { return Ok(()) };
        let above = above.as_ref().unwrap_or(&self.folders.root);
        remove(above, &name, slot, more, follow).map_err(|error| in_folder(&path, error))
    }

    /// Makes a file's entry in its folder, and the folder's own, outlive a power cut: once, for all files that are there now.
    fn enter(&mut self, file: FileId) -> io::Result<()> {
        if self.entered.get(&file.slot).is_some_and(|kinds| kinds & bit(file.kind) != 0) {
            return Ok(());
        }
        let Self { paths, folders, entered, .. } = self;
        if paths.is_in_root(file) {
            folders.root.sync()?;
        } else if let Some(folder) = folders.slot(paths, file.slot)? {
            folder.sync()?;
            for kind in FileKind::ALL {
                if folder.look(kind.name())?.is_some() {
                    *entered.entry(file.slot).or_default() |= bit(kind);
                }
            }
            folders.sync_above(paths, file.slot)?;
        }
        *self.entered.entry(file.slot).or_default() |= bit(file.kind);
        Ok(())
    }
}

impl Storage for FileStorage {
    fn list(&mut self) -> io::Result<Vec<Slot>> {
        self.check()?;
        self.slots(true)
    }

    fn release(&mut self, slot: Slot) {
        self.forget_folder(slot);
    }

    fn obstacles(&mut self) -> io::Result<Vec<Slot>> {
        self.check()?;
        self.slots(false)
    }

    fn permissions(&mut self, file: FileId) -> io::Result<Option<u32>> {
        let mode = self.file(file, false)?.map(|open| open.mode);
        Ok(mode.filter(|_| cfg!(unix)))
    }

    fn read_at(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let read = match self.file(file, false) {
            Ok(None) => return Ok(0),
            Ok(Some(open)) => open.read_at(offset, buf),
            Err(error) => Err(error),
        };
        read.map_err(|error| named(&self.paths, file, error))
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        let wrote = self.made(file).and_then(|open| open.write_at(offset, data));
        wrote.map_err(|error| named(&self.paths, file, error))
    }

    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        let len = match self.file(file, false) {
            Ok(None) => return Ok(None),
            Ok(Some(open)) => open.len().map(Some),
            Err(error) => Err(error),
        };
        len.map_err(|error| named(&self.paths, file, error))
    }

    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        let found = match self.file(file, false) {
            Ok(None) => return Ok(None),
            Ok(Some(open)) => open.next_data(offset),
            Err(error) => Err(error),
        };
        found.map_err(|error| named(&self.paths, file, error))
    }

    fn can_punch(&self) -> bool {
        self.access == Use::All && self.disk.can_punch()
    }

    fn punch(&mut self, file: FileId, range: Range<u64>) -> io::Result<()> {
        self.check_change(|| self.path_of(file))?;
        let punched = match self.file(file, false) {
            Ok(None) => return Ok(()),
            Ok(Some(open)) => open.punch(range),
            Err(error) => Err(error),
        };
        punched.map_err(|error| named(&self.paths, file, error))
    }

    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        let cut = self.made(file).and_then(|open| open.set_len(len));
        cut.map_err(|error| named(&self.paths, file, error))
    }

    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        let path = self.path_of(file);
        self.check_change(|| path.clone())?;
        self.pool.forget(file);
        self.forget_entry(file);
        let Self { paths, folders, .. } = self;
        let site = Site::of(file, &self.disk);
        let replaced =
            folders.make(paths, file).and_then(|folder| replace(folder, &path, file.kind.name(), site, data));
        replaced.and_then(|()| self.enter(file)).map_err(|error| named(&self.paths, file, error))
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        if self.access == Use::Reading {
            return Ok(());
        }
        let synced = match self.file(file, false) {
            Ok(None) => return Ok(()),
            Ok(Some(open)) => open.sync(),
            Err(error) => Err(error),
        };
        synced.and_then(|()| self.enter(file)).map_err(|error| named(&self.paths, file, error))
    }

    fn check_removable(&mut self, slot: Slot) -> io::Result<()> {
        let path = self.paths.folder(slot);
        self.check_change(|| path.clone())?;
        let follow = self.folders.follow;
        let Some((above, name)) = self.folders.above(&self.paths, slot)? else { return Ok(()) };
        let above = above.as_ref().unwrap_or(&self.folders.root);
        check_removable(above, &name, slot, &[], follow).map(drop).map_err(|error| in_folder(&path, error))
    }

    fn check_cuttable(&mut self, file: FileId) -> io::Result<()> {
        self.check_change(|| self.path_of(file))?;
        let checked = match self.file(file, false) {
            Ok(Some(open)) => open.check_cuttable(),
            found => found.map(drop),
        };
        checked.map_err(|error| named(&self.paths, file, error))
    }

    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.remove_with(slot, &[])
    }

    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        let new = self.paths.folder(to);
        self.check_change(|| new.clone())?;
        if self.paths.is_corestore() {
            // A core's folder has its name from the key.
            return Err(FileError::wrap(&new, io::ErrorKind::Unsupported.into()));
        }
        // A folder with an open file in it cannot be renamed everywhere.
        self.forget_folder(from);
        self.forget_folder(to);
        rename(&self.folders.root, self.folders.follow, &from.to_string(), &to.to_string())
            .map_err(|error| FileError::wrap(&new, error))
    }

    #[cfg(unix)]
    fn free_space(&mut self) -> io::Result<Option<u64>> {
        self.disk.check(super::faults::DiskOp::FreeSpace, None, "")?;
        let volume = rustix::fs::statvfs(self.paths.root())?;
        Ok(Some(volume.f_bavail.saturating_mul(volume.f_frsize)))
    }

    fn check_place(&mut self, slot: Slot) -> io::Result<()> {
        self.check()?;
        self.folders.check_place(&self.paths)?;
        self.folders.check_slot(&self.paths, slot)?;
        if self.pool.has_lost_file(slot) { Err(FileError::moved(&self.paths.folder(slot))) } else { Ok(()) }
    }

    fn stamp(&mut self, slot: Slot, settled: bool) -> Option<[u8; 8]> {
        self.check().ok()?;
        stamp::of(&mut self.folders, &self.paths, slot, settled)
    }

    fn unsupported(&self) -> Unsupported {
        self.disk.unsupported()
    }

    fn close_idle_files(&mut self) -> usize {
        // What the next append or answer needs.
        self.pool.close_all_but(KEPT_FILES)
    }

    fn close(&mut self) -> io::Result<()> {
        self.pool.clear();
        self.folders.close_last();
        self.lock = None;
        self.access = Use::Closed;
        Ok(())
    }
}

/// Files that stay open if others need the handles: those of one feed.
const KEPT_FILES: usize = 4;

fn bit(kind: FileKind) -> u16 {
    1 << kind as u16
}

/// An error of a file, with its path unless it names one already.
fn named(paths: &Paths, id: FileId, error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<FileError>()) {
        return error;
    }
    FileError::wrap(&paths.of(id), error)
}

/// `0`, `1`, … but not `01` or `+1`: those are somebody else's.
fn slot_of(name: &str) -> Option<Slot> {
    let slot: u32 = name.parse().ok()?;
    (slot.to_string() == name).then_some(Slot(slot))
}

mod stamp;
#[cfg(test)]
mod tests;
