//! `multifeed cat`: a feed's blocks on stdout.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use multifeed_tokio::{Feed, Multifeed, Options};
use tokio::time::{Instant, sleep};

use super::control::{self, Ask, Blocks, LOOK_SHARE, Request, TakeBlocks, unless_interrupted};
use super::find;
use super::reading::{changed, close_read, open_beside, open_to_read};
use crate::args::{BlockRange, Cat, Global};
use crate::error::{CliError, code};
use crate::output::{BlockLine, Output, Part, count, to_json};
use crate::stop::Stop;

/// Bytes gathered for one write to stdout.
const WRITE_BYTES: usize = 1 << 18;

/// How often a store that no process serves is looked at for new blocks, at the most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How blocks are written.
enum Form {
    /// To stdout, each followed by this.
    After(&'static [u8]),
    /// To stdout, as an object a line.
    Objects,
    /// Each to a file of this folder.
    Files(PathBuf),
}

/// Where blocks go.
struct Writing {
    form: Form,
    out: BufWriter<Stdout>,
    /// The feed's key and the block that comes next, once one was written.
    next: Option<(String, u64)>,
    has_folder: bool,
}

impl Writing {
    fn new(args: &Cat, output: &Output) -> Self {
        let form = match &args.to {
            Some(folder) => Form::Files(folder.clone()),
            None if args.null => Form::After(b"\0"),
            None if output.is_json() => Form::Objects,
            None if args.lines || io::stdout().is_terminal() => Form::After(b"\n"),
            None => Form::After(b""),
        };
        // Stdout itself writes at each newline, which blocks may be full of.
        Self { form, out: BufWriter::with_capacity(WRITE_BYTES, io::stdout()), next: None, has_folder: false }
    }

