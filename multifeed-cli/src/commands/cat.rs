//! `multifeed cat`: a feed's blocks on stdout.

use std::io::Write;

use multifeed_tokio::{Feed, Multifeed, Options};

use super::find;
use super::reading::{Reading, beside, close_read, open_beside, open_to_read};
use crate::args::{BlockRange, Cat, Global};
use crate::error::{CliError, code};
use crate::output::Output;

/// Bytes gathered for one write to stdout.
const WRITE_BYTES: usize = 1 << 18;

pub(super) async fn run(args: Cat, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let no_store = || {
        let message = format!("no feed {}: there is no store at {}", args.feed, global.store.display());
        CliError::new(code::FEED, message)
    };
    let Some(Reading { mut multi, beside: is_beside }) = open_to_read(global, options.clone(), output).await? else {
        return Err(no_store());
    };
    let range = args.range.unwrap_or(BlockRange { start: 0, end: None });
    let mut next = range.start;
    let mut result = write_blocks(&multi, &args.feed, &mut next, range.end).await;
    if is_beside && result.as_ref().is_err_and(|error| !error.is_stdio()) {
        // What was being written just then is whole by now.
        close_read(&multi, Ok(()), output).await?;
        multi = open_beside(global, options, output).await?.multi;
        result = beside(true, write_blocks(&multi, &args.feed, &mut next, range.end).await);
    }
    close_read(&multi, result, output).await
}

/// Writes the blocks of a feed from `next` on, which says how far that went.
async fn write_blocks(multi: &Multifeed, feed: &str, next: &mut u64, end: Option<u64>) -> Result<(), CliError> {
    let feed = find(multi, feed)?;
    let stdio = |error| CliError::stdio("stdout", &error);
    // Stdout itself writes at each newline, which blocks may be full of.
    let mut out = std::io::BufWriter::with_capacity(WRITE_BYTES, std::io::stdout());
    let mut failure = None;
    while *next < end.unwrap_or_else(|| feed.len()) {
        match feed.get(*next).await {
            Ok(Some(block)) => out.write_all(&block).map_err(stdio)?,
            Ok(None) => {
                failure = Some(not_held(&feed, *next));
                break;
            }
            Err(error) => {
                failure = Some(error.into());
                break;
            }
        }
        *next += 1;
    }
    out.flush().map_err(stdio)?;
    failure.map_or(Ok(()), Err)
}

fn not_held(feed: &Feed, index: u64) -> CliError {
    let why = match feed.len() {
        length if index < length => "is not in this store".to_owned(),
        length => format!("is past its end: it has {length} blocks"),
    };
    CliError::new(code::NOT_HELD, format!("block {index} of feed {} {why}", feed.key()))
}
