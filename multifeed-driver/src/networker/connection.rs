//! The task of one connection: it does what the table orders, and reports what happens.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use multifeed_core::log::log;
use multifeed_core::{SyncError, SyncState, SyncTotals};
use multifeed_proto::{Command, Fault, FeedKey, Role, SessionError};

use crate::handles::extension::StreamExtension;
use crate::handles::replication::Replication;
use crate::handles::stream::ProtocolStream;
use crate::networker::events::{NetworkerEvent, PeerMessage};
use crate::networker::ids::{ConnectionId, DialId, PeerKey};
use crate::networker::orders::{Mismatch, Order};
use crate::networker::shared::Shared;
use crate::runtime::Runtime;
use crate::shared::inbox::Inbox;
use crate::shared::session_events::SyncEvent;
use crate::stream::hub::StreamEvent;
use crate::timer::Timer;

/// Rounds in one poll before the executor's other tasks have theirs.
const ROUNDS: usize = 8;

/// A root key's session that is over: whether it was in sync, and what it came to.
type Over = (FeedKey, bool, Result<SyncTotals, SyncError>);

/// The task of one connection. It is ready once its stream and all sessions on it are over.
pub(crate) struct Connection<R: Runtime> {
    shared: Arc<Shared>,
    id: ConnectionId,
    stream: ProtocolStream,
    peer: Option<PeerKey>,
    dial: Option<DialId>,
    /// It was let in, which the application knows.
    admitted: bool,
    sessions: BTreeMap<FeedKey, Replication>,
    /// As of this version.
    extensions: Vec<(StreamExtension, Weak<Inbox<PeerMessage>>)>,
    version: u64,
    /// Whom the session's limits count what it brings for.
    source: Option<String>,
    result: Option<Result<(), SessionError>>,
    timer: Timer<R>,
    due: Option<Duration>,
    over: bool,
}

impl<R: Runtime> Connection<R> {
    /// Opens the stream of a connection that the table took.
    pub(crate) fn open(
        shared: Arc<Shared>,
        id: ConnectionId,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        role: Role,
        dial: Option<DialId>,
        source: Option<String>,
    ) -> Self {
        let stream = ProtocolStream::open_on::<R>(io, role, shared.stream_options());
        shared.opened(id, stream.hub());
        Self {
            shared,
            id,
            stream,
            peer: None,
            dial,
            admitted: false,
            sessions: BTreeMap::new(),
            extensions: Vec::new(),
            version: 0,
            source,
            result: None,
            timer: Timer::default(),
            due: None,
            over: false,
        }
    }

    /// Does all that there is to do. Whether that was anything.
    fn round(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = self.follow_orders(cx);
        // What a session reports is read first and applied last: the channels that the remote opened before it are known by then.
        let (reports, over) = self.poll_sessions(cx);
        moved |= self.poll_stream(cx);
        moved |= !(reports.is_empty() && over.is_empty());
        for (root, event) in reports {
            if let SyncEvent::Ready(_) = event {
                self.shared.with(|table, now| table.ready(self.id, root, now));
                self.shared.publish(&NetworkerEvent::Ready { connection: self.id, root });
            }
            self.shared.publish(&NetworkerEvent::Sync { connection: self.id, root, event });
        }
        for (root, in_sync, result) in over {
            self.sessions.remove(&root);
            let result = self.why(root, result);
            self.shared.over(self.id, root, in_sync);
            self.shared.publish(&NetworkerEvent::RootOver { connection: self.id, root, in_sync, result });
        }
        moved |= self.poll_extensions(cx);
        moved | self.timer.poll(cx, self.due, self.shared.clock.now())
    }

    fn follow_orders(&mut self, cx: &mut Context<'_>) -> bool {
        let found = self.shared.orders(cx, self.id, self.version);
        self.due = found.due;
        self.version = found.version;
        if let Some(names) = found.extensions {
            self.extensions.retain(|(_, inbox)| inbox.strong_count() > 0);
            for (name, inbox) in names {
                let is_new = !self.extensions.iter().any(|(spoken, _)| spoken.name() == &*name);
                if is_new && let Ok(extension) = self.stream.register_extension(&name) {
                    self.extensions.push((extension, inbox));
                }
            }
        }
        let moved = !found.orders.is_empty();
        for order in found.orders {
            match order {
                Order::Open(root) => self.open_root(root),
                Order::Close(root) => self.sessions.get(&root).into_iter().for_each(Replication::close),
                Order::Listen => self.stream.hub().command(Command::Admit),
                Order::Admit => {
                    self.stream.hub().command(Command::Admit);
                    if let Some(peer) = self.peer.filter(|_| !std::mem::replace(&mut self.admitted, true)) {
                        self.shared.publish(&NetworkerEvent::Connected { connection: self.id, peer, dial: self.dial });
                    }
                }
                Order::Refuse => {
                    self.stream.refuse();
                    // If its handshake is not done, there is nothing to refuse yet.
                    self.stream.close();
                }
                Order::End => self.stream.close(),
                Order::Mismatch(mismatch) => self.report(mismatch),
            }
        }
        moved
    }

    /// The root keys differ.
    fn report(&self, Mismatch { theirs, is_new }: Mismatch) {
        let Some(peer) = self.peer else { return };
        if is_new {
            log!(WARN, "networker", "ERR_ROOT_KEY_MISMATCH: the peer has another root key, and none of ours", peer = ?peer, theirs = ?theirs, dial = ?self.dial);
        }
        self.shared.publish(&NetworkerEvent::RootKeyMismatch { connection: self.id, peer, dial: self.dial, theirs });
    }

