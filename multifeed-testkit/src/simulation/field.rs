//! A few stores on links that a test sets out itself, on virtual time.

use std::time::Duration;

use anyhow::{Result, ensure};
use multifeed_core::fuzzing::Remembered;
use multifeed_core::{Multifeed, Replicate, SyncTotals};

use super::node::Node;
use super::stream::Stream;
use super::{Checked, Report};
use crate::disk::{FaultyStorage, SharedDisk};
use crate::net::{Shape, Side};

/// Stores, the streams between them, and a clock. All that the sessions claim is held against what both stores hold.
pub struct Field {
    nodes: Vec<Node>,
    /// Those that are over stay, for their totals.
    streams: Vec<Stream>,
    now: Duration,
    report: Report,
    _once: Remembered,
}

impl Field {
    /// Opens so many empty stores.
    ///
    /// # Errors
    ///
    /// A store cannot be opened.
    pub fn new(stores: usize) -> Result<Self> {
        let _once = Remembered::begin();
        let nodes = (0..stores).map(|_| Node::open(SharedDisk::default())).collect::<Result<_>>()?;
        Ok(Self { nodes, streams: Vec::new(), now: Duration::ZERO, report: Report::default(), _once })
    }

    /// Returns a store.
    pub fn store(&mut self, store: usize) -> &mut Multifeed<FaultyStorage<SharedDisk>> {
        &mut self.nodes[store].store
    }

    /// Returns the disk of a store, for changes that the store does not see.
    pub fn disk(&self, store: usize) -> SharedDisk {
        self.nodes[store].disk.clone()
    }

    /// Returns how many blocks a store holds, of all feeds.
    pub fn held(&self, store: usize) -> u64 {
        self.nodes[store].downloaded()
    }

    /// Returns the virtual time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Returns how many reports of sessions claimed something, and were checked.
    pub fn claims(&self) -> u64 {
        self.report.claims
    }

    /// Joins two stores, the first of which is the initiator; `shapes` are those of what the first and the second one send. Returns the
    /// stream's number.
    pub fn join(&mut self, stores: [usize; 2], shapes: [Shape; 2], options: [Replicate; 2]) -> usize {
        self.join_observed(stores, shapes, options, [true; 2])
    }

    /// As [`join`](Self::join), with sessions that are observed or not.
    pub fn join_observed(
        &mut self,
        stores: [usize; 2],
        shapes: [Shape; 2],
        options: [Replicate; 2],
        observed: [bool; 2],
    ) -> usize {
        let seed = self.streams.len() as u64 * 16;
        let mut stream = Stream::new(&mut self.nodes, stores, shapes, options, self.now, seed);
        stream.check_claims(Checked::ALL, &mut self.nodes, observed);
        stream.link.advance(self.now);
        self.streams.push(stream);
        self.streams.len() - 1
    }

    /// Has a side of a stream read nothing until then.
    pub fn stall(&mut self, stream: usize, side: Side, until: Duration) {
        self.streams[stream].stall(side, until);
    }

    /// Returns whether a session is in sync now; one that is over is not.
    pub fn in_sync(&self, stream: usize, side: Side) -> bool {
        let stream = &self.streams[stream];
        let store = &self.nodes[stream.nodes[side as usize]].store;
        stream.peer(side).is_some_and(|peer| store.in_sync(peer))
    }

    /// Returns what a session moved, once it has ended well.
    pub fn totals(&self, stream: usize, side: Side) -> Option<&SyncTotals> {
        self.streams[stream].totals[side as usize].as_ref().map(|(totals, _)| totals)
    }

    /// Returns whether a session that ended well says that it was in sync.
    pub fn ended_in_sync(&self, stream: usize, side: Side) -> Option<bool> {
        self.streams[stream].totals[side as usize].as_ref().map(|(_, in_sync)| *in_sync)
    }

    /// Returns whether both sessions of a stream are over.
    pub fn is_over(&self, stream: usize) -> bool {
        self.streams[stream].is_over()
    }

    /// Lets everything happen until `done`, or until the time is `end`. Returns whether it was done.
    ///
    /// # Errors
    ///
    /// A session claimed what is not so, or ended as no honest one does.
    pub fn run(&mut self, end: Duration, mut done: impl FnMut(&Self) -> bool) -> Result<bool> {
        let mut steps = 0;
        loop {
            let mut moved = false;
            for at in 0..self.streams.len() {
                if done(self) {
                    return Ok(true);
                }
                if !self.streams[at].is_over() {
                    moved |= self.streams[at].turn(&mut self.nodes, self.now, &mut self.report)?;
                }
            }
            steps += 1;
            ensure!(steps < 1_000_000, "busy for ever at {:?}", self.now);
            if moved {
                continue;
            }
            if done(self) {
                return Ok(true);
            }
            let times = self.streams.iter_mut().filter(|stream| !stream.is_over()).flat_map(Stream::wakes);
            let stores = self.nodes.iter_mut().filter_map(|node| node.store.poll_timeout());
            let next = times.chain(stores).filter(|time| *time > self.now).min();
            match next.filter(|time| *time <= end) {
                Some(next) => self.now = next,
                None => {
                    self.now = end;
                    return Ok(done(self));
                }
            }
            steps = 0;
        }
    }
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Field").field("stores", &self.nodes.len()).field("now", &self.now).finish_non_exhaustive()
    }
}
