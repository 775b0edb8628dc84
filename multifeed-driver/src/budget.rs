//! The memory of large messages, over all sessions of a process.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::task::{Context, Waker};

use crate::lock;

/// Bytes of large messages that are arriving, over all sessions, by default.
const RECEIVED: usize = 64 * 1024 * 1024;

/// Bytes of large blocks that wait to be sent, over all sessions, by default.
const SENT: usize = 48 * 1024 * 1024;

/// Shares change by multiples of this, so that not every read or write asks.
const STEP: usize = 64 * 1024;

/// Bounds the bytes of large messages in one direction, over all sessions that share it.
///
/// Each session has bytes of its own, so that small messages always get through: see
/// [`PumpOptions::receive_bytes`](crate::PumpOptions::receive_bytes) and [`PumpOptions::send_bytes`](crate::PumpOptions::send_bytes). A larger
/// message waits for a share that is large enough for all of it.
///
/// - Sessions with the same [`Replicate::source`](crate::Replicate::source), such as an address, have at most half of the budget together, if
///   they are more than one.
/// - Of the sources that wait, the one that holds least is next. Of the sessions of that one, or of several, the first and the last
///   that came are next by turns. So each has its turn, and few wait for a long queue.
/// - A session that holds a share and does not get on ends if others wait: see
///   [`PumpOptions::receive_rate`](crate::PumpOptions::receive_rate) and [`PumpOptions::send_rate`](crate::PumpOptions::send_rate).
///
/// Clones are the same budget.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: usize,
    /// What each source holds, if that is anything.
    held: BTreeMap<Source, usize>,
    /// Who waits for a larger share, in the order in which they came.
    queue: VecDeque<Waiter>,
    /// Whether of several the one that came last is next.
    last_first: bool,
    next: u64,
}

/// Who counts as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// All sessions of this name.
    Named(Arc<str>),
    /// One session.
    Alone(u64),
}

struct Waiter {
    id: u64,
    source: Source,
    /// What it holds.
    held: usize,
    more: usize,
    waker: Waker,
}

impl Budget {
    /// Makes a budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Inner { bytes, state: Mutex::default() }))
    }

    /// Returns the budget for what arrives that sessions of the process share by default.
    pub(crate) fn received() -> Self {
        static PROCESS: LazyLock<Budget> = LazyLock::new(|| Budget::new(RECEIVED));
        PROCESS.clone()
    }

    /// Returns the budget for what is sent that sessions of the process share by default.
    pub(crate) fn sent() -> Self {
        static PROCESS: LazyLock<Budget> = LazyLock::new(|| Budget::new(SENT));
        PROCESS.clone()
    }

    /// Returns the bytes that there are in all.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Returns the bytes that sessions hold now, beyond what each has of its own.
    pub fn used(&self) -> usize {
        lock(&self.0.state).used
    }

    /// Returns how many sessions wait for a share.
    pub fn waiting(&self) -> usize {
        lock(&self.0.state).queue.len()
    }

    /// A session's share, of nothing.
    pub(crate) fn share(&self, source: Option<&str>) -> Share {
        let mut state = lock(&self.0.state);
        state.next += 1;
        let id = state.next;
        let source = source.map_or(Source::Alone(id), |name| Source::Named(name.into()));
        Share { budget: self.clone(), id, source, held: 0, waits: false }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("bytes", &self.0.bytes).field("used", &self.used()).finish_non_exhaustive()
    }
}

impl State {
    fn held_by(&self, source: &Source) -> usize {
        self.held.get(source).copied().unwrap_or(0)
    }

    /// Whether a session's source would have more than its part with so much more. One session may have all.
    fn is_past_part(&self, source: &Source, held: usize, more: usize, bytes: usize) -> bool {
        let sum = self.held_by(source);
        sum > held && sum + more > bytes / 2
    }

    fn may_have(&self, waiter: &Waiter, bytes: usize) -> bool {
        !self.is_past_part(&waiter.source, waiter.held, waiter.more, bytes)
    }

    /// Who is next. Only what its own source holds is passed over.
    fn first(&self, bytes: usize) -> Option<&Waiter> {
        let able = || self.queue.iter().filter(|waiter| self.may_have(waiter, bytes));
        let held = |waiter: &&Waiter| self.held_by(&waiter.source);
        if self.last_first { able().rev().min_by_key(held) } else { able().min_by_key(held) }
    }

    fn add(&mut self, source: &Source, more: usize) {
        self.used += more;
        *self.held.entry(source.clone()).or_default() += more;
    }

