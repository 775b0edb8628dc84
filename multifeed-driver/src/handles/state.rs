//! How far a sync is, and waiting until both sides hold the same blocks.

use std::future::Future;

use multifeed_core::{FeedSyncState, StoreSyncState, SyncState};

use crate::error::Error;
use crate::handles::feed::Feed;
use crate::handles::multifeed::Multifeed;
use crate::handles::replication::Replication;
use crate::store::calls::call::{Call, StateCall};

impl Replication {
    /// Returns how the session stands now; without asking, [`SyncEvent::Progress`](crate::SyncEvent::Progress) reports each change, the newest only.
    ///
    /// From the first such call on, the session asks the remote what it has of every feed, and the remote announces each of its new
    /// blocks: see [`SyncState`]. That costs a small message each way for each feed that is written here. So the first answers
    /// may leave things out that are missing there.
    ///
    /// # Errors
    /// [`Error::SessionEnded`], [`Error::Closed`].
    pub async fn state(&self) -> Result<SyncState, Error> {
        let link = self.link().clone();
        self.guard().ask(|answer| Call::State(StateCall::Session { link, answer })).await?
    }

    /// Waits until the remote and we hold the same blocks, as [`core::Multifeed::in_sync`](multifeed_core::Multifeed::in_sync) defines it.
    ///
    /// In short: of every feed that both sides agreed to sync, we hold what the remote has, written to the storage. The remote holds what we
    /// have, or was sent it.
    /// Blocks that neither has do not count, nor those that one side gave up, nor does a direction that one side does not take part in
    /// (`download: false`, `upload: false`). In a sparse session we hold what is asked for; a remote that is sparse itself
    /// is in sync only when it holds everything, since nobody knows what it is asked for. A remote that serves nothing does not report what it
    /// has, and counts as having everything once it asked for nothing for 5 s.
    ///
    /// It looks at how things stand: after the next append they are not in sync, and another call waits anew. What was sent
    /// may still be on its way: [`close`](Self::close) and [`finish`](Self::finish) see it through. A session that is not live ends when it
    /// is in sync, and stays it; one that ends because the remote did not answer what it was asked for is not.
    ///
    /// The future does not borrow the session: its events can be taken meanwhile. It does its work without being polled.
    ///
    /// # Errors
    /// [`Error::SessionEnded`] if the session is over before; [`finish`](Self::finish) reports why. [`Error::Closed`].
    pub fn in_sync(&self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (guard, link) = (self.guard().clone(), self.link().clone());
        async move {
            let call = |ticket, answer| Call::State(StateCall::InSync { link: Some(link), ticket, answer });
            guard.ask_waiting(call).await
        }
    }
}

impl Multifeed {
    /// Returns how the store stands with all its peers now. Every session is asked from the first such call on what its remote has, as by
    /// [`Replication::state`].
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn sync_state(&self) -> Result<StoreSyncState, Error> {
        self.guard().ask(|answer| Call::State(StateCall::Store { answer })).await
    }

    /// Waits until every peer and we hold the same blocks: all sessions that are there, at the same time, are [`in_sync`](crate::Replication::in_sync). While
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
    /// Returns how the feed stands, over all sessions: what is here and there, in flight, moved (hypercore's `stats`) and how fast.
    /// [`peers`](Self::peers) returns what each session's remote has of it.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn sync_state(&self) -> Result<FeedSyncState, Error> {
        let feed = self.state.id;
        self.guard.ask(|answer| Call::State(StateCall::Feed { feed, answer })).await
    }
}
