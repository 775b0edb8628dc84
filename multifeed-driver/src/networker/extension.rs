//! Extensions of the application's own, on all connections of a networker.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use multifeed_core::ExtensionError;

use crate::networker::events::PeerMessage;
use crate::networker::ids::ConnectionId;
use crate::networker::shared::Shared;
use crate::shared::inbox::Inbox;
use crate::stream::hub::StreamShared;

/// An extension on all connections: see [`Networker::register_extension`](crate::Networker::register_extension). Dropping it ends its messages.
pub struct NetworkerExtension {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: Arc<str>,
    pub(crate) inbox: Arc<Inbox<PeerMessage>>,
}

impl NetworkerExtension {
    /// The extension's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the connections whose remote says that it speaks the extension.
    pub fn speakers(&self) -> Vec<ConnectionId> {
        let speaks = |(_, stream): &(_, Arc<StreamShared>)| stream.remote_speaks(&self.name);
        self.shared.streams().into_iter().filter(speaks).map(|(id, _)| id).collect()
    }

    /// Sends a message, which may be any bytes, to every peer that speaks the extension. Returns how many took it: a peer for which too much
    /// waits is left out. It may be lost with its connection.
    ///
    /// # Errors
    /// No peer would take a message of that size.
    pub fn broadcast(&self, body: impl AsRef<[u8]>) -> Result<usize, ExtensionError> {
        let body = Bytes::copy_from_slice(body.as_ref());
        ExtensionError::check(&self.name, &body)?;
        let streams = self.shared.streams().into_iter();
        Ok(streams.filter(|(_, stream)| stream.remote_speaks(&self.name) && stream.try_send(&self.name, &body)).count())
    }

    /// Sends a message to the peer on one connection; waits while too much waits to be sent there. A remote that does not speak the extension
    /// drops it, as in JS.
    ///
    /// # Errors
    /// [`ExtensionError::Gone`] if the connection is over; no peer would take a message of that size.
    pub async fn send(&self, to: ConnectionId, body: impl AsRef<[u8]>) -> Result<(), ExtensionError> {
        let body = Bytes::copy_from_slice(body.as_ref());
        ExtensionError::check(&self.name, &body)?;
        let stream = self.shared.streams().into_iter().find(|(id, _)| *id == to).ok_or(ExtensionError::Gone)?.1;
        poll_fn(|cx| stream.poll_send(cx, &self.name, &body)).await
    }

    /// Returns the next message, of any peer; `None` once the networker is closed.
    pub async fn next(&mut self) -> Option<PeerMessage> {
        poll_fn(|cx| self.inbox.poll(cx)).await
    }

    /// Returns how many messages were lost because others waited:
    /// [`NetworkerLimits::extension_messages`](crate::NetworkerLimits::extension_messages).
    pub fn lost(&self) -> u64 {
        self.inbox.lost()
    }
}

impl Stream for NetworkerExtension {
    type Item = PeerMessage;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PeerMessage>> {
        self.inbox.poll(cx)
    }
}

impl fmt::Debug for NetworkerExtension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkerExtension").field("name", &self.name).finish_non_exhaustive()
    }
}
