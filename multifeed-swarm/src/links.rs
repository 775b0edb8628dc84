//! Which connection is with which peer that was found.

use std::collections::{BTreeMap, BTreeSet};

use multifeed_tokio::{ConnectionId, DialId, PeerKey};

use crate::table::{EngineId, FoundId, Table};

/// Follows the networker's events.
#[derive(Debug, Default)]
pub(crate) struct Links {
    open: BTreeMap<ConnectionId, Open>,
    dials: BTreeMap<DialId, FoundId>,
    /// Static keys of peers that were found without one, as their dials showed them.
    keys: BTreeMap<FoundId, PeerKey>,
    /// Dials whose last connection shared a root key.
    served: BTreeSet<DialId>,
    /// The engine by which a connection came.
    came: BTreeMap<ConnectionId, EngineId>,
}

#[derive(Debug)]
struct Open {
    key: PeerKey,
    dial: Option<DialId>,
    /// It shares a root key, or did.
    ready: bool,
    /// Whom it was told of as connected.
    peers: Vec<FoundId>,
}

impl Links {
    pub(crate) fn dials(&mut self, dial: DialId, peer: FoundId) {
        self.dials.insert(dial, peer);
    }

    pub(crate) fn stops(&mut self, dial: DialId) {
        if let Some(peer) = self.dials.remove(&dial) {
            self.keys.remove(&peer);
        }
        self.served.remove(&dial);
    }

    pub(crate) fn of_dial(&self, dial: DialId) -> Option<FoundId> {
        self.dials.get(&dial).copied()
    }

    pub(crate) fn came(&mut self, connection: ConnectionId, engine: EngineId) {
        self.came.insert(connection, engine);
    }

    pub(crate) fn engine(&self, connection: ConnectionId) -> Option<EngineId> {
        self.came.get(&connection).copied()
    }

    pub(crate) fn of_connection(&self, connection: ConnectionId) -> &[FoundId] {
        self.open.get(&connection).map_or(&[], |open| &open.peers)
    }

    pub(crate) fn connected(&mut self, connection: ConnectionId, key: PeerKey, dial: Option<DialId>) {
        self.learn(dial, key);
        self.open.entry(connection).or_insert(Open { key, dial, ready: false, peers: Vec::new() });
    }

    /// A dial met this static key.
    fn learn(&mut self, dial: Option<DialId>, key: PeerKey) {
        if let Some(peer) = dial.and_then(|dial| self.of_dial(dial)) {
            self.keys.insert(peer, key);
        }
    }

    /// A root key is shared on a connection.
    pub(crate) fn ready(&mut self, connection: ConnectionId, table: &mut Table) {
        let Some(open) = self.open.get_mut(&connection) else { return };
        open.ready = true;
        let (key, dial) = (open.key, open.dial);
        self.served.extend(dial);
        let known = self.keys.iter().filter(|(_, known)| **known == key).map(|(peer, _)| *peer);
        let peers: BTreeSet<_> =
            known.chain(dial.and_then(|dial| self.of_dial(dial))).chain(table.with_key(key)).collect();
        peers.into_iter().for_each(|peer| self.link(peer, key, table));
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
    ) {
        self.came.remove(&connection);
        let open = self.open.remove(&connection);
        open.into_iter().flat_map(|open| open.peers).for_each(|peer| table.ended(peer));
        // It may have given way to another one with the same peer.
        if let (Some(key), Some(dial)) = (key, dial)
            && let Some(peer) = self.of_dial(dial)
        {
            self.learn(Some(dial), key);
            self.link(peer, key, table);
        }
    }

    /// A dial waits to be repeated. Whose, if what it had shared no root key.
    pub(crate) fn failed(&mut self, dial: DialId) -> Option<FoundId> {
        if self.served.remove(&dial) {
            return None;
        }
        self.of_dial(dial)
    }

    /// Some events were missed: these are the connections that are up, and whether they share a root key.
    pub(crate) fn catch_up(
        &mut self,
        up: impl Iterator<Item = (ConnectionId, PeerKey, Option<DialId>, bool)>,
        table: &mut Table,
    ) {
        let mut there = BTreeSet::new();
        for (connection, key, dial, ready) in up {
            there.insert(connection);
            self.connected(connection, key, dial);
            if ready {
                self.ready(connection, table);
            }
        }
        let gone: Vec<_> = self.open.keys().filter(|connection| !there.contains(connection)).copied().collect();
        gone.into_iter().for_each(|connection| self.ended(connection, None, None, table));
        self.came.retain(|connection, _| there.contains(connection));
    }
}
