//! `multifeed append`: blocks for a writer.

use bytes::Bytes;
use multifeed_tokio::{Durability, Options};

use super::control::{self, Appending, Ask, Remote, Request, answered, interrupted};
use super::opening::{close, open};
use super::root_keys;
use super::whereabouts::Whereabouts;
use super::writers::{OpenWriter, open_writer};
use crate::args::{Append, Global};
use crate::error::{CliError, code};
use crate::input::{Batch, Input};
use crate::output::{AppendLine, Event, Output, Unit, count, one_line};
use crate::stop::Stop;

pub(super) async fn run(args: Append, global: &Global, options: Options, mut output: Output) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    let before = Whereabouts::of(global);
    // If there is nothing to append, no store and no writer is made for it.
    let mut input = Input::new(args.text, args.file, args.keep_cr)?;
    let first = input.next_batch(&mut stop).await?;
    if let (true, Some(signal)) = (first.blocks.is_empty(), first.stopped) {
        return Err(interrupted(signal));
    }
    before.check()?;
    let sync_each = global.durability == Durability::Always;
    let appending = Appending { writer: args.writer, new_key: args.new_key, sync_each };
    let request = Request::new(Ask::Append(appending.clone()), global, &options);
    // On a disk without locks nothing else keeps this process from opening the store beside the one that listens.
    let (multi, writer) = match answer(control::connect(&request), &mut stop).await? {
        Some(remote) => (None, Ok(Writer::Beside(remote?))),
        None => match open(global, options, &output).await {
            // The process that has it may listen only now.
            Err(locked) if locked.code() == code::LOCKED => {
                let remote = answer(control::connect(&request), &mut stop).await?;
                (None, Ok(Writer::Beside(remote.ok_or(locked)??)))
            }
            opened => {
                let multi = opened?;
                root_keys::remember(std::slice::from_ref(&multi), global, &output);
                let writer = open_writer(&multi, &appending.writer, appending.new_key).await;
                (Some(multi), writer.map(Writer::Here))
            }
        },
    };
    let whereabouts = Whereabouts::of(global);
    writer.iter().for_each(|writer| writer.say_if_new(&output));
    output.start_bar(Unit::Bytes);
    let result = match writer {
        Ok(mut writer) => append(&mut writer, (input, first), &mut stop, &whereabouts, &output).await,
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
    Here(OpenWriter),
    /// Of one that another process has open.
    Beside(Remote),
}

impl Writer {
    fn len(&self) -> u64 {
        match self {
            Writer::Here(writer) => writer.feed.len(),
            Writer::Beside(remote) => remote.length,
        }
    }

    async fn append(&mut self, batch: Vec<Bytes>, stop: &mut Stop) -> Result<(), CliError> {
        match self {
            Writer::Here(writer) => writer.feed.append_bytes(batch).await.map(drop).map_err(CliError::from),
            Writer::Beside(remote) => {
                let unknown = format!("it is not known whether {} more came in", count(batch.len() as u64, "block"));
                answer(remote.append(&batch), stop).await.map_err(|error| error.explained(&unknown))?
            }
        }
    }

    async fn finish(&mut self, stop: &mut Stop) -> Result<(), CliError> {
        match self {
            // Closing the store does it.
            Writer::Here(_) => Ok(()),
            Writer::Beside(remote) => answer(remote.finish(), stop).await?,
        }
    }

    /// Says that it was made: a name that was mistyped is another author.
    fn say_if_new(&self, output: &Output) {
        let is_new = match self {
            Writer::Here(writer) => writer.is_new,
            Writer::Beside(remote) => remote.is_new,
        };
        if is_new {
            let AppendLine { key, name, .. } = self.line(0);
            output.note(
                &format!("a new writer {}, {key}", one_line(&name)),
                &Event::NewWriter { key: &key, name: &name },
            );
        }
    }

    fn line(&self, start: u64) -> AppendLine {
        let (key, name) = match self {
            Writer::Here(OpenWriter { feed, .. }) => (feed.key().to_string(), feed.name()),
            Writer::Beside(remote) => (remote.key.clone(), remote.name.clone()),
        };
        AppendLine { key, name, start, length: self.len() }
    }
}

async fn append(
    writer: &mut Writer,
    (mut input, mut batch): (Input, Batch),
    stop: &mut Stop,
    whereabouts: &Whereabouts,
    output: &Output,
) -> Result<AppendLine, CliError> {
    let start = writer.len();
    let mut bytes = 0_u64;
    let mut stopped = batch.stopped;
    let mut deaf = Stop::deaf();
    while !batch.blocks.is_empty() {
        bytes += batch.blocks.iter().map(|block| block.len() as u64).sum::<u64>();
        let heard = if stopped.is_some() { &mut deaf } else { &mut *stop };
        writer.append(batch.blocks, heard).await.map_err(|error| so_far(error, writer.len() - start))?;
        output.set_bar(Unit::Bytes, bytes, 0);
        if stopped.is_some() {
            break;
        }
        batch = input.next_batch(stop).await.map_err(|failure| so_far(failure, writer.len() - start))?;
        stopped = batch.stopped;
    }
    let heard = if stopped.is_some() { &mut deaf } else { stop };
    writer.finish(heard).await.map_err(|error| so_far(error, writer.len() - start))?;
    if let Some(signal) = stopped {
        return Err(so_far(interrupted(signal), writer.len() - start));
    }
    // If the store was moved, nobody finds what was appended.
    whereabouts.check().map_err(|error| so_far(error, writer.len() - start))?;
    Ok(writer.line(start))
}

/// Waits for the process that has the store open. It may be stopped.
async fn answer<T>(asked: impl Future<Output = T>, stop: &mut Stop) -> Result<T, CliError> {
    tokio::select! {
        answered = answered(asked) => answered,
        signal = stop.wait() => Err(interrupted(signal)),
    }
}

/// The failure, with what was appended before it, if anything was.
fn so_far(failure: CliError, blocks: u64) -> CliError {
    match blocks {
        0 => failure,
        done => failure.after(&format!("{} appended before that", count(done, "block"))),
    }
}
