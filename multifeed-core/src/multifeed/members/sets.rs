//! Several sets of feeds over the same cores: each is what one root key stands for.

use super::lists::Lists;
use super::plain::PlainCores;
use crate::error::StoreError;
use crate::ids::{FeedId, SessionId, SetId};
use crate::multifeed::{Multifeed, MultifeedEvent};
use crate::replication::peer_session::PeerSession;
use crate::sets::sparse_bits::SparseBits;
use crate::storage::Storage;

/// Which feeds are in which set. [`SetId::ALL`] holds every feed but those that are the store's own, and is not kept.
#[derive(Debug, Default)]
pub(in crate::multifeed) struct Sets {
    feeds: Vec<SparseBits>,
    /// Feeds that are lists of others.
    own: SparseBits,
    /// Those sets that are multifeeds of a corestore.
    pub(in crate::multifeed) lists: Lists,
    pub(in crate::multifeed) plain: PlainCores,
}

impl Sets {
    /// Whether a feed is in a set.
    pub(in crate::multifeed) fn contains(&self, set: SetId, feed: FeedId) -> bool {
        match set {
            SetId::ALL => self.lists.is_empty() || !self.own.get(u64::from(feed.0)),
            _ => self.get(set).is_some_and(|feeds| feeds.get(u64::from(feed.0))),
        }
    }

    fn get(&self, set: SetId) -> Option<&SparseBits> {
        self.feeds.get((set.0 as usize).checked_sub(1)?)
    }

    pub(in crate::multifeed) fn get_mut(&mut self, set: SetId) -> Option<&mut SparseBits> {
        self.feeds.get_mut((set.0 as usize).checked_sub(1)?)
    }

    /// A feed is the store's own, and in no set.
    pub(in crate::multifeed) fn own(&mut self, feed: FeedId) {
        self.own.insert(u64::from(feed.0));
    }

    /// A feed is gone.
    pub(in crate::multifeed) fn forget(&mut self, feed: FeedId) {
        self.feeds.iter_mut().for_each(|feeds| _ = feeds.remove(u64::from(feed.0)));
        self.plain.forget(feed);
    }
}

impl<S: Storage> Multifeed<S> {
    /// Adds an empty set of feeds. Sessions that replicate it ([`Replicate::set`](crate::Replicate::set)) offer its feeds alone, and what
    /// they bring joins it. A feed may be in any number of sets: its blocks are stored once, and reach the sessions of all of them.
    ///
    /// Such a set is not written to the storage: the application names it again when it opens the store. A multifeed of a corestore is a set that
    /// is: see [`open_root`](Self::open_root).
    pub fn add_set(&mut self) -> SetId {
        let sets = &mut self.members.sets.feeds;
        sets.push(SparseBits::default());
        SetId(u32::try_from(sets.len()).unwrap_or(u32::MAX))
    }

    /// Adds a feed to a set, and offers it to the set's sessions with the next [`commit`](Self::commit). False if it is in it.
    ///
    /// # Errors
    ///
    /// If the feed was removed from the store; [`StoreError::ListLost`].
    pub fn include(&mut self, set: SetId, feed: FeedId) -> Result<bool, StoreError> {
        let key = self.live(feed)?.key();
        self.members.sets.lists.check_new(set, &key)?;
        Ok(self.include_in(set, feed, None))
    }

    /// Takes a feed out of a set; it stays in the store and in other sets. Sessions of the set close its channel, and say no more of it. False
    /// if it is not in it.
    ///
    /// A remote that offers it later brings it back, unless a [policy](crate::Policy) refuses it. It is in a multifeed of a corestore again when that
    /// is opened, unless it is [taken out](Self::take_out_of).
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownFeed`] if the id is of another store.
    pub fn exclude(&mut self, set: SetId, feed: FeedId) -> Result<bool, StoreError> {
        self.check_id(feed)?;
        let left = self.members.sets.get_mut(set).is_some_and(|feeds| feeds.remove(u64::from(feed.0)));
        if left {
            self.leave_sessions_of(Some(set), feed);
        }
        Ok(left)
    }

    /// Returns the feeds of a set, in the order of their folders.
    pub fn feeds_in(&self, set: SetId) -> impl Iterator<Item = FeedId> {
        self.members.catalog.feeds().filter(move |&feed| self.members.sets.contains(set, feed))
    }

    /// Returns whether a feed is in a set.
    pub fn is_in(&self, set: SetId, feed: FeedId) -> bool {
        self.members.sets.contains(set, feed) && !self.is_removed(feed)
    }

    /// Returns the set that a session replicates.
    pub fn set_of(&self, session: SessionId) -> Option<SetId> {
        Some(self.sessions.get(&session)?.options.set)
    }

    pub(in crate::multifeed) fn include_in(&mut self, set: SetId, feed: FeedId, by: Option<SessionId>) -> bool {
        let included = self.members.sets.get_mut(set).is_some_and(|feeds| feeds.insert(u64::from(feed.0)));
        if included {
            let is_listed = self.members.sets.lists.include(set, self.feeds[feed.0 as usize].feed.key(), None);
            // One that was taken out before is offered again.
            let hears = |(id, session): &(&SessionId, &mut PeerSession)| {
                session.options.set == set && Some(**id) != by && !session.peers.contains_key(&feed)
            };
            self.sessions.iter_mut().filter(hears).for_each(|(_, session)| _ = session.known.remove(u64::from(feed.0)));
            self.uncommitted.unannounced.push(feed);
            if is_listed {
                self.outbox.push(MultifeedEvent::Included { set, id: feed });
            }
        }
        included
    }

    /// A session agreed with its remote on a feed that is here: it is in the session's set from now on.
    pub(in crate::multifeed) fn include_by(&mut self, session: SessionId, feed: FeedId) {
        let Some(set) = self
            .sessions
            .get(&session)
            .filter(|session| session.single_feed().is_none())
            .map(|session| session.options.set)
        else {
            return;
        };
        if self.slot(feed).feed.is_settled() && self.may_be_brought(set, feed) {
            self.include_in(set, feed, Some(session));
        }
    }
}
