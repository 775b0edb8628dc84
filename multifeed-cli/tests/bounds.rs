//! What peers may bring to a server, and what a full disk stops there.

use crate::common;

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::{Running, Store, failure_of};
use multifeed_testkit::js::JsPeer;

fn blocks(count: usize, size: usize) -> Vec<Vec<u8>> {
    (0..count).map(|block| vec![block as u8; size]).collect()
}

/// A sync ends with so many feeds that the peer did not take all of, and says so: nobody takes it for one that is in sync.
fn not_taken(sync: Running, feeds: u64) -> Result<()> {
    let events = sync.ended(3)?;
    let closed = events.iter().find(|event| event["event"] == "closed").context("no end")?;
    ensure!(closed["not_taken"] == feeds && closed["in_sync"] == false, "{closed}");
    let last = events.last().context("no events")?;
    ensure!(failure_of(last)?.0 == "ERR_NOT_TAKEN", "{last}");
    Ok(())
}

/// A JS application may choose what it wants; what it has of that is in sync.
#[test]
fn what_a_js_application_does_not_want_is_reported() -> Result<()> {
    let ours = Store::new()?;
    let wanted = ours.append("wanted", &blocks(3, 10))?;
    ours.append("unwanted", &blocks(3, 10))?;
    for (key, feeds) in [(Some(wanted), 1), (None, 0)] {
        let options: Vec<&str> = key.iter().flat_map(|key| ["--want", key]).collect();
        let (_js, address) = JsPeer::listen(&options)?;
        let sync = ours.sync(address, &[])?;
        if feeds > 0 {
            not_taken(sync, feeds)?
        } else {
            drop(sync.ended(0)?)
        }
        // The one peer of a server is no other.
        let (server, address) = ours.serve(&["--once"])?;
        let mut js = JsPeer::spawn(&options)?;
        js.connect(address)?;
        if feeds > 0 { not_taken(server, feeds)? } else { drop(server.ended(0)?) }
    }
    Ok(())
}

#[test]
fn a_peer_brings_as_many_feeds_and_bytes_as_it_may() -> Result<()> {
    let [server, brings_feeds, brings_bytes] = [Store::new()?, Store::new()?, Store::new()?];
    server.append("ours", &blocks(3, 10))?;
    for feed in 0..5 {
        brings_feeds.append(&format!("w{feed}"), &blocks(1, 10))?;
    }
    let bounds = ["--max-feeds-per-peer", "3", "--max-bytes-per-peer", "200KB"];
    let (mut running, address) = server.serve(&bounds)?;
    // Each time it comes it is served, and brings no more than it may in all.
    for _ in 0..3 {
        not_taken(brings_feeds.sync(address, &[])?, 2)?;
        let told = running.event("limit-reached")?;
        ensure!(told["message"].as_str().is_some_and(|text| text.contains("--max-feeds-per-peer")), "{told}");
    }
    running.kill()?;
    ensure!(server.facts()?.len() == 4 && brings_feeds.facts()?.len() == 6);

    // What is here already goes on, up to the bytes.
    let (mut running, address) = server.serve(&bounds)?;
    brings_bytes.append("big", &blocks(40, 10_000))?;
    not_taken(brings_bytes.sync(address, &[])?, 1)?;
    let told = running.event("limit-reached")?;
    ensure!(told["message"].as_str().is_some_and(|text| text.contains("--max-bytes-per-peer")), "{told}");
    not_taken(brings_bytes.sync(address, &[])?, 1)?;
    running.kill()?;
    let bytes: u64 =
        server.facts()?.iter().map(|feed| feed.downloaded * if feed.length == 40 { 10_000 } else { 0 }).sum();
    ensure!(bytes == 200_000, "{bytes} bytes came");
    Ok(())
}

#[test]
fn a_disk_that_is_to_be_kept_free_takes_nothing_and_serves() -> Result<()> {
    let [server, peer] = [Store::new()?, Store::new()?];
    server.append("ours", &blocks(3, 10))?;
    peer.append("theirs", &blocks(3, 10))?;
    let (mut running, address) = server.serve(&["--keep-free", "1000PB"])?;
    not_taken(peer.sync(address, &[])?, 1)?;
    let told = running.event("disk-full")?;
    ensure!(told["message"].as_str().is_some_and(|text| text.contains("free")), "{told}");
    running.kill()?;
    ensure!(server.facts()?.len() == 1 && peer.facts()?.len() == 2);
    Ok(())
}

/// A server on a disk of its own, 6 MB large, which grows when it is sent a line. None if this machine lets nobody make one.
#[cfg(target_os = "linux")]
fn serve_on_a_small_disk(folder: &Store, keep_free: &str) -> Result<Option<(Running, SocketAddr)>> {
    let script = r#"mount -t tmpfs -o size=6m none "$0" || exit 77
        "$1" --store "$0/s" append ours one two three > /dev/null || exit 78
        "$1" --json --store "$0/s" serve 127.0.0.1:0 --live --keep-free "$2" & read line
        mount -o remount,size=200m "$0"; wait"#;
    let unshare = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"];
    if !Command::new("unshare").args(unshare).arg("true").output().is_ok_and(|done| done.status.success()) {
        return Ok(None);
    }
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", script, folder.text(), env!("CARGO_BIN_EXE_multifeed"), keep_free]);
    let mut running = Running::start_command(command)?;
    let address = running.event("listening")?["address"].as_str().context("no address")?.parse()?;
    Ok(Some((running, address)))
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_whose_disk_is_full_serves_and_goes_on_when_there_is_room() -> Result<()> {
    for keep_free in ["0", "2MB"] {
        let [disk, brings, reads] = [Store::new()?, Store::new()?, Store::new()?];
        let Some((mut server, address)) = serve_on_a_small_disk(&disk, keep_free)? else {
            eprintln!("no disk can be made here");
            return Ok(());
        };
        brings.append("big", &blocks(200, 60_000))?;
        for feed in 0..20 {
            brings.append(&format!("w{feed}"), &blocks(1, 1000))?;
        }
        let bringing = brings.sync(address, &["--live"])?;
        let told = server.event("disk-full")?;
        ensure!(told["message"].as_str().is_some_and(|text| text.contains("free")), "{told}");
        // It serves what it has.
        reads.sync(address, &[])?.ended(0)?;
        ensure!(reads.facts()?.iter().any(|feed| feed.length == 3 && feed.downloaded == 3), "{:?}", reads.facts()?);
        // There is room again: the session that was there before brings the rest.
        writeln!(server.take_input().context("no stdin")?)?;
        server.event("space-freed")?;
        server.received(220)?;
        bringing.kill()?;
        reads.sync(address, &[])?.ended(0)?;
        server.kill()?;
        let all: Vec<u64> = reads.facts()?.iter().map(|feed| feed.downloaded).collect();
        ensure!(all.len() == 22 && all.iter().sum::<u64>() == 223, "{all:?}");
    }
    Ok(())
}
