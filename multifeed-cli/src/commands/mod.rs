//! The commands, each in its own file, and what they share.

mod append;
mod ban;
mod cat;
mod clear;
#[cfg(unix)]
mod control;
#[cfg(not(unix))]
#[path = "no_control.rs"]
mod control;
mod crowd;
mod demo;
mod door;
mod feeds;
mod guest;
mod holder;
mod network;
mod outcome;
mod peer;
mod reading;
mod remove;
mod serve;
mod swarm;
mod sync;
mod testnet;
mod verify;
mod whereabouts;

use std::sync::{Mutex, PoisonError};

use multifeed_swarm::tcp::tune;
use multifeed_tokio::{
    Corestore, DEFAULT_ROOT_KEY, Error, Feed, FeedKey, FileStorage, FileStorageOptions, Multifeed, Options, Rearranged,
    StoreError, Unsupported, is_object_property,
};

use crate::args::{Args, Command, Global, KEY_VARIABLE};
use crate::error::{CliError, EXIT_USAGE, code};
use crate::output::{FeedLine, Output, count};
use crate::problems::warn_of;

/// Hex digits of a key.
const KEY_DIGITS: usize = 64;

/// Does what the command line says.
pub(crate) async fn run(args: Args, output: Output) -> Result<(), CliError> {
    let Args { global, command } = args;
    // Each command reports a wrong root key, also by those that need none.
    let (options, keys) = options(&global, &output)?;
    if !matches!(command, Command::Demo | Command::Testnet(_)) {
        check_corestore(&global, keys.len())?;
    }
    match command {
        Command::Serve(args) if keys.len() > 1 => network::serve(args, &global, options, &keys, output).await,
        Command::Sync(args) if keys.len() > 1 || args.retry => {
            network::sync(args, &global, options, &keys, output).await
        }
        Command::Swarm(args) => swarm::run(args, &global, options, &keys, output).await,
        _ if keys.len() > 1 => {
            let message =
                "only `serve`, `sync` and `swarm` take several root keys: give the one of the multifeed that is meant";
            Err(CliError::new(code::USAGE, message).with_exit(EXIT_USAGE))
        }
        Command::Append(args) => append::run(args, &global, options, output).await,
        Command::Feeds => feeds::run(&global, options, &output).await,
        Command::Cat(args) => cat::run(args, &global, options, &output).await,
        Command::Remove(args) => remove::run(args, &global, options, &output).await,
        Command::Ban(args) => ban::run(&args, true, &global, options, &output).await,
        Command::Unban(args) => ban::run(&args, false, &global, options, &output).await,
        Command::Clear(args) => clear::run(args, &global, options, &output).await,
        Command::Serve(args) => serve::run(args, &global, options, output).await,
        Command::Sync(args) => sync::run(args, &global, options, output).await,
        Command::Verify(args) => verify::run(&args, &global, options, output).await,
        Command::Demo => demo::run(options, &output).await,
        Command::Testnet(args) => testnet::run(&args, &output).await,
    }
}

/// The options of the command line, with the first of the root keys that are given, and these; the default one if none is.
fn options(global: &Global, output: &Output) -> Result<(Options, Vec<FeedKey>), CliError> {
    let (mut keys, warnings) = global.root_keys(std::env::var_os(KEY_VARIABLE))?;
    warnings.iter().for_each(|warning| output.warn(warning));
    let mut options = keys.first().copied().map_or_else(Options::default, Options::new);
    if keys.is_empty() {
        keys.push(DEFAULT_ROOT_KEY);
    }
    options = options.with_durability(global.durability);
    options.files.follow_links = global.follow_links;
    Ok((options, keys))
}

/// Opens the store, and makes it if there is none. Reports feeds in it that cannot be opened on stderr; the
/// others are unharmed.
async fn open(global: &Global, options: Options, output: &Output) -> Result<Multifeed, CliError> {
    check_unserved(global).await?;
    let multi = open_either(global, options).await.map_err(|error| cannot_open(error, global))?;
    warn(&multi, global, Repaired::OnDisk, output);
    Ok(multi)
}

/// Fails if another process listens at the store: on a disk without locks nothing else says that it is open.
async fn check_unserved(global: &Global) -> Result<(), CliError> {
    match control::is_served(&global.store).await {
        true => {
            let path = Some(global.store.clone());
            Err(cannot_open(Error::Store(StoreError::Locked { slot: None, file: None, path }), global))
        }
        false => Ok(()),
    }
}

