//! What the handles of a stream and its pump pass each other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use multifeed_core::{ExtensionError, SyncError, message_cost};
use multifeed_proto::{
    Command, DiscoveryKey, FeedKey, HandshakeHash, PeerKey, Root, RootConfig, Scope, Session, SessionError, Totals,
};

use crate::options::PumpOptions;
use crate::shared::inbox::{Inbox, Room};
use crate::shared::link::Link;
use crate::waking::{Waiters, Waking};

/// Events that may wait for an application that does not take them; later ones are dropped, and `Lagged` reports that.
const EVENTS_WAITING: usize = 1024;

/// What happens on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// Noise's handshake is done. If [`Config::authenticate`](multifeed_proto::Config::authenticate) asks for it, the stream now waits for
    /// [`accept`](crate::ProtocolStream::accept) or [`refuse`](crate::ProtocolStream::refuse).
    Connected {
        /// The remote's static key. Anyone can have made one up: compare it if identity matters.
        remote_public_key: PeerKey,
        /// Equal on both sides of this stream and nowhere else (for channel binding).
        handshake_hash: HandshakeHash,
    },
    /// The remote opened a channel that is open nowhere here: of a root key, or of a feed that is about to be opened here too.
    /// Reported if [`Config::discover`](multifeed_proto::Config::discover) asks for it.
    Discovered {
        /// The channel's.
        discovery_key: DiscoveryKey,
    },
    /// The remote says that it speaks an extension which is registered here on the stream.
    Spoken {
        /// The extension's name.
        name: Arc<str>,
    },
    /// More than 1,024 events waited, and some were dropped.
    Lagged,
}

/// What the handles of a stream and its pump pass each other. Neither waits for the other.
#[derive(Debug)]
pub(crate) struct StreamShared {
    state: Waking<State>,
    /// [`PumpOptions::extensions`](crate::PumpOptions::extensions).
    names: usize,
    room: Room,
}

#[derive(Debug, Default)]
struct State {
    // From the handles to the pump.
    handles: usize,
    joins: Vec<Join>,
    commands: Vec<Command>,
    /// Messages of extensions, until the session has room for them.
    messages: VecDeque<Command>,
    message_bytes: usize,
    extensions: BTreeMap<Arc<str>, Spoken>,
    closing: bool,
    next_root: u32,
    // From the pump to the handles.
    events: VecDeque<StreamEvent>,
    totals: Totals,
    end: Option<Result<Totals, SessionError>>,
    waiters: Waiters,
}

/// An extension that was registered here.
#[derive(Debug, Default)]
struct Spoken {
    inbox: Weak<Inbox<Bytes>>,
    /// The remote speaks it too.
    by_remote: bool,
}

/// A multifeed, or one feed of it, to sync over the stream.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) link: Arc<Link>,
    pub(crate) subject: Subject,
}

/// What is synced.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    /// A multifeed, and what our handshake says.
    Multifeed(RootConfig),
    /// One feed alone.
    Feed(FeedKey),
}

/// What the pump finds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandleRequests {
    /// A handle is held: more multifeeds may come.
    pub(crate) is_held: bool,
    /// Ends the stream, whatever multifeeds are on it.
    pub(crate) closing: bool,
}

impl StreamShared {
    pub(crate) fn new(options: &PumpOptions) -> Self {
        let room = Room { messages: options.extension_messages, bytes: options.extension_bytes };
        Self { state: Waking::default(), names: options.extensions, room }
    }

    // The handles' side.

    /// One handle more.
    pub(crate) fn hold(&self) {
        self.state.with(|state| state.handles += 1);
    }

    /// One handle less.
    pub(crate) fn release(&self) {
        self.state.change(|state| state.handles = state.handles.saturating_sub(1));
    }

    /// A name for a multifeed that is about to join.
    pub(crate) fn next_root(&self) -> Root {
        self.state.with(|state| {
            let root = Root(state.next_root);
            state.next_root = state.next_root.saturating_add(1);
            root
        })
    }

    pub(crate) fn join(&self, join: Join) {
        let over = self.state.change(|state| match &state.end {
            Some(end) => Some((join, end.clone())),
            None => {
                state.joins.push(join);
                None
            }
        });
        if let Some((join, end)) = over {
            join.refuse(end.err());
        }
    }

    pub(crate) fn command(&self, command: Command) {
        self.state.change(|state| {
            // A ping that waits will do for all.
            if state.end.is_none() && !state.commands.contains(&command) {
                state.commands.push(command);
            }
        });
    }

    /// Speaks an extension on the stream; what comes goes to this inbox.
    pub(crate) fn register(&self, name: &Arc<str>) -> Result<Arc<Inbox<Bytes>>, ExtensionError> {
        let inbox = Arc::new(Inbox::new(self.room));
        self.state.change(|state| {
            if state.end.is_some() {
                return Err(ExtensionError::Gone);
            }
            let is_new = !state.extensions.contains_key(name);
            if is_new && state.extensions.len() >= self.names {
                return Err(ExtensionError::TooMany { max: self.names });
            }
            let slot = state.extensions.entry(name.clone()).or_default();
            if slot.inbox.strong_count() > 0 {
                return Err(ExtensionError::Taken(name.as_ref().to_owned()));
            }
            slot.inbox = Arc::downgrade(&inbox);
            if is_new {
                let name = name.as_ref().to_owned();
                state.commands.push(Command::RegisterExtension { scope: Scope::Stream, name });
            }
            Ok(inbox)
        })
    }

