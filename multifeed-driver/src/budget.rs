//! The memory that messages which are arriving take, over all sessions of a process.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Waker};

use crate::lock;

/// Bytes that sessions share by default.
const DEFAULT_BYTES: usize = 64 * 1024 * 1024;

/// Shares change by multiples of this, so that not every read asks.
const STEP: usize = 64 * 1024;

/// Bounds the bytes of large messages that sessions have received and not handed on: of those that are arriving, or wait for a store.
///
/// Each session has [`PumpOptions::receive_bytes`](crate::PumpOptions::receive_bytes) of its own, so that small messages always get through.
/// For more it takes a share of this budget, which is large enough for the whole message, before it reads on. Shares are given in the order in
/// which they were asked for. A session that waits holds no part of its message's share, so none waits for another in a circle. One whose
/// remote brings its message too slowly ends if others wait: see
/// [`PumpOptions::receive_rate`](crate::PumpOptions::receive_rate).
///
/// Clones are the same budget. [`ReceiveBudget::default`] is the one of the process, of 64 MiB.
#[derive(Clone)]
pub struct ReceiveBudget(Arc<Inner>);

struct Inner {
    bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: usize,
    /// Who waits for a larger share, first come first.
    queue: VecDeque<Waiter>,
    next: u64,
}

struct Waiter {
    id: u64,
    more: usize,
    waker: Waker,
}

impl ReceiveBudget {
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
    pub(crate) fn share(&self) -> Share {
        let mut state = lock(&self.0.state);
        state.next += 1;
        Share { budget: self.clone(), id: state.next, held: 0, waits: false }
    }
}

impl Default for ReceiveBudget {
    fn default() -> Self {
        static PROCESS: LazyLock<ReceiveBudget> = LazyLock::new(|| ReceiveBudget::new(DEFAULT_BYTES));
        PROCESS.clone()
    }
}

impl fmt::Debug for ReceiveBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveBudget")
            .field("bytes", &self.0.bytes)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

/// What one session holds of a budget. It is given back when this is dropped.
pub(crate) struct Share {
    budget: ReceiveBudget,
    id: u64,
    held: usize,
    waits: bool,
}

impl Share {
    /// Whether the share covers this many bytes now. What it holds beyond them it gives back; for more it waits in turn, and wakes the task
    /// when it may try again. While it waits it holds no more than `pinned`, which the store takes without it.
    pub(crate) fn covers(&mut self, bytes: usize, pinned: usize, cx: &Context<'_>) -> bool {
        // One that is larger than the whole budget gets it alone.
        let round = |bytes: usize| bytes.next_multiple_of(STEP).min(self.budget.0.bytes);
        let (bytes, pinned) = (round(bytes), round(pinned));
        if bytes == self.held && !self.waits {
            return true;
        }
        let mut state = lock(&self.budget.0.state);
        let place = state.queue.iter().position(|waiter| waiter.id == self.id);
        if bytes <= self.held {
            state.used -= self.held - bytes;
            self.held = bytes;
            place.map(|place| state.queue.remove(place));
            self.waits = false;
            wake_first(state, self.budget.0.bytes);
            return true;
        }
        let more = bytes - self.held;
        if place.unwrap_or(state.queue.len()) == 0 && state.used + more <= self.budget.0.bytes {
            state.used += more;
            self.held = bytes;
            place.map(|place| state.queue.remove(place));
            self.waits = false;
            wake_first(state, self.budget.0.bytes);
            return true;
        }
        self.waits = true;
        let held = self.held.min(pinned);
        let gives_back = held < self.held;
        state.used -= self.held - held;
        self.held = held;
        let more = bytes - held;
        match place.and_then(|place| state.queue.get_mut(place)) {
            Some(waiter) => {
                waiter.more = more;
                waiter.waker.clone_from(cx.waker());
            }
            None => state.queue.push_back(Waiter { id: self.id, more, waker: cx.waker().clone() }),
        }
        if gives_back {
            wake_first(state, self.budget.0.bytes);
        }
        false
    }

    /// Whether it waits for its turn; nothing is read until then.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// Whether it has to know when the store took something.
    pub(crate) fn is_involved(&self) -> bool {
        self.held > 0 || self.waits
    }

    /// Whether it holds what it asked for, and that is something.
    pub(crate) fn is_held(&self) -> bool {
        self.held > 0 && !self.waits
    }

    /// Whether it holds something that others wait for.
    pub(crate) fn is_in_demand(&self) -> bool {
        self.held > 0 && self.budget.waiting() > usize::from(self.waits)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = lock(&self.budget.0.state);
        state.used -= self.held;
        state.queue.retain(|waiter| waiter.id != self.id);
        wake_first(state, self.budget.0.bytes);
    }
}

