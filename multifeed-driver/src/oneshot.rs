//! One answer from the store's thread to a future that waits for it.

use futures_channel::oneshot;

/// The end that waits. Dropping it drops the answer, never the work.
pub(crate) type Waiting<T> = oneshot::Receiver<T>;

/// The end that answers. Dropped without an answer, it ends the wait.
#[derive(Debug)]
pub(crate) struct Answer<T>(oneshot::Sender<T>);

pub(crate) fn channel<T>() -> (Answer<T>, Waiting<T>) {
    let (sender, receiver) = oneshot::channel();
    (Answer(sender), receiver)
}

impl<T> Answer<T> {
    /// Answers. Nobody may be waiting any more: that is no error.
    pub(crate) fn send(self, value: T) {
        let _ = self.0.send(value);
    }
}
