//! Runs seeds of the simulation: `cargo run --release -p multifeed-testkit --example simulation -- FIRST COUNT [slow] [received] [delivered] [missing]`.
//!
//! `slow` adds slow and late links. The others hold what sessions report against what both stores hold: that all was received, that
//! all was delivered, and what is missing at the remote.
#![allow(missing_docs)]

use std::process::ExitCode;
use std::time::Instant;

use multifeed_testkit::simulation::{Report, Setup, run_with};

const USAGE: &str = "simulation FIRST COUNT [slow] [received] [delivered] [missing]";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<u64>().ok());
    let (Some(first), Some(count)) = (number(0), number(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut setup = Setup::default();
    for arg in &args[2..] {
        match arg.as_str() {
            "slow" => setup.slow_links = true,
            "received" => setup.claims.received = true,
            "delivered" => setup.claims.delivered = true,
            "missing" => setup.claims.missing = true,
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let start = Instant::now();
    let (mut failed, mut total) = (0, Report::default());
    for seed in first..first + count {
        match run_with(seed, setup) {
            Ok(report) => {
                total.feeds += report.feeds;
                total.blocks += report.blocks;
                total.streams += report.streams;
                total.ended += report.ended;
                total.broken += report.broken;
                total.crashes += report.crashes;
                total.disk_faults += report.disk_faults;
                total.partitions += report.partitions;
                total.claims += report.claims;
            }
            Err(error) => {
                failed += 1;
                println!("{error:#}");
            }
        }
    }
    println!("{count} seeds from {first} in {:?}: {failed} failed; {total:?}", start.elapsed());
    ExitCode::from(u8::from(failed > 0))
}