/// Opens the store, or the multifeed of the root key in it if the folder is a corestore's.
async fn open_either(global: &Global, options: Options) -> Result<Multifeed, Error> {
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
fn check_corestore(global: &Global, keys: usize) -> Result<(), CliError> {
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
fn root_key(options: &Options) -> FeedKey {
    options.session.root.as_ref().map_or(DEFAULT_ROOT_KEY, |root| root.key)
}

/// Why the store cannot be opened; if another process has it, which.
fn cannot_open(error: Error, global: &Global) -> CliError {
    let is_locked = matches!(error, Error::Store(StoreError::Locked { .. }));
    let holder = if is_locked { holder::holder(&global.store) } else { None };
    let error = CliError::from(error);
    match holder {
        Some(holder) => error.after(&format!("{holder}, has the store open: end it, or try again later")),
        None => error,
    }
}

/// Warns of what the disk does not support, once.
fn warn_unsupported(multi: &Multifeed, output: &Output) {
    static SAID: Mutex<Option<Unsupported>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let now = multi.unsupported();
    now.since(said.unwrap_or_default()).warnings().for_each(|warning| output.warn(warning));
    *said = Some(now);
}

/// Where opening a store repaired what a crash or damage left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repaired {
    OnDisk,
    InMemory,
}

/// What opening a store set right, in words.
fn repairs(multi: &Multifeed, repaired: Repaired) -> Vec<String> {
    let of_feeds = multi.recovered().into_iter().map(|recovered| match repaired {
        // A writer's folder came: nothing was wrong.
        Repaired::OnDisk if recovered.copy.is_some() => recovered.to_string(),
        Repaired::OnDisk => format!("a crash or damage was repaired: {recovered}"),
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
fn problems(multi: &Multifeed) -> Vec<String> {
    multi.problems().iter().map(ToString::to_string).collect()
}

/// Warns of all that opening a store found.
fn warn(multi: &Multifeed, global: &Global, repaired: Repaired, output: &Output) {
    warn_of(&problems(multi), output);
    warn_of(&repairs(multi, repaired), output);
    warn_lasting(multi, global, output);
}

/// Warns of all that opening several multifeeds of one store found, which any of them reports.
fn warn_of_store(multis: &[Multifeed], global: &Global, output: &Output) {
    if let Some(multi) = multis.last() {
        warn(multi, global, Repaired::OnDisk, output);
    }
}

/// Warns of what was so before, and stays so.
fn warn_lasting(multi: &Multifeed, global: &Global, output: &Output) {
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
    let found = multi.conflicts_kept() as u64;
    if found > 0 {
        let evidence = global.store.join("multifeed.conflicts");
        let (found, evidence) = (count(found, "time"), evidence.display());
        output.warn(&format!(
            "{found} a peer had another history of a feed, signed by its writer as well: {evidence} is the evidence"
        ));
    }
}

/// As [`open`], for commands that add nothing: `None` if there is no store, and none is made.
async fn open_existing(global: &Global, options: Options, output: &Output) -> Result<Option<Multifeed>, CliError> {
    match global.store.try_exists() {
        Ok(false) => Ok(None),
        // Opening will report what is in the way.
        Ok(true) | Err(_) => open(global, options, output).await.map(Some),
    }
}

/// Closes the store after a command. If both failed, the command's own failure is what the user has to know.
async fn close<T>(multi: &Multifeed, result: Result<T, CliError>, output: &Output) -> Result<T, CliError> {
    let closed = multi.close().await.map_err(CliError::from);
    warn_unsupported(multi, output);
    let value = result?;
    closed?;
    Ok(value)
}

fn feed_line(feed: &Feed) -> FeedLine {
    FeedLine {
        key: feed.key().to_string(),
        name: feed.name(),
        length: feed.len(),
        bytes: feed.byte_len(),
        downloaded: feed.downloaded(),
        writable: feed.writable(),
    }
}

/// The feed that is meant: by its whole key, by its name, or by how its key starts.
fn find(multi: &Multifeed, text: &str) -> Result<Feed, CliError> {
    let start = text.to_ascii_lowercase();
    let feeds = multi.feeds();
    let by_key = feeds.iter().find(|feed| start.len() == KEY_DIGITS && feed.key().to_string() == start);
    if let Some(feed) = by_key.or_else(|| feeds.iter().find(|feed| feed.name() == text)) {
        return Ok(feed.clone());
    }
    let mut starting = feeds.iter().filter(|feed| !start.is_empty() && feed.key().to_string().starts_with(&start));
    let Some(feed) = starting.next() else {
        return Err(CliError::new(
            code::FEED,
            format!("no feed has the key or the name {text}, or a key that starts so"),
        ));
    };
    let others: Vec<&Feed> = starting.collect();
    if others.is_empty() {
        return Ok(feed.clone());
    }
    let mut message = format!("the keys of {} feeds start with {text}:", others.len() + 1);
    for feed in std::iter::once(feed).chain(others) {
        message.push_str(&format!("\n  {}  {}", feed.key(), feed.name()));
    }
    Err(CliError::new(code::AMBIGUOUS, message))
}