    fn take(&mut self, source: &Source, less: usize) {
        self.used -= less;
        if let Some(held) = self.held.get_mut(source) {
            *held -= less;
            if *held == 0 {
                self.held.remove(source);
            }
        }
    }
}

/// What one session holds of a budget. It is given back when this is dropped.
pub(crate) struct Share {
    budget: Budget,
    id: u64,
    source: Source,
    held: usize,
    waits: bool,
}

impl Share {
    /// Whether it holds this many bytes now. If there is no room, or another is next, it waits, and the task is woken to try again.
    pub(crate) fn reserve(&mut self, bytes: usize, cx: &Context<'_>) -> bool {
        let bytes = self.round(bytes);
        if bytes <= self.held {
            self.leave();
            return true;
        }
        let more = bytes - self.held;
        let all = self.budget.0.bytes;
        let mut state = lock(&self.budget.0.state);
        match state.queue.iter_mut().find(|waiter| waiter.id == self.id) {
            Some(waiter) => {
                (waiter.held, waiter.more) = (self.held, more);
                waiter.waker.clone_from(cx.waker());
            }
            None => {
                let (id, source, held, waker) = (self.id, self.source.clone(), self.held, cx.waker().clone());
                state.queue.push_back(Waiter { id, source, held, more, waker });
            }
        }
        let waited = std::mem::replace(&mut self.waits, true);
        let is_first = state.first(all).is_some_and(|first| first.id == self.id);
        let gets_it = is_first && state.used + more <= all;
        if gets_it {
            state.queue.retain(|waiter| waiter.id != self.id);
            state.last_first ^= waited;
            state.add(&self.source, more);
            self.held = bytes;
            self.waits = false;
        }
        wake_first(state, all, self.id);
        gets_it
    }

    /// Gives back what it holds beyond this.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let bytes = self.round(bytes);
        if bytes < self.held {
            let mut state = lock(&self.budget.0.state);
            state.take(&self.source, self.held - bytes);
            self.held = bytes;
            if let Some(waiter) = state.queue.iter_mut().find(|waiter| waiter.id == self.id) {
                waiter.held = bytes;
            }
            wake_first(state, self.budget.0.bytes, self.id);
        }
    }

    /// Takes as many bytes if they are free and nobody waits that could have them. Whether it holds them.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let bytes = self.round(bytes);
        if bytes > self.held {
            let all = self.budget.0.bytes;
            let mut state = lock(&self.budget.0.state);
            let more = bytes - self.held;
            let is_past = state.is_past_part(&self.source, self.held, more, all);
            if is_past || state.used + more > all || state.first(all).is_some() {
                return false;
            }
            state.add(&self.source, more);
            self.held = bytes;
        }
        true
    }

    /// It waits no more.
    pub(crate) fn leave(&mut self) {
        if std::mem::take(&mut self.waits) {
            let mut state = lock(&self.budget.0.state);
            state.queue.retain(|waiter| waiter.id != self.id);
            wake_first(state, self.budget.0.bytes, self.id);
        }
    }

    /// The bytes that it holds.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Whether it waits for its turn.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// Whether others wait for what it could give back.
    pub(crate) fn is_in_demand(&self) -> bool {
        let state = lock(&self.budget.0.state);
        let waits = |waiter: &Waiter| {
            waiter.id != self.id && (waiter.source == self.source || state.may_have(waiter, self.budget.0.bytes))
        };
        state.queue.iter().any(waits)
    }

    /// One that is larger than the whole budget gets it alone.
    fn round(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(STEP).min(self.budget.0.bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = lock(&self.budget.0.state);
        state.take(&self.source, self.held);
        state.queue.retain(|waiter| waiter.id != self.id);
        wake_first(state, self.budget.0.bytes, self.id);
    }
}

