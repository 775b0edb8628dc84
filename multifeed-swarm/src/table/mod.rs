//! Who was found, by whom, and whom to dial.
//!
//! Nothing here waits, reads a clock or touches a socket: each call says what happened and when, and leaves [`Order`]s and [`Happened`]s. When a dial is
//! repeated is the networker's to say; here it is said who has one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use multifeed_tokio::PeerKey;

use crate::discovery::{Found, Mode, Route, Topic};
use crate::limits::SwarmLimits;

/// The place of an engine in the swarm's list.
pub(crate) type EngineId = usize;

/// A peer that came and went is left to come back for so long. Then it is dialled.
const RETURN: Duration = Duration::from_secs(2);

/// How long one that waits for its turn waits at the most.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The number of a peer that was found, used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FoundId(u64);

impl FoundId {
    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for FoundId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What the swarm is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Begin a dial, which is kept. The peer that answers has to have this static key.
    Dial { peer: FoundId, key: Option<PeerKey> },
    /// Try to reach a peer by an address, which is connected in a slower way; that connection stays until then.
    Hasten(FoundId),
    /// End it, and its connection.
    Stop(FoundId),
    /// Have an engine look whether this is there still.
    Doubt(EngineId, Route),
}

/// What the application hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Happened {
    Found { peer: FoundId, key: Option<PeerKey>, engine: EngineId, route: Route },
    Lost { peer: FoundId, key: Option<PeerKey>, reason: LostReason },
    TurnedAway,
}

/// Why a peer that was found is no longer known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// The engines that found it say that it is gone, and it is not connected.
    Gone,
    /// Dials to it failed [`SwarmLimits::failures`] times in a row.
    GivenUp,
    /// All its topics were left.
    Left,
    /// It was never reached, and another one needed its place.
    GaveWay,
    /// It is the same one as another that was found, as their static key shows.
    Same,
}

/// What is known of a peer that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) id: FoundId,
    pub(crate) key: Option<PeerKey>,
    pub(crate) since: Duration,
    pub(crate) routes: Vec<(EngineId, Route, Duration)>,
    pub(crate) topics: BTreeSet<Topic>,
    pub(crate) state: FoundState,
    pub(crate) failures: u32,
    pub(crate) reached: bool,
    pub(crate) kept: bool,
    /// The engine by which it was reached last.
    pub(crate) by: Option<EngineId>,
}

/// How far a peer that was found is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FoundState {
    /// It waits until it is dialled.
    Waiting,
    /// It is dialled, now and again.
    Dialled,
    /// A connection with it shares a root key.
    Connected,
    /// It is this swarm itself.
    Own,
}

#[derive(Debug)]
pub(crate) struct Table {
    limits: SwarmLimits,
    own_key: PeerKey,
    topics: BTreeMap<Topic, Mode>,
    peers: BTreeMap<FoundId, Peer>,
    by_name: BTreeMap<Name, FoundId>,
    /// How those would be reached that came, and are connected.
    here: BTreeMap<Route, Here>,
    next: u64,
    orders: Vec<Order>,
    happened: Vec<Happened>,
}

/// Whom two findings have to be about to be about one peer: the static key if it is known, else the route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Key(PeerKey),
    Route(Route),
}

#[derive(Debug)]
struct Peer {
    /// What it was found by first.
    name: Name,
    /// Its dial is for its static key alone.
    expects: bool,
    /// As it was announced, or as the peer proved it.
    key: Option<PeerKey>,
    since: Duration,
    routes: BTreeMap<(EngineId, Route), OnRoute>,
    state: State,
    /// In a row.
    failures: u32,
    /// It shared a root key once.
    reached: bool,
    /// Connections that share one now.
    connections: u32,
    /// The route with which the next attempt begins, if the last one failed.
    turn: usize,
    /// The route that was connected last.
    by: Option<(EngineId, Route)>,
    /// How to reach it at the address it came from.
    came_from: Option<Route>,
}

