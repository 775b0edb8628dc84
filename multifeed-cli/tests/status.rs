//! What `status` and `watch` show, and how a live sync ends.

#![cfg(unix)]

use crate::common;

use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use common::{Running, Store, failure_of};
use serde_json::{Value, json};

fn status(store: &Store) -> Result<Value> {
    store.run(&["--json", "status"])?.one_object(0)
}

/// Asks until it is so: what a peer told may be on its way.
fn status_until(store: &Store, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let start = std::time::Instant::now();
    loop {
        let now = status(store)?;
        if wanted(&now) {
            return Ok(now);
        }
        ensure!(start.elapsed() < common::TIMEOUT, "it does not come to that: {now:#}");
    }
}

#[test]
fn status_shows_feeds_and_peers_and_what_is_missing_where() -> Result<()> {
    let (store, other) = (Store::new()?, Store::new()?);
    let missing = store.run(&["--json", "status"])?;
    // There is a folder, and nothing in it.
    ensure!(missing.one_object(0)?["feeds"] == 0);
    store.append("notes", &["one", "two"])?;
    store.append("more", &["three"])?;
    store.run(&["clear", "notes", "0", "--writer"])?.ok()?;
    store.run(&["ban", &"ab".repeat(32)])?.ok()?;
    let alone = json!({"process": null, "feeds": 2, "length": 3, "downloaded": 2, "bytes": 11, "missing": 1, "peers": [], "bans": 1, "conflicts": 0});
    assert_eq!(status(&store)?, alone);
    let (serving, address) = store.serve(&["--live"])?;
    let mut syncing = other.sync(address, &["--live"])?;
    syncing.wait_for("in sync", |event| event["in_sync"] == true)?;
    let now = status_until(&store, |now| now["peers"][0]["in_sync"] == true)?;
    ensure!(now["process"] == serving.id() && now["length"] == 3 && now["missing"] == 1, "{now:#}");
    let peers = now["peers"].as_array().expect("a list");
    let names = ["address", "blocks_received", "blocks_sent", "bytes_missing", "bytes_missing_there", "bytes_received"];
    let more = [
        "bytes_sent",
        "feeds",
        "id",
        "in_flight",
        "in_sync",
        "missing",
        "missing_there",
        "not_taken",
        "per_second",
        "requested",
    ];
    assert_eq!(common::fields(&peers[0]), [&names[..], &more].concat());
    ensure!(peers.len() == 1 && peers[0]["id"].is_string() && peers[0]["feeds"] == 2, "{now:#}");
    // The other side's view, by its own process.
    let theirs = status_until(&other, |now| now["peers"][0]["in_sync"] == true)?;
    ensure!(theirs["process"] == syncing.id() && theirs["peers"][0]["address"] == address.to_string(), "{theirs:#}");
    // What the peer lacks while it takes nothing.
    syncing.signal("STOP")?;
    store.append("notes", &vec![vec![7; 100]; 50])?;
    let behind = status_until(&store, |now| now["peers"][0]["missing_there"] == 50)?;
    let bytes = behind["peers"][0]["bytes_missing_there"].as_u64().unwrap_or(0);
    ensure!((4000..=6000).contains(&bytes) && behind["peers"][0]["in_sync"] == false, "{behind:#}");
    syncing.signal("CONT")?;
    let text = store.run(&["status"])?.ok()?.text();
    ensure!(text.contains("2 feeds") && text.contains(&format!("process {}", serving.id())), "{text}");
    drop(syncing);
    // A peer that has left is not shown.
    status_until(&store, |now| now["peers"] == json!([]))?;
    let mut watching = Running::start(&[&store.option()[..], &["--json", "status", "--watch"]].concat())?;
    watching.wait_for("one", |now| now["process"] == serving.id())?;
    serving.signal("TERM")?;
    serving.ended(0)?;
    watching.wait_for("one without a process", |now| now["process"].is_null())?;
    watching.signal("INT")?;
    watching.ended(0)?;
    Ok(())
}

/// Several root keys: each multifeed has its peers.
#[test]
fn status_of_a_multifeed_of_several() -> Result<()> {
    let (store, other) = (Store::new()?, Store::new()?);
    let (one, two) = ("11".repeat(32), "22".repeat(32));
    for (store, key) in [(&store, &one), (&store, &two), (&other, &one)] {
        store.run(&["--corestore", "--key", key, "append", "w", "x"])?.ok()?;
    }
    let (serving, address) = store.serve(&["--live", "--key", &one, "--key", &two])?;
    let mut syncing = other.sync(address, &["--live", "--key", &one])?;
    syncing.wait_for("in sync", |event| event["in_sync"] == true)?;
    let of = |key: &str| store.run(&["--json", "--key", key, "status"])?.one_object(0);
    let start = std::time::Instant::now();
    while of(&one)?["peers"][0]["in_sync"] != true {
        ensure!(start.elapsed() < common::TIMEOUT, "{:#}", of(&one)?);
    }
    let other = of(&two)?;
    ensure!(other["peers"] == json!([]) && other["process"] == serving.id() && other["feeds"] == 1, "{other:#}");
    Ok(())
}

