//! Disks and folders that change while a store is open, and what a command says of them: through the built binary.

use crate::common;

use anyhow::{Context, Result, ensure};
use common::Store;
use multifeed_testkit::js::JsPeer;

/// A program that looks at the exit code alone sees it too.
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

/// Nothing came while the store was away. What is appended at the old path is another store: the server's exit code says that its own was moved.
#[test]
fn a_server_fails_when_it_ends_if_its_store_was_moved_and_nothing_came() -> Result<()> {
    for is_replaced in [false, true] {
        let place = Store::new()?;
        let [here, there] = ["here", "there"].map(|name| place.path().join(name));
        let folder = here.to_str().context("no text")?;
        common::run(&["--store", folder, "append", "notes", "one"], b"")?.ok()?;
        let mut serving = common::Running::start(&["--store", folder, "--json", "serve", "127.0.0.1:0", "--live"])?;
        serving.event("listening")?;
        std::fs::rename(&here, &there)?;
        if is_replaced {
            common::run(&["--store", folder, "append", "notes", "two"], b"")?.ok()?;
        }
        serving.signal("TERM")?;
        let lines = serving.ended(1)?;
        ensure!(lines.last().is_some_and(|line| line["code"] == "ERR_STORE_MOVED"), "{lines:?}");
        let there = there.to_str().context("no text")?;
        assert_eq!(common::run(&["--store", there, "cat", "notes"], b"")?.ok()?.text(), "one");
    }
    Ok(())
}

/// A store that is moved, removed or replaced while an append waits for its input takes nothing more, and nothing is made in its old place.
#[test]
fn an_append_that_waits_while_its_store_is_moved_fails() -> Result<()> {
    use std::io::Write;
    // Whether it has begun, and whether more comes: a batch has 16 MiB, or what there is at the end of the input.
    for (is_served, is_gone, has_begun, more) in [
        (false, false, false, true),
        (false, true, false, true),
        (false, false, true, false),
        (false, true, true, false),
        (false, false, true, true),
        (true, false, true, false),
        (true, false, false, true),
    ] {
        let what = format!("served {is_served}, gone {is_gone}, begun {has_begun}, more {more}");
        let place = Store::new()?;
        let [here, there] = ["here", "there"].map(|name| place.path().join(name));
        let folder = here.to_str().context("no text")?;
        common::run(&["--store", folder, "append", "notes", "one"], b"")?.ok()?;
        let serving = match is_served {
            true => {
                let mut serving =
                    common::Running::start(&["--store", folder, "--json", "serve", "127.0.0.1:0", "--live"])?;
                serving.event("listening")?;
                Some(serving)
            }
            false => None,
        };
        let mut appending = common::Running::start_with_input(&["--store", folder, "--json", "append", "notes", "-"])?;
        let mut input = appending.take_input().context("no input")?;
        if has_begun {
            let line = [vec![b'x'; 6 << 20], vec![b'\n']].concat();
            (0..3).try_for_each(|_| input.write_all(&line))?;
            let data = here.join("0/data");
            appending.until(|| std::fs::metadata(&data).is_ok_and(|data| data.len() > 16 << 20))?;
        }
        // It may just have begun to look.
        std::thread::sleep(std::time::Duration::from_millis(300));
        match is_gone {
            true => std::fs::remove_dir_all(&here)?,
            false => std::fs::rename(&here, &there)?,
        }
        if more {
            input.write_all(b"three\n")?;
        }
        drop(input);
        let lines = appending.ended(1)?;
        let last = lines.last().context("nothing")?;
        ensure!(last["code"] == "ERR_STORE_MOVED", "{what}: {lines:?}");
        ensure!(!here.exists(), "{what}: a second store grew at the old path");
        if let Some(serving) = serving {
            serving.kill()?;
        }
    }
    Ok(())
}

