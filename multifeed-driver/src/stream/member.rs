//! A multifeed on a stream, as the stream's pump sees it.

use std::sync::Arc;
use std::time::Duration;

use multifeed_proto::{Event, FeedKey, Root, SessionError};

use crate::options::PumpOptions;
use crate::shared::link::{Grant, Link, StoreOrders, pinned_bytes};

/// A multifeed on a stream: its link to its store, and what waits to go there.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) link: Arc<Link>,
    pub(crate) root: Root,
    pub(crate) key: FeedKey,
    /// As of this turn.
    pub(crate) orders: StoreOrders,
    /// Bytes of commands that the store may still send on what it was granted; negative after a large one.
    pub(crate) granted: i64,
    /// It sent a large block, for which it may have been granted more than that took.
    pub(crate) has_surplus: bool,
    pub(crate) stage: Stage,
    /// Since when what comes for it holds up the stream.
    pub(crate) full_since: Option<Duration>,
    /// The application knows that the remote has proven itself.
    pub(crate) told_proven: bool,
    waiting: Vec<Event>,
    waiting_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Synced,
    /// It is off the stream, and was given its end.
    Left,
    /// The session is over, and it was given that as its end.
    Over,
}

impl Member {
    pub(crate) fn new(link: Arc<Link>, key: FeedKey) -> Self {
        Self {
            root: link.root,
            link,
            key,
            orders: StoreOrders::default(),
            granted: 0,
            has_surplus: false,
            stage: Stage::Synced,
            full_since: None,
            told_proven: false,
            waiting: Vec::new(),
            waiting_bytes: 0,
        }
    }

    /// Whether it gets what comes.
    pub(crate) fn is_synced(&self) -> bool {
        self.stage == Stage::Synced
    }

    /// Gives it an event.
    pub(crate) fn push(&mut self, event: Event) {
        if self.is_synced() {
            self.waiting_bytes += pinned_bytes(&event);
            self.waiting.push(event);
        }
    }

    /// Gives it its end.
    pub(crate) fn end(&mut self, result: Result<(), SessionError>, stage: Stage) {
        if self.is_synced() {
            self.waiting.push(Event::Closed(result));
            self.stage = stage;
        }
    }

    /// Whether one more event may be taken for it: if its store has room or, unless it is alone on the stream, if the
    /// backlog has.
    pub(crate) fn has_room(&self, shares: bool, options: &PumpOptions) -> bool {
        if !self.is_synced() || self.orders.abandoned {
            return true;
        }
        let (mut events, mut bytes) = (self.orders.events, self.orders.event_bytes);
        if shares {
            events = events.saturating_add(options.backlog_events);
            bytes = bytes.saturating_add(options.backlog_bytes);
        }
        self.waiting.len() < events && self.waiting_bytes < bytes
    }

    /// Bytes of blocks in events that its store has not taken.
    pub(crate) fn pinned(&self) -> usize {
        self.orders.pinned + self.waiting_bytes
    }

    /// The credit to give its store now: of what is free, less what it still has of its window.
    pub(crate) fn credit(&mut self, free: usize, window: usize) -> i64 {
        let free = i64::try_from(free).unwrap_or(i64::MAX);
        let credit = free.saturating_sub(self.granted);
        let quarter = i64::try_from(window / 4).unwrap_or(i64::MAX);
        // Not for every few bytes: each grant wakes the store's thread.
        if free > 0 && credit > 0 && (self.granted <= 0 || credit >= quarter) {
            self.granted = self.granted.saturating_add(credit);
            return credit;
        }
        0
    }

    /// Takes back what its store has of its credit beyond so many bytes.
    pub(crate) fn revoke(&mut self, beyond: usize) -> i64 {
        let beyond = i64::try_from(beyond).unwrap_or(i64::MAX);
        let back = self.granted.saturating_sub(beyond).max(0);
        self.granted -= back;
        -back
    }

    /// Gives its store room for the block that waits for it.
    pub(crate) fn give_room(&mut self, bytes: usize) -> usize {
        self.orders.needed = None;
        self.granted = self.granted.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
        bytes
    }

    /// Hands its store what that has room for, and credit. Whether anything went.
    pub(crate) fn deliver(&mut self, grant: Grant) -> bool {
        if self.orders.abandoned {
            self.waiting.clear();
            self.waiting_bytes = 0;
            return false;
        }
        let (mut count, mut bytes) = (0, 0);
        for event in &self.waiting {
            if count >= self.orders.events || bytes >= self.orders.event_bytes {
                break;
            }
            count += 1;
            bytes += pinned_bytes(event);
        }
        if count == 0 && grant.is_nothing() {
            return false;
        }
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        self.orders.events = self.orders.events.saturating_sub(count);
        self.orders.event_bytes = self.orders.event_bytes.saturating_sub(bytes);
        self.orders.pinned += bytes;
        if count == self.waiting.len() {
            self.link.deliver(&mut self.waiting, bytes, grant);
        } else {
            let mut part = self.waiting.drain(..count).collect();
            self.link.deliver(&mut part, bytes, grant);
        }
        count > 0
    }

    /// Whether its store has all that was for it.
    pub(crate) fn is_delivered(&self) -> bool {
        self.waiting.is_empty()
    }
}
