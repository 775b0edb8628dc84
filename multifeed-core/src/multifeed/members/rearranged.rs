//! What was changed of the folders of a store that nobody asked for by a call.

use std::fmt;

use multifeed_proto::FeedKey;

use crate::error::core;
use crate::storage::Slot;

/// Something that was done to folders, since JS knows no gap in their numbers, or since it was begun before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rearranged {
    /// The removal of a feed was begun before the store was opened, and is done now: the feed's folder is gone.
    Removed {
        /// The number that the folder had. The last feed may have it now.
        slot: Slot,
    },
    /// A folder without a feed stood at a number that a feed needs, and has another number now.
    Renumbered {
        /// Its number before.
        from: Slot,
        /// Its number now.
        to: Slot,
    },
    /// A folder without a feed stood at a number that a feed took: it is kept as `N.left`, or as `N.left.2` and so on if that was there.
    PutAside {
        /// Its number before.
        slot: Slot,
    },
    /// The folder of a feed that was fetched is gone, and the journal knows of blocks in it. They can be fetched again.
    Gone {
        /// The number that it had.
        slot: Slot,
        /// How long the feed was known to be, in blocks.
        blocks: u64,
    },
    /// The core of a feed of a corestore that was fetched is gone, and the journal knows of blocks in it. They can be fetched again.
    CoreGone {
        /// The feed's key.
        key: FeedKey,
        /// How long the feed was known to be, in blocks.
        blocks: u64,
    },
    /// A writer is named by its key, as another one has the name that it had: while its folder was missing, say.
    NamedByKey {
        /// Its folder.
        slot: Slot,
    },
}

impl fmt::Display for Rearranged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed { slot } => {
                write!(f, "the removal of the feed in folder {slot}, which was cut short before, is done")
            }
            Self::Renumbered { from, to } => {
                write!(f, "folder {from} holds no feed, and is folder {to} now: a feed needs its number")
            }
            Self::Gone { slot, blocks } => {
                let blocks = if *blocks == 1 { "1 block".to_owned() } else { format!("{blocks} blocks") };
                write!(
                    f,
                    "folder {slot}, of a feed of {blocks} that was fetched, is gone: a sync with a peer that has the feed fetches it again"
                )
            }
            Self::CoreGone { key, blocks } => {
                let blocks = if *blocks == 1 { "1 block".to_owned() } else { format!("{blocks} blocks") };
                write!(
                    f,
                    "{}, of the feed {key} of {blocks} that was fetched, is gone: a sync with a peer that has the feed fetches it again",
                    core(&key.discovery_key())
                )
            }
            Self::NamedByKey { slot } => {
                write!(
                    f,
                    "the writer in folder {slot} is named by its key now: another writer has the name that it had"
                )
            }
            Self::PutAside { slot } => write!(
                f,
                "folder {slot} held files of no feed: it is kept as {slot}.left, or with a number behind that, for a feed has its number now"
            ),
        }
    }
}
