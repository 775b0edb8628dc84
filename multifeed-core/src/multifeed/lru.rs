//! Feeds that are in use: only these keep what was read of their files, and room for what comes.

use std::collections::VecDeque;

use super::Multifeed;
use crate::ids::FeedId;
use crate::storage::Storage;

/// The feeds that were used last, [`Limits::feeds_in_use`](crate::Limits::feeds_in_use) of them at the most, each once.
#[derive(Debug, Default)]
pub(super) struct InUse(VecDeque<FeedId>);

impl<S: Storage> Multifeed<S> {
    /// Notes that a feed is about to be used; another one may have to rest for it.
    pub(super) fn begin_use(&mut self, id: FeedId) {
        let Some(slot) = self.feeds.get_mut(id.0 as usize) else { return };
        if std::mem::replace(&mut slot.in_use, true) {
            return;
        }
        self.in_use.0.push_back(id);
        while self.in_use.0.len() > self.limits.feeds_in_use.max(1)
            && let Some(oldest) = self.in_use.0.pop_front()
        {
            self.rest(oldest);
        }
    }

    /// Drops what can be read again, and memory that is kept for what may come.
    fn rest(&mut self, id: FeedId) {
        // One that was only offered may be forgotten by now.
        let Some(slot) = self.feeds.get_mut(id.0 as usize) else { return };
        slot.in_use = false;
        slot.feed.trim();
        slot.unannounced.shrink_to_fit();
        slot.subscribers.shrink_to_fit();
        for subscriber in &slot.subscribers {
            if let Some(session) = self.sessions.get_mut(subscriber)
                && let Some(peer) = session.peers.get_mut(&id)
            {
                peer.shrink();
            }
        }
    }
}
