//! Remotes that do not answer in time.

use crate::ids::{FeedId, SessionId};
use crate::multifeed::Multifeed;
use crate::storage::Storage;

impl<S: Storage> Multifeed<S> {
    /// A remote did not answer in time what it was asked of a feed: others are asked.
    pub(super) fn expire(&mut self, id: SessionId, feed: FeedId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let now = session.transfer.time(self.now);
        let awaited = session.peers.get(&feed).is_some_and(|peer| peer.awaits_block(now));
        let silent = awaited && session.note_silence(now, self.limits.request_timeout);
        let mut released = false;
        self.with_peer(id, feed, |peer, work| {
            released = peer.expire(silent, work);
            Ok(())
        });
        if released {
            self.retry_requests(feed, Some(id));
        }
        self.wake(id);
    }
}
