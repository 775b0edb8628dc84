//! `serve` among peers with the root key that hold what large messages need: what they cost, and whether others get on.

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use common::Store;
use multifeed_testkit::blocks::blocks;
use multifeed_testkit::strangers::{Hoarder, StuckReader, resident};
use multifeed_tokio::DEFAULT_ROOT_KEY;

const LARGE: usize = 8 * 1024 * 1024 - 10_000;
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A message that is begun, and held: by so many peers of the same address as an honest one, or of another.
fn an_honest_upload_beside(holders: usize, from: Option<IpAddr>) -> Result<()> {
    let [store, honest] = [Store::new()?, Store::new()?];
    honest.append("honest", &blocks(3, 2_000_000, 9))?;
    let (server, address) = store.serve(&["--live"])?;
    let before = resident(server.id())?;
    let connect = |_| thread::spawn(move || Hoarder::connect_from(from, address, Some(DEFAULT_ROOT_KEY), LARGE, 10));
    let threads: Vec<_> = (0..holders).map(connect).collect();
    let holders = threads.into_iter().filter_map(|thread| thread.join().ok());
    let holders = holders.collect::<Result<Vec<_>>>()?;
    let cost = resident(server.id())?.saturating_sub(before);
    let start = Instant::now();
    let events = honest.sync(address, &[])?.ended(0)?;
    println!("{} holders of {from:?} cost {cost} bytes; an honest upload took {:?}", holders.len(), start.elapsed());
    ensure!(cost < 110_000_000, "{cost} bytes");
    ensure!(events.iter().any(|event| event["event"] == "closed" && event["in_sync"] == true), "{events:?}");
    drop(holders);
    server.signal("INT")?;
    server.ended(0)?;
    ensure!(store.facts()?.iter().any(|feed| feed.downloaded == 3), "it said that it was in sync, and was not");
    Ok(())
}

#[test]
fn an_honest_upload_goes_on_beside_holders_of_another_address() -> Result<()> {
    an_honest_upload_beside(20, Some(OTHER))?;
    an_honest_upload_beside(60, Some(OTHER))
}

#[test]
fn an_honest_upload_goes_on_beside_holders_of_its_address() -> Result<()> {
    an_honest_upload_beside(20, None)?;
    an_honest_upload_beside(60, None)
}

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