#[derive(Debug, Default)]
struct Here {
    connections: u32,
    /// The static key that the last of them proved.
    key: Option<PeerKey>,
}

#[derive(Debug)]
struct OnRoute {
    /// The static key that was announced with it.
    key: Option<PeerKey>,
    topics: BTreeSet<Topic>,
    since: Duration,
    reported: Duration,
    kept: bool,
    /// It was tried in place of a slower one.
    hastened: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It may be dialled from then on.
    Waiting(Duration),
    Dialled,
    Own,
}

impl Table {
    pub(crate) fn new(own_key: PeerKey, limits: SwarmLimits) -> Self {
        Self {
            limits,
            own_key,
            topics: BTreeMap::new(),
            peers: BTreeMap::new(),
            by_name: BTreeMap::new(),
            here: BTreeMap::new(),
            next: 0,
            orders: Vec::new(),
            happened: Vec::new(),
        }
    }

    // Topics.

    /// The engines report what they know of it afterwards.
    pub(crate) fn join(&mut self, topic: Topic, mode: Mode) {
        self.topics.insert(topic, mode);
        if !mode.is_client() {
            self.forget(topic);
        }
    }

    pub(crate) fn leave(&mut self, topic: &Topic) -> bool {
        let left = self.topics.remove(topic).is_some();
        self.forget(*topic);
        left
    }

    /// Nobody is found for a topic any more.
    fn forget(&mut self, topic: Topic) {
        let mut without = Vec::new();
        for (id, peer) in &mut self.peers {
            let had_routes = !peer.routes.is_empty();
            peer.retain_topics(|_, on| on != topic);
            if had_routes && peer.routes.is_empty() {
                without.push(*id);
            }
        }
        without.into_iter().for_each(|id| self.remove(id, LostReason::Left));
    }

    // What the engines report.

    pub(crate) fn found(&mut self, engine: EngineId, found: Found, now: Duration) {
        let is_wanted = |topic: &Topic| self.topics.get(topic).is_some_and(|mode| mode.is_client());
        let topics: BTreeSet<Topic> = found.topics.into_iter().filter(is_wanted).collect();
        // An engine finds its own announcement too.
        if found.key == Some(self.own_key) || topics.is_empty() {
            return;
        }
        let name = found.key.map_or_else(|| Name::Route(found.route.clone()), Name::Key);
        let id = match self.by_name.get(&name) {
            Some(id) => *id,
            None => {
                if self.peers.len() >= self.limits.peers && !self.make_room() {
                    self.happened.push(Happened::TurnedAway);
                    return;
                }
                self.add(name, now)
            }
        };
        let most = self.limits.routes.max(1);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let key = (engine, found.route.clone());
        let is_new = !peer.routes.contains_key(&key);
        if is_new && peer.routes.len() >= most {
            let oldest = peer.routes.iter().filter(|(_, on)| !on.kept).min_by_key(|(_, on)| on.reported);
            let Some(oldest) = oldest.map(|(route, _)| route.clone()) else { return };
            peer.routes.remove(&oldest);
        }
        let new = OnRoute {
            key: found.key,
            topics: BTreeSet::new(),
            since: now,
            reported: now,
            kept: false,
            hastened: false,
        };
        let on = peer.routes.entry(key).or_insert(new);
        on.topics.extend(topics);
        (on.reported, on.kept) = (now, found.kept);
        if is_new {
            if let State::Waiting(from) = &mut peer.state {
                *from = now.min(*from);
            }
            let proven = self.here.get(&found.route).and_then(|here| here.key).filter(|_| found.key.is_none());
            if let Some(key) = proven {
                self.identify(id, key);
            }
            let key = found.key.or(proven);
            self.happened.push(Happened::Found { peer: id, key, engine, route: found.route });
        }
    }

