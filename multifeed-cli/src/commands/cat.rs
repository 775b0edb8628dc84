//! `multifeed cat`: a feed's blocks on stdout.

use std::io::Write;

use multifeed_tokio::{Feed, Options};

use super::{close_read, find, open_to_read};
use crate::args::{BlockRange, Cat, Global};
use crate::error::{CliError, code};
use crate::output::Output;

/// Bytes gathered for one write to stdout.
const WRITE_BYTES: usize = 1 << 18;

pub(super) async fn run(args: Cat, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let Some(multi) = open_to_read(global, options, output).await? else {
        let message = format!("no feed {}: there is no store at {}", args.feed, global.store.display());
        return Err(CliError::new(code::FEED, message));
    };
    let result = match find(&multi, &args.feed) {
        Ok(feed) => write_blocks(&feed, args.range).await,
        Err(error) => Err(error),
    };
    close_read(&multi, result).await
}

async fn write_blocks(feed: &Feed, range: Option<BlockRange>) -> Result<(), CliError> {
    let range = range.unwrap_or(BlockRange { start: 0, end: None });
    let stdio = |error| CliError::stdio("stdout", &error);
    // Stdout itself writes at each newline, which blocks may be full of.
    let mut out = std::io::BufWriter::with_capacity(WRITE_BYTES, std::io::stdout());
    let mut failure = None;
    for index in range.start..range.end.unwrap_or_else(|| feed.len()) {
        match feed.get(index).await {
            Ok(Some(block)) => out.write_all(&block).map_err(stdio)?,
            Ok(None) => {
                failure = Some(not_held(feed, index));
                break;
            }
            Err(error) => {
                failure = Some(error.into());
                break;
            }
        }
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
