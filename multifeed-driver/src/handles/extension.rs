//! Extensions of the application's own, as it sees them: on a stream, and on a feed's channels.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use multifeed_core::{ExtensionError, FeedId, Limits, SessionId, message_cost};
use multifeed_proto::Json;

use crate::error::Error;
use crate::handles::feed::Feed;
use crate::handles::replication::SyncId;
use crate::store::call::{Call, ExtensionCall};
use crate::stream::hub::StreamShared;
use crate::waking::Waking;

/// An extension on a stream: see [`Replication::register_extension`](crate::Replication::register_extension). Dropping it ends its messages.
pub struct StreamExtension {
    hub: Arc<StreamShared>,
    name: Arc<str>,
    inbox: Arc<Inbox<Bytes>>,
}

impl StreamExtension {
    pub(crate) fn register(hub: &Arc<StreamShared>, name: &str) -> Result<Self, ExtensionError> {
        ExtensionError::check(name, &[])?;
        let name = Arc::from(name);
        let inbox = hub.register(&name)?;
        Ok(Self { hub: hub.clone(), name, inbox })
    }

    /// The extension's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message, which may be any bytes; waits while too much waits to be sent. A remote that does not speak the extension drops
    /// it, as in JS.
    ///
    /// # Errors
    /// Where the stream is over, or no peer would take a message of that size.
    pub async fn send(&self, body: impl AsRef<[u8]>) -> Result<(), ExtensionError> {
        let body = Bytes::copy_from_slice(body.as_ref());
        ExtensionError::check(&self.name, &body)?;
        poll_fn(|cx| self.hub.poll_send(cx, &self.name, &body)).await
    }

    /// As [`send`](Self::send), of JSON, as most extensions speak.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_json(&self, json: &Json) -> Result<(), ExtensionError> {
        self.send(json.as_str()).await
    }

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        self.inbox.poll(cx)
    }

    /// The next message of the remote's; `None` once the stream is over. [`Json::from_bytes`] reads one that is JSON.
    pub async fn next(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.inbox.poll(cx)).await
    }

    /// How many messages were lost because others waited: [`PumpOptions::extension_messages`](crate::PumpOptions::extension_messages).
    pub fn lost(&self) -> u64 {
        self.inbox.lost()
    }
}

impl Stream for StreamExtension {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.inbox.poll(cx)
    }
}

impl fmt::Debug for StreamExtension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamExtension").field("name", &self.name).finish_non_exhaustive()
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

/// An extension on a feed's channels: see [`Feed::register_extension`](crate::Feed::register_extension). Dropping it ends its messages.
pub struct FeedExtension {
    feed: Feed,
    name: Arc<str>,
    inbox: Arc<Inbox<FeedMessage>>,
}

impl FeedExtension {
    pub(crate) async fn register(feed: &Feed, name: &str) -> Result<Self, Error> {
        let name = Arc::<str>::from(name);
        let (id, key) = (feed.state.id, name.clone());
        let call = |answer| Call::Extension(ExtensionCall::Register { feed: id, name: key, answer });
        let inbox = feed.guard.ask(call).await??;
        Ok(Self { feed: feed.clone(), name, inbox })
    }

    /// The extension's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message, which may be any bytes, to the feed's peer on one session. A remote that does not speak the extension drops it, as
    /// in JS.
    ///
    /// # Errors
    /// [`Error::Extension`] where that session has not the feed's channel open, the message is too large, or too much waits for that
    /// peer; [`Error::Closed`].
    pub async fn send(&self, to: SyncId, body: impl AsRef<[u8]>) -> Result<(), Error> {
        self.send_to(Some(to), body.as_ref()).await.map(drop)
    }

    /// Sends a message to every peer that has the feed's channel open, and tells how many that were. A peer for which too much waits is
    /// left out.
    ///
    /// # Errors
    /// [`Error::Extension`] where the message is too large; [`Error::Closed`].
    pub async fn broadcast(&self, body: impl AsRef<[u8]>) -> Result<usize, Error> {
        self.send_to(None, body.as_ref()).await
    }