    pub(crate) fn lost(&mut self, engine: EngineId, route: &Route, key: Option<PeerKey>, topics: &[Topic]) {
        let name = key.map_or_else(|| Name::Route(route.clone()), Name::Key);
        let Some(id) = self.by_name.get(&name).copied() else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.retain_topics(|on, topic| on != (engine, route) || !topics.contains(&topic));
        // A connection that goes on is a better sign than that an announcement is missing.
        match peer.routes.is_empty() && peer.connections == 0 {
            true => self.remove(id, LostReason::Gone),
            false => self.forget_names(id),
        }
    }

    fn add(&mut self, name: Name, now: Duration) -> FoundId {
        let id = FoundId(self.next);
        self.next += 1;
        self.by_name.insert(name.clone(), id);
        let peer = Peer {
            key: name.key(),
            expects: false,
            name,
            since: now,
            routes: BTreeMap::new(),
            state: State::Waiting(now),
            failures: 0,
            reached: false,
            connections: 0,
            turn: 0,
            by: None,
            came_from: None,
        };
        self.peers.insert(id, peer);
        id
    }

    /// Has the one give way that failed most, of those that were never reached.
    fn make_room(&mut self) -> bool {
        let tried = self.peers.iter().filter(|(_, peer)| !peer.reached && !peer.is_kept() && peer.failures > 0);
        let Some(id) = tried.max_by_key(|(_, peer)| peer.failures).map(|(id, _)| *id) else { return false };
        self.remove(id, LostReason::GaveWay);
        true
    }

    fn remove(&mut self, id: FoundId, reason: LostReason) {
        let Some(peer) = self.peers.remove(&id) else { return };
        self.forget_names(id);
        if peer.state == State::Dialled {
            self.orders.push(Order::Stop(id));
        }
        self.happened.push(Happened::Lost { peer: id, key: peer.key, reason });
    }

    /// It is found no more by what it no longer has.
    fn forget_names(&mut self, id: FoundId) {
        let peer = self.peers.get(&id);
        self.by_name.retain(|name, of| *of != id || peer.is_some_and(|peer| peer.has(name)));
    }

    // What became of dials and connections.

    /// The peer's dial has a connection with the peer of this static key, and shares a root key. If another one was found with that key, it is the
    /// same one, and is gone from now on. Returns that one's number.
    pub(crate) fn identify(&mut self, id: FoundId, key: PeerKey) -> Option<FoundId> {
        let peer = self.peers.get_mut(&id).filter(|peer| peer.key != Some(key))?;
        // What was announced with another key is somebody else's. It is found again, as that.
        peer.routes.retain(|_, on| on.key.is_none_or(|announced| announced == key));
        peer.key = Some(key);
        if peer.name.key().is_some() {
            peer.name = Name::Key(key);
        }
        let other = self.by_name.insert(Name::Key(key), id).filter(|other| *other != id);
        if let Some(other) = other {
            self.absorb(other, id);
        }
        self.forget_names(id);
        other
    }

    /// A peer is another one too, which has its routes from now on.
    pub(crate) fn absorb(&mut self, gone: FoundId, into: FoundId) {
        if gone == into || !self.peers.contains_key(&into) {
            return;
        }
        let (Some(other), Some(peer)) = (self.peers.remove(&gone), self.peers.get_mut(&into)) else { return };
        peer.since = peer.since.min(other.since);
        peer.reached |= other.reached;
        let mut moved = Vec::new();
        for (route, on) in other.routes {
            if peer.routes.len() < self.limits.routes.max(1) || on.kept {
                moved.push((route.clone(), on.key));
                peer.routes.entry(route).or_insert(on);
            }
        }
        if other.state == State::Dialled {
            self.orders.push(Order::Stop(gone));
        }
        self.happened.push(Happened::Lost { peer: gone, key: other.key, reason: LostReason::Same });
        for ((engine, route), key) in moved {
            if key.is_none() {
                self.by_name.insert(Name::Route(route.clone()), into);
            }
            self.happened.push(Happened::Found { peer: into, key, engine, route });
        }
        self.forget_names(gone);
    }

