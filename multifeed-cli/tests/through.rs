//! Commands beside a process that serves the store: they go through it, and print what they print without it.

#![cfg(unix)]

use crate::common;

use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context, Result, ensure};
use common::{Done, Running, Store, command};
use multifeed_testkit::js::JsPeer;
use serde_json::Value;

fn all_of(done: &Done) -> (Option<i32>, String, String) {
    (done.code, done.text(), done.stderr.clone())
}

/// Each command, in both forms, beside a process and without one.
#[test]
fn what_is_printed_is_the_same_beside_a_process() -> Result<()> {
    let store = Store::new()?;
    let notes = store.append("notes", &["one", "two", "three"])?;
    store.append("bytes", &[&b"\xff\0"[..], b""])?;
    store.run(&["ban", &"ab".repeat(32)])?.ok()?;
    store.run(&["clear", "--writer", "notes", "1"])?.ok()?;
    let reads: [&[&str]; 11] = [
        &["feeds"],
        &["cat", "bytes"],
        &["cat", "bytes", "-0"],
        &["cat", "bytes", "1"],
        &["cat", "notes", "-n", "1", "--lines"],
        // Block 1 is not held, and there is no block 7.
        &["cat", "notes"],
        &["cat", "notes", "7"],
        &["cat", "nosuch"],
        &["verify"],
        &["remove", "notes"],
        &["clear", "notes", ".."],
    ];
    let look = || {
        let mut seen = Vec::new();
        for read in reads {
            seen.push(all_of(&store.run(read)?));
            seen.push(all_of(&store.run(&[&["--json"], read].concat())?));
        }
        Ok::<_, anyhow::Error>(seen)
    };
    let without = look()?;
    let (serving, _) = store.serve(&["--live"])?;
    let beside = look()?;
    for (at, (without, beside)) in without.iter().zip(&beside).enumerate() {
        ensure!(without == beside, "{:?}: {without:?}, and beside a process {beside:?}", reads[at / 2]);
    }
    let files = tempfile::tempdir()?;
    let folder = files.path().join("blocks");
    store.run(&["cat", "bytes", "--to", folder.to_str().context("a path")?])?.ok()?;
    assert_eq!((fs::read(folder.join("00000000"))?, fs::read(folder.join("00000001"))?), (b"\xff\0".to_vec(), vec![]));
    serving.signal("TERM")?;
    serving.ended(0)?;
    ensure!(store.checked()?.iter().any(|feed| feed.key == notes));
    Ok(())
}

/// What a command changes is changed in the process that serves, and goes to its peers.
#[test]
fn what_is_changed_is_changed_in_the_process_that_serves() -> Result<()> {
    let (store, reader) = (Store::new()?, Store::new()?);
    let (notes, more) = (store.append("notes", &["one", "two"])?, store.append("more", &["three"])?);
    let (serving, address) = store.serve(&["--live"])?;
    let other = Store::new()?;
    let theirs = other.append("theirs", &["four", "five"])?;
    other.sync(address, &[])?.ended(0)?;
    let object = |args: &[&str]| store.run(&[&["--json"], args].concat())?.one_object(0);
    let cleared = object(&["clear", &theirs, "0"])?;
    ensure!(cleared["cleared"] == 1 && cleared["downloaded"] == 1, "{cleared}");
    ensure!(object(&["ban", &theirs])?["banned"] == true);
    ensure!(object(&["remove", "more", "--writer"])?["key"] == more.as_str());
    reader.sync(address, &[])?.ended(0)?;
    assert_eq!(reader.facts()?.iter().map(|feed| &feed.key).collect::<Vec<_>>(), [&notes]);
    ensure!(object(&["unban", &theirs])?["banned"] == false);
    // A block that was cleared comes back with the next sync, which the writer that was removed keeps from being in sync.
    other.sync(address, &[])?.ended(3)?;
    assert_eq!(store.run(&["cat", &theirs])?.ok()?.text(), "fourfive");
    serving.signal("TERM")?;
    serving.ended(0)?;
    let keys: Vec<String> = store.checked()?.into_iter().map(|feed| feed.key).collect();
    ensure!(keys.len() == 2 && !keys.contains(&more), "{keys:?}");
    Ok(())
}

