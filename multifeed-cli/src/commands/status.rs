//! `multifeed status`: how the store stands.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use multifeed_tokio::{Multifeed, Options};
use tokio::time::{Instant, sleep};

use super::control::{self, Ask, LOOK_SHARE, NoBlocks, Request, unless_interrupted};
use super::reading::{close_read, open_beside, open_to_read};
use crate::args::{Global, Status};
use crate::error::{CliError, code};
use crate::output::{Board, Output, StatusLine, StatusPeer};
use crate::stop::Stop;

/// How often it is shown.
const EVERY: Duration = Duration::from_secs(1);

/// Clears a terminal.
const CLEAR: &[u8] = b"\x1b[2J\x1b[H";

pub(super) async fn run(args: &Status, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let request = Request::new(Ask::Status, global, &options);
    if !args.watch {
        return match control::through(&request, output, &mut NoBlocks).await {
            Some(done) => done,
            None => here(global, options, output, true).await,
        };
    }
    let mut stop = Stop::listen()?;
    tokio::select! {
        result = watch(&request, global, options, output) => result.or_else(unless_interrupted),
        // It has no other end.
        _ = stop.wait() => Ok(()),
    }
}

async fn watch(request: &Request, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let clears = !output.is_json() && io::stdout().is_terminal();
    let mut first = true;
    loop {
        let begun = Instant::now();
        if clears {
            let mut out = io::stdout().lock();
            out.write_all(CLEAR).and_then(|()| out.flush()).map_err(|error| CliError::stdio("stdout", &error))?;
        }
        match control::through(request, output, &mut NoBlocks).await {
            // That process ended.
            Some(Err(error)) if error.code() == code::NO_ANSWER => {}
            Some(done) => done?,
            None => here(global, options.clone(), output, first).await?,
        }
        first = false;
        sleep(EVERY.max(LOOK_SHARE * begun.elapsed())).await;
    }
}

/// Of a store that this process opens, with or without a word of what is wrong with it.
async fn here(global: &Global, options: Options, output: &Output, warns: bool) -> Result<(), CliError> {
    let no_store = || CliError::new(code::NO_STORE, format!("there is no store at {}", global.store.display()));
    let multi = if warns {
        open_to_read(global, options, output).await?.ok_or_else(no_store)?.multi
    } else {
        open_beside(global, options).await?
    };
    let result = print(&multi, None, output).await;
    close_read(&multi, result, output).await
}

/// Of a store that this process has open.
pub(super) async fn of_open(multi: &Multifeed, board: &Board, output: &Output) -> Result<(), CliError> {
    print(multi, Some(board), output).await
}

async fn print(multi: &Multifeed, board: Option<&Board>, output: &Output) -> Result<(), CliError> {
    let feeds = multi.feeds();
    let root = multi.root_key().discovery_key().to_string();
    let peers = board.map(|board| board.peers(&root)).unwrap_or_default();
    let line = StatusLine {
        process: board.map(|_| std::process::id()),
        feeds: feeds.len() as u64,
        length: feeds.iter().map(|feed| feed.len()).sum(),
        downloaded: feeds.iter().map(|feed| feed.downloaded()).sum(),
        bytes: feeds.iter().fold(0, |sum, feed| feed.byte_len().saturating_add(sum)),
        missing: feeds.iter().map(|feed| feed.len() - feed.downloaded().min(feed.len())).sum(),
        peers: peers.into_iter().map(StatusPeer::from).collect(),
        bans: multi.banned().await?.len() as u64,
        conflicts: multi.conflicts().await?.len() as u64,
    };
    output.print(|| line.text(), &line)
}
