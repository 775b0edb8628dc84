//! A store in a folder on disk, laid out as multifeed 6 lays it out.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::folder::{Access, Folder, Opened, not_regular};
use super::pool::{self, Pool};
use super::{FileError, FileId, FileKind, Found, Slot, Storage};
use crate::error::StoreError;

/// The name of the lock beside the numbered folders. JS does not look at it.
const LOCK: &str = "multifeed.lock";

/// How a [`FileStorage`] is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FileStorageOptions {
    /// The most files that are open at once, the lock, two folders and whatever is open for a moment alone included: 240 by default, so
    /// that a process with a few sockets beside them stays below 256. At least 5.
    pub max_open_files: usize,
    /// Whether links are followed: a numbered folder, or a file, that is kept elsewhere on purpose. By default they are not, nor is a file
    /// used that has other names (hard links): in a folder that comes from somebody else they lead to any file of this machine.
    ///
    /// If they are, what is behind a link is read and written, and never deleted, cut, replaced or renamed: what needs that fails with
    /// [`StoreError::NotRegular`]. The folder of the store itself may always be a link.
    pub follow_links: bool,
}

impl Default for FileStorageOptions {
    fn default() -> Self {
        Self { max_open_files: 240, follow_links: false }
    }
}

/// A store in a folder: a numbered folder for each feed, either side's (JS's or ours), one at a time.
///
/// While it is open it holds `multifeed.lock`, which keeps a second process of ours out, and, while a feed's
/// `bitfield` is open, the lock on it that hypercore 9 and Corestore take. multifeed 6 itself takes no lock, and so cannot
/// be kept out.
///
/// Below the store's folder links are not followed, unless [`FileStorageOptions::follow_links`] says so, and nothing but real folders and
/// regular files is used. Whatever else has one of their names is left as it is, and fails with [`StoreError::NotRegular`].
#[derive(Debug)]
pub struct FileStorage {
    root: PathBuf,
    folders: Folders,
    pool: Pool,
    /// Files whose entries in their folders are on the disk too: a bit for each kind.
    entered: BTreeMap<Slot, u16>,
    access: Use,
    /// Held as long as the store is open, where there is one.
    lock: Option<pool::OpenFile>,
}

/// What may be done with the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    All,
    Reading,
    /// Nothing any more.
    Closed,
}

/// The folders that are open.
#[derive(Debug)]
struct Folders {
    root: Folder,
    /// The one that was used last: a feed's files are mostly opened one after another.
    last: Option<(Slot, Folder)>,
    follow: bool,
}

