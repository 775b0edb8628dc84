//! Which feeds of a session have their turn, and when none has.

use std::time::Duration;

use multifeed_proto::FeedKey;

use super::{PeerSession, Stage};
use crate::error::StoreError;
use crate::limits::Limits;
use crate::log::log;
use crate::replication::replicate::PeerEvent;

impl PeerSession {
    /// Returns the feed whose channel to open next, if one may be.
    pub(crate) fn next_turn(&mut self, limits: &Limits) -> Option<FeedKey> {
        self.offers.next(limits.feeds_asked, self.busy, limits.feeds_open)
    }

    /// In a live session, channels that the remote has left unopened since then do not keep others from being opened.
    pub(crate) fn pass_over_unopened(&mut self, since: Duration) {
        if self.busy > 0 && self.is_live() {
            let Self { peers, busy, .. } = self;
            let unopened = peers.values_mut().filter(|peer| peer.place.busy && peer.is_unopened_since(since));
            unopened.for_each(|peer| {
                peer.place.busy = false;
                *busy -= 1;
            });
        }
    }

    /// The disk is full: what the remote has is not fetched for now, or, if the session is not live, not by this session.
    pub(crate) fn pause(&mut self, error: StoreError) {
        log!(DEBUG, "session", in self.span, "fetches nothing new", error = %error);
        self.paused = Some(error.clone());
        self.events.push_back(PeerEvent::DiskFull(error));
    }

    /// The disk has room again. A session that is not live fetches nothing twice: what it left out is left to the next.
    pub(crate) fn resume(&mut self) {
        if self.is_live() || self.stage == Stage::Greeting {
            self.paused = None;
        }
        log!(DEBUG, "session", in self.span, "the disk has room again");
        self.events.push_back(PeerEvent::SpaceFreed);
    }

    /// A session that is not live and fetched nothing while the disk was full does not end well: what the remote has may not be here.
    pub(super) fn mind_pause(&mut self) {
        let fetches = self.options.download != Some(false) && !self.is_live();
        if let Some(error) = self.paused.clone().filter(|_| fetches) {
            self.lose(&error);
        }
    }

    /// What it brought could not be written: it does not end well.
    pub(crate) fn lose(&mut self, error: &StoreError) {
        self.failure.get_or_insert_with(|| error.clone());
        // How much of what came is here.
        self.progress_due = true;
    }
}
