//! Feeds that a JS peer passes on before it has a block of them.
//!
//! JS offers a feed to all its remotes as soon as one of them offers it. It counts a feed as complete if one remote answers that it has nothing
//! before any other says what it has, and fetches no block of it then. So nothing is said, or concluded, of such a feed for a while.

use std::time::Duration;

use super::{FeedChannel, Work};
use crate::storage::Storage;

impl FeedChannel {
    /// The remote turned out to pass on feeds of others, before it opened the channel or later.
    pub(crate) fn note_relays(&mut self) {
        self.options.relays = true;
    }

    /// Waits for blocks of a feed of which nothing is held here, if the remote passes on feeds of others.
    pub(super) fn await_relay<S: Storage>(&mut self, work: &Work<'_, S>) {
        if self.options.relays && !self.options.live && work.feed.is_empty() && !work.feed.writable() {
            self.relay_until = Some(work.now.saturating_add(work.limits.relay_wait));
            self.upload.hold_wants(true);
        }
    }

    /// The channel stayed open though it was through, and need not any more.
    pub(crate) fn end_late<S: Storage>(&mut self, work: &mut Work<'_, S>) {
        let was_told = !self.fetch.is_on();
        self.advance(work);
        if was_told && !self.remote.downloading {
            self.end();
        } else if was_told {
            self.nudge();
        }
    }

    /// Whether blocks are waited for that the remote may pass on.
    pub(crate) fn awaits_relay(&self) -> bool {
        self.relay_until.is_some() && self.state.goes_on()
    }

    /// Whether that was long enough.
    pub(crate) fn is_relay_due(&self, now: Duration) -> bool {
        self.relay_until.is_some_and(|until| until <= now)
    }

    /// Waits no longer if either side has a block, if the remote does not fetch the feed or does not serve it, or if it was long enough.
    pub(super) fn mind_relay<S: Storage>(&mut self, work: &Work<'_, S>) {
        let is_vain = !self.remote.downloading || !self.remote.uploading;
        let over = is_vain || !work.feed.is_empty() || self.download.remote_len() > 0 || self.is_relay_due(work.now);
        if self.relay_until.take_if(|_| over).is_some() {
            self.upload.hold_wants(false);
        }
    }
}
