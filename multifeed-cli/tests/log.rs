//! What `RUST_LOG=multifeed=debug` says of a sync, and what no log says.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::common::{Done, Running, Store, command};

/// A root key and a block's text that no log may have.
const ROOT_KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
const BLOCK: &str = "the text of a block";

fn logged(mut command: Command, filter: &str) -> Result<Done> {
    let output = command.env("RUST_LOG", filter).env("NO_COLOR", "1").output()?;
    Ok(Done {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Syncs a store with one that serves a feed, and returns what it logged to stderr, together with that feed's key and both stores.
fn synced(filter: &str) -> Result<(String, String, [Store; 2])> {
    let (served, ours) = (Store::new()?, Store::new()?);
    let key = served.append("theirs", &[BLOCK.as_bytes(), b"two"])?;
    ours.append("ours", &[BLOCK.as_bytes()])?;
    let (server, address): (Running, _) = served.serve(&["--once", "--key", ROOT_KEY])?;
    let address = address.to_string();
    let args = [&ours.option()[..], &["sync", &address, "--key", ROOT_KEY]].concat();
    let log = logged(command(&args), filter)?.ok()?.stderr;
    server.ended(0)?;
    Ok((log, key, [served, ours]))
}

#[test]
fn a_log_tells_what_happened_in_a_sync() -> Result<()> {
    let (log, key, [_, ours]) = synced("multifeed=debug")?;
    let (feed, place) = (format!("feed{{key={}…}}", &key[..8]), format!("store{{place=\"{}\"}}", ours.text()));
    let steps = [
        ["multifeed::store: opens", &place],
        ["multifeed::store: opened feeds=1", &place],
        ["multifeed::session: begins live=false", "session{id=0}"],
        ["multifeed::session: the handshake is done remote=", "session{id=0}"],
        ["multifeed::session: the remote is ready client=\"MULTIFEED\"", "session{id=0}"],
        ["multifeed::session: compared with the remote alike=0", "session{id=0}"],
        ["multifeed::session: offers feeds feeds=1", "session{id=0}"],
        ["multifeed::session: the remote offers feeds feeds=1", "session{id=0}"],
        ["multifeed::session: requests feeds feeds=1", "session{id=0}"],
        ["multifeed::session: the remote requested feeds feeds=1", "session{id=0}"],
        ["multifeed::feed: opens the channel", "session{id=0}"],
        ["multifeed::feed: the remote opened the channel", "session{id=0}"],
        ["multifeed::feed: requests blocks", &feed],
        ["multifeed::feed: every request was answered missing=0", &feed],
        ["multifeed::feed: written blocks=2 held=2 len=2", &feed],
        ["multifeed::feed: the channel is closed", "blocks_received=2"],
        ["multifeed::session: over in_sync=true feeds=2 blocks_received=2 blocks_sent=1 missing=0", "session{id=0}"],
        ["multifeed::store: closed", &place],
    ];
    for step in steps {
        ensure!(log.lines().any(|line| step.iter().all(|part| line.contains(part))), "no line of {step:?} in\n{log}");
    }
    ensure!(!log.contains("TRACE") && !log.contains("verified"), "more than was asked for:\n{log}");
    Ok(())
}

#[test]
fn a_log_has_no_key_and_no_block_in_it() -> Result<()> {
    let (log, key, stores) = synced("trace")?;
    for line in
        ["multifeed::feed: request block=", "multifeed::feed: verified block=", "multifeed::feed: block sent block=0"]
    {
        ensure!(log.contains(line), "no line of {line:?} in\n{log}");
    }
    let mut secrets = vec![ROOT_KEY[..16].to_owned(), BLOCK.to_owned(), key[..16].to_owned()];
    for store in stores {
        let secret = std::fs::read(store.path().join("0/secret_key")).context("no secret key")?;
        // As hex, and as a list of numbers.
        secrets.push(hex::encode(&secret[..8]));
        secrets.push(format!("{:?}", &secret[..4]).replace(['[', ']'], ""));
    }
    secrets.push("90, 90, 90".to_owned());
    for secret in secrets {
        ensure!(!log.contains(&secret), "{secret} stands in\n{log}");
    }
    Ok(())
}

#[test]
fn nothing_is_logged_unasked() -> Result<()> {
    let (log, ..) = synced("warn")?;
    ensure!(log.lines().all(|line| !line.contains("multifeed::")), "{log}");
    Ok(())
}
