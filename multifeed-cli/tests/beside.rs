//! Commands that read beside a process that writes all the time: what they report is right, or they say that the store changed meanwhile.

#![cfg(unix)]

use crate::common;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use common::{Done, Store};
use multifeed_testkit::blocks;
use multifeed_testkit::js::JsPeer;

/// How often each command is run beside each writer.
const READS: usize = 50;
/// Blocks after which a writer only goes on slowly, so that reading stays quick.
const MANY: u32 = 3000;

/// How often a command said that it could not read the store as it was at one moment.
#[derive(Debug, Default)]
struct Seen {
    right: usize,
    changed: usize,
}

impl Seen {
    /// What a command printed with `--json`, if it could read.
    fn look(&mut self, done: Done, what: &str) -> Result<Option<Done>> {
        if done.code == Some(0) {
            self.right += 1;
            return Ok(Some(done));
        }
        let text = format!("{what}: {:?}\n{}\n{}", done.code, done.text(), done.stderr);
        ensure!(
            done.text().contains("ERR_STORE_CHANGED") || done.stderr.contains("changed while it was read"),
            "{text}"
        );
        ensure!(done.code == Some(1) && !done.text().contains("damaged"), "{text}");
        self.changed += 1;
        Ok(None)
    }
}

/// Runs `write` over and over while the store is read. `theirs` is the feed that it writes, and what its blocks are.
fn read_beside(
    store: &Store,
    theirs: &str,
    block: impl Fn(u64) -> Vec<u8> + Sync,
    mut write: impl FnMut() -> Result<()> + Send,
) -> Result<Seen> {
    let stop = AtomicBool::new(false);
    let mut seen = Seen::default();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !stop.load(Relaxed) {
                write()?;
            }
            Ok::<_, anyhow::Error>(())
        });
        let read = (0..READS).try_for_each(|_| {
            ensure!(!writer.is_finished(), "the writer ended");
            if let Some(done) = seen.look(store.run(&["--json", "verify"])?, "verify")? {
                ensure!(done.objects()?.iter().all(|line| line["event"] == "verified"), "{}", done.text());
                ensure!(!done.stderr.contains("damage"), "{}", done.stderr);
            }
            if let Some(done) = seen.look(store.run(&["--json", "feeds"])?, "feeds")? {
                ensure!(done.objects()?.iter().any(|line| line["key"] == theirs), "{}", done.text());
            }
            let done = store.run(&["--json", "cat", theirs])?;
            // What was just cleared is not held, and nothing is wrong with that.
            if done.stderr.contains("is not in this store") || done.text().contains("ERR_BLOCK_NOT_HELD") {
                return Ok(());
            }
            if let Some(done) = seen.look(done, "cat")? {
                for (index, line) in (0..).zip(done.objects()?) {
                    let text = line["text"].as_str().map(|text| Ok(text.as_bytes().to_vec()));
                    let bytes =
                        || base64::engine::general_purpose::STANDARD.decode(line["base64"].as_str().unwrap_or(""));
                    let read = text.unwrap_or_else(bytes)?;
                    ensure!(read == block(index), "block {index} is another one");
                }
            }
            Ok(())
        });
        stop.store(true, Relaxed);
        let wrote = writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        read.and(wrote)
    })?;
    println!("{seen:?}");
    ensure!(seen.right >= seen.changed, "a reader hardly ever gets through: {seen:?}");
    Ok(seen)
}

/// A block of a size that depends on its number, which it begins with.
fn block(index: u64) -> Vec<u8> {
    let mut block = format!("block {index} ").into_bytes();
    block.resize(block.len() + (index as usize * 37) % 900, b'.');
    block
}

/// Lines for `append -`: the next blocks from `from` on.
fn lines(from: u64, count: u64) -> Vec<u8> {
    (from..from + count).flat_map(|index| [&block(index)[..], b"\n"].concat()).collect()
}

/// The length of a feed as an `append` printed it. A reader that has the store open just then does not make it fail.
fn appended(done: Done) -> Result<u64> {
    done.one_object(0)?["length"].as_u64().context("no length")
}

#[test]
fn a_store_is_read_beside_appends() -> Result<()> {
    let store = Store::new()?;
    let key = store.append("notes", &[block(0)])?;
    let mut next = 1;
    read_beside(&store, &key, block, || {
        let count = if next < u64::from(MANY) { 40 } else { 1 };
        next = appended(store.run_with(&["--json", "append", "notes", "-"], &lines(next, count))?)?;
        Ok(())
    })?;
    store.checked()?;
    Ok(())
}

#[test]
fn a_store_is_read_beside_what_comes_in() -> Result<()> {
    let (store, other) = (Store::new()?, Store::new()?);
    let key = other.append("theirs", &[block(0)])?;
    store.append("notes", &["one", "two"])?;
    let (serving, address) = store.serve(&["--live"])?;
    // Without its socket nothing goes through it.
    std::fs::remove_file(store.path().join("multifeed.socket"))?;
    let mut following = other.sync(address, &["--live"])?;
    following.received(2)?;
    let mut next = 1;
    read_beside(&store, &key, block, || {
        let count = if next < u64::from(MANY) { 100 } else { 1 };
        let done = other.run_with(&["--json", "append", "theirs", "-"], &lines(next, count))?;
        next = appended(done)?;
        Ok(())
    })?;
    for (store, running) in [(&other, following), (&store, serving)] {
        running.signal("TERM")?;
        // What was appended last may be on its way.
        running.ended_with_one_of(&[0, 143])?;
        store.checked()?;
    }
    Ok(())
}