    async fn send_to(&self, to: Option<SyncId>, body: &[u8]) -> Result<usize, Error> {
        let (feed, name, body) = (self.feed.state.id, self.name.clone(), Bytes::copy_from_slice(body));
        self.feed.guard.ask(|answer| Call::Extension(ExtensionCall::Send { feed, to, name, body, answer })).await?
    }

    /// The next message, of any peer; `None` once the multifeed is closed, or the feed removed.
    pub async fn next(&mut self) -> Option<FeedMessage> {
        poll_fn(|cx| self.inbox.poll(cx)).await
    }

    /// How many messages were lost because others waited: [`Limits::extension_messages`](multifeed_core::Limits::extension_messages).
    pub fn lost(&self) -> u64 {
        self.inbox.lost()
    }
}

impl Stream for FeedExtension {
    type Item = FeedMessage;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FeedMessage>> {
        self.inbox.poll(cx)
    }
}

impl fmt::Debug for FeedExtension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedExtension")
            .field("feed", &self.feed.key())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

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

    /// A message whose body has this size. It is lost where others leave it no room.
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

/// The applications' inboxes for extensions on feeds' channels, as the store's thread keeps them.
#[derive(Debug)]
pub(crate) struct FeedInboxes {
    inboxes: BTreeMap<(FeedId, Arc<str>), Weak<Inbox<FeedMessage>>>,
    room: Room,
}

impl FeedInboxes {
    pub(crate) fn new(limits: &Limits) -> Self {
        let room = Room { messages: limits.extension_messages, bytes: limits.extension_bytes };
        Self { inboxes: BTreeMap::new(), room }
    }

    /// An inbox for an extension that was registered; none where another handle has that name.
    pub(crate) fn register(&mut self, feed: FeedId, name: Arc<str>) -> Option<Arc<Inbox<FeedMessage>>> {
        let slot = self.inboxes.entry((feed, name)).or_default();
        if slot.strong_count() > 0 {
            return None;
        }
        let inbox = Arc::new(Inbox::new(self.room));
        *slot = Arc::downgrade(&inbox);
        Some(inbox)
    }

    /// A feed was removed: its extensions hear nothing any more.
    pub(crate) fn forget(&mut self, feed: FeedId) {
        self.inboxes.retain(|(of, _), inbox| {
            if *of == feed {
                inbox.upgrade().into_iter().for_each(|inbox| inbox.close());
            }
            *of != feed
        });
    }

    pub(crate) fn deliver(&self, message: multifeed_core::FeedMessage, from: Option<SyncId>) {
        let size = message.body.len();
        let inbox = self.inboxes.get(&(message.feed, message.name)).and_then(Weak::upgrade);
        if let (Some(inbox), Some(from)) = (inbox, from) {
            inbox.push(FeedMessage { from, body: message.body }, size);
        }
    }
}

impl Drop for FeedInboxes {
    fn drop(&mut self) {
        self.inboxes.values().filter_map(Weak::upgrade).for_each(|inbox| inbox.close());
    }
}

/// Sends to one peer, or to all; how many took it.
pub(crate) fn send<S: multifeed_core::Storage>(
    multi: &mut multifeed_core::Multifeed<S>,
    feed: FeedId,
    to: Option<Option<SessionId>>,
    name: &str,
    body: &Bytes,
) -> Result<usize, ExtensionError> {
    match to {
        Some(peer) => multi.send_extension(feed, peer.ok_or(ExtensionError::Gone)?, name, body.clone()).map(|()| 1),
        None => {
            ExtensionError::check(name, body)?;
            let peers = multi.extension_peers(feed);
            Ok(peers.into_iter().filter(|&peer| multi.send_extension(feed, peer, name, body.clone()).is_ok()).count())
        }
    }
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