    /// Somebody came who would be reached like this, and is not dialled as long as it is connected. Followed by [`left`](Self::left).
    pub(crate) fn came(&mut self, route: &Route) {
        self.here.entry(route.clone()).or_default().connections += 1;
        if let Some(id) = self.by_name.get(&Name::Route(route.clone())).copied() {
            self.yield_to_who_came(id, Duration::ZERO);
        }
    }

    /// That connection is over.
    pub(crate) fn left(&mut self, route: &Route, now: Duration) {
        let Some(here) = self.here.get_mut(route) else { return };
        here.connections = here.connections.saturating_sub(1);
        if here.connections > 0 {
            return;
        }
        self.here.remove(route);
        let id = self.by_name.get(&Name::Route(route.clone()));
        if let Some(peer) = id.and_then(|id| self.peers.get_mut(id))
            && let State::Waiting(from) = &mut peer.state
        {
            *from = now.saturating_add(RETURN).max(*from);
        }
    }

    /// A connection with the peer of this static key came from there: what was found there, and what was found with that key, is this peer. Returns
    /// the number of one that is another's from now on.
    pub(crate) fn came_from(&mut self, key: PeerKey, route: &Route) -> Option<FoundId> {
        if let Some(here) = self.here.get_mut(route) {
            here.key = Some(key);
        }
        let there = self.by_name.get(&Name::Route(route.clone())).copied();
        let Some(id) = self.with_key(key) else { return there.and_then(|there| self.identify(there, key)) };
        let other = there.filter(|there| *there != id);
        if let Some(other) = other {
            self.absorb(other, id);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            self.by_name.insert(Name::Route(route.clone()), id);
            peer.came_from = Some(route.clone());
            self.forget_names(id);
        }
        other
    }

