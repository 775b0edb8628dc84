//! Stores on one thread and virtual time, joined by their sessions' bytes.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::time::Duration;

use bytes::BytesMut;
use multifeed_core::{
    Connection, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, Storage, SyncError, SyncTotals,
};
use multifeed_proto::{Config, Role};
use rand::SeedableRng;
use rand::rngs::StdRng;

pub type Store = Multifeed<MemoryStorage>;

pub fn store() -> Store {
    Multifeed::open(MemoryStorage::default(), Options::default()).unwrap()
}

/// A stream between two stores, its bytes moved a chunk at a time.
pub struct Link {
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
        let mut rng = StdRng::seed_from_u64(7 + a as u64 * 10 + b as u64);
        let [options_a, options_b] = options;
        let [config_a, config_b] = configs;
        let start = Duration::ZERO;
        let first = Connection::new(&mut stores[a], Role::Initiator, config_a, options_a, start, &mut rng);
        let second = Connection::new(&mut stores[b], Role::Responder, config_b, options_b, start, &mut rng);
        Self {
            ends: [(a, first), (b, second)],
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
        let mut moved = false;
        for side in 0..2 {
            let (store, connection) = &mut self.ends[side];
            moved |= connection.pump(&mut stores[*store], now);
            while let Some(event) = connection.poll_event(&mut stores[*store]) {
                moved |= !matches!(event, PeerEvent::Progress(_));
                self.events[side].push(event);
            }
            while connection.session().poll_output(&mut self.wires[side]) {}
            let over = connection.session().output_finished();
            let other = 1 - side;
            let (store, connection) = &mut self.ends[other];
            if let Some(buffer) = connection.session().recv_buf() {
                let chunk = self.wires[side].split_to(self.chunk.min(self.wires[side].len()));
                if !chunk.is_empty() {
                    moved = true;
                    buffer.extend_from_slice(&chunk);
                    connection.handle_input(&mut stores[*store], now);
                }
            }
            if over && self.wires[side].is_empty() && !std::mem::replace(&mut self.ended[side], true) {
                moved = true;
                connection.session().handle_eof();
            }
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

    pub fn totals(&self, side: usize) -> &SyncTotals {
        self.result(side).expect("the session goes on").as_ref().expect("the session failed")
    }

    pub fn error(&self, side: usize) -> &SyncError {
        self.result(side).expect("the session goes on").as_ref().expect_err("the session ended well")
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
