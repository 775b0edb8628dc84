//! `multifeed append`: blocks for a writer.

use bytes::Bytes;
use multifeed_tokio::{Feed, Multifeed, Options};

use super::{close, open};
use crate::args::{Append, Global};
use crate::error::{CliError, code};
use crate::input::Input;
use crate::output::{AppendLine, Output, Unit, count, one_line};
use crate::stop::Stop;

pub(super) async fn run(args: Append, global: &Global, options: Options, mut output: Output) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    // Where there is nothing to append, no store and no writer is made for it.
    let first = next_batch(Input::new(args.text, args.file)?, &mut stop).await?;
    let multi = open(global, options, &output).await?;
    output.start_bar(Unit::Bytes);
    let result = append(&multi, (&args.writer, args.new_key), first, &mut stop, &output).await;
    output.end_bar();
    let line = close(&multi, result, &output).await?;
    let people = || {
        let blocks = count(line.length - line.start, "block");
        let name = one_line(&line.name);
        format!("{blocks} appended to {name} ({}), which has {} now", line.key, count(line.length, "block"))
    };
    output.print(people, &line)
}

async fn append(
    multi: &Multifeed,
    (writer, new_key): (&str, bool),
    (mut input, mut batch): (Input, Vec<Bytes>),
    stop: &mut Stop,
    output: &Output,
) -> Result<AppendLine, CliError> {
    if new_key && !multi.release_missing_name(writer).await? && multi.feeds().iter().any(|feed| feed.name() == writer) {
        let message = format!("the feed `{writer}` is not missing: leave --new-key out, or choose another name");
        return Err(CliError::new(code::FEED, message));
    }
    let feed = multi.writer(writer).await?;
    let start = feed.len();
    let mut bytes = 0_u64;
    while !batch.is_empty() {
        bytes += batch.iter().map(|block| block.len() as u64).sum::<u64>();
        feed.append_bytes(batch).await.map_err(|error| so_far(error.into(), &feed, start))?;
        output.set_bar(Unit::Bytes, bytes, 0);
        (input, batch) = next_batch(input, stop).await.map_err(|failure| so_far(failure, &feed, start))?;
    }
    Ok(AppendLine { key: feed.key().to_string(), name: feed.name(), start, length: feed.len() })
}

/// Reads a batch. That may wait for a file or for whoever writes to stdin, so a thread does it, and a signal ends the wait.
async fn next_batch(mut input: Input, stop: &mut Stop) -> Result<(Input, Vec<Bytes>), CliError> {
    let read = tokio::task::spawn_blocking(move || input.next_batch().map(|batch| (input, batch)));
    tokio::select! {
        read = read => read.map_err(|error| CliError::new(code::IO, format!("reading failed: {error}")))?,
        signal = stop.wait() => Err(CliError::new(code::INTERRUPTED, "interrupted").with_exit(signal.exit())),
    }
}

/// The failure, with what was appended before it, where that is something.
fn so_far(failure: CliError, feed: &Feed, start: u64) -> CliError {
    match feed.len().saturating_sub(start) {
        0 => failure,
        done => failure.after(&format!("{} appended before that", count(done, "block"))),
    }
}
