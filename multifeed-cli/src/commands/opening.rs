//! Opening a store, what is said of it then, and closing it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use multifeed_tokio::{
    Corestore, DEFAULT_ROOT_KEY, Error, Feed, FeedKey, FileStorage, FileStorageOptions, Multifeed, Options, PeerLimits,
    Rearranged, StoreError, Unsupported, is_object_property,
};
use tokio::time::{Instant, sleep};

use super::{holder, listener};
use crate::args::{Bounds, Global};
use crate::error::{CliError, EXIT_USAGE, code};
use crate::output::{Output, count, one_line};
use crate::problems::warn_of;

/// How long a command waits for the lock of a store, which others that read it have for a moment each, and how often it tries.
const LOCK_TIME: Duration = Duration::from_secs(3);
const TRY_EVERY: Duration = Duration::from_millis(30);

/// Opens the store, and makes it if there is none. Reports feeds in it that cannot be opened on stderr; the
/// others are unharmed.
pub(super) async fn open(global: &Global, options: Options, output: &Output) -> Result<Multifeed, CliError> {
    check_unserved(global).await?;
    let multi = wait_for_lock(global, async || open_either(global, options.clone()).await).await;
    let multi = multi.map_err(|error| cannot_open(error, global))?;
    warn(&multi, global, Repaired::OnDisk, output).await?;
    Ok(multi)
}

/// Opens the multifeed of one root key, or those of several in a corestore, and warns of what that found.
pub(super) async fn open_all(
    global: &Global,
    options: Options,
    keys: &[FeedKey],
    output: &Output,
) -> Result<Vec<Multifeed>, CliError> {
    if let [_] = keys {
        return Ok(vec![open(global, options, output).await?]);
    }
    let multis = open_several(global, options, keys).await?;
    warn_of_store(&multis, global, output).await?;
    Ok(multis)
}

/// Opens a multifeed of a corestore for each of several root keys.
pub(super) async fn open_several(
    global: &Global,
    options: Options,
    keys: &[FeedKey],
) -> Result<Vec<Multifeed>, CliError> {
    let store = wait_for_lock(global, async || Corestore::open(&global.store, options.clone()).await).await;
    let store = store.map_err(|error| cannot_open(error, global))?;
    in_corestore(&store, global, keys).await
}

pub(super) async fn in_corestore(
    store: &Corestore,
    global: &Global,
    keys: &[FeedKey],
) -> Result<Vec<Multifeed>, CliError> {
    let mut multis = Vec::new();
    for key in keys {
        multis.push(Multifeed::in_corestore(store, &global.corestore.namespace(), *key).await?);
    }
    Ok(multis)
}

/// Fails if another process listens at the store: on a disk without locks nothing else says that it is open.
pub(super) async fn check_unserved(global: &Global) -> Result<(), CliError> {
    match listener::is_served(&global.store).await {
        true => {
            let path = Some(global.store.clone());
            Err(cannot_open(Error::Store(StoreError::Locked { slot: None, file: None, path }), global))
        }
        false => Ok(()),
    }
}

/// Opens what `open` opens, in turns with other processes: if one has the store's lock, it has some time to end. One that listens has the store
/// for long, and is not waited for.
pub(super) async fn wait_for_lock<T>(global: &Global, open: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let until = Instant::now() + LOCK_TIME;
    let mut first = true;
    loop {
        match open().await {
            Err(Error::Store(StoreError::Locked { .. }))
                if Instant::now() < until && !listener::is_served(&global.store).await => {}
            opened => return opened,
        }
        if std::mem::take(&mut first) {
            tracing::debug!("{} is locked: waiting for it", global.store.display());
        }
        sleep(TRY_EVERY).await;
    }
}

/// Opens the store, or the multifeed of the root key in it if the folder is a corestore's.
pub(super) async fn open_either(global: &Global, options: Options) -> Result<Multifeed, Error> {
    if !global.corestore.corestore {
        match Multifeed::open(&global.store, options.clone()).await {
            Err(Error::Store(StoreError::IsCorestore { .. })) => {}
            opened => return opened,
        }
    }
    let root_key = root_key(&options);
    let store = Corestore::open(&global.store, options).await?;
    Multifeed::in_corestore(&store, &global.corestore.namespace(), root_key).await
}

/// Several root keys, and a namespace, need a corestore. None is made unless that was said.
pub(super) fn check_corestore(global: &Global, keys: usize) -> Result<(), CliError> {
    let (code, what) = match &global.corestore.namespace {
        _ if global.corestore.corestore => return Ok(()),
        Some(_) => (code::USAGE, "--namespace needs"),
        None if keys > 1 => (code::OTHER_STORE, "several root keys need"),
        None => return Ok(()),
    };
    match FileStorage::open_beside_with(&global.store, FileStorageOptions::default()) {
        Err(StoreError::IsCorestore { .. }) => Ok(()),
        // What it is, or that it cannot be read.
        Err(error) if global.store.is_dir() => Err(Error::Store(error).into()),
        _ => {
            let store = global.store.display();
            let error = CliError::new(code, format!("{what} a corestore, and {store} is none: --corestore makes one"));
            Err(if code == code::USAGE { error.with_exit(EXIT_USAGE) } else { error })
        }
    }
}

/// The root key of the options, as its sessions use it.
pub(super) fn root_key(options: &Options) -> FeedKey {
    options.session.root.as_ref().map_or(DEFAULT_ROOT_KEY, |root| root.key)
}

/// Why the store cannot be opened; if another process has it, which.
pub(super) fn cannot_open(error: Error, global: &Global) -> CliError {
    let is_locked = matches!(error, Error::Store(StoreError::Locked { .. }));
    let holder = if is_locked { holder::holder(&global.store) } else { None };
    let error = CliError::from(error);
    match holder {
        Some(holder) => error.after(&format!("{holder}, has the store open: end it, or try again later")),
        None => error,
    }
}

