//! Stores that another process has open, or has locked a feed of, and systems that have few file handles: through the built binary.

use crate::common;

use std::fs::File;

use anyhow::{Result, ensure};
use common::{Running, Store};

#[test]
fn a_store_that_is_served_can_be_read() -> Result<()> {
    let store = Store::new()?;
    store.run(&["append", "notes", "one"])?.ok()?;
    let (serving, address) = store.serve(&["--live"])?;
    // Without its socket nothing goes through it.
    std::fs::remove_file(store.path().join("multifeed.socket"))?;
    let other = Store::new()?;
    other.run(&["append", "theirs", "a", "b", "c"])?.ok()?;
    // What comes in makes it a store that was not closed.
    other.sync(address, &[])?.ended(0)?;
    for _ in 0..2 {
        let feeds = store.run(&["--json", "feeds"])?.ok()?.objects()?;
        let held: Vec<u64> = feeds.iter().filter_map(|feed| feed["downloaded"].as_u64()).collect();
        assert_eq!(held, [1, 3]);
        let done = store.run(&["cat", "notes"])?.ok()?;
        assert_eq!(done.text(), "one");
        ensure!(done.stderr.contains("another process has the store open"), "{}", done.stderr);
        assert_eq!(store.run(&["cat", "1"])?.ok()?.text(), "abc");
        store.run(&["verify"])?.ok()?;
    }
    // Another command that writes is one too many, and learns which process it has to end.
    let (code, message) = store.run(&["--json", "ban", "notes"])?.failure()?;
    assert_eq!(code, "ERR_STORE_LOCKED");
    if cfg!(target_os = "linux") {
        let holder = format!("process {}, multifeed, has the store open", serving.id());
        ensure!(message.contains(&holder), "{message}");
    }
    // It is none the worse.
    other.run(&["append", "theirs", "d"])?.ok()?;
    other.sync(address, &[])?.ended(0)?;
    assert_eq!(store.run(&["cat", "1"])?.ok()?.text(), "abcd");
    serving.kill()?;
    store.checked()?;
    Ok(())
}

/// JS reads the rest, and the disk has its space back.
#[cfg(target_os = "linux")]
#[test]
fn what_is_cleared_gives_its_space_back_and_js_reads_the_rest() -> Result<()> {
    use multifeed_testkit::blocks::blocks;
    use multifeed_testkit::js;
    use std::os::unix::fs::MetadataExt;
    let (store, other) = (Store::new()?, Store::new()?);
    let all = blocks(64, 100_000, 7);
    other.append("theirs", &all)?;
    let (serving, address) = other.serve(&["--live"])?;
    store.sync(address, &[])?.ended(0)?;
    let data = store.path().join("0/data");
    let used = || -> Result<u64> { Ok(std::fs::metadata(&data)?.blocks() * 512) };
    let before = used()?;
    // One after another: what the disk could not give back of one, it gives back with the next.
    for block in 10..30 {
        let range = block.to_string();
        let line = store.run(&["--json", "clear", "0", &range])?.ok()?.objects()?;
        assert_eq!((&line[0]["cleared"], &line[0]["downloaded"]), (&1.into(), &(63 - (block - 10)).into()));
    }
    let after = used()?;
    println!("{before} bytes of the disk before, {after} after 20 of 64 blocks of 100,000 bytes were cleared");
    ensure!(before - after >= 19 * 100_000 && std::fs::metadata(&data)?.len() == 6_400_000, "{before}, {after}");
    store.run(&["verify"])?.ok()?;
    assert_eq!(store.run(&["cat", "0", "0..10"])?.ok()?.stdout, all[..10].concat());
    let (code, message) = store.run(&["--json", "clear", "0", "0..65"])?.failure()?;
    ensure!(
        code == "ERR_RANGE" && message.contains("64 blocks") && message.contains("no block 64"),
        "{code}: {message}"
    );
    let (code, message) = store.run(&["--json", "clear", "0", "999.."])?.failure()?;
    ensure!(code == "ERR_RANGE" && message.ends_with("there is no block 999"), "{code}: {message}");
    let js_holds = |store: &Store| -> Result<(u64, u64, u64)> {
        let feed = js::audit(store.path())?.remove(0);
        ensure!(feed.is_sound(), "{feed:?}");
        Ok((feed.length, feed.downloaded, feed.audit.map_or(0, |audit| audit.valid)))
    };
    assert_eq!(js_holds(&store)?, (64, 44, 44));
    // They come again.
    store.sync(address, &[])?.ended(0)?;
    assert_eq!(store.run(&["cat", "0"])?.ok()?.stdout, all.concat());
    serving.kill()?;
    store.checked()?;

    // What is written here is mostly nowhere else.
    let ours = Store::new()?;
    ours.append("ours", &blocks(4, 100, 8))?;
    let (code, message) = ours.run(&["--json", "clear", "ours", "1"])?.failure()?;
    ensure!(code == "ERR_OWN_WRITER" && message.contains("lost"), "{code}: {message}");
    ours.run(&["clear", "ours", "1..3", "--writer"])?.ok()?;
    ours.run(&["append", "ours", "five"])?.ok()?;
    assert_eq!(ours.run(&["cat", "ours", "4"])?.ok()?.text(), "five");
    assert_eq!(js_holds(&ours)?, (5, 3, 3));
    Ok(())
}

