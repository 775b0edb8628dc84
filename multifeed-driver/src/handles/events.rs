//! What happens to a multifeed's feeds, as a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use multifeed_core::Conflict;

use crate::handles::feed::Feed;
use crate::shared::multifeed_events::{EventQueue, News};
use crate::store::calls::Guard;

/// Something happened to a multifeed's feeds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MultifeedEvent {
    /// A feed is new: one of our writers, or one that a session brought. Once for each feed.
    Feed(Feed),
    /// A feed has more blocks than before: appended by us, or received and written. While this waits untaken, no other is
    /// added: ask the feed for its length.
    Blocks(Feed),
    /// A feed was removed from the store: [`Feed::remove`]. Calls on it fail.
    Removed(Feed),
    /// A feed has another name: its folder took the number of one that was removed, and it is named by that, or its number is a writer's name
    /// now. While this waits untaken, no other is added: ask the feed for its name.
    Renamed(Feed),
    /// The feed's writer signed two histories, and a remote holds the other one: the same key on two devices, or a restored copy of
    /// one. What is held here stays, and the evidence is kept beside the feeds (`multifeed.conflicts`).
    Conflict {
        /// The feed.
        feed: Feed,
        /// Both signed roots.
        conflict: Box<Conflict>,
    },
    /// A remote proved that a feed that is written here is longer than what was held of it. This store is an old copy, or the key is on another
    /// device too. Appends go after it. While this waits untaken, no other is added: ask the feed for its length.
    WriterBehind(Feed),
}

/// The events of a multifeed from the time on when this was made; it ends when the multifeed is closed.
///
/// What waits is bounded by the number of feeds: a feed that grows again while its event waits adds no other.
#[derive(Debug)]
pub struct Events {
    queue: Arc<EventQueue>,
    guard: Arc<Guard>,
}

impl Events {
    pub(crate) fn new(queue: Arc<EventQueue>, guard: Arc<Guard>) -> Self {
        Self { queue, guard }
    }

    /// Returns the next event; `None` once the multifeed is closed.
    pub async fn next(&mut self) -> Option<MultifeedEvent> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<MultifeedEvent>> {
        let news = match self.queue.poll(cx) {
            Poll::Ready(Some(news)) => news,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(Some(match news {
            News::Feed(state) => MultifeedEvent::Feed(Feed::new(state, self.guard.clone())),
            News::Blocks(state) => MultifeedEvent::Blocks(Feed::new(state, self.guard.clone())),
            News::Removed(state) => MultifeedEvent::Removed(Feed::new(state, self.guard.clone())),
            News::Renamed(state) => MultifeedEvent::Renamed(Feed::new(state, self.guard.clone())),
            News::WriterBehind(state) => MultifeedEvent::WriterBehind(Feed::new(state, self.guard.clone())),
            News::Conflict(state, conflict) => {
                MultifeedEvent::Conflict { feed: Feed::new(state, self.guard.clone()), conflict }
            }
        }))
    }
}

impl Stream for Events {
    type Item = MultifeedEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MultifeedEvent>> {
        self.poll(cx)
    }
}
