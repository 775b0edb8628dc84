//! Channels that are held open while other sessions bring blocks of their feeds.

use crate::ids::{FeedId, SessionId};
use crate::multifeed::Multifeed;
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// Looks at the channels that are held open: what they are held for may have stopped to come.
    pub(in crate::multifeed) fn look_at_the_holding(&mut self) {
        let holding = self.sessions.iter().flat_map(|(&id, session)| {
            session.peers.iter().filter(|(_, peer)| peer.is_holding()).map(move |(&feed, _)| (id, feed))
        });
        for (id, feed) in holding.collect::<Vec<(SessionId, FeedId)>>() {
            self.with_peer(id, feed, |peer, work| {
                peer.advance(work);
                Ok(())
            });
            self.wake(id);
        }
    }
}
