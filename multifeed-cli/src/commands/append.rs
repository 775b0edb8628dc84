//! `multifeed append`: blocks for a writer.

use bytes::Bytes;
use multifeed_tokio::{Durability, Feed, Options};

use super::control::{self, Place, Remote, Request};
use super::opening::{close, open, root_key};
use super::whereabouts::Whereabouts;
use super::writers::open_writer;
use crate::args::{Append, Global};
use crate::error::{CliError, code};
use crate::input::Input;
use crate::output::{AppendLine, Output, Unit, count, one_line};
use crate::stop::Stop;

pub(super) async fn run(args: Append, global: &Global, options: Options, mut output: Output) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    let before = Whereabouts::of(global);
    // If there is nothing to append, no store and no writer is made for it.
    let first = next_batch(Input::new(args.text, args.file)?, &mut stop).await?;
    before.check()?;
    let place = Place::new(&root_key(&options), global);
    let sync_each = global.durability == Durability::Always;
    let request = Request { writer: args.writer, new_key: args.new_key, sync_each, place };
    // On a disk without locks nothing else keeps this process from opening the store beside the one that listens.
    let (multi, writer) = match control::connect(&global.store, &request).await {
        Some(remote) => (None, Ok(Writer::Beside(remote?))),
        None => match open(global, options, &output).await {
            // The process that has it may listen only now.
            Err(locked) if locked.code() == code::LOCKED => {
                let remote = control::connect(&global.store, &request).await;
                (None, Ok(Writer::Beside(remote.ok_or(locked)??)))
            }
            opened => {
                let multi = opened?;
                let writer = open_writer(&multi, &request.writer, request.new_key).await;
                (Some(multi), writer.map(Writer::Here))
            }
        },
    };
    let whereabouts = Whereabouts::of(global);
    output.start_bar(Unit::Bytes);
    let result = match writer {
        Ok(mut writer) => append(&mut writer, first, &mut stop, &whereabouts, &output).await,
        Err(error) => Err(error),
    };
    output.end_bar();
    let line = match &multi {
        Some(multi) => close(multi, result, &output).await?,
        None => result?,
    };
    let people = || {
        let blocks = count(line.length - line.start, "block");
        let name = one_line(&line.name);
        format!("{blocks} appended to {name} ({}), which has {} now", line.key, count(line.length, "block"))
    };
    output.print(people, &line)
}

/// A writer that blocks are appended to.
enum Writer {
    /// Of a store that this process has open.
    Here(Feed),
    /// Of one that another process has open.
    Beside(Remote),
}

impl Writer {
    fn len(&self) -> u64 {
        match self {
            Writer::Here(feed) => feed.len(),
            Writer::Beside(remote) => remote.length,
        }
    }

    async fn append(&mut self, batch: Vec<Bytes>) -> Result<(), CliError> {
        match self {
            Writer::Here(feed) => feed.append_bytes(batch).await.map(drop).map_err(CliError::from),
            Writer::Beside(remote) => remote.append(&batch).await,
        }
    }

    async fn finish(&mut self) -> Result<(), CliError> {
        match self {
            // Closing the store does it.
            Writer::Here(_) => Ok(()),
            Writer::Beside(remote) => remote.finish().await,
        }
    }

    fn line(&self, start: u64) -> AppendLine {
        let (key, name) = match self {
            Writer::Here(feed) => (feed.key().to_string(), feed.name()),
            Writer::Beside(remote) => (remote.key.clone(), remote.name.clone()),
        };
        AppendLine { key, name, start, length: self.len() }
    }
}

async fn append(
    writer: &mut Writer,
    (mut input, mut batch): (Input, Vec<Bytes>),
    stop: &mut Stop,
    whereabouts: &Whereabouts,
    output: &Output,
) -> Result<AppendLine, CliError> {
    let start = writer.len();
    let mut bytes = 0_u64;
    while !batch.is_empty() {
        bytes += batch.iter().map(|block| block.len() as u64).sum::<u64>();
        writer.append(batch).await.map_err(|error| so_far(error, writer.len() - start))?;
        output.set_bar(Unit::Bytes, bytes, 0);
        (input, batch) = next_batch(input, stop).await.map_err(|failure| so_far(failure, writer.len() - start))?;
    }
    writer.finish().await.map_err(|error| so_far(error, writer.len() - start))?;
    // If the store was moved, nobody finds what was appended.
    whereabouts.check().map_err(|error| so_far(error, writer.len() - start))?;
    Ok(writer.line(start))
}

/// Reads a batch. That may wait for a file or for the writer of stdin, so a thread does it, and a signal ends the wait.
async fn next_batch(mut input: Input, stop: &mut Stop) -> Result<(Input, Vec<Bytes>), CliError> {
    let read = tokio::task::spawn_blocking(move || input.next_batch().map(|batch| (input, batch)));
    tokio::select! {
        read = read => read.map_err(|error| CliError::new(code::IO, format!("reading failed: {error}")))?,
        signal = stop.wait() => Err(CliError::new(code::INTERRUPTED, "interrupted").with_exit(signal.exit())),
    }
}

/// The failure, with what was appended before it, if anything was.
fn so_far(failure: CliError, blocks: u64) -> CliError {
    match blocks {
        0 => failure,
        done => failure.after(&format!("{} appended before that", count(done, "block"))),
    }
}
