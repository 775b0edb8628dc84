//! `serve` and `sync` whose lines nobody reads.

use crate::common;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::{Store, TIMEOUT, block_on, command};
use multifeed_tokio::{Multifeed, Options, Replicate, Role};

/// Feeds that one session brings: their lines are more than a pipe holds.
const FEEDS: usize = 700;

/// A server of which nobody reads anything after its first line.
fn serve(store: &Store) -> Result<(Child, BufReader<ChildStdout>, SocketAddr)> {
    let args = [&store.option()[..], &["--json", "serve", "127.0.0.1:0", "--live"]].concat();
    let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::with_capacity(256, child.stdout.take().context("no stdout")?);
    let mut first = String::new();
    lines.read_line(&mut first)?;
    let first: serde_json::Value = serde_json::from_str(&first)?;
    let address = first["address"].as_str().context("no address")?.parse()?;
    Ok((child, lines, address))
}

/// Brings many feeds to a server: whether all came is asked of another session.
fn bring(address: SocketAddr) -> Result<()> {
    block_on(async {
        let multi = Multifeed::in_memory(Options::default()).await?;
        for feed in 0..FEEDS {
            multi.writer(Some(&*feed.to_string())).await?.append("a block").await?;
        }
        let stream = tokio::net::TcpStream::connect(address).await?;
        let totals = multi.replicate(stream, Role::Initiator, Replicate::default()).finish().await?;
        ensure!(totals.moved.blocks_sent as usize == FEEDS, "{totals:?}");
        Ok(())
    })
}

fn ends(child: &mut Child, within: Duration) -> Result<Option<i32>> {
    let start = Instant::now();
    while start.elapsed() < within {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    anyhow::bail!("it did not end within {within:?}")
}

#[test]
fn a_server_whose_lines_nobody_reads_serves_and_can_be_ended() -> Result<()> {
    let store = Store::new()?;
    let (mut child, unread, address) = serve(&store)?;
    bring(address)?;
    // Its pipe is full by now.
    let peer = Store::new()?;
    let mut events = peer.sync(address, &[])?;
    ensure!(events.event("closed")?["blocks_received"] == FEEDS, "not all came");
    events.ended(0)?;
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    ensure!(status.success());
    // It waits two seconds for a reader.
    let start = Instant::now();
    ensure!(ends(&mut child, TIMEOUT)? == Some(0), "it was not a clean end");
    eprintln!("it ended after {:?}", start.elapsed());
    drop(unread);
    ensure!(store.facts()?.len() == FEEDS);
    Ok(())
}

#[test]
fn a_reader_that_comes_late_gets_all_lines() -> Result<()> {
    let store = Store::new()?;
    let (mut child, mut unread, address) = serve(&store)?;
    bring(address)?;
    let reader = std::thread::spawn(move || {
        let lines = unread.by_ref().lines().map_while(Result::ok);
        lines.filter(|line| line.contains("\"event\":\"feed\"")).count()
    });
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    ensure!(status.success());
    ensure!(ends(&mut child, TIMEOUT)? == Some(0), "it was not a clean end");
    let feeds = reader.join().map_err(|_| anyhow::anyhow!("the reader failed"))?;
    ensure!(feeds == FEEDS, "{feeds} feeds were reported");
    Ok(())
}
