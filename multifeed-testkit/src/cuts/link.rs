//! Two stores and what joins them.

use std::time::Duration;

use anyhow::{Result, ensure};
use multifeed_core::{Connection, FeedHoles, Multifeed, PeerEvent, Replicate, Storage};
use multifeed_proto::{Config, Role};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Two stores on one thread, joined by their sessions' bytes.
pub(super) struct Link {
    ends: [Connection; 2],
    ended: [bool; 2],
    over: [bool; 2],
    failures: Vec<String>,
    /// What neither had, as each side tells it.
    holes: Vec<(usize, FeedHoles)>,
}

impl Link {
    pub(super) fn new<A: Storage, B: Storage>(
        a: &mut Multifeed<A>,
        b: &mut Multifeed<B>,
        now: Duration,
        seed: u64,
    ) -> Link {
        let mut rng = StdRng::seed_from_u64(seed);
        let options = Replicate::default();
        let first = Connection::new(a, Role::Initiator, Config::default(), options.clone(), now, &mut rng);
        let second = Connection::new(b, Role::Responder, Config::default(), options, now, &mut rng);
        Link { ends: [first, second], ended: [false; 2], over: [false; 2], failures: Vec::new(), holes: Vec::new() }
    }

    /// Moves bytes until nothing moves, or for so many turns. Whether anything moved in the last of them.
    pub(super) fn run<A: Storage, B: Storage>(
        &mut self,
        a: &mut Multifeed<A>,
        b: &mut Multifeed<B>,
        now: Duration,
        turns: usize,
    ) -> Result<bool> {
        for turn in 0..turns {
            ensure!(turn < 100_000, "it never comes to rest");
            let moved = self.side(0, a, now) | self.side(1, b, now);
            let carried = self.carry(0, a, b, now) | self.carry(1, a, b, now);
            if !(moved || carried) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn side<S: Storage>(&mut self, side: usize, store: &mut Multifeed<S>, now: Duration) -> bool {
        let end = &mut self.ends[side];
        let mut moved = end.pump(store, now);
        while let Some(event) = end.poll_event(store) {
            match event {
                PeerEvent::Progress(_) => continue,
                PeerEvent::Closed(Ok(totals)) => {
                    self.over[side] = true;
                    self.holes.extend(totals.holes.into_iter().map(|holes| (side, holes)));
                }
                PeerEvent::Closed(Err(error)) => self.failures.push(format!("side {side}: {error}")),
                PeerEvent::Conflict { key, .. } => self.failures.push(format!("side {side}: two histories of {key}")),
                _ => {}
            }
            moved = true;
        }
        moved
    }

    fn carry<A: Storage, B: Storage>(
        &mut self,
        from: usize,
        a: &mut Multifeed<A>,
        b: &mut Multifeed<B>,
        now: Duration,
    ) -> bool {
        let mut wire = bytes::BytesMut::new();
        while self.ends[from].session().poll_output(&mut wire) {}
        let over = self.ends[from].session().output_finished();
        let to = 1 - from;
        let mut moved = false;
        if !wire.is_empty()
            && let Some(buffer) = self.ends[to].session().recv_buf()
        {
            moved = true;
            buffer.extend_from_slice(&wire);
            match to {
                0 => self.ends[0].handle_input(a, now),
                _ => self.ends[1].handle_input(b, now),
            }
        }
        if over && !std::mem::replace(&mut self.ended[from], true) {
            moved = true;
            self.ends[to].session().handle_eof();
        }
        moved
    }

    /// Both sides came to the end, and lack nothing but blocks of feeds that the first one blocks, as nobody else has them.
    pub(super) fn ended_well<A: Storage>(&self, a: &Multifeed<A>) -> Result<()> {
        ensure!(self.failures.is_empty(), "{}", self.failures.join("; "));
        for (side, holes) in &self.holes {
            ensure!(a.is_banned(&holes.key), "side {side} has holes: {holes:?}");
        }
        ensure!(self.over == [true; 2], "the session did not end");
        Ok(())
    }

    pub(super) fn part<A: Storage, B: Storage>(self, a: &mut Multifeed<A>, b: &mut Multifeed<B>) {
        let [first, second] = self.ends;
        first.close(a);
        second.close(b);
        a.commit(Duration::ZERO);
        b.commit(Duration::ZERO);
    }
}
