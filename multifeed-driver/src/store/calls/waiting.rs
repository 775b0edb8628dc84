//! A call that may have to wait for a peer, as the caller sees it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use multifeed_core::SetId;

use crate::error::Error;
use crate::oneshot;
use crate::store::calls::Guard;

/// How long to wait for what peers have to bring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wait {
    /// For how long at the most; without end by default.
    pub timeout: Option<Duration>,
    /// Only until every session that is there has reported what it has, and none of them can bring it.
    pub if_available: bool,
}

impl Wait {
    /// Waits for at most this long.
    pub fn at_most(timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..Self::default() }
    }

    /// Waits only for sessions that are there and may have it.
    pub fn if_available() -> Self {
        Self { if_available: true, ..Self::default() }
    }
}

/// Names a call that may have to wait, so that its caller can give it up.
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
