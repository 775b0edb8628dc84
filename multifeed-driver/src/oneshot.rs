//! One answer from the store's thread to a future that waits for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_channel::oneshot;

/// How long a task looks for an answer before it lets others go on: no longer than one append takes.
const LOOK: Duration = Duration::from_micros(30);

/// The end that waits. Dropping it drops the answer, never the work.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    answer: oneshot::Receiver<T>,
    /// The answer may come sooner than a task can sleep and be woken.
    looks: bool,
}

/// The end that answers. Dropped without an answer, it ends the wait.
#[derive(Debug)]
pub(crate) struct Answer<T>(oneshot::Sender<T>);

pub(crate) fn channel<T>() -> (Answer<T>, Waiting<T>) {
    let (sender, answer) = oneshot::channel();
    (Answer(sender), Waiting { answer, looks: false })
}

impl<T> Answer<T> {
    /// Answers. Nobody may be waiting any more: that is no error.
    pub(crate) fn send(self, value: T) {
        let _ = self.0.send(value);
    }
}

impl<T> Waiting<T> {
    /// Looks for the answer for a moment when it is first polled, if one may come that soon.
    pub(crate) fn looking(self, looks: bool) -> Self {
        Self { looks, ..self }
    }
}

impl<T> Future for Waiting<T> {
    type Output = Result<T, oneshot::Canceled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.looks) {
            let start = Instant::now();
            while start.elapsed() < LOOK {
                match self.answer.try_recv() {
                    Ok(None) => std::hint::spin_loop(),
                    Ok(Some(value)) => return Poll::Ready(Ok(value)),
                    Err(canceled) => return Poll::Ready(Err(canceled)),
                }
            }
        }
        Pin::new(&mut self.answer).poll(cx)
    }
}
