//! Who hears what happens to which feed.

use std::collections::BTreeMap;
use std::sync::Weak;

use multifeed_core::FeedId;

use crate::shared::feed_events::{FeedEvent, FeedQueue};

/// The subscribers of each feed, on the store's thread. When that ends, however it does, their queues close.
#[derive(Debug, Default)]
pub(crate) struct Watchers(BTreeMap<FeedId, Vec<Weak<FeedQueue>>>);

impl Watchers {
    pub(crate) fn add(&mut self, feed: FeedId, queue: Weak<FeedQueue>) {
        self.0.entry(feed).or_default().push(queue);
    }

    /// Gives every subscriber of a feed an event. Returns false if none is left.
    pub(crate) fn tell(&mut self, feed: FeedId, event: FeedEvent) -> bool {
        let Some(queues) = self.0.get_mut(&feed) else { return false };
        queues.retain(|queue| {
            let queue = queue.upgrade();
            if let Some(queue) = &queue {
                queue.push(event.clone());
            }
            queue.is_some()
        });
        let watched = !queues.is_empty();
        if !watched {
            self.0.remove(&feed);
        }
        watched
    }

    /// Closes the queues of a removed feed's subscribers: nothing more comes.
    pub(crate) fn forget(&mut self, feed: FeedId) {
        let queues = self.0.remove(&feed).unwrap_or_default();
        queues.iter().filter_map(Weak::upgrade).for_each(|queue| queue.close());
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        let queues = self.0.values().flatten().filter_map(Weak::upgrade);
        queues.for_each(|queue| queue.close());
    }
}
