//! A process that appends and syncs, killed (`SIGKILL`) at any moment, over and over on the same stores. After each kill the store
//! opens, verifies, has every block whose append returned, and is not shorter than what a peer saw. It syncs on until both hold the same, and
//! JS opens what each kill left, too. `MULTIFEED_KILLS=COUNT` kills more often.
//!
//! So is a JS app that appends ([`a_js_app_killed_while_it_appends`]): what it leaves opens with all that was acknowledged to it.
//!
//! The process is this test program itself, run once more with a variable that makes it the one that is killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use multifeed_testkit::js;
use multifeed_testkit::random::Random;
use multifeed_tokio::driver::core::{self, FileStorage, VerifyCursor};
use multifeed_tokio::{Durability, FeedKey, Multifeed, Options, Replicate, Role};
use tokio::net::{TcpListener, TcpStream};

/// What the killed process gets: folder, durability, the peer's address, and what makes its blocks different from other runs'.
const VARIABLE: &str = "MULTIFEED_KILLED";
/// How often it is killed if nothing else is asked for.
const KILLS: u64 = 24;
/// Kills of one store, before a new one is begun; one JS process then looks at what each of them left.
const KILLS_OF_A_STORE: u64 = 25;

fn main_of_the_killed(told: &str) -> Result<()> {
    let mut words = told.split('\n');
    let mut word = || words.next().context("a word is missing");
    let (folder, level, address, run) = (word()?, word()?, word()?, word()?);
    let durability = match level {
        "none" => Durability::None,
        "interval" => Durability::Interval(Duration::from_millis(20)),
        _ => Durability::Always,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let multi = Multifeed::open(folder, Options::default().with_durability(durability)).await?;
        let feed = multi.writer("ours").await?;
        let stream = TcpStream::connect(address).await?;
        let _sync = multi.replicate(stream, Role::Initiator, Replicate::live());
        let mut random = Random::new(run.parse()?);
        for number in 0u64.. {
            let text =
                |number: u64, pad: u64| format!("{run} {number} {}", "x".repeat(usize::try_from(pad).unwrap_or(0)));
            let blocks: Vec<String> =
                (0..random.between(1, 3)).map(|at| text(number * 10 + at, random.number() % 300)).collect();
            let appended = feed.append_batch(blocks.clone()).await?;
            let mut out = std::io::stdout().lock();
            for (index, block) in appended.zip(blocks) {
                writeln!(out, "appended {index} {block}")?;
            }
            out.flush()?;
            tokio::task::yield_now().await;
        }
        Ok(())
    })
}