    /// Ends a dial to somebody who is connected, and cannot be reached otherwise. Whether that is so.
    fn yield_to_who_came(&mut self, id: FoundId, now: Duration) -> bool {
        let here = &self.here;
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.is_here(here)) else { return false };
        if peer.state == State::Dialled && peer.connections == 0 {
            peer.state = State::Waiting(now);
            self.orders.push(Order::Stop(id));
        }
        true
    }

    /// A connection to a peer is made by this route. Nobody knows yet who is there.
    pub(crate) fn is_by(&mut self, id: FoundId, engine: EngineId, route: Route) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.by = Some((engine, route));
        }
    }

    /// A connection shares a root key: one that the peer's dial keeps, or another one with a peer of this static key. Called once for each, and
    /// followed by [`ended`](Self::ended).
    pub(crate) fn connected(&mut self, id: FoundId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.connections += 1;
        (peer.failures, peer.reached) = (0, true);
    }

    /// That connection is over.
    pub(crate) fn ended(&mut self, id: FoundId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.connections = peer.connections.saturating_sub(1);
        if peer.connections == 0 && peer.routes.is_empty() {
            self.remove(id, LostReason::Gone);
        }
    }

    /// A dial came to nothing, or to a connection that shared no root key; it is repeated after `after`. `false` if that is no failure of the peer,
    /// which is connected otherwise.
    pub(crate) fn failed(&mut self, id: FoundId, after: Duration, now: Duration) -> bool {
        if self.yield_to_who_came(id, now) {
            return false;
        }
        let due = |peer: &&Peer| peer.is_due(now, &self.here);
        let others_wait = self.peers.values().filter(due).any(|peer| !peer.is_kept());
        // One that the user named waits for a place only if there are too few.
        let dialled = self.peers.values().filter(|peer| peer.state == State::Dialled).count();
        let is_crowded = dialled + self.peers.values().filter(due).count() > self.limits.dials;
        let most = self.limits.failures.max(1);
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.state == State::Dialled && peer.connections == 0)
        else {
            return false;
        };
        peer.failures = peer.failures.saturating_add(1);
        let kept = peer.is_kept();
        let is_mixed = peer.key.is_some() && peer.expected().is_none();
        self.orders.extend(peer.routes.keys().map(|(engine, route)| Order::Doubt(*engine, route.clone())));
        if !kept && peer.failures >= most {
            self.remove(id, LostReason::GivenUp);
            return true;
        }
        if is_mixed && peer.expects {
            // The peer at an address that nobody announced may have another key by now.
            peer.state = State::Waiting(now.saturating_add(after));
            self.orders.push(Order::Stop(id));
        } else if !peer.reached && (is_crowded || !kept && others_wait) {
            // Its place is the next one's. It comes again no sooner than the dial would have.
            let delay = after.saturating_mul(1 << peer.failures.saturating_sub(1).min(16)).min(LONGEST_WAIT);
            peer.state = State::Waiting(now.saturating_add(delay));
            self.orders.push(Order::Stop(id));
        }
        true
    }

    /// A dial could not be begun.
    pub(crate) fn postpone(&mut self, id: FoundId, until: Duration) {
        if let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.state == State::Dialled) {
            peer.state = State::Waiting(until);
        }
    }

    /// A dial reached this swarm itself.
    pub(crate) fn is_own(&mut self, id: FoundId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if std::mem::replace(&mut peer.state, State::Own) == State::Dialled {
            self.orders.push(Order::Stop(id));
        }
    }

    /// Decides who is dialled. Called after each change, and when [`due`](Self::due) has come.
    pub(crate) fn poll(&mut self, now: Duration) {
        self.hasten();
        let dialled = self.peers.values().filter(|peer| peer.state == State::Dialled);
        let (mut all, mut trying) = (0, 0);
        for peer in dialled {
            all += 1;
            trying += usize::from(peer.is_tried());
        }
        if all >= self.limits.dials {
            return;
        }
        let waiting = self.peers.iter().filter(|(_, peer)| peer.is_due(now, &self.here));
        let order = |(id, peer): (&FoundId, &Peer)| (peer.is_tried(), peer.failures, peer.waits_from(), *id);
        let mut waiting: Vec<_> = waiting.map(order).collect();
        waiting.sort_unstable();
        for (is_tried, _, _, id) in waiting {
            if all >= self.limits.dials || (is_tried && trying >= self.limits.dials_at_once) {
                break;
            }
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.state = State::Dialled;
            let key = peer.expected();
            peer.expects = key.is_some();
            self.orders.push(Order::Dial { peer: id, key });
            all += 1;
            trying += usize::from(is_tried);
        }
    }

    /// Has those reached by an address that have one, and are connected otherwise.
    fn hasten(&mut self) {
        for (id, peer) in &mut self.peers {
            let is_slow = peer.connections > 0 && peer.by.as_ref().is_some_and(|(_, by)| !by.is_address());
            if !is_slow || peer.state != State::Dialled {
                continue;
            }
            let mut untried = false;
            for (_, on) in peer.routes.iter_mut().filter(|((_, route), _)| route.is_address()) {
                untried |= !std::mem::replace(&mut on.hastened, true);
            }
            if untried {
                self.orders.push(Order::Hasten(*id));
            }
        }
    }

    /// When somebody may be dialled next, if nothing else happens.
    pub(crate) fn due(&self, now: Duration) -> Option<Duration> {
        self.peers.values().filter_map(Peer::waits_from).filter(|from| *from > now).min()
    }

    /// The ways to reach a peer, for one attempt: what was connected last, then addresses, which are faster than a DHT. After one that failed, the
    /// next begins with another.
    pub(crate) fn routes(&mut self, id: FoundId) -> Vec<(EngineId, Route)> {
        let Some(peer) = self.peers.get_mut(&id) else { return Vec::new() };
        let mut routes: Vec<_> =
            peer.routes.keys().filter(|(_, route)| !self.here.contains_key(route)).cloned().collect();
        routes.sort_by_key(|(_, route)| !route.is_address());
        if peer.failures == 0 {
            peer.turn = routes.iter().position(|route| Some(route) == peer.by.as_ref()).unwrap_or(0);
        }
        if !routes.is_empty() {
            let count = routes.len();
            routes.rotate_left(peer.turn % count);
            peer.turn = peer.turn.wrapping_add(1);
        }
        routes
    }

    /// The one that was found with this static key.
    pub(crate) fn with_key(&self, key: PeerKey) -> Option<FoundId> {
        self.by_name.get(&Name::Key(key)).copied()
    }

    /// The static key of one that was found, if it is known.
    pub(crate) fn key(&self, id: FoundId) -> Option<PeerKey> {
        self.peers.get(&id).and_then(|peer| peer.key)
    }

    /// Whether others are dialled of which nothing was heard yet.
    pub(crate) fn tries_others(&self, id: FoundId) -> bool {
        let is_new = |peer: &Peer| peer.state == State::Dialled && peer.failures == 0 && !peer.reached;
        self.peers.iter().any(|(other, peer)| *other != id && is_new(peer))
    }

    pub(crate) fn is_connected(&self, id: FoundId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.connections > 0)
    }

    pub(crate) fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    pub(crate) fn take_happened(&mut self) -> Vec<Happened> {
        std::mem::take(&mut self.happened)
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = View> + '_ {
        self.peers.iter().map(|(id, peer)| View {
            id: *id,
            key: peer.key,
            since: peer.since,
            routes: peer.routes.iter().map(|((engine, route), on)| (*engine, route.clone(), on.since)).collect(),
            topics: peer.routes.values().flat_map(|on| on.topics.iter().copied()).collect(),
            state: match peer.state {
                State::Own => FoundState::Own,
                _ if peer.connections > 0 => FoundState::Connected,
                State::Waiting(_) => FoundState::Waiting,
                State::Dialled => FoundState::Dialled,
            },
            failures: peer.failures,
            reached: peer.reached,
            kept: peer.is_kept(),
            by: peer.by.as_ref().map(|(engine, _)| *engine),
        })
    }
}

