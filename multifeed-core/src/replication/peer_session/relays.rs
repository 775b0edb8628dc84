//! Feeds of others that a JS peer passes on while a session is on.
//!
//! Such a session ends late: JS ends its stream when no channel is open, without a look at feeds that it is just adding to it. So one channel
//! stays open for a while after each feed that is passed on.

use std::time::Duration;

use super::PeerSession;
use crate::ids::FeedId;

/// How many [`relay_wait`](crate::Limits::relay_wait)s a channel stays open at the most.
const LONGEST_STAY: u32 = 60;

/// Whether and when the remote passed on feeds of others, and what waits for that.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    /// Until when more may be under way.
    until: Option<Duration>,
    /// When nothing is waited for any more, whatever the remote does.
    over: Duration,
    /// The feed whose channel stays open.
    stays: Option<FeedId>,
}

impl Relays {
    /// Whether the remote passed on any.
    pub(super) fn is_some(&self) -> bool {
        self.until.is_some()
    }

    /// The feed whose channel stays open.
    pub(super) fn stays(&self) -> Option<FeedId> {
        self.stays
    }

    /// A feed's channel would have closed, and stays open.
    pub(crate) fn stay(&mut self, feed: FeedId) {
        self.stays = Some(feed);
    }
}

impl PeerSession {
    /// The remote offers feeds. If it did so before, those are of others, mostly; more may come for a while. Whether it is so.
    pub(crate) fn note_relays(&mut self, now: Duration, wait: Duration) -> bool {
        if !self.exchange.manifest_seen || self.is_live() {
            return false;
        }
        if self.relays.until.replace(now.saturating_add(wait)).is_none() {
            self.relays.over = now.saturating_add(wait.saturating_mul(LONGEST_STAY));
        }
        let relays = self.peer_options().relays;
        if relays {
            self.peers.values_mut().for_each(|peer| peer.note_relays());
        }
        relays
    }

    /// Whether a feed's channel stays open though it is through.
    pub(crate) fn stays_open(&self, feed: FeedId, now: Duration) -> bool {
        let waits = self.relays.until.is_some_and(|until| now < until || !self.lists_are_exchanged());
        waits
            && now < self.relays.over
            && self.relays.stays.is_none_or(|other| other == feed)
            && self.peer_options().relays
    }

    /// The feed whose channel stayed open, and need not any more.
    pub(crate) fn stayed_open(&mut self, now: Duration) -> Option<FeedId> {
        let feed = self.relays.stays?;
        if self.peers.contains_key(&feed) && self.stays_open(feed, now) {
            return None;
        }
        self.relays.stays.take()
    }

    /// Whether something hangs on what the remote passes on.
    pub(crate) fn awaits_relays(&self) -> bool {
        let hangs = self.relays.is_some() && self.may_hang() && self.peer_options().relays;
        hangs || self.relays.stays.is_some() || self.peers.values().any(|peer| peer.awaits_relay())
    }
}
