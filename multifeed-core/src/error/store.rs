//! What can go wrong with a store.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use multifeed_proto::FeedKey;
use thiserror::Error;

mod corestore;

pub use corestore::CorestoreError;

use super::words::{
    TO_CATCH_UP, advice, blocks_were, core, core_of, home, how_many, js_sees, key_in_use, lost_list, old_place, place,
    put_back, writer_of,
};
use crate::storage::{FileError, FileId, FileKind, Found, Slot};

/// The store failed, or what it holds is not what a feed should be. Never a peer's fault.
///
/// Cloning is cheap, so that one failure can be reported to everyone who waits. `Debug` prints the code and the text, as that is what a `main` that returns
/// an error shows.
#[derive(Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("could not {op} {}: {source}", place(*.slot, *.file, .path))]
    Io {
        /// The folder, if one is concerned.
        slot: Option<Slot>,
        /// The file, if one is concerned.
        file: Option<FileKind>,
        /// The path, if the storage has paths.
        path: Option<PathBuf>,
        /// What was tried, as a verb: "read", "write", …
        op: &'static str,
        /// What the storage said.
        source: Arc<io::Error>,
    },
    /// A disk or a quota is full.
    #[error("no space left to {op} {}: free some on the disk, or raise the quota", place(*.slot, *.file, .path))]
    Full {
        /// The folder, if one is concerned.
        slot: Option<Slot>,
        /// The file, if one is concerned.
        file: Option<FileKind>,
        /// The path, if the storage has paths.
        path: Option<PathBuf>,
        /// What was tried, as a verb.
        op: &'static str,
        /// What the storage said.
        source: Arc<io::Error>,
    },
    /// The disk has less free than it must keep.
    #[error(
        "{free} bytes are free on the disk of the store, fewer than the {keep} that it keeps free: nothing new is fetched until there are more"
    )]
    LowSpace {
        /// Bytes that are free.
        free: u64,
        /// [`Limits::keep_free`](crate::limits::Limits::keep_free).
        keep: u64,
    },
    /// Another process holds the store, or this feed of it.
    #[error("{} is in use by another process", place(*.slot, *.file, .path))]
    Locked {
        /// The folder, if one feed is concerned.
        slot: Option<Slot>,
        /// The file that is locked, if it is one of a feed's.
        file: Option<FileKind>,
        /// The path of the lock.
        path: Option<PathBuf>,
    },
    /// The store's folder, or a feed's, was moved, removed or replaced while the store was open. Nothing more is written: it would be lost, or lie
    /// where nobody looks for it.
    #[error(
        "{} was moved, removed or replaced while it was open, and nothing more is written: close the store, and open it where it is now",
        place(*.slot, None, .path)
    )]
    Moved {
        /// The folder, if it is that of one feed.
        slot: Option<Slot>,
        /// The path at which it was.
        path: Option<PathBuf>,
    },
    /// Something else stands in the place of a file, or of a numbered folder: a link, which is not followed, a pipe, a device. Or what is
    /// behind a link was to be deleted, cut or replaced. It was left as it is.
    #[error("{} is {found}, and {}", place(*.slot, *.file, .path), advice(*.found))]
    NotRegular {
        /// The folder, if one is concerned.
        slot: Option<Slot>,
        /// The file, if one is concerned.
        file: Option<FileKind>,
        /// The path, if the storage has paths.
        path: Option<PathBuf>,
        /// What it is.
        found: Found,
    },
    /// The folder is a corestore's: it has cores, or a `master_key` and no folder `0`. Folders of cores can have numbers as their names, so it is
    /// not taken for a multifeed's. It was left as it is.
    #[error("{} is a corestore, and no multifeed: open it as a `Corestore`", place(None, None, .path))]
    IsCorestore {
        /// The folder.
        path: Option<PathBuf>,
    },
    /// A core of the corestore that a store is in cannot be used, or the corestore; or the folder is [another kind of
    /// store's](CorestoreError::OtherStore), which was left as it is.
    #[error(transparent)]
    Core(Arc<CorestoreError>),
    /// The core of one feed of a corestore cannot be used, or not all of it. Its folder has no number: what is said of it is said without one.
    #[error("{}: {source}", core_of(.key, .name))]
    OfCore {
        /// The feed's key.
        key: FeedKey,
        /// The feed's name, if it has one that is known.
        name: Option<String>,
        /// What is wrong.
        source: Arc<StoreError>,
    },
    /// The store is not in a corestore, and has no multifeeds by their root keys.
    #[error("the store is no corestore, and has one multifeed alone: open the folder as a `Corestore`")]
    NotCorestore,
    /// A feed's id is of another store.
    #[error("the store has no feed of this id: it is that of another store")]
    UnknownFeed,
    /// A core was asked for that is the list of feeds of a multifeed which is open.
    #[error("{} is the list of feeds of a multifeed: open that by its root key", core(&.key.discovery_key()))]
    ListOfFeeds {
        /// The core's key.
        key: FeedKey,
    },
    /// A file does not hold what it must. The folder was left as it is.
    #[error("{} is damaged: {why}", place(Some(*.slot), Some(*.file), &None))]
    Damaged {
        /// The folder.
        slot: Slot,
        /// The file.
        file: FileKind,
        /// What is wrong with it.
        why: String,
    },
    /// A feed was to be created in a folder that already holds something.
    #[error("{} already holds a feed, or what is left of one", place(Some(*.slot), None, &None))]
    Occupied {
        /// The folder.
        slot: Slot,
    },
    /// A feed is in two folders that were not joined: both have the secret key, or neither has, or one could not take in the other.
    #[error("folder {slot} holds feed {key} too, and is not in use; folder {first} is: {what}")]
    SecondFolder {
        /// The folder that does not count.
        slot: Slot,
        /// The one that does.
        first: Slot,
        /// The feed's key.
        key: FeedKey,
        /// Why they are still two, and what to do.
        what: &'static str,
    },
    /// A feed was to be created with a key pair of another key.
    #[error("the key pair is not that of feed {key}")]
    KeyMismatch {
        /// The feed's key.
        key: FeedKey,
    },
    /// A writer was to be made with a key pair, or a signer, of a feed that is here.
    #[error("{}", key_in_use(.key, .name, *.written))]
    KeyInUse {
        /// The feed's folder.
        slot: Slot,
        /// The feed's key.
        key: FeedKey,
        /// The feed's name: its writer's, or the number of its folder.
        name: String,
        /// Whether it is written here.
        written: bool,
    },
    /// The signer of a feed did not sign, or what it gave is no signature of its. Nothing was written. The application's fault, or its key store's.
    #[error("the signer of feed {key} did not sign: {source}")]
    Signer {
        /// The feed's folder.
        slot: Slot,
        /// The feed's key.
        key: FeedKey,
        /// What the signer said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A feed is signed by a signer of the application's, which was not given. It is read and served; nothing is appended to it, and nothing of it is
    /// repaired.
    #[error(
        "feed {key} is signed by a signer that was not given: nothing can be appended to it, or repaired of it. Open the store with the signer"
    )]
    NoSigner {
        /// The feed's folder.
        slot: Slot,
        /// The feed's key.
        key: FeedKey,
    },
    /// The folder of a writer is gone or empty, and the journal knows of blocks in it. No other writer is made under that name.
    #[error(
        "{} is missing: {} in {}. {}{}",
        writer_of(.key, .name), blocks_were(*.blocks), old_place(.slot), put_back(.key, .name), js_sees(.slot)
    )]
    MissingWriter {
        /// The folder that it had; `None` if another feed was put there.
        slot: Option<Slot>,
        /// The feed's key; `None` in a store that an earlier build wrote.
        key: Option<FeedKey>,
        /// The writer's name, if it has one that is known.
        name: Option<String>,
        /// How long the feed was known to be, in blocks.
        blocks: u64,
    },
    /// The folder of a writer has less than this store signed: it is an older copy, or its end is lost. It is read and served. Nothing is appended to it
    /// before the rest is here: that would be a second history.
    #[error(
        "{} in {} has {}, and this store signed {signed}: it is an older copy, its end is lost, or it was removed here. {}",
        writer_of(&Some(*.key), .name), home(*.slot, .key), how_many(*.blocks), TO_CATCH_UP
    )]
    OlderWriter {
        /// The folder.
        slot: Slot,
        /// The feed's key.
        key: FeedKey,
        /// The writer's name, if it has one.
        name: Option<String>,
        /// How long it is here, in blocks.
        blocks: u64,
        /// How long it was known to be, in blocks.
        signed: u64,
    },
    /// Of a feed that was fetched less can be proven than this store knew: its `tree` is damaged, or its folder is an older copy. What can be proven is
    /// read and served. Nothing of it is changed before a remote brings the rest.
    #[error(
        "{} has {} of feed {key} that can be proven, and the journal knows {known}: its `tree` is damaged or cannot be read, or the folder \
         is an older copy. Nothing of it was changed; a sync with a peer that has the feed brings the rest back",
        home(*.slot, .key), how_many(*.blocks)
    )]
    OlderCopy {
        /// The folder.
        slot: Slot,
        /// The feed's key.
        key: FeedKey,
        /// How long it is here, in blocks, as far as that can be proven.
        blocks: u64,
        /// How long it was known to be, in blocks.
        known: u64,
    },
    /// The folder of a writer holds another history than this store signed: an older copy that was extended elsewhere. It is read and served; nothing
    /// can be appended to it.
    #[error(
        "{} in {} has another history than the one of {signed} blocks that this store signed: it is an older copy that was extended \
         elsewhere. Put the folder back that it had; nothing is appended to this one, of {}",
        writer_of(&Some(*.key), .name), home(*.slot, .key), how_many(*.blocks)
    )]
    ForkedWriter {
        /// The folder.
        slot: Slot,
        /// The feed's key.
        key: FeedKey,
        /// The writer's name, if it has one.
        name: Option<String>,
        /// How long it is here, in blocks.
        blocks: u64,
        /// How long the history was that this store signed, in blocks.
        signed: u64,
    },
    /// The core of a writer of a corestore is gone, and the journal knows of blocks in it. It is not made anew: its key would be derived again.
    #[error(
        "{}, of {}, is gone, and had {}: put its folder back, or sync with a peer that has the feed. A new one would sign a second history; if \
         neither can be, write under another name",
        core(&.key.discovery_key()), writer_of(&Some(*.key), .name), how_many(*.blocks)
    )]
    CoreMissing {
        /// The feed's key.
        key: FeedKey,
        /// The writer's name, if it has one that is known.
        name: Option<String>,
        /// How long the feed was known to be, in blocks.
        blocks: u64,
    },
    /// The list of feeds of a multifeed of a corestore is gone, or less of it is here than was written, or another one. No peer has it. No other is
    /// made in its place before [`Multifeed::rebuild_list`](crate::Multifeed::rebuild_list).
    #[error("{}, the list of the feeds of this multifeed, {}", core(&.key.discovery_key()), lost_list(*.held, *.known))]
    ListLost {
        /// The key of the list's core.
        key: FeedKey,
        /// How many entries are here; `None` if the core is gone.
        held: Option<u64>,
        /// How many there were.
        known: u64,
    },
    /// A writer's name is that of a property which every JavaScript object has: a JS app would take that for the feed, and miss the feed itself.
    #[error(
        "a writer cannot be named `{name}`: every JavaScript object has a property of that name, and a JS app would miss the feed; choose another name"
    )]
    ReservedName {
        /// The name.
        name: String,
    },
    /// A writer's name is empty or too long.
    #[error("a writer's name has 1 to {max} bytes, this one {size}")]
    BadName {
        /// Its size in bytes.
        size: usize,
        /// [`Limits::name_bytes`](crate::limits::Limits::name_bytes).
        max: usize,
    },
    /// The name is that of another feed, which cannot be renamed: it is damaged, or was named by its key before.
    #[error("the name `{name}` is that of the feed in {}", place(Some(*.slot), None, &None))]
    NameTaken {
        /// The name.
        name: String,
        /// The folder of the feed that has it.
        slot: Slot,
    },
    /// The store holds as many feeds as it may.
    #[error("the store is full: it has {max} feeds")]
    TooManyFeeds {
        /// [`Limits::feeds`](crate::limits::Limits::feeds).
        max: usize,
    },
    /// The feed was removed from the store.
    #[error("feed {key} was removed")]
    Removed {
        /// The feed's key.
        key: FeedKey,
    },
    /// The feed is banned: it must not be in this store.
    #[error("feed {key} is banned")]
    Banned {
        /// The feed's key.
        key: FeedKey,
    },
    /// A feed was to be removed that is written here, or was: its secret key would be lost for good, which has to be asked for by name.
    #[error("feed {key} is written here: to remove it would destroy its secret key, also one that cannot be read now")]
    OwnWriter {
        /// The feed's key.
        key: FeedKey,
    },
    /// As many feeds are banned as may be.
    #[error("{max} feeds are banned already")]
    TooManyBanned {
        /// [`Limits::banned`](crate::limits::Limits::banned).
        max: usize,
    },
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.code())
    }
}