impl Peer {
    /// The user named it.
    fn is_kept(&self) -> bool {
        self.routes.values().any(|on| on.kept)
    }

    /// A dial to it counts as one to somebody who may not exist.
    fn is_tried(&self) -> bool {
        !self.reached && !self.is_kept()
    }

    /// The static key that the reached peer has to have: none if one of the routes was found without one.
    fn expected(&self) -> Option<PeerKey> {
        self.key.filter(|_| self.routes.values().all(|on| on.key.is_some()))
    }

    /// Whether it is found by this.
    fn has(&self, name: &Name) -> bool {
        let is_route = |route: &Route| self.routes.iter().any(|((_, own), on)| own == route && on.key.is_none());
        self.name == *name
            || match name {
                Name::Key(key) => self.key == Some(*key),
                Name::Route(route) => self.came_from.as_ref() == Some(route) || is_route(route),
            }
    }

    fn waits_from(&self) -> Option<Duration> {
        match self.state {
            State::Waiting(from) => Some(from),
            State::Dialled | State::Own => None,
        }
    }

    fn is_due(&self, now: Duration, here: &BTreeMap<Route, Here>) -> bool {
        self.waits_from().is_some_and(|from| from <= now) && !self.is_here(here)
    }

    /// It came by each way in which it would be reached, and is connected.
    fn is_here(&self, here: &BTreeMap<Route, Here>) -> bool {
        self.routes.keys().all(|(_, route)| here.contains_key(route))
    }

    /// Keeps the topics, and the routes that have one left.
    fn retain_topics(&mut self, keeps: impl Fn((EngineId, &Route), Topic) -> bool) {
        self.routes.retain(|(engine, route), on| {
            on.topics.retain(|topic| keeps((*engine, route), *topic));
            !on.topics.is_empty()
        });
    }
}

impl Name {
    fn key(&self) -> Option<PeerKey> {
        match self {
            Self::Key(key) => Some(*key),
            Self::Route(_) => None,
        }
    }
}

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod tests;
