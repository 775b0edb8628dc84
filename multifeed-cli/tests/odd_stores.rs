//! Stores that another process has open, or has locked a feed of, and systems that have few file handles: through the built binary.

mod common;

use std::fs::File;

use anyhow::{Result, ensure};
use common::{Running, Store};

#[test]
fn a_store_that_is_served_can_be_read() -> Result<()> {
    let store = Store::new()?;
    store.run(&["append", "notes", "one"])?.ok()?;
    let (serving, address) = store.serve(&["--live"])?;
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
    // Two that write are one too many.
    let (code, _) = store.run(&["--json", "append", "notes", "two"])?.failure()?;
    assert_eq!(code, "ERR_STORE_LOCKED");
    // It is none the worse.
    other.run(&["append", "theirs", "d"])?.ok()?;
    other.sync(address, &[])?.ended(0)?;
    assert_eq!(store.run(&["cat", "1"])?.ok()?.text(), "abcd");
    serving.kill()?;
    store.checked()?;
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
    serving.ended(0)?;
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
