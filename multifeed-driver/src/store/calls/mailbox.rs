//! The store's thread's mailbox: the application's calls, and the sessions that have something for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::shared::link::{Link, RungLinks};
use crate::store::calls::Holder;
use crate::store::calls::call::Call;
use crate::store::calls::waiting::Ticket;
use crate::waking::{Waiters, Waking};

/// How long the thread looks for the next call before it sleeps, if the last one came that soon. Waking a thread takes longer than most calls.
const LOOK: Duration = Duration::from_micros(50);

/// Calls wait here in one bounded queue. Sessions do not: each [`Link`] stands in a list of its own at most once, and holds its own
/// bounded events. So a busy session cannot fill the mailbox for the others.
#[derive(Debug)]
pub(crate) struct Mailbox {
    inner: Waking<Inner>,
    /// The sessions that have something for the thread: each link rings itself in here.
    pub(crate) rung: Arc<RungLinks>,
    limit: usize,
    /// The thread looks for a call at this moment.
    looks: AtomicBool,
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
    woken: Arc<Woken>,
    /// Whether another processor can make calls meanwhile.
    can_look: bool,
    /// The last call came soon: the next one may.
    will_look: bool,
}

impl Mail {
    /// For the thread that calls this.
    pub(crate) fn new() -> Self {
        let woken = Arc::new(Woken { thread: thread::current(), since: AtomicBool::new(false) });
        Self {
            calls: VecDeque::new(),
            links: Vec::new(),
            given_up: Vec::new(),
            deserted: Vec::new(),
            waker: Waker::from(woken.clone()),
            woken,
            can_look: thread::available_parallelism().is_ok_and(|processors| processors.get() > 1),
            will_look: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.links.is_empty() && self.given_up.is_empty() && self.deserted.is_empty()
    }
}

/// Wakes a thread that is parked, or looks.
#[derive(Debug)]
struct Woken {
    thread: Thread,
    /// Something came since the thread last began to wait.
    since: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.since.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Mailbox {
    pub(crate) fn new(limit: usize) -> Self {
        Self { inner: Waking::default(), rung: Arc::default(), limit: limit.max(1), looks: AtomicBool::new(false) }
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
        mail.woken.since.store(false, Ordering::Relaxed);
        self.collect(mail);
        if !mail.is_empty() || timeout == Some(Duration::ZERO) {
            return;
        }
        let start = Instant::now();
        if std::mem::take(&mut mail.will_look) {
            self.look(&mail.woken, timeout.map_or(LOOK, |timeout| timeout.min(LOOK)));
            self.collect(mail);
        }
        if mail.is_empty() {
            match timeout {
                Some(timeout) => thread::park_timeout(timeout.saturating_sub(start.elapsed())),
                None => thread::park(),
            }
            self.collect(mail);
        }
        mail.will_look = mail.can_look && !mail.calls.is_empty() && start.elapsed() < LOOK;
    }

    /// Waits for something without sleeping.
    fn look(&self, woken: &Woken, time: Duration) {
        let start = Instant::now();
        self.looks.store(true, Ordering::Relaxed);
        while !woken.since.load(Ordering::Acquire) && start.elapsed() < time {
            std::hint::spin_loop();
        }
        self.looks.store(false, Ordering::Relaxed);
    }

    /// Whether the thread takes a call at once: then the answer to a short one comes sooner than its caller could sleep and be woken.
    pub(crate) fn is_looking(&self) -> bool {
        self.looks.load(Ordering::Relaxed)
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
    fn no_call_is_overlooked_whether_the_thread_looks_or_sleeps() {
        const CALLS: u64 = 20_000;
        let mailbox = Arc::new(Mailbox::new(4));
        let there = mailbox.clone();
        let (taken, done) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let mut mail = Mail::new();
            let (mut count, mut looked) = (0, false);
            while count < CALLS {
                there.take(None, &mut mail);
                looked |= mail.will_look;
                count += mail.calls.drain(..).count() as u64;
                taken.send(count).unwrap();
            }
            looked || !mail.can_look
        });
        for number in 0..CALLS {
            let call = Box::pin(mailbox.call(Holder::Folder, Call::Close))
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(call, Poll::Ready(Ok(()))));
            // Mostly at once; now and then the thread has gone to sleep, or is about to.
            let pause = if number % 64 == 0 { number % 3 * LOOK.as_micros() as u64 / 2 } else { 0 };
            while done.recv_timeout(Duration::from_secs(60)).expect("the thread takes the call") <= number {}
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(pause) {}
        }
        assert!(thread.join().unwrap(), "it never looked");
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