/// Its blocks are not lost as long as nobody writes that they are: `data` may be on a disk that is out.
#[test]
fn a_command_that_reads_changes_nothing_of_a_feed_whose_data_is_missing() -> Result<()> {
    let (store, other) = (Store::new()?, Store::new()?);
    other.append("theirs", &["one", "two", "three"])?;
    let (serving, address) = other.serve(&["--live"])?;
    store.sync(address, &[])?.ended(0)?;
    store.run(&["append", "ours", "four"])?.ok()?;
    let all = |folder: &std::path::Path| -> Result<Vec<(std::path::PathBuf, Vec<u8>)>> {
        let mut files = Vec::new();
        for slot in ["", "0", "1"] {
            for entry in std::fs::read_dir(folder.join(slot))? {
                let path = entry?.path();
                if path.is_file() {
                    files.push((path.clone(), std::fs::read(path)?));
                }
            }
        }
        files.sort();
        Ok(files)
    };
    let data = store.path().join("0/data");
    let elsewhere = other.path().join("elsewhere");
    std::fs::rename(&data, &elsewhere)?;
    let before = all(store.path())?;
    for command in [&["feeds"][..], &["cat", "0", "0..0"], &["cat", "ours"], &["verify"]] {
        let done = store.run(command)?;
        ensure!(done.stderr.contains("not there: 3") && done.stderr.contains("nothing was changed"), "{}", done.stderr);
        ensure!(all(store.path())? == before, "{command:?} changed something");
    }
    // Put back, it is all there.
    std::fs::rename(&elsewhere, &data)?;
    assert_eq!(store.run(&["cat", "0"])?.ok()?.text(), "onetwothree");
    // What writes says what it repairs, and what is gone comes again.
    std::fs::remove_file(&data)?;
    let done = store.run(&["append", "ours", "five"])?.ok()?;
    ensure!(done.stderr.contains("was repaired") && done.stderr.contains("not there: 3"), "{}", done.stderr);
    store.sync(address, &[])?.ended(0)?;
    assert_eq!(store.run(&["cat", "0"])?.ok()?.text(), "onetwothree");
    serving.kill()?;
    store.checked()?;
    Ok(())
}

