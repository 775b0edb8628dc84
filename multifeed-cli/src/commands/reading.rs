//! Opening a store to read it: also one that cannot be written, and one that another process has open.

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::time::Duration;

use multifeed_tokio::{
    Corestore, Error, FeedKey, FileStorage, Multifeed, Options, Recovered, RepairedInMemory, StoreError,
};

use super::opening::{
    Repaired, cannot_open, check_unserved, in_corestore, open_either, problems, repairs, root_key, wait_for_lock, warn,
    warn_lasting, warn_of_store, warn_unsupported,
};
use crate::args::Global;
use crate::error::{CliError, code};
use crate::output::{Output, count};
use crate::problems::warn_of;

/// What is said of a store that is read beside another process.
const BESIDE: &str = "another process has the store open: it is read as it stands at this moment, without a lock";

/// The lock of a store.
const LOCK: &str = "multifeed.lock";

/// What is said of a store whose lock is of no use.
const UNLOCKED: &str = "cannot be opened as a lock: the store is read without a lock, and another process may be changing it; nothing can be written before that is put right";

/// How long another process has to finish what it writes, before a store in which something seems wrong is looked at again.
const PAUSE: Duration = Duration::from_millis(200);

/// A store that is read. JS takes no lock of ours, so that any store may be written meanwhile: damage is what was seen twice.
pub(super) struct Reading {
    pub(super) multi: Multifeed,
    /// What opening it found to be wrong, twice.
    pub(super) problems: Vec<String>,
    /// Why secret keys may not be read, as those of another user's store: nothing is wrong with that, for a command that only reads.
    sealed: Vec<String>,
    /// What only the second opening found to be wrong.
    pub(super) changed: Vec<String>,
    /// What opening it repaired in memory, twice.
    repairs: Vec<String>,
    /// Of feeds that had blocks which are not there, what opening them found, twice.
    pub(super) lost: BTreeMap<FeedKey, String>,
    how: Unwritten,
}

/// How a store is opened that is not written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unwritten {
    /// The command does not write, or the disk does not take writes, or not ours.
    ReadOnly,
    /// Its lock cannot be read, or is no file: whether another process has it nobody can say.
    Unlocked,
    /// Another process has it.
    Beside,
}

