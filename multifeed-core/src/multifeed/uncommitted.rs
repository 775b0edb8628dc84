//! What the next commit writes and announces.

use crate::ids::FeedId;

/// About what it takes to stage anything for a feed, beside the bytes of its blocks: of very many feeds with few bytes each, that is most.
const STAGED_FEED_BYTES: usize = 1600;

/// What came or was made here, and is not written or not announced.
#[derive(Debug, Default)]
pub(super) struct Uncommitted {
    /// Feeds with such blocks, each once.
    pub(super) dirty: Vec<FeedId>,
    /// Feeds whose blocks could not be written by the last commit: the next one tries again.
    pub(super) unwritten: Vec<FeedId>,
    /// Feeds that were created and that sessions may not know.
    pub(super) unannounced: Vec<FeedId>,
    /// Bytes of blocks that came since the last commit.
    pub(super) bytes: usize,
}

impl Uncommitted {
    /// Adds a feed that was not among the dirty ones.
    pub(super) fn add(&mut self, id: FeedId) {
        self.bytes += STAGED_FEED_BYTES;
        self.dirty.push(id);
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.unwritten.is_empty() && self.unannounced.is_empty()
    }

    /// About how many bytes wait, if a commit has something to do.
    pub(super) fn size(&self) -> Option<usize> {
        (!self.dirty.is_empty() || !self.unannounced.is_empty()).then_some(self.bytes)
    }

    /// Forgets the blocks of a feed.
    pub(super) fn forget(&mut self, id: FeedId) {
        self.dirty.retain(|dirty| *dirty != id);
        self.unwritten.retain(|unwritten| *unwritten != id);
    }
}
