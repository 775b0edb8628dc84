//! Whether the remote's history is the one that is here, as it is asked.

use std::time::Duration;

use multifeed_proto::Request;

use super::Download;
use crate::feed::Feed;

impl Download {
    /// Returns what to ask of the history, if that is due: all that its signature covers.
    pub(in crate::replication::peer) fn compare(&mut self, feed: &Feed, now: Duration) -> Option<Request> {
        let index = self.to_compare(feed).filter(|_| !self.is_questioned() && self.wants_unanswered == 0)?;
        self.note_request(now);
        self.comparison.ask(index, feed.len(), self.remote_len);
        Some(Request { index, bytes: 0, hash: true, nodes: 0 })
    }

    /// The hashes of a block came. Whether its history was asked for.
    pub(in crate::replication::peer) fn answered_comparison(&mut self, index: u64, now: Duration) -> bool {
        let answered = self.comparison.answered(index);
        if answered {
            self.progress_at = now;
        }
        answered
    }

    /// The hashes of a block came. Whether that answers a question about its history which is not waited for any more.
    pub(in crate::replication::peer) fn came_late_of_comparison(&mut self, index: u64) -> bool {
        self.comparison.came_late(index)
    }

    /// What the remote showed of its history of that length does not tell of all that is here.
    pub(in crate::replication::peer) fn was_unclear(&mut self, feed: &Feed, length: u64) {
        self.remote_len = self.remote_len.max(length);
        self.comparison.was_unclear(feed.len());
    }

    /// The feed grew by what the remote showed.
    pub(in crate::replication::peer) fn grew(&mut self, feed: &Feed) {
        self.comparison.grew(feed.len());
    }

    /// Whether the remote was asked of its history, and did not answer.
    pub(in crate::replication::peer) fn waits_for_comparison(&self) -> bool {
        self.comparison.is_waiting()
    }

    /// Whether it is not known yet that the remote's history is the same: nothing else is asked of it before.
    pub(in crate::replication::peer) fn is_comparing(&self, feed: &Feed) -> bool {
        let due = feed.writable() && self.comparison.is_due(feed.len(), self.remote_len);
        (self.wants_unanswered > 0 && due) || self.may_differ(feed)
    }

    /// Whether what the remote told of is a history that may be another one, and has to be compared.
    pub(in crate::replication::peer) fn may_differ(&self, feed: &Feed) -> bool {
        self.comparison.is_waiting() || self.to_compare(feed).is_some()
    }

    pub(super) fn to_compare(&self, feed: &Feed) -> Option<u64> {
        self.comparison.subject(feed.len(), self.remote_len, &self.has)
    }
}
