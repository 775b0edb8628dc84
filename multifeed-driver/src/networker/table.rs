//! Who is connected, which root keys are open on which connection, and which of two connections to one peer stays.
//!
//! Nothing here waits, reads a clock or touches a stream: each call says what happened and when, and leaves [`Order`]s for the tasks of the
//! connections. So all decisions can be tested on virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use multifeed_proto::{DiscoveryKey, FeedKey};

use crate::networker::backoff::{BackoffOptions, Outcome};
use crate::networker::dials::{Dials, Step};
use crate::networker::ids::{ConnectionId, DialId, PeerKey};
use crate::networker::left_out::{LeftOut, Whom};
use crate::networker::limits::NetworkerLimits;
use crate::networker::orders::{EndReason, Mismatch, NotTaken, Order, RootState};

/// The sessions on a stream that ends are over so long before it at most: what its pump waits for the remote.
const END_TIME: Duration = Duration::from_secs(6);

/// Everything that a networker knows and decides.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) limits: NetworkerLimits,
    own_key: PeerKey,
    next: u64,
    roots: BTreeMap<FeedKey, Joined>,
    discovery_keys: BTreeMap<DiscoveryKey, FeedKey>,
    connections: BTreeMap<ConnectionId, Connection>,
    /// The connections to a peer that are up: the one that is used, and those that wait.
    peers: BTreeMap<PeerKey, Vec<ConnectionId>>,
    left_out: LeftOut,
    banned: BTreeSet<PeerKey>,
    pub(crate) dials: Dials,
    closing: bool,
    /// Which root keys of remotes were logged as others than ours, by dial. Many remotes that were not dialled draw a new static key for each stream, so these are
    /// known by their root key alone.
    mismatched: BTreeSet<(Option<DialId>, DiscoveryKey)>,
    /// Connections that have new orders.
    touched: BTreeSet<ConnectionId>,
}

#[derive(Debug)]
struct Joined {
    discovery_key: DiscoveryKey,
    live: bool,
}

#[derive(Debug)]
struct Connection {
    initiator: bool,
    dial: Option<DialId>,
    stage: Stage,
    peer: Option<PeerKey>,
    /// When it came, or from when on it is up.
    since: Duration,
    /// A root key was shared on it: bytes moved both ways, and the remote is no stranger.
    served: bool,
    /// The first channel that the remote opened and that was no root key of ours, and since when that may mean that the root keys differ.
    unknown: Option<(DiscoveryKey, Duration)>,
    /// It was reported that the root keys differ.
    mismatch: bool,
    roots: BTreeMap<FeedKey, OnConnection>,
    orders: Vec<Order>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshake,
    /// It waits for the remote to end another connection to the same peer.
    Held {
        /// At most until then.
        until: Duration,
        /// Bytes had moved both ways on the other one when this one came.
        served: bool,
    },
    Open,
    Ending(EndReason),
}

#[derive(Debug)]
struct OnConnection {
    state: RootState,
    /// When it was opened last, or will be.
    at: Duration,
    was_ready: bool,
    ended_in_sync: bool,
    /// It is wanted again once it is over.
    again: bool,
    /// When its session was over, if the remote had not answered it.
    unanswered: Option<Duration>,
}

/// A connection as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) id: ConnectionId,
    pub(crate) peer: PeerKey,
    pub(crate) initiator: bool,
    pub(crate) dial: Option<DialId>,
    pub(crate) since: Duration,
    pub(crate) roots: Vec<(FeedKey, RootState)>,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) peer: Option<PeerKey>,
    /// Why, if this side ended it.
    pub(crate) reason: Option<EndReason>,
    /// The root keys that are left out of the next connection to the peer.
    pub(crate) unanswered: Vec<FeedKey>,
    /// Its dial, and how long that waits.
    pub(crate) dial: Option<(DialId, Duration)>,
    /// Every session that was there ended in sync.
    pub(crate) in_sync: bool,
    /// That the root keys differ, if it was not reported before.
    pub(crate) mismatch: Option<Mismatch>,
}

impl Table {
    pub(crate) fn new(own_key: PeerKey, limits: NetworkerLimits, backoff: BackoffOptions) -> Self {
        Self {
            left_out: LeftOut::default(),
            own_key,
            next: 0,
            roots: BTreeMap::new(),
            discovery_keys: BTreeMap::new(),
            connections: BTreeMap::new(),
            peers: BTreeMap::new(),
            banned: BTreeSet::new(),
            dials: Dials::new(backoff),
            closing: false,
            mismatched: BTreeSet::new(),
            touched: BTreeSet::new(),
            limits,
        }
    }

