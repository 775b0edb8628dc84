//! Whose turn it is to bring what has to come before anything else.

use std::time::Duration;

use super::{Download, FEWEST_REQUESTS};
use crate::feed::Feed;
use crate::sets::sparse_bits::SparseBits;

/// A remote was asked for what has to come before others can be asked: of an empty feed for anything, else for the block after its end.
///
/// It may never answer, or take back what it told as often as it told it. So of an empty feed its turn is over when nothing of that is on its
/// way any more, and it has another one only after all others had theirs.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExclusiveRequest {
    /// How long the feed was when it began, in blocks.
    length: u64,
    since: Duration,
    /// Blocks that were asked for in it.
    requests: usize,
}

impl Download {
    /// Whether something of an empty feed can be asked for here.
    pub(super) fn may_take_its_turn(&self, reserved: &SparseBits) -> bool {
        match (self.in_flight.is_empty(), &self.turn) {
            (true, turn) => reserved.is_empty() && turn.is_none(),
            (false, turn) => turn.is_none_or(|turn| turn.requests < FEWEST_REQUESTS),
        }
    }

    /// Since when others wait for what this remote alone was asked for.
    pub(in crate::replication::peer) fn holds_up_since(&self, feed: &Feed) -> Option<Duration> {
        let next = feed.len();
        let turn = self.turn.filter(|turn| turn.length == next)?;
        let asked = if next == 0 { !self.in_flight.is_empty() } else { self.in_flight.contains(&next) };
        asked.then_some(turn.since)
    }

    /// A block is asked for, which may be what others wait for.
    pub(super) fn begin_turn(&mut self, index: u64, feed: &Feed, now: Duration) {
        let length = feed.len();
        if length != 0 && index != length {
            return;
        }
        match &mut self.turn {
            Some(turn) if length == 0 && !self.in_flight.is_empty() => turn.requests += 1,
            turn => *turn = Some(ExclusiveRequest { length, since: now, requests: 1 }),
        }
    }
}
