//! What another command asked for, done by the process that has the store open.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use multifeed_tokio::{Error, Multifeed, StoreError};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::wire::{Reply, read_batch, read_line, write_line};
use super::{Appending, Ask, Place, Request};
use crate::commands::opening::warn_open;
use crate::commands::writers::{OpenWriter, open_writer};
use crate::commands::{ban, cat, clear, conflicts, feeds, remove, status, verify, watch};
use crate::error::{CliError, code};
use crate::output::{Event, FeedLine, Output, Part};

/// The multifeeds that this process has open.
pub(super) type Served = Arc<[(Place, Multifeed)]>;

/// Batches in memory at once.
const BATCHES: usize = 8;

/// Why a request ends.
pub(super) enum Failure {
    /// The other end has left, or says what makes no sense.
    Gone,
    Cli(CliError),
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Failure::Gone
    }
}

impl<E: Into<CliError>> From<(E,)> for Failure {
    fn from((error,): (E,)) -> Self {
        Failure::Cli(error.into())
    }
}

/// Reads a request, and does it. `process` is what this process says itself.
pub(super) async fn answer(
    stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin),
    served: &Served,
    process: &Output,
) -> Result<(), Failure> {
    let Some(Request { place, store, json, ask }) = read_line(stream).await? else { return Err(Failure::Gone) };
    // A folder that is a multifeed itself is meant whatever the root key of its sessions is.
    let meant = served.iter().find(|(served, multi)| *served == place || !multi.is_in_corestore());
    let Some((_, multi)) = meant else {
        let message = match place.is_of_no_key() {
            true => {
                "no root key is given, and the process that has the corestore open serves another multifeed of it: give its root key (--key-file, or the \
                 variable MULTIFEED_KEY)"
            }
            false => {
                "the process that has the corestore open serves another multifeed of it, with another root key or namespace: end it, and try again"
            }
        };
        return Err(Failure::Cli(CliError::new(code::LOCKED, message)));
    };
    match ask {
        Ask::Append(appending) => append(stream, multi, &appending).await,
        ask => relayed(stream, (multi, process), &store, json, ask).await,
    }
}

async fn append(
    stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin),
    multi: &Multifeed,
    Appending { writer, new_key, sync_each }: &Appending,
) -> Result<(), Failure> {
    static PLACES: Semaphore = Semaphore::const_new(BATCHES);
    let OpenWriter { feed, is_new } = open_writer(multi, writer, *new_key).await.map_err(Failure::Cli)?;
    let open = Reply::Open { key: feed.key().to_string(), name: feed.name(), length: feed.len(), is_new };
    write_line(stream, &open).await?;
    stream.flush().await?;
    loop {
        // One that does not come yet takes no place.
        if stream.fill_buf().await?.is_empty() {
            return Err(Failure::Gone);
        }
        let place = PLACES.acquire().await.map_err(|_| Failure::Gone)?;
        let batch = read_batch(stream).await?;
        let is_last = batch.is_empty();
        if !is_last {
            feed.append_bytes(batch).await.map_err(|error| (error,))?;
        }
        drop(place);
        if is_last || *sync_each {
            synced(feed.sync_to_disk().await).map_err(Failure::Cli)?;
        }
        write_line(stream, &Reply::Done { length: feed.len() }).await?;
        stream.flush().await?;
        if is_last {
            return Ok(());
        }
    }
}

/// That the journal is full, not a file of a feed, is no failure: what was done is synced, and opening finds it without the journal. Reported as a
/// failure, it would be done twice.
fn synced(result: Result<(), Error>) -> Result<(), CliError> {
    match result {
        Err(Error::Store(StoreError::Full { slot: None, .. })) => Ok(()),
        synced => Ok(synced?),
    }
}

/// Runs a command, and sends what it prints.
async fn relayed(
    stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin),
    (multi, process): (&Multifeed, &Output),
    store: &Path,
    json: bool,
    ask: Ask,
) -> Result<(), Failure> {
    write_line(stream, &Reply::Accepted).await?;
    stream.flush().await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (output, mut parts) = Output::to_relay(json);
    let mut work = pin!(run((multi, process), store, ask, &output));
    let done = loop {
        tokio::select! {
            biased;
            Some(part) = parts.recv() => {
                write_part(&mut writer, part).await?;
                if parts.is_empty() {
                    writer.flush().await?;
                }
            }
            done = &mut work => break done,
            // Nothing more is asked for: the other end has left.
            _ = reader.read_u8() => return Err(Failure::Gone),
        }
    };
    while let Ok(part) = parts.try_recv() {
        write_part(&mut writer, part).await?;
    }
    done.map_err(Failure::Cli)?;
    write_line(&mut writer, &Reply::End).await?;
    Ok(writer.flush().await?)
}

async fn write_part(writer: &mut (impl AsyncWrite + Unpin), part: Part) -> io::Result<()> {
    match part {
        Part::Text { text, to_stderr } => {
            write_line(writer, &Reply::Text { to_stderr, bytes: text.len() as u64 }).await?;
            writer.write_all(text.as_bytes()).await
        }
        Part::Block { key, index, block } => {
            write_line(writer, &Reply::Block { key, index, bytes: block.len() as u64 }).await?;
            writer.write_all(&block).await
        }
        Part::Bar { done, total } => write_line(writer, &Reply::Bar { done, total }).await,
        Part::Flush(written) => {
            write_line(writer, &Reply::Flush).await?;
            writer.flush().await?;
            let _ = written.send(());
            Ok(())
        }
    }
}

async fn run((multi, process): (&Multifeed, &Output), store: &Path, ask: Ask, output: &Output) -> Result<(), CliError> {
    // What is asked over and over is answered without a word.
    if !matches!(ask, Ask::Status | Ask::Watch) {
        warn_open(multi, store, output).await?;
    }
    match ask {
        // It is answered elsewhere.
        Ask::Append(_) => return Ok(()),
        Ask::Feeds(listing) => return feeds::of_open(multi, listing, store, output).await,
        Ask::Cat(blocks) => return cat::of_open(multi, &blocks, output).await,
        Ask::Remove(args) => {
            let FeedLine { key, name, .. } = &remove::remove(multi, &args, output).await?;
            let people = || format!("feed {key}, named {name}, was removed here: it is not synced any more");
            process.print(people, &Event::Removed { key: key.clone(), name })?;
        }
        Ask::Ban(args) => {
            if let Some(key) = ban::set(multi, &args.feed, true, output).await? {
                let people = || format!("feed {key} was banned here: it is not synced any more");
                process.print(people, &Event::Banned { key: key.to_string() })?;
            }
        }
        Ask::Unban(args) => _ = ban::set(multi, &args.feed, false, output).await?,
        Ask::Clear(args) => clear::clear(multi, &args, output).await?,
        Ask::Verify(args) => return verify::of_open(multi, &args, output).await,
        Ask::Status => return status::of_open(multi, process.board(), output).await,
        Ask::Watch => return watch::of_open(multi, output).await,
        Ask::Conflicts(args) => conflicts::of_open(multi, &args, output).await?,
    }
    // As closing the store does.
    synced(multi.sync_to_disk().await)
}
