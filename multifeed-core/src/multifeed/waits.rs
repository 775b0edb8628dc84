//! What the application waits for, of all feeds: whose each want is, when it is given up, and how it ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::ids::FeedId;
use crate::replication::wants::{WantEnd, WantError, WantId, WantOptions, Wants};

/// The wants of a multifeed. What each is for is kept with its feed ([`Wants`]).
#[derive(Debug, Default)]
pub(super) struct Waits {
    next: u64,
    /// Whose feed each want is of.
    feeds: BTreeMap<WantId, FeedId>,
    /// Those that are given up in time.
    deadlines: BTreeSet<(Duration, WantId)>,
    /// Feeds with wants that only a session which is there can fulfil.
    if_available: BTreeSet<FeedId>,
    /// How waiting ended, to be reported.
    ended: VecDeque<(WantId, WantEnd)>,
}

impl Waits {
    /// A name that no want has, nor had.
    pub(super) fn next_id(&mut self) -> WantId {
        self.next += 1;
        WantId(self.next - 1)
    }

    /// Adds a want of a feed.
    pub(super) fn add(&mut self, feed: FeedId, options: &WantOptions, max: usize) -> Result<WantId, WantError> {
        if self.feeds.len() >= max {
            return Err(WantError::TooMany { max });
        }
        let want = self.next_id();
        self.feeds.insert(want, feed);
        self.deadlines.extend(options.deadline.map(|at| (at, want)));
        if options.if_available {
            self.if_available.insert(feed);
        }
        Ok(want)
    }

    /// Whose feed a want is of, if it has not ended.
    pub(super) fn feed(&self, want: WantId) -> Option<FeedId> {
        self.feeds.get(&want).copied()
    }

    /// The wants of a feed.
    pub(super) fn of(&self, feed: FeedId) -> Vec<WantId> {
        self.feeds.iter().filter(|(_, of)| **of == feed).map(|(&want, _)| want).collect()
    }

    /// Removes a want, also from those of its feed.
    pub(super) fn remove(&mut self, want: WantId, of_feed: &mut Wants) {
        self.feeds.remove(&want);
        if let Some(at) = of_feed.deadline(want) {
            self.deadlines.remove(&(at, want));
        }
        of_feed.remove(want);
    }

    /// Reports how a want ended.
    pub(super) fn report(&mut self, want: WantId, end: WantEnd) {
        self.ended.push_back((want, end));
    }

    /// The next report.
    pub(super) fn poll(&mut self) -> Option<(WantId, WantEnd)> {
        self.ended.pop_front()
    }

    /// When the next want is given up.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// The next want whose deadline has passed.
    pub(super) fn pop_late(&mut self, now: Duration) -> Option<WantId> {
        let &(_, want) = self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.deadlines.pop_first();
        Some(want)
    }

    /// Feeds with wants that only a session which is there can fulfil.
    pub(super) fn if_available(&self) -> impl Iterator<Item = FeedId> + use<> {
        self.if_available.clone().into_iter()
    }

    /// A feed has no such want any more.
    pub(super) fn none_if_available(&mut self, feed: FeedId) {
        self.if_available.remove(&feed);
    }
}
