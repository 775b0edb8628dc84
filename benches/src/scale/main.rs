//! What feeds and blocks cost as they become many: time, memory and open files of whole processes.
//!
//! `cargo run --release -p multifeed-benches --bin scale -- feeds` makes stores of more and more feeds, opens and syncs them, and writes
//! the table and the plot of docs/scale.md; `… -- long` does so with one long feed, `… -- claims` measures
//! feeds that are long by claim alone, `… -- syncs` tells what a sync costs that finds little to do, and `… -- crowd` lets many peers
//! of one process come and go. Each other measured process is one of its own, and its
//! memory is the highest that its kernel saw (`VmHWM`). Linux only.

mod claims;
mod crowd;
mod feeds;
mod long;
mod plot;
mod roles;
mod syncs;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stores of many feeds: opened, pulled whole, pulled again.
    Feeds(feeds::Feeds),
    /// Feeds that sign a great length and have one block, beside as many ordinary ones.
    Claims(claims::Claims),
    /// One feed of many blocks: appended, opened, read, pulled.
    Long(long::Long),
    /// Stores that differ in few of many feeds: what finding that out costs, with reconciliation and by full key lists.
    Syncs(syncs::Syncs),
    /// Many networkers whose peers come and go: what they hold together, and what is left of them.
    Crowd(crowd::Crowd),
    /// What one measured process does.
    #[command(subcommand, hide = true)]
    Role(roles::Role),
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Feeds(feeds) => feeds.run(),
        Command::Claims(claims) => claims.run(),
        Command::Long(long) => long.run(),
        Command::Syncs(syncs) => syncs.run(),
        Command::Crowd(crowd) => crowd.run(),
        Command::Role(role) => role.run(),
    }
}