    fn make_folder(&mut self) -> Result<(), CliError> {
        let Form::Files(folder) = &self.form else { return Ok(()) };
        if !std::mem::replace(&mut self.has_folder, true) {
            fs::create_dir_all(folder)
                .map_err(|error| CliError::new(code::IO, format!("{}: {error}", folder.display())))?;
        }
        Ok(())
    }
}

impl TakeBlocks for Writing {
    fn block(&mut self, key: &str, index: u64, block: &[u8]) -> Result<(), CliError> {
        self.make_folder()?;
        let stdio = |error| CliError::stdio("stdout", &error);
        match &self.form {
            Form::After(end) => {
                self.out.write_all(block).and_then(|()| self.out.write_all(end)).map_err(stdio)?;
            }
            Form::Objects => {
                let text = std::str::from_utf8(block).ok();
                let base64 = text.is_none().then(|| STANDARD.encode(block));
                let line = to_json(&BlockLine { key: key.to_owned(), block: index, text, base64 });
                writeln!(self.out, "{line}").map_err(stdio)?;
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
                })?;
            }
        }
        match &mut self.next {
            Some((_, next)) => *next = index + 1,
            None => self.next = Some((key.to_owned(), index + 1)),
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CliError> {
        self.make_folder()?;
        self.out.flush().map_err(|error| CliError::stdio("stdout", &error))
    }
}

pub(super) async fn run(args: Cat, global: &Global, options: Options, output: &Output) -> Result<(), CliError> {
    let mut writing = Writing::new(&args, output);
    let range = args.range.unwrap_or(BlockRange { start: 0, end: None });
    let start = args.last.is_none().then_some(range.start);
    let last = args.last.unwrap_or(0);
    let mut wanted = Blocks { feed: args.feed, start, end: range.end, last, follow: args.follow };
    let result = if args.follow {
        let mut stop = Stop::listen()?;
        tokio::select! {
            ended = follow(&mut wanted, &mut writing, global, options, output) => ended.or_else(unless_interrupted),
            // It has no other end.
            _ = stop.wait() => Ok(()),
        }
    } else {
        let request = Request::new(Ask::Cat(wanted.clone()), global, &options);
        match control::through(&request, output, &mut writing).await {
            Some(done) => done,
            None => here(&wanted, &mut writing, global, options, output).await,
        }
    };
    // What was read is written, also before a failure.
    let flushed = writing.out.flush().map_err(|error| CliError::stdio("stdout", &error));
    result.and(flushed)
}

/// Writes the blocks of a feed as they come, whoever has the store open.
async fn follow(
    wanted: &mut Blocks,
    writing: &mut Writing,
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<(), CliError> {
    let (mut first, mut failed) = (true, None);
    loop {
        if let Some((key, next)) = &writing.next {
            (wanted.feed, wanted.start) = (key.clone(), Some(*next));
            if wanted.end.is_some_and(|end| *next >= end) {
                return Ok(());
            }
        }
        let request = Request::new(Ask::Cat(wanted.clone()), global, &options);
        let answered = control::through(&request, output, writing).await;
        // What looking at the files costs decides when to look again, not how long another process answered.
        let begun = Instant::now();
        let result = match answered {
            // That process ended; another one may have the store next.
            Some(Err(error)) if error.code() == code::NO_ANSWER => Ok(()),
            Some(done) => return done,
            None if first => here(wanted, writing, global, options.clone(), output).await,
            None => glance(wanted, writing, global, options.clone(), output).await,
        };
        match result {
            // What is being written just then is whole when it is looked at again.
            Err(error) if !first && failed.as_ref() != Some(&(writing.next.clone(), error.message().to_owned())) => {
                failed = Some((writing.next.clone(), error.message().to_owned()));
            }
            result => result?,
        }
        first = false;
        sleep(LOOK_EVERY.max(LOOK_SHARE * begun.elapsed())).await;
    }
}

/// Writes the blocks of a store that this process opens. What seems damaged is looked at twice.
async fn here(
    wanted: &Blocks,
    writing: &mut Writing,
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<(), CliError> {
    let no_store = || {
        let message = format!("no feed {}: there is no store at {}", wanted.feed, global.store.display());
        CliError::new(code::FEED, message)
    };
    let Some(mut reading) = open_to_read(global, options.clone(), output).await? else { return Err(no_store()) };
    let mut failed: Option<(Option<(String, u64)>, String)> = None;
    loop {
        let result = write_blocks(&reading.multi, wanted, writing).await;
        let error = match result {
            Err(error) if !error.is_stdio() && (reading.is_beside() || is_damage(&error)) => error,
            result => return close_read(&reading.multi, result, output).await,
        };
        // What another process was writing just then is whole when it is looked at again.
        match failed {
            Some((block, message)) if block == writing.next => {
                let same = message == error.message();
                let error = if same { error } else { changed(error.message()) };
                return close_read(&reading.multi, Err(error), output).await;
            }
            _ => failed = Some((writing.next.clone(), error.message().to_owned())),
        }
        reading = reading.again(global, options.clone(), output).await?;
    }
}

/// Writes the blocks that are new, without a word and without a lock.
async fn glance(
    wanted: &Blocks,
    writing: &mut Writing,
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<(), CliError> {
    let multi = open_beside(global, options).await?;
    let result = write_blocks(&multi, wanted, writing).await;
    close_read(&multi, result, output).await
}

/// Whether the failure is of the store, and not of what was asked for.
fn is_damage(error: &CliError) -> bool {
    ![code::FEED, code::AMBIGUOUS, code::NOT_HELD, code::IO].contains(&error.code())
}

/// Writes the blocks that are wanted and were not written yet.
async fn write_blocks(multi: &Multifeed, wanted: &Blocks, writing: &mut Writing) -> Result<(), CliError> {
    let feed = find(multi, &wanted.feed)?;
    let key = feed.key().to_string();
    let mut next = writing.next.as_ref().map_or_else(|| first_of(wanted, &feed), |(_, next)| *next);
    let mut failure = None;
    while next < wanted.end.unwrap_or_else(|| feed.len()) {
        match feed.get(next).await {
            Ok(Some(block)) => writing.block(&key, next, &block)?,
            Ok(None) if wanted.follow => break,
            Ok(None) => failure = Some(not_held(&feed, next)),
            Err(error) => failure = Some(error.into()),
        }
        if failure.is_some() {
            break;
        }
        next += 1;
    }
    writing.flush()?;
    failure.map_or(Ok(()), Err)
}

fn first_of(wanted: &Blocks, feed: &Feed) -> u64 {
    wanted.start.unwrap_or_else(|| feed.len().saturating_sub(wanted.last))
}

/// Of a store that this process has open, for another one.
pub(super) async fn of_open(multi: &Multifeed, wanted: &Blocks, output: &Output) -> Result<(), CliError> {
    let Some(relay) = output.relay() else { return Ok(()) };
    let feed = find(multi, &wanted.feed)?;
    let mut events = feed.events().await?;
    let key = feed.key().to_string();
    let (mut next, mut bytes) = (first_of(wanted, &feed), 0);
    loop {
        while next < wanted.end.unwrap_or_else(|| feed.len()) {
            let block = match feed.get(next).await? {
                Some(block) => block,
                None if wanted.follow => break,
                None => return Err(not_held(&feed, next)),
            };
            bytes += block.len();
            relay.push(Part::Block { key: key.clone(), index: next, block });
            if bytes >= WRITE_BYTES {
                relay.flush().await?;
                bytes = 0;
            }
            next += 1;
        }
        relay.flush().await?;
        if !wanted.follow || wanted.end.is_some_and(|end| next >= end) {
            return Ok(());
        }
        // Others may come in the middle of many.
        if events.next().await.is_none() {
            let message = format!("feed {key} was removed");
            return Err(CliError::new("ERR_REMOVED", message));
        }
    }
}

fn not_held(feed: &Feed, index: u64) -> CliError {
    let why = match feed.len() {
        length if index < length => "is not in this store".to_owned(),
        length => format!("is past its end: it has {}", count(length, "block")),
    };
    CliError::new(code::NOT_HELD, format!("block {index} of feed {} {why}", feed.key()))
}