/// Damage that a process comes upon is repaired through it.
#[test]
fn verify_repairs_through_the_process_that_serves() -> Result<()> {
    use std::os::unix::fs::FileExt;
    let (store, other) = (Store::new()?, Store::new()?);
    let key = other.append("notes", &["one", "two", "three"])?;
    let (serving, address) = other.serve(&["--live"])?;
    store.sync(address, &[])?.ended(0)?;
    let (live, _) = store.serve(&["--live"])?;
    fs::OpenOptions::new().write(true).open(store.path().join("0/data"))?.write_all_at(b"X", 3)?;
    let done = store.run(&["--json", "verify"])?.ended(1)?;
    ensure!(done.objects()?.iter().any(|line| line["event"] == "damaged" && line["block"] == 1), "{}", done.text());
    let done = store.run(&["--json", "verify", "--repair"])?.ok()?;
    ensure!(done.objects()?[0]["blocks"] == serde_json::json!([1]), "{}", done.text());
    live.signal("TERM")?;
    live.ended(0)?;
    store.sync(address, &[])?.ended(0)?;
    assert_eq!(store.run(&["cat", &key])?.ok()?.text(), "onetwothree");
    serving.kill()?;
    store.checked()?;
    Ok(())
}

fn text_of(running: &mut Running, text: &str) -> Result<Value> {
    running.wait_for(text, |line| line["text"] == text)
}

/// Blocks come as they are appended: through a process, without one, and as one comes and goes.
#[test]
fn cat_follows_a_feed_whoever_has_the_store_open() -> Result<()> {
    let store = Store::new()?;
    let key = store.append("notes", &["zero", "one"])?;
    let mut following = Running::start(&[&store.option()[..], &["--json", "cat", "notes", "-n", "1", "-f"]].concat())?;
    text_of(&mut following, "one")?;
    store.append("notes", &["two"])?;
    text_of(&mut following, "two")?;
    let (serving, _) = store.serve(&["--live"])?;
    store.append("notes", &["three"])?;
    text_of(&mut following, "three")?;
    // One that begins while it is served has no other way.
    let mut second = Running::start(&[&store.option()[..], &["--json", "cat", &key, "2..6", "--follow"]].concat())?;
    text_of(&mut second, "three")?;
    store.append("notes", &["four"])?;
    for one in [&mut following, &mut second] {
        text_of(one, "four")?;
    }
    serving.kill()?;
    store.append("notes", &["five", "six"])?;
    text_of(&mut following, "six")?;
    let (serving, _) = store.serve(&["--live"])?;
    // A range that has an end ends.
    let texts = |lines: Vec<Value>| lines.iter().map(|line| line["text"].clone()).collect::<Vec<_>>();
    assert_eq!(texts(second.ended(0)?), ["two", "three", "four", "five"]);
    following.signal("INT")?;
    assert_eq!(texts(following.ended(0)?), ["one", "two", "three", "four", "five", "six"]);
    serving.signal("TERM")?;
    serving.ended(0)?;
    let (code, _) = failure_on_stderr(&store.run(&["--json", "cat", "nosuch", "-f"])?)?;
    ensure!(code == "ERR_FEED_NOT_FOUND", "{code}");
    store.checked()?;
    Ok(())
}

fn failure_on_stderr(done: &Done) -> Result<(String, String)> {
    ensure!(done.code == Some(1), "{done:?}");
    common::failure_of(&serde_json::from_str(done.stderr.lines().last().context("nothing on stderr")?)?)
}

/// A feed that is removed ends what follows it; one of a peer comes block by block.
#[test]
fn what_follows_a_feed_ends_with_it() -> Result<()> {
    let (store, other) = (Store::new()?, Store::new()?);
    let key = other.append("theirs", &["one"])?;
    let (serving, address) = store.serve(&["--live"])?;
    let mut syncing = other.sync(address, &["--live"])?;
    syncing.wait_for("in sync", |event| event["in_sync"] == true)?;
    let mut following = Running::start(&[&store.option()[..], &["--json", "cat", &key, "-f"]].concat())?;
    text_of(&mut following, "one")?;
    other.append("theirs", &["two"])?;
    text_of(&mut following, "two")?;
    store.run(&["remove", &key, "--ban"])?.ok()?;
    following.ended(1)?;
    serving.signal("TERM")?;
    serving.ended(0)?;
    Ok(())
}

