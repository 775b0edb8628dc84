//! Opening a store to read it: also one that cannot be written, and one that another process has open.

use std::io::ErrorKind;

use multifeed_tokio::{Error, FileStorage, Multifeed, Options, RepairedInMemory, StoreError};

use super::{Repaired, cannot_open, warn, warn_unsupported};
use crate::args::Global;
use crate::error::CliError;
use crate::output::Output;

/// What is said of a store that is read beside another process.
const BESIDE: &str = "another process has the store open: it is read as it stands at this moment, without a lock";
/// What is added to a failure that this may be the cause of.
const CHANGED: &str =
    "it was tried twice; another process has the store open, and it may have changed while it was read";

/// A store that is read.
pub(super) struct Reading {
    pub(super) multi: Multifeed,
    /// Another process has it open, or a feed of it.
    pub(super) beside: bool,
}

/// How a store is opened that is not written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unwritten {
    /// The command does not write, or the disk does not take writes, or not ours.
    ReadOnly,
    /// Another process has it.
    Beside,
}

/// Opens the store for a command that only reads; `None` where there is none. Nothing in it is changed: what a crash or damage left to repair is
/// repaired in memory.
pub(super) async fn open_to_read(
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<Option<Reading>, CliError> {
    if let Ok(false) = global.store.try_exists() {
        return Ok(None);
    }
    let multi = match open_unwritten(global, options.clone(), Unwritten::ReadOnly).await {
        Ok(multi) if has_locked(&multi) => {
            multi.close().await?;
            return open_beside(global, options, output).await.map(Some);
        }
        Err(Error::Store(StoreError::Locked { .. })) => return open_beside(global, options, output).await.map(Some),
        opened => opened?,
    };
    warn(&multi, global, Repaired::InMemory, output);
    Ok(Some(Reading { multi, beside: false }))
}

/// Opens the store beside another process that has it open. What seems wrong is looked at once more.
pub(super) async fn open_beside(global: &Global, options: Options, output: &Output) -> Result<Reading, CliError> {
    let mut multi = open_unwritten(global, options.clone(), Unwritten::Beside).await?;
    if !multi.problems().is_empty() {
        close_read(&multi, Ok(()), output).await?;
        multi = open_unwritten(global, options, Unwritten::Beside).await?;
    }
    output.warn(BESIDE);
    warn(&multi, global, Repaired::InMemory, output);
    Ok(Reading { multi, beside: true })
}

/// Opens the store to serve it. One that cannot be written is only served from: whether that is so.
pub(super) async fn open_to_serve(
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<(Multifeed, bool), CliError> {
    let (multi, only_reads) = match Multifeed::open(&global.store, options.clone()).await {
        Err(error) if cannot_be_written(&error) && global.store.is_dir() => {
            let multi = open_unwritten(global, options, Unwritten::ReadOnly).await?;
            output.warn(&format!("nothing is fetched, as the store cannot be written: {error}"));
            (multi, true)
        }
        opened => (opened.map_err(|error| cannot_open(error, global))?, false),
    };
    warn(&multi, global, if only_reads { Repaired::InMemory } else { Repaired::OnDisk }, output);
    Ok((multi, only_reads))
}

async fn open_unwritten(global: &Global, options: Options, how: Unwritten) -> Result<Multifeed, Error> {
    let open = match how {
        Unwritten::ReadOnly => FileStorage::open_read_only_with,
        Unwritten::Beside => FileStorage::open_beside_with,
    };
    let storage = open(global.store.clone(), options.files.clone()).map_err(Error::Store)?;
    // What cannot be repaired in memory either is told as a feed that cannot be opened.
    Multifeed::with_storage(RepairedInMemory::new(storage), options).await
}

/// Whether another process has a feed of the store, as hypercore 9 locks one.
fn has_locked(multi: &Multifeed) -> bool {
    multi.problems().iter().any(|problem| matches!(problem, StoreError::Locked { .. }))
}

/// Whether the disk takes no writes, or not ours.
fn cannot_be_written(error: &Error) -> bool {
    let Error::Store(StoreError::Io { source, .. }) = error else { return false };
    matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Closes the store after a command that only read: what cannot be written then is no more than a note that nothing changed.
pub(super) async fn close_read<T>(
    multi: &Multifeed,
    result: Result<T, CliError>,
    output: &Output,
) -> Result<T, CliError> {
    let closed = multi.close().await;
    warn_unsupported(multi, output);
    match closed {
        Err(error) if !cannot_be_written(&error) => result.and(Err(error.into())),
        _ => result,
    }
}

/// The failure of a command, which another process may be the cause of.
pub(super) fn beside<T>(is_beside: bool, result: Result<T, CliError>) -> Result<T, CliError> {
    result.map_err(|error| if is_beside { error.after(CHANGED) } else { error })
}
