//! A folder on disk, and what is in it, opened without following a link.
//!
//! All that the store does with its disk goes through a [`Folder`]. On unix that is an open handle, and names are looked up in it: what
//! somebody puts in the place of a folder meanwhile changes nothing. A file is opened without following a link and without waiting for
//! the other end of a pipe, and is looked at before it is used. Elsewhere it is a path, whose parts are looked at before and after.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::Disk;
use super::faults::DiskOp;
use super::{Found, Slot};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// To be read.
    Read,
    /// To be read and written.
    Write,
    /// The same, made if it is absent.
    Make,
    /// To be read and written, and made: fails if anything has the name.
    MakeNew,
}

/// What is known of a file since it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    /// Its length in bytes then.
    pub(super) len: u64,
    /// Permissions of unix, 0 elsewhere.
    pub(super) mode: u32,
    /// It was reached by a link.
    pub(super) linked: bool,
    /// Why it was opened to be read alone.
    pub(super) denied: Option<io::Error>,
}

/// What a file is recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) struct Version {
    pub(in crate::storage) file: u64,
    pub(in crate::storage) len: u64,
    /// When the system says that it was changed, its content or else: no program can set that. Seconds since 1970, and nanoseconds.
    pub(in crate::storage) changed: (i64, u32),
}

/// An error that says what stands in the place of a file or a folder.
pub(super) fn not_regular(found: Found) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, found)
}

/// The error of what a link leads to.
fn behind_link(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => not_regular(Found::DanglingLink),
        _ => error,
    }
}

#[cfg(not(unix))]
use elsewhere as system;
#[cfg(unix)]
use unix as system;

/// An open folder: the store's, or a numbered one in it.
#[derive(Debug)]
pub(super) struct Folder {
    folder: system::Folder,
    /// Its number; `None` for the store's.
    slot: Option<Slot>,
    disk: Arc<Disk>,
}

impl Folder {
    /// Opens the folder at a path, links included: the caller named it.
    pub(super) fn open(path: &Path, disk: Arc<Disk>) -> io::Result<Self> {
        disk.check(DiskOp::OpenFolder, None, "")?;
        Ok(Self { folder: system::Folder::open(path)?, slot: None, disk })
    }

    /// Opens a folder in this one, which is that of a feed or leads to it; `None` if nothing has the name.
    pub(super) fn folder(&self, name: &str, slot: Option<Slot>, follow: bool) -> io::Result<Option<Self>> {
        self.check(DiskOp::OpenFolder, name)?;
        let folder = self.folder.folder(name, follow)?;
        Ok(folder.map(|folder| Self { folder, slot, disk: self.disk.clone() }))
    }

    /// Makes a folder in this one for its owner alone, unless something has the name.
    pub(super) fn make_folder(&self, name: &str) -> io::Result<()> {
        self.check(DiskOp::MakeFolder, name)?;
        self.folder.make_folder(name)
    }

    /// Opens a file in this folder; `None` if nothing has the name, and it must not be made.
    pub(super) fn file(&self, name: &str, access: Access, follow: bool) -> io::Result<Option<Opened>> {
        self.check(DiskOp::OpenFile, name)?;
        self.folder.file(name, access, follow)
    }

    /// What has a name in this folder; links are not followed.
    pub(super) fn look(&self, name: &str) -> io::Result<Option<Found>> {
        self.check(DiskOp::Look, name)?;
        self.folder.look(name)
    }

    /// Returns what a regular file with one name in this folder is recognised by; `None` if there is none, or that cannot be found out.
    pub(super) fn version(&self, name: &str) -> Option<Version> {
        self.check(DiskOp::Stamp, name).ok()?;
        self.folder.version(name)
    }

    /// What is in this folder. A hard link may be called a file.
    pub(super) fn entries(&self) -> io::Result<Vec<(String, Found)>> {
        self.check(DiskOp::List, "")?;
        self.folder.entries()
    }

