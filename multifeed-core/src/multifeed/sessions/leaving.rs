//! Feeds that leave a session, and what is left of them.

use crate::feed::Feed;
use crate::ids::{FeedId, SessionId};
use crate::log::log;
use crate::multifeed::feed_events::FeedEvent;
use crate::multifeed::{FeedSlot, Multifeed};
use crate::replication::missing_ranges::{self, FeedHoles};
use crate::replication::peer::FeedChannel;
use crate::replication::peer_session::PeerSession;
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    pub(in crate::multifeed) fn drop_peer(&mut self, id: SessionId, feed: FeedId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let slot = &mut self.feeds[feed.0 as usize];
        self.extensions.forget_channel(id, &slot.feed.key());
        slot.is_outgrown |= session.note_left(feed, &slot.feed);
        if let Some(peer) = session.remove(feed) {
            log!(DEBUG, "feed", in session.span, "the channel is closed", key = ?slot.feed.key(),
                blocks_received = ?peer.moved.blocks_received, blocks_sent = ?peer.moved.blocks_sent);
            self.unsubscribe(id, feed, peer);
        }
    }

    /// A session's machine of a feed is gone.
    pub(in crate::multifeed) fn unsubscribe(&mut self, id: SessionId, feed: FeedId, mut peer: FeedChannel) {
        let slot = &mut self.feeds[feed.0 as usize];
        slot.fetching = slot.fetching.saturating_sub(peer.standing.fetches());
        if (peer.is_parted() || peer.is_behind(&slot.feed) || slot.feed.lacks_signature())
            && let Some(session) = self.sessions.get_mut(&id)
        {
            session.part();
        }
        let at = slot.subscribers.iter().position(|&subscriber| subscriber == id);
        let before = at.and_then(|at| slot.subscribers.get(at.checked_sub(1)?).copied());
        slot.subscribers.retain(|&subscriber| subscriber != id);
        self.outbox.push_feed_event(feed, slot, FeedEvent::PeerClose { peer: id });
        if peer.release(&mut slot.reserved) {
            self.retry_requests(feed, before);
        }
        self.forget_offered(feed);
    }

    pub(super) fn drop_peers(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        for feed in session.peers.keys().copied().collect::<Vec<_>>() {
            self.drop_peer(id, feed);
        }
    }

    /// How many blocks a session's remote has, or may have, that did not come.
    pub(super) fn missing(&self, session: &PeerSession) -> u64 {
        session.left(|id, blocks| {
            let FeedSlot { feed, wants, .. } = self.slot(id);
            match session.is_sparse() {
                true => wants.selection().iter().map(|range| missing_ranges::coming(feed, blocks, &range)).sum(),
                false if is_left_alone(feed, session) => 0,
                false => missing_ranges::coming(feed, blocks, &(0..u64::MAX)),
            }
        })
    }

    /// How many feeds a session's remote did not take, or not all of them, that it was offered and that are served.
    pub(super) fn not_taken(&self, session: &PeerSession) -> u64 {
        session.feeds_not_taken(|place| is_served(&self.feeds, place))
    }

    /// The feeds of a session with holes, of which its remote said that it does not have them either.
    pub(super) fn holes(&self, peer: SessionId, session: &PeerSession) -> Vec<FeedHoles> {
        let mut room = self.limits.hole_ranges;
        let mut found = Vec::new();
        let fetched = |&id: &FeedId| session.known.get(u64::from(id.0)) && self.may_feed(peer, id).want;
        for id in self.feeds().filter(fetched) {
            let FeedSlot { feed, wants, .. } = self.slot(id);
            // Nobody knows what a remote lacks that did not say it.
            let Some(to_come) = session.left_of(id) else { continue };
            let holes = match session.is_sparse() {
                true => missing_ranges::find(feed, wants.selection().iter(), to_come, &mut room),
                false if feed.downloaded() == feed.len() => None,
                false if is_left_alone(feed, session) => None,
                false => missing_ranges::find(feed, std::iter::once(0..feed.len()), to_come, &mut room),
            };
            found.extend(holes);
        }
        found
    }
}

/// Whether the feed of a place has blocks that are served.
pub(super) fn is_served(feeds: &[Box<FeedSlot>], place: u32) -> bool {
    let slot = feeds.get(place as usize);
    slot.is_some_and(|slot| !slot.removed && slot.upload != Some(false) && slot.feed.downloaded() > 0)
}

/// Whether a feed is written here, and what was cleared of it is not fetched.
fn is_left_alone(feed: &Feed, session: &PeerSession) -> bool {
    feed.writable() && !feed.is_writer_behind() && session.options.download != Some(true)
}
