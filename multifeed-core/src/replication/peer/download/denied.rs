//! What the remote was asked for, and did not bring.

use super::{Download, Unanswered};
use crate::feed::Feed;
use crate::sets::sparse_bits::SparseBits;

impl Download {
    /// A block came without its value: the remote has the hash alone. It must not be asked for again.
    pub(in crate::replication::peer) fn came_without_value(&mut self, index: u64) {
        self.unanswered.block(index);
    }

    /// Whether the remote left a Want without an answer, or did not bring blocks that it told of and that are not here yet.
    pub(in crate::replication::peer) fn was_denied(&mut self, feed: &Feed) -> bool {
        self.ignored || self.unanswered.lacks(feed)
    }

    /// Whether the remote said of every block that is not here and not in [`left`](Self::left) that it does not have it.
    pub(in crate::replication::peer) fn has_announced_all(&self) -> bool {
        self.has_announced() && !self.ignored && !self.cut_short && self.unanswered.more_given_up() == 0
    }

    /// The blocks that the remote told of, or was asked for and did not answer about, and that are not here.
    pub(in crate::replication::peer) fn left(&mut self, feed: &Feed) -> SparseBits {
        let mut left = if self.lacks_any(feed) { self.has.clone() } else { SparseBits::default() };
        left.insert_all(&self.cut);
        self.unanswered.given_up(feed).for_each(|index| _ = left.insert(index));
        left
    }

    /// How many blocks were given up that are not here; `None` if nothing was left without an answer.
    pub(in crate::replication::peer) fn given_up_blocks(&self, feed: &Feed) -> Option<u64> {
        let blocks = self.unanswered.given_up(feed).count() as u64 + self.unanswered.more_given_up();
        (blocks > 0 || self.ignored).then_some(blocks)
    }

    /// Whether it left something else without an answer.
    pub(in crate::replication::peer) fn left_question(&self) -> bool {
        self.unanswered.has_question()
    }

    /// What the remote did not bring is not wanted any more.
    pub(in crate::replication::peer) fn excuse(&mut self) {
        self.unanswered = Unanswered::default();
    }

    /// No more is fetched, since the remote brought as many bytes as it may: what it told of stays missing.
    pub(in crate::replication::peer) fn cut(&mut self) {
        self.cut.insert_all(&self.has);
    }

    /// Whether the remote may have blocks that are not here: it told of them, or did not tell all that it has.
    pub(in crate::replication::peer) fn may_have_more(&self) -> bool {
        !self.has.is_empty() || !self.has_announced()
    }

    /// Whether the remote was asked what it has or for blocks and did not answer yet, or, if all is fetched, told of blocks that are not here
    /// yet. A comparison of histories does not count: one that has everything may leave before it hears of it.
    pub(in crate::replication::peer) fn is_owed(&mut self, feed: &Feed, sparse: bool) -> bool {
        self.wants_unanswered > 0 || !self.in_flight.is_empty() || (!sparse && self.lacks_any(feed))
    }
}
