//! A listener that goes on after the system refused to accept.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Sleep;

use crate::discovery::DiscoveryEvent;
use crate::tcp;

/// How long to wait after the system refused to accept (no file handle is left, say) before the next try.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Door {
    listener: TcpListener,
    pause: Option<Pin<Box<Sleep>>>,
    /// The last try failed, which was reported.
    failed: bool,
}

impl Door {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, pause: None, failed: false }
    }

    /// The next one that connects, or why nobody can.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DiscoveryEvent> {
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            match tcp::poll_accept(&self.listener, cx) {
                Poll::Ready(Ok(incoming)) => {
                    self.failed = false;
                    return Poll::Ready(DiscoveryEvent::Incoming(incoming));
                }
                Poll::Ready(Err(error)) => {
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                    if !std::mem::replace(&mut self.failed, true) {
                        let message = format!("cannot accept a peer, and tries again: {error}");
                        return Poll::Ready(DiscoveryEvent::Trouble(message));
                    }
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
