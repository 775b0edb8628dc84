//! What a remote was asked for in vain: then nobody can say that both sides hold the same.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::feed::Feed;
use crate::wants::Wants;

/// Blocks that are remembered: many times those that are asked for at once, but a remote that brings none is not to fill memory.
const MOST_BLOCKS: usize = 4096;

/// Blocks that the remote told of and did not bring when it was asked for them, and questions that it left without an answer.
#[derive(Debug, Default)]
pub(super) struct Denials {
    /// Some of them may be held by now.
    blocks: BTreeSet<u64>,
    /// There were more than are remembered.
    more: bool,
    /// A question had no answer.
    question: bool,
}

impl Denials {
    /// A block did not come.
    pub(super) fn block(&mut self, index: u64) {
        if self.blocks.len() < MOST_BLOCKS {
            self.blocks.insert(index);
        } else {
            self.more = true;
        }
    }

    /// A question was not answered.
    pub(super) fn question(&mut self) {
        self.question = true;
    }

    /// Nobody has these blocks, or they are not wanted any more.
    pub(super) fn forget(&mut self, blocks: &Range<u64>) {
        self.blocks.retain(|index| !blocks.contains(index));
    }

    /// Only what somebody waits for is wanted.
    pub(super) fn keep(&mut self, wants: &Wants) {
        self.blocks.retain(|&index| wants.wants(index));
    }

    /// Whether a block is not here that the remote did not bring.
    pub(super) fn lacks(&mut self, feed: &Feed) -> bool {
        while let Some(&index) = self.blocks.first() {
            if !feed.has(index) {
                return true;
            }
            self.blocks.pop_first();
        }
        self.more
    }

    /// Whether a question was left without an answer.
    pub(super) fn has_question(&self) -> bool {
        self.question
    }
}