    /// Takes a name out of this folder; does nothing if there is none.
    pub(super) fn unlink(&self, name: &str) -> io::Result<()> {
        self.check(DiskOp::Unlink, name)?;
        self.folder.unlink(name)
    }

    /// Removes an empty folder from this one; does nothing if there is none.
    pub(super) fn remove_folder(&self, name: &str) -> io::Result<()> {
        self.check(DiskOp::RemoveFolder, name)?;
        self.folder.remove_folder(name)
    }

    /// Renames something in this folder.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check(DiskOp::Rename, from)?;
        self.folder.rename(from, to)
    }

    /// Makes the names in this folder outlive a power cut, if the disk can.
    pub(super) fn sync(&self) -> io::Result<()> {
        let synced = self.check(DiskOp::SyncFolder, "").and_then(|()| self.folder.sync());
        self.disk.pass_folder_sync(synced)
    }

    /// Whether this folder was reached by a link.
    pub(super) fn is_linked(&self) -> bool {
        self.folder.is_linked()
    }

    /// Whether the folder at a path is this one. If that cannot be found out, it is.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        self.folder.is_at(path)
    }

    /// What tells this folder from another one of its name; `None` if the system does not say.
    pub(super) fn identity(&self) -> Option<u64> {
        self.folder.identity()
    }

    /// Whether the folder of that name in this one is that one. If that cannot be found out, it is.
    pub(super) fn has(&self, name: &str, identity: u64) -> bool {
        self.folder.has(name, identity)
    }

    fn check(&self, op: DiskOp, name: &str) -> io::Result<()> {
        self.disk.check(op, self.slot, name)
    }
}

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, RawMode};
    use rustix::io::Errno;

    use super::{Access, Found, Opened, Version, behind_link, not_regular};

    /// An open folder.
    #[derive(Debug)]
    pub(in crate::storage) struct Folder {
        handle: File,
        /// It was reached by a link.
        linked: bool,
    }

    impl Folder {
        /// Opens the folder at a path, links included: the caller named it.
        pub(in crate::storage) fn open(path: &Path) -> io::Result<Self> {
            let handle = retry(|| fs::open(path, FOLDER, Mode::empty()))?;
            Ok(Self { handle: handle.into(), linked: false })
        }

        /// Opens a folder in this one; `None` if nothing has the name.
        pub(in crate::storage) fn folder(&self, name: &str, follow: bool) -> io::Result<Option<Self>> {
            let linked = match self.look(name)? {
                None => return Ok(None),
                Some(Found::Folder) => false,
                Some(Found::Link) if follow => true,
                Some(found) => return Err(not_regular(found)),
            };
            let flags = if linked { FOLDER } else { FOLDER | OFlags::NOFOLLOW };
            match retry(|| fs::openat(&self.handle, name, flags, Mode::empty())) {
                Ok(handle) => Ok(Some(Self { handle: handle.into(), linked: self.linked || linked })),
                Err(error) if linked => Err(behind_link(error)),
                // It was another thing a moment ago.
                Err(error) => Err(self.look(name)?.filter(|found| *found != Found::Folder).map_or(error, not_regular)),
            }
        }

        /// Makes a folder in this one for its owner alone, unless something has the name.
        pub(in crate::storage) fn make_folder(&self, name: &str) -> io::Result<()> {
            match fs::mkdirat(&self.handle, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }

        /// Opens a file in this folder; `None` if nothing has the name, and it must not be made.
        pub(in crate::storage) fn file(&self, name: &str, access: Access, follow: bool) -> io::Result<Option<Opened>> {
            let makes = matches!(access, Access::Make | Access::MakeNew);
            // Looked at first: to open a device can set it off. What must not exist is not opened if it does.
            let there = if access == Access::MakeNew { None } else { self.look(name)? };
            let link = match there {
                None if !makes => return Ok(None),
                None | Some(Found::File) => false,
                Some(Found::Link | Found::HardLink) if follow => true,
                Some(found) => return Err(not_regular(found)),
            };
            // A pipe that takes its place now is opened all the same, without waiting for its other end, and not used.
            let mut flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
            flags |= match access {
                Access::Read => OFlags::RDONLY,
                Access::Write => OFlags::RDWR,
                Access::Make => OFlags::RDWR | OFlags::CREATE,
                Access::MakeNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            };
            if !link {
                flags |= OFlags::NOFOLLOW;
            } else if access == Access::Make {
                // What a dangling link names is not made.
                flags.remove(OFlags::CREATE);
            }
            let opened = retry(|| fs::openat(&self.handle, name, flags, Mode::RUSR | Mode::WUSR));
            let file = match opened {
                Ok(file) => File::from(file),
                Err(error) if link => return Err(behind_link(error)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !makes => return Ok(None),
                Err(error) => {
                    let other = self.look(name)?.filter(|found| *found != Found::File && !link);
                    return Err(other.map_or(error, not_regular));
                }
            };
            let meta = file.metadata()?;
            match found(meta.mode() as RawMode, meta.nlink() > 1) {
                Found::File => {}
                Found::HardLink if follow => {}
                found => return Err(not_regular(found)),
            }
            let linked = self.linked || link || meta.nlink() > 1;
            Ok(Some(Opened { len: meta.len(), mode: meta.mode() & 0o777, linked, denied: None, file }))
        }

        /// What has a name in this folder; links are not followed.
        pub(in crate::storage) fn look(&self, name: &str) -> io::Result<Option<Found>> {
            match fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Ok(Some(found(stat.st_mode, stat.st_nlink > 1))),
                Err(Errno::NOENT) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }

        /// Returns what a regular file with one name in this folder is recognised by; `None` if there is none.
        pub(in crate::storage) fn version(&self, name: &str) -> Option<Version> {
            let stat = fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            let changed = (stat.st_ctime as i64, stat.st_ctime_nsec as u32);
            let version = Version { file: stat.st_ino, len: stat.st_size as u64, changed };
            (found(stat.st_mode, stat.st_nlink > 1) == Found::File).then_some(version)
        }

        /// What is in this folder. A hard link may be called a file.
        pub(in crate::storage) fn entries(&self) -> io::Result<Vec<(String, Found)>> {
            let mut entries = Vec::new();
            for entry in Dir::read_from(&self.handle)? {
                let entry = entry?;
                // Ours are all UTF-8.
                let Ok(name) = entry.file_name().to_str() else { continue };
                let found = match entry.file_type() {
                    FileType::Unknown => self.look(name)?,
                    kind => Some(of_type(kind)),
                };
                entries.extend(found.map(|found| (name.to_owned(), found)));
            }
            Ok(entries)
        }

        /// Takes a name out of this folder; does nothing if there is none.
        pub(in crate::storage) fn unlink(&self, name: &str) -> io::Result<()> {
            self.unlink_with(name, AtFlags::empty())
        }

        /// Removes an empty folder from this one; does nothing if there is none.
        pub(in crate::storage) fn remove_folder(&self, name: &str) -> io::Result<()> {
            self.unlink_with(name, AtFlags::REMOVEDIR)
        }

        fn unlink_with(&self, name: &str, flags: AtFlags) -> io::Result<()> {
            match fs::unlinkat(&self.handle, name, flags) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }

        /// Renames something in this folder.
        pub(in crate::storage) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            Ok(fs::renameat(&self.handle, from, &self.handle, to)?)
        }

        /// Makes the names in this folder outlive a power cut.
        pub(in crate::storage) fn sync(&self) -> io::Result<()> {
            self.handle.sync_all()
        }

        /// Whether the folder at a path is this one. True if that cannot be found out, for example if the path may not be looked at any more.
        pub(in crate::storage) fn is_at(&self, path: &Path) -> bool {
            self.is_that(fs::stat(path))
        }

        /// What tells this folder from another one of its name.
        pub(in crate::storage) fn identity(&self) -> Option<u64> {
            fs::fstat(&self.handle).ok().map(identity)
        }

        /// Whether the folder of a name in this one, or behind a link of that name, is that one.
        pub(in crate::storage) fn has(&self, name: &str, known: u64) -> bool {
            match fs::statat(&self.handle, name, AtFlags::empty()) {
                Ok(found) => identity(found) == known,
                Err(Errno::NOENT | Errno::NOTDIR) => false,
                Err(_) => true,
            }
        }

        fn is_that(&self, found: rustix::io::Result<fs::Stat>) -> bool {
            match (found, fs::fstat(&self.handle)) {
                (Ok(there), Ok(here)) => (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino),
                (Err(Errno::NOENT | Errno::NOTDIR), _) => false,
                _ => true,
            }
        }

        /// Whether this folder was reached by a link.
        pub(in crate::storage) fn is_linked(&self) -> bool {
            self.linked
        }
    }

    #[allow(clippy::unnecessary_cast, reason = "on some systems these are other numbers")]
    fn identity(stat: fs::Stat) -> u64 {
        (stat.st_dev as u64).rotate_left(32) ^ stat.st_ino as u64
    }

    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

    fn found(mode: RawMode, has_other_names: bool) -> Found {
        match of_type(FileType::from_raw_mode(mode)) {
            Found::File if has_other_names => Found::HardLink,
            found => found,
        }
    }

    fn of_type(kind: FileType) -> Found {
        match kind {
            FileType::RegularFile => Found::File,
            FileType::Directory => Found::Folder,
            FileType::Symlink => Found::Link,
            FileType::Fifo => Found::Pipe,
            FileType::Socket => Found::Socket,
            _ => Found::Device,
        }
    }

    fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
        Ok(rustix::io::retry_on_intr(call)?)
    }
}

