//! `multifeed cat`: a feed's blocks on stdout.

use std::io::Write;

use multifeed_tokio::{Feed, Multifeed, Options};

use super::find;
use super::reading::{changed, close_read, open_to_read};
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
    let Some(mut reading) = open_to_read(global, options.clone(), output).await? else { return Err(no_store()) };
    let range = args.range.unwrap_or(BlockRange { start: 0, end: None });
    let mut next = range.start;
    let mut failed: Option<(u64, String)> = None;
    loop {
        let result = write_blocks(&reading.multi, &args.feed, &mut next, range.end).await;
        let error = match result {
            Err(error) if !error.is_stdio() && (reading.is_beside() || is_damage(&error)) => error,
            result => return close_read(&reading.multi, result, output).await,
        };
        // What another process was writing just then is whole when it is looked at again.
        match failed {
            Some((block, message)) if block == next => {
                let same = message == error.message();
                let error = if same { error } else { changed(error.message()) };
                return close_read(&reading.multi, Err(error), output).await;
            }
            _ => failed = Some((next, error.message().to_owned())),
        }
        reading = reading.again(global, options.clone(), output).await?;
    }
}

/// Whether the failure is of the store, and not of what was asked for.
fn is_damage(error: &CliError) -> bool {
    ![code::FEED, code::AMBIGUOUS, code::NOT_HELD].contains(&error.code())
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
