//! How far a sync is, and waiting until both sides hold the same.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use multifeed_core::{FeedSyncState, SetId, Storage, StoreSyncState, SyncState};

use crate::error::Error;
use crate::handles::feed::Feed;
use crate::handles::multifeed::Multifeed;
use crate::handles::replication::Replication;
use crate::oneshot::Answer;
use crate::store::call::{Call, StateCall};
use crate::store::thread::Store;
use crate::store::waits::Ticket;
use crate::stream::link::Link;

impl Replication {
    /// How the session stands now; without asking, [`SyncEvent::Progress`](crate::SyncEvent::Progress) tells each change, the newest only.
    ///
    /// What the remote has is asked of it from the first such call on, of every feed, which costs a small message each way
    /// for each feed that is written here, and lets it tell of each of its new blocks: see [`SyncState`]. So the first answers
    /// may leave things out that are missing there.
    ///
    /// # Errors
    /// [`Error::SessionEnded`], [`Error::Closed`].
    pub async fn state(&self) -> Result<SyncState, Error> {
        let link = self.link().clone();
        self.guard().ask(|answer| Call::State(StateCall::Session { link, answer })).await?
    }

    /// Waits until the remote and we hold the same, as [`core::Multifeed::in_sync`](multifeed_core::Multifeed::in_sync) defines it.
    ///
    /// In short: of every feed that both sides agreed to sync, we hold what the remote has, written to the storage, and it holds what we have, or
    /// was sent it. Blocks that neither has do not count, nor those that one side gave up, nor does a direction that one side does not take part in
    /// (`download: false`, `upload: false`). In a sparse session we hold what is asked for; a remote that is sparse itself
    /// is in sync only when it holds everything, since nobody tells what it is asked for. A remote that serves nothing does not tell what it has, and counts as having
    /// everything once it asked for nothing for 5 s.
    ///
    /// It looks at how things stand: after the next append they are not in sync, and another call waits anew. What was sent
    /// may still be on its way: [`close`](Self::close) and [`finish`](Self::finish) see it through. A session that is not live ends when it
    /// is in sync, and stays it; one that ends because the remote did not answer what it was asked for is not.
    ///
    /// The future does not borrow the session: its events can be taken meanwhile. It does its work without being polled.
    ///
    /// # Errors
    /// [`Error::SessionEnded`] where the session is over before; why, [`finish`](Self::finish) tells. [`Error::Closed`].
    pub fn in_sync(&self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (guard, link) = (self.guard().clone(), self.link().clone());
        async move {
            let call = |ticket, answer| Call::State(StateCall::InSync { link: Some(link), ticket, answer });
            guard.ask_waiting(call).await
        }
    }
}

impl Multifeed {
    /// How the store stands with all its peers now. Every session is asked from the first such call on what its remote has, as by
    /// [`Replication::state`].
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn sync_state(&self) -> Result<StoreSyncState, Error> {
        self.guard().ask(|answer| Call::State(StateCall::Store { answer })).await
    }

    /// Waits until every peer and we hold the same: all sessions that are there, at the same time, are [`in_sync`](crate::Replication::in_sync). While
    /// there is no session it waits for one.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn in_sync(&self) -> Result<(), Error> {
        let call = |ticket, answer| Call::State(StateCall::InSync { link: None, ticket, answer });
        self.guard().ask_waiting(call).await
    }
}

impl Feed {
    /// How the feed stands, over all sessions: what is here and there, in flight, moved (hypercore's `stats`) and how fast. What each session's
    /// remote has of it is told by [`peers`](Self::peers).
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn sync_state(&self) -> Result<FeedSyncState, Error> {
        let feed = self.state.id;
        self.guard.ask(|answer| Call::State(StateCall::Feed { feed, answer })).await
    }
}

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

/// What the store's thread does of these.
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