/// For systems that have no handles of folders to look names up in. A link that somebody else puts there between two looks, and takes away
/// again, is not noticed.
#[cfg(not(unix))]
mod elsewhere {
    use std::fs::{self, FileType, OpenOptions};
    use std::io;
    use std::path::{Path, PathBuf};
    use std::time::SystemTime;

    use super::{Access, Found, Opened, Version, behind_link, not_regular};

    /// A folder by its path.
    #[derive(Debug)]
    pub(in crate::storage) struct Folder {
        path: PathBuf,
        /// It was reached by a link.
        linked: bool,
        /// When it was made, if the system says: what tells it from another one of its name.
        made: Option<SystemTime>,
    }

    impl Folder {
        /// Opens the folder at a path, links included: the caller named it.
        pub(in crate::storage) fn open(path: &Path) -> io::Result<Self> {
            fs::read_dir(path)?;
            // A process that changes its folder does not change the store's.
            Ok(Self { path: std::path::absolute(path)?, linked: false, made: made(path) })
        }

        /// Opens a folder in this one; `None` if nothing has the name.
        pub(in crate::storage) fn folder(&self, name: &str, follow: bool) -> io::Result<Option<Self>> {
            let linked = match self.look(name)? {
                None => return Ok(None),
                Some(Found::Folder) => false,
                Some(Found::Link) if follow => true,
                Some(found) => return Err(not_regular(found)),
            };
            let path = self.path.join(name);
            let made = made(&path);
            Ok(Some(Self { path, linked: self.linked || linked, made }))
        }

