//! A swarm, as the application sees it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use multifeed_tokio::driver::Multifeed;
use multifeed_tokio::{ConnectionId, FeedKey, Networker, NetworkerError, PeerKey, Replicate, RootState};
use tokio::sync::{oneshot, watch};

use crate::discovery::{Discovery, Mode, Route, Topic};
use crate::events::SwarmEvents;
use crate::limits::SwarmLimits;
use crate::lock;
use crate::shared::{Root, Shared};
use crate::table::{FoundId, FoundState};
use crate::task::Task;

/// How a swarm is made.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SwarmOptions {
    /// The bounds of the swarm.
    pub limits: SwarmLimits,
}

/// Has the peers of multifeeds find each other, and syncs with them.
///
/// Multifeeds [`join`](Self::join) and [`leave`](Self::leave) at any time. The peers that the engines find are dialled, each one once, whichever
/// engine found it and for however many topics. A bounded number is dialled at once. One that cannot be reached is given up after a few tries, and
/// tried again if it is found again.
///
/// Clones are the same swarm. It closes when the last of them is dropped, or by [`close`](Self::close); its networker closes with it.
#[derive(Clone)]
pub struct Swarm {
    shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

/// A peer that was found, or came.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwarmPeer {
    /// Its number, if it was found. One that only came has none.
    pub id: Option<FoundId>,
    /// Its static key: as announced, or as its connection proved it.
    pub key: Option<PeerKey>,
    /// How it was found, at the moment.
    pub found: Vec<Finding>,
    /// The engine by which it came, if it did.
    pub came: Option<&'static str>,
    /// The engine by which it was reached last, if it was dialled.
    pub dialled: Option<&'static str>,
    /// How long it is known, or connected if it only came.
    pub known: Duration,
    /// The topics for which it was found.
    pub topics: Vec<Topic>,
    /// How far it is.
    pub state: FoundState,
    /// Tries in a row that failed.
    pub failures: u32,
    /// A root key was shared with it, now or before.
    pub reached: bool,
    /// The user named it.
    pub kept: bool,
    /// The connections with it, for which `peers` and `status` of the networker report more.
    pub connections: Vec<ConnectionId>,
}

/// How a peer was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// By which engine.
    pub engine: &'static str,
    /// How it is reached.
    pub route: Route,
    /// How long this is known.
    pub known: Duration,
}

/// Held by every handle; the last one dropped closes the swarm.
struct Guard(Arc<Shared>);

impl Swarm {
    /// Makes a swarm of a networker and engines, in a task of this runtime. From now on the networker is the swarm's: it is closed with it.
    ///
    /// # Panics
    /// Outside a tokio runtime with timers, as tokio's `spawn` does.
    pub fn new(networker: Networker, engines: Vec<Arc<dyn Discovery>>, options: SwarmOptions) -> Self {
        let (closed, is_closed) = watch::channel(false);
        let shared = Arc::new(Shared::new(networker, engines, options.limits, is_closed));
        drop(tokio::spawn(Task::new(shared.clone()).run(closed)));
        Self { _guard: Arc::new(Guard(shared.clone())), shared }
    }

