//! Where the handles of a stream and its pump meet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use multifeed_core::SyncError;
use multifeed_proto::{Command, Root, RootConfig, SessionError, Totals};

use crate::link::Link;
use crate::lock;
use crate::stream::StreamEvent;

/// Events that may wait for an application that does not take them; later ones are dropped, and that is told.
const EVENTS_WAITING: usize = 1024;

/// What the handles of a stream and its pump pass each other. Neither waits for the other.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    // From the handles to the pump.
    handles: usize,
    joins: Vec<Join>,
    commands: Vec<Command>,
    closing: bool,
    next_root: u32,
    waker: Option<Waker>,
    // From the pump to the handles.
    events: VecDeque<StreamEvent>,
    totals: Totals,
    end: Option<Result<Totals, SessionError>>,
    waiters: Vec<Waker>,
}

/// A multifeed that is to be synced over the stream.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) link: Arc<Link>,
    pub(crate) config: RootConfig,
}

/// What the pump finds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes {
    /// A handle is held: more multifeeds may come.
    pub(crate) is_held: bool,
    /// The stream is to end, whoever is on it.
    pub(crate) closing: bool,
}

impl Hub {
    // The handles' side.

    /// One handle more.
    pub(crate) fn hold(&self) {
        lock(&self.0).handles += 1;
    }

    /// One handle less.
    pub(crate) fn release(&self) {
        self.tell(|state| state.handles = state.handles.saturating_sub(1));
    }

    /// A name for a multifeed that is about to join.
    pub(crate) fn next_root(&self) -> Root {
        let mut state = lock(&self.0);
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

    pub(crate) fn close(&self) {
        self.tell(|state| state.closing = true);
    }

    pub(crate) fn totals(&self) -> Totals {
        lock(&self.0).totals
    }

    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<StreamEvent>> {
        let mut state = lock(&self.0);
        match state.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if state.end.is_some() => Poll::Ready(None),
            None => state.wait(cx),
        }
    }

    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Poll<Result<Totals, SessionError>> {
        let mut state = lock(&self.0);
        match &state.end {
            Some(end) => Poll::Ready(end.clone()),
            None => state.wait(cx),
        }
    }

    fn tell<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, waker) = {
            let mut state = lock(&self.0);
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
        totals: Totals,
        joins: &mut Vec<Join>,
        commands: &mut Vec<Command>,
    ) -> Wishes {
        let mut state = lock(&self.0);
        state.totals = totals;
        joins.append(&mut state.joins);
        commands.append(&mut state.commands);
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Wishes { is_held: state.handles > 0, closing: state.closing }
    }

    pub(crate) fn push(&self, event: StreamEvent) {
        let waiters = {
            let mut state = lock(&self.0);
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
            let mut state = lock(&self.0);
            state.totals = totals;
            state.end.get_or_insert(end.clone().map(|()| totals));
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