    /// Accepts a message of an extension, once there is room.
    pub(crate) fn poll_send(
        &self,
        cx: &Context<'_>,
        name: &Arc<str>,
        body: &Bytes,
    ) -> Poll<Result<(), ExtensionError>> {
        self.state.change_if(|state| {
            if state.end.is_some() {
                return (Poll::Ready(Err(ExtensionError::Gone)), false);
            }
            let bytes = state.message_bytes.saturating_add(message_cost(body.len()));
            if !state.messages.is_empty() && bytes > self.room.bytes {
                state.waiters.add(cx);
                return (Poll::Pending, false);
            }
            state.message_bytes = bytes;
            state.messages.push_back(Command::SendExtension {
                scope: Scope::Stream,
                name: name.clone(),
                body: body.clone(),
            });
            (Poll::Ready(Ok(())), true)
        })
    }

    /// Whether the remote said that it speaks an extension of ours.
    pub(crate) fn remote_speaks(&self, name: &str) -> bool {
        self.state.with(|state| state.extensions.get(name).is_some_and(|spoken| spoken.by_remote))
    }

    /// Waits until the remote says that it speaks an extension of ours.
    pub(crate) fn poll_spoken(&self, cx: &Context<'_>, name: &str) -> Poll<Result<(), ExtensionError>> {
        self.wait(cx, |state| match state.extensions.get(name).is_some_and(|spoken| spoken.by_remote) {
            true => Some(Ok(())),
            false => state.end.is_some().then_some(Err(ExtensionError::Gone)),
        })
    }

    /// Accepts a message of an extension, if there is room for it now.
    pub(crate) fn try_send(&self, name: &Arc<str>, body: &Bytes) -> bool {
        matches!(self.poll_send(&Context::from_waker(Waker::noop()), name, body), Poll::Ready(Ok(())))
    }

    pub(crate) fn close(&self) {
        self.state.change(|state| state.closing = true);
    }

    pub(crate) fn totals(&self) -> Totals {
        self.state.with(|state| state.totals)
    }

    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<StreamEvent>> {
        self.wait(cx, |state| state.events.pop_front().map(Some).or(state.end.is_some().then_some(None)))
    }

    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Poll<Result<Totals, SessionError>> {
        self.wait(cx, |state| state.end.clone())
    }

    /// Takes something that the pump brings, or waits for it.
    fn wait<T>(&self, cx: &Context<'_>, take: impl FnOnce(&mut State) -> Option<T>) -> Poll<T> {
        self.state.with(|state| match take(state) {
            Some(taken) => Poll::Ready(taken),
            None => {
                state.waiters.add(cx);
                Poll::Pending
            }
        })
    }

    // The pump's side.

    /// Takes what the handles want, and leaves the pump's waker for when they want more.
    pub(crate) fn wishes(
        &self,
        cx: &Context<'_>,
        session: &Session,
        joins: &mut Vec<Join>,
        commands: &mut Vec<Command>,
    ) -> HandleRequests {
        let (requests, waiters) = self.state.watch(cx, |state| {
            state.totals = session.totals();
            let mut heard = Vec::new();
            for (name, spoken) in &mut state.extensions {
                let before = std::mem::replace(&mut spoken.by_remote, session.remote_speaks(Scope::Stream, name));
                if spoken.by_remote && !before {
                    heard.push(StreamEvent::Spoken { name: name.clone() });
                }
            }
            let is_news = !heard.is_empty();
            heard.into_iter().for_each(|event| state.push(event));
            joins.append(&mut state.joins);
            commands.append(&mut state.commands);
            let mut free = session.send_credit();
            let sent = state.messages.len();
            while free > 0
                && let Some(message) = state.messages.pop_front()
            {
                free = free.saturating_sub(message.size());
                if let Command::SendExtension { body, .. } = &message {
                    state.message_bytes = state.message_bytes.saturating_sub(message_cost(body.len()));
                }
                commands.push(message);
            }
            let waiters =
                if is_news || state.messages.len() < sent { state.waiters.take() } else { Waiters::default() };
            (HandleRequests { is_held: state.handles > 0, closing: state.closing }, waiters)
        });
        waiters.wake();
        requests
    }

    /// Passes on a message of an extension of the application's. Returns false if it registered none of that name.
    pub(crate) fn message(&self, name: &str, body: &Bytes) -> bool {
        let Some(inbox) = self.state.with(|state| Some(state.extensions.get(name)?.inbox.upgrade())) else {
            return false;
        };
        inbox.into_iter().for_each(|inbox| inbox.push(Bytes::copy_from_slice(body), body.len()));
        true
    }

    pub(crate) fn push(&self, event: StreamEvent) {
        let waiters = self.state.with(|state| {
            state.push(event);
            state.waiters.take()
        });
        waiters.wake();
    }

    /// The stream is over. Only the first end counts.
    pub(crate) fn end(&self, end: Result<(), SessionError>, totals: Totals) {
        let (waiters, joins) = self.state.with(|state| {
            state.totals = totals;
            state.end.get_or_insert(end.clone().map(|()| totals));
            state.messages.clear();
            state.extensions.values().filter_map(|spoken| spoken.inbox.upgrade()).for_each(|inbox| inbox.close());
            (state.waiters.take(), std::mem::take(&mut state.joins))
        });
        joins.into_iter().for_each(|join| join.refuse(end.clone().err()));
        waiters.wake();
    }
}

impl State {
    fn push(&mut self, event: StreamEvent) {
        if self.events.len() < EVENTS_WAITING {
            self.events.push_back(event);
        } else if self.events.back() != Some(&StreamEvent::Lagged) {
            self.events.push_back(StreamEvent::Lagged);
        }
    }
}

impl Join {
    /// Fails it: the stream is over, with this error if there was one.
    pub(crate) fn refuse(&self, error: Option<SessionError>) {
        let error = error.unwrap_or_else(|| SessionError::Local("the stream has ended".into()));
        self.link.sync.end(Err(SyncError::Session(error)));
        self.link.leave(Totals::default());
    }
}
