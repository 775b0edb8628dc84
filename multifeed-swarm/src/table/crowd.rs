//! Any order of what engines, dials and the application do: the bounds hold all the while, and in the end every living peer is connected.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::tests::{address, topic};
use super::*;

/// Peers of the world, the first of which the user named.
const PEERS: usize = 40;
const TOPICS: u8 = 4;
const STEPS: usize = 1500;
const STEP: Duration = Duration::from_millis(100);

/// A peer of the world, as it is.
#[derive(Default)]
struct Real {
    lives: bool,
    topics: BTreeSet<u8>,
    /// Engines that say it is there.
    shown: BTreeSet<EngineId>,
}

/// The networker's side of a dial.
struct Dialled {
    peer: usize,
    due: Duration,
    failures: u32,
    connected: bool,
}

struct World {
    table: Table,
    rng: StdRng,
    now: Duration,
    real: Vec<Real>,
    joined: BTreeSet<u8>,
    dials: BTreeMap<FoundId, Dialled>,
}

impl World {
    fn new(seed: u64) -> Self {
        let limits = SwarmLimits { dials_at_once: 3, routes: 4, ..SwarmLimits::default() };
        Self {
            table: Table::new(PeerKey::new([255; 32]), limits),
            rng: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            real: (0..PEERS).map(|_| Real::default()).collect(),
            joined: BTreeSet::new(),
            dials: BTreeMap::new(),
        }
    }

    fn key(peer: usize) -> Option<PeerKey> {
        (!peer.is_multiple_of(3)).then_some(PeerKey::new([peer as u8; 32]))
    }

    /// How an engine reaches a peer, and whether it shows its key: the second one is a DHT for every third peer.
    fn way(peer: usize, engine: EngineId) -> (Route, Option<PeerKey>) {
        match engine == 1 && peer % 3 == 1 {
            true => (Route::Key([peer as u8; 32]), None),
            false => (address(peer as u32), Self::key(peer)),
        }
    }

    fn shared(&self, peer: usize) -> bool {
        self.real[peer].lives && !self.real[peer].topics.is_disjoint(&self.joined)
    }

    fn show(&mut self, peer: usize, engine: EngineId) {
        let topics = self.real[peer].topics.iter().map(|n| topic(*n)).collect();
        let (route, key) = Self::way(peer, engine);
        let found = Found { route, key, topics, kept: peer == 0 };
        self.real[peer].shown.insert(engine);
        self.table.found(engine, found, self.now);
    }

    fn hide(&mut self, peer: usize, engine: EngineId) {
        let topics: Vec<_> = (0..TOPICS).map(topic).collect();
        self.real[peer].shown.remove(&engine);
        let (route, key) = Self::way(peer, engine);
        self.table.lost(engine, &route, key, &topics);
    }

    fn step(&mut self) {
        self.now += STEP;
        let (peer, engine) = (self.rng.random_range(0..PEERS), self.rng.random_range(0..2));
        match self.rng.random_range(0..12) {
            0 => self.real[peer].lives ^= true,
            1 => {
                let n = self.rng.random_range(0..TOPICS);
                self.real[peer].topics.insert(n);
                self.show(peer, engine);
            }
            2 | 3 if !self.real[peer].topics.is_empty() => self.show(peer, engine),
            4 if peer != 0 => self.hide(peer, engine),
            5 => {
                let n = self.rng.random_range(0..TOPICS);
                match self.joined.remove(&n) {
                    true => assert!(self.table.leave(&topic(n))),
                    false => self.join(n),
                }
            }
            _ => {}
        }
        self.work();
    }

    /// As an engine does, what is known is said again.
    fn join(&mut self, n: u8) {
        self.joined.insert(n);
        self.table.join(topic(n), Mode::Both);
        for peer in 0..PEERS {
            self.real[peer].shown.clone().into_iter().for_each(|engine| self.show(peer, engine));
        }
    }

