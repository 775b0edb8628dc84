//! The report of what opening a feed had to set right.

use core::fmt;

use multifeed_proto::FeedKey;

use crate::error::home;
use crate::storage::Slot;

/// What opening a feed had to set right.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// The feed.
    pub key: FeedKey,
    /// The folder.
    pub slot: Slot,
    /// Whether the store was left without being closed, by a kill or a power cut; else somebody else changed the files, or they
    /// are damaged.
    pub unclean: bool,
    /// The length in blocks up to which the feed was known to be fsynced, if it was.
    pub synced_length: Option<u64>,
    /// Blocks that were marked since, and so were read and checked.
    pub blocks_checked: u64,
    /// The length in blocks that the bitfield has.
    pub marked_length: u64,
    /// The length in blocks that the feed has now.
    pub length: u64,
    /// Blocks that were marked as held and are not there, or lie past the length.
    pub blocks_unmarked: u64,
    /// Those of a writable feed that are signed, and not in `data`: no more than 16 of them. The next session fetches them, if its remote has them.
    pub lost: Vec<u64>,
    /// Blocks of a remote feed that were known to be fsynced, and are not held any more, after a store was not closed.
    pub synced_lost: u64,
    /// Tree nodes that were marked as held and are not there, or lie past the length.
    pub nodes_unmarked: u64,
    /// Blocks of a writable feed that were there, whole and signed, and not marked.
    pub blocks_regained: u64,
    /// Signatures that were torn: those of a writable feed were made again, those of a remote one were dropped.
    pub signatures_mended: u64,
    /// Whether a writable feed, found whole block for block, was signed again because its newest signature was gone.
    pub signed_again: bool,
    /// The folder of a copy of a writable feed, as a remote has it, that was taken into the writer's and is gone. What it had beyond that
    /// counts as regained.
    pub copy: Option<Slot>,
    /// Whether it is the list of a multifeed's feeds, which no peer has.
    pub is_list: bool,
}

impl Recovered {
    pub(crate) fn new(key: FeedKey, slot: Slot) -> Self {
        Self {
            key,
            slot,
            unclean: false,
            synced_length: None,
            blocks_checked: 0,
            marked_length: 0,
            length: 0,
            blocks_unmarked: 0,
            lost: Vec::new(),
            synced_lost: 0,
            nodes_unmarked: 0,
            blocks_regained: 0,
            signatures_mended: 0,
            signed_again: false,
            copy: None,
            is_list: false,
        }
    }

    /// Returns whether blocks are gone that were held: more than a crash takes, which is only what was not fsynced.
    pub fn is_loss(&self) -> bool {
        let most = if self.unclean { self.synced_length } else { Some(self.marked_length) };
        let shorter = most.is_some_and(|most| self.length < most);
        shorter || self.synced_lost > 0 || !self.lost.is_empty() || !self.unclean && self.blocks_unmarked > 0
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { marked_length, length, blocks_unmarked, lost, blocks_regained, signed_again, copy, .. } = self;
        let folder = home(self.slot, &self.key);
        if marked_length == length {
            write!(f, "{folder} has a length of {length} blocks, as it said")?;
        } else {
            write!(f, "{folder} said a length of {marked_length} blocks, and has {length} now")?;
        }
        for (count, what) in [(blocks_unmarked, "were not there"), (blocks_regained, "were not marked, and are there")]
        {
            if *count > 0 {
                write!(f, "; blocks that {what}: {count}")?;
            }
        }
        if !lost.is_empty() {
            let blocks: Vec<_> = lost.iter().map(u64::to_string).collect();
            let more = if *blocks_unmarked > blocks.len() as u64 { ", …" } else { "" };
            let (whose, back) = match self.is_list {
                true => ("list of feeds", "no peer has"),
                false => ("writer", "a sync with a peer that has them brings back"),
            };
            write!(f, "; of this {whose} ({}{more}), which {back}", blocks.join(", "))?;
        }
        if let Some(copy) = copy {
            write!(f, "; the copy of this writer's feed in folder {copy} was taken into it, and is gone")?;
        }
        if *signed_again { f.write_str("; its newest signature was made again") } else { Ok(()) }
    }
}
