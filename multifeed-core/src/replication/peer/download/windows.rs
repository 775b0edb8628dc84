//! Which windows of a feed the remote is asked about, and when it has told everything.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use multifeed_proto::Message;

use super::{Download, Scope, WANT_BLOCKS, WANTS_IN_FLIGHT};
use crate::feed::Feed;
use crate::limits::MAX_FEED_BLOCKS;

impl Download {
    /// The Wants to send now: window after window, as the requests come to need them, and before those the windows of what
    /// somebody waits for.
    ///
    /// `reach` is how far they must go at least, in blocks, whatever the remote has.
    pub(in crate::replication::peer) fn wants(
        &mut self,
        scope: Scope<'_>,
        feed: &Feed,
        now: Duration,
        out: &mut VecDeque<Message>,
    ) {
        self.begin_again();
        while self.wants_unanswered < WANTS_IN_FLIGHT
            && let Some(window) = self.window_asked_for(scope, feed)
        {
            self.stale.remove(&window);
            if window >= self.next_window {
                self.ahead.insert(window);
            }
            self.want(window * WANT_BLOCKS, now, out);
        }
        // If the feed is longer there, its history is compared by the block after ours.
        let next = feed.len() / WANT_BLOCKS;
        let longer = scope.compares && feed.len() < self.remote_len;
        if longer && self.comparison.is_due(feed.len(), self.remote_len) && !self.covers(next) {
            self.ahead.insert(next);
            self.want(next * WANT_BLOCKS, now, out);
        }
        // No feed has blocks past that, whatever the remote says.
        let reach = if scope.fetches { self.remote_len.max(scope.reach) } else { scope.reach };
        self.limit = reach.clamp(1, MAX_FEED_BLOCKS);
        while self.wants_unanswered < WANTS_IN_FLIGHT && !self.all_wanted() {
            let start = self.next_window.saturating_mul(WANT_BLOCKS);
            // The remote announces new blocks only to those who wanted something: the first window always is.
            let end = start.saturating_add(WANT_BLOCKS);
            let ours = start < scope.reach && feed.bitfield().next_held(start, end).is_some();
            if start > 0 && !ours {
                if !scope.fetches {
                    self.next_window += 1;
                    continue;
                }
                let requested = self.has.is_empty() || self.cursor >= (start - WANT_BLOCKS) / 64;
                if !requested {
                    return;
                }
                if start + WANT_BLOCKS <= feed.len()
                    && feed.bitfield().next_missing(start, start + WANT_BLOCKS).is_none()
                {
                    self.next_window += 1;
                    continue;
                }
            }
            self.next_window += 1;
            if !self.ahead.remove(&(self.next_window - 1)) {
                self.want(start, now, out);
            }
        }
    }

    /// Has the remote asked again what it has.
    pub(in crate::replication::peer) fn ask_again(&mut self) {
        self.again = true;
    }

    /// Forgets what was wanted, if that is due. While a Want waits for its answer it is not: a remote may answer two that are alike
    /// once.
    fn begin_again(&mut self) {
        if self.again && self.wants_unanswered == 0 {
            (self.next_window, self.ignored, self.again) = (0, false, false);
            self.ahead.clear();
        }
    }

    /// Whether a Want waits for its answer.
    pub(in crate::replication::peer) fn is_asking(&self) -> bool {
        self.wants_unanswered > 0
    }

    /// Whether the remote left a Want without an answer: it may have more than it told.
    pub(in crate::replication::peer) fn was_ignored(&self) -> bool {
        self.ignored
    }

    fn want(&mut self, start: u64, now: Duration, out: &mut VecDeque<Message>) {
        self.wants_unanswered += 1;
        self.wanted_at = now;
        out.push_back(Message::Want { start, length: WANT_BLOCKS });
    }

    /// The first window that was not wanted, and in which somebody waits for something.
    pub(super) fn window_asked_for(&self, scope: Scope<'_>, feed: &Feed) -> Option<u64> {
        let wants = scope.wants;
        if wants.is_empty() {
            return None;
        }
        let mut from = 0;
        while let Some(index) = wants.urgent(from).next() {
            let window = index / WANT_BLOCKS;
            if self.is_due(window) && !feed.has(index) {
                return Some(window);
            }
            from = (window + 1) * WANT_BLOCKS;
        }
        // Those of ranges and questions, as far as the remote has blocks; one at a time, as they are needed.
        let end = self.remote_len.min(MAX_FEED_BLOCKS);
        let spans = wants.questions().values().map(|question| question.span.clone());
        let ranges = wants.ranges().iter().filter(|_| scope.sparse || !self.stale.is_empty());
        for range in ranges.chain(spans).filter(|range| self.first_of(range, None).is_none()) {
            let mut at = range.start;
            while at < range.end.min(end) {
                let window = at / WANT_BLOCKS;
                let stop = range.end.min((window + 1) * WANT_BLOCKS);
                if self.is_due(window) && feed.bitfield().next_missing(at, stop).is_some() {
                    return Some(window);
                }
                at = stop;
            }
        }
        None
    }

    /// Blocks were given up here, which the remote may have.
    pub(in crate::replication::peer) fn given_up(&mut self, blocks: &Range<u64>) {
        self.late.retain(|index| !blocks.contains(index));
        self.unanswered.forget(blocks);
        self.cut.remove_range(blocks.start, blocks.end);
        if blocks.start < blocks.end {
            self.stale.extend(blocks.start / WANT_BLOCKS..=(blocks.end - 1) / WANT_BLOCKS);
        }
    }

    /// Whether to want a window for what somebody waits for in it.
    pub(super) fn is_due(&self, window: u64) -> bool {
        !self.covers(window) || self.stale.contains(&window)
    }

    /// Whether a window was wanted.
    pub(super) fn covers(&self, window: u64) -> bool {
        window < self.next_window || self.ahead.contains(&window)
    }

    /// Whether every window that matters was wanted, the first one in any case.
    fn all_wanted(&self) -> bool {
        self.next_window.saturating_mul(WANT_BLOCKS) >= self.limit.max(1)
    }

    /// Whether the remote has told everything that it was asked about.
    pub(in crate::replication::peer) fn has_announced(&self) -> bool {
        self.heard && self.wants_unanswered == 0 && !self.again && self.all_wanted()
    }
}
