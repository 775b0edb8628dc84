//! Whole processes side by side: multifeed for Rust and npm's multifeed 6, in turn, in one run.
//!
//! `cargo run --release -p multifeed-benches` pulls the same folder over loopback TCP, disk to disk, with a Rust pair and with a JS
//! pair, one after the other for each round, and prints medians and the median of the rounds' ratios. Only ratios carry over
//! to another machine.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
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
    let bench = Bench { binary: build()?, script: js::interop_dir().join("bench.js") };
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
        let make = ["make".to_owned(), path(source.path()), feeds.to_string(), blocks.to_string(), size.to_string()];
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
        let mut server = Server::spawn(self.js().args(["serve".to_owned(), path(source)]))?;
        let start = Instant::now();
        let pulled = self
            .js()
            .args(["pull".to_owned(), path(target.path()), server.address.clone()])
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
        let pulled = self.rust(target.path()).args(["sync", &server.address]).stdout(Stdio::null()).status()?;
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

/// A process that told the address it listens on.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        while stdout.read_line(&mut line)? > 0 {
            let event: Value = serde_json::from_str(&line)?;
            if event["event"] == "listening" {
                let address = event["address"].as_str().context("no address")?.to_owned();
                // What it prints from here on is nobody's business, but must not fill its pipe.
                std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
                return Ok(Self { child, address });
            }
            line.clear();
        }
        bail!("the server ended before it listened: {}", child.wait()?);
    }

    fn end(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "the server failed: {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds the command as its users do, and gives its path.
fn build() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "-p", "multifeed-cli", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the build failed");
    let mut messages =
        output.stdout.rsplit(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let executable = messages.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.context("cargo named no executable")
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
