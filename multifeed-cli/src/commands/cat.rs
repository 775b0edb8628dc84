//! `multifeed cat`: a feed's blocks on stdout.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use multifeed_tokio::{Feed, Multifeed, Options};

use super::find;
use super::reading::{changed, close_read, open_to_read};
use crate::args::{BlockRange, Cat, Global};
use crate::error::{CliError, code};
use crate::output::{BlockLine, Output, count, to_json};

/// Bytes gathered for one write to stdout.
const WRITE_BYTES: usize = 1 << 18;

/// How blocks are written.
enum Form {
    /// To stdout, each followed by this.
    After(&'static [u8]),
    /// To stdout, as an object a line.
    Objects,
    /// Each to a file of this folder.
    Files(PathBuf),
}

impl Form {
    fn of(args: &Cat, output: &Output) -> Self {
        match &args.to {
            Some(folder) => Form::Files(folder.clone()),
            None if args.null => Form::After(b"\0"),
            None if output.is_json() => Form::Objects,
            None if args.lines || io::stdout().is_terminal() => Form::After(b"\n"),
            None => Form::After(b""),
        }
    }

    fn write(&self, feed: &Feed, index: u64, block: &[u8], out: &mut impl Write) -> Result<(), CliError> {
        let stdio = |error| CliError::stdio("stdout", &error);
        match self {
            Form::After(end) => out.write_all(block).and_then(|()| out.write_all(end)).map_err(stdio),
            Form::Objects => {
                let text = std::str::from_utf8(block).ok();
                let base64 = text.is_none().then(|| STANDARD.encode(block));
                let line = to_json(&BlockLine { key: feed.key().to_string(), block: index, text, base64 });
                writeln!(out, "{line}").map_err(stdio)
            }
            Form::Files(folder) => {
                // So that they sort as they are numbered.
                let path = folder.join(format!("{index:08}"));
                let failed = |error| CliError::new(code::IO, format!("{}: {error}", path.display()));
                let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
                file.write_all(block).map_err(|error| {
                    // Half a block is none.
                    let _ = fs::remove_file(&path);
                    failed(error)
                })
            }
        }
    }
}

pub(super) async fn run(args: Cat, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let no_store = || {
        let message = format!("no feed {}: there is no store at {}", args.feed, global.store.display());
        CliError::new(code::FEED, message)
    };
    let Some(mut reading) = open_to_read(global, options.clone(), output).await? else { return Err(no_store()) };
    let form = Form::of(&args, output);
    let range = match args.last {
        Some(last) => find(&reading.multi, &args.feed)
            .map(|feed| BlockRange { start: feed.len().saturating_sub(last), end: None }),
        None => Ok(args.range.unwrap_or(BlockRange { start: 0, end: None })),
    };
    let range = match range {
        Ok(range) => range,
        Err(error) => return close_read(&reading.multi, Err(error), output).await,
    };
    if let Form::Files(folder) = &form
        && let Err(error) = fs::create_dir_all(folder)
    {
        let error = CliError::new(code::IO, format!("{}: {error}", folder.display()));
        return close_read(&reading.multi, Err(error), output).await;
    }
    let mut next = range.start;
    let mut failed: Option<(u64, String)> = None;
    loop {
        let result = write_blocks(&reading.multi, &args.feed, &mut next, range.end, &form).await;
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
    ![code::FEED, code::AMBIGUOUS, code::NOT_HELD, code::IO].contains(&error.code())
}

/// Writes the blocks of a feed from `next` on, which says how far that went.
async fn write_blocks(
    multi: &Multifeed,
    feed: &str,
    next: &mut u64,
    end: Option<u64>,
    form: &Form,
) -> Result<(), CliError> {
    let feed = find(multi, feed)?;
    let stdio = |error| CliError::stdio("stdout", &error);
    // Stdout itself writes at each newline, which blocks may be full of.
    let mut out = std::io::BufWriter::with_capacity(WRITE_BYTES, std::io::stdout());
    let mut failure = None;
    while *next < end.unwrap_or_else(|| feed.len()) {
        match feed.get(*next).await {
            Ok(Some(block)) => form.write(&feed, *next, &block, &mut out)?,
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
        length => format!("is past its end: it has {}", count(length, "block")),
    };
    CliError::new(code::NOT_HELD, format!("block {index} of feed {} {why}", feed.key()))
}
