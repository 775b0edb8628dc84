//! Every feed of a multifeed, once.

use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use multifeed_proto::FeedKey;

use crate::error::Error;
use crate::handles::events::{Events, MultifeedEvent};
use crate::handles::feed::Feed;
use crate::handles::multifeed::Multifeed;

/// Every feed of a multifeed, once: those that it has, then each that is new. It ends when the multifeed is closed.
///
/// A feed that was removed and comes again is new.
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct AllFeeds {
    here: VecDeque<Feed>,
    /// Those that are not new when an event says so.
    listed: HashSet<FeedKey>,
    events: Events,
}

impl AllFeeds {
    /// Returns the next feed; `None` once the multifeed is closed.
    pub async fn next(&mut self) -> Option<Feed> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Feed>> {
        if let Some(feed) = self.here.pop_front() {
            return Poll::Ready(Some(feed));
        }
        loop {
            match Pin::new(&mut self.events).poll_next(cx) {
                Poll::Ready(Some(MultifeedEvent::Feed(feed))) if !self.listed.remove(&feed.key()) => {
                    return Poll::Ready(Some(feed));
                }
                Poll::Ready(Some(MultifeedEvent::Removed(feed))) => _ = self.listed.remove(&feed.key()),
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Stream for AllFeeds {
    type Item = Feed;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Feed>> {
        self.poll(cx)
    }
}

impl Multifeed {
    /// Yields every feed once, ours included: those in the store, then each new one (JS's `feed` events after `ready`). [`Feed::writable`] tells ours apart.
    pub fn all_feeds(&self) -> AllFeeds {
        // Subscribed before the list is made, so that none falls between.
        let events = self.events();
        let here: VecDeque<Feed> = self.feeds().into();
        AllFeeds { listed: here.iter().map(Feed::key).collect(), here, events }
    }

    /// Waits until a feed is here: one that a peer offers comes with its first block.
    ///
    /// # Errors
    /// [`Error::Closed`] if the multifeed is closed before.
    pub async fn wait_for(&self, key: FeedKey) -> Result<Feed, Error> {
        let mut events = self.events();
        if let Some(feed) = self.feed(key) {
            return Ok(feed);
        }
        while let Some(event) = events.next().await {
            match event {
                MultifeedEvent::Feed(feed) if feed.key() == key => return Ok(feed),
                _ => {}
            }
        }
        Err(Error::Closed)
    }
}