/// Wakes who is next, if there is room for it and it is not this one; it then takes its share, and wakes the next.
fn wake_first(state: MutexGuard<'_, State>, bytes: usize, but: u64) {
    let first = state.first(bytes).filter(|first| first.id != but && state.used + first.more <= bytes);
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
    fn who_came_first_and_who_came_last_are_next_by_turns() {
        let budget = Budget::new(4 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let (count, waker) = waker();
        let counted = &Context::from_waker(&waker);
        let [mut a, mut b, mut c, mut d] = [(); 4].map(|()| budget.share(None));
        assert!(a.reserve(4 * STEP, cx) && !a.is_in_demand());
        assert!(!b.reserve(3 * STEP, counted) && !c.reserve(3 * STEP, cx) && !d.reserve(3 * STEP, counted));
        assert!(a.is_in_demand() && a.grow(4 * STEP) && a.held() == 4 * STEP);
        a.keep(2 * STEP);
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "there is no room for any yet");
        a.keep(0);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(!d.reserve(3 * STEP, cx) && b.reserve(3 * STEP, counted), "who came first");
        assert!(!d.reserve(3 * STEP, counted));
        let before = count.0.load(Ordering::Relaxed);
        drop(b);
        assert_eq!(count.0.load(Ordering::Relaxed), before + 1);
        assert!(!c.reserve(3 * STEP, cx) && d.reserve(3 * STEP, counted), "who came last");
        drop(d);
        assert!(c.reserve(3 * STEP, cx));
        drop((a, c));
        assert_eq!((budget.used(), budget.waiting()), (0, 0));
    }

    #[test]
    fn nobody_grows_while_others_wait_and_who_leaves_makes_way() {
        let budget = Budget::new(4 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let [mut a, mut b, mut c] = [(); 3].map(|()| budget.share(None));
        assert!(a.grow(2 * STEP) && !b.grow(3 * STEP) && !b.reserve(3 * STEP, cx));
        assert!(!a.grow(3 * STEP) && !c.grow(1), "another waits");
        b.leave();
        assert!(c.grow(1) && a.grow(3 * STEP));
        assert_eq!(budget.used(), 4 * STEP);
        assert!(!b.reserve(STEP, cx) && b.waits());
        drop(b);
        assert_eq!(budget.waiting(), 0);
    }

    #[test]
    fn who_needs_no_more_or_ends_leaves_the_queue() {
        let budget = Budget::new(4 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let (woken, waker) = waker();
        let [mut a, mut b, mut c] = [(); 3].map(|()| budget.share(None));
        assert!(a.reserve(3 * STEP, cx));
        assert!(!b.reserve(4 * STEP, cx) && !c.reserve(STEP, &Context::from_waker(&waker)));
        assert!(b.reserve(0, cx));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "the next is first now, and there is room");
        assert!(c.reserve(STEP, cx));
        assert!(!b.reserve(STEP, cx));
        drop(b);
        assert_eq!(budget.waiting(), 0);
    }

    #[test]
    fn what_is_larger_than_all_of_it_gets_it_alone() {
        let budget = Budget::new(4 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let [mut a, mut b] = [(); 2].map(|()| budget.share(Some("one")));
        assert!(a.reserve(STEP, cx) && !b.reserve(100 * STEP, cx));
        a.keep(0);
        assert!(b.reserve(100 * STEP, cx) && !a.reserve(1, cx));
        assert_eq!(budget.used(), 4 * STEP);
    }

    #[test]
    fn a_source_has_half_and_who_holds_less_is_next() {
        let budget = Budget::new(8 * STEP);
        let cx = &Context::from_waker(Waker::noop());
        let [mut a, mut b, mut c] = [(); 3].map(|()| budget.share(Some("many")));
        let [mut d, mut e] = [(); 2].map(|()| budget.share(Some("few")));
        assert!(a.reserve(2 * STEP, cx) && b.reserve(2 * STEP, cx));
        assert!(!c.reserve(2 * STEP, cx) && !c.grow(STEP), "its source has its half");
        assert!(a.is_in_demand() && !d.is_in_demand());
        assert!(d.reserve(3 * STEP, cx), "others do not wait for that half");
        assert!(!d.is_in_demand(), "what it holds would help nobody");
        assert!(!e.reserve(3 * STEP, cx), "past half");
        a.keep(0);
        assert!(c.reserve(2 * STEP, cx));
        drop(d);
        assert!(e.reserve(3 * STEP, cx));
        // Both wait, and both could have it: "few" holds less.
        let mut f = budget.share(Some("few"));
        e.keep(STEP);
        drop(b);
        assert!(!a.reserve(6 * STEP, cx) && f.reserve(STEP, cx));
    }

    /// However sessions ask and give back, the sum holds, and everybody is served in the end.
    #[test]
    fn everybody_is_served() {
        for sources in [1, 7, 1000] {
            let budget = Budget::new(20 * STEP);
            let cx = &Context::from_waker(Waker::noop());
            let source = |at: usize| (!at.is_multiple_of(3)).then(|| format!("{}", at % sources));
            let mut shares: Vec<_> = (0..100).map(|at| (budget.share(source(at).as_deref()), 0)).collect();
            for round in 0..100_000usize {
                let at = (round * 7919) % shares.len();
                let Some((share, served)) = shares.get_mut(at) else { continue };
                if share.reserve((1 + at % 12) * STEP, cx) {
                    *served += 1;
                    share.keep(0);
                }
                assert!(budget.used() <= budget.bytes());
            }
            assert!(shares.iter().all(|(_, served)| *served > 5), "{sources}");
        }
    }
}
