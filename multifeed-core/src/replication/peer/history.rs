//! Whether a remote holds the very history that is here: the feed's key may be on another device, or this store an old copy.

use std::collections::VecDeque;
use std::ops::Range;

use crate::sets::sparse_bits::SparseBits;

/// Of which remotes the history is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Terms {
    /// Of a feed that is written here: of all, and again whenever one tells of more than before.
    #[default]
    Always,
    /// Of a reader's, if the remote is one of ours: only one as long as ours, as it turned out to differ. A longer one shows by its blocks
    /// whether it is the same, and with a shorter one the remote finds it out.
    AsLong,
    /// Of a reader's, if the remote is a JS peer, which finds nothing out and takes in what it is sent: of any, once. The proofs of a
    /// longer one's blocks leave out what was sent before, and so show no more than that something is wrong.
    Once,
    /// The same of one that is not longer: a sparse session fetches less than it would take to compare.
    OnceUnlessLonger,
}

/// What one remote is asked of its history: the hashes that its signature covers, without a block.
#[derive(Debug, Default)]
pub(super) struct HistoryCheck {
    terms: Terms,
    /// The block that was asked about and has no answer yet.
    asked: Option<u64>,
    /// How much the remote had told of when it was last asked, in blocks.
    compared: Option<u64>,
    /// How much there was here then, in blocks.
    held: u64,
    /// Of which blocks the hashes were asked for in vain, oldest first. They may still come, and are no answer to a request of the block.
    late: VecDeque<u64>,
}

/// How many late answers are waited for: far more than questions are put on one channel of an honest remote.
const MOST_LATE: usize = 16;

