//! `multifeed clear`: the space of blocks, back to the disk.

use multifeed_tokio::{Multifeed, Options, StoreError};

use super::find;
use super::opening::{close, open_existing};
use crate::args::{Clear, Global};
use crate::error::{CliError, code};
use crate::output::{ClearedLine, Output, count, one_line};

pub(super) async fn run(args: Clear, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let Some(multi) = open_existing(global, options, output).await? else {
        let message = format!("no feed {}: there is no store at {}", args.feed, global.store.display());
        return Err(CliError::new(code::FEED, message));
    };
    let result = clear(&multi, &args, output).await;
    close(&multi, result, output).await
}

pub(super) async fn clear(multi: &Multifeed, args: &Clear, output: &Output) -> Result<(), CliError> {
    let feed = find(multi, &args.feed)?;
    let (key, length) = (feed.key(), feed.len());
    let (start, end) = (args.range.start, args.range.end.unwrap_or(length));
    if start > length || end > length {
        let last = if start > length { start } else { end - 1 };
        let message = format!("feed {key} has {}, counted from 0: there is no block {last}", count(length, "block"));
        return Err(CliError::new(code::RANGE, message));
    }
    if (feed.writable() || feed.lost_key()) && !args.writer {
        let message = format!(
            "feed {key} is written here, or was: what is cleared of it is lost, unless a peer has it; --writer clears it all the same"
        );
        return Err(CliError::new(StoreError::OwnWriter { key }.code(), message));
    }
    let cleared = feed.clear(start..end).await?;
    let line = ClearedLine { key: key.to_string(), start, end, cleared, downloaded: feed.downloaded() };
    let people = || format!("cleared {} of feed {key}, named {}", count(cleared, "block"), one_line(&feed.name()));
    output.print(people, &line)
}
