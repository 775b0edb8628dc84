//! One store for many peers at once: what serving it takes of the processor.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use multifeed_benches::processes::{Server, text};
use multifeed_benches::watch::Peak;
use tempfile::TempDir;

use crate::{Bench, Kind, Workload, median};

/// The store that all of them pull.
pub(crate) const STORE: Workload = Workload { name: "peers", feeds: 1, blocks: 1_024, size: 64 << 10, both: false };
/// Peers in all, and at the same time. All are ours: they take the least of the machine.
const PEERS: usize = 50;
const AT_ONCE: usize = 10;

/// What serving took: seconds of the processor a peer, seconds in all, and the peak memory in bytes.
type Took = (f64, f64, u64);

impl Bench {
    pub(crate) fn serve_many(&self, rounds: usize) -> Result<()> {
        let source = self.make(&STORE)?;
        let mut took = Vec::new();
        for _ in 0..rounds {
            took.push([Kind::Js, Kind::Rust].map(|kind| self.serve_to_all(source.path(), kind)));
        }
        let took: Vec<[Took; 2]> =
            took.into_iter().map(|[js, rust]| Ok::<_, anyhow::Error>([js?, rust?])).collect::<Result<_>>()?;
        println!(
            "\n**peers**: {PEERS} of ours, {AT_ONCE} at a time, pull {} × {} B from one process\n",
            STORE.blocks, STORE.size
        );
        println!("| serves | processor a peer, s | all of it, s | peak, MB | processor, times less |");
        println!("|---|---|---|---|---|");
        for (at, kind) in [Kind::Js, Kind::Rust].into_iter().enumerate() {
            let of = |value: &dyn Fn(&Took) -> f64| median(took.iter().map(|round| value(&round[at])));
            println!(
                "| {} | {:.4} | {:.2} | {:.0} | {:.1} |",
                kind.name(),
                of(&|took| took.0),
                of(&|took| took.1),
                of(&|took| took.2 as f64 / 1e6),
                median(took.iter().map(|round| round[0].0 / round[at].0)),
            );
        }
        Ok(())
    }

    fn serve_to_all(&self, source: &Path, kind: Kind) -> Result<Took> {
        let mut serve = match kind {
            Kind::Js => self.js(),
            Kind::Rust => self.rust(source),
        };
        match kind {
            Kind::Js => serve.args(["host".to_owned(), text(source)]),
            Kind::Rust => serve.args(["serve", "127.0.0.1:0"]),
        };
        let server = Server::spawn(&mut serve)?;
        let (before, start) = (busy(server.id())?, Instant::now());
        let mut peak = Peak::default();
        for _ in 0..PEERS / AT_ONCE {
            let pull = |_| -> Result<(TempDir, Child)> {
                let target = self.store()?;
                let mut pull = self.rust(target.path());
                let child = pull.args(["sync", server.address()]).stdout(Stdio::null()).spawn()?;
                Ok((target, child))
            };
            let pulls = (0..AT_ONCE).map(pull).collect::<Result<Vec<_>>>()?;
            for (target, mut child) in pulls {
                anyhow::ensure!(child.wait()?.success(), "a peer failed");
                self.check(target.path(), &STORE)?;
            }
            peak.look(server.id());
        }
        Ok(((busy(server.id())? - before) / PEERS as f64, start.elapsed().as_secs_f64(), peak.bytes))
    }
}

/// Seconds of the processor that a process has had.
fn busy(process: u32) -> Result<f64> {
    const HERTZ: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name before that may have spaces.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).context("no times in stat");
    Ok((ticks(11)? + ticks(12)?) / HERTZ)
}