/// An append beside a server that found its store, or a feed's folder, moved: the server's exit code says it too.
#[cfg(target_os = "linux")]
#[test]
fn a_server_fails_when_it_ends_if_an_append_through_it_found_the_store_moved() -> Result<()> {
    for folder in ["", "0"] {
        for live_sync in [false, true] {
            let (place, other) = (Store::new()?, Store::new()?);
            let store = place.path().join("store");
            let text = store.to_str().context("no text")?.to_owned();
            common::run(&["--store", &text, "append", "notes", "one"], b"")?.ok()?;
            let (mut serving, peer) = if live_sync {
                let (peer, address) = other.serve(&["--live"])?;
                let sync = ["--store", &text, "--json", "sync", &address.to_string(), "--live"];
                let mut sync = common::Running::start(&sync)?;
                sync.wait_for("being in sync", |event| event["in_sync"] == true)?;
                (sync, Some(peer))
            } else {
                (common::Running::start(&["--store", &text, "--json", "serve", "127.0.0.1:0", "--live"])?, None)
            };
            if !live_sync {
                serving.event("listening")?;
            }
            let (from, to) = (store.join(folder), place.path().join("away"));
            std::fs::rename(&from, &to)?;
            // The socket goes with the store.
            let now = if folder.is_empty() { to.to_str().context("no text")? } else { &text };
            let (code, message) = common::run(&["--store", now, "--json", "append", "notes", "two"], b"")?.failure()?;
            ensure!(code == "ERR_STORE_MOVED", "{code}: {message}");
            match peer {
                // The peer leaves: nothing else is wrong.
                Some(peer) => {
                    peer.signal("TERM")?;
                    peer.ended_with_one_of(&[0, 143])?;
                }
                None => serving.signal("TERM")?,
            }
            let lines = serving.ended(1)?;
            ensure!(lines.last().is_some_and(|line| line["code"] == "ERR_STORE_MOVED"), "{lines:?}");
            std::fs::rename(&to, &from)?;
            let now = common::run(&["--store", &text, "cat", "notes"], b"")?.ok()?.text();
            ensure!(now == "one", "{now}");
        }
    }
    Ok(())
}

/// Files of a folder.
fn files_of(folder: &std::path::Path) -> Result<Vec<(std::path::PathBuf, Vec<u8>)>> {
    let paths = std::fs::read_dir(folder)?.map(|entry| Ok::<_, anyhow::Error>(entry?.path()));
    paths.map(|path| path.and_then(|path| Ok((path.clone(), std::fs::read(path)?)))).collect()
}

/// An older copy of a writer's folder must not be signed on from. It is shown and served; a JS peer that has the rest makes it a writer again.
#[test]
fn an_older_copy_of_a_writer_is_shown_and_goes_on_once_a_js_peer_brought_the_rest() -> Result<()> {
    for ours_listens in [true, false] {
        let (store, js_store, fresh) = (Store::new()?, Store::new()?, Store::new()?);
        let key = store.append("notes", &["one"])?;
        let files = files_of(&store.path().join("0"))?;
        store.run(&["append", "notes", "two"])?.ok()?;
        store.run(&["append", "notes", "three"])?.ok()?;
        with_js(&store, &js_store, ours_listens)?;
        for (path, bytes) in &files {
            std::fs::write(path, bytes)?;
        }
        let done = store.run(&["--json", "feeds"])?.ended(1)?;
        ensure!(done.text().contains(&key) && done.stderr.contains("has 1 block, and this store signed 3"), "{done:?}");
        let found = store.run(&["--json", "verify"])?.ended(1)?.objects()?;
        let found = found.iter().find(|event| event["event"] == "damaged").context("it is not told")?;
        ensure!(found["key"] == key && found["name"] == "notes", "{found}");
        let (code, message) = store.run(&["--json", "append", "notes", "other"])?.failure()?;
        ensure!(code == "ERR_WRITER_OLDER" && message.contains("sync with a peer that has it"), "{code}: {message}");
        // What is here is served, and a peer that has no more changes nothing.
        let (server, address) = store.serve(&["--once"])?;
        fresh.sync(address, &[])?.ended(0)?;
        server.ended(0)?;
        assert_eq!(fresh.run(&["cat", &key])?.ok()?.text(), "one");
        store.run(&["append", "notes", "other"])?.ended(1)?;

        with_js(&store, &js_store, ours_listens)?;
        assert_eq!(store.run(&["cat", "notes"])?.ok()?.text(), "onetwothree");
        store.run(&["append", "notes", "four"])?.ok()?;
        with_js(&store, &js_store, ours_listens)?;
        store.run(&["verify"])?.ok()?;
        let seen = js_store.checked()?;
        ensure!(seen.len() == 1 && seen == store.checked()?, "{seen:?}");
        assert_eq!(js_store.run(&["cat", &key])?.ok()?.text(), "onetwothreefour");
    }
    Ok(())
}