    /// What a session came to. If the remote did not answer, and it is known that it has another root key, that is why.
    fn why(&self, root: FeedKey, result: Result<SyncTotals, SyncError>) -> Result<SyncTotals, SyncError> {
        match result {
            Err(SyncError::Session(error @ SessionError::Timeout(_))) => {
                let us = root.discovery_key();
                let them = self.shared.with(|table, _| table.other_root(self.id));
                let error = them.map_or(error, |them| SessionError::RootKeyMismatch { us, them });
                Err(SyncError::Session(error))
            }
            result => result,
        }
    }

    fn open_root(&mut self, root: FeedKey) {
        let Some((multifeed, mut options)) = self.shared.joined(&root) else {
            // It left meanwhile.
            return self.shared.over(self.id, root, false);
        };
        if options.source.is_none() {
            options.source.clone_from(&self.source);
        }
        self.sessions.insert(root, multifeed.join_stream(&self.stream, options, true));
    }

    /// What the sessions report, in order, and the root keys whose session is over.
    fn poll_sessions(&self, cx: &Context<'_>) -> (Vec<(FeedKey, SyncEvent)>, Vec<Over>) {
        let (mut reports, mut over) = (Vec::new(), Vec::new());
        for (root, session) in &self.sessions {
            let link = session.link();
            let mut newest = None;
            let end = loop {
                match link.sync.poll_next(cx) {
                    Poll::Ready(Some(SyncEvent::Progress(state))) => newest = Some(state),
                    Poll::Ready(Some(SyncEvent::Connected { .. } | SyncEvent::Proven)) => {}
                    // The multifeed reports new feeds, and lists of feeds may be long.
                    Poll::Ready(Some(SyncEvent::Feed { .. } | SyncEvent::RemoteFeeds { .. })) => {}
                    Poll::Ready(Some(event)) => reports.push((*root, event)),
                    Poll::Ready(None) => break Some(link.sync.poll_end(cx)),
                    Poll::Pending => break None,
                }
            };
            match (end, newest) {
                (Some(Poll::Ready(end)), newest) => {
                    let result = end.map(|totals| totals.moved);
                    let before = self.shared.sync_of(self.id, *root);
                    let was_cut = was_cut_in_sync(result.as_ref().err(), before, newest);
                    over.push((*root, link.ended_in_sync() || was_cut, result));
                }
                (_, Some(state)) => self.shared.set_sync(self.id, *root, state),
                _ => {}
            }
        }
        (reports, over)
    }

    fn poll_stream(&mut self, cx: &Context<'_>) -> bool {
        let mut moved = false;
        let hub = self.stream.hub().clone();
        while let Poll::Ready(Some(event)) = hub.poll_next(cx) {
            moved = true;
            match event {
                StreamEvent::Connected { remote_public_key, .. } => {
                    self.peer = Some(remote_public_key);
                    let accepted = self.shared.accepts(&remote_public_key);
                    self.shared.with(|table, now| table.connected(self.id, remote_public_key, accepted, now));
                }
                StreamEvent::Discovered { discovery_key } => {
                    self.shared.with(|table, now| table.discovered(self.id, discovery_key, now));
                }
                StreamEvent::Spoken { .. } => {}
                StreamEvent::Lagged => self.shared.with(|table, now| table.discovered_some(self.id, now)),
            }
        }
        if self.result.is_none()
            && let Poll::Ready(end) = hub.poll_end(cx)
        {
            self.result = Some(end.map(drop));
            moved = true;
        }
        moved
    }

    fn poll_extensions(&self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for (extension, inbox) in &self.extensions {
            while let Poll::Ready(Some(body)) = extension.poll(cx) {
                moved = true;
                if let (Some(inbox), Some(peer)) = (inbox.upgrade(), self.peer) {
                    let size = body.len();
                    inbox.push(PeerMessage { connection: self.id, peer, body }, size);
                }
            }
        }
        moved
    }

    /// The connection is over.
    fn end(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.sessions.clear();
        let Some(ended) = self.shared.ended(self.id) else { return };
        ended.mismatch.into_iter().for_each(|mismatch| self.report(mismatch));
        let error = self.result.take().and_then(Result::err);
        self.shared.publish(&NetworkerEvent::Disconnected {
            connection: self.id,
            peer: ended.peer,
            dial: self.dial,
            reason: ended.reason,
            error,
            in_sync: ended.in_sync,
            unanswered: ended.unanswered,
        });
        if let Some((dial, after)) = ended.dial {
            self.shared.publish(&NetworkerEvent::Redial { dial, after, error: None });
        }
        self.shared.reported();
    }
}

/// Whether the stream of a session was cut while both sides held the same: so JS ends a stream, and a network that fails.
fn was_cut_in_sync(error: Option<&SyncError>, before: SyncState, newest: Option<SyncState>) -> bool {
    let is_cut = matches!(error, Some(SyncError::Session(error)) if error.fault() == Fault::Network);
    is_cut && before.in_sync && newest.is_none_or(|state| state.missing_here == 0 && state.missing_there == 0)
}

impl<R: Runtime> Future for Connection<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let connection = self.get_mut();
        for _ in 0..ROUNDS {
            if !connection.round(cx) {
                if connection.result.is_some() && connection.sessions.is_empty() {
                    connection.end();
                    return Poll::Ready(());
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<R: Runtime> Drop for Connection<R> {
    fn drop(&mut self) {
        // A runtime that shuts down drops its tasks.
        self.end();
    }
}

impl<R: Runtime> Unpin for Connection<R> {}