/// Warns of what the disk does not support, once.
pub(super) fn warn_unsupported(multi: &Multifeed, output: &Output) {
    if output.relay().is_some() {
        // To another process nothing was said yet.
        return multi.unsupported().warnings().for_each(|warning| output.warn(warning));
    }
    static SAID: Mutex<Option<Unsupported>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let now = multi.unsupported();
    now.since(said.unwrap_or_default()).warnings().for_each(|warning| output.warn(warning));
    *said = Some(now);
}

/// Where opening a store repaired what a crash or damage left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repaired {
    OnDisk,
    InMemory,
}

/// What opening a store set right, in words.
pub(super) fn repairs(multi: &Multifeed, repaired: Repaired) -> Vec<String> {
    let of_feeds = multi.recovered().into_iter().map(|recovered| match repaired {
        // A writer's folder came: nothing was wrong.
        Repaired::OnDisk if recovered.copy.is_some() => recovered.to_string(),
        Repaired::OnDisk if recovered.unclean => format!("a crash or damage was repaired: {recovered}"),
        // Opening looks at the end of a feed alone.
        Repaired::OnDisk => {
            format!(
                "damage was repaired as far as opening the store needs it: {recovered}; `verify` finds what is left"
            )
        }
        Repaired::InMemory => format!("a crash or damage is to be repaired, and nothing was changed: {recovered}"),
    });
    let of_folders = multi.rearranged().into_iter().map(|done| match (done, repaired) {
        (Rearranged::Removed { slot }, Repaired::InMemory) => {
            format!(
                "the removal of the feed in folder {slot} was cut short before, and nothing was changed: \
                 a command that writes finishes it"
            )
        }
        _ => done.to_string(),
    });
    of_folders.chain(of_feeds).collect()
}

/// What opening a store found to be wrong, in words.
pub(super) fn problems(multi: &Multifeed) -> Vec<String> {
    multi.problems().iter().map(ToString::to_string).collect()
}

/// Warns of all that opening a store found.
pub(super) async fn warn(
    multi: &Multifeed,
    global: &Global,
    repaired: Repaired,
    output: &Output,
) -> Result<(), CliError> {
    warn_of(&problems(multi), output);
    warn_of(&repairs(multi, repaired), output);
    warn_lasting(multi, &global.store, output).await
}

/// As [`warn`], of a store that is open already: what that repaired was said then.
pub(super) async fn warn_open(multi: &Multifeed, store: &Path, output: &Output) -> Result<(), CliError> {
    warn_of(&problems(multi), output);
    warn_lasting(multi, store, output).await
}

/// Warns of all that opening several multifeeds of one store found, which any of them reports.
pub(super) async fn warn_of_store(multis: &[Multifeed], global: &Global, output: &Output) -> Result<(), CliError> {
    match multis.last() {
        Some(multi) => warn(multi, global, Repaired::OnDisk, output).await,
        None => Ok(()),
    }
}

/// Warns of what was so before, and stays so.
pub(super) async fn warn_lasting(multi: &Multifeed, store: &Path, output: &Output) -> Result<(), CliError> {
    warn_unsupported(multi, output);
    let feeds = multi.feeds();
    let unreachable = feeds.iter().filter(|feed| feed.writable() && is_object_property(&feed.name())).map(|feed| {
        format!(
            "a JavaScript app cannot reach the writer `{}` (feed {}) by its name: every JavaScript object has a property of that name",
            feed.name(),
            feed.key()
        )
    });
    warn_of(&unreachable.collect::<Vec<_>>(), output);
    let exposed = multi.exposed_keys();
    if let Some(first) = exposed.first() {
        let others = exposed.len() as u64 - 1;
        let others = if others > 0 { format!("; so can {} more", count(others, "key")) } else { String::new() };
        output.warn(&format!("{first}{others}"));
    }
    // What is said of a feed that is gone is not said for ever.
    let mut forked: Vec<Feed> = Vec::new();
    for conflict in multi.conflicts().await? {
        forked.extend(multi.feed(conflict.key).filter(|feed| !forked.contains(feed)));
    }
    if let Some(first) = forked.first() {
        let others = forked.len() as u64 - 1;
        let others = if others > 0 { format!(", and {} more", count(others, "feed")) } else { String::new() };
        output.warn(&format!(
            "feed {}, named {}{others}: a peer had another history, signed by the writer as well: {} is the evidence (`multifeed conflicts`)",
            first.key(),
            one_line(&first.name()),
            store.join("multifeed.conflicts").display()
        ));
    }
    Ok(())
}

/// As [`open`], for commands that add nothing: `None` if there is no store, and none is made.
pub(super) async fn open_existing(
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<Option<Multifeed>, CliError> {
    match global.store.try_exists() {
        Ok(false) => Ok(None),
        // Opening will report what is in the way.
        Ok(true) | Err(_) => open(global, options, output).await.map(Some),
    }
}

/// Closes the store after a command. If both failed, the command's own failure is what the user has to know.
pub(super) async fn close<T>(multi: &Multifeed, result: Result<T, CliError>, output: &Output) -> Result<T, CliError> {
    let closed = multi.close().await.map_err(CliError::from);
    warn_unsupported(multi, output);
    let value = result?;
    closed?;
    Ok(value)
}

/// The store's bounds, as the command line says.
pub(super) fn bounded(mut options: Options, bounds: &Bounds) -> Options {
    let limits = &mut options.multifeed.limits;
    limits.peer = PeerLimits { feeds: bounds.max_feeds_per_peer, bytes: bounds.max_bytes_per_peer.as_u64() };
    limits.keep_free = bounds.keep_free.as_u64();
    options
}