/// A byte that changed in a writer's last block: it alone is gone, and the JS peer that has it brings it back.
#[test]
fn a_writers_last_block_that_rotted_comes_back_from_a_js_peer() -> Result<()> {
    for ours_listens in [true, false] {
        let (store, js_store) = (Store::new()?, Store::new()?);
        store.append("notes", &["one", "two", "three"])?;
        with_js(&store, &js_store, ours_listens)?;
        let data = store.path().join("0/data");
        std::fs::write(&data, "onetwothreE")?;
        let done = store.run(&["verify"])?.ended(1)?;
        ensure!(done.text().contains("(`data` of folder 0): block 2 of this writer"), "{done:?}");
        assert_eq!(store.run(&["cat", "notes", "..2"])?.ok()?.text(), "onetwo");
        if ours_listens {
            // A peer that has nothing of it yet gets the rest, and both sides say the same of the block that neither has.
            let fresh = Store::new()?;
            let (server, address) = store.serve(&["--once"])?;
            let there = fresh.sync(address, &[])?.ended(0)?.pop().context("nothing")?;
            let here = server.ended(0)?.pop().context("nothing")?;
            ensure!(here["in_sync"] == true && here["missing"] == 1 && here["blocks_sent"] == 2, "{here}");
            for field in ["event", "in_sync", "missing", "not_taken", "unwanted", "holes"] {
                ensure!(here[field] == there[field], "{here}\n{there}");
            }
            let fresh = Store::new()?;
            with_js(&store, &fresh, ours_listens)?;
            let seen = fresh.audited()?;
            ensure!(seen.len() == 1 && seen[0].downloaded == 2, "{seen:?}");
        }
        store.run(&["append", "notes", "four"])?.ok()?;
        with_js(&store, &js_store, ours_listens)?;
        store.run(&["verify"])?.ok()?;
        assert_eq!(store.run(&["cat", "notes"])?.ok()?.text(), "onetwothreefour");
        let seen = js_store.checked()?;
        ensure!(seen == store.checked()?, "{seen:?}");
    }
    Ok(())
}

/// A sync with a real JS peer.
fn with_js(store: &Store, js_store: &Store, ours_listens: bool) -> Result<()> {
    let (ours, mut js) = if ours_listens {
        let (server, address) = store.serve(&["--once"])?;
        let mut js = JsPeer::spawn(&["--store", js_store.text()])?;
        js.connect(address)?;
        (server, js)
    } else {
        let (js, address) = JsPeer::listen(&["--store", js_store.text()])?;
        (store.sync(address, &[])?, js)
    };
    let ended = js.event_within("ended", common::TIMEOUT)?;
    ensure!(ended["clean"] == true, "{}", js.history());
    ours.ended(0)?;
    js.close()
}

/// However little is free on a disk that cannot be written: nothing is fetched into it, and all of it is served.
#[cfg(target_os = "linux")]
#[test]
fn a_read_only_store_is_served_and_not_called_full() -> Result<()> {
    let (store, reader) = (Store::new()?, Store::new()?);
    store.append("ours", &["one", "two"])?;
    let Some((serving, address)) = serve_read_only(&store, &["--once", "--keep-free", "1000PB"])? else {
        return Ok(());
    };
    reader.sync(address, &[])?.ended(0)?;
    let lines = serving.ended(0)?;
    ensure!(lines.iter().all(|line| line["event"] != "disk-full"), "{lines:?}");
    ensure!(reader.facts()?.iter().any(|feed| feed.downloaded == 2), "{:?}", reader.facts()?);
    Ok(())
}

