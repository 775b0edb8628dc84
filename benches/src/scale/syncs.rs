//! What a sync costs that finds little to do: messages, bytes and time, with reconciliation and without.
//!
//! Two stores in memory are joined by the bytes of their sessions. Messages and bytes are exact, both directions together; only the time
//! is this machine's.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use clap::Args;
use multifeed_core::{
    Connection, KeyPair, Limits, MemoryStorage, Multifeed, Options, PeerEvent, Replicate, SyncTotals,
};
use multifeed_proto::{Config, Role};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::plot;

#[derive(Args)]
pub(crate) struct Syncs {
    /// Feeds in each store.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000, 100_000])]
    feeds: Vec<usize>,
    /// Feeds with a block more on one side.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 10, 1_000])]
    differing: Vec<usize>,
    /// Both sides observe the session: they want to know what the remote has of every feed, and what is missing.
    #[arg(long)]
    observed: bool,
    /// A folder for the plot; by default none is made.
    #[arg(long)]
    plots: Option<PathBuf>,
}

type Store = Multifeed<MemoryStorage>;

/// One line of the table.
pub(crate) struct Row {
    pub(crate) feeds: usize,
    pub(crate) differing: usize,
    pub(crate) reconcile: bool,
    pub(crate) bytes: u64,
}

impl Syncs {
    pub(crate) fn run(self) -> Result<()> {
        println!("| feeds | differing | exchange | messages | bytes | time, ms |");
        println!("|---|---|---|---|---|---|");
        let mut rows = Vec::new();
        for &feeds in &self.feeds {
            let mut limits = Limits::default();
            limits.feeds = feeds.max(limits.feeds);
            limits.feeds_offered = feeds.max(limits.feeds_offered);
            let mut stores = [(); 2].map(|()| {
                let options = Options { limits: limits.clone(), ..Options::default() };
                Multifeed::open(MemoryStorage::new(), options)
            });
            let [Ok(from), Ok(to)] = &mut stores else { bail!("a store in memory does not open") };
            for number in 0..feeds {
                let id = from.writer(Some(&format!("writer {number}")), || key_pair(number))?;
                from.append(id, &[Bytes::from_static(b"a block")])?;
            }
            sync(from, to, false, false)?;
            for reconcile in [true, false] {
                for &differing in self.differing.iter().filter(|&&differing| differing <= feeds) {
                    for number in 0..differing {
                        let id =
                            from.find(&key_pair(number * feeds / differing).public_key()).context("a feed is gone")?;
                        from.append(id, &[Bytes::from_static(b"another block")])?;
                    }
                    let start = Instant::now();
                    let (messages, bytes, totals) = sync(from, to, reconcile, self.observed)?;
                    let time = start.elapsed();
                    ensure!(totals.blocks_received == differing as u64, "{} blocks came", totals.blocks_received);
                    let exchange = if reconcile { "reconciled" } else { "plain" };
                    let millis = time.as_secs_f64() * 1000.0;
                    println!("| {feeds} | {differing} | {exchange} | {messages} | {bytes} | {millis:.1} |");
                    rows.push(Row { feeds, differing, reconcile, bytes });
                }
            }
        }
        match &self.plots {
            Some(folder) => plot::syncs(folder, &rows),
            None => Ok(()),
        }
    }
}

fn key_pair(number: usize) -> KeyPair {
    let mut seed = [0; 32];
    seed.iter_mut().zip(number.to_le_bytes()).for_each(|(to, byte)| *to = byte);
    KeyPair::from_seed(&seed)
}

/// Syncs the second store with the first: messages and bytes in both directions, and what came.
fn sync(from: &mut Store, to: &mut Store, reconcile: bool, observed: bool) -> Result<(u64, u64, SyncTotals)> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut config = Config::default();
    config.limits.channels = 1 << 20;
    config.limits.manifest_keys = 1 << 20;
    let options = Replicate { reconcile: Some(reconcile), ..Replicate::default() };
    let now = Duration::ZERO;
    let mut ends = [
        Connection::new(from, Role::Initiator, config.clone(), options.clone(), now, &mut rng),
        Connection::new(to, Role::Responder, config, options, now, &mut rng),
    ];
    let mut stores = [from, to];
    for (store, end) in stores.iter_mut().zip(&ends).filter(|_| observed) {
        store.observe(end.peer());
    }
    let mut wires = [BytesMut::new(), BytesMut::new()];
    let mut ended = [false; 2];
    let mut totals = None;
    let mut over = [false; 2];
    while over != [true; 2] {
        let mut moved = false;
        for side in 0..2 {
            moved |= ends[side].pump(stores[side], now);
            if observed {
                stores[side].sync_state(ends[side].peer(), now);
            }
            while let Some(event) = ends[side].poll_event(stores[side]) {
                if let PeerEvent::Closed(result) = event {
                    let result = result?;
                    totals = totals.filter(|_| side == 0).or(Some(result));
                    over[side] = true;
                    moved = true;
                }
            }
            while ends[side].session().poll_output(&mut wires[side]) {}
            let finished = ends[side].session().output_finished();
            let other = 1 - side;
            if let Some(buffer) = ends[other].session().recv_buf()
                && !wires[side].is_empty()
            {
                buffer.unsplit(wires[side].split());
                ends[other].handle_input(stores[other], now);
                moved = true;
            }
            if finished && wires[side].is_empty() && !std::mem::replace(&mut ended[side], true) {
                ends[other].session().handle_eof();
                moved = true;
            }
        }
        ensure!(moved, "the sync does not end");
    }
    let (mut messages, mut bytes) = (0, 0);
    for (end, store) in ends.iter_mut().zip(&mut stores) {
        let stream = end.session().totals();
        messages += stream.messages_out;
        bytes += stream.bytes_out;
        store.disconnect(end.peer());
    }
    Ok((messages, bytes, totals.context("no end")?))
}
