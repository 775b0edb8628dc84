//! How a session comes to its end.

use std::time::Duration;

use multifeed_proto::{Command, FeedKey, SessionError};

use super::exchange::Exchange;
use super::{PeerSession, Stage};
use crate::error::StoreError;
use crate::ids::FeedId;
use crate::log::log;
use crate::replication::replicate::{PeerEvent, SyncError};
use crate::stats::SyncState;

impl PeerSession {
    /// Whether it came to its end because nothing was left to do.
    pub(crate) fn is_through(&self) -> bool {
        self.through
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Closed
    }

    pub(crate) fn fail(&mut self, error: StoreError) {
        let reason = error.to_string();
        log!(DEBUG, "session", in self.span, "the store failed", error = %error);
        self.lose(&error);
        self.abort(SessionError::Local(reason));
    }

    pub(crate) fn abort(&mut self, error: SessionError) {
        if self.stage != Stage::Closed {
            log!(DEBUG, "session", in self.span, "ends the session", error = %error);
            self.stage = Stage::Ending;
            self.outgoing.clear();
            self.turns.forget_active();
            self.outgoing.push(Command::Abort(error));
        }
    }

    /// The remote ended its half. A live session, or one that is through, ends well; otherwise it was too early.
    ///
    /// If an offer of ours crossed its end, the two are not in sync. JS may end without a look at feeds that it had just offered, of which `key`
    /// gives those that are not here: they are given up.
    pub(crate) fn remote_ended(&mut self, key: impl Fn(FeedId) -> Option<FeedKey>) {
        if self.stage == Stage::Greeting {
            // On a stream that others use as well; on one of its own the session itself fails.
            return self.abort(SessionError::Disconnected(multifeed_proto::Phase::Exchange));
        }
        if self.stage != Stage::Running {
            return;
        }
        if self.options.live || (self.lists_are_exchanged() && self.is_idle()) {
            self.finish();
        } else if self.has_remote_ended() {
            self.apart |= !self.is_offer_answered();
            let unheard = self.peers.keys().filter_map(|&feed| key(feed));
            let waiting = self.offers.take_waiting(|_| true);
            let requested = std::mem::take(&mut self.exchange.requested);
            unheard.chain(waiting).chain(requested).for_each(|key| self.given_up.insert(key, 0));
            self.finish();
        } else {
            self.abort(SessionError::Disconnected(multifeed_proto::Phase::Ready));
        }
    }

    /// Whether the remote came to its end: it closed all channels that it opened, after it had answered an offer. What is left is what crossed
    /// that end.
    fn has_remote_ended(&self) -> bool {
        let Exchange { manifest_seen, offer_answered, .. } = self.exchange;
        self.root_closed && manifest_seen && offer_answered && self.peers.values().all(|peer| peer.is_unheard())
    }

    /// The remote closed the root key's channel.
    pub(crate) fn root_closed(&mut self) {
        self.root_closed = true;
    }

    /// Whether the remote may never say that it is done, while it is waited for: one of ours always does.
    pub(crate) fn may_hang(&self) -> bool {
        let waits = self.stage == Stage::Running && !self.is_live() && self.lists_are_exchanged();
        // Feeds that were only offered and are being asked for have machines, and are looked at as any other.
        waits && !self.peers.is_empty() && !self.offers.is_waiting() && !self.peer_options().reconciles
    }

    /// Notes whether every feed is idle. Whether they are for so long.
    pub(crate) fn has_idled(&mut self, idle: bool, now: Duration, limit: Duration) -> bool {
        let since = *self.idle_since.get_or_insert(now);
        if !idle {
            self.idle_since = None;
        } else if !std::mem::replace(&mut self.nudged, true) {
            self.nudge();
        }
        idle && now >= since.saturating_add(limit)
    }

    /// Says of each feed once more that nothing more of it is fetched. JS looks only then whether it has all of it, if another remote brought
    /// the last block.
    fn nudge(&mut self) {
        let stays = self.relays.stays();
        for (&feed, peer) in self.peers.iter_mut().filter(|(feed, _)| stays != Some(**feed)) {
            peer.nudge();
            self.turns.activate(feed, peer);
        }
    }

    /// Leaves a remote that does not say that it is done. The two are not in sync if it lacks something.
    pub(crate) fn leave(&mut self) {
        for (&feed, peer) in &mut self.peers {
            peer.leave();
            self.turns.activate(feed, peer);
        }
    }

    /// Ends the session cleanly if nothing is left to do: both lists were exchanged, and every channel was closed.
    pub(crate) fn end_if_through(&mut self) {
        let ends = self.single_feed.is_some() || !self.is_live();
        if self.stage == Stage::Running && ends && self.is_idle() && self.lists_are_exchanged() {
            if self.single_feed.is_none() {
                self.outgoing.push(Command::CloseRoot { root: self.root });
            }
            self.through = true;
            self.finish();
        }
    }

    /// Ends the session after what is queued.
    pub(crate) fn finish(&mut self) {
        if self.stage != Stage::Closed && self.stage != Stage::Ending {
            self.stage = Stage::Ending;
            self.outgoing.push(Command::Finish);
        }
    }

    /// Whether no channel is open, and none will be opened.
    pub(super) fn is_idle(&self) -> bool {
        self.peers.is_empty() && self.offers.is_empty()
    }

    /// The session reported its end: the application hears of it too. `state` is how it stood before.
    pub(crate) fn closed(&mut self, result: Result<(), SessionError>, mut state: SyncState) {
        if self.stage == Stage::Closed {
            return;
        }
        if result.is_ok() {
            self.mind_pause();
        }
        self.stage = Stage::Closed;
        self.apart |= self.totals.missing > 0 || self.totals.not_taken > 0;
        self.ended_in_sync = result.is_ok()
            && self.totals.missing == 0
            && self.totals.not_taken == 0
            && self.failure.is_none()
            && self.given_up.is_empty()
            && state.in_sync;
        if !self.through || self.is_apart() {
            self.totals.unwanted = 0;
        }
        self.outgoing.clear();
        self.turns.forget_active();
        state.in_sync = self.ended_in_sync;
        self.note_written();
        if std::mem::take(&mut self.progress_due) || self.in_sync_reported != state.in_sync {
            self.events.push_back(PeerEvent::Progress(state));
        }
        let result = match (self.failure.take(), result) {
            (Some(error), _) => Err(SyncError::Store(error)),
            (None, Err(error)) => Err(SyncError::Session(error)),
            (None, Ok(())) if !self.given_up.is_empty() => {
                Err(SyncError::GivenUp { blocks: self.given_up.blocks(), feeds: self.given_up.feeds() })
            }
            (None, Ok(())) => Ok(std::mem::take(&mut self.totals)),
        };
        match &result {
            Ok(totals) => {
                log!(DEBUG, "session", in self.span, "over", in_sync = ?self.ended_in_sync, feeds = ?totals.feeds,
                blocks_received = ?totals.blocks_received, blocks_sent = ?totals.blocks_sent, missing = ?totals.missing)
            }
            Err(error) => log!(DEBUG, "session", in self.span, "failed", error = %error),
        }
        self.events.push_back(PeerEvent::Closed(result));
    }
}
