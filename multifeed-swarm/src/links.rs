//! Which connection is with which peer that was found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use multifeed_tokio::{ConnectionId, DialId, PeerKey};

use crate::discovery::Route;
use crate::table::{EngineId, FoundId, Table};

/// Follows the networker's events.
#[derive(Debug, Default)]
pub(crate) struct Links {
    open: BTreeMap<ConnectionId, Open>,
    dials: BTreeMap<DialId, FoundId>,
    /// The static keys that dials met last.
    met: BTreeMap<FoundId, PeerKey>,
    /// Dials that try to take the place of a peer's own.
    trials: BTreeMap<DialId, FoundId>,
    /// Dials whose last connection shared a root key, or gave way to another one.
    served: BTreeSet<DialId>,
    /// The engine by which a connection came, and how it would reach the peer.
    came: BTreeMap<ConnectionId, (EngineId, Option<Route>)>,
}

#[derive(Debug)]
struct Open {
    key: PeerKey,
    dial: Option<DialId>,
    /// It shares a root key, or did.
    ready: bool,
    /// The found peers for which the table counts it as a connection.
    peers: Vec<FoundId>,
}

impl Links {
    pub(crate) fn dials(&mut self, dial: DialId, peer: FoundId) {
        self.trials.remove(&dial);
        self.dials.insert(dial, peer);
    }

    pub(crate) fn stops(&mut self, dial: DialId) {
        if let Some(peer) = self.dials.remove(&dial) {
            self.met.remove(&peer);
        }
        self.trials.remove(&dial);
        self.served.remove(&dial);
    }

    pub(crate) fn tries(&mut self, dial: DialId, peer: FoundId) {
        self.trials.insert(dial, peer);
    }

    /// Whose place a dial tries to take.
    pub(crate) fn of_trial(&self, dial: DialId) -> Option<FoundId> {
        self.trials.get(&dial).copied()
    }

    pub(crate) fn of_dial(&self, dial: DialId) -> Option<FoundId> {
        self.dials.get(&dial).copied()
    }

    pub(crate) fn came(&mut self, connection: ConnectionId, engine: EngineId, route: Option<Route>, table: &mut Table) {
        route.iter().for_each(|route| table.came(route));
        self.came.insert(connection, (engine, route));
    }

    pub(crate) fn engine(&self, connection: ConnectionId) -> Option<EngineId> {
        self.came.get(&connection).map(|(engine, _)| *engine)
    }

    pub(crate) fn of_connection(&self, connection: ConnectionId) -> &[FoundId] {
        self.open.get(&connection).map_or(&[], |open| &open.peers)
    }

    pub(crate) fn connected(
        &mut self,
        connection: ConnectionId,
        key: PeerKey,
        dial: Option<DialId>,
        table: &mut Table,
    ) {
        if let Some(peer) = dial.and_then(|dial| self.of_dial(dial)) {
            self.met.insert(peer, key);
            // If another one has the key, it is seen later which connection stays.
            if table.with_key(key).is_none() {
                table.identify(peer, key);
            }
        }
        self.open.entry(connection).or_insert(Open { key, dial, ready: false, peers: Vec::new() });
    }

    /// A root key is shared on a connection. If that was a trial: whose, and whether it met that peer.
    pub(crate) fn ready(&mut self, connection: ConnectionId, table: &mut Table) -> Option<(FoundId, bool)> {
        let open = self.open.get_mut(&connection)?;
        open.ready = true;
        let (key, dial) = (open.key, open.dial);
        self.served.extend(dial);
        if let Some(peer) = dial.and_then(|dial| self.of_dial(dial)) {
            table.identify(peer, key).into_iter().for_each(|same| self.forget(same));
        }
        if let Some((_, Some(route))) = self.came.get(&connection) {
            table.came_from(key, route).into_iter().for_each(|same| self.forget(same));
        }
        let peer = table.with_key(key);
        if let Some(peer) = peer {
            self.link(peer, key, table);
            // Those whose dials met the same, and gave way.
            let same: Vec<_> = self.met.iter().filter(|(other, met)| **met == key && **other != peer).collect();
            let same: Vec<_> = same.into_iter().map(|(other, _)| *other).collect();
            for other in same {
                table.absorb(other, peer);
                self.forget(other);
            }
        }
        let tried = dial.and_then(|dial| self.of_trial(dial))?;
        Some((tried, peer == Some(tried)))
    }

    /// A peer that was found is another one too, which is connected.
    fn forget(&mut self, peer: FoundId) {
        self.met.remove(&peer);
        self.open.values_mut().for_each(|open| open.peers.retain(|of| *of != peer));
    }

    /// A peer that was found has this static key: connections with it are connections with the peer.
    pub(crate) fn link(&mut self, peer: FoundId, key: PeerKey, table: &mut Table) {
        for open in self.open.values_mut().filter(|open| open.ready && open.key == key) {
            if !open.peers.contains(&peer) {
                open.peers.push(peer);
                table.connected(peer);
            }
        }
    }

    /// A connection is over.
    pub(crate) fn ended(
        &mut self,
        connection: ConnectionId,
        key: Option<PeerKey>,
        dial: Option<DialId>,
        table: &mut Table,
        now: Duration,
    ) {
        if let Some((_, Some(route))) = self.came.remove(&connection) {
            table.left(&route, now);
        }
        let open = self.open.remove(&connection);
        open.into_iter().flat_map(|open| open.peers).for_each(|peer| table.ended(peer));
        // It gave way to another one, by either side's will.
        if key.is_some_and(|key| self.open.values().any(|open| open.key == key)) {
            self.served.extend(dial);
        }
        if let (Some(key), Some(peer)) = (key, dial.and_then(|dial| self.of_dial(dial))) {
            self.met.insert(peer, key);
            let other = table.with_key(key).filter(|other| *other != peer && table.is_connected(*other));
            match other {
                Some(other) => {
                    table.absorb(peer, other);
                    self.forget(peer);
                }
                None => self.link(peer, key, table),
            }
        }
    }

    /// A dial waits to be repeated. Whose, if what it had shared no root key.
    pub(crate) fn failed(&mut self, dial: DialId, error: bool, table: &Table) -> Option<FoundId> {
        if self.served.remove(&dial) {
            return None;
        }
        // Another dial may have met the same one, so that this one gave way.
        self.of_dial(dial).filter(|peer| error || !self.met.contains_key(peer) || !table.tries_others(*peer))
    }

    /// Some events were missed: these are the connections that are up, and whether they share a root key.
    pub(crate) fn catch_up(
        &mut self,
        up: impl Iterator<Item = (ConnectionId, PeerKey, Option<DialId>, bool)>,
        table: &mut Table,
        now: Duration,
    ) {
        let mut there = BTreeSet::new();
        for (connection, key, dial, ready) in up {
            there.insert(connection);
            self.connected(connection, key, dial, table);
            if ready {
                self.ready(connection, table);
            }
        }
        let gone: Vec<_> = self.open.keys().filter(|connection| !there.contains(connection)).copied().collect();
        let never_met = self.came.keys().filter(|connection| !there.contains(connection)).copied();
        let gone: BTreeSet<_> = never_met.chain(gone).collect();
        gone.into_iter().for_each(|connection| self.ended(connection, None, None, table, now));
    }
}
