//! The memory that waits to be sent, over all sessions of a process.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::task::{Context, Waker};

use crate::lock;

/// Bytes that sessions share by default.
const DEFAULT_BYTES: usize = 48 * 1024 * 1024;

/// Shares change by multiples of this, so that not every write asks.
const STEP: usize = 64 * 1024;

/// Bounds the bytes that wait to be sent, over all sessions that share it.
///
/// Each session has [`PumpOptions::send_bytes`](crate::PumpOptions::send_bytes) of its own, so that small answers always get through. A larger
/// block waits for a share of this budget before it is read from the disk. Of the sessions that wait, the one that came first and the one that
/// came last are next by turns: so each has its turn, and few wait for a long queue of remotes that read nothing. A session that holds a share and
/// whose remote takes too little ends if others wait: see [`PumpOptions::send_rate`](crate::PumpOptions::send_rate).
///
/// Clones are the same budget. [`SendBudget::default`] is the one of the process, of 48 MiB.
#[derive(Clone)]
pub struct SendBudget(Arc<Inner>);

struct Inner {
    bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: usize,
    /// Who waits for a larger share, in the order in which they came.
    queue: VecDeque<Waiter>,
    /// Whether the one that came last is next.
    last_first: bool,
    next: u64,
}

struct Waiter {
    id: u64,
    more: usize,
    waker: Waker,
}

impl SendBudget {
    /// Makes a budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Inner { bytes, state: Mutex::default() }))
    }

    /// The bytes that there are in all.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// The bytes that sessions hold now, beyond what each has of its own.
    pub fn used(&self) -> usize {
        lock(&self.0.state).used
    }

    /// The sessions that wait for a share.
    pub fn waiting(&self) -> usize {
        lock(&self.0.state).queue.len()
    }

    /// A session's share, of nothing.
    pub(crate) fn share(&self) -> SendShare {
        let mut state = lock(&self.0.state);
        state.next += 1;
        SendShare { budget: self.clone(), id: state.next, held: 0, waits: false }
    }
}

impl Default for SendBudget {
    fn default() -> Self {
        static PROCESS: LazyLock<SendBudget> = LazyLock::new(|| SendBudget::new(DEFAULT_BYTES));
        PROCESS.clone()
    }
}

impl fmt::Debug for SendBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBudget").field("bytes", &self.0.bytes).field("used", &self.used()).finish_non_exhaustive()
    }
}

impl State {
    fn first(&self) -> Option<&Waiter> {
        if self.last_first { self.queue.back() } else { self.queue.front() }
    }
}

/// What one session holds of a budget. It is given back when this is dropped.
pub(crate) struct SendShare {
    budget: SendBudget,
    id: u64,
    held: usize,
    waits: bool,
}

impl SendShare {
    /// Whether it holds this many bytes now. If there is no room, or others wait, it waits in turn, and the task is woken to try again.
    pub(crate) fn reserve(&mut self, bytes: usize, cx: &Context<'_>) -> bool {
        let bytes = self.round(bytes);
        if bytes <= self.held {
            self.leave();
            return true;
        }
        let more = bytes - self.held;
        let mut state = lock(&self.budget.0.state);
        match state.queue.iter_mut().find(|waiter| waiter.id == self.id) {
            Some(waiter) => {
                waiter.more = more;
                waiter.waker.clone_from(cx.waker());
            }
            None => state.queue.push_back(Waiter { id: self.id, more, waker: cx.waker().clone() }),
        }
        let waited = std::mem::replace(&mut self.waits, true);
        let is_first = state.first().is_some_and(|first| first.id == self.id);
        if !is_first || state.used + more > self.budget.0.bytes {
            return false;
        }
        state.queue.retain(|waiter| waiter.id != self.id);
        if waited {
            state.last_first = !state.last_first;
        }
        state.used += more;
        self.held = bytes;
        self.waits = false;
        wake_first(state, self.budget.0.bytes);
        true
    }

