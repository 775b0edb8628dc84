//! Blocks that alone may take longer to send than a JS peer waits for an answer.

use std::collections::BTreeSet;
use std::time::Duration;

use multifeed_proto::FeedKey;

use super::PeerSession;
use crate::ids::FeedId;
use crate::replication::replicate::PeerEvent;

/// How long a block may take: half of what a JS peer waits for the answer to a request before it ends its stream. Other answers may wait before it,
/// and while the buffers on the way fill, twice of what arrives is measured.
const PATIENCE: Duration = Duration::from_secs(10);

/// How fast the stream takes what is sent, and what that means for the blocks.
#[derive(Debug, Default)]
pub(super) struct SlowSends {
    /// Bytes a second, once that was measured.
    rate: Option<u64>,
    /// The block that was last handed to the session; one that needed room stays, whatever small ones follow.
    last: Option<(FeedId, FeedKey, u64, u64)>,
    /// Bytes of the blocks that followed it.
    behind: u64,
    /// Feeds of which one was reported.
    reported: BTreeSet<FeedId>,
}

impl SlowSends {
    /// Returns the rate, if a block of so many bytes takes too long at it.
    fn too_slow(&self, size: u64) -> Option<u64> {
        self.rate.filter(|rate| size / (*rate).max(1) >= PATIENCE.as_secs())
    }
}

impl PeerSession {
    /// Reports a block of so many bytes that is about to be sent, if a JS peer may not wait for it.
    pub(crate) fn sends(&mut self, feed: FeedId, key: FeedKey, index: u64, size: u64) {
        let spare = self.room.spare();
        if size <= spare && self.slow_sends.last.is_some_and(|(.., last)| last > spare) {
            self.slow_sends.behind = self.slow_sends.behind.saturating_add(size);
        } else {
            (self.slow_sends.last, self.slow_sends.behind) = (Some((feed, key, index, size)), 0);
        }
        self.warn(feed, key, index, size);
    }

    /// Notes how many bytes a second the stream takes, while `unwritten` bytes wait. The block that is on its way may turn out to be too large
    /// for that.
    pub(crate) fn set_send_rate(&mut self, rate: u64, unwritten: u64) {
        self.slow_sends.rate = Some(rate);
        let after = self.slow_sends.behind.saturating_add(self.room.spare());
        let is_small = |size| size <= self.room.spare();
        let on_its_way = self
            .slow_sends
            .last
            .filter(|&(.., size)| unwritten > after || (is_small(size) && self.outgoing.is_overdrawn()));
        if let Some((feed, key, index, size)) = on_its_way {
            self.warn(feed, key, index, size);
        }
    }

    fn warn(&mut self, feed: FeedId, key: FeedKey, index: u64, size: u64) {
        let Some(per_second) = self.slow_sends.too_slow(size) else { return };
        if !self.peer_options().reconciles && self.slow_sends.reported.insert(feed) {
            self.events.push_back(PeerEvent::SlowBlock { key, index, size, per_second });
        }
    }
}