    // Connections.

    /// A connection came, or was dialled.
    pub(crate) fn enter(
        &mut self,
        initiator: bool,
        dial: Option<DialId>,
        now: Duration,
    ) -> Result<ConnectionId, NotTaken> {
        if self.closing {
            return Err(NotTaken::Closed);
        }
        let most = self.limits.connections.saturating_add(self.limits.handshakes);
        if dial.is_some() {
            self.make_room(now)?;
        } else if self.strangers().count() >= self.limits.handshakes {
            let oldest = self.strangers().map(|(id, connection)| (connection.since, id)).min();
            let gives_way = |since: Duration| since.saturating_add(self.limits.handshake_time) <= now;
            let (_, oldest) = oldest.filter(|(since, _)| gives_way(*since)).ok_or(NotTaken::Full)?;
            self.end(oldest, EndReason::GaveWay, now);
        }
        // Those that are ending count too.
        if self.connections.len() >= most {
            return Err(NotTaken::Full);
        }
        let id = ConnectionId(self.next);
        self.next += 1;
        let connection = Connection {
            initiator,
            dial,
            stage: Stage::Handshake,
            peer: None,
            since: now,
            served: false,
            unknown: None,
            mismatch: false,
            roots: BTreeMap::new(),
            orders: Vec::new(),
        };
        self.connections.insert(id, connection);
        if let Some(dial) = dial {
            self.dials.connected(dial, id);
        }
        Ok(id)
    }

