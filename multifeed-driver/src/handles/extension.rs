//! Extensions of the application's own, as it sees them: on a stream, and on a feed's channels.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use multifeed_core::ExtensionError;
use multifeed_proto::Json;

use crate::error::Error;
use crate::handles::feed::Feed;
use crate::handles::replication::Replication;
use crate::handles::stream::ProtocolStream;
use crate::shared::inbox::{FeedMessage, Inbox};
use crate::shared::session_events::SyncId;
use crate::store::calls::call::{Call, ExtensionCall};
use crate::stream::hub::StreamShared;

/// An extension on a stream: see [`Replication::register_extension`](crate::Replication::register_extension). Dropping it ends its messages.
pub struct StreamExtension {
    hub: Arc<StreamShared>,
    name: Arc<str>,
    inbox: Arc<Inbox<Bytes>>,
}

impl Replication {
    /// Speaks an extension of the application's own on the session's stream (channel 0), as Cabal does with `peer-id`: JS's
    /// `stream.registerExtension`. Messages of the same name come as its items. On a stream that is shared it is the stream's.
    ///
    /// # Errors
    /// If the name is multifeed's own, or taken, there are too many, or the stream is over.
    pub fn register_extension(&self, name: &str) -> Result<StreamExtension, ExtensionError> {
        StreamExtension::register(self.hub(), name)
    }
}

impl ProtocolStream {
    /// Speaks an extension of the application's own on the stream: see [`Replication::register_extension`](crate::Replication::register_extension).
    ///
    /// # Errors
    /// If the name is multifeed's own, or taken, there are too many, or the stream is over.
    pub fn register_extension(&self, name: &str) -> Result<StreamExtension, ExtensionError> {
        StreamExtension::register(self.hub(), name)
    }
}

impl Feed {
    /// Speaks an extension of the application's own on this feed's channel, with every peer that has it open or opens it later: hypercore's
    /// `registerExtension`. Messages come and go while sessions replicate the feed.
    ///
    /// # Errors
    /// [`Error::Extension`] if the name is multifeed's own, or taken, or there are too many; [`Error::Closed`].
    pub async fn register_extension(&self, name: &str) -> Result<FeedExtension, Error> {
        FeedExtension::register(self, name).await
    }
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

    /// Returns whether the remote says that it speaks the extension: it registered it, and this was heard here.
    pub fn is_spoken(&self) -> bool {
        self.hub.remote_speaks(&self.name)
    }

    /// Waits until the remote says that it speaks the extension. What is sent from then on comes to its handler.
    ///
    /// JS says on a stream what it registered there when it next sends anything on it: at the start, and then with messages of extensions alone. It is not
    /// ready if it registers one later, and only listens.
    ///
    /// # Errors
    /// [`ExtensionError::Gone`] if the stream is over.
    pub async fn ready(&self) -> Result<(), ExtensionError> {
        poll_fn(|cx| self.hub.poll_spoken(cx, &self.name)).await
    }

    /// Sends a message, which may be any bytes; waits while too much waits to be sent. A remote that does not speak the extension drops
    /// it, as in JS, also one that registers it a moment later: wait until it is [`ready`](Self::ready), if that matters.
    ///
    /// # Errors
    /// If the stream is over, or no peer would take a message of that size.
    pub async fn send(&self, body: impl AsRef<[u8]>) -> Result<(), ExtensionError> {
        let body = Bytes::copy_from_slice(body.as_ref());
        ExtensionError::check(&self.name, &body)?;
        poll_fn(|cx| self.hub.poll_send(cx, &self.name, &body)).await
    }

    /// Sends JSON, as most extensions speak: see [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_json(&self, json: &Json) -> Result<(), ExtensionError> {
        self.send(json.as_str()).await
    }

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        self.inbox.poll(cx)
    }

    /// Returns the next message of the remote's; `None` once the stream is over. [`Json::from_bytes`] reads one that is JSON.
    pub async fn next(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.inbox.poll(cx)).await
    }

    /// Returns how many messages were lost because others waited: [`PumpOptions::extension_messages`](crate::PumpOptions::extension_messages).
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

    /// Returns the sessions whose remote has the feed's channel open, and says that it speaks the extension: it registered it, and this was heard here.
    /// [`FeedEvent::Extensions`](crate::FeedEvent::Extensions) reports each change.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn speakers(&self) -> Result<Vec<SyncId>, Error> {
        let (feed, name) = (self.feed.state.id, self.name.clone());
        self.feed.guard.ask(|answer| Call::Extension(ExtensionCall::Speakers { feed, name, answer })).await
    }

    /// Returns whether the remote of a session is among the [`speakers`](Self::speakers).
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn spoken_by(&self, session: SyncId) -> Result<bool, Error> {
        Ok(self.speakers().await?.contains(&session))
    }

    /// Waits until the remote of some session speaks the extension, and returns which. What is sent to it from then on comes to its handler.
    ///
    /// # Errors
    /// [`Error::Extension`] with [`ExtensionError::Gone`] if the feed is removed; [`Error::Closed`].
    pub async fn ready(&self) -> Result<SyncId, Error> {
        let (feed, name) = (self.feed.state.id, self.name.clone());
        let call = |ticket, answer| Call::Extension(ExtensionCall::Ready { feed, name, ticket, answer });
        self.feed.guard.ask_waiting(call).await
    }

    /// Sends a message, which may be any bytes, to the feed's peer on one session. A remote that does not speak the extension drops it, as
    /// in JS, also one that registers it a moment later: see [`ready`](Self::ready).
    ///
    /// # Errors
    /// [`Error::Extension`] if that session has not the feed's channel open, the message is too large, or too much waits for that
    /// peer; [`Error::Closed`].
    pub async fn send(&self, to: SyncId, body: impl AsRef<[u8]>) -> Result<(), Error> {
        self.send_to(Some(to), body.as_ref()).await.map(drop)
    }

    /// Sends a message to every peer that has the feed's channel open, and returns how many of them say that they speak the extension. A peer for
    /// which too much waits is left out.
    ///
    /// # Errors
    /// [`Error::Extension`] if the message is too large; [`Error::Closed`].
    pub async fn broadcast(&self, body: impl AsRef<[u8]>) -> Result<usize, Error> {
        self.send_to(None, body.as_ref()).await
    }

    async fn send_to(&self, to: Option<SyncId>, body: &[u8]) -> Result<usize, Error> {
        let (feed, name, body) = (self.feed.state.id, self.name.clone(), Bytes::copy_from_slice(body));
        self.feed.guard.ask(|answer| Call::Extension(ExtensionCall::Send { feed, to, name, body, answer })).await?
    }

    /// Returns the next message, of any peer; `None` once the multifeed is closed, or the feed removed.
    pub async fn next(&mut self) -> Option<FeedMessage> {
        poll_fn(|cx| self.inbox.poll(cx)).await
    }

    /// Returns how many messages were lost because others waited: [`Limits::extension_messages`](multifeed_core::Limits::extension_messages).
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
