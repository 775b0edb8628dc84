//! What opening a store found, and what was done about it.

use multifeed_proto::FeedKey;

use crate::error::{StoreError, home};
use crate::feed::{Feed, Recovered};
use crate::log::log;
use crate::storage::{FileKind, Slot};

/// What an application can ask about the state of the folders.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Why folders could not be opened, or not be used as they were meant.
    pub(crate) problems: Vec<StoreError>,
    /// What opening had to cut from feeds that a crash tore.
    pub(crate) recovered: Vec<Recovered>,
    /// Secret keys that others may read.
    pub(crate) exposed: Vec<ExposedKey>,
    /// A folder could not be opened by a failure of the disk.
    pub(crate) unopened: bool,
}

impl Report {
    /// Adds why the folders could not be put in the order that JS wants, unless the store is only read. No feed is the worse for it then, and the
    /// next process that writes does it.
    pub(crate) fn add_of_order(&mut self, error: StoreError) {
        if !error.is_left_to_a_writer() {
            self.problems.push(error);
        }
    }

    /// Adds a problem, unless it is known.
    pub(crate) fn note_problem(&mut self, error: StoreError) {
        let text = error.to_string();
        if !self.problems.iter().any(|problem| problem.to_string() == text) {
            log!(DEBUG, "store", "a problem", error = %error);
            self.problems.push(error);
        }
    }

    /// The missing writers whose folders may come back: their numbers, keys and names.
    pub(crate) fn missing_writers(&self) -> impl Iterator<Item = (Slot, FeedKey, Option<&str>)> {
        self.problems.iter().filter_map(|problem| match problem {
            StoreError::MissingWriter { slot: Some(slot), key: Some(key), name, .. } => {
                Some((*slot, *key, name.as_deref()))
            }
            _ => None,
        })
    }

    /// Whether the feed in a folder was a writer's, and cannot be that now: its secret key, or its name, is missing or cannot be read.
    pub(crate) fn lost_key(&self, feed: &Feed) -> bool {
        let is_it = |problem: &StoreError| problem.is_of_a_writer() && problem.slot() == Some(feed.slot());
        !feed.writable() && self.problems.iter().any(is_it)
    }

    /// A missing writer is missed no more.
    pub(crate) fn found_missing(&mut self, writer: &FeedKey) {
        self.problems.retain(|problem| !problem.is_of_missing(writer));
    }

    /// A feed is as long again as it was, and its signature is there.
    pub(crate) fn caught_up(&mut self, feed: &Feed) {
        let is_over = |problem: &StoreError| match problem {
            StoreError::OlderWriter { key, .. } | StoreError::OlderCopy { key, .. } => *key == feed.key(),
            StoreError::Damaged { slot, file: FileKind::Signatures, .. } if !feed.writable() => *slot == feed.slot(),
            StoreError::Damaged { slot, file, .. } => {
                *slot == feed.slot() && feed.writable() && FileKind::GROWING.contains(file)
            }
            _ => false,
        };
        self.problems.retain(|problem| !is_over(problem));
    }

    /// A folder has another number now.
    pub(crate) fn renumber(&mut self, from: Slot, to: Slot) {
        self.problems.iter_mut().for_each(|problem| problem.renumber(from, to));
        self.recovered.iter_mut().filter(|recovered| recovered.slot == from).for_each(|recovered| recovered.slot = to);
    }

    /// A folder is gone.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.problems.retain(|problem| problem.slot() != Some(slot));
        self.recovered.retain(|recovered| recovered.slot != slot);
    }
}

/// A secret key that others than the owner of its file may read or change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExposedKey {
    /// The feed's public key.
    pub key: FeedKey,
    /// Its folder, whose `secret_key` it is.
    pub slot: Slot,
    /// The file's permissions on unix, `0o600` if nobody else can.
    pub mode: u32,
}

impl std::fmt::Display for ExposedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (folder, mode) = (home(self.slot, &self.key), self.mode);
        write!(
            f,
            "others can read or change `secret_key` of {folder} (permissions {mode:04o}): whoever has it can write this feed; \
             make it yours alone (chmod 600)"
        )
    }
}
