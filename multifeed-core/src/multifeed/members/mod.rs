//! Which feeds there are: their keys, names and folders.

pub(super) mod banned;
pub(super) mod catalog;
pub(super) mod copies;
pub(super) mod cores;
pub(super) mod create;
pub(super) mod folder_numbers;
pub(super) mod lists;
pub(super) mod missing;
pub(super) mod names;
pub(super) mod plain;
pub(super) mod rearranged;
pub(super) mod rebuild;
pub(super) mod remove;
pub(super) mod removed;
pub(super) mod sets;
pub(super) mod unopened;

use std::collections::BTreeSet;

use self::banned::Banned;
use self::catalog::Catalog;
use self::rearranged::Rearranged;
use self::removed::Removed;
use self::sets::Sets;
use crate::ids::FeedId;

/// The feeds of a multifeed.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) catalog: Catalog,
    pub(super) banned: Banned,
    /// What was taken out of multifeeds of a corestore.
    pub(super) removed: Removed,
    pub(super) sets: Sets,
    /// Places of feeds that were offered and are forgotten.
    pub(super) vacant: BTreeSet<FeedId>,
    /// What was changed of folders, by opening the store or since.
    pub(super) rearranged: Vec<Rearranged>,
}
