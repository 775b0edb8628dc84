//! Opening a store of many feeds: one that JS made, and one that ours closed.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Result, ensure};
use multifeed_benches::processes::text;
use multifeed_benches::watch::report;

use crate::{Bench, Workload, children, copy, median};

/// The store that is opened.
pub(crate) const STORE: Workload = Workload { name: "opening", feeds: 1_000, blocks: 3, size: 100, both: false };

/// Openings that were measured: what they took, and the processor's time of the whole process, both in seconds.
type Took = [(f64, f64); 3];

impl Bench {
    pub(crate) fn open_many(&self, rounds: usize) -> Result<()> {
        let source = self.make(&STORE)?;
        let mut took: Vec<Took> = Vec::new();
        for round in 0..=rounds {
            let before = children()?;
            let opened = report(self.js().args(["open".to_owned(), text(source.path())]))?;
            let js = (opened["seconds"].as_f64().unwrap_or_default(), (children()? - before).as_secs_f64());
            // What opens a store to write makes a journal: each time a copy that has none is opened, then one that an append left.
            let target = self.store()?;
            copy(source.path(), target.path())?;
            let first = self.open(target.path(), STORE.feeds)?;
            let append = self.rust(target.path()).args(["append", "own", "block"]).stdout(Stdio::null()).status()?;
            ensure!(append.success(), "the append failed: {append}");
            let again = self.open(target.path(), STORE.feeds + 1)?;
            // A round for the caches, not counted.
            took.extend((round > 0).then_some([js, first, again]));
        }
        println!("\n**opening**: {} feeds × {} × {} B\n", STORE.feeds, STORE.blocks, STORE.size);
        println!("| opens | s | processor, s | times as fast | processor, times less |");
        println!("|---|---|---|---|---|");
        for (at, name) in ["JS, until it is ready", "Rust: made by JS", "Rust: closed by ours"].into_iter().enumerate()
        {
            println!(
                "| {name} | {:.4} | {:.4} | {:.1} | {:.1} |",
                median(took.iter().map(|round| round[at].0)),
                median(took.iter().map(|round| round[at].1)),
                median(took.iter().map(|round| round[0].0 / round[at].0)),
                median(took.iter().map(|round| round[0].1 / round[at].1)),
            );
        }
        Ok(())
    }

    /// The whole life of a process that lists the feeds with their lengths.
    fn open(&self, store: &std::path::Path, feeds: u64) -> Result<(f64, f64)> {
        let (before, start) = (children()?, Instant::now());
        let listed = self.rust(store).arg("feeds").stderr(Stdio::null()).output()?;
        let took = (start.elapsed().as_secs_f64(), (children()? - before).as_secs_f64());
        let lines = listed.stdout.iter().filter(|byte| **byte == b'\n').count() as u64;
        ensure!(lines == feeds, "{lines} feeds were listed");
        Ok(took)
    }
}
