//! Many networkers with their stores, on virtual time: peers come, go, crash and fall silent, and dial each other again and again. A [`Table`]
//! decides at each of them, as in the tasks of real connections; what it orders is done by real sessions over simulated links, with real stores.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use multifeed_core::fuzzing::Remembered;
use multifeed_core::{KeyPair, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, SessionId, SetId, SyncError};
use multifeed_proto::{
    Command, Config, Event, Fault, FeedKey, Role, Root, RootConfig, Scope, Session, SessionError, StaticKeyPair, Token,
};
use multifeed_testkit::net::{Arrival, Link, Shape, Side};
use multifeed_testkit::random::Random;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{ConnectionId, EndReason, Order, Table};
use crate::networker::backoff::BackoffOptions;
use crate::networker::dials::Step;
use crate::networker::ids::DialId;
use crate::networker::limits::NetworkerLimits;

/// What a session may send on each root key before it is looked at again.
const WINDOW: i64 = 64 * 1024;

/// How long an end waits for the remote's.
const LINGER: Duration = Duration::from_secs(5);

/// How large a crowd is.
#[derive(Debug, Clone, Copy)]
struct Size {
    peers: usize,
    roots: usize,
    feeds: usize,
    /// Of virtual time, in which peers come and go.
    time: Duration,
}

/// What happened.
#[derive(Debug, Default)]
struct Report {
    connections: u64,
    /// Ended from here, for these reasons.
    ended: BTreeMap<String, u64>,
    left: u64,
    crashed: u64,
    blocks: u64,
    most_connections_of_one: usize,
    most_links: usize,
    /// From the last return to the moment when everybody had everything.
    converged_in: Duration,
}

struct Node {
    table: Table,
    key: StaticKeyPair,
    store: Multifeed<MemoryStorage>,
    roots: BTreeMap<FeedKey, SetId>,
    feeds: Vec<FeedKey>,
    dials: BTreeMap<DialId, usize>,
    neighbours: Vec<usize>,
    links: BTreeMap<ConnectionId, usize>,
    sessions: BTreeMap<SessionId, usize>,
    up: bool,
}

struct Wire {
    link: Link,
    ends: [Option<End>; 2],
}

struct End {
    node: usize,
    id: ConnectionId,
    session: Session,
    connected: Option<Event>,
    unsent: BytesMut,
    carried: BTreeMap<FeedKey, Carried>,
    next_root: u32,
    remote_ended: bool,
    /// It is ending, and waits for the remote until then.
    patience: Option<Duration>,
    closed: bool,
}

struct Carried {
    root: Root,
    session: SessionId,
    granted: i64,
    /// It is off the stream.
    left: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Wire(usize),
    Node(usize),
}

struct World {
    random: Random,
    rng: StdRng,
    now: Duration,
    nodes: Vec<Node>,
    wires: Vec<Wire>,
    /// Feeds of each root key, with how many blocks each has.
    truth: BTreeMap<FeedKey, BTreeMap<FeedKey, u64>>,
    due: BTreeSet<(Duration, Who)>,
    due_of: BTreeMap<Who, Duration>,
    dirty: BTreeSet<Who>,
    report: Report,
}

