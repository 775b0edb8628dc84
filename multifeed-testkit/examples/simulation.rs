//! Runs seeds of the simulation: `cargo run --release -p multifeed-testkit --example simulation -- FIRST COUNT`.
#![allow(missing_docs)]

use std::process::ExitCode;
use std::time::Instant;

use multifeed_testkit::simulation::{Report, run};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().ok());
    let (Some(Some(first)), Some(Some(count))) = (args.next(), args.next()) else {
        eprintln!("simulation FIRST COUNT");
        return ExitCode::from(2);
    };
    let start = Instant::now();
    let (mut failed, mut total) = (0, Report::default());
    for seed in first..first + count {
        match run(seed) {
            Ok(report) => {
                total.feeds += report.feeds;
                total.blocks += report.blocks;
                total.streams += report.streams;
                total.ended += report.ended;
                total.broken += report.broken;
                total.crashes += report.crashes;
                total.disk_faults += report.disk_faults;
                total.partitions += report.partitions;
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
