//! What was given up: nothing answered in time, and an answer may still come.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Download, MOST_LATE};
use crate::feed::Feed;
use crate::sets::sparse_bits::SparseBits;

impl Download {
    /// A block came that was given up. Whether it was: then the remote was only slow. What else it was asked for then is asked for again, as far
    /// as it is not here, or asked of others, by now.
    pub(in crate::replication::peer) fn came_late(
        &mut self,
        index: u64,
        feed: &Feed,
        reserved: &mut SparseBits,
        now: Duration,
    ) -> bool {
        if !self.late.remove(&index) || feed.has(index) {
            return false;
        }
        for index in std::mem::take(&mut self.late).into_iter().filter(|&index| !feed.has(index)) {
            self.has.insert(index);
            if reserved.insert(index) {
                self.in_flight.push_back(index);
            }
        }
        self.progress_at = now;
        true
    }

    /// What was asked without a block is not waited for any more.
    pub(super) fn give_up_questions(&mut self) {
        self.comparison.give_up();
        self.questions.take_waiting().into_iter().for_each(|index| self.comparison.note_late(index));
    }

    /// The remote answered nothing for too long: what it was asked for counts as not there.
    pub(in crate::replication::peer) fn expire(&mut self) -> VecDeque<u64> {
        self.ignored |= self.wants_unanswered > 0;
        if self.is_questioned() {
            self.unanswered.question();
        }
        self.wants_unanswered = 0;
        self.heard = true;
        self.give_up_questions();
        let lost = self.release();
        for &index in &lost {
            self.has.remove(index);
        }
        lost.iter().for_each(|&index| self.unanswered.give_up(index));
        let room = MOST_LATE.saturating_sub(self.late.len());
        self.late.extend(lost.iter().take(room));
        lost
    }

    /// The remote is silent: all that it has and that is not here is given up, whether or not it was asked for it.
    pub(in crate::replication::peer) fn give_up_rest(&mut self, feed: &Feed) {
        self.cut_short |= !self.has_announced();
        self.next_window = u64::MAX;
        if self.lacks_any(feed) {
            let mut at = 0;
            while let Some(word) = self.has.next_word(at) {
                self.prune(feed, word);
                at = word + 1;
            }
            self.unanswered.give_up_all(&self.has);
        }
        self.has.clear();
    }

    /// How many blocks were given up that are neither here nor to be asked for again.
    pub(in crate::replication::peer) fn given_up_missing(&self, feed: &Feed) -> u64 {
        if !self.unanswered.has_given_up() {
            return 0;
        }
        let missing = self.unanswered.given_up(feed).filter(|&index| !self.has.get(index));
        missing.count() as u64 + self.unanswered.more_given_up()
    }
}
