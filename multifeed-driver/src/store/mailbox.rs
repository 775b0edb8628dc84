//! The store's thread's mailbox: the application's calls, and the sessions that have something for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::error::Error;
use crate::lock;
use crate::store::call::Call;
use crate::store::shared::Holder;
use crate::store::waits::Ticket;
use crate::stream::link::Link;

/// Calls wait here in one bounded queue. Sessions do not: each [`Link`] stands in the list at most once, and holds its own
/// bounded events, so that a busy session cannot fill the mailbox for the others.
#[derive(Debug)]
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    something: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct Inner {
    calls: VecDeque<(Holder, Call)>,
    /// Callers that found the queue full. All are woken when it is emptied, so one that gave up costs nobody its turn.
    callers: Vec<Waker>,
    links: Vec<Arc<Link>>,
    /// Accepted calls whose answers nobody waits for any more: at most as many as are unanswered.
    given_up: Vec<Ticket>,
    /// Those whose last handle was dropped.
    deserted: Vec<Holder>,
    /// No calls are accepted any more.
    closed: bool,
    /// The thread is gone.
    gone: bool,
    /// The thread waits: only then is a wake-up worth a system call.
    asleep: bool,
}

impl Mailbox {
    pub(crate) fn new(limit: usize) -> Self {
        Self { inner: Mutex::default(), something: Condvar::new(), limit: limit.max(1) }
    }

    /// Puts a call into the queue, waiting while it is full. Once this is ready the call is accepted, and will be done.
    pub(crate) async fn call(&self, holder: Holder, call: Call) -> Result<(), Error> {
        let mut call = Some((holder, call));
        poll_fn(|cx| {
            let mut inner = lock(&self.inner);
            if inner.closed {
                return Poll::Ready(Err(Error::Closed));
            }
            if inner.calls.len() >= self.limit {
                inner.callers.push(cx.waker().clone());
                return Poll::Pending;
            }
            inner.calls.extend(call.take());
            self.wake(inner);
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Nobody waits any more for what a call asked for. What is done is done; what waits for a peer is asked for no longer.
    pub(crate) fn give_up(&self, ticket: Ticket) {
        let mut inner = lock(&self.inner);
        if !inner.gone {
            inner.given_up.push(ticket);
            self.wake(inner);
        }
    }

    /// A session has events, credit, or its end for the store. False where there is no store any more.
    pub(crate) fn ring(&self, link: Arc<Link>) -> bool {
        let mut inner = lock(&self.inner);
        if inner.gone {
            return false;
        }
        inner.links.push(link);
        self.wake(inner);
        true
    }

    /// A holder's last handle was dropped.
    pub(crate) fn desert(&self, holder: Holder) {
        let mut inner = lock(&self.inner);
        inner.deserted.push(holder);
        self.wake(inner);
    }

    /// Waits until something is there, at most for this long, and takes all of it. Returns those whose last handle was dropped, each once.
    pub(crate) fn take(
        &self,
        timeout: Option<Duration>,
        calls: &mut VecDeque<(Holder, Call)>,
        links: &mut Vec<Arc<Link>>,
        given_up: &mut Vec<Ticket>,
    ) -> Vec<Holder> {
        let mut inner = lock(&self.inner);
        let nothing = inner.calls.is_empty() && inner.links.is_empty() && inner.given_up.is_empty();
        let idle = nothing && inner.deserted.is_empty();
        if idle && timeout != Some(Duration::ZERO) {
            inner.asleep = true;
            inner = match timeout {
                Some(timeout) => match self.something.wait_timeout_while(inner, timeout, |inner| inner.asleep) {
                    Ok((inner, _)) => inner,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => match self.something.wait_while(inner, |inner| inner.asleep) {
                    Ok(inner) => inner,
                    Err(poisoned) => poisoned.into_inner(),
                },
            };
            inner.asleep = false;
        }
        calls.append(&mut inner.calls);
        links.append(&mut inner.links);
        given_up.append(&mut inner.given_up);
        let callers = std::mem::take(&mut inner.callers);
        let deserted = std::mem::take(&mut inner.deserted);
        drop(inner);
        callers.into_iter().for_each(Waker::wake);
        deserted
    }

    /// Whether calls wait.
    pub(crate) fn has_calls(&self) -> bool {
        !lock(&self.inner).calls.is_empty()
    }

    /// Accepts no further call. What was accepted stays in the queue.
    pub(crate) fn close(&self) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        let callers = std::mem::take(&mut inner.callers);
        drop(inner);
        callers.into_iter().for_each(Waker::wake);
    }

    /// The thread ends. What still waits is dropped, which tells its callers; the sessions are handed back.
    pub(crate) fn leave(&self) -> Vec<Arc<Link>> {
        self.close();
        let mut inner = lock(&self.inner);
        inner.gone = true;
        let calls = std::mem::take(&mut inner.calls);
        let links = std::mem::take(&mut inner.links);
        drop(inner);
        drop(calls);
        links
    }

    /// Lets the thread sleep no longer.
    fn wake(&self, mut inner: MutexGuard<'_, Inner>) {
        if inner.asleep {
            inner.asleep = false;
            drop(inner);
            self.something.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use super::*;

    #[test]
    fn calls_are_bounded_and_told_of_the_end() {
        let mailbox = Mailbox::new(1);
        let mut cx = Context::from_waker(Waker::noop());
        let (mut first, mut second) =
            (Box::pin(mailbox.call(Holder::Folder, Call::Close)), Box::pin(mailbox.call(Holder::Folder, Call::Close)));
        assert!(matches!(first.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
        assert!(second.as_mut().poll(&mut cx).is_pending());
        let (mut calls, mut links) = (VecDeque::new(), Vec::new());
        mailbox.take(None, &mut calls, &mut links, &mut Vec::new());
        assert_eq!(calls.len(), 1);
        assert!(matches!(second.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
        mailbox.close();
        let mut third = Box::pin(mailbox.call(Holder::Folder, Call::Close));
        assert!(matches!(third.as_mut().poll(&mut cx), Poll::Ready(Err(Error::Closed))));
        mailbox.take(None, &mut calls, &mut links, &mut Vec::new());
        assert_eq!(calls.len(), 2, "what was accepted is still there");
    }

    #[test]
    fn being_deserted_wakes_once() {
        let mailbox = Mailbox::new(1);
        let (mut calls, mut links) = (VecDeque::new(), Vec::new());
        mailbox.desert(Holder::Folder);
        assert_eq!(mailbox.take(None, &mut calls, &mut links, &mut Vec::new()), [Holder::Folder]);
        assert_eq!(mailbox.take(Some(Duration::from_millis(1)), &mut calls, &mut links, &mut Vec::new()), []);
    }
}
