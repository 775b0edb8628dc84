//! The files of a corestore: a folder for each core, named by its discovery key, and what stands beside them.

use std::fmt;
use std::io;

use multifeed_proto::DiscoveryKey;

use super::{Slot, Storage};

#[cfg(feature = "file-storage")]
mod file;
#[cfg(feature = "file-storage")]
mod found;
mod memory;

#[cfg(feature = "file-storage")]
pub use file::FileCoreStorage;
#[cfg(feature = "file-storage")]
pub(super) use found::has_cores;
pub use memory::MemoryCoreStorage;

/// A file of a corestore that is no file of a feed's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CoreFile {
    /// `master_key` in the corestore's folder: 32 bytes, from which the key pairs of all named cores are derived.
    MasterKey,
    /// `name` in a core's folder: what its key pair is derived from, with its length in front as a LEB128 number.
    Name(Slot),
}

impl CoreFile {
    /// Returns the file's name in its folder.
    pub fn name(self) -> &'static str {
        match self {
            CoreFile::MasterKey => "master_key",
            CoreFile::Name(_) => "name",
        }
    }

    /// Returns the core's folder that it is in; `None` if it is in the corestore's.
    pub fn slot(self) -> Option<Slot> {
        match self {
            CoreFile::MasterKey => None,
            CoreFile::Name(slot) => Some(slot),
        }
    }
}

/// A small file that was read as a whole.
#[derive(Clone)]
pub struct SmallFile {
    /// What is in it, up to the bytes that were asked for.
    pub bytes: zeroize::Zeroizing<Vec<u8>>,
    /// How many bytes it has.
    pub len: u64,
    /// Its permission bits on unix (`0o777`); `None` if the storage has none.
    pub mode: Option<u32>,
}

impl fmt::Debug for SmallFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be a secret.
        f.debug_struct("SmallFile").field("len", &self.len).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// The folders of cores that a corestore has.
#[derive(Debug, Default)]
pub struct CoreFolders {
    /// Their discovery keys, ascending.
    pub cores: Vec<DiscoveryKey>,
    /// What stands in the place of a folder and is none, such as a link.
    pub obstacles: Vec<io::Error>,
    /// There are more than were asked for.
    pub more: bool,
}

/// All that a [`Corestore`](crate::Corestore) needs of its disk.
///
/// A core's files are reached by [`files`](Self::files), under the number that [`assign`](Self::assign) gave for the core. Errors are as those
/// of a [`Storage`].
pub trait CoreStorage {
    /// The files of the cores.
    type Files: Storage;

    /// The files of the cores that have a number.
    fn files(&self) -> &Self::Files;
    /// As [`files`](Self::files), to be read and written.
    fn files_mut(&mut self) -> &mut Self::Files;
    /// Gives a core's folder, which may not exist, a number until that is [released](Self::release). A core has one number at a time.
    ///
    /// # Errors
    /// If the storage has no numbers to give.
    fn assign(&mut self, core: DiscoveryKey) -> io::Result<Slot>;
    /// Closes the files of a core, whose number may be another's from now on.
    fn release(&mut self, slot: Slot);
    /// Removes a core's files, as [`Storage::remove`] does a feed's, and what else there is of it: `name`, and the core's journal.
    ///
    /// # Errors
    /// As [`Storage::remove`].
    fn remove(&mut self, slot: Slot) -> io::Result<()>;
    /// Lists the folders of cores, at most this many of them. Nothing is opened, and whatever else stands beside them is ignored.
    ///
    /// # Errors
    /// If a folder cannot be read.
    fn folders(&mut self, max: usize) -> io::Result<CoreFolders>;
    /// Whether anything has this name in a core's folder.
    ///
    /// # Errors
    /// If the folder cannot be read, or something else stands in its place.
    fn has_name(&mut self, slot: Slot, name: &str) -> io::Result<bool>;
    /// Reads a file, at most so many bytes of it; `None` if it is absent.
    ///
    /// # Errors
    /// If it cannot be read, or is no regular file.
    fn read_file(&mut self, file: CoreFile, max: usize) -> io::Result<Option<SmallFile>>;
    /// Makes a file for its owner alone, and its folder if that is missing. After a crash it is there as a whole or not at all; it returns once it
    /// would outlive a power cut.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if anything has its name: nothing is overwritten.
    fn make_file(&mut self, file: CoreFile, bytes: &[u8]) -> io::Result<()>;
}
