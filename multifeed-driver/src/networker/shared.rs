//! What the handles of a networker and its tasks share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use multifeed_core::log::log;
use multifeed_core::{ExtensionError, Replicate, SyncState};
use multifeed_proto::{FeedKey, StaticKeyPair};

use crate::budget::Budget;
use crate::clock::Clock;
use crate::handles::multifeed::Multifeed;
use crate::handles::stream::StreamOptions;
use crate::lock;
use crate::networker::dials::Step;
use crate::networker::events::{EventQueue, NetworkerEvent, PeerMessage};
use crate::networker::ids::{ConnectionId, DialId, PeerKey};
use crate::networker::options::NetworkerOptions;
use crate::networker::orders::Order;
use crate::networker::table::{Ended, Table};
use crate::shared::inbox::{Inbox, Room};
use crate::stream::hub::StreamShared;
use crate::waking::Waiters;

/// What the handles of a networker and its tasks share.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) clock: Clock,
    pub(crate) options: NetworkerOptions,
    static_key: StaticKeyPair,
}

struct State {
    table: Table,
    joined: BTreeMap<FeedKey, (Multifeed, Replicate)>,
    streams: BTreeMap<ConnectionId, Arc<StreamShared>>,
    sync: BTreeMap<(FeedKey, ConnectionId), SyncState>,
    extensions: BTreeMap<Arc<str>, Weak<Inbox<PeerMessage>>>,
    /// Grows when an extension is registered.
    version: u64,
    connections: BTreeMap<ConnectionId, Waker>,
    dials: BTreeMap<DialId, Waker>,
    /// Those that wait until something is over.
    waiters: Waiters,
    /// Something is over.
    woken: bool,
    subscribers: Vec<Weak<EventQueue>>,
}

/// What the task of a connection finds.
pub(crate) struct Orders {
    pub(crate) orders: Vec<Order>,
    pub(crate) due: Option<Duration>,
    /// The extensions that are spoken, if these changed.
    pub(crate) extensions: Option<BTreeMap<Arc<str>, Weak<Inbox<PeerMessage>>>>,
    pub(crate) version: u64,
}

impl Shared {
    pub(crate) fn new(static_key: StaticKeyPair, mut options: NetworkerOptions) -> Self {
        options.session.root = None;
        options.session.authenticate = true;
        options.session.discover = true;
        options.session.static_key = Some(static_key.clone());
        options.pump.receive_budget = Budget::new(options.limits.queued_bytes);
        options.pump.send_budget = Budget::new(options.limits.queued_bytes);
        let state = State {
            table: Table::new(*static_key.public_key(), options.limits.clone(), options.backoff.clone()),
            joined: BTreeMap::new(),
            streams: BTreeMap::new(),
            sync: BTreeMap::new(),
            extensions: BTreeMap::new(),
            version: 0,
            connections: BTreeMap::new(),
            dials: BTreeMap::new(),
            waiters: Waiters::default(),
            woken: false,
            subscribers: Vec::new(),
        };
        Self { state: Mutex::new(state), clock: Clock::start(), options, static_key }
    }

    pub(crate) fn public_key(&self) -> PeerKey {
        *self.static_key.public_key()
    }

    pub(crate) fn stream_options(&self) -> StreamOptions {
        let mut options = StreamOptions::default();
        (options.session, options.pump) = (self.options.session.clone(), self.options.pump.clone());
        options
    }

    /// Whether the application accepts a peer.
    pub(crate) fn accepts(&self, peer: &PeerKey) -> bool {
        self.options.accept.as_ref().is_none_or(|accept| accept(peer))
    }

