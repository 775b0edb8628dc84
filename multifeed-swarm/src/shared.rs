//! What the handles of a swarm and its task share.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use multifeed_tokio::driver::Events;
use multifeed_tokio::{FeedKey, Networker};
use tokio::sync::{Notify, broadcast, oneshot, watch};

use crate::discovery::{BoxStream, Discovery, Topic};
use crate::events::SwarmEvent;
use crate::limits::SwarmLimits;
use crate::links::Links;
use crate::lock;
use crate::place::Places;
use crate::table::{FoundId, Table};

/// What the handles of a swarm and its task share.
pub(crate) struct Shared {
    pub(crate) networker: Networker,
    pub(crate) engines: Vec<Arc<dyn Discovery>>,
    pub(crate) limits: SwarmLimits,
    pub(crate) places: Places,
    pub(crate) state: Mutex<State>,
    /// The table has to be asked again.
    pub(crate) changed: Notify,
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) closed: watch::Receiver<bool>,
    events: Mutex<Option<broadcast::Sender<SwarmEvent>>>,
    start: Instant,
}

pub(crate) struct State {
    pub(crate) table: Table,
    pub(crate) links: Links,
    /// The root keys that are joined.
    pub(crate) roots: BTreeMap<FeedKey, Root>,
    /// Those that joined, to be watched: which one, its events, and what ends when it leaves.
    pub(crate) joined: Vec<(FeedKey, Events, oneshot::Receiver<()>)>,
}

pub(crate) struct Root {
    pub(crate) topic: Topic,
    pub(crate) _left: oneshot::Sender<()>,
}

impl Shared {
    pub(crate) fn new(
        networker: Networker,
        engines: Vec<Arc<dyn Discovery>>,
        limits: SwarmLimits,
        closed: watch::Receiver<bool>,
    ) -> Self {
        let table = Table::new(networker.public_key(), limits.clone());
        Self {
            networker,
            engines,
            places: Places::default(),
            state: Mutex::new(State { table, links: Links::default(), roots: BTreeMap::new(), joined: Vec::new() }),
            changed: Notify::new(),
            closing: watch::channel(false).0,
            closed,
            events: Mutex::new(Some(broadcast::channel(limits.events.max(1)).0)),
            start: Instant::now(),
            limits,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<SwarmEvent> {
        match &*lock(&self.events) {
            Some(events) => events.subscribe(),
            // One whose sender is gone: it has ended.
            None => broadcast::channel(1).1,
        }
    }

    pub(crate) fn publish(&self, event: SwarmEvent) {
        if let Some(events) = &*lock(&self.events) {
            // Nobody may listen.
            let _ = events.send(event);
        }
    }

    pub(crate) fn end_events(&self) {
        lock(&self.events).take();
    }

    /// Leaves a topic.
    pub(crate) fn leave(&self, root: &FeedKey) {
        let topic = {
            let mut state = lock(&self.state);
            let Some(Root { topic, .. }) = state.roots.remove(root) else { return };
            state.table.leave(&topic);
            topic
        };
        self.engines.iter().for_each(|engine| engine.leave(&topic));
        self.changed.notify_one();
    }

    /// One attempt to reach a peer, by one route after the other: all of them, or addresses alone.
    pub(crate) async fn connect(&self, peer: FoundId, addresses_alone: bool) -> io::Result<BoxStream> {
        let mut routes = lock(&self.state).table.routes(peer);
        routes.retain(|(_, route)| !addresses_alone || route.is_address());
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (id, route) in routes {
            let Some(engine) = self.engines.get(id) else { continue };
            let connecting = engine.connect(&route);
            let time = engine.connect_time().unwrap_or(self.limits.connect_time);
            match tokio::time::timeout(time, connecting).await {
                Ok(Ok(stream)) => {
                    lock(&self.state).table.is_by(peer, id, route);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{route}: {error}")),
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{route}: no answer in time")),
            }
        }
        Err(last)
    }
}
