//! Several root keys of a corestore on each connection, and dials that are kept.

use crate::common;

#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../multifeed/examples/corestore.rs"]
mod example;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use common::{Running, Store, block_on};
use multifeed_testkit::blocks::blocks;
use multifeed_testkit::js::{JsPeer, TIMEOUT, install, interop_dir};
use serde_json::json;

fn keys() -> [String; 3] {
    ["21", "22", "23"].map(|digits| digits.repeat(32))
}

/// A corestore with a writer in the multifeed of each key.
fn corestore(keys: &[String], name: &str) -> Result<Store> {
    let store = Store::new()?;
    for key in keys {
        store.run(&["--corestore", "--key", key, "append", name, "one", "two"])?.ok()?;
    }
    Ok(store)
}

fn lengths(store: &Store, key: &str) -> Result<Vec<u64>> {
    let feeds = store.run(&["--json", "--key", key, "feeds"])?.ok()?.objects()?;
    feeds.iter().map(|feed| feed["downloaded"].as_u64().context("no number")).collect()
}

#[test]
fn js_syncs_two_root_keys_over_one_connection() -> Result<()> {
    let [a, b, _] = keys();
    let store = corestore(&[a.clone(), b.clone()], "ours")?;
    let (mut server, address) = store.serve(&["--live", "--key", &a, "--key", &b])?;
    let mut peer = JsPeer::spawn(&["--corestore", "--key", &a, "--key", &b])?;
    for key in [&a, &b] {
        peer.call(json!({"cmd": "append", "name": "theirs", "key": key, "count": 3, "size": 50, "seed": 1}))?;
    }
    peer.connect(address)?;
    // Appended beside it, to the multifeed that is meant.
    store.run(&["--key", &b, "append", "ours", "three"])?.ok()?;
    peer.wait(4, 11, TIMEOUT)?;
    let connected = server.event("peer-connected")?;
    let roots = [server.event("root-ready")?, server.event("root-ready")?];
    ensure!(roots.iter().all(|ready| ready["peer"] == connected["peer"]), "{connected} {roots:?}");
    ensure!(
        roots[0]["root"] != roots[1]["root"] && !roots.iter().any(|ready| ready["root"] == a.as_str()),
        "{roots:?}"
    );
    server.until(|| lengths(&store, &a).is_ok_and(|held| held == [2, 3]))?;
    server.until(|| lengths(&store, &b).is_ok_and(|held| held == [3, 3]))?;
    let mut in_sync = BTreeSet::new();
    while in_sync.len() < 2 {
        let progress = server.event("root-progress")?;
        if progress["in_sync"] == true && progress["missing"] == 0 {
            in_sync.insert(progress["root"].to_string());
        }
    }
    peer.close()?;
    server.event("peer-disconnected")?;
    server.kill()?;
    Ok(())
}

/// Whichever it opens first.
#[test]
fn one_root_key_syncs_with_a_js_peer_that_has_several() -> Result<()> {
    let [a, b, c] = keys();
    for key in [&a, &b, &c] {
        for rust_connects in [true, false] {
            let store = corestore(std::slice::from_ref(key), "ours")?;
            let roots = ["--corestore", "--key", &a, "--key", &b, "--key", &c];
            let (mut peer, ours) = if rust_connects {
                let (mut peer, address) = JsPeer::listen(&roots)?;
                peer.call(json!({"cmd": "append", "name": "theirs", "key": key, "count": 3, "size": 50, "seed": 1}))?;
                let ours = store.sync(address, &["--key", key])?;
                (peer, ours)
            } else {
                let mut peer = JsPeer::spawn(&roots)?;
                peer.call(json!({"cmd": "append", "name": "theirs", "key": key, "count": 3, "size": 50, "seed": 1}))?;
                let (ours, address) = store.serve(&["--once", "--key", key])?;
                peer.connect(address)?;
                (peer, ours)
            };
            peer.wait(2, 5, TIMEOUT)?;
            let ended = ours.ended(0)?;
            let closed = ended.last().context("no line")?;
            ensure!(closed["in_sync"] == true && closed["blocks_received"] == 3, "{rust_connects}: {closed}");
            ensure!(lengths(&store, key)? == [2, 3]);
            peer.close()?;
        }
    }
    Ok(())
}

#[test]
fn two_stores_sync_what_root_keys_both_have() -> Result<()> {
    let [a, b, c] = keys();
    let store = corestore(&[a.clone(), b.clone()], "ours")?;
    let (mut server, address) = store.serve(&["--key", &a, "--key", &b])?;
    let copy = corestore(&[a.clone(), c.clone()], "theirs")?;
    copy.sync(address, &["--key", &a, "--key", &b])?.ended(0)?;
    ensure!(lengths(&copy, &a)?.len() == 2 && lengths(&copy, &b)? == [2] && lengths(&copy, &c)? == [2]);
    server.event("peer-disconnected")?;
    let partly = copy.sync(address, &["--key", &a, "--key", &c])?.ended(3)?;
    let last = partly.last().context("no line")?;
    ensure!(last["code"] == "ERR_NOT_SHARED" && !last["message"].to_string().contains(&c), "{last}");
    server.kill()?;

    let numbered = Store::new()?;
    let refused = numbered.sync(address, &["--key", &a, "--key", &b])?.ended(1)?;
    ensure!(refused.last().is_some_and(|line| line["code"] == "ERR_OTHER_STORE"), "{refused:?}");
    ensure!(numbered.path().read_dir()?.next().is_none(), "nothing is made");
    let several = store.run(&["--json", "--key", &a, "--key", &b, "feeds"])?.ended(2)?.objects()?;
    ensure!(several.last().is_some_and(|line| line["code"] == "ERR_USAGE"), "{several:?}");
    Ok(())
}

