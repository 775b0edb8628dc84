//! The task of a swarm: it reports to the table what happens, and does what that orders.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use multifeed_tokio::{
    Dial, DialOptions, EndReason, FeedKey, Network, NetworkerError, NetworkerEvent, NetworkerEvents, PeerKey, Role,
    RootState, Tokio,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::discovery::{DiscoveryEvent, Incoming};
use crate::events::SwarmEvent;
use crate::lock;
use crate::shared::{Shared, State};
use crate::table::{EngineId, FoundId, Happened, Order};

/// How long a dial waits that could not be begun.
const DIAL_LATER: Duration = Duration::from_secs(5);

pub(crate) struct Task {
    shared: Arc<Shared>,
    events: NetworkerEvents,
    dials: BTreeMap<FoundId, Dial>,
    /// Each tries to take the place of one of those.
    trials: BTreeMap<FoundId, Dial>,
    /// Dials that end, and multifeeds that leave.
    stopping: JoinSet<()>,
    /// Each ends with the root key of a multifeed that was closed, or with nothing when it has left.
    watches: JoinSet<Option<FeedKey>>,
    /// The engine that is asked first: each has its turn.
    turn: usize,
}

impl Task {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let events = shared.networker.events();
        Self {
            shared,
            events,
            dials: BTreeMap::new(),
            trials: BTreeMap::new(),
            stopping: JoinSet::new(),
            watches: JoinSet::new(),
            turn: 0,
        }
    }

    pub(crate) async fn run(mut self, closed: watch::Sender<bool>) {
        let shared = self.shared.clone();
        let mut closing = shared.closing.subscribe();
        loop {
            let due = self.follow_orders();
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep(due).await,
                    None => std::future::pending().await,
                }
            };
            let first = self.turn;
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => break,
                event = self.events.next() => match event {
                    Some(event) => self.take_networkers(event),
                    None => break,
                },
                (engine, event) = poll_fn(|cx| poll_engines(&shared, first, cx)) => {
                    self.turn = engine + 1;
                    self.take_engines(engine, event);
                }
                () = shared.changed.notified() => {}
                () = due => {}
                Some(_) = self.stopping.join_next() => {}
                Some(closed) = self.watches.join_next() => {
                    if let Ok(Some(root)) = closed {
                        self.leave(root);
                    }
                }
            }
        }
        shared.closing.send_replace(true);
        shared.networker.close().await;
        while self.stopping.join_next().await.is_some() {}
        for engine in &shared.engines {
            poll_fn(|cx| engine.poll_close(cx)).await;
        }
        shared.end_events();
        closed.send_replace(true);
    }

    /// Does what the table orders, and reports what happened. Returns how long until it has to be asked again.
    fn follow_orders(&mut self) -> Option<Duration> {
        let (orders, happened, due) = {
            let now = self.shared.now();
            let state = &mut *lock(&self.shared.state);
            for (root, mut events, has_left) in state.joined.drain(..) {
                let until_closed = async move { while events.next().await.is_some() {} };
                self.watches.spawn(async move {
                    tokio::select! {
                        () = until_closed => Some(root),
                        _ = has_left => None,
                    }
                });
            }
            let happened = state.table.take_happened();
            // A peer that is found may be connected already.
            for one in &happened {
                if let Happened::Found { peer, key: Some(key), .. } = one {
                    state.links.link(*peer, *key, &mut state.table);
                }
            }
            state.table.poll(now);
            let orders = state.table.take_orders();
            (orders, happened, state.table.due(now).map(|due| due.saturating_sub(now)))
        };
        orders.into_iter().for_each(|order| self.follow(order));
        happened.into_iter().for_each(|one| self.tell(one));
        due
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Dial { peer, key } => self.dial(peer, key),
            Order::Hasten(peer) => {
                if let Ok(trial) = self.begin(peer, None, true) {
                    lock(&self.shared.state).links.tries(trial.id(), peer);
                    self.trials.insert(peer, trial).into_iter().for_each(|trial| self.end(trial));
                }
            }
            Order::Stop(peer) => {
                let dials = [self.dials.remove(&peer), self.trials.remove(&peer)];
                dials.into_iter().flatten().for_each(|dial| self.end(dial));
            }
            Order::Doubt(engine, route) => {
                self.shared.engines.get(engine).into_iter().for_each(|engine| engine.doubt(&route));
            }
        }
    }

    fn begin(&self, peer: FoundId, key: Option<PeerKey>, addresses_alone: bool) -> Result<Dial, NetworkerError> {
        let shared = self.shared.clone();
        let connector = move || {
            let shared = shared.clone();
            async move { shared.connect(peer, addresses_alone).await }
        };
        let limits = &self.shared.limits;
        let mut options = DialOptions::default();
        options.peer = key;
        // Each route has its own time.
        let routes = u32::try_from(limits.routes).unwrap_or(u32::MAX);
        let longest = self.shared.engines.iter().filter_map(|engine| engine.connect_time()).max();
        let time = longest.unwrap_or_default().max(limits.connect_time);
        options.connect_timeout = time.saturating_mul(routes.saturating_add(1));
        self.shared.networker.dial_on::<Tokio, _, _, _>(connector, options)
    }

    /// A multifeed was closed, and so has left.
    fn leave(&mut self, root: FeedKey) {
        let shared = self.shared.clone();
        shared.leave(&root);
        self.stopping.spawn(async move { _ = shared.networker.leave(&root).await });
    }

    fn end(&mut self, dial: Dial) {
        lock(&self.shared.state).links.stops(dial.id());
        self.stopping.spawn(async move { dial.stop().await });
    }

    /// A trial met its peer, and takes the place of that one's dial, or it came to nothing.
    fn tried(&mut self, peer: FoundId, met: bool) {
        let Some(trial) = self.trials.remove(&peer) else { return };
        if !met {
            return self.end(trial);
        }
        lock(&self.shared.state).links.dials(trial.id(), peer);
        self.dials.insert(peer, trial).into_iter().for_each(|before| self.end(before));
    }

    fn dial(&mut self, peer: FoundId, key: Option<PeerKey>) {
        let dial = self.begin(peer, key, false);
        let now = self.shared.now();
        let state = &mut *lock(&self.shared.state);
        match dial {
            Ok(dial) => {
                state.links.dials(dial.id(), peer);
                self.dials.insert(peer, dial);
            }
            Err(error) => {
                tracing::debug!("no dial to peer {peer}: {error}");
                state.table.postpone(peer, now.saturating_add(DIAL_LATER));
            }
        }
    }

    fn tell(&self, happened: Happened) {
        self.shared.publish(match happened {
            Happened::Found { peer, key, engine, route } => {
                SwarmEvent::Found { peer, key, engine: self.name(engine), route }
            }
            Happened::Lost { peer, key, reason } => SwarmEvent::Lost { peer, key, reason },
            Happened::TurnedAway => SwarmEvent::TurnedAway,
        });
    }

    fn name(&self, engine: EngineId) -> &'static str {
        self.shared.engines.get(engine).map_or("", |engine| engine.name())
    }

    fn take_engines(&mut self, engine: EngineId, event: DiscoveryEvent) {
        match event {
            DiscoveryEvent::Found(found) => {
                let now = self.shared.now();
                lock(&self.shared.state).table.found(engine, found, now);
            }
            DiscoveryEvent::Lost { route, key, topics } => {
                lock(&self.shared.state).table.lost(engine, &route, key, &topics);
            }
            DiscoveryEvent::Incoming(incoming) => self.let_in(engine, incoming),
            DiscoveryEvent::Trouble(message) => {
                self.shared.publish(SwarmEvent::Trouble { engine: self.name(engine), message });
            }
        }
    }

    fn let_in(&mut self, engine: EngineId, Incoming { stream, from, route }: Incoming) {
        let networker = &self.shared.networker;
        let connected = match from.map(Network::from) {
            Some(network) => {
                let most = self.shared.limits.incoming_per_network;
                let Some(placed) = self.shared.places.enter(stream, network, most) else {
                    tracing::debug!("turned away: {most} connections come from {network}");
                    return;
                };
                networker.connect_on::<Tokio>(placed, Role::Responder, Some(network.to_string()))
            }
            None => networker.connect_on::<Tokio>(stream, Role::Responder, None),
        };
        match connected {
            Ok(connection) => {
                let state = &mut *lock(&self.shared.state);
                state.links.came(connection, engine, route, &mut state.table);
            }
            Err(error) => tracing::debug!("turned away: {error}"),
        }
    }

    fn take_networkers(&mut self, event: NetworkerEvent) {
        let shared = &self.shared;
        let now = shared.now();
        let mut state = lock(&shared.state);
        let State { table, links, .. } = &mut *state;
        let mut tried = None;
        match event {
            NetworkerEvent::Connected { connection, peer, dial } => links.connected(connection, peer, dial, table),
            NetworkerEvent::Ready { connection, .. } => tried = links.ready(connection, table),
            NetworkerEvent::Disconnected { connection, peer, dial, reason, .. } => {
                links.ended(connection, peer, dial, table, now);
                if let (Some(EndReason::OwnKey), Some(peer)) = (reason, dial.and_then(|dial| links.of_dial(dial))) {
                    table.is_own(peer);
                }
            }
            NetworkerEvent::Redial { dial, after, error } => {
                tried = links.of_trial(dial).map(|peer| (peer, false));
                if let Some(peer) = links.failed(dial, error.is_some(), table) {
                    let key = table.key(peer);
                    if table.failed(peer, after, now) {
                        shared.publish(SwarmEvent::Failed { peer, key, error, after });
                    }
                }
            }
            NetworkerEvent::Lagged => {
                let up = shared.networker.peers().into_iter().map(|peer| {
                    let ready = peer.roots.iter().any(|(_, state)| *state == RootState::Ready);
                    (peer.connection, peer.key, peer.dial, ready)
                });
                links.catch_up(up, table, now);
            }
            _ => {}
        }
        drop(state);
        tried.into_iter().for_each(|(peer, met)| self.tried(peer, met));
    }
}

/// The next event of any engine.
fn poll_engines(shared: &Shared, first: usize, cx: &mut Context<'_>) -> Poll<(EngineId, DiscoveryEvent)> {
    let count = shared.engines.len();
    for at in (0..count).map(|n| (first + n) % count) {
        if let Poll::Ready(event) = shared.engines[at].poll_event(cx) {
            return Poll::Ready((at, event));
        }
    }
    Poll::Pending
}
