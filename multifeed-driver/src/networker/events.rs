//! What happens on a networker, as a stream.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use multifeed_core::{SyncError, SyncTotals};
use multifeed_proto::{DiscoveryKey, FeedKey, SessionError};

use crate::networker::ids::{ConnectionId, DialId, PeerKey};
use crate::networker::orders::EndReason;
use crate::shared::session_events::SyncEvent;
use crate::waking::Waking;

/// Something happened on a networker.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NetworkerEvent {
    /// A peer is connected, and was let in.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// The peer's static key.
        peer: PeerKey,
        /// The dial that keeps the connection, if one does.
        dial: Option<DialId>,
    },
    /// Both sides have this root key: its multifeed syncs on this connection from now on.
    Ready {
        /// The connection.
        connection: ConnectionId,
        /// The root key.
        root: FeedKey,
    },
    /// The root keys differ: the peer opened one that we have not joined, and none of ours, for a second or until it ended the connection. The connection
    /// stays for [`unshared_time`](crate::NetworkerLimits::unshared_time), in case a shared root key joins. Reported once for each connection, and logged as
    /// a warning once for each peer.
    RootKeyMismatch {
        /// The connection.
        connection: ConnectionId,
        /// The peer's static key.
        peer: PeerKey,
        /// The dial that keeps the connection, if one does.
        dial: Option<DialId>,
        /// The discovery key of the peer's root key; of the first one, if it has several.
        theirs: DiscoveryKey,
    },
    /// An event of a root key's session on a connection. Not included are its progress ([`Networker::status`](crate::Networker::status)), new feeds
    /// ([`MultifeedEvent::Feed`](crate::MultifeedEvent::Feed)), the feeds that the peer named, and who the peer is. What it said in the
    /// multifeed handshake, [`SyncEvent::Ready`], follows [`Ready`](Self::Ready). At most half of the
    /// [`events`](crate::NetworkerLimits::events) that may wait are of this kind.
    Sync {
        /// The connection.
        connection: ConnectionId,
        /// The root key.
        root: FeedKey,
        /// The event.
        event: SyncEvent,
    },
    /// A root key's session on a connection has ended. The connection goes on, unless [`Disconnected`](Self::Disconnected) follows.
    RootOver {
        /// The connection.
        connection: ConnectionId,
        /// The root key.
        root: FeedKey,
        /// Both sides held the same blocks at its end.
        in_sync: bool,
        /// What it moved, and what keeps the two sides from being in sync; or why it failed: [`SessionError::RootKeyMismatch`] if the peer has none of
        /// our root keys, and another one; [`SessionError::Timeout`] if it does not have this one.
        result: Result<SyncTotals, SyncError>,
    },
    /// A connection has ended.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
        /// The peer's static key, if the handshake was done.
        peer: Option<PeerKey>,
        /// The dial that kept the connection, if one did.
        dial: Option<DialId>,
        /// Why, if this side ended it.
        reason: Option<EndReason>,
        /// What went wrong with the stream.
        error: Option<SessionError>,
        /// The sessions of all shared root keys ended in sync.
        in_sync: bool,
        /// The peer ended this connection while these root keys were unanswered. They are left out of the next connection to it, until it opens them.
        unanswered: Vec<FeedKey>,
    },
    /// A dial failed, or its connection ended. It is tried again.
    Redial {
        /// The dial.
        dial: DialId,
        /// How long it waits.
        after: Duration,
        /// Why the dial failed; `None` if there was a connection, which [`Disconnected`](Self::Disconnected) reported.
        error: Option<String>,
    },
    /// More than [`NetworkerLimits::events`](crate::NetworkerLimits::events) events were waiting, and some were dropped.
    Lagged,
}

/// A message of an extension, from one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerMessage {
    /// The connection that it came on.
    pub connection: ConnectionId,
    /// The peer's static key.
    pub peer: PeerKey,
    /// What it says.
    pub body: Bytes,
}

/// The events of a networker since this was made. The stream ends when the networker is closed.
#[derive(Debug)]
pub struct NetworkerEvents(pub(crate) Arc<EventQueue>);

impl NetworkerEvents {
    /// Returns the next event; `None` once the networker is closed.
    pub async fn next(&mut self) -> Option<NetworkerEvent> {
        poll_fn(|cx| self.0.poll(cx)).await
    }
}

impl Stream for NetworkerEvents {
    type Item = NetworkerEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<NetworkerEvent>> {
        self.0.poll(cx)
    }
}

/// One subscriber's events.
#[derive(Debug)]
pub(crate) struct EventQueue {
    queue: Waking<Queue>,
    most: usize,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<NetworkerEvent>,
    closed: bool,
}

impl EventQueue {
    pub(crate) fn new(most: usize) -> Self {
        Self { queue: Waking::default(), most: most.max(1) }
    }

    pub(crate) fn push(&self, event: NetworkerEvent) {
        // Reports leave room for what begins and ends.
        let most = if matches!(event, NetworkerEvent::Sync { .. }) { self.most.div_ceil(2) } else { self.most };
        self.queue.change(|queue| {
            if queue.events.len() < most {
                queue.events.push_back(event);
            } else if !matches!(queue.events.back(), Some(NetworkerEvent::Lagged)) {
                queue.events.push_back(NetworkerEvent::Lagged);
            }
        });
    }

    pub(crate) fn close(&self) {
        self.queue.change(|queue| queue.closed = true);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<NetworkerEvent>> {
        self.queue.poll(cx, |queue| queue.events.pop_front().map(Some).or(queue.closed.then_some(None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_push_out_no_end() {
        let queue = EventQueue::new(10);
        let (connection, root) = (ConnectionId(1), FeedKey::new([1; 32]));
        for _ in 0..100 {
            queue.push(NetworkerEvent::Sync { connection, root, event: SyncEvent::SpaceFreed });
        }
        queue.push(NetworkerEvent::RootOver { connection, root, in_sync: true, result: Ok(SyncTotals::default()) });
        let events = queue.queue.with(|queue| std::mem::take(&mut queue.events));
        let reports = events.iter().filter(|event| matches!(event, NetworkerEvent::Sync { .. })).count();
        assert_eq!((reports, events.len()), (5, 7));
        assert!(matches!(events[5], NetworkerEvent::Lagged) && matches!(events[6], NetworkerEvent::RootOver { .. }));
    }
}
