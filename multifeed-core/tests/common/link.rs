//! Stores on one thread and virtual time, joined by their sessions' bytes.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::time::Duration;

use bytes::BytesMut;
use multifeed_core::feed::{Finding, VerifyCursor};
use multifeed_core::{
    Connection, FeedId, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, Storage, SyncError, SyncTotals,
};
use multifeed_proto::{Config, Role};
use rand::SeedableRng;
use rand::rngs::StdRng;

pub type Store = Multifeed<MemoryStorage>;

pub fn store() -> Store {
    Multifeed::open(MemoryStorage::default(), Options::default()).unwrap()
}

/// A stream between two stores, its bytes moved a chunk at a time. The stores are lent to each call: as a slice, or the two of them.
pub struct Link {
    /// Each with the place of its store in the slice.
    pub ends: [(usize, Connection); 2],
    pub chunk: usize,
    pub wires: [BytesMut; 2],
    pub ended: [bool; 2],
    pub events: [Vec<PeerEvent>; 2],
}

impl Link {
    pub fn new<S: Storage>(
        stores: &mut [Multifeed<S>],
        [a, b]: [usize; 2],
        options: [Replicate; 2],
        configs: [Config; 2],
    ) -> Self {
        let seed = 7 + a as u64 * 10 + b as u64;
        let [first, second] = stores.get_disjoint_mut([a, b]).unwrap();
        let mut link = Self::with(first, second, options, configs, Duration::ZERO, seed);
        (link.ends[0].0, link.ends[1].0) = (a, b);
        link
    }

    /// A stream between two stores that need not be of one kind.
    pub fn between<A: Storage, B: Storage>(
        a: &mut Multifeed<A>,
        b: &mut Multifeed<B>,
        options: [Replicate; 2],
    ) -> Self {
        Self::with(a, b, options, [Config::default(), Config::default()], Duration::ZERO, 7)
    }

    pub fn with<A: Storage, B: Storage>(
        a: &mut Multifeed<A>,
        b: &mut Multifeed<B>,
        [options_a, options_b]: [Replicate; 2],
        [config_a, config_b]: [Config; 2],
        now: Duration,
        seed: u64,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let first = Connection::new(a, Role::Initiator, config_a, options_a, now, &mut rng);
        let second = Connection::new(b, Role::Responder, config_b, options_b, now, &mut rng);
        Self {
            ends: [(0, first), (1, second)],
            chunk: 1 << 20,
            wires: Default::default(),
            ended: [false; 2],
            events: Default::default(),
        }
    }

    pub fn plain<S: Storage>(stores: &mut [Multifeed<S>], ends: [usize; 2], options: Replicate) -> Self {
        Self::new(stores, ends, [options.clone(), options], [Config::default(), Config::default()])
    }

    /// Moves bytes and events once, in both directions. Whether anything happened.
    pub fn turn<S: Storage>(&mut self, stores: &mut [Multifeed<S>], now: Duration) -> bool {
        let [a, b] = stores.get_disjoint_mut([self.ends[0].0, self.ends[1].0]).unwrap();
        self.turn_between(a, b, now)
    }

    pub fn turn_between<A: Storage, B: Storage>(
        &mut self,
        a: &mut Multifeed<A>,
        b: &mut Multifeed<B>,
        now: Duration,
    ) -> bool {
        self.speak(0, a, now) | self.hear(1, b, now) | self.speak(1, b, now) | self.hear(0, a, now)
    }

    /// Runs until nothing moves.
    pub fn run_between<A: Storage, B: Storage>(&mut self, a: &mut Multifeed<A>, b: &mut Multifeed<B>, now: Duration) {
        for _ in 0..1_000_000 {
            if !self.turn_between(a, b, now) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Takes what one side has to report and to send.
    fn speak<S: Storage>(&mut self, side: usize, store: &mut Multifeed<S>, now: Duration) -> bool {
        let (_, connection) = &mut self.ends[side];
        let mut moved = connection.pump(store, now);
        while let Some(event) = connection.poll_event(store) {
            moved |= !matches!(event, PeerEvent::Progress(_));
            self.events[side].push(event);
        }
        while connection.session().poll_output(&mut self.wires[side]) {}
        moved
    }

    /// Gives one side what the other sent, or its end.
    fn hear<S: Storage>(&mut self, side: usize, store: &mut Multifeed<S>, now: Duration) -> bool {
        let (mut moved, from) = (false, 1 - side);
        let over = self.ends[from].1.session().output_finished();
        let (connection, wire) = (&mut self.ends[side].1, &mut self.wires[from]);
        if let Some(buffer) = connection.session().recv_buf() {
            let chunk = wire.split_to(self.chunk.min(wire.len()));
            if !chunk.is_empty() {
                moved = true;
                buffer.extend_from_slice(&chunk);
                connection.handle_input(store, now);
            }
        }
        if over && wire.is_empty() && !std::mem::replace(&mut self.ended[from], true) {
            moved = true;
            connection.session().handle_eof();
        }
        moved
    }

    pub fn result(&self, side: usize) -> Option<&Result<SyncTotals, SyncError>> {
        let ends: Vec<_> = self.events[side]
            .iter()
            .filter_map(|event| match event {
                PeerEvent::Closed(result) => Some(result),
                _ => None,
            })
            .collect();
        assert!(ends.len() <= 1, "more than one end: {ends:?}");
        ends.first().copied()
    }

    /// Whether each side came to its end, and if so whether that was a good one.
    pub fn closed(&self) -> [Option<bool>; 2] {
        [0, 1].map(|side| self.result(side).map(Result::is_ok))
    }

    pub fn conflicts(&self, side: usize) -> usize {
        self.events[side].iter().filter(|event| matches!(event, PeerEvent::Conflict { .. })).count()
    }

    pub fn totals(&self, side: usize) -> &SyncTotals {
        self.result(side).expect("the session goes on").as_ref().expect("the session failed")
    }

    pub fn error(&self, side: usize) -> &SyncError {
        self.result(side).expect("the session goes on").as_ref().expect_err("the session ended well")
    }

    /// Takes the stream away from both stores.
    pub fn close<A: Storage, B: Storage>(self, a: &mut Multifeed<A>, b: &mut Multifeed<B>) {
        let [(_, first), (_, second)] = self.ends;
        first.close(a);
        second.close(b);
        a.commit(Duration::ZERO);
        b.commit(Duration::ZERO);
    }
}

/// Runs the links until nothing moves.
pub fn run<S: Storage>(stores: &mut [Multifeed<S>], links: &mut [Link], now: Duration) {
    for _ in 0..1_000_000 {
        if !links.iter_mut().fold(false, |moved, link| link.turn(stores, now) | moved) {
            return;
        }
    }
    panic!("it never comes to rest");
}

/// A session until nothing moves.
pub fn sync(stores: &mut [Store], ends: [usize; 2]) -> Link {
    let mut links = [Link::plain(stores, ends, Replicate::default())];
    run(stores, &mut links, Duration::ZERO);
    let [link] = links;
    link
}

/// The store's files after it was closed.
pub fn closed(store: &Store) -> MemoryStorage {
    let mut disk = store.storage().clone();
    disk.reopen();
    Multifeed::open(&mut disk, Options::default()).unwrap().close().unwrap();
    disk.reopen();
    disk
}

/// What is wrong in a feed.
pub fn findings(store: &mut Store, id: FeedId) -> Vec<Finding> {
    let mut cursor = VerifyCursor::default();
    let step = store.verify_step(id, &mut cursor, usize::MAX).unwrap();
    assert!(step.done);
    step.findings
}
