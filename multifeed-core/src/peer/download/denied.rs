//! What the remote was asked for, and did not bring.

use super::{Denials, Download};
use crate::feed::Feed;

impl Download {
    /// A block came without its value: the remote has the hash alone. It is not to be asked for again.
    pub(in crate::peer) fn came_without_value(&mut self, index: u64) {
        self.denials.block(index);
    }

    /// Whether the remote left a Want without an answer, or did not bring blocks that it told of and that are not here yet.
    pub(in crate::peer) fn was_denied(&mut self, feed: &Feed) -> bool {
        self.ignored || self.denials.lacks(feed)
    }

    /// Whether it left something else without an answer.
    pub(in crate::peer) fn left_question(&self) -> bool {
        self.denials.has_question()
    }

    /// What the remote did not bring is not wanted any more.
    pub(in crate::peer) fn excuse(&mut self) {
        self.denials = Denials::default();
    }

    /// Whether the remote was asked what it has or for blocks and did not answer yet, or, where all is fetched, told of blocks that are not here
    /// yet. A comparison of histories does not count: one that has everything may leave before it hears of it.
    pub(in crate::peer) fn is_owed(&mut self, feed: &Feed, sparse: bool) -> bool {
        self.unanswered > 0 || !self.in_flight.is_empty() || (!sparse && self.lacks_any(feed))
    }
}