impl World {
    fn new(seed: u64, size: Size) -> Self {
        let mut world = Self {
            random: Random::new(seed),
            rng: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            nodes: Vec::new(),
            wires: Vec::new(),
            truth: BTreeMap::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            dirty: BTreeSet::new(),
            report: Report::default(),
        };
        let roots: Vec<FeedKey> = (0..size.roots).map(|n| key_pair(0, n).public_key()).collect();
        world.truth = roots.iter().map(|root| (*root, BTreeMap::new())).collect();
        let mut members: BTreeMap<FeedKey, Vec<usize>> = BTreeMap::new();
        for node in 0..size.peers {
            // One to four root keys; each has some peers.
            let mut own = BTreeSet::from([roots[node % roots.len()]]);
            for _ in 0..world.random.between(0, 3) {
                own.insert(roots[world.draw(roots.len())]);
            }
            let mut store = Multifeed::open(MemoryStorage::new(), Options::default()).unwrap();
            let sets = own.iter().map(|root| (*root, store.add_set())).collect();
            own.iter().for_each(|root| members.entry(*root).or_default().push(node));
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&world.random.number().to_le_bytes());
            let key = StaticKeyPair::from_secret_key(secret);
            world.nodes.push(Node {
                table: Table::new(*key.public_key(), NetworkerLimits::default(), BackoffOptions::default()),
                key,
                store,
                roots: sets,
                feeds: Vec::new(),
                dials: BTreeMap::new(),
                neighbours: Vec::new(),
                links: BTreeMap::new(),
                sessions: BTreeMap::new(),
                up: false,
            });
        }
        // Those of a root key stand in a ring; each dials the next one, and one more.
        for peers in members.values() {
            for (at, node) in peers.iter().enumerate() {
                let others = [peers[(at + 1) % peers.len()], peers[world.draw(peers.len())]];
                world.nodes[*node].neighbours.extend(others.into_iter().filter(|other| other != node));
            }
        }
        for n in 0..size.feeds {
            let node = n % size.peers;
            let pair = key_pair(1, n);
            let at = (n / size.peers) % world.nodes[node].roots.len();
            let (&root, &set) = world.nodes[node].roots.iter().nth(at).unwrap();
            let key = pair.public_key();
            let id = world.nodes[node].store.writer(Some(&format!("w{n}")), || pair).unwrap();
            world.nodes[node].store.include(set, id).unwrap();
            world.nodes[node].feeds.push(key);
            world.truth.get_mut(&root).unwrap().insert(key, 0);
            world.append(node, key);
        }
        (0..size.peers).for_each(|node| world.arrive(node));
        world
    }

    fn draw(&mut self, below: usize) -> usize {
        usize::try_from(self.random.between(0, below as u64 - 1)).unwrap()
    }

    fn append(&mut self, node: usize, key: FeedKey) {
        let store = &mut self.nodes[node].store;
        let id = store.find(&key).unwrap();
        let index = store.info(id).unwrap().len;
        store.append(id, &[Bytes::from(format!("{key}/{index}"))]).unwrap();
        let feeds = self.truth.values_mut().find_map(|feeds| feeds.get_mut(&key));
        *feeds.unwrap() += 1;
        self.report.blocks += 1;
        self.dirty.insert(Who::Node(node));
    }

    /// A peer comes: its networker begins anew, with the same static key.
    fn arrive(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        assert!(!node.up && node.links.is_empty() && node.sessions.is_empty());
        node.table = Table::new(*node.key.public_key(), NetworkerLimits::default(), BackoffOptions::default());
        node.up = true;
        node.dials.clear();
        for root in node.roots.keys() {
            assert!(node.table.join(*root, true, now));
        }
        for other in node.neighbours.clone() {
            let seed = self.random.number();
            let dial = self.nodes[at].table.dials.add(None, seed, now);
            self.nodes[at].dials.insert(dial, other);
        }
        self.dirty.insert(Who::Node(at));
    }

    /// A peer is gone, with its streams cut or without a word.
    fn crash(&mut self, at: usize, cut: bool) {
        for wire in std::mem::take(&mut self.nodes[at].links).into_values() {
            for side in Side::BOTH {
                let end = &mut self.wires[wire].ends[side as usize];
                if let Some(end) = end.take_if(|end| end.node == at) {
                    for carried in end.carried.into_values() {
                        self.nodes[at].store.disconnect(carried.session);
                    }
                }
            }
            if cut {
                self.wires[wire].link.cut();
            }
            self.dirty.insert(Who::Wire(wire));
        }
        let node = &mut self.nodes[at];
        (node.up, node.sessions) = (false, BTreeMap::new());
        self.dirty.insert(Who::Node(at));
    }

    fn connect(&mut self, from: usize, dial: DialId, to: usize) {
        let now = self.now;
        let entered = if self.nodes[to].up { self.nodes[to].table.enter(false, None, now).ok() } else { None };
        let Some(theirs) = entered else {
            self.nodes[from].table.dials.failed(dial, now);
            return;
        };
        let ours = match self.nodes[from].table.enter(true, Some(dial), now) {
            Ok(ours) => ours,
            Err(_) => {
                self.nodes[from].table.dials.failed(dial, now);
                self.nodes[to].table.ended(theirs, now);
                return;
            }
        };
        let millis = Duration::from_millis(self.random.between(1, 150));
        let mut link = Link::new(Shape { delay: millis..=millis, rate: Some(1 << 20), ..Shape::plain() }, 0);
        link.advance(now);
        let ends = [(from, ours, Role::Initiator), (to, theirs, Role::Responder)].map(|(node, id, role)| {
            let mut config = Config::plain();
            (config.authenticate, config.discover) = (true, true);
            config.static_key = Some(self.nodes[node].key.clone());
            self.nodes[node].links.insert(id, self.wires.len());
            Some(End {
                node,
                id,
                session: Session::new(role, config, now, &mut self.rng),
                connected: None,
                unsent: BytesMut::new(),
                carried: BTreeMap::new(),
                next_root: 0,
                remote_ended: false,
                patience: None,
                closed: false,
            })
        });
        self.report.connections += 1;
        self.dirty.insert(Who::Wire(self.wires.len()));
        self.wires.push(Wire { link, ends });
    }

    /// Does all that there is to do now.
    fn settle(&mut self) {
        while let Some(who) = self.dirty.pop_first() {
            let due = match who {
                Who::Wire(wire) => self.turn(wire),
                Who::Node(node) => self.serve(node),
            };
            if let Some(before) = self.due_of.remove(&who) {
                self.due.remove(&(before, who));
            }
            if let Some(due) = due {
                self.due.insert((due, who));
                self.due_of.insert(who, due);
            }
        }
    }

    /// Lets a store and the dials of a peer do what they have to, and returns when there is more.
    fn serve(&mut self, at: usize) -> Option<Duration> {
        let now = self.now;
        self.stored(at);
        let mut due = self.nodes[at].store.poll_timeout();
        if due.is_some_and(|due| due <= now) {
            self.nodes[at].store.handle_timeout(now);
            self.stored(at);
            due = self.nodes[at].store.poll_timeout().map(|due| due.max(now + Duration::from_millis(1)));
        }
        if !self.nodes[at].up {
            return due;
        }
        for (dial, to) in self.nodes[at].dials.clone() {
            match self.nodes[at].table.poll_dial(dial, now) {
                Step::Connect => {
                    self.connect(at, dial, to);
                    if let Step::Wait(Some(wait)) = self.nodes[at].table.poll_dial(dial, now) {
                        due = due.into_iter().chain([wait]).min();
                    }
                }
                Step::Wait(wait) => due = due.into_iter().chain(wait).min(),
                Step::Stop => {
                    self.nodes[at].table.remove_dial(dial);
                    self.nodes[at].dials.remove(&dial);
                }
            }
        }
        self.touched(at);
        due
    }

    /// Something was given to a store: those of its sessions that have something to send do so.
    fn stored(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.store.commit(self.now);
        while let Some(session) = node.store.poll_ready() {
            self.dirty.extend(node.sessions.get(&session).map(|wire| Who::Wire(*wire)));
        }
        while node.store.poll_event().is_some() {}
        if node.store.poll_timeout() != self.due_of.get(&Who::Node(at)).copied() {
            let who = Who::Node(at);
            if let Some(due) = node.store.poll_timeout().filter(|due| self.due_of.get(&who).is_none_or(|at| at > due)) {
                if let Some(before) = self.due_of.insert(who, due) {
                    self.due.remove(&(before, who));
                }
                self.due.insert((due, who));
            }
        }
    }

    /// Something happened to a table: those connections and dials that it concerns are looked at.
    fn touched(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let wires = node.table.take_touched().into_iter().filter_map(|id| node.links.get(&id).copied());
        self.dirty.extend(wires.map(Who::Wire));
        if !node.table.dials.take_touched().is_empty() {
            self.dirty.insert(Who::Node(at));
        }
        self.report.most_connections_of_one = self.report.most_connections_of_one.max(node.table.connections());
    }

    /// Moves what there is over a stream in both directions, and returns when there is more.
    fn turn(&mut self, at: usize) -> Option<Duration> {
        self.wires[at].link.advance(self.now);
        let mut moved = true;
        while moved {
            moved = false;
            for side in Side::BOTH {
                moved |= self.turn_side(at, side);
            }
        }
        let Wire { link, ends } = &self.wires[at];
        let mut due: Vec<Duration> = link.poll_timeout().into_iter().collect();
        for end in ends.iter().flatten() {
            due.extend(end.session.poll_timeout().into_iter().chain(end.patience));
            due.extend(self.nodes[end.node].table.due(end.id));
        }
        if ends.iter().all(Option::is_none) {
            return None;
        }
        due.into_iter().min().map(|due| due.max(self.now + Duration::from_micros(1)))
    }

    fn turn_side(&mut self, at: usize, side: Side) -> bool {
        let Some(mut end) = self.wires[at].ends[side as usize].take() else {
            while self.wires[at].link.poll(side).is_some() {}
            return false;
        };
        let mut moved = self.obey(at, &mut end);
        moved |= self.read(at, side, &mut end);
        if end.session.poll_timeout().is_some_and(|due| due <= self.now) {
            end.session.handle_timeout(self.now);
            moved = true;
        }
        while let Some(event) = end.session.poll_event() {
            moved = true;
            self.route(&mut end, event);
        }
        moved |= self.sync(&mut end);
        if end.remote_ended && end.patience.is_none() && end.carried.is_empty() {
            self.finish(&mut end);
            moved = true;
        }
        if end.patience.is_some_and(|patience| patience <= self.now) && !end.closed {
            end.session.abort(SessionError::Network("the remote takes no more bytes".into()));
            moved = true;
        }
        while end.session.poll_output(&mut end.unsent) {}
        let taken = self.wires[at].link.send(side, &end.unsent);
        moved |= taken > 0;
        _ = end.unsent.split_to(taken);
        if end.session.output_finished() && end.unsent.is_empty() {
            self.wires[at].link.shut(side);
        }
        let node = end.node;
        if end.closed && end.carried.is_empty() {
            self.wires[at].link.shut(side);
            let ended = self.nodes[node].table.ended(end.id, self.now).unwrap();
            self.nodes[node].links.remove(&end.id);
            let reason = ended.reason.map_or("the remote".into(), |reason| format!("{reason:?}"));
            *self.report.ended.entry(reason).or_default() += 1;
            moved = true;
        } else {
            self.wires[at].ends[side as usize] = Some(end);
        }
        self.touched(node);
        moved
    }

    fn finish(&self, end: &mut End) {
        end.patience = Some(self.now + LINGER);
        end.session.finish();
    }

    /// Does what the table orders.
    fn obey(&mut self, at: usize, end: &mut End) -> bool {
        let now = self.now;
        self.nodes[end.node].table.expire(end.id, now);
        let orders = self.nodes[end.node].table.take_orders(end.id);
        let moved = !orders.is_empty();
        for order in orders {
            match order {
                Order::Open(root) => self.open(at, end, root),
                Order::Close(root) => self.leave(end, root, Ok(())),
                // One that is listened to was let in by that.
                Order::Listen | Order::Admit => _ = end.session.apply(Command::Admit),
                Order::Refuse => {
                    end.session.apply(Command::Refuse).unwrap();
                    self.finish(end);
                }
                Order::End => self.finish(end),
                Order::Mismatch(_) => {}
            }
        }
        moved
    }

    fn open(&mut self, at: usize, end: &mut End, root: FeedKey) {
        let node = &mut self.nodes[end.node];
        let Some(&set) = node.roots.get(&root).filter(|_| !end.closed && !end.remote_ended && end.patience.is_none())
        else {
            return node.table.over(end.id, root, false, self.now);
        };
        let name = Root(end.next_root);
        end.next_root += 1;
        let options = Replicate { set, ..Replicate::live() };
        let mut config = Config::plain();
        config.root = Some(RootConfig::new(root));
        options.configure(&mut config);
        let session = node.store.connect_as(name, options);
        node.sessions.insert(session, at);
        node.store.observe(session);
        if let Some(connected) = &end.connected {
            node.store.handle(session, connected.clone(), self.now);
        }
        end.session.open_root(name, config.root.unwrap()).unwrap();
        end.carried.insert(root, Carried { root: name, session, granted: 0, left: false });
    }

    /// A root key is off a stream, or its session ends with the stream.
    fn leave(&mut self, end: &mut End, root: FeedKey, result: Result<(), SessionError>) {
        let Some(carried) = end.carried.get_mut(&root) else { return };
        if std::mem::replace(&mut carried.left, true) {
            return;
        }
        if !end.closed {
            end.session.leave_root(carried.root, Token::all(carried.root));
        }
        self.nodes[end.node].store.handle(carried.session, Event::Closed(result), self.now);
        self.stored(end.node);
    }

    fn read(&mut self, at: usize, side: Side, end: &mut End) -> bool {
        let mut moved = false;
        while let Some(buf) = end.session.recv_buf()
            && let Some(arrival) = self.wires[at].link.poll(side)
        {
            moved = true;
            match arrival {
                Arrival::Bytes(bytes) => {
                    buf.extend_from_slice(&bytes);
                    // The error comes as the last event.
                    _ = end.session.handle_input(self.now);
                }
                Arrival::End => end.session.handle_eof(),
                Arrival::Cut => end.session.abort(SessionError::Network("cut".into())),
            }
        }
        moved
    }

    /// Gives an event to the multifeed that it is for, or to all.
    fn route(&mut self, end: &mut End, event: Event) {
        let now = self.now;
        let name = match &event {
            Event::Connected { remote_public_key, .. } => {
                end.connected = Some(event.clone());
                self.nodes[end.node].table.connected(end.id, *remote_public_key, true, now);
                return;
            }
            Event::Discovered { discovery_key } => {
                let node = &mut self.nodes[end.node];
                for carried in end.carried.values() {
                    node.store.handle(carried.session, event.clone(), now);
                }
                // As in the task of a connection: what a session reports is applied after that.
                node.table.discovered(end.id, *discovery_key, now);
                return;
            }
            Event::RemoteEnded => {
                end.remote_ended = true;
                for carried in end.carried.values() {
                    self.nodes[end.node].store.handle(carried.session, event.clone(), now);
                }
                return;
            }
            Event::Closed(result) => {
                end.closed = true;
                let roots: Vec<_> = end.carried.keys().copied().collect();
                return roots.into_iter().for_each(|root| self.leave(end, root, result.clone()));
            }
            Event::RootClosed { root, .. } | Event::Ready { root, .. } => *root,
            Event::Manifest { root, .. } | Event::Replicate { root, .. } => *root,
            Event::Extension { scope: Scope::Root(root), .. } => *root,
            Event::Extension { scope: Scope::Channel(token), .. } => token.root(),
            Event::Opened { token } | Event::ChannelClosed { token } => token.root(),
            Event::Partial { token, .. } | Event::Message { token, .. } => token.root(),
            _ => return,
        };
        let Some((&root, carried)) = end.carried.iter().find(|(_, carried)| carried.root == name && !carried.left)
        else {
            return;
        };
        let session = carried.session;
        match event {
            Event::RootClosed { error: Some(error), .. } => self.leave(end, root, Err(error)),
            Event::RootClosed { .. } if end.session.root_is_over(name) => {
                self.nodes[end.node].store.handle(session, Event::RemoteEnded, now);
            }
            event => {
                if matches!(event, Event::Ready { .. }) {
                    self.nodes[end.node].table.ready(end.id, root, now);
                }
                self.nodes[end.node].store.handle(session, event, now);
            }
        }
    }

    /// Moves what the stores have for the stream, and takes what sessions tell.
    fn sync(&mut self, end: &mut End) -> bool {
        let now = self.now;
        self.stored(end.node);
        let mut moved = false;
        for root in end.carried.keys().copied().collect::<Vec<_>>() {
            let node = &mut self.nodes[end.node];
            let Some(carried) = end.carried.get_mut(&root) else { continue };
            let credit = i64::try_from(end.session.send_credit()).unwrap_or(i64::MAX).min(WINDOW) - carried.granted;
            if credit > 0 {
                carried.granted += credit;
                node.store.grant(carried.session, usize::try_from(credit).unwrap());
            }
            let mut result = None;
            while let Some(command) = node.store.poll_command(carried.session) {
                moved = true;
                carried.granted -= i64::try_from(command.size()).unwrap();
                match command {
                    _ if carried.left => {}
                    Command::Finish => result = result.or(Some(Ok(()))),
                    Command::Abort(error) => result = result.or(Some(Err(error))),
                    command => end.session.apply(command).unwrap(),
                }
            }
            if let Some(result) = result {
                self.leave(end, root, result);
            }
            let node = &mut self.nodes[end.node];
            let Some(carried) = end.carried.get_mut(&root) else { continue };
            let mut over = false;
            while let Some(event) = node.store.poll_peer_event(carried.session) {
                moved = true;
                if let PeerEvent::Closed(result) = event {
                    over = true;
                    match result {
                        Ok(_) | Err(SyncError::GivenUp { .. }) => {}
                        Err(SyncError::Session(error)) if matches!(error.fault(), Fault::Network | Fault::Local) => {}
                        Err(error) => panic!("a session of {root} ends with {error}"),
                    }
                }
            }
            if over {
                let in_sync = node.store.in_sync(carried.session);
                node.store.disconnect(carried.session);
                node.sessions.remove(&carried.session);
                end.carried.remove(&root);
                node.table.over(end.id, root, in_sync, now);
                self.stored(end.node);
            }
        }
        moved
    }

    /// Lets time pass.
    fn run_until(&mut self, until: Duration) {
        loop {
            self.settle();
            self.report.most_links =
                self.report.most_links.max(self.nodes.iter().map(|node| node.links.len()).sum::<usize>() / 2);
            let Some(&(due, _)) = self.due.first().filter(|(due, _)| *due <= until) else { break };
            self.now = self.now.max(due);
            while let Some(&(due, who)) = self.due.first().filter(|(due, _)| *due <= self.now) {
                self.due.remove(&(due, who));
                self.due_of.remove(&who);
                self.dirty.insert(who);
            }
        }
        self.now = until;
    }

    /// What a store holds of a root key's feeds, and what there is: feeds and blocks.
    fn held(&self, node: usize, root: &FeedKey, set: SetId) -> [(usize, u64); 2] {
        let store = &self.nodes[node].store;
        let feeds = store.feeds_in(set).filter_map(|id| store.info(id).ok()).filter(|info| info.downloaded > 0);
        let held = feeds.fold((0, 0), |(feeds, blocks), info| (feeds + 1, blocks + info.downloaded));
        [held, (self.truth[root].len(), self.truth[root].values().sum())]
    }

    /// How many pairs of a peer and a root key lack something.
    fn lacking(&self) -> usize {
        let all = self.nodes.iter().enumerate().flat_map(|(at, node)| node.roots.iter().map(move |found| (at, found)));
        all.filter(|(at, (root, set))| {
            let [held, all] = self.held(*at, root, **set);
            held != all
        })
        .count()
    }
}

