//! Two of ours wait for each other while one of them is still being sent blocks of the feed on other sessions.

use std::time::Duration;

use multifeed_proto::machine::Machine;

use super::state::{Fetch, FetchStep};
use super::{FeedChannel, Work};
use crate::storage::Storage;

/// How many `idle_end`s a channel is held open at the most.
const LONGEST_HOLD: u32 = 12;

/// Whether a channel is kept open for blocks that come on other sessions.
#[derive(Debug, Default)]
pub(super) struct Holding {
    since: Option<Duration>,
    over: bool,
}

impl FeedChannel {
    /// Whether the channel is kept open, though nothing is missing here, since other sessions bring blocks that this remote may lack.
    pub(crate) fn is_holding(&self) -> bool {
        self.holding.since.is_some() && !self.holding.over && self.state.goes_on()
    }

    /// Whether to keep the channel open: for as long as other sessions bring blocks, and this remote hears of them.
    ///
    /// Only one of ours begins again when it hears of blocks. It is kept for `idle_end` after the last, and not for ever.
    pub(super) fn holds<S: Storage>(&mut self, work: &Work<'_, S>) -> bool {
        let serves = self.fetch.is_on()
            && self.uploading
            && self.remote.reads
            && !self.download.is_draining()
            && !self.fetch.is_of_writer();
        let ours = self.options.reconciles && !self.options.live && !self.options.one_sided;
        if !serves || !ours || self.holding.over {
            return false;
        }
        let comes = work.fetching > self.standing.fetches() || work.unannounced;
        if !comes && !self.upload.has_news() && (self.holding.since.is_none() || self.upload.is_idle()) {
            return false;
        }
        let since = *self.holding.since.get_or_insert(work.now);
        let heard = self.upload.asked_at().unwrap_or_default().max(since);
        let idle = work.limits.idle_end;
        self.holding.over = work.now >= heard.saturating_add(idle)
            || work.now >= since.saturating_add(idle.saturating_mul(LONGEST_HOLD));
        !self.holding.over
    }

    /// Fetches again if the remote, one of ours, told of blocks after this side had said that it has all.
    pub(super) fn resume<S: Storage>(&mut self, work: &Work<'_, S>) {
        let may = self.fetch == Fetch::Done && self.options.reconciles && !self.options.live && self.remote.uploading;
        if !may || self.download.is_draining() || self.history.is_forked() || self.is_sparse() {
            return;
        }
        if self.download.missing() > 0 && !self.download.finished(self.scope(work.wants, 0), work.feed) {
            self.fetch.on(FetchStep::RemoteHasMore);
            self.send_status(self.uploading, true);
        }
    }
}
