//! What happens to one feed, as a stream.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_core::Stream;
use multifeed_core::{FeedId, FeedNews};

use crate::handles::replication::SyncId;
use crate::store::shared::Guard;
use crate::waking::Waking;

/// Something happened to a feed. A session that is over has no number any more.
pub type FeedEvent = multifeed_core::FeedEvent<Option<SyncId>>;

/// The events of one feed from the time on when this was made; it ends when the multifeed is closed.
///
/// What waits is bounded by [`Limits::feed_events`](multifeed_core::Limits::feed_events): an application that is slow to take
/// them loses the oldest ones, and is told by [`FeedEvent::Lagged`](multifeed_core::FeedEvent::Lagged). Runs of blocks are one event.
#[derive(Debug)]
pub struct FeedEvents {
    queue: Arc<FeedQueue>,
    _guard: Arc<Guard>,
}

impl FeedEvents {
    pub(crate) fn new(queue: Arc<FeedQueue>, guard: Arc<Guard>) -> Self {
        Self { queue, _guard: guard }
    }

    /// The next event; `None` once the multifeed is closed, or the feed removed.
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

/// One subscriber's events.
#[derive(Debug)]
pub(crate) struct FeedQueue(Waking<Queue>);

#[derive(Debug)]
struct Queue {
    news: FeedNews<Option<SyncId>>,
    closed: bool,
}

impl FeedQueue {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Waking::new(Queue { news: FeedNews::new(limit), closed: false }))
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<FeedEvent>> {
        self.0.poll(cx, |queue| queue.news.pop().map(Some).or(queue.closed.then_some(None)))
    }

    fn push(&self, event: FeedEvent) {
        self.0.change(|queue| queue.news.push(event));
    }

    fn close(&self) {
        self.0.change(|queue| queue.closed = true);
    }
}

/// The subscribers of each feed, on the store's thread. When that ends, however it does, they are told.
#[derive(Debug, Default)]
pub(crate) struct Watchers(BTreeMap<FeedId, Vec<Weak<FeedQueue>>>);

impl Watchers {
    pub(crate) fn add(&mut self, feed: FeedId, queue: Weak<FeedQueue>) {
        self.0.entry(feed).or_default().push(queue);
    }

    /// Gives every subscriber of a feed an event. False where there is none any more.
    pub(crate) fn tell(&mut self, feed: FeedId, event: FeedEvent) -> bool {
        let Some(queues) = self.0.get_mut(&feed) else { return false };
        queues.retain(|queue| {
            let queue = queue.upgrade();
            if let Some(queue) = &queue {
                queue.push(event.clone());
            }
            queue.is_some()
        });
        let watched = !queues.is_empty();
        if !watched {
            self.0.remove(&feed);
        }
        watched
    }
}

impl Watchers {
    /// A feed was removed: its subscribers are told that nothing more comes.
    pub(crate) fn forget(&mut self, feed: FeedId) {
        let queues = self.0.remove(&feed).unwrap_or_default();
        queues.iter().filter_map(Weak::upgrade).for_each(|queue| queue.close());
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        let queues = self.0.values().flatten().filter_map(Weak::upgrade);
        queues.for_each(|queue| queue.close());
    }
}
