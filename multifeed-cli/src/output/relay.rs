//! What a command prints that another process asked for: it goes there.

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::error::CliError;

/// A part of what is printed. What waits is bounded by whoever prints more than a store holds feeds: it waits for a [`Flush`](Part::Flush).
#[derive(Debug)]
pub(crate) enum Part {
    Text {
        text: String,
        to_stderr: bool,
    },
    Block {
        key: String,
        index: u64,
        block: Bytes,
    },
    Bar {
        done: u64,
        total: u64,
    },
    /// All before it is written once the sender is dropped.
    Flush(oneshot::Sender<()>),
}

/// The way to the process that asked.
#[derive(Clone, Debug)]
pub(crate) struct Relay(UnboundedSender<Part>);

impl Relay {
    pub(crate) fn new() -> (Self, UnboundedReceiver<Part>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    /// Hands a part over. If the other process has left, this command ends anyway.
    pub(crate) fn push(&self, part: Part) {
        let _ = self.0.send(part);
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// If the other process has left.
    pub(crate) async fn flush(&self) -> Result<(), CliError> {
        let (sender, receiver) = oneshot::channel();
        self.push(Part::Flush(sender));
        receiver.await.map_err(|_| CliError::stdio("stdout", &std::io::ErrorKind::BrokenPipe.into()))
    }
}