/// A bound that keeps a feed out keeps the two from being in sync, and only under the root key that it is of.
#[test]
fn a_server_that_takes_no_more_feeds_is_not_in_sync() -> Result<()> {
    let [a, b, _] = keys();
    let roots = ["--key", &a, "--key", &b];
    let (store, copy) = (corestore(&[a.clone(), b.clone()], "ours")?, corestore(&[a.clone(), b.clone()], "theirs")?);
    let (server, address) = store.serve(&[&["--once", "--max-feeds-per-peer", "1"], &roots[..]].concat())?;
    let theirs = copy.sync(address, &roots)?.ended(3)?;
    let ours = server.ended(3)?;
    let in_sync = |lines: &[serde_json::Value]| {
        let closed = lines.iter().filter(|line| line["event"] == "root-closed");
        closed.map(|line| (line["root"].to_string(), line["in_sync"] == true)).collect::<BTreeSet<_>>()
    };
    let here = in_sync(&ours);
    ensure!(here == in_sync(&theirs) && here.iter().filter(|(_, in_sync)| *in_sync).count() == 1, "{here:?}");
    ensure!(ours.last().is_some_and(|line| line["code"] == "ERR_NOT_IN_SYNC"), "{ours:?}");

    let (one, other) = (Store::new()?, Store::new()?);
    other.append("a", &blocks(2, 2, 1))?;
    other.append("b", &blocks(2, 2, 1))?;
    let (server, address) = one.serve(&["--once", "--max-feeds-per-peer", "1"])?;
    other.sync(address, &[])?.ended(3)?;
    let closed = server.ended(3)?.into_iter().find(|line| line["event"] == "closed").context("no end")?;
    ensure!(closed["in_sync"] == false && closed["blocks_received"] == 2, "{closed}");
    Ok(())
}

/// Whoever bans a feed has all that it wants, and the other side is left with a feed that was not taken: by one root key and by two, whichever of them
/// connects. The exit codes are said in the help.
#[test]
fn a_ban_counts_on_the_side_whose_feed_is_not_taken() -> Result<()> {
    let [a, b, _] = keys();
    for roots in [&["--key", &a][..], &["--key", &a, "--key", &b]] {
        for bans_here in [false, true] {
            let (store, copy) =
                (corestore(&[a.clone(), b.clone()], "ours")?, corestore(&[a.clone(), b.clone()], "theirs")?);
            let (banning, other) = if bans_here { (&copy, &store) } else { (&store, &copy) };
            let feed = other.run(&["--json", "--key", &a, "feeds"])?.ok()?.objects()?;
            banning.run(&["--key", &a, "ban", feed[0]["key"].as_str().context("no key")?])?.ok()?;
            let (server, address) = store.serve(&[&["--once"], roots].concat())?;
            let there = copy.sync(address, roots)?.ended(if bans_here { 0 } else { 3 })?;
            let here = server.ended(if bans_here { 3 } else { 0 })?;
            let not_taken = if bans_here { here } else { there };
            ensure!(not_taken.last().is_some_and(|line| line["code"] == "ERR_NOT_TAKEN"), "{not_taken:?}");
            let listed = banning.run(&["--json", "--key", &a, "feeds"])?.ok()?.objects()?;
            ensure!(listed.iter().filter(|line| line["banned"] != true).count() == 1, "{listed:?}");
            ensure!(lengths(other, &a)?.len() == 2);
        }
    }
    let help = Store::new()?.run(&["--help"])?.ok()?.text();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(help.contains("a feed that is banned here does not count"), "{help}");
    ensure!(help.contains("or what it bans"), "{help}");
    Ok(())
}