#[cfg(unix)]
#[test]
fn what_is_appended_beside_a_running_process_goes_through_it() -> Result<()> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    let store = Store::new()?;
    let socket = store.path().join("multifeed.socket");
    store.run(&["append", "notes", "one"])?.ok()?;
    // What a process that was killed left behind is replaced.
    drop(UnixListener::bind(&socket)?);
    let (mut serving, address) = store.serve(&["--live"])?;
    let meta = std::fs::symlink_metadata(&socket)?;
    ensure!(meta.file_type().is_socket() && meta.permissions().mode() & 0o777 == 0o600, "{meta:?}");
    let other = Store::new()?;
    let mut following = other.sync(address, &["--live"])?;
    following.received(1)?;
    let line = store.run(&["--json", "append", "notes", "two", ""])?.ok()?.objects()?;
    assert_eq!(
        (line[0]["name"].as_str(), &line[0]["start"], &line[0]["length"]),
        (Some("notes"), &1.into(), &3.into())
    );
    // A peer that follows gets them at once.
    following.received(2)?;
    // More than one batch, into a writer that is new.
    let lines: Vec<u8> =
        (0..40u8).flat_map(|number| [&vec![b'a' + number % 26; 1 << 20][..], b"\n"].concat()).collect();
    store.run_with(&["--durability", "always", "append", "log", "-"], &lines)?.ok()?;
    following.received(40)?;
    let (code, message) = store.run(&["--json", "append", "--new-key", "log", "x"])?.failure()?;
    ensure!(code == "ERR_FEED_NOT_FOUND" && message.contains("not missing"), "{code}: {message}");
    // So does the other side of the sync.
    other.run(&["append", "theirs", "three"])?.ok()?;
    serving.received(1)?;
    for (store, running) in [(&other, following), (&store, serving)] {
        running.signal("TERM")?;
        // What came last may not be acknowledged.
        running.ended_with_one_of(&[0, 143])?;
        ensure!(!store.path().join("multifeed.socket").exists(), "the socket is left over");
    }
    assert_eq!(store.run(&["cat", "notes"])?.ok()?.text(), "onetwo");
    assert_eq!(store.run(&["cat", "2"])?.ok()?.text(), "three");
    assert_eq!(other.run(&["cat", "1"])?.ok()?.text().len(), 40 << 20);
    store.checked()?;
    other.checked()?;

    // What is in the socket's place is left alone, and not followed.
    symlink(other.path().join("key"), &socket)?;
    let (serving, _) = store.serve(&["--live"])?;
    let (code, _) = store.run(&["--json", "append", "notes", "four"])?.failure()?;
    assert_eq!(code, "ERR_STORE_LOCKED");
    serving.kill()?;
    ensure!(std::fs::symlink_metadata(&socket)?.is_symlink(), "it was replaced");
    store.run(&["append", "notes", "four"])?.ok()?;
    Ok(())
}