/// Wakes who is first, if there is room for it; it then takes its share, and wakes the next.
fn wake_first(state: std::sync::MutexGuard<'_, State>, bytes: usize) {
    let first = state.queue.front().filter(|first| state.used + first.more <= bytes);
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

    fn waker() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), count.into())
    }

    #[test]
    fn shares_are_given_in_turn_and_given_back() {
        let budget = ReceiveBudget::new(10 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let (woken, waker) = waker();
        let waiting = &Context::from_waker(&waker);
        let [mut a, mut b, mut c, mut d] = [(); 4].map(|()| budget.share());
        assert!(a.covers(8 * STEP - 1, 0, cx) && a.covers(8 * STEP, 0, cx));
        assert!(!b.covers(3 * STEP, 0, waiting), "there is room for two");
        assert!(!c.covers(1, 0, cx), "it would fit, but another waits");
        assert_eq!((budget.used(), budget.waiting()), (8 * STEP, 2));
        assert!(a.is_in_demand() && !b.is_in_demand());
        assert!(a.covers(8 * STEP, 0, cx), "who has what it needs asks for nothing");

        assert!(a.covers(7 * STEP, 0, cx));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(b.covers(3 * STEP, 0, cx));
        assert!(!c.covers(1, 0, waiting) && !d.covers(1, 0, cx));
        drop(b);
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        assert!(c.covers(1, 0, cx) && d.covers(1, 0, cx));
        drop((a, c, d));
        assert_eq!((budget.used(), budget.waiting()), (0, 0));
    }

    #[test]
    fn who_needs_no_more_or_ends_leaves_the_queue() {
        let budget = ReceiveBudget::new(4 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let (woken, waker) = waker();
        let [mut a, mut b, mut c] = [(); 3].map(|()| budget.share());
        assert!(a.covers(3 * STEP, 0, cx));
        assert!(!b.covers(4 * STEP, 0, cx) && !c.covers(STEP, 0, &Context::from_waker(&waker)));
        assert!(b.covers(0, 0, cx));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "the next is first now, and there is room");
        assert!(c.covers(STEP, 0, cx));
        assert!(!b.covers(STEP, 0, cx));
        drop(b);
        assert_eq!(budget.waiting(), 0);
    }

    #[test]
    fn what_is_larger_than_all_of_it_gets_it_alone() {
        let budget = ReceiveBudget::new(4 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let [mut a, mut b] = [(); 2].map(|()| budget.share());
        assert!(a.covers(STEP, 0, cx) && !b.covers(100 * STEP, 0, cx));
        assert!(a.covers(0, 0, cx));
        assert!(b.covers(100 * STEP, 0, cx) && !a.covers(1, 0, cx));
        assert_eq!(budget.used(), 4 * STEP);
    }

    /// Who waits for a message's share holds none of it, so that sessions with events that wait cannot lock each other out.
    #[test]
    fn who_waits_keeps_no_more_than_what_its_store_will_take() {
        let budget = ReceiveBudget::new(4 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let [mut a, mut b] = [(); 2].map(|()| budget.share());
        assert!(a.covers(2 * STEP, 2 * STEP, cx) && b.covers(2 * STEP, 2 * STEP, cx));
        assert!(!a.covers(4 * STEP, 2 * STEP, cx) && !b.covers(4 * STEP, 2 * STEP, cx));
        assert_eq!(budget.used(), 4 * STEP);
        // Both stores took what was there.
        assert!(!a.covers(3 * STEP, 0, cx) && !b.covers(3 * STEP, 0, cx));
        assert_eq!(budget.used(), 0);
        assert!(a.covers(3 * STEP, 0, cx) && !b.covers(3 * STEP, 0, cx));
    }

    /// However sessions ask and give back, the sum holds, and everybody is served in the end.
    #[test]
    fn everybody_is_served() {
        let budget = ReceiveBudget::new(20 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let mut shares: Vec<_> = (0..100).map(|_| (budget.share(), 0)).collect();
        for round in 0..10_000usize {
            let at = (round * 7919) % shares.len();
            let Some((share, served)) = shares.get_mut(at) else { continue };
            if share.covers((1 + at % 12) * STEP, 0, cx) {
                *served += 1;
                assert!(share.covers(0, 0, cx));
            }
            assert!(budget.used() <= budget.bytes());
        }
        assert!(shares.iter().all(|(_, served)| *served > 5));
    }
}