#[test]
fn a_store_is_read_beside_clearing_and_fetching() -> Result<()> {
    const BLOCKS: u64 = 300;
    let (store, other) = (Store::new()?, Store::new()?);
    let key = other.append("theirs", &(0..BLOCKS).map(block).collect::<Vec<_>>())?;
    let (serving, address) = other.serve(&["--live"])?;
    store.sync(address, &[])?.ended(0)?;
    let mut turn = 0;
    read_beside(&store, &key, block, || {
        turn += 1;
        let start = turn * 31 % BLOCKS;
        let range = format!("{start}..{}", (start + 60).min(BLOCKS));
        for args in [&["--json", "clear", &key, &range][..], &["--json", "sync", &address.to_string()]] {
            store.run(args)?.ok()?;
        }
        Ok(())
    })?;
    store.sync(address, &[])?.ended(0)?;
    serving.kill()?;
    store.checked()?;
    Ok(())
}

/// Each command that writes waits for a lock that another process has, if that does not listen for commands. This test has it, and lets go once
/// the command says that it waits.
#[test]
fn who_writes_waits_for_the_lock() -> Result<()> {
    let (store, other) = (Store::new()?, Store::new()?);
    other.append("theirs", &["one"])?;
    let (serving, address) = other.serve(&["--live"])?;
    let third = Store::new()?;
    third.append("thirds", &["one"])?;
    let key = store.append("notes", &["one", "two"])?;
    let address = address.to_string();
    let commands: [&[&str]; 8] = [
        &["append", "notes", "three"],
        &["ban", &"ab".repeat(32)],
        &["clear", "--writer", "notes", "0"],
        &["verify", "--repair"],
        &["sync", &address],
        &["serve", "127.0.0.1:0"],
        &["sync", third.text()],
        &["remove", &key, "--writer"],
    ];
    for args in commands {
        let what = format!("{args:?}");
        let lock = std::fs::File::open(store.path().join("multifeed.lock"))?;
        lock.lock()?;
        let mut command = common::command(&[&store.option(), args].concat());
        let mut child =
            command.env("RUST_LOG", "multifeed=debug").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut log = BufReader::new(child.stderr.take().context("no stderr")?).lines();
        ensure!(
            log.any(|line| line.is_ok_and(|line| line.contains("is locked: waiting for it"))),
            "{what} does not wait"
        );
        // What it says later has room.
        let log = thread::spawn(move || log.map_while(Result::ok).collect::<Vec<_>>());
        drop(lock);
        if args[0] == "serve" {
            let mut line = String::new();
            BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
            ensure!(line.starts_with("listening on"), "{what}: {line}");
            child.kill()?;
            child.wait()?;
            continue;
        }
        let status = child.wait()?;
        let log = log.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        ensure!(status.success(), "{what}: {status}\n{log:#?}");
    }
    serving.kill()?;
    Ok(())
}

/// JS takes no lock of ours, and writes in an order of its own.
#[test]
fn a_store_is_read_beside_js() -> Result<()> {
    let store = Store::new()?;
    let mut peer = JsPeer::spawn(&["--store", store.text()])?;
    let key = peer.append("theirs", 1, 40, 0)?;
    // The blocks of each batch are made anew from its first.
    let batch: usize = 20;
    let made = |index: u64| match index.checked_sub(1) {
        None => blocks::block(0, 0, 40),
        Some(index) => blocks::block(1, (index % batch as u64) as u32, 200),
    };
    let mut next = 1;
    read_beside(&store, &key, made, || {
        if next < MANY {
            peer.append("theirs", batch as u32, 200, 1)?;
            next += batch as u32;
        }
        thread::sleep(std::time::Duration::from_millis(1));
        Ok(())
    })?;
    peer.close()?;
    store.checked()?;
    Ok(())
}

/// Damage is reported as such, also while another process has the store open.
#[test]
fn damage_is_reported_beside_a_process_that_serves() -> Result<()> {
    let store = Store::new()?;
    let all: Vec<Vec<u8>> = (0..20).map(block).collect();
    let key = store.append("notes", &all)?;
    let (serving, _) = store.serve(&["--live"])?;
    let data = std::fs::OpenOptions::new().write(true).open(store.path().join("0/data"))?;
    data.write_all_at(b"X", all[..7].iter().map(|block| block.len() as u64).sum())?;
    let done = store.run(&["--json", "verify"])?.ended(1)?;
    let damaged: Vec<_> = done.objects()?.into_iter().filter(|line| line["event"] == "damaged").collect();
    ensure!(damaged.len() == 1 && damaged[0]["block"] == 7 && damaged[0]["key"] == key.as_str(), "{}", done.text());
    let (code, message) = store.run(&["--json", "verify"])?.failure()?;
    ensure!(code == "ERR_STORE_DAMAGED", "{code}: {message}");
    let done = store.run(&["cat", "notes"])?.ended(1)?;
    ensure!(done.stdout == all[..7].concat() && !done.stderr.contains("changed while"), "{}", done.stderr);
    match store.run(&["cat", "notes", "8"])?.ok()?.stdout {
        block if block == all[8] => {}
        block => bail!("{} bytes", block.len()),
    }
    serving.kill()?;
    Ok(())
}
