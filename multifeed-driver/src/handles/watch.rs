//! What happens to one feed, as a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::shared::feed_events::{FeedEvent, FeedQueue};
use crate::store::calls::Guard;

/// The events of one feed from the time on when this was made; it ends when the multifeed is closed.
///
/// What waits is bounded by [`Limits::feed_events`](multifeed_core::Limits::feed_events): an application that is slow to take
/// them loses the oldest ones, and gets [`FeedEvent::Lagged`](multifeed_core::FeedEvent::Lagged). Runs of blocks are one event.
#[derive(Debug)]
pub struct FeedEvents {
    queue: Arc<FeedQueue>,
    _guard: Arc<Guard>,
}

impl FeedEvents {
    pub(crate) fn new(queue: Arc<FeedQueue>, guard: Arc<Guard>) -> Self {
        Self { queue, _guard: guard }
    }

    /// Returns the next event; `None` once the multifeed is closed, or the feed removed.
    pub async fn next(&mut self) -> Option<FeedEvent> {
        poll_fn(|cx| self.queue.poll(cx)).await
    }
}

impl Stream for FeedEvents {
    type Item = FeedEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FeedEvent>> {
        self.queue.poll(cx)
    }
}
