//! Calls whose answers wait for peers.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use multifeed_core::{FeedId, Place, SetId, WantId};

use crate::error::Error;

use crate::oneshot::{self, Answer};
use crate::store::shared::Guard;

/// Names a call that may have to wait, so that whoever made it can give it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    /// Whose multifeed's handles made the call.
    pub(crate) set: SetId,
    pub(crate) number: u64,
}

/// The answer to such a call. Dropped before it is there, what was asked for is asked for no longer.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    answer: oneshot::Waiting<Result<T, Error>>,
    guard: Arc<Guard>,
    /// `None` once there is nothing to give up.
    ticket: Option<Ticket>,
}

impl<T> Waiting<T> {
    pub(crate) fn new(guard: Arc<Guard>, ticket: Ticket, answer: oneshot::Waiting<Result<T, Error>>) -> Self {
        Self { answer, guard, ticket: Some(ticket) }
    }

    /// Lets it go on without anybody waiting.
    pub(crate) fn detach(mut self) {
        self.ticket = None;
    }
}

impl<T> Future for Waiting<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(cx) else { return Poll::Pending };
        self.ticket = None;
        Poll::Ready(answer.unwrap_or(Err(Error::Closed)))
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.guard.0.store.mailbox.give_up(ticket);
        }
    }
}

/// Who waits for what.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// For a block, and those after it that are there too.
    Blocks { feed: FeedId, index: u64, until: u64, answer: Answer<Result<Vec<Bytes>, Error>> },
    /// For the end of a download.
    Download { answer: Answer<Result<(), Error>> },
    /// For a feed's length.
    Length { feed: FeedId, answer: Answer<Result<u64, Error>> },
    /// For a byte's place.
    Place { answer: Answer<Result<Place, Error>> },
}

/// All that wait, on the store's thread.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    waiters: BTreeMap<WantId, (Ticket, Waiter)>,
    wants: BTreeMap<Ticket, WantId>,
}

impl Waits {
    pub(crate) fn add(&mut self, want: WantId, ticket: Ticket, waiter: Waiter) {
        self.wants.insert(ticket, want);
        self.waiters.insert(want, (ticket, waiter));
    }

    /// Nobody waits any more: the want that is to be taken back, unless the answer was given.
    pub(crate) fn give_up(&mut self, ticket: Ticket) -> Option<WantId> {
        let want = self.wants.remove(&ticket)?;
        self.waiters.remove(&want);
        Some(want)
    }

    /// A multifeed is closed, which all that wait for it hear. Returns what was wanted for it.
    pub(crate) fn close(&mut self, set: SetId) -> Vec<WantId> {
        let tickets = self.wants.keys().filter(|ticket| ticket.set == set).copied().collect::<Vec<_>>();
        tickets.into_iter().filter_map(|ticket| self.give_up(ticket)).collect()
    }

    pub(crate) fn take(&mut self, want: WantId) -> Option<Waiter> {
        let (ticket, waiter) = self.waiters.remove(&want)?;
        self.wants.remove(&ticket);
        Some(waiter)
    }
}
