//! What a stream and one store pass each other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;
use std::time::Duration;

use multifeed_core::{Replicate, SessionId, SyncError};
use multifeed_proto::{Command, Event, FeedKey, Message, Root, SessionError, Totals};

use crate::clock::Clock;
use crate::shared::session_events::{SyncId, SyncQueue};
use crate::waking::Waking;

/// What a session's pump and the store's thread pass each other: events and credit one way, commands the other. Each side
/// takes all that is there at once, and neither ever waits for the other. The pump stops reading its stream while the
/// events are full. The store hands out commands only inside the credit.
#[derive(Debug)]
pub(crate) struct Link {
    state: Waking<State>,
    rung: Arc<RungLinks>,
    /// The session's events for the application.
    pub(crate) sync: Arc<SyncQueue>,
    /// The multifeed's name on the stream.
    pub(crate) root: Root,
    /// The feed that the session is about, if that is one alone.
    pub(crate) lone: Option<FeedKey>,
    /// The session's number for the application.
    pub(crate) id: SyncId,
    /// The store's name for the session, once it heard of it.
    pub(crate) peer: OnceLock<SessionId>,
    /// How the session replicates.
    pub(crate) options: Replicate,
    /// The application wants to know what the remote has.
    observed: AtomicBool,
    /// It ended in sync.
    ended_in_sync: AtomicBool,
    max_events: usize,
    max_event_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    // From the pump to the store.
    events: Vec<Event>,
    event_bytes: usize,
    /// Bytes that were granted, less those that were taken back.
    credit: i64,
    /// Room for the block that waits for it.
    room: usize,
    /// Bytes a second that the stream takes, and those that wait, if that was measured anew.
    send_rate: Option<(u64, u64)>,
    left: Option<Totals>,
    /// Since when the remote cannot answer, on the pump's clock.
    held_up: Option<(Clock, Duration)>,
    /// How long it could not before, which the store does not know of yet.
    excused: Duration,
    /// The link is among those that rang.
    rung: bool,
    /// The pump holds events back until these are taken.
    full: bool,
    /// The pump wants to know when these are taken.
    attentive: bool,
    // From the store, or the application, to the pump.
    commands: Vec<Command>,
    /// The bytes of the block that waits for room, if one does.
    needed: Option<usize>,
    cancelled: bool,
    abandoned: bool,
}

impl State {
    /// Counts the time up to now in which the remote could not answer.
    fn excuse(&mut self) {
        if let Some((clock, since)) = &mut self.held_up {
            let now = clock.now();
            self.excused += now.saturating_sub(*since);
            *since = now;
        }
    }
}

/// What the pump finds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreOrders {
    /// The application, or the store, wants the session to end.
    pub(crate) cancelled: bool,
    /// There is no store any more.
    pub(crate) abandoned: bool,
    /// How many events the store has room for.
    pub(crate) events: usize,
    /// How many bytes of blocks in events the store has room for; one block more is accepted.
    pub(crate) event_bytes: usize,
    /// Bytes of blocks in events that the store has not taken.
    pub(crate) pinned: usize,
    /// The bytes of the block that waits for room, if one does.
    pub(crate) needed: Option<usize>,
}

/// What the pump lets the store send.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Grant {
    /// Bytes of commands, or below 0 those that are taken back.
    pub(crate) credit: i64,
    /// Bytes for the block that waits for room.
    pub(crate) room: usize,
}

impl Grant {
    pub(crate) fn is_nothing(self) -> bool {
        self.credit == 0 && self.room == 0
    }
}

/// What the store finds.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Bytes of commands that the session can take more than before; below 0 it takes so many back.
    pub(crate) credit: i64,
    /// Bytes of room for the block that waits for it; 0 if there is none.
    pub(crate) room: usize,
    /// Bytes a second that the stream takes, and those that wait, if that was measured anew.
    pub(crate) send_rate: Option<(u64, u64)>,
    /// The session is over, and its stream is closed.
    pub(crate) left: Option<Totals>,
}

impl Link {
    pub(crate) fn new(
        root: Root,
        lone: Option<FeedKey>,
        id: SyncId,
        rung: Arc<RungLinks>,
        options: Replicate,
        max_events: usize,
        max_event_bytes: usize,
    ) -> Self {
        Self {
            state: Waking::default(),
            root,
            lone,
            id,
            rung,
            sync: Arc::default(),
            peer: OnceLock::new(),
            options,
            observed: AtomicBool::new(false),
            ended_in_sync: AtomicBool::new(false),
            max_events: max_events.max(1),
            max_event_bytes: max_event_bytes.max(1),
        }
    }

    // The pump's side.

    /// Takes the commands, and leaves the pump's waker for when there is more of anything.
    pub(crate) fn orders(&self, cx: &Context<'_>, attentive: bool, commands: &mut Vec<Command>) -> StoreOrders {
        self.state.watch(cx, |state| {
            state.attentive = attentive;
            if commands.is_empty() {
                std::mem::swap(commands, &mut state.commands);
            } else {
                commands.append(&mut state.commands);
            }
            let events = self.max_events.saturating_sub(state.events.len());
            let event_bytes = self.max_event_bytes.saturating_sub(state.event_bytes);
            state.full = events == 0 || event_bytes == 0;
            let pinned = state.event_bytes;
            let (cancelled, abandoned, needed) = (state.cancelled, state.abandoned, state.needed);
            StoreOrders { cancelled, abandoned, events, event_bytes, pinned, needed }
        })
    }