#[test]
fn killed_at_any_moment() -> Result<()> {
    if let Ok(told) = std::env::var(VARIABLE) {
        return main_of_the_killed(&told);
    }
    let asked = std::env::var("MULTIFEED_KILLS").ok().and_then(|text| text.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for (at, level) in ["none", "interval", "always"].into_iter().enumerate() {
        let (mut left, mut store) = (asked.unwrap_or(KILLS).div_ceil(3), 0);
        while left > 0 {
            let kills = left.min(KILLS_OF_A_STORE);
            let seed = at as u64 + 3 * store;
            runtime.block_on(kill(level, kills, seed)).with_context(|| format!("durability {level}, store {store}"))?;
            (left, store) = (left - kills, store + 1);
            println!("{level}: {kills} kills of store {store}, {left} left");
        }
    }
    Ok(())
}

/// How a block of `append.js` begins; the rest is padding.
fn is_block(at: u64, block: &[u8]) -> bool {
    let text = format!("block {at} ");
    let size = usize::try_from(10 + (at * 37) % 400).unwrap_or(0);
    let padded = text.clone() + &"x".repeat(size.saturating_sub(text.len()));
    padded.as_bytes() == block
}

/// JS marks the blocks of an append after its data, tree and signature, which are written at once: a kill leaves any of them. Ours opens it with all
/// that was appended, goes on, and so does JS.
#[test]
fn a_js_app_killed_while_it_appends() -> Result<()> {
    let asked = std::env::var("MULTIFEED_KILLS").ok().and_then(|text| text.parse().ok());
    let kills = asked.map_or(6, |kills: u64| kills.div_ceil(3));
    js::install()?;
    let folders = tempfile::tempdir()?;
    let mut random = Random::new(kills);
    for run in 0..kills {
        let folder = folders.path().join(format!("{run}"));
        if run % 2 == 1 {
            // One that our journal knows.
            let mut store = core::Multifeed::open(FileStorage::open(&folder)?, core::Options::default())?;
            store.writer(Some("ours"), || core::KeyPair::from_seed(&[9; 32]))?;
            store.close()?;
        }
        let lines = random.between(1, 300);
        let wait = Duration::from_micros(random.between(0, 2_000));
        let mut child = Command::new("node")
            .arg("append.js")
            .arg(&folder)
            .arg("ours")
            .current_dir(js::interop_dir())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut appended = 0;
        let mut seen = 0;
        let mut out = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        while let Some(Ok(line)) = out.next() {
            let length = line.strip_prefix("appended ").context("another line")?;
            // A line cut by the kill is a shorter number.
            appended = appended.max(length.parse()?);
            seen += 1;
            if seen == lines {
                std::thread::sleep(wait);
                child.kill()?;
            }
        }
        child.wait()?;
        ensure!(seen >= lines, "it ended by itself");

        let copy = folders.path().join(format!("{run}-before"));
        copy_folder(&folder, &copy)?;
        let check = || -> Result<u64> {
            let mut store = core::Multifeed::open(FileStorage::open(&folder)?, core::Options::default())?;
            ensure!(store.problems().is_empty(), "{:?}", store.problems());
            let ours = store.find_name("ours").context("the writer is gone")?;
            let length = store.info(ours)?.len;
            ensure!(length >= appended, "{appended} blocks were appended, and {length} are left");
            for at in 0..length {
                let block = store.get(ours, at)?.with_context(|| format!("block {at} is gone"))?;
                ensure!(is_block(at, &block), "block {at} is another one");
            }
            let last = format!("block {length} ").into_bytes();
            store.append(ours, &[last.into()])?;
            store.close()?;
            Ok(length)
        };
        let length = check().with_context(|| {
            let kept = folders.path().join(format!("{run}-before"));
            format!("kill {run}, what it left was {}", kept.display())
        })?;
        let feeds = js::audit(&folder)?;
        ensure!(feeds.len() == 1 && feeds[0].is_sound() && feeds[0].length == length + 1, "{feeds:?}");
        std::fs::remove_dir_all(&folder)?;
        std::fs::remove_dir_all(&copy)?;
    }
    Ok(())
}

/// Kills as often on one store, with one peer that lives on.
async fn kill(level: &str, kills: u64, seed: u64) -> Result<()> {
    let folders = tempfile::tempdir()?;
    let ours = folders.path().join("ours");
    let peer = Multifeed::open(folders.path().join("peer"), Options::default()).await?;
    let theirs = peer.writer("theirs").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn({
        let peer = peer.clone();
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut sync = peer.replicate(stream, Role::Responder, Replicate::live());
                tokio::spawn(async move { while sync.next().await.is_some() {} });
            }
        }
    });
    let writing = tokio::spawn({
        let theirs = theirs.clone();
        async move {
            for number in 0u64.. {
                if theirs.append(format!("theirs {number}")).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });

    let mut random = Random::new(seed);
    let mut appended = BTreeMap::new();
    let mut copies = Vec::new();
    for run in 0..kills {
        let told = format!("{}\n{level}\n{address}\n{}", ours.display(), seed * 100_000 + run);
        let wait = Duration::from_micros(random.between(0, 60_000));
        let (acknowledged, before) = {
            let before = appended.len();
            let lines = tokio::task::spawn_blocking(move || run_and_kill(&told, wait)).await??;
            (lines, before)
        };
        for line in acknowledged {
            let (index, block) = line.split_once(' ').context("a line without a block")?;
            appended.insert(index.parse::<u64>()?, block.to_owned());
        }
        ensure!(appended.len() > before, "nothing was appended in run {run}");
        // What the peer has seen by now it may have more of in a moment: first it, then ours.
        let seen: BTreeMap<FeedKey, u64> =
            peer.feeds().iter().filter(|feed| !feed.writable()).map(|feed| (feed.key(), feed.len())).collect();
        // As the kill left it.
        let copy = folders.path().join(format!("js{run}"));
        copy_folder(&ours, &copy)?;
        copies.push(copy);
        check(&ours, &appended, &seen).with_context(|| format!("kill {run}"))?;
        sync_on(&ours, level, &peer, address).await.with_context(|| format!("sync after kill {run}"))?;
    }
    audit(copies).await.context("JS")?;
    writing.abort();
    server.abort();
    peer.close().await?;
    Ok(())
}

/// Runs the process until it was acknowledged a block and some time has passed; the lines of the blocks it appended.
fn run_and_kill(told: &str, wait: Duration) -> Result<Vec<String>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["killed_at_any_moment", "--exact", "--nocapture"])
        .env(VARIABLE, told)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let mut appended = Vec::new();
    let mut kill_at = None;
    // A line cut by the kill was not reported.
    while let Some(Ok(line)) = lines.next() {
        if let Some(block) = line.strip_prefix("appended ") {
            appended.push(block.to_owned());
            kill_at.get_or_insert_with(|| Instant::now() + wait);
        }
        if kill_at.is_some_and(|at| at <= Instant::now()) {
            break;
        }
    }
    child.kill()?;
    let status = child.wait()?;
    if appended.is_empty() {
        let mut text = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut text)?;
        }
        bail!("it ended by itself ({status}): {text}");
    }
    // What was in the pipe is not read to its end: the last line may be half a one.
    Ok(appended)
}

