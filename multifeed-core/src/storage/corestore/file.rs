//! A corestore in a folder on disk, laid out as corestore 5 lays it out.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use multifeed_proto::DiscoveryKey;
use zeroize::Zeroizing;

use super::found::list_in;
use super::{CoreFile, CoreFolders, CoreStorage, SmallFile};
use crate::error::{CorestoreError, StoreError};
use crate::storage::changes::replace;
use crate::storage::file::Use;
use crate::storage::folder::{Access, Folder};
use crate::storage::layout::Paths;
use crate::storage::pool::{self, Site};
use crate::storage::{FileError, FileStorage, FileStorageOptions, Slot};

/// A corestore in a folder: `master_key`, and a folder `ab/cd/abcd…` for each core, named by its discovery key in hex.
///
/// What holds for a [`FileStorage`] holds here: the locks, the bound on open files, and that below the folder no link is followed unless the
/// options say so.
#[derive(Debug)]
pub struct FileCoreStorage {
    files: FileStorage,
}

impl FileCoreStorage {
    /// Opens the folder, made if it is missing (mode 0700), and locks it.
    ///
    /// # Errors
    /// [`CorestoreError::OtherStore`] if another kind of store has it, which is left as it is; [`StoreError::Locked`] if another process
    /// has it open; else the disk's error.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, CorestoreError> {
        Self::open_with(root, FileStorageOptions::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(root: impl Into<PathBuf>, options: FileStorageOptions) -> Result<Self, CorestoreError> {
        Self::start(root.into(), &options, Use::All, true)
    }

    /// Opens a folder for reading alone: nothing is made or changed in it. A core that needs repair, after a crash say, cannot be opened in it.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if there is no such folder.
    pub fn open_read_only_with(root: impl Into<PathBuf>, options: FileStorageOptions) -> Result<Self, CorestoreError> {
        Self::start(root.into(), &options, Use::Reading, true)
    }

    /// As [`open_read_only_with`](Self::open_read_only_with), also while another process has the corestore open: no lock is taken. That process may
    /// change what is read, so that a core can seem to be torn or a block damaged, and be whole when it is read again.
    ///
    /// # Errors
    /// As [`open_read_only_with`](Self::open_read_only_with), but for the lock.
    pub fn open_beside_with(root: impl Into<PathBuf>, options: FileStorageOptions) -> Result<Self, CorestoreError> {
        Self::start(root.into(), &options, Use::Reading, false)
    }

    fn start(root: PathBuf, options: &FileStorageOptions, access: Use, locks: bool) -> Result<Self, CorestoreError> {
        let paths = Paths::cores(root);
        let failed = |error| match StoreError::from_store("open", error) {
            StoreError::Core(error) => Arc::unwrap_or_clone(error),
            error => CorestoreError::from(error),
        };
        if access == Use::All {
            let made = pool::make_folder(paths.root()).map_err(|error| FileError::wrap(paths.root(), error));
            made.map_err(failed)?;
        }
        let files = FileStorage::start_with(&paths, options, access, locks).map_err(failed)?;
        Ok(Self { files })
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        self.files.path()
    }

    /// Returns how many files are open, the lock and folders included.
    pub fn open_files(&self) -> usize {
        self.files.open_files()
    }

    fn path_of(&self, file: CoreFile) -> PathBuf {
        let folder = file.slot().map_or_else(|| self.path().to_path_buf(), |slot| self.files.paths.folder(slot));
        folder.join(file.name())
    }

    /// The folder that a file is in, if it exists.
    fn folder(&mut self, slot: Option<Slot>) -> io::Result<Option<&Folder>> {
        let FileStorage { folders, paths, .. } = &mut self.files;
        match slot {
            None => Ok(Some(&folders.root)),
            Some(slot) => folders.slot(paths, slot),
        }
    }
}

impl CoreStorage for FileCoreStorage {
    type Files = FileStorage;

    fn files(&self) -> &FileStorage {
        &self.files
    }

    fn files_mut(&mut self) -> &mut FileStorage {
        &mut self.files
    }

    fn assign(&mut self, core: DiscoveryKey) -> io::Result<Slot> {
        self.files.check()?;
        self.files.paths.assign(core)
    }

    fn release(&mut self, slot: Slot) {
        self.files.forget_folder(slot);
        self.files.paths.release(slot);
    }

    fn remove(&mut self, slot: Slot) -> io::Result<()> {
        self.files.remove_with(slot, &["multifeed.journal", "name"])
    }

    fn folders(&mut self, max: usize) -> io::Result<CoreFolders> {
        self.files.check()?;
        let mut folders = CoreFolders::default();
        let FileStorage { folders: opened, .. } = &self.files;
        list_in(&opened.root, opened.root.entries()?, self.path(), opened.follow, &mut folders, max)
            .map_err(|error| named(self.path(), error))?;
        Ok(folders)
    }

    fn has_name(&mut self, slot: Slot, name: &str) -> io::Result<bool> {
        self.files.check()?;
        let path = self.files.paths.folder(slot).join(name);
        let found = match self.folder(Some(slot)) {
            Ok(None) => return Ok(false),
            Ok(Some(folder)) => folder.look(name),
            Err(error) => Err(error),
        };
        found.map(|found| found.is_some()).map_err(|error| named(&path, error))
    }

    fn read_file(&mut self, file: CoreFile, max: usize) -> io::Result<Option<SmallFile>> {
        self.files.check()?;
        let path = self.path_of(file);
        let follow = self.files.folders.follow;
        let mut read = || -> io::Result<Option<SmallFile>> {
            let Some(folder) = self.folder(file.slot())? else { return Ok(None) };
            let Some(opened) = folder.file(file.name(), Access::Read, follow)? else { return Ok(None) };
            let mut bytes = Zeroizing::new(Vec::with_capacity(max));
            opened.file.take(max as u64).read_to_end(&mut bytes)?;
            Ok(Some(SmallFile { bytes, len: opened.len, mode: Some(opened.mode).filter(|_| cfg!(unix)) }))
        };
        read().map_err(|error| named(&path, error))
    }

    fn make_file(&mut self, file: CoreFile, bytes: &[u8]) -> io::Result<()> {
        let path = self.path_of(file);
        self.files.check_change(|| path.clone())?;
        let FileStorage { folders, paths, disk, .. } = &mut self.files;
        let site = Site { disk: disk.clone(), slot: file.slot(), name: file.name() };
        let mut make = || {
            let folder = folders.make_in(paths, file.slot())?;
            if folder.look(file.name())?.is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            replace(folder, &path, file.name(), site.clone(), bytes)?;
            folder.sync()?;
            file.slot().map_or(Ok(()), |slot| folders.sync_above(paths, slot))
        };
        make().map_err(|error| named(&path, error))
    }
}

/// An error with this path, unless it names one already.
fn named(path: &Path, error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<FileError>()) { error } else { FileError::wrap(path, error) }
}