    /// Noise's handshake is done; `accepted` is what the application says of the remote's static key.
    pub(crate) fn connected(&mut self, id: ConnectionId, peer: PeerKey, accepted: bool, now: Duration) {
        let Some(connection) = self.connections.get_mut(&id).filter(|found| found.stage == Stage::Handshake) else {
            return;
        };
        connection.peer = Some(peer);
        connection.since = now;
        let is_other = connection.dial.is_some_and(|dial| !self.dials.met(dial, peer));
        let refused = if peer == self.own_key {
            Some(EndReason::OwnKey)
        } else if self.banned.contains(&peer) {
            Some(EndReason::Banned)
        } else if !accepted {
            Some(EndReason::NotAccepted)
        } else if is_other {
            Some(EndReason::OtherPeer)
        } else {
            None
        };
        if let Some(reason) = refused {
            return self.end(id, reason, now);
        }
        let others = self.peers.entry(peer).or_default();
        others.push(id);
        match others[..] {
            [_] => self.admit(id, now),
            [older, newer] if self.own_key > peer => {
                let served = self.connections.get(&older).is_some_and(|older| older.served);
                self.merge(older, newer, served, now);
            }
            _ if others.len() <= self.limits.per_peer.max(2) => {
                let until = now.saturating_add(self.limits.merge_time);
                let used = others.first().and_then(|used| self.connections.get(used));
                let served = used.is_some_and(|used| used.served);
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.stage = Stage::Held { until, served };
                    connection.orders.push(Order::Listen);
                    self.touched.insert(id);
                }
            }
            _ => self.end(id, EndReason::TooManyToPeer, now),
        }
    }

    /// Ends one of two connections to a peer, as the side with the larger key decides it. The newer one stays if bytes had moved both ways on the
    /// older one, which may be dead by now. Otherwise that side's own stays, or the newer one if both were begun by one side.
    fn merge(&mut self, older: ConnectionId, newer: ConnectionId, served: bool, now: Duration) {
        let is_deciders = |id: ConnectionId| {
            let connection = self.connections.get(&id)?;
            Some(connection.initiator == (self.own_key > connection.peer?))
        };
        let older_stays = !served && is_deciders(older) == Some(true) && is_deciders(newer) == Some(false);
        self.end(if older_stays { newer } else { older }, EndReason::Merged, now);
    }

    /// Opens the root keys, and lets the remote in.
    fn admit(&mut self, id: ConnectionId, now: Duration) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // The remote may have opened some of them while it was not let in.
        let was_held = matches!(connection.stage, Stage::Held { .. });
        connection.stage = Stage::Open;
        connection.since = now;
        let whom = [connection.peer.map(Whom::Peer), connection.dial.map(Whom::Dial)];
        let time = self.limits.left_out_time;
        let mut left_out: BTreeSet<FeedKey> =
            self.roots.keys().filter(|root| self.left_out.has(whom, **root, now, time)).copied().collect();
        if was_held || left_out.len() == self.roots.len() {
            // A side that says nothing finds out nothing.
            left_out.clear();
        }
        for root in self.roots.keys() {
            if left_out.contains(root) {
                connection.roots.insert(*root, OnConnection::new(RootState::LeftOut, now));
            } else {
                connection.open(*root, now);
            }
        }
        connection.orders.push(Order::Admit);
        self.touched.insert(id);
    }

    /// Ends a connection from here.
    pub(crate) fn end(&mut self, id: ConnectionId, reason: EndReason, now: Duration) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let order = match connection.stage {
            Stage::Ending(_) => return,
            Stage::Handshake | Stage::Held { .. } => Order::Refuse,
            Stage::Open => Order::End,
        };
        connection.stage = Stage::Ending(reason);
        connection.orders.push(order);
        self.touched.insert(id);
        self.release(id, now);
    }

    /// A connection is not its peer's any more: one that waits takes its place.
    fn release(&mut self, id: ConnectionId, now: Duration) {
        let Some(peer) = self.connections.get(&id).and_then(|connection| connection.peer) else { return };
        let Some(others) = self.peers.get_mut(&peer) else { return };
        others.retain(|other| *other != id);
        match others.first().copied() {
            Some(next) => {
                if self
                    .connections
                    .get(&next)
                    .is_some_and(|next| matches!(next.stage, Stage::Handshake | Stage::Held { .. }))
                {
                    self.admit(next, now);
                }
            }
            None => {
                self.peers.remove(&peer);
            }
        }
    }

    /// A connection is over, and so are its sessions.
    pub(crate) fn ended(&mut self, id: ConnectionId, now: Duration) -> Option<Ended> {
        self.release(id, now);
        self.touched.remove(&id);
        // Many end the stream as soon as they see that the root keys differ.
        let mismatch = self.mismatch(id);
        let connection = self.connections.remove(&id)?;
        let reason = match connection.stage {
            Stage::Ending(reason) => Some(reason),
            _ => None,
        };
        let in_sync = connection.ended_in_sync();
        let served = if connection.served { now.saturating_sub(connection.since) } else { Duration::ZERO };
        let outcome = if in_sync { Outcome::InSync } else { Outcome::Ended(served) };
        let mut unanswered = Vec::new();
        if reason.is_none() {
            let late = |on: &OnConnection| {
                let end = on.unanswered.or(Some(now).filter(|_| on.state == RootState::Opening));
                // Its session ended with the stream, not before.
                let is_last = |end: &Duration| now.saturating_sub(*end) <= END_TIME;
                let waited = end.filter(is_last).map_or(Duration::ZERO, |end| end.saturating_sub(on.at));
                end.is_some() && waited >= self.limits.unanswered_time
            };
            unanswered.extend(connection.roots.iter().filter(|(_, on)| late(on)).map(|(root, _)| *root));
            for whom in [connection.peer.map(Whom::Peer), connection.dial.map(Whom::Dial)].into_iter().flatten() {
                unanswered.iter().for_each(|root| self.left_out.add(whom, *root, now, self.limits.left_out));
            }
        }
        let is_merged = reason == Some(EndReason::Merged);
        if let Some(peer) = connection.peer.filter(|peer| !self.peers.contains_key(peer)) {
            self.dials.peer_left(peer, outcome, now);
        }
        let dial = connection.dial.and_then(|dial| {
            // Its peer is there already.
            let delay = if is_merged { Some(Duration::ZERO) } else { None };
            Some((dial, self.dials.ended(dial, outcome, delay, now)?))
        });
        Some(Ended { peer: connection.peer, reason, unanswered, dial, in_sync, mismatch })
    }

    /// When to call [`expire`](Self::expire) for a connection.
    pub(crate) fn due(&self, id: ConnectionId) -> Option<Duration> {
        let connection = self.connections.get(&id)?;
        match connection.stage {
            Stage::Held { until, .. } => Some(until),
            Stage::Open => {
                let unshared = connection.since.saturating_add(self.limits.unshared_time);
                let unshared = Some(unshared).filter(|_| !connection.served);
                let mismatch = self.may_mismatch(connection).map(|(_, due)| due);
                let reopening = |on: &OnConnection| Some(on.at).filter(|_| on.state == RootState::Reopening);
                connection.roots.values().filter_map(reopening).chain(unshared).chain(mismatch).min()
            }
            Stage::Handshake | Stage::Ending(_) => None,
        }
    }

    /// Does what is due on a connection.
    pub(crate) fn expire(&mut self, id: ConnectionId, now: Duration) {
        if self.due(id).is_none_or(|due| due > now) {
            return;
        }
        let is_due = |connection: &Connection| self.may_mismatch(connection).is_some_and(|(_, due)| due <= now);
        if self.connections.get(&id).is_some_and(is_due)
            && let Some(mismatch) = self.mismatch(id)
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.orders.push(Order::Mismatch(mismatch));
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match (connection.stage, connection.peer) {
            (Stage::Held { served, .. }, Some(peer)) => {
                // The remote does not merge.
                if let Some(used) = self.peers.get(&peer).and_then(|ids| ids.first()).filter(|used| **used != id) {
                    self.merge(*used, id, served, now);
                }
            }
            _ if !connection.served && connection.since.saturating_add(self.limits.unshared_time) <= now => {
                self.end(id, EndReason::NothingShared, now);
            }
            _ => {
                let is_due = |on: &OnConnection| on.state == RootState::Reopening && on.at <= now;
                let roots: Vec<_> =
                    connection.roots.iter().filter(|(_, on)| is_due(on)).map(|(root, _)| *root).collect();
                roots.into_iter().for_each(|root| connection.open(root, now));
                self.touched.insert(id);
            }
        }
    }

    /// What the task of a connection is to do. Each order is given once.
    pub(crate) fn take_orders(&mut self, id: ConnectionId) -> Vec<Order> {
        self.connections.get_mut(&id).map(|connection| std::mem::take(&mut connection.orders)).unwrap_or_default()
    }

    /// The connections that have new orders, or something due at another time than before.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<ConnectionId> {
        std::mem::take(&mut self.touched)
    }

    // Root keys on a connection.

    /// Both sides have a root key.
    pub(crate) fn ready(&mut self, id: ConnectionId, root: FeedKey, now: Duration) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Some(on) = connection.roots.get_mut(&root).filter(|on| on.state == RootState::Opening) {
            (on.state, on.was_ready, on.again) = (RootState::Ready, true, false);
        }
        if connection.stage != Stage::Open || connection.served {
            return;
        }
        // It was a stranger until now.
        if connection.dial.is_none() && self.make_room(now).is_err() {
            return self.end(id, EndReason::GaveWay, now);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.served = true;
        }
    }

    /// A root key's session on a connection is over.
    pub(crate) fn over(&mut self, id: ConnectionId, root: FeedKey, in_sync: bool, now: Duration) {
        let is_joined = self.roots.contains_key(&root);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let is_open = connection.stage == Stage::Open;
        let is_carried = |on: &&mut OnConnection| on.state.is_carried();
        let Some(on) = connection.roots.get_mut(&root).filter(is_carried) else { return };
        let (state, again) = (on.state, std::mem::take(&mut on.again));
        on.ended_in_sync = on.was_ready && in_sync;
        on.unanswered = Some(now).filter(|_| state == RootState::Opening);
        on.state = RootState::Over;
        if is_open && !is_joined {
            connection.roots.remove(&root);
        } else if is_open && again && state == RootState::Closing {
            connection.open(root, now);
            self.touched.insert(id);
        } else if again {
            self.reopen(id, root, now);
        }
        self.end_if_done(id, now);
    }

    /// Ends a connection that carried sessions which ended by themselves, and that will carry no others.
    fn end_if_done(&mut self, id: ConnectionId, now: Duration) {
        let Some(connection) = self.connections.get(&id) else { return };
        let is_through = |on: &OnConnection| matches!(on.state, RootState::Over | RootState::LeftOut);
        let is_done = connection.served
            && !self.roots.is_empty()
            && self.roots.values().all(|joined| !joined.live)
            && connection.roots.values().all(is_through);
        if is_done && connection.stage == Stage::Open {
            self.end(id, EndReason::Done, now);
        }
    }

    /// The remote opened a channel that is not open here.
    pub(crate) fn discovered(&mut self, id: ConnectionId, discovery_key: DiscoveryKey, now: Duration) {
        if let Some(root) = self.discovery_keys.get(&discovery_key) {
            self.reopen(id, *root, now);
        } else if let Some(connection) = self.connections.get_mut(&id)
            && connection.unknown.is_none()
        {
            connection.unknown = Some((discovery_key, now));
            self.touched.insert(id);
        }
    }

    /// The remote opened channels that are not open here, and it is not known which.
    pub(crate) fn discovered_some(&mut self, id: ConnectionId, now: Duration) {
        let roots: Vec<_> = self.roots.keys().copied().collect();
        roots.into_iter().for_each(|root| self.reopen(id, root, now));
    }

    fn reopen(&mut self, id: ConnectionId, root: FeedKey, now: Duration) {
        let Some(connection) = self.connections.get_mut(&id).filter(|found| found.stage == Stage::Open) else { return };
        let Some(on) = connection.roots.get_mut(&root) else { return };
        let at = on.at.saturating_add(self.limits.reopen_time);
        match on.state {
            RootState::LeftOut => connection.open(root, now),
            RootState::Over => (on.state, on.at) = (RootState::Reopening, at.max(now)),
            // It was closed, and that is on its way here.
            RootState::Ready | RootState::Closing => on.again = true,
            RootState::Opening | RootState::Reopening => {}
        }
        self.touched.insert(id);
    }

    // The application.

    /// A multifeed joins. `false` if there are as many as may be, or one of this root key is there.
    pub(crate) fn join(&mut self, root: FeedKey, live: bool, now: Duration) -> bool {
        if self.closing || self.roots.len() >= self.limits.roots || self.roots.contains_key(&root) {
            return false;
        }
        let discovery_key = root.discovery_key();
        self.roots.insert(root, Joined { discovery_key, live });
        self.discovery_keys.insert(discovery_key, root);
        // A peer that did not answer it before may have it now.
        self.left_out.forget(root);
        for (id, connection) in self.connections.iter_mut().filter(|(_, found)| found.stage == Stage::Open) {
            // The remote may have this one too.
            connection.unknown = connection.unknown.map(|(theirs, _)| (theirs, now));
            match connection.roots.get_mut(&root) {
                None => {
                    connection.open(root, now);
                    self.touched.insert(*id);
                }
                Some(on) => on.again |= on.state == RootState::Closing,
            }
        }
        true
    }

    /// A multifeed leaves. `false` if it had not joined.
    pub(crate) fn leave(&mut self, root: FeedKey) -> bool {
        let Some(joined) = self.roots.remove(&root) else { return false };
        self.discovery_keys.remove(&joined.discovery_key);
        for (id, connection) in &mut self.connections {
            let Some(on) = connection.roots.get_mut(&root) else { continue };
            match on.state {
                RootState::Opening | RootState::Ready => {
                    (on.state, on.again) = (RootState::Closing, false);
                    connection.orders.push(Order::Close(root));
                    self.touched.insert(*id);
                }
                RootState::Closing => on.again = false,
                RootState::LeftOut | RootState::Over | RootState::Reopening => {
                    connection.roots.remove(&root);
                }
            }
        }
        true
    }

    /// Whether any connection still carries a root key.
    pub(crate) fn carries(&self, root: FeedKey) -> bool {
        self.connections.values().any(|connection| connection.roots.get(&root).is_some_and(|on| on.state.is_carried()))
    }

    /// The root keys that are joined.
    pub(crate) fn roots(&self) -> impl Iterator<Item = FeedKey> + '_ {
        self.roots.keys().copied()
    }

    /// Bans a static key, and ends its connections. `false` if as many are banned as may be.
    pub(crate) fn ban(&mut self, peer: PeerKey, now: Duration) -> bool {
        if !self.banned.contains(&peer) && self.banned.len() >= self.limits.banned {
            return false;
        }
        self.banned.insert(peer);
        let theirs: Vec<_> =
            self.connections.iter().filter(|(_, found)| found.peer == Some(peer)).map(|(id, _)| *id).collect();
        // Those that wait are not to take the place of others.
        theirs.into_iter().rev().for_each(|id| self.end(id, EndReason::Banned, now));
        true
    }

    /// Lifts a ban. `false` if there was none.
    pub(crate) fn unban(&mut self, peer: &PeerKey) -> bool {
        self.banned.remove(peer)
    }

    /// The static keys that are banned, ascending.
    pub(crate) fn banned(&self) -> Vec<PeerKey> {
        self.banned.iter().copied().collect()
    }

    /// Stops a dial, and ends its connection. `false` if it is over.
    pub(crate) fn stop_dial(&mut self, dial: DialId, now: Duration) -> bool {
        let Some(connection) = self.dials.stop(dial) else { return false };
        connection.into_iter().for_each(|id| self.end(id, EndReason::DialStopped, now));
        true
    }

    /// What a dial is to do now.
    pub(crate) fn poll_dial(&mut self, dial: DialId, now: Duration) -> Step {
        self.dials.poll(dial, now, |peer| self.peers.contains_key(peer))
    }

    /// Ends everything, and takes nothing more.
    pub(crate) fn close(&mut self, now: Duration) {
        self.closing = true;
        self.dials.stop_all();
        let all: Vec<_> = self.connections.keys().rev().copied().collect();
        // From the newest on, so that none takes the place of another.
        all.into_iter().for_each(|id| self.end(id, EndReason::Closed, now));
    }

    /// A dial's task ends.
    pub(crate) fn remove_dial(&mut self, dial: DialId) {
        self.dials.remove(dial);
        self.left_out.forget_dial(dial);
        self.mismatched.retain(|(of, _)| *of != Some(dial));
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether nothing is left after closing.
    pub(crate) fn is_closed(&self) -> bool {
        self.closing && self.connections.is_empty() && self.dials.is_empty()
    }

    /// The connections that are up.
    pub(crate) fn open(&self) -> impl Iterator<Item = View> + '_ {
        self.connections.keys().filter_map(|id| self.view(*id))
    }

    /// A connection that is up.
    pub(crate) fn view(&self, id: ConnectionId) -> Option<View> {
        let connection = self.connections.get(&id).filter(|connection| connection.stage == Stage::Open)?;
        Some(View {
            id,
            peer: connection.peer?,
            initiator: connection.initiator,
            dial: connection.dial,
            since: connection.since,
            roots: connection.roots.iter().map(|(root, on)| (*root, on.state)).collect(),
        })
    }

    /// How many connections there are, of whatever kind.
    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Those that have proven nothing, and that anyone can make.
    fn strangers(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.connections.iter().filter(|(_, found)| found.is_stranger()).map(|(id, connection)| (*id, connection))
    }

    /// Makes room for one more that is no stranger: if there is none, the oldest gives way of those that carry nothing and were not dialled.
    fn make_room(&mut self, now: Duration) -> Result<(), NotTaken> {
        let counts = |found: &Connection| !found.is_stranger() && !matches!(found.stage, Stage::Ending(_));
        if self.connections.values().filter(|found| counts(found)).count() < self.limits.connections {
            return Ok(());
        }
        let idle =
            self.connections.iter().filter(|(_, found)| counts(found) && found.dial.is_none() && found.is_idle());
        let oldest = idle.map(|(id, found)| (found.since, *id)).min().ok_or(NotTaken::Full)?.1;
        self.end(oldest, EndReason::GaveWay, now);
        Ok(())
    }
}

impl Connection {
    fn open(&mut self, root: FeedKey, now: Duration) {
        let on = self.roots.entry(root).or_insert_with(|| OnConnection::new(RootState::Opening, now));
        (on.state, on.at, on.again, on.unanswered) = (RootState::Opening, now, false, None);
        self.orders.push(Order::Open(root));
    }

    fn is_stranger(&self) -> bool {
        self.dial.is_none() && !self.served && !matches!(self.stage, Stage::Ending(_))
    }

    /// Whether no root key is shared on it, or may be soon.
    fn is_idle(&self) -> bool {
        self.roots.values().all(|on| matches!(on.state, RootState::Over | RootState::LeftOut))
    }

    /// Whether every session that was there ended in sync.
    fn ended_in_sync(&self) -> bool {
        let mut ready = self.roots.values().filter(|on| on.was_ready).peekable();
        ready.peek().is_some() && ready.all(|on| on.ended_in_sync)
    }
}

impl OnConnection {
    fn new(state: RootState, at: Duration) -> Self {
        Self { state, at, was_ready: false, ended_in_sync: false, again: false, unanswered: None }
    }
}

mod mismatch;

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod tests;
