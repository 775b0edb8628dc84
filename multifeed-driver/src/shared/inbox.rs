//! Messages of the application's extensions, until it takes them.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use multifeed_core::message_cost;

use crate::shared::session_events::SyncId;
use crate::waking::Waking;

/// What may wait for the application: messages, and bytes of them. One message is always taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// Messages that wait for the application.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    waiting: Waking<Waiting<T>>,
    room: Room,
}

#[derive(Debug)]
struct Waiting<T> {
    messages: VecDeque<(T, usize)>,
    bytes: usize,
    lost: u64,
    over: bool,
}

impl<T> Inbox<T> {
    pub(crate) fn new(room: Room) -> Self {
        let waiting = Waiting { messages: VecDeque::new(), bytes: 0, lost: 0, over: false };
        Self { waiting: Waking::new(waiting), room }
    }

    /// A message whose body has this size. It is lost if others leave it no room.
    pub(crate) fn push(&self, message: T, size: usize) {
        self.waiting.change(|waiting| {
            let cost = message_cost(size);
            let bytes = waiting.bytes.saturating_add(cost);
            let fits = waiting.messages.len() < self.room.messages && bytes <= self.room.bytes;
            if fits || waiting.messages.is_empty() {
                waiting.bytes = bytes;
                waiting.messages.push_back((message, cost));
            } else {
                waiting.lost += 1;
            }
        });
    }

    pub(crate) fn close(&self) {
        self.waiting.change(|waiting| waiting.over = true);
    }

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Option<T>> {
        self.waiting.poll(cx, |waiting| match waiting.messages.pop_front() {
            Some((message, cost)) => {
                waiting.bytes = waiting.bytes.saturating_sub(cost);
                Some(Some(message))
            }
            None => waiting.over.then_some(None),
        })
    }

    pub(crate) fn lost(&self) -> u64 {
        self.waiting.with(|waiting| waiting.lost)
    }
}

/// A message of an extension on a feed's channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedMessage {
    /// The session that it came on.
    pub from: SyncId,
    /// What it says.
    pub body: Bytes,
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn what_waits_is_bounded_and_what_is_lost_is_counted() {
        let cx = Context::from_waker(Waker::noop());
        let room = Room { messages: 100, bytes: 10_000 };
        let inbox = Inbox::new(room);
        for n in 0..room.messages + 5 {
            inbox.push(n, 1);
        }
        assert_eq!(inbox.lost(), 5);
        for n in 0..room.messages {
            assert_eq!(inbox.poll(&cx), Poll::Ready(Some(n)));
        }
        assert_eq!(inbox.poll(&cx), Poll::Pending);
        // One that is larger than all of them may be goes alone.
        inbox.push(1, 2 * room.bytes);
        inbox.push(2, 1);
        assert_eq!((inbox.poll(&cx), inbox.lost()), (Poll::Ready(Some(1)), 6));
        inbox.push(3, room.bytes);
        inbox.close();
        assert_eq!((inbox.poll(&cx), inbox.poll(&cx)), (Poll::Ready(Some(3)), Poll::Ready(None)));
    }
}
