//! What a system or a file system cannot do: it is gone without, and reported once. What it can do, and does not, is an error.

/// What the disk of a store turned out not to support. The store does without, and says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsupported {
    /// Locks on files, as on some network and FUSE file systems and on Android: nothing keeps a second process out of the store.
    pub locks: bool,
    /// To fsync a folder, as on CIFS and some FUSE file systems: a power cut may take files that are new.
    pub folder_sync: bool,
    /// To fsync a file: a power cut may take whatever was written, at any [`Durability`](crate::Durability).
    pub file_sync: bool,
    /// To make a hole in a file, as on FAT and some network file systems. Blocks that are cleared keep their place on the disk, unless nothing
    /// that is held follows them.
    pub holes: bool,
}

impl Unsupported {
    /// Returns what a person has to know of it, a sentence for each.
    pub fn warnings(self) -> impl Iterator<Item = &'static str> {
        let locks = "the disk of the store has no file locks: see to it that no other program uses the store meanwhile";
        let folders = "the disk of the store cannot sync folders: a power cut may take feeds and files that are new";
        let files = "the disk of the store cannot sync files: a power cut may take what was appended";
        let holes = "the disk of the store cannot make holes in files: cleared blocks that have others after them keep their space";
        [(self.locks, locks), (self.folder_sync, folders), (self.file_sync, files), (self.holes, holes)]
            .into_iter()
            .filter_map(|(is, warning)| is.then_some(warning))
    }

    /// Returns what is in this and not in an earlier one.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            locks: self.locks && !earlier.locks,
            folder_sync: self.folder_sync && !earlier.folder_sync,
            file_sync: self.file_sync && !earlier.file_sync,
            holes: self.holes && !earlier.holes,
        }
    }
}

/// Whether the system, or the file system, does not have the call at all.
///
/// EINVAL is what Linux says of a folder that cannot be fsynced, and of a lock that the file system has not. ENOLCK is what network file
/// systems say that have none. EIO and EWOULDBLOCK are failures of what is there.
#[cfg(feature = "file-storage")]
pub(super) fn is_unsupported(error: &std::io::Error) -> bool {
    if error.kind() == std::io::ErrorKind::Unsupported {
        return true;
    }
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let lacking = [Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOLCK, Errno::INVAL];
        error.raw_os_error().is_some_and(|errno| lacking.contains(&Errno::from_raw_os_error(errno)))
    }
    #[cfg(not(unix))]
    false
}