impl StoreError {
    /// Returns a name for the kind of failure, in the style of the JS error codes.
    pub fn code(&self) -> &'static str {
        match self {
            StoreError::Io { .. } => "ERR_STORE_IO",
            StoreError::Full { .. } | StoreError::LowSpace { .. } => "ERR_STORE_FULL",
            StoreError::Locked { .. } => "ERR_STORE_LOCKED",
            StoreError::Moved { .. } => "ERR_STORE_MOVED",
            StoreError::NotRegular { .. } => "ERR_STORE_NOT_REGULAR",
            StoreError::Damaged { .. } | StoreError::OlderCopy { .. } => "ERR_STORE_DAMAGED",
            StoreError::IsCorestore { .. } | StoreError::NotCorestore => "ERR_OTHER_STORE",
            StoreError::Core(error) => error.code(),
            StoreError::OfCore { source, .. } => source.code(),
            StoreError::Occupied { .. } | StoreError::SecondFolder { .. } => "ERR_STORE_OCCUPIED",
            StoreError::ListOfFeeds { .. } => "ERR_LIST_OF_FEEDS",
            StoreError::UnknownFeed => "ERR_UNKNOWN_FEED",
            StoreError::KeyMismatch { .. } => "ERR_KEY_MISMATCH",
            StoreError::KeyInUse { .. } => "ERR_KEY_IN_USE",
            StoreError::Signer { .. } => "ERR_SIGNER",
            StoreError::NoSigner { .. } => "ERR_NO_SIGNER",
            StoreError::MissingWriter { .. } | StoreError::CoreMissing { .. } => "ERR_WRITER_MISSING",
            StoreError::ListLost { .. } => "ERR_LIST_LOST",
            StoreError::OlderWriter { .. } => "ERR_WRITER_OLDER",
            StoreError::ForkedWriter { .. } => "ERR_WRITER_FORKED",
            StoreError::BadName { .. } | StoreError::ReservedName { .. } => "ERR_BAD_NAME",
            StoreError::NameTaken { .. } => "ERR_NAME_TAKEN",
            StoreError::TooManyFeeds { .. } | StoreError::TooManyBanned { .. } => "ERR_LIMIT",
            StoreError::Removed { .. } => "ERR_REMOVED",
            StoreError::Banned { .. } => "ERR_BANNED",
            StoreError::OwnWriter { .. } => "ERR_OWN_WRITER",
        }
    }

    /// Whether a folder cannot be read or written, be it by the kind of a file, its owner, another process that has it open or the disk, which
    /// may be full. No other feed has to suffer from it.
    pub(crate) fn is_of_one_folder(&self) -> bool {
        let of_a_folder = matches!(
            self,
            StoreError::Io { .. }
                | StoreError::Full { .. }
                | StoreError::NotRegular { .. }
                | StoreError::Locked { .. }
                | StoreError::Signer { .. }
                | StoreError::NoSigner { .. }
        );
        of_a_folder && self.slot().is_some()
    }

    /// Returns whether a part of a feed's file cannot be read, as on a bad sector, or is not what it must be. Other parts of it, and other feeds, are
    /// none the worse.
    pub fn is_of_one_place(&self) -> bool {
        match self {
            StoreError::Damaged { .. } => true,
            StoreError::Io { file: Some(file), .. } => !file.is_beside() && self.is_unreadable(),
            _ => false,
        }
    }

    /// Whether a feed's own files do not take what is written. That is so if the disk fails there, a file cannot be as long as it would be or may
    /// not be written, or the feed's folder is no longer at its place. Other feeds have not to suffer from it.
    pub(crate) fn is_of_one_feed(&self) -> bool {
        match self {
            StoreError::Moved { slot, .. } => slot.is_some(),
            StoreError::Io { file: Some(file), source, .. } => {
                let too_large = source.kind() == io::ErrorKind::FileTooLarge;
                let denied =
                    matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
                !file.is_beside() && (too_large || denied || is_unreadable(source))
            }
            _ => false,
        }
    }

    /// Whether the disk does not give what was to be read, as on a bad sector.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, StoreError::Io { op: "read", source, .. } if is_unreadable(source))
    }

    /// Whether the disk, the permissions there, or what stands in the place of a file keep it from being read. A link may lead to a file that is
    /// somebody else's, and is no such thing.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        if let StoreError::NotRegular { found, .. } = self {
            return matches!(found, Found::Folder | Found::Pipe | Found::Socket | Found::Device);
        }
        let StoreError::Io { op: "read" | "look at", source, .. } = self else { return false };
        let denied = source.kind() == io::ErrorKind::PermissionDenied;
        denied || is_unreadable(source)
    }

    /// Whether a file that makes a feed a writer's is missing, or cannot be read.
    pub(crate) fn is_of_a_writer(&self) -> bool {
        match self {
            StoreError::NoSigner { .. } => true,
            StoreError::Io { file: Some(file), .. }
            | StoreError::NotRegular { file: Some(file), .. }
            | StoreError::Damaged { file, .. } => matches!(file, FileKind::SecretKey | FileKind::LocalName),
            _ => false,
        }
    }

    /// Whether a secret key is there and may not be read.
    pub(crate) fn is_of_sealed_key(&self) -> bool {
        let StoreError::Io { file: Some(FileKind::SecretKey), source, .. } = self else { return false };
        source.kind() == io::ErrorKind::PermissionDenied
    }

    /// Whether a writer may be missing because of this, whatever its name.
    pub(crate) fn is_of_the_missing(&self) -> bool {
        matches!(self, StoreError::MissingWriter { .. } | StoreError::Damaged { file: FileKind::Journal, .. })
    }

    /// Whether this writer is missing.
    pub(crate) fn is_of_missing(&self, writer: &FeedKey) -> bool {
        match self {
            StoreError::MissingWriter { key, .. } => key.as_ref() == Some(writer),
            StoreError::CoreMissing { key, .. } => key == writer,
            _ => false,
        }
    }

    /// Whether this is what a storage says that is only read, and not what a disk says.
    pub(crate) fn is_left_to_a_writer(&self) -> bool {
        let StoreError::Io { source, .. } = self else { return false };
        source.kind() == io::ErrorKind::ReadOnlyFilesystem && raw_os_error(source).is_none()
    }

    /// Returns the folder that the failure is about, if it is about one.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            StoreError::Io { file: Some(file), .. }
            | StoreError::Full { file: Some(file), .. }
            | StoreError::NotRegular { file: Some(file), .. }
            | StoreError::Damaged { file, .. }
                if file.is_beside() =>
            {
                None
            }
            StoreError::Io { slot, .. }
            | StoreError::Full { slot, .. }
            | StoreError::NotRegular { slot, .. }
            | StoreError::Moved { slot, .. }
            | StoreError::MissingWriter { slot, .. }
            | StoreError::Locked { slot, .. } => *slot,
            StoreError::Damaged { slot, .. }
            | StoreError::OlderWriter { slot, .. }
            | StoreError::OlderCopy { slot, .. }
            | StoreError::ForkedWriter { slot, .. }
            | StoreError::KeyInUse { slot, .. }
            | StoreError::Signer { slot, .. }
            | StoreError::NoSigner { slot, .. }
            | StoreError::Occupied { slot }
            | StoreError::SecondFolder { slot, .. }
            | StoreError::NameTaken { slot, .. } => Some(*slot),
            StoreError::KeyMismatch { .. }
            | StoreError::IsCorestore { .. }
            | StoreError::NotCorestore
            | StoreError::ListOfFeeds { .. }
            | StoreError::UnknownFeed
            | StoreError::CoreMissing { .. }
            | StoreError::ListLost { .. }
            | StoreError::OfCore { .. }
            | StoreError::Core(_)
            | StoreError::BadName { .. }
            | StoreError::ReservedName { .. }
            | StoreError::TooManyFeeds { .. }
            | StoreError::Removed { .. }
            | StoreError::Banned { .. }
            | StoreError::OwnWriter { .. }
            | StoreError::LowSpace { .. }
            | StoreError::TooManyBanned { .. } => None,
        }
    }

    /// The folder that it is about has another number now.
    pub(crate) fn renumber(&mut self, from: Slot, to: Slot) {
        if let StoreError::SecondFolder { first, .. } = self
            && *first == from
        {
            *first = to;
        }
        if self.slot() != Some(from) {
            return;
        }
        match self {
            StoreError::Io { slot, path, .. }
            | StoreError::Full { slot, path, .. }
            | StoreError::NotRegular { slot, path, .. }
            | StoreError::Locked { slot, path, .. } => {
                (*slot, *path) = (Some(to), None);
            }
            StoreError::Damaged { slot, .. }
            | StoreError::OlderWriter { slot, .. }
            | StoreError::OlderCopy { slot, .. }
            | StoreError::ForkedWriter { slot, .. }
            | StoreError::KeyInUse { slot, .. }
            | StoreError::Signer { slot, .. }
            | StoreError::NoSigner { slot, .. }
            | StoreError::Occupied { slot }
            | StoreError::SecondFolder { slot, .. }
            | StoreError::NameTaken { slot, .. } => *slot = to,
            _ => {}
        }
    }

    /// The same of a core of a corestore, which its key and name tell and no number. What has a path already, or is about no folder, stays as it is.
    pub(crate) fn of_core(mut self, of: FeedKey, called: Option<&str>) -> Self {
        let slot = match &mut self {
            StoreError::OlderWriter { slot, name, .. } | StoreError::ForkedWriter { slot, name, .. } => {
                *slot = Slot::NOWHERE;
                *name = name.take().or_else(|| called.map(str::to_owned));
                return self;
            }
            StoreError::OlderCopy { slot, .. }
            | StoreError::KeyInUse { slot, .. }
            | StoreError::Signer { slot, .. }
            | StoreError::NoSigner { slot, .. } => {
                *slot = Slot::NOWHERE;
                return self;
            }
            StoreError::Io { path: Some(_), .. }
            | StoreError::Full { path: Some(_), .. }
            | StoreError::NotRegular { path: Some(_), .. }
            | StoreError::Moved { path: Some(_), .. }
            | StoreError::Locked { path: Some(_), .. } => return self,
            StoreError::Io { slot: Some(slot), .. }
            | StoreError::Full { slot: Some(slot), .. }
            | StoreError::NotRegular { slot: Some(slot), .. }
            | StoreError::Moved { slot: Some(slot), .. }
            | StoreError::Locked { slot: Some(slot), .. }
            | StoreError::Damaged { slot, .. }
            | StoreError::Occupied { slot }
            | StoreError::NameTaken { slot, .. } => slot,
            _ => return self,
        };
        *slot = Slot::NOWHERE;
        StoreError::OfCore { key: of, name: called.map(str::to_owned), source: Arc::new(self) }
    }

    /// Returns an error of one file of a feed, told apart by what it is.
    pub fn from_file(file: FileId, op: &'static str, source: io::Error) -> Self {
        Self::new(Some(file.slot), Some(file.kind), op, source)
    }

    /// Returns an error of the store as a whole.
    pub fn from_store(op: &'static str, source: io::Error) -> Self {
        Self::new(None, None, op, source)
    }

    /// Returns an error of one folder as a whole.
    pub fn from_slot(slot: Slot, op: &'static str, source: io::Error) -> Self {
        Self::new(Some(slot), None, op, source)
    }

    fn new(slot: Option<Slot>, file: Option<FileKind>, op: &'static str, source: io::Error) -> Self {
        let told = source.get_ref().and_then(|inner| inner.downcast_ref::<FileError>());
        let path = told.map(|told| told.path().to_path_buf());
        if told.is_some_and(FileError::is_locked) {
            return StoreError::Locked { slot, file, path };
        }
        if let Some(told) = told.filter(|told| told.is_moved()) {
            return StoreError::Moved { slot: slot.filter(|_| !told.is_store_moved()), path };
        }
        if told.is_some_and(FileError::is_corestore) {
            return StoreError::IsCorestore { path };
        }
        if let Some(other) = told.and_then(FileError::other_store) {
            return StoreError::Core(Arc::new(CorestoreError::OtherStore(other.clone())));
        }
        if let Some(found) = told.and_then(FileError::found) {
            return StoreError::NotRegular { slot, file, path, found };
        }
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let source = Arc::new(source);
        if full {
            StoreError::Full { slot, file, path, op, source }
        } else {
            StoreError::Io { slot, file, path, op, source }
        }
    }

    pub(crate) fn damaged(slot: Slot, file: FileKind, why: impl Into<String>) -> Self {
        StoreError::Damaged { slot, file, why: why.into() }
    }
}

/// The system's error numbers which say that the disk does not read or write at that place: EIO, and what file systems say that have checksums of
/// their own (EBADMSG, EUCLEAN).
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNREADABLE: &[i32] = &[5, 74, 117];
/// EIO.
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const UNREADABLE: &[i32] = &[5];
/// ERROR_CRC, ERROR_READ_FAULT, ERROR_IO_DEVICE.
#[cfg(not(unix))]
const UNREADABLE: &[i32] = &[23, 30, 1117];

/// Whether an error of the system says that the disk fails.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    raw_os_error(error).is_some_and(|errno| UNREADABLE.contains(&errno))
}

fn raw_os_error(error: &io::Error) -> Option<i32> {
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<FileError>());
    error.raw_os_error().or_else(|| told?.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_what_a_person_can_read() {
        let error = StoreError::Locked { slot: None, file: None, path: Some("db/multifeed.lock".into()) };
        assert_eq!(format!("{:?}", Some(&error)), format!("Some(ERR_STORE_LOCKED: {error})"));
    }
}
