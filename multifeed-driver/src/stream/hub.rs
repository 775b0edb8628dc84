//! Where the handles of a stream and its pump meet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use multifeed_core::{ExtensionError, SyncError, message_cost};
use multifeed_proto::{Command, FeedKey, Root, RootConfig, Scope, Session, SessionError, Totals};

use crate::handles::extension::{Inbox, Room};
use crate::handles::stream::StreamEvent;
use crate::lock;
use crate::options::PumpOptions;
use crate::stream::link::Link;

/// Events that may wait for an application that does not take them; later ones are dropped, and that is told.
const EVENTS_WAITING: usize = 1024;

/// What the handles of a stream and its pump pass each other. Neither waits for the other.
#[derive(Debug)]
pub(crate) struct StreamShared {
    state: Mutex<State>,
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
    waker: Option<Waker>,
    // From the pump to the handles.
    events: VecDeque<StreamEvent>,
    totals: Totals,
    end: Option<Result<Totals, SessionError>>,
    waiters: Vec<Waker>,
}

/// An extension that was registered here.
#[derive(Debug, Default)]
struct Spoken {
    inbox: Weak<Inbox<Bytes>>,
    /// The remote speaks it too.
    by_remote: bool,
}

/// A multifeed, or one feed of it, that is to be synced over the stream.
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
    /// The stream is to end, whoever is on it.
    pub(crate) closing: bool,
}

impl StreamShared {
    pub(crate) fn new(options: &PumpOptions) -> Self {
        let room = Room { messages: options.extension_messages, bytes: options.extension_bytes };
        Self { state: Mutex::default(), names: options.extensions, room }
    }

    // The handles' side.

    /// One handle more.
    pub(crate) fn hold(&self) {
        lock(&self.state).handles += 1;
    }

    /// One handle less.
    pub(crate) fn release(&self) {
        self.tell(|state| state.handles = state.handles.saturating_sub(1));
    }

    /// A name for a multifeed that is about to join.
    pub(crate) fn next_root(&self) -> Root {
        let mut state = lock(&self.state);
        let root = Root(state.next_root);
        state.next_root = state.next_root.saturating_add(1);
        root
    }

    pub(crate) fn join(&self, join: Join) {
        let over = self.tell(|state| match &state.end {
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
        self.tell(|state| {
            // A ping that waits will do for all.
            if state.end.is_none() && !state.commands.contains(&command) {
                state.commands.push(command);
            }
        });
    }

    /// Speaks an extension on the stream; what comes goes to this inbox.
    pub(crate) fn register(&self, name: &Arc<str>) -> Result<Arc<Inbox<Bytes>>, ExtensionError> {
        let inbox = Arc::new(Inbox::new(self.room));
        self.tell(|state| {
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
        let waker = {
            let mut state = lock(&self.state);
            if state.end.is_some() {
                return Poll::Ready(Err(ExtensionError::Gone));
            }
            let bytes = state.message_bytes.saturating_add(message_cost(body.len()));
            if !state.messages.is_empty() && bytes > self.room.bytes {
                return state.wait(cx);
            }
            state.message_bytes = bytes;
            state.messages.push_back(Command::SendExtension {
                scope: Scope::Stream,
                name: name.clone(),
                body: body.clone(),
            });
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }

    /// Whether the remote said that it speaks an extension of ours.
    pub(crate) fn remote_speaks(&self, name: &str) -> bool {
        lock(&self.state).extensions.get(name).is_some_and(|spoken| spoken.by_remote)
    }

    /// Accepts a message of an extension, if there is room for it now.
    pub(crate) fn try_send(&self, name: &Arc<str>, body: &Bytes) -> bool {
        matches!(self.poll_send(&Context::from_waker(Waker::noop()), name, body), Poll::Ready(Ok(())))
    }

    pub(crate) fn close(&self) {
        self.tell(|state| state.closing = true);
    }

    pub(crate) fn totals(&self) -> Totals {
        lock(&self.state).totals
    }

    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<StreamEvent>> {
        let mut state = lock(&self.state);
        match state.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if state.end.is_some() => Poll::Ready(None),
            None => state.wait(cx),
        }
    }

    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Poll<Result<Totals, SessionError>> {
        let mut state = lock(&self.state);
        match &state.end {
            Some(end) => Poll::Ready(end.clone()),
            None => state.wait(cx),
        }
    }

    fn tell<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, waker) = {
            let mut state = lock(&self.state);
            let result = change(&mut state);
            (result, state.waker.take())
        };
        waker.into_iter().for_each(Waker::wake);
        result
    }

    // The pump's side.

    /// Takes what the handles want, and leaves word where to wake the pump when they want more.
    pub(crate) fn wishes(
        &self,
        cx: &Context<'_>,
        session: &Session,
        joins: &mut Vec<Join>,
        commands: &mut Vec<Command>,
    ) -> HandleRequests {
        let mut state = lock(&self.state);
        state.totals = session.totals();
        for (name, spoken) in &mut state.extensions {
            spoken.by_remote = session.remote_speaks(Scope::Stream, name);
        }
        joins.append(&mut state.joins);
        commands.append(&mut state.commands);
        let mut free = session.send_credit();
        let mut waiters = Vec::new();
        while free > 0
            && let Some(message) = state.messages.pop_front()
        {
            free = free.saturating_sub(message.size());
            if let Command::SendExtension { body, .. } = &message {
                state.message_bytes = state.message_bytes.saturating_sub(message_cost(body.len()));
            }
            commands.push(message);
            waiters.append(&mut state.waiters);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        let wishes = HandleRequests { is_held: state.handles > 0, closing: state.closing };
        drop(state);
        waiters.into_iter().for_each(Waker::wake);
        wishes
    }

    /// A message of an extension of the application's; false where it registered none of that name.
    pub(crate) fn message(&self, name: &str, body: &Bytes) -> bool {
        let inbox = match lock(&self.state).extensions.get(name) {
            Some(spoken) => spoken.inbox.upgrade(),
            None => return false,
        };
        inbox.into_iter().for_each(|inbox| inbox.push(Bytes::copy_from_slice(body), body.len()));
        true
    }

    pub(crate) fn push(&self, event: StreamEvent) {
        let waiters = {
            let mut state = lock(&self.state);
            if state.events.len() < EVENTS_WAITING {
                state.events.push_back(event);
            } else if state.events.back() != Some(&StreamEvent::Lagged) {
                state.events.push_back(StreamEvent::Lagged);
            }
            std::mem::take(&mut state.waiters)
        };
        waiters.into_iter().for_each(Waker::wake);
    }

    /// The stream is over. Only the first end counts.
    pub(crate) fn end(&self, end: Result<(), SessionError>, totals: Totals) {
        let (waiters, joins) = {
            let mut state = lock(&self.state);
            state.totals = totals;
            state.end.get_or_insert(end.clone().map(|()| totals));
            state.messages.clear();
            state.extensions.values().filter_map(|spoken| spoken.inbox.upgrade()).for_each(|inbox| inbox.close());
            (std::mem::take(&mut state.waiters), std::mem::take(&mut state.joins))
        };
        joins.into_iter().for_each(|join| join.refuse(end.clone().err()));
        waiters.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if !self.waiters.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiters.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Join {
    /// It cannot be: the stream is over, with this error where there was one.
    pub(crate) fn refuse(&self, error: Option<SessionError>) {
        let error = error.unwrap_or_else(|| SessionError::Local("the stream has ended".into()));
        self.link.sync.end(Err(SyncError::Session(error)));
        self.link.leave(Totals::default());
    }
}