/// What a peer has, and a store that can only be read does not, is counted: the two are not in sync.
#[cfg(target_os = "linux")]
#[test]
fn a_read_only_store_whose_peer_has_more_is_not_in_sync() -> Result<()> {
    for by_js in [true, false] {
        // A longer copy of what both have, a feed that is new, and a writer of which this is an old copy.
        for more in [&["theirs"][..], &["new"], &["theirs", "new"], &["ours"], &[]] {
            let what = format!("js {by_js}, {more:?}");
            let (store, peer) = (Store::new()?, Store::new()?);
            store.append("ours", &["one", "two"])?;
            peer.append("theirs", &["three"])?;
            let (server, address) = store.serve(&["--once"])?;
            peer.sync(address, &[])?.ended(0)?;
            server.ended(0)?;
            for name in more {
                if *name == "ours" {
                    // The store is older than its peer.
                    let newer = Store::new()?;
                    common::copy(store.path(), newer.path())?;
                    newer.append(name, &["four", "five"])?;
                    let (server, address) = newer.serve(&["--once"])?;
                    peer.sync(address, &[])?.ended(0)?;
                    server.ended(0)?;
                } else {
                    peer.append(name, &["four", "five"])?;
                }
            }
            let Some((serving, address)) = serve_read_only(&store, &["--once"])? else { return Ok(()) };
            if by_js {
                let mut js = JsPeer::spawn(&["--store", peer.text()])?;
                js.connect(address)?;
                js.event_within("ended", common::TIMEOUT)?;
                js.close()?;
            } else {
                peer.sync(address, &[])?.ended_with_one_of(&[0, 3])?;
            }
            let lines = serving.ended(if more.is_empty() { 0 } else { 3 })?;
            let closed =
                lines.iter().find(|line| line["event"] == "closed").with_context(|| format!("{what}: {lines:?}"))?;
            ensure!(closed["in_sync"] == more.is_empty() && closed["unfetched"] == more.len(), "{what}: {lines:?}");
            let last = lines.last().context("nothing")?;
            ensure!(more.is_empty() || last["code"] == "ERR_NOT_IN_SYNC", "{what}: {last}");
        }
    }
    Ok(())
}

/// A peer that swarms from a disk that cannot be written gives all that it has.
#[cfg(target_os = "linux")]
#[test]
fn a_read_only_store_swarms() -> Result<()> {
    let (store, reader) = (Store::new()?, Store::new()?);
    store.append("ours", &["one", "two"])?;
    let key = "11".repeat(32);
    let args = ["--key", &key, "swarm", "--no-lan", "--live", "--loopback", "1", "--port", "0"];
    let Some((serving, address)) = on_read_only(&store, &args)? else { return Ok(()) };
    let args = ["--json", "--key", &key, "swarm", "--no-lan", "--peer", &address.to_string()];
    common::Running::start(&[&reader.option()[..], &args].concat())?.ended(0)?;
    ensure!(reader.facts()?.iter().any(|feed| feed.downloaded == 2), "{:?}", reader.facts()?);
    drop(serving);
    Ok(())
}

/// Serves a store on a disk that cannot be written; `None` if none can be made here.
#[cfg(target_os = "linux")]
fn serve_read_only(store: &Store, args: &[&str]) -> Result<Option<(common::Running, std::net::SocketAddr)>> {
    on_read_only(store, &[&["serve", "127.0.0.1:0"], args].concat())
}

/// Runs a command that listens, with a store on a disk that cannot be written; `None` if none can be made here.
#[cfg(target_os = "linux")]
fn on_read_only(store: &Store, args: &[&str]) -> Result<Option<(common::Running, std::net::SocketAddr)>> {
    use std::process::Command;
    let unshare = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"];
    if !Command::new("unshare").args(unshare).arg("true").output().is_ok_and(|done| done.status.success()) {
        eprintln!("no disk can be made read-only here");
        return Ok(None);
    }
    let script = r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 77
        store="$1"; shift; exec "$0" --json --store "$store" "$@""#;
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", script, env!("CARGO_BIN_EXE_multifeed"), store.text()]).args(args);
    let mut running = common::Running::start_command(command)?;
    let address = running.event("listening")?["address"].as_str().context("no address")?.parse()?;
    Ok(Some((running, address)))
}