fn check(folder: &Path, appended: &BTreeMap<u64, String>, seen: &BTreeMap<FeedKey, u64>) -> Result<()> {
    let mut store = core::Multifeed::open(FileStorage::open(folder)?, core::Options::default())?;
    ensure!(store.problems().is_empty(), "{:?}", store.problems());
    for id in store.feeds().collect::<Vec<_>>() {
        let mut cursor = VerifyCursor::default();
        loop {
            let step = store.verify_step(id, &mut cursor, 1 << 20)?;
            ensure!(step.findings.is_empty(), "{:?}", step.findings);
            if step.done {
                break;
            }
        }
        let info = store.info(id)?;
        if let Some(length) = seen.get(&info.key) {
            ensure!(info.len >= *length, "the peer saw {length} blocks, and {} are left", info.len);
        }
    }
    let ours = store.find_name("ours").context("the writer is gone")?;
    for (index, block) in appended {
        let held = store.get(ours, *index)?.with_context(|| format!("block {index} is gone"))?;
        ensure!(held == *block, "block {index} is another one");
    }
    Ok(())
    // And not closed: the next one finds it as the kill left it.
}

/// JS checks copies: its audit writes.
async fn audit(copies: Vec<PathBuf>) -> Result<()> {
    let audited = tokio::task::spawn_blocking(move || {
        let audited = js::audit_all(&copies);
        // What it did not take stays to be looked at.
        if audited.as_ref().is_ok_and(|stores| stores.iter().flatten().all(js::JsFeed::is_sound)) {
            copies.iter().try_for_each(std::fs::remove_dir_all)?;
        }
        audited
    });
    for feeds in audited.await?? {
        // The kill may have come before there was anything of the peer's.
        ensure!(!feeds.is_empty() && feeds.iter().all(js::JsFeed::is_sound), "{feeds:?}");
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Syncs until our feed is the same on both sides, and ours has all that theirs had when it began.
async fn sync_on(folder: &Path, level: &str, peer: &Multifeed, address: std::net::SocketAddr) -> Result<()> {
    let durability = if level == "none" { Durability::None } else { Durability::Always };
    let multi = Multifeed::open(folder, Options::default().with_durability(durability)).await?;
    let ours = multi.feed_by_name("ours").context("the writer is gone")?;
    let theirs = peer.feed_by_name("theirs").context("the peer's writer is gone")?.len();
    let stream = TcpStream::connect(address).await?;
    let totals = multi.replicate(stream, Role::Initiator, Replicate::default()).finish().await?;
    ensure!(totals.moved.holes.is_empty(), "{:?}", totals.moved.holes);
    // It was sent all; it may still be writing, its first block of it, too.
    let deadline = Instant::now() + Duration::from_secs(20);
    let has_all = || peer.feed(ours.key()).is_some_and(|copy| copy.downloaded() >= ours.len());
    while !has_all() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let copy = peer.feed(ours.key()).context("the peer does not have our feed")?;
    ensure!(copy.len() == ours.len() && copy.downloaded() == ours.len(), "{} of {}", copy.downloaded(), ours.len());
    for index in 0..ours.len() {
        ensure!(ours.get(index).await? == copy.get(index).await?, "block {index} differs");
    }
    let read = multi.feeds().into_iter().find(|feed| !feed.writable()).context("their feed is not here")?;
    ensure!(read.downloaded() >= theirs && read.downloaded() == read.len(), "{} of {theirs}", read.downloaded());
    multi.close().await?;
    Ok(())
}
