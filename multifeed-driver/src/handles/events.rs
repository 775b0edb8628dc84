//! What happens to a multifeed's feeds, as a stream.

use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use multifeed_core::{Conflict, FeedId};

use crate::handles::feed::Feed;
use crate::store::shared::Guard;
use crate::store::table::FeedState;
use crate::waking::Waking;

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
    /// A remote proved that a feed that is written here is longer than what was held of it: this store is an old copy, or the key is on another
    /// device too. Appends go after it. While this waits untaken, no other is added: ask the feed for its length.
    WriterBehind(Feed),
}

/// Conflicts that wait for one subscriber; later ones are only kept as evidence.
const CONFLICTS: usize = 64;

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

    /// The next event; `None` once the multifeed is closed.
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

/// One subscriber's events.
#[derive(Debug, Default)]
pub(crate) struct EventQueue(Waking<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// Feeds that are new, and feeds that were removed, in the order in which that happened: a feed may come again.
    feeds: VecDeque<(Change, Arc<FeedState>)>,
    /// The feeds that grew, each once, in the order in which each first did.
    grown: VecDeque<Arc<FeedState>>,
    waiting: HashSet<FeedId>,
    renamed: VecDeque<Arc<FeedState>>,
    conflicts: VecDeque<(Arc<FeedState>, Box<Conflict>)>,
    /// Each once.
    writer_behind: VecDeque<Arc<FeedState>>,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    New,
    Removed,
}

#[derive(Debug)]
enum News {
    Feed(Arc<FeedState>),
    Blocks(Arc<FeedState>),
    Removed(Arc<FeedState>),
    Renamed(Arc<FeedState>),
    Conflict(Arc<FeedState>, Box<Conflict>),
    WriterBehind(Arc<FeedState>),
}

impl EventQueue {
    pub(crate) fn feed(&self, feed: &Arc<FeedState>) {
        self.0.change(|queue| queue.feeds.push_back((Change::New, feed.clone())));
    }

    pub(crate) fn blocks(&self, feed: &Arc<FeedState>) {
        self.0.change(|queue| {
            if queue.waiting.insert(feed.id) {
                queue.grown.push_back(feed.clone());
            }
        });
    }

    /// What waits of the feed is not told any more, but that it was there, where that was told.
    pub(crate) fn removed(&self, feed: &Arc<FeedState>) {
        self.0.change(|queue| {
            if queue.waiting.remove(&feed.id) {
                queue.grown.retain(|grown| grown.id != feed.id);
            }
            queue.renamed.retain(|renamed| renamed.id != feed.id);
            queue.writer_behind.retain(|writer_behind| writer_behind.id != feed.id);
            queue.conflicts.retain(|(of, _)| of.id != feed.id);
            let known = queue.feeds.len();
            queue.feeds.retain(|(_, new)| new.id != feed.id);
            if queue.feeds.len() == known {
                queue.feeds.push_back((Change::Removed, feed.clone()));
            }
        });
    }

    /// Whoever has not heard of the feed yet will find it with its name.
    pub(crate) fn renamed(&self, feed: &Arc<FeedState>) {
        self.0.change(|queue| {
            if !queue.feeds.iter().map(|(_, feed)| feed).chain(&queue.renamed).any(|told| told.id == feed.id) {
                queue.renamed.push_back(feed.clone());
            }
        });
    }

    pub(crate) fn conflict(&self, feed: &Arc<FeedState>, conflict: &Conflict) {
        self.0.change(|queue| {
            if queue.conflicts.len() < CONFLICTS {
                queue.conflicts.push_back((feed.clone(), Box::new(conflict.clone())));
            }
        });
    }

    pub(crate) fn writer_behind(&self, feed: &Arc<FeedState>) {
        self.0.change(|queue| {
            if !queue.writer_behind.iter().any(|told| told.id == feed.id) {
                queue.writer_behind.push_back(feed.clone());
            }
        });
    }

    pub(crate) fn close(&self) {
        self.0.change(|queue| queue.closed = true);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<News>> {
        self.0.poll(cx, |queue| queue.pop().map(Some).or(queue.closed.then_some(None)))
    }
}

impl Queue {
    /// New feeds come before growth, so no one hears of a feed's blocks before the feed.
    fn pop(&mut self) -> Option<News> {
        if let Some((change, feed)) = self.feeds.pop_front() {
            return Some(match change {
                Change::New => News::Feed(feed),
                Change::Removed => News::Removed(feed),
            });
        }
        if let Some(feed) = self.grown.pop_front() {
            self.waiting.remove(&feed.id);
            return Some(News::Blocks(feed));
        }
        if let Some(feed) = self.renamed.pop_front() {
            return Some(News::Renamed(feed));
        }
        if let Some((feed, conflict)) = self.conflicts.pop_front() {
            return Some(News::Conflict(feed, conflict));
        }
        self.writer_behind.pop_front().map(News::WriterBehind)
    }
}