impl FileStorage {
    /// Opens the folder, made where it is missing (mode 0700), and locks it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] where another process has it open, else what the disk says.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(root, FileStorageOptions::default())
    }

    /// [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(root: impl Into<PathBuf>, options: FileStorageOptions) -> Result<Self, StoreError> {
        let root = root.into();
        let open = || {
            pool::make_folder(&root).map_err(|error| FileError::wrap(&root, error))?;
            Self::start(&root, &options, Use::All)
        };
        open().map_err(|error| StoreError::from_store("open", error))
    }

    /// Opens a folder for reading alone, such as one on a disk that cannot be written: nothing is made or changed in it, and every write fails by
    /// [`ReadOnlyFilesystem`](io::ErrorKind::ReadOnlyFilesystem). A store that needs repair, after a crash say, so cannot be opened in it.
    ///
    /// Where the folder has no lock, nothing is locked but the `bitfield`s that are open: another process may change what is read.
    ///
    /// # Errors
    /// As [`open`](Self::open), and where there is no such folder.
    pub fn open_read_only(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_read_only_with(root, FileStorageOptions::default())
    }

    /// [`open_read_only`](Self::open_read_only), with options.
    ///
    /// # Errors
    /// As [`open_read_only`](Self::open_read_only).
    pub fn open_read_only_with(root: impl Into<PathBuf>, options: FileStorageOptions) -> Result<Self, StoreError> {
        let opened = Self::start(&root.into(), &options, Use::Reading);
        opened.map_err(|error| StoreError::from_store("open", error))
    }

    /// Opens the folder, and takes the lock in it.
    fn start(root: &Path, options: &FileStorageOptions, access: Use) -> io::Result<Self> {
        let follow = options.follow_links;
        let folder = Folder::open(root).map_err(|error| FileError::wrap(root, error))?;
        let lock = if access == Use::All { Access::Make } else { Access::Read };
        let path = root.join(LOCK);
        let lock = folder.file(LOCK, lock, follow).map_err(|error| FileError::wrap(&path, error))?;
        let lock = lock.map(|file| pool::OpenFile::locked(file, &path)).transpose()?;
        // Those that are not in the pool: the lock, two folders, and a folder that is synced or a file that replaces another.
        let pool = Pool::new(options.max_open_files.saturating_sub(4));
        let folders = Folders { root: folder, last: None, follow };
        Ok(Self { root: root.to_path_buf(), folders, pool, entered: BTreeMap::new(), access, lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// How many files are open, the lock and folders included.
    pub fn open_files(&self) -> usize {
        self.pool.len() + usize::from(self.lock.is_some()) + usize::from(self.folders.last.is_some()) + 1
    }

    /// The path of one file.
    pub fn path_of(&self, file: FileId) -> PathBuf {
        path_of(&self.root, file)
    }

    fn check(&self) -> io::Result<()> {
        if self.access == Use::Closed { Err(io::Error::other("the store is closed")) } else { Ok(()) }
    }

    /// As [`check`](Self::check), of what changes something at a path.
    fn check_change(&self, path: impl FnOnce() -> PathBuf) -> io::Result<()> {
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
        let Self { root, folders, pool, access, .. } = self;
        let file = pool.get(
            id,
            || path_of(root, id),
            || match (create, *access) {
                (true, _) => folders.open(root, id, Access::Make),
                (false, Use::Reading) => folders.open(root, id, Access::Read),
                (false, _) => pool::open_as_allowed(|access| folders.open(root, id, access)),
            },
        );
        file.map_err(|error| named(root, id, error))
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
        let wrap = |error| FileError::wrap(&self.root, error);
        let mut slots = Vec::new();
        for (name, found) in self.folders.root.entries().map_err(wrap)? {
            let Some(slot) = slot_of(&name) else { continue };
            let is_real = match found {
                Found::Folder => true,
                Found::Link if self.folders.follow => matches!(self.folders.root.folder(&name, true), Ok(Some(_))),
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
    fn forget_folder(&mut self, slot: Slot) {
        self.folders.last = None;
        for kind in FileKind::ALL {
            let id = FileId::new(slot, kind);
            self.pool.forget(id);
            self.forget_entry(id);
        }
    }

    /// Makes a file's entry in its folder, and the folder's own, outlive a power cut: once, for all files that are there now.
    fn enter(&mut self, file: FileId) -> io::Result<()> {
        if self.entered.get(&file.slot).is_some_and(|kinds| kinds & bit(file.kind) != 0) {
            return Ok(());
        }
        let Self { folders, entered, .. } = self;
        if file.kind.is_beside() {
            folders.root.sync()?;
        } else if let Some(folder) = folders.slot(&self.root, file.slot)? {
            folder.sync()?;
            for kind in FileKind::ALL {
                if folder.look(kind.name())?.is_some() {
                    *entered.entry(file.slot).or_default() |= bit(kind);
                }
            }
            folders.root.sync()?;
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
        read.map_err(|error| named(&self.root, file, error))
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        let wrote = self.made(file).and_then(|open| open.write_at(offset, data));
        wrote.map_err(|error| named(&self.root, file, error))
    }

    fn len(&mut self, file: FileId) -> io::Result<Option<u64>> {
        let len = match self.file(file, false) {
            Ok(None) => return Ok(None),
            Ok(Some(open)) => open.len().map(Some),
            Err(error) => Err(error),
        };
        len.map_err(|error| named(&self.root, file, error))
    }

    fn next_data(&mut self, file: FileId, offset: u64) -> io::Result<Option<u64>> {
        let found = match self.file(file, false) {
            Ok(None) => return Ok(None),
            Ok(Some(open)) => open.next_data(offset),
            Err(error) => Err(error),
        };
        found.map_err(|error| named(&self.root, file, error))
    }

    fn truncate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        let cut = self.made(file).and_then(|open| open.set_len(len));
        cut.map_err(|error| named(&self.root, file, error))
    }

    fn replace(&mut self, file: FileId, data: &[u8]) -> io::Result<()> {
        let path = self.path_of(file);
        self.check_change(|| path.clone())?;
        self.pool.forget(file);
        self.forget_entry(file);
        let Self { root, folders, .. } = self;
        let replaced = folders.make(root, file).and_then(|folder| replace(folder, &path, file.kind, data));
        replaced.and_then(|()| self.enter(file)).map_err(|error| named(&self.root, file, error))
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        if self.access == Use::Reading {
            return Ok(());
        }
        let synced = match self.file(file, false) {
            Ok(None) => return Ok(()),
            // `sync_data` also writes what is needed to find the data again: the length.
            Ok(Some(open)) => open.file.sync_data(),
            Err(error) => Err(error),
        };
        synced.and_then(|()| self.enter(file)).map_err(|error| named(&self.root, file, error))
    }

    fn check_removable(&mut self, slot: Slot) -> io::Result<()> {
        let path = self.root.join(slot.to_string());
        self.check_change(|| path.clone())?;
        check_removable(&self.folders, slot).map(drop).map_err(|error| in_folder(&path, error))
    }

    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        let path = self.root.join(slot.to_string());
        self.check_change(|| path.clone())?;
        self.forget_folder(slot);
        remove(&self.folders, slot).map_err(|error| in_folder(&path, error))
    }

    fn rename(&mut self, from: Slot, to: Slot) -> io::Result<()> {
        let new = self.root.join(to.to_string());
        self.check_change(|| new.clone())?;
        // A folder with an open file in it cannot be renamed everywhere.
        self.forget_folder(from);
        self.forget_folder(to);
        rename(&self.folders, &from.to_string(), &to.to_string()).map_err(|error| FileError::wrap(&new, error))
    }

    #[cfg(unix)]
    fn free_space(&mut self) -> io::Result<Option<u64>> {
        let volume = rustix::fs::statvfs(&self.root)?;
        Ok(Some(volume.f_bavail.saturating_mul(volume.f_frsize)))
    }

    fn close(&mut self) -> io::Result<()> {
        self.pool.clear();
        self.folders.last = None;
        self.lock = None;
        self.access = Use::Closed;
        Ok(())
    }
}

fn bit(kind: FileKind) -> u16 {
    1 << kind as u16
}

fn path_of(root: &Path, file: FileId) -> PathBuf {
    if file.kind.is_beside() {
        return root.join(file.kind.name());
    }
    let mut path = root.join(file.slot.to_string());
    path.push(file.kind.name());
    path
}

/// What a file is named while it is not whole.
fn temporary_name(kind: FileKind) -> String {
    format!("{}.tmp", kind.name())
}

/// Replaces a file in a folder by one that is whole.
fn replace(folder: &Folder, path: &Path, kind: FileKind, data: &[u8]) -> io::Result<()> {
    // It would be a file of another folder that is replaced.
    if folder.is_linked() {
        return Err(not_regular(Found::Link));
    }
    let (name, temporary) = (kind.name(), temporary_name(kind));
    check_file(folder, name)?;
    // Not reused: an old one may be readable by others.
    let removed = check_file(folder, &temporary).and_then(|()| folder.unlink(&temporary));
    removed.map_err(|error| FileError::wrap(&path.with_file_name(&temporary), error))?;
    let write = || {
        let new = folder.file(&temporary, Access::MakeNew, false)?.ok_or(io::ErrorKind::NotFound)?;
        let mut new = new.file;
        new.write_all(data)?;
        new.sync_all()?;
        drop(new);
        folder.rename(&temporary, name)
    };
    write().inspect_err(|_| _ = folder.unlink(&temporary))
}

/// Removes a feed's files, and its folder if that is empty then. Nothing is removed unless it is a real folder, and all of them are regular
/// files. An error comes with the name that it is about, if that is one in the folder.
fn remove(folders: &Folders, slot: Slot) -> Result<(), InFolder> {
    let whole = |error| (None, error);
    let Some((folder, names)) = check_removable(folders, slot)? else {
        return folders.root.sync().map_err(whole);
    };
    for name in &names {
        let is_data = name == FileKind::Data.name() && folder.look(name).map_err(whole)?.is_some();
        folder.unlink(name).map_err(|error| (Some(name.clone()), error))?;
        // Alone, after a power cut, nobody could tell whose it was.
        if is_data {
            folder.sync().map_err(whole)?;
        }
    }
    // Somebody else's file in it keeps the folder.
    match folders.root.remove_folder(&slot.to_string()) {
        Err(_) => folder.sync().map_err(whole),
        Ok(()) => folders.root.sync().map_err(whole),
    }
}

/// The folder of a feed, and the names in it that are to be removed, in their order. `None` if there is no such folder.
fn check_removable(folders: &Folders, slot: Slot) -> Result<Option<(Folder, Vec<String>)>, InFolder> {
    let Some(folder) = folders.root.folder(&slot.to_string(), false).map_err(|error| (None, error))? else {
        return Ok(None);
    };
    // What a replacement left that was cut short goes with its file. The key last: until then JS finds a feed there, and all that follow it.
    let names = FileKind::ALL.into_iter().rev().flat_map(|kind| [temporary_name(kind), kind.name().to_owned()]);
    let names: Vec<String> = names.collect();
    names.iter().try_for_each(|name| check_file(&folder, name).map_err(|error| (Some(name.clone()), error)))?;
    Ok(Some((folder, names)))
}

/// What went wrong in a folder, with the name of the file that it is about, if it is about one.
type InFolder = (Option<String>, io::Error);

fn in_folder(path: &Path, (name, error): InFolder) -> io::Error {
    match name {
        Some(name) => FileError::wrap(&path.join(name), error),
        None => FileError::wrap(path, error),
    }
}

/// Gives a folder another name. A folder that has that name is put aside.
fn rename(folders: &Folders, from: &str, to: &str) -> io::Result<()> {
    let root = &folders.root;
    match root.look(from)? {
        None => return Err(io::ErrorKind::NotFound.into()),
        Some(Found::Folder) => {}
        Some(Found::Link) if folders.follow => {}
        Some(found) => return Err(not_regular(found)),
    }
    match root.look(to)? {
        None => {}
        Some(Found::Folder) => {
            // Somebody else's files: they are put aside, beside those that were before.
            let name = |number: u32| if number == 1 { format!("{to}.left") } else { format!("{to}.left.{number}") };
            let mut asides = (1..=u32::MAX).map(name);
            let aside = asides.find(|aside| !matches!(root.look(aside), Ok(Some(_))));
            root.rename(to, &aside.ok_or(io::ErrorKind::AlreadyExists)?)?;
        }
        Some(found) => return Err(not_regular(found)),
    }
    root.rename(from, to)?;
    root.sync()
}

/// Fails if a name is that of anything but a file.
fn check_file(folder: &Folder, name: &str) -> io::Result<()> {
    match folder.look(name)? {
        // To take away one of its names changes nothing of the others.
        None | Some(Found::File | Found::HardLink) => Ok(()),
        Some(found) => Err(not_regular(found)),
    }
}

/// An error of a file, with its path unless it names one already.
fn named(root: &Path, id: FileId, error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<FileError>()) {
        return error;
    }
    FileError::wrap(&path_of(root, id), error)
}

impl Folders {
    /// A file of the store, unless it is absent and not to be made.
    fn open(&mut self, root: &Path, id: FileId, access: Access) -> io::Result<Option<Opened>> {
        let follow = self.follow;
        let folder = match access {
            Access::Make | Access::MakeNew => self.make(root, id)?,
            Access::Read | Access::Write => match self.of(root, id)? {
                Some(folder) => folder,
                None => return Ok(None),
            },
        };
        folder.file(id.kind.name(), access, follow)
    }

    /// The folder that a file is in, if it exists.
    fn of(&mut self, root: &Path, id: FileId) -> io::Result<Option<&Folder>> {
        if id.kind.is_beside() { Ok(Some(&self.root)) } else { self.slot(root, id.slot) }
    }

    /// The folder that a file is in, made if it does not exist.
    fn make(&mut self, root: &Path, id: FileId) -> io::Result<&Folder> {
        if !id.kind.is_beside() && self.slot(root, id.slot)?.is_none() {
            self.root.make_folder(&id.slot.to_string())?;
        }
        self.of(root, id)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A numbered folder, if it exists.
    fn slot(&mut self, root: &Path, slot: Slot) -> io::Result<Option<&Folder>> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != slot) {
            self.last = None;
            let name = slot.to_string();
            let opened = self.root.folder(&name, self.follow).map_err(|error| match error.get_ref() {
                // It is the folder that is in the way, and not the file.
                Some(inner) if inner.is::<Found>() => FileError::wrap(&root.join(&name), error),
                _ => error,
            });
            self.last = opened?.map(|folder| (slot, folder));
        }
        Ok(self.last.as_ref().map(|(_, folder)| folder))
    }
}

/// `0`, `1`, … but not `01` or `+1`: those are somebody else's.
fn slot_of(name: &str) -> Option<Slot> {
    let slot: u32 = name.parse().ok()?;
    (slot.to_string() == name).then_some(Slot(slot))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn id(slot: u32, kind: FileKind) -> FileId {
        FileId::new(Slot(slot), kind)
    }

    #[test]
    fn a_second_opener_is_told_which_lock() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = FileStorage::open(folder.path()).unwrap();
        let error = FileStorage::open(folder.path()).unwrap_err();
        assert_eq!(error.code(), "ERR_STORE_LOCKED");
        assert!(error.to_string().contains(LOCK), "{error}");
        first.close().unwrap();
        assert!(first.list().is_err());
        FileStorage::open(folder.path()).unwrap();
    }

    #[test]
    fn a_lock_ends_with_its_store_though_a_new_process_has_the_file_open_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = FileStorage::open(folder.path()).unwrap();
        let _inherited = first.lock.as_ref().unwrap().file.try_clone().unwrap();
        first.close().unwrap();
        FileStorage::open(folder.path()).unwrap();
    }

    #[test]
    fn what_is_opened_for_reading_alone_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = id(0, FileKind::Data);
        fs::create_dir(folder.path().join("0")).unwrap();
        fs::write(folder.path().join("0/data"), b"abc").unwrap();
        let mut store = FileStorage::open_read_only(folder.path()).unwrap();
        let mut bytes = [0; 5];
        assert_eq!((store.list().unwrap(), store.read_at(file, 1, &mut bytes).unwrap()), (vec![Slot(0)], 2));
        assert_eq!((store.len(file).unwrap(), store.len(id(0, FileKind::Key)).unwrap()), (Some(3), None));
        store.sync(file).unwrap();
        let absent = id(1, FileKind::Key);
        let changes = [
            store.write_at(file, 0, b"x"),
            store.write_at(absent, 0, b"x"),
            store.truncate(file, 0),
            store.replace(absent, b"x"),
            store.rename(Slot(0), Slot(1)),
            store.remove(Slot(0)),
        ];
        for error in changes.map(Result::unwrap_err) {
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
            let error = StoreError::from_store("write", error).to_string();
            let place = folder.path().to_str().unwrap();
            assert!(error.contains(place) && error.contains("opened for reading alone"), "{error}");
        }
        let entries =
            |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(
            (entries(folder.path()), entries(&folder.path().join("0"))),
            (vec!["0".into()], vec!["data".into()])
        );
        assert_eq!(fs::read(folder.path().join("0/data")).unwrap(), b"abc");
        store.close().unwrap();
        assert!(store.list().is_err());

        // Where there is a lock, it counts.
        let mut writing = FileStorage::open(folder.path()).unwrap();
        assert_eq!(FileStorage::open_read_only(folder.path()).unwrap_err().code(), "ERR_STORE_LOCKED");
        writing.close().unwrap();
        let _reading = FileStorage::open_read_only(folder.path()).unwrap();
        assert_eq!(FileStorage::open(folder.path()).unwrap_err().code(), "ERR_STORE_LOCKED");
        let error = FileStorage::open_read_only(folder.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
    }

    #[test]
    fn a_bitfield_locked_as_hypercore_locks_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FileStorage::open(folder.path()).unwrap();
        let file = id(0, FileKind::Bitfield);
        store.write_at(file, 0, b"x").unwrap();
        store.close().unwrap();
        let mut store = FileStorage::open(folder.path()).unwrap();
        let theirs = File::open(folder.path().join("0/bitfield")).unwrap();
        theirs.try_lock().unwrap();
        let error = store.read_at(file, 0, &mut [0]).unwrap_err();
        let error = StoreError::from_file(file, "read", error);
        assert!(matches!(&error, StoreError::Locked { slot: Some(Slot(0)), .. }), "{error:?}");
        theirs.unlock().unwrap();
        assert_eq!(store.read_at(file, 0, &mut [0]).unwrap(), 1);
        assert!(theirs.try_lock().is_err());
    }

    #[test]
    fn handles_are_bounded_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let options = FileStorageOptions { max_open_files: 7, ..FileStorageOptions::default() };
        let mut store = FileStorage::open_with(folder.path(), options).unwrap();
        for slot in 0..10 {
            store.write_at(id(slot, FileKind::Data), 2, &[slot as u8]).unwrap();
            assert!(store.pool.len() <= 3 && store.open_files() <= 6);
        }
        for slot in 0..10 {
            let mut buf = [9; 5];
            assert_eq!(store.read_at(id(slot, FileKind::Data), 1, &mut buf).unwrap(), 2);
            assert_eq!(buf[..2], [0, slot as u8]);
        }
        assert_eq!(store.len(id(3, FileKind::Data)).unwrap(), Some(3));
        assert_eq!(store.len(id(3, FileKind::Tree)).unwrap(), None);
        assert_eq!(store.read_at(id(3, FileKind::Tree), 0, &mut [0]).unwrap(), 0);
        store.truncate(id(3, FileKind::Data), 1).unwrap();
        store.sync(id(3, FileKind::Data)).unwrap();
        assert_eq!(store.len(id(3, FileKind::Data)).unwrap(), Some(1));
    }

    #[test]
    fn a_hole_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FileStorage::open(folder.path()).unwrap();
        let file = id(0, FileKind::Tree);
        assert_eq!(store.next_data(file, 0).unwrap(), None);
        store.write_at(file, 1 << 40, b"far").unwrap();
        let (mut at, mut steps) = (0, 0);
        while let Some(next) = store.next_data(file, at).unwrap() {
            let mut bytes = [0; 4096];
            let count = store.read_at(file, next, &mut bytes).unwrap();
            assert!(next >= at && count > 0);
            (at, steps) = (next + count as u64, steps + 1);
            if bytes[..count].ends_with(b"far") {
                break;
            }
            // Where the disk knows no holes, every offset is data.
            if steps > 1000 {
                return;
            }
        }
        assert_eq!(at, (1 << 40) + 3);
        assert_eq!(store.next_data(file, at).unwrap(), None);
        // After a cut, and past any end.
        store.truncate(file, 10).unwrap();
        assert_eq!(store.next_data(file, 1 << 41).unwrap(), None);
        assert_eq!(store.next_data(file, u64::MAX).unwrap(), None);
    }

    #[test]
    fn foreign_names_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FileStorage::open(folder.path()).unwrap();
        for name in ["0", "7", "07", "+1", "x", "4294967296", "-1"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("3"), b"a file").unwrap();
        assert_eq!(store.list().unwrap(), [Slot(0), Slot(7)]);
    }

    #[test]
    fn a_folder_with_somebody_elses_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FileStorage::open(folder.path()).unwrap();
        store.write_at(id(0, FileKind::Key), 0, b"k").unwrap();
        store.write_at(id(1, FileKind::Key), 0, b"k").unwrap();
        fs::write(folder.path().join("1/notes"), b"mine").unwrap();
        store.remove(Slot(0)).unwrap();
        store.remove(Slot(1)).unwrap();
        assert_eq!(store.list().unwrap(), [Slot(1)]);
        assert_eq!(fs::read(folder.path().join("1/notes")).unwrap(), b"mine");
        assert_eq!(store.len(id(1, FileKind::Key)).unwrap(), None);
    }

    #[test]
    fn what_a_cut_replacement_left_goes_with_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FileStorage::open(folder.path()).unwrap();
        store.replace(id(0, FileKind::SecretKey), b"k").unwrap();
        fs::write(folder.path().join("0/secret_key.tmp"), b"half a key").unwrap();
        store.remove(Slot(0)).unwrap();
        assert!(!folder.path().join("0").exists());
    }

    #[test]
    fn a_folder_takes_the_number_of_one_that_was_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FileStorage::open(folder.path()).unwrap();
        for slot in 0..3 {
            store.write_at(id(slot, FileKind::Bitfield), 0, &[slot as u8]).unwrap();
            store.sync(id(slot, FileKind::Bitfield)).unwrap();
        }
        fs::write(folder.path().join("1/notes"), b"mine").unwrap();
        store.remove(Slot(1)).unwrap();
        store.rename(Slot(2), Slot(1)).unwrap();
        assert_eq!(store.list().unwrap(), [Slot(0), Slot(1)]);
        assert_eq!(fs::read(folder.path().join("1.left/notes")).unwrap(), b"mine");
        let mut byte = [9];
        assert_eq!(store.read_at(id(2, FileKind::Bitfield), 0, &mut byte).unwrap(), 0);
        assert_eq!((store.read_at(id(1, FileKind::Bitfield), 0, &mut byte).unwrap(), byte), (1, [2]));
        // And once more, beside those.
        store.write_at(id(2, FileKind::Bitfield), 0, &[3]).unwrap();
        fs::write(folder.path().join("1/notes"), b"more").unwrap();
        store.remove(Slot(1)).unwrap();
        store.rename(Slot(2), Slot(1)).unwrap();
        assert_eq!(fs::read(folder.path().join("1.left/notes")).unwrap(), b"mine");
        assert_eq!(fs::read(folder.path().join("1.left.2/notes")).unwrap(), b"more");
        // What is written there is synced there.
        store.write_at(id(1, FileKind::Bitfield), 0, b"x").unwrap();
        store.sync(id(1, FileKind::Bitfield)).unwrap();
        assert_eq!(fs::read(folder.path().join("1/bitfield")).unwrap(), b"x");
        assert!(store.rename(Slot(7), Slot(8)).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn files_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("new/store");
        let mut store = FileStorage::open(&root).unwrap();
        store.replace(id(0, FileKind::SecretKey), &[1; 64]).unwrap();
        store.replace(id(0, FileKind::SecretKey), &[2; 64]).unwrap();
        store.write_at(id(0, FileKind::Data), 0, b"x").unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(root.clone()), 0o700);
        assert_eq!(mode(root.join("0")), 0o700);
        assert_eq!(mode(root.join("0/secret_key")), 0o600);
        assert_eq!(mode(root.join("0/data")), 0o600);
        assert_eq!(fs::read(root.join("0/secret_key")).unwrap(), [2; 64]);
        assert!(!root.join("0/secret_key.tmp").exists());
    }
}
