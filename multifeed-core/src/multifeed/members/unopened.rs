//! Folders that have a feed's number and hold none that is open: whose they are.
//!
//! The feed of such a folder is not exchanged: a second folder of it would be a second history. A session that would have exchanged it reports it by
//! its key, and is not in sync.

use std::collections::{BTreeMap, BTreeSet};

use multifeed_proto::FeedKey;

use crate::error::StoreError;
use crate::ids::SessionId;
use crate::multifeed::Multifeed;
use crate::storage::{Slot, Storage};

/// Keys that could not be read and are read again for one session.
const READ_AGAIN: usize = 64;

/// The keys of the folders that could not be opened, each read once.
#[derive(Debug, Default)]
pub(in crate::multifeed) struct Unopened {
    /// Folders that were not looked at yet.
    unread: BTreeSet<Slot>,
    /// Those whose key could not be read.
    unknown: BTreeSet<Slot>,
    /// Of these, which one is looked at next.
    next: Slot,
    keys: BTreeMap<Slot, FeedKey>,
    by_key: BTreeSet<(FeedKey, Slot)>,
}

impl Unopened {
    /// Notes a folder that holds no feed which is open, or something else than it did.
    pub(super) fn note(&mut self, slot: Slot) {
        self.forget(slot);
        self.unread.insert(slot);
    }

    /// Forgets a folder: its feed is open, or it is gone.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.unread.remove(&slot);
        self.unknown.remove(&slot);
        if let Some(key) = self.keys.remove(&slot) {
            self.by_key.remove(&(key, slot));
        }
    }

    /// Has some of the keys read once more that could not be read, one after the other.
    fn look_again(&mut self) {
        let after = self.unknown.range(self.next..).chain(self.unknown.range(..self.next));
        let again: BTreeSet<Slot> = after.take(READ_AGAIN).copied().collect();
        self.unknown.retain(|slot| !again.contains(slot));
        let last = again.range(..self.next).next_back().or(again.last());
        self.next = last.map_or(Slot(0), |last| Slot(last.0.saturating_add(1)));
        self.unread.extend(again);
    }

    fn learn(&mut self, slot: Slot, key: Option<FeedKey>) {
        match key {
            Some(key) => {
                self.keys.insert(slot, key);
                self.by_key.insert((key, slot));
            }
            None => _ = self.unknown.insert(slot),
        }
    }

    /// The first folder of a key.
    fn find(&self, key: &FeedKey) -> Option<Slot> {
        self.by_key.range((*key, Slot(0))..).next().filter(|(found, _)| found == key).map(|(_, slot)| *slot)
    }
}

impl<S: Storage> Multifeed<S> {
    /// The folder that could not be opened, or made, and holds the feed of this key.
    pub(in crate::multifeed) fn unopened_folder(&mut self, key: &FeedKey) -> Option<Slot> {
        self.read_unopened();
        self.members.catalog.unopened.find(key)
    }

    /// Fails if a folder that could not be opened holds the feed of this key.
    pub(in crate::multifeed) fn check_unopened(&mut self, key: &FeedKey) -> Result<(), StoreError> {
        self.unopened_folder(key).map_or(Ok(()), |slot| Err(StoreError::Occupied { slot }))
    }

    /// Why a folder is in the way of its own feed: what keeps it from being opened, if that is known.
    pub(in crate::multifeed) fn why_occupied(&self, error: StoreError) -> StoreError {
        let StoreError::Occupied { slot } = error else { return error };
        let why = self.cores.report.problems.iter().find(|problem| problem.slot() == Some(slot));
        why.cloned().unwrap_or(error)
    }

    fn read_unopened(&mut self) {
        while let Some(slot) = self.members.catalog.unopened.unread.pop_first() {
            let key = self.cores.key_in(slot).ok().flatten();
            self.members.catalog.unopened.learn(slot, key);
        }
    }

    /// Reports on a session, by key, the feeds that it would exchange if their folders could be opened. It is not in sync then, whether the remote
    /// has them or not; nor if there is a folder whose key cannot be read.
    pub(in crate::multifeed) fn report_unopened(&mut self, id: SessionId) {
        if self.sessions.get(&id).is_none_or(|session| session.single_feed().is_some()) {
            return;
        }
        self.members.catalog.unopened.look_again();
        self.read_unopened();
        let going = self.cores.journal.removal();
        // A `key` that rotted, of a feed that was fetched again since.
        let is_elsewhere = |key: &FeedKey, slot: Slot| {
            let known = self.cores.journal.mark_of_another(slot, key);
            known.is_some_and(|known| self.feeds().any(|id| known.is_of(&self.slot(id).feed.key())))
        };
        let is_missed = |&(key, slot): &(FeedKey, Slot)| {
            let goes = going.as_ref().is_some_and(|removal| removal.slot == slot && removal.is_of(&key));
            let is_here = self.members.catalog.find(&key).is_some() || is_elsewhere(&key, slot);
            !goes && !is_here && !self.may(id, &key, None).refuses()
        };
        // Whose they are nobody knows, or what else there is: the remote may have it or not.
        let unknown = !self.members.catalog.unopened.unknown.is_empty()
            || self.set_of(id).is_some_and(|set| !self.members.sets.lists.is_whole(set));
        let missed: Vec<_> = self.members.catalog.unopened.by_key.iter().copied().filter(is_missed).collect();
        let told = missed.iter().take(self.limits.unopened_reports);
        let told: Vec<_> = told.map(|&(key, slot)| (key, self.why_occupied(StoreError::Occupied { slot }))).collect();
        if let Some(session) = self.sessions.get_mut(&id) {
            if !missed.is_empty() || unknown {
                session.part();
            }
            told.into_iter().for_each(|(key, error)| session.damaged(key, None, error));
        }
    }

    /// A feed whose turn it is on a session cannot be opened here: its channel closes without a word, so that the remote knows that it was not
    /// taken. What is wrong with it is reported once, unless it was before.
    pub(in crate::multifeed) fn leave_unopened(&mut self, id: SessionId, key: FeedKey, error: Option<StoreError>) {
        let error = error.map(|error| self.why_occupied(error));
        if let Some(session) = self.sessions.get_mut(&id) {
            session.part();
            if let Some(error) = error.filter(|_| !session.offers.is_quiet(&key)) {
                session.damaged(key, None, error);
            }
            session.refuse_silently(key, self.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_not_be_read_have_their_turns() {
        let mut unopened = Unopened { unknown: (0..150).map(Slot).collect(), ..Unopened::default() };
        let turns = [0..64, 64..128, 128..192, 42..106].map(|turn| turn.map(|slot| Slot(slot % 150)));
        for turn in turns {
            unopened.look_again();
            assert_eq!(unopened.unread, turn.collect());
            while let Some(slot) = unopened.unread.pop_first() {
                unopened.learn(slot, None);
            }
            assert_eq!(unopened.unknown.len(), 150);
        }
        let mut few = Unopened { unknown: [Slot(7), Slot(9)].into(), ..Unopened::default() };
        for _ in 0..2 {
            few.look_again();
            assert_eq!((few.unread.len(), few.unknown.len()), (2, 0));
            few.unknown.append(&mut few.unread);
        }
    }
}
