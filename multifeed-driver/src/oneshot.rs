//! One answer from the store's thread to a future that waits for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::lock;

/// The end that answers. Dropped without an answer, it tells the other end so.
#[derive(Debug)]
pub(crate) struct Answer<T>(Arc<Mutex<Slot<T>>>);

/// The end that waits. Dropping it drops the answer, never the work.
#[derive(Debug)]
pub(crate) struct Waiting<T>(Arc<Mutex<Slot<T>>>);

/// The other end was dropped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unanswered;

#[derive(Debug)]
struct Slot<T> {
    value: Option<T>,
    over: bool,
    waker: Option<Waker>,
}

pub(crate) fn channel<T>() -> (Answer<T>, Waiting<T>) {
    let slot = Arc::new(Mutex::new(Slot { value: None, over: false, waker: None }));
    (Answer(slot.clone()), Waiting(slot))
}

impl<T> Answer<T> {
    pub(crate) fn send(self, value: T) {
        lock(&self.0).value = Some(value);
        // Dropping self wakes the other end.
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let waker = {
            let mut slot = lock(&self.0);
            slot.over = true;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Waiting<T> {
    type Output = Result<T, Unanswered>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = lock(&self.0);
        if slot.over {
            return Poll::Ready(slot.value.take().ok_or(Unanswered));
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    #[test]
    fn answers_and_dropped_answers_arrive() {
        let (answer, waiting) = channel();
        let thread = std::thread::spawn(move || answer.send(7));
        assert_eq!(block_on(waiting), Ok(7));
        thread.join().unwrap();

        let (answer, waiting) = channel::<u8>();
        drop(answer);
        assert_eq!(block_on(waiting), Err(Unanswered));

        let (answer, waiting) = channel();
        drop(waiting);
        answer.send(1);
    }
}
