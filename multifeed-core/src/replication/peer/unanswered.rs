//! What a remote was asked for in vain: then nobody can say that both sides hold the same.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::feed::Feed;
use crate::replication::wants::Wants;
use crate::sets::sparse_bits::SparseBits;

/// Blocks that are remembered: many times those that are asked for at once, but a remote that brings none must not fill memory.
const MOST_BLOCKS: usize = 4096;

/// Blocks that the remote told of and did not bring when it was asked for them, and questions that it left without an answer.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// Some of them may be held by now.
    blocks: BTreeSet<u64>,
    /// Blocks for which no answer came in time, some of which may be held by now.
    given_up: BTreeSet<u64>,
    /// There were more than are remembered.
    more: bool,
    /// So many more were given up than are remembered.
    more_given_up: u64,
    /// A question had no answer.
    question: bool,
}

impl Unanswered {
    /// A block did not come.
    pub(super) fn block(&mut self, index: u64) {
        if self.blocks.len() < MOST_BLOCKS {
            self.blocks.insert(index);
        } else {
            self.more = true;
        }
    }

    /// No answer for a block came in time: nobody knows whether the remote has it.
    pub(super) fn give_up(&mut self, index: u64) {
        if self.given_up.len() < MOST_BLOCKS {
            self.given_up.insert(index);
        } else {
            self.more_given_up += 1;
        }
    }

    /// No answer for any of these came.
    pub(super) fn give_up_all(&mut self, blocks: &SparseBits) {
        let (mut at, mut left) = (0, blocks.count());
        while self.given_up.len() < MOST_BLOCKS
            && let Some(index) = blocks.first_in(at..u64::MAX, None)
        {
            self.given_up.insert(index);
            (at, left) = (index + 1, left - 1);
        }
        self.more_given_up += left;
    }

    /// A block came.
    pub(super) fn came(&mut self, index: u64) {
        if !self.given_up.is_empty() {
            self.given_up.remove(&index);
        }
    }

    /// Whether anything was given up; some of it may be held by now.
    pub(super) fn has_given_up(&self) -> bool {
        !self.given_up.is_empty() || self.more_given_up > 0
    }

    /// The remote says that it does not have these, of which some may have been given up: `said` gives those of them.
    pub(super) fn said(&mut self, range: Range<u64>, said: impl Fn(u64) -> bool) {
        if !self.given_up.is_empty() {
            self.given_up.retain(|&index| !range.contains(&index) || !said(index));
        }
    }

    /// Blocks that were given up and are not here.
    pub(super) fn given_up<'a>(&'a self, feed: &'a Feed) -> impl Iterator<Item = u64> + 'a {
        self.given_up.iter().copied().filter(|&index| !feed.has(index))
    }

    /// How many more were given up than are remembered.
    pub(super) fn more_given_up(&self) -> u64 {
        self.more_given_up
    }

    /// Forgets all but what was given up: the remote begins anew, and may bring it yet.
    pub(super) fn restart(&mut self) {
        let Self { given_up, more_given_up, .. } = std::mem::take(self);
        *self = Self { given_up, more_given_up, ..Self::default() };
    }

    /// A question was not answered.
    pub(super) fn question(&mut self) {
        self.question = true;
    }

    /// Nobody has these blocks, or they are not wanted any more.
    pub(super) fn forget(&mut self, blocks: &Range<u64>) {
        self.blocks.retain(|index| !blocks.contains(index));
        self.given_up.retain(|index| !blocks.contains(index));
    }

    /// Only what somebody waits for is wanted.
    pub(super) fn keep(&mut self, wants: &Wants) {
        self.blocks.retain(|&index| wants.wants(index));
        self.given_up.retain(|&index| wants.wants(index));
    }

    /// Whether a block is not here that the remote did not bring.
    pub(super) fn lacks(&mut self, feed: &Feed) -> bool {
        while let Some(&index) = self.given_up.first() {
            if !feed.has(index) {
                return true;
            }
            self.given_up.pop_first();
        }
        while let Some(&index) = self.blocks.first() {
            if !feed.has(index) {
                return true;
            }
            self.blocks.pop_first();
        }
        self.more || self.more_given_up > 0
    }

    /// Whether a question was left without an answer.
    pub(super) fn has_question(&self) -> bool {
        self.question
    }
}
