//! The store's thread's mailbox: the application's calls, and the sessions that have something for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::error::Error;
use crate::shared::link::{Link, RungLinks};
use crate::store::calls::Holder;
use crate::store::calls::call::Call;
use crate::store::calls::waiting::Ticket;
use crate::waking::{Waiters, Waking};

/// Calls wait here in one bounded queue. Sessions do not: each [`Link`] stands in a list of its own at most once, and holds its own
/// bounded events. So a busy session cannot fill the mailbox for the others.
#[derive(Debug)]
pub(crate) struct Mailbox {
    inner: Waking<Inner>,
    /// The sessions that have something for the thread: each link rings itself in here.
    pub(crate) rung: Arc<RungLinks>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Inner {
    calls: VecDeque<(Holder, Call)>,
    /// Callers that found the queue full. All are woken when it is emptied, so one that gave up costs nobody its turn.
    callers: Waiters,
    /// Accepted calls whose answers nobody waits for any more: at most as many as are unanswered.
    given_up: Vec<Ticket>,
    /// Those whose last handle was dropped.
    deserted: Vec<Holder>,
    /// No calls are accepted any more.
    closed: bool,
    /// The thread is gone.
    gone: bool,
}

/// What the store's thread takes of its mailbox, and wakes by.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) calls: VecDeque<(Holder, Call)>,
    pub(crate) links: Vec<Arc<Link>>,
    pub(crate) given_up: Vec<Ticket>,
    /// Those whose last handle was dropped, each once.
    pub(crate) deserted: Vec<Holder>,
    waker: Waker,
}

impl Mail {
    /// For the thread that calls this.
    pub(crate) fn new() -> Self {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        Self { calls: VecDeque::new(), links: Vec::new(), given_up: Vec::new(), deserted: Vec::new(), waker }
    }

    fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.links.is_empty() && self.given_up.is_empty() && self.deserted.is_empty()
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Mailbox {
    pub(crate) fn new(limit: usize) -> Self {
        Self { inner: Waking::default(), rung: Arc::default(), limit: limit.max(1) }
    }

    /// Puts a call into the queue, waiting while it is full. Once this is ready the call is accepted, and will be done.
    pub(crate) async fn call(&self, holder: Holder, call: Call) -> Result<(), Error> {
        let mut call = Some((holder, call));
        poll_fn(|cx| {
            self.inner.change_if(|inner| {
                if inner.closed {
                    return (Poll::Ready(Err(Error::Closed)), false);
                }
                if inner.calls.len() >= self.limit {
                    inner.callers.add(cx);
                    return (Poll::Pending, false);
                }
                inner.calls.extend(call.take());
                (Poll::Ready(Ok(())), true)
            })
        })
        .await
    }

    /// Nobody waits any more for what a call asked for. What is done is done; what waits for a peer is asked for no longer.
    pub(crate) fn give_up(&self, ticket: Ticket) {
        self.inner.change(|inner| {
            if !inner.gone {
                inner.given_up.push(ticket);
            }
        });
    }

    /// A holder's last handle was dropped.
    pub(crate) fn desert(&self, holder: Holder) {
        self.inner.change(|inner| inner.deserted.push(holder));
    }

    /// Takes all that is there. If there is nothing, waits for something, at most for this long.
    pub(crate) fn take(&self, timeout: Option<Duration>, mail: &mut Mail) {
        self.collect(mail);
        if mail.is_empty() && timeout != Some(Duration::ZERO) {
            match timeout {
                Some(timeout) => thread::park_timeout(timeout),
                None => thread::park(),
            }
            self.collect(mail);
        }
    }

    /// Takes all that is there. The thread is woken by what comes next.
    fn collect(&self, mail: &mut Mail) {
        let cx = Context::from_waker(&mail.waker);
        let callers = self.inner.watch(&cx, |inner| {
            mail.calls.append(&mut inner.calls);
            mail.given_up.append(&mut inner.given_up);
            mail.deserted.append(&mut inner.deserted);
            inner.callers.take()
        });
        // After the calls: a session that began before a call is known no later than that.
        self.rung.take(&cx, &mut mail.links);
        callers.wake();
    }

    /// Whether calls wait.
    pub(crate) fn has_calls(&self) -> bool {
        self.inner.with(|inner| !inner.calls.is_empty())
    }

    /// Accepts no further call. What was accepted stays in the queue.
    pub(crate) fn close(&self) {
        let callers = self.inner.with(|inner| {
            inner.closed = true;
            inner.callers.take()
        });
        callers.wake();
    }

    /// The thread ends. What still waits is dropped, and its callers see that; the sessions are handed back.
    pub(crate) fn leave(&self) -> Vec<Arc<Link>> {
        self.close();
        let calls = self.inner.with(|inner| {
            inner.gone = true;
            std::mem::take(&mut inner.calls)
        });
        drop(calls);
        self.rung.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_bounded_and_told_of_the_end() {
        let mailbox = Mailbox::new(1);
        let mut cx = Context::from_waker(Waker::noop());
        let (mut first, mut second) =
            (Box::pin(mailbox.call(Holder::Folder, Call::Close)), Box::pin(mailbox.call(Holder::Folder, Call::Close)));
        assert!(matches!(first.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
        assert!(second.as_mut().poll(&mut cx).is_pending());
        let mut mail = Mail::new();
        mailbox.take(None, &mut mail);
        assert_eq!(mail.calls.len(), 1);
        assert!(matches!(second.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
        mailbox.close();
        let mut third = Box::pin(mailbox.call(Holder::Folder, Call::Close));
        assert!(matches!(third.as_mut().poll(&mut cx), Poll::Ready(Err(Error::Closed))));
        mailbox.take(None, &mut mail);
        assert_eq!(mail.calls.len(), 2, "what was accepted is still there");
    }

    #[test]
    fn being_deserted_wakes_once() {
        let mailbox = Mailbox::new(1);
        let mut mail = Mail::new();
        mailbox.desert(Holder::Folder);
        mailbox.take(None, &mut mail);
        assert_eq!(std::mem::take(&mut mail.deserted), [Holder::Folder]);
        mailbox.take(Some(Duration::from_millis(1)), &mut mail);
        assert_eq!(mail.deserted, []);
    }
}