/// A disk that holds no sockets: the socket is in a folder of the user's, which a file in the store names.
#[cfg(target_os = "linux")]
#[test]
fn a_store_whose_disk_holds_no_socket_is_served_elsewhere() -> Result<()> {
    let can = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        println!("left out: it needs `strace`");
        return Ok(());
    }
    let (store, runtime) = (Store::new()?, tempfile::tempdir()?);
    store.append("notes", &["one"])?;
    let serve = |fails: &str| {
        let ours = command(&[&store.option()[..], &["--json", "serve", "127.0.0.1:0", "--live"]].concat());
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=bind", "-e", fails]);
        traced.arg(ours.get_program()).args(ours.get_args()).env("XDG_RUNTIME_DIR", runtime.path());
        let mut running = Running::start_command(traced)?;
        running.event("listening")?;
        Ok::<_, anyhow::Error>(running)
    };
    let run = |store: &Store, args: &[&str]| {
        let output = command(&[&store.option()[..], &["--json"], args].concat())
            .env("XDG_RUNTIME_DIR", runtime.path())
            .stdin(Stdio::null())
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok::<_, anyhow::Error>(Done { code: output.status.code(), stdout: output.stdout, stderr })
    };
    let serving = serve("inject=bind:error=EPERM:when=1")?;
    let named = store.path().join("multifeed.socket");
    ensure!(fs::symlink_metadata(&named)?.is_file());
    let mode =
        |path: &std::path::Path| Ok::<_, anyhow::Error>(fs::symlink_metadata(path)?.permissions().mode() & 0o777);
    let folder = fs::read_dir(runtime.path())?.next().context("no folder")??.path();
    assert_eq!((mode(&named)?, mode(&folder)?, mode(&folder.join("multifeed.socket"))?), (0o600, 0o700, 0o600));
    let line = run(&store, &["append", "notes", "two"])?.one_object(0)?;
    ensure!(line["length"] == 2, "{line}");
    // A copy of the store is another one.
    let copy = Store::new()?;
    for entry in
        ["0/key", "0/secret_key", "0/tree", "0/signatures", "0/bitfield", "0/data", "0/localname", "multifeed.socket"]
    {
        let to = copy.path().join(entry);
        fs::create_dir_all(to.parent().context("a parent")?)?;
        fs::copy(store.path().join(entry), to)?;
    }
    run(&copy, &["append", "notes", "three"])?.one_object(0)?;
    assert_eq!(run(&store, &["feeds"])?.one_object(0)?["length"], 2);
    // What a kill left is in nobody's way. Killed, strace lets its child go on.
    let kill = |serving: Running| {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", serving.id()))?;
        let child = children.split_whitespace().next().context("no child")?;
        ensure!(Command::new("kill").args(["-KILL", child]).status()?.success());
        serving.ended_with_one_of(&[137]).map(drop).or(Ok::<_, anyhow::Error>(()))
    };
    kill(serving)?;
    ensure!(named.exists());
    let line = run(&store, &["append", "notes", "three"])?.one_object(0)?;
    ensure!(line["length"] == 3, "{line}");
    // Nor is a file of that name taken away that is somebody else's.
    fs::write(&named, "mine")?;
    let serving = serve("inject=bind:error=EPERM:when=5")?;
    assert_eq!(fs::read(&named)?, b"mine");
    let done = run(&store, &["append", "notes", "four"])?;
    assert_eq!(done.failure()?.0, "ERR_STORE_LOCKED");
    kill(serving)?;
    Ok(())
}

