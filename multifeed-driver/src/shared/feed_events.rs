//! What happens to one feed, on its way to the application.

use std::task::{Context, Poll};

use multifeed_core::FeedNews;

use crate::shared::session_events::SyncId;
use crate::waking::Waking;

/// Something happened to a feed. A session that is over has no number any more.
pub type FeedEvent = multifeed_core::FeedEvent<Option<SyncId>>;

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

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Option<FeedEvent>> {
        self.0.poll(cx, |queue| queue.news.pop().map(Some).or(queue.closed.then_some(None)))
    }

    pub(crate) fn push(&self, event: FeedEvent) {
        self.0.change(|queue| queue.news.push(event));
    }

    pub(crate) fn close(&self) {
        self.0.change(|queue| queue.closed = true);
    }
}