    /// Gives back what it holds beyond this.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let bytes = self.round(bytes);
        if bytes < self.held {
            let mut state = lock(&self.budget.0.state);
            state.used -= self.held - bytes;
            self.held = bytes;
            wake_first(state, self.budget.0.bytes);
        }
    }

    /// Takes as many bytes if they are free and nobody waits. Whether it holds them.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let bytes = self.round(bytes);
        if bytes > self.held {
            let mut state = lock(&self.budget.0.state);
            let more = bytes - self.held;
            if !state.queue.is_empty() || state.used + more > self.budget.0.bytes {
                return false;
            }
            state.used += more;
            self.held = bytes;
        }
        true
    }

    /// It waits no more.
    pub(crate) fn leave(&mut self) {
        if std::mem::take(&mut self.waits) {
            let mut state = lock(&self.budget.0.state);
            state.queue.retain(|waiter| waiter.id != self.id);
            wake_first(state, self.budget.0.bytes);
        }
    }

    /// The bytes that it holds.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Whether others wait.
    pub(crate) fn is_in_demand(&self) -> bool {
        self.budget.waiting() > usize::from(self.waits)
    }

    /// One that is larger than the whole budget gets it alone.
    fn round(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(STEP).min(self.budget.0.bytes)
    }
}

impl Drop for SendShare {
    fn drop(&mut self) {
        let mut state = lock(&self.budget.0.state);
        state.used -= self.held;
        state.queue.retain(|waiter| waiter.id != self.id);
        wake_first(state, self.budget.0.bytes);
    }
}

/// Wakes who is first, if there is room for it; it then takes its share, and wakes the next.
fn wake_first(state: MutexGuard<'_, State>, bytes: usize) {
    let first = state.first().filter(|first| state.used + first.more <= bytes);
    let waker = first.map(|first| first.waker.clone());
    drop(state);
    waker.into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_came_first_and_who_came_last_are_next_by_turns() {
        let budget = SendBudget::new(4 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let count = Arc::new(Count::default());
        let waker = count.clone().into();
        let counted = &Context::from_waker(&waker);
        let [mut a, mut b, mut c, mut d] = [(); 4].map(|()| budget.share());
        assert!(a.reserve(4 * STEP, cx) && !a.is_in_demand());
        assert!(!b.reserve(3 * STEP, counted) && !c.reserve(3 * STEP, cx) && !d.reserve(3 * STEP, counted));
        assert!(a.is_in_demand() && !a.grow(5 * STEP - 1) || a.held() == 4 * STEP);
        a.keep(2 * STEP);
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "there is no room for any yet");
        a.keep(0);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(!d.reserve(3 * STEP, counted) && b.reserve(3 * STEP, counted), "who came first");
        drop(b);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(!c.reserve(3 * STEP, cx) && d.reserve(3 * STEP, counted), "who came last");
        drop(d);
        assert!(c.reserve(3 * STEP, cx));
        drop((a, c));
        assert_eq!((budget.used(), budget.waiting()), (0, 0));
    }

    #[test]
    fn nobody_grows_while_others_wait_and_who_leaves_makes_way() {
        let budget = SendBudget::new(4 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let [mut a, mut b, mut c] = [(); 3].map(|()| budget.share());
        assert!(a.grow(2 * STEP) && !b.grow(3 * STEP) && !b.reserve(3 * STEP, cx));
        assert!(!a.grow(3 * STEP) && !c.grow(1), "another waits");
        b.leave();
        assert!(c.grow(1) && a.grow(3 * STEP));
        assert_eq!(budget.used(), 4 * STEP);
        assert!(!b.reserve(STEP, cx));
        drop(b);
        assert_eq!(budget.waiting(), 0);
    }

    #[test]
    fn what_is_larger_than_all_of_it_gets_it_alone() {
        let budget = SendBudget::new(4 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let [mut a, mut b] = [(); 2].map(|()| budget.share());
        assert!(a.reserve(STEP, cx) && !b.reserve(100 * STEP, cx));
        a.keep(0);
        assert!(b.reserve(100 * STEP, cx) && !a.reserve(1, cx));
        assert_eq!(budget.used(), 4 * STEP);
    }

    /// However sessions ask and give back, the sum holds, and everybody is served.
    #[test]
    fn everybody_is_served() {
        let budget = SendBudget::new(20 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let mut shares: Vec<_> = (0..100).map(|_| (budget.share(), 0)).collect();
        for round in 0..100_000usize {
            let at = (round * 7919) % shares.len();
            let Some((share, served)) = shares.get_mut(at) else { continue };
            if share.reserve((1 + at % 12) * STEP, cx) {
                *served += 1;
                share.keep(0);
            }
            assert!(budget.used() <= budget.bytes());
        }
        assert!(shares.iter().all(|(_, served)| *served > 5));
    }
}