    /// Syncs a multifeed with the peers that are found for its root key, and with those that come. The swarm keeps it open until it
    /// [leaves](Self::leave); one that is closed leaves by itself.
    ///
    /// # Errors
    /// As [`Networker::join`](multifeed_tokio::driver::Networker::join).
    pub fn join(&self, multifeed: &Multifeed, options: Replicate, mode: Mode) -> Result<(), NetworkerError> {
        if *self.shared.closing.borrow() {
            return Err(NetworkerError::Closed);
        }
        self.shared.networker.join(multifeed, options)?;
        let root = multifeed.root_key();
        let topic = root.discovery_key();
        {
            let mut state = lock(&self.shared.state);
            let (left, has_left) = oneshot::channel();
            state.roots.insert(root, Root { topic, _left: left });
            state.joined.push((root, multifeed.events(), has_left));
            state.table.join(topic, mode);
        }
        self.shared.engines.iter().for_each(|engine| engine.join(topic, mode));
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Leaves the topic of a root key, and ends its sessions cleanly; waits until these are over. Peers that were found for nothing else are
    /// disconnected. `false` if no multifeed of that root key had joined.
    pub async fn leave(&self, root: &FeedKey) -> bool {
        self.shared.leave(root);
        self.shared.networker.leave(root).await
    }

    /// Returns the networker: its peers, how each root key stands, bans, extensions. Do not close it alone.
    pub fn networker(&self) -> &Networker {
        &self.shared.networker
    }

    /// Returns the peers that were found, and those that came.
    pub fn peers(&self) -> Vec<SwarmPeer> {
        let engine = |id: usize| self.shared.engines.get(id).map_or("", |engine| engine.name());
        let up = self.shared.networker.peers();
        let now = self.shared.now();
        let state = lock(&self.shared.state);
        let mut peers: Vec<SwarmPeer> = state
            .table
            .peers()
            .map(|view| {
                let ours: Vec<_> =
                    up.iter().filter(|peer| state.links.of_connection(peer.connection).contains(&view.id)).collect();
                let finding =
                    |(id, route, since)| Finding { engine: engine(id), route, known: now.saturating_sub(since) };
                SwarmPeer {
                    id: Some(view.id),
                    key: view.key.or_else(|| ours.first().map(|peer| peer.key)),
                    found: view.routes.into_iter().map(finding).collect(),
                    dialled: view.by.map(engine),
                    came: ours.iter().find_map(|peer| state.links.engine(peer.connection)).map(engine),
                    known: now.saturating_sub(view.since),
                    topics: view.topics.into_iter().collect(),
                    state: view.state,
                    failures: view.failures,
                    reached: view.reached,
                    kept: view.kept,
                    connections: ours.iter().map(|peer| peer.connection).collect(),
                }
            })
            .collect();
        let found: BTreeSet<_> = peers.iter().flat_map(|peer| peer.connections.iter().copied()).collect();
        let others = up.iter().filter(|peer| !found.contains(&peer.connection));
        // A peer that shares nothing is no peer of the swarm.
        let others = others.filter(|peer| peer.roots.iter().any(|(_, state)| *state == RootState::Ready));
        peers.extend(others.map(|peer| SwarmPeer {
            id: None,
            key: Some(peer.key),
            found: Vec::new(),
            came: state.links.engine(peer.connection).map(engine),
            dialled: None,
            known: peer.up,
            topics: Vec::new(),
            state: FoundState::Connected,
            failures: 0,
            reached: true,
            kept: false,
            connections: vec![peer.connection],
        }));
        peers
    }

    /// Subscribes to what happens from now on.
    pub fn events(&self) -> SwarmEvents {
        SwarmEvents(self.shared.subscribe())
    }

    /// Leaves all topics, ends all connections cleanly, and waits until nothing is left: no task, thread or socket. The networker is closed. The
    /// multifeeds stay open.
    pub async fn close(&self) {
        self.shared.closing.send_replace(true);
        // Fails if the runtime dropped the task: then it is over too.
        let _ = self.shared.closed.clone().wait_for(|closed| *closed).await;
    }
}

impl fmt::Debug for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engines: Vec<_> = self.shared.engines.iter().map(|engine| engine.name()).collect();
        f.debug_struct("Swarm").field("engines", &engines).finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.closing.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::task::{Context, Poll};

    use multifeed_tokio::NetworkerOptions;

    use super::*;
    use crate::discovery::{Connecting, DiscoveryEvent, Found};

    /// It fails to connect after 10 s.
    struct Slow(Option<Duration>);

    impl Discovery for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }

        fn join(&self, _: Topic, _: Mode) {}

        fn leave(&self, _: &Topic) {}

        fn poll_event(&self, _: &mut Context<'_>) -> Poll<DiscoveryEvent> {
            Poll::Pending
        }

        fn connect(&self, _: &Route) -> Connecting {
            Box::pin(async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                Err(io::ErrorKind::ConnectionRefused.into())
            })
        }

        fn connect_time(&self) -> Option<Duration> {
            self.0
        }

        fn poll_close(&self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_says_how_long_a_connection_may_take_to_make() {
        let cases = [(None, io::ErrorKind::TimedOut), (Some(15), io::ErrorKind::ConnectionRefused)];
        for (seconds, wanted) in cases {
            let networker = Networker::new(NetworkerOptions::default()).unwrap();
            let engine = Arc::new(Slow(seconds.map(Duration::from_secs)));
            let swarm = Swarm::new(networker, vec![engine], SwarmOptions::default());
            let (topic, route) = (Topic::from([1; 32]), Route::Key([2; 32]));
            let id = {
                let state = &mut *lock(&swarm.shared.state);
                state.table.join(topic, Mode::Both);
                let found = Found { route, key: None, topics: vec![topic], kept: false };
                state.table.found(0, found, Duration::ZERO);
                state.table.peers().next().map(|peer| peer.id).unwrap()
            };
            let Err(error) = swarm.shared.connect(id, false).await else { panic!("it connects") };
            assert_eq!(error.kind(), wanted);
        }
    }
}
