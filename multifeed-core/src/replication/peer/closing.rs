//! When a feed's channel is through, and when the remote kept it waiting for too long.

use std::time::Duration;

use multifeed_proto::machine::Machine;

use super::state::{ChannelState, ChannelStep, Ended, FetchStep};
use super::{FeedChannel, Work};
use crate::feed::Feed;
use crate::replication::wants::Wants;
use crate::sets::sparse_bits::SparseBits;
use crate::storage::Storage;

/// How long a remote that tells nothing asks for nothing until it seems to have everything. That is far longer than between two
/// requests of a remote that goes on, which always has several waiting.
const QUIET: Duration = Duration::from_secs(5);

/// How a feed stands that a remote leaves without a word, as one whose disk fails does, or a JS peer that closes the feed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deserted {
    /// Both sides hold the same of it.
    pub(crate) even: bool,
    /// What comes here later is missing at the remote.
    pub(crate) fetches: bool,
}

impl FeedChannel {
    /// Returns since when the remote has not opened the channel, or not answered something, if it has to.
    pub(crate) fn waits_since(&self) -> Option<Duration> {
        if !self.state.was_opened() {
            return (!self.options.live).then_some(self.since);
        }
        let acks_since = self.acks.waits_since().filter(|_| self.state.goes_on());
        self.download.waits_since().into_iter().chain(acks_since).min()
    }

    /// Whether nothing is missing here, and nothing was asked, has to be said, or is on its way, either way.
    pub(crate) fn is_idle(&mut self, feed: &Feed, wants: &Wants) -> bool {
        let still = self.state == ChannelState::Open && self.out.is_empty() && self.upload.is_idle();
        let still = still && !self.remote_missing.is_delivering();
        still && self.download.waits_since().is_none() && !self.wants_more(feed, wants)
    }

    /// Says once more that nothing more is fetched.
    pub(crate) fn nudge(&mut self) {
        if self.state == ChannelState::Open && !self.fetch.is_on() {
            self.send_status(self.uploading || !self.options.live, false);
        }
    }

    /// Whether the remote said nothing of the feed yet.
    pub(crate) fn is_unheard(&self) -> bool {
        !self.state.was_opened()
            || (self.upload.asked_at().is_none() && !self.download.has_announced() && self.download.remote_len() == 0)
    }

    /// In a live session, how the remote leaves the feed as it closes the channel. `None` if it said before that it takes no part in it any more.
    pub(crate) fn deserted(&self) -> Option<Deserted> {
        let wants = self.remote.uploading || self.remote.downloading;
        if !self.options.live || self.state != ChannelState::Open || !wants {
            return None;
        }
        Some(Deserted { even: self.standing.in_sync == 1, fetches: self.uploading && self.remote.downloading })
    }

    /// Whether the remote of a live session serves nothing of the feed any more, and what it told of is to be fetched.
    pub(crate) fn was_cut_short(&self) -> bool {
        self.options.live
            && self.state.was_opened()
            && self.fetch.is_on()
            && !self.is_sparse()
            && !self.remote.uploading
    }

    /// Whether the remote of a live session said that it takes no part in the feed any more, as one of ours that bans or removes it. One that never
    /// did is not meant.
    pub(crate) fn was_given_up_there(&self) -> bool {
        self.options.live
            && self.uploading
            && !self.remote.uploading
            && !self.remote.downloading
            && !self.is_unheard()
            && !self.history.is_forked()
    }

    /// Whether, as the channel closes, the session has to end, and the remote hears of nothing new that is here and that it could have.
    pub(crate) fn hears_no_more(&self) -> bool {
        self.state.was_opened()
            && self.uploading
            && !self.history.is_forked()
            && self.ended != Some(Ended::Idle)
            && !self.options.live
    }

    /// Whether this side is about to close the channel.
    pub(crate) fn is_closing(&self) -> bool {
        !self.state.goes_on()
    }

    /// Closes the channel, though the remote did not say that it is done: it was sent all that it asked for.
    pub(crate) fn leave(&mut self) {
        self.end_as(Ended::Idle);
    }

    /// If Data, or else a Have, can answer something: since when that waits.
    pub(crate) fn waits_for(&self, is_data: bool) -> Option<Duration> {
        self.download.waits_for(is_data).filter(|_| self.state.was_opened())
    }

    /// If others cannot be asked before this remote answers: since when it did not.
    pub(crate) fn holds_up_since(&self, feed: &Feed) -> Option<Duration> {
        self.download.holds_up_since(feed)
    }

