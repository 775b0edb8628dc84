//! `serve` among peers with the root key that ask for large blocks and read none: what they cost, and whether others are served.

mod common;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use common::Store;
use multifeed_testkit::blocks::blocks;
use multifeed_testkit::strangers::{StuckReader, resident};
use multifeed_tokio::DEFAULT_ROOT_KEY;

const LARGE: usize = 8 * 1024 * 1024 - 10_000;

#[test]
fn readers_that_are_stuck_share_one_budget_and_others_are_served() -> Result<()> {
    let store = Store::new()?;
    store.append("large", &blocks(2, LARGE, 1))?;
    let facts = store.facts()?;
    let (server, address) = store.serve(&["--live"])?;
    let before = resident(server.id())?;
    let readers = (0..120).map(|_| StuckReader::connect(None, address, DEFAULT_ROOT_KEY, 0..2));
    let readers = readers.collect::<Result<Vec<_>>>()?;
    let mut most = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        most = most.max(resident(server.id())?.saturating_sub(before));
        sleep(Duration::from_millis(50));
    }
    println!("120 readers cost {most} bytes");
    ensure!(most < 100_000_000, "120 readers cost {most} bytes");

    let other = Store::new()?;
    let start = Instant::now();
    let events = other.sync(address, &[])?.ended(0)?;
    println!("an honest peer took {:?}", start.elapsed());
    ensure!(events.iter().any(|event| event["event"] == "closed" && event["in_sync"] == true), "{events:?}");
    ensure!(other.facts()? == facts);
    drop(readers);
    server.signal("INT")?;
    server.ended(0)?;
    Ok(())
}