    /// Has the table do something, and wakes the tasks that this concerns.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Table, Duration) -> T) -> T {
        self.change(|state, now| change(&mut state.table, now))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, Duration) -> T) -> T {
        let now = self.clock.now();
        let (result, waiters) = {
            let mut state = lock(&self.state);
            let result = change(&mut state, now);
            (result, state.take_waiters())
        };
        waiters.wake();
        result
    }

    /// Sends it to all subscribers.
    pub(crate) fn publish(&self, event: &NetworkerEvent) {
        match event {
            NetworkerEvent::Connected { connection, peer, dial } => {
                log!(DEBUG, "networker", "connected", connection = ?connection, peer = ?peer, dial = ?dial);
            }
            NetworkerEvent::Disconnected { connection, reason, error, in_sync, .. } => {
                log!(DEBUG, "networker", "disconnected", connection = ?connection, in_sync = ?in_sync, reason = ?reason, error = ?error);
            }
            NetworkerEvent::Redial { dial, after, error } => {
                log!(DEBUG, "networker", "dials again", dial = ?dial, after = ?after, error = ?error);
            }
            _ => {}
        }
        let subscribers: Vec<_> = lock(&self.state).subscribers.iter().filter_map(Weak::upgrade).collect();
        subscribers.into_iter().for_each(|queue| queue.push(event.clone()));
    }

    pub(crate) fn subscribe(&self) -> Arc<EventQueue> {
        let queue = Arc::new(EventQueue::new(self.options.limits.events));
        let mut state = lock(&self.state);
        state.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        state.subscribers.push(Arc::downgrade(&queue));
        let is_closed = state.table.is_closed();
        drop(state);
        if is_closed {
            queue.close();
        }
        queue
    }

    // Connections.

    /// A connection's stream is open.
    pub(crate) fn opened(&self, id: ConnectionId, stream: &Arc<StreamShared>) {
        lock(&self.state).streams.insert(id, stream.clone());
    }

    /// What the task of a connection has to do; leaves its waker for when there is more.
    pub(crate) fn orders(&self, cx: &Context<'_>, id: ConnectionId, version: u64) -> Orders {
        self.change(|state, now| {
            state.table.expire(id, now);
            let orders = state.table.take_orders(id);
            let due = state.table.due(id);
            state.connections.insert(id, cx.waker().clone());
            let extensions = (state.version != version).then(|| state.extensions.clone());
            Orders { orders, due, extensions, version: state.version }
        })
    }

    /// A connection and all that was on it is over.
    pub(crate) fn ended(&self, id: ConnectionId) -> Option<Ended> {
        self.change(|state, now| {
            state.streams.remove(&id);
            state.connections.remove(&id);
            state.sync.retain(|(_, connection), _| *connection != id);
            state.table.ended(id, now)
        })
    }

    /// The end of a connection was reported: those that wait for ends look again.
    pub(crate) fn reported(&self) {
        self.change(|state, _| state.wake_waiters());
    }

    /// The multifeed of a root key, and how it is synced.
    pub(crate) fn joined(&self, root: &FeedKey) -> Option<(Multifeed, Replicate)> {
        lock(&self.state).joined.get(root).cloned()
    }

    pub(crate) fn set_sync(&self, id: ConnectionId, root: FeedKey, sync: SyncState) {
        lock(&self.state).sync.insert((root, id), sync);
    }

    pub(crate) fn sync_of(&self, id: ConnectionId, root: FeedKey) -> SyncState {
        lock(&self.state).sync.get(&(root, id)).copied().unwrap_or_default()
    }

    /// A root key's session on a connection is over.
    pub(crate) fn over(&self, id: ConnectionId, root: FeedKey, in_sync: bool) {
        self.change(|state, now| {
            state.sync.remove(&(root, id));
            state.table.over(id, root, in_sync, now);
            if state.joined.get(&root).is_some_and(|(multifeed, _)| multifeed.guard().0.is_closing()) {
                // Nothing is left to be synced.
                state.joined.remove(&root);
                state.table.leave(root);
            }
            state.wake_waiters();
        });
    }

    /// The streams of the connections that are up.
    pub(crate) fn streams(&self) -> Vec<(ConnectionId, Arc<StreamShared>)> {
        let state = lock(&self.state);
        let up: BTreeSet<_> = state.table.open().map(|view| view.id).collect();
        state.streams.iter().filter(|(id, _)| up.contains(id)).map(|(id, stream)| (*id, stream.clone())).collect()
    }

    /// Speaks an extension on all connections.
    pub(crate) fn register(&self, name: &Arc<str>) -> Result<Arc<Inbox<PeerMessage>>, ExtensionError> {
        let limits = &self.options.limits;
        let room = Room { messages: limits.extension_messages, bytes: limits.extension_bytes };
        self.change(|state, _| {
            state.extensions.retain(|_, inbox| inbox.strong_count() > 0);
            if state.table.is_closing() {
                return Err(ExtensionError::Gone);
            }
            if state.extensions.contains_key(name) {
                return Err(ExtensionError::Taken(name.as_ref().to_owned()));
            }
            let max = self.options.pump.extensions;
            if state.extensions.len() >= max {
                return Err(ExtensionError::TooMany { max });
            }
            let inbox = Arc::new(Inbox::new(room));
            state.extensions.insert(name.clone(), Arc::downgrade(&inbox));
            state.version += 1;
            state.waiters.extend(std::mem::take(&mut state.connections).into_values());
            state.wake_waiters();
            Ok(inbox)
        })
    }

    // Dials.

    /// What the task of a dial has to do; leaves its waker.
    pub(crate) fn poll_dial(&self, cx: &Context<'_>, id: DialId) -> Step {
        self.change(|state, now| {
            state.dials.insert(id, cx.waker().clone());
            state.table.poll_dial(id, now)
        })
    }

    /// A dial's task ends.
    pub(crate) fn remove_dial(&self, id: DialId) {
        self.change(|state, _| {
            state.dials.remove(&id);
            state.table.remove_dial(id);
            state.wake_waiters();
        });
    }

    // The application.

    pub(crate) fn join(&self, root: FeedKey, multifeed: &Multifeed, options: Replicate) -> bool {
        self.change(|state, now| {
            let joins = state.table.join(root, options.live, now);
            if joins {
                state.joined.insert(root, (multifeed.clone(), options));
            }
            joins
        })
    }

    pub(crate) fn leave(&self, root: &FeedKey) -> bool {
        self.change(|state, _| {
            let left = state.joined.remove(root);
            state.table.leave(*root) && left.is_some()
        })
    }

    /// Begins to close: nothing more is taken, everything ends.
    pub(crate) fn close(&self) {
        self.change(|state, now| {
            state.joined.clear();
            state.table.close(now);
            state.wake_waiters();
        });
    }

    /// Ready once `is_so`; asked again whenever something is over.
    pub(crate) fn poll_until(&self, cx: &Context<'_>, is_so: impl Fn(&Table) -> bool) -> Poll<()> {
        let mut state = lock(&self.state);
        if is_so(&state.table) {
            return Poll::Ready(());
        }
        state.waiters.add(cx);
        Poll::Pending
    }
}

impl State {
    fn wake_waiters(&mut self) {
        if self.table.is_closed() {
            self.subscribers.iter().filter_map(Weak::upgrade).for_each(|queue| queue.close());
            self.extensions.values().filter_map(Weak::upgrade).for_each(|inbox| inbox.close());
        }
        self.woken = true;
    }

    /// The tasks that have something to do.
    fn take_waiters(&mut self) -> Waiters {
        let mut woken = if std::mem::take(&mut self.woken) { self.waiters.take() } else { Waiters::default() };
        woken.extend(self.table.take_touched().iter().filter_map(|id| self.connections.remove(id)));
        woken.extend(self.table.dials.take_touched().iter().filter_map(|id| self.dials.remove(id)));
        woken
    }
}
