//! States on which tasks wait and that others change. Who waits is woken once the state is unlocked: a waker may run anything.

use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use crate::lock;

/// A state, and the task that waits for it to change: the last one that asked.
#[derive(Debug, Default)]
pub(crate) struct Waking<T>(Mutex<Inner<T>>);

#[derive(Debug, Default)]
struct Inner<T> {
    state: T,
    waker: Option<Waker>,
}

impl<T> Waking<T> {
    pub(crate) fn new(state: T) -> Self {
        Self(Mutex::new(Inner { state, waker: None }))
    }

    /// Reads or changes the state in a way that the task does not wait for.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut lock(&self.0).state)
    }

    /// Changes the state, and wakes the task.
    pub(crate) fn change<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        self.change_if(|state| (act(state), true))
    }

    /// Changes the state, and wakes the task if `act` says so.
    pub(crate) fn change_if<R>(&self, act: impl FnOnce(&mut T) -> (R, bool)) -> R {
        let (result, waker) = {
            let mut inner = lock(&self.0);
            let (result, wakes) = act(&mut inner.state);
            (result, inner.waker.take_if(|_| wakes))
        };
        waker.into_iter().for_each(Waker::wake);
        result
    }

    /// Takes something of the state. If there is nothing, the task is woken at the next change.
    pub(crate) fn poll<R>(&self, cx: &Context<'_>, take: impl FnOnce(&mut T) -> Option<R>) -> Poll<R> {
        let mut inner = lock(&self.0);
        match take(&mut inner.state) {
            Some(taken) => Poll::Ready(taken),
            None => {
                inner.wait(cx);
                Poll::Pending
            }
        }
    }

    /// Takes what there is of the state. The task is woken at the next change in any case.
    pub(crate) fn watch<R>(&self, cx: &Context<'_>, take: impl FnOnce(&mut T) -> R) -> R {
        let mut inner = lock(&self.0);
        inner.wait(cx);
        take(&mut inner.state)
    }
}

impl<T> Inner<T> {
    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

/// Tasks that wait for the same, each once.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Vec<Waker>);

impl Waiters {
    /// One that waits.
    pub(crate) fn add(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    /// More that wait.
    pub(crate) fn extend(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        self.0.extend(wakers);
    }

    /// All that wait, to be woken once the state that they wait for is unlocked.
    #[must_use]
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    pub(crate) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// Counts how often it is woken, and looks at the state as it is: that is unlocked by then.
    struct Task(Arc<Waking<u32>>, AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.with(|state| *state += 100);
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_last_task_is_woken_once_and_after_the_state_is_unlocked() {
        let waking = Arc::new(Waking::new(0));
        let tasks = [(); 2].map(|()| Arc::new(Task(waking.clone(), AtomicUsize::new(0))));
        let woken = || [&tasks[0], &tasks[1]].map(|task| task.1.load(Ordering::Relaxed));
        for task in &tasks {
            let waker = Waker::from(task.clone());
            assert_eq!(waking.poll(&Context::from_waker(&waker), |_| None::<()>), Poll::Pending);
        }
        waking.with(|state| *state = 1);
        waking.change_if(|state| (*state = 2, false));
        assert_eq!(woken(), [0, 0]);
        waking.change(|state| *state = 3);
        assert_eq!((woken(), waking.with(|state| *state)), ([0, 1], 103));
        waking.change(|state| *state = 4);
        assert_eq!(woken(), [0, 1], "it did not wait any more");

        let waker = Waker::from(tasks[0].clone());
        let cx = Context::from_waker(&waker);
        assert_eq!(waking.poll(&cx, |state| Some(*state)), Poll::Ready(4));
        waking.change(|_| {});
        assert_eq!(woken(), [0, 1], "there was something");
        assert_eq!(waking.watch(&cx, |state| *state), 4);
        waking.change(|_| {});
        assert_eq!(woken(), [1, 1]);
    }

    #[test]
    fn each_that_waits_is_woken_once() {
        let waking = Arc::new(Waking::new(0));
        let task = Arc::new(Task(waking.clone(), AtomicUsize::new(0)));
        let waker = Waker::from(task.clone());
        let mut waiters = Waiters::default();
        (0..3).for_each(|_| waiters.add(&Context::from_waker(&waker)));
        waiters.take().wake();
        waiters.take().wake();
        assert_eq!(task.1.load(Ordering::Relaxed), 1);
    }
}
