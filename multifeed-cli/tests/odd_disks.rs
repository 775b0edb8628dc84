//! Disks and folders that change while a store is open, and what a command says of them: through the built binary.

use crate::common;

use anyhow::{Context, Result, ensure};
use common::Store;

/// Whoever looks at the exit code alone sees it too.
#[test]
fn a_server_whose_store_was_moved_fails_when_it_ends() -> Result<()> {
    let (place, other) = (Store::new()?, Store::new()?);
    let [here, there] = ["here", "there"].map(|name| place.path().join(name));
    let folder = here.to_str().context("no text")?;
    common::run(&["--store", folder, "append", "notes", "one"], b"")?.ok()?;
    other.run(&["append", "theirs", "two"])?.ok()?;
    let mut serving = common::Running::start(&["--store", folder, "--json", "serve", "127.0.0.1:0", "--live"])?;
    let address =
        serving.event("listening")?["address"].as_str().context("no address")?.parse::<std::net::SocketAddr>()?;
    // Nothing new came, and nothing was lost.
    std::fs::rename(&here, &there)?;
    std::fs::rename(&there, &here)?;
    other.sync(address, &[])?.ended(0)?;
    std::fs::rename(&here, &there)?;
    other.run(&["append", "theirs", "three"])?.ok()?;
    // The peer may have left before.
    other.run(&["sync", &address.to_string()])?;
    serving.signal("TERM")?;
    let lines = serving.ended(1)?;
    ensure!(lines.last().is_some_and(|line| line["code"] == "ERR_STORE_MOVED"), "{lines:?}");
    ensure!(!here.exists(), "a second store grew at the old path");
    let there = there.to_str().context("no text")?;
    assert_eq!(common::run(&["--store", there, "cat", "notes"], b"")?.ok()?.text(), "one");
    Ok(())
}

/// An older copy of a writer's folder must not be signed on from. That is no store without feeds.
#[test]
fn a_feed_that_cannot_be_opened_is_not_no_feed() -> Result<()> {
    let store = Store::new()?;
    store.run(&["append", "notes", "one"])?.ok()?;
    let files: Vec<(std::path::PathBuf, Vec<u8>)> = std::fs::read_dir(store.path().join("0"))?
        .map(|entry| Ok::<_, anyhow::Error>(entry?.path()))
        .map(|path| path.and_then(|path| Ok((path.clone(), std::fs::read(path)?))))
        .collect::<Result<_>>()?;
    store.run(&["append", "notes", "two"])?.ok()?;
    for (path, bytes) in files {
        std::fs::write(path, bytes)?;
    }
    let done = store.run(&["feeds"])?.ended(1)?;
    assert_eq!(done.text().trim(), "no feed can be opened");
    ensure!(done.stderr.contains("there were 2 blocks of this writer"), "{}", done.stderr);
    Ok(())
}

/// However little is free on a disk that cannot be written: nothing is fetched into it, and all of it is served.
#[cfg(target_os = "linux")]
#[test]
fn a_read_only_store_is_served_and_not_called_full() -> Result<()> {
    use std::process::Command;
    let (store, reader) = (Store::new()?, Store::new()?);
    store.append("ours", &["one", "two"])?;
    let unshare = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"];
    if !Command::new("unshare").args(unshare).arg("true").output().is_ok_and(|done| done.status.success()) {
        eprintln!("no disk can be made read-only here");
        return Ok(());
    }
    let script = r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 77
        exec "$0" --json --store "$1" serve 127.0.0.1:0 --once --keep-free 1000PB"#;
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", script, env!("CARGO_BIN_EXE_multifeed"), store.text()]);
    let mut serving = common::Running::start_command(command)?;
    let address = serving.event("listening")?["address"].as_str().context("no address")?.parse()?;
    reader.sync(address, &[])?.ended(0)?;
    let lines = serving.ended(0)?;
    ensure!(lines.iter().all(|line| line["event"] != "disk-full"), "{lines:?}");
    ensure!(reader.facts()?.iter().any(|feed| feed.downloaded == 2), "{:?}", reader.facts()?);
    Ok(())
}