/// What is cleared, repaired, or unbanned through a process that syncs live comes back on its session, which ends in sync.
#[test]
fn what_is_lost_through_a_live_sync_comes_back_on_it() -> Result<()> {
    use std::os::unix::fs::FileExt;
    let (store, other) = (Store::new()?, Store::new()?);
    let key = other.append("notes", &["one", "two", "three"])?;
    let (serving, address) = other.serve(&["--live"])?;
    let mut live = store.sync(address, &["--live"])?;
    live.in_sync()?;
    let is_whole = || store.run(&["cat", &key]).is_ok_and(|done| done.text() == "onetwothree");
    store.run(&["clear", &key, "0..2"])?.ok()?;
    live.until(is_whole)?;
    fs::OpenOptions::new().write(true).open(store.path().join("0/data"))?.write_all_at(b"X", 3)?;
    let done = store.run(&["--json", "verify", "--repair"])?;
    ensure!(done.objects()?[0]["blocks"] == serde_json::json!([1]), "{}", done.text());
    live.until(is_whole)?;
    store.run(&["remove", &key, "--ban"])?.ok()?;
    store.run(&["unban", &key])?.ok()?;
    live.until(is_whole)?;
    // What comes later comes too.
    other.append("notes", &["four"])?;
    live.until(|| store.run(&["cat", &key]).is_ok_and(|done| done.text() == "onetwothreefour"))?;
    live.in_sync()?;
    live.signal("INT")?;
    let events = live.ended(0)?;
    let end = events.last().context("no end")?;
    ensure!(end["event"] == "closed" && end["holes"] == serde_json::json!([]), "{end}");
    serving.signal("TERM")?;
    serving.ended(0)?;
    store.checked()?;
    Ok(())
}

/// Blocks that a peer was sent from here, of a feed that is written here and of another's, are fetched from it again on the session that is live
/// as they are given up. Nothing is said to be missing at the peer that it has.
#[test]
fn what_a_peer_was_sent_comes_back_from_it_on_the_same_session() -> Result<()> {
    use std::os::unix::fs::FileExt;
    for is_js in [false, true] {
        let (store, other, third) = (Store::new()?, Store::new()?, Store::new()?);
        let notes = store.append("notes", &["one", "two", "three"])?;
        let more = third.append("more", &["four", "five", "six"])?;
        let (serving, address) = third.serve(&[])?;
        store.sync(address, &[])?.ended(0)?;
        serving.kill()?;
        let (mut js, mut serving) = (None, None);
        let address = if is_js {
            let (peer, address) = JsPeer::listen(&["--store", other.text(), "--live"])?;
            js = Some(peer);
            address
        } else {
            let (running, address) = other.serve(&["--live"])?;
            serving = Some(running);
            address
        };
        let mut live = store.sync(address, &["--live"])?;
        live.wait_for("all sent", |event| event["blocks_sent"] == 6 && event["in_sync"] == true)?;
        for (folder, key, all) in [("0", &notes, "onetwothree"), ("1", &more, "fourfivesix")] {
            let data = fs::OpenOptions::new().write(true).open(store.path().join(folder).join("data"))?;
            data.write_all_at(b"X", 4)?;
            let done = store.run(&["--json", "verify", "--repair"])?;
            ensure!(done.text().contains("given-up"), "{}", done.text());
            live.until(|| store.run(&["cat", key]).is_ok_and(|done| done.text() == all))
                .with_context(|| format!("folder {folder}, of JS: {is_js}"))?;
        }
        live.wait_for("in sync", |event| event["blocks_received"] == 2 && event["in_sync"] == true)?;
        live.signal("INT")?;
        let events = live.ended(0)?;
        let end = events.last().context("no end")?;
        ensure!(end["event"] == "closed" && end["holes"] == serde_json::json!([]), "{end}");
        js.map_or(Ok(()), JsPeer::kill)?;
        serving.map_or(Ok(()), Running::kill)?;
        store.checked()?;
    }
    Ok(())
}

/// A connection to an address that passes on to the side that connects no more than so many bytes, until it is let go.
fn held_back(to: SocketAddr, bytes: u64) -> Result<(SocketAddr, Sender<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (go, goes) = channel();
    thread::spawn(move || {
        let (near, _) = listener.accept()?;
        let far = TcpStream::connect(to)?;
        let (mut up, mut down) = (near.try_clone()?, far.try_clone()?);
        thread::spawn(move || io::copy(&mut up, &mut &far));
        io::copy(&mut (&mut down).take(bytes), &mut &near)?;
        let _ = goes.recv();
        io::copy(&mut down, &mut &near)?;
        near.shutdown(std::net::Shutdown::Both)
    });
    Ok((address, go))
}