impl HistoryCheck {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, ..Self::default() }
    }

    /// As it was before anything was asked.
    pub(super) fn restart(&mut self) {
        self.give_up();
        *self = Self { late: std::mem::take(&mut self.late), ..Self::new(self.terms) };
    }

    /// The remote did not answer in time.
    pub(super) fn give_up(&mut self) {
        self.asked.take().into_iter().for_each(|asked| self.note_late(asked));
    }

    /// The hashes of a block were asked for, and are not waited for any more.
    pub(super) fn note_late(&mut self, index: u64) {
        if self.late.len() == MOST_LATE {
            self.late.pop_front();
        }
        self.late.push_back(index);
    }

    /// The hashes of a block came. Whether that answers what is not waited for any more.
    pub(super) fn came_late(&mut self, index: u64) -> bool {
        let at = self.late.iter().position(|late| *late == index);
        at.and_then(|at| self.late.remove(at)).is_some()
    }

    /// Returns the block to ask about, if that is due, of a feed of `ours` blocks. The remote announced `theirs`; those that are missing here
    /// are in `has`.
    ///
    /// Of a longer feed it is the block after ours: its proof is built on all of our roots. Any other could leave them out.
    pub(super) fn subject(&self, ours: u64, theirs: u64, has: &SparseBits) -> Option<u64> {
        if !self.is_due(ours, theirs) {
            return None;
        }
        match (ours, theirs.checked_sub(1)?) {
            (0, _) => has.first_in(0..u64::MAX, None),
            (ours, last) if last < ours => Some(last),
            (ours, _) => Some(ours).filter(|&next| has.get(next)),
        }
    }

    /// Whether to ask something of the remote, once it is known what it has.
    pub(super) fn is_due(&self, ours: u64, theirs: u64) -> bool {
        let concerns = match self.terms {
            Terms::Always => true,
            Terms::AsLong => theirs == ours,
            Terms::Once => ours > 0 && self.compared.is_none(),
            Terms::OnceUnlessLonger => theirs <= ours && self.compared.is_none(),
        };
        concerns && self.asked.is_none() && self.compared.is_none_or(|compared| theirs > compared)
    }

    /// The remote is asked.
    pub(super) fn ask(&mut self, index: u64, ours: u64, theirs: u64) {
        (self.asked, self.compared, self.held) = (Some(index), Some(theirs), ours);
    }

    /// Whether something was asked and not answered.
    pub(super) fn is_waiting(&self) -> bool {
        self.asked.is_some()
    }

    /// The hashes of a block came. Whether they were asked for.
    pub(super) fn answered(&mut self, index: u64) -> bool {
        self.asked.take_if(|asked| *asked == index).is_some()
    }

    /// The answer says nothing of all that is here. If the feed grew before it came, it is due again; else the remote holds too little of a
    /// longer history to tell, and would say the same again.
    pub(super) fn was_unclear(&mut self, ours: u64) {
        if ours > self.held {
            self.compared = None;
        }
    }

    /// The remote proved that there are so many blocks: what it announced beyond them must be asked for.
    pub(super) fn grew(&mut self, ours: u64) {
        self.compared = Some(ours);
    }

    /// The remote does not answer for these blocks.
    pub(super) fn lost(&mut self, blocks: &Range<u64>) {
        self.late.retain(|late| !blocks.contains(late));
        self.asked.take_if(|asked| blocks.contains(asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(blocks: Range<u64>) -> SparseBits {
        let mut bits = SparseBits::default();
        blocks.for_each(|block| _ = bits.insert(block));
        bits
    }

    #[test]
    fn asked_once_and_again_where_the_remote_has_more() {
        let mut comparison = HistoryCheck::default();
        assert_eq!(comparison.subject(5, 0, &has(0..0)), None);
        assert_eq!(comparison.subject(5, 3, &has(0..0)), Some(2));
        comparison.ask(2, 5, 3);
        assert!(comparison.is_waiting() && comparison.subject(5, 9, &has(5..9)).is_none());
        assert!(!comparison.answered(1) && comparison.answered(2) && !comparison.answered(2));
        // It came to as much as there is here, by itself.
        assert_eq!(comparison.subject(5, 3, &has(0..0)), None);
        assert_eq!(comparison.subject(5, 5, &has(0..0)), Some(4));
        assert_eq!(comparison.subject(5, 6, &has(5..6)), Some(5));
        comparison.ask(5, 5, 6);
        comparison.lost(&(0..5));
        assert!(comparison.is_waiting());
        comparison.lost(&(5..6));
        assert!(!comparison.is_waiting() && comparison.subject(5, 6, &has(5..6)).is_none());
        comparison.was_unclear(5);
        assert_eq!(comparison.subject(6, 6, &has(0..0)), None);
        comparison.was_unclear(6);
        assert_eq!(comparison.subject(6, 6, &has(0..0)), Some(5));
        // It told of nine, and proved seven.
        comparison.ask(6, 6, 9);
        assert!(comparison.answered(6));
        assert_eq!(comparison.subject(7, 9, &has(7..9)), None);
        comparison.grew(7);
        assert_eq!(comparison.subject(7, 9, &has(7..9)), Some(7));
    }

    #[test]
    fn a_readers_is_compared_as_far_as_nothing_else_tells() {
        let subject = |terms, theirs| HistoryCheck::new(terms).subject(5, theirs, &has(5..9));
        assert_eq!([0, 4, 5, 6].map(|theirs| subject(Terms::AsLong, theirs)), [None, None, Some(4), None]);
        assert_eq!([0, 4, 5, 6].map(|theirs| subject(Terms::Once, theirs)), [None, Some(3), Some(4), Some(5)]);
        assert_eq!([0, 4, 5, 6].map(|theirs| subject(Terms::OnceUnlessLonger, theirs)), [None, Some(3), Some(4), None]);
        assert_eq!(HistoryCheck::new(Terms::Once).subject(0, 4, &has(0..4)), None);
        let mut once = HistoryCheck::new(Terms::Once);
        once.ask(2, 5, 3);
        assert!(once.answered(2) && once.subject(5, 4, &has(0..0)).is_none());
        once.restart();
        assert_eq!(once.subject(5, 4, &has(0..0)), Some(3));
    }

    #[test]
    fn an_answer_from_before_it_began_anew_is_late() {
        let mut check = HistoryCheck::default();
        check.ask(5, 5, 9);
        check.restart();
        assert!(!check.answered(5) && check.came_late(5) && !check.came_late(5));
        for index in 0..20 {
            check.ask(index, index + 1, 30);
            check.restart();
        }
        // The oldest are forgotten, and what is refused does not come.
        check.lost(&(10..11));
        assert_eq!(
            (0..20).filter(|index| check.came_late(*index)).collect::<Vec<_>>(),
            [4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19]
        );
    }

    #[test]
    fn of_a_longer_feed_it_has_to_be_the_block_after_ours() {
        let comparison = HistoryCheck::default();
        assert_eq!(comparison.subject(5, 9, &has(6..9)), None);
        assert_eq!(comparison.subject(5, 9, &has(5..9)), Some(5));
        // If there is no history here, any of theirs can be taken.
        assert_eq!(comparison.subject(0, 9, &has(6..9)), Some(6));
    }
}
