//! What happens to a multifeed's feeds, on its way to the application.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use multifeed_core::{Conflict, FeedId};

use crate::shared::feed_table::FeedState;
use crate::waking::Waking;

/// Conflicts that wait for one subscriber; later ones are only kept as evidence.
const CONFLICTS: usize = 64;

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
pub(crate) enum News {
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

    /// Drops the events that wait of a removed feed. Its removal is reported, unless its arrival still waited too.
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

    /// An application that has not heard of the feed yet will find it with its name.
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

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Option<News>> {
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
