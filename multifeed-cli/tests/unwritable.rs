//! A file that cannot grow, by a real limit of the system: the feed that it is of comes no further, and the others do.
#![cfg(unix)]

use crate::common;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::{Running, Store, js_facts};
use multifeed_testkit::js::JsPeer;

/// Runs the command with a limit of 64 blocks of the shell (of 512 or 1,024 bytes) for a file. The signal of that is ignored, so that a write past
/// it fails with EFBIG, as on a file system with short files.
fn limited(args: &[&str]) -> Result<Running> {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_multifeed")]).args(args);
    command.env_remove("MULTIFEED_KEY").env_remove("RUST_LOG");
    Running::start_command(command)
}

#[test]
fn a_feed_whose_file_cannot_grow_keeps_no_other_from_a_js_peer() -> Result<()> {
    let key = "11".repeat(32);
    let (mut js, address) = JsPeer::listen(&["--key", &key])?;
    js.append("small", 30, 100, 1)?;
    let large = js.append("large", 10, 20_000, 2)?;
    js.append("other", 30, 100, 3)?;
    let store = Store::new()?;
    let address = address.to_string();
    for round in 0..2 {
        let args = [&store.option()[..], &["--json", "sync", &address, "--key", &key]].concat();
        let mut events = limited(&args)?.ended(1)?;
        let error = events.pop();
        ensure!(error.as_ref().is_some_and(|error| error["code"] == "ERR_STORE_IO"), "round {round}: {error:?}");
        let damaged: Vec<_> = events.iter().filter(|event| event["event"] == "damaged").collect();
        ensure!(damaged.len() == 1 && damaged[0]["key"] == *large, "round {round}: {events:?}");
        let facts = store.checked()?;
        ensure!(facts.iter().filter(|feed| feed.downloaded == 30).count() == 2, "round {round}: {facts:?}");
        ensure!(facts.iter().all(|feed| feed.key != large || feed.downloaded < 10), "round {round}: {facts:?}");
    }
    let args = [&store.option()[..], &["--json", "sync", &address, "--key", &key]].concat();
    Running::start(&args)?.ended(0)?;
    ensure!(store.checked()? == js_facts(&js.feeds()?)?, "not all came");
    js.close()
}

/// Runs the command in a file system of its own that is soon full, mounted at a folder; `None` if the system lets nobody mount one.
fn crammed(place: &Store, args: &[&str]) -> Result<Option<Running>> {
    let mounts = |what: &str, args: &[&str]| {
        let script = format!("mount -t tmpfs -o size=300k multifeed \"$0\" && {what}");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, place.text()]).args(args);
        command.env_remove("MULTIFEED_KEY").env_remove("RUST_LOG");
        command
    };
    if !mounts("true", &[]).output().is_ok_and(|done| done.status.success()) {
        println!("left out: no file system can be mounted here");
        return Ok(None);
    }
    let args = [&[env!("CARGO_BIN_EXE_multifeed")][..], &place.option(), args].concat();
    let mut running = Running::start_command(mounts("exec \"$@\"", &args))?;
    drop(running.take_input());
    Ok(Some(running))
}

/// One feed whose file cannot be written any more: what it lacks is not counted, and nobody says that nothing is missing.
#[test]
fn nothing_is_said_of_what_a_feed_lacks_that_cannot_be_written() -> Result<()> {
    let (source, place) = (Store::new()?, Store::new()?);
    for writer in ["a", "b"] {
        source.append(writer, &["first"; 10])?;
    }
    let (server, address) = source.serve(&["--once"])?;
    place.sync(address, &[])?.ended(0)?;
    server.ended(0)?;
    for writer in ["a", "b"] {
        source.append(writer, &["then"; 30])?;
    }
    let (server, address) = source.serve(&[])?;
    let data = place.path().join("0/data");
    let data = data.to_str().context("a path of text")?;
    let mounts = |what: &str| {
        let script = format!("mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && {what}");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, data]);
        command.env_remove("MULTIFEED_KEY").env_remove("RUST_LOG");
        command
    };
    if !mounts("true").output().is_ok_and(|done| done.status.success()) {
        println!("left out: no file can be mounted here");
        return Ok(());
    }
    let mut command = mounts("exec \"$@\"");
    command.arg(env!("CARGO_BIN_EXE_multifeed")).args(place.option()).args(["--json", "sync", &address.to_string()]);
    let error = Running::start_command(command)?.failed()?;
    let message = error["message"].as_str().unwrap_or_default();
    ensure!(error["code"] == "ERR_STORE_IO", "{error}");
    ensure!(message.contains("(30 blocks received before that; sync again)"), "{message}");
    server.kill()
}