/// A peer bans or removes a feed of which not all is here: the session is not in sync, says how much is missing, and Ctrl-C ends it as such.
#[test]
fn a_feed_that_the_peer_gives_up_in_mid_transfer_is_not_in_sync() -> Result<()> {
    const BLOCKS: usize = 600;
    let (writer, peer) = (Store::new()?, Store::new()?);
    let key = writer.append("many", &vec![vec![7u8; 50_000]; BLOCKS])?;
    for how in [&["ban"][..], &["remove"]] {
        let (serving, address) = writer.serve(&[])?;
        peer.sync(address, &[])?.ended(0)?;
        serving.kill()?;
        let (serving, address) = peer.serve(&["--live"])?;
        let (address, go) = held_back(address, 2_000_000)?;
        let store = Store::new()?;
        let mut live = store.sync(address, &["--live"])?;
        live.received(1)?;
        peer.run(&[how, &[&key]].concat())?.ok()?;
        go.send(())?;
        let standing =
            live.wait_for("the end of the feed", |event| event["feeds"] == 0 && event["blocks_received"] != 0)?;
        let missing = standing["missing"].as_u64().context("no number")?;
        ensure!(standing["in_sync"] == false && missing > 0, "{how:?}: {standing}");
        let status = store.run(&["status"])?.ok()?.text();
        ensure!(!status.contains("in sync") && status.contains("missing here"), "{how:?}: {status}");
        live.signal("INT")?;
        let events = live.ended(130)?;
        let [.., end, error] = &events[..] else { anyhow::bail!("{events:?}") };
        ensure!(end["event"] == "closed" && end["in_sync"] == false && end["missing"] == missing, "{how:?}: {end}");
        ensure!(error["message"].to_string().contains("not in sync"), "{how:?}: {error}");
        assert_eq!(store.facts()?[0].downloaded + missing, BLOCKS as u64);
        serving.kill()?;
        peer.run(&["unban", &key])?.ok()?;
    }
    Ok(())
}

/// Of several that append to a writer that is not there yet, one says that it is new.
#[test]
fn a_new_writer_is_said_once() -> Result<()> {
    let store = Store::new()?;
    let (serving, _) = store.serve(&["--live"])?;
    let appends = (0..8).map(|_| {
        let mut append = command(&[&store.option()[..], &["--json", "append", "new", "x"]].concat());
        append.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    });
    let appends = appends.collect::<Result<Vec<_>, _>>()?;
    let mut said = 0;
    for append in appends {
        let done = append.wait_with_output()?;
        ensure!(done.status.success());
        said += String::from_utf8_lossy(&done.stderr).matches("new-writer").count();
    }
    assert_eq!(said, 1);
    serving.signal("TERM")?;
    serving.ended(0)?;
    assert_eq!(store.checked()?[0].length, 8);
    Ok(())
}

/// A command without the root key of a corestore says so, whether a process has it open or none.
#[test]
fn a_corestore_without_its_root_key_is_named() -> Result<()> {
    let store = Store::new()?;
    let key = "61".repeat(32);
    store.run(&["--corestore", "--key", &key, "append", "w", "one"])?.ok()?;
    let (code, said) = store.run(&["--json", "verify"])?.failure()?;
    ensure!(code == "ERR_FEED_NOT_FOUND" && said.contains("--key"), "{code}: {said}");
    let (serving, _) = store.serve(&["--live", "--key", &key])?;
    for args in [&["feeds"][..], &["verify"], &["cat", "w"]] {
        let done = store.run(args)?.ended(1)?;
        ensure!(done.stderr.contains("no root key is given"), "{args:?}: {}", done.stderr);
    }
    ensure!(store.run(&["--key", &key, "cat", "w"])?.ok()?.text() == "one");
    serving.signal("TERM")?;
    serving.ended(0)?;
    Ok(())
}
