//! How far a sync is, and who waits until both sides hold the same blocks, on the store's thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use multifeed_core::{SetId, Storage, SyncState};

use crate::error::Error;
use crate::oneshot::Answer;
use crate::shared::link::Link;
use crate::store::calls::call::StateCall;
use crate::store::calls::waiting::Ticket;
use crate::store::thread::Store;

/// Who waits until which session is in sync, or, without one, all of them.
#[derive(Debug, Default)]
pub(crate) struct InSync(BTreeMap<Ticket, Waiter>);

#[derive(Debug)]
struct Waiter {
    link: Option<Arc<Link>>,
    answer: Answer<Result<(), Error>>,
}

impl InSync {
    /// Nobody waits any more. Whether somebody did.
    pub(crate) fn give_up(&mut self, ticket: Ticket) -> bool {
        self.0.remove(&ticket).is_some()
    }

    /// A multifeed is closed, which all that wait for it hear.
    pub(crate) fn close(&mut self, set: SetId) {
        self.0.retain(|ticket, _| ticket.set != set);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: Storage> Store<S> {
    pub(crate) fn answer_state(&mut self, set: SetId, call: StateCall) {
        match call {
            StateCall::Session { link, answer } => {
                self.observe(&link);
                let state = link.peer.get().and_then(|&peer| self.multi.sync_state(peer, self.now()));
                answer.send(match state {
                    Some(state) => Ok(state),
                    // Its first sign of life is still to come.
                    None if link.peer.get().is_none() && !link.sync.is_over() => Ok(SyncState::default()),
                    None => Err(Error::SessionEnded),
                });
            }
            StateCall::Store { answer } => {
                self.observe_all(set);
                answer.send(self.multi.store_sync_state(set, self.now()));
            }
            StateCall::Feed { feed, answer } => answer.send(self.multi.feed_sync_state(feed, self.now())),
            StateCall::InSync { link, ticket, answer } => {
                match &link {
                    Some(link) => self.observe(link),
                    None => self.observe_all(set),
                }
                self.in_sync.0.insert(ticket, Waiter { link, answer });
            }
        }
    }

    /// Answers those that wait for what is so now.
    pub(crate) fn answer_in_sync(&mut self) {
        if self.in_sync.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.in_sync.0);
        for (ticket, Waiter { link, answer }) in waiting {
            let end = match &link {
                None => self.multi.store_sync_state(ticket.set, self.now()).all.in_sync.then_some(Ok(())),
                Some(link) => self.end_of(link),
            };
            match end {
                Some(end) => answer.send(end),
                None => _ = self.in_sync.0.insert(ticket, Waiter { link, answer }),
            }
        }
    }

    /// What to answer who waits for a session, if anything.
    fn end_of(&self, link: &Link) -> Option<Result<(), Error>> {
        let peer = link.peer.get().copied();
        if link.ended_in_sync() || peer.is_some_and(|peer| self.multi.in_sync(peer)) {
            return Some(Ok(()));
        }
        let gone = peer.map_or(link.sync.is_over(), |peer| !self.is_connected(peer));
        gone.then_some(Err(Error::SessionEnded))
    }

    /// A session began: it is among those of which all is reported.
    pub(crate) fn observe_new(&mut self, link: &Link) {
        if self.observes_all(link.options.set) || link.is_observed() {
            self.observe(link);
        }
    }

    fn observe_all(&mut self, set: SetId) {
        self.set_observes_all(set);
        self.links().iter().filter(|link| link.options.set == set).for_each(|link| self.observe(link));
    }

    fn observe(&mut self, link: &Link) {
        link.set_observed();
        if let Some(&peer) = link.peer.get() {
            self.multi.observe(peer);
        }
    }
}