/// Opens the store for a command that only reads; `None` if there is none. Nothing in it is changed: what a crash or damage left to repair is
/// repaired in memory.
pub(super) async fn open_to_read(
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<Option<Reading>, CliError> {
    if let Ok(false) = global.store.try_exists() {
        return Ok(None);
    }
    let reading = look_twice(global, options, Unwritten::ReadOnly, output).await?;
    if reading.how == Unwritten::Beside {
        output.warn(BESIDE);
    }
    warn_of(&reading.problems, output);
    if let [first, others @ ..] = &reading.sealed[..] {
        let others = match others.len() as u64 {
            0 => String::new(),
            others => format!("; and so can {} more not", count(others, "key")),
        };
        output.warn(&format!(
            "{first}{others}: what was written with it is read all the same, and nothing can be appended"
        ));
    }
    warn_of(&reading.repairs, output);
    warn_lasting(&reading.multi, &global.store, output).await?;
    Ok(Some(reading))
}

/// Opens the store without a lock and without a word.
pub(super) async fn open_beside(global: &Global, options: Options) -> Result<Multifeed, CliError> {
    Ok(open_unwritten(global, options, Unwritten::Beside).await?)
}

impl Reading {
    fn new(multi: Multifeed, how: Unwritten) -> Self {
        let sealed: Vec<String> = multi.sealed_keys().iter().map(ToString::to_string).collect();
        let (mut problems, repairs) = (problems(&multi), repairs(&multi, Repaired::InMemory));
        problems.retain(|problem| !sealed.contains(problem));
        let lost = multi.recovered().into_iter().filter(Recovered::is_loss);
        let lost = lost.map(|recovered| (recovered.key, recovered.to_string())).collect();
        Self { multi, problems, sealed, changed: Vec::new(), repairs, lost, how }
    }

    /// Of a store that this process has open.
    pub(super) fn of_open(multi: &Multifeed) -> Self {
        let (repairs, lost) = (Vec::new(), BTreeMap::new());
        Self {
            multi: multi.clone(),
            problems: problems(multi),
            // It can be read by whoever opened it, or that was said then.
            sealed: Vec::new(),
            changed: Vec::new(),
            repairs,
            lost,
            how: Unwritten::ReadOnly,
        }
    }

    /// Whether opening it found nothing that another process may be the cause of.
    fn is_plain(&self) -> bool {
        self.problems.is_empty() && self.repairs.is_empty()
    }

    /// Whether another process has it open for sure.
    pub(super) fn is_beside(&self) -> bool {
        self.how == Unwritten::Beside
    }

    /// Opens the store once more, without a word.
    pub(super) async fn again(&self, global: &Global, options: Options, output: &Output) -> Result<Self, CliError> {
        close_read(&self.multi, Ok(()), output).await?;
        tokio::time::sleep(PAUSE).await;
        look_twice(global, options, self.how, output).await
    }
}

/// Opens the store; if that finds anything wrong, once more.
async fn look_twice(global: &Global, options: Options, how: Unwritten, output: &Output) -> Result<Reading, CliError> {
    let first = look(global, options.clone(), how, output).await;
    let how = first.as_ref().map_or(how, |reading| reading.how);
    let (before, repairs_before, lost_before) = match first {
        Ok(first) if first.is_plain() => return Ok(first),
        Ok(first) => {
            close_read(&first.multi, Ok(()), output).await?;
            (first.problems, first.repairs, first.lost)
        }
        Err(error) => (vec![error.message().to_owned()], Vec::new(), BTreeMap::new()),
    };
    tokio::time::sleep(PAUSE).await;
    let mut reading = match look(global, options, how, output).await {
        Err(error) if !before.iter().any(|it| it == error.message()) => return Err(changed(error.message())),
        opened => opened?,
    };
    // There may be any number of them.
    let (before, repairs_before): (HashSet<String>, HashSet<String>) =
        (before.into_iter().collect(), repairs_before.into_iter().collect());
    let problems = std::mem::take(&mut reading.problems);
    (reading.problems, reading.changed) = problems.into_iter().partition(|it| before.contains(it));
    reading.repairs.retain(|it| repairs_before.contains(it));
    reading.lost.retain(|key, it| lost_before.get(key) == Some(it));
    Ok(reading)
}

/// Opens the store, without a lock if another process has it.
async fn look(global: &Global, options: Options, how: Unwritten, output: &Output) -> Result<Reading, CliError> {
    if how == Unwritten::ReadOnly {
        match open_unwritten(global, options.clone(), how).await {
            Ok(multi) if has_locked(&multi) => close_read(&multi, Ok(()), output).await?,
            Err(Error::Store(StoreError::Locked { .. })) => {}
            Err(Error::Store(error)) if is_of_the_lock(&error) => {
                return Box::pin(look(global, options, Unwritten::Unlocked, output)).await;
            }
            opened => return Ok(Reading::new(opened?, how)),
        }
    }
    if how == Unwritten::Unlocked {
        let mut reading = Reading::new(open_unwritten(global, options, how).await?, how);
        reading.problems.push(format!("{} {UNLOCKED}", global.store.join(LOCK).display()));
        return Ok(reading);
    }
    let multi = open_unwritten(global, options, Unwritten::Beside).await?;
    let mut reading = Reading::new(multi, Unwritten::Beside);
    // What the other process is about to write looks like what a crash left.
    reading.repairs.clear();
    reading.lost.clear();
    Ok(reading)
}

/// The store could not be read as it was at one moment: what was seen need not be damage.
pub(super) fn changed(seen: &str) -> CliError {
    let message =
        format!("the store changed while it was read: try again, or end the process that has it open ({seen})");
    CliError::new(code::CHANGED, message)
}

/// Opens the store to serve it. One that cannot be written is only served from: whether that is so.
pub(super) async fn open_to_serve(
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<(Multifeed, bool), CliError> {
    check_unserved(global).await?;
    let opened = wait_for_lock(global, async || open_either(global, options.clone()).await).await;
    let (multi, only_reads) = match opened {
        Err(error) if cannot_be_written(&error) && global.store.is_dir() => {
            let multi = open_unwritten(global, options, Unwritten::ReadOnly).await?;
            output.warn(&format!("nothing is fetched, as the store cannot be written: {error}"));
            (multi, true)
        }
        opened => (opened.map_err(|error| cannot_open(error, global))?, false),
    };
    warn(&multi, global, if only_reads { Repaired::InMemory } else { Repaired::OnDisk }, output).await?;
    Ok((multi, only_reads))
}

/// As [`open_to_serve`], of one root key, or of several in a corestore.
pub(super) async fn open_all_to_serve(
    global: &Global,
    options: Options,
    keys: &[FeedKey],
    output: &Output,
) -> Result<(Vec<Multifeed>, bool), CliError> {
    if let [_] = keys {
        let (multi, only_reads) = open_to_serve(global, options, output).await?;
        return Ok((vec![multi], only_reads));
    }
    check_unserved(global).await?;
    let opened = wait_for_lock(global, async || Corestore::open(&global.store, options.clone()).await).await;
    let (store, only_reads) = match opened {
        Err(error) if cannot_be_written(&error) && global.store.is_dir() => {
            output.warn(&format!("nothing is fetched, as the store cannot be written: {error}"));
            let mut options = options;
            options.multifeed.limits.keep_free = 0;
            let store = Corestore::open_read_only(&global.store, false, options).await;
            (store.map_err(|error| cannot_open(error, global))?, true)
        }
        opened => (opened.map_err(|error| cannot_open(error, global))?, false),
    };
    let multis = in_corestore(&store, global, keys).await?;
    warn_of_store(&multis, global, output).await?;
    Ok((multis, only_reads))
}

async fn open_unwritten(global: &Global, mut options: Options, how: Unwritten) -> Result<Multifeed, Error> {
    // Nothing is fetched into it, however much is free.
    options.multifeed.limits.keep_free = 0;
    let open = match how {
        Unwritten::ReadOnly => FileStorage::open_read_only_with,
        Unwritten::Unlocked | Unwritten::Beside => FileStorage::open_beside_with,
    };
    let storage = match open(global.store.clone(), options.files.clone()) {
        Err(StoreError::IsCorestore { .. }) => {
            let beside = how != Unwritten::ReadOnly;
            let root_key = root_key(&options);
            let store = Corestore::open_read_only(&global.store, beside, options).await?;
            return Multifeed::in_corestore(&store, &global.corestore.namespace(), root_key).await;
        }
        opened => opened.map_err(Error::Store)?,
    };
    // What cannot be repaired in memory either is reported as a feed that cannot be opened.
    Multifeed::with_storage(RepairedInMemory::new(storage), options).await
}

/// Whether the store's lock cannot be opened, and all else may be.
fn is_of_the_lock(error: &StoreError) -> bool {
    let path = match error {
        StoreError::Io { path, source, .. } if source.kind() == ErrorKind::PermissionDenied => path,
        StoreError::NotRegular { path, .. } => path,
        _ => return false,
    };
    path.as_ref().and_then(|path| path.file_name()).is_some_and(|name| name == LOCK)
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