        /// Makes a folder in this one, unless something has the name.
        pub(in crate::storage) fn make_folder(&self, name: &str) -> io::Result<()> {
            match fs::create_dir(self.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            }
        }

        /// Opens a file in this folder; `None` if nothing has the name, and it must not be made.
        pub(in crate::storage) fn file(&self, name: &str, access: Access, follow: bool) -> io::Result<Option<Opened>> {
            let makes = matches!(access, Access::Make | Access::MakeNew);
            let link = match self.look(name)? {
                None if !makes => return Ok(None),
                None | Some(Found::File) => false,
                Some(Found::Link) if follow => true,
                Some(found) => return Err(not_regular(found)),
            };
            let mut options = OpenOptions::new();
            options.read(true).write(access != Access::Read);
            // What a dangling link names is not made.
            options.create(access == Access::Make && !link).create_new(access == Access::MakeNew);
            let file = match options.open(self.path.join(name)) {
                Ok(file) => file,
                Err(error) if link => return Err(behind_link(error)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !makes => return Ok(None),
                Err(error) => return Err(error),
            };
            let meta = file.metadata()?;
            let now = if link { Some(found(meta.file_type())) } else { self.look(name)? };
            if let Some(found) = now.filter(|found| *found != Found::File) {
                return Err(not_regular(found));
            }
            let linked = self.linked || link;
            Ok(Some(Opened { file, len: meta.len(), mode: 0, linked, denied: None }))
        }

        /// The times of this system can be set by anybody.
        pub(in crate::storage) fn version(&self, _name: &str) -> Option<Version> {
            None
        }

        /// What has a name in this folder; links are not followed.
        pub(in crate::storage) fn look(&self, name: &str) -> io::Result<Option<Found>> {
            match fs::symlink_metadata(self.path.join(name)) {
                Ok(meta) => Ok(Some(found(meta.file_type()))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        }

        /// What is in this folder.
        pub(in crate::storage) fn entries(&self) -> io::Result<Vec<(String, Found)>> {
            let mut entries = Vec::new();
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                let found = found(entry.file_type()?);
                entries.extend(entry.file_name().into_string().map(|name| (name, found)));
            }
            Ok(entries)
        }

        /// Takes a name out of this folder; does nothing if there is none.
        pub(in crate::storage) fn unlink(&self, name: &str) -> io::Result<()> {
            absent_is_done(fs::remove_file(self.path.join(name)))
        }

        /// Removes an empty folder from this one; does nothing if there is none.
        pub(in crate::storage) fn remove_folder(&self, name: &str) -> io::Result<()> {
            absent_is_done(fs::remove_dir(self.path.join(name)))
        }

        /// Renames something in this folder.
        pub(in crate::storage) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            fs::rename(self.path.join(from), self.path.join(to))
        }

        /// Folders cannot be opened as files here; the system keeps renames in order by itself.
        pub(in crate::storage) fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        /// Whether the folder at a path is this one. If that cannot be found out, it is.
        pub(in crate::storage) fn is_at(&self, path: &Path) -> bool {
            match fs::metadata(path) {
                Ok(meta) => meta.is_dir() && (self.made.is_none() || meta.created().ok() == self.made),
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            }
        }

        /// What tells this folder from another one of its name: when it was made.
        pub(in crate::storage) fn identity(&self) -> Option<u64> {
            self.made.map(identity)
        }

        /// Whether the folder of a name in this one is that one.
        pub(in crate::storage) fn has(&self, name: &str, known: u64) -> bool {
            match fs::metadata(self.path.join(name)) {
                Ok(meta) => meta.is_dir() && meta.created().is_ok_and(|made| identity(made) == known),
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            }
        }

        /// Whether this folder was reached by a link.
        pub(in crate::storage) fn is_linked(&self) -> bool {
            self.linked
        }
    }

    fn identity(made: SystemTime) -> u64 {
        made.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    }

    fn made(path: &Path) -> Option<SystemTime> {
        fs::metadata(path).and_then(|meta| meta.created()).ok()
    }

    fn absent_is_done(done: io::Result<()>) -> io::Result<()> {
        match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn found(kind: FileType) -> Found {
        if kind.is_symlink() {
            Found::Link
        } else if kind.is_dir() {
            Found::Folder
        } else if kind.is_file() {
            Found::File
        } else {
            Found::Device
        }
    }
}