fn key_pair(kind: u8, n: usize) -> KeyPair {
    let mut seed = [kind; 32];
    seed[8..16].copy_from_slice(&(n as u64).to_le_bytes());
    KeyPair::from_seed(&seed)
}

/// Lets a crowd come and go for its time, then lets everybody come back: all have to get everything, and then nothing may be left of them.
fn run(seed: u64, size: Size) -> Report {
    let _once = Remembered::begin();
    let mut world = World::new(seed, size);
    let second = Duration::from_secs(1);
    let mut back: BTreeMap<Duration, Vec<usize>> = BTreeMap::new();
    while world.now < size.time {
        world.run_until(world.now + second);
        // On average a peer stays for two minutes, and is away for 20 s.
        for at in 0..size.peers {
            if !world.nodes[at].up || world.nodes[at].table.is_closing() || !world.random.one_in(120) {
                continue;
            }
            let away = Duration::from_millis(world.random.between(0, 40_000));
            match world.random.between(0, 2) {
                0 => {
                    world.nodes[at].table.close(world.now);
                    world.touched(at);
                    world.report.left += 1;
                }
                way => {
                    world.crash(at, way == 1);
                    world.report.crashed += 1;
                }
            }
            back.entry(world.now + away).or_default().push(at);
        }
        for _ in 0..size.peers.div_ceil(20) {
            let at = world.draw(size.peers);
            let feeds = world.nodes[at].feeds.len();
            if feeds > 0 {
                let which = world.draw(feeds);
                let key = world.nodes[at].feeds[which];
                world.append(at, key);
            }
        }
        let now = world.now;
        return_home(&mut world, &mut back, now);
    }
    while !back.is_empty() {
        world.run_until(world.now + second);
        let now = world.now;
        return_home(&mut world, &mut back, now);
    }
    let since = world.now;
    while world.lacking() > 0 {
        world.run_until(world.now + second);
        assert!(world.now < since + 400 * second, "seed {seed}: {} lack something", world.lacking());
    }
    world.report.converged_in = world.now - since;
    // By then each pair has settled on one connection.
    world.run_until(world.now + 30 * second);
    for node in &world.nodes {
        let peers: Vec<_> = node.table.open().map(|view| view.peer).collect();
        let once: BTreeSet<_> = peers.iter().collect();
        assert_eq!(peers.len(), once.len(), "seed {seed}: two connections to one peer");
    }
    for at in 0..size.peers {
        world.nodes[at].table.close(world.now);
        world.touched(at);
    }
    world.run_until(world.now + 60 * second);
    for node in &world.nodes {
        assert!(node.table.is_closed(), "seed {seed}: something is left");
        assert!(node.links.is_empty() && node.sessions.is_empty() && node.dials.is_empty());
        assert!(node.store.feeds().all(|id| node.store.peers(id).is_empty()), "seed {seed}: a session is left");
    }
    assert!(world.wires.iter().all(|wire| wire.ends.iter().all(Option::is_none)), "seed {seed}: a stream is left");
    world.report
}