    /// Follows the table's orders, as a networker does.
    fn work(&mut self) {
        self.table.poll(self.now);
        self.follow();
        for id in self.dials.keys().copied().collect::<Vec<_>>() {
            let Some(dial) = self.dials.get_mut(&id).filter(|dial| dial.due <= self.now) else { continue };
            let (peer, was_connected) = (dial.peer, dial.connected);
            let shares = self.shared(peer);
            let dial = self.dials.get_mut(&id).expect("it is there");
            match (was_connected, shares) {
                (true, true) => {}
                (false, true) => {
                    (dial.connected, dial.failures) = (true, 0);
                    if peer % 3 == 1 {
                        self.table.identify(id, PeerKey::new([peer as u8; 32]));
                    }
                    self.table.connected(id);
                    // A peer that is the same as another has no dial any more.
                    self.follow();
                }
                (true, false) => {
                    (dial.connected, dial.due) = (false, self.now + Duration::from_secs(1));
                    self.table.ended(id);
                }
                (false, false) => {
                    let after = Duration::from_secs(1 << dial.failures.min(8));
                    (dial.due, dial.failures) = (self.now + after, dial.failures + 1);
                    self.table.failed(id, after, self.now);
                }
            }
        }
        self.table.poll(self.now);
        self.follow();
    }

    fn follow(&mut self) {
        for order in self.table.take_orders() {
            match order {
                Order::Dial { peer: id, key } => {
                    let routes = self.table.routes(id);
                    let peer = match &routes[0].1 {
                        Route::Address(route) => {
                            route.rsplit(':').next().and_then(|n| n.parse().ok()).expect("a number")
                        }
                        Route::Key(key) => usize::from(key[0]),
                    };
                    let is_mixed = routes.iter().any(|(_, route)| !route.is_address());
                    assert_eq!(key, Self::key(peer).filter(|_| !is_mixed));
                    let dial = Dialled { peer, due: self.now, failures: 0, connected: false };
                    assert!(self.dials.insert(id, dial).is_none(), "one dial each");
                }
                Order::Stop(id) => assert!(self.dials.remove(&id).is_some(), "only what was begun is stopped"),
                Order::Hasten(_) | Order::Doubt(..) => {}
            }
        }
        self.table.take_happened();
        let views: Vec<_> = self.table.peers().collect();
        // Those of a DHT show who they are when they are connected.
        let is_known = |dial: &&Dialled| dial.connected || dial.peer % 3 != 1;
        let of: Vec<_> = self.dials.values().filter(is_known).map(|dial| dial.peer).collect();
        assert_eq!(of.len(), of.iter().collect::<BTreeSet<_>>().len(), "two dials to one peer");
        let is_tried = |id: &FoundId| self.table.peers.get(id).is_some_and(Peer::is_tried);
        assert!(self.dials.keys().filter(|id| is_tried(id)).count() <= 3);
        assert!(self.dials.keys().all(|id| views.iter().any(|view| view.id == *id)), "a dial of nobody");
        for view in views.iter().filter(|view| view.state != FoundState::Connected) {
            assert!(!view.topics.is_empty(), "nobody looks for it: {view:?}");
        }
    }
}

#[test]
fn whatever_happened_before_those_who_live_are_connected_in_the_end() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step());
        // From now on nothing changes, and what is there is found again.
        for n in 0..TOPICS {
            world.join(n);
        }
        for peer in 0..PEERS {
            world.real[peer].lives = peer % 2 == 0;
            world.real[peer].topics.insert(1);
        }
        for round in 0..2 {
            (0..PEERS).for_each(|peer| world.show(peer, round));
            (0..600).for_each(|_| {
                world.now += Duration::from_secs(1);
                world.work();
            });
        }
        let connected: BTreeSet<_> = world.dials.values().filter(|dial| dial.connected).map(|dial| dial.peer).collect();
        assert_eq!(connected, (0..PEERS).filter(|peer| peer % 2 == 0).collect(), "seed {seed}");
        assert_eq!(world.dials.len(), connected.len(), "seed {seed}: no dial is left to those who are gone");
        (0..TOPICS).for_each(|n| assert!(world.table.leave(&topic(n))));
        world.work();
        assert_eq!((world.table.peers().count(), world.dials.len()), (0, 0), "seed {seed}");
    }
}
