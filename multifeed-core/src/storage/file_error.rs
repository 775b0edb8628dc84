//! What a disk says, with the path that it is about.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::other_store::OtherStore;

/// What has the name of a file or of a numbered folder of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Found {
    /// A regular file.
    File,
    /// A regular file with more than one name, so that it may be a file of somebody else's too.
    HardLink,
    /// A symbolic link, or what the system has instead of one.
    Link,
    /// A link that may be followed, and leads to nothing.
    DanglingLink,
    /// What is reached by a link that is followed, and was to be deleted, cut, replaced or renamed.
    BehindLink,
    /// A folder.
    Folder,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A device.
    Device,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Found::File => "a file",
            Found::HardLink => "a file with other names (hard links)",
            Found::Link => "a link",
            Found::DanglingLink => "a link to nothing",
            Found::BehindLink => "behind a link",
            Found::Folder => "a folder",
            Found::Pipe => "a named pipe",
            Found::Socket => "a socket",
            Found::Device => "a device",
        })
    }
}

impl std::error::Error for Found {}

/// A folder is no longer at the path at which it was opened.
#[derive(Debug, Clone, Copy)]
struct Moved {
    /// It is the store's own.
    is_store: bool,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moved, removed or replaced while the store was open")
    }
}

impl std::error::Error for Moved {}

/// A folder is a corestore's.
#[derive(Debug, Clone, Copy)]
struct OfCorestore;

impl fmt::Display for OfCorestore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a corestore (it has a `master_key` or cores), and no multifeed")
    }
}

impl std::error::Error for OfCorestore {}

/// An [`io::Error`] with the path it is about.
#[derive(Debug)]
pub struct FileError {
    path: PathBuf,
    source: Option<io::Error>,
}

impl FileError {
    /// Wraps an error, keeping its kind.
    pub fn wrap(path: &Path, source: io::Error) -> io::Error {
        let kind = source.kind();
        io::Error::new(kind, FileError { path: path.to_path_buf(), source: Some(source) })
    }

    /// Makes the error that another process holds the lock at this path.
    pub fn locked(path: &Path) -> io::Error {
        io::Error::new(io::ErrorKind::WouldBlock, FileError { path: path.to_path_buf(), source: None })
    }

    /// Makes the error that the feed's folder at this path was moved, removed or replaced while the store was open.
    pub fn moved(path: &Path) -> io::Error {
        Self::wrap(path, io::Error::new(io::ErrorKind::NotFound, Moved { is_store: false }))
    }

    /// Makes the same error of the folder of the store itself.
    pub fn store_moved(path: &Path) -> io::Error {
        Self::wrap(path, io::Error::new(io::ErrorKind::NotFound, Moved { is_store: true }))
    }

    /// Makes the error that the folder at this path is a corestore's, and should have been opened as one with numbered folders.
    pub fn corestore(path: &Path) -> io::Error {
        Self::wrap(path, io::Error::new(io::ErrorKind::InvalidInput, OfCorestore))
    }

    /// Returns whether the error is that the folder is a corestore's.
    pub fn is_corestore(&self) -> bool {
        self.source.as_ref().and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<OfCorestore>())
    }

    /// The folder at this path is that of another kind of store.
    #[cfg_attr(not(feature = "file-storage"), allow(dead_code))]
    pub(crate) fn of_other_store(path: &Path, other: OtherStore) -> io::Error {
        Self::wrap(path, io::Error::new(io::ErrorKind::InvalidInput, other))
    }

    /// What the folder is, if the error is that another kind of store has it.
    pub(crate) fn other_store(&self) -> Option<&OtherStore> {
        self.source.as_ref()?.get_ref()?.downcast_ref()
    }

    /// Returns whether the error is that the folder was moved, removed or replaced.
    pub fn is_moved(&self) -> bool {
        self.moved_folder().is_some()
    }

    /// Returns whether that is the folder of the store itself.
    pub fn is_store_moved(&self) -> bool {
        self.moved_folder().is_some_and(|moved| moved.is_store)
    }

    fn moved_folder(&self) -> Option<&Moved> {
        self.source.as_ref()?.get_ref()?.downcast_ref()
    }

    /// Returns the system's number of the error, if it is one of the system's.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }

    /// Returns the path that the error is about.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what stands there, if that is neither a regular file nor a real folder as it should be.
    pub fn found(&self) -> Option<Found> {
        self.source.as_ref()?.get_ref()?.downcast_ref().copied()
    }

    /// Returns whether the error is that another process holds the lock.
    pub fn is_locked(&self) -> bool {
        self.source.is_none()
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            // The path stands beside it if it is shown.
            Some(source) => source.fmt(f),
            None => f.write_str("locked by another process"),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
