//! What the remote of a session did not take of what it was offered: by its policy, or since it may or can take no more.

use std::collections::BTreeMap;

use crate::ids::FeedId;
use crate::sets::sparse_bits::SparseBits;

/// The feeds of one session that its remote did not take, or not all of them.
#[derive(Debug, Default)]
pub(crate) struct NotTaken {
    /// Feeds that were offered, and that the remote neither requested nor offered itself.
    unasked: SparseBits,
    /// Feeds by their places, whose channels closed while it lacked something of them, each with how many blocks.
    lacking: BTreeMap<u32, u64>,
    /// All of those blocks.
    blocks: u64,
    /// Feeds whose channels closed after the remote had told all that it has: what comes here since then it lacks.
    outgrown: SparseBits,
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

    /// A feed's channel closed while the remote lacked so many blocks of it.
    pub(crate) fn closed(&mut self, feed: FeedId, lacking: u64) {
        self.blocks -= self.lacking.remove(&feed.0).unwrap_or_default();
        if lacking > 0 {
            self.lacking.insert(feed.0, lacking);
            self.blocks += lacking;
        }
    }

    /// The remote of a feed whose channel closed hears of nothing new of it.
    pub(crate) fn watch(&mut self, feed: FeedId) {
        self.outgrown.insert(u64::from(feed.0));
    }

    /// Whether what is new of a feed is lacking at the remote.
    pub(crate) fn watches(&self, feed: FeedId) -> bool {
        self.outgrown.get(u64::from(feed.0))
    }

    /// So many blocks of such a feed are new.
    pub(crate) fn gained(&mut self, feed: FeedId, blocks: u64) {
        let lacking = self.lacking.get(&feed.0).copied().unwrap_or_default();
        self.closed(feed, lacking + blocks);
    }

    /// How many blocks it lacks of feeds whose channels are closed.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// A feed's channel is opened again.
    pub(crate) fn reopened(&mut self, feed: FeedId) {
        self.closed(feed, 0);
        self.outgrown.remove(u64::from(feed.0));
    }

    /// A feed is removed, or is not the session's any more.
    pub(crate) fn forget(&mut self, feed: FeedId) {
        self.asked(feed);
        self.reopened(feed);
    }

    /// How many there are of those that count, by their places; without an answer to the last offer, of those whose channels closed.
    pub(crate) fn count(&self, answered: bool, counts: impl Fn(u32) -> bool) -> u64 {
        let lacking = self.lacking.keys().filter(|&&feed| counts(feed)).count() as u64;
        let (mut count, mut at) = (lacking, 0);
        while answered && let Some(next) = self.unasked.first_in(at..1 << 32, None) {
            at = next + 1;
            let feed = u32::try_from(next).ok().filter(|feed| !self.lacking.contains_key(feed));
            count += u64::from(feed.is_some_and(&counts));
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feed_counts_once() {
        let mut feeds = NotTaken::default();
        (0..10).for_each(|feed| feeds.offered(FeedId::test(feed)));
        (2..10).for_each(|feed| feeds.asked(FeedId::test(feed)));
        feeds.closed(FeedId::test(1), 3);
        feeds.closed(FeedId::test(7), 2);
        feeds.closed(FeedId::test(7), 4);
        feeds.closed(FeedId::test(8), 1);
        feeds.closed(FeedId::test(8), 0);
        assert_eq!((feeds.count(true, |_| true), feeds.count(false, |_| true), feeds.blocks()), (3, 2, 7));
        assert_eq!(feeds.count(true, |feed| feed > 0), 2);
        feeds.forget(FeedId::test(1));
        assert_eq!((feeds.count(true, |_| true), feeds.blocks()), (2, 4));
        // What is new of those that are closed.
        [2, 7].into_iter().map(FeedId::test).for_each(|feed| feeds.watch(feed));
        assert_eq!([1, 2, 7, 8].map(|feed| feeds.watches(FeedId::test(feed))), [false, true, true, false]);
        feeds.gained(FeedId::test(2), 1);
        feeds.gained(FeedId::test(7), 5);
        assert_eq!((feeds.count(true, |_| true), feeds.blocks()), (3, 10));
        feeds.reopened(FeedId::test(7));
        assert_eq!((feeds.count(true, |_| true), feeds.blocks(), feeds.watches(FeedId::test(7))), (2, 1, false));
    }
}
