//! What happened, until the application takes it.

use std::collections::VecDeque;

use super::feed_events::FeedEvent;
use super::{FeedSlot, MultifeedEvent};
use crate::ids::FeedId;

/// The events of a multifeed that were not taken. Those of one feed wait with it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    events: VecDeque<MultifeedEvent>,
    /// Watched feeds with events that were not taken, each once.
    feeds: VecDeque<FeedId>,
}

impl Outbox {
    pub(super) fn push(&mut self, event: MultifeedEvent) {
        self.events.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<MultifeedEvent> {
        self.events.pop_front()
    }

    /// The event that was pushed last, if it was not taken.
    pub(super) fn last_mut(&mut self) -> Option<&mut MultifeedEvent> {
        self.events.back_mut()
    }

    /// The next feed that has events of its own.
    pub(super) fn feed(&self) -> Option<FeedId> {
        self.feeds.front().copied()
    }

    /// All events of that feed were taken.
    pub(super) fn pop_feed(&mut self) {
        self.feeds.pop_front();
    }

    /// Notes an event of a feed, if somebody watches it.
    pub(super) fn push_feed_event(&mut self, id: FeedId, slot: &mut FeedSlot, event: FeedEvent) {
        if let Some(news) = &mut slot.news {
            news.push(event);
            if !std::mem::replace(&mut slot.has_events, true) {
                self.feeds.push_back(id);
            }
        }
    }
}