#[test]
fn watch_shows_feeds_as_they_grow() -> Result<()> {
    let (store, other) = (Store::new()?, Store::new()?);
    let notes = store.append("notes", &["one"])?;
    let watch = &[&store.option()[..], &["--json", "watch"]].concat();
    let mut watching = Running::start(watch)?;
    let grown = |running: &mut Running, key: &str, length: u64| {
        running.wait_for("a feed that grew", |event| {
            event["event"] == "grown"
                && event["key"] == key
                && event["length"] == length
                && event["downloaded"] == length
        })
    };
    // Until it has looked, it does not know what is new.
    let mut length = 1;
    let start = std::time::Instant::now();
    let seen = loop {
        if let Some(event) = watching.wait_a_moment(|event| event["event"] == "grown")? {
            break event["length"].as_u64().context("no length")?;
        }
        ensure!(start.elapsed() < common::TIMEOUT, "it sees nothing");
        store.append("notes", &["more"])?;
        length += 1;
    };
    if seen < length {
        grown(&mut watching, &notes, length)?;
    }
    watching.signal("INT")?;
    watching.ended(0)?;

    let (serving, address) = store.serve(&["--live"])?;
    let mut watching = Running::start(watch)?;
    let theirs = other.append("theirs", &["four", "five"])?;
    // It follows once it has shown what was appended after it began.
    let start = std::time::Instant::now();
    while watching.wait_a_moment(|event| event["event"] == "grown")?.is_none() {
        ensure!(start.elapsed() < common::TIMEOUT, "it sees nothing");
        store.append("notes", &["more"])?;
    }
    other.sync(address, &[])?.ended(0)?;
    watching.wait_for("a new feed", |event| event["event"] == "feed" && event["key"] == theirs.as_str())?;
    grown(&mut watching, &theirs, 2)?;
    store.run(&["remove", &theirs, "--ban"])?.ok()?;
    watching.wait_for("its end", |event| event["event"] == "removed" && event["key"] == theirs.as_str())?;
    watching.signal("TERM")?;
    watching.ended(0)?;
    serving.signal("TERM")?;
    serving.ended(0)?;
    Ok(())
}

/// 0 only while both sides hold the same.
#[test]
fn a_live_sync_that_is_interrupted_says_whether_it_was_in_sync() -> Result<()> {
    for retry in [&[][..], &["--retry"]] {
        let (store, other) = (Store::new()?, Store::new()?);
        store.append("notes", &["one", "two"])?;
        let (serving, address) = store.serve(&["--live"])?;
        let mut syncing = other.sync(address, &[&["--live"], retry].concat())?;
        syncing.wait_for("in sync", |event| event["in_sync"] == true)?;
        syncing.signal("INT")?;
        syncing.ended(0)?;
        serving.kill()?;
    }
    // The server is gone, and may have had more.
    let (store, other) = (Store::new()?, Store::new()?);
    store.append("notes", &["one", "two"])?;
    let (serving, address) = store.serve(&["--live"])?;
    let mut syncing = other.sync(address, &["--live", "--retry"])?;
    syncing.wait_for("in sync", |event| event["in_sync"] == true)?;
    serving.kill()?;
    syncing.event("redial")?;
    syncing.signal("TERM")?;
    let events = syncing.ended(143)?;
    assert_eq!(failure_of(events.last().expect("an error"))?.0, "ERR_INTERRUPTED");
    // A peer that never answers.
    let (store, silent) = (Store::new()?, TcpListener::bind("127.0.0.1:0")?);
    for retry in [&[][..], &["--retry"]] {
        let syncing = store.sync(silent.local_addr()?, &[&["--live"], retry].concat())?;
        let (stream, _) = silent.accept()?;
        syncing.signal("INT")?;
        let events = syncing.ended(130)?;
        assert_eq!(failure_of(events.last().expect("an error"))?.0, "ERR_INTERRUPTED");
        drop(stream);
    }
    Ok(())
}

/// Either side that is live says that the other one is not.
#[test]
fn a_peer_that_is_not_live_is_named() -> Result<()> {
    let (store, other) = (Store::new()?, Store::new()?);
    store.append("notes", &["one"])?;
    let said = |events: &[Value]| events.iter().any(|event| event["event"] == "peer-not-live");
    let (mut serving, address) = store.serve(&["--live"])?;
    other.sync(address, &[])?.ended(0)?;
    let event = serving.event("peer-not-live")?;
    ensure!(event["peer"]["id"].is_string(), "{event}");
    let mut live = other.sync(address, &["--live"])?;
    live.wait_for("in sync", |event| event["in_sync"] == true)?;
    live.signal("INT")?;
    ensure!(!said(&live.ended(0)?), "both are live");
    serving.signal("TERM")?;
    serving.ended(0)?;
    let (serving, address) = store.serve(&["--once"])?;
    ensure!(said(&other.sync(address, &["--live"])?.ended(0)?), "the server is not live");
    ensure!(!said(&serving.ended(0)?), "it is not live itself");
    // With several root keys, and with --retry.
    let (one, two) = ("62".repeat(32), "63".repeat(32));
    let keys = ["--corestore", "--key", &one, "--key", &two];
    let (store, other) = (Store::new()?, Store::new()?);
    let (mut serving, address) = store.serve(&[&["--live"][..], &keys].concat())?;
    other.sync(address, &keys)?.ended(0)?;
    let event = serving.event("peer-not-live")?;
    ensure!(event["root"].is_string(), "{event}");
    serving.signal("TERM")?;
    serving.ended(0)?;
    let (serving, address) = Store::new().and_then(|store| store.serve(&[]))?;
    let mut retrying = Store::new()?.sync(address, &["--live", "--retry"])?;
    retrying.event("peer-not-live")?;
    retrying.signal("INT")?;
    retrying.ended_with_one_of(&[0, 130])?;
    serving.kill()?;
    Ok(())
}