/// What a sync of one root key reports is reported of several, with an end for each.
#[test]
fn what_is_damaged_under_one_root_key_is_said_and_the_others_are_in_sync() -> Result<()> {
    let [a, b, _] = keys();
    let store = corestore(&[a.clone(), b.clone()], "ours")?;
    let broken = find_data(store.path(), b"onetwo")?.into_iter().next().context("no data")?;
    let written = std::fs::read(&broken)?;
    std::fs::write(&broken, [&b"X"[..], &written[1..]].concat())?;
    let (mut server, address) = store.serve(&["--once", "--key", &a, "--key", &b])?;
    let copy = Store::new()?;
    let theirs = copy.sync(address, &["--corestore", "--key", &a, "--key", &b])?;
    let damaged = server.event("damaged")?;
    ensure!(damaged["block"] == 0, "{damaged}");
    let names = [&damaged["peer"]["id"], &damaged["root"]].map(|name| name.as_str().map(str::len));
    ensure!(names == [Some(64); 2], "{damaged}");
    let ours = server.ended(3)?;
    let closed = |lines: &[serde_json::Value]| {
        let mut closed: Vec<_> = lines.iter().filter(|line| line["event"] == "root-closed").cloned().collect();
        closed.sort_by_key(|line| line["in_sync"].as_bool());
        closed
    };
    for (lines, moved) in [(ours, "blocks_sent"), (theirs.ended(1)?, "blocks_received")] {
        let [bad, good] = &closed(&lines)[..] else { return Err(anyhow!("{lines:?}")) };
        ensure!(bad["in_sync"] == false && good["in_sync"] == true, "{bad} {good}");
        ensure!(bad[moved] == 1 && good[moved] == 2 && good["not_taken"] == 0, "{bad} {good}");
    }
    Ok(())
}

/// The `data` files with these bytes.
fn find_data(folder: &Path, bytes: &[u8]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut find_data(&path, bytes)?);
        } else if path.ends_with("data") && std::fs::read(&path)? == bytes {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn a_sync_that_retries_waits_for_its_peer() -> Result<()> {
    let (store, copy) = (Store::new()?, Store::new()?);
    store.run(&["append", "ours", "one", "two"])?.ok()?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut sync = copy.sync(address, &["--retry"])?;
    let redial = sync.event("redial")?;
    ensure!(redial["seconds"].as_f64().is_some_and(|seconds| (0.5..=1.0).contains(&seconds)), "{redial}");
    let address = address.to_string();
    let server = Running::start(&[&store.option()[..], &["--json", "serve", &address]].concat())?;
    let lines = sync.ended(0)?;
    ensure!(lines.last().is_some_and(|line| line["event"] == "peer-disconnected"), "{lines:?}");
    server.kill()?;
    ensure!(copy.facts()? == store.facts()?);
    Ok(())
}

#[test]
fn a_sync_that_retries_says_what_went_wrong() -> Result<()> {
    let (store, copy) = (Store::new()?, Store::new()?);
    store.run(&["append", "ours", "one"])?.ok()?;
    let (server, address) = store.serve(&["--key", &"a1".repeat(32)])?;
    let mut sync = copy.sync(address, &["--retry", "--key", &"a2".repeat(32)])?;
    for _ in 0..2 {
        let ended = sync.event("peer-disconnected")?;
        ensure!(ended["message"].as_str().is_some_and(|why| why.contains("root key")), "{ended}");
        sync.event("redial")?;
    }
    sync.kill()?;
    server.kill()
}

/// A connection that ends before the handshake, or on which nothing comes, ends a sync of several root keys as one of one root key does.
#[test]
fn a_sync_ends_with_a_connection_that_comes_to_nothing() -> Result<()> {
    let [a, b, _] = keys();
    let store = corestore(&[a.clone(), b.clone()], "ours")?;
    for says in [None, Some("nothing")] {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let peer = std::thread::spawn(move || -> Result<()> {
            let (mut socket, _) = listener.accept()?;
            if says.is_some() {
                // Until the other side is tired of it.
                std::io::copy(&mut socket, &mut std::io::sink())?;
            }
            Ok(())
        });
        let (code, said) = store.run(&["--json", "sync", &address, "--key", &a, "--key", &b])?.failure()?;
        ensure!(!code.is_empty() && !said.is_empty(), "{code}: {said}");
        let ended = peer.join().map_err(|_| anyhow!("it panicked"))?;
        ensure!(ended.is_ok() || says.is_some(), "{ended:?}");
    }
    Ok(())
}

#[test]
fn the_example_of_a_corestore_syncs_with_its_js_twin() -> Result<()> {
    let (ours, theirs) = (Store::new()?, Store::new()?);
    install()?;
    let script = interop_dir().join("example-corestore.js");
    let mut node = Command::new("node").arg(script).args(["0", theirs.text()]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(node.stdout.take().context("no stdout")?).lines();
    let first = lines.next().context("it ended")??;
    let port = first.strip_prefix("listening on ").context("another line")?;
    let address = format!("127.0.0.1:{port}");
    let run = example::corestore(&address, ours.text());
    let ran = block_on(async {
        let ran = tokio::time::timeout(TIMEOUT, run).await?;
        ran.map_err(|error| anyhow!("{error}"))
    });
    // It saw both before it was in sync; if the example failed, nothing more comes.
    let seen = ran.and_then(|()| (0..2).map(|_| Ok(lines.next().context("it ended")??)).collect::<Result<Vec<_>>>());
    node.kill()?;
    node.wait()?;
    let mut seen = seen?;
    seen.sort();
    ensure!(seen == ["a note from Rust", "hello from Rust"], "{seen:?}");
    for key in ["01", "02"] {
        ensure!(lengths(&ours, &key.repeat(32))? == [1, 1]);
    }
    Ok(())
}