/// Blocks that wait in memory for a full disk are on no disk: neither side says that it is in sync, in that session or the next.
#[test]
fn a_full_disk_is_never_in_sync() -> Result<()> {
    let source = Store::new()?;
    source.append("big", &vec![vec![7u8; 40_000]; 10])?;
    for live in [false, true] {
        let place = Store::new()?;
        let serve =
            [&["--json", "serve", "127.0.0.1:0", "--keep-free", "0"], &["--live"][..usize::from(live)]].concat();
        let Some(mut server) = crammed(&place, &serve)? else { return Ok(()) };
        let address: std::net::SocketAddr =
            server.event("listening")?["address"].as_str().unwrap_or_default().parse()?;
        for round in 0..3 {
            let events = source.sync(address, &[])?.ended(3)?;
            ensure!(events.iter().all(|event| event["in_sync"] != true), "live: {live}, {round}: {events:?}");
        }
        server.kill()?;
    }
    for live in [false, true] {
        let place = Store::new()?;
        let (server, address) = source.serve(&[&["--once"], &["--live"][..usize::from(live)]].concat())?;
        let Some(client) = crammed(&place, &["--json", "sync", &address.to_string()])? else { return Ok(()) };
        let error = client.failed()?;
        let message = error["message"].as_str().unwrap_or_default();
        ensure!(error["code"] == "ERR_STORE_FULL", "{error}");
        // What it says it has and what it says is missing are all there is.
        let numbers: Vec<u64> = message.split([' ', '(']).filter_map(|word| word.parse().ok()).collect();
        ensure!(numbers.len() >= 2 && numbers[0] < 10 && numbers[0] + numbers[1] == 10, "live: {live}: {message}");
        server.ended(3)?;
    }
    Ok(())
}

/// A live receiver waits for room: Ctrl-C ends it as any live sync that is not in sync, and what it says is missing is all of it.
#[test]
fn a_live_sync_that_is_stopped_on_a_full_disk_says_all_that_is_missing() -> Result<()> {
    let source = Store::new()?;
    source.append("many", &vec![vec![7u8; 2_000]; 700])?;
    let (server, address) = source.serve(&["--live"])?;
    let place = Store::new()?;
    let args = ["--json", "sync", &address.to_string(), "--live"];
    let Some(mut client) = crammed(&place, &args)? else { return Ok(()) };
    client.event("disk-full")?;
    client.signal("INT")?;
    let error = client.ended(130)?.pop().context("it printed nothing")?;
    ensure!(error["code"] == "ERR_STORE_FULL", "{error}");
    let message = error["message"].as_str().unwrap_or_default();
    let words: Vec<&str> = message.split([' ', '(', ',', ';']).collect();
    let before = |what: &[&str]| {
        let at = words.windows(what.len()).position(|found| found == what)?;
        words.get(at.checked_sub(1)?)?.parse::<u64>().ok()
    };
    let (kept, missing) = (before(&["blocks", "received", "before"]), before(&["blocks", "still", "missing"]));
    ensure!(kept.zip(missing).is_some_and(|(kept, missing)| kept < 700 && kept + missing == 700), "{message}");
    server.kill()
}
