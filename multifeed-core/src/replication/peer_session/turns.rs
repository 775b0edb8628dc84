//! Which feeds of a session have their turn, and when none has.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use multifeed_proto::FeedKey;

use super::{PeerSession, Stage};
use crate::error::StoreError;
use crate::ids::FeedId;
use crate::limits::Limits;
use crate::log::log;
use crate::replication::peer::FeedChannel;
use crate::replication::replicate::PeerEvent;

/// Bytes that a feed sends in its turn, if it has as many: some twenty small blocks with their proofs, or one that is large.
const SENT_IN_TURN: usize = 8 << 10;

/// Which feeds of a session have something to do. Whether a feed stands in a queue, its channel keeps.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Feeds whose machines have something to send, each once, the next one first.
    active: VecDeque<FeedId>,
    /// The feed that sent last, and how many bytes are left of its turn.
    sends: Option<(FeedId, usize)>,
    /// Feeds that have more to ask for than there is room, each once, the next one first.
    starved: VecDeque<FeedId>,
    /// The one of these whose turn it is.
    asks: Option<FeedId>,
    /// Feeds on whose channels something is under way.
    busy: usize,
}

impl Turns {
    /// Notes that a feed's machine may have something to send.
    pub(super) fn activate(&mut self, feed: FeedId, peer: &mut FeedChannel) {
        if peer.has_output() && !mem::replace(&mut peer.place.active, true) {
            self.active.push_back(feed);
        }
    }

    /// As [`activate`](Self::activate), before all others.
    pub(super) fn activate_first(&mut self, feed: FeedId, peer: &mut FeedChannel) {
        if peer.has_output() && !mem::replace(&mut peer.place.active, true) {
            self.active.push_front(feed);
        }
    }

    /// Notes that a feed sent so many bytes. It goes on before the others until its turn is over: to go from feed to feed costs an opening of
    /// its files on either side.
    pub(super) fn sent(&mut self, feed: FeedId, peer: &mut FeedChannel, bytes: usize) {
        let left = self.sends.take().filter(|(of, _)| *of == feed).map_or(SENT_IN_TURN, |(_, left)| left);
        match left.saturating_sub(bytes) {
            0 => self.activate(feed, peer),
            left => {
                self.sends = Some((feed, left));
                self.activate_first(feed, peer);
            }
        }
    }

    pub(super) fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    pub(super) fn next_active(&mut self) -> Option<FeedId> {
        self.active.pop_front()
    }

    pub(super) fn forget_active(&mut self) {
        self.active.clear();
    }

    /// Notes whether something is under way on a feed's channel.
    pub(super) fn set_busy(&mut self, peer: &mut FeedChannel, busy: bool) {
        let was_busy = mem::replace(&mut peer.place.busy, busy);
        self.busy = self.busy + usize::from(busy) - usize::from(was_busy);
    }

    /// A feed has more to ask for than there is room.
    pub(super) fn starve(&mut self, feed: FeedId, peer: &mut FeedChannel) {
        if !mem::replace(&mut peer.place.starved, true) {
            self.starved.push_back(feed);
        }
    }

    pub(super) fn next_starved(&mut self) -> Option<FeedId> {
        self.starved.pop_front()
    }

    pub(super) fn has_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// Whether it is this feed's turn to ask for more.
    pub(super) fn is_of(&self, feed: FeedId) -> bool {
        self.asks == Some(feed)
    }

    /// Whether another feed asks for more before this one.
    pub(super) fn is_behind(&self, feed: FeedId) -> bool {
        !self.is_of(feed) && self.starved.front().is_some_and(|first| *first != feed)
    }

    /// It is a feed's turn, whoever else waits.
    pub(crate) fn begin(&mut self, feed: FeedId) {
        self.asks = Some(feed);
    }

    /// Whether it is any feed's turn.
    pub(crate) fn is_taken(&self) -> bool {
        self.asks.is_some()
    }

    pub(crate) fn end(&mut self) {
        self.asks = None;
    }
}

impl PeerSession {
    /// The feed whose turn it is to ask for more, if there is room; [`Turns::end`] is called after it.
    pub(crate) fn next_asker(&mut self) -> Option<FeedId> {
        while !self.turns.is_taken() && self.transfer.room(self.sums.cost) > 0 {
            let feed = self.turns.next_starved()?;
            if let Some(peer) = self.peers.get_mut(&feed) {
                peer.place.starved = false;
                self.turns.begin(feed);
                return Some(feed);
            }
        }
        None
    }

    /// Returns the feed whose channel to open next, if one may be.
    pub(crate) fn next_turn(&mut self, limits: &Limits) -> Option<FeedKey> {
        self.offers.next(limits.feeds_asked, self.turns.busy, limits.feeds_open)
    }

    /// In a live session, channels that the remote has left unopened since then do not keep others from being opened.
    pub(crate) fn pass_over_unopened(&mut self, since: Duration) {
        if self.turns.busy > 0 && self.is_live() {
            let Self { peers, turns, .. } = self;
            let unopened = peers.values_mut().filter(|peer| peer.is_unopened_since(since));
            unopened.for_each(|peer| turns.set_busy(peer, false));
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