#[test]
fn a_feed_that_another_process_has_locked_keeps_no_other_from_its_user() -> Result<()> {
    let store = Store::new()?;
    store.run(&["append", "first", "one"])?.ok()?;
    store.run(&["append", "second", "two"])?.ok()?;
    let theirs = File::open(store.path().join("0/bitfield"))?;
    theirs.lock()?;
    let feeds = store.run(&["--json", "feeds"])?.ok()?.objects()?;
    assert_eq!(feeds.len(), 2);
    assert_eq!(store.run(&["cat", "first"])?.ok()?.text(), "one");
    assert_eq!(store.run(&["cat", "second"])?.ok()?.text(), "two");
    store.run(&["append", "second", "three"])?.ok()?;
    let (code, message) = store.run(&["--json", "append", "first", "four"])?.failure()?;
    ensure!(code == "ERR_STORE_LOCKED" && message.contains("0/bitfield"), "{code}: {message}");
    // It is served without that one.
    let (serving, address) = store.serve(&["--once"])?;
    let other = Store::new()?;
    other.sync(address, &[])?.ended(0)?;
    serving.ended(3)?;
    assert_eq!(other.run(&["cat", "0"])?.ok()?.text(), "twothree");
    theirs.unlock()?;
    assert_eq!(store.run(&["cat", "first"])?.ok()?.text(), "one");
    store.checked()?;
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
fn few_file_handles_are_for_peers_too() -> Result<()> {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;
    let store = Store::new()?;
    for feed in 0..20 {
        store.run(&["append", &format!("w{feed}"), "x"])?.ok()?;
    }
    // 20 feeds would take 100 files.
    let mut shell = std::process::Command::new("sh");
    let [option, folder] = store.option();
    shell.args(["-c", "ulimit -n 96; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_multifeed")]);
    shell.args([option, folder, "--json", "serve", "127.0.0.1:0", "--live"]);
    let mut serving = Running::start_command(shell)?;
    let address = serving.event("listening")?["address"].as_str().unwrap_or_default().to_owned();
    let reader = Store::new()?;
    reader.sync(address.parse()?, &[])?.ended(0)?;
    // The first message of a Noise handshake: its length, a key, and a payload with a nonce.
    let hello = [&[58][..], &[9; 32], &[0x0a, 0x18], &[1; 24]].concat();
    let mut open = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(&address)?;
        stream.write_all(&hello)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        open.push(stream);
    }
    let answered = open.iter_mut().filter_map(|stream| stream.read_exact(&mut [0]).ok()).count();
    ensure!(answered == 40, "{answered} of 40 were answered");
    drop(open);
    let late = Store::new()?;
    late.sync(address.parse()?, &[])?.ended(0)?;
    serving.kill()?;
    Ok(())
}

/// Fewer file handles than the command needs to begin with, or to open a store: it says so, and does not panic.
#[cfg(target_os = "linux")]
#[test]
fn too_few_file_handles_to_start_are_an_error() -> Result<()> {
    let store = Store::new()?;
    store.run(&["append", "notes", "x"])?.ok()?;
    let [option, folder] = store.option();
    let mut failed = 0;
    // Below four the system does not load the program.
    for handles in 4..24 {
        for args in [&["feeds"][..], &["serve", "127.0.0.1:0"], &["append", "notes", "y"]] {
            let mut shell = std::process::Command::new("timeout");
            let script = format!("ulimit -n {handles}; exec \"$0\" \"$@\"");
            shell.args(["5", "sh", "-c", &script, env!("CARGO_BIN_EXE_multifeed"), option, folder]).args(args);
            let done = shell.output()?;
            let said = String::from_utf8_lossy(&done.stderr);
            ensure!(!said.contains("panicked") && done.status.code() != Some(101), "{handles}, {args:?}: {said}");
            failed += usize::from(said.contains("`ulimit -n`"));
        }
    }
    ensure!(failed > 5, "{failed}");
    store.run(&["verify"])?.ok()?;
    Ok(())
}

/// Connections that say nothing and hang up hold nobody up for longer than it takes to see that, as few as the handles are.
#[cfg(target_os = "linux")]
#[test]
fn connections_that_hung_up_give_their_handles_back_at_once() -> Result<()> {
    use std::net::TcpStream;
    use std::time::{Duration, Instant};
    let store = Store::new()?;
    store.run(&["append", "notes", "x"])?.ok()?;
    let mut shell = std::process::Command::new("sh");
    let [option, folder] = store.option();
    shell.args(["-c", "ulimit -n 32; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_multifeed")]);
    shell.args([option, folder, "--json", "serve", "127.0.0.1:0", "--live"]);
    let mut serving = Running::start_command(shell)?;
    let address = serving.event("listening")?["address"].as_str().unwrap_or_default().to_owned();
    let idle: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&address)).collect::<Result<_, _>>()?;
    std::thread::sleep(Duration::from_secs(1));
    drop(idle);
    let (reader, begun) = (Store::new()?, Instant::now());
    reader.sync(address.parse()?, &[])?.ended(0)?;
    ensure!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    serving.kill()?;
    Ok(())
}
