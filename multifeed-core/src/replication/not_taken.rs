//! What the remote of a session did not take of what it was offered: by its policy, or since it may or can take no more.

use crate::ids::FeedId;
use crate::sets::sparse_bits::SparseBits;

/// The feeds of one session that its remote did not take, or not all of them.
#[derive(Debug, Default)]
pub(crate) struct NotTaken {
    /// Feeds that were offered, and that the remote neither requested nor offered itself.
    unasked: SparseBits,
    /// Feeds whose channels closed while it lacked something of them.
    lacking: SparseBits,
}

impl NotTaken {
    /// The remote is offered a feed.
    pub(crate) fn offered(&mut self, feed: FeedId) {
        self.unasked.insert(u64::from(feed.0));
    }

    /// The remote requested a feed, or has it.
    pub(crate) fn asked(&mut self, feed: FeedId) {
        self.unasked.remove(u64::from(feed.0));
    }

    /// A feed's channel closed.
    pub(crate) fn closed(&mut self, feed: FeedId, lacks: bool) {
        match lacks {
            true => self.lacking.insert(u64::from(feed.0)),
            false => self.lacking.remove(u64::from(feed.0)),
        };
    }

    /// A feed is removed, or is not the session's any more.
    pub(crate) fn forget(&mut self, feed: FeedId) {
        self.asked(feed);
        self.closed(feed, false);
    }

    /// How many there are of those that count; without an answer to the last offer, of those whose channels closed.
    pub(crate) fn count(&self, answered: bool, counts: impl Fn(FeedId) -> bool) -> u64 {
        let nothing = SparseBits::default();
        let unasked = if answered { &self.unasked } else { &nothing };
        let mut count = 0;
        let mut at = 0;
        loop {
            let next = [unasked, &self.lacking].into_iter().filter_map(|bits| bits.first_in(at..1 << 32, None)).min();
            let Some(feed) = next else { return count };
            at = feed + 1;
            count += u64::from(u32::try_from(feed).is_ok_and(|feed| counts(FeedId(feed))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feed_counts_once() {
        let mut feeds = NotTaken::default();
        (0..10).for_each(|feed| feeds.offered(FeedId(feed)));
        (2..10).for_each(|feed| feeds.asked(FeedId(feed)));
        feeds.closed(FeedId(1), true);
        feeds.closed(FeedId(7), true);
        feeds.closed(FeedId(8), true);
        feeds.closed(FeedId(8), false);
        assert_eq!((feeds.count(true, |_| true), feeds.count(false, |_| true)), (3, 2));
        assert_eq!(feeds.count(true, |feed| feed.0 > 0), 2);
        feeds.forget(FeedId(1));
        assert_eq!(feeds.count(true, |_| true), 2);
    }
}