/// Those that left come back, once nothing is left of them.
fn return_home(world: &mut World, back: &mut BTreeMap<Duration, Vec<usize>>, now: Duration) {
    let later = back.split_off(&(now + Duration::from_nanos(1)));
    for at in std::mem::replace(back, later).into_values().flatten() {
        let node = &mut world.nodes[at];
        if node.up && !node.table.is_closed() {
            back.entry(now + Duration::from_secs(1)).or_default().push(at);
            continue;
        }
        node.up = false;
        world.arrive(at);
    }
}

/// Every way to go was taken, and no connection was refused for want of room.
fn check(report: &Report, size: Size) {
    let count = |reason: EndReason| report.ended.get(&format!("{reason:?}")).copied().unwrap_or_default();
    assert!(report.left > 0 && report.crashed > 0 && report.connections > size.peers as u64, "{report:?}");
    assert!(count(EndReason::Merged) > 0 && count(EndReason::Closed) > 0, "{report:?}");
    assert_eq!(count(EndReason::GaveWay) + count(EndReason::TooManyToPeer), 0, "{report:?}");
}

/// `MULTIFEED_CROWDS` is how many seeds to try.
#[test]
fn a_crowd_that_comes_and_goes_gets_everything_and_leaves_nothing() {
    let size = Size { peers: 12, roots: 3, feeds: 36, time: Duration::from_secs(300) };
    let seeds = std::env::var("MULTIFEED_CROWDS").map_or(2, |count| count.parse().unwrap());
    for seed in 0..seeds {
        let report = run(seed, size);
        check(&report, size);
    }
}

/// The case that docs/scale.md describes.
#[test]
#[ignore = "takes minutes"]
fn two_hundred_peers_with_twenty_root_keys_and_two_thousand_feeds() {
    let size = Size { peers: 200, roots: 20, feeds: 2000, time: Duration::from_secs(600) };
    let report = run(1, size);
    println!("{report:#?}");
    check(&report, size);
}