    /// Hands the store these events, and credit for commands, or room for the block that waits for it. Leaves `events` empty.
    pub(crate) fn deliver(self: &Arc<Self>, events: &mut Vec<Event>, event_bytes: usize, grant: Grant) {
        self.put(|state| {
            if state.events.is_empty() {
                std::mem::swap(&mut state.events, events);
            } else {
                state.events.append(events);
            }
            state.event_bytes += event_bytes;
            state.credit += grant.credit;
            state.room += grant.room;
            if grant.room > 0 {
                state.needed = None;
            }
            state.full = state.events.len() >= self.max_events || state.event_bytes >= self.max_event_bytes;
        });
    }

    /// The stream takes so many bytes a second, and so many wait.
    pub(crate) fn set_send_rate(self: &Arc<Self>, per_second: u64, unwritten: u64) {
        self.put(|state| state.send_rate = Some((per_second, unwritten)));
    }

    /// From now on the remote cannot answer, because it was not sent what it was asked, or is not read; or it can again.
    pub(crate) fn hold_up(&self, held_up: bool, clock: Clock) {
        self.state.with(|state| {
            state.excuse();
            state.held_up = held_up.then(|| (clock, clock.now()));
        });
    }

    /// Lets the store know that there is this session.
    pub(crate) fn begin(self: &Arc<Self>) {
        self.put(|_| {});
    }

    /// The session is over, and its stream is closed.
    pub(crate) fn leave(self: &Arc<Self>, totals: Totals) {
        self.put(|state| state.left = Some(totals));
    }

    fn put(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let ring = self.state.with(|state| {
            change(state);
            !std::mem::replace(&mut state.rung, true)
        });
        if ring && !self.rung.ring(self.clone()) {
            self.abandon();
        }
    }

    // The store's side.

    /// Notes that the application wants to know what the remote has, even if the store has not heard of the session yet.
    pub(crate) fn set_observed(&self) {
        self.observed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_observed(&self) -> bool {
        self.observed.load(Ordering::Relaxed)
    }

    /// The session is over, and was in sync.
    pub(crate) fn set_ended_in_sync(&self) {
        self.ended_in_sync.store(true, Ordering::Relaxed);
    }

    pub(crate) fn ended_in_sync(&self) -> bool {
        self.ended_in_sync.load(Ordering::Relaxed)
    }

    /// Takes the time in which the remote could not answer, since this was last called.
    pub(crate) fn take_excused(&self) -> Duration {
        self.state.with(|state| {
            state.excuse();
            std::mem::take(&mut state.excused)
        })
    }

    /// Takes what the session has for the store. `events` has to be empty.
    pub(crate) fn collect(&self, events: &mut Vec<Event>) -> Delivery {
        self.state.change_if(|state| {
            state.rung = false;
            std::mem::swap(events, &mut state.events);
            let had_bytes = std::mem::take(&mut state.event_bytes) > 0;
            let waits = std::mem::take(&mut state.full) || (state.attentive && had_bytes);
            let (credit, room) = (std::mem::take(&mut state.credit), std::mem::take(&mut state.room));
            (Delivery { credit, room, send_rate: state.send_rate.take(), left: state.left.take() }, waits)
        })
    }

    /// Hands the session commands. Leaves `commands` empty.
    pub(crate) fn command(&self, commands: &mut Vec<Command>) {
        self.state.change(|state| {
            if state.commands.is_empty() {
                std::mem::swap(&mut state.commands, commands);
            } else {
                state.commands.append(commands);
            }
        });
    }

    /// A block of so many bytes waits for room.
    pub(crate) fn need(&self, bytes: usize) {
        self.state.change_if(|state| {
            // What was given and not taken is for it.
            let is_new = state.room == 0 && state.needed != Some(bytes);
            if is_new {
                state.needed = Some(bytes);
            }
            ((), is_new)
        });
    }

    /// Ends the session cleanly.
    pub(crate) fn cancel(&self) {
        self.state.change(|state| state.cancelled = true);
    }

    /// There is no store any more.
    pub(crate) fn abandon(&self) {
        self.sync.end(Err(SyncError::Session(SessionError::Local("the multifeed is closed".into()))));
        self.state.change(|state| state.abandoned = true);
    }
}

/// A store's links that have events, credit, or their end for its thread, each once. What they have stays in each link's own bounds.
#[derive(Debug, Default)]
pub(crate) struct RungLinks(Waking<Rung>);

#[derive(Debug, Default)]
struct Rung {
    links: Vec<Arc<Link>>,
    /// The store's thread is gone.
    over: bool,
}

impl RungLinks {
    /// Returns false if there is no store any more.
    fn ring(&self, link: Arc<Link>) -> bool {
        self.0.change(|rung| {
            if !rung.over {
                rung.links.push(link);
            }
            !rung.over
        })
    }

    /// Takes those that rang. The thread is woken by the next.
    pub(crate) fn take(&self, cx: &Context<'_>, links: &mut Vec<Arc<Link>>) {
        self.0.watch(cx, |rung| links.append(&mut rung.links));
    }

    /// The thread ends. Returns those that rang; later ones are refused.
    pub(crate) fn close(&self) -> Vec<Arc<Link>> {
        self.0.with(|rung| {
            rung.over = true;
            std::mem::take(&mut rung.links)
        })
    }
}

/// The bytes that an event pins: what it counts against the events' bytes.
pub(crate) fn pinned_bytes(event: &Event) -> usize {
    match event {
        Event::Message { message: Message::Data(data), .. } => data.value.as_ref().map_or(0, |value| value.len()),
        Event::Message { message: Message::Have(have), .. } => have.bitfield.as_ref().map_or(0, |bits| bits.len()),
        Event::Message { message: Message::Extension { body, .. }, .. } | Event::Extension { body, .. } => body.len(),
        Event::Manifest { keys, fields, .. } => {
            32 * keys.len() + fields.as_ref().map_or(0, |fields| fields.json().as_str().len())
        }
        Event::Replicate { keys, .. } => 32 * keys.len(),
        _ => 0,
    }
}
