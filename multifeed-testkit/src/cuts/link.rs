//! Two stores and what joins them.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use multifeed_core::{Multifeed, PeerEvent, Replicate, SetId, Storage};
use multifeed_proto::Config;

/// The pair of core's own tests.
#[path = "../../../multifeed-core/tests/common/link.rs"]
mod pair;

/// Two stores on one thread, joined by their sessions' bytes.
pub(super) struct Link(pair::Link);

impl Link {
    pub(super) fn new<A: Storage, B: Storage>(
        a: &mut Multifeed<A>,
        set: SetId,
        b: &mut Multifeed<B>,
        now: Duration,
        seed: u64,
    ) -> Link {
        let options = [Replicate { set, ..Replicate::default() }, Replicate::default()];
        let configs = [(); 2].map(|()| Config::default());
        Link(pair::Link::with(a, b, options, configs, now, seed))
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
            if !self.0.turn_between(a, b, now) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Both sides came to the end, and lack nothing but blocks of feeds that the first one blocks, as nobody else has them.
    pub(super) fn ended_well<A: Storage>(&self, a: &Multifeed<A>) -> Result<()> {
        for (side, events) in self.0.events.iter().enumerate() {
            let mut over = false;
            for event in events {
                match event {
                    PeerEvent::Closed(Ok(totals)) => {
                        over = true;
                        let holes = totals.holes.iter().find(|holes| !a.is_banned(&holes.key));
                        ensure!(holes.is_none(), "side {side} has holes: {holes:?}");
                    }
                    PeerEvent::Closed(Err(error)) => bail!("side {side}: {error}"),
                    PeerEvent::Conflict { key, .. } => bail!("side {side}: two histories of {key}"),
                    _ => {}
                }
            }
            ensure!(over, "the session of side {side} did not end");
        }
        Ok(())
    }

    pub(super) fn part<A: Storage, B: Storage>(self, a: &mut Multifeed<A>, b: &mut Multifeed<B>) {
        self.0.close(a, b);
    }
}