    /// Whether to look at the remote's silence.
    pub(crate) fn is_silent(&self, now: Duration) -> bool {
        self.state.was_opened()
            && self.download.waits_since().is_none()
            && self.is_kept_in_the_dark()
            && self.quiet_at() <= now
    }

    /// The remote did not answer in time: what it was asked for is free for others. Whether any was. If it is `silent`, and nobody else is asked,
    /// all that it has is given up.
    pub(crate) fn expire<S: Storage>(&mut self, silent: bool, work: &mut Work<'_, S>) -> bool {
        if self.is_relay_due(work.now) {
            self.advance(work);
            return false;
        }
        if !self.state.was_opened() {
            self.end_as(Ended::Unopened);
            return false;
        }
        if self.is_kept_in_the_dark() && work.now >= self.quiet_at() && self.upload.is_idle() {
            self.end();
            return false;
        }
        if self.acks.waits_since().is_some() && self.download.waits_since().is_none() {
            self.end();
            return false;
        }
        let lost = self.download.expire();
        self.tell_given_up(lost.iter(), work.feed);
        let released = self.free(lost, work.reserved);
        if silent && !self.options.live && !self.is_sparse() && work.reserved.is_empty() {
            self.download.give_up_rest(work.feed);
        }
        self.advance(work);
        released
    }

    /// Whether a block is waited for.
    pub(crate) fn awaits_block(&self, now: Duration) -> bool {
        self.state.was_opened() && self.download.in_flight() > 0 && !self.is_relay_due(now)
    }

    /// The channel is gone: frees what was asked for. Whether any was.
    pub(crate) fn release(&mut self, reserved: &mut SparseBits) -> bool {
        self.state.on(ChannelStep::Close);
        let asked = self.download.release();
        self.free(asked, reserved)
    }

    pub(super) fn wants_more(&mut self, feed: &Feed, wants: &Wants) -> bool {
        if self.download.is_draining() {
            return self.fetch.is_on() && self.download.in_flight() > 0;
        }
        self.fetch.is_on()
            && (self.awaits_relay() || !(self.state.was_opened() && self.download.finished(self.scope(wants, 0), feed)))
    }

    /// Whether the remote may never say that it is done, so that we have to find it out. Either it is live and we are not, or there are holes
    /// here, which it then may have too. With hypercore the channel stays open for ever in both cases; one of ours that is not live always
    /// says it, and may hear of blocks until then.
    pub(super) fn ends_alone(&self, feed: &Feed) -> bool {
        let holes = !self.options.reconciles && feed.downloaded() < feed.len();
        !self.options.live && (self.options.one_sided || holes)
    }

    /// Whether a remote that never says that it is done holds all that we do.
    pub(super) fn serves_nothing_more(&self) -> bool {
        !self.remote.downloading
            || !self.uploading
            || (self.remote.uploading
                && self.download.has_announced()
                && self.upload.is_idle()
                && self.remote_missing.is_empty()
                // If nothing is fetched any more, the remote may not have asked yet.
                && (!self.download.is_draining() || self.upload.asked_at().is_some()))
    }

    /// Whether only its silence can tell that the remote has everything that it will get. It is live, so it never says so, and it serves nothing,
    /// so it does not say what it has. Or it is a JS peer that asked for what is damaged here, and waits for it for ever.
    pub(super) fn is_kept_in_the_dark(&self) -> bool {
        let hangs = self.upload.is_wounded() && !self.options.live && !self.options.reconciles;
        hangs || (self.options.one_sided && self.is_served_in_the_dark())
    }

    /// When the remote will have asked for nothing for so long that it seems to have everything.
    pub(super) fn quiet_at(&self) -> Duration {
        self.upload.asked_at().unwrap_or(self.since) + QUIET
    }

    /// Ends the channel of which both sides are through. Between two of ours that waits until what was sent is written and acknowledged, on both
    /// sides: a block counts as delivered then.
    pub(super) fn end_acknowledged<S: Storage>(&mut self, work: &Work<'_, S>) {
        let delivers = self.acks.are_asked_for() && self.remote_missing.is_delivering();
        if self.options.reconciles && !self.history.is_forked() && (delivers || work.unannounced) {
            self.acks.wait(work.now);
        } else {
            self.end();
        }
    }

    pub(super) fn end(&mut self) {
        self.end_as(Ended::Through);
    }

    fn end_as(&mut self, why: Ended) {
        if !self.state.on(ChannelStep::End) {
            return;
        }
        self.ended = Some(why);
        if !self.options.fetches() {
            self.send_status(false, false);
        }
        self.fetch.on(FetchStep::End);
    }
}
