//! What one caller waits for: `get` in order, `get` at random, and single appends, through the handles of multifeed-tokio.
//!
//! `cargo run --release -p multifeed-benches --bin calls` prints the mean of each in microseconds, ours beside hypercore's own in node, both on disk,
//! in turn, and the median of the rounds' ratios.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use multifeed_testkit::js;
use multifeed_tokio::{Multifeed, Options};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

/// What one caller waits for, in microseconds.
#[derive(Parser)]
struct Args {
    /// Rounds: in each, JS and Rust once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Blocks that are written, and read, in a round.
    #[arg(long, default_value_t = 20_000)]
    blocks: u64,
    /// Ours alone, without JS.
    #[arg(long)]
    alone: bool,
}

/// The mean time of a call, in microseconds.
struct Calls([f64; 3]);

const NAMES: [&str; 3] = ["single `append`, 100 B", "`get` in order", "`get` at random"];

fn main() -> Result<()> {
    let args = Args::parse();
    let mut rounds = Vec::new();
    for round in 0..=args.rounds {
        let js = if args.alone { None } else { Some(in_js(args.blocks)?) };
        let rust = tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(in_rust(args.blocks))?;
        // The first is for the caches.
        if round > 0 {
            rounds.push((js, rust));
        }
    }
    println!("| one caller, µs a call | JS | Rust | times as fast |");
    println!("|---|---|---|---|");
    for (at, name) in NAMES.iter().enumerate() {
        let rust = median(rounds.iter().map(|(_, rust)| rust.0[at]));
        let js: Vec<(f64, f64)> =
            rounds.iter().filter_map(|(js, rust)| Some((js.as_ref()?.0[at], rust.0[at]))).collect();
        if js.is_empty() {
            println!("| {name} | | {rust:.1} | |");
        } else {
            let times = median(js.iter().map(|(js, rust)| js / rust));
            println!("| {name} | {:.1} | {rust:.1} | {times:.1} |", median(js.iter().map(|(js, _)| *js)));
        }
    }
    Ok(())
}

async fn in_rust(blocks: u64) -> Result<Calls> {
    let folder = tempfile::tempdir()?;
    let multi = Multifeed::open(folder.path(), Options::default()).await?;
    let feed = multi.writer("writer").await?;
    let start = Instant::now();
    for index in 0..blocks {
        feed.append([index as u8; 100]).await?;
    }
    let append = start.elapsed();
    let start = Instant::now();
    for index in 0..blocks {
        let block = feed.get(index).await?.context("a block")?;
        ensure!(block[0] == index as u8);
    }
    let in_order = start.elapsed();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let start = Instant::now();
    for _ in 0..blocks {
        let index = rng.random_range(0..blocks);
        let block = feed.get(index).await?.context("a block")?;
        ensure!(block[0] == index as u8);
    }
    let at_random = start.elapsed();
    multi.close().await?;
    Ok(Calls([append, in_order, at_random].map(|time| time.as_secs_f64() * 1e6 / blocks as f64)))
}

fn in_js(blocks: u64) -> Result<Calls> {
    js::install()?;
    let folder = tempfile::tempdir()?;
    let output = Command::new("node")
        .arg(js::interop_dir().join("bench.js"))
        .args(["calls".as_ref(), folder.path().as_os_str(), blocks.to_string().as_ref()])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "bench.js failed: {}", output.status);
    let done: Value = serde_json::from_slice(&output.stdout)?;
    let time = |name: &str| done[name].as_f64().with_context(|| format!("`{name}` of bench.js"));
    Ok(Calls([time("append")?, time("in_order")?, time("at_random")?]))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
