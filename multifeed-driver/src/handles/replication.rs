//! One session, as the application sees it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use multifeed_core::SyncError;
use multifeed_proto::Command;

use crate::shared::link::Link;
use crate::shared::session_events::{SyncEvent, SyncId, Totals};
use crate::store::calls::Guard;
use crate::stream::hub::StreamShared;

/// One session: a stream of its events, and its end.
///
/// Dropping it ends the session, cleanly and in the background; what was received stays.
#[derive(Debug)]
#[must_use = "dropping a `Replication` ends its session"]
pub struct Replication {
    link: Arc<Link>,
    hub: Arc<StreamShared>,
    /// Keeps the store open while the session runs.
    guard: Arc<Guard>,
}

impl Replication {
    pub(crate) fn new(link: Arc<Link>, hub: Arc<StreamShared>, guard: Arc<Guard>) -> Self {
        Self { link, hub, guard }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn hub(&self) -> &Arc<StreamShared> {
        &self.hub
    }

    pub(crate) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// The session's number.
    pub fn id(&self) -> SyncId {
        self.link.id
    }

    /// Returns the next event; `None` once the session is over, and its stream closed. [`finish`](Self::finish)
    /// returns why it ended.
    pub async fn next(&mut self) -> Option<SyncEvent> {
        poll_fn(|cx| self.link.sync.poll_next(cx)).await
    }

    /// Waits until the session is over and its stream closed, and returns what was moved.
    ///
    /// A session that is not live ends by itself, when both sides have everything. A live one ends when the remote leaves, or
    /// after [`close`](Self::close).
    ///
    /// # Errors
    /// Why the session ended before its time.
    pub async fn finish(self) -> Result<Totals, SyncError> {
        poll_fn(|cx| self.link.sync.poll_end(cx)).await
    }

    /// Accepts the remote's static key, which [`SyncEvent::Connected`] reported: for sessions that
    /// [authenticate](multifeed_proto::Config::authenticate) it. Nothing is said before.
    ///
    /// If the session does not wait for that, it means nothing.
    pub fn accept(&self) {
        self.hub.command(Command::Accept);
    }

    /// Refuses the remote's static key: the session ends with [`SessionError::Refused`](multifeed_proto::SessionError::Refused), and
    /// so does the stream.
    ///
    /// Before the remote's key is known it means nothing.
    pub fn refuse(&self) {
        self.hub.command(Command::Refuse);
    }

    /// Sends a keep-alive now, whenever the next one would be due.
    pub fn ping(&self) {
        self.hub.command(Command::Ping);
    }

    /// Returns what went over the stream so far.
    pub fn stream_totals(&self) -> multifeed_proto::Totals {
        self.hub.totals()
    }

    /// Ends the session cleanly: what was received is kept, what waits to be sent is sent. [`finish`](Self::finish) waits for it.
    pub fn close(&self) {
        self.link.cancel();
    }

    /// Returns a handle that ends the session from elsewhere, while this one waits for events.
    pub fn closer(&self) -> SyncCloser {
        SyncCloser(self.link.clone())
    }
}

impl Stream for Replication {
    type Item = SyncEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SyncEvent>> {
        self.link.sync.poll_next(cx)
    }
}

impl Drop for Replication {
    fn drop(&mut self) {
        self.link.cancel();
    }
}

/// Ends a session from another place than the one that takes its events.
#[derive(Debug, Clone)]
pub struct SyncCloser(Arc<Link>);

impl SyncCloser {
    /// Ends the session as [`Replication::close`] does.
    pub fn close(&self) {
        self.0.cancel();
    }
}
