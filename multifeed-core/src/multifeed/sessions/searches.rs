//! What remotes showed that contradicts what is held: whether a writer signed two histories or a file is damaged here is looked for in steps, so that
//! no call reads long.

use std::collections::VecDeque;

use multifeed_proto::FeedKey;

use crate::error::{Conflict, ProofError, PutError};
use crate::feed::Contradiction;
use crate::ids::{FeedId, SessionId};
use crate::log::log;
use crate::multifeed::Multifeed;
use crate::replication::peer::{PeerFault, Shown, unproven};
use crate::replication::replicate::PeerEvent;
use crate::storage::Storage;

/// How many wait. One that came after that many shows the same in its next session.
const MOST_SEARCHES: usize = 64;

/// The searches that are under way: the first one goes on, the others wait for it.
#[derive(Debug, Default)]
pub(in crate::multifeed) struct Searches(VecDeque<Search>);

#[derive(Debug)]
struct Search {
    session: SessionId,
    feed: FeedId,
    /// An id may be another feed's by then.
    key: FeedKey,
    shown: Shown,
    contradiction: Box<Contradiction>,
}

impl Searches {
    /// Whether [`Multifeed::search_on`] has something to do.
    pub(in crate::multifeed) fn are_under_way(&self) -> bool {
        !self.0.is_empty()
    }
}

impl<S: Storage> Multifeed<S> {
    /// A remote showed what contradicts what is held of a feed.
    pub(super) fn begin_search(&mut self, session: SessionId, feed: FeedId, shown: Shown, found: Box<Contradiction>) {
        let key = self.slot(feed).feed.key();
        log!(DEBUG, "feed", "a proof contradicts what is held: looking for signatures", key = ?key);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.part();
        }
        if self.steps.searches.0.len() < MOST_SEARCHES {
            self.steps.searches.0.push_back(Search { session, feed, key, shown, contradiction: found });
        } else {
            self.leave_channel(session, feed);
        }
    }

    /// Takes the next step of the first search. Its end is that of its channel, or of its session, as if it had been known at once.
    pub(in crate::multifeed) fn search_on(&mut self) {
        let Some(Search { feed, key, contradiction, .. }) = self.steps.searches.0.front_mut() else { return };
        let (id, key) = (*feed, *key);
        let slot = self.feeds.get_mut(id.0 as usize).filter(|slot| slot.feed.key() == key && !slot.removed);
        let error = match slot {
            Some(slot) => match slot.feed.resolve(&mut self.cores.storage, contradiction) {
                Some(error) => Some(error),
                None => return,
            },
            None => None,
        };
        let Some(Search { session, shown, .. }) = self.steps.searches.0.pop_front() else { return };
        if let Some(error) = error {
            self.resolved(session, id, shown, error);
        }
    }

    fn resolved(&mut self, session: SessionId, feed: FeedId, shown: Shown, error: PutError) {
        match (error, shown) {
            (PutError::Proof(ProofError::Conflict(conflict)), _) => {
                let mut released = false;
                self.with_peer(session, feed, |peer, work| {
                    released = peer.is_forked(shown, work);
                    Ok(())
                });
                self.forked(session, feed, conflict);
                if released {
                    self.retry_requests(feed, Some(session));
                }
            }
            (PutError::Proof(error), Shown::Block(index)) => {
                self.with_peer(session, feed, |_, work| Err(unproven(index, &error, work)));
            }
            (PutError::Store(error), _) => self.with_peer(session, feed, |_, _| Err(PeerFault::Store(error))),
            // It lies about sizes that nothing proves one by one, perhaps without knowing.
            _ => self.leave_channel(session, feed),
        }
        self.wake(session);
    }

    /// A remote has another history of a feed than the one that is held.
    pub(super) fn forked(&mut self, id: SessionId, feed: FeedId, conflict: Box<Conflict>) {
        let key = self.slot(feed).feed.key();
        log!(DEBUG, "feed", "a fork: its writer signed two histories", key = ?key, len = ?conflict.length);
        self.note_conflict(feed, &conflict);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.part();
            session.events.push_back(PeerEvent::Conflict { key, conflict });
        }
    }
}
