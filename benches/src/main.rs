//! Whole processes side by side: multifeed for Rust and npm's multifeed 6, in turn, in one run.
//!
//! `cargo run --release -p multifeed-benches` pulls the same folder over loopback TCP, disk to disk, with a Rust pair and with a JS
//! pair, one after the other for each round. It prints medians and the median of the rounds' ratios. Only ratios carry over
//! to another machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use multifeed_benches::processes::{Server, build_command, text};
use multifeed_testkit::js;
use serde_json::Value;
use tempfile::TempDir;

/// Syncs measured against JS, whole processes, disk to disk.
#[derive(Parser)]
struct Args {
    /// Rounds of each workload: in each, JS and Rust once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Workloads to run, by name; all by default.
    workloads: Vec<String>,
}

/// A store to pull: what it holds, and how much faster than JS it must move at least.
struct Workload {
    name: &'static str,
    feeds: u32,
    blocks: u32,
    size: u32,
    target: f64,
}

const WORKLOADS: &[Workload] = &[
    Workload { name: "small", feeds: 1, blocks: 20_000, size: 100, target: 10.0 },
    Workload { name: "large", feeds: 1, blocks: 1_024, size: 64 << 10, target: 2.5 },
    Workload { name: "feeds", feeds: 200, blocks: 10, size: 100, target: 1.0 },
];

fn main() -> Result<()> {
    let args = Args::parse();
    js::install()?;
    let bench = Bench { binary: build_command()?, script: js::interop_dir().join("bench.js") };
    println!("| workload | JS, s | Rust, s | times as fast | wanted |");
    println!("|---|---|---|---|---|");
    for workload in WORKLOADS {
        if args.workloads.is_empty() || args.workloads.iter().any(|name| name == workload.name) {
            bench.run(workload, args.rounds)?;
        }
    }
    Ok(())
}

struct Bench {
    binary: PathBuf,
    script: PathBuf,
}

impl Bench {
    fn run(&self, workload: &Workload, rounds: usize) -> Result<()> {
        let Workload { name, feeds, blocks, size, target } = workload;
        let source = tempfile::tempdir()?;
        let make = ["make".to_owned(), text(source.path()), feeds.to_string(), blocks.to_string(), size.to_string()];
        let made = self.js().args(make).stdout(Stdio::null()).status()?;
        ensure!(made.success(), "the JS maker failed: {made}");
        // A round for the caches, not counted.
        self.pull_js(source.path())?;
        self.pull_rust(source.path(), workload)?;
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push((self.pull_js(source.path())?, self.pull_rust(source.path(), workload)?));
        }
        let js = median(times.iter().map(|(js, _)| js.as_secs_f64()));
        let rust = median(times.iter().map(|(_, rust)| rust.as_secs_f64()));
        let ratio = median(times.iter().map(|(js, rust)| js.as_secs_f64() / rust.as_secs_f64()));
        println!("| {name}: {feeds} × {blocks} × {size} B | {js:.3} | {rust:.3} | {ratio:.1} | {target} |");
        Ok(())
    }

    /// The whole life of the pulling process, against a server that listens already.
    fn pull_js(&self, source: &Path) -> Result<Duration> {
        let target = tempfile::tempdir()?;
        let mut server = Server::spawn(self.js().args(["serve".to_owned(), text(source)]))?;
        let start = Instant::now();
        let pulled = self
            .js()
            .args(["pull".to_owned(), text(target.path()), server.address().to_owned()])
            .stdout(Stdio::null())
            .status()?;
        let time = start.elapsed();
        ensure!(pulled.success(), "the JS puller failed: {pulled}");
        server.end()?;
        Ok(time)
    }

    fn pull_rust(&self, source: &Path, workload: &Workload) -> Result<Duration> {
        let target = tempfile::tempdir()?;
        let mut server = Server::spawn(self.rust(source).args(["serve", "127.0.0.1:0", "--once"]))?;
        let start = Instant::now();
        let pulled = self.rust(target.path()).args(["sync", server.address()]).stdout(Stdio::null()).status()?;
        let time = start.elapsed();
        ensure!(pulled.success(), "multifeed sync failed: {pulled}");
        server.end()?;
        self.check(&target, workload)?;
        Ok(time)
    }

    /// Everything arrived: a fast sync of nothing would be no figure.
    fn check(&self, target: &TempDir, workload: &Workload) -> Result<()> {
        let listed = self.rust(target.path()).arg("feeds").output()?;
        let feeds: Vec<Value> = listed
            .stdout
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(serde_json::from_slice)
            .collect::<Result<_, _>>()?;
        let blocks: u64 = feeds.iter().filter_map(|feed| feed["downloaded"].as_u64()).sum();
        ensure!(blocks == u64::from(workload.feeds) * u64::from(workload.blocks), "{blocks} blocks arrived");
        Ok(())
    }

    fn js(&self) -> Command {
        let mut command = Command::new("node");
        command.arg(&self.script);
        command
    }

    fn rust(&self, store: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--json").arg("--store").arg(store);
        command
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
